"""The part that takes less than a minute: exact request counts, and ratios of what was measured in one run."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from benchmarks import overhead, recipe
from benchmarks.measure import Measured, Took, Way, in_turns, tell
from benchmarks.peers import CRANE, ORAS, REGCTL, Peer, empty, peers, prepare
from benchmarks.registry import Away
from benchmarks.site import Programs, Site
from benchmarks.world import World, make_apart

FEW, MORE = World(tools=7, bases=8), World(tools=25, bases=8)
OTHER_PLATFORMS = (World(tools=2, bases=2, platforms=1), World(tools=3, bases=2, platforms=3))
AWAY = 0.03
TOLERANCE = 2.0
"""How many times its reference a ratio may be."""

CANARIES = 2
"""Tags that cannot exist, asked for in the repository of the images: before everything else and after it."""
NEIGHBOURS = 1
"""What was there a moment ago, asked for once more by its digest, after everything else."""
LISTS = 1
"""Pages of tags; the registry's pages hold a thousand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What a run asked. documents: manifests and configurations, less the neighbour. also: whatever else, by kind."""

    run: str
    documents: int
    expected: int
    also: Mapping[str, int]

    @property
    def exact(self) -> bool:
        """Whether that is what it must be."""
        return self.documents == self.expected and self.also == {"list": LISTS, "canary": CANARIES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One thing in terms of another that was measured in the same run."""

    name: str
    value: float
    reference: float | None = None

    @property
    def within(self) -> bool:
        """Whether it is at most so many times its reference."""
        return self.reference is None or self.value <= TOLERANCE * self.reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """measured: world → way → rounds. others: what → seconds, for recipes and builds."""

    counts: list[Count]
    ratios: list[Ratio]
    measured: dict[str, dict[str, Measured]]
    others: dict[str, float]
    not_measured: list[str]


def count(run: str, took: Took, expected: int) -> Count:
    """What a run asked, beside what it must ask."""
    kinds = {"tag": 0, "digest": 0, "config": 0, **took.asked}
    documents = sum(kinds.pop(kind) for kind in ("tag", "digest", "config")) - NEIGHBOURS
    return Count(run=run, documents=documents, expected=expected, also=kinds)


def counted(run: str, measured: Measured, expected: int) -> Count:
    """The same of several rounds: the first that is not exact, if there is one."""
    each = [count(run, one, expected) for one in measured.rounds]
    return next((one for one in each if not one.exact), each[0])


@contextmanager
def opened(folder: Path, world: World, round_trip: float, programs: Programs) -> Iterator[Site]:
    """A new world with its registry running."""
    make_apart(folder, world)
    with Away(folder / "registry", round_trip) as away:
        site = Site(
            folder=folder, world=world, away=away, address=away.address, round_trip=round_trip, programs=programs
        )
        site.settle()
        yield site


def installed(all_of_them: Sequence[Peer], programs: Programs) -> tuple[set[str], list[str]]:
    """The names of those that can be run, and a line about each program that is not there."""
    there = {one.name for one in all_of_them if programs.has(one.needs)}
    lacking = dict.fromkeys(one.needs for one in all_of_them if one.name not in there)
    return there, [f"{name}; run scripts/setup-engines as root" for name in lacking]


def measure(folder: Path, programs: Programs, *, rounds: int, thorough: bool, builds: bool) -> Part:
    """thorough: enough files and rounds for figures worth writing down. builds: whether BuildKit may be measured."""
    with ExitStack() as stack:
        few = stack.enter_context(opened(folder / "few", FEW, AWAY, programs))
        more = stack.enter_context(opened(folder / "more", MORE, AWAY, programs))
        others = [
            stack.enter_context(opened(folder / f"other-{world.platforms}", world, 0, programs))
            for world in OTHER_PLATFORMS
        ]
        there, not_measured = installed(peers(few), programs)
        prepare(few, folder / "few-peers")
        prepare(more, folder / "more-peers")
        nothing = empty(folder / "empty", FEW.pairs)
        of_few = ways_of(few, there & {REGCTL, ORAS}, folder / "few-peers")
        of_more = ways_of(more, there & {CRANE}, folder / "more-peers")
        of_few[nothing.name] = partial(few.run, nothing.argv, folder / "empty")
        measured = {
            site.name: in_turns(
                site.name,
                {"cold": site.cold, "warm": site.warm, **ways},
                rounds,
                once=() if thorough else (REGCTL, ORAS, CRANE),
                optional=(REGCTL, CRANE),
            )
            for site, ways in ((few, of_few), (more, of_more))
        }
        counts = [*_counts(few, more, measured), *_counts_of_others(others)]
        for site, ways in ((few, of_few), (more, of_more)):
            not_measured += [f"{name}; it failed" for name in ways if name not in measured[site.name]]
    others_took = dict(_others(thorough=thorough, builds=builds))
    if not builds:
        not_measured.append("what a build costs on top of BuildKit; run scripts/setup-engines as root")
    return Part(
        counts=counts,
        ratios=[*_ratios(measured[few.name], measured[more.name], nothing.name), *_other_ratios(others_took)],
        measured=measured,
        others=others_took,
        not_measured=not_measured,
    )


def verdict(part: Part) -> tuple[str, bool]:
    """The last line, and whether all is well."""
    wrong = [one for one in part.counts if not one.exact]
    beyond = [one for one in part.ratios if not one.within]
    if wrong or beyond:
        each = [f"{one.run}: {one.documents} instead of {one.expected}, {dict(one.also)}" for one in wrong]
        each += [f"{one.name}: {one.value:.2f} instead of {one.reference:.2f}" for one in beyond]
        return f"bench: {len(wrong)} counts wrong, {len(beyond)} ratios beyond: {'; '.join(each)}", False
    compared = sum(one.reference is not None for one in part.ratios)
    return f"bench: {len(part.counts)} counts exact, {compared} ratios within twice their reference", True


def ways_of(site: Site, chosen: Iterable[str], folder: Path) -> dict[str, Way]:
    """Name → way of these peers on a site."""
    return {one.name: partial(site.run, one.argv, folder) for one in peers(site) if one.name in chosen}


def _of(measured: Mapping[str, Measured], one: str, other: str) -> float:
    return measured[one].seconds / measured[other].seconds


def _counts(few: Site, more: Site, measured: Mapping[str, Mapping[str, Measured]]) -> Iterator[Count]:
    for site in (few, more):
        yield counted(f"{site.name}, cold", measured[site.name]["cold"], site.world.cold)
        yield counted(f"{site.name}, warm", measured[site.name]["warm"], site.world.warm)
    yield count(f"{few.name}, `--fresh`", few.warm("--fresh"), few.world.cold)
    yield count(f"{few.name}, cold, `-n 4`", few.cold("-n", "4"), few.world.cold)
    one = World(tools=1, bases=1, platforms=few.world.platforms)
    chosen = ("--tool", few.world.tool(1), "--base", few.world.base(1))
    yield count(f"{few.name}, one pair, cold", few.cold(*chosen), one.cold)
    yield count(f"{few.name}, one pair, warm", few.warm(*chosen), one.warm)


def _counts_of_others(sites: list[Site]) -> Iterator[Count]:
    for site in sites:
        yield count(f"{site.name}, cold", site.cold(), site.world.cold)
        yield count(f"{site.name}, warm", site.warm(), site.world.warm)
    last = sites[-1]
    yield count(f"{last.name}, warm, `-n 2`", last.warm("-n", "2"), last.world.warm)


def _ratios(few: Mapping[str, Measured], more: Mapping[str, Measured], nothing: str) -> Iterator[Ratio]:
    yield Ratio(name=f"{FEW.pairs} pairs, cold ÷ {ORAS}", value=_of(few, "cold", ORAS))
    yield Ratio(name=f"{FEW.pairs} pairs, warm ÷ {nothing}", value=_of(few, "warm", nothing))
    yield Ratio(name=f"{MORE.pairs} pairs, warm ÷ cold", value=_of(more, "warm", "cold"))
    if CRANE in more:
        yield Ratio(name=f"{MORE.pairs} pairs, cold ÷ {CRANE}", value=_of(more, "cold", CRANE))
    if REGCTL in few:
        yield Ratio(name=f"{FEW.pairs} pairs, cold ÷ {REGCTL}", value=_of(few, "cold", REGCTL))


def _others(*, thorough: bool, builds: bool) -> Iterator[tuple[str, float]]:
    """What else takes time, and how many seconds: the recipe of a large folder, and builds."""
    # In a process of its own: what is measured afterwards would have this one's peak memory at least.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        tell("the recipe of a large folder")
        folders = recipe.FOLDERS if thorough else recipe.FOLDERS // 10
        for files, seconds in pool.submit(recipe.measure, folders).result().items():
            yield f"recipe, {files}", seconds
        if builds:
            tell("builds")
            rounds = overhead.ROUNDS if thorough else 2
            for state, ways in pool.submit(overhead.measure, rounds).result().items():
                for way, seconds in ways.items():
                    yield f"build, {state}: {way}", seconds


def _other_ratios(took: Mapping[str, float]) -> Iterator[Ratio]:
    yield Ratio(name="recipe, known ÷ unknown", value=took["recipe, known"] / took["recipe, unknown"])
    for state in ("cold", "cached"):
        for way in ("builder", "imagewright build"):
            name = f"build, {state}: {way}"
            if name in took:
                yield Ratio(name=f"{name} ÷ buildctl", value=took[name] / took[f"build, {state}: buildctl"])
