"""What BuildKit is told, what becomes of what it exported, and what its progress says to a person; without BuildKit."""

import base64
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imagewright.builders import BuildRequest
from imagewright.builders.exports import attestations, cache_export, cache_import, normalise, source_policy
from imagewright.builders.progress import Story
from imagewright.documents import OCI_INDEX, OCI_MANIFEST, Descriptor
from imagewright.errors import BuildFailed
from imagewright.layout import Layout, index_document
from imagewright.names import Digest, Platform, digest_of, parse_reference
from imagewright.settings import Cache

AMD64, ARM64, UNKNOWN = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("unknown", "unknown")
REQUEST = BuildRequest(
    target="codex-fedora",
    context=Path("/project/tools/codex"),
    dockerfile=Path("/project/tools/codex/Dockerfile"),
    base=parse_reference(f"registry.example/bases/fedora@sha256:{'5' * 64}"),
    platforms=(AMD64, ARM64),
    arguments={},
    labels={},
    annotations={"a": "b"},
    epoch=0,
)


def test_the_base_takes_the_place_of_the_words_by_a_source_policy() -> None:
    assert json.loads(source_policy(replace(REQUEST, stands_for="fedora"))) == {
        "version": 1,
        "rules": [
            {
                "action": "CONVERT",
                "selector": {"identifier": "docker-image://docker.io/library/fedora:latest"},
                "updates": {"identifier": f"docker-image://registry.example/bases/fedora@sha256:{'5' * 64}"},
            }
        ],
    }


@pytest.mark.parametrize(
    ("kind", "attributes", "read", "written"),
    [
        (
            "local",
            {"dir": "/a, b"},
            'type=local,"src=/a, b"',
            'type=local,"dest=/a, b",mode=max,ignore-error=true',
        ),
        (
            "registry",
            {"ref": "r.example/cache:codex"},
            "type=registry,ref=r.example/cache:codex",
            "type=registry,mode=max,ignore-error=true,image-manifest=true,oci-mediatypes=true,ref=r.example/cache:codex",
        ),
        (
            "s3",
            {"bucket": "b", "region": "r", "mode": "min"},
            "type=s3,bucket=b,region=r,mode=min",
            "type=s3,mode=min,ignore-error=true,bucket=b,region=r",
        ),
    ],
)
def test_a_cache_is_read_and_written(kind: str, attributes: Mapping[str, str], read: str, written: str) -> None:
    cache = Cache(kind=kind, attributes=attributes)
    assert (cache_import(cache), cache_export(cache)) == (read, written)


@pytest.mark.parametrize(
    ("sbom", "provenance", "options"),
    [
        ("", False, {}),
        ("", True, {"attest:provenance": "mode=max"}),
        ("r.example/scanner:1", False, {"attest:sbom": "generator=r.example/scanner:1"}),
    ],
)
def test_attestations_are_made_where_they_are_asked_for(
    sbom: str, provenance: bool, options: Mapping[str, str]
) -> None:
    assert attestations(replace(REQUEST, sbom=sbom, provenance=provenance)) == options


def image(platform: Platform) -> Descriptor:
    return Descriptor(media_type=OCI_MANIFEST, digest=digest_of(str(platform).encode()), size=7, platform=platform)


def about(digest: Digest, text: str) -> Descriptor:
    said = {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest}
    made = digest_of(text.encode())
    return Descriptor(media_type=OCI_MANIFEST, digest=made, size=9, platform=UNKNOWN, annotations=said)


def test_attestations_follow_the_platforms_in_their_order() -> None:
    amd64, arm64 = image(AMD64), image(ARM64)
    on_amd64, on_arm64 = about(amd64.digest, "z"), about(arm64.digest, "a")
    content = index_document([on_arm64, arm64, on_amd64, amd64], {})
    assert content == index_document([amd64, on_amd64, arm64, on_arm64], {})
    document = json.loads(content)
    assert [one["digest"] for one in document["manifests"]] == [
        amd64.digest,
        arm64.digest,
        on_amd64.digest,
        on_arm64.digest,
    ]
    assert document["manifests"][2] == {
        "mediaType": OCI_MANIFEST,
        "digest": on_amd64.digest,
        "size": 9,
        "annotations": {
            "vnd.docker.reference.digest": amd64.digest,
            "vnd.docker.reference.type": "attestation-manifest",
        },
        "platform": {"architecture": "unknown", "os": "unknown"},
    }


