"""What BuildKit tells while it builds, and what to say where that fails. `buildctl` and `buildx` tell alike."""

import base64
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping

from imagewright.builders import BuildRequest
from imagewright.errors import BuildFailed
from imagewright.names import shown

SHOWN_LINES = 15
"""How much of a failed command's output goes into the error; all of it is in the log."""

_EXIT_CODE = re.compile(r"did not complete successfully: exit code: (\d+)")
_PLACE = re.compile(r"(\S+):(\d+)\Z")
_OTHER_PLATFORM = "InvalidBaseImagePlatform: "
"""https://docs.docker.com/reference/build-checks/invalid-base-image-platform/"""
_SOLVE = "failed to solve: "
_ERROR = re.compile(r"\Aerror: ", re.IGNORECASE)
_STEP = re.compile(r"\[[^\]]*\]")
_TERMINAL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|.*\r(?!\Z)")


class Story:
    """What a program tells with `--progress rawjson`: steps and their output, and in the end, as text, what went wrong.

    say: takes each line fit to be shown. program: its name.
    """

    def __init__(self, say: Callable[[str], None], program: str) -> None:
        self._say = say
        self._program = program
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
        self._names[step] = clean(vertex.get("name", step))
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
        text = clean(line.decode("utf-8", "replace"))
        self._last.setdefault(step, deque(maxlen=SHOWN_LINES)).append(text)
        number = _STEP.match(self._names.get(step, ""))
        self._say(f"{number[0] if number else '  '} {text}")

    def failure(self, request: BuildRequest, status: int) -> BuildFailed:
        """The error to raise after the program has ended with that status."""
        for step, rest in self._unfinished.items():
            if rest:
                self._line(step, rest)
        where = self._place(request)
        for step, error in self._errors.items():
            if found := _EXIT_CODE.search(error):
                reason = f"{request.target}: {self._names[step]}: exit code {found[1]}"
                return BuildFailed(reason + indented(self._last.get(step, ())), where=where)
        text = "\n".join(self._text)
        told = text.rpartition(_SOLVE)[2] if _SOLVE in text else _ERROR.sub("", text)
        lines = [clean(line) for line in told.strip().splitlines()] or [f"{self._program} ended with status {status}"]
        return BuildFailed(f"{request.target}: {lines[0]}" + indented(lines[1:][-SHOWN_LINES:]), where=where)

    def refuse_other_platform(self, request: BuildRequest) -> None:
        """`BuildFailed` where the base was taken for a platform it is not of: the image would carry the wrong name.

        A base without an index is taken for any platform, with a warning.
        """
        for warning in self._warnings:
            if warning.startswith(_OTHER_PLATFORM) and str(request.base) in warning:
                raise BuildFailed(f"{request.target}: {clean(warning.removeprefix(_OTHER_PLATFORM))}")

    def _place(self, request: BuildRequest) -> str:
        """`Dockerfile:line`, where the text shows a part of the Dockerfile."""
        for line in self._text:
            if request.dockerfile and (found := _PLACE.match(line)) and found[1] == request.dockerfile.name:
                return f"{request.dockerfile}:{found[2]}"
        return ""


def clean(line: str) -> str:
    """Foreign output for a log: without colours, of overwritten text the last, control characters escaped."""
    plain = _TERMINAL.sub("", line).rstrip("\r").replace("\t", "    ")
    return plain if plain.isprintable() else shown(plain, limit=len(plain) * 4)[1:-1]


def indented(lines: Iterable[str]) -> str:
    return "".join(f"\n    {line}" for line in lines)
