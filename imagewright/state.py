"""The files a run leaves in `.imagewright/`: who runs now, what the run before said, what was last known good."""

import fcntl
import json
import os
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagewright.errors import Failed, ImagewrightError
from imagewright.files import write_atomically
from imagewright.report import SECTION

DEFAULT = ".imagewright"
REPORT, RUN, SNAPSHOT, PLAN, LAST_GOOD = "report.json", "run.json", "snapshot.json", "plan.json", "last-good.json"
DISPATCH, JOURNAL = "dispatch.json", "journal.jsonl"
_SECTION = f'"{SECTION}":'.encode()
DIGESTS, DOCUMENTS = "cache/file-digests", "cache/documents"


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What `run.json` says of the run that started last. error: (exit code, text) where it could not go on."""

    nonce: str
    started: str
    error: tuple[int, str] | None


class StateFolder:
    """The folder that a run keeps its files in: the report's."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lock: int | None = None

    def lock(self) -> None:
        """Takes the folder for this process until `unlock` or its end. `Failed` where another run has it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # The kernel lets go of this lock when the process ends, however it ends.
        self._lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.unlock()
            raise Failed(
                f"another run is using {self.folder}",
                remedy="Wait for it, or write this one's report elsewhere with --json-report-file.",
            ) from None

    def unlock(self) -> None:
        """Lets go of the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def await_unlock(self) -> None:
        """Returns when the run that has the folder has ended, however it did, or has let go."""
        with (self.folder / "lock").open() as file:
            fcntl.flock(file, fcntl.LOCK_SH)

    def begin(self, nonce: str, started: str, error: ImagewrightError | None = None) -> None:
        """Notes that a run started, and why it could not go on if so."""
        self.folder.mkdir(parents=True, exist_ok=True)
        members: dict[str, Any] = {"nonce": nonce, "started": started}
        if error:
            members["error"] = {"exit": int(error.exit), "text": str(error)}
        write_atomically(self.folder / RUN, json.dumps(members).encode())

    def started(self) -> Started | None:
        """What run.json says; None where there is none, or none that can be read."""
        members = _members(self.folder / RUN)
        nonce, started, error = members.get("nonce"), members.get("started"), members.get("error")
        if not isinstance(nonce, str) or not isinstance(started, str):
            return None
        told = error if isinstance(error, dict) else {}
        code, text = told.get("exit"), told.get("text")
        stopped = (code, text) if isinstance(code, int) and isinstance(text, str) else None
        return Started(nonce=nonce, started=started, error=stopped)

    def since(self) -> dict[str, str]:
        """Target → since when it is not fresh, as the report before says."""
        verdicts = _section(self.folder / REPORT).get("verdicts")
        return {
            str(one["target"]): str(one["since"])
            for one in (verdicts if isinstance(verdicts, list) else ())
            if isinstance(one, dict) and one.get("since") and one.get("target")
        }

    def last_good(self) -> dict[str, str]:
        """Target → reference that was fresh when it was last known; empty where nothing is known."""
        return {str(key): str(value) for key, value in _members(self.folder / LAST_GOOD).items()}

    def remember_good(self, fresh: Mapping[str, str]) -> None:
        """Adds to what was last known good."""
        if fresh:
            known = self.last_good() | dict(fresh)
            write_atomically(self.folder / LAST_GOOD, json.dumps(known, indent=0, sort_keys=True).encode())

    def shared(self, nonce: str) -> Path:
        """Where the workers of one run share what one of them saw."""
        return self.folder / f"shared-{nonce}.json"

    @contextmanager
    def only_one(self, nonce: str) -> Generator[Path]:
        """Lets one worker in at a time; gives the place of what they share."""
        with (self.folder / "lock-workers").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield self.shared(nonce)


def _section(path: Path) -> dict[str, Any]:
    """Our section of a report, likewise. It is the last member, and the results of 70,000 checks before it are not read."""
    try:
        content = path.read_bytes()
        begin = content.rindex(_SECTION) + len(_SECTION)
        section = json.loads(content[begin : content.rindex(b"}")])
    except (OSError, ValueError, RecursionError):
        return {}
    return section if isinstance(section, dict) else {}


def _members(path: Path) -> dict[str, Any]:
    """The members of a JSON file; none where it is absent or damaged: then nothing is remembered."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
