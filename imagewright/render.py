"""How results look to a person: lines of text from values. Without I/O."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from imagewright.names import shown
from imagewright.plan import Plan
from imagewright.report import NO_BASES, Record, Report
from imagewright.snapshot import Missing, Observation, Pointer, Published, Snapshot, Unreachable
from imagewright.verdict import NOT_ASKED, RIGHT, STALE, UNKNOWN, Finding, State, reason_texts

_GLYPHS = {State.FRESH: "✓", State.STALE: "✗", State.UNKNOWN: "?"}
_COLOURS = {State.FRESH: "green", State.STALE: "red", State.UNKNOWN: "yellow"}
_MANY = 5
"""More than so many with one cause share a line."""

_NAMES = 8
"""Names on such a line."""


@dataclass(frozen=True, slots=True)
class Line:
    """A line, and the colour that a terminal may give it; empty for none."""

    text: str
    colour: str = ""


def report_lines(report: Report, unjudged: Iterable[Finding] = ()) -> Iterator[Line]:
    """What is not fresh and why, then the counts. unjudged: what was found about targets that got no verdict."""
    not_fresh = [one for one in report.records if one.state is not State.FRESH]
    not_fresh.sort(key=lambda one: one.state is State.STALE)
    width = max((len(one.target) for one in not_fresh), default=0)
    for group in _alike(not_fresh):
        yield from _record_lines(group, width)
    yield from _unjudged_lines(unjudged)
    yield from (Line(f"warning: {one}", "yellow") for one in report.warnings)
    whys = dict.fromkeys(one["because"] for one in report.excluded)
    for why in whys:
        names = [one["target"] for one in report.excluded if one["because"] == why]
        yield Line(f"- {_some(names)}  excluded: {why}")
    if report.partial:
        yield Line(f"{_targets(len(report.partial))} asked only some of the checks: no verdict")
    if missing := len(report.expected) - len(report.records):
        yield Line(f"{_targets(missing)} without a verdict: not all of their checks ended", "red")
    if report.expected:
        yield Line(counts(report), _COLOURS[worst(report)])


def time_lines(seconds: Mapping[str, float], asked: int, recalled: int) -> Iterator[Line]:
    """Where the time went, a line a stage, and how much was asked. seconds: by stage. recalled: documents remembered."""
    yield Line(
        f"where the time went: {sum(seconds.values()):.2f} s, {asked} questions, {recalled} documents remembered"
    )
    width = max(map(len, seconds))
    yield from (Line(f"  {name:<{width}}  {spent:6.2f} s") for name, spent in seconds.items())


def _alike(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Records in order, many with the same cause put together: an outage is one cause, not a page of lines."""
    groups: dict[tuple[State, tuple[str, ...]], list[Record]] = {}
    for one in records:
        groups.setdefault((one.state, tuple(_told(one))), []).append(one)
    for group in groups.values():
        yield from [group] if len(group) > _MANY else [[one] for one in group]


def _told(record: Record) -> list[str]:
    """Its reasons, the same for all targets where only their names differ."""
    return [text.replace(record.target, "<target>") for text in reason_texts(record.reasons)]


def _record_lines(group: list[Record], width: int) -> Iterator[Line]:
    first, colour = group[0], _COLOURS[group[0].state]
    head = f"{_GLYPHS[first.state]} {first.target:<{width}}  {first.state.value:<7}  "
    if len(group) > 1:
        names = _some([one.target for one in group])
        yield Line(f"{_GLYPHS[first.state]} {_targets(len(group))} {first.state.value}: {names}", colour)
        yield from (Line(f"    {text}", colour) for text in _told(first))
        return
    for at, text in enumerate(reason_texts(first.reasons)):
        yield Line((" " * len(head) if at else head) + text, colour)


def _unjudged_lines(found: Iterable[Finding]) -> Iterator[Line]:
    states = {STALE: State.STALE, UNKNOWN: State.UNKNOWN}
    for one in found:
        if state := states.get(one.kind):
            for text in reason_texts(one.reasons):
                yield Line(f"{_GLYPHS[state]} {one.target}  {one.check.removeprefix('test_')}: {text}", _COLOURS[state])


def _targets(count: int) -> str:
    return "1 target" if count == 1 else f"{count} targets"


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {rest} more" if rest > 0 else "")


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
    return f"{len(report.expected)}{of} {'target' if report.total == 1 else 'targets'}: {found}"


def next_step(report: Report, path: str) -> str:
    """Where the report is and what to do next."""
    state = worst(report)
    if not report.expected:
        return f"report: {path}; next, for verdicts: pytest checks/"
    if len(report.records) < len(report.expected):
        return f"report: {path}; next, as this run did not come to its end: pytest checks/"
    if state is State.FRESH:
        return f"report: {path}; nothing to do"
    if state is State.STALE or any(one.state is State.STALE for one in report.records):
        return f"report: {path}; next: imagewright plan"
    return f"report: {path}; next: mend or wait for what could not be answered, then pytest checks/"


