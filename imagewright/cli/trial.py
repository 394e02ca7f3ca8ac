"""Whether what was built works: the command that proves it, run in the image of each platform."""

import re
from collections.abc import Callable
from pathlib import Path

from imagewright.builders import Builder
from imagewright.catalogue import Pair, Target
from imagewright.errors import BuildFailed
from imagewright.names import Platform, shown

_SHOWN_LINES = 8


def try_out(
    target: Target,
    version: str,
    *,
    builder: Builder,
    layout: Path,
    platforms: tuple[Platform, ...],
    say: Callable[[str], None],
) -> None:
    """Runs the target's `command` in what was built and compares what it prints with the version.

    say: is told what was run, or why nothing was. `BuildFailed` where it fails, or speaks of another version.
    """
    command = target.source.command
    if not command:
        return
    if not builder.can.runs:
        say(f"'{command}' is not run: {builder.name} cannot run what it builds")
        return
    for platform in platforms:
        ran = builder.run(layout, platform, command)
        last = ran.output[-_SHOWN_LINES:]
        told = "".join(f"\n    {line}" for line in last)
        if ran.status:
            raise BuildFailed(f"{target.key}: '{command}' fails on {platform} with exit code {ran.status}{told}")
        if isinstance(target, Pair) and not says(version, "\n".join(ran.output)):
            raise BuildFailed(
                f"{target.key}: '{command}' does not speak of {version} on {platform}{told or ': it says nothing'}",
                remedy="Let install.sh install $TOOL_VERSION; a build cache may keep an older one, see --no-cache.",
            )
        say(f"{platform}: {command}: {shown(' '.join(last))[1:-1]}")


def says(version: str, output: str) -> bool:
    """Whether a version stands in a text by itself: `1.2` is not in `1.2.3`, nor in `11.2`, but in `tool v1.2 (x)`."""
    return re.search(rf"(?<![0-9A-Za-z.])v?{re.escape(version)}(?![0-9A-Za-z]|[.+-]\w)", output) is not None
