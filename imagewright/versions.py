"""What version a tool has: its `version.sh` is run in a container or on the host and must print exactly one version."""

import json
import re
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from imagewright import cage, containers, process
from imagewright.catalogue import Tool
from imagewright.containers import Image
from imagewright.errors import BadCatalogue
from imagewright.names import Platform, shown
from imagewright.reasons import Unknown
from imagewright.settings import VersionsSettings
from imagewright.snapshot import Reading, dump_reading, load_reading

_MAX_OUTPUT = 4096
_AT_ONCE = 16
"""Scripts at once, whatever the processors: they wait for the network."""
_COMMAND = ("/bin/bash", "./version.sh")
_INSIDE = "/tool"
"""Where a tool's folder is in the container."""
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_AUTHORITIES = frozenset(
    {"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT", "GIT_SSL_CAINFO"}
)
"""Each names a file of authorities whose certificates are trusted."""
_PROXIES = frozenset({"http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"})
_PASSED_ON = _AUTHORITIES | _PROXIES | {"PATH", "HOME", "LANG", "SSL_CERT_DIR", "no_proxy", "NO_PROXY"}
"""All that a script sees of the environment: what it takes to reach the network, and nothing secret."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that scripts of tools get. Of a proxy's address what stands before an `@` is secret."""
    passed = {name: value for name, value in environ.items() if name in _PASSED_ON}
    return passed | {name: _without_login(passed[name]) for name in _PROXIES & passed.keys()}


def _without_login(proxy: str) -> str:
    scheme, slashes, rest = proxy.rpartition("://")
    return f"{scheme}{slashes}{rest.rpartition('@')[2]}"


def parse_output(output: bytes) -> tuple[str | None, str]:
    """The version in what a script printed, or None and what is wrong with it.

    One line, at most one final newline and carriage return, legal in a tag, with a digit: `null`, `latest`, an error page
    or a warning before the version are none.
    """
    if len(output) > _MAX_OUTPUT:
        return None, f"printed {len(output)} bytes"
    try:
        text = output.decode("ascii")
    except UnicodeDecodeError:
        return None, f"printed {shown(output.decode('utf-8', 'backslashreplace'))}"
    line = text.removesuffix("\n").removesuffix("\r")
    if not line:
        return None, "printed nothing"
    if "\n" in line:
        return None, f"printed {line.count(chr(10)) + 1} lines, the first is {shown(line.split(chr(10))[0])}"
    if not _VERSION.match(line) or not re.search(r"\d", line):
        return None, f"printed {shown(line)}, which is no version"
    return line, ""


def on_host(tool: Tool, timeout: float, environ: Mapping[str, str]) -> Reading:
    """Runs a tool's `version.sh` on this machine and says what it printed. Raises nothing."""

    def start(folder: Path) -> process.Ended:
        return cage.run(_COMMAND, folder=folder, scratch=folder.parent, timeout=timeout, env=environment(environ))

    return replace(_asked(tool, timeout, start), via="host")


def in_image(tool: Tool, timeout: float, environ: Mapping[str, str], image: Image | str) -> Reading:
    """Runs a tool's `version.sh` in a container and says what it printed. image: or why there is none. Raises nothing."""
    if isinstance(image, str):
        return replace(_no_reading(tool, Unknown.VERSION_FAILED, image, 0), via="image")
    env, files = _way_out(environ)

    def start(folder: Path) -> process.Ended:
        mounts = {folder: _INSIDE} | {Path(file): file for file in files}
        return containers.run(image, _COMMAND, mounts=mounts, cwd=_INSIDE, env=env, network=True, timeout=timeout)

    return replace(_asked(tool, timeout, start), via="image", image=image.digest)


def _way_out(environ: Mapping[str, str]) -> tuple[dict[str, str], list[str]]:
    """How a container reaches the network: its environment, and the files of authorities that this names.

    A folder of authorities is left out: it is made of links to places that are not in the container.
    """
    env = {name: value for name, value in environment(environ).items() if name not in ("PATH", "HOME", "SSL_CERT_DIR")}
    lacking = [name for name in _AUTHORITIES & env.keys() if not Path(env[name]).is_file()]
    env = {name: value for name, value in env.items() if name not in lacking}
    return env, sorted({env[name] for name in _AUTHORITIES & env.keys()})


