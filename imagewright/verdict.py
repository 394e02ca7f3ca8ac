"""Fresh, stale or unknown: what the checks found about a target, and what follows from all of it.

A check returns, or raises `Stale`, `Unknown` or `NotAsked`. Anything else that it raises is a broken check, so unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from imagewright import reasons
from imagewright.names import Platform
from imagewright.reasons import CODES

RIGHT = "right"
NOT_ASKED = "not-asked"
STALE = "stale"
UNKNOWN = "unknown"


class State(Enum):
    """The three verdicts."""

    FRESH = "fresh"
    STALE = "stale"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why a target is not fresh. platform: empty where it concerns all. detail: one sentence for a person."""

    code: reasons.Stale | reasons.Unknown
    platform: str = ""
    expected: str = ""
    found: str = ""
    detail: str = ""

    def __str__(self) -> str:
        place = f" on {self.platform}" if self.platform else ""
        return f"{self.code}{place}: {self.detail or self.code.meaning}"

    def as_json(self) -> dict[str, str]:
        """Its members in a report."""
        return {
            "code": self.code.code,
            "platform": self.platform,
            "expected": self.expected,
            "found": self.found,
            "detail": self.detail,
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> "Reason":
        """A reason from a report; KeyError, TypeError or ValueError where it is none."""
        texts = {name: members[name] for name in ("platform", "expected", "found", "detail")}
        if not all(isinstance(text, str) for text in texts.values()):
            raise TypeError("a reason has a member that is not a text")
        return cls(code=CODES[members["code"]], **texts)


class Outcome(Exception):  # noqa: N818 - not an error: the outcome of a check
    """What a check found, unless it simply returns. kind: as recorded. reasons: none where the check was not asked."""

    kind = ""

    def __init__(self, found: Sequence[Reason], message: str = "") -> None:
        super().__init__(message or "; ".join(str(one) for one in found))
        self.reasons = tuple(found)


class Stale(Outcome):
    """Something was verified to be wrong that a build, or moving a tag, cures."""

    kind = STALE

    def __init__(self, found: Sequence[Reason]) -> None:
        if not found or not all(isinstance(one.code, reasons.Stale) for one in found):
            raise ValueError("stale wants at least one reason, and only reasons for being stale")
        super().__init__(found)


class Unknown(Outcome):
    """The question could not be answered."""

    kind = UNKNOWN

    def __init__(self, found: Sequence[Reason]) -> None:
        if not found or not all(isinstance(one.code, reasons.Unknown) for one in found):
            raise ValueError("unknown wants at least one reason, and only reasons for not knowing")
        super().__init__(found)


class NotAsked(Outcome):
    """There is nothing to compare: shown as such, and never counted as fresh by itself."""

    kind = NOT_ASKED

    def __init__(self, why: str) -> None:
        super().__init__((), why)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found about one target. kind: right, not-asked, stale or unknown. why: for not-asked."""

    check: str
    target: str
    kind: str
    reasons: tuple[Reason, ...] = ()
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Its members as a test's property."""
        return {
            "check": self.check,
            "target": self.target,
            "kind": self.kind,
            "reasons": [one.as_json() for one in self.reasons],
            "why": self.why,
        }

    @classmethod
    def from_json(cls, members: Mapping[str, Any]) -> "Finding":
        """A finding from a test's property; KeyError, TypeError or ValueError where it is none."""
        return cls(
            check=members["check"],
            target=members["target"],
            kind=members["kind"],
            reasons=tuple(Reason.from_json(one) for one in members["reasons"]),
            why=members["why"],
        )


def finding(check: str, target: str, raised: BaseException | None) -> Finding:
    """What a check found, by what it raised. A crash of the check makes the target unknown, never stale."""
    match raised:
        case None:
            return Finding(check=check, target=target, kind=RIGHT)
        case Outcome():
            return Finding(check=check, target=target, kind=raised.kind, reasons=raised.reasons, why=str(raised))
        case _:
            crash = Reason(
                code=reasons.Unknown.CHECK_FAILED, detail=f"{check}: {type(raised).__name__}: {raised}"[:500]
            )
            return Finding(check=check, target=target, kind=UNKNOWN, reasons=(crash,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """About one target: the state, every reason for it, and the checks that were not asked, with the reason."""

    state: State
    reasons: tuple[Reason, ...] = ()
    not_asked: Mapping[str, str] = field(default_factory=dict, hash=False)


def judge(findings: Iterable[Finding], checks: Sequence[str]) -> Verdict | None:
    """The verdict that the findings of all `checks` about one target make; None where one of them is absent.

    Unknown outranks stale outranks fresh; and what was not asked at all is not fresh.
    """
    found = tuple(findings)
    if sorted(one.check for one in found) != sorted(checks):
        return None
    kinds = {one.kind for one in found}
    not_asked = {one.check: one.why for one in found if one.kind == NOT_ASKED}
    for kind, state in ((UNKNOWN, State.UNKNOWN), (STALE, State.STALE)):
        if kind in kinds:
            why = [reason for one in found if one.kind == kind for reason in one.reasons]
            return Verdict(state=state, reasons=tuple(dict.fromkeys(why)), not_asked=not_asked)
    if RIGHT not in kinds:
        nothing = Reason(code=reasons.Unknown.CHECK_FAILED, detail="no check had anything to ask")
        return Verdict(state=State.UNKNOWN, reasons=(nothing,), not_asked=not_asked)
    return Verdict(state=State.FRESH, not_asked=not_asked)


def on_platforms(code: reasons.Stale, departures: Iterable[tuple[Platform, str, str, str]]) -> tuple[Reason, ...]:
    """A reason per platform from (platform, expected, found, detail)."""
    return tuple(
        Reason(code=code, platform=str(platform), expected=expected, found=found, detail=detail)
        for platform, expected, found, detail in departures
    )
