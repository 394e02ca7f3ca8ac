"""Fresh, stale or unknown: what the checks found about a target, and what follows from all of it.

A check returns, or raises `Stale`, `Unknown` or `NotAsked`. Anything else that it raises is a broken check, so unknown.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby
from typing import Any

from imagewright import reasons
from imagewright.catalogue import Target
from imagewright.names import Platform, shown
from imagewright.reasons import CODES
from imagewright.settings import Scheme
from imagewright.snapshot import Missing, Observation, Published, Unreachable
from imagewright.tags import compare

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


class Outcome(Exception):
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

    @property
    def is_crash(self) -> bool:
        """Whether the check itself is broken."""
        return any(one.code is reasons.Unknown.CHECK_FAILED for one in self.reasons)

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


def believed(raised: BaseException | None, distrust: str) -> BaseException | None:
    """What a check raised, or `Unknown` in the place of `Stale` where nobody vouches for the host's answers.

    distrust: why; empty where somebody does.
    """
    if isinstance(raised, Stale) and distrust:
        return Unknown([Reason(code=reasons.Unknown.CANARY_FAILED, detail=distrust)])
    return raised


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


VERSION_LABEL = "org.opencontainers.image.version"
BASE_DIGEST_LABEL = "org.opencontainers.image.base.digest"
_SHOWN = 160


def readable_base(target: Target, looked: Observation) -> Published:
    """The base, fit to be compared with; raises `Unknown` where it is not: then a build could not succeed either."""
    match looked:
        case Missing(code=code):
            detail = f"{looked.reference} is not there ({code})"
            raise Unknown([Reason(code=reasons.Unknown.BASE_UNREADABLE, detail=detail)])
        case Unreachable(detail=said):
            detail = f"{looked.reference}: {said}"
            raise Unknown([Reason(code=reasons.Unknown.BASE_UNREADABLE, detail=detail)])
        case Published():
            _refuse_unfit(target, looked)
            return looked


def _refuse_unfit(target: Target, looked: Published) -> None:
    required = target.required(looked.platforms)
    absent = [one for one in target.named() if one not in looked.platforms]
    if absent or not required:
        wanted = ", ".join(str(one) for one in absent or target.declared)
        detail = f"{looked.reference} has {', '.join(str(one) for one in looked.platforms)}, not {wanted}"
        raise Unknown([Reason(code=reasons.Unknown.BASE_PLATFORM_MISSING, detail=detail)])
    lost = {one.platform for one in looked.gone}
    if holes := [str(platform) for platform in required if platform in lost]:
        detail = f"{looked.reference} has lost its content for {', '.join(holes)}"
        raise Unknown([Reason(code=reasons.Unknown.BASE_UNREADABLE, detail=detail)])
    images = {platform: looked.on(platform) for platform in required}
    if bare := [str(platform) for platform, image in images.items() if image and not image.diff_ids]:
        detail = f"{looked.reference} has no layers on {', '.join(bare)}"
        raise Unknown([Reason(code=reasons.Unknown.BASE_EMPTY, detail=detail)])


def stated_versions(image: Published) -> tuple[str, ...]:
    """The versions that an image of ours says it has, by its labels; none for one from before, or from elsewhere."""
    ours = [one.labels for one in image.images if any(name.endswith((".tool", ".recipe")) for name in one.labels)]
    return tuple(sorted({labels[VERSION_LABEL] for labels in ours if VERSION_LABEL in labels}))


def refuse_backwards(scheme: Scheme, version: str, newest: Observation | None) -> None:
    """`Unknown` where `latest` names an image of a newer version than the one that was read today, or may do so.

    newest: what `latest` names, None where nobody had to look.
    """
    match newest:
        case Unreachable(detail=said):
            detail = f"`latest`, which may be of a newer version, could not be read: {said}"
            raise Unknown([Reason(code=newest.reason, detail=detail)])
        case Published():
            for stated in stated_versions(newest):
                order = compare(scheme, stated, version)
                if order is not None and order > 0:
                    code = reasons.Unknown.VERSION_WENT_BACKWARDS
                    raise Unknown([Reason(code=code, detail=f"today's is {version}, `latest` is {stated}")])
        case Missing() | None:
            pass


def layer_departures(observed: Published, base: Published, *, on: Iterable[Platform]) -> list[Reason]:
    """Why the image does not contain its base, per platform that both have: the base's layers must be its first ones."""
    found = []
    for platform in on:
        image, below = observed.on(platform), base.on(platform)
        if image is None or below is None:
            continue
        if not image.diff_ids:
            found.append(Reason(code=reasons.Stale.BASE_LAYERS_MISSING, platform=str(platform)))
        elif difference := observed.departs_from(base, platform):
            detail = f"layer {difference.at + 1} of {len(below.diff_ids)} of the base is another one"
            found.append(
                Reason(
                    code=reasons.Stale.BASE_CHANGED,
                    platform=str(platform),
                    expected=difference.expected,
                    found=difference.found,
                    detail=detail,
                )
            )
        elif len(image.diff_ids) == len(below.diff_ids):
            found.append(Reason(code=reasons.Stale.NO_OWN_LAYERS, platform=str(platform)))
    return found


