"""The builder `buildkit`: `buildctl` against a BuildKit that runs already, or one started for the occasion."""

import base64
import json
import os
import re
import shutil
import tempfile
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from imagewright import process
from imagewright.builders import Abilities, BuildRequest, whole_or_nothing
from imagewright.documents import INDEX_TYPES, MAX_MANIFEST_BYTES, BadDocument, Descriptor, Index, parse_manifest
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import Platform, shown
from imagewright.recipe import BUILDKIT
from imagewright.settings import CACHE_KINDS

DEFAULT_ADDRESS = "unix:///run/buildkit/buildkitd.sock"
SHOWN_LINES = 15
"""How much of a failed command's output goes into the error; all of it is in the log."""

_HOUR = 3600.0
_QUESTION_SECONDS = 20.0
_START_SECONDS = 30.0
_STOP_SECONDS = 20.0


class BuildKit:
    """Builds through `buildctl`. address: of a buildkitd. env: for buildctl, with PATH and where credentials are."""

    name = "buildkit"
    family = BUILDKIT
    can = Abilities(
        several_platforms=True,
        caches=tuple(CACHE_KINDS),
        attestations=True,
        reproducible=True,
        keeps_base_layers=True,
        replaces_from=True,
        runs=True,
        note="`BUILDKIT_HOST` names another one than this machine's; with none running, one is started for the occasion.",
    )

    def __init__(self, address: str, env: Mapping[str, str], *, timeout: float = 2 * _HOUR) -> None:
        self._address = address
        self._env = env
        self._timeout = timeout

    def unable(self, request: BuildRequest) -> str | None:
        """See `Builder`."""
        if request.dockerfile is None:
            return "the tool has no Dockerfile"
        if not _program("buildctl", self._env):
            return "buildctl is not installed"
        platforms = _platforms(self._address, self._env)
        if isinstance(platforms, str):
            return f"no BuildKit answers at {self._address}: {platforms}"
        if missing := [str(one) for one in request.platforms if one.normalised() not in platforms]:
            return (
                f"the BuildKit at {self._address} does not run {', '.join(missing)}; it would with an emulator "
                "(Debian: qemu-user-static and binfmt-support) and after a restart"
            )
        return None

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """See `Builder`. A failed step is named with its exit code and its last lines."""
        with whole_or_nothing(into, request.target) as folder:
            story = _Story(say)
            argv = ["buildctl", "--addr", self._address, *_arguments(request, folder)]
            try:
                ended = process.run(argv, timeout=self._timeout, env=self._env, on_line=story.read)
            except process.NotStarted as error:
                raise BuildFailed(f"{request.target}: buildctl cannot be run: {error.strerror}") from None
            if ended.timed_out:
                raise BuildFailed(f"{request.target}: the build did not end within {self._timeout:.0f} s")
            if ended.status != 0:
                raise story.failure(request, ended.status)
            story.refuse_other_platform(request)
            _normalise(Layout(folder), request)


@contextmanager
def buildkit(env: Mapping[str, str], *, plain_http: Collection[str] = ()) -> Iterator[BuildKit]:
    """The builder with the BuildKit there is: the one of BUILDKIT_HOST, that of this machine, or one of our own.

    plain_http: registries that ours speaks plain HTTP to; another's configuration is its own affair. Where none can be
    had, the builder is unable and says why.
    """
    given = env.get("BUILDKIT_HOST")
    if given or not isinstance(_platforms(DEFAULT_ADDRESS, env), str):
        yield BuildKit(given or DEFAULT_ADDRESS, env)
    elif os.geteuid() == 0 and _program("buildkitd", env) and _program("buildctl", env):
        with buildkitd(env, plain_http=plain_http) as address:
            yield BuildKit(address, env)
    else:
        yield BuildKit(DEFAULT_ADDRESS, env)


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
    while isinstance(_platforms(address, env), str):
        if daemon.status is not None or time.monotonic() > deadline:
            story = log.read_text("utf-8", "replace").splitlines()[-SHOWN_LINES:]
            how = "ended at once" if daemon.status is not None else f"does not answer after {_START_SECONDS:.0f} s"
            raise BuildFailed(f"buildkitd {how}:" + _indented(story))
        time.sleep(0.02)


