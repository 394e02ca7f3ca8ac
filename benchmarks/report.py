"""What a run of the benchmark found, as text and as `docs/performance.md`: both are made of its JSON alone.

    .venv/bin/python -m benchmarks.report FILE

prints the page.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

Document = Mapping[str, Any]
Rows = Sequence[Sequence[str]]


def text(document: Document) -> str:
    """For a terminal."""
    tables = chain.from_iterable(_aligned(title, rows) for title, rows in _tables(document).items())
    return "\n".join([*tables, *document["forge"]])


def page(document: Document) -> str:
    """`docs/performance.md`."""
    return "\n".join(_page(document)) + "\n"


def _page(document: Document) -> Iterator[str]:
    machine = document["machine"]
    yield "# Performance"
    yield ""
    yield "Written by `scripts/bench --write`, which measures all of this again, and never by hand."
    yield ""
    yield f"{document['date']}, on {machine['cores']} cores ({machine['processor']}), {machine['memory']} of memory,"
    yield f"Linux {machine['kernel']}, Python {machine['python']}."
    yield ""
    yield from (HOW, "")
    for title, rows in _tables(document).items():
        yield from (f"## {title}", "", *([BEFORE[title], ""] if title in BEFORE else []), *_markdown(rows), "")
    yield from ("## Where the time goes", "")
    if not document["profile"]:
        yield from ("The checks did not say.", "")
    for run, lines in document["profile"].items():
        yield from (f"{run}, as `pytest checks/ -v` says it:", "", "```", *lines, "```", "")
    if document["forge"]:
        yield from ("## A tick of plan.yml on a forge", "", "```", *document["forge"], "```", "")
    if document["not_measured"]:
        yield from ("## Not measured", "", *(f"- {one}" for one in document["not_measured"]), "")
    yield AGAIN


BOUNDS, RIVALS, GROWTH = "What it takes, and may take", "Beside what people do without it", "As it grows"
COUNTS, RATIOS, OTHERS = "What it asks", "Ratios", "Recipes and builds"

HOW = """\
A world is N pairs, each on so many platforms, all of them fresh. Its registry is a process of its own on the same machine,
behind a proxy that holds every byte back so that a round trip takes the time that is named. Times are those of whole
processes, from start to end, in an environment without the development group. What is compared ran in turns; each figure is
the median of its rounds. Memory is the peak of the process. *Cold* remembers nothing; *warm* is the same run once more, with
nothing changed."""

BEFORE = {
    BOUNDS: "A sum begins with what the requests alone take: their number ÷ 32 connections × the round trip.",
    RIVALS: "On the same world, through the same proxy; the registry counts the requests.",
    COUNTS: """\
P platforms, N pairs, B bases: cold (1 + 2P)(N + B) + N, warm 2N + B, exactly, counted by the registry. Beside them each run
asks for a page of tags per thousand, for two tags that cannot exist, and once more for one document that was there: that is
how it sees whether the registry can be trusted.""",
    RATIOS: "`scripts/bench --small` fails where one is above twice its reference, which is what was measured here.",
}

AGAIN = """\
## Again

```
scripts/bench            all of it: half an hour
scripts/bench --write    the same, and this page
scripts/bench --small    counts and ratios, in under 45 seconds
```"""


def _tables(document: Document) -> dict[str, Rows]:
    """Title → rows, the first of them the header. A table without rows is left out."""
    tables = {
        BOUNDS: [
            ["pairs × platforms", "what", "at most", "measured", "", "rounds"],
            *(
                [one["world"], one["what"], one["bound"], one["measured"], _met(one["met"]), str(one["rounds"])]
                for one in document["lines"]
            ),
        ],
        RIVALS: [
            ["", "seconds", "× cold", "processor", "requests", "rounds", "what it asks of a pair"],
            *(
                [
                    one["name"],
                    f"{one['seconds']:.2f}",
                    f"{one['times']:.2f}",
                    f"{one['cpu']:.1f} s",
                    f"{one['requests']:,}",
                    str(one["rounds"]),
                    one["asks"],
                ]
                for one in document["rivals"]
            ),
        ],
        GROWTH: [
            ["pairs", "", "seconds", "ms a pair", "MiB", "KiB a pair"],
            *(
                [
                    f"{one['pairs']:,}",
                    one["what"],
                    f"{one['seconds']:.2f}",
                    f"{one['seconds'] / one['pairs'] * 1000:.2f}",
                    f"{one['mebibytes']:.0f}",
                    f"{one['mebibytes'] / one['pairs'] * 1024:.0f}",
                ]
                for one in document["growth"]
            ),
        ],
        COUNTS: [
            ["run", "documents asked for", "expected", ""],
            *(
                [one["run"], f"{one['documents']:,}", f"{one['expected']:,}", "exact" if one["exact"] else "wrong"]
                for one in document["counts"]
            ),
        ],
        RATIOS: [["", "measured", "reference"], *(_ratio(one) for one in document["ratios"])],
        OTHERS: [["", "seconds"], *([name, f"{seconds:.3f}"] for name, seconds in document["others"].items())],
    }
    return {title: rows for title, rows in tables.items() if len(rows) > 1}


def _ratio(one: Mapping[str, Any]) -> list[str]:
    reference = one["reference"]
    return [one["name"], f"{one['value']:.3f}", f"{reference:.3f}" if reference is not None else ""]


def _met(met: bool | None) -> str:
    return "" if met is None else "met" if met else "not met"


def _markdown(rows: Rows) -> Iterator[str]:
    header, *rest = rows
    for row in (header, ["---"] * len(header), *rest):
        yield f"| {' | '.join(row)} |"


def _aligned(title: str, rows: Rows) -> Iterator[str]:
    widths = [max(len(row[at]) for row in rows) for at in range(len(rows[0]))]
    yield title
    for row in rows:
        yield f"  {'  '.join(cell.ljust(width) for cell, width in zip(row, widths))}".rstrip()
    yield ""


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(Path(sys.argv[1]).read_text())))
