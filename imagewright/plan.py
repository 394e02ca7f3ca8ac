"""The plan: which builds the stale verdicts of a report ask for, and which of them may be asked for. Without I/O."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from imagewright.errors import BadReport, Exit
from imagewright.reasons import Stale, Unknown
from imagewright.report import Record, Report
from imagewright.verdict import Reason, State

SCHEMA = 1
_PROPORTION = 0.02

Action = Literal["build", "retag"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One build, or move of `latest`, that is asked for. key: the same work has the same key.

    tool, base: None for a standalone image. base_digest: empty for an image from scratch.
    """

    key: str
    target: str
    tool: str | None
    base: str | None
    version: str
    base_digest: str
    reasons: tuple[Reason, ...]
    action: Action


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A target that the plan does nothing about. because: `held: <why>`, `unknown: <codes>` or `brake: <why>`."""

    target: str
    because: str


WAITS_FOR = "waits-for"


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A stale target that is built on another target of this project, which has to be built first.

    version: its own, so that nobody asks again when its turn comes.
    """

    target: str
    waits_for: str
    tool: str | None
    base: str | None
    version: str

    @property
    def because(self) -> str:
        """Why it is put off."""
        return f"{WAITS_FOR}:{self.waits_for}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Builds in order, what is put off, what is refused. report: digest of the report that it was made from."""

    report: str
    catalogue: str
    nonce: str
    created: str
    force: bool
    selection: str
    builds: tuple[Build, ...]
    deferrals: tuple[Held | Waiting, ...]
    refusals: tuple[Held, ...]

    @property
    def exit(self) -> Exit:
        """What `imagewright plan` ends with: the brake outranks unknown, unknown outranks stale."""
        if any(one.because.startswith("brake") for one in self.refusals):
            return Exit.BRAKE
        if self.refusals:
            return Exit.UNKNOWN
        return Exit.STALE if self.builds or self.deferrals else Exit.DONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What the settings say about planning. vanished_at_most: the brake's floor."""

    vanished_at_most: int
    hold: Mapping[str, str]


def decide(
    report: Report,
    *,
    digest: str,
    last_good: Mapping[str, str],
    policy: Policy,
    force: bool,
    now: str,
) -> Plan:
    """The plan that follows from a report.

    last_good: target → reference that was fresh when it was last known. force: fresh targets are built too, unknown ones
    never are.
    """
    stale = sorted(
        (one for one in report.records if one.state is State.STALE or (force and one.state is State.FRESH)),
        key=_urgency,
    )
    vanished = [one for one in report.records if _vanished(one, last_good)]
    braked = len(vanished) > max(policy.vanished_at_most, int(report.total * _PROPORTION))
    brake = f"brake: {len(vanished)} images that were there are gone; this looks like an accident of the registry"
    refusals = [
        Held(target=one.target, because=brake if braked and one in vanished else f"unknown: {_codes(one.reasons)}")
        for one in report.records
        if one.state is State.UNKNOWN
    ]
    deferrals: list[Held | Waiting] = []
    builds = []
    moving = {one.target for one in stale if not _only_behind(one) and not _held(one, policy)}
    if braked:
        refusals += [Held(target=one.target, because=brake) for one in stale]
    else:
        for one in stale:
            if held := _held(one, policy):
                deferrals.append(Held(target=one.target, because=f"held: {held}"))
            elif one.waits_for in moving or any(reason.code is Stale.BASE_MISSING for reason in one.reasons):
                deferrals.append(_waiting(one))
            else:
                builds.append(_build(one))
    return Plan(
        report=digest,
        catalogue=report.catalogue,
        nonce=report.nonce,
        created=now,
        force=force,
        selection=report.selection,
        builds=tuple(builds),
        deferrals=tuple(deferrals),
        refusals=tuple(refusals),
    )


def _urgency(record: Record) -> tuple[bool, str]:
    """What nobody can pull comes first, then the oldest image."""
    return not any(one.code is Stale.IMAGE_MISSING for one in record.reasons), record.created


def _vanished(record: Record, last_good: Mapping[str, str]) -> bool:
    """Whether this very image was there and is gone. A new version or a new target was never there."""
    gone = {Stale.IMAGE_MISSING, Stale.CHILD_MISSING, Unknown.REPOSITORY_VANISHED}
    return last_good.get(record.target) == record.reference and any(one.code in gone for one in record.reasons)


