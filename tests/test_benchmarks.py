"""What the benchmark makes of its figures."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks import large, report, small
from benchmarks.large import profile_in
from benchmarks.measure import Failed, Measured, Took, in_turns
from benchmarks.small import Count, Part, Ratio, count, verdict


def took(seconds: float = 1.0, mebibytes: float = 50.0, **asked: int) -> Took:
    return Took(seconds=seconds, cpu=seconds / 2, mebibytes=mebibytes, asked=asked)


COLD = {"tag": 120, "digest": 129, "config": 128, "list": 1, "canary": 2}


@pytest.mark.parametrize(
    ("asked", "exact"),
    [
        (COLD, True),
        (COLD | {"config": 129}, False),
        (COLD | {"tag": 119}, False),
        (COLD | {"list": 2}, False),
        (COLD | {"canary": 4}, False),
        (COLD | {"other": 1}, False),
        ({}, False),
    ],
)
def test_a_count_is_exact_or_wrong(asked: Mapping[str, int], exact: bool) -> None:
    assert count("cold", took(**asked), small.FEW.cold).exact is exact


def part(counts: list[Count], ratios: list[Ratio]) -> Part:
    return Part(counts=counts, ratios=ratios, measured={}, others={}, not_measured=[])


def test_the_verdict_is_good_without_a_reference_and_up_to_twice_of_one() -> None:
    counts = [count("cold", took(**COLD), 376)]
    ratios = [
        Ratio(name="a", value=9.0),
        Ratio(name="b", value=2.0, reference=1.0),
        Ratio(name="c", value=0.1, reference=1.0),
    ]
    assert verdict(part(counts, ratios)) == ("bench: 1 counts exact, 2 ratios within twice their reference", True)


def test_the_verdict_says_in_one_line_all_that_is_wrong() -> None:
    counts = [count("warm", took(**COLD), 120)]
    line, good = verdict(part(counts, [Ratio(name="b", value=2.1, reference=1.0)]))
    assert not good
    assert line == (
        "bench: 1 counts wrong, 1 ratios beyond: warm: 376 instead of 120, {'list': 1, 'canary': 2}; b: 2.10 instead of 1.00"
    )


def test_ways_take_turns_and_one_that_may_fail_is_left_out() -> None:
    order = []

    def way(name: str) -> Took:
        order.append(name)
        if name == "broken":
            raise Failed("no")
        return took(seconds=len(order))

    ways = {name: lambda name=name: way(name) for name in ("a", "broken", "slow")}
    measured = in_turns("here", ways, 3, once=["slow"], optional=["broken"])
    assert order == ["a", "broken", "slow", "a", "a"]
    assert list(measured) == ["a", "slow"]
    assert measured["a"].seconds == 4
    with pytest.raises(Failed):
        in_turns("here", ways, 1)


def test_growth_is_told_per_pair_beyond_the_fewest() -> None:
    sizes = {56: (1.0, 60.0), 1000: (3.0, 100.0), 10000: (30.0, 400.0)}
    measured = {n: dict.fromkeys(("cold", "warm"), Measured([took(*each)])) for n, each in sizes.items()}
    lines = list(large._lines_of_growth(measured))
    assert [(one.what, one.measured, one.met) for one in lines] == [
        ("cold: time per pair beyond 56", "1.38 ×", False),
        ("cold: memory per pair beyond 56", "0.81 ×", True),
        ("warm: time per pair beyond 56", "1.38 ×", False),
        ("warm: memory per pair beyond 56", "0.81 ×", True),
    ]


def test_the_profile_is_its_first_line_and_what_is_indented_below() -> None:
    output = "....\nwhere the time went: 3.00 s, 9 questions\n  survey  1.00 s\n  checks  2.00 s\nreport: there\n"
    assert profile_in(output) == ["where the time went: 3.00 s, 9 questions", "  survey  1.00 s", "  checks  2.00 s"]
    assert profile_in("....\n===== imagewright =====\n") == []


def document() -> dict[str, Any]:
    line = large.Line(world="56 × 2, 30 ms", what="cold", bound="1.1 s", measured="1.20 s", met=False, rounds=3)
    rival = large.Rival(name="crane", asks="the index", seconds=2.5, cpu=4, requests=1200, times=0.5, rounds=3)
    exact = count("cold", took(**COLD), 376)
    return {
        "date": "2026-01-01",
        "machine": {"cores": 2, "processor": "P", "memory": "8 GiB", "kernel": "6", "python": "3.11.2"},
        "lines": [asdict(line)],
        "rivals": [asdict(rival)],
        "growth": [asdict(large.Growth(pairs=1000, what="cold", seconds=5, mebibytes=100))],
        "counts": [{**asdict(exact), "exact": exact.exact}],
        "ratios": [asdict(Ratio(name="warm ÷ cold", value=0.5))],
        "others": {"recipe, known": 0.2},
        "profile": {"10,000 × 2, no delay, cold": ["  1.0 s  requests"]},
        "forge": ["56 fresh pairs: success"],
        "not_measured": ["regctl; run scripts/setup-engines as root"],
    }


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-01, on 2 cores (P), 8 GiB of memory,",
        "| 56 × 2, 30 ms | cold | 1.1 s | 1.20 s | not met | 3 |",
        "| crane | 2.50 | 0.50 | 4.0 s | 1,200 | 3 | the index |",
        "| 1,000 | cold | 5.00 | 5.00 | 100 | 102 |",
        "| cold | 376 | 376 | exact |",
        "| warm ÷ cold | 0.500 |  |",
        "| recipe, known | 0.200 |",
        "  1.0 s  requests",
        "56 fresh pairs: success",
        "- regctl; run scripts/setup-engines as root",
    ],
)
def test_the_page_shows_all_of_it(line: str) -> None:
    assert line in report.page(document()).splitlines()


def test_a_table_without_rows_is_left_out() -> None:
    nothing = document() | {key: [] for key in ("lines", "rivals", "growth")}
    assert report.text(nothing).splitlines()[0] == "What it asks"
