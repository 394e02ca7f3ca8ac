"""Runs whose processes die, and runs on machines whose clocks are wrong: what holds afterwards."""

import os
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest

from imagewright.report import parse
from imagewright.testing.images import layer
from tests.faults.test_runs import plan
from tests.test_plugin import ALL, World, family, world

__all__ = ["family", "world"]

pytest_plugins = ["pytester"]

FRESH = dict.fromkeys(ALL, "fresh")


# Processes that die (D5, D6)

DIES = """
import os, signal

def test_dies(target):
    {how}
"""
DEATHS: dict[str, tuple[str, tuple[str, ...], int, int]] = {
    # how a check dies, arguments, pytest's exit code, that of `imagewright plan` after it
    "all workers, replaced": ("os._exit(7)", ("-n", "2"), 1, 20),
    "all workers, not replaced": ("os._exit(7)", ("-n", "2", "--max-worker-restart=0"), 1, 50),
    "workers killed": ("os.kill(os.getpid(), signal.SIGKILL)", ("-n", "1"), 1, 20),
    "alone, as if all were well": ("os._exit(0)", (), 0, 50),
    "alone, killed": ("os.kill(os.getpid(), signal.SIGKILL)", (), -9, 50),
    "each check on each worker": ("pass", ("--dist=each", "--tx=2*popen"), 1, 50),
}


@pytest.mark.parametrize("case", DEATHS)
def test_a_check_that_takes_its_process_with_it_is_unknown_or_leaves_no_report(family: World, case: str) -> None:
    how, arguments, ends, planned = DEATHS[case]
    (family.project / "checks" / "test_dies.py").write_text(DIES.format(how=how))

    ran = family.spawn(*arguments)

    assert ran.code == ends, ran.text
    assert plan(family) == planned, ran.text


# Clocks (D12): only ages and what is written with a time hang on them, and no verdict does

CLOCK = """
import datetime, sys, time

seconds, real, real_ns, moment = iter(map(float, sys.argv.pop(1).split(","))), time.time, time.time_ns, datetime.datetime
shift = 0.0

def shifted():
    global shift
    shift = next(seconds, shift)
    return shift

class Wrong(moment):
    @classmethod
    def now(cls, tz=None):
        return moment.now(tz) + datetime.timedelta(seconds=shifted())

datetime.datetime = Wrong
time.time = lambda: real() + shifted()
time.time_ns = lambda: real_ns() + int(shifted() * 1e9)
if sys.argv[1] == "pytest":
    import pytest
    sys.exit(pytest.main(sys.argv[2:]))
from imagewright.cli import run
run()
"""
HOUR = 3600


def until(year: int) -> float:
    """Seconds from now to a day of that year."""
    return datetime(year, 3, 1, tzinfo=UTC).timestamp() - time.time()


CLOCKS: dict[str, tuple[str, dict[str, str], int]] = {
    # by how many seconds the clock is wrong each time that it is read, the last one for ever; what a plan ends with after it
    "an hour back within the run": (f"0,0,-{HOUR}", {}, 50),
    "an hour on within the run": (f"0,0,{HOUR + 60}", {}, 50),
    "1970": (f"{until(1970)}", {}, 10),
    "2038": (f"{until(2038)}", {}, 10),
    "summer time": ("0", {"TZ": "Europe/Berlin"}, 10),
}


@pytest.mark.parametrize("case", CLOCKS)
def test_a_wrong_clock_changes_no_verdict(family: World, case: str) -> None:
    family.base("fedora", layer({"etc/os": "newer"}))
    shifts, environ, planned = CLOCKS[case]
    last = shifts.rpartition(",")[2]

    def call(shift: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-c", CLOCK, shift, *arguments]
        return subprocess.run(
            argv, cwd=family.project, env=os.environ | environ, capture_output=True, text=True, check=False
        )

    ran = call(shifts, "pytest", "checks/", "-q")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    found = parse((family.project / ".imagewright" / "report.json").read_bytes(), "report.json")
    assert not case.isdecimal() or found.started.startswith(case)
    assert {one.target: one.state.value for one in found.records} == FRESH | {
        "codex-fedora": "stale",
        "gemini-fedora": "stale",
    }
    made = call(last, "plan")
    assert made.returncode == planned, made.stdout + made.stderr
    assert (family.project / ".imagewright" / "plan.json").exists() == (planned == 10)
