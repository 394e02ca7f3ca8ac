"""How long a run of 400 pairs takes whose registry is down: it ends as soon as that is known, and is never green."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from imagewright.embedded.server import Server
from imagewright.embedded.wire import Answer
from imagewright.testing.projects import make_project

TOOLS, BASES = [f"t{at}" for at in range(20)], [f"b{at}" for at in range(20)]
LIMITS = "[limits]\nconnect = 2\nread = 3\ntotal = 12\n"


@contextmanager
def refusing(root: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        address = closed.getsockname()
    yield f"{address[0]}:{address[1]}"


@contextmanager
def overloaded(root: Path) -> Iterator[str]:
    with Server(root / "registry", middleware=lambda request, honest: Answer(status=503)) as server:
        yield server.address


@contextmanager
def silent(root: Path) -> Iterator[str]:
    """Takes every connection and says nothing."""
    taken: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:

        def take() -> None:
            while True:
                try:
                    taken.append(listener.accept()[0])
                except OSError:  # closed: the test is over
                    return

        threading.Thread(target=take, daemon=True).start()
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    for one in taken:
        one.close()


@pytest.mark.parametrize("discover", [True, False], ids=["bases discovered", "bases named"])
@pytest.mark.parametrize(
    ("host", "settings", "seconds", "reason"),
    [
        (refusing, "", 10, "network"),
        (overloaded, "", 10, "registry-unavailable"),
        (silent, LIMITS, 20, "timeout"),
    ],
    ids=["refuses", "answers 503", "is silent"],
)
def test_a_run_ends_soon_after_its_registry_is_down(
    tmp_path: Path,
    host: Callable[[Path], Iterator[str]],
    settings: str,
    seconds: float,
    reason: str,
    discover: bool,
    request: pytest.FixtureRequest,
) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("IMAGEWRIGHT_", "PYTEST_"))}
    with host(tmp_path) as address:  # type: ignore[attr-defined]
        project = make_project(
            tmp_path / "project",
            registry=address,
            tools=dict.fromkeys(TOOLS, "1.0.0"),
            bases=() if discover else BASES,
            settings=settings,
        )
        began = time.monotonic()
        ran = subprocess.run(
            [sys.executable, "-m", "pytest", "checks/", "-q", "-p", "no:hypothesispytest", "-p", "no:timeout"],
            cwd=project,
            env=environ,
            capture_output=True,
            check=False,
        )
        took = time.monotonic() - began
    section = json.loads((project / ".imagewright" / "report.json").read_bytes())["imagewright"]
    print(f"\n{request.node.callspec.id}: {took:.1f} s for {len(section['expected'])} targets")
    assert ran.returncode == 1
    assert {one["verdict"] for one in section["verdicts"]} == {"unknown"}
    assert discover or len(section["verdicts"]) == 400
    assert discover or any(f"questions open, {reason}: " in one for one in section["warnings"])
    assert took < seconds
