"""Docker archives, as `docker save` writes and `docker load` reads them: to and from an OCI layout.

An archive has its layers unpacked, a layout has them compressed. What is read is therefore compressed anew, and a layer's
digest is not the one under which it was once published; configuration and diff ids stay what they are.
https://github.com/moby/docker-image-spec/blob/v1.3.1/spec.md#combined-image-json--filesystem-changeset-format
"""

import gzip
import hashlib
import io
import itertools
import json
import posixpath
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from imagewright.documents import (
    MAX_CONFIG_BYTES,
    MAX_LAYERS,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    BadDocument,
    Descriptor,
    Index,
    Manifest,
    load_json,
    parse_config,
    parse_manifest,
)
from imagewright.errors import Failed
from imagewright.layout import Layout
from imagewright.names import Digest, Platform, parse_digest, shown

_MANIFEST = "manifest.json"
_MAX_MEMBERS = 8 * MAX_LAYERS
_MAX_HEADER_BYTES = 2**20
_MAX_LAYER_BYTES = 64 * 2**30
_CHUNK = 2**18
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_COMMON_LAYER = ("application/vnd.oci.image.layer.v1.tar", OCI_LAYER_GZIP)
"""What every program that loads docker archives can unpack; docker 20.10 cannot unpack zstd."""


class BadArchive(Failed):
    """A docker archive cannot be believed."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"not a docker archive of an image: {reason}")


def read(archive: Path, layout: Layout) -> Descriptor:
    """Puts the one image of a docker archive into the layout; the descriptor of its manifest, with its platform.

    Only blobs are written; what `index.json` names is the caller's to say. Layers that are gzip in the archive stay as
    they are, others become gzip, the same bytes each time. Everything is hashed against the configuration's diff ids.
    `BadArchive` for what is damaged, ambiguous or not exactly one image; OSError where the layout cannot be written.
    """
    with archive.open("rb") as file:
        members = _members(file)
        try:
            described = _described(members.small(_MANIFEST, MAX_MANIFEST_BYTES))
            content = members.small(described.config, MAX_CONFIG_BYTES)
            config = parse_config(content)
        except BadDocument as error:
            raise BadArchive(str(error)) from None
        if config.diff_ids is None or len(config.diff_ids) != len(described.layers):
            raise BadArchive(f"{len(described.layers)} layers, {len(config.diff_ids or ())} diff ids")
        layers = [
            _add_layer(layout, members, name, diff_id)
            for name, diff_id in zip(described.layers, config.diff_ids, strict=True)
        ]
    made = layout.add_json(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {"mediaType": OCI_CONFIG, "digest": layout.add(content), "size": len(content)},
            "layers": layers,
        },
        OCI_MANIFEST,
    )
    digest = parse_digest(str(made["digest"]))
    return Descriptor(media_type=OCI_MANIFEST, digest=digest, size=layout.size(digest), platform=config.platform)


def write(layout: Layout, platform: Platform, reference: str, to: Path) -> Digest:
    """Writes the image of one platform as a docker archive; the digest of its configuration, which is its id in docker.

    layout: its `index.json` names one index. reference: the name under which the image is loaded. The layers are written as
    they are, compressed: `docker load`, `podman load` and whoever else reads archives unpack them. The same bytes each
    time. `Failed` where the platform is not there, something is absent or damaged, or a layer is neither tar nor gzip.
    """
    try:
        manifest = _manifest(layout, platform)
    except BadDocument as error:
        raise Failed(f"the image cannot be read: {error}", where=str(layout.path)) from None
    if manifest.config is None:
        raise Failed(f"what is there for {platform} is no image", where=str(layout.path))
    config = layout.read(manifest.config.digest, MAX_CONFIG_BYTES)
    names = {one.digest: _layer_name(one, layout) for one in manifest.layers}
    config_name = f"{_encoded(manifest.config.digest)}.json"
    described = {
        "Config": config_name,
        "RepoTags": [reference],
        "Layers": [names[one.digest] for one in manifest.layers],
    }
    try:
        with tarfile.open(to, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, config_name, len(config), io.BytesIO(config))
            for digest, name in names.items():
                with layout.blob_path(digest).open("rb") as content:
                    _add(tar, name, layout.size(digest), content)
            listed = json.dumps([described]).encode()
            _add(tar, _MANIFEST, len(listed), io.BytesIO(listed))
    except BaseException:
        to.unlink(missing_ok=True)
        raise
    return manifest.config.digest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Described:
    """What `manifest.json` says of the one image: names of members."""

    config: str
    layers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Span:
    """Where a member's content is."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class _Members:
    """The members of an open archive, by name; links are not followed but to what is in the same archive."""

    file: IO[bytes]
    spans: Mapping[str, _Span]
    links: Mapping[str, str]

    def find(self, name: str) -> _Span:
        """Where the content of a member is. `docker save` of old makes equal layers links to the first of them."""
        found = self.spans.get(self.links.get(name, name))
        if found is None:
            raise BadArchive(f"it has no file {shown(name)}")
        return found

    def chunks(self, name: str) -> Iterator[bytes]:
        """The content of a member, bit by bit."""
        span = self.find(name)
        self.file.seek(span.start)
        left = span.size
        while left:
            chunk = self.file.read(min(left, _CHUNK))
            if not chunk:
                raise BadArchive(f"it ends in the middle of {shown(name)}")
            left -= len(chunk)
            yield chunk

    def small(self, name: str, limit: int) -> bytes:
        """The whole content of a member that has at most `limit` bytes."""
        if (size := self.find(name).size) > limit:
            raise BadArchive(f"{shown(name)} has {size} bytes, at most {limit} are read")
        return b"".join(self.chunks(name))


