"""The part that takes half an hour: what imagewright may take at most, what the peers take, how it grows."""

import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import takewhile
from pathlib import Path

from benchmarks.measure import Measured, Way, in_turns, tell
from benchmarks.peers import IN_LINE, REGCTL, empty, peers, prepare
from benchmarks.site import Programs, Site
from benchmarks.small import AWAY, FEW, Count, counted, installed, opened, ways_of
from benchmarks.world import ROOT, World

HUNDREDS, THOUSAND, TEN_THOUSAND = World(tools=50, bases=8), World(tools=40, bases=25), World(tools=100, bases=100)
PROFILE = "where the time went"
"""What the first line of the profile contains that the checks print under `-v`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A row of the table: what, its bound, what was measured. met: None where there is no bound, or nothing measured."""

    world: str
    what: str
    bound: str
    measured: str
    met: bool | None
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """A peer's row. times: how many times as long as imagewright's run that remembers nothing."""

    name: str
    asks: str
    seconds: float
    cpu: float
    requests: int
    times: float
    rounds: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """Seconds and MiB of one run of some size."""

    pairs: int
    what: str
    seconds: float
    mebibytes: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """measured: world → way → rounds. profile: run → its lines about where its time went. forge: what a tick there took."""

    lines: list[Line]
    rivals: list[Rival]
    growth: list[Growth]
    counts: list[Count]
    profile: dict[str, list[str]]
    forge: list[str]
    measured: dict[str, dict[str, Measured]]
    not_measured: list[str]


def measure(folder: Path, programs: Programs, *, rounds: int, few: Measured, builds: bool) -> Part:
    """few: 56 pairs, warm, as the small part measured them. builds: whether a forge may be measured."""
    with opened(folder / "hundreds", HUNDREDS, AWAY, programs) as hundreds:
        against, not_measured = _against_peers(hundreds, folder / "hundreds-peers", rounds)
    with ExitStack() as stack:
        some = [
            stack.enter_context(opened(folder / f"near-{world.pairs}", world, 0, programs)) for world in (FEW, THOUSAND)
        ]
        far = stack.enter_context(opened(folder / "ten-thousand", TEN_THOUSAND, AWAY, programs))
        near = replace(far, address=far.away.near, round_trip=0)
        near.settle()
        nothing = empty(folder / "empty-many", TEN_THOUSAND.pairs)
        more = _more_ways(near) | {nothing.name: partial(near.run, nothing.argv, folder / "empty-many")}
        growing = _growing([*some, near], more, rounds)
        tell("where the time goes")
        profile = dict(_profiles(near))
        far.settle()
        much_away = in_turns(far.name, {"cold": far.cold, "warm": far.warm}, rounds, once=["cold"])
    much = growing[near.world.pairs]
    lines = [
        *_lines_of_hundreds(hundreds, against),
        *_lines_of_ten_thousand(near, much, nothing.name),
        _seconds(far.name, "warm", much_away["warm"], 150),
        _plain(far.name, "cold", much_away["cold"]),
        *_lines_of_growth(growing),
        _seconds(f"{FEW.pairs} × {FEW.platforms}, {AWAY * 1000:.0f} ms", "warm, nothing to do", few, 1.1),
    ]
    one = World(tools=1, bases=1)
    return Part(
        lines=lines,
        rivals=list(_rivals(hundreds, against)),
        growth=[
            Growth(pairs=pairs, what=way, seconds=ways[way].seconds, mebibytes=ways[way].mebibytes)
            for pairs, ways in growing.items()
            for way in ("cold", "warm")
        ],
        counts=[
            counted(f"{hundreds.name}, cold", against["cold"], HUNDREDS.cold),
            counted(f"{hundreds.name}, warm", against["warm"], HUNDREDS.warm),
            counted(f"{near.name}, cold", much["cold"], TEN_THOUSAND.cold),
            counted(f"{near.name}, warm", much["warm"], TEN_THOUSAND.warm),
            counted(f"{far.name}, warm", much_away["warm"], TEN_THOUSAND.warm),
            counted(f"{near.name}, one pair, warm", much[ONE], one.warm),
        ],
        profile=profile,
        forge=_forge() if builds else [],
        measured={
            hundreds.name: against,
            far.name: much_away,
            **{site.name: growing[site.world.pairs] for site in (*some, near)},
        },
        not_measured=not_measured
        if builds
        else [*not_measured, "a tick on a forge; run scripts/setup-engines as root"],
    )


