"""Asks the forge for the builds of a plan: each noted before it is asked for, each asked for once, the first doubt ends it."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from imagewright.admit import MEMORY, Admission, Deferred, Limits, admit
from imagewright.forge.answers import Unreadable
from imagewright.forge.client import Forge
from imagewright.forge.runs import Outcome, Run, inputs_of
from imagewright.journal import Entry, Journal
from imagewright.plan import Build, Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A build that was asked for. run: what is known of it by now, None where it is not in the forge's list yet.

    before: the runs that were in the list when it was asked for: none of them is its.
    """

    build: Build
    outcome: Outcome
    run: Run | None = None
    before: frozenset[int] = frozenset()

    @property
    def number(self) -> int | None:
        """The number of its run, None while nobody has told."""
        return self.outcome.run or (self.run.id if self.run else None)

    @property
    def url(self) -> str:
        """The page of its run, empty while nobody has told."""
        return self.outcome.url or (self.run.url if self.run else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatched:
    """What became of a plan: asked for, put off, and not asked for because an answer before was no plain yes."""

    asked: tuple[Asked, ...] = ()
    deferred: tuple[Deferred, ...] = ()
    stopped: tuple[Build, ...] = ()

    @property
    def doubtful(self) -> bool:
        """Whether a request was rejected, or may have been accepted."""
        return any(one.outcome.outcome != "accepted" for one in self.asked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """What asking for builds needs. digest: of the plan. clock: now, in UTC. tell: shown to who watches."""

    forge: Forge
    journal: Journal
    limits: Limits
    workflow: str
    ref: str
    digest: str
    clock: Callable[[], datetime]
    tell: Callable[[str], object]

    def runs(self) -> tuple[Run, ...]:
        """The forge's runs, as far back as they count."""
        return self.forge.runs(self.workflow, self.clock() - MEMORY)


def preview(plan: Plan, desk: Desk) -> Dispatched:
    """What `dispatch` would ask for now, each as if it were accepted. Only reads."""
    admission = _admitted(plan.builds, plan, desk, desk.runs())
    asked = tuple(Asked(build=one, outcome=Outcome(outcome="accepted")) for one in admission.asks)
    return Dispatched(asked=asked, deferred=admission.deferred)


def dispatch(plan: Plan, desk: Desk) -> Dispatched:
    """Asks for what may be asked for now. `Unreadable` where the runs cannot be read: then nothing is asked for."""
    return _ask(plan.builds, plan, desk, desk.runs())


def _admitted(builds: Sequence[Build], plan: Plan, desk: Desk, runs: Iterable[Run]) -> Admission:
    return admit(
        builds,
        runs,
        desk.journal.entries(),
        desk.limits,
        desk.clock(),
        plan=desk.digest,
        force=plan.force,
    )


def _ask(builds: Sequence[Build], plan: Plan, desk: Desk, runs: Iterable[Run]) -> Dispatched:
    runs = tuple(runs)
    admission = _admitted(builds, plan, desk, runs)
    before = frozenset(one.id for one in runs)
    asked: list[Asked] = []
    for build in admission.asks:
        entry = Entry(key=build.key, target=build.target, plan=desk.digest, at=desk.clock(), outcome="asking")
        desk.journal.asking(entry)
        outcome = desk.forge.ask(desk.workflow, desk.ref, inputs_of(build, force=plan.force))
        desk.journal.became(entry, outcome)
        asked.append(Asked(build=build, outcome=outcome, before=before))
        if outcome.outcome != "accepted":
            break
    return Dispatched(asked=tuple(asked), deferred=admission.deferred, stopped=admission.asks[len(asked) :])


def watch(plan: Plan, desk: Desk, *, seconds: float, pause: float) -> Dispatched:
    """Asks, follows the runs to their end, and asks for what was put off for lack of room as others end.

    It ends when everything has an end, when nothing more can come of waiting, or after so many seconds.
    """
    until = time.monotonic() + seconds
    made = dispatch(plan, desk)
    while not made.doubtful:
        waits = [one for one in made.deferred if one.because in ("budget", "in-flight")]
        flying = [one for one in made.asked if one.run is None or one.run.in_flight]
        if not (waits or flying) or time.monotonic() + pause > until:
            break
        desk.tell(f"{len(made.asked) - len(flying)} of {len(made.asked) + len(waits)} have ended")
        time.sleep(pause)
        try:
            runs = desk.runs()
        except Unreadable as error:  # what was asked for is known all the same; the next look may be answered
            desk.tell(error.reason)
            continue
        asked = tuple(_seen(one, runs) for one in made.asked)
        more = _ask([one.build for one in waits], plan, desk, runs) if waits else Dispatched()
        others = tuple(one for one in made.deferred if one not in waits)
        made = Dispatched(asked=(*asked, *more.asked), deferred=(*others, *more.deferred), stopped=more.stopped)
    return made


def _seen(one: Asked, runs: Iterable[Run]) -> Asked:
    """With what the forge's list says of its run now: by its number, or where that was not told by the key."""
    if one.outcome.run:
        found = (run for run in runs if run.id == one.outcome.run)
    else:
        found = (run for run in runs if run.key == one.build.key and run.id not in one.before)
    return replace(one, run=next(found, one.run))
