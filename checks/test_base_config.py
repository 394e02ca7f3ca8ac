"""A pair has the configuration that its base has today: ENV, USER, ENTRYPOINT and the like make no layer."""

from imagewright.catalogue import Pair
from imagewright.snapshot import Published
from imagewright.verdict import NotAsked, Stale, config_departures


def test_base_config(pair: Pair, observed: Published, base: Published) -> None:
    """The base's configuration has changed since the image was built. Build it on today's base."""
    if pair.tool.squashed or not pair.tool.check_base_config:
        raise NotAsked("tool.yaml says that this tool keeps nothing of its base's history")
    if departures := config_departures(observed, base, on=pair.required(base.platforms)):
        raise Stale(departures)
