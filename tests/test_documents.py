"""Bytes of registry documents: what is read from them, what is refused, and why. Real ones lie beside the clone."""

import hashlib
import json
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    OCI_ARTIFACT,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_MANIFEST,
    BadDocument,
    Config,
    Descriptor,
    HistoryEntry,
    Index,
    Manifest,
    load_json,
    parse_config,
    parse_layout_index,
    parse_manifest,
    parse_tags,
)
from imagewright.names import Platform, digest_of, parse_platform

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"


def descriptor(digest=A, media_type=OCI_MANIFEST, size=7, **members):
    return {"mediaType": media_type, "digest": digest, "size": size, **members}


def manifest(**members):
    return {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": descriptor(A, OCI_CONFIG),
        "layers": [descriptor(B, LAYER)],
    } | members


def index(*entries, **members):
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)} | members


def encoded(document):
    return document if isinstance(document, bytes) else json.dumps(document).encode()


def refusal(parse, document, *more):
    with pytest.raises(BadDocument) as caught:
        parse(encoded(document), *more)
    return caught.value.reason.code, caught.value.detail


def without(document, *names):
    return {name: value for name, value in document.items() if name not in names}


def test_a_manifest_is_read_with_all_that_is_judged_later():
    document = manifest(
        annotations={"a": "b"}, artifactType="x/y", subject=descriptor(C), unheard_of={"members": ["are", "allowed"]}
    )
    assert parse_manifest(encoded(document)) == Manifest(
        media_type=OCI_MANIFEST,
        config=Descriptor(media_type=OCI_CONFIG, digest=A, size=7),
        layers=(Descriptor(media_type=LAYER, digest=B, size=7),),
        annotations={"a": "b"},
        artifact_type="x/y",
        subject=C,
    )


def test_an_index_is_read_in_document_order_with_platforms_as_they_stand_there():
    document = index(
        descriptor(A, platform={"os": "linux", "architecture": "arm64", "variant": "v8"}),
        descriptor(B, platform={"os": "windows", "architecture": "amd64", "os.version": "10.0.1", "os.features": []}),
        descriptor(C, artifactType="a/b", urls=["https://example.com/x"]),
        annotations={"x": "y"},
    )
    assert parse_manifest(encoded(document)) == Index(
        media_type=OCI_INDEX,
        entries=(
            Descriptor(media_type=OCI_MANIFEST, digest=A, size=7, platform=Platform("linux", "arm64", "v8")),
            Descriptor(media_type=OCI_MANIFEST, digest=B, size=7, platform=Platform("windows", "amd64", "", "10.0.1")),
            Descriptor(media_type=OCI_MANIFEST, digest=C, size=7, artifact_type="a/b", urls=("https://example.com/x",)),
        ),
        annotations={"x": "y"},
    )


