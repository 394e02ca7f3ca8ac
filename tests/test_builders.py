"""Builders without an engine: what `copy` makes, and which builder is chosen."""

import errno
import gzip
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imagewright.builders import BuildRequest, choose, whole_or_nothing
from imagewright.builders.buildkit import BuildKit
from imagewright.builders.copy import Copy
from imagewright.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    Descriptor,
    parse_manifest,
)
from imagewright.errors import BadCatalogue, BuildFailed
from imagewright.layout import Layout, index_document
from imagewright.names import Digest, Platform, Reference, Repository, digest_of, make_repository, parse_digest

AMD64, ARM64, S390X = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "s390x")
REPOSITORY = make_repository("registry.example", "bases/fedora")
EPOCH = 1_700_000_000
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"


@dataclass
class Shelf:
    """A registry of one repository: what it serves, by digest; `types` of what are manifests."""

    content: dict[str, bytes] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)

    def keep(self, content: bytes, media_type: str) -> dict[str, object]:
        digest = digest_of(content)
        self.content[digest], self.types[digest] = content, media_type
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def keep_json(self, document: Mapping[str, object], media_type: str) -> dict[str, object]:
        return self.keep(json.dumps(document).encode(), media_type)

    def document(self, reference: Reference) -> tuple[bytes, str]:
        assert reference.repository == REPOSITORY
        return self.content[reference.to], self.types[reference.to]

    def blob(self, repository: Repository, digest: Digest, to: Path) -> None:
        assert repository == REPOSITORY
        to.write_bytes(self.content[digest])


CONFIG: Mapping[str, object] = {
    "created": "2020-01-01T00:00:00Z",
    "config": {"Env": ["PATH=/bin"], "Labels": {"vendor": "base", "both": "base"}, "Unheard": {"of": 1}},
    "history": [{"created_by": "one"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "two"}],
    "container": "kept as it is",
}


def image(
    shelf: Shelf, platform: Platform, *, config: Mapping[str, object] = CONFIG, docker: bool = False, layers: int = 2
) -> dict[str, object]:
    """An image of so many layers on the shelf; its entry for an index."""
    blobs = [gzip.compress(f"{platform} {at}".encode(), mtime=0) for at in range(layers)]
    diff_ids = [digest_of(gzip.decompress(one)) for one in blobs]
    told = {**config, "os": platform.os, "architecture": platform.architecture}
    described = told | {"rootfs": {"type": "layers", "diff_ids": diff_ids}}
    manifest = {
        "schemaVersion": 2,
        "mediaType": DOCKER_MANIFEST if docker else OCI_MANIFEST,
        "config": shelf.keep_json(described, DOCKER_CONFIG if docker else OCI_CONFIG),
        "layers": [shelf.keep(one, DOCKER_LAYER if docker else OCI_LAYER_GZIP) for one in blobs],
    }
    return shelf.keep_json(manifest, str(manifest["mediaType"])) | {"platform": members(platform)}


def members(platform: Platform) -> dict[str, str]:
    told = {"os": platform.os, "architecture": platform.architecture, "variant": platform.variant}
    return {name: value for name, value in told.items() if value}


def index(shelf: Shelf, entries: Sequence[Mapping[str, object]], media_type: str = OCI_INDEX) -> Reference:
    kept = shelf.keep_json({"schemaVersion": 2, "mediaType": media_type, "manifests": list(entries)}, media_type)
    return REPOSITORY.at(parse_digest(str(kept["digest"])))


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


@pytest.fixture
def request_(tmp_path: Path, shelf: Shelf) -> BuildRequest:
    context = tmp_path / "codex"
    (context / "rootfs/usr/bin").mkdir(parents=True)
    (context / "rootfs/usr/bin/hello").write_text("#!/bin/sh\n")
    (context / "rootfs/usr/bin/hello").chmod(0o700)
    (context / "rootfs/etc/ä").mkdir(parents=True)
    (context / "rootfs/etc/hello.conf").write_text("x" * 5)
    (context / "rootfs/usr/bin/hi").symlink_to("hello")
    return BuildRequest(
        target="codex-fedora",
        context=context,
        dockerfile=None,
        base=index(shelf, [image(shelf, ARM64), image(shelf, AMD64)]),
        platforms=(ARM64, AMD64),
        arguments={},
        labels={"both": "mine", "added": "yes"},
        annotations={"z": "last", "a": "first"},
        epoch=EPOCH,
    )