def _members(file: IO[bytes]) -> _Members:
    """The members of an archive. Only their places are taken from here: nothing is ever unpacked to a path of theirs."""
    spans: dict[str, _Span] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(fileobj=_Headers(file), mode="r:") as tar:
            for count, member in enumerate(tar):
                name = posixpath.normpath(member.name)
                if member.size < 0:
                    raise BadArchive(f"{shown(name)} has {member.size} bytes")
                if name in spans or name in links:
                    raise BadArchive(f"{shown(name)} stands twice in it")
                if count >= _MAX_MEMBERS:
                    raise BadArchive(f"it has more than {_MAX_MEMBERS} files")
                if member.issym():
                    links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
                elif member.isreg() and not member.issparse():
                    spans[name] = _Span(member.offset_data, member.size)
    except (tarfile.TarError, RecursionError, OverflowError, ValueError) as error:
        # The last three as well: headers upon headers, numbers that are too large or none at all.
        raise BadArchive(f"its tar is damaged: {error}") from None
    return _Members(file, spans, links)


class _Headers(io.RawIOBase):
    """A file as tarfile sees it, which reads headers of whatever length they claim into memory: not here."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int = -1, /) -> bytes:
        """At most a mebibyte."""
        if not 0 <= size <= _MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {size} bytes")
        return self._file.read(size)

    def seek(self, to: int, whence: int = 0, /) -> int:
        """See `io.IOBase`."""
        return self._file.seek(to, whence)

    def tell(self) -> int:
        """See `io.IOBase`."""
        return self._file.tell()


def _described(content: bytes) -> _Described:
    listed = load_json(content, MAX_MANIFEST_BYTES)
    if not isinstance(listed, list) or len(listed) != 1:
        count = f"{len(listed)} images" if isinstance(listed, list) else "no list of images"
        raise BadArchive(f"its {_MANIFEST} has {count}, not one")
    one = listed[0] if isinstance(listed[0], dict) else {}
    config, layers = one.get("Config"), one.get("Layers") or []
    if not isinstance(config, str) or not isinstance(layers, list) or not all(isinstance(name, str) for name in layers):
        raise BadArchive(f"its {_MANIFEST} does not name a configuration and layers")
    if len(layers) > MAX_LAYERS:
        raise BadArchive(f"it has {len(layers)} layers, at most {MAX_LAYERS} are read")
    return _Described(config=config, layers=tuple(layers))


def _add_layer(layout: Layout, members: _Members, name: str, diff_id: Digest) -> dict[str, object]:
    """Keeps a layer; the members of its descriptor."""
    chunks = members.chunks(name)
    first = next(chunks, b"")
    kind = next((kind for magic, kind in _MAGIC.items() if first.startswith(magic)), "tar")
    if kind not in ("tar", "gzip"):
        raise BadArchive(f"its {shown(name)} is {kind}; only tar and gzip are read")
    content = itertools.chain((first,), chunks)
    with TemporaryDirectory(dir=layout.path) as folder:
        file = Path(folder) / "layer"
        with file.open("wb") as packed:
            found = _keep(content, packed) if kind == "gzip" else _compress(content, packed)
        if found != diff_id:
            raise BadArchive(f"its {shown(name)} is not the {diff_id} of the configuration")
        with file.open("rb") as packed:
            digest = parse_digest(f"sha256:{hashlib.file_digest(packed, 'sha256').hexdigest()}")
        size = file.stat().st_size
        file.replace(layout.blob_path(digest))
    return {"mediaType": OCI_LAYER_GZIP, "digest": digest, "size": size}


def _compress(content: Iterable[bytes], to: IO[bytes]) -> str:
    """Writes a tar as gzip, the same bytes each time; the tar's digest."""
    unpacked = hashlib.sha256()
    # No file name and no time in gzip's header, and a fixed level.
    with gzip.GzipFile(filename="", mode="wb", fileobj=to, compresslevel=6, mtime=0) as zipped:
        for chunk in content:
            unpacked.update(chunk)
            zipped.write(chunk)
    return f"sha256:{unpacked.hexdigest()}"


