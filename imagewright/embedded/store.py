"""The registry's content on disk: one OCI layout per repository, and the rules of what may be kept and removed.

Repository `a/b` is the layout `<root>/a+b`; no repository name contains '+'. In its `index.json` an entry with the
annotation `org.opencontainers.image.ref.name` is a tag, an entry without it keeps an untagged manifest known. Other
programs may change the folders at any time: `index.json` is read again whenever its stat has changed.
"""

import os
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from imagewright.documents import (
    INDEX_TYPES,
    MAX_LAYOUT_INDEX_BYTES,
    MAX_MANIFEST_BYTES,
    BadDocument,
    Descriptor,
    Index,
    Manifest,
    load_json,
    parse_layout_index,
    parse_manifest,
)
from imagewright.embedded.refusal import Code, Refused
from imagewright.embedded.uploads import Upload, Uploads
from imagewright.errors import Failed
from imagewright.layout import REF_NAME, Layout
from imagewright.names import BadName, Digest, Tag, digest_algorithm, digest_of, parse_repository, parse_tag

_FOREIGN_LAYERS = (
    "application/vnd.docker.image.rootfs.foreign.",
    "application/vnd.oci.image.layer.nondistributable.",
)
"""Starts of the media types of layers that are fetched from their own URLs and never pushed."""

Entry = Mapping[str, object]
"""The members of one entry of an `index.json`, as they stand there: other programs' members are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A manifest that is here. media_type: the one it was pushed with. subject: what it refers to, if anything."""

    digest: Digest
    media_type: str
    subject: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Contents:
    """What one version of an `index.json` says. seen: which version. manifests: media types, children included."""

    seen: tuple[int, int, int]
    entries: tuple[Entry, ...]
    tags: Mapping[Tag, Digest]
    sorted_tags: tuple[Tag, ...]
    manifests: Mapping[Digest, str]


_NOTHING = _Contents(seen=(0, 0, 0), entries=(), tags={}, sorted_tags=(), manifests={})


class Store:
    """All repositories below one folder. sparse: manifests may name content that is not here."""

    def __init__(self, root: Path, *, sparse: bool = False) -> None:
        self.root = root
        self._sparse = sparse
        root.mkdir(parents=True, exist_ok=True)
        self.uploads = Uploads(root / ".uploads")
        self._open: dict[str, Repository] = {}
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """The names of all repositories, sorted."""
        found = []
        for folder in self.root.iterdir():
            try:
                name = parse_repository(folder.name.replace("+", "/"))
            except BadName:
                continue  # .uploads, and whatever else a person keeps beside the repositories
            if (folder / "index.json").is_file():
                found.append(name)
        return sorted(found)

    def repository(self, name: str) -> "Repository":
        """The repository of this name, which must be as `parse_repository` returned it; `Refused` if there is none."""
        if not (self._folder(name) / "index.json").is_file():
            raise Refused(Code.NAME_UNKNOWN, "there is no such repository here", {"name": name})
        return self.place(name)

    def place(self, name: str) -> "Repository":
        """The repository of this name, which comes into being with the first thing that is kept in it."""
        with self._lock:
            return self._open.setdefault(name, Repository(Layout(self._folder(name)), sparse=self._sparse))

    def finish(self, upload: Upload, digest: Digest) -> None:
        """Makes the upload a blob of its repository; `Refused` if its content has another digest. It ends anyway."""
        try:
            upload.verify(digest)
            upload.flush()
            self.uploads.take(upload)
            self.place(upload.repository).adopt(upload.path, digest)
        finally:
            self.uploads.forget(upload)

    def mount(self, name: str, digest: Digest, source: str | None) -> bool:
        """Gives the blob of one repository to another as a hard link; whether that could be done.

        source: the repository to take it from, None for any. Nothing here is secret from a part of the clients.
        """
        folders = map(self._folder, self.names() if source is None else [source])
        paths = [folder / "blobs" / digest.replace(":", "/") for folder in folders]
        return any(path.is_file() and self.place(name).link(path, digest) for path in paths)

    def _folder(self, name: str) -> Path:
        return self.root / name.replace("/", "+")


