"""Real registries, builders and stores, each for as long as a `with` block lasts. All listen on this machine only."""

import json
import os
import re
import shutil
import socket
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
log: {{level: info, accesslog: {{disabled: {quiet}}}}}
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
  address = ["{address}"]
[worker.oci]
  enabled = true
  rootless = {rootless}
  snapshotter = "{snapshotter}"
  networkMode = "host"
  gc = false
[worker.containerd]
  enabled = false
"""

ROOTLESS_USER = "imagewright-test"

S3_ACCESS_KEY = "imagewright"
S3_SECRET_KEY = "not-a-secret"
S3_REGION = "us-east-1"
S3_BUCKET = "cache"


class NotReady(Exception):
    """A daemon ended, or did not answer in time; the message ends with the last lines it wrote."""


@contextmanager
def docker_registry(engine_bin: Path, access_log: Path | None = None) -> Iterator[str]:
    """`host:port` of an empty Debian docker-registry that allows deleting by digest.

    access_log: gets a line for each request, among others.
    """
    with scratch_folder("registry") as root:
        config, log = root / "config.yml", access_log or root / "log"
        quiet = "false" if access_log else "true"
        config.write_text(REGISTRY_CONFIG.format(root=root / "storage", quiet=quiet))
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
        with _buildkit(engine_bin, root, f"unix://{root}/buildkitd.sock") as address:
            yield address


@contextmanager
def tcp_buildkit_daemon(engine_bin: Path) -> Iterator[str]:
    """`tcp://127.0.0.1:port` of a buildkitd with an empty cache: a builder as one on another machine is reached."""
    with scratch_folder("buildkit-tcp") as root:
        with _buildkit(engine_bin, root, f"tcp://127.0.0.1:{free_port()}") as address:
            yield address


@contextmanager
def rootless_buildkit_daemon(engine_bin: Path) -> Iterator[str]:
    """`unix://…` of a buildkitd with an empty cache that is run by a user who may nothing.

    RUN steps see the network of this machine.
    """
    with scratch_folder("rootless") as root:
        # What root has in its home is not for others, programs included.
        shutil.copy(engine_bin / "buildkitd", root)
        shutil.chown(root, ROOTLESS_USER, ROOTLESS_USER)
        identity = [f"--reuid={ROOTLESS_USER}", f"--regid={ROOTLESS_USER}", "--clear-groups"]
        start = ["env", f"HOME={root}", f"USER={ROOTLESS_USER}", f"XDG_RUNTIME_DIR={root}"]
        start += ["rootlesskit", f"--state-dir={root}/rootlesskit", str(root / "buildkitd")]
        with _buildkit(engine_bin, root, f"unix://{root}/buildkitd.sock", start=start, identity=identity) as address:
            yield address


@contextmanager
def docker_daemon(engine_bin: Path, *, bridge: str = "none") -> Iterator[str]:
    """`unix://…` of Debian's dockerd with nothing in it; its containers have the network of this machine, or none.

    It leaves this machine's firewall and settings alone, and speaks plain HTTP to registries on the loopback. RUN in a
    BuildKit build there needs a bridge.
    """
    programs = (engine_bin / "dockerd").resolve().parent
    with scratch_folder("docker") as root:
        config, log, address = root / "daemon.json", root / "log", f"unix://{root}/docker.sock"
        settings: dict[str, object] = {"hosts": [address], "deprecated-key-path": f"{root}/key.json"}
        settings |= {"data-root": f"{root}/data", "exec-root": f"{root}/exec", "pidfile": f"{root}/pid"}
        settings |= {"bridge": bridge, "iptables": False, "ip-forward": False}
        config.write_text(json.dumps(settings))
        start = ["env", f"PATH={programs}:{os.environ['PATH']}", "dockerd", f"--config-file={config}"]
        ask = [str(programs / "docker"), f"--host={address}", "version"]
        with _running(start, log) as process:
            _wait(process, log, lambda: _succeeds(ask))
            yield address


@contextmanager
def network_bridge() -> Iterator[str]:
    """The name of a bridge of this machine that leads nowhere."""
    name = f"iw{os.getpid()}"
    subprocess.run(["ip", "link", "add", name, "type", "bridge"], check=True)
    try:
        address = f"10.{os.getpid() // 256 % 256}.{os.getpid() % 256}.1/24"
        subprocess.run(["ip", "address", "add", address, "dev", name], check=True)
        subprocess.run(["ip", "link", "set", name, "up"], check=True)
        yield name
    finally:
        subprocess.run(["ip", "link", "delete", name], check=True)


@contextmanager
def s3_server(engine_bin: Path) -> Iterator[str]:
    """`http://127.0.0.1:port` of an S3 store that has one bucket, S3_BUCKET, and takes S3_ACCESS_KEY only."""
    with scratch_folder("s3") as root:
        log, address = root / "log", f"127.0.0.1:{free_port()}"
        (root / "store" / S3_BUCKET).mkdir(parents=True)
        start = ["env", f"ROOT_ACCESS_KEY={S3_ACCESS_KEY}", f"ROOT_SECRET_KEY={S3_SECRET_KEY}"]
        start += [str(engine_bin / "versitygw"), f"--port={address}", f"--region={S3_REGION}", "--health=/health"]
        with _running([*start, "posix", str(root / "store")], log) as process:
            _wait(process, log, lambda: _answers(f"http://{address}/health"))
            yield f"http://{address}"


@contextmanager
def _buildkit(
    engine_bin: Path, root: Path, address: str, *, start: Sequence[str] = (), identity: Sequence[str] = ()
) -> Iterator[str]:
    """The address, once a buildkitd that keeps everything in `root` answers there."""
    log, config = root / "log", root / "buildkitd.toml"
    snapshotter = "overlayfs" if _overlay_mounts(root) else "native"
    rootless = "true" if identity else "false"
    config.write_text(BUILDKIT_CONFIG.format(root=root, address=address, snapshotter=snapshotter, rootless=rootless))
    ask = [str(engine_bin / "buildctl"), "--addr", address, "debug", "workers"]
    start = start or [str(engine_bin / "buildkitd")]
    with _running([*start, "--config", str(config)], log, identity=identity) as process:
        _wait(process, log, lambda: _succeeds(ask))
        yield address


@contextmanager
def _running(argv: Sequence[str], log: Path, *, identity: Sequence[str] = ()) -> Iterator[subprocess.Popen[str]]:
    """Runs a daemon for as long as the block lasts, and not longer than this process; `identity`: as setpriv says it."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", *identity, "--pdeathsig", "TERM", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            text=True,
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


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _succeeds(argv: Sequence[str]) -> bool:
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _listening_address(log: Path) -> str:
    found = re.search(r"listening on (127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
    return found[1] if found else ""


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:  # it has bound its port and does not serve yet
        return False
