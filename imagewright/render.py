"""How results look to a person: lines of text from values. Without I/O."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby

from imagewright.plan import Plan
from imagewright.report import NO_BASES, Record, Report
from imagewright.snapshot import Missing, Observation, Pointer, Published, Snapshot, Unreachable
from imagewright.verdict import NOT_ASKED, RIGHT, STALE, UNKNOWN, Finding, State, reason_texts

_GLYPHS = {State.FRESH: "✓", State.STALE: "✗", State.UNKNOWN: "?"}
_COLOURS = {State.FRESH: "green", State.STALE: "red", State.UNKNOWN: "yellow"}
_AT_MOST = 40


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and the colour that a terminal may give it; empty for none."""

    text: str
    colour: str = ""


def report_lines(report: Report) -> Iterator[Line]:
    """What is not fresh and why, then the counts."""
    not_fresh = [one for one in report.records if one.state is not State.FRESH]
    order = {State.UNKNOWN: 0, State.STALE: 1, State.FRESH: 2}
    not_fresh.sort(key=lambda one: order[one.state])
    width = max((len(one.target) for one in not_fresh), default=0)
    for group in _alike(not_fresh):
        yield from _record_lines(group, width)
    yield from (Line(f"warning: {one}", "yellow") for one in report.warnings)
    for one in report.excluded:
        yield Line(f"  {one['target']}: excluded, {one['because']}")
    if report.partial:
        yield Line(f"{len(report.partial)} targets were only asked some of the checks: no verdict about them")
    unjudged = len(report.expected) - len(report.records)
    if unjudged:
        yield Line(f"{unjudged} targets have no verdict: not all of their checks ended", "red")
    yield Line(counts(report), _COLOURS[worst(report)])


