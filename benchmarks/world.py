"""A world of images to look at: tools on bases for platforms, all of them fresh, in a registry's folder, and its project.

    .venv/bin/python -m benchmarks.world FOLDER TOOLS BASES [PLATFORMS]

makes `FOLDER/registry`, for `imagewright registry serve --root`, and `FOLDER/project`. The documents are as large as those
of images that people publish: a base has six layers and a dozen steps, a tool adds two layers, five steps and ten labels.
"""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagewright.documents import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from imagewright.layout import REF_NAME, Layout, to_json
from imagewright.load import load_catalogue
from imagewright.names import digest_of
from imagewright.recipe import BUILDKIT, Recipes
from imagewright.testing.projects import make_project

ROOT = Path(__file__).parents[1]
CREATED = "2026-01-01T00:00:00Z"
PLATFORMS = ("linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """How many there are of each."""

    tools: int
    bases: int
    platforms: int = 2

    @property
    def pairs(self) -> int:
        """How many pairs."""
        return self.tools * self.bases

    def tool(self, number: int) -> str:
        """The name of a tool."""
        return f"tool{number:03}"

    def base(self, number: int) -> str:
        """The name of a base."""
        return f"base{number:03}"

    @property
    def cold(self) -> int:
        """The requests of a run that remembers nothing, without tag pages, tokens and canaries."""
        return (1 + 2 * self.platforms) * (self.pairs + self.bases) + self.pairs

    @property
    def warm(self) -> int:
        """The requests of a run that knows every document."""
        return 2 * self.pairs + self.bases


def make(folder: Path, world: World, registry: str = "127.0.0.1:5050") -> None:
    """Makes both; registry: the address that the project names."""
    project = make_project(
        folder / "project",
        registry=registry,
        tools={world.tool(one): f"1.{one}.0" for one in range(world.tools)},
        platforms=PLATFORMS[: world.platforms],
    )
    for tool in (project / "tools").iterdir():
        (tool / "install.sh").write_text(f"#!/bin/sh\ncurl -fsSL https://example.test/{tool.name} | tar xz\n")
    (project / "tools" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\n")
    catalogue = load_catalogue(project, {})
    recipes = Recipes(catalogue.settings.label_prefix)
    recipe = {tool.name: recipes.of(tool, BUILDKIT) for tool in catalogue.tools}
    bases, tools = (_Repository(folder / "registry" / f"own+{name}") for name in ("bases", "tools"))
    for number in range(world.bases):
        name = world.base(number)
        below = {one: _base(name, one) for one in PLATFORMS[: world.platforms]}
        digest = bases.publish([f"{name}-latest"], below)
        for at in range(world.tools):
            tool = world.tool(at)
            labels = _labels(tool, name, f"1.{at}.0", digest, recipe[tool])
            on_top = {one: _on_top(it, tool, name, labels) for one, it in below.items()}
            tools.publish([f"{tool}-{name}-1.{at}.0", f"{tool}-{name}-latest"], on_top)
    bases.close()
    tools.close()


def make_apart(folder: Path, world: World) -> None:
    """The same in a process of its own: what is measured later does not start out as large as a world."""
    counts = [str(one) for one in (world.tools, world.bases, world.platforms)]
    subprocess.run([sys.executable, "-m", "benchmarks.world", folder, *counts], cwd=ROOT, check=True)


@dataclass(frozen=True, slots=True)
class _Image:
    """One platform's. layers: diff id and descriptor of each; history: its steps."""

    platform: str
    layers: Sequence[tuple[str, Mapping[str, Any]]]
    history: Sequence[Mapping[str, Any]]
    labels: Mapping[str, str]


class _Repository:
    """A layout that is written once, and whose `index.json` is written at the end."""

    def __init__(self, path: Path) -> None:
        self._layout = Layout.create(path)
        self._entries: list[Mapping[str, Any]] = []

    def publish(self, tags: Sequence[str], images: Mapping[str, _Image]) -> str:
        entries = [self._manifest(image) for image in images.values()]
        index = self._add({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, OCI_INDEX)
        self._entries += [{**index, "annotations": {REF_NAME: tag}} for tag in tags]
        return str(index["digest"])

    def close(self) -> None:
        self._layout.write_entries(self._entries)

    def _manifest(self, image: _Image) -> dict[str, Any]:
        system, architecture = image.platform.split("/")
        config = {
            "created": CREATED,
            "os": system,
            "architecture": architecture,
            "config": {
                "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8"],
                "Cmd": ["/bin/bash"],
                "WorkingDir": "/",
                "Labels": dict(image.labels),
            },
            "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in image.layers]},
            "history": list(image.history),
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": self._add(config, OCI_CONFIG),
            "layers": [descriptor for _, descriptor in image.layers],
        }
        platform = {"os": system, "architecture": architecture}
        return {**self._add(manifest, OCI_MANIFEST), "platform": platform}

    def _add(self, document: Mapping[str, Any], media_type: str) -> dict[str, Any]:
        content = to_json(document)
        digest = digest_of(content)
        self._layout.blob_path(digest).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _base(name: str, platform: str) -> _Image:
    steps = [f"RUN /bin/sh -c install-packages --group {at} # buildkit" for at in range(6)]
    return _Image(platform, _layers(name, platform, 6), list(_history(steps, 6)), {})


def _on_top(below: _Image, tool: str, base: str, labels: Mapping[str, str]) -> _Image:
    steps = [
        "COPY install.sh /tmp/install.sh # buildkit",
        "RUN |1 TOOL_VERSION /bin/sh -c sh /tmp/install.sh # buildkit",
    ]
    layers = [*below.layers, *_layers(f"{tool}-{base}", below.platform, 2)]
    return _Image(below.platform, layers, [*below.history, *_history(steps, 3)], labels)


def _layers(name: str, platform: str, count: int) -> list[tuple[str, Mapping[str, Any]]]:
    """Layers that nobody ever fetches: only their digests are real."""
    return [
        (
            digest_of(f"{name} {platform} {at}".encode()),
            {
                "mediaType": OCI_LAYER_GZIP,
                "digest": digest_of(f"{name} {platform} {at} gzip".encode()),
                "size": 1_000_000 + at,
            },
        )
        for at in range(count)
    ]


def _history(steps: Sequence[str], more: int) -> Iterator[Mapping[str, Any]]:
    for step in steps:
        yield {"created": CREATED, "created_by": step, "comment": "buildkit.dockerfile.v0"}
    for at in range(more):
        yield {
            "created": CREATED,
            "created_by": f"ENV SETTING_{at}=/usr/local/share/setting",
            "comment": "buildkit.dockerfile.v0",
            "empty_layer": True,
        }


def _labels(tool: str, base: str, version: str, base_digest: str, recipe: str) -> dict[str, str]:
    opencontainers = {
        "title": tool,
        "version": version,
        "created": CREATED,
        "description": f"The tool {tool}, ready to be run",
        "licenses": "Apache-2.0",
        "source": "https://github.com/own/tools",
        "revision": "0" * 40,
        "base.name": f"example.test/own/bases:{base}-latest",
        "base.digest": base_digest,
    }
    labels = {f"org.opencontainers.image.{name}": text for name, text in opencontainers.items()}
    return labels | {"imagewright.tool": tool, "imagewright.base": base, "imagewright.recipe": recipe}


if __name__ == "__main__":
    place, *counts = sys.argv[1:]
    make(Path(place), World(**dict(zip(("tools", "bases", "platforms"), map(int, counts)))))
