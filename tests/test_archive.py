"""Docker archives: read into a layout, written from one, and refused where they cannot be believed."""

import gzip
import io
import json
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from imagewright import archive
from imagewright.documents import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from imagewright.errors import Failed
from imagewright.layout import Layout
from imagewright.names import Platform, digest_of, parse_digest

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
BASE, TOOL = b"what is in the base" * 50, b"what the tool brings"
CONFIG = json.dumps(
    {
        "os": "linux",
        "architecture": "arm64",
        "variant": "v8",
        "config": {"Labels": {"b": "2"}, "Healthcheck": {"Test": ["NONE"]}},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(BASE), digest_of(TOOL), digest_of(BASE)]},
    },
    indent=1,
).encode()

Members = Mapping[str, bytes | str]
"""What a tar has, by name: a file's content, or a link's target."""

OLD: Members = {
    "0a/layer.tar": BASE,
    "0a/VERSION": b"1.0",
    "1b/layer.tar": TOOL,
    "2c/layer.tar": "../0a/layer.tar",
    "c0.json": CONFIG,
    "repositories": b"{}",
    "manifest.json": json.dumps(
        [{"Config": "c0.json", "RepoTags": None, "Layers": ["0a/layer.tar", "1b/layer.tar", "2c/layer.tar"]}]
    ).encode(),
}


def blob(content: bytes) -> str:
    return "blobs/sha256/" + digest_of(content).partition(":")[2]


def new(*layers: bytes, config: bytes = CONFIG) -> Members:
    described = {"Config": blob(config), "RepoTags": ["a/b:c"], "Layers": [blob(one) for one in layers]}
    return {
        **{blob(one): one for one in layers},
        blob(config): config,
        "index.json": b"not looked at",
        "manifest.json": json.dumps([described]).encode(),
    }


NEW = new(BASE, TOOL, BASE)


def tar(file: Path, members: Members) -> Path:
    with tarfile.open(file, "w") as packed:
        for name, content in members.items():
            add(packed, name, content)
    return file


def add(packed: tarfile.TarFile, name: str, content: bytes | str) -> None:
    member = tarfile.TarInfo(name)
    if isinstance(content, str):
        member.type, member.linkname = tarfile.SYMTYPE, content
        packed.addfile(member)
    else:
        member.size = len(content)
        packed.addfile(member, io.BytesIO(content))


def image(layout: Layout, found: Descriptor) -> tuple[dict, bytes, list[bytes]]:
    """(manifest, bytes of the configuration, unpacked layers)."""
    manifest = json.loads(layout.read(found.digest, 10**6))
    layers = [gzip.decompress(layout.read(parse_digest(one["digest"]), 10**6)) for one in manifest["layers"]]
    return manifest, layout.read(parse_digest(manifest["config"]["digest"]), 10**6), layers


@pytest.mark.parametrize("members", [OLD, NEW], ids=["as docker 20 saves", "as docker 25 saves"])
def test_an_archive_becomes_an_image_with_oci_media_types(tmp_path: Path, members: Members) -> None:
    layout = Layout.create(tmp_path / "out")
    found = archive.read(tar(tmp_path / "a.tar", members), layout)
    manifest, config, layers = image(layout, found)
    assert (found.media_type, found.platform) == (OCI_MANIFEST, Platform("linux", "arm64", "v8"))
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, OCI_MANIFEST)
    assert manifest["config"]["mediaType"] == OCI_CONFIG
    assert [one["mediaType"] for one in manifest["layers"]] == [OCI_LAYER_GZIP] * 3
    assert config == CONFIG
    assert layers == [BASE, TOOL, BASE]
    for one in (manifest["config"], *manifest["layers"]):
        assert layout.size(one["digest"]) == one["size"]
    reached = {found.digest, manifest["config"]["digest"], *(one["digest"] for one in manifest["layers"])}
    assert {f"sha256:{one.name}" for one in layout.path.glob("blobs/sha256/*")} == reached
    assert sorted(one.name for one in layout.path.iterdir()) == ["blobs", "index.json", "oci-layout"]


def test_the_same_content_makes_the_same_image_whatever_the_archives_form(tmp_path: Path) -> None:
    layouts = [Layout.create(tmp_path / name) for name in ("old", "new")]
    files = [tar(tmp_path / "old.tar", OLD), tar(tmp_path / "new.tar", NEW)]
    first, second = [archive.read(file, layout) for file, layout in zip(files, layouts)]
    assert first == second