@pytest.mark.parametrize(
    ("document", "served_as", "media_type"),
    [
        (manifest(mediaType=DOCKER_MANIFEST), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (without(manifest(), "mediaType"), DOCKER_MANIFEST, DOCKER_MANIFEST),
        (without(manifest(), "mediaType"), "", OCI_MANIFEST),
        (without(manifest(), "mediaType"), "application/octet-stream", OCI_MANIFEST),
        (manifest(), "text/plain", OCI_MANIFEST),
        (manifest(), f"{OCI_MANIFEST}; charset=utf-8", OCI_MANIFEST),
        (without(index(), "mediaType"), "", OCI_INDEX),
        (without(index(), "mediaType"), DOCKER_LIST, DOCKER_LIST),
        (index(mediaType=DOCKER_LIST), "", DOCKER_LIST),
        ({"mediaType": OCI_ARTIFACT, "blobs": [], "artifactType": "a/b"}, "", OCI_ARTIFACT),
    ],
)
def test_the_media_type_is_the_documents_own_or_else_what_it_was_served_as(document, served_as, media_type):
    assert parse_manifest(encoded(document), served_as).media_type == media_type


NOT_ITS_OWN = "its members are not those of "


@pytest.mark.parametrize(
    ("document", "served_as", "detail"),
    [
        (manifest(manifests=[]), "", "the document is an index and a manifest at once"),
        (index(config=descriptor()), "", "the document is an index and a manifest at once"),
        (index(layers=[]), OCI_INDEX, "the document is an index and a manifest at once"),
        (index(fsLayers=[]), OCI_INDEX, "the document is an index and a manifest at once"),
        (index(blobs=None), OCI_INDEX, "the document is an index and a manifest at once"),
        (manifest(), OCI_INDEX, f"served as {OCI_INDEX}, but calls itself {OCI_MANIFEST}"),
        (manifest(), DOCKER_MANIFEST, f"served as {DOCKER_MANIFEST}, but calls itself {OCI_MANIFEST}"),
        (manifest(mediaType=OCI_INDEX), "", NOT_ITS_OWN + OCI_INDEX),
        (index(mediaType=OCI_MANIFEST), "", NOT_ITS_OWN + OCI_MANIFEST),
        (without(manifest(), "mediaType"), OCI_INDEX, NOT_ITS_OWN + OCI_INDEX),
        ({"schemaVersion": 2}, "", NOT_ITS_OWN + OCI_MANIFEST),
        ({}, "", NOT_ITS_OWN + OCI_MANIFEST),
    ],
)
def test_a_document_that_can_be_read_in_two_ways_is_not_read(document, served_as, detail):
    assert refusal(parse_manifest, document, served_as) == ("type-confusion", detail)


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b'{"a":1,"a":1}', "the member 'a' stands twice"),
        (b'{"x":[{"b":1,"\\u0062":2}]}', "the member 'b' stands twice"),
        (b'{"a":NaN}', "NaN is not JSON"),
        (b'{"a":-Infinity}', "-Infinity is not JSON"),
        (b"\xef\xbb\xbf{}", "it begins with a byte order mark"),
        (b"{}{}", "not JSON: Extra data at line 1, column 3"),
        (b"{}\0", "not JSON: Extra data at line 1, column 3"),
        (b'{"a":"\xff"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xc0\xaf"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xed\xa0\x80"}', "not UTF-8 at byte 6"),
        (b'{"a":"\xf4\x90\x80\x80"}', "not UTF-8 at byte 6"),
        ("{}".encode("utf-32"), "not UTF-8 at byte 0"),
        ("{}".encode("utf-16-le"), "not JSON: Expecting property name enclosed in double quotes at line 1, column 2"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8 at byte 0"),
        (b'{"a":"\\ud800"}', "half of a surrogate pair stands for a character"),
        (b'{"\\udfff":"a"}', "half of a surrogate pair stands for a character"),
        (b'{"a":' + b"9" * 10_000 + b"}", "a number of 10000 digits"),
        (b'{"a":' + b"9" * 20 + b"}", "a number of 20 digits"),
        (b'{"a":0.' + b"9" * 10_000 + b"}", "a number of 10002 characters"),
        (b'{"a":1e' + b"9" * 10_000 + b"}", "a number of 10002 characters"),
        (b'{"a":1e999999}', "the number 1e999999 is too large to be one"),
        (b'{"a":-1e309}', "the number -1e309 is too large to be one"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
        (b'{"schemaVersion":2', "not JSON: Expecting ',' delimiter at line 1, column 19"),
        (b'{"a":"\x1b"}', "not JSON: Invalid control character at at line 1, column 7"),
        (b"[]", "the document is not an object"),
        (b"null", "the document is not an object"),
        (b"2", "the document is not an object"),
        (b'"text"', "the document is not an object"),
    ],
)
def test_what_is_not_strict_json_is_malformed(body, detail):
    assert refusal(parse_manifest, body) == ("malformed", detail)


