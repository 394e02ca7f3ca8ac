"""A file is replaced as a whole, or stays as it was."""

import os
import resource
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagewright.files import append_whole, is_device, write_atomically


@given(st.binary(max_size=200), st.binary(max_size=200))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_last_is_read(tmp_path, before, after):
    path = tmp_path / "file"
    write_atomically(path, before)
    written = write_atomically(path, after)
    assert path.read_bytes() == after
    assert (written.st_size, written.st_ino) == (len(after), path.stat().st_ino)
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_file_can_be_read_by_others(tmp_path):
    write_atomically(tmp_path / "file", b"x")
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644


@contextmanager
def almost_full() -> Iterator[None]:
    """Files of this process can have at most 4096 bytes, as on a disk with no more room.

    pytest's own output may be such a file, so for no longer than necessary.
    """
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("before", [None, b"old"])
def test_where_there_is_no_room_the_old_file_stays_and_nothing_is_left(tmp_path, before):
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
    with almost_full(), pytest.raises(OSError, match="File too large"):
        write_atomically(path, b"x" * 5000)
    assert (path.read_bytes() if before is not None else None) == before
    assert len(list(tmp_path.iterdir())) == (before is not None)


def test_a_folder_in_the_files_place_stays_and_nothing_is_left(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path / "file", b"x")
    assert [one.name for one in tmp_path.iterdir()] == ["file"]


def test_a_device_or_a_pipe_is_written_to_and_never_replaced(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    write_atomically(pipe, b"x")
    reader.join()
    assert (read, pipe.is_fifo(), [one.name for one in tmp_path.iterdir()]) == ([b"x"], True, ["pipe"])
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(Path("/dev/full"), b"x")
    assert Path("/dev/full").is_char_device()


@pytest.mark.parametrize(
    ("path", "is_one"),
    [
        ("/dev/null", True),
        ("/dev/stdout", True),
        ("/dev/fd/1", True),
        ("/dev/shm/file", False),
        ("file", False),
        (".", False),
        ("absent", False),
    ],
)
def test_what_is_a_device(tmp_path, path, is_one):
    (tmp_path / "file").write_bytes(b"")
    assert is_device(tmp_path / path) == is_one


def test_an_absent_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "absent" / "file", b"x")


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "file").symlink_to("other")
    write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "other").read_bytes() == b"other"
    assert not (tmp_path / "file").is_symlink()


def test_a_reader_never_sees_half_of_a_file(tmp_path):
    path, done = tmp_path / "file", threading.Event()
    write_atomically(path, b"a" * 9999)
    seen = set()

    def reader():
        while not done.is_set():
            seen.add(path.read_bytes())

    thread = threading.Thread(target=reader)
    thread.start()
    for letter in b"abcdefghij" * 5:
        write_atomically(path, bytes([letter]) * 9999)
    done.set()
    thread.join()
    assert {len(one) for one in seen} == {9999}
    assert all(len(set(one)) == 1 for one in seen)


def test_adding_to_a_file_keeps_its_links_and_mode(tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_bytes(b"a\n")
    real.chmod(0o600)
    link.symlink_to(real)
    append_whole(link, b"b\n")
    assert (real.read_bytes(), real.stat().st_mode & 0o777, link.is_symlink()) == (b"a\nb\n", 0o600, True)


def test_a_file_that_cannot_take_all_of_it_takes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"a\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5, before[1]))
    try:
        with pytest.raises(OSError, match="No space left on device"):
            append_whole(file, b"too much")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read_bytes() == b"a\n"
