"""What is not fresh as lines that a forge shows beside the tool's or image's file.

https://docs.github.com/actions/reference/workflows-and-actions/workflow-commands#setting-a-notice-message
"""

from collections.abc import Iterator

from imagewright.matrix import Group, Mark, Matrix

_AT_MOST = 9
"""A step may have ten of a kind, and silently loses the others."""

_LEVELS = {Mark.STALE: "notice", Mark.UNKNOWN: "warning"}


def commands(matrix: Matrix) -> Iterator[str]:
    """A line per story, what is unknown first, and one that counts the stories that are left out."""
    told = [group for group in matrix.groups if group.mark in _LEVELS]
    told.sort(key=lambda group: group.mark is Mark.STALE)
    for group in told[:_AT_MOST]:
        count = f" and {len(group.cells) - 1} more" if len(group.cells) > 1 else ""
        title = _property(f"{group.cells[0].target}{count}: {group.mark.words}")
        yield f"::{_LEVELS[group.mark]} {_place(group)}title={title}::{_text('; '.join(group.why))}"
    if len(told) > _AT_MOST:
        yield f"::notice::and {len(told) - _AT_MOST} more"


def _place(group: Group) -> str:
    """The file of the first target, `,` behind it; empty for what is no target, as where the bases could not be listed."""
    first = group.cells[0]
    if first.tool:
        return f"file={_property(f'tools/{first.tool}/version.sh')},line=1,"
    return f"file={_property(f'images/{first.target}/image.yml')},line=1," if first.version else ""


def _text(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _text(text).replace(":", "%3A").replace(",", "%2C")
