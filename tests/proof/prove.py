"""Runs the long proofs and says what they came to; `scripts/proof` is its door.

Each part leaves its figures in `.imagewright/proof/`, JSON lines or JUnit's XML; the table and `docs/reliability.md` are
made from these. Exit 1 where anything failed.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reliability.md"
FIGURES = ROOT / ".imagewright" / "proof"
TIMED = "tests/proof/test_outage.py"
LONG = ["tests/test_laws.py", "tests/test_week.py", "tests/proof/test_kills.py", "tests/proof/test_interleavings.py"]
LONG += ["tests/proof/test_secrets.py", "tests/proof/test_sweep.py"]
"""First, for nobody waits for one that begins last."""
SHORT = sorted({f"tests/proof/{one.name}" for one in Path(__file__).parent.glob("test_*.py")} - {TIMED, *LONG})
BEGIN, END = "<!-- figures: scripts/proof --write -->\n", "<!-- end of figures -->\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was proved, in figures. amount: how much of it. result: `holds`, or what is wrong."""

    what: str
    amount: str
    result: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One program. arguments: given the file for its figures. rows: read from that file."""

    arguments: Callable[[Path], Sequence[str]]
    rows: Callable[[Path], Iterator[Row]]


def test_rows(figures: Path) -> Iterator[Row]:
    """A row for each file of tests, from JUnit's XML. The seconds are those of its tests, which share the processors."""
    files: dict[str, list[ET.Element]] = {}
    for case in ET.parse(figures).iter("testcase"):
        files.setdefault(case.get("classname", ""), []).append(case)
    for name, cases in sorted(files.items()):
        wrong = [case.get("name", "") for case in cases if any(case.find(kind) is not None for kind in _NOT_PASSED)]
        yield Row(
            what=f"{name.replace('.', '/')}.py",
            amount=f"{len(cases):,} tests",
            result=f"{len(wrong)} did not pass: {wrong[0]}" if wrong else "holds",
            seconds=sum(float(case.get("time", 0)) for case in cases),
        )


_NOT_PASSED = ("failure", "error", "skipped")


def fuzz_rows(figures: Path) -> Iterator[Row]:
    """A row for each parser."""
    for one in _lines(figures):
        wrong = ", ".join(one["findings"]) or one["said"].partition("\n")[0]
        yield Row(
            what=f"fuzzed: {one['parser']}",
            amount=f"{one['executions']:,} inputs, {one['edges']:,} edges",
            result=wrong or "holds",
            seconds=one["seconds"],
        )


def mutation_rows(figures: Path) -> Iterator[Row]:
    """A row for each module."""
    for one in _lines(figures):
        yield Row(
            what=f"mutated: {one['module']}",
            amount=f"{one['mutants']:,} mutants, {one['explained']:,} explained",
            result=f"{one['unexplained']} survived" if one["unexplained"] else "holds",
            seconds=one["seconds"],
        )


def _lines(figures: Path) -> Iterator[dict[str, object]]:
    for line in figures.read_text().splitlines():
        yield json.loads(line)


def tests(*paths: str) -> Part:
    """Tests on all processors, twice as many at once as there are: many wait."""
    several = ["-n", str(2 * (os.cpu_count() or 1)), "--dist", "load", "--maxschedchunk", "1"]
    return Part(
        arguments=lambda figures: ["-m", "pytest", *paths, "--proof", "-q", *several, f"--junitxml={figures}"],
        rows=test_rows,
    )


PARTS = {
    "rows": tests("tests/faults"),
    "tests": tests(*LONG, *SHORT),
    "times": Part(  # by itself: what it bounds is seconds
        arguments=lambda figures: ["-m", "pytest", TIMED, "--proof", "-q", f"--junitxml={figures}"],
        rows=test_rows,
    ),
    "fuzz": Part(arguments=lambda figures: ["tests/proof/fuzz.py", "--json", str(figures)], rows=fuzz_rows),
    "mutation": Part(arguments=lambda figures: ["tests/proof/mutation.py", "--json", str(figures)], rows=mutation_rows),
}


def prove(name: str) -> list[Row]:
    """Runs one part and reads its figures."""
    FIGURES.mkdir(parents=True, exist_ok=True)
    figures = FIGURES / name
    figures.unlink(missing_ok=True)
    started = time.monotonic()
    ended = subprocess.run([sys.executable, *PARTS[name].arguments(figures)], cwd=ROOT, check=False)
    rows = list(PARTS[name].rows(figures)) if figures.exists() else []
    if not rows or (ended.returncode and all(one.result == "holds" for one in rows)):
        result = f"ended with {ended.returncode}"
        rows.append(Row(what=name, amount="", result=result, seconds=time.monotonic() - started))
    return rows


def table(rows: Sequence[Row]) -> str:
    """The rows as a table in Markdown, which can be read as it stands."""
    lines = ["| what | how much | result | seconds |", "|---|---|---|---|"]
    lines += [f"| {one.what} | {one.amount} | {one.result.replace('|', '/')} | {one.seconds:.1f} |" for one in rows]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """The machine that the figures are of."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return f"{os.cpu_count()} × {found[1] if found else platform.machine()}, Python {platform.python_version()}"


def main() -> int:
    """The command."""
    arguments = argparse.ArgumentParser(prog="scripts/proof", description="Runs the long proofs.")
    arguments.add_argument("parts", nargs="*", metavar="PART", help=f"one of {', '.join(PARTS)}; all by default")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/reliability.md")
    asked = arguments.parse_args()
    if unknown := sorted(set(asked.parts) - set(PARTS)):
        arguments.error(f"there is no part {', '.join(unknown)}")
    if asked.write and asked.parts:
        arguments.error("--write goes with all parts")
    started = time.monotonic()
    rows = [row for name in asked.parts or PARTS for row in prove(name)]
    told = f"{datetime.now(UTC):%Y-%m-%d}, {time.monotonic() - started:.0f} s on {machine()}:\n\n{table(rows)}"
    print(f"\n{told}")
    if asked.write:
        head, _, rest = PAGE.read_text().partition(BEGIN)
        PAGE.write_text(f"{head}{BEGIN}\n{told}\n{END}{rest.partition(END)[2]}")
    return 0 if all(one.result == "holds" for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
