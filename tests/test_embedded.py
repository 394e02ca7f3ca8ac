"""The embedded registry, asked over real HTTP: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md"""

import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import requests

from imagewright.documents import DOCKER_MANIFEST, MAX_MANIFEST_BYTES, OCI_INDEX, OCI_MANIFEST
from imagewright.embedded.server import Seen, Server
from imagewright.embedded.wire import Answer
from imagewright.errors import Failed
from imagewright.layout import REF_NAME
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
def server(root: Path) -> Iterator[Server]:
    with Server(root) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    made = Client(server.address)
    yield made
    made.session.close()


def test_the_root_says_that_this_is_a_registry(client: Client) -> None:
    for path in ("/v2/", "/v2"):
        answer = client.ask("GET", path)
        assert (answer.status_code, answer.json()) == (200, {})
        assert answer.headers["Docker-Distribution-Api-Version"] == "registry/2.0"


@pytest.mark.parametrize("reference", ["1.0", "digest"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_manifest_comes_back_as_it_was_pushed(client: Client, method: str, reference: str) -> None:
    digest = client.push_image("a/b", "1.0")
    answer = client.ask(method, f"a/b/manifests/{digest if reference == 'digest' else reference}")
    assert answer.status_code == 200
    assert answer.headers["Docker-Content-Digest"] == digest == digest_of(image())
    assert answer.headers["Content-Type"] == OCI_MANIFEST
    assert answer.headers["Content-Length"] == str(len(image()))
    assert answer.headers["ETag"] == f'"{digest}"'
    assert answer.content == (image() if method == "GET" else b"")


def test_pushing_answers_where_the_manifest_is(client: Client) -> None:
    client.push_image("a/b", "1.0")
    answer = client.push("a/b", "2.0", image())
    assert answer.status_code == 201
    assert answer.headers["Location"] == "/v2/a/b/manifests/2.0"
    assert "OCI-Subject" not in answer.headers
    assert client.ask("GET", answer.headers["Location"]).content == image()


@pytest.mark.parametrize(
    ("if_none_match", "status"),
    [
        ('"{}"', 304),
        ("{}", 304),
        ('W/"{}"', 304),
        ('"other", "{}"', 304),
        ("*", 304),
        ('"other"', 200),
        ("", 200),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_a_client_has_already_is_not_sent_again(
    client: Client, method: str, if_none_match: str, status: int
) -> None:
    digest = client.push_image("a", "1")
    for path in ("a/manifests/1", f"a/manifests/{digest}"):
        answer = client.ask(method, path, headers={"If-None-Match": if_none_match.format(digest)})
        assert answer.status_code == status
        assert answer.headers["Docker-Content-Digest"] == digest
    assert client.ask("GET", "a/manifests/1").content == image()


@pytest.mark.parametrize("media_type", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_a_manifest_that_does_not_name_its_type_keeps_the_pushed_one(client: Client, media_type: str) -> None:
    client.push_image("a", "other")
    body = image(mediaType=None)
    assert client.push("a", "1", body, media_type).status_code == 201
    assert client.ask("GET", "a/manifests/1").headers["Content-Type"] == media_type
    assert client.ask("GET", f"a/manifests/{digest_of(body)}").headers["Content-Type"] == media_type


def test_a_manifest_can_be_pushed_by_digest_and_stays_known_without_a_tag(client: Client, root: Path) -> None:
    client.push_blob("a", CONFIG)
    client.push_blob("a", LAYER)
    for algorithm in ("sha256", "sha512"):
        digest = digest_of(image(), algorithm)
        assert client.push("a", digest, image()).status_code == 201
        answer = client.ask("GET", f"a/manifests/{digest}")
        assert (answer.content, answer.headers["Content-Type"]) == (image(), OCI_MANIFEST)
        assert answer.headers["Docker-Content-Digest"] == digest
    assert client.tags("a") == []
    assert on_disk(root, "a") == [(digest_of(image()), None), (digest_of(image(), "sha512"), None)]


def test_a_tag_moves_and_its_former_manifest_stays(client: Client, root: Path) -> None:
    first = client.push_image("a", "latest")
    second = client.push_image("a", "latest", annotations={"is": "newer"})
    assert client.ask("HEAD", "a/manifests/latest").headers["Docker-Content-Digest"] == second
    assert client.ask("GET", f"a/manifests/{first}").status_code == 200
    assert on_disk(root, "a") == [(first, None), (second, "latest")]
    client.push_image("a", "latest")
    assert on_disk(root, "a") == [(second, None), (first, "latest")]


@pytest.mark.parametrize(
    ("body", "media_type", "status", "code"),
    [
        (b"", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"{", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b"[]", OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (b'{"schemaVersion":1}', "application/vnd.docker.distribution.manifest.v1+json", 400, "MANIFEST_INVALID"),
        (image(), OCI_INDEX, 400, "MANIFEST_INVALID"),
        (image(), DOCKER_MANIFEST, 400, "MANIFEST_INVALID"),
        (image(), "application/json", 400, "MANIFEST_INVALID"),
        (image(manifests=[]), OCI_MANIFEST, 400, "MANIFEST_INVALID"),
        (image(config=described(b"absent", "x/y")), OCI_MANIFEST, 400, "MANIFEST_BLOB_UNKNOWN"),
        (image(layers=[described(b"absent", "x/y")]), OCI_MANIFEST, 400, "MANIFEST_BLOB_UNKNOWN"),
        (image(layers=[described(b"absent", "x/y", urls=["http://x"])]), OCI_MANIFEST, 400, "MANIFEST_BLOB_UNKNOWN"),
        (index(b"absent"), OCI_INDEX, 400, "MANIFEST_BLOB_UNKNOWN"),
        (index(CONFIG), OCI_INDEX, 400, "MANIFEST_BLOB_UNKNOWN"),
        (image(annotations={"x": "x" * MAX_MANIFEST_BYTES}), OCI_MANIFEST, 413, "SIZE_INVALID"),
    ],
)
def test_a_bad_manifest_is_refused(client: Client, body: bytes, media_type: str, status: int, code: str) -> None:
    client.push_image("a", "good")
    assert refused(client.push("a", "bad", body, media_type)) == (status, code)
    assert client.tags("a") == ["good"]
    assert client.ask("GET", "a/manifests/bad").status_code == 404


def test_a_refused_manifest_names_everything_that_is_absent(client: Client) -> None:
    layers = [described(content, "x/y") for content in (b"one", b"two")]
    answer = client.push("new/repository", "1", image(config=layers[0], layers=layers))
    absent = [layers[0]["digest"], layers[0]["digest"], layers[1]["digest"]]
    assert answer.json()["errors"][0]["detail"] == [{"digest": digest} for digest in absent]
    assert refused(client.ask("GET", "new/repository/tags/list")) == (404, "NAME_UNKNOWN")


@pytest.mark.parametrize(
    "media_type",
    [
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
    ],
)
def test_a_layer_that_lives_elsewhere_need_not_be_here(client: Client, media_type: str) -> None:
    client.push_blob("a", CONFIG)
    foreign = described(b"absent", media_type, urls=["https://example.org/layer"])
    assert client.push("a", "1", image(layers=[foreign])).status_code == 201


def test_a_manifest_with_another_digest_is_refused(client: Client) -> None:
    client.push_image("a", "1")
    assert refused(client.push("a", NOWHERE, image())) == (400, "DIGEST_INVALID")
    assert refused(client.push("a", "sha256:abc", image())) == (400, "DIGEST_INVALID")
    assert refused(client.push("a", ".tag", image())) == (400, "TAG_INVALID")
    assert refused(client.push("a", "x" * 129, image())) == (400, "TAG_INVALID")


def test_an_index_and_its_children_are_served(client: Client) -> None:
    child = client.push_image("a", "child")
    body = index(image())
    assert client.push("a", "both", body, OCI_INDEX).status_code == 201
    assert client.ask("GET", "a/manifests/both").headers["Content-Type"] == OCI_INDEX
    assert client.push("a", "nested", index(body), OCI_INDEX).status_code == 201
    assert client.ask("DELETE", "a/manifests/child").status_code == 202
    assert client.ask("GET", f"a/manifests/{child}").content == image()


def test_a_blob_is_no_manifest(client: Client) -> None:
    client.push_image("a", "1")
    blob = client.push_blob("a", image(annotations={"pushed": "as a blob"}))
    for method in ("GET", "HEAD", "DELETE"):
        assert client.ask(method, f"a/manifests/{blob}").status_code == 404
    assert refused(client.ask("GET", f"a/manifests/{blob}")) == (404, "MANIFEST_UNKNOWN")


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "a/manifests/absent", 404, "MANIFEST_UNKNOWN"),
        ("GET", "a/manifests/.no-tag", 404, "MANIFEST_UNKNOWN"),
        ("GET", f"a/manifests/{NOWHERE}", 404, "MANIFEST_UNKNOWN"),
        ("GET", "a/manifests/sha256:x", 400, "DIGEST_INVALID"),
        ("GET", "a/manifests/md5:d41d8cd98f00b204e9800998ecf8427e", 400, "DIGEST_INVALID"),
        ("GET", "absent/manifests/1", 404, "NAME_UNKNOWN"),
        ("DELETE", "a/manifests/absent", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", f"a/manifests/{NOWHERE}", 404, "MANIFEST_UNKNOWN"),
        ("DELETE", "absent/manifests/1", 404, "NAME_UNKNOWN"),
        ("GET", f"a/blobs/{NOWHERE}", 404, "BLOB_UNKNOWN"),
        ("GET", f"absent/blobs/{NOWHERE}", 404, "NAME_UNKNOWN"),
        ("GET", "a/blobs/sha256:x", 400, "DIGEST_INVALID"),
        ("DELETE", f"a/blobs/{NOWHERE}", 404, "BLOB_UNKNOWN"),
        ("GET", "absent/tags/list", 404, "NAME_UNKNOWN"),
        ("GET", "a/tags/list?n=x", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "a/tags/list?n=-1", 400, "PAGINATION_NUMBER_INVALID"),
        ("GET", "A/tags/list", 400, "NAME_INVALID"),
        ("GET", "a//b/tags/list", 400, "NAME_INVALID"),
        ("GET", f"{'a' * 256}/tags/list", 400, "NAME_INVALID"),
        ("POST", "A/blobs/uploads/", 400, "NAME_INVALID"),
        ("POST", "a/blobs/uploads/?digest=sha256:x", 400, "DIGEST_INVALID"),
        ("POST", f"a/blobs/uploads/?digest={NOWHERE}", 400, "DIGEST_INVALID"),
        ("GET", "a/blobs/uploads/absent", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PATCH", "a/blobs/uploads/absent", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", f"a/blobs/uploads/absent?digest={NOWHERE}", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("PUT", "a/blobs/uploads/absent", 400, "DIGEST_INVALID"),
        ("DELETE", "a/blobs/uploads/absent", 404, "BLOB_UPLOAD_UNKNOWN"),
        ("GET", "a/referrers/sha256:x", 400, "DIGEST_INVALID"),
        ("POST", "a/manifests/1", 405, "UNSUPPORTED"),
        ("PUT", f"a/blobs/{NOWHERE}", 405, "UNSUPPORTED"),
        ("DELETE", "a/tags/list", 405, "UNSUPPORTED"),
        ("OPTIONS", "/v2/", 405, "UNSUPPORTED"),
        ("GET", "/", 404, "UNSUPPORTED"),
        ("GET", "/v1/", 404, "UNSUPPORTED"),
        ("GET", "/v2/a", 404, "UNSUPPORTED"),
    ],
)
def test_what_cannot_be_done_is_refused_and_the_connection_goes_on(
    client: Client, method: str, path: str, status: int, code: str
) -> None:
    client.push_image("a", "1")
    answer = client.ask(method, path)
    assert refused(answer) == (status, code)
    assert "Connection" not in answer.headers
    assert client.ask("GET", "a/manifests/1").content == image()


def test_a_wrong_method_is_told_the_right_ones(client: Client) -> None:
    assert client.ask("POST", "a/manifests/1").headers["Allow"] == "GET, HEAD, PUT, DELETE"


@pytest.mark.parametrize(
    "target",
    [
        "/v2/../../secret/blobs/{digest}",
        "/v2/..%2F..%2Fsecret/blobs/{digest}",
        "/v2/a/../b/blobs/{digest}",
        "/v2/a+b/blobs/{digest}",
        "/v2/a%2Bb/manifests/1",
        "/v2/.uploads/tags/list",
        "/v2/a%00/tags/list",
        "/v2/a%0A/tags/list",
        "/v2/a/blobs/sha256:..%2F..%2Findex.json",
        "/v2/a/blobs/sha256:%2e%2e",
        "/v2/a/manifests/..%2F..%2Foci-layout",
        "/v2/a/blobs/uploads/..%2F..%2Foci-layout",
        "//etc/passwd",
    ],
)
def test_no_address_leaves_its_repository(client: Client, server: Server, root: Path, target: str) -> None:
    digest = client.push_blob("a", LAYER)
    client.push_image("a/b", "1")
    (root.parent / "secret" / "blobs" / "sha256").mkdir(parents=True)
    (root.parent / "secret" / "index.json").write_text('{"manifests":[]}')
    (root.parent / "secret" / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(LAYER)
    connection = http.client.HTTPConnection(server.address, timeout=20)
    connection.putrequest("GET", target.format(digest=digest), skip_host=True)
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status in (400, 404)
    assert json.loads(answer.read())["errors"]
    connection.close()


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_is_pushed_with_one_request(client: Client, root: Path, algorithm: str) -> None:
    digest = digest_of(LAYER, algorithm)
    answer = client.ask("POST", "a/b/blobs/uploads/", params={"digest": digest}, data=LAYER)
    assert answer.status_code == 201
    assert answer.headers["Location"] == f"/v2/a/b/blobs/{digest}"
    assert answer.headers["Docker-Content-Digest"] == digest
    assert (root / "a+b" / "blobs" / algorithm / digest.partition(":")[2]).read_bytes() == LAYER
    got = client.ask("GET", answer.headers["Location"])
    assert (got.content, got.headers["Docker-Content-Digest"]) == (LAYER, digest)
    assert got.headers["Content-Type"] == "application/octet-stream"
    head = client.ask("HEAD", answer.headers["Location"])
    assert (head.status_code, head.headers["Content-Length"], head.content) == (200, str(len(LAYER)), b"")


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_blob_is_pushed_with_post_and_put(client: Client, algorithm: str) -> None:
    digest = digest_of(LAYER, algorithm)
    answer = client.ask("PUT", client.start_upload("a"), params={"digest": digest}, data=LAYER)
    assert (answer.status_code, answer.headers["Docker-Content-Digest"]) == (201, digest)
    assert client.ask("GET", f"a/blobs/{digest}").content == LAYER


def test_a_blob_is_pushed_in_chunks(client: Client, root: Path) -> None:
    place = client.start_upload("a")
    started = client.ask("GET", place)
    assert (started.status_code, started.headers["Range"]) == (204, "0-0")
    assert started.headers["Docker-Upload-UUID"] == place.rpartition("/")[2]
    first = client.ask("PATCH", place, data=LAYER[:10], headers={"Content-Range": "0-9"})
    assert (first.status_code, first.headers["Range"], first.headers["Location"]) == (202, "0-9", place)
    second = client.ask("PATCH", place, data=LAYER[10:20], headers={"Content-Range": "10-19"})
    assert (second.status_code, second.headers["Range"]) == (202, "0-19")
    assert client.ask("GET", place).headers["Range"] == "0-19"
    rest = {"Content-Range": f"20-{len(LAYER) - 1}"}
    done = client.ask("PUT", place, params={"digest": digest_of(LAYER)}, data=LAYER[20:], headers=rest)
    assert done.status_code == 201
    assert client.ask("GET", done.headers["Location"]).content == LAYER
    assert refused(client.ask("GET", place)) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert list((root / ".uploads").iterdir()) == []


def test_a_blob_is_pushed_as_a_stream_of_unknown_length(client: Client) -> None:
    place = client.start_upload("a")
    content = os.urandom(3_000_000)
    pieces = (content[at : at + 70_000] for at in range(0, len(content), 70_000))
    answer = client.ask("PATCH", place, data=pieces)
    assert (answer.status_code, answer.headers["Range"]) == (202, f"0-{len(content) - 1}")
    assert client.ask("PUT", place, params={"digest": digest_of(content)}).status_code == 201
    assert client.ask("GET", f"a/blobs/{digest_of(content)}").content == content


@pytest.mark.parametrize("content_range", ["5-14", "11-20", "x", "bytes 3-4/5"])
def test_a_chunk_out_of_order_is_refused_with_the_place_to_go_on(client: Client, content_range: str) -> None:
    place = client.start_upload("a")
    client.ask("PATCH", place, data=LAYER[:10], headers={"Content-Range": "0-9"})
    for method, params in (("PATCH", {}), ("PUT", {"digest": digest_of(LAYER)})):
        headers = {"Content-Range": content_range}
        answer = client.ask(method, place, params=params, data=LAYER[10:20], headers=headers)
        assert refused(answer) == (416, "RANGE_INVALID")
        assert (answer.headers["Range"], answer.headers["Location"]) == ("0-9", place)
    assert client.ask("PUT", place, params={"digest": digest_of(LAYER)}, data=LAYER[10:]).status_code == 201


def test_a_chunk_of_another_size_than_it_says_is_refused(client: Client) -> None:
    place = client.start_upload("a")
    answer = client.ask("PATCH", place, data=LAYER[:10], headers={"Content-Range": "0-10"})
    assert refused(answer) == (400, "SIZE_INVALID")
    assert client.ask("GET", place).headers["Range"] == "0-0"


def test_content_with_another_digest_is_refused_and_leaves_nothing(client: Client, root: Path) -> None:
    place = client.start_upload("a")
    answer = client.ask("PUT", place, params={"digest": digest_of(b"other")}, data=LAYER)
    assert refused(answer) == (400, "DIGEST_INVALID")
    assert answer.json()["errors"][0]["detail"] == {"expected": digest_of(b"other"), "received": digest_of(LAYER)}
    assert client.ask("GET", place).status_code == 404
    assert [path.name for path in root.iterdir()] == [".uploads"]
    assert list((root / ".uploads").iterdir()) == []


def test_an_upload_can_be_cancelled_and_belongs_to_its_repository(client: Client, root: Path) -> None:
    place = client.start_upload("a")
    assert refused(client.ask("PATCH", place.replace("/a/", "/b/"), data=b"x")) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert client.ask("DELETE", place).status_code == 204
    assert refused(client.ask("PATCH", place, data=b"x")) == (404, "BLOB_UPLOAD_UNKNOWN")
    assert list((root / ".uploads").iterdir()) == []


def test_an_empty_blob_is_a_blob(client: Client) -> None:
    digest = digest_of(b"")
    assert client.ask("PUT", client.start_upload("a"), params={"digest": digest}).status_code == 201
    answer = client.ask("GET", f"a/blobs/{digest}")
    assert (answer.status_code, answer.content, answer.headers["Content-Length"]) == (200, b"", "0")
    assert client.ask("GET", f"a/blobs/{digest}", headers={"Range": "bytes=0-0"}).status_code == 416


def test_a_mounted_blob_is_a_hard_link(client: Client, root: Path) -> None:
    digest = client.push_blob("a/b", LAYER)
    answer = client.ask("POST", "c/blobs/uploads/", params={"mount": digest, "from": "a/b"})
    assert (answer.status_code, answer.headers["Location"]) == (201, f"/v2/c/blobs/{digest}")
    paths = [root / name / "blobs" / digest.replace(":", "/") for name in ("a+b", "c")]
    assert paths[0].samefile(paths[1])
    assert client.ask("POST", "c/blobs/uploads/", params={"mount": digest, "from": "a/b"}).status_code == 201
    assert client.ask("DELETE", f"a/b/blobs/{digest}").status_code == 202
    assert client.ask("GET", f"c/blobs/{digest}").content == LAYER


@pytest.mark.parametrize(
    "query",
    [
        {"mount": NOWHERE, "from": "a"},
        {"mount": digest_of(LAYER), "from": "absent"},
        {"mount": digest_of(LAYER), "from": "../a"},
        {"mount": NOWHERE},
        {"mount": "sha256:x", "from": "a"},
        {"mount": "sha256:x"},
    ],
)
def test_a_mount_that_cannot_be_becomes_an_upload(client: Client, query: dict[str, str]) -> None:
    client.push_blob("a", LAYER)
    answer = client.ask("POST", "c/blobs/uploads/", params=query)
    assert (answer.status_code, answer.headers["Range"]) == (202, "0-0")
    done = client.ask("PUT", answer.headers["Location"], params={"digest": digest_of(LAYER)}, data=LAYER)
    assert done.status_code == 201


@pytest.mark.parametrize(
    ("wanted", "status", "content_range", "part"),
    [
        ("bytes=0-3", 206, "bytes 0-3/35", LAYER[:4]),
        ("bytes=30-", 206, "bytes 30-34/35", LAYER[30:]),
        ("bytes=30-99", 206, "bytes 30-34/35", LAYER[30:]),
        ("bytes=-5", 206, "bytes 30-34/35", LAYER[-5:]),
        ("bytes=-99", 206, "bytes 0-34/35", LAYER),
        ("bytes=35-", 416, "bytes */35", None),
        ("bytes=99-100", 416, "bytes */35", None),
        ("bytes=-0", 416, "bytes */35", None),
        ("bytes=5-3", 416, "bytes */35", None),
        ("bytes=0-1,3-4", 200, None, LAYER),
        ("bytes=-", 200, None, LAYER),
        ("lines=0-1", 200, None, LAYER),
    ],
)
def test_a_part_of_a_blob(client: Client, wanted: str, status: int, content_range: str | None, part: bytes) -> None:
    assert len(LAYER) == 35
    digest = client.push_blob("a", LAYER)
    answer = client.ask("GET", f"a/blobs/{digest}", headers={"Range": wanted})
    assert (answer.status_code, answer.headers.get("Content-Range")) == (status, content_range)
    assert answer.content == part if part is not None else refused(answer) == (416, "RANGE_INVALID")


def test_a_part_of_another_version_is_not_sent(client: Client) -> None:
    digest = client.push_blob("a", LAYER)
    headers = {"Range": "bytes=0-3", "If-Range": '"other"'}
    assert client.ask("GET", f"a/blobs/{digest}", headers=headers).content == LAYER
    headers = {"Range": "bytes=0-3", "If-Range": f'"{digest}"'}
    assert client.ask("GET", f"a/blobs/{digest}", headers=headers).content == LAYER[:4]
    assert client.ask("GET", f"a/blobs/{digest}", headers={"If-None-Match": f'"{digest}"'}).status_code == 304


def test_a_large_blob_comes_whole_and_in_parts(client: Client) -> None:
    content = os.urandom(5_000_001)
    digest = client.push_blob("a", content)
    assert client.ask("GET", f"a/blobs/{digest}").content == content
    part = client.ask("GET", f"a/blobs/{digest}", headers={"Range": "bytes=1000000-4999999"})
    assert part.content == content[1_000_000:5_000_000]


def test_a_deleted_blob_is_gone(client: Client) -> None:
    digest = client.push_blob("a", LAYER)
    assert client.ask("DELETE", f"a/blobs/{digest}").status_code == 202
    assert client.ask("HEAD", f"a/blobs/{digest}").status_code == 404
    assert refused(client.ask("DELETE", f"a/blobs/{digest}")) == (404, "BLOB_UNKNOWN")


def test_a_manifest_is_not_deleted_as_a_blob(client: Client) -> None:
    digest = client.push_image("a", "1")
    assert refused(client.ask("DELETE", f"a/blobs/{digest}")) == (405, "UNSUPPORTED")
    assert client.ask("GET", "a/manifests/1").status_code == 200


def test_deleting_a_tag_leaves_its_manifest_and_other_tags(client: Client, root: Path) -> None:
    digest = client.push_image("a", "1")
    client.push("a", "2", image())
    assert client.ask("DELETE", "a/manifests/1").status_code == 202
    assert client.tags("a") == ["2"]
    assert client.ask("DELETE", "a/manifests/2").status_code == 202
    assert client.tags("a") == []
    assert client.ask("GET", f"a/manifests/{digest}").headers["Content-Type"] == OCI_MANIFEST
    assert on_disk(root, "a") == [(digest, None)]
    assert refused(client.ask("DELETE", "a/manifests/2")) == (404, "MANIFEST_UNKNOWN")


def test_deleting_a_manifest_takes_all_its_tags_and_its_content(client: Client, root: Path) -> None:
    digest = client.push_image("a", "1")
    client.push("a", "latest", image())
    other = client.push_image("a", "2", annotations={"is": "other"})
    assert client.ask("DELETE", f"a/manifests/{digest}").status_code == 202
    for reference in ("1", "latest", digest):
        assert refused(client.ask("GET", f"a/manifests/{reference}")) == (404, "MANIFEST_UNKNOWN")
    assert client.tags("a") == ["2"]
    assert on_disk(root, "a") == [(other, "2")]
    assert not (root / "a" / "blobs" / digest.replace(":", "/")).exists()
    assert client.ask("HEAD", f"a/blobs/{digest_of(LAYER)}").status_code == 200


def test_an_index_outlives_its_deleted_child(client: Client) -> None:
    child = client.push_image("a", "child")
    client.push("a", "both", index(image()), OCI_INDEX)
    assert client.ask("DELETE", f"a/manifests/{child}").status_code == 202
    assert client.ask("GET", "a/manifests/both").status_code == 200
    assert refused(client.ask("GET", f"a/manifests/{child}")) == (404, "MANIFEST_UNKNOWN")
    assert refused(client.push("a", "again", index(image()), OCI_INDEX)) == (400, "MANIFEST_BLOB_UNKNOWN")


@pytest.mark.parametrize(
    ("query", "tags", "following"),
    [
        ("", ["1.0", "1.1", "a", "B", "c"], None),
        ("?n=2", ["1.0", "1.1"], "/v2/a/b/tags/list?n=2&last=1.1"),
        ("?n=2&last=1.1", ["a", "B"], "/v2/a/b/tags/list?n=2&last=B"),
        ("?n=2&last=B", ["c"], None),
        ("?n=5", ["1.0", "1.1", "a", "B", "c"], None),
        ("?n=9999", ["1.0", "1.1", "a", "B", "c"], None),
        ("?n=0", [], None),
        ("?last=aa", ["B", "c"], None),
        ("?last=z", [], None),
    ],
)
def test_tags_come_in_order_and_in_pages(client: Client, query: str, tags: list[str], following: str | None) -> None:
    client.push_image("a/b", "c")
    for tag in ("B", "1.1", "a", "1.0"):
        client.push("a/b", tag, image())
    answer = client.ask("GET", f"a/b/tags/list{query}")
    assert answer.json() == {"name": "a/b", "tags": tags}
    assert answer.headers.get("Link") == (f'<{following}>; rel="next"' if following else None)


def test_a_repository_with_blobs_only_has_no_tags(client: Client) -> None:
    client.push_blob("a", LAYER)
    assert client.tags("a") == []


def test_the_catalogue_names_all_repositories(client: Client, root: Path) -> None:
    assert client.ask("GET", "_catalog").json() == {"repositories": []}
    for name in ("b", "a/b/c", "a-b", "a"):
        client.push_blob(name, LAYER)
    (root / "notes").mkdir()
    (root / "Not a repository").mkdir()
    assert client.ask("GET", "_catalog").json() == {"repositories": ["a", "a-b", "a/b/c", "b"]}
    answer = client.ask("GET", "_catalog?n=2&last=a")
    assert answer.json() == {"repositories": ["a-b", "a/b/c"]}
    assert answer.headers["Link"] == '</v2/_catalog?n=2&last=a%2Fb%2Fc>; rel="next"'


def test_referrers_are_listed_and_filtered(client: Client) -> None:
    subject = client.push_image("a", "1")
    pointer = described(image(), OCI_MANIFEST)
    signature = image(subject=pointer, artifactType="text/signature", annotations={"by": "me"})
    by_config = image(subject=pointer)
    an_index = index(subject=pointer, artifactType="text/list")
    for tag, body, media_type in (
        ("s", signature, OCI_MANIFEST),
        ("c", by_config, OCI_MANIFEST),
        ("i", an_index, OCI_INDEX),
    ):
        answer = client.push("a", tag, body, media_type)
        assert (answer.status_code, answer.headers["OCI-Subject"]) == (201, subject)
    answer = client.ask("GET", f"a/referrers/{subject}")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, OCI_INDEX)
    assert "OCI-Filters-Applied" not in answer.headers
    expected = [
        described(signature, OCI_MANIFEST, artifactType="text/signature", annotations={"by": "me"}),
        described(by_config, OCI_MANIFEST, artifactType="application/vnd.oci.image.config.v1+json"),
        described(an_index, OCI_INDEX, artifactType="text/list"),
    ]
    assert answer.json() == {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": expected}
    filtered = client.ask("GET", f"a/referrers/{subject}", params={"artifactType": "text/list"})
    assert (filtered.json()["manifests"], filtered.headers["OCI-Filters-Applied"]) == (expected[2:], "artifactType")
    client.ask("DELETE", f"a/manifests/{digest_of(signature)}")
    assert client.ask("GET", f"a/referrers/{subject}").json()["manifests"] == expected[1:]


def test_a_subject_need_not_be_here(client: Client) -> None:
    client.push_image("a", "other")
    absent = described(b"absent", OCI_MANIFEST)
    answer = client.push("a", "1", image(subject=absent))
    assert (answer.status_code, answer.headers["OCI-Subject"]) == (201, absent["digest"])
    assert len(client.ask("GET", f"a/referrers/{absent['digest']}").json()["manifests"]) == 1


@pytest.mark.parametrize("repository", ["a", "absent"])
def test_nothing_refers_to_an_unknown_digest(client: Client, repository: str) -> None:
    client.push_image("a", "1")
    answer = client.ask("GET", f"{repository}/referrers/{NOWHERE}")
    assert (answer.status_code, answer.json()["manifests"]) == (200, [])


def test_each_repository_is_a_complete_layout(client: Client, root: Path) -> None:
    digest = client.push_image("a/b", "1.0")
    client.push("a/b", "latest", image())
    assert json.loads((root / "a+b" / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    document = json.loads((root / "a+b" / "index.json").read_bytes())
    assert document["manifests"] == [
        described(image(), OCI_MANIFEST, annotations={REF_NAME: tag}) for tag in ("1.0", "latest")
    ]
    assert (root / "a+b" / "blobs" / digest.replace(":", "/")).read_bytes() == image()


def test_a_layout_written_by_another_program_is_noticed(client: Client, root: Path) -> None:
    client.push_image("a", "1")
    path = root / "a" / "index.json"
    document = json.loads(path.read_bytes())
    added = {
        **document["manifests"][0],
        "platform": {"os": "linux", "architecture": "amd64"},
        "annotations": {REF_NAME: "by-hand", "note": "kept"},
    }
    whole = {**document["manifests"][0], "annotations": {REF_NAME: "docker.io/library/a:1"}}
    document["manifests"] += [added, whole]
    path.write_text(json.dumps(document))
    assert client.tags("a") == ["1", "by-hand"]
    client.push("a", "2", image(annotations={"is": "new"}))
    assert client.tags("a") == ["1", "2", "by-hand"]
    assert added in json.loads(path.read_bytes())["manifests"]
    assert whole in json.loads(path.read_bytes())["manifests"]


def test_children_of_an_index_that_another_program_wrote_are_manifests(client: Client, root: Path) -> None:
    child = client.push_image("a", "1")
    client.push("a", "both", index(image()), OCI_INDEX)
    client.push("a", "nested", index(index(image())), OCI_INDEX)
    path = root / "a" / "index.json"
    document = json.loads(path.read_bytes())
    document["manifests"] = [one for one in document["manifests"] if one["annotations"][REF_NAME] == "nested"]
    path.write_text(json.dumps(document))
    assert client.tags("a") == ["nested"]
    assert client.ask("GET", f"a/manifests/{child}").headers["Content-Type"] == OCI_MANIFEST


def test_a_removed_repository_is_unknown_and_can_be_made_again(client: Client, root: Path) -> None:
    client.push_image("a", "1")
    (root / "a").rename(root.parent / "elsewhere")
    assert refused(client.ask("GET", "a/manifests/1")) == (404, "NAME_UNKNOWN")
    client.push_image("a", "2")
    assert client.tags("a") == ["2"]


@pytest.mark.parametrize("broken", ["index.json", "manifest"])
def test_damage_on_disk_is_said_and_not_served(client: Client, root: Path, broken: str) -> None:
    digest = client.push_image("a", "1")
    path = root / "a" / "index.json" if broken == "index.json" else root / "a" / "blobs" / digest.replace(":", "/")
    path.write_text("{")
    assert refused(client.ask("GET", "a/manifests/1")) == (500, "UNKNOWN")
    assert client.ask("GET", "/v2/").status_code == 200


def test_a_restart_keeps_all(root: Path) -> None:
    with Server(root) as server:
        client = Client(server.address)
        digest = client.push_image("a", "1")
        place = client.start_upload("a")
        client.ask("PATCH", place, data=LAYER)
        assert client.ask("GET", "a/manifests/1").headers["Docker-Content-Digest"] == digest
        port = int(server.address.rpartition(":")[2])
    with pytest.raises(requests.ConnectionError):
        client.ask("GET", "/v2/")
    with Server(root, port=port) as server:
        assert server.address == f"127.0.0.1:{port}"
        assert client.ask("GET", "a/manifests/1").content == image()
        assert client.tags("a") == ["1"]
        assert refused(client.ask("PUT", place, params={"digest": digest_of(LAYER)}, data=b"")) == (
            404,
            "BLOB_UPLOAD_UNKNOWN",
        )
        client.session.close()


def test_what_a_dead_process_was_receiving_is_removed_a_day_later(root: Path) -> None:
    (root / ".uploads").mkdir(parents=True)
    for name, age in (("old", 90_000), ("young", 60)):
        (root / ".uploads" / name).write_bytes(LAYER)
        os.utime(root / ".uploads" / name, (time.time() - age,) * 2)
    with Server(root) as server, requests.get(f"http://{server.address}/v2/_catalog", timeout=20) as answer:
        assert answer.json() == {"repositories": []}
    assert [path.name for path in (root / ".uploads").iterdir()] == ["young"]


def test_eight_clients_lose_no_tag(server: Server, root: Path) -> None:
    def push(number: int) -> None:
        client = Client(server.address)
        for at in range(15):
            client.push_image("a/b", f"{number}-{at}", annotations={"of": f"{number}-{at}"})
            if at % 3 == 0:
                client.ask("DELETE", f"a/b/manifests/{number}-{at}")
        client.session.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(push, range(8)))
    client = Client(server.address)
    expected = sorted(f"{number}-{at}" for number in range(8) for at in range(15) if at % 3)
    assert client.tags("a/b") == expected
    assert len(on_disk(root, "a+b")) == 8 * 15
    client.session.close()


def test_reads_during_writes_see_one_version_or_the_other(server: Server) -> None:
    client = Client(server.address)
    digests = [client.push_image("a", "latest", annotations={"is": str(at)}) for at in range(2)]
    ended = threading.Event()

    def read() -> set[str]:
        reader, seen = Client(server.address), set()
        while not ended.is_set():
            answer = reader.ask("GET", "a/manifests/latest")
            assert answer.status_code == 200
            assert digest_of(answer.content) == answer.headers["Docker-Content-Digest"]
            seen.add(answer.headers["Docker-Content-Digest"])
        reader.session.close()
        return seen

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(read) for _ in range(3)]
        for at in range(60):
            client.push("a", "latest", image(annotations={"is": str(at % 2)}))
        ended.set()
        assert all(one.result() <= set(digests) for one in readers)
    client.session.close()


def spoken(address: str, sent: bytes) -> bytes:
    """Everything a server says to `sent` until it ends the connection."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(sent)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /v2/ HTTP/2.0\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nno header\r\n\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 400),
        (b"GET /v2/ HTTP/1.1\r\nX: " + b"y" * 20_000 + b"\r\n\r\n", 400),
        (b"GET /v2/?" + b"y" * 9_000 + b" HTTP/1.1\r\n\r\n", 414),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: x\r\n\r\nabc", 400),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: -1\r\n\r\nabc", 400),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n", 400),
        (b"PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 999999999\r\n\r\nabc", 413),
        (b"GET /v2/ HTTP/1.0\r\n\r\n", 200),
        (b"GET /v2/ HTTP/1.1\r\nConnection: close\r\n\r\n", 200),
    ],
)
def test_an_answer_that_ends_the_connection_says_so(server: Server, sent: bytes, status: int) -> None:
    received = spoken(server.address, sent + b"GET /v2/ HTTP/1.1\r\n\r\n" * (status != 200))
    assert received.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"\r\nConnection: close\r\n" in received
    assert received.count(b"\r\nDate: ") == 1


def test_requests_in_one_send_are_answered_in_order(server: Server) -> None:
    chunked = (
        b"PATCH /v2/a/blobs/uploads/x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n"
    )
    sized = b"PUT /v2/a/tags/list HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"
    received = spoken(server.address, chunked + sized + b"\r\nGET /v2/ HTTP/1.1\r\n\r\n")
    assert re.findall(rb"HTTP/1\.1 (\d+) ", received) == [b"404", b"405", b"200"]


def test_a_client_that_asks_before_it_sends_is_told_to_go_on(server: Server) -> None:
    head = f"POST /v2/a/blobs/uploads/?digest={digest_of(LAYER)} HTTP/1.1\r\nExpect: 100-continue\r\n"
    received = spoken(server.address, head.encode() + f"Content-Length: {len(LAYER)}\r\n\r\n".encode() + LAYER)
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\n")
    head = head.replace("/a/", "/A/")
    received = spoken(server.address, head.encode() + f"Content-Length: {len(LAYER)}\r\n\r\n".encode() + LAYER)
    assert received.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Connection: close" in received


def test_a_client_still_sending_can_read_why_it_is_refused(client: Client) -> None:
    answer = client.ask("PUT", "a/manifests/1", data=b" " * 30_000_000, headers={"Content-Type": OCI_MANIFEST})
    assert refused(answer) == (413, "SIZE_INVALID")
    assert answer.headers["Connection"] == "close"
    assert client.ask("GET", "/v2/").status_code == 200


def test_clients_that_go_away_are_not_talked_about(
    client: Client, server: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    digest = client.push_blob("a", os.urandom(20_000_000))
    host, port = server.address.split(":")
    for sent in (
        f"GET /v2/a/blobs/{digest} HTTP/1.1\r\n\r\n",
        "PUT /v2/a/manifests/1 HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc",
        "GET /v2/ HT",
        "",
    ):
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            connection.sendall(sent.encode())
            time.sleep(0.05)
    assert client.ask("GET", "/v2/").status_code == 200
    time.sleep(0.1)
    assert capfd.readouterr() == ("", "")


def test_a_cut_upload_tells_where_to_go_on(client: Client, server: Server) -> None:
    place = client.start_upload("a")
    host, port = server.address.split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"PATCH {place} HTTP/1.1\r\nContent-Length: 35\r\n\r\n".encode() + LAYER[:10])
        while client.ask("GET", place).headers["Range"] == "0-0":
            time.sleep(0.01)
        connection.shutdown(socket.SHUT_WR)
        assert connection.recv(1) == b""
    assert client.ask("GET", place).headers["Range"] == "0-9"
    done = client.ask("PUT", place, params={"digest": digest_of(LAYER)}, data=LAYER[10:])
    assert done.status_code == 201


def test_every_request_can_be_watched(root: Path) -> None:
    seen: list[Seen] = []
    with Server(root, on_request=seen.append) as server:
        client = Client(server.address)
        client.ask("GET", "/v2/")
        client.ask("HEAD", "a/manifests/1?x=y")
        client.session.close()
    assert seen == [Seen("GET", "/v2/", 200), Seen("HEAD", "/v2/a/manifests/1?x=y", 404)]


def test_a_middleware_may_answer_instead_lie_drip_or_hang_up(root: Path) -> None:
    def vicious(request, honest):
        match request.path.rpartition("/")[2]:
            case "busy":
                return Answer(status=503, headers={"Retry-After": "1"})
            case "lie":
                answer = honest(request)
                return Answer(status=answer.status, headers={**answer.headers, "Docker-Content-Digest": NOWHERE})
            case "short":
                return Answer(status=200, headers={"Content-Length": "10"}, body=iter([b"abc"]))
            case "drip":
                return Answer(status=200, body=iter([b"a", b"b", b"c"]))
            case "hang-up":
                raise ConnectionAbortedError
        return honest(request)

    with Server(root, middleware=vicious) as server:
        client = Client(server.address)
        client.push_image("a", "lie")
        assert client.ask("GET", "a/manifests/busy").headers["Retry-After"] == "1"
        assert client.ask("HEAD", "a/manifests/lie").headers["Docker-Content-Digest"] == NOWHERE
        assert client.ask("GET", f"a/manifests/{digest_of(image())}").content == image()
        assert client.ask("GET", "drip").content == b"abc"
        with pytest.raises(requests.ConnectionError):
            client.ask("GET", "hang-up")
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
            client.ask("GET", "short")
        client.session.close()


def test_a_port_in_use_is_refused_with_a_remedy(server: Server, root: Path) -> None:
    port = int(server.address.rpartition(":")[2])
    with pytest.raises(Failed) as refusal:
        Server(root, port=port)
    assert str(refusal.value) == (
        f"cannot listen on 127.0.0.1:{port}: Address already in use\n  Choose another port, or stop what uses this one."
    )


def test_a_server_that_never_started_can_be_stopped(root: Path) -> None:
    Server(root).stop()


def test_stopping_does_not_wait_for_idle_connections(root: Path) -> None:
    with Server(root) as server:
        clients = [Client(server.address) for _ in range(5)]
        for client in clients:
            client.ask("GET", "/v2/")
        before = time.monotonic()
    assert time.monotonic() - before < 2
    for client in clients:
        client.session.close()
