"""Each request of a run failing for good, in each way: nothing is asked for that would not be otherwise, nothing is green.

`-s` shows how many runs that were.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest

from imagewright.testing import vices
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Asked, Vice
from imagewright.verdict import State
from tests.vicious import World, publish

TOOLS, BASES = ("codex", "gemini", "goose"), ("debian", "fedora", "minimal")
ELSEWHERE = "https://elsewhere.invalid/v2/"
FAULTS: dict[str, Vice] = {
    one.name: one
    for one in (
        vices.hangs_up(),
        vices.resets(),
        vices.answers(400),
        vices.falls_silent(after=20),
        vices.drips(0.2),
        vices.never_ends_its_headers(0.1),
        vices.speaks_no_http(),
        vices.refuses(403),
        vices.answers_404_as_html(),
        vices.answers_404_as_json("NOT_FOUND"),
        vices.is_overloaded(429),
        vices.is_overloaded(503),
        vices.serves_a_login_page(),
        vices.serves_nothing(),
        vices.serves_a_part(),
        vices.cuts_the_body(),
        vices.cuts_the_body(admits=True),
        vices.lies_about_digest(),
        vices.serves_other_bytes(),
        vices.compresses(9 * 2**20),
        vices.promises(10**15),
        vices.redirects(ELSEWHERE),
    )
}


CHANGES_BODIES = {
    one.name
    for one in (
        vices.falls_silent(after=20),
        vices.drips(0.2),
        vices.serves_a_part(),
        vices.serves_nothing(),
        vices.cuts_the_body(),
        vices.cuts_the_body(admits=True),
        vices.lies_about_digest(),
        vices.serves_other_bytes(),
    )
}


def may_be_green(asked: Asked, fault: str) -> bool:
    """Whether a run may be whole all the same.

    It may without what vouches for the registry (a tag that cannot exist, an index by its digest) and without the list
    that only a missing target needs. And what happens to a body does not happen to a 304.
    """
    vouches = "canary" in asked.target or (asked.kind == "child" and not asked.platform)
    is_304 = asked.repository == "own/tools" and asked.reference.endswith("-latest")
    return vouches or asked.kind == "tags" or (is_304 and fault in CHANGES_BODIES)


ALL_FRESH = (dict.fromkeys(TOOLS, "1.0"), BASES, ())
SOME_STALE = ({"codex": "1.0", "goose": "2.0"}, BASES[:2], ("codex-debian",))


@pytest.fixture(scope="module", params=[ALL_FRESH, SOME_STALE], ids=["all fresh", "some stale"])
def honest(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], World]:
    """Makes worlds, alike, each with a registry of its own over the same images."""
    versions, bases, old = request.param
    root = tmp_path_factory.mktemp("world")
    with Registry(root) as registry:
        publish(registry.sink, list(versions), bases, old=old)
    return lambda: World(registry=Registry(root), versions=versions, bases=bases)


def undisturbed(made: World) -> tuple[dict[str, State], list[Asked]]:
    """The verdicts of a run where nothing is wrong, and what it asks, each question once."""
    with made.registry:
        for _ in range(5):  # a busy machine makes something unknown now and then
            made.registry.becomes()
            found = states(made)
            if State.UNKNOWN not in found.values():
                break
        assert State.UNKNOWN not in found.values()
        return found, list({one.target: one for one in made.registry.log}.values())


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_question_that_fails_for_good_makes_nothing_stale_and_nothing_green(
    honest: Callable[[], World], fault: str
) -> None:
    before, asked = undisturbed(honest())

    def fails(question: Asked) -> tuple[str, str]:
        vice = FAULTS[fault].where(lambda one: one.target == question.target)
        return question.target, refutation(before, honest(), vice, green=may_be_green(question, fault))

    report(fault, map_all(fails, asked))


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "fault",
    [vices.hangs_up(), vices.forgets_everything(), vices.refuses(403)],
    ids=lambda fault: fault.name,
)
def test_a_registry_that_fails_from_some_request_on_makes_nothing_stale_and_nothing_green(
    honest: Callable[[], World], fault: Vice
) -> None:
    before, asked = undisturbed(honest())

    def fails(number: int) -> tuple[str, str]:
        last_words = number > len(asked) - 2  # the two that vouch for the registry in the end
        return f"from request {number} on", refutation(before, honest(), fault.since(number), green=last_words)

    report(fault.name, map_all(fails, range(1, len(asked) + 1)))


def refutation(before: dict[str, State], made: World, vice: Vice, *, green: bool) -> str:
    """What is wrong with the verdicts of a run with a vice; empty where nothing is. green: whether all may be fresh."""
    with made.registry:
        made.registry.becomes(vice)
        after = states(made)
        wrote = [one.method for one in made.registry.log if one.method not in ("GET", "HEAD")]
    for target, state in after.items():
        if state is not before[target] and state is not State.UNKNOWN:
            return f"{target} is {state.value}, and was {before[target].value}"
    if not green and set(after.values()) == {State.FRESH}:
        return "all is green"
    return f"it wrote: {wrote}" if wrote else ""


def states(made: World) -> dict[str, State]:
    return {target: verdict.state for target, verdict in made.verdicts().items()}


T = TypeVar("T")


def map_all(call: Callable[[T], tuple[str, str]], each: Iterable[T]) -> list[tuple[str, str]]:
    with ThreadPoolExecutor(6) as pool:
        return list(pool.map(call, each))


def report(fault: str, runs: list[tuple[str, str]]) -> None:
    print(f"\n{fault}: {len(runs)} runs")
    assert not [f"{what}: {wrong}" for what, wrong in runs if wrong]