class Repository:
    """One repository. Reads see one version of `index.json` each; writes are done one after another."""

    def __init__(self, layout: Layout, *, sparse: bool) -> None:
        self._layout = layout
        self._sparse = sparse
        self._index = layout.path / "index.json"
        self._lock = threading.RLock()
        self._contents: _Contents | None = None
        self._parsed: dict[Digest, Index | Manifest] = {}

    def tags(self) -> tuple[Tag, ...]:
        """All tags, in the specification's order: alphanumeric, upper and lower case alike."""
        return self._current().sorted_tags

    def resolve(self, reference: Tag | Digest) -> Stored:
        """The manifest that a tag or digest names, or `Refused`."""
        contents = self._current()
        digest = Digest(reference) if ":" in reference else contents.tags.get(Tag(reference))
        if digest is None or digest not in contents.manifests or not self._layout.has(digest):
            raise Refused(
                Code.MANIFEST_UNKNOWN, "there is no such manifest in this repository", {"reference": reference}
            )
        return Stored(digest=digest, media_type=contents.manifests[digest])

    def manifest(self, stored: Stored) -> bytes:
        """The bytes of a manifest that `resolve` found. `Failed` if they are not what their digest says."""
        return self._layout.read(stored.digest, MAX_MANIFEST_BYTES)

    def manifest_size(self, stored: Stored) -> int:
        """Bytes of a manifest that `resolve` found."""
        return self._layout.size(stored.digest)

    def put(self, reference: Tag | Digest, media_type: str, body: bytes, tags: Sequence[Tag] = ()) -> Stored:
        """Keeps a manifest under a tag, or under its digest and maybe tags: under all of them or not at all. `Refused`.

        media_type: as pushed; empty if nobody said.
        """
        algorithm = digest_algorithm(Digest(reference)) if ":" in reference else "sha256"
        digest = digest_of(body, algorithm)
        if ":" in reference and reference != digest:
            detail = {"expected": reference, "received": digest}
            raise Refused(Code.DIGEST_INVALID, "the manifest has another digest", detail)
        manifest = _parsed_for_keeping(body, media_type)
        with self._lock:
            contents = self._current() if self._index.is_file() else _NOTHING
            if not self._sparse:
                self._refuse_holes(manifest, contents)
            Layout.create(self._layout.path)
            self._layout.add(body, algorithm)
            self._parsed[digest] = manifest
            entry = {"mediaType": manifest.media_type, "digest": digest, "size": len(body)}
            entries = contents.entries
            under: Sequence[Tag | None] = (tags or [None]) if ":" in reference else [Tag(reference)]
            for tag in under:
                entries = _with_entry(entries, entry, tag)
            self._write(entries)
        return Stored(digest=digest, media_type=manifest.media_type, subject=manifest.subject)

    def delete_tag(self, tag: Tag) -> None:
        """Removes a tag; its manifest stays. `Refused` if there is no such tag."""
        with self._lock:
            contents = self._current()
            if tag not in contents.tags:
                raise Refused(Code.MANIFEST_UNKNOWN, "there is no such tag in this repository", {"reference": tag})
            self._write(_without_tag(contents.entries, tag))

    def delete_manifest(self, digest: Digest) -> None:
        """Removes a manifest and every tag on it. `Refused` if it is not here."""
        with self._lock:
            self.resolve(digest)
            self._write(entry for entry in self._current().entries if entry["digest"] != digest)
            self._layout.blob_path(digest).unlink(missing_ok=True)
            self._parsed.pop(digest, None)

    def blob(self, digest: Digest) -> Path:
        """The file of a blob, or `Refused`."""
        if not self._layout.has(digest):
            raise Refused(Code.BLOB_UNKNOWN, "there is no such blob in this repository", {"digest": digest})
        return self._layout.blob_path(digest)

    def delete_blob(self, digest: Digest) -> None:
        """Removes a blob, referred to or not. `Refused` if it is not here, or is a manifest."""
        with self._lock:
            path = self.blob(digest)
            if digest in self._current().manifests:
                raise Refused(Code.UNSUPPORTED, "this is a manifest; delete it as one", {"digest": digest})
            path.unlink(missing_ok=True)

    def adopt(self, path: Path, digest: Digest) -> None:
        """Makes the file at `path`, whose content was verified, a blob here by renaming it."""
        os.replace(path, self._room_for(digest))

    def link(self, path: Path, digest: Digest) -> bool:
        """Makes another repository's file a blob here; whether the file system allows that."""
        try:
            os.link(path, self._room_for(digest))
        except FileExistsError:
            return True
        except OSError:  # no hard links on this file system, too many of this file, or the file has just gone
            return False
        return True

    def referrers(self, subject: Digest) -> list[dict[str, object]]:
        """Descriptors of the manifests that name `subject` as theirs, in the order of `index.json`."""
        found = []
        with self._lock:
            for digest, media_type in self._current().manifests.items():
                manifest = self._read(digest, media_type)
                if manifest is not None and manifest.subject == subject:
                    found.append(self._descriptor(digest, manifest))
        return found

    def _room_for(self, digest: Digest) -> Path:
        with self._lock:  # of two creators at once the second would empty the first one's index.json
            Layout.create(self._layout.path)
        target = self._layout.blob_path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        return target

    def _descriptor(self, digest: Digest, manifest: Index | Manifest) -> dict[str, object]:
        body = self._layout.read(digest, MAX_MANIFEST_BYTES)
        members: dict[str, object] = {"mediaType": manifest.media_type, "digest": digest, "size": len(body)}
        if artifact_type := _artifact_type(manifest, body):
            members["artifactType"] = artifact_type
        if manifest.annotations:
            members["annotations"] = dict(manifest.annotations)
        return members

    def _refuse_holes(self, manifest: Index | Manifest, contents: _Contents) -> None:
        if isinstance(manifest, Index):
            absent = [
                child.digest
                for child in manifest.entries
                if child.digest not in contents.manifests or not self._layout.has(child.digest)
            ]
        else:
            absent = [blob.digest for blob in _own_blobs(manifest) if not self._layout.has(blob.digest)]
        if absent:
            raise Refused(
                Code.MANIFEST_BLOB_UNKNOWN,
                f"the manifest names content that is not in this repository: {', '.join(absent[:4])}",
                [{"digest": digest} for digest in absent],
            )

    def _current(self) -> _Contents:
        """What `index.json` says now; read only if it has changed. `Refused` if it has gone."""
        known = self._contents
        try:
            if known is not None and known.seen == _version(self._index.stat()):
                return known
            with self._lock, self._index.open("rb") as file:
                seen = _version(os.fstat(file.fileno()))
                if self._contents is None or self._contents.seen != seen:
                    self._contents = self._understood(seen, _entries(file.read(), str(self._index)))
                return self._contents
        except FileNotFoundError:
            raise Refused(Code.NAME_UNKNOWN, "the repository has gone") from None

    def _write(self, entries: Iterable[Entry]) -> None:
        kept = tuple(entries)
        seen = _version(self._layout.write_entries(kept))
        self._contents = self._understood(seen, kept)

    def _understood(self, seen: tuple[int, int, int], entries: tuple[Entry, ...]) -> _Contents:
        tags: dict[Tag, Digest] = {}
        manifests: dict[Digest, str] = {}
        for entry in entries:
            digest = Digest(str(entry["digest"]))
            manifests[digest] = str(entry["mediaType"])
            if tag := _tag(entry):
                tags[tag] = digest
        self._add_children(manifests)
        return _Contents(
            seen=seen,
            entries=entries,
            tags=tags,
            sorted_tags=tuple(sorted(tags, key=lambda tag: (tag.lower(), tag))),
            manifests=manifests,
        )

    def _add_children(self, manifests: dict[Digest, str]) -> None:
        """Other programs list only the outermost index in `index.json`; what it names are known manifests as well."""
        waiting = [(digest, media_type) for digest, media_type in manifests.items() if media_type in INDEX_TYPES]
        while waiting:
            manifest = self._read(*waiting.pop())
            for child in manifest.entries if isinstance(manifest, Index) else ():
                if child.digest not in manifests:
                    manifests[child.digest] = child.media_type
                    waiting.append((child.digest, child.media_type))

    def _read(self, digest: Digest, media_type: str) -> Index | Manifest | None:
        """The manifest of this digest; None where its file is absent, damaged or no manifest, so nothing follows."""
        if digest not in self._parsed:
            try:
                self._parsed[digest] = parse_manifest(self._layout.read(digest, MAX_MANIFEST_BYTES), media_type)
            except (Failed, BadDocument):
                return None
        return self._parsed[digest]


