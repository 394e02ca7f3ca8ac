"""Bytes of registry documents to values: index, manifest, config, tag list. Strict, bounded, without I/O.

Two parsers that read one document differently see two images (CVE-2021-41190), so whatever is ambiguous is refused:
duplicate names, NaN, bytes that are not UTF-8, an index that is also a manifest. Members that no rule here speaks of
are allowed, as the specification asks. https://github.com/opencontainers/image-spec/blob/v1.1.1/spec.md
"""

import codecs
import json
import math
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from imagewright.names import BadName, Digest, Platform, parse_digest, shown
from imagewright.reasons import Unknown

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_ARTIFACT = "application/vnd.oci.artifact.manifest.v1+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_LIST})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST, OCI_ARTIFACT})
SCHEMA1_TYPES = frozenset(
    {
        "application/vnd.docker.distribution.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
    }
)
ACCEPT = f"{OCI_INDEX}, {OCI_MANIFEST}, {DOCKER_LIST}, {DOCKER_MANIFEST}"
"""All four, always: with fewer a registry may answer "unknown" for an image that exists."""

MAX_MANIFEST_BYTES = 4 * 2**20
MAX_CONFIG_BYTES = 8 * 2**20
MAX_TAG_PAGE_BYTES = 8 * 2**20
MAX_LAYOUT_INDEX_BYTES = 256 * 2**20
MAX_CHILDREN = 64
MAX_LAYERS = 512
MAX_NESTING = 100
"""Levels of lists and objects. Python's own limit moves with how deep the caller is, and a verdict must not."""
_MAX_INTEGER_DIGITS = 19
_MAX_FLOAT_CHARACTERS = 64
_MAX_SIZE = 2**63 - 1
"""https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#properties"""

ATTESTATION = "vnd.docker.reference.type"
ATTESTED = "vnd.docker.reference.digest"
"""On an entry that is an attestation: the digest of the entry that it describes."""
"""Annotation with which BuildKit marks an index entry that describes another entry and is no platform."""


class BadDocument(ValueError):
    """A document cannot be believed. reason: which of the unknown codes; detail: where and what, one clause."""

    def __init__(self, reason: Unknown, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, kw_only=True)
class Descriptor:
    """A pointer to content: media type, digest, size in bytes. platform: only on entries of an index that state one."""

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    urls: tuple[str, ...] = ()

    @property
    def is_attestation(self) -> bool:
        """Whether this entry of an index describes another one instead of being a platform.

        https://docs.docker.com/build/metadata/attestations/attestation-storage/
        """
        return ATTESTATION in self.annotations or self.platform == Platform("unknown", "unknown")

    @property
    def is_of_unknown_kind(self) -> bool:
        """Whether this entry of an index has a media type that readers do not know, and therefore have to ignore.

        https://github.com/opencontainers/image-spec/blob/v1.1.1/image-index.md#image-index-property-descriptions
        """
        return self.media_type not in INDEX_TYPES | MANIFEST_TYPES | SCHEMA1_TYPES


@dataclass(frozen=True, slots=True, kw_only=True)
class Index:
    """An OCI index or a Docker manifest list; entries in document order."""

    media_type: str
    entries: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    subject: Digest | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """An image or artifact manifest. config: None only in the withdrawn OCI artifact manifest."""

    media_type: str
    config: Descriptor | None
    layers: tuple[Descriptor, ...]
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    artifact_type: str = ""
    subject: Digest | None = None


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One step of an image's history. empty_layer: the step made no layer (ENV, USER, ENTRYPOINT, …)."""

    created_by: str
    empty_layer: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """An image configuration. diff_ids and history: None where the document has none."""

    platform: Platform
    diff_ids: tuple[Digest, ...] | None
    history: tuple[HistoryEntry, ...] | None
    labels: Mapping[str, str] = field(default_factory=dict, hash=False)
    created: str = ""


def parse_manifest(body: bytes, served_as: str = "") -> Index | Manifest:
    """An index or a manifest from its bytes.

    served_as: the media type that the answer or the parent's descriptor states; empty or a general one (`text/plain`)
    if nobody said. Raises `BadDocument`.
    """
    document = _struct(load_json(body, MAX_MANIFEST_BYTES), "the document", _DOCUMENT)
    media_type = _media_type(document, served_as.partition(";")[0].strip())
    if media_type in INDEX_TYPES:
        return _index(document, media_type)
    return _manifest(document, media_type)


