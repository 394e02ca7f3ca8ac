"""What of a plan may be asked of the forge now. Pure: from the plan, the forge's runs, the journal, the limits and the time.

The forge's list of runs is the memory: what is in flight, how often a key was tried and when that ended. The journal
settles only what the list cannot show yet.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, TypeVar

from imagewright.forge.runs import Run
from imagewright.journal import Entry
from imagewright.plan import Build

BACKOFF_HOURS = (0, 0, 1, 2, 4, 8, 16, 32)
"""To wait after the first attempt, the second, …; after the last one for ever. As docker-library does."""

Because = Literal["in-flight", "settling", "backoff", "budget"]
MEMORY = timedelta(days=10)
"""How far back the runs are read: no backoff reaches beyond it."""


_Keyed = TypeVar("_Keyed", Run, Entry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """budget: of this run. per_hour, in_flight: of the forge. settle: after a build ended, until the same may be asked."""

    budget: int
    per_hour: int
    in_flight: int
    settle: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Deferred:
    """A build that is not asked for now. until: when it may be, None where that is not a matter of time."""

    build: Build
    because: Because
    until: datetime | None = None
    attempts: int = 0
    run: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """What may be asked for, in order, and what not."""

    asks: tuple[Build, ...]
    deferred: tuple[Deferred, ...]


def admit(
    builds: Sequence[Build],
    runs: Iterable[Run],
    asked: Iterable[Entry],
    limits: Limits,
    now: datetime,
    *,
    plan: str,
    force: bool = False,
) -> Admission:
    """Decides about each build of a plan, once.

    runs: of the last `MEMORY`. asked: the journal. plan: the plan's digest, what it has asked for is never asked for again.
    force: skips what a build waits for after it ended, never what is under way.
    """
    runs, asked = tuple(runs), tuple(asked)
    known, noted = _by_key(runs), _by_key(asked)
    waits: list[Deferred] = []
    ready: list[tuple[int, Build]] = []
    for build in {one.key: one for one in builds}.values():
        by_hand = [one for one in known.get("", ()) if build.target in one.title.split()]
        found, entries = [*known.get(build.key, ()), *by_hand], noted.get(build.key, ())
        if held := _held(build, found, entries, limits, now, plan=plan, force=force):
            waits.append(held)
        else:
            ready.append((sum(one.attempts for one in found), build))
    room = _room(runs, limits, now)
    # What failed twice may go on failing: it does not take the place of what has not been tried.
    ready.sort(key=lambda one: one[0] > 1)
    asks = tuple(build for _, build in ready[:room])
    waits += [
        Deferred(build=build, because="budget", until=_hour_is_over(runs, limits, now), attempts=attempts)
        for attempts, build in ready[room:]
    ]
    return Admission(asks=asks, deferred=tuple(waits))


def _by_key(ones: Iterable[_Keyed]) -> dict[str, list[_Keyed]]:
    found: dict[str, list[_Keyed]] = {}
    for one in ones:
        found.setdefault(one.key, []).append(one)
    return found


def _held(
    build: Build,
    runs: Sequence[Run],
    entries: Sequence[Entry],
    limits: Limits,
    now: datetime,
    *,
    plan: str,
    force: bool,
) -> Deferred | None:
    attempts = sum(one.attempts for one in runs)
    if flying := next((one for one in runs if one.in_flight), None):
        return Deferred(build=build, because="in-flight", attempts=attempts, run=flying.url)
    for entry in entries:
        is_over = entry.outcome == "rejected" or any(
            one.id == entry.run or (one.key == build.key and one.created and one.created >= entry.at - _CLOCKS)
            for one in runs
        )
        if entry.outcome != "rejected" and entry.plan == plan:
            return Deferred(build=build, because="settling", attempts=attempts)
        if not is_over and now < entry.at + limits.settle:
            return Deferred(build=build, because="settling", until=entry.at + limits.settle, attempts=attempts)
    ended = [one.ended for one in runs if one.ended and one.attempts]
    if force or not ended:
        return None
    settled = max(ended) + limits.settle
    again = max(ended) + timedelta(hours=BACKOFF_HOURS[min(attempts, len(BACKOFF_HOURS)) - 1])
    if now < again and again > settled:
        return Deferred(build=build, because="backoff", until=again, attempts=attempts)
    if now < settled:
        return Deferred(build=build, because="settling", until=settled, attempts=attempts)
    return None


_CLOCKS = timedelta(minutes=2)
"""By which the forge's clock and ours may differ."""


def _room(runs: Sequence[Run], limits: Limits, now: datetime) -> int:
    flying = sum(one.in_flight for one in runs)
    return max(min(limits.budget, limits.in_flight - flying, limits.per_hour - len(_this_hour(runs, now))), 0)


def _this_hour(runs: Sequence[Run], now: datetime) -> list[datetime]:
    """When the runs of the last hour were made; one that does not say so and is under way is one of them."""
    made = [one.created or now for one in runs if one.created or one.in_flight]
    return sorted(one for one in made if one > now - timedelta(hours=1))


def _hour_is_over(runs: Sequence[Run], limits: Limits, now: datetime) -> datetime | None:
    """When the oldest run of the hour is no more of it, if that is what there is no room for."""
    made = _this_hour(runs, now)
    return made[0] + timedelta(hours=1) if len(made) >= limits.per_hour else None
