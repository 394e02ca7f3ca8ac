"""The container engine of this machine, docker or else podman: containers are run with it, and images given to it.

A container has no rights, no credentials, no writable place but /tmp, and limits as far as the engine can set them; it is
removed by its name when its time is up or this process is on its way out.
"""

import errno
import json
import secrets
import shutil
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagewright import process
from imagewright.names import Platform, shown

NAMES = ("docker", "podman")
"""The engines, in the order in which they are looked for."""

_ASK_SECONDS = 20.0
_PULL_SECONDS = 300.0
_REMOVE_SECONDS = 10.0
_AGAIN_SECONDS = 0.5
_LIMITS = {"processes": ("--pids-limit", "512"), "memory": ("--memory", "1g")}
_LOCKED_UP = (
    *("--read-only", "--tmpfs", "/tmp:rw,exec,nosuid,nodev,mode=1777", "--env", "HOME=/tmp"),  # noqa: S108 - inside
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
    # SELinux would hide what is mounted; to relabel it would change the host's files.
    *("--security-opt", "label=disable"),
    # The engine would keep all that is printed on the host's disk.
    *("--log-driver", "none"),
)

_NOT_STARTED = 125
"""Status of a client whose engine could not start the container: https://docs.docker.com/engine/containers/run/"""

_live: dict[str, "Engine"] = {}
_live_lock = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """A client whose engine answers. env: the client's environment. platform: on which containers run without emulation.

    limits: what can be limited here, the other ones of `processes` and `memory` cannot.
    """

    name: str
    program: str
    env: Mapping[str, str] = field(repr=False, hash=False)
    platform: Platform
    limits: tuple[str, ...]

    @property
    def unlimited(self) -> tuple[str, ...]:
        """What cannot be limited: the machine has no control group for it."""
        return tuple(one for one in _LIMITS if one not in self.limits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """An image that the engine has. local: what the engine knows it by. digest: its registry's, or else the engine's."""

    engine: Engine
    local: str
    digest: str
    platform: Platform


def find(env: Mapping[str, str]) -> Engine | str:
    """The engine of this machine, or why there is none. env: of this process, as its client needs it."""
    reasons = []
    for name in NAMES:
        program = shutil.which(name, path=env.get("PATH", ""))
        found = _asked(name, program, env) if program else "not installed"
        if isinstance(found, Engine):
            return found
        reasons.append(f"{name}: {found}")
    return f"there is no container engine ({'; '.join(reasons)})"


def _asked(name: str, program: str, env: Mapping[str, str]) -> Engine | str:
    try:
        ended = process.run([program, "info", "--format", "{{json .}}"], timeout=_ASK_SECONDS, env=env)
    except process.NotStarted as error:
        return f"{program} could not be started: {error.strerror}"
    if ended.status != 0:
        return _why(ended, _ASK_SECONDS)
    try:
        told = json.loads(ended.stdout)
        # podman tells about its host, docker about its daemon; with `ServerErrors` it has reached none.
        if host := told.get("host"):
            controllers = set(host["cgroupControllers"] or ())
            can = {"processes": "pids" in controllers, "memory": "memory" in controllers}
            platform = Platform(host["os"], host["arch"])
        elif errors := told.get("ServerErrors"):
            return shown(str(errors[0]), 160)
        else:
            can = {"processes": told["PidsLimit"], "memory": told["MemoryLimit"]}
            platform = Platform(told["OSType"], told["Architecture"])
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"says nothing about itself that is understood here: {shown(ended.stdout.decode('utf-8', 'replace'))}"
    return Engine(
        name=name,
        program=program,
        env=env,
        platform=platform.normalised(),
        limits=tuple(limit for limit, possible in can.items() if possible),
    )


def pull(engine: Engine, reference: str, platform: Platform | None = None) -> Image | str:
    """The image on this machine, or why it cannot be had. It is pulled if it is not here, or is for another platform.

    platform: the engine's own by default. The result keeps its platform when a later call moves the local tag.
    """
    wanted = platform or engine.platform
    found = _inspected(engine, reference)
    if found is None or found.platform != wanted:
        argv = ["pull", "--quiet", "--platform", str(wanted), reference]
        ended = _call(engine, argv, _PULL_SECONDS)
        if ended.status != 0:
            return f"the image {reference} cannot be pulled: {_why(ended, _PULL_SECONDS)}"
        found = _inspected(engine, reference)
    if found is None:
        return f"the image {reference} was pulled and is not there"
    # podman only warns where an image is for one other platform; docker refuses, but may show another of several.
    if found.platform != wanted and engine.name == "podman":
        return f"the image {reference} is for {found.platform}, not for {wanted}"
    return Image(engine=engine, local=found.local, digest=found.digest, platform=wanted)


def load(engine: Engine, archive: Path) -> str:
    """Gives the image in a docker archive to the engine, under the name in it; why not, or nothing if all went well."""
    ended = _call(engine, ["load", "--quiet", "--input", str(archive)], _PULL_SECONDS)
    return "" if ended.status == 0 else f"{engine.name} does not take it: {_why(ended, _PULL_SECONDS)}"


def forget(engine: Engine, name: str) -> None:
    """Takes an image's name away again, and the image if it has no other."""
    _call(engine, ["image", "rm", name], _ASK_SECONDS)


def _inspected(engine: Engine, reference: str) -> Image | None:
    ended = _call(engine, ["image", "inspect", reference], _ASK_SECONDS)
    if ended.status != 0:
        return None
    try:
        told = json.loads(ended.stdout)[0]
        # podman names the platform's manifest too, beside what the registry has under the tag.
        digests = [one.partition("@")[2] for one in told["RepoDigests"] or ()]
        digest = next((one for one in digests if one != told.get("Digest")), digests[0] if digests else told["Id"])
        platform = Platform(told["Os"], told["Architecture"], told.get("Variant") or "").normalised()
        return Image(engine=engine, local=told["Id"], digest=digest, platform=platform)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):  # an answer of an engine unknown here
        return None


