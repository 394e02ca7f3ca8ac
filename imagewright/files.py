"""Files that are replaced as a whole: a reader, a crash or a full disk never leaves half of one."""

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, content: bytes) -> os.stat_result:
    """Replaces the file at `path` with `content`: written beside, flushed to disk, renamed.

    The new file's stat. OSError where that fails; then the old file is untouched.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o644)
            written = os.fstat(file.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    return written