@pytest.mark.parametrize("body", [b"", b"<!doctype html>", b"Not Found"])
def test_what_is_not_json_from_its_first_byte_on_is_garbage(body):
    code, detail = refusal(parse_manifest, body)
    assert code == "garbage"
    assert detail.startswith("not JSON: ")


def test_a_whole_surrogate_pair_is_one_character():
    assert load_json(b'"\\ud83d\\ude00"', 99) == "\N{GRINNING FACE}"


def nested(levels, opening, middle, closing):
    """The document is one level itself."""
    return f'{{"schemaVersion":2,"manifests":[],"x":{opening * levels}{middle}{closing * levels}}}'.encode()


@pytest.mark.parametrize("brackets", [("[", "", "]"), ("[", "1", "]"), ("[1,", "2", "]"), ('{"x":', "1", "}")])
@pytest.mark.parametrize("depth", [0, 300])
def test_nesting_ends_at_100_levels_however_deep_the_caller_is(brackets, depth):
    assert deeper(depth, lambda: parse_manifest(nested(99, *brackets))).media_type == OCI_INDEX
    told = deeper(depth, lambda: refusal(parse_manifest, nested(100, *brackets)))
    assert told == ("malformed", "nested too deep")


def deeper(depth, call):
    return deeper(depth - 1, call) if depth else call()


def test_many_brackets_that_are_not_nested_are_read():
    body = encoded(index(x=[[], {}] * 500, y="[" * 500))
    assert parse_manifest(body).entries == ()
    assert load_json(encoded("[" * 500), 999) == "[" * 500


SLOW = {
    "names": lambda: "{" + ",".join(f'"k{at}":1' for at in range(330_000)) + "}",
    "objects": lambda: "[" + ",".join(['{"a":{}}'] * 400_000) + "]",
    "texts": lambda: "[" + ",".join(['"a"'] * 1_000_000) + "]",
    "one text": lambda: f'"{"a" * 4_000_000}"',
    "escapes": lambda: f'"{chr(92)}u0041{(chr(92) + chr(34)) * 2_000_000}"',
    "one name": lambda: f'{{"{"a" * 4_000_000}":1}}',
    "numbers": lambda: "[" + ",".join(["1.5"] * 900_000) + "]",
}


@pytest.mark.parametrize("kind", SLOW)
def test_four_mebibytes_of_anything_are_read_in_a_moment(kind):
    body = f'{{"schemaVersion":2,"manifests":[],"x":{SLOW[kind]()}}}'.encode()
    assert 3_500_000 < len(body) <= MAX_MANIFEST_BYTES
    started = time.monotonic()
    assert parse_manifest(body).media_type == OCI_INDEX
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("parse", "document", "detail"),
    [
        (parse_manifest, index(Manifests=[]), "the document has 'Manifests', which some read as 'manifests'"),
        (parse_manifest, index() | {"manife\u017fts": []}, "the document has 'manife\u017fts', which some read as 'manifests'"),
        (parse_manifest, manifest(LAYERS=[]), "the document has 'LAYERS', which some read as 'layers'"),
        (parse_manifest, manifest(mediatype=OCI_INDEX), "the document has 'mediatype', which some read as 'mediaType'"),
        (parse_manifest, index(descriptor(Digest=B)), "manifests[0] has 'Digest', which some read as 'digest'"),
        (parse_manifest, manifest(config=descriptor(Size=9)), "config has 'Size', which some read as 'size'"),
        (
            parse_manifest,
            index(descriptor(platform={"os": "linux", "architecture": "amd64", "Architecture": "arm64"})),
            "manifests[0].platform has 'Architecture', which some read as 'architecture'",
        ),
        (parse_config, {"RootFS": {}}, "the configuration has 'RootFS', which some read as 'rootfs'"),
        (parse_config, {"OS": "linux"}, "the configuration has 'OS', which some read as 'os'"),
        (parse_config, {"rootfs": {"Diff_IDs": []}}, "rootfs has 'Diff_IDs', which some read as 'diff_ids'"),
        (parse_config, {"config": {"labels": {}}}, "config has 'labels', which some read as 'Labels'"),
        (
            parse_config,
            {"history": [{"Empty_Layer": True}]},
            "history[0] has 'Empty_Layer', which some read as 'empty_layer'",
        ),
    ],
)  # fmt: skip
def test_a_name_in_another_case_makes_two_documents_of_one(parse, document, detail):
    assert refusal(parse, document) == ("type-confusion", detail)


