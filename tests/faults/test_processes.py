"""What happens to the process around a run, and to its folder: it has a result that holds, or none that is believed."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagewright.digests import FileDigests
from imagewright.embedded.server import Handler
from imagewright.embedded.wire import Request
from imagewright.testing.images import layer
from tests.faults.test_runs import plan
from tests.test_cli import PROGRAM
from tests.test_plugin import ALL, World, family, world

__all__ = ["family", "world"]

pytest_plugins = ["pytester"]

FRESH = dict.fromkeys(ALL, "fresh")


# Disks (D8)


@pytest.fixture
def disk(family: World, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of its own at .imagewright, with these options of mount."""
    place = family.project / ".imagewright"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", request.param, "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("needs leave to mount a file system that can be full: run as root")
    yield place
    subprocess.run(["umount", place], check=True)


UNWRITTEN = "the report could not be written to"
DISKS: dict[str, tuple[str, int, tuple[str, ...], str]] = {
    # options of mount, KiB that are taken, arguments, what is said
    "full": ("size=64k", 40, (), UNWRITTEN),
    "full, workers": ("size=64k", 40, ("-n", "2"), "No space left on device"),
    "full before": ("size=64k", 64, (), "cannot be written: No space left on device"),
    "no inodes": ("size=1m,nr_inodes=4", 0, (), UNWRITTEN),
    "no inodes before": ("size=1m,nr_inodes=2", 0, (), "cannot be written: No space left on device"),
}  # fmt: skip


@pytest.mark.parametrize(("disk", "kib", "arguments", "said"), DISKS.values(), ids=DISKS, indirect=["disk"])
def test_a_disk_without_room_leaves_no_report_and_is_no_success(
    family: World, disk: Path, kib: int, arguments: tuple[str, ...], said: str
) -> None:
    if kib:
        with (disk / "filler").open("wb", buffering=0) as filler:
            filler.write(b"x" * kib * 1024)

    ran = family.spawn(*arguments) if arguments else family.run(*arguments)

    assert ran.code not in (0, 1), ran.text
    assert said in ran.text
    assert "Traceback" not in ran.text
    assert plan(family) in (1, 50)
    assert not (disk / "report.json").exists()
    assert not (disk / "plan.json").exists()


def test_a_quota_leaves_no_report_and_is_no_success(family: World) -> None:
    limited = ["bash", "-c", 'ulimit -f 8; exec "$@"', "-", sys.executable, "-m", "pytest", "checks/", "-q", "-s"]
    ran = subprocess.run(
        [*limited, "-p", "no:cacheprovider"], cwd=family.project, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 3, ran.stdout
    assert f"{UNWRITTEN} {family.project}/.imagewright/report.json: File too large" in ran.stdout
    assert "Traceback" not in ran.stdout + ran.stderr
    assert plan(family) == 50


def test_what_cannot_be_written_by_a_command_is_its_failure(family: World) -> None:
    family.base("fedora", layer({"etc/os": "newer"}))
    family.run()
    for arguments in (["plan", "-o"], ["versions", "-o"], ["matrix", "--html"], ["matrix", "--svg"]):
        ran = subprocess.run(
            [*PROGRAM, *arguments, "/dev/full"], cwd=family.project, capture_output=True, text=True, check=False
        )
        assert (ran.returncode, ran.stdout) == (1, ""), ran
        assert "No space left on device" in ran.stderr
        assert "Traceback" not in ran.stderr
    assert Path("/dev/full").is_char_device()


# What is remembered (D9, D10): digests of files


def _cache(project: Path) -> Path:
    return project / ".imagewright" / "cache"


def _replaced_by(make: Callable[[Path], object]) -> Callable[[Path], object]:
    def replace(project: Path) -> None:
        shutil.rmtree(_cache(project))
        make(_cache(project))

    return replace


def _holding(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def edit(project: Path) -> None:
        file = _cache(project) / "file-digests"
        file.write_bytes(change(file.read_bytes()))

    return edit


MEMORIES: dict[str, Callable[[Path], object]] = {
    "absent": _replaced_by(lambda place: None),
    "a file": _replaced_by(lambda place: place.write_text("x")),
    "a link to nowhere": _replaced_by(lambda place: place.symlink_to("nowhere")),
    "a link to itself": _replaced_by(lambda place: place.symlink_to("cache")),
    "a link elsewhere": _replaced_by(lambda place: place.symlink_to("..")),
    "folders in its place": _replaced_by(lambda place: (place / "file-digests" / "x").mkdir(parents=True)),
    "cut": _holding(lambda content: content[:-9]),
    "empty": _holding(lambda content: b""),
    "another bit": _holding(lambda content: content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]),
    "what somebody else wrote": _holding(lambda content: b"{}"),
}


def test_what_is_remembered_of_files_can_be_anything(family: World) -> None:
    digests = FileDigests(_cache(family.project) / "file-digests", now=time.time_ns() + 10**10)
    for file in (family.project / "tools").rglob("*"):
        if file.is_file():
            digests.sha256(str(file), file.stat())
    digests.save()
    whole = family.project.parent / "whole"
    shutil.copytree(_cache(family.project), whole)
    for case, damage in MEMORIES.items():
        damage(family.project)
        ran = family.run()
        assert (ran.code, ran.states) == (0, FRESH), case
        assert plan(family) == 0, case
        place = _cache(family.project)
        place.unlink() if place.is_symlink() or place.is_file() else shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(whole, place)


@pytest.mark.parametrize("disk", ["size=64k"], indirect=True)
def test_a_build_without_room_fails_and_leaves_no_half_of_an_image(family: World, disk: Path) -> None:
    (disk / "filler").write_bytes(b"x" * 56 * 1024)
    argv = [*PROGRAM, "build", "--tool", "codex", "--base", "fedora", "--push"]
    environ = os.environ | {"IMAGEWRIGHT_BUILDER": "copy"}
    ran = subprocess.run(argv, cwd=family.project, env=environ, capture_output=True, text=True, check=False)
    assert (ran.returncode, "Traceback" in ran.stderr) == (1, False), ran
    assert "there is no room for the image" in ran.stderr
    assert [one.name for one in (disk / "images").glob("**/*")] == []
    assert [one.target for one in family.seen if one.method not in ("GET", "HEAD")] == []


# Runs at once (D11)


def test_of_many_runs_at_once_one_has_a_result_and_the_others_do_nothing(family: World) -> None:
    family.script("codex", "sleep 0.5\necho 1.0.0")
    processes = [family.start("-q") for _ in range(4)]
    texts = [one.communicate(timeout=60)[0] for one in processes]
    assert sorted(one.returncode for one in processes) == [0, 4, 4, 4], texts
    assert sum("another run is using" in text for text in texts) == 3
    assert plan(family) == 0


def test_a_plan_while_a_run_is_under_way_is_none(family: World) -> None:
    assert (family.run().code, plan(family)) == (0, 0)
    during = []

    def look(request: Request, honest: Handler) -> None:
        if request.path.endswith("manifests/codex-fedora-1.0.0"):
            during.append(plan(family))

    family.misbehave = look
    assert family.spawn().code == 0
    assert during == [50]
    assert plan(family) == 0
