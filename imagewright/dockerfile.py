"""What a Dockerfile is built on: the images that its stages start from, copy from and mount.

Text in, values out. The syntax: https://docs.docker.com/reference/dockerfile/
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from imagewright.errors import BadCatalogue
from imagewright.names import shown

SCRATCH = "scratch"
_MAX_DEPTH = 20
_PLATFORM_ARGUMENTS = frozenset(
    f"{of}{part}" for of in ("TARGET", "BUILD") for part in ("PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT")
)
"""Every FROM may use these undeclared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parents:
    """The references of a Dockerfile that are no stages of it.

    final: what the last stage rests on, through all stages between; `scratch` for nothing. final_argument: the global ARG
    whose value alone it is, or "". others: all others, of every stage, each once. Lines count from 1.
    """

    final: str
    final_line: int
    final_argument: str = ""
    others: tuple[str, ...] = ()
    other_lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Instruction:
    """name: in capitals. rest: what follows it, in one line. line: where it begins."""

    name: str
    rest: str
    line: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stage:
    """base: its FROM, filled in. argument: the variable that is all of it, or "". parent: the earlier stage it is."""

    name: str
    base: str
    argument: str
    line: int
    parent: int | None


def parents(text: str, where: str, arguments: Mapping[str, str]) -> Parents:
    """What the Dockerfile `text` is built on where build arguments have these values.

    `BadCatalogue` with `where:line` for a file without FROM, a FROM that cannot be filled in, anything but ARG before
    the first FROM, a heredoc without end.
    """
    escape = _escape(text, where)
    values: dict[str, str | None] = {name: arguments[name] for name in _PLATFORM_ARGUMENTS.intersection(arguments)}
    stages: list[_Stage] = []
    sources: list[tuple[str, int]] = []
    for one in _instructions(text, where, escape):
        place = f"{where}:{one.line}"
        if one.name == "FROM":
            stages.append(_stage(one, place, values, escape, stages))
        elif stages:
            sources += [(source, one.line) for source in _sources(one, place, escape)]
        elif one.name == "ARG":
            _declare(one, place, values, arguments, escape)
        else:
            raise BadCatalogue(f"only ARG can stand before the first FROM, not {shown(one.name)}", where=place)
    if not stages:
        raise BadCatalogue("there is no FROM in it", where=where)
    last = stages[-1]
    while last.parent is not None:
        last = stages[last.parent]
    bases = [(one.base, one.line) for one in stages if one.parent is None]
    known = {one.name for one in stages} | {str(at) for at in range(len(stages))}
    for source, line in sources:
        if source.isdecimal() and source not in known:
            raise BadCatalogue(f"there is no stage {source}; they count from 0", where=f"{where}:{line}")
    others: dict[str, int] = {}
    for reference, line in (*bases, *((source, line) for source, line in sources if source.lower() not in known)):
        if reference not in (last.base, SCRATCH):
            others.setdefault(reference, line)
    return Parents(
        final=last.base,
        final_line=last.line,
        final_argument=last.argument if last.argument in values else "",
        others=tuple(others),
        other_lines=tuple(others.values()),
    )


_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*\Z")


def _escape(text: str, where: str) -> str:
    """The character of the directive `escape`, which can only stand at the top."""
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), 1):
        found = _DIRECTIVE.match(line)
        if not found:
            break
        if found[1].lower() == "escape":
            if found[2] not in ("\\", "`"):
                raise BadCatalogue(f"escape can be \\ or `, not {shown(found[2])}", where=f"{where}:{number}")
            return found[2]
    return "\\"


def _instructions(text: str, where: str, escape: str) -> Iterator[_Instruction]:
    lines = enumerate((line.removesuffix("\r") for line in text.removeprefix("\ufeff").split("\n")), 1)
    for joined, begun in _joined(lines, re.compile(rf"(?<!{re.escape(escape)}){re.escape(escape)}[ \t]*\Z")):
        name, *rest = joined.split(maxsplit=1)
        one = _Instruction(name=name.upper(), rest="".join(rest), line=begun)
        yield one
        for ends, indented in _heredocs(one, escape):
            if not any((body.lstrip("\t") if indented else body) == ends for _, body in lines):
                raise BadCatalogue(f"the heredoc {shown(ends)} is never finished", where=f"{where}:{begun}")


def _joined(lines: Iterator[tuple[int, str]], more: re.Pattern[str]) -> Iterator[tuple[str, int]]:
    """Lines that continue each other as one, with the first one's number; no comments, which can stand between."""
    parts: list[str] = []
    begun = 0
    for number, line in lines:
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        begun = begun if parts else number
        parts.append(more.sub("", line))
        if not more.search(line):
            yield "".join(parts), begun
            parts = []
    if "".join(parts).strip():
        yield "".join(parts), begun


_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)\Z")


def _heredocs(one: _Instruction, escape: str) -> Iterator[tuple[str, bool]]:
    """The last line of each heredoc that begins in the instruction, and whether tabs may stand before it."""
    name, rest = one.name, one.rest
    if name == "ONBUILD":
        name, _, rest = rest.partition(" ")
    if name.upper() in ("RUN", "COPY", "ADD"):
        for word in _words(rest, escape):
            if found := _HEREDOC.match(word):
                yield re.sub(r"['\"]", "", found[2]), found[1] == "-"


