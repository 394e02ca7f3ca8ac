"""The builder `copy`: `rootfs/` becomes one more layer on the base. No engine, no RUN, the same bytes every time."""

import gzip
import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO, TYPE_CHECKING, Protocol, cast

from imagewright.builders import Abilities, BuildRequest, Ran, whole_or_nothing
from imagewright.documents import (
    INDEX_TYPES,
    MAX_CONFIG_BYTES,
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
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import Digest, Platform, Reference, Repository, digest_algorithm, digest_of, parse_digest, shown
from imagewright.reasons import Unknown
from imagewright.recipe import COPY, ROOTFS, Entry, Kind, rootfs, timestamp

CREATED_BY = "imagewright copy rootfs"

_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
_OCI_LAYER_TYPES = {
    _DOCKER_LAYER: _OCI_LAYER,
    f"{_DOCKER_LAYER}.gzip": OCI_LAYER_GZIP,
    f"{_DOCKER_LAYER}.zstd": f"{_OCI_LAYER}+zstd",
}
_KEPT_LAYER_TYPES = frozenset({_OCI_LAYER, OCI_LAYER_GZIP, f"{_OCI_LAYER}+zstd"})


if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


class Source(Protocol):
    """Where the base is read from: a registry."""

    def document(self, reference: Reference) -> tuple[bytes, str]:
        """A manifest or index by digest: its bytes and the media type it is served as."""

    def blob(self, repository: Repository, digest: Digest, to: Path) -> None:
        """Writes a blob to the file `to`."""


@dataclass(frozen=True, slots=True)
class _Layer:
    descriptor: Descriptor
    diff_id: Digest


class Copy:
    """Appends `rootfs/` to the base. source: where the base is read; all of its content is verified here."""

    name = "copy"
    family = COPY
    can = Abilities(
        several_platforms=True,
        caches=(),
        attestations=False,
        reproducible=True,
        keeps_base_layers=True,
        replaces_from=True,
        runs=False,
        note="It needs no engine: `rootfs/` becomes one more layer, and a Dockerfile beside it is not read.",
    )

    def __init__(self, source: Source) -> None:
        self._source = source

    def unable(self, request: BuildRequest) -> str | None:
        """See `Builder`. Without `rootfs/` there is nothing to copy; a Dockerfile beside it is not read."""
        if request.base is None:
            return "there is no base to copy onto"
        return None if (request.context / ROOTFS).is_dir() else f"there is no folder {ROOTFS}/"

    def run(self, layout: Path, platform: Platform, command: str) -> Ran:
        """See `Builder`: there is no engine that could."""
        raise BuildFailed(f"the builder copy cannot run '{command}'")

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """See `Builder`. Raises `BadCatalogue` for what cannot be in a layer, and whatever the source raises."""
        with whole_or_nothing(into, request.target) as folder:
            layout = Layout.create(folder)
            layer = _add_layer(layout, rootfs(request.context), request.epoch)
            say(f"{ROOTFS}/ is the layer {layer.descriptor.digest}, {layer.descriptor.size} bytes")
            children = []
            for platform, reference in sorted(self._images(request).items()):
                say(f"{platform}: onto {reference}")
                try:
                    children.append(self._image(request, layout, layer, platform, reference))
                except BadDocument as error:
                    raise BuildFailed(f"{request.target}: the base {reference} cannot be read: {error}") from None
            layout.write_only_index(children, request.annotations)

    def _images(self, request: BuildRequest) -> dict[Platform, Reference]:
        """The base's image for each platform asked for."""
        base = request.base
        if base is None:
            raise BuildFailed(f"{request.target}: there is no base to copy onto")
        try:
            document = self._document(request, base)
            if isinstance(document, Manifest):
                config = parse_config(self._config(base.repository, document))
                offered = {config.platform.normalised(): base}
            else:
                offered = {
                    entry.platform.normalised(): base.repository.at(entry.digest)
                    for entry in reversed(document.entries)  # of two for one platform, engines take the first
                    if entry.platform and not entry.is_attestation and entry.media_type not in INDEX_TYPES
                }
        except BadDocument as error:
            raise BuildFailed(f"{request.target}: the base {base} cannot be read: {error}") from None
        wanted = [platform.normalised() for platform in request.platforms]
        if missing := [str(one) for one in wanted if one not in offered]:
            has = ", ".join(str(one) for one in sorted(offered)) or "no platform at all"
            raise BuildFailed(f"{request.target}: the base {base} lacks {', '.join(missing)}; it has {has}")
        return {platform: offered[platform] for platform in wanted}

    def _image(
        self, request: BuildRequest, layout: Layout, layer: _Layer, platform: Platform, reference: Reference
    ) -> Descriptor:
        manifest = self._document(request, reference)
        if not isinstance(manifest, Manifest):
            raise BuildFailed(f"{request.target}: the base's {reference} is an index, not the image of {platform}")
        config = self._config(reference.repository, manifest)
        diff_ids = parse_config(config).diff_ids
        if diff_ids is None or len(diff_ids) != len(manifest.layers):
            raise BuildFailed(f"{request.target}: the base {reference} does not have one diff id for each layer")
        layers = [_as_oci(one, reference, request.target) for one in manifest.layers]
        for one in layers:
            self._fetch(layout, reference.repository, one)
        document = _with_layer(cast("dict[str, object]", load_json(config, MAX_CONFIG_BYTES)), layer.diff_id, request)
        written = layout.add_json(
            {
                "schemaVersion": 2,
                "mediaType": OCI_MANIFEST,
                "config": layout.add_json(document, OCI_CONFIG),
                "layers": [_layer_members(one) for one in (*layers, layer.descriptor)],
            },
            OCI_MANIFEST,
        )
        digest = parse_digest(str(written["digest"]))
        return Descriptor(media_type=OCI_MANIFEST, digest=digest, size=layout.size(digest), platform=platform)

    def _document(self, request: BuildRequest, reference: Reference) -> Index | Manifest:
        content, media_type = self._source.document(reference)
        digest = reference.digest
        if digest is None or digest_of(content, digest_algorithm(digest)) != digest:
            raise BuildFailed(f"{request.target}: what was served as {reference} is something else")
        return parse_manifest(content, media_type)

    def _config(self, repository: Repository, manifest: Manifest) -> bytes:
        if manifest.config is None:
            raise BadDocument(Unknown.MALFORMED, "an artifact, not an image")
        with TemporaryDirectory() as folder:
            file = Path(folder) / "config"
            self._verified(repository, manifest.config, file)
            return file.read_bytes()

    def _fetch(self, layout: Layout, repository: Repository, blob: Descriptor) -> None:
        if not layout.has(blob.digest):
            file = layout.blob_path(blob.digest)
            file.parent.mkdir(parents=True, exist_ok=True)
            self._verified(repository, blob, file)

    def _verified(self, repository: Repository, blob: Descriptor, to: Path) -> None:
        self._source.blob(repository, blob.digest, to)
        with to.open("rb") as content:
            found = hashlib.file_digest(content, digest_algorithm(blob.digest)).hexdigest()
        if found != blob.digest.partition(":")[2] or to.stat().st_size != blob.size:
            to.unlink()
            raise BuildFailed(f"what was served as {repository.at(blob.digest)} is something else")


def _as_oci(layer: Descriptor, reference: Reference, target: str) -> Descriptor:
    media_type = _OCI_LAYER_TYPES.get(layer.media_type, layer.media_type)
    if media_type not in _KEPT_LAYER_TYPES:
        raise BuildFailed(f"{target}: a layer of the base {reference} is a {shown(media_type)}, which cannot be copied")
    return replace(layer, media_type=media_type)


def _with_layer(config: Mapping[str, object], diff_id: Digest, request: BuildRequest) -> dict[str, object]:
    """The base's configuration after one more step; members that nobody here knows stay as they are."""
    made = timestamp(request.epoch)
    settings = _members_of(config.get("config"))
    filesystem = _members_of(config.get("rootfs"))
    changed: dict[str, object] = {
        "created": made,
        "config": settings | {"Labels": _members_of(settings.get("Labels")) | dict(sorted(request.labels.items()))},
        "rootfs": filesystem | {"diff_ids": [*_list_of(filesystem.get("diff_ids")), diff_id]},
    }
    steps = config.get("history")
    if steps is not None or not filesystem.get("diff_ids"):
        # Where a base tells of no step, one alone would be taken for the story of its first layer.
        changed["history"] = [*_list_of(steps), {"created": made, "created_by": CREATED_BY}]
    return dict(config) | changed


def _members_of(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, dict) else {}


def _list_of(value: object) -> list[object]:
    return list(value) if isinstance(value, list) else []


def _layer_members(layer: Descriptor) -> dict[str, object]:
    members: dict[str, object] = {"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size}
    return members | {"annotations": dict(layer.annotations)} if layer.annotations else members


def _add_layer(layout: Layout, entries: Sequence[Entry], epoch: int) -> _Layer:
    """Keeps the entries as a layer that is the same bytes for the same entries, whoever makes it and when."""
    filled = {entry.path.rpartition("/")[0] for entry in entries}
    with TemporaryDirectory(dir=layout.path) as folder:
        file = Path(folder) / "layer"
        with file.open("wb") as packed:
            blob = _Hashing(packed)
            # No file name and no time in gzip's header, and a fixed level.
            with gzip.GzipFile(filename="", mode="wb", fileobj=blob, compresslevel=6, mtime=0) as zipped:
                content = _Hashing(zipped)
                with tarfile.open(fileobj=content, mode="w|", format=tarfile.PAX_FORMAT) as tar:
                    for entry in entries:
                        # A folder's own entry would replace the base's: the mode of /tmp, or /lib where that is a link.
                        if entry.path not in filled:
                            _add(tar, entry, epoch)
        size = file.stat().st_size
        file.replace(layout.blob_path(blob.digest))
    return _Layer(Descriptor(media_type=OCI_LAYER_GZIP, digest=blob.digest, size=size), content.digest)


def _add(tar: tarfile.TarFile, entry: Entry, epoch: int) -> None:
    member = tarfile.TarInfo(entry.path)
    member.mtime = epoch
    member.mode = 0o755 if entry.executable or entry.kind is Kind.FOLDER else 0o644
    match entry.kind:
        case Kind.FILE:
            with open(entry.source, "rb") as content:
                member.size = os.fstat(content.fileno()).st_size
                tar.addfile(member, content)
        case Kind.LINK:
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, entry.target, 0o777
            tar.addfile(member)
        case Kind.FOLDER:
            member.type = tarfile.DIRTYPE
            tar.addfile(member)


class _Hashing(io.RawIOBase):
    """Passes on what is written to it and knows its digest."""

    def __init__(self, behind: IO[bytes] | gzip.GzipFile) -> None:
        self._behind = behind
        self._hash = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: "Buffer", /) -> int:
        self._hash.update(content)
        return self._behind.write(content)

    @property
    def digest(self) -> Digest:
        return parse_digest(f"sha256:{self._hash.hexdigest()}")
