"""`imagewright new`."""

import click

from imagewright.adopt import carry_out, new_tool
from imagewright.cli import Place
from imagewright.cli.init import show
from imagewright.errors import Exit, Usage
from imagewright.skeletons import Kind, parse_source


@click.group()
def new() -> None:
    """Make a new tool."""


@new.command()
@click.argument("name")
@click.option("--npm", metavar="PACKAGE", help="Its releases are an npm package,")
@click.option("--pypi", metavar="PACKAGE", help="a Python package,")
@click.option("--github", metavar="OWNER/REPO", help="or the releases of a repository on GitHub.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be written, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def tool(
    place: Place, name: str, npm: str | None, pypi: str | None, github: str | None, dry_run: bool, as_json: bool
) -> int:
    """Make the folder tools/NAME with version.sh, install.sh and tool.yaml.

    \b
    imagewright new tool codex --npm @openai/codex
    imagewright new tool goose --github block/goose
    imagewright new tool mine
    """
    kinds: dict[Kind, str | None] = {"npm": npm, "pypi": pypi, "github": github}
    given = [(kind, source) for kind, source in kinds.items() if source is not None]
    if len(given) > 1:
        raise Usage("a tool has its releases in one place", remedy="Name one of --npm, --pypi and --github.")
    kind, source = given[0] if given else (None, "")
    if kind:
        try:
            parse_source(kind, source)
        except ValueError as error:
            raise Usage(f"--{kind}: {error}") from None
    made = new_tool(place.root, name, kind, source)
    if not dry_run:
        carry_out(place.root, made)
    show(made, dry_run=dry_run, as_json=as_json)
    return Exit.DONE
