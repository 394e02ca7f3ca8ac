"""Digests of files, remembered from one run to the next: what has not changed since is not read again."""

import hashlib
import json
import os
from functools import cached_property
from pathlib import Path

from imagewright.files import write_atomically

_HEAD = b"imagewright digests 1 "
_MARGIN = 2_000_000_000
"""Nanoseconds that two changes of a file may bear as one time, on the coarsest of file systems."""
_CHUNK = 1 << 16


class FileDigests:
    """SHA-256 of files' content, read where nothing is known of the file as it stands.

    place: the file that remembers; None: nothing is. It can be deleted at any time, and counts for nothing where it is
    damaged. now: nanoseconds since 1970, before the first file was looked at. A file that changed just before is not
    remembered: it may change once more without showing it.
    https://github.com/git/git/blob/v2.45.0/Documentation/technical/racy-git.txt
    """

    def __init__(self, place: Path | None = None, *, now: int = 0) -> None:
        self.read = 0
        self.remembered = 0
        self._place = place
        self._settled = now - _MARGIN
        self._asked: dict[str, str] = {}

    def sha256(self, path: str, seen: os.stat_result) -> bytes:
        """Of the regular file at `path`, which looked like `seen`. OSError where it cannot be read."""
        state = f"{seen.st_size} {seen.st_mtime_ns} {seen.st_ctime_ns} {seen.st_ino} {seen.st_mode} "
        line = self._asked.get(path) or self._known.get(path, "")
        if line.startswith(state):
            self.remembered += 1
            self._asked[path] = line
            return bytes.fromhex(line[len(state) :])
        digest = _read(path)
        self.read += 1
        if max(seen.st_mtime_ns, seen.st_ctime_ns) < self._settled:
            self._asked[path] = state + digest.hex()
        return digest

    def save(self) -> None:
        """Remembers what was asked for, and what else is still there; where that cannot be written, nothing."""
        if self._place is None or self._asked.items() <= self._known.items():
            return
        others = {path: line for path, line in self._known.items() if path in self._asked or os.path.lexists(path)}
        content = json.dumps(others | self._asked, separators=(",", ":")).encode()
        try:
            self._place.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._place, _HEAD + hashlib.sha256(content).digest() + content)
        except OSError:  # a full disk, a folder of somebody else: the next run reads the files again
            return

    @cached_property
    def _known(self) -> dict[str, str]:
        """Path → how the file looked, and its digest, as the run before left it."""
        try:
            written = self._place.read_bytes() if self._place else b""
        except OSError:  # the first run, or a file of somebody else
            return {}
        content = written[len(_HEAD) + 32 :]
        # A digest that has lost a bit would be believed.
        if written[: len(_HEAD) + 32] != _HEAD + hashlib.sha256(content).digest():
            return {}
        known: dict[str, str] = json.loads(content)
        return known


def _read(path: str) -> bytes:
    sha256 = hashlib.sha256()
    # Not file_digest, which costs small files twice the time.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        while chunk := os.read(descriptor, _CHUNK):
            sha256.update(chunk)
    finally:
        os.close(descriptor)
    return sha256.digest()