def built(shelf: Shelf, request_: BuildRequest, into: Path) -> Layout:
    Copy(shelf).build(request_, into, lambda _: None)
    return Layout(into)


def opened(layout: Layout, descriptor: Mapping[str, object]) -> dict[str, object]:
    return json.loads(layout.read(parse_digest(str(descriptor["digest"])), MAX_MANIFEST_BYTES))


def images(layout: Layout) -> Iterator[tuple[dict, dict, dict]]:
    """(entry of the index, manifest, configuration) of each platform."""
    (top,) = layout.entries()
    for entry in opened(layout, {"digest": top.digest})["manifests"]:
        manifest = opened(layout, entry)
        yield entry, manifest, opened(layout, manifest["config"])


def test_copy_makes_one_index_with_the_platforms_in_order(shelf: Shelf, request_: BuildRequest, tmp_path: Path) -> None:
    layout = built(shelf, request_, tmp_path / "out")
    (top,) = layout.entries()
    document = opened(layout, {"digest": top.digest})
    assert top.media_type == document["mediaType"] == OCI_INDEX
    assert [entry["platform"] for entry in document["manifests"]] == [members(AMD64), members(ARM64)]
    assert document["annotations"] == {"a": "first", "z": "last"}
    assert sorted(path.name for path in layout.path.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_copy_keeps_the_base_as_a_prefix_and_its_content(shelf: Shelf, request_: BuildRequest, tmp_path: Path) -> None:
    layout = built(shelf, request_, tmp_path / "out")
    for entry, manifest, config in images(layout):
        platform = f"linux/{entry['platform']['architecture']}"
        *before, added = config["rootfs"]["diff_ids"]
        assert before == [digest_of(f"{platform} {at}".encode()) for at in range(2)]
        assert [one["mediaType"] for one in manifest["layers"]] == [OCI_LAYER_GZIP] * 3
        for layer, diff_id in zip(manifest["layers"], [*before, added], strict=True):
            content = layout.read(parse_digest(layer["digest"]), layer["size"])
            assert digest_of(gzip.decompress(content)) == diff_id


def test_copy_extends_the_configuration_and_keeps_what_it_does_not_know(
    shelf: Shelf, request_: BuildRequest, tmp_path: Path
) -> None:
    for _, _, config in images(built(shelf, request_, tmp_path / "out")):
        del config["rootfs"], config["architecture"]
        assert config == {
            "created": "2023-11-14T22:13:20Z",
            "os": "linux",
            "config": {
                "Env": ["PATH=/bin"],
                "Labels": {"vendor": "base", "both": "mine", "added": "yes"},
                "Unheard": {"of": 1},
            },
            "history": [
                {"created_by": "one"},
                {"created_by": "ENV", "empty_layer": True},
                {"created_by": "two"},
                {"created": "2023-11-14T22:13:20Z", "created_by": "imagewright copy rootfs"},
            ],
            "container": "kept as it is",
        }


def test_the_layer_of_copy_has_what_is_in_rootfs_and_no_folder_that_could_hide_the_bases(
    shelf: Shelf, request_: BuildRequest, tmp_path: Path
) -> None:
    layout = built(shelf, request_, tmp_path / "out")
    _, manifest, _ = next(images(layout))
    layer = manifest["layers"][-1]
    with tarfile.open(fileobj=io.BytesIO(layout.read(parse_digest(layer["digest"]), layer["size"]))) as tar:
        found = [(one.name, oct(one.mode), one.uid, one.gid, one.uname, one.mtime, one.linkname) for one in tar]
    assert found == [
        ("etc/hello.conf", "0o644", 0, 0, "", EPOCH, ""),
        ("etc/ä", "0o755", 0, 0, "", EPOCH, ""),
        ("usr/bin/hello", "0o755", 0, 0, "", EPOCH, ""),
        ("usr/bin/hi", "0o777", 0, 0, "", EPOCH, "hello"),
    ]


def test_copy_makes_the_same_image_of_the_same_input(shelf: Shelf, request_: BuildRequest, tmp_path: Path) -> None:
    first = built(shelf, request_, tmp_path / "first").entries()
    for path in request_.context.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)
    (request_.context / "rootfs/etc/hello.conf").chmod(0o600)
    assert built(shelf, request_, tmp_path / "second").entries() == first
    (request_.context / "rootfs/etc/hello.conf").chmod(0o700)
    assert built(shelf, request_, tmp_path / "third").entries() != first


