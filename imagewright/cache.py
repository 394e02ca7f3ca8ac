"""Documents that registries have handed out, remembered from one run to the next. Only ever a saving.

What is named by digest cannot change, so it is not asked for again for a day: then a child that was deleted is noticed.
What a tag names is always asked, with `If-None-Match`, and the registry's 304 is the answer. Everything that is read here
is hashed again; a file that is damaged, or cannot be read or written, costs time and nothing else.
"""

import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self, TypeVar

from imagewright.names import Digest, Reference, digest_algorithm, digest_of, parse_digest
from imagewright.registry.answers import Document

AGE = 24 * 3600
"""Seconds for which a document counts as being there."""
_VERSION = 1
_TABLES = f"""
PRAGMA auto_vacuum = FULL;
CREATE TABLE documents (
    place TEXT, digest TEXT, media_type TEXT, fetched INTEGER, seal TEXT, body BLOB, PRIMARY KEY (place, digest)
);
CREATE TABLE tags (reference TEXT PRIMARY KEY, digest TEXT);
PRAGMA user_version = {_VERSION};
"""
_DROP = "DELETE FROM documents WHERE place = ? AND digest = ?"
_PATIENCE = 2.0
"""Seconds to wait for another run that is writing."""
_PASSING = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_NOMEM,
    }
)
"""Errors after which the file may be as good as before. All others say that it is no file of ours, or no more."""
_BUFFER = 2**25
"""Bytes that are kept in memory before they are written: while there are threads that fetch, each row lets them go first."""
_Result = TypeVar("_Result")
Kind = Literal["manifests", "blobs"]
"""How a document is asked for: who has it as the one need not have it as the other."""