def test_names_that_nobody_reads_may_be_in_any_case():
    config = {"Size": 7, "config": {"env": [], "Labels": {"Size": "1", "size": "2"}}, "Comment": "", "comment": ""}
    assert parse_config(encoded(config)).labels == {"Size": "1", "size": "2"}
    assert parse_manifest(encoded(index(annotations={"Layers": "x", "layers": "y"}))).annotations["Layers"] == "x"


def test_a_duplicate_among_many_names_is_found_in_a_moment():
    names = ",".join(f'"k{at}":1' for at in range(200_000))
    started = time.monotonic()
    detail = "the member 'k199999' stands twice"
    assert refusal(parse_manifest, f'{{{names},"k199999":1}}'.encode()) == ("malformed", detail)
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    ("parse", "limit"), [(parse_manifest, 4 * 2**20), (parse_config, 8 * 2**20), (parse_tags, 8 * 2**20)]
)
def test_a_body_over_its_limit_is_not_even_parsed(parse, limit):
    detail = f"{limit + 1} bytes, at most {limit} are read"
    assert refusal(parse, b"x" * (limit + 1)) == ("too-large", detail)


def test_a_body_at_its_limit_is_read():
    assert (MAX_MANIFEST_BYTES, MAX_CONFIG_BYTES) == (4 * 2**20, 8 * 2**20)
    assert parse_manifest(encoded(manifest()).ljust(MAX_MANIFEST_BYTES)).media_type == OCI_MANIFEST
    assert parse_config(b"{}".ljust(MAX_CONFIG_BYTES)).platform == Platform("", "")


SCHEMA1 = "a Docker schema 1 manifest: it has neither config nor diff ids"


@pytest.mark.parametrize(
    ("document", "served_as"),
    [
        ({"schemaVersion": 1, "fsLayers": [], "history": []}, ""),
        ({"schemaVersion": 1, "manifests": []}, OCI_INDEX),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+json"),
        (manifest(), "application/vnd.docker.distribution.manifest.v1+prettyjws"),
    ],
)
def test_dockers_first_format_is_refused_by_name(document, served_as):
    assert refusal(parse_manifest, document, served_as) == ("unsupported-schema1", SCHEMA1)


DIGEST_RULE = "is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)"