def plan_lines(plan: Plan, total: int, expected: int) -> Iterator[Line]:
    """What the plan does, and what it does not."""
    narrowed = "" if plan.selection == "all" else f" ({plan.selection})"
    asked = f"{expected} of {_targets(total)}" if total else "no targets: the bases could not be listed"
    yield Line(f"planned from {asked}{narrowed}")
    width = max((len(one.target) for one in plan.builds), default=0)
    wide = max((len(one.version) for one in plan.builds), default=0)
    for build in plan.builds:
        texts = reason_texts(build.reasons) or ["forced: it is fresh"]
        head = f"  {build.action:<5}  {build.target:<{width}}  {build.version:<{wide}}  "
        yield from (Line((" " * len(head) if at else head) + text) for at, text in enumerate(texts))
    for word, held, colour in (("put off", plan.deferrals, ""), ("refused", plan.refusals, "yellow")):
        for because in dict.fromkeys(one.because for one in held):
            names = _some([one.target for one in held if one.because == because])
            yield Line(f"  {word}  {names}: {because}", colour)
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
    base_seen = seen.base(looked.base) if seen and looked else None
    yield Line("")
    reading = seen.reading(looked.tool) if seen and looked else None
    if looked and not looked.tool:
        yield Line(f"  version  {looked.version}  (image.yml)")
    if reading:
        said = reading.version or f"unknown: {reading.reason}: {reading.detail}"
        places = {"image": "version.sh in the image", "host": "version.sh on the host"}
        how = f"{places[reading.via]}, {reading.seconds:.1f} s" if reading.via in places else reading.via
        yield Line(f"  version  {said}  ({how})")
        if reading.image:
            yield Line(f"           {reading.image}")
        if reading.fallback:
            yield Line(f"           in the image: {reading.fallback}", "yellow")
    if looked and looked.observation:
        yield from _observed("image", looked.observation)
    if looked and looked.latest:
        names = looked.latest.digest if isinstance(looked.latest, Pointer) else _absence(looked.latest)
        yield Line(f"  latest   {looked.latest.reference}")
        yield Line(f"           {names}")
    if base_seen:
        yield from _observed("base", base_seen.observation)
    narrowed = "" if report.selection == "all" else f"  ({report.selection})"
    yield Line(f"  looked   {report.started}{narrowed}")
    base = base_seen.observation if base_seen and isinstance(base_seen.observation, Published) else None
    if looked and isinstance(looked.observation, Published) and (base or not looked.base):
        yield Line("")
        yield from _platform_lines(looked.observation, base)
    if looked and isinstance(looked.observation, Published):
        yield from _said_lines(looked.observation)
    yield Line("")
    yield from _rule_lines(findings, promises)
    if record.last_layer is not None:
        answer = "is in the image, on every platform" if record.last_layer else "is not in the image everywhere"
        yield Line(f"  (looked at alone, the base's last layer {answer})")
    if record.reasons:
        yield Line("")
        for remedy in dict.fromkeys(one.code.remedy for one in record.reasons):
            yield Line(f"  remedy: {remedy}")


def _observed(what: str, seen: Observation) -> Iterator[Line]:
    if isinstance(seen, Published):
        kind = "index" if seen.is_index else "single manifest"
        yield Line(f"  {what:<7}  {seen.reference}")
        yield Line(f"           {seen.digest}  {kind}: {', '.join(map(str, seen.platforms))}")
    else:
        yield Line(f"  {what:<7}  {seen.reference}")
        yield Line(f"           {_absence(seen)}", "yellow")


def _absence(seen: Missing | Unreachable) -> str:
    return f"missing ({seen.code})" if isinstance(seen, Missing) else f"unknown: {seen.reason}: {seen.detail}"


def _platform_lines(image: Published, base: Published | None) -> Iterator[Line]:
    for one in image.images:
        below = base.on(one.platform) if base else None
        yield Line(f"  {one.platform}  {one.digest}  created {one.created or 'at no stated time'}")
        if base is None:
            yield Line(f"    {len(one.diff_ids)} layers, on no base", "green")
            continue
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


def _said_lines(image: Published) -> Iterator[Line]:
    """What the index says of itself, and which platforms have an SBOM or provenance attested."""
    platforms = {one.digest: one.platform for one in image.images}
    for one in image.attestations:
        yield Line(f"  {platforms.get(one.about, 'a platform')}  attested by {one.digest}")
    if image.annotations:
        yield Line("")
        width = max(len(name) for name in image.annotations)
        yield from (
            Line(f"  {shown(name, 60)[1:-1]:<{min(width, 60)}}  {shown(text, 100)[1:-1]}")
            for name, text in sorted(image.annotations.items())
        )


def _rule_lines(findings: Iterable[Finding], promises: Mapping[str, str]) -> Iterator[Line]:
    words = {
        RIGHT: ("✓", "holds", "green"),
        NOT_ASKED: ("-", "not asked", ""),
        STALE: ("✗", "stale", "red"),
        UNKNOWN: ("?", "unknown", "yellow"),
    }
    asked = list(findings)
    width = max((len(one.check) for one in asked), default=0) - len("test_")
    for finding in asked:
        glyph, word, colour = words[finding.kind]
        told = [f"{word}: {text}" for text in reason_texts(finding.reasons) or ([finding.why] if finding.why else [])]
        rule = [] if finding.kind == NOT_ASKED else [promises.get(finding.check, "")]
        head = f"  {glyph} {finding.check.removeprefix('test_'):<{width}}  "
        yield from (Line((" " * len(head) if at else head) + text, colour) for at, text in enumerate([*rule, *told]))