def test_an_attestation_of_something_else_is_refused() -> None:
    stray = about(digest_of(b"something else"), "stray")
    with pytest.raises(ValueError, match=f"the attestation {stray.digest} describes no image of its index"):
        index_document([image(AMD64), stray], {})


def exported(folder: Path, *children: Descriptor) -> Layout:
    """A layout as BuildKit writes it: an index without annotations."""
    layout = Layout.create(folder)
    entries = [
        {
            "mediaType": one.media_type,
            "digest": one.digest,
            "size": one.size,
            "annotations": dict(one.annotations),
            "platform": {"os": one.platform.os, "architecture": one.platform.architecture} if one.platform else None,
        }
        for one in children
    ]
    top = layout.add_json({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}, OCI_INDEX)
    layout.write_entries([top])
    return layout


@pytest.mark.parametrize(("provenance", "count"), [(True, 4), (False, 2)])
def test_attestations_are_kept_where_they_are_asked_for(tmp_path: Path, provenance: bool, count: int) -> None:
    amd64, arm64 = image(AMD64), image(ARM64)
    layout = exported(tmp_path, arm64, amd64, about(amd64.digest, "z"), about(arm64.digest, "a"))
    normalise(layout, replace(REQUEST, provenance=provenance))
    (top,) = layout.entries()
    document = json.loads(layout.read(top.digest, 9999))
    assert [one["platform"]["architecture"] for one in document["manifests"][:2]] == ["amd64", "arm64"]
    assert (len(document["manifests"]), document["annotations"]) == (count, {"a": "b"})


@pytest.mark.parametrize(
    ("children", "message"),
    [
        ([image(AMD64)], "codex-fedora: BuildKit made linux/amd64, which is not what was asked for"),
        ([], "codex-fedora: BuildKit made nothing, which is not what was asked for"),
    ],
)
def test_other_platforms_than_were_asked_for_are_refused(
    tmp_path: Path, children: list[Descriptor], message: str
) -> None:
    with pytest.raises(BuildFailed) as failed:
        normalise(exported(tmp_path, *children), REQUEST)
    assert str(failed.value) == message


def vertex(name: str, **members: str) -> str:
    return json.dumps({"vertexes": [{"digest": f"sha256:{name}", "name": name, **members}]})


NOW = "2026-01-01T00:00:00Z"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (vertex("[1/2] FROM fedora"), []),
        (vertex("[1/2] FROM fedora", started=NOW), ["[1/2] FROM fedora"]),
        (vertex("[internal] load build context", started=NOW), []),
        (
            vertex("importing cache manifest from r.example/cache", error="r.example/cache: not found"),
            ["the build cache was not read: r.example/cache: not found"],
        ),
        (
            vertex("importing cache manifest from r.example/cache", error="connection refused"),
            ["note: the build cache was not read: connection refused"],
        ),
        (
            vertex("exporting cache to registry", error="denied\x1b[31m"),
            ["note: the build cache was not written: denied"],
        ),
        ("time=now level=warning msg=text", ["time=now level=warning msg=text"]),
        ("[1, 2]", ["[1, 2]"]),
    ],
)
def test_progress_becomes_lines_for_a_log_and_notes_for_a_person(line: str, told: list[str]) -> None:
    lines: list[str] = []
    Story(lines.append, "buildctl").read(line)
    assert lines == told


@pytest.mark.parametrize(
    "line", [vertex("[1/2] FROM fedora", started=NOW), vertex("exporting cache to registry", error="denied")]
)
def test_what_progress_repeats_is_told_once(line: str) -> None:
    lines: list[str] = []
    story = Story(lines.append, "buildctl")
    story.read(line)
    story.read(line)
    assert len(lines) == 1


def test_a_failure_without_a_word_is_told_with_its_status() -> None:
    assert str(Story(print, "buildctl").failure(REQUEST, -9)) == "codex-fedora: buildctl ended with status -9"


def test_only_so_many_lines_of_a_step_are_kept() -> None:
    story = Story(lambda _: None, "buildctl", kept=2)
    data = base64.b64encode(b"one\ntwo\nthree\nfour").decode()
    story.read(json.dumps({"logs": [{"vertex": "sha256:1", "data": data}]}))
    assert story.output() == ("three", "four")