def page(names: Iterable[str], after: str, limit: int | None) -> tuple[list[str], bool]:
    """The names that follow `after`, at most `limit`, and whether there are more. names: in the order of `tags`."""
    rest = [name for name in names if (name.lower(), name) > (after.lower(), after)] if after else list(names)
    if limit is None:
        return rest, False
    return rest[:limit], 0 < limit < len(rest)


def _parsed_for_keeping(body: bytes, pushed_as: str) -> Index | Manifest:
    media_type = pushed_as.partition(";")[0].strip()
    try:
        manifest = parse_manifest(body, media_type)
    except BadDocument as error:
        raise Refused(Code.MANIFEST_INVALID, error.detail, {"reason": str(error.reason)}) from None
    if media_type and media_type != manifest.media_type:
        raise Refused(Code.MANIFEST_INVALID, f"pushed as {media_type}, but it is {manifest.media_type}")
    return manifest


def _own_blobs(manifest: Manifest) -> list[Descriptor]:
    layers = [layer for layer in manifest.layers if not (layer.urls and layer.media_type.startswith(_FOREIGN_LAYERS))]
    return [manifest.config, *layers] if manifest.config else layers


def _artifact_type(manifest: Index | Manifest, body: bytes) -> str:
    """https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#listing-referrers"""
    if isinstance(manifest, Manifest):
        return manifest.artifact_type or (manifest.config.media_type if manifest.config else "")
    document = load_json(body, MAX_MANIFEST_BYTES)
    stated = document.get("artifactType") if isinstance(document, dict) else None
    return stated if isinstance(stated, str) else ""


