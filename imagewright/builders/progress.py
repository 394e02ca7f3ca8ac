"""What BuildKit tells while it builds, and what to say where that fails. `buildctl` and `buildx` tell alike."""

import base64
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from imagewright.builders import NOTICE, BuildRequest
from imagewright.errors import BuildFailed
from imagewright.names import shown

SHOWN_LINES = 15
"""How much of a failed command's output goes into the error; all of it is in the log."""

_EXIT_CODE = re.compile(
    r"(?:did not complete successfully|executor failed running \[.*\]): exit code: (\d+)", re.DOTALL
)
"""As BuildKit says it today, and as docker 20.10 did."""
_PLACE = re.compile(r"(\S+):(\d+)\Z")
_OTHER_PLATFORM = "InvalidBaseImagePlatform: "
"""https://docs.docker.com/reference/build-checks/invalid-base-image-platform/"""
_SOLVE = "failed to solve: "
_ERROR = re.compile(r"\Aerror: ", re.IGNORECASE)
_PARSE_ERROR = re.compile(r"dockerfile parse error (?:on )?line (\d+)")
_WRAPPINGS = re.compile(
    r"failed to compute cache key: |failed to calculate checksum of ref \S+: |invalid local: (resolve : )?"
    r"|(listing workers for Build: )?failed to list workers: |Unavailable: (connection error: desc = )?"
    r"|transport: Error while dialing: |failed to receive status: |rpc error: code = \w+ desc = "
    r"|failed to solve with frontend \S+: |failed to create LLB definition: "
)
"""What BuildKit was about when it noticed; says nothing to a person."""
_STEP = re.compile(r"\[[^\]]*\]")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|.*\r(?!\Z)")

_CACHE_READ, _CACHE_WRITE = "importing cache manifest from ", "exporting cache to "
_ABSENT = re.compile(r"not found|NoSuchKey|StatusCode: 404")

_REMEDIES = (
    (r"(?i)no space left on device", "Make room where BuildKit keeps its state, or where the image is written."),
    (r"(?i)exec format error", "Install an emulator (Debian: qemu-user-static, binfmt-support) and restart BuildKit."),
)
"""What to do about an error in which the expression is found; the first counts."""
_BUILDKIT_REMEDIES = (
    *_REMEDIES,
    (
        r"Unavailable|error reading from server|use of closed network connection|broken pipe|no active session",
        "BuildKit has ended, or cannot be reached any more: look into its log, then build again.",
    ),
    (r"no match for platform", "Leave the platform out for this base, or publish the base for it."),
    (r"failed to do request", "Look whether the registry can be reached from where BuildKit runs."),
    (
        r"failed to resolve source metadata for |@sha256:[0-9a-f]{64}: not found",
        "Look whether the base is still there and may be read; a new plan takes the base of today.",
    ),
    (r"failed to read dockerfile", "Write it, or look whether it was moved."),
    (r'"/[^"]*":? not found', "COPY and ADD find what is in the build context and not in .dockerignore."),
    (r"(lstat|open|stat) /", "Look whether it is there, and build again while nothing else changes the build context."),
)
"""The same for what BuildKit itself says."""
_CORRECT = "Correct the Dockerfile."


