"""What an image is made of: the build context as a builder sees it, hashed, and the labels that say so on the image.

Reads files and runs nothing. Builders read one folder differently, so a hash names the builder's family, and is
compared within it. BuildKit's rules: https://docs.docker.com/build/concepts/context/#dockerignore-files, and where that
is silent https://github.com/moby/patternmatcher/tree/v0.6.0
"""

import hashlib
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from imagewright.catalogue import Base, Tool
from imagewright.errors import BadCatalogue
from imagewright.names import Digest, shown

SCHEME = "1"
"""Which rules made a hash. Another number: not comparable. It changes when a line below would move an old hash."""

BUILDKIT, BUILDAH, COPY = "buildkit", "buildah", "copy"
ROOTFS = "rootfs"
_ADDED_BY_BUILDERS = frozenset({"BASE_IMAGE", "TOOL_VERSION"})


class Kind(StrEnum):
    """What stands at a path. The values are part of the hash."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path that the builder gets. path: relative, with '/'. target: of a link, as it stands there."""

    path: str
    kind: Kind
    source: Path
    executable: bool = False
    target: str = ""


def recipe(tool: Tool, family: str, arguments: Mapping[str, str] | None = None) -> str:
    """`1:<family>:<sha256>` over what a builder of this family makes the tool's image from, base and version aside.

    arguments: build arguments; BASE_IMAGE and TOOL_VERSION among them do not count. `BadCatalogue` with the place for a
    context that is empty, or has what cannot be in an image.
    """
    sha256 = hashlib.sha256()
    with _readable(tool.folder):
        for one in _fields(tool, family, arguments or {}):
            sha256.update(len(one).to_bytes(8, "big") + one)
    return f"{SCHEME}:{family}:{sha256.hexdigest()}"


def _fields(tool: Tool, family: str, arguments: Mapping[str, str]) -> Iterator[bytes]:
    if family == COPY:
        yield from _entry_fields(rootfs(tool.folder))
        return
    if family != BUILDKIT:
        raise ValueError(f"no builder of the family {family}")
    if tool.dockerfile:
        yield from (b"dockerfile", tool.dockerfile.read_bytes())
    for name, value in sorted(arguments.items()):
        if name not in _ADDED_BY_BUILDERS:
            yield from (b"argument", name.encode(), value.encode())
    yield from _entry_fields(build_context(tool.folder, tool.dockerfile))


def _entry_fields(entries: Iterable[Entry]) -> Iterator[bytes]:
    for entry in entries:
        yield from (entry.kind.encode(), entry.path.encode(), b"x" if entry.executable else b"-")
        if entry.kind is Kind.FILE:
            with entry.source.open("rb") as content:
                yield hashlib.file_digest(content, "sha256").digest()
        else:
            yield entry.target.encode()


def build_context(folder: Path, dockerfile: Path | None) -> tuple[Entry, ...]:
    """What BuildKit gets of `folder`, sorted by the paths' bytes. `BadCatalogue` if that is nothing or unreadable."""
    ignore = _ignore_file(folder, dockerfile)
    with _readable(folder):
        rules = parse_dockerignore(ignore.read_bytes(), str(ignore)) if ignore else Rules()
        entries = _sorted(_walk(folder, "", rules, ()))
    if not entries:
        why = f"{ignore.name} leaves nothing of it" if ignore else "it is empty"
        raise BadCatalogue(f"no build context: {why}", where=str(folder))
    return entries


def rootfs(folder: Path) -> tuple[Entry, ...]:
    """All of `rootfs/` in `folder`, sorted by the paths' bytes. `BadCatalogue` if it is absent, empty or unreadable."""
    place = folder / ROOTFS
    with _readable(place):
        entries = _sorted(_walk(place, "", Rules(), ())) if place.is_dir() else ()
    if not entries:
        raise BadCatalogue("the builder copy needs files here", where=str(place))
    for entry in entries:
        if entry.path.rpartition("/")[2].startswith(".wh."):
            # In a layer that name deletes a file of the base.
            raise BadCatalogue("a file name that starts with .wh. cannot be in an image", where=str(entry.source))
    return entries


def _ignore_file(folder: Path, dockerfile: Path | None) -> Path | None:
    candidates = [dockerfile.with_name(f"{dockerfile.name}.dockerignore")] if dockerfile else []
    return next((one for one in (*candidates, folder / ".dockerignore") if one.is_file()), None)


