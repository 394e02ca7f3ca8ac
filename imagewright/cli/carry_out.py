"""Carrying out builds: several at once, a base before what waits for it, what is ready published meanwhile."""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TextIO

from imagewright import process
from imagewright.builders import NOTICE, Builder, BuildRequest, choose
from imagewright.catalogue import Catalogue, Pair
from imagewright.cli import Place
from imagewright.cli.engines import engines
from imagewright.cli.jobs import Job, Jobs, Later
from imagewright.cli.progress import Progress, is_live
from imagewright.cli.source import source_of
from imagewright.cli.structure import try_structure
from imagewright.cli.trial import try_out
from imagewright.digests import FileDigests
from imagewright.errors import Failed, ImagewrightError
from imagewright.names import Platform, Reference
from imagewright.publish import Receipt, Work, confirm, publish, refuse_unfit
from imagewright.recipe import labels, recipe
from imagewright.registry.client import Client
from imagewright.settings import Cache, Settings
from imagewright.snapshot import Observation, Published
from imagewright.state import DEFAULT, DIGESTS
from imagewright.survey import look_at

_GATHER = 1.0
"""Seconds after a build's end in which others may end too: the checks then run once for all of them."""
_STEP = re.compile(r"(\[[^\]]*\b\d+/\d+\]|STEP \d+/\d+:|\[\S+ \d+/\d+\]) (FROM|RUN|COPY|ADD) ")
"""The line with which an engine begins a step of a Dockerfile: `[linux/amd64 stage-0 2/2] RUN …`, `STEP 2/2: RUN …`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How builds are wanted. push: publish them. no_cache: run every step."""

    push: bool
    no_cache: bool


def carry_out(catalogue: Catalogue, place: Place, client: Client, jobs: Jobs, wish: Wish) -> list[Receipt]:
    """Builds, and publishes if that is wished, all that can be; a receipt for each job, and for each that followed.

    What fails does not stop the others, but what waits for it.
    """
    progress = Progress(live=is_live(place.environ))
    with ExitStack() as stack:
        targets = [job.target for job in jobs.now] + [job.target for job in jobs.later]
        sources = {target.source for target in targets}
        builders = stack.enter_context(engines(catalogue.settings, place, client, sources))
        digests = FileDigests(place.root / DEFAULT / DIGESTS, now=time.time_ns())
        worker = _Worker(
            settings=catalogue.settings,
            place=place,
            builders=builders,
            digests=digests,
            wish=wish,
            progress=progress,
        )
        pool = stack.enter_context(_workers(catalogue.settings.build.parallel, place.root / DEFAULT / "images"))
        floor = _Floor(pool=pool, worker=worker, client=client, place=place, jobs=jobs, wish=wish, progress=progress)
        receipts = floor.run()
        digests.save()
    confirmed = confirm(place.root, receipts, place.environ)
    for one in confirmed:
        if one.outcome != "failed" and wish.push:
            for path in one.work.layouts:
                shutil.rmtree(path, ignore_errors=True)
    return confirmed


