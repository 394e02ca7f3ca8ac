"""Reading structured text with its places: every mistake is named `file:line:column`, and all of them at once."""

import difflib
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from imagewright.errors import BadCatalogue
from imagewright.names import BadName

_MAX_DEPTH = 20
_MAX_BYTES = 256 * 2**10


@dataclass(frozen=True, slots=True)
class Node:
    """A value and the place it stands at. value: text, number, truth, a list of nodes, or nodes by name."""

    value: Any
    place: str


class Problems:
    """Mistakes, collected until somebody asks."""

    def __init__(self) -> None:
        self._found: list[str] = []

    def add(self, place: str, what: str) -> None:
        """Notes a mistake."""
        self._found.append(f"{place}: {what}")

    def refuse(self, remedy: str) -> None:
        """`BadCatalogue` with every mistake, if there is one."""
        if self._found:
            raise BadCatalogue("\n".join(dict.fromkeys(self._found)), remedy=remedy)


Reader = Callable[[Node], Any]
"""Makes a value of a node; raises ValueError with what is wrong with it."""


def read(node: Node, schema: Mapping[str, Reader], problems: Problems, prefix: str = "") -> dict[str, Any]:
    """The members of `node` that `schema` knows, each made by its reader; mistakes go to `problems`."""
    if not isinstance(node.value, dict):
        problems.add(node.place, f"{prefix or 'the document'} is not a table of fields")
        return {}
    made = {}
    for name, member in node.value.items():
        path = f"{prefix}.{name}" if prefix else name
        reader = schema.get(name)
        if reader is None:
            close = difflib.get_close_matches(name, schema, 1)
            problems.add(
                member.place, f"{path}: not a known field." + (f" Did you mean '{close[0]}'?" if close else "")
            )
            continue
        try:
            made[name] = reader(member)
        except ValueError as error:
            problems.add(member.place, f"{path}: {error}")
    return made


def text(node: Node) -> str:
    """A text."""
    if not isinstance(node.value, str):
        raise ValueError("a text is expected")
    return node.value


def truth(node: Node) -> bool:
    """True or false; in YAML and in the environment only spelled so."""
    if isinstance(node.value, bool):
        return node.value
    if node.value not in ("true", "false"):
        raise ValueError("true or false is expected")
    return bool(node.value == "true")


def number(node: Node) -> float:
    """A number that is not negative."""
    try:
        made = float(node.value)
    except (TypeError, ValueError, OverflowError):
        made = -1
    if isinstance(node.value, bool) or not 0 <= made < float("inf"):
        raise ValueError("a number, not negative, is expected")
    return made


def whole(node: Node) -> int:
    """A whole number that is not negative."""
    made = number(node)
    if made != int(made):
        raise ValueError("a whole number is expected")
    return int(made)


def named(parse: Callable[[str], Any]) -> Reader:
    """A text that `parse`, one of `names`, accepts."""

    def reader(node: Node) -> Any:
        try:
            return parse(text(node))
        except BadName as error:
            raise ValueError(str(error)) from None

    return reader


def one_of(*allowed: str) -> Reader:
    """One of a few words."""

    def reader(node: Node) -> str:
        if node.value not in allowed:
            raise ValueError(f"one of {', '.join(allowed)} is expected")
        return str(node.value)

    return reader


def listed(reader: Reader) -> Reader:
    """A list, each entry made by `reader`; in the environment separated by commas. Nothing may stand twice."""

    def list_reader(node: Node) -> tuple[Any, ...]:
        if not isinstance(node.value, list):
            raise ValueError("a list is expected")
        made = tuple(reader(entry) for entry in node.value)
        if len(set(made)) != len(made):
            raise ValueError("an entry stands twice")
        return made

    return list_reader


def texts_by_name(parse: Callable[[str], str]) -> Reader:
    """Names, each with a text."""

    def reader(node: Node) -> dict[str, str]:
        if not isinstance(node.value, dict):
            raise ValueError("names with texts are expected")
        return {named(parse)(Node(name, member.place)): text(member) for name, member in node.value.items()}

    return reader