def _alike(records: list[Record]) -> list[list[Record]]:
    """Records in order, many with the very same reasons put together: an outage is one cause, not a page of lines."""
    groups = [list(group) for _, group in groupby(records, key=lambda one: (one.state, one.reasons))]
    return [part for group in groups for part in ([group] if len(group) > _AT_MOST // 8 else [[one] for one in group])]


def _record_lines(group: list[Record], width: int) -> Iterator[Line]:
    first = group[0]
    head = f"{_GLYPHS[first.state]} {first.target:<{width}}  {first.state.value:<7}  "
    if len(group) > 1:
        names = ", ".join(one.target for one in group)
        head = f"{_GLYPHS[first.state]} {len(group)} targets  {first.state.value}  "
        yield Line(f"{head}{names if len(names) < 200 else names[:200] + ' …'}", _COLOURS[first.state])
        head = "  "
    indent = " " * (len(head) if len(group) == 1 else 4)
    for at, text in enumerate(reason_texts(first.reasons)):
        yield Line((head if at == 0 and len(group) == 1 else indent) + text, _COLOURS[first.state])


def worst(report: Report) -> State:
    """The worst verdict in a report; unknown where there is none, or not one for each expected target."""
    states = {one.state for one in report.records}
    if State.UNKNOWN in states or not states or len(report.records) < len(report.expected):
        return State.UNKNOWN
    return State.STALE if State.STALE in states else State.FRESH


def counts(report: Report) -> str:
    """The matrix in counts."""
    if report.expected == (NO_BASES,):
        return "no targets: the bases could not be listed"
    of = "" if len(report.expected) == report.total else f" of {report.total}"
    found = ", ".join(f"{count} {state.value}" for state, count in report.counts().items())
    return f"{len(report.expected)}{of} targets: {found}"


def next_step(report: Report, path: str) -> str:
    """Where the report is and what to do next."""
    state = worst(report)
    if state is State.FRESH:
        return f"report: {path}; nothing to do"
    if state is State.STALE or any(one.state is State.STALE for one in report.records):
        return f"report: {path}; next: imagewright plan"
    return f"report: {path}; next: mend or wait for what could not be answered, then pytest checks/"


def plan_lines(plan: Plan, total: int, expected: int) -> Iterator[Line]:
    """What the plan does, and what it does not."""
    yield Line(f"selection: {plan.selection}, {expected} of {total} targets")
    width = max((len(one.target) for one in plan.builds), default=0)
    for build in plan.builds:
        texts = reason_texts(build.reasons) or ["forced"]
        yield Line(f"  {build.action:<5}  {build.target:<{width}}  {build.version}  {texts[0]}")
        yield from (Line(" " * (width + len(build.version) + 13) + text) for text in texts[1:])
    yield from (Line(f"  put off  {one.target}: {one.because}") for one in plan.deferrals)
    for because, alike in groupby(sorted(plan.refusals, key=lambda one: one.because), key=lambda one: one.because):
        names = [one.target for one in alike]
        listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
        yield Line(f"  nothing for {listed}: {because}", "yellow")
    builds = sum(one.action == "build" for one in plan.builds)
    retags = len(plan.builds) - builds
    yield Line(f"{builds} to build, {retags} to retag, {len(plan.deferrals)} put off, {len(plan.refusals)} refused")


def explanation(
    record: Record,
    findings: Iterable[Finding],
    promises: Mapping[str, str],
    seen: Snapshot | None,
    report: Report,
) -> Iterator[Line]:
    """Everything known about one target: what was seen per platform, rule by rule what follows, and the remedy."""
    state = record.state
    since = f", since {record.since}" if record.since else ""
    yield Line(f"{_GLYPHS[state]} {record.target} is {state.value}{since}", _COLOURS[state])
    looked = next((one for one in seen.targets if one.target == record.target), None) if seen else None
    base_seen = seen.base(record.base) if seen else None
    yield Line("")
    reading = seen.reading(record.tool) if seen else None
    if reading:
        said = reading.version or f"unknown: {reading.reason}: {reading.detail}"
        how = "given" if reading.via == "given" else f"version.sh on the host, {reading.seconds:.1f} s"
        yield Line(f"  version   {said}  ({how})")
    if looked and looked.observation:
        yield from _observed("image", looked.observation)
    if looked and looked.latest:
        names = looked.latest.digest if isinstance(looked.latest, Pointer) else _absence(looked.latest)
        yield Line(f"  latest    {looked.latest.reference}  {names}")
    if base_seen:
        yield from _observed("base", base_seen.observation)
    yield Line(f"  looked    {report.started}, selection {report.selection}")
    if (
        looked
        and base_seen
        and isinstance(looked.observation, Published)
        and isinstance(base_seen.observation, Published)
    ):
        yield Line("")
        yield from _platform_lines(looked.observation, base_seen.observation)
    yield Line("")
    yield from _rule_lines(findings, promises)
    if record.last_layer is not None:
        answer = "is" if record.last_layer else "is not"
        yield Line(f"  (the base's last layer alone {answer} in the image, on every platform)")
    if record.reasons:
        yield Line("")
        for remedy in dict.fromkeys(one.code.remedy for one in record.reasons):
            yield Line(f"  remedy: {remedy}")


def _observed(what: str, seen: Observation) -> Iterator[Line]:
    if isinstance(seen, Published):
        kind = "index" if seen.is_index else "single manifest"
        yield Line(f"  {what:<9} {seen.reference}  {seen.digest}  ({kind}, {', '.join(map(str, seen.platforms))})")
    else:
        yield Line(f"  {what:<9} {seen.reference}  {_absence(seen)}", "yellow")


def _absence(seen: Missing | Unreachable) -> str:
    return f"missing ({seen.code})" if isinstance(seen, Missing) else f"unknown: {seen.reason}: {seen.detail}"


def _platform_lines(image: Published, base: Published) -> Iterator[Line]:
    for one in image.images:
        below = base.on(one.platform)
        yield Line(f"  {one.platform}  {one.digest}  created {one.created or 'at no stated time'}")
        if below is None:
            yield Line(f"    {len(one.diff_ids)} layers; the base has nothing for this platform")
            continue
        departs = image.departs_from(base, one.platform)
        if departs is None:
            yield Line(f"    {len(one.diff_ids)} layers, the first {len(below.diff_ids)} are the base's", "green")
        else:
            yield Line(
                f"    {len(one.diff_ids)} layers, the base has {len(below.diff_ids)}; layer {departs.at + 1}:", "red"
            )
            yield Line(f"      base   {departs.expected}", "red")
            yield Line(f"      image  {departs.found or 'nothing'}", "red")
    for hole in image.gone:
        yield Line(f"  {hole.platform}  {hole.digest}  gone from the registry", "red")


def _rule_lines(findings: Iterable[Finding], promises: Mapping[str, str]) -> Iterator[Line]:
    words = {
        RIGHT: ("✓", "holds", "green"),
        NOT_ASKED: ("-", "not asked", ""),
        STALE: ("✗", "stale", "red"),
        UNKNOWN: ("?", "unknown", "yellow"),
    }
    for finding in findings:
        glyph, word, colour = words[finding.kind]
        rule = promises.get(finding.check, "")
        yield Line(f"  {glyph} {finding.check.removeprefix('test_')}: {rule}", colour)
        told = reason_texts(finding.reasons) or ([finding.why] if finding.why else [])
        yield from (Line(f"      {word}: {text}", colour) for text in told)
