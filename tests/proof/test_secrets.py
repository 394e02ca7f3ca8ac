"""Everything is done with secrets that nothing else looks like, with failures provoked; then they are searched for.

They may stand in three places: the files and the helper that they come from, and the requests to the host that they are for.
"""

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from imagewright.testing import vices
from imagewright.testing.logins import Basic, Bearer
from imagewright.testing.projects import make_project
from imagewright.testing.registry import Registry
from tests.vicious import publish

PROGRAM = [sys.executable, "-c", "from imagewright.cli import run; run()"]
PASSWORD, HELPED, TOKEN, PROXY, CLOUD = (
    f"CANARY-{name}/+=-" for name in ("password", "helper", "forge", "proxy", "cloud")
)
LOGIN = Bearer(user="robot", secret=PASSWORD)


def forms(secret: str) -> set[str]:
    """The ways in which a secret may be written."""
    pair = f"robot:{secret}"
    return {
        secret,
        quote(secret),
        quote(secret, safe=""),
        json.dumps(secret)[1:-1],
        *(base64.b64encode(text.encode()).decode().rstrip("=") for text in (secret, pair)),
        *(base64.urlsafe_b64encode(text.encode()).decode().rstrip("=") for text in (secret, pair)),
    }


@dataclass
class Watch:
    """What processes showed of themselves while they ran: command lines, and environments of scripts."""

    marks: set[str]
    found: list[str] = field(default_factory=list)
    looks: int = 0
    ended: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        """Looks at all processes of this machine, again and again."""
        while not self.ended.is_set():
            self.looks += 1
            for one in Path("/proc").iterdir():
                if one.name.isdecimal() and int(one.name) != os.getpid():
                    self.look(one)
            time.sleep(0.005)

    def look(self, process: Path) -> None:
        """Looks at one."""
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            environment = (process / "environ").read_bytes().decode("utf-8", "replace")
        except OSError:  # it has just ended
            return
        if any(mark in command for mark in self.marks):
            self.found.append(command)
        if "version.sh" in command and any(mark in environment for mark in self.marks):
            self.found.append(f"the environment of {command}")


@dataclass(frozen=True)
class World:
    root: Path
    project: Path
    registry: Registry
    other: Registry
    stranger: Registry
    environ: dict[str, str]
    said: list[str]

    def run(self, *arguments: str, checks: Sequence[str] = ()) -> int:
        """A command, or the checks; what it says is kept."""
        argv = [*PROGRAM, *arguments] if arguments else [sys.executable, "-m", "pytest", "checks/", *checks]
        ran = subprocess.run(argv, cwd=self.project, env=self.environ, capture_output=True, text=True, check=False)
        self.said.append(f"$ {' '.join(argv[1:])}\n{ran.stdout}\n{ran.stderr}")
        return ran.returncode


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    home, programs = tmp_path / "home", tmp_path / "programs"
    (home / ".docker").mkdir(parents=True)
    programs.mkdir()
    helper = programs / "docker-credential-canary"
    helper.write_text(f"""#!/bin/sh\nread host; echo '{{"Username": "robot", "Secret": "{HELPED}"}}'\n""")
    helper.chmod(0o755)
    with (
        Registry(tmp_path / "registry", login=LOGIN) as registry,
        Registry(tmp_path / "bases", login=Basic(user="robot", secret=HELPED)) as other,
        Registry(tmp_path / "stranger", host="127.0.0.2") as stranger,
    ):
        publish(registry.sink, ["codex"], ["fedora"])
        publish(other.sink, ["codex"], ["fedora"])
        auths = {registry.address: {"auth": LOGIN.encoded}, "ghcr.io": {"auth": LOGIN.encoded}}
        config = {"auths": auths, "credHelpers": {other.address: "canary"}}
        (home / ".docker" / "config.json").write_text(json.dumps(config))
        settings = f'[bases]\nrepository = "own/bases"\nregistry = "{other.address}"\nnames = ["fedora"]\n'
        project = make_project(
            tmp_path / "project", registry=registry.address, tools={"codex": "1.0", "crush": "2.0"}, bases=["fedora"]
        )
        file = project / "imagewright.toml"
        head = file.read_text().partition("[bases]")[0]
        file.write_text(head.replace("bootstrap = true", 'bootstrap = true\nbuilder = "copy"') + settings)
        steals = f"env >&2\ncat ~/.docker/config.json {home}/.docker/config.json /proc/*/environ >&2"
        (project / "tools" / "crush" / "version.sh").write_text(f"{steals}\necho 2.0\n")
        environ = {
            "PATH": f"{programs}:{os.defpath}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "GH_TOKEN": TOKEN,
            "GITHUB_TOKEN": TOKEN,
            "IMAGEWRIGHT_FORGE_TOKEN": TOKEN,
            "AWS_SECRET_ACCESS_KEY": CLOUD,
            "HTTPS_PROXY": f"http://robot:{quote(PROXY, safe='')}@127.0.0.1:1",
        }
        yield World(tmp_path, project, registry, other, stranger, environ, [])