def _remove(folder: Path, env: Mapping[str, str]) -> None:
    """Removes a daemon's folder, and first what a build that was cut off has left mounted in it."""
    with suppress(OSError, process.NotStarted):  # not Linux; no umount: then rmtree meets a busy folder and leaves it
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
        for place in reversed([one for one in mounted if one.startswith(f"{folder}/")]):
            process.run(["umount", "--lazy", place], timeout=_QUESTION_SECONDS, env=env)
    shutil.rmtree(folder, ignore_errors=True)


def _program(name: str, env: Mapping[str, str]) -> str | None:
    return shutil.which(name, path=env.get("PATH", ""))


def _platforms(address: str, env: Mapping[str, str]) -> frozenset[Platform] | str:
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
        return next((_clean(line) for line in reversed(lines) if line.strip()), f"exit code {ended.status}")
    workers = json.loads(ended.stdout)
    # Only the first, the default one, is ever asked to build.
    return frozenset(
        Platform(one["os"], one["architecture"], one.get("variant", "")).normalised()
        for worker in workers[:1]
        for one in worker["platforms"]
    )


def _arguments(request: BuildRequest, into: Path) -> list[str]:
    """What follows `buildctl --addr …`."""
    dockerfile = request.dockerfile
    if dockerfile is None:
        raise BuildFailed(f"{request.target}: the tool has no Dockerfile")
    arguments = {**request.arguments, "SOURCE_DATE_EPOCH": str(request.epoch)}
    options = {
        "filename": dockerfile.name,
        "platform": ",".join(str(one) for one in sorted(request.platforms)),
        **{f"build-arg:{name}": value for name, value in sorted(arguments.items())},
        **{f"label:{name}": value for name, value in sorted(request.labels.items())},
    }
    output = ["type=oci", "tar=false", f"dest={into}", "oci-mediatypes=true", "rewrite-timestamp=true"]
    return [
        *("build", "--progress", "rawjson", "--frontend", "dockerfile.v0"),
        *("--local", f"context={request.context}", "--local", f"dockerfile={dockerfile.parent}"),
        *(part for name, value in options.items() for part in ("--opt", f"{name}={value}")),
        *("--output", ",".join(_csv(one) for one in output)),
    ]


def _csv(field: str) -> str:
    escaped = field.replace('"', '""')
    return f'"{escaped}"' if escaped != field or "," in field else field


def _normalise(layout: Layout, request: BuildRequest) -> None:
    """Replaces what BuildKit names in `index.json`: for one platform its image alone, and never with annotations."""
    try:
        (top,) = layout.entries()
        images = _images(layout, top)
    except (ValueError, BadDocument) as error:
        raise BuildFailed(f"{request.target}: BuildKit's layout is not one image: {error}") from None
    found = {one.platform.normalised() for one in images if one.platform}
    if found != {one.normalised() for one in request.platforms} or len(found) != len(images):
        made = ", ".join(str(one) for one in sorted(found)) or "nothing"
        raise BuildFailed(f"{request.target}: BuildKit made {made}, which is not what was asked for")
    if top.media_type in INDEX_TYPES:
        layout.blob_path(top.digest).unlink()
    layout.write_only_index(images, request.annotations)


def _images(layout: Layout, top: Descriptor) -> list[Descriptor]:
    if top.media_type not in INDEX_TYPES:
        return [top]
    document = parse_manifest(layout.read(top.digest, MAX_MANIFEST_BYTES), top.media_type)
    return [one for one in document.entries if not one.is_attestation] if isinstance(document, Index) else [top]


_EXIT_CODE = re.compile(r"did not complete successfully: exit code: (\d+)")
_PLACE = re.compile(r"(\S+):(\d+)\Z")
_OTHER_PLATFORM = "InvalidBaseImagePlatform: "
"""https://docs.docker.com/reference/build-checks/invalid-base-image-platform/"""
_SOLVE = "error: failed to solve: "
_STEP = re.compile(r"\[[^\]]*\]")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|.*\r(?!\Z)")