def _asked(tool: Tool, timeout: float, start: Callable[[Path], process.Ended]) -> Reading:
    """Has `version.sh` run in a throw-away copy of its folder, the same one wherever it runs, and judges what it printed."""
    if not (tool.folder / "version.sh").is_file():
        return _no_reading(tool, Unknown.VERSION_FAILED, "there is no version.sh", 0)
    with tempfile.TemporaryDirectory(prefix="imagewright-version-") as scratch:
        folder = Path(scratch) / "tool"
        _copy(tool.folder, folder)
        try:
            ended = start(folder)
        except process.NotStarted as error:
            why = f"{error.filename} could not be started: {error.strerror}"
            return _no_reading(tool, Unknown.VERSION_FAILED, why, 0)
    if ended.stopped:
        return _no_reading(tool, Unknown.VERSION_FAILED, ended.stopped, ended.seconds)
    if ended.timed_out:
        return _no_reading(tool, Unknown.VERSION_TIMEOUT, f"did not end within {timeout:g} s", ended.seconds)
    if ended.status != 0:
        how = f"exit status {ended.status}" if ended.status > 0 else f"killed by signal {-ended.status}"
        last = ended.stderr.decode("utf-8", "replace").strip().split("\n")[-1]
        return _no_reading(
            tool, Unknown.VERSION_FAILED, how + (f", it says {shown(last, 160)}" if last else ""), ended.seconds
        )
    version, wrong = parse_output(ended.stdout)
    if version is None:
        return _no_reading(tool, Unknown.VERSION_FORMAT, wrong, ended.seconds)
    return Reading(tool=tool.name, version=version, seconds=ended.seconds)


def _copy(folder: Path, to: Path) -> None:
    """A copy whose script has no carriage returns, readable for everybody: a container's root has no right to more."""
    shutil.copytree(folder, to, symlinks=True)
    script = to / "version.sh"
    content = script.read_bytes().replace(b"\r\n", b"\n")
    script.unlink()
    script.write_bytes(content)
    script.chmod(0o755)
    for path in (to, *to.rglob("*")):
        if not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o555 if path.is_dir() else 0o444))


def _no_reading(tool: Tool, reason: Unknown, detail: str, seconds: float) -> Reading:
    return Reading(tool=tool.name, version=None, reason=reason, detail=detail, seconds=seconds)


def find_image(reference: str, environ: Mapping[str, str], platform: Platform | None = None) -> Image | str:
    """The version-check image on this machine, pulled if need be, or why it cannot be had."""
    engine = containers.find(environ)
    return engine if isinstance(engine, str) else containers.pull(engine, reference, platform)