@pytest.mark.timeout(300)
def test_no_secret_is_found_anywhere(world: World) -> None:
    secrets = (PASSWORD, HELPED, TOKEN, PROXY, CLOUD)
    marks = set().union(*map(forms, secrets))
    watch = Watch(marks)
    watching = threading.Thread(target=watch.run, daemon=True)
    watching.start()
    loud = ["-vv", "--showlocals", "--tb=long", "-rA", "--setup-show"]
    broken = world.project / "checks" / "test_broken.py"

    assert world.run(checks=loud) == 1  # crush is missing
    assert world.run("plan", "--json") == 10
    assert world.run("versions", "--json") == 0
    assert world.run("build", "--push", "--json") == 0
    assert world.run(checks=loud) == 0
    assert world.run("explain", "codex-fedora") == 0
    assert world.run("explain", "crush-fedora", "--fresh", "--json") == 0
    assert world.run("matrix", "--html", "m.html") == 0
    world.run("doctor", "--json")
    world.run("publish", "codex-fedora", "--digest", f"linux/amd64=sha256:{'0' * 64}")
    for vice in (
        vices.refuses(403),
        vices.answers(500, b"echo"),
        vices.is_overloaded(503, "600"),
        vices.hangs_up(),
        vices.redirects(f"http://{world.stranger.address}{{target}}"),
        vices.redirects(f"https://{world.stranger.address}{{target}}"),
        vices.challenges(f'Bearer realm="http://{world.stranger.address}/token",service="x"'),
        vices.serves_a_login_page(),
    ):
        world.registry.becomes(vice)
        assert world.run(checks=loud) == 1
        world.run("build", "--tool", "codex", "--base", "fedora", "--push", "--json")
    world.registry.becomes()
    broken.write_text(
        "def test_broken(target, base, run):\n    asked = run.asked\n    client = asked.connect()\n    1 / 0\n"
    )
    assert world.run(checks=[*loud, "-n", "2"]) == 1
    assert world.run(checks=loud) == 1
    watch.ended.set()
    watching.join()

    assert {f"Basic {LOGIN.encoded}"} <= {one.authorization for one in world.registry.log if one.kind == "token"}
    assert any(one.authorization.startswith("Basic ") for one in world.other.log)
    tokens = {one.authorization.removeprefix("Bearer ") for one in world.registry.log if one.kind != "token"} - {""}
    assert tokens
    sought = marks | tokens
    files = [one for one in world.root.rglob("*") if one.is_file()]
    sources = {world.root / "home" / ".docker" / "config.json", world.root / "programs" / "docker-credential-canary"}
    print(
        f"\n{len(world.said)} commands, {len(files)} files, {watch.looks} looks at all processes, {len(sought)} forms sought"
    )
    assert [text[:200] for text in world.said if any(one in text for one in sought)] == []
    written = [one for one in files if one not in sources and any(mark.encode() in one.read_bytes() for mark in sought)]
    assert written == []
    assert watch.found == []
    assert world.stranger.log == ()
    password = forms(PASSWORD) | tokens
    assert [one for one in world.other.log if any(mark in one.authorization for mark in password)] == []
    helped = forms(HELPED)
    assert [one for one in world.registry.log if any(mark in one.authorization for mark in helped)] == []