def _version(stat: os.stat_result) -> tuple[int, int, int]:
    return (stat.st_mtime_ns, stat.st_ino, stat.st_size)


def _entries(content: bytes, where: str) -> tuple[Entry, ...]:
    try:
        parse_layout_index(content)
        document = load_json(content, MAX_LAYOUT_INDEX_BYTES)
    except BadDocument as error:
        raise Failed(f"index.json is not an index: {error}", where=where) from None
    return tuple(document["manifests"]) if isinstance(document, dict) else ()


def _tag(entry: Entry) -> Tag | None:
    """The tag of an entry. Other programs write whole references there: those name nothing in a repository."""
    annotations = entry.get("annotations")
    if not isinstance(annotations, Mapping) or REF_NAME not in annotations:
        return None
    try:
        return parse_tag(str(annotations[REF_NAME]))
    except BadName:
        return None


def _with_entry(entries: Iterable[Entry], entry: dict[str, object], tag: Tag | None) -> tuple[Entry, ...]:
    """The entries with a manifest added, under `tag` if there is one; the tag's former manifest stays known."""
    digest = entry["digest"]
    kept = [
        one if one["digest"] != digest else {**one, "mediaType": entry["mediaType"]}
        for one in (entries if tag is None else _without_tag(entries, tag))
    ]
    if tag is None:
        return tuple(kept if any(one["digest"] == digest for one in kept) else [*kept, entry])
    others = [one for one in kept if one["digest"] != digest or _tag(one)]
    return (*others, {**entry, "annotations": {REF_NAME: tag}})


def _without_tag(entries: Iterable[Entry], tag: str) -> list[Entry]:
    """The entries without a tag; a manifest that has no other entry keeps one without annotation."""
    kept, untagged = [], {}
    for entry in entries:
        if _tag(entry) == tag:
            untagged[entry["digest"]] = {name: entry[name] for name in entry if name != "annotations"}
        else:
            kept.append(entry)
    known = {entry["digest"] for entry in kept}
    return [*kept, *(entry for digest, entry in untagged.items() if digest not in known)]
