"""What checks ask for: values about the target that a test is about, from what the survey saw.

Where something cannot be had, the check for existence says why, and the others are not asked.
"""

import pytest

from imagewright import reasons, verdict
from imagewright.catalogue import Pair
from imagewright.pytest_plugin import RUN, Run, Unlisted
from imagewright.recipe import Recipes
from imagewright.snapshot import Observation, PointerObservation, Published, TargetSeen
from imagewright.verdict import NotAsked, Reason


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """The run that the check is part of."""
    return request.config.stash[RUN]


def _seen(run: Run, pair: Pair | Unlisted) -> TargetSeen:
    if isinstance(pair, Unlisted):
        raise verdict.Unknown([Reason(code=reasons.Unknown.BASES_UNKNOWN, detail=pair.why)])
    found = run.by_target.get(pair.key)
    if found is None:
        detail = "the recorded observations do not hold this target"
        raise verdict.Unknown([Reason(code=reasons.Unknown.NOT_RECORDED, detail=detail)])
    return found


@pytest.fixture
def looked(run: Run, pair: Pair | Unlisted) -> Observation:
    """The raw observation of the target, for the check of existence."""
    seen = _seen(run, pair)
    if seen.observation is None:
        reading = run.seen.reading(seen.tool) if run.seen else None
        code = reading.reason if reading and reading.reason else reasons.Unknown.VERSION_FAILED
        raise verdict.Unknown([Reason(code=code, detail=reading.detail if reading else "")])
    return seen.observation


@pytest.fixture
def base_looked(run: Run, pair: Pair | Unlisted) -> Observation:
    """The raw observation of the target's base, for the check of existence."""
    found = run.seen.base(_seen(run, pair).base) if run.seen else None
    if found is None:
        detail = "the recorded observations do not hold its base"
        raise verdict.Unknown([Reason(code=reasons.Unknown.NOT_RECORDED, detail=detail)])
    return found.observation


@pytest.fixture
def observed(run: Run, pair: Pair) -> Published:
    """The target's image."""
    seen = run.by_target.get(pair.key)
    if seen is None or not isinstance(seen.observation, Published):
        raise NotAsked("there is no image to ask about")
    return seen.observation


@pytest.fixture
def version(run: Run, pair: Pair, observed: Published) -> str:  # noqa: ARG001 - without an image it is not asked
    """Today's version of the target's tool."""
    found = _seen(run, pair).version
    assert found, "what was observed was asked for by its version"
    return found


@pytest.fixture
def base(pair: Pair, base_looked: Observation) -> Published:
    """The target's base, fit to be compared with."""
    try:
        return verdict.readable_base(pair, base_looked)
    except verdict.Unknown:
        raise NotAsked("there is no base to compare with") from None


@pytest.fixture
def latest(run: Run, pair: Pair, observed: Published) -> PointerObservation:  # noqa: ARG001 - likewise
    """What the tag `latest` of the target names."""
    found = _seen(run, pair).latest
    assert found, "the tag was asked for as soon as the image was read"
    return found


@pytest.fixture
def recipes(run: Run) -> Recipes:
    """Today's recipes."""
    return run.recipes
