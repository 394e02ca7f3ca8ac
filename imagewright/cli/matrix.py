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
from imagewright.pictures import annotations, markdown, page, svg, terminal
from imagewright.plan import Plan
from imagewright.plan import parse as parse_plan
from imagewright.state import DEFAULT, PLAN, REPORT

_FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("report_file", metavar="[REPORT]", required=False, type=_FILE)
@click.option("--html", type=_FILE, help="Write it as a page that needs nothing else.")
@click.option("--svg", "drawing", type=_FILE, help="Write it as a drawing, for a README.")
@click.option("--markdown", "text", type=_FILE, help="Write it, and the plan made of it, for the summary of a job.")
@click.option("--annotations", "beside", is_flag=True, help="Print what is not fresh as a forge's annotations.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@click.pass_obj
def matrix(
    place: Place,
    report_file: Path | None,
    html: Path | None,
    drawing: Path | None,
    text: Path | None,
    beside: bool,
    as_json: bool,
) -> int:
    """Draw a report: tools and bases, the state of each pair, and why. Reads the report only and asks nobody.

    \b
    imagewright matrix
    imagewright matrix --html .imagewright/matrix.html
    imagewright matrix .imagewright/report.json --svg matrix.svg
    imagewright matrix --markdown summary.md
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
    if text:
        _write(text, markdown.document(drawn, _plan_of(drawn.digest, file.with_name(PLAN))))
    for command in annotations.commands(drawn) if beside else ():
        click.echo(command)
    if as_json:
        click.echo(json.dumps(dump(drawn)))
    elif not (html or drawing or text or beside):
        for line in terminal.lines(drawn, shutil.get_terminal_size().columns):
            click.echo("".join(click.style(span.text, fg=span.colour or None) for span in line))
    return Exit.DONE


def _plan_of(digest: str, file: Path) -> Plan | None:
    """The plan beside a report, if it was made of that report. `BadReport` where there is something else."""
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        return None
    found = parse_plan(content, str(file))
    return found if found.report == digest else None


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
