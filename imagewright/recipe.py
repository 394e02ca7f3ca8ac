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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from operator import attrgetter
from pathlib import Path

from imagewright.catalogue import Pair, Source, Target
from imagewright.digests import FileDigests
from imagewright.errors import BadCatalogue
from imagewright.names import Digest, shown

SCHEME = "1"
"""Which rules made a hash. Another number: not comparable. It changes when a line below would move an old hash."""

BUILDKIT, BUILDAH, COPY = "buildkit", "buildah", "copy"
FAMILIES = (BUILDKIT, BUILDAH, COPY)
ROOTFS = "rootfs"
_IN_CONTEXT = (".containerignore", ".dockerignore")
_ADDED_BY_BUILDERS = frozenset({"BASE_IMAGE", "TOOL_VERSION"})


class Kind(StrEnum):
    """What stands at a path. The values are part of the hash."""

    FILE = "file"
    FOLDER = "folder"
    LINK = "link"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One path that the builder gets.

    path: relative, with '/'. source: where it lies. seen: how it looked there. target: of a link, as it stands there.
    """

    path: str
    kind: Kind
    source: str
    seen: os.stat_result = field(compare=False, repr=False)
    executable: bool = False
    target: str = ""


def recipe(
    source: Source, family: str, arguments: Mapping[str, str] | None = None, digests: FileDigests | None = None
) -> str:
    """`1:<family>:<sha256>` over what a builder of this family makes the image from, base and version aside.

    arguments: build arguments; BASE_IMAGE and TOOL_VERSION among them do not count. digests: of files that were read
    before. `BadCatalogue` with the place for a context that has what cannot be read, or cannot be in an image.
    """
    sha256 = hashlib.sha256()
    with _readable(source.folder):
        for one in _fields(source, family, arguments or {}, digests or FileDigests()):
            sha256.update(len(one).to_bytes(8, "big") + one)
    return f"{SCHEME}:{family}:{sha256.hexdigest()}"


def _fields(source: Source, family: str, arguments: Mapping[str, str], digests: FileDigests) -> Iterator[bytes]:
    if family == COPY:
        yield from _entry_fields(rootfs(source.folder), digests)
        return
    if family not in FAMILIES:
        raise ValueError(f"no builder of the family {family}")
    if source.dockerfile:
        yield from (b"dockerfile", source.dockerfile.read_bytes())
    for name, value in sorted(arguments.items()):
        if name not in _ADDED_BY_BUILDERS:
            yield from (b"argument", name.encode(), value.encode())
    if family == BUILDAH:
        for ignore in _ignore_files(source.folder, source.dockerfile):
            yield from (b"ignore", ignore.name.encode(), ignore.read_bytes())
    yield from _entry_fields(build_context(source.folder, source.dockerfile, family), digests)


def _entry_fields(entries: Iterable[Entry], digests: FileDigests) -> Iterator[bytes]:
    for entry in entries:
        yield from (entry.kind.encode(), entry.path.encode(), b"x" if entry.executable else b"-")
        if entry.kind is Kind.FILE:
            yield digests.sha256(entry.source, entry.seen)
        else:
            yield entry.target.encode()


def build_context(folder: Path, dockerfile: Path | None, family: str = BUILDKIT) -> tuple[Entry, ...]:
    """What BuildKit gets of `folder`, sorted by the paths' bytes; of the family buildah, all that any buildah may get.

    Nothing for a Dockerfile that copies nothing. `BadCatalogue` if it is unreadable.
    """
    ignore = _ignore_file(folder, dockerfile) if family == BUILDKIT else _agreed_ignore_file(folder, dockerfile)
    with _readable(folder):
        rules = parse_dockerignore(ignore.read_bytes(), str(ignore)) if ignore else Rules()
        return _walk(folder, replace(rules, agreed=family == BUILDAH))


def rootfs(folder: Path) -> tuple[Entry, ...]:
    """All of `rootfs/` in `folder`, sorted by the paths' bytes. `BadCatalogue` if it is absent, empty or unreadable."""
    place = folder / ROOTFS
    with _readable(place):
        entries = _walk(place, Rules()) if place.is_dir() else ()
    if not entries:
        raise BadCatalogue("the builder copy needs files here", where=str(place))
    for entry in entries:
        if entry.path.rpartition("/")[2].startswith(".wh."):
            # In a layer that name deletes a file of the base.
            raise BadCatalogue("a file name that starts with .wh. cannot be in an image", where=entry.source)
    return entries


