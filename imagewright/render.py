"""How results look to a person: lines of text from values. Without I/O."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

from imagewright.plan import Plan
from imagewright.report import NO_BASES, Record, Report
from imagewright.verdict import State, reason_texts

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
