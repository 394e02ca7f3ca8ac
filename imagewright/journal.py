"""What was asked of the forge, written down before it is asked: what may have happened is known whatever happens next."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from imagewright.errors import Failed
from imagewright.forge.runs import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A request for a run. plan: the digest of the plan that asked for it. outcome: `asking` where nobody knows."""

    key: str
    target: str
    plan: str
    at: datetime
    outcome: str
    run: int | None = None


class Journal:
    """The journal of a project, in a file that may not be there yet."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def entries(self) -> tuple[Entry, ...]:
        """What was asked so far, each request once, with what became of it. `Failed` where the file is damaged."""
        lines = self._whole().splitlines()
        found: dict[tuple[str, str], Entry] = {}
        for number, line in enumerate(lines, 1):
            try:
                entry = _entry(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                raise Failed(
                    "not a journal of requests",
                    where=f"{self._path}:{number}",
                    remedy="Move it away, and wait for `limits.settle` before the next dispatch.",
                ) from None
            found[entry.plan, entry.key] = entry
        return tuple(found.values())

    def _whole(self) -> bytes:
        """Its lines, without one at the end that somebody could not finish: what it was for has not been done."""
        content = self._path.read_bytes() if self._path.exists() else b""
        return content[: content.rfind(b"\n") + 1]

    def asking(self, entry: Entry) -> None:
        """Notes a request that is about to be made; on disk when this returns. An `OSError` says that it is not."""
        self._write({**_members(entry), "outcome": "asking"})

    def became(self, entry: Entry, outcome: Outcome) -> None:
        """Notes what became of it."""
        told = {"outcome": outcome.outcome, "run": outcome.run, "url": outcome.url, "detail": outcome.detail}
        self._write(_members(entry) | {name: value for name, value in told.items() if value})

    def _write(self, members: dict[str, Any]) -> None:
        whole = len(self._whole())
        with self._path.open("r+b") as file:
            file.truncate(whole)
            file.seek(whole)
            file.write(json.dumps(members).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def held(path: Path) -> Iterator[Journal]:
    """The journal, until the end of the block. `Failed` where another process has it: what it asks for is not known yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed(
                "another dispatch is under way", where=str(path), remedy="Wait for it; then make a new plan."
            ) from None
        yield Journal(path)


def _members(entry: Entry) -> dict[str, Any]:
    return {"at": entry.at.isoformat(), "plan": entry.plan, "key": entry.key, "target": entry.target}


def _entry(members: dict[str, Any]) -> Entry:
    return Entry(
        key=members["key"],
        target=members["target"],
        plan=members["plan"],
        at=datetime.fromisoformat(members["at"]),
        outcome=members["outcome"],
        run=members.get("run"),
    )
