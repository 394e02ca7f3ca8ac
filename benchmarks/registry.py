"""The registry of a world as a process of its own, a round trip away, that counts what it is asked.

    .venv/bin/python -m benchmarks.registry FOLDER [ROUND_TRIP]

prints its address. Each line that it reads is answered with the counts since the last one, as JSON; it ends with its input.
"""

import json
import os
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Self

from imagewright.embedded.server import Seen, Server
from imagewright.testing.proxy import DelayingProxy

ROOT = Path(__file__).parents[1]


def kind(seen: Seen) -> str:
    """What was asked for: `tag`, `digest`, `config` (any blob), `list`, `canary` or `other`."""
    path = seen.target.partition("?")[0]
    if path.endswith("/tags/list"):
        return "list"
    if "/blobs/" in path:
        return "config"
    if "/manifests/" not in path:
        return "other"
    reference = path.rpartition("/")[2]
    if reference.startswith("imagewright-canary"):
        return "canary"
    return "digest" if ":" in reference else "tag"


class Away:
    """The same as seen from another process. round_trip: in seconds."""

    def __init__(self, folder: Path, round_trip: float = 0) -> None:
        argv = [sys.executable, "-m", "benchmarks.registry"]
        pipes = {"cwd": ROOT, "stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._server = subprocess.Popen([*argv, str(folder)], **pipes)
        self.near = self._said(self._server)
        self._proxy = None
        self.address = self.near
        if round_trip:
            self._proxy = subprocess.Popen([*argv, self.near, str(round_trip)], **pipes)
            self.address = self._said(self._proxy)

    def counts(self) -> Counter[str]:
        """What was asked since the last call."""
        self._server.stdin.write("\n")
        self._server.stdin.flush()
        return Counter(json.loads(self._said(self._server)))

    def _said(self, process: subprocess.Popen[str]) -> str:
        line = process.stdout.readline().strip()
        assert line, "the registry ended"
        return line

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in (self._proxy, self._server):
            if process:
                process.stdin.close()
                process.wait(timeout=20)


def _serve(folder: Path) -> None:
    counted: Counter[str] = Counter()
    lock = threading.Lock()

    def count(seen: Seen) -> None:
        with lock:
            counted[kind(seen)] += 1

    with Server(folder, sparse=True, on_request=count) as server:
        print(server.address, flush=True)
        while sys.stdin.readline():
            with lock:
                print(json.dumps(counted), flush=True)
                counted.clear()


def _delay(target: str, round_trip: float) -> None:
    with DelayingProxy(target, round_trip=round_trip) as proxy:
        print(proxy.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    if len(sys.argv) > 2:
        _delay(sys.argv[1], float(sys.argv[2]))
    else:
        _serve(Path(sys.argv[1]))
    os._exit(0)
