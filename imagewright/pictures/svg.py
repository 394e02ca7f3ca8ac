"""The matrix as an SVG drawing, for a README: no script, no other file. Nothing measures text there, so it is monospaced."""

import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate

from imagewright.matrix import Cell, Group, Mark, Matrix, readable
from imagewright.pictures.colours import DARK, FILLS, HOLLOW, INK, LIGHT, variables

_MARGIN = 16
_LETTER = 7.3
"""Width of a letter of 12 pixels, a little more than most monospaced fonts have."""

_SMALL = 6.1
"""Width of a letter of 10 pixels."""

_LINE = 18
_TITLE = 24
_CELL = 18
"""Side of a cell that holds a glyph only."""

_TALL = 32
"""Height of a cell with words."""

_NARROWEST = 640
_ROOMY = 12
"""With more bases the cells hold glyphs only, and the names of bases stand upright."""

_STORIES = 12
_NAMES = 8
"""So many stories, and names in one, are told; the page tells all."""

_STYLE = "\n".join(
    (
        f"svg {{ {variables(LIGHT)} }}",
        f"@media (prefers-color-scheme: dark) {{ svg {{ {variables(DARK)} }} }}",
        "text { font: 12px ui-monospace, Menlo, Consolas, 'DejaVu Sans Mono', monospace; fill: var(--text); }",
        f"text.ink {{ fill: {INK}; }} text.small {{ font-size: 10px; }} text.quiet {{ fill: var(--quiet); }}",
        "text.title { font-size: 18px; font-weight: bold; } text.strong { font-weight: bold; }",
        "text.middle { text-anchor: middle; }",
        ".paper { fill: var(--paper); stroke: var(--rule); }",
        *(
            f".{mark.key} {{ fill: none; stroke: {colour}; stroke-width: 2; }}"
            if mark in HOLLOW
            else f".{mark.key} {{ fill: {colour}; }}"
            for mark, colour in FILLS.items()
        ),
        ".not-in-report, .no-pair { fill: none; }",
    )
)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Elements whose uppermost edge is at 0, and the height that they take."""

    elements: tuple[str, ...]
    height: float


@dataclass(frozen=True, slots=True)
class _Box:
    x: float
    y: float
    wide: float
    tall: float

    @property
    def middle(self) -> float:
        return self.y + self.tall / 2


def document(matrix: Matrix) -> str:
    """The drawing. The same matrix gives the same text."""
    names = max((len(row.tool) for row in matrix.rows), default=0) * _LETTER + 12
    columns = _columns(matrix)
    width = max(names + sum(columns), _NARROWEST)
    pieces = [_head(matrix, width), _legend(matrix, width)]
    if matrix.has_grid:
        pieces.append(_grid(matrix, names, columns))
    if matrix.images:
        pieces.append(_images(matrix.images, width))
    pieces.append(_stories(matrix, width))
    tops = list(accumulate((piece.height + _MARGIN for piece in pieces), initial=_MARGIN))
    placed = "\n".join(
        "\n".join((f'<g transform="translate({_MARGIN} {top:g})">', *piece.elements, "</g>"))
        for piece, top in zip(pieces, tops, strict=False)
    )
    full, height = f"{width + 2 * _MARGIN:g}", f"{tops[-1]:g}"
    title = f"{matrix.headline}, as seen at {matrix.when}"
    return f"""\
