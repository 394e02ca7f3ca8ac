"""A run, and a publication, killed at each request in turn: no plan comes of the one, nothing half of the other.

`-s` shows how many that were.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from imagewright.embedded.wire import Answer
from imagewright.testing.images import layer, push
from imagewright.testing.projects import make_project
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Occasion, Vice
from tests.readers import readers_see
from tests.vicious import PLATFORMS, below, publish

PROGRAM = [sys.executable, "-c", "from imagewright.cli import run; run()"]
CHECKS = [sys.executable, "-m", "pytest", "checks/", "-q", "-p", "no:hypothesispytest", "-p", "no:timeout"]
TOOLS, BASES = ("codex", "gemini", "goose"), ("debian", "fedora", "minimal")
AT_ONCE = 3


@dataclass
class Victim:
    """A process that is killed when the registry hears from it for the nth time. writes: only requests that write count."""

    number: int
    writes: bool
    answered: bool
    process: subprocess.Popen[bytes] | None = None
    heard: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def vice(self) -> Vice:
        """What makes the registry a killer. answered: after it did what it was asked to do."""
        return Vice(name="kills", does=self._does).where(
            lambda asked: not self.writes or asked.method not in ("GET", "HEAD")
        )

    def _does(self, occasion: Occasion) -> Answer:
        with self.lock:
            self.heard += 1
            is_it = self.heard == self.number and self.process is not None
        if not is_it or self.process is None:
            return occasion.honest()
        if self.answered:
            occasion.honest()
        os.kill(self.process.pid, signal.SIGKILL)
        raise ConnectionAbortedError

    def run(self, argv: list[str], project: Path) -> int:
        """Starts it, and returns how it ended."""
        self.process = subprocess.Popen(argv, cwd=project, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return self.process.wait(timeout=60)


def each(call: Callable[[int], str], numbers: range) -> list[str]:
    """What is wrong, for each number."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return [f"{number}: {wrong}" for number, wrong in zip(numbers, pool.map(call, numbers), strict=True) if wrong]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A registry's folder: everything fresh."""
    root = tmp_path_factory.mktemp("kills") / "registry"
    with Registry(root) as registry:
        publish(registry.sink, TOOLS, BASES)
    return root


@pytest.mark.timeout(300)
def test_a_run_killed_at_any_request_is_no_plan(images: Path, tmp_path: Path) -> None:
    def killed(number: int) -> str:
        victim = Victim(number, writes=False, answered=False)
        with Registry(images, victim.vice()) as registry:
            tools = dict.fromkeys(TOOLS, "1.0")
            project = make_project(tmp_path / str(number), registry=registry.address, tools=tools, bases=BASES)
            if number == 1:  # as after a run before it
                assert subprocess.run(CHECKS, cwd=project, capture_output=True, check=False).returncode in (0, 1)
                victim.heard = 0
            ended = victim.run(CHECKS, project)
            plan = subprocess.run([*PROGRAM, "plan"], cwd=project, capture_output=True, text=True, check=False)
        if ended != -signal.SIGKILL:
            return f"it ended with {ended}"
        if plan.returncode != 50 or "Traceback" in plan.stderr:
            return f"plan ended with {plan.returncode}: {plan.stderr}"
        return "there is a plan" if (project / ".imagewright" / "plan.json").exists() else ""

    with Registry(images) as registry:
        tools = dict.fromkeys(TOOLS, "1.0")
        project = make_project(tmp_path / "whole", registry=registry.address, tools=tools, bases=BASES)
        assert subprocess.run(CHECKS, cwd=project, capture_output=True, check=False).returncode == 0
        count = len(registry.log)
    wrong = each(killed, range(1, count + 1))
    print(f"\n{count} runs killed")
    assert not wrong, "\n".join(wrong[:5])


@dataclass(frozen=True)
class Project:
    root: Path
    registry: Registry

    def run(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*PROGRAM, *arguments], cwd=self.root / "project", capture_output=True, check=False)

    def checks(self) -> int:
        return subprocess.run(CHECKS, cwd=self.root / "project", capture_output=True, check=False).returncode


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a registry and a project: version 1.0 is published and has a successor, for which there is a plan."""
    root = tmp_path_factory.mktemp("push")
    with Registry(root / "registry") as registry:
        push(registry.sink, "own/bases", ["fedora-latest"], below("fedora"))
        old = {one: picture.on_top(layer({"bin/codex": f"old {one}"})) for one, picture in below("fedora").items()}
        push(registry.sink, "own/tools", ["codex-fedora-1.0", "codex-fedora-latest"], old)
    return root


@pytest.fixture
def projects(stale: Path, tmp_path: Path) -> Callable[[int], Iterator[Project]]:
    """Copies of that folder, by number."""

    def make(number: int) -> Iterator[Project]:
        root = tmp_path / str(number)
        shutil.copytree(stale, root)
        with Registry(root / "registry") as registry:
            settings = 'builder = "copy"\n'
            make_project(
                root / "project", registry=registry.address, tools={"codex": "2.0"}, bases=["fedora"], settings=settings
            )
            yield Project(root, registry)

    return make


@pytest.mark.timeout(600)
@pytest.mark.parametrize("answered", [False, True], ids=["before the answer", "after it was done"])
def test_a_publication_killed_at_any_request_leaves_the_old_image_or_the_new_one(
    projects: Callable[[int], Iterator[Project]], answered: bool
) -> None:
    argv = [*PROGRAM, "build", "--tool", "codex", "--base", "fedora", "--push"]
    whole = f"whole, {len(PLATFORMS)} platforms"

    def killed(number: int) -> str:
        for made in projects(number):
            victim = Victim(number, writes=True, answered=answered)
            made.registry.becomes(victim.vice())
            ended = victim.run(argv, made.root / "project")
            made.registry.becomes()
            if ended != -signal.SIGKILL:
                return f"it ended with {ended}"
            seen = readers_see(made.root / "registry" / "own+tools")
            if set(seen.values()) != {whole} or not {"codex-fedora-1.0", "codex-fedora-latest"} <= set(seen):
                return f"readers see {seen}"
            made.checks()
            made.run("plan")
            built = made.run("build", "--push")
            if built.returncode or set(readers_see(made.root / "registry" / "own+tools").values()) != {whole}:
                return f"it was not repaired: {built.stderr.decode()[-500:]}"
        return ""

    for made in projects(0):
        assert subprocess.run(argv, cwd=made.root / "project", capture_output=True, check=False).returncode == 0
        count = sum(one.method not in ("GET", "HEAD") for one in made.registry.log)
    wrong = each(killed, range(1, count + 1))
    print(f"\n{count} publications killed")
    assert not wrong, "\n".join(wrong[:5])
