"""`imagewright build`."""

import fcntl
import json
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TextIO

import click

from imagewright import plan as plans
from imagewright import process
from imagewright.builders import NOTICE, Builder, BuildRequest, choose
from imagewright.catalogue import Catalogue, Pair
from imagewright.cli import Place
from imagewright.cli.clock import now, refuse_old
from imagewright.cli.engines import engines
from imagewright.cli.plan import HOUR
from imagewright.cli.source import source_of
from imagewright.errors import BadReport, Exit, Failed, ImagewrightError, Usage
from imagewright.load import load_catalogue
from imagewright.names import BadName, Platform, Reference, parse_digest, shown
from imagewright.publish import Receipt, Work, confirm, publish, refuse_unpublishable
from imagewright.recipe import labels, recipe
from imagewright.registry.client import Client
from imagewright.settings import Settings, surroundings
from imagewright.snapshot import Missing, Observation, Published, Unreachable
from imagewright.state import DEFAULT, PLAN
from imagewright.survey import look_at
from imagewright.versions import Readings, environment

_AT_ONCE = 2
_GATHER = 1.0
"""Seconds after a build's end in which others may end too: the checks then run once for all of them."""
_STEP = re.compile(r"\[[^\]]*\b\d+/\d+\] [A-Z]+ ")
"""The line with which BuildKit begins a step of a Dockerfile: `[linux/amd64 stage-0 2/2] RUN …`."""
_COLUMNS = 100


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
@click.option(
    "--max-age",
    default=HOUR,
    type=click.IntRange(min=0),
    metavar="SECONDS",
    show_default=True,
    help="How long a plan is trusted.",
)
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
    max_age: int,
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
        for job in jobs if push else ():
            refuse_unpublishable(job.pair, job.version)
        if dry_run:
            _show(jobs, push, as_json)
            return Exit.DONE
        if not jobs:
            say("nothing to build")
        with _alone(place.root / DEFAULT):
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


def _show(jobs: Sequence[Job], push: bool, as_json: bool) -> None:
    """What would be done."""
    if as_json:
        members = [
            {
                "target": job.pair.key,
                "action": job.action,
                "reference": str(job.pair.tagged(job.version)),
                "base": str(job.base),
                "push": push,
            }
            for job in jobs
        ]
        click.echo(json.dumps({"schema": 1, "jobs": members}))
        return
    for job in jobs:
        what = f"would {job.action}{' and publish' if push and job.action == 'build' else ''}"
        click.echo(f"{what} {job.pair.tagged(job.version)}")
        if job.action == "build":
            click.echo(f"{'on':>{len(what)}} {job.base}")
    if not jobs:
        click.echo("nothing to build")


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
        _remove_halves(images)
        yield


def _remove_halves(images: Path) -> None:
    """Removes what builds that were killed left half done."""
    for half in images.glob(".*"):
        shutil.rmtree(half, ignore_errors=True)


def _single(catalogue: Catalogue, place: Place, client: Client, tool: str, base: str, version: str | None) -> Job:
    found = catalogue.tool(tool)
    if found is None:
        raise Usage(f"there is no tool '{tool}'", remedy=f"There are {', '.join(one.name for one in catalogue.tools)}.")
    try:
        pair = catalogue.pair(found, base)
        pair.tagged(version or "latest")
    except BadName as error:
        raise Usage(str(error)) from None
    if version is None:
        readings = Readings((), catalogue.settings.versions.timeout, environment(place.environ))
        (reading,) = readings.results([found])
        if reading.version is None:
            raise Failed(f"the version of {tool} is unknown: {reading.detail}", remedy="Name it with --version.")
        version = reading.version
    seen = look_at(client, [pair.base.reference])[pair.base.reference]
    if not isinstance(seen, Published):
        why = f"it is not there ({seen.code})" if isinstance(seen, Missing) else seen.detail
        raise Failed(f"the base {pair.base.reference} cannot be read: {why}")
    return Job(pair=pair, version=version, base=pair.base.reference.repository.at(seen.digest), action="build")


def _planned(catalogue: Catalogue, file: Path, max_age: int) -> list[Job]:
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
        try:
            jobs.append(_job(catalogue, one))
        except BadName as error:
            raise BadReport(
                f"not a plan: {one.target}: {error}", remedy="Make a new one: `imagewright plan`.", where=str(file)
            ) from None
    return jobs


