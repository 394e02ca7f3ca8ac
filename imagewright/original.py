"""The layout of tools from before imagewright: what of it stands for what of ours, and what stands for nothing.

A tool was a folder with `install.sh`, `version.sh` and `tool.yaml` {tool_path, tool_full_name, tool_homepage}; beside the
folder of tools lay `config.yaml` with upper-case names, which the environment overrode. Values only: bytes in, bytes out.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from imagewright import fields
from imagewright.errors import BadCatalogue
from imagewright.fields import Node

CONFIG = "config.yaml"

_RENAMED = {"tool_full_name": "title", "tool_homepage": "homepage"}
_PATH = "tool_path"
_HINTS = {
    "base_exclude": "List each base with the reason under exclude-bases.",
    "base_distro_exclude": "List each base with the reason under exclude-bases.",
    "build_local": "If the tool must not be published, write `redistributable: false`.",
}
_VARIABLES = {
    "AICAGE_IMAGE_REGISTRY": "registry",
    "AICAGE_IMAGE_REPOSITORY": "repository",
    "AICAGE_REPOSITORY": "repository",
    "AICAGE_IMAGE_BASE_REPOSITORY": "bases.repository",
    "AICAGE_BASE_REPOSITORY": "bases.repository",
}
"""Name in `config.yaml` and in the environment → our setting. The shorter names are the older ones."""

_NEEDLESS = ("AICAGE_IMAGE_REGISTRY_API_URL", "AICAGE_IMAGE_REGISTRY_API_TOKEN_URL")
_LOOK = "See in imagewright's docs/settings.md whether something says it."


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something that a person should know. place: a path, or `file:line`. remedy: empty where nothing has to be done."""

    place: str
    what: str
    remedy: str = ""


def old_fields(content: bytes, file: str, tool: str) -> list[Remark]:
    """The earlier fields in a `tool.yaml`, each with the line that takes its place. None where it is not YAML."""
    try:
        node = fields.from_yaml(content, file)
    except BadCatalogue:  # whoever loads the catalogue says so, with the place
        return []
    members = node.value if isinstance(node.value, dict) else {}
    found = []
    for name, member in members.items():
        if line := _replacement(name, member, tool):
            found.append(Remark(place=member.place, what=f"{name} is an earlier field", remedy=f"Write `{line}`."))
    return found


def converted(content: bytes, file: str, tool: str, ours: Collection[str]) -> tuple[bytes, list[Remark]]:
    """A `tool.yaml` with our fields in the order and among the comments of its author; what is not a field of ours any
    more becomes a comment and is remarked upon.

    ours: the fields that stay. `BadCatalogue` where it is not YAML, or more than one field stands on a line.
    """
    node = fields.from_yaml(content, file)
    if not isinstance(node.value, dict):
        raise BadCatalogue("not a table of fields", where=node.place)
    lines = content.decode("utf-8").splitlines()
    starts = [int(member.place.rsplit(":", 2)[1]) - 1 for member in node.value.values()]
    if len(set(starts)) != len(starts):
        raise BadCatalogue("several fields on one line", remedy="Give each a line of its own.", where=node.place)
    made, remarks = lines[: starts[0]] if starts else lines, []
    for (name, member), start, end in zip(node.value.items(), starts, [*starts[1:], len(lines)]):
        replacement = _replacement(name, member, tool)
        if name in ours:
            made += lines[start:end]
        elif replacement and replacement.partition(":")[0] not in node.value:
            made += [
                replacement,
                *(line for line in lines[start + 1 : end] if line.startswith("#") or not line.strip()),
            ]
            if name == _PATH and not _names_a_program(member.value):
                remarks.append(
                    Remark(place=member.place, what=f"{name} names no program, so the command is the folder's name")
                )
        else:
            made += [f"# {line}" if line.strip() else line for line in lines[start:end]]
            remarks.append(_not_ours(name, member, replacement))
    return ("\n".join(made) + "\n").encode(), remarks


def _not_ours(name: str, member: Node, replacement: str) -> Remark:
    if replacement:
        what = f"{name}: {replacement.partition(':')[0]} is there too and stays; now a comment"
        return Remark(place=member.place, what=what)
    remedy = _HINTS.get(name, _LOOK)
    return Remark(place=member.place, what=f"{name}: not a field of ours, now a comment", remedy=remedy)


def _replacement(name: str, member: Node, tool: str) -> str:
    """The line that says what an earlier field said; empty for what was none, or is no text."""
    if name == _PATH and isinstance(member.value, str):
        # Without a program, the one that the smoke test of that layout asked for.
        return f"command: {_scalar(f'{member.value if _names_a_program(member.value) else tool} --version')}"
    if name in _RENAMED and isinstance(member.value, str):
        return f"{_RENAMED[name]}: {_scalar(member.value)}"
    return ""


def _names_a_program(path: str) -> bool:
    """Some folders named the program in `tool_path`, some the folder where the tool keeps its settings: `~/.codex`."""
    return bool(path) and not path.startswith("~") and not path.rpartition("/")[2].startswith(".")


def _scalar(text: str) -> str:
    """A text as YAML, quoted where it would not be one, or not the same, without."""
    try:
        is_plain = text and fields.from_yaml(f"_: {text}".encode(), "").value["_"].value == text
    except BadCatalogue:  # not YAML, so not plain
        is_plain = False
    return text if is_plain else json.dumps(text, ensure_ascii=False)


def old_settings(config: bytes | None, file: str, environ: Mapping[str, str]) -> tuple[dict[str, str], list[Remark]]:
    """Our settings (`registry`, `repository`, `bases.repository`) that a `config.yaml` and the environment name.

    config: None where there is no such file. What it says besides is remarked upon. `BadCatalogue` where it is not YAML.
    """
    node = fields.from_yaml(config, file) if config is not None else Node({}, file)
    if not isinstance(node.value, dict):
        raise BadCatalogue("not a table of settings", where=node.place)
    made, remarks = {}, []
    for name, member in node.value.items():
        key = _VARIABLES.get(name, "")
        if key and isinstance(member.value, str):
            made[key] = member.value
        elif name in _NEEDLESS:
            remarks.append(Remark(place=member.place, what=f"{name}: not needed, the registry says it"))
        else:
            remarks.append(Remark(place=member.place, what=f"{name}: not carried over", remedy=_LOOK))
    for name, key in reversed(_VARIABLES.items()):
        if environ.get(name):
            made[key] = environ[name]
    return made, remarks