class Story:
    """What a program tells with `--progress rawjson`: steps and their output, and in the end, as text, what went wrong.

    say: takes each line fit to be shown. program: its name. kept: how many lines of each step's output are remembered.
    """

    def __init__(self, say: Callable[[str], None], program: str, *, kept: int = SHOWN_LINES) -> None:
        self._say = say
        self._program = program
        self._kept = kept
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
            self._say(clean(line))
            return
        for vertex in told.get("vertexes") or ():
            self._step(vertex)
        for log in told.get("logs") or ():
            self._output(log["vertex"], base64.b64decode(log.get("data") or ""))
        for warning in told.get("warnings") or ():
            self._warnings.append(base64.b64decode(warning.get("short") or "").decode("utf-8", "replace"))

    def _step(self, vertex: Mapping[str, str]) -> None:
        step = vertex["digest"]
        self._names[step] = clean(vertex.get("name", step))
        if vertex.get("started") and step not in self._told and not self._names[step].startswith("[internal]"):
            self._told.add(step)
            self._say(self._names[step] + (" (cached)" if vertex.get("cached") else ""))
        if (error := vertex.get("error")) and step not in self._errors:
            self._errors[step] = error
            self._say_cache(self._names[step], clean(error))

    def _say_cache(self, name: str, error: str) -> None:
        """Tells a person that a cache fails, which no build fails for. One that is not there yet is none."""
        if name.startswith(_CACHE_WRITE):
            self._say(f"{NOTICE}the build cache was not written: {error}")
        elif name.startswith(_CACHE_READ):
            absent = _ABSENT.search(error)
            self._say(f"{'' if absent else NOTICE}the build cache was not read: {error}")

    def _output(self, step: str, data: bytes) -> None:
        *lines, self._unfinished[step] = (self._unfinished.get(step, b"") + data).split(b"\n")
        for line in lines:
            self._line(step, line)

    def _line(self, step: str, line: bytes) -> None:
        text = clean(line.decode("utf-8", "replace"))
        self._last.setdefault(step, deque(maxlen=self._kept)).append(text)
        number = _STEP.match(self._names.get(step, ""))
        self._say(f"{number[0] if number else '  '} {text}")

    def exit_code(self) -> int | None:
        """Of the command that failed; None where none did."""
        found = self._failed_step()
        return found[1] if found else None

    def output(self) -> tuple[str, ...]:
        """The lines of all steps."""
        self._flush()
        return tuple(line for lines in self._last.values() for line in lines)

    def failure(self, request: BuildRequest, status: int) -> BuildFailed:
        """The error to raise after the program has ended with that status."""
        self._flush()
        where = self._place(request)
        if found := self._failed_step():
            step, code = found
            lines = self._last.get(step, ())
            reason = f"{request.target}: {self._names[step]}: exit code {code}"
            return BuildFailed(reason + indented(lines), where=where, remedy=_remedy(_REMEDIES, "\n".join(lines)))
        first, *rest = self.told(status)
        reason = f"{request.target}: {first}" + indented(rest[-SHOWN_LINES:])
        advice = _remedy(_BUILDKIT_REMEDIES, "\n".join(self._text))
        return BuildFailed(reason, where=where, remedy=advice or (_CORRECT if where else ""))

    def told(self, status: int) -> list[str]:
        """What the program said in the end, in lines; at least one."""
        text = "\n".join(self._text)
        told = text.rpartition(_SOLVE)[2] if _SOLVE in text else _ERROR.sub("", text)
        lines = [without_wrappings(line) for line in told.strip().splitlines()]
        return lines or [f"{self._program} ended with status {status}"]

    def _failed_step(self) -> tuple[str, int] | None:
        for step, error in self._errors.items():
            if found := _EXIT_CODE.search(error):
                return step, int(found[1])
        return None

    def _flush(self) -> None:
        for step, rest in self._unfinished.items():
            if rest:
                self._unfinished[step] = b""
                self._line(step, rest)

    def refuse_other_platform(self, request: BuildRequest) -> None:
        """`BuildFailed` where the base was taken for a platform it is not of: the image would carry the wrong name.

        A base without an index is taken for any platform, with a warning.
        """
        base = request.stands_for or str(request.base)
        for warning in self._warnings:
            if warning.startswith(f"{_OTHER_PLATFORM}Base image {base} "):
                raise BuildFailed(f"{request.target}: {clean(warning.removeprefix(_OTHER_PLATFORM))}")

    def _place(self, request: BuildRequest) -> str:
        """`Dockerfile:line`, where the text shows a part of the Dockerfile; the Dockerfile, where it cannot be read."""
        for line in self._text:
            if "failed to read dockerfile" in line:
                return str(request.dockerfile)
            if request.dockerfile and (found := _PLACE.match(line)) and found[1] == request.dockerfile.name:
                return f"{request.dockerfile}:{found[2]}"
        found = _PARSE_ERROR.search("\n".join(self._text))
        return f"{request.dockerfile}:{found[1]}" if found else ""


def _remedy(table: Iterable[tuple[str, str]], text: str) -> str:
    return next((advice for found, advice in table if re.search(found, text)), "")


def remedy(text: str) -> str:
    """What to do about an error in BuildKit's words, or docker's; empty where nobody knows."""
    return _remedy(_BUILDKIT_REMEDIES, text)


def without_wrappings(line: str) -> str:
    """A line of BuildKit's errors, cleaned, without what it was about when it noticed."""
    return clean(_WRAPPINGS.sub("", _ERROR.sub("", line)))


def clean(line: str) -> str:
    """Foreign output for a log: without colours, of overwritten text the last, control characters escaped."""
    plain = _TERMINAL.sub("", line).rstrip("\r").replace("\t", "    ")
    return plain if plain.isprintable() else shown(plain, limit=len(plain) * 4)[1:-1]


def indented(lines: Iterable[str]) -> str:
    return "".join(f"\n    {line}" for line in lines)
