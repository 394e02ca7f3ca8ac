"""`imagewright versions`."""

import json
from pathlib import Path

import click

from imagewright.cli import Place
from imagewright.errors import Exit
from imagewright.files import write_atomically
from imagewright.load import load_catalogue
from imagewright.snapshot import dump_reading
from imagewright.versions import Readings, dump_file, environment


@click.command()
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write them to FILE, for the checks."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def versions(place: Place, output: Path | None, as_json: bool) -> int:
    """Read the version of every tool, each with its version.sh.

    \b
    imagewright versions
    imagewright versions -o versions.json && pytest checks/ --versions versions.json
    """
    catalogue = load_catalogue(place.root, place.environ)
    readings = Readings((), catalogue.settings.versions.timeout, environment(place.environ))
    found = readings.results(catalogue.tools)
    if output:
        write_atomically(output, dump_file(found))
    if as_json:
        click.echo(json.dumps({"schema": 1, "versions": [dump_reading(one) for one in found]}))
    else:
        width = max(len(one.tool) for one in found)
        wide = max(len(one.version or "") for one in found)
        for one in found:
            said = f"{one.version:<{wide}}" if one.version else f"unknown: {one.reason}: {one.detail}"
            click.echo(f"{one.tool:<{width}}  {said}  ({one.via}, {one.seconds:.1f} s)")
    return Exit.DONE if all(one.version for one in found) else Exit.UNKNOWN
