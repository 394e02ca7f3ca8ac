"""Blobs on their way in: each upload is one growing file beside the repositories, renamed into place when complete."""

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from imagewright.embedded.refusal import Code, Refused
from imagewright.names import Digest, digest_algorithm

_ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a byte after which a file is that of a process that died, and is removed at the next start."""


class Upload:
    """One blob being received for one repository. `lock` is held by whoever appends to it or ends it."""

    def __init__(self, repository: str, path: Path) -> None:
        self.repository = repository
        self.id = path.name
        self.path = path
        self.lock = threading.Lock()
        self.size = 0
        self._sha256 = hashlib.sha256()
        path.touch(exist_ok=False)

    def append(self, pieces: Iterable[bytes]) -> None:
        """Adds the pieces at the end. What arrived before an error in `pieces` is kept: `size` tells how much."""
        with self.path.open("ab", buffering=0) as file:
            for piece in pieces:
                _write_all(file, piece)
                self._sha256.update(piece)
                self.size += len(piece)

    def verify(self, digest: Digest) -> None:
        """`Refused` unless what was received has this digest."""
        if digest_algorithm(digest) == "sha256":
            received = self._sha256.hexdigest()
        else:
            with self.path.open("rb") as file:
                received = hashlib.file_digest(file, digest_algorithm(digest)).hexdigest()
        actual = f"{digest_algorithm(digest)}:{received}"
        if actual != digest:
            raise Refused(
                Code.DIGEST_INVALID, "the content has another digest", {"expected": digest, "received": actual}
            )

    def flush(self) -> None:
        """Brings what was received to the disk, so that a rename never makes a name for half a blob."""
        with self.path.open("rb") as file:
            os.fsync(file.fileno())


class Uploads:
    """All uploads of one store, by id; they live as long as the process, their files at most a day longer."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Upload] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            if file.stat().st_mtime < time.time() - _ABANDONED_AFTER:
                file.unlink(missing_ok=True)

    def start(self, repository: str) -> Upload:
        """A new, empty upload."""
        upload = Upload(repository, self._folder / secrets.token_hex(16))
        self._open[upload.id] = upload
        return upload

    @contextmanager
    def held(self, repository: str, name: str) -> Iterator[Upload]:
        """The upload of this id in this repository, for the caller alone; `Refused` if there is none."""
        upload = self.find(repository, name)
        with upload.lock:
            yield self.find(repository, name)  # again: whoever held it before may have ended it

    def find(self, repository: str, name: str) -> Upload:
        """The upload of this id in this repository, to look at; `Refused` if there is none."""
        upload = self._open.get(name)
        if upload is None or upload.repository != repository:
            raise Refused(Code.BLOB_UPLOAD_UNKNOWN, "there is no such upload (any more); start another")
        return upload

    def forget(self, upload: Upload) -> None:
        """Ends the upload; its file goes, unless it has been renamed into place."""
        self._open.pop(upload.id, None)
        upload.path.unlink(missing_ok=True)


def _write_all(file: BinaryIO, piece: bytes) -> None:
    view = memoryview(piece)
    while view:
        view = view[file.write(view) :]