class Readings:
    """Versions being read: each tool once, several at a time, in the version-check image if there is one, else on the host.

    known: what need not be asked for. environ: of this process; scripts get what `environment` leaves of it.
    """

    def __init__(self, known: Iterable[Reading], settings: VersionsSettings, environ: Mapping[str, str]) -> None:
        self._known = {one.tool: one for one in known}
        self._settings = settings
        self._environ = environ
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="version")
        self._image: Future[Image | str] | None = None
        self._futures: dict[str, Future[Reading]] = {}
        self._closed = threading.Event()
        self.waited = 0.0
        """Seconds that `results` had to wait."""

    def start(self, tools: Iterable[Tool]) -> None:
        """Begins to read the versions of tools that have not been asked for yet."""
        for tool in tools:
            if tool.name not in self._futures and tool.name not in self._known:
                if self._settings.image and self._image is None:
                    self._image = self._pool.submit(find_image, self._settings.image, self._environ)
                self._futures[tool.name] = self._pool.submit(self._read, tool)

    def _read(self, tool: Tool) -> Reading:
        """The image's answer; where it has none, the host's, if that may be asked."""
        timeout = self._settings.timeout
        if self._image is None:
            return on_host(tool, timeout, self._environ)
        first = in_image(tool, timeout, self._environ, self._image.result())
        if first.version or not self._settings.host_fallback or self._closed.is_set():
            return first
        second = on_host(tool, timeout, self._environ)
        seconds = first.seconds + second.seconds
        if second.version:
            return replace(second, fallback=first.detail, seconds=seconds)
        return replace(second, detail=f"in the image: {first.detail}; on the host: {second.detail}", seconds=seconds)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is wrong for all tools alike: no image, or no limits in it. Known once `results` has returned."""
        found = self._image.result() if self._image and self._image.done() else None
        if isinstance(found, str):
            what = "versions are read on the host" if self._settings.host_fallback else "no version could be read"
            return (f"{what}: {found}",)
        if found and found.engine.unlimited:
            return (f"{found.engine.name} cannot limit {' and '.join(found.engine.unlimited)} of a version.sh here",)
        return ()

    def all_known(self) -> bool:
        """Whether no reading is under way."""
        return all(future.done() for future in self._futures.values())

    def results(self, tools: Iterable[Tool]) -> tuple[Reading, ...]:
        """The readings of `tools`, waiting for those under way."""
        chosen = tuple(tools)
        self.start(chosen)
        began = time.monotonic()
        found = tuple(
            self._known[tool.name] if tool.name in self._known else self._futures[tool.name].result() for tool in chosen
        )
        self.waited += time.monotonic() - began
        return found

    def close(self) -> None:
        """Ends what is still being read and starts nothing any more."""
        self._closed.set()
        _end(self._pool)


def _end(pool: ThreadPoolExecutor) -> None:
    pool.shutdown(wait=False, cancel_futures=True)
    containers.end_all()
    process.end_all()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What one tool's `version.sh` says on the host and in the image, there a reading for each platform asked."""

    host: Reading
    images: tuple[tuple[str, Reading], ...]

    @property
    def failures(self) -> tuple[str, ...]:
        """Which of them said no version, and why."""
        places = (("host", self.host), *((f"image {platform}", reading) for platform, reading in self.images))
        return tuple(f"{place}: {one.detail}" for place, one in places if one.version is None)

    @property
    def result(self) -> Literal["same", "differs", "failed"]:
        """`failed` where a version is lacking, whatever the others are."""
        if self.failures:
            return "failed"
        return "same" if {one.version for _, one in self.images} == {self.host.version} else "differs"


def compare(
    tools: Iterable[Tool], settings: VersionsSettings, environ: Mapping[str, str], platforms: Iterable[Platform]
) -> list[Comparison]:
    """Each tool's version on the host and in the image, once for each of `platforms`; none of them: the machine's own."""
    asked: list[Platform | None] = [*platforms] or [None]
    images = [find_image(settings.image, environ, platform) for platform in asked]
    names = [_platform_name(platform, image) for platform, image in zip(asked, images, strict=True)]
    pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="version")
    try:
        rows = [
            (
                pool.submit(on_host, tool, settings.timeout, environ),
                [pool.submit(in_image, tool, settings.timeout, environ, image) for image in images],
            )
            for tool in tools
        ]
        return [
            Comparison(
                host=host.result(),
                images=tuple((name, one.result()) for name, one in zip(names, inside, strict=True)),
            )
            for host, inside in rows
        ]
    finally:
        _end(pool)


def _platform_name(asked: Platform | None, image: Image | str) -> str:
    return str(asked or ("native" if isinstance(image, str) else image.platform))


def dump_file(readings: Iterable[Reading]) -> bytes:
    """Readings as a file that the checks can be given."""
    document = {"schema": 1, "versions": [dump_reading(one) for one in readings]}
    return json.dumps(document, indent=1).encode() + b"\n"


def read_file(path: Path) -> list[Reading]:
    """Readings as `dump_file` wrote them. `BadCatalogue` with the place where they are none."""
    try:
        document = json.loads(path.read_bytes())
        readings = [load_reading(one) for one in document["versions"]]
    except OSError as error:
        raise BadCatalogue(f"cannot be read: {error.strerror}", where=str(path)) from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadCatalogue(
            f"not a file of versions: {error!r}", remedy="Make one: `imagewright versions -o FILE`.", where=str(path)
        ) from None
    for one in readings:
        if one.version is not None and (wrong := parse_output(one.version.encode())[1]):
            raise BadCatalogue(f"{one.tool}: {wrong.replace('printed', 'the version is')}", where=str(path))
    return readings
