"""An image is built on the base that is published today."""

from collections.abc import Sequence

from imagewright.catalogue import Target
from imagewright.names import Platform
from imagewright.snapshot import Published
from imagewright.verdict import Stale, base_label_departure, layer_departures


def test_contains_base(target: Target, observed: Published, base: Published, required: Sequence[Platform]) -> None:
    """The base has moved on since the image was built. Build it on today's base."""
    if target.source.squashed:
        departures = base_label_departure(observed, base)
    else:
        departures = layer_departures(observed, base, on=required)
    if departures:
        raise Stale(departures)
