"""`imagewright plan`."""

import hashlib
from pathlib import Path

import click

from imagewright import report
from imagewright.cli import Place
from imagewright.cli.clock import now, refuse_old, stamp, trusted_for
from imagewright.errors import BadCatalogue, BadReport, Exit
from imagewright.files import is_device, write_atomically
from imagewright.load import load_catalogue
from imagewright.plan import Policy, decide, dump
from imagewright.render import plan_lines
from imagewright.state import DEFAULT, PLAN, REPORT, StateFolder


@click.command()
@click.argument("report_file", metavar="[REPORT]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help=f"The plan; {DEFAULT}/{PLAN}.")
@click.option("--force", is_flag=True, help="Plan fresh targets too; unknown ones never.")
@trusted_for("a report")
@click.option("-n", "--dry-run", is_flag=True, help="Print the plan, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the plan as JSON.")
@click.pass_obj
def plan(
    place: Place,
    report_file: Path | None,
    output: Path | None,
    force: bool,
    max_age: int,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Turn a report of the checks into builds. Reads files only and asks nobody.

    \b
    imagewright plan
    imagewright plan .imagewright/report.json -o plan.json
    imagewright plan --force --dry-run
    """
    file = report_file or place.root / DEFAULT / REPORT
    written = output or place.root / DEFAULT / PLAN
    state = StateFolder(file.parent)
    if not (dry_run or is_device(written)):
        written.unlink(missing_ok=True)  # whatever happens now, an older plan is not this one
    started = state.started()
    if started and started.error and started.error[0] == Exit.BAD_CATALOGUE:
        raise BadCatalogue(f"the checks could not begin:\n{started.error[1]}")
    catalogue = load_catalogue(place.root, place.environ)
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadReport(
            f"there is no report: {error.strerror}", remedy="Run `pytest checks/` first.", where=str(file)
        ) from None
    found = report.parse(content, str(file))
    if started is None or started.nonce != found.nonce:
        raise BadReport(
            "the report is not of the run that started last", remedy="Run `pytest checks/` again.", where=str(file)
        )
    if found.catalogue != catalogue.hash:
        raise BadReport(
            "settings or tools/ have changed since the report", remedy="Run `pytest checks/` again.", where=str(file)
        )
    moment = now()
    refuse_old(found.started, moment, max_age, what="the report", where=str(file))
    settings = catalogue.settings.plan
    made = decide(
        found,
        digest=f"sha256:{hashlib.sha256(content).hexdigest()}",
        last_good=state.last_good(),
        policy=Policy(vanished_at_most=settings.max_vanished, hold=settings.hold),
        force=force,
        now=stamp(moment),
    )
    document = dump(made)
    if not dry_run:
        write_atomically(written, document)
    if as_json:
        click.echo(document, nl=False)
    else:
        for line in plan_lines(made, found.total, len(found.expected)):
            click.secho(line.text, fg=line.colour or None)
        if made.builds and not dry_run:
            shown = written.relative_to(place.root) if written.is_relative_to(place.root) else written
            click.echo(f"next: imagewright build {shown} --push", err=True)
    return made.exit
