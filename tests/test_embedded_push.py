"""What the distribution specification leaves to a registry, and this one does: tags as parameters, mounts, sparse images.

https://github.com/opencontainers/distribution-spec/blob/main/spec.md
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from imagewright.documents import OCI_INDEX, OCI_MANIFEST
from imagewright.embedded.server import Server
from tests.registry_client import (
    CONFIG,
    LAYER,
    NOWHERE,
    Client,
    described,
    digest_of,
    image,
    index,
    on_disk,
    refused,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "registry"


@pytest.fixture
def client(root: Path) -> Iterator[Client]:
    with Server(root) as server:
        made = Client(server.address)
        yield made
        made.session.close()


@pytest.fixture
def sparse_client(root: Path) -> Iterator[Client]:
    with Server(root, sparse=True) as server:
        made = Client(server.address)
        yield made
        made.session.close()


def push_by_digest(client: Client, body: bytes, query: str, algorithm: str = "sha256") -> requests.Response:
    path = f"a/manifests/{digest_of(body, algorithm)}{query}"
    return client.ask("PUT", path, data=body, headers={"Content-Type": OCI_MANIFEST})


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
@pytest.mark.parametrize(
    ("query", "header", "tags"),
    [
        ("", None, []),
        ("?tag=1", "1", ["1"]),
        ("?tag=1.2&tag=1&tag=latest", "1.2, 1, latest", ["1", "1.2", "latest"]),
        ("?tag=1&tag=1", "1", ["1"]),
        ("?other=1", None, []),
    ],
)
def test_a_manifest_pushed_by_digest_gets_the_tags_of_the_query(
    client: Client, root: Path, algorithm: str, query: str, header: str | None, tags: list[str]
) -> None:
    for content in (CONFIG, LAYER):
        client.push_blob("a", content)
    digest = digest_of(image(), algorithm)
    answer = push_by_digest(client, image(), query, algorithm)
    assert (answer.status_code, answer.headers.get("OCI-Tag")) == (201, header)
    assert answer.headers["Docker-Content-Digest"] == digest
    assert answer.headers["Location"] == f"/v2/a/manifests/{digest}"
    assert client.tags("a") == tags
    for tag in tags:
        got = client.ask("GET", f"a/manifests/{tag}")
        assert (got.content, got.headers["Docker-Content-Digest"]) == (image(), digest)
    assert sorted(on_disk(root, "a"), key=str) == sorted([(digest, tag) for tag in tags or [None]], key=str)


def test_tags_of_the_query_move(client: Client) -> None:
    client.push_image("a", "latest")
    client.push_image("a", "other")
    moved = image(annotations={"is": "newer"})
    assert push_by_digest(client, moved, "?tag=2&tag=latest").status_code == 201
    assert client.tags("a") == ["2", "latest", "other"]
    assert client.ask("GET", "a/manifests/latest").content == moved
    assert client.ask("GET", "a/manifests/other").content == image()


@pytest.mark.parametrize(
    ("body", "query", "code"),
    [
        (image(), "?tag=good&tag=.bad", "TAG_INVALID"),
        (image(), "?tag=good&tag=", "TAG_INVALID"),
        (image(), f"?tag=good&tag={'x' * 129}", "TAG_INVALID"),
        (image(), f"?tag=good&tag={NOWHERE}", "TAG_INVALID"),
        (b"{", "?tag=good", "MANIFEST_INVALID"),
        (image(layers=[described(b"absent", "x/y")]), "?tag=good", "MANIFEST_BLOB_UNKNOWN"),
    ],
)
def test_all_tags_of_the_query_are_set_or_none(client: Client, body: bytes, query: str, code: str) -> None:
    client.push_image("a", "1")
    assert refused(push_by_digest(client, body, query)) == (400, code)
    assert client.tags("a") == ["1"]


def test_tags_in_the_query_go_with_a_digest_only(client: Client) -> None:
    client.push_image("a", "1")
    answer = client.push("a", "2?tag=3", image())
    assert refused(answer) == (400, "TAG_INVALID")
    assert answer.json()["errors"][0]["message"] == (
        "tags as parameters are possible only where a manifest is pushed by its digest"
    )
    assert client.tags("a") == ["1"]


def test_more_tags_than_an_address_can_hold_are_refused(client: Client) -> None:
    client.push_image("a", "1")
    answer = push_by_digest(client, image(), "?" + "&".join(f"tag={number:0128}" for number in range(70)))
    assert refused(answer) == (414, "UNSUPPORTED")
    assert client.tags("a") == ["1"]


@pytest.mark.parametrize("query", [{}, {"from": ""}])
def test_a_blob_is_mounted_from_wherever_it_is(client: Client, root: Path, query: dict[str, str]) -> None:
    digest = client.push_blob("b/elsewhere", LAYER)
    for _ in range(2):
        answer = client.ask("POST", "a/blobs/uploads/", params={"mount": digest, **query})
        assert (answer.status_code, answer.headers["Location"]) == (201, f"/v2/a/blobs/{digest}")
        assert answer.headers["Docker-Content-Digest"] == digest
    paths = [root / name / "blobs" / digest.replace(":", "/") for name in ("b+elsewhere", "a")]
    assert paths[0].samefile(paths[1])
    assert list((root / ".uploads").iterdir()) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_an_upload_may_announce_its_algorithm(client: Client, algorithm: str) -> None:
    place = client.ask("POST", f"a/blobs/uploads/?digest-algorithm={algorithm}").headers["Location"]
    client.ask("PATCH", place, data=LAYER)
    digest = digest_of(LAYER, algorithm)
    answer = client.ask("PUT", place, params={"digest": digest})
    assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (201, digest)
    assert client.ask("GET", f"a/blobs/{digest}").content == LAYER


def test_an_unknown_algorithm_is_refused_at_once(client: Client, root: Path) -> None:
    answer = client.ask("POST", "a/blobs/uploads/?digest-algorithm=blake3")
    assert refused(answer) == (400, "DIGEST_INVALID")
    assert answer.json()["errors"][0]["message"] == ("digests of 'blake3' are unknown here, only sha256 and sha512")
    assert list((root / ".uploads").iterdir()) == []


def test_a_sparse_registry_keeps_what_a_mirror_of_one_platform_has(sparse_client: Client) -> None:
    other = image(annotations={"platform": "the other one"})
    sparse_client.push_image("a", "one-platform")
    assert sparse_client.push("a", "1", index(image(), other), OCI_INDEX).status_code == 201
    assert sparse_client.ask("GET", "a/manifests/1").content == index(image(), other)
    assert sparse_client.ask("GET", f"a/manifests/{digest_of(image())}").content == image()
    assert refused(sparse_client.ask("GET", f"a/manifests/{digest_of(other)}")) == (404, "MANIFEST_UNKNOWN")
    assert sparse_client.push("a", "2", image(layers=[described(b"absent", "x/y")])).status_code == 201
    assert refused(sparse_client.ask("GET", f"a/blobs/{digest_of(b'absent')}")) == (404, "BLOB_UNKNOWN")
    assert refused(sparse_client.push("a", "3", b"{")) == (400, "MANIFEST_INVALID")
    assert sparse_client.tags("a") == ["1", "2", "one-platform"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/", 200),
        ("/v2/_catalog", 200),
        ("a/tags/list", 200),
        ("a/tags/list?n=1", 200),
        ("absent/tags/list", 404),
        ("a/manifests/1", 200),
        (f"a/manifests/{digest_of(image())}", 200),
        ("a/manifests/absent", 404),
        (f"a/blobs/{digest_of(LAYER)}", 200),
        (f"a/blobs/{NOWHERE}", 404),
        ("a/blobs/sha256:x", 400),
        (f"a/referrers/{digest_of(image())}", 200),
        ("a/blobs/uploads/absent", 404),
        ("UPLOAD", 204),
    ],
)
def test_head_is_get_without_a_body(client: Client, path: str, status: int) -> None:
    client.push_image("a", "1")
    client.push_image("a", "2")
    address = client.start_upload("a") if path == "UPLOAD" else path
    head, get = client.ask("HEAD", address), client.ask("GET", address)
    assert (head.status_code, get.status_code, head.content) == (status, status, b"")
    assert {**head.headers, "Date": ""} == {**get.headers, "Date": ""}


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_an_index_may_refer_to_a_subject_of_either_algorithm(client: Client, algorithm: str) -> None:
    subject = {"mediaType": OCI_MANIFEST, "digest": digest_of(image(), algorithm), "size": len(image())}
    client.push_image("a", "1")
    referrer = index(image(), subject=subject, artifactType="application/vnd.example", annotations={"x": "y"})
    answer = client.push("a", digest_of(referrer, algorithm), referrer, OCI_INDEX)
    assert (answer.status_code, answer.headers["OCI-Subject"]) == (201, subject["digest"])
    listed = client.ask("GET", f"a/referrers/{subject['digest']}?artifactType=application/vnd.example")
    assert listed.headers["OCI-Filters-Applied"] == "artifactType"
    assert listed.json()["manifests"] == [
        {
            "mediaType": OCI_INDEX,
            "digest": digest_of(referrer, algorithm),
            "size": len(referrer),
            "artifactType": "application/vnd.example",
            "annotations": {"x": "y"},
        }
    ]
    assert client.ask("DELETE", f"a/manifests/{digest_of(referrer, algorithm)}").status_code == 202
    assert client.ask("GET", f"a/referrers/{subject['digest']}").json()["manifests"] == []