class Cache:
    """The memory of one project, for one thread. What is kept inside `with Cache(path, now=…) as cache:` is written at its
    end, unless that is an exception.

    path: the file; None: nothing is remembered. now: seconds since 1970. reads: whether what is there counts. whole:
    whether everything that there is gets asked for, so that nothing else need be remembered.
    """

    def __init__(self, path: Path | None = None, *, now: float = 0, reads: bool = True, whole: bool = False) -> None:
        self._path = path
        self._now = int(now)
        self._reads = reads
        self._whole = whole
        self._file: sqlite3.Connection | None = None
        self._there: set[tuple[str, str]] = set()  # place and digest: what is not there costs no question
        self._used: set[tuple[str, str]] = set()
        self._asked: set[str] = set()
        self._tags: dict[str, Digest] = {}
        self._new: list[tuple[object, ...]] = []
        self._bytes = 0
        self._lost: list[tuple[str, str]] = []
        self.recalled = 0
        """How many documents were found here."""

    def __enter__(self) -> Self:
        if self._path:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = sqlite3.connect(self._path, timeout=_PATIENCE)
            except (OSError, sqlite3.Error):  # a folder of somebody else's, a full disk
                return self
            self._there = self._tried(_prepared, set())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._tried(self._save, None)
        if self._file:
            self._file.close()
            self._file = None

    def document(self, reference: Reference, kind: Kind) -> Document | None:
        """What is under a digest, if it was there within the last day."""
        digest = reference.digest
        if not self._reads or not digest or (_place(reference, kind), digest) not in self._there:
            return None
        return self._tried(lambda file: self._read(file, _place(reference, kind), digest), None)

    def recall(self, reference: Reference) -> Document | None:
        """The manifest under a digest, or what a tag named when it was last asked for; under the same condition."""
        if reference.digest:
            return self.document(reference, "manifests")
        self._asked.add(str(reference))
        digest = self._tried(lambda file: _named(file, reference), None)
        return self.document(reference.repository.at(digest), "manifests") if digest else None

    def keep(self, reference: Reference, kind: Kind, document: Document, *, is_new: bool = True) -> None:
        """Remembers what is under a reference now. is_new: it has just been fetched; else it came from here."""
        if not reference.digest:
            self._tags[str(reference)] = document.digest
        if is_new:
            key = _place(reference, kind), document.digest
            seal = _seal(*key, document.media_type, self._now)
            self._used.add(key)
            self._new.append((*key, document.media_type, self._now, seal, document.body))
            self._bytes += len(document.body)
            if self._bytes > _BUFFER:
                self._tried(self._write, None)

    def lose(self, reference: Reference, kind: Kind) -> None:
        """Forgets what a registry has no more."""
        if reference.digest:
            key = _place(reference, kind), reference.digest
            self._there.discard(key)
            self._lost.append(key)

    def _write(self, file: sqlite3.Connection) -> None:
        file.executemany("INSERT OR REPLACE INTO documents VALUES (?, ?, ?, ?, ?, ?)", self._new)
        self._new, self._bytes = [], 0

    def _read(self, file: sqlite3.Connection, place: str, digest: Digest) -> Document | None:
        key = place, digest
        question = "SELECT media_type, fetched, seal, body FROM documents WHERE place = ? AND digest = ?"
        row = file.execute(question, key).fetchone()
        if row is None:
            return None
        media_type, fetched, seal, body = row
        if seal != _seal(*key, media_type, fetched) or not self._now - AGE < fetched <= self._now:
            return None
        if digest_of(body, digest_algorithm(digest)) != digest:
            return None
        self._used.add(key)
        self.recalled += 1
        return Document(body=body, media_type=media_type, digest=digest)

    def _save(self, file: sqlite3.Connection) -> None:
        """Adds the tags, and drops what is too old or, in a whole run, was not asked for."""
        file.executemany(_DROP, self._lost)
        self._write(file)
        known = dict(file.execute("SELECT reference, digest FROM tags"))
        changed = [(tag, digest) for tag, digest in self._tags.items() if known.get(tag) != digest]
        file.executemany("INSERT OR REPLACE INTO tags VALUES (?, ?)", changed)
        old = "DELETE FROM documents WHERE fetched <= ? OR fetched > ?"
        file.execute(old, (self._now - AGE, self._now))
        if self._whole:
            gone = (
                known.keys() - self._asked - self._tags.keys()
            )  # not what was asked for in vain: an outage is no reason
            file.executemany("DELETE FROM tags WHERE reference = ?", [(tag,) for tag in gone])
            unused = set(file.execute("SELECT place, digest FROM documents")) - self._used
            file.executemany(_DROP, unused)
        file.commit()

    def _tried(self, use: Callable[[sqlite3.Connection], _Result], otherwise: _Result) -> _Result:
        """What comes of using the file. From the first error on there is none; what was damaged is made anew next time."""
        if self._file is None:
            return otherwise
        try:
            return use(self._file)
        except (sqlite3.Error, TypeError, ValueError) as error:
            self._file.close()
            self._file = None
            if self._path and getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING:
                _forget(self._path)
            return otherwise


def _prepared(file: sqlite3.Connection) -> set[tuple[str, str]]:
    """What is in a file that is made where there is none, by place and digest."""
    # What a crash of the machine leaves is found out when it is read.
    file.execute("PRAGMA synchronous = OFF")
    (version,) = file.execute("PRAGMA user_version").fetchone()
    (tables,) = file.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if not tables:
        file.executescript(_TABLES)
    elif version != _VERSION:
        raise sqlite3.DatabaseError(f"version {version}")
    return set(file.execute("SELECT place, digest FROM documents"))


def _named(file: sqlite3.Connection, tag: Reference) -> Digest | None:
    row = file.execute("SELECT digest FROM tags WHERE reference = ?", (str(tag),)).fetchone()
    return parse_digest(row[0]) if row else None  # its errors, too, say that the file is damaged


def _forget(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:  # a folder that cannot be written
        return


def _place(reference: Reference, kind: Kind) -> str:
    return f"{reference.repository}/{kind}"


def _seal(place: str, digest: str, media_type: str, fetched: int) -> str:
    """Of what a hash over the body does not cover."""
    return hashlib.sha256(f"{place} {digest} {media_type} {fetched}".encode()).hexdigest()[:16]