class _Story:
    """What buildctl tells: while it builds, in JSON, steps and their output; in the end, as text, what went wrong."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._names: dict[str, str] = {}
        self._told: set[str] = set()
        self._unfinished: dict[str, bytes] = {}
        self._last: dict[str, deque[str]] = {}
        self._errors: dict[str, str] = {}
        self._warnings: list[str] = []
        self._text: deque[str] = deque(maxlen=200)

    def read(self, line: str) -> None:
        """Takes one line."""
        try:
            told = json.loads(line)
        except json.JSONDecodeError:
            told = None
        if not isinstance(told, dict):
            self._text.append(line)
            return
        for vertex in told.get("vertexes") or ():
            self._step(vertex)
        for log in told.get("logs") or ():
            self._output(log["vertex"], base64.b64decode(log.get("data") or ""))

        for warning in told.get("warnings") or ():
            self._warnings.append(base64.b64decode(warning.get("short") or "").decode("utf-8", "replace"))

    def _step(self, vertex: Mapping[str, str]) -> None:
        step = vertex["digest"]
        self._names[step] = _clean(vertex.get("name", step))
        if vertex.get("started") and step not in self._told and not self._names[step].startswith("[internal]"):
            self._told.add(step)
            self._say(self._names[step] + (" (cached)" if vertex.get("cached") else ""))
        if error := vertex.get("error"):
            self._errors[step] = error

    def _output(self, step: str, data: bytes) -> None:
        *lines, self._unfinished[step] = (self._unfinished.get(step, b"") + data).split(b"\n")
        for line in lines:
            self._line(step, line)

    def _line(self, step: str, line: bytes) -> None:
        text = _clean(line.decode("utf-8", "replace"))
        self._last.setdefault(step, deque(maxlen=SHOWN_LINES)).append(text)
        number = _STEP.match(self._names.get(step, ""))
        self._say(f"{number[0] if number else '  '} {text}")

    def failure(self, request: BuildRequest, status: int) -> BuildFailed:
        """The error to raise after buildctl has ended with that status."""
        for step, rest in self._unfinished.items():
            if rest:
                self._line(step, rest)
        where = self._place(request)
        for step, error in self._errors.items():
            if found := _EXIT_CODE.search(error):
                reason = f"{request.target}: {self._names[step]}: exit code {found[1]}"
                return BuildFailed(reason + _indented(self._last.get(step, ())), where=where)
        text = "\n".join(self._text)
        told = text.rpartition(_SOLVE)[2] if _SOLVE in text else text.removeprefix("error: ")
        lines = [_clean(line) for line in told.strip().splitlines()] or [f"buildctl ended with status {status}"]
        return BuildFailed(f"{request.target}: {lines[0]}" + _indented(lines[1:][-SHOWN_LINES:]), where=where)

    def refuse_other_platform(self, request: BuildRequest) -> None:
        """`BuildFailed` where the base was taken for a platform it is not of: the image would carry the wrong name.

        A base without an index is taken for any platform, with a warning.
        """
        for warning in self._warnings:
            if warning.startswith(_OTHER_PLATFORM) and str(request.base) in warning:
                raise BuildFailed(f"{request.target}: {_clean(warning.removeprefix(_OTHER_PLATFORM))}")

    def _place(self, request: BuildRequest) -> str:
        """`Dockerfile:line`, where the text shows a part of the Dockerfile."""
        for line in self._text:
            if request.dockerfile and (found := _PLACE.match(line)) and found[1] == request.dockerfile.name:
                return f"{request.dockerfile}:{found[2]}"
        return ""


def _clean(line: str) -> str:
    """Foreign output for a log: without colours, of overwritten text the last, control characters escaped."""
    plain = _TERMINAL.sub("", line).rstrip("\r").replace("\t", "    ")
    return plain if plain.isprintable() else shown(plain, limit=len(plain) * 4)[1:-1]


def _indented(lines: Collection[str]) -> str:
    return "".join(f"\n    {line}" for line in lines)
