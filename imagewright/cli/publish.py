"""`imagewright publish`."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from imagewright import publish as publishing
from imagewright.cli import Place
from imagewright.cli.jobs import base_at, named
from imagewright.errors import Exit, Usage
from imagewright.load import load_catalogue
from imagewright.names import BadName, Digest, Platform, parse_digest, parse_platform
from imagewright.publish import Work, refuse_unpublishable
from imagewright.registry.client import Client
from imagewright.settings import surroundings


@click.command()
@click.argument("target")
@click.option(
    "--layout",
    "layouts",
    multiple=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A layout with platforms to push; may be repeated.",
)
@click.option(
    "--digest",
    "digests",
    multiple=True,
    metavar="P=DIGEST",
    help="A platform that was pushed already; may be repeated.",
)
@click.option("--version", "version", required=True, help="The version of the tool or image.")
@click.option("--base-digest", metavar="DIGEST", help="The base that it was built on; today's by default.")
@click.option("--tags", is_flag=True, help="Join the platforms, move the version's tag, verify, move `latest`.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
@click.pass_obj
def publish(
    place: Place,
    target: str,
    layouts: tuple[Path, ...],
    digests: tuple[str, ...],
    version: str,
    base_digest: str | None,
    tags: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Push platforms by digest; with --tags join them, verify, and move the tags. With --tags alone only `latest` moves.

    \b
    imagewright publish codex-fedora --version 0.77.0 --layout build/amd64
    imagewright publish codex-fedora --version 0.77.0 --tags \\
        --digest linux/amd64=sha256:… --digest linux/arm64=sha256:…
    """
    if not (layouts or digests or tags):
        raise Usage("nothing to publish", remedy="Name --layout, --digest, or both; --tags alone moves `latest`.")
    catalogue = load_catalogue(place.root, place.environ)
    chosen = named(catalogue, target)
    try:
        chosen.tagged(version)
    except BadName as error:
        raise Usage(str(error)) from None
    refuse_unpublishable(chosen, version)
    with Client(catalogue.settings, surroundings(place.environ)) as client:
        try:
            work = Work(
                target=chosen,
                version=version,
                base=base_at(client, chosen, base_digest),
                layouts=layouts,
                digests=_digests(digests),
            )
        except BadName as error:
            raise Usage(str(error)) from None
        if dry_run:
            _show(work, tags, as_json)
            return Exit.DONE
        if tags:
            receipts = publishing.publish(client, place.root, [work], place.environ)
            (receipt,) = publishing.confirm(place.root, receipts, place.environ)
            click.echo(json.dumps({"schema": 1, "results": [receipt.as_json()]}) if as_json else _line(receipt))
            return Exit.FAILED if receipt.problem else Exit.DONE
        pushed = {str(platform): digest for platform, digest in publishing.push_platforms(client, work).items()}
    if as_json:
        click.echo(json.dumps({"schema": 1, "digests": pushed}))
    else:
        for platform, digest in pushed.items():
            click.echo(f"{platform}={digest}")
    return Exit.DONE


def _show(work: Work, tags: bool, as_json: bool) -> None:
    """What would be done."""
    if as_json:
        members = {
            "target": work.target.key,
            "reference": str(work.reference),
            "base": str(work.base),
            "layouts": [str(path) for path in work.layouts],
            "digests": {str(platform): digest for platform, digest in work.digests.items()},
            "tags": tags,
        }
        click.echo(json.dumps({"schema": 1, "jobs": [members]}))
        return
    for path in work.layouts:
        click.echo(f"would push the platforms in {path} to {work.target.repository}")
    for platform, digest in work.digests.items():
        click.echo(f"would take {platform} as {digest}, which is there")
    if tags:
        move = "move" if work.layouts or work.digests else "take"
        click.echo(f"would {move} {work.reference}, verify it, and move {work.target.tagged('latest')}")


def _line(receipt: publishing.Receipt) -> str:
    if receipt.problem:
        return f"failed  {receipt.work.reference}, latest {receipt.latest}\n  {receipt.problem}"
    return f"{receipt.outcome}  {receipt.work.reference}  {receipt.digest}, latest {receipt.latest}"


def _digests(texts: Sequence[str]) -> dict[Platform, Digest]:
    found: dict[Platform, Digest] = {}
    for text in texts:
        name, equals, digest = text.partition("=")
        if not equals:
            raise BadName(f"'{text}' is not PLATFORM=DIGEST")
        platform = parse_platform(name).normalised()
        if platform in found:
            raise BadName(f"--digest names {platform} twice")
        found[platform] = parse_digest(digest)
    return found
