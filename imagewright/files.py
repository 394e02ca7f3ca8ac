"""Files that are replaced as a whole: a reader, a crash or a full disk never leaves half of one."""

import errno
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path


def is_device(path: Path) -> bool:
    """Whether `path` is a device, a pipe or a name for one, as /dev/null and /dev/stdout: written to, never replaced."""
    folder = path.parent.resolve()
    named_so = folder == Path("/dev") or folder.is_relative_to("/proc")
    return named_so or (path.exists() and not (path.is_file() or path.is_dir()))


def write_atomically(path: Path, content: bytes | Iterable[bytes], mode: int = 0o644) -> os.stat_result:
    """Replaces the file at `path` with `content`: written beside, flushed to disk, renamed. mode: its permissions.

    content: in one or in pieces. The new file's stat. OSError where that fails; then the old file is untouched. A device
    is written to.
    """
    parts = (content,) if isinstance(content, bytes) else content
    if is_device(path):
        with path.open("wb") as device:
            device.writelines(parts)
            device.flush()
            return os.fstat(device.fileno())
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), mode)
            written = os.fstat(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return written


def append_whole(path: Path, content: bytes) -> None:
    """Adds `content` to the end of the file at `path`, which stays the file that it is: its links, owner and mode.

    OSError where that fails; then the file is as it was.
    """
    with path.open("r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        try:
            written = file.write(content)
            os.fsync(file.fileno())
            if written != len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        except OSError:
            file.truncate(size)
            raise
