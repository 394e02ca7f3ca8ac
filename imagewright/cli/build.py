"""`imagewright build`."""

import json
import re
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import click

from imagewright import plan as plans
from imagewright.builders import Builder, BuildRequest, choose
from imagewright.catalogue import Catalogue, Pair
from imagewright.cli import Place
from imagewright.cli.clock import now, refuse_old
from imagewright.cli.engines import engines
from imagewright.cli.plan import HOUR
from imagewright.cli.source import source_of
from imagewright.errors import BadReport, Exit, Failed, Usage
from imagewright.load import load_catalogue
from imagewright.names import BadName, Platform, Reference, parse_digest
from imagewright.publish import Receipt, Work, confirm, publish
from imagewright.recipe import labels, recipe
from imagewright.registry.client import Client
from imagewright.settings import Settings, surroundings
from imagewright.snapshot import Missing, Observation, Published, Unreachable
from imagewright.state import DEFAULT, PLAN
from imagewright.survey import look_at
from imagewright.versions import Readings, environment

_AT_ONCE = 2
_STEP = re.compile(r"#\d+ \[")
"""The line with which BuildKit begins a step of a Dockerfile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One thing to do: build a pair on a base, or only see to its `latest`."""

    pair: Pair
    version: str
    base: Reference
    action: plans.Action