def parse_config(body: bytes) -> Config:
    """An image configuration from its bytes, or `BadDocument`."""
    document = _struct(load_json(body, MAX_CONFIG_BYTES), "the configuration", _CONFIGURATION)
    platform = _platform_in(document, "the configuration")
    rootfs = document.get("rootfs")
    history = document.get("history")
    settings = document.get("config")
    return Config(
        platform=platform,
        diff_ids=None if rootfs is None else _diff_ids(rootfs),
        history=None if history is None else _history(history),
        labels=_texts(_struct(settings, "config", _SETTINGS).get("Labels"), "config.Labels")
        if settings is not None
        else {},
        created=_text(document, "created"),
    )


def parse_tags(body: bytes) -> tuple[str, ...]:
    """The tags of one page of a tag list, as served; `null` is a list without tags. Raises `BadDocument`."""
    document = _object(load_json(body, MAX_TAG_PAGE_BYTES), "the tag list")
    if "tags" not in document:
        raise BadDocument(Unknown.GARBAGE, "a tag list without a member 'tags'")
    tags = []
    for at, tag in enumerate(_array_or_null(document["tags"], "tags", 1_000_000)):
        if not isinstance(tag, str):
            raise BadDocument(Unknown.MALFORMED, f"tags[{at}] is not a text")
        tags.append(tag)
    return tuple(tags)


def parse_layout_index(body: bytes) -> tuple[Descriptor, ...]:
    """What the `index.json` of an OCI layout names. A repository's names every tag, so it may be long. `BadDocument`."""
    document = _object(load_json(body, MAX_LAYOUT_INDEX_BYTES), "index.json")
    listed = _array(document.get("manifests"), "manifests", 1_000_000)
    return tuple(_descriptor(one, f"manifests[{at}]") for at, one in enumerate(listed))


def load_json(body: bytes, limit: int) -> object:
    """The JSON value in `body`, read as I-JSON (RFC 7493) wants it: UTF-8, no duplicate names, no NaN. `BadDocument`."""
    if len(body) > limit:
        raise BadDocument(Unknown.TOO_LARGE, f"{len(body)} bytes, at most {limit} are read")
    if body.startswith(codecs.BOM_UTF8):
        raise BadDocument(Unknown.MALFORMED, "it begins with a byte order mark")
    try:
        value: object = _DECODER.decode(body.decode("utf-8"))
        if body.count(b"[") + body.count(b"{") > MAX_NESTING:
            _refuse_nesting(value)
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
        return value
    except UnicodeEncodeError:
        raise BadDocument(Unknown.MALFORMED, "half of a surrogate pair stands for a character") from None
    except UnicodeDecodeError as error:
        raise BadDocument(Unknown.MALFORMED, f"not UTF-8 at byte {error.start}") from None
    except json.JSONDecodeError as error:
        kind = Unknown.GARBAGE if error.pos == 0 else Unknown.MALFORMED
        raise BadDocument(kind, f"not JSON: {error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise BadDocument(Unknown.MALFORMED, "nested too deep") from None


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise BadDocument(Unknown.MALFORMED, f"the member {shown(name)} stands twice")
            seen.add(name)
    return members


def _refuse_nesting(value: object) -> None:
    level = [one for one in (value,) if isinstance(one, dict | list)]
    for _ in range(MAX_NESTING):
        held = (one.values() if isinstance(one, dict) else one for one in level)
        level = [inner for several in held for inner in several if isinstance(inner, dict | list)]
    if level:
        raise BadDocument(Unknown.MALFORMED, "nested too deep")


def _constant(text: str) -> object:
    raise BadDocument(Unknown.MALFORMED, f"{text} is not JSON")


def _integer(text: str) -> int:
    if len(text) > _MAX_INTEGER_DIGITS:
        raise BadDocument(Unknown.MALFORMED, f"a number of {len(text)} digits")
    return int(text)


def _float(text: str) -> float:
    if len(text) > _MAX_FLOAT_CHARACTERS:
        raise BadDocument(Unknown.MALFORMED, f"a number of {len(text)} characters")
    number = float(text)
    if math.isinf(number):
        raise BadDocument(Unknown.MALFORMED, f"the number {text} is too large to be one")
    return number


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_constant, parse_int=_integer, parse_float=_float)