def _keep(content: Iterable[bytes], to: IO[bytes]) -> str:
    """Writes what is gzip already; the digest of what is in it."""
    for chunk in content:
        to.write(chunk)
    to.flush()
    unpacked, size = hashlib.sha256(), 0
    try:
        with gzip.open(to.name) as zipped:
            while chunk := zipped.read(_CHUNK):
                unpacked.update(chunk)
                if (size := size + len(chunk)) > _MAX_LAYER_BYTES:
                    raise BadArchive(f"a layer unpacks to more than {_MAX_LAYER_BYTES} bytes")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise BadArchive(f"a layer's gzip is damaged: {error}") from None
    return f"sha256:{unpacked.hexdigest()}"


def _manifest(layout: Layout, platform: Platform) -> Manifest:
    for top in layout.entries():
        index = parse_manifest(layout.read(top.digest, MAX_MANIFEST_BYTES), top.media_type)
        for entry in index.entries if isinstance(index, Index) else ():
            if entry.platform and not entry.is_attestation and entry.platform.normalised() == platform.normalised():
                document = parse_manifest(layout.read(entry.digest, MAX_MANIFEST_BYTES), entry.media_type)
                if isinstance(document, Manifest):
                    return document
    raise Failed(f"there is no image for {platform}", where=str(layout.path))


def _layer_name(layer: Descriptor, layout: Layout) -> str:
    if layer.media_type not in _COMMON_LAYER:
        kind = shown(layer.media_type)
        raise Failed(f"a layer is a {kind}, which not everybody who loads docker archives can unpack")
    if not layout.has(layer.digest):
        raise Failed(f"the layout has no content {layer.digest}", where=str(layout.path))
    return f"{_encoded(layer.digest)}.tar" + (".gz" if layer.media_type == OCI_LAYER_GZIP else "")


def _encoded(digest: Digest) -> str:
    return digest.partition(":")[2]


def _add(tar: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    member = tarfile.TarInfo(name)
    member.size = size
    tar.addfile(member, content)
