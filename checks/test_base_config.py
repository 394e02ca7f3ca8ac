"""An image has the configuration that its base has today: ENV, USER, ENTRYPOINT and the like make no layer."""

from collections.abc import Sequence

from imagewright.catalogue import Target
from imagewright.names import Platform
from imagewright.snapshot import Published
from imagewright.verdict import NotAsked, Stale, config_departures


def test_base_config(target: Target, observed: Published, base: Published, required: Sequence[Platform]) -> None:
    """The base's configuration has changed since the image was built. Build it on today's base."""
    if target.source.squashed or not target.source.check_base_config:
        raise NotAsked("tool.yaml says that this tool keeps nothing of its base's history")
    if departures := config_departures(observed, base, on=required):
        raise Stale(departures)
