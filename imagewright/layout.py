"""An OCI image layout: a folder of blobs by digest and an `index.json`. What builders deliver and the registry keeps.

Written so that a reader never sees half a file: each is written beside its place, flushed and renamed.
https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from imagewright.documents import ATTESTED, OCI_INDEX, BadDocument, Descriptor, parse_layout_index
from imagewright.errors import Failed
from imagewright.files import write_atomically
from imagewright.names import Digest, Platform, digest_algorithm, digest_of, parse_digest

REF_NAME = "org.opencontainers.image.ref.name"

UNKNOWN = Platform("unknown", "unknown")
"""The platform of what describes an image: https://docs.docker.com/build/metadata/attestations/attestation-storage/"""


class Layout:
    """A layout on disk. `Layout(path)` opens what is there; `Layout.create(path)` makes an empty one where none is."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path) -> "Layout":
        """An empty layout at `path`, or the one that is there already."""
        (path / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        layout = cls(path)
        if not (path / "index.json").exists():
            layout.write_entries(())
        if not (path / "oci-layout").exists():
            write_atomically(path / "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        return layout

    def blob_path(self, digest: Digest) -> Path:
        """Where the content of `digest` is, or would be."""
        algorithm, _, encoded = digest.partition(":")
        return self.path / "blobs" / algorithm / encoded

    def has(self, digest: Digest) -> bool:
        """Whether the content is here."""
        return self.blob_path(digest).is_file()

    def size(self, digest: Digest) -> int:
        """Bytes of the content of `digest`."""
        return self.blob_path(digest).stat().st_size

    def read(self, digest: Digest, limit: int) -> bytes:
        """The content, at most `limit` bytes, hashed against its name. `Failed` if absent, larger or damaged."""
        path = self.blob_path(digest)
        try:
            with path.open("rb") as file:
                content = file.read(limit + 1)
        except FileNotFoundError:
            raise Failed(f"the layout has no content {digest}", where=str(self.path)) from None
        if len(content) > limit:
            raise Failed(f"the content {digest} has more than {limit} bytes", where=str(path))
        if digest_of(content, digest_algorithm(digest)) != digest:
            raise Failed(
                "the content is not what its name says", remedy="Remove the layout and build again.", where=str(path)
            )
        return content

    def add(self, content: bytes, algorithm: str = "sha256") -> Digest:
        """Keeps `content`; its digest."""
        digest = digest_of(content, algorithm)
        if not self.has(digest):
            self.blob_path(digest).parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self.blob_path(digest), content)
        return digest

    def add_json(self, document: Mapping[str, object], media_type: str) -> dict[str, object]:
        """Keeps a JSON document; the members of its descriptor."""
        content = to_json(document)
        return {"mediaType": media_type, "digest": self.add(content), "size": len(content)}

    def entries(self) -> tuple[Descriptor, ...]:
        """What `index.json` names, in order. `Failed` where it is absent or broken."""
        path = self.path / "index.json"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            raise Failed("not an OCI image layout: it has no index.json", where=str(self.path)) from None
        try:
            return parse_layout_index(content)
        except BadDocument as error:
            raise Failed(f"index.json is not an index: {error}", where=str(path)) from None

    def write_entries(self, entries: Iterable[Mapping[str, object]]) -> os.stat_result:
        """Replaces what `index.json` names; each entry as the members of its descriptor. The new file's stat."""
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
        return write_atomically(self.path / "index.json", to_json(document))

    def write_only_index(self, children: Iterable[Descriptor], annotations: Mapping[str, str]) -> Digest:
        """Joins the children to an index (see `index_document`) and names it alone in `index.json`; its digest."""
        content = index_document(children, annotations)
        digest = self.add(content)
        self.write_entries([{"mediaType": OCI_INDEX, "digest": digest, "size": len(content)}])
        return digest


def index_document(children: Iterable[Descriptor], annotations: Mapping[str, str]) -> bytes:
    """An OCI index of images, one per platform, in the platforms' order: the same bytes for the same children.

    After the images come the attestations among the children, in the order of the images that they describe, with their
    annotations. Of an image only media type, digest, size and platform go into it. ValueError where there is no image,
    one has no platform, two have the same, or an attestation describes none of them.
    """
    listed = list(children)
    images = [child for child in listed if not child.is_attestation]
    named = {child.platform.normalised(): child for child in images if child.platform}
    if not named or len(named) != len(images):
        raise ValueError("an index needs images with a platform each, no two with the same")
    places = {child.digest: place for place, (_, child) in enumerate(sorted(named.items()))}
    said = [child for child in listed if child.is_attestation]
    if strange := [child.digest for child in said if child.annotations.get(ATTESTED) not in places]:
        raise ValueError(f"the attestation {strange[0]} describes no image of its index")
    document: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": OCI_INDEX,
        "manifests": [
            *(_members(child) | {"platform": platform_members(platform)} for platform, child in sorted(named.items())),
            *(
                _members(child)
                | {"annotations": dict(sorted(child.annotations.items())), "platform": platform_members(UNKNOWN)}
                for child in sorted(said, key=lambda one: (places[parse_digest(one.annotations[ATTESTED])], one.digest))
            ),
        ],
    }
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return to_json(document)


def _members(child: Descriptor) -> dict[str, object]:
    return {"mediaType": child.media_type, "digest": child.digest, "size": child.size}


def platform_members(platform: Platform) -> dict[str, str]:
    """A platform as JSON members."""
    members = {
        "architecture": platform.architecture,
        "os": platform.os,
        "os.version": platform.os_version,
        "variant": platform.variant,
    }
    return {name: value for name, value in members.items() if value}


def to_json(document: Mapping[str, object]) -> bytes:
    """A document as bytes, without spare blanks, in the order of its members."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
