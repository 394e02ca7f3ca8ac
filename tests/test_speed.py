"""How long the checks take on 56 pairs, 30 ms away from their registry, and what they ask for. `-s` shows the figures.

The bounds are loose, as test machines are shared; the counts are exact.
"""

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagewright.embedded.server import Seen, Server
from imagewright.embedded.store import Store
from imagewright.testing.images import Picture, StoreSink, layer, push
from imagewright.testing.projects import make_project
from imagewright.testing.proxy import DelayingProxy

TOOLS, BASES = [f"t{at}" for at in range(7)], [f"b{at}" for at in range(8)]
PLATFORMS = ("linux/amd64", "linux/arm64")
ROUND_TRIP = 0.03
A_PAIR = 1 + 2 * len(PLATFORMS)
ALSO = 4
"""A page of tags, and what is asked to see whether the registry can be trusted: once before, twice after."""


@dataclass(frozen=True, slots=True)
class Away:
    project: Path
    seen: list[Seen]


@pytest.fixture(scope="module")
def away(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Away]:
    root = tmp_path_factory.mktemp("away")
    seen: list[Seen] = []
    sink = StoreSink(Store(root / "registry"))
    for base in BASES:
        below = {one: Picture(steps=[layer({"etc/base": f"{base} {one}"}), "ENV A=1"]) for one in PLATFORMS}
        push(sink, "own/bases", [f"{base}-latest"], below)
        for tool in TOOLS:
            images = {one: picture.on_top(layer({f"bin/{tool}": one})) for one, picture in below.items()}
            push(sink, "own/tools", [f"{tool}-{base}-1.0.0", f"{tool}-{base}-latest"], images)
    with (
        Server(root / "registry", on_request=seen.append) as server,
        DelayingProxy(server.address, round_trip=ROUND_TRIP) as proxy,
    ):
        project = make_project(root / "project", registry=proxy.address, tools=dict.fromkeys(TOOLS, "1.0.0"))
        yield Away(project, seen)


@pytest.mark.parametrize(
    ("arguments", "requests", "seconds"),
    [
        (["--fresh"], A_PAIR * (len(TOOLS) * len(BASES) + len(BASES)) + len(TOOLS) * len(BASES) + ALSO, 8),
        (["--fresh", "--tool=t1", "--base=b1"], A_PAIR * 2 + 1 + ALSO, 5),
        ([], 2 * len(TOOLS) * len(BASES) + len(BASES) + ALSO, 6),
        (["-k", "t1-b1"], 3 + ALSO, 5),
    ],
    ids=["56 pairs", "one of them", "56 pairs, known", "one of them, known"],
)
def test_the_checks_ask_for_no_more_than_they_need_and_are_quick(
    away: Away, arguments: list[str], requests: int, seconds: float, request: pytest.FixtureRequest
) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("IMAGEWRIGHT_", "PYTEST_"))}
    argv = [sys.executable, "-m", "pytest", "checks/", "-q", "-p", "no:hypothesispytest", "-p", "no:timeout"]
    took = []
    if "--fresh" not in arguments:
        subprocess.run(argv, cwd=away.project, env=environ, capture_output=True, check=True)
    for _ in range(3):
        away.seen.clear()
        began = time.monotonic()
        ran = subprocess.run([*argv, *arguments], cwd=away.project, env=environ, capture_output=True, check=False)
        took.append(time.monotonic() - began)
        assert ran.returncode == 0, ran.stdout.decode()
        assert len(away.seen) == requests
    median = statistics.median(took)
    print(
        f"\n{request.node.callspec.id}: {median:.2f} s of {ROUND_TRIP * 1000:.0f} ms round trips, {requests} requests"
    )
    assert median < seconds