def test_copy_turns_dockers_media_types_into_ocis(shelf: Shelf, request_: BuildRequest, tmp_path: Path) -> None:
    entries = [image(shelf, AMD64, docker=True), image(shelf, ARM64, docker=True)]
    request_ = replace(request_, base=index(shelf, entries, DOCKER_LIST))
    for entry, manifest, _ in images(built(shelf, request_, tmp_path / "out")):
        assert entry["mediaType"] == manifest["mediaType"] == OCI_MANIFEST
        assert manifest["config"]["mediaType"] == OCI_CONFIG
        assert {layer["mediaType"] for layer in manifest["layers"]} == {OCI_LAYER_GZIP}


def test_copy_takes_a_base_of_one_platform_and_of_no_layer(
    shelf: Shelf, request_: BuildRequest, tmp_path: Path
) -> None:
    bare = {"config": {}}
    base = REPOSITORY.at(parse_digest(str(image(shelf, AMD64, config=bare, layers=0)["digest"])))
    ((entry, manifest, config),) = images(
        built(shelf, replace(request_, base=base, platforms=(AMD64,)), tmp_path / "out")
    )
    assert entry["platform"] == members(AMD64)
    assert len(manifest["layers"]) == len(config["history"]) == 1


def test_copy_tells_no_story_where_the_base_tells_none(shelf: Shelf, request_: BuildRequest, tmp_path: Path) -> None:
    base = index(shelf, [image(shelf, AMD64, config={"config": None})])
    ((_, _, config),) = images(built(shelf, replace(request_, base=base, platforms=(AMD64,)), tmp_path / "out"))
    assert "history" not in config
    assert config["config"] == {"Labels": {"added": "yes", "both": "mine"}}


def test_copy_passes_over_attestations_and_nested_indexes(shelf: Shelf, request_: BuildRequest, tmp_path: Path) -> None:
    real = image(shelf, AMD64)
    attestation = image(shelf, AMD64, config={}) | {
        "platform": {"os": "unknown", "architecture": "unknown"},
        "annotations": {"vnd.docker.reference.type": "attestation-manifest"},
    }
    nested = {"mediaType": OCI_INDEX, "digest": digest_of(b"x"), "size": 1, "platform": members(ARM64)}
    base = index(shelf, [attestation, nested, real])
    layout = built(shelf, replace(request_, base=base, platforms=(AMD64,)), tmp_path / "out")
    assert len(list(images(layout))) == 1


def lacking(shelf: Shelf, one: BuildRequest) -> BuildRequest:
    return replace(one, platforms=(AMD64, S390X))


def lying(shelf: Shelf, one: BuildRequest) -> BuildRequest:
    shelf.content[one.base.to] += b" "
    return one


def with_a_bad_layer(shelf: Shelf, one: BuildRequest) -> BuildRequest:
    first = image(shelf, AMD64)
    layer = json.loads(shelf.content[str(first["digest"])])["layers"][0]
    shelf.content[layer["digest"]] = b"something else"
    return one


def with_a_foreign_layer(shelf: Shelf, one: BuildRequest) -> BuildRequest:
    first = image(shelf, AMD64)
    manifest = json.loads(shelf.content[str(first["digest"])])
    manifest["layers"][0]["mediaType"] = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
    entry = shelf.keep_json(manifest, OCI_MANIFEST) | {"platform": members(AMD64)}
    return replace(one, base=index(shelf, [entry]), platforms=(AMD64,))


