"""The matrix as one HTML page that needs nothing else: no script, no other file, no network."""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import groupby

from imagewright.matrix import Cell, Group, Mark, Matrix, readable
from imagewright.pictures.style import STYLE

_ROOMY = 12
"""With more bases the cells hold glyphs only, and the names of bases stand upright."""


def document(matrix: Matrix) -> str:
    """The page. The same matrix gives the same text."""
    body = "\n".join(_body(matrix))
    # The policy keeps the page silent even where something foreign slipped into it.
    return f"""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(matrix.headline)} · imagewright</title>
<style>{STYLE}</style>
</head>
<body>
{body}
</body>
</html>
"""


def _body(matrix: Matrix) -> Iterator[str]:
    yield "<header>"
    yield f"<h1>{escape(_capital(matrix.headline))}</h1>"
    shape = f"{matrix.shape}, " if matrix.has_grid else ""
    yield f'<p>{shape}as seen at <time datetime="{escape(matrix.looked)}">{escape(matrix.when)}</time></p>'
    selected = "" if matrix.selection == "all" else f"selected: {escape(matrix.selection)} · "
    yield f'<p class="quiet">{selected}report {escape(matrix.digest)}</p>'
    yield "</header>"
    yield '<ul class="legend">'
    yield from (
        f'<li class="{mark.key}">{_glyph(mark)}<b>{count}</b> {escape(mark.words)}</li>'
        for mark, count in matrix.legend
    )
    yield "</ul>"
    anchors = {id(cell): f"why-{at}" for at, group in enumerate(matrix.groups, 1) for cell in group.cells}
    if matrix.has_grid:
        yield from _grid(matrix, anchors)
    if matrix.images:
        yield "<h2>Images</h2>"
        yield '<ul class="images">'
        yield from (_image(cell, anchors) for cell in matrix.images)
        yield "</ul>"
    yield from _stories(matrix.groups)
    if matrix.partial:
        yield "<h2>Without a verdict</h2>"
        yield f"<p>Only some of the checks were asked about {escape(', '.join(matrix.partial))}.</p>"


def _grid(matrix: Matrix, anchors: dict[int, str]) -> Iterator[str]:
    roomy = len(matrix.bases) <= _ROOMY
    yield f'<div class="sheet" tabindex="0"><table class="grid {"roomy" if roomy else "dense"}">'
    columns = "".join(f'<th scope="col"><span>{escape(base)}</span></th>' for base in matrix.bases)
    yield f"<thead><tr><td></td>{columns}</tr></thead>"
    yield "<tbody>"
    for row in matrix.rows:
        head = f'<th scope="row" title="{escape(row.tool)}">{escape(row.tool)}<small>{escape(row.version)}</small></th>'
        yield f"<tr>{head}{''.join(_cell(cell, anchors.get(id(cell)), roomy=roomy) for cell in row.cells)}</tr>"
    yield "</tbody></table></div>"


def _cell(cell: Cell, anchor: str | None, *, roomy: bool) -> str:
    glyph = f"<b>{cell.mark.glyph}</b>"
    if not cell.target:
        return f'<td class="{cell.mark.key}" title="{escape(cell.mark.words)}"><span>{glyph}</span></td>'
    title = escape(_title(cell))
    if anchor is None:
        return f'<td class="{cell.mark.key}" title="{title}"><span>{glyph}</span></td>'
    told = f"<small>{escape(cell.brief)}<i>{escape(cell.places)}</i></small>" if roomy and cell.brief else ""
    return f'<td class="{cell.mark.key}"><a href="#{anchor}" title="{title}">{glyph}{told}</a></td>'


def _title(cell: Cell) -> str:
    words = "excluded" if cell.mark is Mark.WITHHELD else cell.mark.words
    since = f" since {readable(cell.since)}" if cell.since else ""
    version = f" {cell.version}" if cell.version else ""
    return "\n".join([f"{cell.target}{version}: {words}{since}", *cell.why])


def _image(cell: Cell, anchors: dict[int, str]) -> str:
    name = escape(cell.target)
    if anchor := anchors.get(id(cell)):
        name = f'<a href="#{anchor}">{name}</a>'
    told = escape(" ".join(text for text in (cell.brief or cell.mark.words, cell.places) if text))
    return (
        f'<li class="{cell.mark.key}">{_glyph(cell.mark)}<span class="who">{name}</span>'
        f'<span>{told}</span><span class="quiet">{escape(cell.version)}</span></li>'
    )


def _stories(groups: Sequence[Group]) -> Iterator[str]:
    numbered = list(enumerate(groups, 1))
    for excluded, several in groupby(numbered, key=lambda one: one[1].mark in (Mark.EXCLUDED, Mark.WITHHELD)):
        yield f"<h2>{'Excluded' if excluded else 'Not fresh, and why'}</h2>"
        yield '<ol class="stories">'
        yield from (_story(at, group) for at, group in several)
        yield "</ol>"


def _story(at: int, group: Group) -> str:
    count = f' <span class="quiet">({len(group.cells)} targets)</span>' if len(group.cells) > len(group.who) else ""
    why = "".join(f"<p>{escape(text)}</p>" for text in group.why)
    since = f"since {escape(readable(group.since))}" if group.since else ""
    return (
        f'<li id="why-{at}" class="{group.mark.key}">{_glyph(group.mark)}'
        f'<p class="who">{escape(", ".join(group.who))}{count}</p>'
        f'<div>{why}</div><p class="quiet">{since}</p></li>'
    )


def _glyph(mark: Mark) -> str:
    return f'<span class="glyph" title="{escape(mark.words)}">{mark.glyph}</span>'


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
