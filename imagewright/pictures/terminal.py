"""The matrix in a terminal, within its width: cells with reasons where they fit, else glyphs under names, else in blocks."""

import textwrap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from imagewright.matrix import Cell, Group, Mark, Matrix, readable

_NAMES = 8
"""Names in a list; the rest is counted."""

_TALLEST = 16
"""Letters of a name that is written downwards."""

_GAP = 2
"""Spaces between columns."""

_COLOURS = {
    Mark.FRESH: "green",
    Mark.STALE: "red",
    Mark.UNKNOWN: "yellow",
    Mark.EXCLUDED: "blue",
    Mark.WITHHELD: "magenta",
}


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a line, and the colour that a terminal may give it; empty for none."""

    text: str
    colour: str = ""


Line = tuple[Span, ...]


def lines(matrix: Matrix, width: int) -> Iterator[Line]:
    """The picture. No line is longer than `width`, unless a single word is."""
    yield from _wrapped(f"{matrix.shape}: {matrix.headline}" if matrix.has_grid else matrix.headline, width)
    yield from _wrapped(f"looked at {matrix.when}, report {matrix.digest[:19]}…", width)
    if matrix.selection != "all":
        yield from _wrapped(f"selected: {matrix.selection}", width)
    yield ()
    if matrix.has_grid:
        yield from _grid(matrix, width)
        yield ()
    if matrix.images:
        yield (Span("images"),)
        yield from _images(matrix.images, width)
        yield ()
    yield from _legend(matrix, width)
    for _, groups in groupby(matrix.groups, key=lambda one: one.mark):
        yield ()
        for group in groups:
            yield from _story(group, width)
    if matrix.partial:
        yield ()
        yield from _wrapped(f"no verdict, as only some of the checks were asked: {_some(matrix.partial)}", width)


def _grid(matrix: Matrix, width: int) -> Iterator[Line]:
    longest = max(len(row.tool) for row in matrix.rows)
    names = min(longest, max(width // 3, 8))
    for say in (_said, _glyph):
        wide = [
            max(len(base), *(len(say(row.cells[at])) for row in matrix.rows)) for at, base in enumerate(matrix.bases)
        ]
        if names + sum(wide) + _GAP * len(wide) <= width:
            yield from _table(matrix, names, wide, say)
            return
    apart = 2 if names + _GAP + 2 * len(matrix.bases) <= width else 1
    at_once = max((width - names - _GAP) // apart, 1)
    for first in range(0, len(matrix.bases), at_once):
        if first:
            yield ()
        yield from _block(matrix, names, apart, slice(first, first + at_once))


def _table(matrix: Matrix, names: int, wide: Sequence[int], say: Callable[[Cell], str]) -> Iterator[Line]:
    """A column is as wide as what stands in it."""
    gap = " " * _GAP
    yield _line("", names, [Span(f"{gap}{base:<{one}}") for base, one in zip(matrix.bases, wide, strict=True)])
    for row in matrix.rows:
        cells = zip(row.cells, wide, strict=True)
        yield _line(row.tool, names, [Span(f"{gap}{say(cell):<{one}}", _colour(cell)) for cell, one in cells])


def _block(matrix: Matrix, names: int, apart: int, which: slice) -> Iterator[Line]:
    """A column is a glyph wide; its name stands above it, written downwards."""
    bases = [_cut(base, _TALLEST) for base in matrix.bases[which]]
    height = max(len(base) for base in bases)
    for letters in zip(*(base.rjust(height) for base in bases), strict=True):
        yield _line("", names + _GAP, [Span(f"{letter:<{apart}}") for letter in letters])
    for row in matrix.rows:
        cells = [Span(f"{_glyph(cell):<{apart}}", _colour(cell)) for cell in row.cells[which]]
        yield _line(row.tool, names, [Span(" " * _GAP), *cells])


def _line(name: str, names: int, spans: Sequence[Span]) -> Line:
    """A row; nothing stands behind its last cell."""
    *before, last = (Span(f"{_cut(name, names):<{names}}"), *spans)
    return (*before, Span(last.text.rstrip(), last.colour))


def _said(cell: Cell) -> str:
    return " ".join(text for text in (cell.mark.glyph, cell.brief, cell.places) if text)


def _glyph(cell: Cell) -> str:
    return cell.mark.glyph


def _colour(cell: Cell) -> str:
    return _COLOURS.get(cell.mark, "")


def _images(images: Sequence[Cell], width: int) -> Iterator[Line]:
    names = min(max(len(cell.target) for cell in images), max(width // 3, 8))
    wide = min(max(len(cell.version) for cell in images), max(width // 5, 8))
    for cell in images:
        text = f"{_cut(cell.target, names):<{names}}  {_cut(cell.version, wide):<{wide}}  {cell.brief} {cell.places}"
        yield (Span(_cut(f"  {cell.mark.glyph} {text}".rstrip(), width), _colour(cell)),)


def _legend(matrix: Matrix, width: int) -> Iterator[Line]:
    """Glyph, words and number of each mark that occurs, in as many lines as it takes."""
    line: list[Span] = []
    for mark, count in matrix.legend:
        entry = Span(f"{mark.glyph} {mark.words} {count}", _COLOURS.get(mark, ""))
        if line and sum(len(one.text) for one in line) + 3 + len(entry.text) > width:
            yield tuple(line)
            line = []
        line += [Span("   "), entry] if line else [entry]
    yield tuple(line)


def _story(group: Group, width: int) -> Iterator[Line]:
    """Who, since when, and below it why."""
    since = f", since {readable(group.since)}" if group.since else ""
    count = f" ({len(group.cells)} targets)" if len(group.cells) > len(group.who) else ""
    words = "" if group.mark is Mark.WITHHELD else f" {group.mark.words}"
    yield from _wrapped(f"{group.mark.glyph} {_some(group.who)}{count}{words}{since}", width, _COLOURS[group.mark])
    for text in group.why:
        yield from _wrapped(f"    {text}", width)


def _wrapped(text: str, width: int, colour: str = "") -> Iterator[Line]:
    """Lines of at most `width`, broken between words only; what follows the first is set in."""
    indent = " " * (len(text) - len(text.lstrip()) + 2)
    for line in textwrap.wrap(text, width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False):
        yield (Span(line, colour),)


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES
    return ", ".join(names[:_NAMES]) + (f" and {rest} more" if rest > 0 else "")


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
