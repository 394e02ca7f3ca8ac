"""What checks ask for: values about the target that a test is about, from what the survey saw.

Where something cannot be had, the check for existence says why, and the others are not asked.
"""

import pytest

from imagewright import reasons, verdict
from imagewright.asked import Unlisted
from imagewright.catalogue import Pair, Target
from imagewright.names import Platform
from imagewright.pytest_plugin import RUN, Run
from imagewright.recipe import Recipes
from imagewright.snapshot import Missing, Observation, PointerObservation, Published, TargetSeen, Unreachable
from imagewright.verdict import NotAsked, Reason


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """The run that the check is part of."""
    return request.config.stash[RUN]


def _seen(run: Run, target: Target | Unlisted) -> TargetSeen:
    if isinstance(target, Unlisted):
        raise verdict.Unknown([Reason(code=reasons.Unknown.BASES_UNKNOWN, detail=target.why)])
    found = run.by_target.get(target.key)
    if found is None:
        detail = "the recorded observations do not hold this target"
        raise verdict.Unknown([Reason(code=reasons.Unknown.NOT_RECORDED, detail=detail)])
    return found


@pytest.fixture
def looked(run: Run, target: Target | Unlisted) -> Observation:
    """The raw observation of the target, for the check of existence."""
    seen = _seen(run, target)
    if seen.observation is None:
        reading = run.seen.reading(seen.tool) if run.seen else None
        code = reading.reason if reading and reading.reason else reasons.Unknown.VERSION_FAILED
        raise verdict.Unknown([Reason(code=code, detail=reading.detail if reading else "")])
    if seen.version and isinstance(target, Pair) and not isinstance(seen.observation, Unreachable):
        verdict.refuse_backwards(target.tool.version_scheme, seen.version, seen.newest)
    return seen.observation


@pytest.fixture
def base_looked(run: Run, target: Target | Unlisted) -> Observation | None:
    """The raw observation of the target's base, for the check of existence; None for an image from scratch."""
    seen = _seen(run, target)
    if not isinstance(target, Pair) and not seen.base:
        return None
    found = run.seen.base(seen.base) if run.seen else None
    if found is None:
        detail = "the recorded observations do not hold its base"
        raise verdict.Unknown([Reason(code=reasons.Unknown.NOT_RECORDED, detail=detail)])
    return found.observation


@pytest.fixture
def observed(run: Run, target: Target) -> Published:
    """The target's image."""
    seen = run.by_target.get(target.key)
    if seen is None or not isinstance(seen.observation, Published):
        raise NotAsked("there is no image to ask about")
    return seen.observation


@pytest.fixture
def version(run: Run, target: Target, observed: Published) -> str:  # noqa: ARG001 - without an image it is not asked
    """Today's version of the target."""
    found = _seen(run, target).version
    assert found, "what was observed was asked for by its version"
    return found


@pytest.fixture
def below(target: Target, base_looked: Observation | None) -> Published | None:
    """The target's base, fit to be compared with; None for an image from scratch."""
    if base_looked is None:
        return None
    try:
        return verdict.readable_base(target, base_looked)
    except verdict.Unknown:
        raise NotAsked("there is no base to compare with") from None


@pytest.fixture
def base(below: Published | None) -> Published:
    """The target's base, fit to be compared with, for what is asked only of images that have one."""
    if below is None:
        raise NotAsked("it is built on nothing")
    return below


@pytest.fixture
def required(target: Target, below: Published | None) -> tuple[Platform, ...]:
    """The platforms that the target must be published for."""
    return target.required(below.platforms) if below else target.declared


@pytest.fixture
def latest(run: Run, target: Target, observed: Published) -> PointerObservation:  # noqa: ARG001 - likewise
    """What the tag `latest` of the target names."""
    seen = _seen(run, target)
    assert seen.latest, "the tag was asked for as soon as the image was read"
    if seen.version and isinstance(target, Pair):
        try:
            verdict.refuse_backwards(target.tool.version_scheme, seen.version, seen.newest)
        except verdict.Unknown:
            raise NotAsked("`latest` is, or may be, of a newer version") from None
    return seen.latest


@pytest.fixture
def recipes(run: Run) -> Recipes:
    """Today's recipes."""
    return run.recipes


@pytest.fixture
def waits_for(run: Run, target: Target | Unlisted, base_looked: Observation | None) -> str:
    """The target of this project that is to be published before this one can be built; empty if there is none such."""
    if isinstance(target, Unlisted) or not isinstance(base_looked, Missing):
        return ""
    return run.catalogue.waits_for(target)
