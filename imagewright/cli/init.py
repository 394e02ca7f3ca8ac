"""`imagewright init`."""

import json
from collections.abc import Sequence
from importlib.metadata import version
from itertools import groupby
from pathlib import Path

import click

from imagewright.adopt import Draft, Wanted, carry_out, draft
from imagewright.cli import Place
from imagewright.errors import Exit, Usage
from imagewright.names import BadName, parse_host, parse_repository
from imagewright.original import Remark


@click.command()
@click.option("--registry", metavar="HOST", help="Where the images are published; ghcr.io.")
@click.option("--repository", metavar="NAME", help="Where in it the images are.")
@click.option("--bases-repository", metavar="NAME", help="Where in it the bases are.")
@click.option(
    "--from",
    "source",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Tools in the earlier layout to bring along.",
)
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def init(
    place: Place,
    registry: str | None,
    repository: str | None,
    bases_repository: str | None,
    source: Path | None,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Make a project of this folder: settings, checks, recipe. Adds what is missing, overwrites nothing.

    \b
    imagewright init
    imagewright init --repository acme/tools --bases-repository acme/bases
    imagewright init --from ../earlier/tools --dry-run
    """
    try:
        wanted = Wanted(
            registry=parse_host(registry) if registry else "",
            repository=parse_repository(repository) if repository else "",
            bases=parse_repository(bases_repository) if bases_repository else "",
        )
    except BadName as error:
        raise Usage(str(error)) from None
    made = draft(place.root, wanted, source, place.environ, version("imagewright"))
    if not dry_run:
        carry_out(place.root, made)
    show(made, dry_run=dry_run, as_json=as_json)
    return Exit.DONE


def show(made: Draft, *, dry_run: bool, as_json: bool) -> None:
    """What was written, what was decided, and what is left to do."""
    if as_json:
        written = [{"path": one.path, "appended": one.appended} for one in made.pieces]
        document = {"schema": 1, "dry_run": dry_run, "written": written, "kept": list(made.kept)}
        remarks, edits = ([_members(one) for one in each] for each in (made.remarks, made.edits))
        click.echo(json.dumps({**document, "remarks": remarks, "edits": edits}))
        return
    would = "would " if dry_run else ""
    for (appended, folder), group in groupby(made.pieces, lambda one: (one.appended, one.path.rpartition("/")[0])):
        names = ", ".join(one.path.rpartition("/")[2] for one in group)
        verb = ("add to" if dry_run else "added to") if appended else ("write" if dry_run else "wrote")
        click.echo(f"{would}{verb} {f'{folder}/: ' if folder else ''}{names}")
    if not made.pieces:
        click.echo("nothing to write: all of it is there")
    for places, one in _alike(made.remarks):
        click.echo(f"{places}: {one.what}")
        if one.remedy:
            click.echo(f"    {one.remedy}")
    if made.edits:
        click.echo("\nTo do:")
    for at, (places, one) in enumerate(_alike(made.edits), 1):
        click.echo(f"{at:>3}. {places}: {one.what}")
        click.echo(f"     {one.remedy}")
    click.echo("\nThen: pytest checks/" if made.edits else "\nNext: pytest checks/")


def _alike(remarks: Sequence[Remark]) -> list[tuple[str, Remark]]:
    """Remarks that say the same of several places become one, with all the places: twenty tools may have one mistake."""
    groups: dict[tuple[str, str], list[Remark]] = {}
    for one in remarks:
        groups.setdefault((one.what, one.remedy), []).append(one)
    return [(", ".join(one.place for one in group), group[0]) for group in groups.values()]


def _members(remark: Remark) -> dict[str, str]:
    return {"place": remark.place, "what": remark.what, "remedy": remark.remedy}