def _ignore_file(folder: Path, dockerfile: Path | None) -> Path | None:
    candidates = [dockerfile.with_name(f"{dockerfile.name}.dockerignore")] if dockerfile else []
    return next((one for one in (*candidates, folder / ".dockerignore") if one.is_file()), None)


def _agreed_ignore_file(folder: Path, dockerfile: Path | None) -> Path | None:
    """The one in the context, if it is the only one: which of several counts depends on buildah's version."""
    found = _ignore_files(folder, dockerfile)
    return found[0] if len(found) == 1 and found[0].name in _IN_CONTEXT else None


def _ignore_files(folder: Path, dockerfile: Path | None) -> list[Path]:
    beside = [dockerfile.with_name(f"{dockerfile.name}{one}") for one in _IN_CONTEXT] if dockerfile else []
    return [one for one in (*beside, *(folder / one for one in _IN_CONTEXT)) if one.is_file()]


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # no permission, a full table of open files, a folder that vanishes meanwhile
        where = os.fsdecode(error.filename) if error.filename else str(folder)
        raise BadCatalogue(f"cannot be read: {error.strerror}", where=where) from None


def _walk(top: Path, rules: "Rules") -> tuple[Entry, ...]:
    """What the rules leave of a folder, sorted by the paths' bytes."""
    kept: list[Entry] = []
    passed: dict[str, Entry] = {}
    folders: list[tuple[bytes, str, tuple[bool, ...]]] = [(os.fsencode(top), "", ())]
    while folders:
        folder, prefix, parent = folders.pop()
        with os.scandir(folder) as found:
            listed = list(found)
        for one in listed:
            path = prefix + _text(one)
            ignored, matches = rules.judge(path, parent) if rules.patterns else (False, ())
            is_folder = one.is_dir(follow_symlinks=False)
            # Below an ignored folder only an exception can be of interest; if one is there, so is the folder.
            if is_folder and (not ignored or rules.has_exceptions):
                folders.append((one.path, f"{path}/", matches))
            if ignored:
                if is_folder:
                    passed[path] = _entry(path, one)
                continue
            kept.append(_entry(path, one))
            above = path.rpartition("/")[0] if passed else ""
            while above in passed:
                kept.append(passed.pop(above))
                above = above.rpartition("/")[0]
    # The order of code points is that of their bytes.
    return tuple(sorted(kept, key=attrgetter("path")))


def _text(found: os.DirEntry[bytes]) -> str:
    try:
        return found.name.decode("utf-8")
    except UnicodeDecodeError:
        where = os.fsdecode(found.path).rpartition("/")[0]
        raise BadCatalogue(f"a file name that is not UTF-8: {shown(repr(found.name))}", where=where) from None


def _entry(path: str, found: os.DirEntry[bytes]) -> Entry:
    source, seen = os.fsdecode(found.path), found.stat(follow_symlinks=False)
    if stat.S_ISREG(seen.st_mode):
        # The owner's bit alone, as git keeps it: the others are the umask's.
        executable = bool(seen.st_mode & stat.S_IXUSR)
        return Entry(path=path, kind=Kind.FILE, source=source, seen=seen, executable=executable)
    if stat.S_ISDIR(seen.st_mode):
        return Entry(path=path, kind=Kind.FOLDER, source=source, seen=seen)
    if stat.S_ISLNK(seen.st_mode):
        return Entry(path=path, kind=Kind.LINK, source=source, seen=seen, target=_link_target(found.path, source))
    raise BadCatalogue("neither file, folder nor link: it cannot be in an image", where=source)


def _link_target(place: bytes, source: str) -> str:
    try:
        return os.readlink(place).decode("utf-8")  # noqa: PTH115 - a Path would tidy the target up
    except UnicodeDecodeError:
        raise BadCatalogue("a link whose target is not UTF-8", where=source) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern:
    """One line of a .dockerignore.

    exception: it began with '!'. plain: every builder reads it alike.
    """

    exception: bool
    expression: re.Pattern[str]
    plain: bool