def without_diff_ids(shelf: Shelf, one: BuildRequest) -> BuildRequest:
    first = image(shelf, AMD64)
    manifest = json.loads(shelf.content[str(first["digest"])])
    manifest["config"] = shelf.keep_json({"os": "linux", "architecture": "amd64"}, OCI_CONFIG)
    entry = shelf.keep_json(manifest, OCI_MANIFEST) | {"platform": members(AMD64)}
    return replace(one, base=index(shelf, [entry]), platforms=(AMD64,))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lacking, "codex-fedora: the base {base} lacks linux/s390x; it has linux/amd64, linux/arm64"),
        (lying, "codex-fedora: what was served as {base} is something else"),
        (with_a_bad_layer, "what was served as registry.example/bases/fedora@sha256:"),
        (
            with_a_foreign_layer,
            "is a 'application/vnd.docker.image.rootfs.foreign.diff.tar.gzip', which cannot be copied",
        ),
        (without_diff_ids, "does not have one diff id for each layer"),
    ],
)
def test_copy_refuses_a_base_it_cannot_take_and_leaves_nothing(
    shelf: Shelf,
    request_: BuildRequest,
    tmp_path: Path,
    spoil: Callable[[Shelf, BuildRequest], BuildRequest],
    message: str,
) -> None:
    request_ = spoil(shelf, request_)
    (tmp_path / "images").mkdir()
    with pytest.raises(BuildFailed) as refused:
        built(shelf, request_, tmp_path / "images/out")
    assert message.format(base=request_.base) in str(refused.value)
    assert list((tmp_path / "images").iterdir()) == []


def test_copy_refuses_an_empty_rootfs(shelf: Shelf, request_: BuildRequest, tmp_path: Path) -> None:
    (tmp_path / "other/rootfs").mkdir(parents=True)
    with pytest.raises(BadCatalogue, match="the builder copy needs files here"):
        built(shelf, replace(request_, context=tmp_path / "other"), tmp_path / "out")


def test_an_index_is_the_same_bytes_whatever_the_order_of_its_children() -> None:
    children = [
        Descriptor(media_type=OCI_MANIFEST, digest=digest_of(str(one).encode()), size=1, platform=one)
        for one in (ARM64, Platform("linux", "arm", "v7"), AMD64)
    ]
    content = index_document(children, {"b": "2", "a": "1"})
    assert content == index_document(reversed(children), {"a": "1", "b": "2"})
    assert [str(one.platform) for one in parse_manifest(content, OCI_INDEX).entries] == [
        "linux/amd64",
        "linux/arm/v7",
        "linux/arm64",
    ]


@pytest.mark.parametrize("platforms", [(), (AMD64, AMD64), (ARM64, Platform("linux", "arm64", "v8")), (AMD64, None)])
def test_an_index_of_nothing_or_of_twins_is_refused(platforms: tuple[Platform | None, ...]) -> None:
    children = [Descriptor(media_type=OCI_MANIFEST, digest=digest_of(b""), size=0, platform=one) for one in platforms]
    with pytest.raises(ValueError, match="an index needs images with a platform each, no two with the same"):
        index_document(children, {})


def test_the_first_able_builder_is_chosen(shelf: Shelf, request_: BuildRequest) -> None:
    copy, buildkit = Copy(shelf), BuildKit("unix:///nowhere", {"PATH": ""})
    assert choose("auto", [buildkit, copy], request_).builder is copy
    assert choose("copy", [buildkit, copy], request_).builder is copy


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "auto",
            """codex-fedora: no builder can build this
    buildkit: buildctl is not installed
    copy: there is no folder rootfs/
  `imagewright doctor` says more.""",
        ),
        (
            "buildkit",
            """codex-fedora: no builder can build this
    buildkit: buildctl is not installed
  `imagewright doctor` says more.""",
        ),
        (
            "kaniko",
            """codex-fedora: there is no builder kaniko; there are auto, buildkit, copy
  Set `builder` in the settings.""",
        ),
    ],
)
def test_why_no_builder_can_build(
    shelf: Shelf, request_: BuildRequest, tmp_path: Path, name: str, message: str
) -> None:
    unbuildable = replace(request_, context=tmp_path, dockerfile=tmp_path / "Dockerfile")
    with pytest.raises(BuildFailed) as refused:
        choose(name, [BuildKit("unix:///nowhere", {"PATH": ""}), Copy(shelf)], unbuildable)
    assert str(refused.value) == message


def test_a_build_never_adds_to_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BuildFailed, match="the folder for the image is not empty"):
        with whole_or_nothing(tmp_path, "codex-fedora"):
            pass


def test_a_full_disk_fails_a_build_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed) as failed:
        with whole_or_nothing(tmp_path / "out", "codex-fedora") as folder:
            (folder / "half").touch()
            raise OSError(errno.ENOSPC, "No space left on device")
    assert str(failed.value) == (
        f"{tmp_path}/out: codex-fedora: there is no room for the image\n  Make room on that disk."
    )
    assert list(tmp_path.iterdir()) == []