class _Floor:
    """Who works on what: jobs under way, what is done, and what still waits."""

    def __init__(
        self,
        *,
        pool: ThreadPoolExecutor,
        worker: "_Worker",
        client: Client,
        place: Place,
        jobs: Jobs,
        wish: Wish,
        progress: Progress,
    ) -> None:
        self._pool = pool
        self._worker = worker
        self._client = client
        self._place = place
        self._wish = wish
        self._progress = progress
        self._jobs = jobs.now
        self._later = list(jobs.later)
        self._total = len(jobs.now) + (len(jobs.later) if wish.push else 0)
        self._started = 0
        self._running: dict[Future[Work], Job] = {}
        self._receipts: dict[str, Receipt] = {}

    def run(self) -> list[Receipt]:
        """All jobs, to their ends; the receipts in the order in which they began."""
        self._start(self._jobs)
        while self._running:
            wait(self._running, return_when=FIRST_COMPLETED)
            done, _ = wait(self._running, timeout=_GATHER)
            self._finish(
                [work for future in [one for one in self._running if one in done] if (work := self._take(future))]
            )
        for one in self._later:
            why = "is not published by a build without --push" if not self._wish.push else "was not built"
            self._progress.say(f"{one.target.key}: put off: its base {one.waits_for} {why}")
        return list(self._receipts.values())

    def _start(self, jobs: Sequence[Job]) -> None:
        bases = look_at(self._client, {job.base for job in jobs if job.action == "build" and job.base})
        for job in jobs:
            self._started += 1
            title = f"[{self._started}/{self._total}] {job.target.key}"
            base = bases.get(job.base) if job.base else None
            self._running[self._pool.submit(self._worker.work, job, base, title)] = job
            self._receipts[job.target.key] = Receipt(work=_work(job), outcome="failed", problem="it was not begun")

    def _take(self, future: Future[Work]) -> Work | None:
        """What a job has made; None where it failed, which is told and kept."""
        job = self._running.pop(future)
        try:
            return future.result()
        except ImagewrightError as error:
            self._keep(Receipt(work=_work(job), outcome="failed", problem=str(error)))
            return None

    def _finish(self, ready: Sequence[Work]) -> None:
        if not self._wish.push:
            for work in ready:
                self._keep(Receipt(work=work, outcome="built"))
            return
        for receipt in publish(self._client, self._place.root, ready, self._place.environ) if ready else ():
            self._keep(receipt)
            if receipt.outcome != "failed" and receipt.digest:
                self._start([one.on(_base_of(one, receipt)) for one in self._released(receipt)])

    def _released(self, receipt: Receipt) -> list[Later]:
        """What has waited for this target, and waits no longer."""
        released = [one for one in self._later if one.waits_for == receipt.work.target.key]
        self._later = [one for one in self._later if one not in released]
        return released

    def _keep(self, receipt: Receipt) -> None:
        self._receipts[receipt.work.target.key] = receipt
        self._progress.say(f"{receipt.work.target.key}: {self._told(receipt)}")

    def _told(self, receipt: Receipt) -> str:
        """One line about how it went, but for the target's name."""
        if receipt.problem:
            return f"failed: {receipt.problem.removeprefix(f'{receipt.work.target.key}: ')}"
        if receipt.outcome == "built":
            return f"the image is in {near(receipt.work.layouts[0], self._place)}"
        return f"{receipt.outcome}, latest {receipt.latest}"


def _base_of(later: Later, receipt: Receipt) -> Reference:
    assert later.target.base, "who waits has a base"
    assert receipt.digest, "and it is published"
    return later.target.base.reference.repository.at(receipt.digest)


def _work(job: Job) -> Work:
    return Work(target=job.target, version=job.version, base=job.base)


@contextmanager
def _workers(at_once: int, images: Path) -> Iterator[ThreadPoolExecutor]:
    """Threads that build. Who interrupts does not wait until a silent registry's time is up, and finds no half layout."""
    pool = ThreadPoolExecutor(at_once, thread_name_prefix="build")
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        process.end_all()
        remove_halves(images)
        raise
    pool.shutdown()


def remove_halves(images: Path) -> None:
    """Removes what builds that were killed left half done."""
    for half in images.glob(".*"):
        shutil.rmtree(half, ignore_errors=True)


def near(path: Path, place: Place) -> Path:
    """A path as short as it can be typed here."""
    return path.relative_to(place.root) if path.is_relative_to(place.root) else path


