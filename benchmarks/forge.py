"""Two ticks of plan.yml on a forge of this machine, with 56 pairs: all of them fresh, then one base rebuilt.

    .venv/bin/python -m benchmarks.forge

It needs what scripts/setup-engines installs, and root. Prints how long each tick took, from the push that started it to
the end of its run, of which each job; the rest is the push, and waiting for the runner. And what imagewright asked the
forge's API and the registry meanwhile, as their own logs have it. What the second tick asks for is not built.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from imagewright.testing.projects import make_project
from tests.engines.daemons import docker_registry
from tests.engines.maintainer import Maintainer, at_work

ROOT = Path(__file__).parents[1]
TOOLS = ("anvil", "bellows", "chisel", "drill", "easel", "file", "gauge")
BASES = ("ash", "beech", "cedar", "elm", "fir", "hazel", "larch", "maple")
AGENT = "imagewright"


def main() -> None:
    """Measures and prints."""
    said = subprocess.run([ROOT / "scripts/setup-engines", "--where"], check=True, capture_output=True, text=True)
    engines = Path(said.stdout.strip())
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "registry.log")
        with docker_registry(engines / "bin", log) as registry, at_work(engines, registry, Path(folder)) as maintainer:
            _publish(maintainer)
            _measure(f"{len(TOOLS) * len(BASES)} fresh pairs", maintainer, log, 1)
            maintainer.rebuild(BASES[0], "2026-02")
            _measure(f"{BASES[0]} rebuilt", maintainer, log, 2)


def _publish(maintainer: Maintainer) -> None:
    """A project in which everything is fresh."""
    for base in BASES:
        maintainer.rebuild(base, "2026-01")
    tools = dict.fromkeys(TOOLS, "1.0")
    make_project(maintainer.project, registry=maintainer.registry, tools=tools, settings='builder = "copy"')
    maintainer.add_workflows()
    # What the ticks ask for finds no machine, so that what is counted is theirs alone.
    build = maintainer.project / ".github" / "workflows" / "build.yml"
    build.write_text(re.sub("runs-on: .*", "runs-on: nowhere", build.read_text()))
    maintainer.commit("begin")
    imagewright = Path(sys.executable).with_name("imagewright")
    for code, argv in (
        (1, [sys.executable, "-m", "pytest", "checks/", "-q"]),
        (10, [imagewright, "plan"]),
        (0, [imagewright, "build", ".imagewright/plan.json", "--push"]),
        (0, [sys.executable, "-m", "pytest", "checks/", "-q"]),
    ):
        ended = subprocess.run(argv, cwd=maintainer.project, capture_output=True, text=True, check=False)
        if ended.returncode != code:
            sys.exit(f"{argv} ended with {ended.returncode}:\n{ended.stdout}{ended.stderr}")


def _measure(title: str, maintainer: Maintainer, log: Path, number: int) -> None:
    forge_before, registry_before = len(maintainer.forge.heard(AGENT)), len(_heard(log))
    began = time.perf_counter()
    maintainer.tag(f"v{number}")
    run = maintainer.ended("plan.yml", number)[0]
    wall = time.perf_counter() - began
    forge, registry = maintainer.forge.heard(AGENT)[forge_before:], _heard(log)[registry_before:]
    jobs = _jobs(maintainer.told(run))
    took = ", ".join(f"{name} {seconds:.1f}" for name, seconds in jobs.items())
    own = _seconds(run["started_at"], run["completed_at"])
    print(f"{title}: {run['conclusion']}, {wall:.1f} s from the push to the end; {own:.0f} s, says the forge")
    print(f"  jobs      {took}, the rest {wall - sum(jobs.values()):.1f}")
    print(f"  forge     {_counted(map(_without_place, forge))}")
    print(f"  registry  {_counted(registry)}")


def _jobs(log: str) -> dict[str, float]:
    """How many seconds each job had a runner, by its first line and its last; Gitea skips jobs there, too."""
    parts = re.split(r"^--- (.+): .*$", log, flags=re.MULTILINE)
    moments = {
        name: re.findall(r"^(\d{4}-\S+Z) ", text, re.MULTILINE)
        for name, text in zip(parts[1::2], parts[2::2], strict=True)
    }
    return {name: _seconds(each[0], each[-1]) for name, each in moments.items() if each}


def _without_place(request: str) -> str:
    """`GET /api/v1/repos/own/images/actions/runs?page=1` → `GET runs`."""
    return f"{request.partition(' ')[0]} {request.partition('/actions/')[2].partition('?')[0]}"


def _heard(log: Path) -> list[str]:
    """What imagewright asked the registry, each as method and kind."""
    found = re.findall(rf'"([A-Z]+) /v2/(\S*) HTTP/[^"]*".* "{AGENT}"$', log.read_text(), re.MULTILINE)
    return [f"{method} {_kind(path)}" for method, path in found]


def _kind(path: str) -> str:
    return next((one for one in ("manifests", "blobs", "tags") if f"/{one}/" in path), "ping")


def _counted(requests: Iterable[str]) -> str:
    counts = Counter(requests)
    parts = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return f"{counts.total()} requests: {parts}" if parts else "no request"


def _seconds(began: str, ended: str) -> float:
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()


if __name__ == "__main__":
    main()
