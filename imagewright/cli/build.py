"""`imagewright build`."""

import fcntl
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import click

from imagewright.catalogue import Target
from imagewright.cli import Place
from imagewright.cli.carry_out import Wish, carry_out, remove_halves
from imagewright.cli.clock import trusted_for
from imagewright.cli.jobs import Job, Jobs, Later, named, paired, planned, single
from imagewright.cli.local import load as give_to_engine
from imagewright.cli.progress import say
from imagewright.errors import Exit, Failed, Usage
from imagewright.load import load_catalogue
from imagewright.names import BadName, Platform, parse_platform
from imagewright.publish import refuse_unpublishable
from imagewright.registry.client import Client
from imagewright.settings import surroundings
from imagewright.state import DEFAULT, PLAN
from imagewright.survey import look_at
from imagewright.versions import Readings


@click.command()
@click.argument("plan_file", metavar="[PLAN]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tool", help="Build this tool instead of a plan,")
@click.option("--base", help="on this base.")
@click.option("--target", help="Build this target instead of a plan: <tool>-<base>, or a standalone image.")
@click.option("--version", "version", help="Its version; by default what version.sh or image.yml says.")
@click.option("--base-digest", metavar="DIGEST", help="The base to build it on; today's by default.")
@click.option(
    "--platform", "platforms", multiple=True, metavar="P", help="Only this of its platforms; may be repeated."
)
@click.option("--push", is_flag=True, help="Publish what was built, verify it, move `latest`.")
@click.option("--load", is_flag=True, help="Give what was built to docker or podman here, with the tag `dev`.")
@click.option("--no-cache", is_flag=True, help="Run every step again.")
@trusted_for("a plan")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
@click.pass_obj
def build(
    place: Place,
    plan_file: Path | None,
    tool: str | None,
    base: str | None,
    target: str | None,
    version: str | None,
    base_digest: str | None,
    platforms: tuple[str, ...],
    push: bool,
    load: bool,
    no_cache: bool,
    max_age: int,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Build what a plan asks for, or one target, here.

    \b
    imagewright build .imagewright/plan.json --push
    imagewright build --tool codex --base fedora
    imagewright build --target version-check --load
    imagewright build --target codex-fedora --platform linux/arm64
    """
    if push and load:
        raise Usage("what is pushed is not loaded as well", remedy="Use --push or --load.")
    if bool(tool) != bool(base) or sum(map(bool, (plan_file, tool, target))) > 1:
        raise Usage("either a plan, or --target, or both --tool and --base", remedy="See `imagewright build --help`.")
    if platforms and push:
        raise Usage("a target is published whole", remedy="Push platforms with `imagewright publish --layout`.")
    if (platforms or base_digest) and not (tool or target):
        raise Usage("--platform and --base-digest are for one target", remedy="A plan says what each is built on.")
    only = _platforms(platforms)
    catalogue = load_catalogue(place.root, place.environ)
    with Client(catalogue.settings, surroundings(place.environ)) as client:
        chosen: Target | None = None
        if tool and base:
            chosen = paired(catalogue, tool, base)
        elif target:
            chosen = named(catalogue, target)
        if chosen:
            if push:
                refuse_unpublishable(chosen, version)
            with closing(Readings((), catalogue.settings.versions, place.environ)) as readings:
                job = single(chosen, version, client, readings, base_digest=base_digest, platforms=only)
            jobs = Jobs(now=(job,))
        else:
            jobs = planned(catalogue, plan_file or place.root / DEFAULT / PLAN, max_age)
        everything: Sequence[Job | Later] = (*jobs.now, *jobs.later)
        for one in everything if push else ():
            refuse_unpublishable(one.target, one.version)
        if dry_run:
            _show(jobs, push, as_json, _required(client, jobs) if chosen else {})
            return Exit.DONE
        if not jobs.now:
            say("nothing to build")
        with _alone(place.root / DEFAULT):
            receipts = carry_out(catalogue, place, client, jobs, Wish(push=push, no_cache=no_cache))
        for built in [one.work for one in receipts if load and one.outcome == "built"]:
            say(give_to_engine(built.layouts[0], str(built.target.tagged("dev")), place.environ))
    if as_json:
        click.echo(json.dumps({"schema": 1, "results": [one.as_json() for one in receipts]}))
    else:
        for receipt in receipts:
            latest = f"  latest {receipt.latest}" if receipt.outcome in ("published", "identical") else ""
            click.echo(f"{receipt.outcome:<9}  {receipt.work.reference}{latest}")
    return Exit.DONE if all(one.outcome != "failed" for one in receipts) else Exit.FAILED


def _platforms(texts: Sequence[str]) -> tuple[Platform, ...]:
    try:
        return tuple(dict.fromkeys(parse_platform(one) for one in texts))
    except BadName as error:
        raise Usage(str(error)) from None


def _required(client: Client, jobs: Jobs) -> dict[str, tuple[Platform, ...]]:
    """Target → the platforms that it would be built for, as its base is."""
    seen = look_at(client, {job.base for job in jobs.now if job.base})
    return {job.target.key: job.required(seen[job.base] if job.base else None) for job in jobs.now}


def _show(jobs: Jobs, push: bool, as_json: bool, platforms: Mapping[str, tuple[Platform, ...]]) -> None:
    """What would be done. platforms: those of a target, where they were asked for."""
    everything: Sequence[Job | Later] = (*jobs.now, *(jobs.later if push else ()))
    if as_json:
        click.echo(json.dumps({"schema": 1, "jobs": [_members(job, push, platforms) for job in everything]}))
        return
    for job in everything:
        action = job.action if isinstance(job, Job) else "build"
        what = f"would {action}{' and publish' if push and action == 'build' else ''}"
        click.echo(f"{what} {job.target.tagged(job.version)}")
        if isinstance(job, Later):
            click.echo(f"{'after':>{len(what)}} {job.waits_for}")
        elif action == "build":
            click.echo(f"{'on':>{len(what)}} {job.base or 'nothing'}")
            if job.target.key in platforms:
                click.echo(f"{'for':>{len(what)}} {', '.join(map(str, platforms[job.target.key]))}")
    if not everything:
        click.echo("nothing to build")


def _members(job: Job | Later, push: bool, platforms: Mapping[str, tuple[Platform, ...]]) -> dict[str, object]:
    known = platforms.get(job.target.key)
    return {
        "target": job.target.key,
        "action": job.action if isinstance(job, Job) else "build",
        "reference": str(job.target.tagged(job.version)),
        "base": str(job.base) if isinstance(job, Job) and job.base else None,
        "after": job.waits_for if isinstance(job, Later) else None,
        "platforms": None if known is None else [str(one) for one in known],
        "push": push,
    }


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keeps other builds out of the project's folder, as they would build into the same layouts."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    with (folder / "lock-builds").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Failed("another build is running in this project", remedy="Wait for it.", where=str(folder)) from None
        remove_halves(images)
        yield