@pytest.mark.parametrize(
    ("document", "code", "detail"),
    [
        (index(descriptor("sha256:ABC")), "bad-digest", f"manifests[0].digest: 'sha256:ABC' {DIGEST_RULE}"),
        (
            index(descriptor("sha256:../../etc")),
            "bad-digest",
            f"manifests[0].digest: 'sha256:../../etc' {DIGEST_RULE}",
        ),
        (index(descriptor("md5:" + "a" * 32)), "bad-digest", f"manifests[0].digest: 'md5:{'a' * 32}' {DIGEST_RULE}"),
        (index(descriptor(A[:-1])), "bad-digest", f"manifests[0].digest: '{A[:-1]}' {DIGEST_RULE}"),
        (index(descriptor(None)), "bad-digest", "manifests[0].digest is not a digest"),
        (index(descriptor(), descriptor(7)), "bad-digest", "manifests[1].digest is not a digest"),
        (manifest(config=descriptor("x")), "bad-digest", f"config.digest: 'x' {DIGEST_RULE}"),
        (manifest(subject=descriptor("x")), "bad-digest", f"subject.digest: 'x' {DIGEST_RULE}"),
        (index(descriptor(size=-1)), "malformed", "manifests[0].size is not a number of bytes"),
        (index(descriptor(size=2**63)), "malformed", "manifests[0].size is not a number of bytes"),
        (index(descriptor(size=7.0)), "malformed", "manifests[0].size is not a number of bytes"),
        (index(descriptor(size=1.5)), "malformed", "manifests[0].size is not a number of bytes"),
        (index(descriptor(size="7")), "malformed", "manifests[0].size is not a number of bytes"),
        (index(descriptor(size=True)), "malformed", "manifests[0].size is not a number of bytes"),
        (index(without(descriptor(), "size")), "malformed", "manifests[0].size is not a number of bytes"),
        (index(descriptor(media_type="")), "malformed", "manifests[0] has no mediaType"),
        (index(descriptor(urls="x")), "malformed", "manifests[0].urls is not a list"),
        (index(descriptor(urls=0)), "malformed", "manifests[0].urls is not a list"),
        (index(descriptor(platform="linux/amd64")), "malformed", "manifests[0].platform is not an object"),
        (index(descriptor(platform={"os": 1})), "malformed", "os is not a text"),
        (
            index(descriptor(platform={"os": "\x1b[31m", "architecture": "amd64"})),
            "malformed",
            "manifests[0].platform has a value that is not a platform's",
        ),
        (index(descriptor(annotations=["a"])), "malformed", "manifests[0].annotations is not an object"),
        (index(descriptor(annotations={"a": 1})), "malformed", "manifests[0].annotations['a'] is not a text"),
        (index("x"), "malformed", "manifests[0] is not an object"),
        (index(manifests=None), "malformed", "manifests is not a list"),
        (index(manifests={}), "malformed", "manifests is not a list"),
        (manifest(layers=None), "malformed", "layers is not a list"),
        (without(manifest(), "layers"), "malformed", "layers is not a list"),
        (without(manifest(), "config"), "malformed", "config is not an object"),
        (manifest(schemaVersion=3), "malformed", "schemaVersion is not 2"),
        (without(manifest(), "schemaVersion"), "malformed", "schemaVersion is not 2"),
        (manifest(schemaVersion=2.0), "malformed", "schemaVersion is not 2"),
        (manifest(schemaVersion="2"), "malformed", "schemaVersion is not 2"),
        (manifest(schemaVersion=True), "malformed", "schemaVersion is not 2"),
        (manifest(mediaType="text/html"), "malformed", "mediaType 'text/html' is neither an index nor a manifest"),
        (manifest(mediaType=7), "malformed", "mediaType is not a text"),
        (index(*[descriptor()] * 65), "too-large", "manifests has 65 entries, at most 64 are read"),
        (manifest(layers=[descriptor()] * 513), "too-large", "layers has 513 entries, at most 512 are read"),
    ],
)
def test_a_broken_manifest_is_refused_with_its_place(document, code, detail):
    assert refusal(parse_manifest, document) == (code, detail)


def test_as_many_children_and_layers_are_read_as_the_limits_say():
    assert len(parse_manifest(encoded(index(*[descriptor()] * 64))).entries) == 64
    assert len(parse_manifest(encoded(manifest(layers=[descriptor()] * 512))).layers) == 512


def test_a_size_may_be_as_large_as_the_specification_lets_it():
    assert parse_manifest(encoded(index(descriptor(size=2**63 - 1)))).entries[0].size == 2**63 - 1


def test_a_digest_of_sha512_is_as_good():
    sha512 = f"sha512:{'a' * 128}"
    assert parse_manifest(encoded(index(descriptor(sha512)))).entries[0].digest == sha512