def _codes(found: Iterable[Reason]) -> str:
    return ", ".join(dict.fromkeys(one.code.code for one in found))


def _build(record: Record) -> Build:
    version, base_digest = record.version or "", record.base_digest or ""
    return Build(
        key=key(record.target, version, base_digest, record.recipe or ""),
        target=record.target,
        tool=record.tool,
        base=record.base,
        version=version,
        base_digest=base_digest,
        reasons=record.reasons,
        action="retag" if _only_behind(record) else "build",
    )


def _held(record: Record, policy: Policy) -> str | None:
    """Why somebody does not want it built now, if so."""
    names = (record.target, record.tool, record.base)
    return next((policy.hold[one] for one in names if one and one in policy.hold), None)


def _waiting(record: Record) -> Waiting:
    return Waiting(
        target=record.target,
        waits_for=record.waits_for,
        tool=record.tool,
        base=record.base,
        version=record.version or "",
    )


def _only_behind(record: Record) -> bool:
    return {one.code for one in record.reasons} == {Stale.LATEST_BEHIND}


def key(target: str, version: str, base_digest: str, recipe: str) -> str:
    """The identity of a piece of work: 16 hex digits."""
    return hashlib.sha256(f"{target}\n{version}\n{base_digest}\n{recipe}".encode()).hexdigest()[:16]


def dump(plan: Plan) -> bytes:
    """The plan as JSON, with a hash over all of it but the hash."""
    document = {
        "schema": SCHEMA,
        "report": plan.report,
        "catalogue": plan.catalogue,
        "nonce": plan.nonce,
        "created": plan.created,
        "force": plan.force,
        "selection": plan.selection,
        "builds": [
            {
                "key": one.key,
                "target": one.target,
                "tool": one.tool,
                "base": one.base,
                "version": one.version,
                "base_digest": one.base_digest,
                "reasons": [reason.as_json() for reason in one.reasons],
                "action": one.action,
            }
            for one in plan.builds
        ],
        "deferrals": [_deferral(one) for one in plan.deferrals],
        "refusals": [{"target": one.target, "because": one.because} for one in plan.refusals],
    }
    return json.dumps(document | {"self": _hash(document)}, indent=1, ensure_ascii=False).encode() + b"\n"


def parse(content: bytes, where: str) -> Plan:
    """A plan from its JSON. `BadReport` where it is none, or was changed by hand."""
    try:
        document = json.loads(content)
        stated = document.pop("self")
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']}, not {SCHEMA}")
        if stated != _hash(document):
            raise ValueError("it was changed after it was made")
        return Plan(
            report=document["report"],
            catalogue=document["catalogue"],
            nonce=document["nonce"],
            created=document["created"],
            force=document["force"],
            selection=document["selection"],
            builds=tuple(_read_build(one) for one in document["builds"]),
            deferrals=tuple(_read_deferral(one) for one in document["deferrals"]),
            refusals=tuple(Held(target=one["target"], because=one["because"]) for one in document["refusals"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadReport(f"not a plan: {error}", remedy="Make a new one: `imagewright plan`.", where=where) from None


def _deferral(one: Held | Waiting) -> dict[str, str | None]:
    told: dict[str, str | None] = {"target": one.target, "because": one.because}
    return told | ({"tool": one.tool, "base": one.base, "version": one.version} if isinstance(one, Waiting) else {})


def _read_deferral(members: Mapping[str, Any]) -> Held | Waiting:
    because = str(members["because"])
    if not because.startswith(f"{WAITS_FOR}:"):
        return Held(target=members["target"], because=because)
    return Waiting(
        target=members["target"],
        waits_for=because.removeprefix(f"{WAITS_FOR}:"),
        tool=members["tool"],
        base=members["base"],
        version=members["version"],
    )


def _read_build(members: Mapping[str, Any]) -> Build:
    if members["action"] not in ("build", "retag"):
        raise ValueError(f"no such action: {members['action']}")
    return Build(
        key=members["key"],
        target=members["target"],
        tool=members["tool"],
        base=members["base"],
        version=members["version"],
        base_digest=members["base_digest"],
        reasons=tuple(Reason.from_json(one) for one in members["reasons"]),
        action=members["action"],
    )


def _hash(document: Mapping[str, Any]) -> str:
    canonical = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