<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{full}" height="{height}" viewBox="0 0 {full} {height}">
<title>{escape(title)}</title>
<style>
{_STYLE}
</style>
<rect class="paper" x=".5" y=".5" width="{width + 2 * _MARGIN - 1:g}" height="{tops[-1] - 1:g}" rx="8"/>
{placed}
</svg>
"""


def _head(matrix: Matrix, width: float) -> _Piece:
    shape = f"{matrix.shape}, " if matrix.has_grid else ""
    selected = "" if matrix.selection == "all" else f", selected: {matrix.selection}"
    above = _wrapped(matrix.headline, width * 12 / 18)
    below = _wrapped(f"{shape}as seen at {matrix.when}{selected}, report {matrix.digest[:19]}…", width)
    title = [_text(0, 15 + at * _TITLE, line, "title") for at, line in enumerate(above)]
    under = len(above) * _TITLE
    lines = [_text(0, under + 14 + at * _LINE, line) for at, line in enumerate(below)]
    return _Piece((*title, *lines), under + _LINE * len(below))


def _legend(matrix: Matrix, width: float) -> _Piece:
    elements, x, y = [], 0.0, 0.0
    for mark, count in matrix.legend:
        text = f"{count} {mark.words}"
        wide = _CELL + 6 + len(text) * _LETTER + 14
        if x and x + wide > width:
            x, y = 0.0, y + _CELL + 6
        elements += [*_sign(mark, x, y), _text(x + _CELL + 5, y + 13, text)]
        x += wide
    return _Piece(tuple(elements), y + _CELL)


def _columns(matrix: Matrix) -> list[float]:
    """The width of each column of the grid, if there is one."""
    if not matrix.has_grid:
        return []
    if len(matrix.bases) > _ROOMY:
        return [_CELL] * len(matrix.bases)
    words = [
        [len(text) for row in matrix.rows for text in (row.cells[at].brief, row.cells[at].places)]
        for at in range(len(matrix.bases))
    ]
    return [max(len(base) * _LETTER + 10, max(most) * _SMALL + 30) for base, most in zip(matrix.bases, words)]


def _grid(matrix: Matrix, names: float, columns: Sequence[float]) -> _Piece:
    roomy = len(matrix.bases) <= _ROOMY
    lefts = list(accumulate(columns, initial=names))
    head = _LINE if roomy else max(len(base) for base in matrix.bases) * _LETTER + 8
    tall = _TALL if roomy else _CELL
    elements = [
        _text(left + 4, 12, base, "strong") if roomy else _upright(left + _CELL - 5, head - 4, base)
        for base, left in zip(matrix.bases, lefts)
    ]
    for at, row in enumerate(matrix.rows):
        top = head + at * tall
        elements.append(_text(0, top + tall / 2 + 4, row.tool, "strong"))
        for cell, left, wide in zip(row.cells, lefts, columns):
            elements += _cell(cell, _Box(left, top, wide, tall), roomy=roomy)
    return _Piece(tuple(elements), head + tall * len(matrix.rows))


def _cell(cell: Cell, box: _Box, *, roomy: bool) -> Iterator[str]:
    told = [text for text in (cell.brief, cell.places) if text] if roomy else []
    yield from _glyph(cell.mark, box, at=12 if told else box.wide / 2)
    for at, text in enumerate(told):
        y = box.middle + 3.5 + (at - (len(told) - 1) / 2) * 11
        yield _text(box.x + 23, y, text, "small ink")


def _glyph(mark: Mark, box: _Box, at: float) -> Iterator[str]:
    """A box with a glyph, whose middle is so far from its left edge."""
    inset = 2 if mark in HOLLOW else 1
    size = f'width="{box.wide - 2 * inset:g}" height="{box.tall - 2 * inset:g}"'
    yield f'<rect class="{mark.key}" x="{box.x + inset:g}" y="{box.y + inset:g}" {size} rx="3"/>'
    style = "" if mark in HOLLOW else "ink" if mark in FILLS else "quiet"
    yield _text(box.x + at, box.middle + 4, mark.glyph, f"middle {style}".rstrip())


def _sign(mark: Mark, x: float, y: float) -> Iterator[str]:
    """The mark as it stands in lists."""
    yield from _glyph(mark, _Box(x, y, _CELL, _CELL), at=_CELL / 2)


def _images(images: Sequence[Cell], width: float) -> _Piece:
    elements = [_text(0, 12, "Images", "strong")]
    for at, cell in enumerate(images):
        top = (at + 1) * (_CELL + 4)
        told = " ".join(text for text in (cell.target, cell.version, cell.brief, cell.places) if text)
        elements += _sign(cell.mark, 0, top)
        elements += [_text(_CELL + 5, top + 13, line) for line in _wrapped(told, width - _CELL)[:1]]
    return _Piece(tuple(elements), (len(images) + 1) * (_CELL + 4))


def _stories(matrix: Matrix, width: float) -> _Piece:
    elements: list[str] = []
    y = 0.0
    for group in matrix.groups[:_STORIES]:
        elements += _sign(group.mark, 0, y)
        for style, line in _told(group, width - _CELL - 6):
            elements.append(_text(_CELL + 5, y + 13, line, style))
            y += _LINE
        y += 4
    rest = len(matrix.groups) - _STORIES
    if rest > 0:
        elements.append(_text(0, y + 13, f"and {rest} more", "quiet"))
        y += _LINE
    return _Piece(tuple(elements), y)


def _told(group: Group, width: float) -> Iterator[tuple[str, str]]:
    """Lines, each with its style: who, since when, and below it why."""
    more = len(group.who) - _NAMES
    who = ", ".join(group.who[:_NAMES]) + (f" and {more} more" if more > 0 else "")
    since = f", since {readable(group.since)}" if group.since else ""
    yield from (("strong", line) for line in _wrapped(f"{who}{since}", width))
    for text in group.why:
        yield from (("", line) for line in _wrapped(text, width))


def _wrapped(text: str, width: float) -> list[str]:
    return textwrap.wrap(text, int(width / _LETTER), break_on_hyphens=False)


def _upright(x: float, y: float, text: str) -> str:
    return f'<text class="strong" transform="translate({x:g} {y:g}) rotate(-90)">{escape(text)}</text>'


def _text(x: float, y: float, text: str, style: str = "") -> str:
    css = f' class="{style}"' if style else ""
    return f'<text{css} x="{x:g}" y="{y:g}">{escape(text)}</text>'