@pytest.mark.parametrize(
    ("members", "answer"),
    [
        ({"annotations": {"vnd.docker.reference.type": "attestation-manifest"}}, True),
        ({"platform": {"os": "unknown", "architecture": "unknown"}}, True),
        ({"platform": {"os": "unknown", "architecture": "amd64"}}, False),
        ({"platform": {"os": "linux", "architecture": "amd64"}}, False),
        ({"annotations": {"vnd.docker.reference.digest": A}}, False),
        ({}, False),
    ],
)
def test_an_entry_that_describes_another_one_is_no_platform(members, answer):
    assert parse_manifest(encoded(index(descriptor(**members)))).entries[0].is_attestation is answer


@pytest.mark.parametrize(
    ("media_type", "answer"),
    [
        (OCI_INDEX, False),
        (OCI_MANIFEST, False),
        (DOCKER_LIST, False),
        (DOCKER_MANIFEST, False),
        (OCI_ARTIFACT, False),
        ("application/vnd.docker.distribution.manifest.v1+json", False),
        ("application/vnd.oci.image.manifest.v2+json", True),
        (OCI_CONFIG, True),
        (OCI_MANIFEST.upper(), True),
    ],
)
def test_an_entry_may_be_of_a_kind_that_nobody_knows_yet(media_type, answer):
    assert parse_manifest(encoded(index(descriptor(media_type=media_type)))).entries[0].is_of_unknown_kind is answer


def test_a_configuration_is_read_with_all_that_is_judged_later():
    document = {
        "os": "linux",
        "architecture": "arm",
        "variant": "v7",
        "created": "2026-01-01T00:00:00Z",
        "config": {"Labels": {"a": "b"}, "Env": ["x=y"]},
        "rootfs": {"type": "layers", "diff_ids": [A, B]},
        "history": [{"created_by": "COPY"}, {"created_by": "ENV", "empty_layer": True}, {"comment": "only"}],
    }
    assert parse_config(encoded(document)) == Config(
        platform=Platform("linux", "arm", "v7"),
        diff_ids=(A, B),
        history=(HistoryEntry("COPY", False), HistoryEntry("ENV", True), HistoryEntry("", False)),
        labels={"a": "b"},
        created="2026-01-01T00:00:00Z",
    )


@pytest.mark.parametrize(
    ("document", "diff_ids", "history"),
    [
        ({}, None, None),
        ({"rootfs": None, "history": None, "config": None}, None, None),
        ({"rootfs": {"diff_ids": None}, "history": [], "config": {"Labels": None}}, (), ()),
        ({"rootfs": {}}, (), None),
    ],
)
def test_a_bare_configuration_says_what_it_does_not_have(document, diff_ids, history):
    assert parse_config(encoded(document)) == Config(platform=Platform("", ""), diff_ids=diff_ids, history=history)


@pytest.mark.parametrize(
    ("document", "code", "detail"),
    [
        ([], "malformed", "the configuration is not an object"),
        ({"os": 1}, "malformed", "os is not a text"),
        ({"os": "\x1b[31m"}, "malformed", "the configuration has a value that is not a platform's"),
        ({"rootfs": []}, "malformed", "rootfs is not an object"),
        ({"rootfs": {"type": "trees", "diff_ids": [A]}}, "malformed", "rootfs.type 'trees' is not 'layers'"),
        ({"rootfs": {"type": 7}}, "malformed", "type is not a text"),
        ({"rootfs": {"diff_ids": 0}}, "malformed", "rootfs.diff_ids is not a list"),
        ({"rootfs": {"diff_ids": ""}}, "malformed", "rootfs.diff_ids is not a list"),
        ({"rootfs": {"diff_ids": [A, "x"]}}, "bad-digest", f"rootfs.diff_ids[1]: 'x' {DIGEST_RULE}"),
        ({"history": {}}, "malformed", "history is not a list"),
        ({"history": ["x"]}, "malformed", "history[0] is not an object"),
        ({"history": [{"empty_layer": "true"}]}, "malformed", "history[0].empty_layer is neither true nor false"),
        ({"config": []}, "malformed", "config is not an object"),
        ({"config": {"Labels": []}}, "malformed", "config.Labels is not an object"),
        ({"config": {"Labels": {"a": None}}}, "malformed", "config.Labels['a'] is not a text"),
        ({"created": 7}, "malformed", "created is not a text"),
        (
            {"rootfs": {"diff_ids": [A] * 513}},
            "too-large",
            "rootfs.diff_ids has 513 entries, at most 512 are read",
        ),
        ({"history": [{}] * 2049}, "too-large", "history has 2049 entries, at most 2048 are read"),
    ],
)
def test_a_broken_configuration_is_refused_with_its_place(document, code, detail):
    assert refusal(parse_config, document) == (code, detail)