ONE, ONE_BY_NAME = "one pair: `--tool T --base B`", "one pair: `-k T-B`"


def _against_peers(site: Site, folder: Path, rounds: int) -> tuple[dict[str, Measured], list[str]]:
    """imagewright and all peers in turns; the shell loop, one at a time, only once: it takes minutes."""
    prepare(site, folder)
    there, not_measured = installed(peers(site), site.programs)
    ways = ways_of(site, there, folder)
    own = {"cold": site.cold, "warm": site.warm}
    measured = in_turns(site.name, {**own, **ways}, rounds, once=[IN_LINE], optional=list(ways))
    return measured, [*not_measured, *(f"{one}; it failed" for one in ways if one not in measured)]


def _growing(sites: Sequence[Site], more: Mapping[str, Way], rounds: int) -> dict[int, dict[str, Measured]]:
    """Pairs → way → measured: sites of all sizes in turns, so that they can be compared. more: ways at the last one."""
    ways: dict[tuple[int, str], Way] = {}
    for site in sites:
        ways |= {(site.world.pairs, "cold"): site.cold, (site.world.pairs, "warm"): site.warm}
    ways |= {(sites[-1].world.pairs, name): way for name, way in more.items()}
    named = {f"{pairs:,}: {name}": way for (pairs, name), way in ways.items()}
    measured = dict(zip(ways, in_turns("no delay", named, rounds).values()))
    return {
        site.world.pairs: {name: one for (pairs, name), one in measured.items() if pairs == site.world.pairs}
        for site in sites
    }


def _more_ways(site: Site) -> dict[str, Way]:
    """In this order: the plan is made of the report of the run before it, which was one of all pairs."""
    tool, base = site.world.tool(1), site.world.base(1)
    return {
        "plan": site.plan,
        ONE: partial(site.warm, "--tool", tool, "--base", base),
        ONE_BY_NAME: partial(site.warm, "-k", f"{tool}-{base}"),
    }


def _profiles(site: Site) -> Iterator[tuple[str, list[str]]]:
    # Of the two one undoes `-q`. Not a line per check: that would be most of the time.
    loud = ("-vv", "-o", "verbosity_test_cases=0")
    for name, way in {"cold": site.cold, "warm": site.warm}.items():
        if found := profile_in(way(*loud).output):
            yield f"{site.name}, {name}", found


def _forge() -> list[str]:
    """What it took, or why it could not be measured: the half hour before is not lost for that."""
    tell("a tick on a forge")
    argv = [sys.executable, "-m", "benchmarks.forge"]
    ended = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    return (ended.stdout if ended.returncode == 0 else f"{ended.stdout}{ended.stderr}").splitlines()


def profile_in(output: str) -> list[str]:
    """The line that begins the profile, and the indented ones below it."""
    lines = iter(output.splitlines())
    for line in lines:
        if PROFILE in line:
            return [line, *takewhile(lambda one: one.startswith("  "), lines)]
    return []


