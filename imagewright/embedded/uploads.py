"""Blobs on their way in: each upload is one growing file beside the repositories, renamed into place when complete."""

import hashlib
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from imagewright.embedded.refusal import Code, Refused
from imagewright.names import Digest, digest_algorithm

_ABANDONED_AFTER = 24 * 3600.0
"""Seconds without a byte after which an upload ends, and the file of a process that died is removed."""
_PATIENCE = 2.0
"""Seconds that a request waits for another one that is writing to the same upload."""
_UNKNOWN = "there is no such upload (any more); start another"


class Upload:
    """One blob being received for one repository. `lock` is held by whoever appends to it or makes it a blob."""

    def __init__(self, repository: str, path: Path) -> None:
        self.repository = repository
        self.id = path.name
        self.path = path
        self.lock = threading.Lock()
        self.size = 0
        self.ended = False
        self._sha256 = hashlib.sha256()
        path.touch(exist_ok=False)

    def append(self, pieces: Iterable[bytes]) -> int:
        """Adds the pieces at the end; how many bytes. What came before an error is kept: `size` tells how much.

        `Refused` if the upload is cancelled meanwhile.
        """
        before = self.size
        with self._opened() as file:
            file.seek(before)
            for piece in pieces:
                if self.ended:
                    raise Refused(Code.BLOB_UPLOAD_UNKNOWN, _UNKNOWN)
                self._write(file, piece)
        return self.size - before

    def verify(self, digest: Digest) -> None:
        """`Refused` unless what was received has this digest."""
        with self._opened() as file:
            if file.seek(0, os.SEEK_END) != self.size:  # else bytes that nobody sent would get the sender's digest
                raise Refused(Code.BLOB_UPLOAD_INVALID, "the upload's file has been changed; start another")
            if digest_algorithm(digest) == "sha256":
                received = self._sha256.hexdigest()
            else:
                file.seek(0)
                received = hashlib.file_digest(file, digest_algorithm(digest)).hexdigest()
        actual = f"{digest_algorithm(digest)}:{received}"
        if actual != digest:
            raise Refused(
                Code.DIGEST_INVALID, "the content has another digest", {"expected": digest, "received": actual}
            )

    def flush(self) -> None:
        """Brings what was received to the disk, so that a rename never makes a name for half a blob."""
        with self._opened() as file:
            os.fsync(file.fileno())

    def _opened(self) -> FileIO:
        """The file as it was made: one that has gone is not made again, it would lack what was received before."""
        try:
            return self.path.open("r+b", buffering=0)
        except FileNotFoundError:
            raise Refused(Code.BLOB_UPLOAD_UNKNOWN, _UNKNOWN) from None

    def _write(self, file: FileIO, piece: bytes) -> None:
        """A full disk takes a part of a piece and refuses the rest: size and digest are of what it took."""
        view = memoryview(piece)
        while view:
            written = file.write(view)
            self._sha256.update(view[:written])
            self.size += written
            view = view[written:]


class Uploads:
    """All uploads of one store, by id; they live as long as the process, or until nothing was received for a day."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, Upload] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._end_abandoned()

    def start(self, repository: str) -> Upload:
        """A new, empty upload."""
        self._end_abandoned()
        upload = Upload(repository, self._folder / secrets.token_hex(16))
        self._open[upload.id] = upload
        return upload

    @contextmanager
    def held(self, repository: str, name: str) -> Iterator[Upload]:
        """The upload of this id in this repository, for the caller alone; `Refused` if there is none or it is in use."""
        upload = self.find(repository, name)
        if not upload.lock.acquire(timeout=_PATIENCE):
            raise Refused(Code.BLOB_UPLOAD_INVALID, "another request is still writing to this upload")
        try:
            yield self.find(repository, name)  # again: whoever held it before may have ended it
        finally:
            upload.lock.release()

    def find(self, repository: str, name: str) -> Upload:
        """The upload of this id in this repository, to look at or to cancel; `Refused` if there is none."""
        upload = self._open.get(name)
        if upload is None or upload.repository != repository:
            raise Refused(Code.BLOB_UPLOAD_UNKNOWN, _UNKNOWN)
        return upload

    def take(self, upload: Upload) -> None:
        """Makes the caller the one who ends the upload; `Refused` if somebody else is."""
        if self._open.pop(upload.id, None) is None:
            raise Refused(Code.BLOB_UPLOAD_UNKNOWN, _UNKNOWN)

    def forget(self, upload: Upload) -> None:
        """Ends the upload and whoever is writing to it; its file goes, unless it has been renamed into place."""
        self._open.pop(upload.id, None)
        upload.ended = True
        upload.path.unlink(missing_ok=True)

    def _end_abandoned(self) -> None:
        """Removes the files to which nothing was added for a day, and the uploads that they belong to."""
        for path in self._folder.iterdir():
            if not _is_abandoned(path):
                continue
            upload = self._open.get(path.name)
            if upload is None:
                path.unlink(missing_ok=True)
            elif upload.lock.acquire(blocking=False):
                try:
                    if _is_abandoned(path):  # again: its client may just have come back
                        self.forget(upload)
                finally:
                    upload.lock.release()


def _is_abandoned(path: Path) -> bool:
    try:
        return path.stat().st_mtime < time.time() - _ABANDONED_AFTER
    except FileNotFoundError:
        return False  # renamed into place, or cancelled, at this moment
