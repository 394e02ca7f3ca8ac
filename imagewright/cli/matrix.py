"""`imagewright matrix`."""

import hashlib
import json
import shutil
from pathlib import Path

import click

from imagewright import report
from imagewright.cli import Place
from imagewright.errors import BadReport, Exit, Failed
from imagewright.files import write_atomically
from imagewright.matrix import draw, dump
from imagewright.pictures import page, svg, terminal
from imagewright.state import DEFAULT, REPORT

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("report_file", metavar="[REPORT]", required=False, type=_FILE)
@click.option("--html", type=_FILE, help="Write it as a page that needs nothing else.")
@click.option("--svg", "drawing", type=_FILE, help="Write it as a drawing, for a README.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def matrix(place: Place, report_file: Path | None, html: Path | None, drawing: Path | None, as_json: bool) -> int:
    """Draw a report: tools and bases, the state of each pair, and why. Reads the report only and asks nobody.

    \b
    imagewright matrix
    imagewright matrix --html .imagewright/matrix.html
    imagewright matrix .imagewright/report.json --svg matrix.svg
    """
    file = report_file or place.root / DEFAULT / REPORT
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadReport(
            f"there is no report: {error.strerror}", remedy="Run `pytest checks/` first.", where=str(file)
        ) from None
    drawn = draw(report.parse(content, str(file)), f"sha256:{hashlib.sha256(content).hexdigest()}")
    if html:
        _write(html, page.document(drawn))
    if drawing:
        _write(drawing, svg.document(drawn))
    if as_json:
        click.echo(json.dumps(dump(drawn)))
    elif not (html or drawing):
        for line in terminal.lines(drawn, shutil.get_terminal_size().columns):
            click.echo("".join(click.style(span.text, fg=span.colour or None) for span in line))
    return Exit.DONE


def _write(file: Path, document: str) -> None:
    """Replaces the file, or `Failed`: then what was there is untouched."""
    try:
        write_atomically(file, document.encode())
    except OSError as error:
        raise Failed(
            f"cannot be written: {error.strerror}",
            remedy="Name a file in a folder that exists and that you may write to.",
            where=str(file),
        ) from None
    click.echo(f"wrote {file}", err=True)