def _media_type(document: dict[str, object], served_as: str) -> str:
    version = _whole(document.get("schemaVersion"))
    if version == 1 or served_as in SCHEMA1_TYPES:
        raise BadDocument(Unknown.UNSUPPORTED_SCHEMA1, "a Docker schema 1 manifest: it has neither config nor diff ids")
    stated = _text(document, "mediaType")
    known = INDEX_TYPES | MANIFEST_TYPES
    if stated and stated not in known:
        raise BadDocument(Unknown.MALFORMED, f"mediaType {shown(stated)} is neither an index nor a manifest")
    if stated and served_as in known and stated != served_as:
        raise BadDocument(Unknown.TYPE_CONFUSION, f"served as {served_as}, but calls itself {stated}")
    looks_like_index = "manifests" in document
    looks_like_manifest = any(member in document for member in ("config", "layers", "blobs", "fsLayers"))
    if looks_like_index and looks_like_manifest:
        raise BadDocument(Unknown.TYPE_CONFUSION, "the document is an index and a manifest at once")
    media_type = stated or (served_as if served_as in known else OCI_INDEX if looks_like_index else OCI_MANIFEST)
    if (media_type in INDEX_TYPES) != looks_like_index or looks_like_index == looks_like_manifest:
        raise BadDocument(Unknown.TYPE_CONFUSION, f"its members are not those of {media_type}")
    if media_type != OCI_ARTIFACT and version != 2:
        raise BadDocument(Unknown.MALFORMED, "schemaVersion is not 2")
    return media_type


def _index(document: dict[str, object], media_type: str) -> Index:
    listed = _array(document["manifests"], "manifests", MAX_CHILDREN)
    return Index(
        media_type=media_type,
        entries=tuple(_descriptor(one, f"manifests[{at}]") for at, one in enumerate(listed)),
        annotations=_texts(document.get("annotations"), "annotations"),
        subject=_subject(document),
    )


def _manifest(document: dict[str, object], media_type: str) -> Manifest:
    content = "blobs" if media_type == OCI_ARTIFACT else "layers"
    listed = _array(document.get(content), content, MAX_LAYERS)
    config = None if media_type == OCI_ARTIFACT else _descriptor(document.get("config"), "config")
    return Manifest(
        media_type=media_type,
        config=config,
        layers=tuple(_descriptor(one, f"{content}[{at}]") for at, one in enumerate(listed)),
        annotations=_texts(document.get("annotations"), "annotations"),
        artifact_type=_text(document, "artifactType"),
        subject=_subject(document),
    )


def _subject(document: dict[str, object]) -> Digest | None:
    subject = document.get("subject")
    return None if subject is None else _descriptor(subject, "subject").digest


def _descriptor(value: object, place: str) -> Descriptor:
    members = _struct(value, place, _DESCRIPTOR)
    size = _whole(members.get("size"))
    if size is None or not 0 <= size <= _MAX_SIZE:
        raise BadDocument(Unknown.MALFORMED, f"{place}.size is not a number of bytes")
    media_type = _text(members, "mediaType")
    if not media_type:
        raise BadDocument(Unknown.MALFORMED, f"{place} has no mediaType")
    urls = _array_or_null(members.get("urls"), f"{place}.urls", 64)
    return Descriptor(
        media_type=media_type,
        digest=_digest(members.get("digest"), f"{place}.digest"),
        size=size,
        platform=_platform(members.get("platform"), f"{place}.platform"),
        annotations=_texts(members.get("annotations"), f"{place}.annotations"),
        artifact_type=_text(members, "artifactType"),
        urls=tuple(str(url) for url in urls),
    )


_PLATFORM_TEXT = re.compile(r"[A-Za-z0-9._+-]*\Z")


def _platform(value: object, place: str) -> Platform | None:
    if value is None:
        return None
    return _platform_in(_struct(value, place, _PLATFORM), place)


def _platform_in(members: dict[str, object], place: str) -> Platform:
    parts = [_text(members, name) for name in ("os", "architecture", "variant", "os.version")]
    if not all(_PLATFORM_TEXT.match(part) for part in parts):
        raise BadDocument(Unknown.MALFORMED, f"{place} has a value that is not a platform's")
    return Platform(*parts)


