"""A BuildKit of our own, for as long as it is needed, and what can be asked of any."""

import json
import os
import pwd
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from imagewright import process
from imagewright.builders.progress import SHOWN_LINES, clean, indented, without_wrappings
from imagewright.errors import BuildFailed
from imagewright.names import Platform

QUESTION_SECONDS = 10.0
"""How long a BuildKit may take to say what it can."""

_START_SECONDS = 30.0
_STOP_SECONDS = 20.0

_RUNTIMES = ("buildkit-runc", "runc")
_ROOTLESS = ("rootlesskit", "newuidmap", "newgidmap")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Home:
    """Where a daemon lives. folder: all that it writes. env: of its programs. rootless: it runs as another than root."""

    folder: Path
    env: Mapping[str, str]
    rootless: bool


@contextmanager
def buildkitd(env: Mapping[str, str], *, plain_http: Collection[str] = ()) -> Iterator[str]:
    """The address of a buildkitd that lives as long as the block, with an empty cache. Needs what `lacking` looks for.

    As another user than root it runs in a user namespace that rootlesskit makes. It ends when this process does, whatever
    ends that, where setpriv is there to see to it. plain_http: registries (`host:port`) that are spoken to without TLS.
    `BuildFailed` where it does not start.
    """
    # A socket's path has at most 107 bytes, so not wherever TMPDIR points.
    folder = Path(tempfile.mkdtemp(prefix="imagewright-buildkit-", dir="/tmp"))
    home = _home(folder, env)
    try:
        address = f"unix://{folder}/buildkitd.sock"
        config, log = folder / "buildkitd.toml", folder / "log"
        config.write_text(_configuration(home, address, plain_http))
        bound, grace = _bound(home)
        argv = [*bound, "buildkitd", "--config", str(config)]
        try:
            with process.running(argv, env=home.env, output=log, grace=grace) as daemon:
                _await_ready(daemon, address, env, log)
                yield address
        except process.NotStarted as error:
            raise BuildFailed(f"buildkitd cannot be run: {error.strerror}") from None
    finally:
        _remove(home)


def lacking(env: Mapping[str, str]) -> str:
    """What it takes to start a BuildKit here and is not there, as a clause; empty where nothing is lacking."""
    if not sys.platform.startswith("linux"):
        return "it runs on Linux only"
    wanted = ["buildctl", "buildkitd", *(() if os.geteuid() == 0 else _ROOTLESS)]
    missing = [name for name in wanted if not program(name, env)]
    if not any(program(name, env) for name in _RUNTIMES):
        missing.append("runc")
    reasons = [f"{', '.join(missing)} {'are' if len(missing) > 1 else 'is'} not installed"] if missing else []
    if os.geteuid() != 0:
        reasons += [
            f"{file} has no line for {_user()}"
            for file in (Path("/etc/subuid"), Path("/etc/subgid"))
            if not _has_line(file, {_user(), str(os.geteuid())})
        ]
    return "; ".join(reasons)


def _user() -> str:
    """Whoever runs this; the number, where it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _has_line(file: Path, users: Collection[str]) -> bool:
    """Whether a user has numbers to give away. https://man7.org/linux/man-pages/man5/subuid.5.html"""
    try:
        lines = file.read_text("utf-8", "replace").splitlines()
    except OSError:  # as good as empty
        return False
    return any(line.partition(":")[0] in users for line in lines)


def _home(folder: Path, env: Mapping[str, str]) -> _Home:
    rootless = os.geteuid() != 0
    # Without these it would use folders that are shared with another daemon, or are root's.
    own = {"USER": _user(), "XDG_RUNTIME_DIR": str(folder)} if rootless else {}
    return _Home(folder=folder, env={"HOME": str(folder), **env, **own}, rootless=rootless)


def _bound(home: _Home) -> tuple[Sequence[str], float]:
    """What stands before buildkitd, so that it and all that it has started end together, and when this process is gone.

    That includes `kill -9`, of either: in a process namespace of its own nothing outlives it, in a mount namespace nothing
    stays mounted. And how many seconds it is given to end, as then it need not. A system whose setpriv or unshare cannot
    do this, as BusyBox's, gets what it can.
    """
    kill, end = ("setpriv", "--pdeathsig", "KILL"), ("setpriv", "--pdeathsig", "TERM")
    if home.rootless:
        apart = (*_in_namespace(home, "daemon"), "--pidns")
        return ((*kill, *apart) if _runs(kill, home.env) else apart), 0
    if _runs(apart := (*kill, "unshare", "--pid", "--fork", "--kill-child", "--mount-proc"), home.env):
        return apart, 0
    return (end if _runs(end, home.env) else ()), _STOP_SECONDS


