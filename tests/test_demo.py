"""`imagewright demo` as whoever tries it sees it."""

import os
import subprocess
import sys
from pathlib import Path

_ONLY_LOOPBACK = """
import socket, sys

def connect(self, address, connect=socket.socket.connect):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
        print("STRANGER", address, file=sys.stderr)
        raise OSError("no network here")
    return connect(self, address)

def getaddrinfo(host, *rest, getaddrinfo=socket.getaddrinfo, **named):
    if host not in ("127.0.0.1", "::1", "localhost"):
        print("STRANGER", host, file=sys.stderr)
        raise socket.gaierror(socket.EAI_NONAME, "no network here")
    return getaddrinfo(host, *rest, **named)

socket.socket.connect = connect
socket.getaddrinfo = getaddrinfo
"""
"""Loaded by every Python of the demo before anything else: it says who asks for another machine, and refuses."""


def test_the_demo_tells_its_story_within_a_minute_and_leaves_nothing(tmp_path: Path) -> None:
    places = {name: tmp_path / name for name in ("tmp", "home", "work", "site")}
    for place in places.values():
        place.mkdir()
    (places["site"] / "sitecustomize.py").write_text(_ONLY_LOOPBACK)
    environ = {
        "PATH": os.environ["PATH"],
        "TMPDIR": str(places["tmp"]),
        "HOME": str(places["home"]),
        "PYTHONPATH": str(places["site"]),
        "IMAGEWRIGHT_REGISTRY": "elsewhere.example",  # a person's own settings do not disturb it
    }

    ran = subprocess.run(
        [sys.executable, "-c", "from imagewright.cli import run; run()", "demo"],
        cwd=places["work"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (ran.returncode, ran.stderr) == (0, "")
    assert "STRANGER" not in ran.stdout
    commands = [line for line in ran.stdout.splitlines() if line.startswith("$ ")]
    loop = ["$ imagewright plan", "$ imagewright build .imagewright/plan.json --push", "$ pytest checks/ -q"]
    explained = "$ imagewright explain lantern-harbour"
    assert commands == ["$ pytest checks/ -q", *loop, "$ pytest checks/ -q --fresh", explained, *loop]
    assert "6 targets: 0 fresh, 6 stale, 0 unknown\n" in ran.stdout
    assert "6 targets: 1 fresh, 5 stale, 0 unknown\n" in ran.stdout
    assert ran.stdout.count("6 targets: 6 fresh, 0 stale, 0 unknown\n") == 2
    assert ran.stdout.splitlines()[-4] == "Try next, in your own project (settings: docs/settings.md):"
    assert [list(places[name].iterdir()) for name in ("tmp", "home", "work")] == [[], [], []]
