"""Where the time of a run goes, stage by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds by the name of a stage, in the order in which stages began."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measures what happens inside; what is measured under one name adds up."""
        began = time.monotonic()
        self.seconds.setdefault(name, 0)
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - began
