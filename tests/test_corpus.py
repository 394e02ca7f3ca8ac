"""Every seed of the fuzzers, and whatever they found once, goes through its parser in each run of the tests."""

from pathlib import Path

import pytest

from tests.proof.parsers import CORPUS, PARSERS

SEEDS = sorted(path.relative_to(CORPUS).as_posix() for path in CORPUS.glob("*/*"))


def test_each_parser_has_seeds_and_each_seed_a_parser() -> None:
    assert {seed.partition("/")[0] for seed in SEEDS} == set(PARSERS)
    assert {seed.partition("/")[0] for seed in SEEDS if "/good-" in seed} == set(PARSERS)


@pytest.mark.parametrize("seed", SEEDS)
def test_what_a_parser_does_not_take_it_refuses_by_name(seed: str, tmp_path: Path) -> None:
    parser, _, name = seed.partition("/")
    kind = name.partition("-")[0]
    taken = PARSERS[parser].takes((CORPUS / seed).read_bytes(), tmp_path)
    assert kind in {True: ("good", "found"), False: ("bad", "found")}[taken]