@pytest.mark.parametrize(
    ("document", "tags"),
    [
        ({"name": "a", "tags": ["b", "a"]}, ("b", "a")),
        ({"tags": []}, ()),
        ({"tags": None}, ()),
        ({"tags": ["x"], "child": [], "manifest": {}}, ("x",)),
    ],
)
def test_tags_are_read_as_they_are_served(document, tags):
    assert parse_tags(encoded(document)) == tags


@pytest.mark.parametrize(
    ("document", "code", "detail"),
    [
        ({"name": "a"}, "garbage", "a tag list without a member 'tags'"),
        ({"tags": [1]}, "malformed", "tags[0] is not a text"),
        ({"tags": {}}, "malformed", "tags is not a list"),
        ({"tags": ""}, "malformed", "tags is not a list"),
        ({"tags": 0}, "malformed", "tags is not a list"),
        ({"tags": False}, "malformed", "tags is not a list"),
        (["a"], "malformed", "the tag list is not an object"),
        (b"<html>", "garbage", "not JSON: Expecting value at line 1, column 1"),
    ],
)
def test_only_a_list_can_say_that_there_are_no_tags(document, code, detail):
    assert refusal(parse_tags, document) == (code, detail)


def test_the_index_of_a_layout_may_name_more_than_an_image_does():
    assert len(parse_layout_index(encoded({"manifests": [descriptor()] * 100}))) == 100
    assert refusal(parse_layout_index, {}) == ("malformed", "manifests is not a list")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
members = st.sampled_from(
    ["schemaVersion", "mediaType", "config", "layers", "manifests", "digest", "size", "rootfs", "history", "tags"]
)


@given(st.binary(max_size=40) | st.dictionaries(members, json_values).map(encoded))
def test_any_bytes_are_a_document_or_are_refused(body):
    for parse in (parse_manifest, parse_config, parse_tags, parse_layout_index):
        try:
            parse(body)
        except BadDocument as error:
            assert error.detail.isprintable()


@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
def test_a_document_with_a_piece_written_over_is_read_or_refused(at, piece):
    body = encoded(index(descriptor(platform={"os": "linux", "architecture": "amd64"}), annotations={"a": "b"}))
    at %= len(body)
    try:
        parse_manifest(body[:at] + piece + body[at + len(piece) :])
    except BadDocument as error:
        assert error.detail.isprintable()


REAL = Path(__file__).parents[2] / "shared" / "data" / "documents"
EXPECTED = json.loads((REAL / "expected.json").read_bytes()) if (REAL / "expected.json").is_file() else {}
real = pytest.mark.skipif(
    not EXPECTED,
    # The beginning makes the summary of the run name these tests.
    reason="needs the real documents in ../shared/data/documents, beside the project's folder",
)


@real
def test_real_documents_say_what_is_known_of_them():
    problems = [
        f"{name}: {what}"
        for name, facts in EXPECTED["documents"].items()
        for what in _differences(facts, (REAL / name).read_bytes())
    ]
    assert problems == []
    assert len(EXPECTED["documents"]) == 57


