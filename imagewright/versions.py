"""What version a tool has: its `version.sh` is run once, alone in a process group, and must print exactly one version."""

import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from imagewright import process
from imagewright.catalogue import Tool
from imagewright.errors import BadCatalogue
from imagewright.names import shown
from imagewright.reasons import Unknown
from imagewright.snapshot import Reading, dump_reading, load_reading

_MAX_OUTPUT = 4096
_AT_ONCE = 8
_VERSION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\Z")
_PASSED_ON = frozenset(
    {"PATH", "HOME", "LANG", "http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
    | {"SSL_CERT_FILE", "SSL_CERT_DIR", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "PIP_CERT"}
)
"""All that a script sees of the environment: what it takes to reach the network, and nothing secret."""


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The part of an environment that scripts of tools get."""
    return {name: value for name, value in environ.items() if name in _PASSED_ON}


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


def read(tool: Tool, timeout: float, env: Mapping[str, str]) -> Reading:
    """Runs a tool's `version.sh` in a throw-away copy of its folder and says what it printed. Raises nothing."""
    script = tool.folder / "version.sh"
    if not script.is_file():
        return _no_reading(tool, Unknown.VERSION_FAILED, "there is no version.sh", 0)
    with tempfile.TemporaryDirectory(prefix="imagewright-version-") as scratch:
        folder = Path(scratch) / tool.name
        shutil.copytree(tool.folder, folder, symlinks=True)
        (folder / "version.sh").write_bytes(script.read_bytes().replace(b"\r\n", b"\n"))
        try:
            ended = process.run(["/bin/bash", "./version.sh"], timeout=timeout, env=env, cwd=folder)
        except process.NotStarted as error:
            return _no_reading(tool, Unknown.VERSION_FAILED, f"bash could not be started: {error.strerror}", 0)
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


def _no_reading(tool: Tool, reason: Unknown, detail: str, seconds: float) -> Reading:
    return Reading(tool=tool.name, version=None, reason=reason, detail=detail, seconds=seconds)


class Readings:
    """Versions being read: each tool once, several at a time. known: what need not be asked for."""

    def __init__(self, known: Iterable[Reading], timeout: float, env: Mapping[str, str]) -> None:
        self._known = {one.tool: one for one in known}
        self._timeout = timeout
        self._env = env
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="version")
        self._futures: dict[str, Future[Reading]] = {}

    def start(self, tools: Iterable[Tool]) -> None:
        """Begins to read the versions of tools that have not been asked for yet."""
        for tool in tools:
            if tool.name not in self._futures and tool.name not in self._known:
                self._futures[tool.name] = self._pool.submit(read, tool, self._timeout, self._env)

    def all_known(self) -> bool:
        """Whether no reading is under way."""
        return all(future.done() for future in self._futures.values())

    def results(self, tools: Iterable[Tool]) -> tuple[Reading, ...]:
        """The readings of `tools`, waiting for those under way."""
        chosen = tuple(tools)
        self.start(chosen)
        return tuple(
            self._known[tool.name] if tool.name in self._known else self._futures[tool.name].result() for tool in chosen
        )

    def close(self) -> None:
        """Ends what is still being read and starts nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        process.end_all()


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
