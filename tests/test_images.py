"""Standalone images, and bases of our own with the pairs that wait for them, from the checks to the registry."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from imagewright.embedded.server import Server
from imagewright.embedded.store import Store
from imagewright.names import Digest
from imagewright.testing import images
from imagewright.testing.images import Picture, StoreSink, layer
from imagewright.testing.projects import make_image, make_project, make_tool

IMAGEWRIGHT = (sys.executable, "-c", "from imagewright.cli import run; run()")
SETTINGS = 'builder = "copy"\n[images]\nrepository = "own/images"\nbootstrap = true\n'


class World:
    """A registry with an operating system in it, and a project that publishes on top of it."""

    def __init__(self, root: Path, server: Server) -> None:
        self.root = root
        self.server = server
        self.project = root / "project"
        self.parent = f"{server.address}/own/os:stable"

    def system(self, mark: str) -> Digest:
        picture = {
            one: Picture(steps=[layer({"etc/os": one}), layer({"etc/mark": mark})])
            for one in ("linux/amd64", "linux/arm64")
        }
        return images.push(StoreSink(Store(self.root / "registry")), "own/os", ["stable"], picture)

    def run(self, *argv: str, code: int) -> str:
        ended = subprocess.run(
            argv, cwd=self.project, capture_output=True, text=True, check=False, env=os.environ, timeout=100
        )
        assert ended.returncode == code, ended.stdout + ended.stderr
        assert "Traceback" not in ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    def checks(self, *arguments: str, code: int) -> dict[str, str]:
        """Runs the checks; target → the codes of its reasons, or the verdict."""
        self.run(sys.executable, "-m", "pytest", "checks/", "-q", *arguments, code=code)
        report = json.loads((self.project / ".imagewright" / "report.json").read_bytes())
        return {
            one["target"]: " ".join(sorted({reason["code"] for reason in one["reasons"]})) or one["verdict"]
            for one in report["imagewright"]["verdicts"]
        }

    def plan(self, code: int = 10) -> tuple[list[str], dict[str, str]]:
        """Makes a plan; what it builds, and what it puts off."""
        self.run(*IMAGEWRIGHT, "plan", code=code)
        plan = json.loads((self.project / ".imagewright" / "plan.json").read_bytes())
        return [one["target"] for one in plan["builds"]], {one["target"]: one["because"] for one in plan["deferrals"]}

    def build(self, *arguments: str, code: int = 0) -> str:
        return self.run(*IMAGEWRIGHT, "build", *arguments, code=code)

    def tags(self, repository: str) -> list[str]:
        index = json.loads((self.root / "registry" / repository.replace("/", "+") / "index.json").read_bytes())
        named = [one.get("annotations", {}).get("org.opencontainers.image.ref.name") for one in index["manifests"]]
        return sorted(one for one in named if one)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Server(tmp_path / "registry") as server:
        made = World(tmp_path, server)
        made.system("1")
        make_project(made.project, registry=server.address, tools={"codex": "1.0.0"}, settings=SETTINGS)
        make_image(made.project, "util", made.parent)
        make_image(made.project, "forest", made.parent, "version: 2.0.0\nbase: true\n")
        yield made


def test_a_base_of_our_own_is_built_first_and_its_pairs_wait_for_it(world: World) -> None:
    assert world.checks(code=1) == {
        "forest": "image-missing",
        "util": "image-missing",
        "codex-forest": "base-missing",
    }
    assert world.plan() == (["forest", "util"], {"codex-forest": "waits-for:forest"})
    told = world.build("--push")
    assert "codex-forest: published, latest moved" in told
    assert world.tags("own/bases") == ["forest-2.0.0", "forest-latest"]
    assert world.tags("own/images") == ["util-1.0.0", "util-latest"]
    assert world.tags("own/tools") == ["codex-forest-1.0.0", "codex-forest-latest"]
    assert world.checks(code=0) == {"forest": "fresh", "util": "fresh", "codex-forest": "fresh"}

    world.system("2")
    assert world.checks(code=1) == {"forest": "base-changed", "util": "base-changed", "codex-forest": "fresh"}
    assert world.plan() == (["forest", "util"], {})
    world.build("--push")
    assert world.checks(code=1) == {"forest": "fresh", "util": "fresh", "codex-forest": "base-changed"}
    assert world.plan() == (["codex-forest"], {})


def test_without_a_push_what_waits_is_put_off_and_said_so(world: World) -> None:
    world.checks(code=1)
    world.plan()
    told = world.build()
    assert "codex-forest: put off: its base forest is not published by a build without --push" in told
    assert sorted(path.name for path in (world.project / ".imagewright" / "images").iterdir()) == ["forest", "util"]


def test_what_waits_for_a_base_that_fails_is_not_built_and_the_others_are(world: World) -> None:
    (world.project / "images" / "forest" / "rootfs" / ".wh.nothing").touch()
    world.checks(code=1)
    world.plan()
    told = world.build("--push", code=1)
    assert "codex-forest: put off: its base forest was not built" in told
    assert "util: published, latest moved" in told


@pytest.mark.parametrize(
    ("arguments", "targets"),
    [
        (["--target", "util"], ["util"]),
        (["--target", "codex-forest", "--target", "forest"], ["forest", "codex-forest"]),
        (["--tool", "codex"], ["codex-forest"]),
        (["--base", "forest"], ["codex-forest"]),
        (["-k", "util"], ["util"]),
    ],
)
def test_images_are_selected_like_pairs(world: World, arguments: list[str], targets: list[str]) -> None:
    assert list(world.checks(*arguments, code=1)) == targets


def test_an_image_is_built_by_its_name_and_published_by_it(world: World) -> None:
    assert "would build and publish" in world.build("--target", "util", "--push", "--dry-run")
    world.build("--target", "util")
    layout = world.project / ".imagewright" / "images" / "util"
    said = world.run(*IMAGEWRIGHT, "publish", "util", "--version", "1.0.0", "--layout", str(layout), "--tags", code=0)
    assert "util-1.0.0" in said
    assert world.checks("--target", "util", code=0) == {"util": "fresh"}
    told = world.run(*IMAGEWRIGHT, "explain", "util", code=0)
    assert "util is fresh" in told
    assert "version  1.0.0  (image.yml)" in told
    assert "org.opencontainers.image.base.name" in told
    assert "util is fresh" in world.run(*IMAGEWRIGHT, "explain", "util", "--fresh", code=0)


def test_another_version_than_image_yml_says_is_refused(world: World) -> None:
    told = world.build("--target", "util", "--version", "3.0.0", "--push", code=1)
    assert "util has the version 1.0.0, not '3.0.0'" in told


def test_images_are_judged_where_the_bases_cannot_be_listed(world: World) -> None:
    settings = world.project / "imagewright.toml"
    settings.write_text(settings.read_text().replace('"own/bases"', '"own/absent"').replace("bootstrap = true", ""))
    (world.project / "images" / "forest" / "image.yml").write_text("version: 1\n")
    assert world.checks(code=1) == {
        "forest": "repository-unknown",
        "util": "repository-unknown",
        "bases": "bases-unknown",
    }


def test_a_project_of_images_alone_needs_neither_tools_nor_bases(tmp_path: Path) -> None:
    with Server(tmp_path / "registry") as server:
        world = World(tmp_path, server)
        world.system("1")
        make_project(world.project, registry=server.address, tools={}, settings="")
        (world.project / "imagewright.toml").write_text(f'registry = "{server.address}"\n{SETTINGS}')
        make_image(world.project, "util", world.parent, literal=True)
        assert world.checks(code=1) == {"util": "image-missing"}
        assert world.plan() == (["util"], {})
        world.build("--push")
        assert world.checks("-n", "2", code=0) == {"util": "fresh"}
        told = world.run(*IMAGEWRIGHT, "doctor", code=0)
        assert f"1 image for {server.address}/own/images (imagewright.toml)" in told
        assert "`copy` takes copy" in told


def test_a_tool_that_may_not_be_redistributed_is_built_here_and_never_pushed(world: World) -> None:
    world.checks(code=1)
    world.plan()
    world.build("--push")
    make_tool(world.project, "closed", "1.0.0", "redistributable: false\n")
    report = world.checks(code=0)
    assert "closed-forest" not in report
    told = world.build("--tool", "closed", "--base", "forest")
    assert "built" in told
    refused = world.build("--tool", "closed", "--base", "forest", "--push", code=1)
    assert "closed-forest may not be redistributed, so it is never pushed" in refused
    layout = world.project / ".imagewright" / "images" / "closed-forest"
    refused = world.run(*IMAGEWRIGHT, "publish", "closed-forest", "--version", "1.0.0", "--layout", str(layout), code=1)
    assert "closed-forest may not be redistributed, so it is never pushed" in refused
    assert not [tag for tag in world.tags("own/tools") if "closed" in tag]
    assert "closed" in world.run(*IMAGEWRIGHT, "matrix", code=0)
