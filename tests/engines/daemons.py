"""A real registry and a real builder, each for as long as a `with` block lasts. Both listen on this machine only."""

import re
import shutil
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

Answer = TypeVar("Answer")

START_SECONDS = 20
STOP_SECONDS = 20

REGISTRY_CONFIG = """\
version: 0.1
log: {{level: info, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: {root}}}
  delete: {{enabled: true}}
http: {{addr: "127.0.0.1:0"}}
"""

BUILDKIT_CONFIG = """\
root = "{root}/root"
[otel]
  socketPath = "{root}/otel.sock"
[grpc]
  address = ["unix://{root}/buildkitd.sock"]
[worker.oci]
  enabled = true
  snapshotter = "{snapshotter}"
  networkMode = "host"
  gc = false
[worker.containerd]
  enabled = false
"""


class NotReady(Exception):
    """A daemon ended, or did not answer in time; the message ends with the last lines it wrote."""


@contextmanager
def docker_registry(engine_bin: Path) -> Iterator[str]:
    """`host:port` of an empty Debian docker-registry that allows deleting by digest."""
    with scratch_folder("registry") as root:
        config, log = root / "config.yml", root / "log"
        config.write_text(REGISTRY_CONFIG.format(root=root / "storage"))
        with _running([str(engine_bin / "docker-registry"), "serve", str(config)], log) as process:
            address = _wait(process, log, lambda: _listening_address(log))
            _wait(process, log, lambda: _answers(f"http://{address}/v2/"))
            yield address


@contextmanager
def buildkit_daemon(engine_bin: Path) -> Iterator[str]:
    """`unix://…` of a buildkitd with an empty cache.

    It speaks plain HTTP to registries on the loopback without being told; any other would need a [registry] entry.
    """
    with scratch_folder("buildkit") as root:
        log = root / "log"
        snapshotter = "overlayfs" if _overlay_mounts(root) else "native"
        config, address = root / "buildkitd.toml", f"unix://{root}/buildkitd.sock"
        config.write_text(BUILDKIT_CONFIG.format(root=root, snapshotter=snapshotter))
        ask = [str(engine_bin / "buildctl"), "--addr", address, "debug", "workers"]
        with _running([str(engine_bin / "buildkitd"), "--config", str(config)], log) as process:
            _wait(process, log, lambda: subprocess.run(ask, capture_output=True, check=False).returncode == 0)
            yield address


@contextmanager
def _running(argv: Sequence[str], log: Path) -> Iterator[subprocess.Popen[str]]:
    """Runs a daemon for as long as the block lasts, and not longer than this process."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", *argv], stdin=subprocess.DEVNULL, stdout=output, stderr=output, text=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[str], log: Path, question: Callable[[], Answer]) -> Answer:
    """Asks until the answer is something true; `NotReady` if the daemon ends or takes too long."""
    last_moment = time.monotonic() + START_SECONDS
    while not (answer := question()):
        if process.poll() is not None or time.monotonic() > last_moment:
            story = "\n".join(log.read_text(errors="replace").splitlines()[-10:])
            raise NotReady(f"{log.parent.name} did not start within {START_SECONDS} s:\n{story}")
        time.sleep(0.02)
    return answer


@contextmanager
def scratch_folder(name: str) -> Iterator[Path]:
    """A folder with a short path, as sockets allow about 100 bytes; removed with what a cut-off build left mounted."""
    root = Path(tempfile.mkdtemp(prefix=f"iw-{name}-", dir="/tmp"))
    try:
        yield root
    finally:
        mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
        for place in reversed([place for place in mounts if place.startswith(f"{root}/")]):
            subprocess.run(["umount", "--lazy", place], check=False)
        subprocess.run(["rm", "-rf", "--one-file-system", str(root)], check=False)


def _overlay_mounts(root: Path) -> bool:
    """Whether an overlay can be mounted below `root`: on top of another overlay, for one, it cannot."""
    layers = [root / "probe" / name for name in ("lower", "upper", "work", "merged")]
    for folder in layers:
        folder.mkdir(parents=True)
    lower, upper, work, merged = layers
    options = f"lowerdir={lower},upperdir={upper},workdir={work}"
    mounted = subprocess.run(
        ["mount", "-t", "overlay", "overlay", "-o", options, str(merged)], capture_output=True, check=False
    )
    if mounted.returncode == 0:
        subprocess.run(["umount", str(merged)], check=True)
    shutil.rmtree(root / "probe")
    return mounted.returncode == 0


def _listening_address(log: Path) -> str:
    found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
    return found[1] if found else ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # it has bound its port and does not serve yet
        return False
