"""A file that has not changed is not read again, and one that has always is."""

import os
import statistics
import time
from pathlib import Path

import pytest

from imagewright.catalogue import Tool
from imagewright.digests import FileDigests
from imagewright.recipe import recipe

LONG_AGO = 1_700_000_000 * 10**9
LATER = time.time_ns() + 3600 * 10**9
"""A moment at which what this test writes has long been there."""
X, Y = (
    "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881",
    "a1fce4363854ff888cff4b8e7875d600c2682390412a8cf79b37d0b11148b0fa",
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "file").write_bytes(b"x")
    return tmp_path / "file"


def asked(place: Path | None, file: Path, now: int = LATER) -> tuple[str, int]:
    """The file's digest, and how many files were read for it, in a run of its own."""
    digests = FileDigests(place, now=now)
    digest = digests.sha256(str(file), file.lstat()).hex()
    digests.save()
    return digest, digests.read


def test_a_file_is_read_once(tmp_path: Path, file: Path) -> None:
    place = tmp_path / "cache/file-digests"
    assert [asked(place, file) for _ in range(3)] == [(X, 1), (X, 0), (X, 0)]


def replaced(file: Path) -> None:
    times = file.stat()
    file.with_name("new").write_bytes(b"y")
    os.utime(file.with_name("new"), ns=(times.st_atime_ns, times.st_mtime_ns))
    file.with_name("new").replace(file)


def edited(file: Path) -> None:
    times = file.stat()
    file.write_bytes(b"y")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [edited, replaced, lambda file: file.write_bytes(b"y")])
def test_a_changed_file_is_read_again_whatever_its_size_and_time(tmp_path: Path, file: Path, change) -> None:
    assert asked(tmp_path / "known", file) == (X, 1)
    time.sleep(0.02)  # the kernel's clock ticks: 100 times a second at the least
    change(file)
    assert asked(tmp_path / "known", file) == (Y, 1)


def test_a_file_that_has_just_changed_is_not_remembered(tmp_path: Path, file: Path) -> None:
    just = file.stat().st_ctime_ns
    for now in (just, just + 2 * 10**9, just - 10**9, 0):
        assert [asked(tmp_path / "known", file, now) for _ in range(2)] == [(X, 1), (X, 1)]
    assert [asked(tmp_path / "known", file, just + 2 * 10**9 + 1) for _ in range(2)] == [(X, 1), (X, 0)]


def test_a_time_set_back_does_not_make_a_change_old(tmp_path: Path, file: Path) -> None:
    os.utime(file, ns=(LONG_AGO, LONG_AGO))
    assert [asked(tmp_path / "known", file, time.time_ns()) for _ in range(2)] == [(X, 1), (X, 1)]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[:-1],
    "longer": lambda content: content + b"\n",
    "one bit of the digest": lambda content: content.replace(X[:8].encode(), b"2d711643"),
    "foreign": lambda content: b'{"a": 1}',
    "not text": lambda content: b"\xff" * 200,
    "of another version": lambda content: content.replace(b"digests 1", b"digests 2"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_not_believed_and_is_replaced(tmp_path: Path, file: Path, damage: str) -> None:
    place = tmp_path / "known"
    asked(place, file)
    before = place.read_bytes()
    place.write_bytes(DAMAGES[damage](before))
    assert place.read_bytes() != before
    assert [asked(place, file) for _ in range(2)] == [(X, 1), (X, 0)]


def test_where_nothing_can_be_written_files_are_read(tmp_path: Path, file: Path) -> None:
    (tmp_path / "not-a-folder").touch()
    (tmp_path / "folder").mkdir()
    for place in (tmp_path / "not-a-folder/known", tmp_path / "folder", Path("/proc/known"), None):
        assert [asked(place, file) for _ in range(2)] == [(X, 1), (X, 1)]
    assert list((tmp_path / "folder").iterdir()) == []


def test_what_is_not_asked_for_is_kept_as_long_as_it_is_there(tmp_path: Path, file: Path) -> None:
    place, other = tmp_path / "known", tmp_path / "other"
    other.write_bytes(b"y")
    assert (asked(place, other), asked(place, file), asked(place, other)) == ((Y, 1), (X, 1), (Y, 0))
    other.unlink()
    file.write_bytes(b"xx")
    asked(place, file)
    assert str(other).encode() not in place.read_bytes()


def test_any_name_is_remembered(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b'\xff "\\\n')
    odd.write_bytes(b"x")
    assert [asked(tmp_path / "known", odd) for _ in range(2)] == [(X, 1), (X, 0)]


FILES = 2000


def test_a_recipe_of_known_files_opens_none_and_is_quick(tmp_path: Path) -> None:
    """The figures of 20,000 files are benchmarks/recipe.py's; the bound here is loose, as test machines are shared."""
    folder = tmp_path / "tool"
    for at in range(FILES):
        (folder / str(at % 20)).mkdir(parents=True, exist_ok=True)
        (folder / str(at % 20) / str(at)).write_bytes(b"%d" % at * 100)
    tool = Tool(name="large", folder=folder)
    runs, took = [], []
    for _ in range(4):
        digests = FileDigests(tmp_path / "known", now=LATER)
        began = time.perf_counter()
        hashed = recipe(tool, "buildkit", digests=digests)
        took.append(time.perf_counter() - began)
        digests.save()
        runs.append((hashed, digests.read, digests.remembered))
    assert runs == [(recipe(tool, "buildkit"), *counts) for counts in [(FILES, 0), *[(0, FILES)] * 3]]
    assert statistics.median(took[1:]) < 0.5
    (folder / "7/7").write_bytes(b"8" + b"7" * 99)
    digests = FileDigests(tmp_path / "known", now=LATER)
    assert recipe(tool, "buildkit", digests=digests) == recipe(tool, "buildkit") != runs[0][0]
    assert (digests.read, digests.remembered) == (1, FILES - 1)
