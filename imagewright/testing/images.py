"""Tiny images, made in memory and pushed to any registry, bit for bit the same each time."""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import requests

from imagewright.documents import OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from imagewright.embedded.store import Store
from imagewright.layout import Layout
from imagewright.names import Digest, Platform, digest_of, parse_platform, parse_tag

CREATED = "2026-01-01T00:00:00Z"


@dataclass(frozen=True, slots=True)
class Layer:
    """A gzipped tar and the digest of what is in it."""

    blob: bytes
    diff_id: Digest

    @property
    def digest(self) -> Digest:
        """The digest of the gzipped bytes."""
        return digest_of(self.blob)


def layer(files: Mapping[str, bytes | str], level: int = 9) -> Layer:
    """A layer of plain files by path. level: of compression; another one changes the blob and not the diff id."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for path, content in sorted(files.items()):
            member = tarfile.TarInfo(path)
            data = content.encode() if isinstance(content, str) else content
            member.size, member.mode = len(data), 0o755
            tar.addfile(member, io.BytesIO(data))
    return Layer(gzip.compress(raw.getvalue(), level, mtime=0), digest_of(raw.getvalue()))


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One platform's image. steps: what made it, in order: layers, and commands that made none, such as `ENV A=1`."""

    steps: Sequence[Layer | str]
    labels: Mapping[str, str] = field(default_factory=dict)
    env: Sequence[str] = ("PATH=/usr/local/bin:/usr/bin:/bin",)

    @property
    def layers(self) -> list[Layer]:
        """The layers, the lowest first."""
        return [one for one in self.steps if isinstance(one, Layer)]

    def on_top(self, *steps: Layer | str, labels: Mapping[str, str] | None = None) -> "Picture":
        """An image built on this one."""
        return Picture(steps=(*self.steps, *steps), labels={**self.labels, **(labels or {})}, env=self.env)


class Sink(Protocol):
    """Where images are pushed to."""

    def blob(self, repository: str, content: bytes) -> None:
        """Keeps a blob."""

    def manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> None:
        """Keeps a manifest under a tag or digest."""


class StoreSink:
    """Straight into the folder of an embedded registry."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def blob(self, repository: str, content: bytes) -> None:
        """Keeps a blob."""
        Layout.create(self._store.root / repository.replace("/", "+")).add(content)

    def manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> None:
        """Keeps a manifest under a tag or digest."""
        place = self._store.place(repository)
        place.put(Digest(reference) if ":" in reference else parse_tag(reference), media_type, body)


class HttpSink:
    """Over HTTP into any registry that asks for no login. address: `host:port`."""

    def __init__(self, address: str) -> None:
        self._root = f"http://{address}/v2"
        self._session = requests.Session()
        self._session.trust_env = False

    def blob(self, repository: str, content: bytes) -> None:
        """Keeps a blob."""
        started = self._session.post(f"{self._root}/{repository}/blobs/uploads/")
        started.raise_for_status()
        location = requests.compat.urljoin(started.url, started.headers["Location"])
        joint = "&" if "?" in location else "?"
        self._session.put(
            f"{location}{joint}digest={digest_of(content)}",
            data=content,
            headers={"Content-Type": "application/octet-stream"},
        ).raise_for_status()

    def manifest(self, repository: str, reference: str, media_type: str, body: bytes) -> None:
        """Keeps a manifest under a tag or digest."""
        url = f"{self._root}/{repository}/manifests/{reference}"
        self._session.put(url, data=body, headers={"Content-Type": media_type}).raise_for_status()

    def children(self, repository: str, tag: str) -> dict[str, str]:
        """Platform → digest, as the index under a tag says."""
        answer = self._session.get(f"{self._root}/{repository}/manifests/{tag}", headers={"Accept": OCI_INDEX})
        answer.raise_for_status()
        entries = answer.json()["manifests"]
        return {
            str(Platform(one["platform"]["os"], one["platform"]["architecture"]).normalised()): one["digest"]
            for one in entries
        }

    def delete(self, repository: str, digest: str) -> None:
        """Deletes a manifest by its digest."""
        self._session.delete(f"{self._root}/{repository}/manifests/{digest}").raise_for_status()


def push(
    sink: Sink,
    repository: str,
    tags: Sequence[str],
    pictures: Mapping[str, Picture],
    annotations: Mapping[str, str] | None = None,
) -> Digest:
    """Publishes an index with an image per platform (`linux/amd64` → picture) under each tag; its digest."""
    entries = []
    for name, picture in pictures.items():
        platform = parse_platform(name)
        members = {"os": platform.os, "architecture": platform.architecture}
        if platform.variant:
            members["variant"] = platform.variant
        entries.append({**push_manifest(sink, repository, members, picture), "platform": members})
    document: dict[str, Any] = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}
    if annotations:
        document["annotations"] = dict(annotations)
    body = json.dumps(document).encode()
    for tag in tags:
        sink.manifest(repository, tag, OCI_INDEX, body)
    return digest_of(body)


def push_manifest(
    sink: Sink, repository: str, platform: Mapping[str, str], picture: Picture, tag: str = ""
) -> dict[str, Any]:
    """Publishes one platform's image, by digest unless `tag` is given; the members of its descriptor."""
    config = {
        "created": CREATED,
        **platform,
        "config": {"Env": list(picture.env), "Labels": dict(picture.labels)},
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in picture.layers]},
        "history": [
            {"created": CREATED, "created_by": f"COPY . /  # step {at}"}
            if isinstance(step, Layer)
            else {"created": CREATED, "created_by": step, "empty_layer": True}
            for at, step in enumerate(picture.steps)
        ],
    }
    config_bytes = json.dumps(config).encode()
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(config_bytes), "size": len(config_bytes)},
        "layers": [
            {"mediaType": OCI_LAYER_GZIP, "digest": one.digest, "size": len(one.blob)} for one in picture.layers
        ],
    }
    body = json.dumps(manifest).encode()
    sink.blob(repository, config_bytes)
    for one in picture.layers:
        sink.blob(repository, one.blob)
    sink.manifest(repository, tag or digest_of(body), OCI_MANIFEST, body)
    return {"mediaType": OCI_MANIFEST, "digest": digest_of(body), "size": len(body)}