def run(
    image: Image,
    argv: Sequence[str],
    *,
    mounts: Mapping[Path, str],
    cwd: str,
    env: Mapping[str, str],
    network: bool,
    timeout: float,
) -> process.Ended:
    """Runs `argv` in a new container and returns how it ended; stdin is empty, afterwards the container is gone.

    mounts: paths of this machine and their places in the container, all read-only. env: its environment beside HOME and
    what the image sets; PATH and HOME may not be in it. timeout: seconds, the start of the container included.
    `process.NotStarted` if the client or the container cannot be started.
    """
    engine = image.engine
    name = f"imagewright-{secrets.token_hex(8)}"
    command = [engine.program, "run", "--rm", "--name", name, "--pull", "never", "--platform", str(image.platform)]
    command += _LOCKED_UP
    for limit in engine.limits:
        command += _LIMITS[limit]
    for path, place in mounts.items():
        command += ["--mount", f"type=bind,source={path},target={place},readonly"]
    # By name only: a proxy's address may hold a login, and everybody on the machine sees arguments.
    for variable in env:
        command += ["--env", variable]
    command += ["--workdir", cwd, *(() if network else ("--network", "none"))]
    command += ["--entrypoint", argv[0], image.local, *argv[1:]]
    ended = _until_gone(engine, name, command, timeout, {**engine.env, **env})
    if ended.status == _NOT_STARTED:
        raise process.NotStarted(errno.ENOEXEC, _why(ended, timeout), "the container")
    return ended


def _until_gone(
    engine: Engine, name: str, command: Sequence[str], timeout: float, env: Mapping[str, str]
) -> process.Ended:
    """Runs the client; where it did not end by itself, its container is removed."""
    with _live_lock:
        _live[name] = engine
    by_itself = False
    try:
        ended = process.run(command, timeout=timeout, env=env)
        by_itself = not ended.timed_out and ended.status >= 0
        return ended
    finally:
        if not by_itself and not _remove(engine, [name]):
            # A daemon may have begun to make it when its client was ended.
            time.sleep(_AGAIN_SECONDS)
            _remove(engine, [name])
        with _live_lock:
            _live.pop(name, None)


def end_all() -> None:
    """Removes all containers of `run`, in any thread. For the way out, before `process.end_all`."""
    with _live_lock:
        live = dict(_live)
        _live.clear()
    for engine in {one.program: one for one in live.values()}.values():
        _remove(engine, [name for name, one in live.items() if one.program == engine.program])


def _remove(engine: Engine, names: Iterable[str]) -> bool:
    """Kills and removes containers; whether one was there."""
    at_once = ["--time", "0"] if engine.name == "podman" else []
    ended = _call(engine, ["rm", "--force", *at_once, *names], _REMOVE_SECONDS)
    return bool(ended.stdout.strip())


def _call(engine: Engine, arguments: Sequence[str], timeout: float) -> process.Ended:
    return process.run([engine.program, *arguments], timeout=timeout, env=engine.env)


def _why(ended: process.Ended, timeout: float) -> str:
    """Why a client's command failed: the last line it wrote."""
    if ended.timed_out:
        return f"no answer within {timeout:g} s"
    last = ended.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
    return shown(last, 240) if last else f"exit status {ended.status}"