def _lines_of_hundreds(site: Site, measured: Mapping[str, Measured]) -> Iterator[Line]:
    cold, warm = site.at_least(site.world.cold), site.at_least(site.world.warm)
    yield _seconds(site.name, "cold", measured["cold"], 1.5 * cold + 1.0, f"1.5 × {cold:.2f} s + 1.0 s = ")
    yield _seconds(site.name, "warm", measured["warm"], warm + 1.0, f"{warm:.2f} s + 1.0 s = ")
    for peer, most in {IN_LINE: 100, REGCTL: 4}.items():
        what, bound = f"cold, against {peer}", f"1/{most}"
        if peer not in measured:
            yield Line(world=site.name, what=what, bound=bound, measured="not measured", met=None, rounds=0)
            continue
        times = measured[peer].seconds / measured["cold"].seconds
        yield Line(
            world=site.name,
            what=what,
            bound=bound,
            measured=f"1/{times:.1f}",
            met=times >= most,
            rounds=len(measured[peer].rounds),
        )


def _lines_of_ten_thousand(site: Site, measured: Mapping[str, Measured], nothing: str) -> Iterator[Line]:
    for way, seconds in {"cold": 240, "warm": 120}.items():
        yield _seconds(site.name, way, measured[way], seconds)
        yield _memory(site.name, way, measured[way], 900)
    yield _plain(site.name, nothing, measured[nothing])
    yield _seconds(site.name, ONE, measured[ONE], 2)
    yield _seconds(site.name, ONE_BY_NAME, measured[ONE_BY_NAME], 8)
    yield _seconds(site.name, "`imagewright plan`", measured["plan"], 2)
    yield _memory(site.name, "`imagewright plan`", measured["plan"], 200)


def _lines_of_growth(measured: Mapping[int, Mapping[str, Measured]]) -> Iterator[Line]:
    """Per pair beyond the fewest: what a run takes before its first pair is left out, as it would flatter the many."""
    fewest, some, many = sorted(measured)
    for way in ("cold", "warm"):
        for what, attribute in {"time": "seconds", "memory": "mebibytes"}.items():
            taken = {pairs: getattr(ways[way], attribute) for pairs, ways in measured.items()}
            each = [(taken[pairs] - taken[fewest]) / (pairs - fewest) for pairs in (some, many)]
            times = each[1] / each[0]
            yield Line(
                world=f"{some:,} to {many:,} pairs, no delay",
                what=f"{way}: {what} per pair beyond {fewest}",
                bound="1.2 ×",
                measured=f"{times:.2f} ×",
                met=times <= 1.2,
                rounds=len(measured[many][way].rounds),
            )


def _rivals(site: Site, measured: Mapping[str, Measured]) -> Iterator[Rival]:
    asks = {
        "cold": "image, base and `latest`: all that the checks promise, every platform",
        "warm": "the same, knowing all documents already",
        **{one.name: one.asks for one in peers(site)},
    }
    for name, one in measured.items():
        yield Rival(
            name=f"imagewright, {name}" if name in {"cold", "warm"} else name,
            asks=asks[name],
            seconds=one.seconds,
            cpu=one.cpu,
            requests=one.requests,
            times=one.seconds / measured["cold"].seconds,
            rounds=len(one.rounds),
        )


def _seconds(world: str, what: str, measured: Measured, most: float, sum_of: str = "") -> Line:
    return Line(
        world=world,
        what=what,
        bound=f"{sum_of}{most:.2f} s" if sum_of else f"{most:g} s",
        measured=f"{measured.seconds:.2f} s",
        met=measured.seconds <= most,
        rounds=len(measured.rounds),
    )


def _memory(world: str, what: str, measured: Measured, most: float) -> Line:
    return Line(
        world=world,
        what=f"{what}: memory",
        bound=f"{most:g} MiB",
        measured=f"{measured.mebibytes:.0f} MiB",
        met=measured.mebibytes <= most,
        rounds=len(measured.rounds),
    )


def _plain(world: str, what: str, measured: Measured) -> Line:
    return Line(
        world=world,
        what=what,
        bound="",
        measured=f"{measured.seconds:.2f} s, {measured.mebibytes:.0f} MiB",
        met=None,
        rounds=len(measured.rounds),
    )