class _Worker:
    """Does jobs, several at once, with a line each on the terminal and their engines' output in a log each."""

    def __init__(
        self,
        *,
        settings: Settings,
        place: Place,
        builders: Sequence[Builder],
        digests: FileDigests,
        wish: Wish,
        progress: Progress,
    ) -> None:
        self._settings = settings
        self._place = place
        self._folder = place.root / DEFAULT
        self._builders = builders
        self._digests = digests
        self._wish = wish
        self._progress = progress
        self._source = source_of(place)
        self._told: set[str] = set()

    def work(self, job: Job, base: Observation | None, title: str) -> Work:
        """What there is to publish of a job; `Failed` where it could not be built, or does not work."""
        if job.action == "retag":
            return _work(job)
        builder, request = self._request(job, job.required(base))
        layout = self._folder / "images" / job.target.key
        log = self._folder / "logs" / f"{job.target.key}.log"
        shutil.rmtree(layout, ignore_errors=True)
        for folder in (layout.parent, log.parent):
            folder.mkdir(parents=True, exist_ok=True)
        work = replace(_work(job), layouts=(layout,))
        self._progress.say(f"{title}: {builder.name} builds {job.version} for {', '.join(map(str, request.platforms))}")
        began = time.monotonic()
        with log.open("w", encoding="utf-8") as lines:
            try:
                builder.build(request, layout, lambda line: self._keep(lines, title, line))
                refuse_unfit(work, base if isinstance(base, Published) else None, request.platforms)
                self._try(builder, work, request.platforms, partial(self._tell, lines, title))
            except Failed as error:
                shutil.rmtree(layout, ignore_errors=True)
                raise type(error)(
                    f"{error.reason}\n  all of its output: {near(log, self._place)}",
                    remedy=error.remedy,
                    where=error.where,
                ) from None
            finally:
                self._progress.end(title)
        self._progress.say(f"{title}: built in {time.monotonic() - began:.1f} s")
        return work

    def _try(self, builder: Builder, work: Work, platforms: tuple[Platform, ...], say: Callable[[str], None]) -> None:
        (layout,) = work.layouts
        try_out(work.target, work.version, builder=builder, layout=layout, platforms=platforms, say=say)
        try_structure(work.target, layout, platforms, self._place.environ, say)

    def _keep(self, lines: TextIO, title: str, line: str) -> None:
        lines.write(f"{line}\n")
        lines.flush()
        if line.startswith(NOTICE):
            self._progress.say(f"{title}: {line}")
        elif _STEP.match(line):
            self._progress.step(title, " ".join(line.split()))

    def _tell(self, lines: TextIO, title: str, line: str) -> None:
        lines.write(f"{line}\n")
        self._progress.say(f"{title}: {line}")

    def _say_once(self, line: str) -> None:
        if line not in self._told:
            self._told.add(line)
            self._progress.say(line)

    def _request(self, job: Job, platforms: tuple[Platform, ...]) -> tuple[Builder, BuildRequest]:
        source, build = job.target.source, self._settings.build
        base = {"BASE_IMAGE": str(job.base)} if job.base else {}
        request = BuildRequest(
            target=job.target.key,
            context=source.folder,
            dockerfile=source.dockerfile,
            base=job.base,
            stands_for="" if isinstance(job.target, Pair) else job.target.image.stands_for,
            platforms=platforms,
            arguments={**base, "TOOL_VERSION": job.version},
            labels={},
            annotations={},
            epoch=self._source.epoch,
            cache=_for(job.target.key, build.cache),
            no_cache=self._wish.no_cache,
            sbom=build.sbom,
            provenance=build.provenance,
        )
        choice = choose(self._settings.builder, self._builders, request)
        for reason in choice.passed_over:
            self._say_once(f"not {reason}")
        builder = choice.builder
        if request.cache and request.cache.kind not in builder.can.caches:
            self._say_once(f"{builder.name} cannot use a build cache of type {request.cache.kind}: built without")
            request = replace(request, cache=None)
        said = labels(
            job.target,
            base_digest=job.base.digest if job.base else None,
            version=job.version,
            recipe=recipe(source, builder.family, digests=self._digests),
            prefix=self._settings.label_prefix,
            created=self._source.epoch,
            source=self._source.url,
            revision=self._source.revision,
        )
        return builder, replace(request, labels=said, annotations=said)


def _for(target: str, cache: Cache | None) -> Cache | None:
    """The cache of one target: its name takes the place of `{target}`."""
    if cache is None:
        return None
    named = {name: value.replace("{target}", target) for name, value in cache.attributes.items()}
    return Cache(kind=cache.kind, attributes=named)
