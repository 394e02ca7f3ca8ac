"""Our section of the report: a typed record per target. Reading it back refuses whatever cannot account for every target.

pytest's outcomes are no evidence: a stale image, a crash of a worker and a bug in a check all say `failed` there. So a
plan reads these records only, and only from a report that is whole. Without I/O.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from imagewright import reasons
from imagewright.catalogue import Excluded, Pair, Target, repositories_of
from imagewright.documents import BadDocument, load_json
from imagewright.errors import BadReport
from imagewright.pieces import pieces
from imagewright.snapshot import BaseSeen, HostSeen, Published, Snapshot, TargetSeen, dump_reading
from imagewright.verdict import Finding, Reason, State, Verdict, judge

SCHEMA = 1
SECTION = "imagewright"
PROPERTY = "imagewright"
"""The property of a test under which its finding stands."""

NO_BASES = "bases"
"""Stands for all targets where the bases could not be listed."""

EXISTS = "test_exists"
"""The check that says why nothing could be asked; the others are not asked then."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """The verdict about one target and what it rests on. Texts are empty, digests and versions None, where unknown.

    tool, base: None for a standalone image. waits_for: the target of this project that it is built on, empty for none.
    recipe: today's, of the family buildkit. since: when it was first not fresh. last_layer: what the original rule, that
    the base's last layer is somewhere in the image, says; None where it cannot be asked.
    """

    target: str
    tool: str | None
    base: str | None
    waits_for: str = ""
    version: str | None
    reference: str
    digest: str | None
    base_digest: str | None
    recipe: str | None
    created: str
    listed_before: bool | None
    state: State
    reasons: tuple[Reason, ...]
    not_asked: tuple[str, ...]
    since: str | None
    last_layer: bool | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run found. started, finished: UTC, ISO 8601. expected: targets selected with all their checks.

    partial: targets with only some of their checks selected; no verdict. total: targets in the catalogue.
    """

    nonce: str
    catalogue: str
    started: str
    finished: str
    selection: str
    total: int
    expected: tuple[str, ...]
    partial: tuple[str, ...]
    excluded: tuple[Mapping[str, str], ...]
    warnings: tuple[str, ...]
    bases: tuple[Mapping[str, Any], ...]
    versions: tuple[Mapping[str, Any], ...]
    records: tuple[Record, ...] = field(default=())

    def record(self, target: str) -> Record | None:
        """The record of one target."""
        return next((one for one in self.records if one.target == target), None)

    def counts(self) -> dict[State, int]:
        """How many targets have which verdict, in the order fresh, stale, unknown."""
        found = Counter(one.state for one in self.records)
        return {state: found[state] for state in State}


def dump(report: Report) -> dict[str, Any]:
    """The section as JSON members."""
    return {
        "schema": SCHEMA,
        "nonce": report.nonce,
        "catalogue": report.catalogue,
        "started": report.started,
        "finished": report.finished,
        "selection": report.selection,
        "total": report.total,
        "expected": list(report.expected),
        "partial": list(report.partial),
        "excluded": [dict(one) for one in report.excluded],
        "warnings": list(report.warnings),
        "bases": [dict(one) for one in report.bases],
        "versions": [dict(one) for one in report.versions],
        "verdicts": [
            {
                "target": one.target,
                "tool": one.tool,
                "base": one.base,
                "waits_for": one.waits_for,
                "version": one.version,
                "reference": one.reference,
                "digest": one.digest,
                "base_digest": one.base_digest,
                "recipe": one.recipe,
                "created": one.created,
                "listed_before": one.listed_before,
                "verdict": one.state.value,
                "reasons": [reason.as_json() for reason in one.reasons],
                "not_asked": list(one.not_asked),
                "since": one.since,
                "last_layer": one.last_layer,
            }
            for one in report.records
        ],
    }


_SELF = "self"


def seal(document: Mapping[str, Any]) -> Iterator[bytes]:
    """A report file, piece by piece: pytest-json-report's document and our section, which gets a hash over all else.

    Half of a surrogate pair, as in the name of a file that is not UTF-8, becomes a question mark.
    """
    section = {**document[SECTION], _SELF: _hash(document)}
    return map(_encoded, pieces({**document, SECTION: section}))


