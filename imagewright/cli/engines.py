"""The builders that this machine may have, ready to be asked."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from imagewright.builders import Builder
from imagewright.builders.copy import Copy
from imagewright.cli import Place
from imagewright.registry.client import Client
from imagewright.settings import Settings


@contextmanager
def engines(settings: Settings, place: Place, client: Client) -> Iterator[Sequence[Builder]]:
    """The builders in the order in which `auto` tries them; an engine that was started here ends with the block."""
    yield [Copy(client)]
