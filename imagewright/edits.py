"""What is left for a person before the checks of a project can say something true, each with its place and what to do."""

import ast
import re
from collections.abc import Iterator
from typing import Protocol

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from imagewright import fields, original
from imagewright.fields import Node
from imagewright.load import OWN_FILE, PROJECT_FILE, settings_in
from imagewright.names import BadName, parse_folder_name
from imagewright.original import Remark
from imagewright.shipped import RECIPE
from imagewright.skeletons import UNWRITTEN

PLUGIN = "imagewright.pytest_plugin"
CONFTEST = "conftest.py"
_REMEDIES = {
    "version.sh": "Let it print the version: one line on stdout, nothing else.",
    "install.sh": "Let it install exactly $TOOL_VERSION.",
}
_SETTINGS_EDITS = {
    "repository": "Name the repository that the images are published to.",
    "bases.repository": "Name the repository that has the bases.",
}


class Project(Protocol):
    """The files of a project, as they are or as they will be. Paths are relative to it, with `/`."""

    def content(self, path: str) -> bytes | None:
        """Of a file, None where there is none."""

    def has_folder(self, path: str) -> bool:
        """Whether there is a folder."""

    def tools(self) -> list[str]:
        """The names of the folders in `tools/`."""


def edits(project: Project, version: str) -> Iterator[Remark]:
    """What stands between a project and checks that say something true. version: of imagewright."""
    yield from _settings_edits(project)
    yield from _conftest_edits(project)
    yield from _dependency_edits(project, version)
    for tool in project.tools():
        yield from tool_edits(project, tool)
    if not project.tools():
        yield Remark(
            place="tools/", what="there is no tool", remedy="Make one: `imagewright new tool NAME --npm PACKAGE`."
        )


def _settings_edits(project: Project) -> Iterator[Remark]:
    node = settings_in(project.content(OWN_FILE), project.content(PROJECT_FILE))
    if node is None or not isinstance(node.value, dict):  # whoever loads them says so
        return
    bases = node.value.get("bases", Node({}, node.place))
    tables = {"repository": node, "bases.repository": bases}
    for key, remedy in _SETTINGS_EDITS.items():
        table = tables[key]
        members = table.value if isinstance(table.value, dict) else {}
        value = members.get("repository", Node("", table.place))
        if value.value == "":
            yield Remark(place=value.place, what=f"{key} is empty", remedy=remedy)


def _conftest_edits(project: Project) -> Iterator[Remark]:
    content = project.content(CONFTEST) or b""
    if loads_the_plugin(content):
        return
    line = plugins_line(content)
    place = f"{CONFTEST}:{line}" if line else CONFTEST
    what = "names other plugins" if line else "is not Python, so nothing was added"
    yield Remark(place=place, what=what, remedy=f'Add "{PLUGIN}" to pytest_plugins.')


def _dependency_edits(project: Project, version: str) -> Iterator[Remark]:
    document = fields.from_toml(project.content(PROJECT_FILE) or b"", PROJECT_FILE).value
    table = document.get("project")
    if table is None or not isinstance(table.value, dict):
        return
    if any(_names_imagewright(document[name]) for name in ("project", "dependency-groups") if name in document):
        return
    place = table.value.get("dependencies", table).place
    yield Remark(place=place, what="does not depend on imagewright", remedy=f'Add "{pin(version)}" to `dependencies`.')


def _names_imagewright(node: Node) -> bool:
    """Whether a requirement anywhere in a table is one of imagewright: dependencies have several places to be in."""
    if isinstance(node.value, dict):
        return any(_names_imagewright(one) for one in node.value.values())
    if isinstance(node.value, list):
        return any(_names_imagewright(one) for one in node.value)
    try:
        return isinstance(node.value, str) and canonicalize_name(Requirement(node.value).name) == "imagewright"
    except InvalidRequirement:
        return False


def tool_edits(project: Project, tool: str) -> Iterator[Remark]:
    """The same for one tool."""
    folder = f"tools/{tool}"
    try:
        parse_folder_name(tool)
    except BadName as error:
        yield Remark(place=folder, what=str(error), remedy="Give it a name that can be part of a tag.")
        return
    yield from original.old_fields(project.content(f"{folder}/tool.yaml") or b"", f"{folder}/tool.yaml", tool)
    for script in ("version.sh", "install.sh"):
        content = project.content(f"{folder}/{script}")
        if content is not None and UNWRITTEN in content:
            line = content.partition(UNWRITTEN)[0].count(b"\n") + 1
            yield Remark(place=f"{folder}/{script}:{line}", what="is not written yet", remedy=_REMEDIES[script])
    if project.content(f"{folder}/version.sh") is None:
        what = "there is no version.sh: the tool is unknown until one prints its version"
        yield Remark(place=folder, what=what, remedy=_REMEDIES["version.sh"])
    yield from _recipe_edits(project, folder)


def _recipe_edits(project: Project, folder: str) -> Iterator[Remark]:
    """What keeps the version of the tag out of the image."""
    own, script = project.content(f"{folder}/Dockerfile"), project.content(f"{folder}/install.sh")
    pinned = "Install exactly $TOOL_VERSION, so that an image holds the version in its tag."
    if own is not None:
        for name in (b"BASE_IMAGE", b"TOOL_VERSION"):
            if not re.search(rb"^\s*ARG\s+%b\b" % name, own, re.MULTILINE | re.IGNORECASE):
                line = f"ARG {name.decode()}"
                yield Remark(
                    place=f"{folder}/Dockerfile", what=f"has no {line}", remedy=f"Add it, and use it: `{line}`."
                )
        return
    if script is None:
        if not project.has_folder(f"{folder}/rootfs"):
            yield Remark(
                place=folder, what="nothing installs the tool", remedy="Add install.sh, Dockerfile or rootfs/."
            )
        return
    if b"TOOL_VERSION" not in script:
        yield Remark(
            place=f"{folder}/install.sh", what="installs whatever is newest: TOOL_VERSION is not in it", remedy=pinned
        )
    if b"\r\n" in script:
        what = "has CRLF line ends, which a shell does not run"
        yield Remark(place=f"{folder}/install.sh", what=what, remedy="Write it with LF.")
    recipe = project.content(RECIPE[0]) or b""
    if is_for_bash(script) and b" sh /recipe/install.sh" in recipe:
        yield Remark(
            place=f"{folder}/install.sh:1",
            what=f"is for bash, and {RECIPE[0]} runs it with sh",
            remedy="Write it for sh, or let the recipe run bash.",
        )


def parses(content: bytes) -> bool:
    """Whether a file is Python."""
    try:
        ast.parse(content)
    except (SyntaxError, ValueError):  # a person's file, half edited
        return False
    return True


def plugins_line(content: bytes) -> int | None:
    """The line on which a conftest.py names plugins; None where it does not, or is not Python."""
    if not parses(content):
        return None
    found = (one for one in ast.walk(ast.parse(content)) if isinstance(one, ast.Name) and one.id == "pytest_plugins")
    return next((one.lineno for one in found), None)


def loads_the_plugin(conftest: bytes) -> bool:
    """Whether a conftest.py names the plugin of imagewright."""
    line = plugins_line(conftest)
    return line is not None and PLUGIN.encode() in conftest


def is_for_bash(script: bytes) -> bool:
    """Whether a script asks to be run by bash."""
    return b"bash" in script.partition(b"\n")[0] and script.startswith(b"#!")


def pin(version: str) -> str:
    """The requirement that pins imagewright."""
    return f"imagewright=={version}"
