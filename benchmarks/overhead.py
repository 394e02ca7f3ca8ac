"""What imagewright costs on top of `buildctl`: the same build, in turns, against one daemon: plain, builder, whole command.

    .venv/bin/python -m benchmarks.overhead [ROUNDS]

It needs what scripts/setup-engines installs, and root. Prints medians and their difference, in seconds, for a build of
which nothing is cached and for one of which everything is. Each round asks a new builder, as a new process would.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from imagewright.builders import BuildRequest
from imagewright.builders.buildkit import BuildKit, buildctl_arguments
from imagewright.builders.daemon import buildkitd
from imagewright.names import Platform

ROOT = Path(__file__).parents[1]
ROUNDS = 9


def measure(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """`cold` and `cached` → way → seconds, the median."""
    said = subprocess.run([ROOT / "scripts/setup-engines", "--where"], check=True, capture_output=True, text=True)
    engines = Path(said.stdout.strip())
    env = {"PATH": f"{engines}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"}
    medians = {}
    with tempfile.TemporaryDirectory() as folder, buildkitd(env) as address:
        request = _request(Path(folder), engines)
        _plain(request, address, env, Path(folder, "first"))
        for name, asked in {"cold": replace(request, no_cache=True), "cached": request}.items():
            took: dict[str, list[float]] = {}
            for turn in range(rounds):
                into = Path(folder, f"{name}-{turn}")
                ways = {
                    "buildctl": partial(_plain, asked, address, env, into / "plain"),
                    "builder": partial(_built, asked, address, env, into / "built"),
                    "imagewright build": partial(_commanded, asked, address, env),
                }
                for way, work in ways.items():
                    took.setdefault(way, []).append(_seconds(work))
            medians[name] = {way: statistics.median(each) for way, each in took.items()}
    return medians


def _request(folder: Path, engines: Path) -> BuildRequest:
    """An image with a shell, a step that runs and a few hundred files."""
    context = folder / "project" / "images" / "bench"
    (context / "files").mkdir(parents=True)
    for number in range(300):
        (context / "files" / str(number)).write_text(f"{number}\n" * 100)
    (context / "busybox").write_bytes((engines / "base/amd64/busybox").read_bytes())
    (context / "busybox").chmod(0o755)
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/sh\nCOPY files /opt/files\nRUN ["/bin/sh", "-c", "echo made >/opt/made"]\n'
    )
    (context / "image.yml").write_text("version: 1.2.3\nplatforms: [linux/amd64]\n")
    (context / ".dockerignore").write_text("image.yml\n")
    (folder / "project" / "imagewright.toml").write_text('builder = "buildkit"\n[images]\nrepository = "own/images"\n')
    return BuildRequest(
        target="bench",
        context=context,
        dockerfile=context / "Dockerfile",
        base=None,
        platforms=(Platform("linux", "amd64"),),
        arguments={"TOOL_VERSION": "1.2.3"},
        labels={"org.opencontainers.image.version": "1.2.3"},
        annotations={"org.opencontainers.image.version": "1.2.3"},
        epoch=1_700_000_000,
    )


def _plain(request: BuildRequest, address: str, env: Mapping[str, str], into: Path) -> None:
    argv = ["buildctl", "--addr", address, *buildctl_arguments(request, into, into.parent, print)]
    subprocess.run(argv, env=env, check=True, capture_output=True)


def _built(request: BuildRequest, address: str, env: Mapping[str, str], into: Path) -> None:
    builder = BuildKit(address, env)
    if reason := builder.unable(request):
        sys.exit(reason)
    builder.build(request, into, lambda _: None)


def _commanded(request: BuildRequest, address: str, env: Mapping[str, str]) -> None:
    """The same as a person would: settings, catalogue, recipe, labels and the look at the result included."""
    argv = [Path(sys.executable).with_name("imagewright"), "build", "--target", request.target]
    argv += ["--no-cache"] if request.no_cache else []
    project = request.context.parents[1]
    subprocess.run(argv, cwd=project, env={**env, "BUILDKIT_HOST": address}, check=True, capture_output=True)


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    for name, median in measure(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS).items():
        told = [f"{way} {median[way]:.3f} ({median[way] - median['buildctl']:+.3f})" for way in list(median)[1:]]
        print(f"{name:<7} buildctl {median['buildctl']:.3f}  {'  '.join(told)}")