def from_yaml(content: bytes, file: str) -> Node:
    """YAML as nodes; every scalar is a text, as its author spelled it. `BadCatalogue` where it is not plain YAML."""
    if len(content) > _MAX_BYTES:
        raise BadCatalogue(f"{len(content)} bytes, at most {_MAX_BYTES} are read", where=file)
    try:
        decoded = content.decode("utf-8")
        _refuse_tricks(decoded, file)
        # CBaseLoader knows no types, so `3.10` and `no` stay what was written.
        root = yaml.compose(decoded, Loader=yaml.CBaseLoader)
    except UnicodeDecodeError as error:
        raise BadCatalogue(f"not UTF-8 at byte {error.start}", where=file) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        raise BadCatalogue(f"not YAML: {error.problem}", remedy="Mend the syntax there.", where=where) from None
    except yaml.YAMLError as error:
        raise BadCatalogue(f"not YAML: {' '.join(str(error).split())}", where=file) from None
    return Node({}, f"{file}:1:1") if root is None else _yaml_node(root, file)


def _refuse_tricks(content: str, file: str) -> None:
    depth = 0
    for event in yaml.parse(content, Loader=yaml.CBaseLoader):
        mark = event.start_mark
        place = f"{file}:{mark.line + 1}:{mark.column + 1}" if mark else file
        if isinstance(event, yaml.AliasEvent):
            raise BadCatalogue("an alias; write the value out", where=place)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise BadCatalogue(f"nested deeper than {_MAX_DEPTH} levels", where=place)
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _yaml_node(node: yaml.Node, file: str) -> Node:
    place = f"{file}:{node.start_mark.line + 1}:{node.start_mark.column + 1}"
    if isinstance(node, yaml.SequenceNode):
        return Node([_yaml_node(entry, file) for entry in node.value], place)
    if isinstance(node, yaml.MappingNode):
        members: dict[str, Node] = {}
        for key, value in node.value:
            at = f"{file}:{key.start_mark.line + 1}:{key.start_mark.column + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise BadCatalogue("a name is expected before the colon", where=at)
            if key.value in members:
                raise BadCatalogue(f"'{key.value}' stands twice", remedy="Remove one of them.", where=at)
            members[key.value] = Node(_yaml_node(value, file).value, at)
        return Node(members, place)
    return Node(node.value, place)


def from_toml(content: bytes, file: str) -> Node:
    """TOML as nodes. `BadCatalogue` where it is not TOML."""
    try:
        decoded = content.decode("utf-8")
        document = tomllib.loads(decoded)
    except UnicodeDecodeError as error:
        raise BadCatalogue(f"not UTF-8 at byte {error.start}", where=file) from None
    except tomllib.TOMLDecodeError as error:
        raise BadCatalogue(f"not TOML: {error}", remedy="Mend the syntax there.", where=file) from None
    except ValueError:  # Python reads no number of over 4,300 digits
        raise BadCatalogue("a number with far too many digits", where=file) from None
    except RecursionError:
        raise BadCatalogue("nested too deep", where=file) from None
    return _toml_node(document, file, _toml_lines(decoded), ())


def _toml_lines(content: str) -> dict[tuple[str, ...], int]:
    """Line numbers of tables and keys by their path; tomllib tells none. Good enough to point at."""
    lines: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    for at, line in enumerate(content.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("[") and "]" in stripped and "=" not in stripped.split("]")[0]:
            table = _toml_path(stripped.strip("[]").split("]")[0])
            lines.setdefault(table, at)
        elif "=" in stripped and not stripped.startswith("#"):
            path = table + _toml_path(stripped.split("=")[0])
            for length in range(len(table) + 1, len(path) + 1):
                lines.setdefault(path[:length], at)
    return lines


def _toml_path(text: str) -> tuple[str, ...]:
    parts, quoted = [""], ""
    for character in text.strip():
        if character in "\"'" and quoted in ("", character):
            quoted = "" if quoted else character
        elif character == "." and not quoted:
            parts.append("")
        else:
            parts[-1] += character
    return tuple(part.strip() for part in parts)


def _toml_node(value: Any, file: str, lines: Mapping[tuple[str, ...], int], path: tuple[str, ...]) -> Node:
    line = next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), 1)
    place = f"{file}:{line}"
    if isinstance(value, dict):
        return Node({name: _toml_node(member, file, lines, (*path, name)) for name, member in value.items()}, place)
    if isinstance(value, list):
        return Node([_toml_node(entry, file, lines, path) for entry in value], place)
    return Node(value, place)