def _sorted(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    return tuple(sorted(entries, key=lambda entry: entry.path.encode()))


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # no permission, a full table of open files, a folder that vanishes meanwhile
        where = os.fsdecode(error.filename) if error.filename else str(folder)
        raise BadCatalogue(f"cannot be read: {error.strerror}", where=where) from None


def _walk(folder: Path, prefix: str, rules: "Rules", parent: tuple[bool, ...]) -> Iterator[Entry]:
    with os.scandir(os.fsencode(folder)) as found:
        names = [one.name for one in found]
    for raw in names:
        source = folder / os.fsdecode(raw)
        try:
            path = prefix + raw.decode("utf-8")
        except UnicodeDecodeError:
            raise BadCatalogue(f"a file name that is not UTF-8: {shown(repr(raw))}", where=str(folder)) from None
        ignored, matches = rules.judge(path, parent)
        mode = source.lstat().st_mode
        if stat.S_ISDIR(mode):
            # Below an ignored folder only an exception can be of interest; if one is there, so is the folder.
            below = [] if ignored and not rules.has_exceptions else list(_walk(source, f"{path}/", rules, matches))
            if below or not ignored:
                yield Entry(path=path, kind=Kind.FOLDER, source=source)
            yield from below
        elif not ignored:
            yield _leaf(path, source, mode)


def _leaf(path: str, source: Path, mode: int) -> Entry:
    if stat.S_ISLNK(mode):
        return Entry(path=path, kind=Kind.LINK, source=source, target=_link_target(source))
    if not stat.S_ISREG(mode):
        raise BadCatalogue("neither file, folder nor link: it cannot be in an image", where=str(source))
    # The owner's bit alone, as git keeps it: the others are the umask's.
    return Entry(path=path, kind=Kind.FILE, source=source, executable=bool(mode & stat.S_IXUSR))


def _link_target(source: Path) -> str:
    try:
        return os.fsencode(source.readlink()).decode("utf-8")
    except UnicodeDecodeError:
        raise BadCatalogue("a link whose target is not UTF-8", where=str(source)) from None


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line of a .dockerignore. exception: it began with '!'."""

    exception: bool
    expression: re.Pattern[str]


@dataclass(frozen=True, slots=True)
class Rules:
    """A .dockerignore: of the patterns that speak of a path or of a folder above it, the last one decides."""

    patterns: tuple[Pattern, ...] = ()
    has_exceptions: bool = False

    def judge(self, path: str, parent: tuple[bool, ...]) -> tuple[bool, tuple[bool, ...]]:
        """Whether `path` is ignored, and which patterns matched: the `parent` of whatever is in it; () at the top.

        A pattern that could not change the verdict is not asked, and counts as not matching for what is below, even
        where it would: so does BuildKit (`MatchesUsingParentResults`).
        """
        ignored = False
        matches = []
        for at, pattern in enumerate(self.patterns):
            matched = bool(parent and parent[at])
            if not matched and pattern.exception == ignored:
                matched = pattern.expression.search(path) is not None
            if matched:
                ignored = not pattern.exception
            matches.append(matched)
        return ignored, tuple(matches)


_BLANKS = "".join(one for one in map(chr, range(0x3001)) if one.isspace() and not "\x1c" <= one <= "\x1f")
"""White space as Go sees it."""


def parse_dockerignore(content: bytes, where: str) -> Rules:
    """The rules in a .dockerignore; `BadCatalogue` with `where:line` for a pattern that BuildKit refuses, too."""
    try:
        lines = content.removeprefix(b"\xef\xbb\xbf").decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise BadCatalogue("not UTF-8", where=where) from None
    patterns = []
    for number, line in enumerate(lines, 1):
        text = line.strip(_BLANKS)
        if line.startswith("#") or not text:
            continue
        try:
            patterns.append(_pattern(text))
        except (ValueError, re.error) as error:
            raise BadCatalogue(f"{shown(text)} is not a pattern: {error}", where=f"{where}:{number}") from None
    return Rules(tuple(patterns), any(one.exception for one in patterns))


def _pattern(text: str) -> Pattern:
    exception = text.startswith("!")
    read = text[1:].strip(_BLANKS) if exception else text
    path = _cleaned(read).removeprefix("/") or "/" if read else ""
    # BuildKit cleans once more with the '!' in front, which '..' may take away: '!../b' ignores b.
    compiled = _cleaned(("!" if exception else "") + path.strip(_BLANKS))
    if compiled == "!":
        raise ValueError("nothing stands behind '!'")
    return Pattern(compiled.startswith("!"), re.compile(_expression(compiled.removeprefix("!"))))


def _cleaned(path: str) -> str:
    cleaned = posixpath.normpath(path)
    return f"/{cleaned.lstrip('/')}" if cleaned.startswith("//") else cleaned


_TOKEN = re.compile(r"\*\*/?|\*|\?|\\.|\[\^?(?:(?:\\.|[^\]\\-])(?:-(?:\\.|[^\]\\-]))?)+\]|[^\[\\]", re.DOTALL)
_PLAIN_SET = re.compile(r"\[\^?(?:\w(?:-\w)?|[ .,:;+=@%_!#-]|\\\W)+\]\Z")
_ESCAPED = frozenset(".+()$")
"""What loses its meaning in a regular expression. BuildKit leaves '|', '{' and '}' theirs, so they keep it here."""


def _expression(pattern: str) -> str:
    """The regular expression that BuildKit makes of a cleaned pattern, quirks included; ValueError for none."""
    tokens = _tokens(pattern)
    special = [at for at, token in enumerate(tokens) if token[0] in "*?[]\\"]
    if not special:
        return f"^{re.escape(pattern)}\\Z"
    if special == [0] and tokens[0].startswith("**"):
        # BuildKit compares ends here: '**b' is in 'ab', but '**b*' is not.
        rest = pattern[2:]
        return f"(?:^|/){re.escape(rest[1:])}\\Z" if rest.startswith("/") else f"{re.escape(rest)}\\Z"
    last = len(tokens) - 1
    if special == [last] and tokens[last] == "**":
        return f"^{re.escape(pattern[:-2])}"
    return "^" + "".join(_translated(token, at == last) for at, token in enumerate(tokens)) + "\\Z"


def _tokens(pattern: str) -> list[str]:
    tokens: list[str] = []
    at = 0
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        if not found:
            raise ValueError("a '[' or '\\' that is never finished")
        tokens.append(found[0])
        at = found.end()
    return tokens


def _translated(token: str, last: bool) -> str:
    if token.startswith("**"):
        return ".*" if last else "(.*/)?"
    if token == "*":
        return "[^/]*"
    if token == "?":
        return "[^/]"
    if token.startswith("[") and not _PLAIN_SET.match(token):
        raise ValueError(f"the set {token} is read differently by different builders")
    if token[0] == "\\" and token[1:].isalnum():
        raise ValueError(f"{token} is read differently by different builders")
    return f"\\{token}" if token in _ESCAPED else token


def labels(
    tool: Tool,
    base: Base,
    *,
    base_digest: Digest,
    version: str,
    recipe: str,
    prefix: str,
    created: int,
    source: str = "",
    revision: str = "",
) -> dict[str, str]:
    """What an image says about itself: labels of each platform's configuration, annotations of the index.

    created: seconds since 1970. What nobody knows is left out.
    https://github.com/opencontainers/image-spec/blob/v1.1.1/annotations.md
    """
    known = {
        "org.opencontainers.image.title": tool.title or tool.name,
        "org.opencontainers.image.description": tool.description,
        "org.opencontainers.image.licenses": tool.licenses,
        "org.opencontainers.image.url": tool.homepage,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.created": timestamp(created),
        "org.opencontainers.image.source": source,
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.base.name": str(base.reference),
        "org.opencontainers.image.base.digest": base_digest,
        f"{prefix}.tool": tool.name,
        f"{prefix}.base": base.name,
        f"{prefix}.recipe": recipe,
    }
    return {name: value for name, value in known.items() if value}


def timestamp(epoch: int) -> str:
    """Seconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Recipes:
    """Today's recipes of a project's tools, each hashed once. label: under which images carry theirs."""

    def __init__(self, label_prefix: str) -> None:
        self.label = f"{label_prefix}.recipe"
        self._known: dict[tuple[str, str], str] = {}

    def of(self, tool: Tool, family: str) -> str:
        """The tool's recipe as builders of this family see it. `BadCatalogue` as `recipe`."""
        key = (tool.name, family)
        if key not in self._known:
            self._known[key] = recipe(tool, family)
        return self._known[key]

    def today(self, tool: Tool, published: str) -> str | None:
        """Today's recipe in the scheme and family of a published one; None where the two cannot be compared."""
        scheme, _, rest = published.partition(":")
        family = rest.partition(":")[0]
        if (
            scheme != SCHEME
            or family not in (BUILDKIT, COPY)
            or (family == COPY and not (tool.folder / ROOTFS).is_dir())
        ):
            return None
        return self.of(tool, family)
