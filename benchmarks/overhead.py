"""What `imagewright`'s builder costs on top of `buildctl`: the same build through both, in turns, against one daemon.

    .venv/bin/python benchmarks/overhead.py [ROUNDS]

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


def main(rounds: int) -> None:
    """Measures and prints."""
    said = subprocess.run([ROOT / "scripts/setup-engines", "--where"], check=True, capture_output=True, text=True)
    engines = Path(said.stdout.strip())
    env = {"PATH": f"{engines}/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    with tempfile.TemporaryDirectory() as folder, buildkitd(env) as address:
        request = _request(Path(folder), engines)
        _plain(request, address, env, Path(folder, "first"))
        for name, asked in {"cold": replace(request, no_cache=True), "cached": request}.items():
            ours, theirs = [], []
            for turn in range(rounds):
                into = Path(folder, f"{name}-{turn}")
                theirs.append(_seconds(partial(_plain, asked, address, env, into / "plain")))
                ours.append(_seconds(partial(_built, asked, address, env, into / "built")))
            own, plain = statistics.median(ours), statistics.median(theirs)
            print(f"{name:<7} buildctl {plain:.3f}  imagewright {own:.3f}  on top {own - plain:+.3f}")


def _request(folder: Path, engines: Path) -> BuildRequest:
    """An image with a shell, a step that runs and a few hundred files."""
    context = folder / "tool"
    (context / "files").mkdir(parents=True)
    for number in range(300):
        (context / "files" / str(number)).write_text(f"{number}\n" * 100)
    (context / "busybox").write_bytes((engines / "base/amd64/busybox").read_bytes())
    (context / "busybox").chmod(0o755)
    (context / "Dockerfile").write_text(
        'FROM scratch\nCOPY busybox /bin/sh\nCOPY files /opt/files\nRUN ["/bin/sh", "-c", "echo made >/opt/made"]\n'
    )
    return BuildRequest(
        target="codex-fedora",
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


def _seconds(work: Callable[[], None]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