def test_layers_that_are_gzip_stay_as_they_are(tmp_path: Path) -> None:
    packed = [gzip.compress(one, compresslevel=1) for one in (BASE, TOOL, BASE)]
    layout = Layout.create(tmp_path / "out")
    manifest, _, layers = image(layout, archive.read(tar(tmp_path / "a.tar", new(*packed)), layout))
    assert [one["digest"] for one in manifest["layers"]] == [digest_of(one) for one in packed]
    assert layers == [BASE, TOOL, BASE]


def test_an_image_without_layers_is_one(tmp_path: Path) -> None:
    config = b'{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":[]}}'
    layout = Layout.create(tmp_path / "out")
    _, content, layers = image(layout, archive.read(tar(tmp_path / "a.tar", new(config=config)), layout))
    assert (content, layers) == (config, [])


def configured(**changes: object) -> bytes:
    return json.dumps({**json.loads(CONFIG), **changes}).encode()


def described(**changes: object) -> bytes:
    (one,) = json.loads(OLD["manifest.json"])
    return json.dumps([{**one, **changes}]).encode()


BAD: Mapping[str, tuple[Members, str]] = {
    "nothing in it": ({}, "it has no file 'manifest.json'"),
    "no configuration": ({**OLD, "c0.json": "elsewhere"}, "it has no file 'c0.json'"),
    "a layer outside": ({**OLD, "2c/layer.tar": "../../../etc/passwd"}, "it has no file '2c/layer.tar'"),
    "a layer by absolute path": ({**OLD, "2c/layer.tar": "/etc/passwd"}, "it has no file '2c/layer.tar'"),
    "a link to itself": ({**OLD, "2c/layer.tar": "layer.tar"}, "it has no file '2c/layer.tar'"),
    "two images": (
        {**OLD, "manifest.json": json.dumps(json.loads(OLD["manifest.json"]) * 2).encode()},
        "its manifest.json has 2 images, not one",
    ),
    "no image": ({**OLD, "manifest.json": b"[]"}, "its manifest.json has 0 images, not one"),
    "another document": ({**OLD, "manifest.json": b"{}"}, "its manifest.json has no list of images, not one"),
    "no words": ({**OLD, "manifest.json": b"[1]"}, "its manifest.json does not name a configuration and layers"),
    "numbers for names": (
        {**OLD, "manifest.json": described(Layers=[1])},
        "its manifest.json does not name a configuration and layers",
    ),
    "not JSON": ({**OLD, "manifest.json": b"<html>"}, "not JSON: Expecting value at line 1, column 1"),
    "too long": (
        {**OLD, "manifest.json": b" " * (4 * 2**20 + 1)},
        "'manifest.json' has 4194305 bytes, at most 4194304 are read",
    ),
    "too many layers": (
        {**OLD, "manifest.json": described(Layers=["0a/layer.tar"] * 513)},
        "it has 513 layers, at most 512 are read",
    ),
    "a layer too many": ({**OLD, "manifest.json": described(Layers=["0a/layer.tar"])}, "1 layers, 3 diff ids"),
    "no diff ids": ({**OLD, "c0.json": configured(rootfs=None)}, "3 layers, 0 diff ids"),
    "a bad diff id": (
        {**OLD, "c0.json": configured(rootfs={"diff_ids": ["sha256:0", "", ""]})},
        "rootfs.diff_ids[0]: 'sha256:0' is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)",
    ),
    "another layer": (
        {**OLD, "1b/layer.tar": b"something else"},
        f"its '1b/layer.tar' is not the {digest_of(TOOL)} of the configuration",
    ),
    "gzip of another layer": (
        {**OLD, "1b/layer.tar": gzip.compress(b"something else")},
        f"its '1b/layer.tar' is not the {digest_of(TOOL)} of the configuration",
    ),
    "a layer in zstd": (
        {**OLD, "1b/layer.tar": b"\x28\xb5\x2f\xfd..."},
        "its '1b/layer.tar' is zstd; only tar and gzip are read",
    ),
    "half of a gzip": (
        {**OLD, "1b/layer.tar": gzip.compress(TOOL)[:-9]},
        "a layer's gzip is damaged: Compressed file ended before the end-of-stream marker was reached",
    ),
}


