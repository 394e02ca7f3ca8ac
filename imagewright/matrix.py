"""The picture of a report as values: a cell for each tool on each base, and what stands beside the grid. Without I/O.

Texts come from outside. Here they are made safe to show, once: no control characters, nothing that cannot be encoded.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

from imagewright.names import shown
from imagewright.report import NO_BASES, Record, Report
from imagewright.verdict import State, reason_texts

SCHEMA = 1

WITHHELD = "may not be redistributed"
"""Why a pair is excluded whose tool may not be published."""

_LONGEST = 500
"""A text that is longer is cut: a picture is no log."""

_MANY = 6
"""From so many targets on, a block of the grid is told by its tools and bases."""

_FEW = 3
"""Up to so many that are not meant are named instead of those that are."""


class Mark(Enum):
    """What a cell can say. value: (name in JSON and CSS, glyph, words)."""

    FRESH = ("fresh", "✓", "fresh")
    STALE = ("stale", "✗", "stale")
    UNKNOWN = ("unknown", "?", "unknown")
    EXCLUDED = ("excluded", "–", "excluded")
    WITHHELD = ("withheld", "§", WITHHELD)
    NOT_ASKED = ("not-in-report", "·", "not in this report")
    NO_PAIR = ("no-pair", "∅", "no such pair")

    def __init__(self, key: str, glyph: str, words: str) -> None:
        self.key = key
        self.glyph = glyph
        self.words = words


_OF_STATE = {State.FRESH: Mark.FRESH, State.STALE: Mark.STALE, State.UNKNOWN: Mark.UNKNOWN}


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One target, or the place where one could be. All texts are empty where there is nothing to say.

    codes: of the reasons, each once. platforms: those that the reasons name, each once. why: a sentence per reason, or
    why it is excluded. story: the same without what differs between targets that share a cause. since: when it was
    first not fresh.
    """

    mark: Mark
    target: str = ""
    tool: str = ""
    base: str = ""
    version: str = ""
    codes: tuple[str, ...] = ()
    platforms: tuple[str, ...] = ()
    why: tuple[str, ...] = ()
    story: tuple[str, ...] = ()
    since: str = ""

    @property
    def brief(self) -> str:
        """Its first reason's code, and how many more there are."""
        more = f" +{len(self.codes) - 1}" if len(self.codes) > 1 else ""
        return self.codes[0] + more if self.codes else ""

    @property
    def places(self) -> str:
        """Its platforms, without the part that nearly all of them share."""
        return " ".join(one.removeprefix("linux/") for one in self.platforms)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A tool, the version that it is checked against (empty if it has none), and its cell on each base."""

    tool: str
    version: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Targets with one story. who: them in words, each name or `tools on bases`. since: of the one that waits longest."""

    mark: Mark
    cells: tuple[Cell, ...]
    who: tuple[str, ...]
    why: tuple[str, ...]
    since: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The whole picture. looked: when the run began. digest: of the report's file. selection: "all" or how narrowed.

    images: targets that are no pair. elsewhere: excluded targets that are not, or not surely, a pair of the grid.
    partial: targets that were asked only some of the checks. nobody: whether the bases could not be listed.
    """

    looked: str
    digest: str
    selection: str
    total: int
    bases: tuple[str, ...]
    rows: tuple[Row, ...]
    images: tuple[Cell, ...]
    elsewhere: tuple[Cell, ...]
    partial: tuple[str, ...]
    nobody: bool
    groups: tuple[Group, ...]
    counts: Mapping[Mark, int]

    @property
    def headline(self) -> str:
        """The matrix in one line."""
        judged = sum(self.counts[mark] for mark in _OF_STATE.values()) - self.nobody
        narrowed = "" if judged == self.total else f", {judged} of {self.total} targets looked at"
        unlisted = "the bases could not be listed" if self.nobody else ""
        if not judged:
            return f"no targets: {unlisted}"
        return f"{self.counts[Mark.FRESH]} of {judged} fresh{narrowed}{'; ' if unlisted else ''}{unlisted}"

    @property
    def shape(self) -> str:
        """What the grid is made of."""
        return f"{_count(len(self.rows), 'tool')} on {_count(len(self.bases), 'base')}"

    @property
    def has_grid(self) -> bool:
        """Whether there is any pair to show."""
        return bool(self.rows and self.bases)

    @property
    def when(self) -> str:
        """When the run began, for people."""
        return readable(self.looked)

    @property
    def legend(self) -> list[tuple[Mark, int]]:
        """The marks that occur, and how often."""
        return [(mark, count) for mark, count in self.counts.items() if count]


def readable(moment: str) -> str:
    """A moment of our files for people: `2026-01-01 00:00 UTC`; any other text as it is."""
    return re.sub(r"\A(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z\Z", r"\1 \2 UTC", moment)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def draw(report: Report, digest: str) -> Matrix:
    """The picture of a report. digest: of the file that it was read from."""
    pairs, images, nobody = _records(report.records)
    held, elsewhere = _excluded(report, pairs)
    known = {**held, **pairs}
    versions = {one["tool"]: one.get("version") or "" for one in report.versions}
    tools = sorted({tool for tool, _ in known} | set(versions))
    bases = sorted({base for _, base in known} | {one["base"] for one in report.bases})
    blank = Mark.NO_PAIR if len(report.expected) >= report.total else Mark.NOT_ASKED
    rows = tuple(
        Row(
            tool=_plain(tool),
            version=_plain(versions.get(tool, "")),
            cells=tuple(
                known.get((tool, base)) or Cell(mark=blank, tool=_plain(tool), base=_plain(base)) for base in bases
            ),
        )
        for tool in tools
    )
    cells = [cell for row in rows for cell in row.cells]
    beside = [*images, *nobody, *elsewhere]
    found = Counter(cell.mark for cell in (*cells, *beside))
    return Matrix(
        looked=_plain(report.started),
        digest=digest,
        selection=_plain(report.selection),
        total=report.total,
        bases=tuple(_plain(base) for base in bases),
        rows=rows,
        images=tuple(images),
        elsewhere=tuple(elsewhere),
        partial=tuple(_plain(one) for one in report.partial),
        nobody=bool(nobody),
        groups=tuple(_groups([*cells, *beside], cells)),
        counts={mark: found[mark] for mark in Mark},
    )


_Pairs = dict[tuple[str, str], Cell]


def _records(records: Iterable[Record]) -> tuple[_Pairs, list[Cell], list[Cell]]:
    """The cells of pairs by tool and base, those of other targets, and that of the bases that could not be listed."""
    pairs: _Pairs = {}
    images, nobody = [], []
    for one in records:
        cell = _judged(one)
        if one.tool and one.base and (one.tool, one.base) not in pairs:
            pairs[one.tool, one.base] = cell
        elif one.target == NO_BASES and not one.tool:
            nobody.append(cell)
        else:
            images.append(cell)
    return pairs, images, nobody


def _judged(record: Record) -> Cell:
    return Cell(
        mark=_OF_STATE[record.state],
        target=_plain(record.target),
        tool=_plain(record.tool or ""),
        base=_plain(record.base or ""),
        version=_plain(record.version or ""),
        codes=tuple(dict.fromkeys(one.code.code for one in record.reasons)),
        platforms=tuple(dict.fromkeys(_plain(one.platform) for one in record.reasons if one.platform)),
        why=tuple(_plain(text) for text in reason_texts(record.reasons)),
        story=_story(record),
        since=_plain(record.since or ""),
    )


def _excluded(report: Report, pairs: _Pairs) -> tuple[_Pairs, list[Cell]]:
    """The cells of excluded pairs by tool and base, and of those whose place in the grid is not known or is taken."""
    tools = {tool for tool, _ in pairs} | {one["tool"] for one in report.versions}
    bases = {base for _, base in pairs} | {one["base"] for one in report.bases}
    held: _Pairs = {}
    elsewhere = []
    for one in report.excluded:
        split = _split(one, tools, bases)
        tool, base = split or ("", "")
        cell = Cell(
            mark=Mark.WITHHELD if one["because"] == WITHHELD else Mark.EXCLUDED,
            target=_plain(one["target"]),
            tool=_plain(tool),
            base=_plain(base),
            why=(_plain(one["because"]),),
            story=(_plain(one["because"]),),
        )
        if split and split not in held and split not in pairs:
            held[split] = cell
        else:
            elsewhere.append(cell)
    return held, elsewhere


def _split(excluded: Mapping[str, str], tools: Iterable[str], bases: Iterable[str]) -> tuple[str, str] | None:
    """The tool and base of an excluded target: as stated, or if only one known tool and base make up its name."""
    tool, base = excluded.get("tool"), excluded.get("base")
    if tool and base:
        return tool, base
    fitting = [(tool, base) for tool in tools for base in bases if f"{tool}-{base}" == excluded["target"]]
    return fitting[0] if len(fitting) == 1 else None


def _groups(cells: Sequence[Cell], grid: Sequence[Cell]) -> Iterator[Group]:
    """What is not fresh and why: unknown, stale, excluded; targets with one story put together, most targets first."""
    for mark in (Mark.UNKNOWN, Mark.STALE, Mark.EXCLUDED, Mark.WITHHELD):
        alike: dict[tuple[bool, tuple[str, ...]], list[Cell]] = {}
        for cell in cells:
            if cell.mark is mark:
                alike.setdefault((bool(cell.tool and cell.base), cell.story), []).append(cell)
        for (is_block, story), several in sorted(alike.items(), key=lambda one: -len(one[1])):
            yield Group(
                mark=mark,
                cells=tuple(several),
                who=tuple(_who(several, grid) if is_block else [cell.target for cell in several]),
                why=several[0].why if len({cell.why for cell in several}) == 1 else story,
                since=min((cell.since for cell in several if cell.since), default=""),
            )


def _story(record: Record) -> tuple[str, ...]:
    """Its reasons, the same for all targets where only names, versions and digests differ."""
    bare = [replace(one, expected="", found="") for one in record.reasons]
    texts = [text.replace(f"{record.target}-{record.version}", "<target>-<version>") for text in reason_texts(bare)]
    return tuple(_plain(text.replace(record.target, "<target>")) for text in texts)


def _who(cells: Sequence[Cell], grid: Sequence[Cell]) -> list[str]:
    """Names of pairs; or, of many that are a whole block of the grid, `codex on all 7 bases`."""
    tools = list(dict.fromkeys(cell.tool for cell in cells))
    bases = list(dict.fromkeys(cell.base for cell in cells))
    if len(cells) < _MANY or len(cells) != len(tools) * len(bases):
        return [cell.target for cell in cells]
    asked = set(_OF_STATE.values()) if cells[0].mark in _OF_STATE.values() else set(Mark)
    others = [cell for cell in grid if cell.mark in asked]
    every_tool, every_base = (list(dict.fromkeys(names)) for names in zip(*((one.tool, one.base) for one in others)))
    return [f"{_all(tools, every_tool, 'tools')} on {_all(bases, every_base, 'bases')}"]


def _all(names: Sequence[str], every: Sequence[str], noun: str) -> str:
    rest = [name for name in every if name not in names]
    if len(every) > 1 and not rest:
        return f"all {len(every)} {noun}"
    if len(rest) <= _FEW < len(names):
        return f"all {noun} but {', '.join(rest)}"
    return ", ".join(names)


def _plain(text: str) -> str:
    return shown(text, _LONGEST)[1:-1]


def dump(matrix: Matrix) -> dict[str, Any]:
    """The picture as JSON members. A cell's `state` is the key of its mark."""
    return {
        "schema": SCHEMA,
        "report": {"digest": matrix.digest, "started": matrix.looked, "selection": matrix.selection},
        "counts": {mark.key: count for mark, count in matrix.counts.items()},
        "tools": [{"tool": row.tool, "version": row.version or None} for row in matrix.rows],
        "bases": list(matrix.bases),
        "bases_listed": not matrix.nobody,
        "cells": [_members(cell) for row in matrix.rows for cell in row.cells],
        "images": [_members(cell) for cell in matrix.images],
        "excluded": [_members(cell) for cell in matrix.elsewhere],
        "partial": list(matrix.partial),
    }


def _members(cell: Cell) -> dict[str, Any]:
    return {
        "target": cell.target or None,
        "tool": cell.tool or None,
        "base": cell.base or None,
        "state": cell.mark.key,
        "version": cell.version or None,
        "codes": list(cell.codes),
        "platforms": list(cell.platforms),
        "why": list(cell.why),
        "since": cell.since or None,
    }
