"""`imagewright dispatch`."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import click

from imagewright.admit import Deferred, Limits
from imagewright.cli import Place
from imagewright.cli.clock import HOUR, now, stamp, trusted_for
from imagewright.cli.jobs import jobs_of, read_plan
from imagewright.dispatch import Asked, Desk, Dispatched, preview, watch
from imagewright.dispatch import dispatch as ask
from imagewright.errors import Exit
from imagewright.files import write_atomically
from imagewright.forge.client import Forge
from imagewright.forge.place import place_of
from imagewright.forge.runs import inputs_of
from imagewright.journal import Journal, held
from imagewright.load import load_catalogue
from imagewright.names import is_loopback
from imagewright.plan import Plan
from imagewright.publish import refuse_unpublishable
from imagewright.settings import Settings, surroundings
from imagewright.state import DEFAULT, DISPATCH, JOURNAL, PLAN

_PAUSE, _PAUSE_ON_LOOPBACK = 20, 1


@click.command()
@click.argument("plan_file", metavar="[PLAN]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--watch", "watching", is_flag=True, help="Follow the runs to their end; ask for more as others end.")
@click.option(
    "--watch-limit",
    default=5 * HOUR,
    type=click.IntRange(min=0),
    metavar="SECONDS",
    show_default=True,
    help="How long --watch waits.",
)
@trusted_for("a plan")
@click.option("-n", "--dry-run", is_flag=True, help="Read the runs, print the requests, make none.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
@click.pass_obj
def dispatch(
    place: Place, plan_file: Path | None, watching: bool, watch_limit: int, max_age: int, dry_run: bool, as_json: bool
) -> int:
    """Ask the forge for the builds of a plan: each once, none that is under way, as many as the limits allow.

    \b
    imagewright dispatch --dry-run
    imagewright dispatch .imagewright/plan.json
    imagewright dispatch --watch
    """
    catalogue = load_catalogue(place.root, place.environ)
    file = plan_file or place.root / DEFAULT / PLAN
    plan, digest = read_plan(catalogue, file, max_age)
    for job in jobs_of(catalogue, plan, file).now:
        refuse_unpublishable(job.target, job.version)
    settings = catalogue.settings
    state = place.root / DEFAULT
    made, repository = Dispatched(), ""
    if plan.builds:
        there = place_of(settings.forge, place.environ)
        repository = there.repository
        with (
            Forge(there, settings.limits, surroundings(place.environ)) as forge,
            nullcontext(Journal(state / JOURNAL)) if dry_run else held(state / JOURNAL) as journal,
        ):
            desk = _desk(settings, forge, journal, digest)
            if dry_run:
                made = preview(plan, desk)
            elif watching:
                pause = _PAUSE_ON_LOOPBACK if is_loopback(there.host) else _PAUSE
                made = watch(plan, desk, seconds=watch_limit, pause=pause)
            else:
                made = ask(plan, desk)
    document = json.dumps(_members(plan, digest, made), indent=1, ensure_ascii=False)
    if not dry_run:
        write_atomically(state / DISPATCH, f"{document}\n".encode())
    if as_json:
        click.echo(document)
    else:
        for line in _lines(plan, made, settings, repository, dry_run=dry_run, watched=watching):
            click.echo(line)
    if made.doubtful:
        return Exit.REJECTED
    failed = [one for one in made.asked if one.run and one.run.conclusion not in ("", "success")]
    return Exit.FAILED if failed or (watching and _open(made)) else Exit.DONE


def _desk(settings: Settings, forge: Forge, journal: Journal, digest: str) -> Desk:
    plan = settings.plan
    return Desk(
        forge=forge,
        journal=journal,
        limits=Limits(
            budget=plan.budget,
            per_hour=plan.per_hour,
            in_flight=plan.in_flight,
            settle=timedelta(seconds=settings.limits.settle),
        ),
        workflow=plan.workflow,
        ref=plan.ref,
        digest=digest,
        clock=now,
        tell=lambda line: click.echo(line, err=True),
    )


def _open(made: Dispatched) -> bool:
    """Whether somebody who watched to the end would still have to wait."""
    return bool(made.deferred) or any(one.run is None or one.run.in_flight for one in made.asked)


def _members(plan: Plan, digest: str, made: Dispatched) -> dict[str, Any]:
    return {
        "schema": 1,
        "plan": digest,
        "created": stamp(now()),
        "asked": [_asked_members(one) for one in made.asked],
        "deferred": [_deferred_members(one) for one in made.deferred],
        "stopped": [{"key": one.key, "target": one.target} for one in made.stopped],
        "waiting": [{"target": one.target, "because": one.because} for one in plan.deferrals],
    }


def _asked_members(one: Asked) -> dict[str, Any]:
    return {
        "key": one.build.key,
        "target": one.build.target,
        "version": one.build.version,
        "outcome": one.outcome.outcome,
        "run": one.number,
        "url": one.url,
        "detail": one.outcome.detail,
        "conclusion": one.run.conclusion if one.run else "",
    }


def _deferred_members(one: Deferred) -> dict[str, Any]:
    return {
        "key": one.build.key,
        "target": one.build.target,
        "because": one.because,
        "until": stamp(one.until) if one.until else None,
        "attempts": one.attempts,
        "url": one.run,
    }


def _lines(
    plan: Plan, made: Dispatched, settings: Settings, repository: str, *, dry_run: bool, watched: bool
) -> Iterator[str]:
    path = f"/repos/{repository}/actions/workflows/{settings.plan.workflow}/dispatches"
    for one in made.asked:
        if dry_run:
            inputs = inputs_of(one.build, force=plan.force)
            yield f"POST {path} {json.dumps({'ref': settings.plan.ref, 'inputs': inputs}, ensure_ascii=False)}"
        elif one.outcome.outcome == "accepted":
            ended = f"  {one.run.conclusion or one.run.status}" if watched and one.run else ""
            yield f"  asked for  {one.build.target}  {one.build.version}{ended}  {one.url}".rstrip()
        else:
            yield f"  {one.outcome.outcome}   {one.build.target}  {one.build.version}: {one.outcome.detail}"
            yield f"    {one.outcome.remedy}"
    for held_back in made.deferred:
        until = f" until {stamp(held_back.until)}" if held_back.until else ""
        if held_back.because == "settling" and not until:
            until = ", this plan has asked for it already"
        tried = f", tried {held_back.attempts} times" if held_back.attempts > 1 else ""
        link = f"  {held_back.run}" if held_back.run else ""
        yield f"  put off    {held_back.build.target}  {held_back.build.version}: {held_back.because}{until}{tried}{link}"
    for build in made.stopped:
        yield f"  not asked  {build.target}  {build.version}: the forge did not plainly accept the one before"
    would = "would be " if dry_run else ""
    yield f"{len(made.asked)} {would}asked for, {len(made.deferred)} put off, {len(made.stopped)} not asked"
