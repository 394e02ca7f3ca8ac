"""A week of the schedule on a simulated clock: a tick each twenty minutes, some dropped, some doubled.

The forge is the stand-in, spoken to over HTTP by the real client; nothing is kept between ticks but its list of runs.
64 pairs, with `--proof` 400.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from imagewright import plan as plans
from imagewright.admit import Limits
from imagewright.dispatch import Desk, dispatch
from imagewright.forge.answers import Unreadable
from imagewright.forge.client import Forge
from imagewright.forge.place import Place
from imagewright.journal import held
from imagewright.plan import Build, Plan
from imagewright.settings import Limits as Patience
from imagewright.settings import Surroundings
from imagewright.testing.github import Fault, GitHub, Said

START = datetime(2026, 11, 2, tzinfo=UTC)
TICK = timedelta(minutes=20)
TICKS = 72 * 7
LIMITS = Limits(budget=20, per_hour=150, in_flight=20, settle=timedelta(minutes=5))
BUMP = 72
"""The tick at which all bases are rebuilt."""
OUTAGES = {"registry": range(150, 159), "forge": range(200, 209)}
"""Three hours each: no verdict is stale while the registry is away; no run can be read while the forge is."""
LONGEST = timedelta(minutes=35)
AT_MOST = [0, 0, 1, 2, 4, 8, 16, *[32] * 9]


@dataclass
class World:
    """What is published, what should be, and what is being built."""

    github: GitHub
    dice: random.Random
    tools: list[str]
    bases: list[str]
    now: datetime = START
    edition: int = 1
    version: dict[str, int] = field(default_factory=dict)
    published: dict[str, str] = field(default_factory=dict)
    ends: dict[int, datetime] = field(default_factory=dict)
    stale_since: dict[str, datetime] = field(default_factory=dict)
    waited: dict[str, timedelta] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.version = dict.fromkeys(self.tools, 1)
        pairs = [f"{tool}-{base}" for tool in self.tools for base in self.bases]
        self.broken = set(self.dice.sample(pairs, len(pairs) // 20))
        self.published = {one.target: one.key for one in self.wanted()}

    def wanted(self) -> list[Build]:
        """All pairs, as they should be now."""
        return [
            self.build(tool, base, f"1.{self.version[tool]}", f"sha256:{self.edition:064x}")
            for tool in self.tools
            for base in self.bases
        ]

    def build(self, tool: str, base: str, version: str, digest: str) -> Build:
        return Build(
            key=plans.key(f"{tool}-{base}", version, digest, ""),
            target=f"{tool}-{base}",
            tool=tool,
            base=base,
            version=version,
            base_digest=digest,
            reasons=(),
            action="build",
        )

    def stale(self) -> tuple[Build, ...]:
        return tuple(one for one in self.wanted() if self.published[one.target] != one.key)

    def until(self, moment: datetime) -> None:
        """Lets time pass: builds begin, take a while, and end."""
        for run in self.github.runs:
            if run["status"] == "queued":
                run["status"] = "in_progress"
                begun = datetime.fromisoformat(run["created_at"])
                self.ends[run["id"]] = begun + timedelta(minutes=self.dice.uniform(4, LONGEST.total_seconds() / 60))
        for number, end in sorted(self.ends.items(), key=lambda one: one[1]):
            if end <= moment:
                del self.ends[number]
                self.now = end
                _, target, _, key = self.github.runs[number - 1]["display_title"].split()
                self.github.ends(number, "failure" if target in self.broken else "success")
                if target not in self.broken and number > self.newest.get(target, 0):  # `latest` does not go backwards
                    self.newest[target] = number
                    self.published[target] = key.strip("[]")
                    if target in self.stale_since and target not in {one.target for one in self.stale()}:
                        self.waited[target] = end - self.stale_since.pop(target)
        self.now = moment

    def changes(self, tick: int) -> None:
        """A tool has a release now and then; once all bases are rebuilt."""
        if self.dice.random() < 0.05 and tick < TICKS - 72:
            self.version[self.dice.choice(self.tools)] += 1
        if tick == BUMP:
            self.edition = 2
        for one in self.stale():
            self.stale_since.setdefault(one.target, self.now)


def week(seed: int, side: int, folder: Path, fault: Callable[[], Fault | None]) -> tuple[World, dict[int, int]]:
    """Lives through it; the world afterwards, and at which tick how many builds were asked for."""
    dice = random.Random(seed)
    posts: dict[int, int] = {}
    with GitHub(terse=True) as github:
        world = World(github, dice, [f"tool{at}" for at in range(side)], [f"b{at}" for at in range(side)])
        github.clock = lambda: world.now
        place = Place(api=github.api, repository="own/images", kind="github", token="t")
        with Forge(place, Patience(), Surroundings()) as forge:
            for tick in range(TICKS):
                world.until(START + tick * TICK)
                world.changes(tick)
                before = len(github.posts())
                for turn in range(dice.choice([0, 1, 1, 1, 1, 1, 1, 1, 1, 2])):
                    trouble = fault()
                    github.fails(*([trouble] if trouble else []))
                    if tick in OUTAGES["forge"]:
                        github.fails(Fault(method="GET", said=Said(status=200, body=b"<html>We are back soon</html>")))
                    builds = () if tick in OUTAGES["registry"] else world.stale()
                    _tick(world, forge, builds, folder / f"{tick}-{turn}")
                posts[tick] = len(github.posts()) - before
    return world, posts


def _tick(world: World, forge: Forge, builds: tuple[Build, ...], folder: Path) -> None:
    """One scheduled run: on a machine of its own, which remembers nothing."""
    made = Plan(
        report="",
        catalogue="",
        nonce="",
        created="",
        force=False,
        selection="all",
        builds=builds,
        deferrals=(),
        refusals=(),
    )
    if not builds:
        return
    with held(folder / "journal.jsonl") as journal:
        desk = Desk(
            forge=forge,
            journal=journal,
            limits=LIMITS,
            workflow="build.yml",
            ref="main",
            digest=str(folder),
            clock=lambda: world.now,
            tell=lambda _: None,
        )
        try:
            dispatch(made, desk)
        except Unreadable:
            assert world.github.log[-1].method == "GET"


def refuse_twice_at_once(github: GitHub) -> None:
    """No key is built while it is being built already."""
    times: dict[str, list[tuple[str, str]]] = {}
    for run in github.runs:
        times.setdefault(run["display_title"], []).append((run["created_at"], run["updated_at"]))
    for title, spans in times.items():
        for (_, ended), (begun, _) in pairwise(spans):
            assert begun >= ended, title


def refuse_impatience(world: World, github: GitHub) -> None:
    """What keeps failing is asked for no more often than its backoff allows."""
    asked: dict[str, list[dict[str, Any]]] = {}
    for run in github.runs:
        asked.setdefault(run["display_title"], []).append(run)
    for title, runs in asked.items():
        assert len(runs) <= 12, title
        for number, (one, after) in enumerate(pairwise(runs)):
            pause = datetime.fromisoformat(after["created_at"]) - datetime.fromisoformat(one["updated_at"])
            assert pause >= timedelta(hours=AT_MOST[number]) - timedelta(seconds=1), (title, number, pause)


@pytest.fixture
def side(request: pytest.FixtureRequest) -> int:
    """How many tools and how many bases there are."""
    return 20 if request.config.getoption("--proof") else 8


def test_a_week_builds_everything_once_and_nothing_in_vain_for_long(side: int, tmp_path: Path) -> None:
    world, posts = week(0, side, tmp_path, lambda: None)
    refuse_twice_at_once(world.github)
    refuse_impatience(world, world.github)
    assert {one.target for one in world.stale()} <= world.broken
    assert sum(posts[tick] for outage in OUTAGES.values() for tick in outage) == 0
    assert max(posts.values()) <= 2 * LIMITS.budget  # where a tick is doubled
    # So many at once, and a tick may be dropped: whatever went stale was built within that, or within the outages more.
    rounds = side * side / LIMITS.in_flight
    assert max(world.waited.values()) <= rounds * (LONGEST + 2 * TICK) + timedelta(hours=4)
    runs, requests = len(world.github.runs), len(world.github.log)
    print(f"\n{side * side} pairs: {runs} builds, {requests} requests, the longest wait {max(world.waited.values())}")


def test_no_build_is_made_twice_where_every_answer_is_a_500_after_the_run_was_made(side: int, tmp_path: Path) -> None:
    world, posts = week(7, side, tmp_path, lambda: Fault(method="POST", said=Said(status=500), after=True))
    refuse_twice_at_once(world.github)
    refuse_impatience(world, world.github)
    assert max(posts.values()) <= 2  # the first doubt ends a run of the schedule
    well = [run["display_title"] for run in world.github.runs if run["conclusion"] == "success"]
    assert len(well) > side * side / 2
    assert len(well) == len(set(well))
