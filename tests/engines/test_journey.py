"""A maintainer's loop on real images: real registries, BuildKit, bases from Debian packages, tools from npm.

After each step an independent reading by skopeo has to agree with what the checks said.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagewright.embedded.server import Server
from imagewright.testing.images import HttpSink
from tests.engines import bases, independent
from tests.engines.bases import PLATFORMS, Layer, layer

ROOT = Path(__file__).parents[2]
JAVASCRIPT_TOOL = "semver"
REPOSITORY, BASES = "own/tools", "own/bases"


@dataclass(frozen=True, slots=True)
class Maintainer:
    """Somebody with a project and the three commands."""

    project: Path
    registry: str
    environ: Mapping[str, str]

    def checks(self, *arguments: str) -> dict[str, tuple[str, list[str]]]:
        """Runs the checks; target → verdict and `reason platform`s, sorted."""
        self._run(sys.executable, "-m", "pytest", "checks/", "-q", *arguments, allowed=(0, 1))
        report = json.loads((self.project / ".imagewright" / "report.json").read_bytes())
        return {
            one["target"]: (
                one["verdict"],
                sorted(f"{reason['code']} {reason['platform']}".strip() for reason in one["reasons"]),
            )
            for one in report["imagewright"]["verdicts"]
        }

    def record(self, target: str) -> dict[str, object]:
        """The record of a target in the last report."""
        report = json.loads((self.project / ".imagewright" / "report.json").read_bytes())
        return next(one for one in report["imagewright"]["verdicts"] if one["target"] == target)

    def plan(self) -> dict[str, str]:
        """Makes a plan; target → action."""
        self._imagewright("plan", allowed=(0, 10))
        plan = json.loads((self.project / ".imagewright" / "plan.json").read_bytes())
        return {one["target"]: one["action"] for one in plan["builds"]}

    def build(self) -> list[dict[str, str]]:
        """Carries the plan out and publishes; how each target ended."""
        said = self._imagewright("build", ".imagewright/plan.json", "--push", "--json", allowed=(0,))
        return list(json.loads(said)["results"])

    def explain(self, target: str) -> str:
        """What is known about a target."""
        return self._imagewright("explain", target, allowed=(0, 10, 20))

    def image(self, tag: str) -> str:
        """One of the published images, as skopeo names it."""
        return f"docker://{self.registry}/{REPOSITORY}:{tag}"

    def _imagewright(self, *arguments: str, allowed: tuple[int, ...]) -> str:
        return self._run(sys.executable, "-c", "from imagewright.cli import run; run()", *arguments, allowed=allowed)

    def _run(self, *argv: str, allowed: tuple[int, ...]) -> str:
        child = subprocess.run(
            argv, cwd=self.project, env=dict(self.environ), capture_output=True, text=True, check=False
        )
        assert child.returncode in allowed, f"{argv} ended with {child.returncode}\n{child.stdout}\n{child.stderr}"
        assert "Traceback" not in child.stdout + child.stderr
        return child.stdout


@contextmanager
def embedded_registry(folder: Path) -> Iterator[str]:
    with Server(folder) as server:
        yield server.address


@pytest.fixture(params=["debian", "embedded"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "debian":
        request.getfixturevalue("engine_bin")
        yield request.getfixturevalue("debian_registry")
    else:
        request.getfixturevalue("engine_bin")
        with embedded_registry(tmp_path / "registry") as address:
            yield address


def write_project(root: Path, registry: str, codex_platforms: tuple[str, ...]) -> None:
    (root / "conftest.py").parent.mkdir(parents=True)
    shutil.copy(ROOT / "conftest.py", root)
    shutil.copytree(ROOT / "checks", root / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "imagewright.toml").write_text(
        f'registry = "{registry}"\nrepository = "{REPOSITORY}"\nbootstrap = true\nbuilder = "buildkit"\n'
        f'[bases]\nrepository = "{BASES}"\n[registries."{registry}"]\nplain-http = true\n'
    )
    tools = root / "tools"
    tools.mkdir()
    for shared in ("Dockerfile", "Dockerfile.dockerignore"):
        shutil.copy(ROOT / "tools" / shared, tools)
    # codex as shipped; its binary is large, so under emulation only where a test asks for it.
    shutil.copytree(ROOT / "tools" / "codex", tools / "codex")
    with (tools / "codex" / "tool.yaml").open("a") as yaml:
        yaml.write("exclude-bases:\n  tiny: has no Node.js\n")
        yaml.write(f"platforms: [{', '.join(codex_platforms)}]\n")
    javascript = tools / JAVASCRIPT_TOOL
    shutil.copytree(ROOT / "tools" / "codex", javascript)
    for script in ("version.sh", "install.sh"):
        text = (javascript / script).read_text().replace("@openai/codex", JAVASCRIPT_TOOL)
        (javascript / script).write_text(text)
    (javascript / "tool.yaml").write_text("exclude-bases:\n  tiny: has no Node.js\n")
    local = tools / "hello"
    local.mkdir()
    release(root, "1.0.0")
    (local / "install.sh").write_text(
        "#!/bin/sh\nset -eu\nmkdir -p /usr/local/bin\n"
        'printf "#!/bin/sh\\necho hello %s on $(uname -m)\\n" "$TOOL_VERSION" > /usr/local/bin/hello\n'
        "chmod 755 /usr/local/bin/hello\n"
    )


def release(root: Path, version: str) -> None:
    (root / "tools" / "hello" / "version.sh").write_text(f"#!/bin/bash\necho {version}\n")


def with_middle(layers: Mapping[str, Layer], month: str) -> dict[str, Layer]:
    """The layers with one that changes every month before the last one, which never does."""
    *first, last = layers.items()
    last_layer = last if len(layers) > 1 else ("entrypoint", layer({"etc/entrypoint": b"never changes\n"}))
    kept = dict(first if len(layers) > 1 else layers)
    return {**kept, "month": layer({"etc/month": month.encode()}), last_layer[0]: last_layer[1]}


@pytest.mark.timeout(1500)
def test_the_loop_of_a_maintainer(
    registry: str, engine_folder: Path, buildkitd: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    everywhere = "debian" in request.node.callspec.id
    codex_platforms = PLATFORMS if everywhere else PLATFORMS[:1]

    def push_bases(*names: str, month: str) -> None:
        made = {"tiny": bases.busybox_layers, "node": bases.node_layers}
        for name in names:
            layers = {platform: with_middle(made[name](engine_folder, platform), month) for platform in PLATFORMS}
            env = bases.node_env() if name == "node" else (bases.SEARCH_PATH,)
            bases.push_base(engine_folder, registry, BASES, f"{name}-latest", layers, env=env)

    push_bases("tiny", "node", month="2026-01")
    project = tmp_path / "project"
    write_project(project, registry, tuple(codex_platforms))
    environ = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("IMAGEWRIGHT_", "PYTEST_"))},
        "BUILDKIT_HOST": buildkitd,
        "PATH": f"{engine_folder / 'bin'}:{os.environ['PATH']}",
    }
    maintainer = Maintainer(project, registry, environ)
    pairs = ["codex-node", f"{JAVASCRIPT_TOOL}-node", "hello-node", "hello-tiny"]
    fresh = dict.fromkeys(pairs, ("fresh", []))
    versions: dict[str, str] = {}

    # Nothing is there: all stale.
    assert maintainer.checks() == dict.fromkeys(pairs, ("stale", ["image-missing"]))
    for pair in pairs:
        versions[pair] = str(maintainer.record(pair)["version"])
    assert maintainer.plan() == dict.fromkeys(pairs, "build")
    assert {one["outcome"] for one in maintainer.build()} == {"published"}
    assert maintainer.checks() == fresh
    for pair in pairs:
        built_on_its_base(maintainer, pair, versions[pair], codex_platforms if "codex" in pair else PLATFORMS)

    # The tools run, in the version that their tags name.
    for platform in codex_platforms:
        runs(engine_folder, buildkitd, maintainer, f"codex-node-{versions['codex-node']}", platform, "codex --version")
    for platform in PLATFORMS:
        runs(engine_folder, buildkitd, maintainer, "hello-tiny-1.0.0", platform, "hello")

    # The same again builds nothing.
    assert maintainer.plan() == {}

    # A base is rebuilt: another layer in its middle, the same last one.
    push_bases("node", month="2026-02")
    moved = {
        pair: ("stale", sorted(f"base-changed {one}" for one in (codex_platforms if "codex" in pair else PLATFORMS)))
        for pair in pairs
        if pair.endswith("-node")
    }
    assert maintainer.checks() == fresh | moved
    for pair in moved:
        assert maintainer.record(pair)["last_layer"] is True, "the original rule would have missed it"
        assert last_layer_is_there(maintainer, pair, versions[pair])
        assert not is_on_its_base(maintainer, pair, versions[pair])
    assert "another one" in maintainer.explain("hello-node")
    assert maintainer.plan() == dict.fromkeys(moved, "build")
    assert {one["outcome"] for one in maintainer.build()} == {"published"}
    assert maintainer.checks() == fresh
    for pair in moved:
        assert is_on_its_base(maintainer, pair, versions[pair])

    # A tool has a release.
    release(project, "1.1.0")
    released = {pair: ("stale", ["image-missing"]) for pair in pairs if pair.startswith("hello-")}
    assert maintainer.checks() == fresh | released
    assert maintainer.plan() == dict.fromkeys(released, "build")
    assert {one["latest"] for one in maintainer.build()} == {"moved"}
    assert maintainer.checks() == fresh
    for pair in released:
        versions[pair] = "1.1.0"
        built_on_its_base(maintainer, pair, "1.1.0", PLATFORMS)

    # One platform of one pair vanishes.
    sink = HttpSink(registry)
    sink.delete(REPOSITORY, sink.children(REPOSITORY, "hello-node-1.1.0")["linux/arm64"])
    hole = {"hello-node": ("stale", ["child-missing linux/arm64"])}
    assert maintainer.checks() == fresh, "what is named by digest is not asked for again for a day"
    assert maintainer.checks("--fresh") == fresh | hole
    assert maintainer.plan() == {"hello-node": "build"}
    maintainer.build()
    assert maintainer.checks() == fresh
    built_on_its_base(maintainer, "hello-node", "1.1.0", PLATFORMS)

    # `latest` is moved by hand.
    move = ["skopeo", "copy", "--all", "--src-tls-verify=false", "--dest-tls-verify=false"]
    subprocess.run(
        [*move, maintainer.image("hello-node-1.1.0"), maintainer.image("hello-tiny-latest")],
        check=True,
        capture_output=True,
    )
    assert maintainer.checks() == fresh | {"hello-tiny": ("stale", ["latest-behind"])}
    assert maintainer.plan() == {"hello-tiny": "retag"}
    before = digest(maintainer, "hello-tiny-1.1.0")
    assert [one["outcome"] for one in maintainer.build()] == ["identical"]
    assert digest(maintainer, "hello-tiny-latest") == digest(maintainer, "hello-tiny-1.1.0") == before
    assert maintainer.checks() == fresh
    assert maintainer.checks("-n", "2") == fresh


def built_on_its_base(maintainer: Maintainer, pair: str, version: str, platforms: tuple[str, ...]) -> None:
    """Whole, on all platforms, on its base, labelled, and `latest`: all as skopeo reads it."""
    image = maintainer.image(f"{pair}-{version}")
    assert sorted(independent.platforms(image)) == sorted(platforms)
    assert is_on_its_base(maintainer, pair, version)
    for platform in platforms:
        config = independent.config(image, platform)
        assert config["architecture"] == platform.partition("/")[2]
        labels = config["config"]["Labels"]  # type: ignore[index,call-overload]
        assert labels["org.opencontainers.image.version"] == version
        assert labels["imagewright.recipe"].startswith("1:buildkit:")
    assert digest(maintainer, f"{pair}-latest") == digest(maintainer, f"{pair}-{version}")


def is_on_its_base(maintainer: Maintainer, pair: str, version: str) -> bool:
    image, base = both(maintainer, pair, version)
    return all(
        image[platform].diff_ids[: len(base[platform].diff_ids)] == base[platform].diff_ids for platform in image
    )


def last_layer_is_there(maintainer: Maintainer, pair: str, version: str) -> bool:
    image, base = both(maintainer, pair, version)
    return all(base[platform].diff_ids[-1] in image[platform].diff_ids for platform in image)


def both(
    maintainer: Maintainer, pair: str, version: str
) -> tuple[dict[str, independent.Contents], dict[str, independent.Contents]]:
    base = f"docker://{maintainer.registry}/{BASES}:{pair.rpartition('-')[2]}-latest"
    return independent.contents(maintainer.image(f"{pair}-{version}")), independent.contents(base)


def digest(maintainer: Maintainer, tag: str) -> str:
    argv = ["skopeo", "inspect", "--tls-verify=false", "--no-tags", "--format={{.Digest}}", maintainer.image(tag)]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def runs(engine_folder: Path, buildkitd: str, maintainer: Maintainer, tag: str, platform: str, command: str) -> None:
    """Runs a command in a published image; what it prints has to name the version in the tag."""
    version = tag.rpartition("-")[2]
    context = maintainer.project.parent / "run"
    context.mkdir(exist_ok=True)
    reference = maintainer.image(tag).removeprefix("docker://")
    (context / "Dockerfile").write_text(f"FROM {reference}\nRUN {command} | tee /dev/stderr | grep -F '{version}'\n")
    subprocess.run(
        [
            *(str(engine_folder / "bin" / "buildctl"), f"--addr={buildkitd}", "build", "--frontend=dockerfile.v0"),
            *(
                f"--local=context={context}",
                f"--local=dockerfile={context}",
                f"--opt=platform={platform}",
                "--no-cache",
            ),
        ],
        check=True,
        capture_output=True,
        timeout=300,
    )