def _runs(prefix: Sequence[str], env: Mapping[str, str]) -> bool:
    try:
        return process.run([*prefix, "true"], timeout=QUESTION_SECONDS, env=env).status == 0
    except process.NotStarted:  # there is no such program
        return False


def _in_namespace(home: _Home, name: str) -> Sequence[str]:
    """What stands before a program that is to be root in a user namespace."""
    return ("rootlesskit", f"--state-dir={home.folder}/rootlesskit-{name}")


def _configuration(home: _Home, address: str, plain_http: Collection[str]) -> str:
    registries = "".join(f"[registry.{json.dumps(host)}]\n  http = true\n" for host in sorted(plain_http))
    # `auto` is overlayfs where that can be mounted, native elsewhere. With the host's network no CNI plugin is needed.
    # Two daemons would share the default socket of otel. https://github.com/moby/buildkit/blob/master/docs/buildkitd.toml.md
    return f"""\
root = "{home.folder}/root"
[otel]
  socketPath = "{home.folder}/otel.sock"
[grpc]
  address = ["{address}"]
[worker.oci]
  enabled = true
  rootless = {"true" if home.rootless else "false"}
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
            story = [clean(line) for line in log.read_text("utf-8", "replace").splitlines()[-SHOWN_LINES:]]
            how = "ended at once" if daemon.status is not None else f"does not answer after {_START_SECONDS:.0f} s"
            raise BuildFailed(f"buildkitd {how}:" + indented(story))
        time.sleep(0.02)


def _remove(home: _Home) -> None:
    """Removes a daemon's folder, and first what a build that was cut off has left mounted in it."""
    with suppress(OSError, process.NotStarted):  # not Linux; no umount: then rmtree meets a busy folder and leaves it
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
        for place in reversed([one for one in mounted if one.startswith(f"{home.folder}/")]):
            process.run(["umount", "--lazy", place], timeout=QUESTION_SECONDS, env=home.env)
    if home.rootless and (home.folder / "root").exists():
        # Files of an image belong to users that only exist in the namespace.
        with suppress(process.NotStarted):  # then nothing was ever started
            argv = [*_in_namespace(home, "remover"), "rm", "-rf", f"{home.folder}/root"]
            process.run(argv, timeout=_STOP_SECONDS, env=home.env)
    deadline = time.monotonic() + _STOP_SECONDS
    while home.folder.exists() and time.monotonic() < deadline:
        # Whatever dies in the daemon's namespace may have written once more.
        shutil.rmtree(home.folder, ignore_errors=True)


def program(name: str, env: Mapping[str, str]) -> str | None:
    """Where a program is that can be run."""
    return shutil.which(name, path=env.get("PATH", ""))


def platforms_of(address: str, env: Mapping[str, str]) -> frozenset[Platform] | str:
    """What the BuildKit at an address can run, or why it did not say."""
    socket = urlsplit(address)
    if socket.scheme == "unix" and not Path(socket.path).exists():
        return "there is no such socket"
    argv = ["buildctl", "--addr", address, "debug", "workers", "--format", "{{json .}}"]
    try:
        ended = process.run(argv, timeout=QUESTION_SECONDS, env=env)
    except process.NotStarted as error:
        return f"buildctl cannot be run: {error.strerror}"
    if ended.timed_out:
        return f"it says nothing for {QUESTION_SECONDS:.0f} s"
    if ended.status != 0:
        lines = ended.stderr.decode("utf-8", "replace").split("\n")
        return next((without_wrappings(line) for line in reversed(lines) if line.strip()), f"exit code {ended.status}")
    workers = json.loads(ended.stdout)
    # Only the first, the default one, is ever asked to build.
    return frozenset(
        Platform(one["os"], one["architecture"], one.get("variant", "")).normalised()
        for worker in workers[:1]
        for one in worker["platforms"]
    )
