"""A shell command in an image that was built, as engines run it to see whether the image works."""

import json
from collections.abc import Iterable
from pathlib import Path

from imagewright import process
from imagewright.builders import Ran
from imagewright.builders.progress import Story, indented
from imagewright.errors import BuildFailed

COMMAND_SECONDS = 60.0
COMMAND_LINES = 1000
"""How many of its last lines are kept."""
COMMAND_LIMITS = {"nofile": "4096:4096", "nproc": "4096:4096", "core": "0:0"}
"""What `getrlimit` can limit without harm; a limit on address space would end Node.js and Go, which reserve much of it."""

_TOO_LONG, _NOT_EXECUTABLE, _NOT_FOUND = 124, 126, 127
"""Exit codes that say how a command fared, as `timeout` and shells have them."""

SHELL_STATUSES = (_NOT_EXECUTABLE, _NOT_FOUND)
"""What is the status where there is no shell in the image, or none that could run."""


def exec_form(command: str) -> str:
    """A shell command as the exec form of RUN, in which a Dockerfile finds neither a here-document nor another line."""
    return json.dumps(["/bin/sh", "-c", command]).replace("<", "\\u003c")


def took_too_long(output: Iterable[str], seconds: float) -> Ran:
    """How a command ended that was ended."""
    return Ran(status=_TOO_LONG, output=(*output, f"it did not end within {seconds:.0f} s"))


def ran_in_a_build(story: Story, ended: process.Ended, layout: Path, command: str, seconds: float) -> Ran:
    """How a command ended that was the only step of a build. `BuildFailed` where it did not come to that."""
    output = story.output()
    if ended.timed_out:
        return took_too_long(output, seconds)
    status = story.exit_code()
    if ended.status != 0 and status is None:
        first, *rest = story.told(ended.status)
        raise BuildFailed(f"BuildKit cannot run '{command}' in {layout}: {first}" + indented(rest))
    if status == 1 and output and "unable to start container process" in output[-1]:
        status = _NOT_FOUND if "no such file" in output[-1] else _NOT_EXECUTABLE
    return Ran(status=status or 0, output=output)