def base_label_departure(observed: Published, base: Published) -> list[Reason]:
    """Why a squashed image is not built on its base: its label names another digest. `NotAsked` without a label."""
    labels = {image.labels.get(BASE_DIGEST_LABEL) for image in observed.images} - {None}
    labels |= {observed.annotations.get(BASE_DIGEST_LABEL)} - {None}
    if not labels:
        raise NotAsked(f"a squashed image without the label {BASE_DIGEST_LABEL}")
    return [
        Reason(code=reasons.Stale.BASE_CHANGED, expected=base.digest, found=str(label))
        for label in sorted(labels, key=str)
        if label != base.digest
    ]


def config_departures(observed: Published, base: Published, *, on: Iterable[Platform]) -> list[Reason]:
    """Why the image does not have its base's configuration, per platform. `NotAsked` where no history tells."""
    wanted = tuple(on)
    told = [
        platform
        for platform in wanted
        if (below := base.on(platform)) and below.history_is_whole
        if (image := observed.on(platform)) and image.history_is_whole
    ]
    if not told:
        raise NotAsked("the histories do not account for every layer")
    return [
        Reason(
            code=reasons.Stale.BASE_CONFIG,
            platform=str(platform),
            expected=difference.expected[:_SHOWN],
            found=difference.found[:_SHOWN],
            detail=f"step {difference.at + 1} of the base's history is another one",
        )
        for platform in told
        if (difference := observed.config_departs_from(base, platform))
    ]


def own_labels(observed: Published, base: Published | None, label: str) -> dict[Platform, str]:
    """A label per platform, without those that the image only inherited from its base. `NotAsked` if none is left.

    base: None for an image from scratch.
    """
    found = {
        image.platform: image.labels[label]
        for image in observed.images
        if label in image.labels
        if not (below := base.on(image.platform) if base else None) or below.labels.get(label) != image.labels[label]
    }
    if not found:
        raise NotAsked(f"the image has no label {label} of its own")
    return found


def recipe_departures(published: Mapping[Platform, str], today: Mapping[str, str | None]) -> list[Reason]:
    """Platforms whose recipe label is not today's. today: label → today's recipe in its scheme and family, or None.

    `NotAsked` where none can be compared: another scheme, or a family of builders that is not known here.
    """
    comparable = {platform: label for platform, label in published.items() if today[label] is not None}
    if not comparable:
        raise NotAsked("the recipe label is of another scheme or builder family")
    return [
        Reason(code=reasons.Stale.RECIPE_CHANGED, platform=str(platform), expected=today[label] or "", found=label)
        for platform, label in comparable.items()
        if label != today[label]
    ]


def reason_texts(found: Iterable[Reason]) -> list[str]:
    """One sentence a reason; platforms with the same story put together."""
    texts = []
    for (code, detail), alike in groupby(found, key=lambda one: (one.code, one.detail)):
        several = list(alike)
        platforms = ", ".join(one.platform for one in several if one.platform)
        text = f"{code}{f' on {platforms}' if platforms else ''}: {detail or code.meaning}"
        one = several[0]
        if one.expected and one.found and len(several) == 1:
            text += f" (expected {_short(one.expected)}, found {_short(one.found)})"
        elif one.expected and not detail and len(several) == 1:
            text += f" ({_short(one.expected)})"
        texts.append(text)
    return texts


def _short(text: str) -> str:
    """Digests cut to what tells them apart."""
    algorithm, colon, encoded = text.partition(":")
    if colon and algorithm in ("sha256", "sha512"):
        return f"{algorithm}:{encoded[:12]}…"
    return shown(text, 100)[1:-1]
