"""Builds on the forge, as values: what runs there, and what became of asking for one. Without I/O."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from imagewright.plan import Build

_KEY = re.compile(r"\[([0-9a-f]{16})\]\s*\Z")
_NO_ATTEMPT = frozenset({"cancelled", "skipped", "stale", "action_required"})
"""Ends of a run in which nothing was tried: a waiting one that a newer one replaced ends `cancelled`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run of the workflow that builds. status, conclusion: as GitHub calls them. created: None where nobody says.

    ended: None while it is in flight. attempt: 1, and one more for each time that it was run again.
    """

    id: int
    title: str
    status: str
    conclusion: str
    created: datetime | None
    ended: datetime | None
    attempt: int
    url: str

    @property
    def in_flight(self) -> bool:
        """Whether it waits or runs; a status that nobody knows yet counts as such."""
        return self.status != "completed"

    @property
    def key(self) -> str:
        """The key of its work, from its title; empty for one that was started by hand: its target is a word of the title."""
        matched = _KEY.search(self.title)
        return matched[1] if matched else ""

    @property
    def attempts(self) -> int:
        """How often its work was tried to the end, whatever that was."""
        tried_now = not self.in_flight and self.conclusion not in _NO_ATTEMPT
        return self.attempt - 1 + tried_now


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of asking for a run. `ambiguous`: it may have been made, so it is not asked for again.

    run: its number, None where the forge does not tell. detail: a sentence where it was not accepted.
    """

    outcome: Literal["accepted", "rejected", "ambiguous"]
    run: int | None = None
    url: str = ""
    detail: str = ""
    remedy: str = ""


def inputs_of(build: Build, *, force: bool) -> Mapping[str, str]:
    """The inputs of the workflow for a build; all are texts. https://docs.github.com/en/rest/actions/workflows"""
    made = {
        "tool": build.tool or "",
        "base": build.base or "",
        "target": "" if build.tool and build.base else build.target,
        "version": build.version,
        "base_digest": build.base_digest,
        "reason": ", ".join(dict.fromkeys(one.code.code for one in build.reasons)),
        "key": build.key,
        "force": "true" if force else "",
    }
    return {name: value for name, value in made.items() if value}
