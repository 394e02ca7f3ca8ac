"""The matrix in Markdown, as a forge shows it beside a run, and below it what is planned: for the summary of a job.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#adding-a-job-summary
"""

import re
from collections.abc import Iterator, Sequence
from html import escape

from imagewright.matrix import Cell, Mark, Matrix, readable
from imagewright.plan import Plan
from imagewright.verdict import reason_texts

_EMOJI = {
    Mark.FRESH: "✅",
    Mark.STALE: "❌",
    Mark.UNKNOWN: "❔",
    Mark.EXCLUDED: "➖",
    Mark.WITHHELD: "🔒",
    Mark.NOT_ASKED: "▫️",
    Mark.NO_PAIR: "∅",
}
_ROWS = 200
"""Rows of a table; the rest is counted. A summary may have 1 MiB."""

_NAMES = 12
"""Names on a line; the rest is counted."""


def document(matrix: Matrix, plan: Plan | None) -> str:
    """The text. The same matrix and plan give the same. plan: what was made of the same report, if anything was."""
    return "\n".join([*_picture(matrix), *(_planned(plan) if plan else ())]) + "\n"


def _picture(matrix: Matrix) -> Iterator[str]:
    yield f"### {_safe(matrix.headline)}"
    yield ""
    selected = "" if matrix.selection == "all" else f", selected: {_safe(matrix.selection)}"
    yield f"Looked at {_safe(matrix.when)}{selected}; report `{matrix.digest[:19]}…`"
    yield ""
    if matrix.has_grid:
        yield from _table(
            ["", *matrix.bases],
            [[f"{row.tool} {row.version}".strip(), *map(_brief, row.cells)] for row in matrix.rows],
        )
    if matrix.images:
        yield from _table(
            ["image", "version", ""], [[cell.target, cell.version, _brief(cell)] for cell in matrix.images]
        )
    yield " · ".join(f"{_EMOJI[mark]} {mark.words} {count}" for mark, count in matrix.legend)
    yield ""
    told = [group for group in matrix.groups if group.mark is not Mark.WITHHELD]
    for group in told[:_ROWS]:
        since = f", since {readable(group.since)}" if group.since else ""
        yield f"- {_EMOJI[group.mark]} **{_some(group.who)}** {group.mark.words}{_safe(since)}"
        yield from (f"  - {_safe(text)}" for text in group.why)
    if len(told) > _ROWS:
        yield f"- and {len(told) - _ROWS} more"
    yield ""


def _planned(plan: Plan) -> Iterator[str]:
    yield f"### {len(plan.builds)} to build, {len(plan.deferrals)} put off, {len(plan.refusals)} refused"
    yield ""
    if plan.builds:
        yield from _table(
            ["target", "version", "", "why"],
            [
                [one.target, one.version, one.action, "; ".join(reason_texts(one.reasons)) or "forced: it is fresh"]
                for one in plan.builds
            ],
        )
    for word, held in (("Put off", plan.deferrals), ("Refused", plan.refusals)):
        for because in dict.fromkeys(one.because for one in held):
            yield f"- {word}: **{_some([one.target for one in held if one.because == because])}**: {_safe(because)}"
    yield ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(map(_safe, head))} |"
    yield f"|{'---|' * len(head)}"
    yield from (f"| {' | '.join(map(_safe, row))} |" for row in rows[:_ROWS])
    yield ""
    if len(rows) > _ROWS:
        yield f"and {len(rows) - _ROWS} more"
        yield ""


def _brief(cell: Cell) -> str:
    return " ".join(text for text in (_EMOJI[cell.mark], cell.brief, cell.places) if text)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES
    return _safe(", ".join(names[:_NAMES])) + (f" and {rest} more" if rest > 0 else "")


def _safe(text: str) -> str:
    """Foreign text, so that nothing in it is Markdown or HTML, and no word becomes a link."""
    plain = escape(" ".join(text.split()), quote=False)
    return re.sub(r"[`*_\[\]|~\\!@]|:(?=//)", lambda found: f"&#{ord(found[0])};", plain)