def _words(text: str, escape: str) -> list[str]:
    """Split at blanks, but for those that are quoted; quotes are kept."""
    quoted = rf"{re.escape(escape)}.|'[^']*'|\"(?:{re.escape(escape)}.|[^\"{re.escape(escape)}])*\"|\S"
    return [found[0] for found in re.finditer(rf"(?:{quoted})+", text)]


_ARGUMENT = re.compile(r"\"?\$(?:([A-Za-z_]\w*)|\{(\w+)(?::?-[^{}]*)?\})\"?\Z")
"""A word that is one variable and nothing else."""


def _declare(
    one: _Instruction, place: str, values: dict[str, str | None], arguments: Mapping[str, str], escape: str
) -> None:
    """Adds the values of an ARG before the first FROM; None for one that has none."""
    for word in _words(one.rest, escape):
        name, has_default, default = word.partition("=")
        values[name] = arguments.get(name)
        if has_default and name not in arguments:
            try:
                values[name] = _filled(default, values, escape)
            except KeyError:  # made of one without a value, it has none either
                continue
            except ValueError as error:
                raise BadCatalogue(str(error), where=place) from None


def _stage(
    one: _Instruction, place: str, values: Mapping[str, str | None], escape: str, before: list[_Stage]
) -> _Stage:
    words = [word for word in _words(one.rest, escape) if not word.startswith("--")]
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise BadCatalogue("FROM takes an image, and perhaps AS and a name", where=place)
    try:
        base = _filled(words[0], values, escape)
    except KeyError as missing:
        remedy = f"Give it one before the first FROM: ARG {missing.args[0]}=…"
        raise BadCatalogue(f"the ARG {missing.args[0]} has no value", remedy=remedy, where=place) from None
    except ValueError as error:
        raise BadCatalogue(str(error), where=place) from None
    if not base:
        raise BadCatalogue(f"{shown(words[0])} is empty", where=place)
    parent = next((at for at in reversed(range(len(before))) if before[at].name == base.lower()), None)
    argument = _ARGUMENT.match(words[0])
    return _Stage(
        name=words[2].lower() if len(words) == 3 else "",
        base=base,
        argument=(argument[1] or argument[2]) if argument else "",
        line=one.line,
        parent=parent,
    )


def _sources(one: _Instruction, place: str, escape: str) -> Iterator[str]:
    """What COPY and RUN name with `from`: stages or images."""
    for word in _words(one.rest, escape):
        if not word.startswith("--"):
            return
        flag, _, value = word.replace('"', "").replace("'", "").partition("=")
        if (one.name, flag) == ("COPY", "--from"):
            found = [value]
        elif (one.name, flag) == ("RUN", "--mount"):
            found = [part[5:] for part in value.split(",") if part.lower().startswith("from=")]
        else:
            continue
        for source in found:
            if "$" in source:
                raise BadCatalogue(
                    f"{shown(source)}: from takes no variables",
                    remedy="Give the image a stage, FROM … AS name, and take that.",
                    where=place,
                )
            yield source


def _filled(text: str, values: Mapping[str, str | None], escape: str) -> str:
    """A word without its quotes, its variables replaced.

    KeyError with the name of one that has no value; ValueError says what cannot be read.
    """
    made, at, quote = "", 0, ""
    while at < len(text):
        char = text[at]
        at += 1
        if char == quote:
            quote = ""
        elif char in "'\"" and not quote:
            quote = char
        elif char == escape and quote != "'" and at < len(text):
            made += text[at]
            at += 1
        elif char == "$" and quote != "'" and (plain := _NAME.match(text, at)):
            made += _value(plain[0], "", "", values, escape)
            at = plain.end()
        elif char == "$" and quote != "'" and text.startswith("{", at):
            end = _closing(text, at)
            inner = _BRACED.fullmatch(text, at + 1, end - 1)
            if not inner:
                raise ValueError(f"{shown(text[at - 1 : end])} is not understood: of variables, :- and :+ are")
            made += _value(inner[1], inner[2] or "", inner[3] or "", values, escape)
            at = end
        else:
            made += char
    return made


_NAME = re.compile(r"[A-Za-z_]\w*")
_BRACED = re.compile(r"(\w+)(?:(:?[-+])(.*))?", re.DOTALL)


def _closing(text: str, at: int) -> int:
    """Behind the brace that closes the one at `at`."""
    depth = 0
    for end in range(at, len(text)):
        depth += {"{": 1, "}": -1}.get(text[end], 0)
        if not depth:
            return end + 1
        if depth > _MAX_DEPTH:
            raise ValueError(f"{shown(text)} is nested deeper than {_MAX_DEPTH} levels")
    raise ValueError(f"{shown(text)}: a brace that is never closed")


def _value(name: str, operator: str, word: str, values: Mapping[str, str | None], escape: str) -> str:
    known = values.get(name)
    is_set = bool(known) if operator.startswith(":") else known is not None
    if operator.endswith("+"):
        return _filled(word, values, escape) if is_set else ""
    if operator.endswith("-") and not is_set:
        return _filled(word, values, escape)
    if known is None:
        raise KeyError(name)
    return known