@click.command()
@click.argument("plan_file", metavar="[PLAN]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--tool", help="Build this tool instead of a plan,")
@click.option("--base", help="on this base.")
@click.option("--version", "version", help="Its version; by default what version.sh says.")
@click.option("--push", is_flag=True, help="Publish what was built, verify it, move `latest`.")
@click.option("--max-age", default=HOUR, show_default=True, help="Seconds that a plan is trusted.")
@click.option("-n", "--dry-run", is_flag=True, help="Say what would be done, do nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print results as JSON.")
@click.pass_obj
def build(
    place: Place,
    plan_file: Path | None,
    tool: str | None,
    base: str | None,
    version: str | None,
    push: bool,
    max_age: float,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Build what a plan asks for, or one pair, here.

    \b
    imagewright build .imagewright/plan.json --push
    imagewright build --tool codex --base fedora
    imagewright build --tool codex --base fedora --version 0.77.0 --push
    """
    catalogue = load_catalogue(place.root, place.environ)
    with Client(catalogue.settings, surroundings(place.environ)) as client:
        if tool or base:
            if plan_file or not (tool and base):
                raise Usage("either a plan, or both --tool and --base", remedy="See `imagewright build --help`.")
            jobs = [_single(catalogue, place, client, tool, base, version)]
        else:
            jobs = _planned(catalogue, plan_file or place.root / DEFAULT / PLAN, max_age)
        if push:
            _refuse_unredistributable(jobs)
        if dry_run:
            for job in jobs:
                say(f"{job.action} {job.pair.tagged(job.version)} on {job.base}{' and publish it' if push else ''}")
            return Exit.DONE
        if not jobs:
            say("nothing to build")
        receipts = _carry_out(catalogue, place, client, jobs, push)
    if as_json:
        click.echo(json.dumps({"schema": 1, "results": [one.as_json() for one in receipts]}))
    else:
        for one in receipts:
            latest = f"  latest {one.latest}" if one.outcome in ("published", "identical") else ""
            click.echo(f"{one.outcome:<9}  {one.work.reference}{latest}")
    return Exit.DONE if all(one.outcome != "failed" for one in receipts) else Exit.FAILED


def say(text: str) -> None:
    """A line for the person who watches; results go to stdout."""
    click.echo(text, err=True)


def _single(catalogue: Catalogue, place: Place, client: Client, tool: str, base: str, version: str | None) -> Job:
    found = catalogue.tool(tool)
    if found is None:
        raise Usage(f"there is no tool '{tool}'", remedy=f"There are {', '.join(one.name for one in catalogue.tools)}.")
    pair = catalogue.pair(found, base)
    if version is None:
        readings = Readings((), catalogue.settings.version_timeout, environment(place.environ))
        (reading,) = readings.results([found])
        if reading.version is None:
            raise Failed(f"the version of {tool} is unknown: {reading.detail}", remedy="Name it with --version.")
        version = reading.version
    try:
        pair.tagged(version)
    except BadName as error:
        raise Usage(str(error)) from None
    seen = look_at(client, [pair.base.reference])[pair.base.reference]
    if not isinstance(seen, Published):
        why = seen.code if isinstance(seen, Missing) else seen.detail
        raise Failed(f"the base {pair.base.reference} cannot be read: {why}")
    return Job(pair=pair, version=version, base=pair.base.reference.repository.at(seen.digest), action="build")


def _planned(catalogue: Catalogue, file: Path, max_age: float) -> list[Job]:
    try:
        content = file.read_bytes()
    except OSError as error:
        raise BadReport(
            f"there is no plan: {error.strerror}", remedy="Make one: `imagewright plan`.", where=str(file)
        ) from None
    made = plans.parse(content, str(file))
    refuse_old(made.created, now(), max_age, what="the plan", where=str(file))
    if made.catalogue != catalogue.hash:
        raise BadReport(
            "settings or tools/ have changed since the plan",
            remedy="Run `pytest checks/` and `imagewright plan` again.",
            where=str(file),
        )
    jobs = []
    for one in made.builds:
        found = catalogue.tool(one.tool)
        assert found, "the catalogue is the plan's"
        pair = catalogue.pair(found, one.base)
        base = pair.base.reference.repository.at(parse_digest(one.base_digest))
        jobs.append(Job(pair=pair, version=one.version, base=base, action=one.action))
    return jobs


def _refuse_unredistributable(jobs: Sequence[Job]) -> None:
    refused = [job.pair.key for job in jobs if not job.pair.tool.redistributable]
    if refused:
        raise Failed(
            f"{', '.join(refused)} may not be redistributed, so it is never pushed",
            remedy="Build it without --push; it stays on this machine.",
        )


def _carry_out(catalogue: Catalogue, place: Place, client: Client, jobs: Sequence[Job], push: bool) -> list[Receipt]:
    """Builds in parallel; what is ready is published meanwhile, one batch after another."""
    bases = look_at(client, {job.base for job in jobs if job.action == "build"})
    receipts: dict[str, Receipt] = {}
    with ExitStack() as stack:
        tools = {job.pair.tool for job in jobs if job.action == "build"}
        builders = stack.enter_context(engines(catalogue.settings, place, client, tools))
        worker = _Worker(catalogue.settings, place, builders)
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="build"))
        running: dict[Future[Work], Job] = {}
        for at, job in enumerate(jobs, 1):
            running[pool.submit(worker.work, job, bases.get(job.base), f"[{at}/{len(jobs)}] {job.pair.key}")] = job
        while running:
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            ready: list[Work] = []
            for future in done:
                job = running.pop(future)
                try:
                    ready.append(future.result())
                except Failed as error:
                    say(f"{job.pair.key}: failed: {error}")
                    work = Work(pair=job.pair, version=job.version, base=job.base)
                    receipts[job.pair.key] = Receipt(work=work, outcome="failed", problem=str(error))
            for receipt in publish(client, place.root, ready, place.environ) if push and ready else ():
                say(f"{receipt.work.pair.key}: {_told(receipt)}")
                receipts[receipt.work.pair.key] = receipt
            for work in ready if not push else ():
                say(f"{work.pair.key}: the image is in {work.layouts[0]}")
                receipts[work.pair.key] = Receipt(work=work, outcome="built")
    confirmed = confirm(place.root, [receipts[job.pair.key] for job in jobs], place.environ)
    for one in confirmed:
        if one.outcome != "failed" and push:
            for path in one.work.layouts:
                shutil.rmtree(path, ignore_errors=True)
    return confirmed


def _told(receipt: Receipt) -> str:
    """One line about how it went, but for the target's name."""
    if receipt.problem:
        return f"failed: {receipt.problem}"
    return f"{receipt.outcome} {receipt.digest}, latest {receipt.latest}"


class _Worker:
    """Does jobs, several at once, with their lines on the terminal and their engines' output in a log each."""

    def __init__(self, settings: Settings, place: Place, builders: Sequence[Builder]) -> None:
        self._settings = settings
        self._folder = place.root / DEFAULT
        self._builders = builders
        self._source = source_of(place)

    def work(self, job: Job, base: Observation | None, title: str) -> Work:
        """What there is to publish of a job; `Failed` where it could not be built."""
        if job.action == "retag":
            return Work(pair=job.pair, version=job.version, base=job.base)
        if not isinstance(base, Published):
            why = base.detail if isinstance(base, Unreachable) else "it is not there"
            raise Failed(f"the base {job.base} cannot be read: {why}", remedy="Make a new plan.")
        builder, request = self._request(job, job.pair.required(base.platforms))
        layout = self._folder / "images" / job.pair.key
        log = self._folder / "logs" / f"{job.pair.key}.log"
        shutil.rmtree(layout, ignore_errors=True)
        for folder in (layout.parent, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        say(f"{title}: {builder.name} builds {job.version} for {', '.join(map(str, request.platforms))}")
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as lines:
            try:
                builder.build(request, layout, lambda line: self._keep(lines, title, line))
            except Failed as error:
                shutil.rmtree(layout, ignore_errors=True)
                raise Failed(f"{error.reason}\n  all of its output: {log}", remedy=error.remedy) from None
        say(f"{title}: built in {time.monotonic() - began:.1f} s")
        return Work(
            pair=job.pair, version=job.version, base=job.base, layouts=(layout,), annotations=request.annotations
        )

    def _keep(self, lines: TextIO, title: str, line: str) -> None:
        lines.write(f"{line}\n")
        lines.flush()
        if _STEP.match(line):
            say(f"{title}: {line}")

    def _request(self, job: Job, platforms: tuple[Platform, ...]) -> tuple[Builder, BuildRequest]:
        tool = job.pair.tool
        request = BuildRequest(
            target=job.pair.key,
            context=tool.folder,
            dockerfile=tool.dockerfile,
            base=job.base,
            version=job.version,
            platforms=platforms,
            arguments={},
            labels={},
            annotations={},
            epoch=self._source.epoch,
        )
        builder = choose(self._settings.builder, self._builders, request)
        assert job.base.digest, "the base is named by digest"
        said = labels(
            tool,
            job.pair.base,
            base_digest=job.base.digest,
            version=job.version,
            recipe=recipe(tool, builder.family),
            prefix=self._settings.label_prefix,
            created=self._source.epoch,
            source=self._source.url,
            revision=self._source.revision,
        )
        return builder, replace(request, labels=said, annotations=said)
