"""A pair is built on the base that is published today."""

from imagewright.catalogue import Pair
from imagewright.snapshot import Published
from imagewright.verdict import Stale, base_label_departure, layer_departures


def test_contains_base(pair: Pair, observed: Published, base: Published) -> None:
    """The base has moved on since the image was built. Build it on today's base."""
    if pair.tool.squashed:
        departures = base_label_departure(observed, base)
    else:
        departures = layer_departures(observed, base, on=pair.required(base.platforms))
    if departures:
        raise Stale(departures)