def _hash(document: Mapping[str, Any]) -> str:
    section = {name: value for name, value in document[SECTION].items() if name != _SELF}
    sha256 = hashlib.sha256()
    for piece in pieces({**document, SECTION: section}, in_order=True):
        sha256.update(_encoded(piece))
    return f"sha256:{sha256.hexdigest()}"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the checks of one run left behind. started, finished: UTC, ISO 8601. checks: all there are, by name.

    crashed: check and target where a worker died. findings: by target. since: target → since when it was not fresh.
    waits_for: target → the target of this project that it is built on. recipe: today's, by target, of the family buildkit.
    """

    nonce: str
    catalogue: str
    started: str
    finished: str
    selection: str
    checks: Sequence[str]
    expected: Sequence[str]
    partial: Sequence[str]
    targets: Sequence[Target]
    excluded: Sequence[Excluded]
    findings: Mapping[str, Sequence[Finding]]
    crashed: Sequence[tuple[str, str]]
    seen: Snapshot | None
    since: Mapping[str, str]
    waits_for: Mapping[str, str]
    recipe: Mapping[str, str]
    warnings: Sequence[str]


def assemble(run: Evidence) -> Report:
    """The report of a run: a record for each expected target all of whose checks ended or are known to have crashed."""
    targets = {target.key: target for target in run.targets}
    seen = {one.target: one for one in run.seen.targets} if run.seen else {}
    records = []
    for key in run.expected:
        judged = _judged(key, run)
        if judged is None:
            continue
        since = None if judged.state is State.FRESH else run.since.get(key, run.started)
        if key in targets:
            records.append(_target_record(targets[key], judged, seen.get(key), since, run))
        else:
            records.append(_bases_record(judged, since))
    return Report(
        nonce=run.nonce,
        catalogue=run.catalogue,
        started=run.started,
        finished=run.finished,
        selection=run.selection,
        total=len(run.targets),
        expected=tuple(run.expected),
        partial=tuple(run.partial),
        excluded=tuple(
            {"target": one.key, "tool": one.tool, "base": one.base, "because": one.because} for one in run.excluded
        ),
        warnings=(
            *run.warnings,
            *(_left_open(host, records, targets) for host in (run.seen.hosts if run.seen else ())),
            *_distrusted(run.seen, records, targets),
            *_warnings(seen.values()),
        ),
        bases=tuple(_base_members(one) for one in run.seen.bases) if run.seen else (),
        versions=tuple(dump_reading(one) for one in run.seen.readings) if run.seen else (),
        records=tuple(records),
    )


def _judged(key: str, run: Evidence) -> Verdict | None:
    found = run.findings.get(key, ())
    checks = (EXISTS,) if key == NO_BASES else run.checks
    if judged := judge(found, checks):
        return judged
    lost = set(checks) - {one.check for one in found}
    crashed = {check for check, target in run.crashed if target == key}
    if len(found) + len(crashed) != len(checks) or lost != crashed:
        return None
    detail = f"while checking {', '.join(sorted(crashed))}"
    return Verdict(state=State.UNKNOWN, reasons=(Reason(code=reasons.Unknown.WORKER_CRASH, detail=detail),))


def _target_record(
    target: Target, judged: Verdict, looked: TargetSeen | None, since: str | None, run: Evidence
) -> Record:
    published = looked.observation if looked and isinstance(looked.observation, Published) else None
    base_seen = run.seen.base(target.base.name) if run.seen and target.base else None
    base = base_seen.observation if base_seen and isinstance(base_seen.observation, Published) else None
    version = looked.version if looked else None
    return Record(
        target=target.key,
        tool=target.tool.name if isinstance(target, Pair) else None,
        base=target.base.name if isinstance(target, Pair) else None,
        waits_for=run.waits_for.get(target.key, ""),
        version=version,
        reference=str(target.tagged(version)) if version else "",
        digest=published.digest if published else None,
        base_digest=base.digest if base else None,
        recipe=run.recipe.get(target.key),
        created=max((image.created for image in published.images), default="") if published else "",
        listed_before=looked.listed_before if looked else None,
        state=judged.state,
        reasons=judged.reasons,
        not_asked=tuple(name.removeprefix("test_") for name in judged.not_asked),
        since=since,
        last_layer=published.has_last_layer_of(base) if published and base else None,
    )


def _bases_record(judged: Verdict, since: str | None) -> Record:
    return Record(
        target=NO_BASES,
        tool="",
        base="",
        waits_for="",
        version=None,
        reference="",
        digest=None,
        base_digest=None,
        recipe=None,
        created="",
        listed_before=None,
        state=judged.state,
        reasons=judged.reasons,
        not_asked=(),
        since=since,
        last_layer=None,
    )


def _base_members(seen: BaseSeen) -> dict[str, Any]:
    found = seen.observation if isinstance(seen.observation, Published) else None
    return {
        "base": seen.name,
        "reference": str(seen.observation.reference),
        "digest": found.digest if found else None,
        "platforms": [str(one) for one in found.platforms] if found else [],
    }


def _left_open(seen: HostSeen, records: Sequence[Record], targets: Mapping[str, Target]) -> str:
    """What a host did, what is unknown for it, and when to look again."""
    lost = [
        one.target
        for one in records
        if one.state is State.UNKNOWN and one.target in targets and seen.host in _hosts(targets[one.target])
    ]
    rest = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    lost_text = f"; unknown for that: {', '.join(lost[:_NAMED])}{rest}" if lost else ""
    minutes = math.ceil((seen.retry_after or 0) / 60)
    wait = f"Look again in {minutes} min." if minutes else seen.reason.remedy
    left = f"{seen.unanswered} of {seen.asked} questions"
    return f"{seen.host} left {left} open, {seen.reason}: {seen.detail}{lost_text}. {wait}"


_NAMED = 3


def _hosts(target: Target) -> set[str]:
    return {one.host for one in repositories_of(target)}


def _distrusted(seen: Snapshot | None, records: Sequence[Record], targets: Mapping[str, Target]) -> Iterator[str]:
    """The repositories whose canaries failed, where that means something for a verdict."""
    failed = reasons.Unknown.CANARY_FAILED
    concerned = {
        repository
        for one in records
        if one.target in targets and (one.state is State.FRESH or any(why.code is failed for why in one.reasons))
        for repository in repositories_of(targets[one.target])
    }
    for canaries in seen.canaries if seen else ():
        if canaries.failed and canaries.repository in concerned:
            yield f"{canaries.repository} cannot be trusted, so nothing there counts as stale: {canaries.failed}"


def _warnings(targets: Iterable[TargetSeen]) -> Iterator[str]:
    for one in targets:
        if isinstance(one.observation, Published):
            yield from (f"{one.target}: {warning}" for warning in one.observation.warnings)


_AGAIN = "Run `pytest checks/` again."


def parse(content: bytes, where: str) -> Report:
    """The report in the bytes of a pytest-json-report file. `BadReport` unless it accounts for every expected target."""
    try:
        document = load_json(content, len(content))
    except BadDocument as error:
        raise BadReport(f"not a report: {error}", remedy=_AGAIN, where=where) from None
    section = document.get(SECTION) if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(section, dict):
        raise BadReport("the report has no section of imagewright", remedy=_AGAIN, where=where)
    if section.get("schema") != SCHEMA:
        raise BadReport(f"the report has schema {section.get('schema')}, not {SCHEMA}", remedy=_AGAIN, where=where)
    try:
        _refuse_changed(document, section, where)
        report = _report(section)
        _refuse_uncounted(document, where)
        _findings(document)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise BadReport(f"the report is damaged: {error!r}", remedy=_AGAIN, where=where) from None
    _refuse_unaccounted(report, where)
    return report


_TEXTS = ("target", "waits_for", "reference", "created")
_TEXTS_OR_NULL = ("tool", "base", "version", "digest", "base_digest", "recipe", "since")


def _texts(members: Mapping[str, Any], name: str) -> tuple[str, ...]:
    listed = members[name]
    if not isinstance(listed, list) or not all(isinstance(one, str) for one in listed):
        raise TypeError(f"{name} is not a list of texts")
    return tuple(listed)


def _objects(
    section: Mapping[str, Any], name: str, *, texts: Sequence[str], texts_or_null: Sequence[str] = ()
) -> tuple[Mapping[str, Any], ...]:
    listed = section[name]
    if not isinstance(listed, list) or not all(isinstance(one, dict) for one in listed):
        raise TypeError(f"{name} is not a list of objects")
    for one in listed:
        if not all(isinstance(one[key], str) for key in texts) or not all(
            isinstance(one.get(key), str | None) for key in texts_or_null
        ):
            raise TypeError(f"{name} has a member that is not a text")
    return tuple(listed)


def _report(section: Mapping[str, Any]) -> Report:
    if not section["nonce"]:
        raise ValueError("no nonce")
    for name in ("nonce", "catalogue", "started", "finished", "selection"):
        if not isinstance(section[name], str):
            raise TypeError(f"{name} is not a text")
    if not isinstance(section["total"], int):
        raise TypeError("total is not a number")
    return Report(
        nonce=section["nonce"],
        catalogue=section["catalogue"],
        started=section["started"],
        finished=section["finished"],
        selection=section["selection"],
        total=section["total"],
        expected=_texts(section, "expected"),
        partial=_texts(section, "partial"),
        excluded=_objects(section, "excluded", texts=("target", "because"), texts_or_null=("tool", "base")),
        warnings=_texts(section, "warnings"),
        bases=_objects(section, "bases", texts=("base",)),
        versions=_objects(section, "versions", texts=("tool",), texts_or_null=("version",)),
        records=tuple(_record(one) for one in section["verdicts"]),
    )


def _record(members: Mapping[str, Any]) -> Record:
    for name in _TEXTS + _TEXTS_OR_NULL:
        if not isinstance(members[name], str | None) or (name in _TEXTS and members[name] is None):
            raise TypeError(f"{name} of a verdict is not a text")
    state = State(members["verdict"])
    why = tuple(Reason.from_json(one) for one in members["reasons"])
    kinds = {State.FRESH: (), State.STALE: (reasons.Stale,), State.UNKNOWN: (reasons.Unknown,)}[state]
    if bool(why) == (state is State.FRESH) or not all(isinstance(one.code, kinds) for one in why):
        raise ValueError(f"{members['target']} is {state.value} with reasons that do not fit")
    return Record(
        target=members["target"],
        tool=members["tool"],
        base=members["base"],
        waits_for=members["waits_for"],
        version=members["version"],
        reference=members["reference"],
        digest=members["digest"],
        base_digest=members["base_digest"],
        recipe=members["recipe"],
        created=members["created"],
        listed_before=members["listed_before"],
        state=state,
        reasons=why,
        not_asked=_texts(members, "not_asked"),
        since=members["since"],
        last_layer=members["last_layer"],
    )


def _refuse_changed(document: Mapping[str, Any], section: Mapping[str, Any], where: str) -> None:
    if section.get(_SELF) != _hash(document):
        raise BadReport("the report was changed after it was written", remedy=_AGAIN, where=where)


def _refuse_uncounted(document: Mapping[str, Any], where: str) -> None:
    """A report can lose results and say nothing of it, so its own numbers must agree."""
    if document["exitcode"] not in (0, 1):
        raise BadReport(
            f"pytest ended with {document['exitcode']}, so the run was not finished", remedy=_AGAIN, where=where
        )
    summary = document["summary"]
    selected = summary["collected"] - summary.get("deselected", 0)
    if not isinstance(document["tests"], list):
        raise TypeError("tests is not a list")
    listed = len(document["tests"])
    if not selected == summary.get("total", 0) == listed:
        raise BadReport(
            f"{selected} checks were selected, {summary.get('total', 0)} ended and {listed} are listed",
            remedy=_AGAIN,
            where=where,
        )


def _refuse_unaccounted(report: Report, where: str) -> None:
    """Every expected target exactly once, and at least one."""
    if not report.expected:
        raise BadReport(
            "no target was selected with all its checks",
            remedy="Select targets (--tool, --base, -k codex-fedora), not single checks.",
            where=where,
        )
    seen = Counter(one.target for one in report.records)
    expected = set(report.expected)
    wrong = sorted(
        [f"{name} has no verdict" for name in report.expected if not seen[name]]
        + [f"{name} has {count} verdicts" for name, count in seen.items() if count > 1]
        + [f"{name} was not expected" for name in seen if name not in expected]
    )
    if len(expected) != len(report.expected):
        wrong.append("a target is expected twice")
    if wrong:
        raise BadReport(_some(wrong), remedy=_AGAIN, where=where)


def _some(problems: Sequence[str], limit: int = 3) -> str:
    rest = len(problems) - limit
    return "; ".join(problems[:limit]) + (f"; and {rest} more" if rest > 0 else "")


def findings(content: bytes, target: str) -> list[Finding]:
    """What each check found about one target, from the bytes of a report that `parse` accepted."""
    return [one for one in _findings(json.loads(content)) if one.target == target]


def _findings(document: Mapping[str, Any]) -> list[Finding]:
    """What the checks found about all targets; KeyError, TypeError, ValueError or AttributeError where it is damaged."""
    return [
        Finding.from_json(members[PROPERTY])
        for test in document["tests"]
        for members in test.get("user_properties", ())
        if PROPERTY in members
    ]
