"""What a person sees of builds that run at once: a line for each, redrawn on a terminal, told step by step elsewhere."""

import shutil
import sys
import threading
from collections.abc import Mapping

import click

_COLUMNS = 100


def say(text: str) -> None:
    """A line for the person who watches; results go to stdout."""
    click.echo(text, err=True)


class Progress:
    """Lines of builds under way. live: whether they may be redrawn, as `is_live` says."""

    def __init__(self, *, live: bool) -> None:
        self._live = live
        self._lines: dict[str, str] = {}
        self._lock = threading.Lock()

    def say(self, text: str) -> None:
        """A line that stays."""
        with self._lock:
            self._wipe()
            say(text)
            self._draw()

    def step(self, title: str, text: str) -> None:
        """What a build does now: its line, if lines can be redrawn; else one more line."""
        if not self._live:
            say(f"{title}: {text}"[:_COLUMNS])
            return
        with self._lock:
            self._wipe()
            self._lines[title] = text
            self._draw()

    def end(self, title: str) -> None:
        """A build is over: its line goes."""
        with self._lock:
            self._wipe()
            self._lines.pop(title, None)
            self._draw()

    def _wipe(self) -> None:
        if self._live and self._lines:
            # `color` says that it is for a terminal: where colours are not wanted, this would be taken for one.
            click.echo(f"\x1b[{len(self._lines)}A\x1b[J", err=True, nl=False, color=True)

    def _draw(self) -> None:
        width = shutil.get_terminal_size().columns - 1
        for title, text in self._lines.items() if self._live else ():
            say(f"{title}: {text}"[:width])


def is_live(environ: Mapping[str, str]) -> bool:
    """Whether lines on stderr can be redrawn."""
    return sys.stderr.isatty() and environ.get("TERM", "dumb") != "dumb" and "CI" not in environ