def _job(catalogue: Catalogue, build: plans.Build) -> Job:
    tool = catalogue.tool(build.tool)
    if tool is None:
        raise BadName(f"there is no tool {shown(build.tool)}")
    pair = catalogue.pair(tool, build.base)
    pair.tagged(build.version)
    base = pair.base.reference.repository.at(parse_digest(build.base_digest))
    return Job(pair=pair, version=build.version, base=base, action=build.action)


def _carry_out(catalogue: Catalogue, place: Place, client: Client, jobs: Sequence[Job], push: bool) -> list[Receipt]:
    """Builds in parallel; what is ready is published meanwhile, one batch after another."""
    bases = look_at(client, {job.base for job in jobs if job.action == "build"})
    receipts: dict[str, Receipt] = {}
    with ExitStack() as stack:
        tools = {job.pair.tool for job in jobs if job.action == "build"}
        builders = stack.enter_context(engines(catalogue.settings, place, client, tools))
        worker = _Worker(catalogue.settings, place, builders)
        pool = stack.enter_context(_workers(place.root / DEFAULT / "images"))
        running: dict[Future[Work], Job] = {}
        for at, job in enumerate(jobs, 1):
            running[pool.submit(worker.work, job, bases.get(job.base), f"[{at}/{len(jobs)}] {job.pair.key}")] = job
        while running:
            wait(running, return_when=FIRST_COMPLETED)
            done, _ = wait(running, timeout=_GATHER)
            ready: list[Work] = []
            for future in [one for one in running if one in done]:
                job = running.pop(future)
                try:
                    ready.append(future.result())
                except ImagewrightError as error:
                    say(f"{job.pair.key}: failed: {error}")
                    work = Work(pair=job.pair, version=job.version, base=job.base)
                    receipts[job.pair.key] = Receipt(work=work, outcome="failed", problem=str(error))
            for receipt in publish(client, place.root, ready, place.environ) if push and ready else ():
                say(f"{receipt.work.pair.key}: {_told(receipt)}")
                receipts[receipt.work.pair.key] = receipt
            for work in ready if not push else ():
                say(f"{work.pair.key}: the image is in {_near(work.layouts[0], place)}")
                receipts[work.pair.key] = Receipt(work=work, outcome="built")
    confirmed = confirm(place.root, [receipts[job.pair.key] for job in jobs], place.environ)
    for one in confirmed:
        if one.outcome != "failed" and push:
            for path in one.work.layouts:
                shutil.rmtree(path, ignore_errors=True)
    return confirmed


@contextmanager
def _workers(images: Path) -> Iterator[ThreadPoolExecutor]:
    """Threads that build. Who interrupts does not wait until a silent registry's time is up, and finds no half layout."""
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="build")
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        process.end_all()
        _remove_halves(images)
        raise
    pool.shutdown()


def _told(receipt: Receipt) -> str:
    """One line about how it went, but for the target's name."""
    if receipt.problem:
        return f"failed: {receipt.problem}"
    return f"{receipt.outcome}, latest {receipt.latest}"


def _near(path: Path, place: Place) -> Path:
    """A path as short as it can be typed here."""
    return path.relative_to(place.root) if path.is_relative_to(place.root) else path


class _Worker:
    """Does jobs, several at once, with their lines on the terminal and their engines' output in a log each."""

    def __init__(self, settings: Settings, place: Place, builders: Sequence[Builder]) -> None:
        self._settings = settings
        self._place = place
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
                reason = f"{error.reason}\n  all of its output: {_near(log, self._place)}"
                raise Failed(reason, remedy=error.remedy, where=error.where) from None
        say(f"{title}: built in {time.monotonic() - began:.1f} s")
        return Work(pair=job.pair, version=job.version, base=job.base, layouts=(layout,))

    def _keep(self, lines: TextIO, title: str, line: str) -> None:
        lines.write(f"{line}\n")
        lines.flush()
        if line.startswith(NOTICE):
            say(f"{title}: {line}")
        elif _STEP.match(line):
            say(f"{title}: {' '.join(line.split())[:_COLUMNS]}")

    def _request(self, job: Job, platforms: tuple[Platform, ...]) -> tuple[Builder, BuildRequest]:
        tool = job.pair.tool
        request = BuildRequest(
            target=job.pair.key,
            context=tool.folder,
            dockerfile=tool.dockerfile,
            base=job.base,
            platforms=platforms,
            arguments={"BASE_IMAGE": str(job.base), "TOOL_VERSION": job.version},
            labels={},
            annotations={},
            epoch=self._source.epoch,
        )
        builder = choose(self._settings.builder, self._builders, request).builder
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
