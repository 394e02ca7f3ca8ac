"""A BuildKit of our own, for as long as it is needed, and what can be asked of any."""

import json
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from imagewright import process
from imagewright.builders.progress import SHOWN_LINES, clean, indented
from imagewright.errors import BuildFailed
from imagewright.names import Platform

_QUESTION_SECONDS = 20.0
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


@contextmanager
def buildkitd(env: Mapping[str, str], *, plain_http: Collection[str] = ()) -> Iterator[str]:
    """The address of a buildkitd that lives as long as the block, with an empty cache. Needs root, runc and Linux.

    plain_http: registries (`host:port`) that are spoken to without TLS. `BuildFailed` where it does not start.
    """
    # A socket's path has at most 107 bytes, so not wherever TMPDIR points.
    folder = Path(tempfile.mkdtemp(prefix="imagewright-", dir="/tmp"))
    try:
        address = f"unix://{folder}/buildkitd.sock"
        config, log = folder / "buildkitd.toml", folder / "log"
        config.write_text(_configuration(folder, address, plain_http))
        try:
            with process.running(
                ["buildkitd", "--config", str(config)], env=env, output=log, grace=_STOP_SECONDS
            ) as daemon:
                _await_ready(daemon, address, env, log)
                yield address
        except process.NotStarted as error:
            raise BuildFailed(f"buildkitd cannot be run: {error.strerror}") from None
    finally:
        _remove(folder, env)


def _configuration(folder: Path, address: str, plain_http: Collection[str]) -> str:
    registries = "".join(f"[registry.{json.dumps(host)}]\n  http = true\n" for host in sorted(plain_http))
    # `auto` is overlayfs where that can be mounted, native elsewhere. With the host's network no CNI plugin is needed.
    # Two daemons would share the default socket of otel. https://github.com/moby/buildkit/blob/master/docs/buildkitd.toml.md
    return f"""\
root = "{folder}/root"
[otel]
  socketPath = "{folder}/otel.sock"
[grpc]
  address = ["{address}"]
[worker.oci]
  enabled = true
  snapshotter = "auto"
  networkMode = "host"
  gc = false
[worker.containerd]
  enabled = false
{registries}"""


def _await_ready(daemon: process.Running, address: str, env: Mapping[str, str], log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while isinstance(platforms_of(address, env), str):
        if daemon.status is not None or time.monotonic() > deadline:
            story = log.read_text("utf-8", "replace").splitlines()[-SHOWN_LINES:]
            how = "ended at once" if daemon.status is not None else f"does not answer after {_START_SECONDS:.0f} s"
            raise BuildFailed(f"buildkitd {how}:" + indented(story))
        time.sleep(0.02)


def _remove(folder: Path, env: Mapping[str, str]) -> None:
    """Removes a daemon's folder, and first what a build that was cut off has left mounted in it."""
    with suppress(OSError, process.NotStarted):  # not Linux; no umount: then rmtree meets a busy folder and leaves it
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
        for place in reversed([one for one in mounted if one.startswith(f"{folder}/")]):
            process.run(["umount", "--lazy", place], timeout=_QUESTION_SECONDS, env=env)
    shutil.rmtree(folder, ignore_errors=True)


def program(name: str, env: Mapping[str, str]) -> str | None:
    return shutil.which(name, path=env.get("PATH", ""))


def platforms_of(address: str, env: Mapping[str, str]) -> frozenset[Platform] | str:
    """What the BuildKit at an address can run, or why it did not say."""
    socket = urlsplit(address)
    if socket.scheme == "unix" and not Path(socket.path).exists():
        return "there is no such socket"
    argv = ["buildctl", "--addr", address, "debug", "workers", "--format", "{{json .}}"]
    try:
        ended = process.run(argv, timeout=_QUESTION_SECONDS, env=env)
    except process.NotStarted as error:
        return f"buildctl cannot be run: {error.strerror}"
    if ended.status != 0:
        lines = ended.stderr.decode("utf-8", "replace").split("\n")
        return next((clean(line) for line in reversed(lines) if line.strip()), f"exit code {ended.status}")
    workers = json.loads(ended.stdout)
    # Only the first, the default one, is ever asked to build.
    return frozenset(
        Platform(one["os"], one["architecture"], one.get("variant", "")).normalised()
        for worker in workers[:1]
        for one in worker["platforms"]
    )