def _diff_ids(value: object) -> tuple[Digest, ...]:
    rootfs = _struct(value, "rootfs", _ROOTFS)
    if (kind := _text(rootfs, "type")) not in ("", "layers"):
        raise BadDocument(Unknown.MALFORMED, f"rootfs.type {shown(kind)} is not 'layers'")
    listed = _array_or_null(rootfs.get("diff_ids"), "rootfs.diff_ids", MAX_LAYERS)
    return tuple(_digest(one, f"rootfs.diff_ids[{at}]") for at, one in enumerate(listed))


def _history(value: object) -> tuple[HistoryEntry, ...]:
    entries = []
    for at, one in enumerate(_array(value, "history", 4 * MAX_LAYERS)):
        step = _struct(one, f"history[{at}]", _STEP)
        empty = step.get("empty_layer", False)
        if not isinstance(empty, bool):
            raise BadDocument(Unknown.MALFORMED, f"history[{at}].empty_layer is neither true nor false")
        entries.append(_entry(_text(step, "created_by"), empty))
    return tuple(entries)


@lru_cache(maxsize=2**14)
def _entry(created_by: str, empty_layer: bool) -> HistoryEntry:
    """The same value for the same step: images that are built on one base, or by one recipe, share most of them."""
    return HistoryEntry(created_by, empty_layer)


def _object(value: object, place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise BadDocument(Unknown.MALFORMED, f"{place} is not an object")
    return value


def _folded(*names: str) -> Mapping[str, str]:
    return {name.casefold(): name for name in names}


_DOCUMENT = _folded(
    *("schemaVersion", "mediaType", "config", "layers", "manifests", "blobs", "fsLayers"),
    *("annotations", "artifactType", "subject"),
)
_DESCRIPTOR = _folded("mediaType", "digest", "size", "platform", "annotations", "artifactType", "urls")
_PLATFORM = _folded("os", "architecture", "variant", "os.version")
_CONFIGURATION = {**_PLATFORM, **_folded("rootfs", "history", "config", "created")}
_SETTINGS = _folded("Labels")
_ROOTFS = _folded("type", "diff_ids")
_STEP = _folded("created_by", "empty_layer")


def _struct(value: object, place: str, names: Mapping[str, str]) -> dict[str, object]:
    """An object whose members have names of ours. names: by their folded form.

    Docker and containerd read `Layers` as `layers`, and of both the last, so that a document with it is two documents.
    https://pkg.go.dev/encoding/json#Unmarshal
    """
    members = _object(value, place)
    for name in members:
        meant = names.get(name.casefold(), name)
        if meant != name:
            raise BadDocument(Unknown.TYPE_CONFUSION, f"{place} has {shown(name)}, which some read as {shown(meant)}")
    return members


def _whole(value: object) -> int | None:
    """A number that was written as an integer: to Python `true` and `2.0` are equal to one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _array(value: object, place: str, limit: int) -> list[object]:
    if not isinstance(value, list):
        raise BadDocument(Unknown.MALFORMED, f"{place} is not a list")
    if len(value) > limit:
        raise BadDocument(Unknown.TOO_LARGE, f"{place} has {len(value)} entries, at most {limit} are read")
    return value


def _array_or_null(value: object, place: str, limit: int) -> list[object]:
    """Go writes an empty list as `null`; what else is not a list is no evidence of an empty one."""
    return [] if value is None else _array(value, place, limit)


def _text(members: dict[str, object], name: str) -> str:
    value = members.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadDocument(Unknown.MALFORMED, f"{name} is not a text")
    return value


def _texts(value: object, place: str) -> Mapping[str, str]:
    if value is None:
        return {}
    members = _object(value, place)
    for name, text in members.items():
        if not isinstance(text, str):
            raise BadDocument(Unknown.MALFORMED, f"{place}[{shown(name)}] is not a text")
    return {sys.intern(name): sys.intern(text) for name, text in members.items() if isinstance(text, str)}


def _digest(value: object, place: str) -> Digest:
    if not isinstance(value, str):
        raise BadDocument(Unknown.BAD_DIGEST, f"{place} is not a digest")
    try:
        return parse_digest(value)
    except BadName as error:
        raise BadDocument(Unknown.BAD_DIGEST, f"{place}: {error}") from None