def _differences(facts, body):
    found = {
        "index": _index_facts,
        "manifest": _manifest_facts,
        "artifact": _manifest_facts,
        "config": _config_facts,
        "schema1": _schema1_facts,
        "tags": _tags_facts,
    }[facts["kind"]](facts, body)
    found["sha256"], found["size"] = hashlib.sha256(body).hexdigest(), len(body)
    return [f"{name} is {got!r}, not {facts.get(name)!r}" for name, got in found.items() if got != facts.get(name)]


def _index_facts(facts, body):
    read = parse_manifest(body, facts["media_type"] or "")
    platforms = [one for one in read.entries if not one.is_attestation]
    return {
        "media_type": read.media_type,
        "entries": len(read.entries),
        "attestations": len(read.entries) - len(platforms),
        "platforms": [str(one.platform) for one in platforms if one.platform],
        "entries_without_platform": sum(one.platform is None for one in read.entries),
        "entry_media_types": sorted({one.media_type for one in read.entries}),
    }


def _manifest_facts(facts, body):
    read = parse_manifest(body, facts["media_type"] or "")
    found = {
        "media_type": read.media_type,
        "layers": len(read.layers),
        "layer_media_types": sorted({one.media_type for one in read.layers}),
        "config_media_type": read.config.media_type if read.config else None,
        "artifact_type": read.artifact_type or None,
        "subject": read.subject,
    }
    if "layers_with_urls" in facts:
        found["layers_with_urls"] = sum(bool(one.urls) for one in read.layers)
    return found


def _config_facts(facts, body):
    read = parse_config(body)
    return {
        "platform": str(read.platform) or facts["platform"],
        "diff_ids": None if read.diff_ids is None else len(read.diff_ids),
        "history": None if read.history is None else len(read.history),
        "empty_layers": sum(one.empty_layer for one in read.history or ()),
    }


def _schema1_facts(facts, body):
    for served_as in (facts["media_type"], ""):
        assert refusal(parse_manifest, body, served_as) == ("unsupported-schema1", SCHEMA1)
    return {}


def _tags_facts(_facts, body):
    return {"tags": len(parse_tags(body))}


def _children(name):
    read = parse_manifest((REAL / name).read_bytes())
    if isinstance(read, Index):
        return {f"manifests[{at}]": one for at, one in enumerate(read.entries)}
    return {"config": read.config} | {f"layers[{at}]": one for at, one in enumerate(read.layers)}


@real
def test_real_parents_name_their_children_by_digest_and_size():
    assert EXPECTED["pairs"]
    for pair in EXPECTED["pairs"]:
        body = (REAL / pair["child"]).read_bytes()
        named = _children(pair["parent"])[pair["via"]]
        assert named.digest == digest_of(body) == f"sha256:{pair['sha256']}", pair
        assert (named.size == len(body)) is pair["size_matches"], pair


@real
def test_a_real_child_that_is_not_what_its_parent_names_is_seen():
    assert EXPECTED["mismatches"]
    for pair in EXPECTED["mismatches"]:
        body = (REAL / pair["child"]).read_bytes()
        named = _children(pair["parent"])[pair["via"]]
        assert named.digest == f"sha256:{pair['sha256_in_descriptor']}"
        assert digest_of(body) == f"sha256:{pair['sha256_of_file']}" != named.digest
        assert (named.size == len(body)) is pair["size_matches"]


@real
def test_real_attestations_describe_what_they_refer_to():
    assert EXPECTED["attestation_references"]
    for one in EXPECTED["attestation_references"]:
        entry = parse_manifest((REAL / one["index"]).read_bytes()).entries[one["entry"]]
        assert entry.is_attestation
        assert entry.digest == digest_of((REAL / one["attestation"]).read_bytes())
        assert entry.annotations["vnd.docker.reference.digest"] == one["refers_to"]


@real
def test_real_platforms_can_be_asked_for_by_name():
    for facts in EXPECTED["documents"].values():
        for platform in facts.get("platforms", ()):
            path, _, version = platform.partition(":")
            assert version or parse_platform(path)
