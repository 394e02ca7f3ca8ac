"""`imagewright versions`."""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import click

from imagewright.catalogue import Catalogue
from imagewright.cli import Place
from imagewright.errors import Exit, Usage
from imagewright.files import write_atomically
from imagewright.load import load_catalogue
from imagewright.names import BadName, Platform, parse_platform
from imagewright.snapshot import Reading, dump_reading
from imagewright.versions import Comparison, Readings, compare, dump_file


@click.command()
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write them to FILE, for the checks."
)
@click.option("--compare", "comparing", is_flag=True, help="Read each on the host and in the image, and compare.")
@click.option("--platform", "platforms", multiple=True, metavar="P", help="Compare on P; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def versions(place: Place, output: Path | None, comparing: bool, platforms: tuple[str, ...], as_json: bool) -> int:
    """Read the version of every tool, each with its version.sh.

    \b
    imagewright versions
    imagewright versions -o versions.json && pytest checks/ --versions versions.json
    imagewright versions --compare --platform linux/amd64 --platform linux/arm64
    """
    catalogue = load_catalogue(place.root, place.environ)
    if comparing:
        if output:
            raise Usage("--compare writes no versions", remedy="Leave out --output.")
        return _compare(catalogue, place, platforms, as_json)
    if platforms:
        raise Usage("--platform is for --compare", remedy="Versions are asked once, whatever the platform.")
    with closing(Readings((), catalogue.settings.versions, place.environ)) as readings:
        found = readings.results(catalogue.tools)
        warnings = readings.warnings
    if output:
        write_atomically(output, dump_file(found))
    for warning in warnings:
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo(json.dumps({"schema": 1, "versions": [dump_reading(one) for one in found], "warnings": warnings}))
    else:
        for line in _lines(found, warnings):
            click.echo(line)
    return Exit.DONE if all(one.version for one in found) else Exit.UNKNOWN


def _lines(found: Sequence[Reading], warnings: Sequence[str]) -> Iterator[str]:
    """A line per tool. What is a warning for all of them is not told with each."""
    width = max(len(one.tool) for one in found)
    wide = max(len(one.version or "") for one in found)
    for one in found:
        said = f"{one.version:<{wide}}" if one.version else f"unknown: {one.reason}: {one.detail}"
        told = any(one.fallback in warning for warning in warnings)
        why = f"; in the image: {one.fallback}" if one.fallback and not told else ""
        yield f"{one.tool:<{width}}  {said}  ({one.via}, {one.seconds:.1f} s{why})"


def _compare(catalogue: Catalogue, place: Place, platforms: Iterable[str], as_json: bool) -> int:
    settings = catalogue.settings.versions
    if not settings.image:
        raise Usage(
            "there is no version-check image to compare with", remedy="Set `image` in [tool.imagewright.versions]."
        )
    rows = compare(catalogue.tools, settings, place.environ, [_platform(one) for one in platforms])
    if as_json:
        click.echo(json.dumps({"schema": 1, "comparisons": [_members(one) for one in rows]}))
    else:
        for line in _table(rows):
            click.echo(line)
    return Exit.DONE if all(one.result == "same" for one in rows) else Exit.FAILED


def _platform(text: str) -> Platform:
    try:
        return parse_platform(text)
    except BadName as error:
        raise Usage(str(error)) from None


def _members(row: Comparison) -> dict[str, object]:
    return {
        "tool": row.host.tool,
        "host": dump_reading(row.host),
        "images": [{"platform": platform, **dump_reading(one)} for platform, one in row.images],
        "result": row.result,
        "failures": row.failures,
    }


def _table(rows: Sequence[Comparison]) -> Iterator[str]:
    cells = [("tool", "host", *(f"image {platform}" for platform, _ in rows[0].images), "result")]
    for row in rows:
        said = [one.version or "-" for one in (row.host, *(one for _, one in row.images))]
        cells.append((row.host.tool, *said, "; ".join(row.failures) if row.failures else row.result))
    widths = [max(len(line[at]) for line in cells) for at in range(len(cells[0]) - 1)]
    for line in cells:
        yield "  ".join([*(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)), line[-1]])