@pytest.mark.parametrize(("members", "reason"), BAD.values(), ids=BAD)
def test_an_archive_that_cannot_be_believed_is_refused_in_a_sentence(
    tmp_path: Path, members: Members, reason: str
) -> None:
    layout = Layout.create(tmp_path / "out")
    with pytest.raises(archive.BadArchive) as refused:
        archive.read(tar(tmp_path / "a.tar", members), layout)
    assert str(refused.value) == f"not a docker archive of an image: {reason}"
    assert sorted(one.name for one in layout.path.iterdir()) == ["blobs", "index.json", "oci-layout"]


def with_a_header(claims: Callable[[tarfile.TarInfo], None]) -> bytes:
    member = tarfile.TarInfo("0a/layer.tar")
    claims(member)
    return member.tobuf(tarfile.GNU_FORMAT)


def huge(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def claim(member: tarfile.TarInfo) -> None:
        member.type, member.size = kind, 2**40

    return claim


def extended(member: tarfile.TarInfo) -> None:
    member.type = tarfile.XHDTYPE


def negative(member: tarfile.TarInfo) -> None:
    member.size = -512


RAW: Mapping[str, tuple[bytes, str]] = {
    "empty": (b"", "its tar is damaged: empty file"),
    "no tar": (b"<html>" * 500, "its tar is damaged: invalid header"),
    "gzip of a tar": (gzip.compress(b"\0" * 1024, mtime=0), "its tar is damaged: truncated header"),
    "a name of a tebibyte": (with_a_header(huge(tarfile.GNUTYPE_LONGNAME)), "a header of 1099511627776 bytes"),
    "pax members of a tebibyte": (with_a_header(huge(tarfile.XHDTYPE)), "a header of 1099511627776 bytes"),
    "headers upon headers": (with_a_header(extended) * 5000, "its tar is damaged: maximum recursion depth exceeded"),
    "a size below nothing": (with_a_header(negative) + b"\0" * 1024, "'0a/layer.tar' has -512 bytes"),
}


@pytest.mark.parametrize(("content", "reason"), RAW.values(), ids=RAW)
def test_a_file_that_is_no_tar_is_refused_in_a_sentence(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "a.tar").write_bytes(content)
    with pytest.raises(archive.BadArchive) as refused:
        archive.read(tmp_path / "a.tar", Layout.create(tmp_path / "out"))
    assert reason in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_name_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        for name in ("c0.json", "./c0.json"):
            add(packed, name, CONFIG)
    with pytest.raises(archive.BadArchive, match=r"\Anot a docker archive of an image: 'c0.json' stands twice in it\Z"):
        archive.read(tmp_path / "a.tar", Layout.create(tmp_path / "out"))


def test_more_files_than_an_image_can_have_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        for number in range(4097):
            add(packed, f"{number}", b"")
    with pytest.raises(archive.BadArchive, match=r"\Anot a docker archive of an image: it has more than 4096 files\Z"):
        archive.read(tmp_path / "a.tar", Layout.create(tmp_path / "out"))


@pytest.mark.parametrize("members", [OLD, NEW], ids=["old", "new"])
def test_an_archive_that_is_cut_off_anywhere_is_refused(tmp_path: Path, members: Members) -> None:
    whole = tar(tmp_path / "a.tar", members).read_bytes()
    content = whole.rstrip(b"\0")
    layout = Layout.create(tmp_path / "out")
    for end in range(0, len(content), 211):
        (tmp_path / "a.tar").write_bytes(whole[:end])
        with pytest.raises(archive.BadArchive):
            archive.read(tmp_path / "a.tar", layout)


@given(place=st.integers(0, 9000), value=st.integers(0, 255))
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_a_changed_byte_never_makes_another_image_of_the_same_configuration(
    tmp_path: Path, place: int, value: int
) -> None:
    changed = bytearray(tar(tmp_path / "a.tar", OLD).read_bytes())
    changed[place % len(changed)] = value
    (tmp_path / "a.tar").write_bytes(changed)
    layout = Layout.create(tmp_path / "out")
    try:
        _, config, layers = image(layout, archive.read(tmp_path / "a.tar", layout))
    except archive.BadArchive:
        return
    assert [digest_of(one) for one in layers] == json.loads(config)["rootfs"]["diff_ids"]


def written(tmp_path: Path, layout: Layout, platform: Platform = ARM64, *, to: str = "written.tar") -> Path:
    archive.write(layout, platform, "registry.example/codex:1", tmp_path / to)
    return tmp_path / to


def indexed(tmp_path: Path, members: Members) -> Layout:
    layout = Layout.create(tmp_path / "layout")
    layout.write_only_index([archive.read(tar(tmp_path / "a.tar", members), layout)], {"an": "annotation"})
    return layout


@pytest.mark.parametrize("members", [OLD, NEW], ids=["old", "new"])
def test_what_is_written_is_read_as_the_same_image(tmp_path: Path, members: Members) -> None:
    layout = indexed(tmp_path, members)
    again = Layout.create(tmp_path / "again")
    found = archive.read(written(tmp_path, layout), again)
    assert image(again, found)[1:] == (CONFIG, [BASE, TOOL, BASE])
    assert layout.has(found.digest), "to the last byte"


def test_an_archive_names_its_image_and_has_each_layer_once(tmp_path: Path) -> None:
    layout = indexed(tmp_path, OLD)
    assert archive.write(layout, ARM64, "registry.example/codex:1", tmp_path / "b.tar") == digest_of(CONFIG)
    with tarfile.open(tmp_path / "b.tar") as tar_:
        (told,) = json.load(tar_.extractfile("manifest.json"))
        assert len(tar_.getnames()) == 4
    assert told["RepoTags"] == ["registry.example/codex:1"]
    assert told["Config"] == digest_of(CONFIG).removeprefix("sha256:") + ".json"
    assert told["Layers"][0] == told["Layers"][2] != told["Layers"][1]


def test_the_same_image_is_written_as_the_same_bytes(tmp_path: Path) -> None:
    layout = indexed(tmp_path, OLD)
    first, second = written(tmp_path, layout, to="1.tar"), written(tmp_path, layout, to="2.tar")
    assert first.read_bytes() == second.read_bytes()


def without_a_layer(layout: Layout) -> None:
    packed = [one for one in layout.path.glob("blobs/sha256/*") if one.read_bytes().startswith(b"\x1f\x8b")]
    packed[0].unlink()


def with_another_configuration(layout: Layout) -> None:
    layout.blob_path(digest_of(CONFIG)).write_bytes(b"{}")


def with_no_index(layout: Layout) -> None:
    layout.write_entries(())


@pytest.mark.parametrize(
    ("harm", "platform", "reason"),
    [
        (with_no_index, ARM64, "there is no image for linux/arm64"),
        (lambda _: None, AMD64, "there is no image for linux/amd64"),
        (without_a_layer, ARM64, "the layout has no content sha256:"),
        (with_another_configuration, ARM64, "the content is not what its name says"),
    ],
)
def test_what_cannot_be_written_is_told_and_leaves_no_file(
    tmp_path: Path, harm: Callable[[Layout], None], platform: Platform, reason: str
) -> None:
    layout = indexed(tmp_path, OLD)
    harm(layout)
    with pytest.raises(Failed) as failed:
        archive.write(layout, platform, "a/b:c", tmp_path / "b.tar")
    assert failed.value.reason.startswith(reason)
    assert not (tmp_path / "b.tar").exists()


@pytest.mark.parametrize("media_type", ["application/vnd.oci.image.layer.v1.tar+zstd"])
def test_a_layer_that_not_every_reader_unpacks_is_not_written(tmp_path: Path, media_type: str) -> None:
    layout = Layout.create(tmp_path / "layout")
    manifest = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": layout.add_json(json.loads(CONFIG), OCI_CONFIG),
        "layers": [layout.add_json({}, media_type)],
    }
    digest = parse_digest(str(layout.add_json(manifest, OCI_MANIFEST)["digest"]))
    entry = Descriptor(media_type=OCI_MANIFEST, digest=digest, size=layout.size(digest), platform=ARM64)
    layout.write_only_index([entry], {})
    with pytest.raises(Failed) as failed:
        archive.write(layout, ARM64, "a/b:c", tmp_path / "b.tar")
    assert str(failed.value) == f"a layer is a '{media_type}', which not everybody who loads docker archives can unpack"


def test_a_layer_that_cannot_be_kept_is_nowhere(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "out")
    layout.path.joinpath("blobs/sha256").rmdir()
    layout.path.joinpath("blobs/sha256").write_text("in the way")
    with pytest.raises(OSError, match="Not a directory"):
        archive.read(tar(tmp_path / "a.tar", OLD), layout)
    assert sorted(one.name for one in layout.path.iterdir()) == ["blobs", "index.json", "oci-layout"]