@dataclass(frozen=True, slots=True)
class Rules:
    """A .dockerignore: of the patterns that speak of a path or of a folder above it, the last one decides.

    agreed: only what other builders ignore as well is ignored.
    """

    patterns: tuple[Pattern, ...] = ()
    has_exceptions: bool = False
    agreed: bool = False

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
        return ignored and (not self.agreed or self._ignored_by_all(path)), tuple(matches)

    def _ignored_by_all(self, path: str) -> bool:
        """Whether `path` is ignored, too, where every pattern is asked about it and about every folder above it.

        As little as possible is: a pattern that is read differently excepts everything.
        """
        names = path.split("/")
        up_to = ["/".join(names[:depth]) for depth in range(1, len(names) + 1)]
        ignored = False
        for pattern in self.patterns:
            if not pattern.plain:
                ignored = False
            elif any(map(pattern.expression.search, up_to)):
                ignored = not pattern.exception
        return ignored


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


_PLAIN = re.compile(r"!?/?(?:(?!\.\.?(?:/|\Z))(?:\*\*(?![^/])|(?:\*(?!\*)|[\w.,~@%=:?-]|(?<![!/]) (?=\w))+)(?:/|\Z))+")
"""Names and wildcards, '**' for whole names only: the part of the syntax that has never changed."""


def _pattern(text: str) -> Pattern:
    exception = text.startswith("!")
    read = text[1:].strip(_BLANKS) if exception else text
    path = _cleaned(read).removeprefix("/") or "/" if read else ""
    # BuildKit cleans once more with the '!' in front, which '..' may take away: '!../b' ignores b.
    compiled = _cleaned(("!" if exception else "") + path.strip(_BLANKS))
    if compiled == "!":
        raise ValueError("nothing stands behind '!'")
    return Pattern(
        exception=compiled.startswith("!"),
        expression=re.compile(_expression(compiled.removeprefix("!"))),
        plain=_PLAIN.fullmatch(text) is not None,
    )


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
    target: Target,
    *,
    base_digest: Digest | None,
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
    made_from = target.source
    known = {
        "org.opencontainers.image.title": made_from.title or made_from.name,
        "org.opencontainers.image.description": made_from.description,
        "org.opencontainers.image.licenses": made_from.licenses,
        "org.opencontainers.image.url": made_from.homepage,
        "org.opencontainers.image.version": version,
        "org.opencontainers.image.created": timestamp(created),
        "org.opencontainers.image.source": source,
        "org.opencontainers.image.revision": revision,
        "org.opencontainers.image.base.name": str(target.base.reference) if target.base else "",
        "org.opencontainers.image.base.digest": base_digest or "",
        f"{prefix}.tool": target.tool.name if isinstance(target, Pair) else "",
        f"{prefix}.base": target.base.name if isinstance(target, Pair) else "",
        f"{prefix}.recipe": recipe,
    }
    return {name: value for name, value in known.items() if value}


def timestamp(epoch: int) -> str:
    """Seconds since 1970 as RFC 3339 in UTC."""
    return datetime.fromtimestamp(epoch, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Recipes:
    """Today's recipes of a project's tools and images, each hashed once. label: under which images carry theirs."""

    def __init__(self, label_prefix: str, digests: FileDigests | None = None) -> None:
        self.label = f"{label_prefix}.recipe"
        self._digests = digests or FileDigests()
        self._known: dict[tuple[Path, str], str] = {}

    def of(self, source: Source, family: str) -> str:
        """The recipe of a tool or image as builders of this family see it. `BadCatalogue` as `recipe`."""
        key = (source.folder, family)
        if key not in self._known:
            self._known[key] = recipe(source, family, digests=self._digests)
        return self._known[key]

    def today(self, source: Source, published: str) -> str | None:
        """Today's recipe in the scheme and family of a published one; None where the two cannot be compared."""
        scheme, _, rest = published.partition(":")
        family = rest.partition(":")[0]
        if scheme != SCHEME or family not in FAMILIES or (family == COPY and not (source.folder / ROOTFS).is_dir()):
            return None
        return self.of(source, family)

    def save(self) -> None:
        """Leaves the files' digests to the next run."""
        self._digests.save()
