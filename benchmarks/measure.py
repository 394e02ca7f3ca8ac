"""Measures processes: wall time, processor time, peak memory, and what a registry was asked meanwhile; in turns."""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

AT_MOST = 1800.0
"""Seconds after which a process is ended."""


class Failed(Exception):
    """A process ended with another code than 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Took:
    """One process. cpu: seconds, of all it waited for as well. mebibytes: its own peak, or that of its largest child.

    asked: kind of request → how many, from the registry's side. output: both streams.
    """

    seconds: float
    cpu: float
    mebibytes: float
    asked: Mapping[str, int] = field(default_factory=dict)
    output: str = ""


@dataclass(frozen=True, slots=True)
class Measured:
    """The same several times."""

    rounds: Sequence[Took]

    @property
    def seconds(self) -> float:
        """The median."""
        return statistics.median(one.seconds for one in self.rounds)

    @property
    def cpu(self) -> float:
        """The median."""
        return statistics.median(one.cpu for one in self.rounds)

    @property
    def mebibytes(self) -> float:
        """The median."""
        return statistics.median(one.mebibytes for one in self.rounds)

    @property
    def requests(self) -> int:
        """The median of all requests, of whatever kind."""
        return round(statistics.median(sum(one.asked.values()) for one in self.rounds))


Way = Callable[[], Took]


def in_turns(
    where: str, ways: Mapping[str, Way], rounds: int, *, once: Sequence[str] = (), optional: Sequence[str] = ()
) -> dict[str, Measured]:
    """All ways once, then all of them again, …: what slows the machine down for a while slows down all of them.

    once: ways that take so long that they are in the first round only. optional: ways that may fail; they are left out of
    the result then. Says on stderr how it goes.
    """
    took: dict[str, list[Took]] = {name: [] for name in ways}
    for turn in range(rounds):
        for name in [one for one in took if not turn or one not in once]:
            try:
                one = ways[name]()
            except Failed as error:
                if name not in optional:
                    raise
                tell(f"not measured: {name}: {error}")
                del took[name]
                continue
            took[name].append(one)
            tell(f"{where}: {turn + 1} of {rounds}: {name}: {one.seconds:.2f} s, {one.mebibytes:.0f} MiB")
    return {name: Measured(each) for name, each in took.items()}


def run(argv: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]) -> Took:
    """Runs a process to its end. `Failed` if that is not 0."""
    with tempfile.TemporaryFile() as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            argv, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
        alarm = threading.Timer(AT_MOST, os.killpg, (process.pid, signal.SIGKILL))
        alarm.start()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        alarm.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)  # or Popen would wait for it once more
        output.seek(0)
        said = output.read().decode(errors="replace")
    if process.returncode:
        raise Failed(f"{' '.join(map(str, argv))} ended with {process.returncode}:\n{said[-2000:]}")
    return Took(seconds=seconds, cpu=usage.ru_utime + usage.ru_stime, mebibytes=usage.ru_maxrss / 1024, output=said)


def tell(line: str) -> None:
    """Says how it goes."""
    print(line, file=sys.stderr, flush=True)
