"""The registry client over real HTTP: what a transport can do to it, where it goes, what it repeats, what it writes."""

import contextlib
import gzip
import hashlib
import json
import math
import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import pytest

from imagewright.documents import ACCEPT, MAX_MANIFEST_BYTES, OCI_CONFIG, OCI_MANIFEST
from imagewright.embedded.server import Handler, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
from imagewright.errors import Failed
from imagewright.names import Digest, Reference, Repository, Tag
from imagewright.reasons import Unknown
from imagewright.registry.answers import Absent, Document, NotModified, Trouble
from imagewright.registry.client import Client, Pace
from imagewright.settings import BasesSettings, HostSettings, Limits, Settings, Surroundings
from imagewright.testing.images import StoreSink

CONFIG = b"{}"
NOWHERE = Digest("sha256:" + "0" * 64)
QUICK = Limits(connect=1, read=0.5, total=1.5)
ROOMY = Limits(connect=2, read=5, total=30)


def digest_of(content: bytes, algorithm: str = "sha256") -> Digest:
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")


BODY = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(CONFIG), "size": len(CONFIG)},
        "layers": [],
    }
).encode()
DIGEST = digest_of(BODY)

Reply = Answer | Callable[[], Answer | Exception]
"""What a host says: an answer, something that makes one, or an exception that ends the connection instead."""


def document(body: bytes | Iterator[bytes] = BODY, **headers: str) -> Answer:
    return Answer(status=200, headers={"Content-Type": OCI_MANIFEST, **headers}, body=body)


def page_of_tags(tags: Sequence[str], link: str = "") -> Answer:
    headers = {"Content-Type": "application/json"} | ({"Link": link} if link else {})
    return Answer(status=200, headers=headers, body=json.dumps({"name": "a/b", "tags": tags}).encode())


def refusal(status: int, code: str, **headers: str) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
    return Answer(status=status, headers={"Content-Type": "application/json", **headers}, body=body)


def cut(length: str) -> Answer:
    """A document that ends early, whatever it says about its length."""
    return document(iter([BODY[:50]]), **{"Content-Length": length})


class Host:
    """An embedded registry that writes down what it is asked. `replies`: given before its own answers, one each.

    `always`: given instead of its own answers, without end.
    """

    def __init__(self, root: Path, replies: Sequence[Reply], always: Reply | None) -> None:
        self.replies = list(replies)
        self.always = always
        self.requests: list[Request] = []
        self.server = Server(root, middleware=self._answer)
        self.sink = StoreSink(Store(root))

    @property
    def address(self) -> str:
        return self.server.address

    @property
    def repository(self) -> Repository:
        return Repository(self.address, "a/b")

    def tag(self, tag: str = "1.0") -> Reference:
        return self.repository.tagged(Tag(tag))

    def publish(self, tag: str = "1.0") -> None:
        self.sink.blob("a/b", CONFIG)
        self.sink.manifest("a/b", tag, OCI_MANIFEST, BODY)

    def _answer(self, request: Request, honest: Handler) -> Answer:
        self.requests.append(request)
        reply = self.replies.pop(0) if self.replies else self.always
        if reply is None:
            return honest(request)
        made = reply if isinstance(reply, Answer) else reply()
        if isinstance(made, Answer):
            return made
        raise made


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    with ExitStack() as stack:
        count = iter(range(100))

        def start(*replies: Reply, always: Reply | None = None) -> Host:
            host = Host(tmp_path / f"registry-{next(count)}", replies, always)
            stack.enter_context(host.server)
            return host

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    with ExitStack() as stack:

        def make(
            limits: Limits = ROOMY,
            surroundings: Surroundings | None = None,
            *,
            until: float = math.inf,
            **registries: HostSettings,
        ) -> Client:
            settings = Settings(
                repository=Repository("registry.example", "own/tools"),
                bases=BasesSettings(repository=Repository("registry.example", "own/bases")),
                registries=registries,
                limits=limits,
            )
            return stack.enter_context(Client(settings, surroundings or Surroundings(), until))

        yield make


def dripping(pieces: Sequence[bytes], pause: float) -> Iterator[bytes]:
    for piece in pieces:
        time.sleep(pause)
        yield piece


class RawServer:
    """Says the same to every connection, a part for each thing it hears; pause: seconds before each byte."""

    def __init__(self, *said: bytes, pause: float = 0) -> None:
        self.connections = 0
        self._said, self._pause = said, pause
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._ended = threading.Event()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def reference(self) -> Reference:
        return Repository(f"127.0.0.1:{self._listener.getsockname()[1]}", "a/b").tagged(Tag("1.0"))

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._speak, args=(connection,), daemon=True).start()

    def _speak(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the client has had enough
            for part in self._said:
                connection.recv(65536)
                if not self._pause:
                    connection.sendall(part)
                for byte in part if self._pause else b"":
                    if self._ended.wait(self._pause):
                        return
                    connection.sendall(bytes([byte]))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._listener.close()


# Reading.


def test_a_manifest_comes_with_its_bytes_its_type_and_its_digest(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve()
    host.publish()
    expected = Document(body=BODY, media_type=OCI_MANIFEST, digest=DIGEST)
    assert connect().manifest(host.tag()) == expected
    assert connect().manifest(host.repository.at(DIGEST)) == expected
    assert [one.headers["accept"] for one in host.requests] == [ACCEPT] * 2
    assert {one.headers["accept-encoding"] for one in host.requests} == {"identity"}


def test_a_tag_that_still_names_the_digest_costs_no_body(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve()
    host.publish()
    client = connect()
    assert client.manifest(host.tag(), unless=DIGEST) == NotModified(DIGEST)
    assert host.requests[0].headers["if-none-match"] == f'"{DIGEST}"'
    moved = client.manifest(host.tag(), unless=NOWHERE)
    assert isinstance(moved, Document)
    assert moved.digest == DIGEST


def test_a_304_that_nobody_asked_for_is_no_evidence(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    host = serve(always=Answer(status=304))
    assert connect().manifest(host.tag()) == Trouble(Unknown.UNEXPECTED_STATUS, "status 304")


def test_only_the_registrys_own_words_say_that_something_is_absent(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve()
    host.publish()
    client = connect()
    assert client.manifest(host.tag("2.0")) == Absent("MANIFEST_UNKNOWN")
    assert client.config(host.repository, NOWHERE) == Absent("BLOB_UNKNOWN")
    assert client.tags(Repository(host.address, "nobody/here")) == Absent("NAME_UNKNOWN")


def test_a_hosts_own_word_for_absent_counts_where_it_is_configured(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve(always=refusal(404, "NOT_FOUND"))
    assert connect().manifest(host.tag()) == Trouble(Unknown.UNEXPECTED_STATUS, "status 404 NOT_FOUND")
    configured = connect(**{host.address: HostSettings(missing_codes=("NOT_FOUND",))})
    assert configured.manifest(host.tag()) == Absent("NOT_FOUND")


WRONG_DIGEST = f"the bytes have digest {digest_of(CONFIG)}, asked for was {DIGEST}"
LYING_HEADER = f"the bytes have digest {DIGEST}, stated in the answer was {NOWHERE}"


@pytest.mark.parametrize(
    ("by_digest", "reply", "reason", "detail", "asked"),
    [
        (False, document(b"<html>", **{"Content-Type": "text/html"}), Unknown.GARBAGE, "a web page", 2),
        (False, document(b""), Unknown.GARBAGE, "status 200 with an empty body", 2),
        (False, Answer(status=204), Unknown.GARBAGE, "status 204 without the content", 2),
        (False, replace(document(), status=206), Unknown.GARBAGE, "status 206 without the content", 2),
        (True, document(CONFIG), Unknown.INTEGRITY, WRONG_DIGEST, 2),
        (False, document(**{"Docker-Content-Digest": NOWHERE}), Unknown.INTEGRITY, LYING_HEADER, 2),
        (False, document(**{"Docker-Content-Digest": "md5:ab"}), Unknown.BAD_DIGEST, "Docker-Content-Digest:", 1),
        (False, Answer(status=404, body=b"404 page not found"), Unknown.NOT_A_REGISTRY_ANSWER, "status 404", 2),
        (False, refusal(400, "UNSUPPORTED"), Unknown.UNEXPECTED_STATUS, "status 400 UNSUPPORTED, 'no'", 1),
        (False, refusal(403, "DENIED"), Unknown.AUTH, "status 403 DENIED, 'no'", 1),
        (False, refusal(401, "UNAUTHORIZED"), Unknown.AUTH, "status 401 without a challenge", 1),
        (False, partial(cut, str(len(BODY))), Unknown.GARBAGE, "the answer ended too early", 2),
        (False, partial(cut, "9" * 15), Unknown.GARBAGE, "the answer ended too early", 2),
        (False, document(b" " * (MAX_MANIFEST_BYTES + 1)), Unknown.TOO_LARGE, "more than 4194304 bytes", 1),
        (False, Answer(status=404, body=b"x" * 65537), Unknown.TOO_LARGE, "more than 65536 bytes", 1),
        (False, document(gzip.compress(bytes(2**25)), **{"Content-Encoding": "gzip"}), Unknown.TOO_LARGE, "more", 1),
        (False, document(b"no gzip", **{"Content-Encoding": "gzip"}), Unknown.GARBAGE, "the answer ended too early", 2),
    ],
)
def test_what_is_no_evidence_is_asked_for_as_often_as_the_table_says(
    serve: Callable[..., Host],
    connect: Callable[..., Client],
    by_digest: bool,
    reply: Reply,
    reason: Unknown,
    detail: str,
    asked: int,
) -> None:
    host = serve(always=reply)
    found = connect(ROOMY).manifest(host.repository.at(DIGEST) if by_digest else host.tag())
    assert isinstance(found, Trouble)
    assert (found.reason, found.detail[: len(detail)]) == (reason, detail)
    assert len(host.requests) == asked


def test_bytes_that_were_wrong_once_are_asked_for_again(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    for once in (document(CONFIG), document(b""), Answer(status=404, body=b"proxy"), ConnectionError):
        host = serve(once)
        host.publish()
        assert isinstance(connect().manifest(host.repository.at(DIGEST)), Document)
        assert len(host.requests) == 2


def test_an_answer_without_a_digest_header_is_hashed(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    expected = Document(body=BODY, media_type=OCI_MANIFEST, digest=DIGEST)
    assert connect().manifest(serve(document()).tag()) == expected


def test_a_document_may_be_named_by_sha512(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    long = digest_of(BODY, "sha512")
    host = serve(always=document(**{"Docker-Content-Digest": DIGEST}))
    assert connect().manifest(host.repository.at(long)) == Document(body=BODY, media_type=OCI_MANIFEST, digest=long)


# Time.


def test_a_drip_a_silence_and_a_head_without_end_stop_at_the_limits(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n"
    with (
        RawServer(b" ", pause=60) as silent,
        RawServer(head, pause=0.3) as slow_head,
        RawServer(b"x") as not_http,
    ):
        drip = serve(*(document(dripping([b" "] * 100, 0.3)) for _ in range(3)))
        expected = {
            silent.reference: (Unknown.TIMEOUT, "silent for 0.5 s"),
            slow_head.reference: (Unknown.TIMEOUT, "silent for 0.5 s"),
            drip.tag(): (Unknown.TIMEOUT, "the answer did not end in time"),
            not_http.reference: (Unknown.NETWORK, "the connection broke"),
        }

        def ask(reference: Reference) -> tuple[object, float]:
            started = time.monotonic()
            return connect(QUICK).manifest(reference), time.monotonic() - started

        with ThreadPoolExecutor(4) as pool:
            for (found, seconds), wanted in zip(pool.map(ask, expected), expected.values(), strict=True):
                assert isinstance(found, Trouble)
                assert (found.reason, found.detail) == wanted
                assert seconds < 2.5


def test_an_address_without_a_server_is_no_answer(connect: Callable[..., Client]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    found = connect().manifest(Repository(address, "a/b").tagged(Tag("1.0")))
    assert found == Trouble(Unknown.NETWORK, "connection refused")


def test_a_host_without_an_address_is_no_answer(connect: Callable[..., Client]) -> None:
    found = connect().manifest(Repository("registry.invalid", "a/b").tagged(Tag("1.0")))
    assert found == Trouble(Unknown.NETWORK, "the host's name cannot be resolved")


def test_a_reset_is_met_three_times_before_it_is_believed(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve(*[ConnectionResetError] * 3)
    found = connect().manifest(host.tag())
    assert isinstance(found, Trouble)
    assert (found.reason, len(host.requests)) == (Unknown.NETWORK, 3)


def test_plain_http_where_tls_is_due_is_not_accepted(connect: Callable[..., Client]) -> None:
    tunnel = RawServer(b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
    with tunnel as proxy:
        surroundings = Surroundings(proxies={"https": f"http://{proxy.reference.repository.host}"})
        client = connect(surroundings=surroundings)
        found = client.manifest(Repository("registry.example", "a/b").tagged(Tag("1.0")))
        assert found == Trouble(Unknown.TLS, "the server's certificate or its TLS cannot be trusted")
        assert proxy.connections == 1


# Being refused for a while.


def test_a_registry_that_asks_for_a_pause_gets_it(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    host = serve(refusal(429, "TOOMANYREQUESTS", **{"Retry-After": "1"}))
    host.publish()
    started = time.monotonic()
    assert isinstance(connect().manifest(host.tag()), Document)
    assert 1 <= time.monotonic() - started < 1.5
    assert len(host.requests) == 2


def test_a_pause_that_is_too_long_is_not_waited_for(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    for asked, limits in (("31", ROOMY), ("880000", ROOMY), ("3", QUICK)):
        host = serve(always=refusal(429, "TOOMANYREQUESTS", **{"Retry-After": asked}))
        found = connect(limits).manifest(host.tag())
        assert found == Trouble(
            Unknown.REGISTRY_UNAVAILABLE, "status 429 TOOMANYREQUESTS, 'no'", retry_after=float(asked)
        )
        assert len(host.requests) == 1


@pytest.mark.parametrize("status", [408, 429, 499, 500, 502, 503, 504, 522])
def test_a_failure_that_passes_is_waited_for(
    serve: Callable[..., Host], connect: Callable[..., Client], status: int
) -> None:
    host = serve(Answer(status=status, body=b"for a moment"))
    host.publish()
    assert isinstance(connect().manifest(host.tag()), Document)


def test_a_registry_that_fails_for_ever_is_asked_five_times(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve(always=Answer(status=503, body=b"<html>down</html>"))
    started = time.monotonic()
    assert connect().manifest(host.tag()) == Trouble(Unknown.REGISTRY_UNAVAILABLE, "status 503")
    assert len(host.requests) == 5
    assert 3.7 < time.monotonic() - started < 10


def test_after_five_failures_in_a_row_a_host_is_not_asked_any_more(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    client = connect(QUICK)
    host, other = serve(always=Answer(status=503, headers={"Retry-After": "60"})), serve()
    reasons = [client.manifest(host.tag(str(number))).reason for number in range(8)]
    assert reasons == [Unknown.REGISTRY_UNAVAILABLE] * 5 + [Unknown.HOST_DOWN] * 3
    assert len(host.requests) == 5
    assert client.manifest(other.tag()) == Absent("NAME_UNKNOWN")


def test_a_host_that_fails_now_and_then_is_down_after_twenty_failures_in_every_twentieth_request(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    overloaded = Answer(status=503, headers={"Retry-After": "60"})
    host = serve(*[overloaded, document()] * 30)
    client = connect(QUICK)
    found = [client.manifest(host.tag(str(number))) for number in range(50)]
    assert [isinstance(one, Document) for one in found[:39]] == [False, True] * 19 + [False]
    assert {one.reason for one in found[39:]} == {Unknown.HOST_DOWN}


def test_an_answer_ends_a_row_of_failures(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    overloaded = Answer(status=503, headers={"Retry-After": "60"})
    host = serve(*[overloaded] * 4, refusal(404, "MANIFEST_UNKNOWN"), *[overloaded] * 4, document())
    client = connect(QUICK)
    found = [client.manifest(host.tag(str(number))) for number in range(10)]
    assert isinstance(found[-1], Document)


# How often, and until when.


def test_a_burst_is_free_and_then_there_is_a_pace() -> None:
    pace = Pace(per_second=100)
    assert [pace.wait(now=1000.0) for _ in range(500)] == [0] * 500
    assert [round(pace.wait(now=1000.0), 3) for _ in range(3)] == [0.01, 0.02, 0.03]
    assert round(pace.wait(now=1000.02), 3) == 0.02


def test_a_host_that_was_left_alone_may_be_asked_in_a_burst_again() -> None:
    pace = Pace(per_second=100)
    waits = [pace.wait(now=0.0) for _ in range(600)]
    assert round(waits[-1], 3) == 1
    assert [pace.wait(now=6.0) for _ in range(500)] == [0] * 500
    assert pace.wait(now=6.0) > 0


def test_ten_thousand_requests_take_the_time_that_the_pace_says() -> None:
    pace, now = Pace(per_second=100), 0.0
    for _ in range(10_000):
        now += pace.wait(now)
    assert round(now, 2) == 95.0


def waits(pace: Pace, count: int, now: float) -> list[float]:
    return [round(pace.wait(now) + now - 1000, 3) for _ in range(count)]


def test_a_host_that_says_too_much_is_asked_half_as_much_from_then_on() -> None:
    pace = Pace(per_second=100)
    waits(pace, 10, now=1000)
    pace.slow_down(now=1000, pause=3)
    pace.slow_down(now=1000.5, pause=3)  # what was under way
    assert waits(pace, 3, now=1001) == [3, 3.02, 3.04]
    assert waits(pace, 2, now=1010) == [10, 10.02], "no burst, however long it was left alone"
    pace.slow_down(now=1011, pause=1)
    assert waits(pace, 3, now=1011) == [12, 12.04, 12.08]


def test_a_host_without_a_limit_gets_one_when_it_says_too_much() -> None:
    pace = Pace(per_second=math.inf)
    assert waits(pace, 100, now=1000) + waits(pace, 100, now=1002) == [0] * 100 + [2] * 100
    pace.slow_down(now=1002, pause=1)
    assert waits(pace, 3, now=1002) == [3, 3.02, 3.04], "200 in two seconds were too much, so 50 a second"


def test_however_often_it_says_so_it_is_asked_five_times_a_second() -> None:
    pace = Pace(per_second=100)
    for at in range(20):
        pace.slow_down(now=1000 + 2 * at, pause=0)
    assert waits(pace, 2, now=1100) == [100, 100.2]


def test_when_the_time_for_the_run_is_over_nothing_is_asked(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve()
    host.publish()
    over = Trouble(Unknown.TIMEOUT, "the time for the whole run is over")
    assert connect(until=time.monotonic()).manifest(host.tag()) == over
    assert host.requests == []


def test_a_request_under_way_ends_with_the_time_for_the_run(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve(always=lambda: document(dripping([BODY[:1]] * 100, 0.05)))
    started = time.monotonic()
    found = connect(until=started + 0.5).manifest(host.tag())
    assert isinstance(found, Trouble)
    assert found.reason is Unknown.TIMEOUT
    assert time.monotonic() - started < 1.5


# Redirects, links, proxies: where a request goes.


def test_a_redirect_within_the_host_is_followed(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    host = serve(Answer(status=307, headers={"Location": f"/v2/a/b/manifests/{DIGEST}"}))
    host.publish()
    assert isinstance(connect().manifest(host.tag()), Document)
    assert [one.target for one in host.requests] == ["/v2/a/b/manifests/1.0", f"/v2/a/b/manifests/{DIGEST}"]


def test_a_redirect_to_another_port_of_the_same_loopback_address_is_followed(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    store = serve()
    store.publish()
    host = serve(Answer(status=302, headers={"Location": f"http://{store.address}/v2/a/b/blobs/{digest_of(CONFIG)}"}))
    found = connect().config(host.repository, digest_of(CONFIG))
    assert isinstance(found, Document)
    assert len(store.requests) == 1


@pytest.mark.parametrize(
    "location",
    [
        "http://localhost:{port}/x",
        "http://127.0.0.2:{port}/x",
        "https://127.0.0.2:{port}/x",
        "http://169.254.169.254/latest/meta-data",
        "https://169.254.169.254/latest/meta-data",
        "https://10.0.0.1/x",
        "https://[::1]:{port}/x",
        "http://cdn.example/x",
        "file:///etc/passwd",
        "ftp://127.0.0.1:{port}/x",
        "https://[::1",
        "//[",
    ],
)
def test_a_redirect_to_where_we_do_not_go_ends_there(
    serve: Callable[..., Host], connect: Callable[..., Client], location: str
) -> None:
    other = serve()
    host = serve(always=Answer(status=307, headers={"Location": location.format(port=other.address.split(":")[1])}))
    found = connect().manifest(host.tag())
    assert isinstance(found, Trouble)
    assert found.reason is Unknown.REDIRECT
    assert (len(host.requests), len(other.requests)) == (1, 0)


def test_a_redirect_in_a_loop_ends_after_three_hops(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    host = serve(always=Answer(status=302, headers={"Location": "/v2/a/b/manifests/1.0"}))
    assert connect().manifest(host.tag()) == Trouble(Unknown.REDIRECT, "redirected more than 3 times")
    assert len(host.requests) == 4


def test_the_body_of_a_redirect_is_not_read(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    sent = []

    def endless() -> Iterator[bytes]:
        for _ in range(200):
            sent.append(2**20)
            yield bytes(2**20)

    host = serve(Answer(status=302, headers={"Location": f"/v2/a/b/manifests/{DIGEST}"}, body=endless()))
    host.publish()
    assert isinstance(connect().manifest(host.tag()), Document)
    assert len(sent) < 50


def test_a_post_is_not_redirected(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    other = serve()
    host = serve(always=Answer(status=307, headers={"Location": f"http://{other.address}/v2/a/b/manifests/1.0"}))
    with pytest.raises(Failed):
        connect().put_manifest(host.tag(), BODY, OCI_MANIFEST)
    assert (len(host.requests), len(other.requests)) == (1, 0)


def test_netrc_is_not_read(
    serve: Callable[..., Host], connect: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".netrc").write_text("default login somebody password CANARY\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    host = serve()
    connect().manifest(host.tag())
    assert "authorization" not in host.requests[0].headers


def test_a_proxy_is_asked_to_connect_and_sees_no_credential(
    serve: Callable[..., Host], connect: Callable[..., Client], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # a value passed in counts, not the environment
    proxy = serve(always=Answer(status=403))
    (tmp_path / "auth.json").write_text('{"auths": {"registry.example": {"auth": "Q0FOQVJZ"}}}')
    surroundings = Surroundings(
        proxies={"https": f"http://{proxy.address}"},
        no_proxy="direct.invalid, .corp.invalid",
        auth_files=(str(tmp_path / "auth.json"),),
    )
    client = connect(surroundings=surroundings)
    hosts = ("registry.example", "direct.invalid", "a.corp.invalid", "notdirect.invalid")
    with ThreadPoolExecutor(len(hosts)) as pool:
        found = list(pool.map(client.manifest, [Repository(host, "a/b").tagged(Tag("1.0")) for host in hosts]))
    assert [one.reason for one in found if isinstance(one, Trouble)] == [Unknown.NETWORK] * 4
    assert {(one.method, one.target) for one in proxy.requests} == {
        ("CONNECT", "registry.example:443"),
        ("CONNECT", "notdirect.invalid:443"),
    }
    assert all("authorization" not in one.headers for one in proxy.requests)


def test_a_host_on_loopback_is_reached_without_the_proxy(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    proxy, host = serve(), serve()
    host.publish()
    surroundings = Surroundings(proxies={"http": f"http://{proxy.address}"})
    assert isinstance(connect(surroundings=surroundings).manifest(host.tag()), Document)
    assert proxy.requests == []


# Lists of tags.


def test_every_page_of_tags_is_read(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    host = serve(
        page_of_tags(["1", "2"], '</v2/a/b/tags/list?n=2&last=2>; rel="next"'),
        page_of_tags([], "<list?n=2&last=opaque%2Cb,c>; rel=next"),
        page_of_tags(["-not-a-tag", "3"]),
    )
    assert connect().tags(host.repository) == ("1", "2", "3")
    assert [one.target for one in host.requests] == [
        "/v2/a/b/tags/list?n=1000",
        "/v2/a/b/tags/list?n=2&last=2",
        "/v2/a/b/tags/list?n=2&last=opaque%2Cb,c",
    ]


def test_thousands_of_tags_come_whole(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    host = serve()
    names = tuple(sorted(f"{number}.0" for number in range(2300)))
    pages = [names[at : at + 1000] for at in range(0, 2300, 1000)]
    host.replies = [
        page_of_tags(one, f'<http://{host.address}/v2/a/b/tags/list?last={one[-1]}>; rel="next"' if more else "")
        for one, more in zip(pages, (True, True, False), strict=True)
    ]
    assert connect().tags(host.repository) == names


@pytest.mark.parametrize(
    "link", ["/v2/a/b/tags/list; rel=next", '</v2/a/b/tags/list>; =x; rel="next"', '<x; rel="next"']
)
def test_a_next_page_that_cannot_be_read_is_not_the_last_one(
    serve: Callable[..., Host], connect: Callable[..., Client], link: str
) -> None:
    found = connect().tags(serve(always=page_of_tags(["1"], link)).repository)
    assert isinstance(found, Trouble)
    assert (found.reason, found.detail[:43]) == (Unknown.MALFORMED, "the next page of tags cannot be read: Link:")


@pytest.mark.parametrize(
    "link", ["<http://{other}/v2/a/b/tags/list>", "<https://{host}/v2/a/b/tags/list>", "<//evil.example/x>", "<//[>"]
)
def test_the_next_page_is_on_the_same_host_or_nowhere(
    serve: Callable[..., Host], connect: Callable[..., Client], link: str
) -> None:
    other = serve()
    host = serve()
    host.always = page_of_tags(["1"], link.format(other=other.address, host=host.address) + '; rel="next"')
    assert connect().tags(host.repository) == Trouble(Unknown.REDIRECT, "the next page of tags is on another host")
    assert other.requests == []


@pytest.mark.parametrize(
    ("reply", "reason", "asked"),
    [
        (Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<html>sign in</html>"), Unknown.GARBAGE, 2),
        (Answer(status=200, body=b'{"name": "a/b"}'), Unknown.GARBAGE, 2),
        (Answer(status=200, body=b'{"tags": ["a", '), Unknown.GARBAGE, 2),
        (Answer(status=200, body=b'{"tags": "a"}'), Unknown.MALFORMED, 1),
        (Answer(status=404, body=b"not here"), Unknown.NOT_A_REGISTRY_ANSWER, 2),
        (refusal(404, "MANIFEST_UNKNOWN"), Unknown.UNEXPECTED_STATUS, 1),
        (Answer(status=200, body=b" " * (8 * 2**20 + 1)), Unknown.TOO_LARGE, 1),
    ],
)
def test_a_list_of_tags_that_is_none_is_no_list(
    serve: Callable[..., Host], connect: Callable[..., Client], reply: Answer, reason: Unknown, asked: int
) -> None:
    host = serve(always=reply)
    found = connect().tags(host.repository)
    assert isinstance(found, Trouble)
    assert (found.reason, len(host.requests)) == (reason, asked)


def test_a_page_that_fails_in_the_middle_makes_the_list_unknown(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    following = page_of_tags(["1"], '</v2/a/b/tags/list?last=1>; rel="next"')
    host = serve(following, refusal(403, "DENIED"))
    assert connect().tags(host.repository) == Trouble(Unknown.AUTH, "status 403 DENIED, 'no'")


def test_a_list_without_an_end_is_given_up(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    host = serve(always=page_of_tags(["1"], '</v2/a/b/tags/list>; rel="next"'))
    assert connect().tags(host.repository) == Trouble(Unknown.TOO_LARGE, "more than 1000 pages of tags")


# Blobs into files.

BLOB = os.urandom(3 * 2**20 + 17)


def everything_in(folder: Path) -> list[str]:
    return sorted(one.name for one in folder.iterdir()) if folder.exists() else []


def test_a_blob_becomes_a_file(serve: Callable[..., Host], connect: Callable[..., Client], tmp_path: Path) -> None:
    host = serve()
    host.sink.blob("a/b", BLOB)
    connect().blob(host.repository, digest_of(BLOB), tmp_path / "made" / "layer")
    assert (tmp_path / "made" / "layer").read_bytes() == BLOB
    assert (tmp_path / "made" / "layer").stat().st_mode & 0o777 == 0o644
    assert everything_in(tmp_path / "made") == ["layer"]


def test_a_blob_that_was_cut_is_fetched_anew_from_its_start(
    serve: Callable[..., Host], connect: Callable[..., Client], tmp_path: Path
) -> None:
    cut = Answer(status=200, headers={"Content-Length": str(len(BLOB))}, body=iter([BLOB[: 2**20]]))
    host = serve(cut)
    host.sink.blob("a/b", BLOB)
    connect().blob(host.repository, digest_of(BLOB), tmp_path / "made" / "layer")
    assert (tmp_path / "made" / "layer").read_bytes() == BLOB
    assert len(host.requests) == 2


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Answer(status=200, body=BLOB[:-1]), "could not be read: the bytes have digest "),
        (Answer(status=200, body=b""), "could not be read: the bytes have digest "),
        (Answer(status=200, headers={"Content-Length": "9999999"}, body=iter([BLOB])), "could not be read: the answer"),
        (refusal(404, "BLOB_UNKNOWN"), "is not there"),
        (Answer(status=404, body=b"where?"), "could not be read: status 404 without a registry's error body"),
        (refusal(403, "DENIED"), "could not be read: status 403 DENIED, 'no'"),
        (Answer(status=307, headers={"Location": "http://10.0.0.1/"}), "could not be read: redirected to"),
    ],
)
def test_a_blob_that_cannot_be_verified_leaves_nothing(
    serve: Callable[..., Host],
    connect: Callable[..., Client],
    tmp_path: Path,
    reply: Answer,
    said: str,
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "layer").write_bytes(b"what was there")
    host = serve(*([replace(reply, body=iter([BLOB]))] * 2 if isinstance(reply.body, Iterator) else [reply]))
    with pytest.raises(Failed) as failed:
        connect().blob(host.repository, digest_of(BLOB), folder / "layer")
    assert failed.value.reason.startswith(f"{host.repository}@{digest_of(BLOB)} {said}")
    assert everything_in(folder) == ["layer"]
    assert (folder / "layer").read_bytes() == b"what was there"


def test_a_blob_is_streamed_and_not_kept_in_memory(
    serve: Callable[..., Host], connect: Callable[..., Client], tmp_path: Path
) -> None:
    piece = bytes(2**20)
    expected = hashlib.sha256(piece * 64).hexdigest()
    host = serve(Answer(status=200, body=iter([piece] * 64)))
    tracemalloc.start()
    connect().blob(host.repository, Digest(f"sha256:{expected}"), tmp_path / "layer")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 16 * 2**20
    assert (tmp_path / "layer").stat().st_size == 64 * 2**20


# Writing.


@pytest.fixture
def layer(tmp_path: Path) -> Path:
    file = tmp_path / "layer"
    file.write_bytes(BLOB)
    return file


def test_what_is_pushed_is_there(
    serve: Callable[..., Host], connect: Callable[..., Client], layer: Path, tmp_path: Path
) -> None:
    host = serve()
    client = connect()
    assert not client.has_blob(host.repository, digest_of(BLOB))
    client.upload_blob(host.repository, digest_of(BLOB), layer)
    assert client.has_blob(host.repository, digest_of(BLOB))
    layer.write_bytes(CONFIG)
    client.upload_blob(host.repository, digest_of(CONFIG), layer)
    client.put_manifest(host.tag(), BODY, OCI_MANIFEST)
    found = client.manifest(host.tag())
    assert isinstance(found, Document)
    assert client.document(host.tag()) == (found.body, OCI_MANIFEST)


def test_a_blob_is_mounted_from_a_neighbour_or_not_at_all(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve()
    host.sink.blob("a/b", CONFIG)
    client = connect()
    target = Repository(host.address, "c/d")
    assert client.mount_blob(target, digest_of(CONFIG), host.repository)
    assert client.has_blob(target, digest_of(CONFIG))
    assert not client.mount_blob(target, NOWHERE, host.repository)  # 202: an upload instead
    assert host.requests[-1].target == f"/v2/c/d/blobs/uploads/?mount={NOWHERE}&from=a/b"


def test_nothing_that_writes_is_repeated(
    serve: Callable[..., Host], connect: Callable[..., Client], layer: Path
) -> None:
    started = Answer(status=202, headers={"Location": "/v2/a/b/blobs/uploads/1"})
    for fault in (Answer(status=503), Answer(status=429, headers={"Retry-After": "1"}), ConnectionResetError):
        host = serve(fault)
        with pytest.raises(Failed):
            connect().put_manifest(host.tag(), BODY, OCI_MANIFEST)
        assert [one.method for one in host.requests] == ["PUT"]
        for replies, methods in (((fault,), ["POST"]), ((started, fault), ["POST", "PUT"])):
            host = serve(*replies)
            with pytest.raises(Failed):
                connect().upload_blob(host.repository, digest_of(BLOB), layer)
            assert [one.method for one in host.requests] == methods


def test_a_mount_that_is_refused_is_not_repeated(serve: Callable[..., Host], connect: Callable[..., Client]) -> None:
    for status in (202, 404, 503):
        host = serve(Answer(status=status))
        assert not connect().mount_blob(host.repository, NOWHERE, Repository(host.address, "c/d"))
        assert [one.method for one in host.requests] == ["POST"]


@pytest.mark.parametrize(
    ("replies", "said"),
    [
        ([refusal(403, "DENIED")], "{repository} refuses an upload: status 403 DENIED, 'no'"),
        ([Answer(status=202)], "{repository} refuses an upload: status 202"),
        (
            [Answer(status=202, headers={"Location": "http://127.0.0.1:1/x"})],
            "{repository} wants the upload on another host: 'http://127.0.0.1:1/x'",
        ),
        (
            [Answer(status=202, headers={"Location": "//["})],
            "{repository} wants the upload on another host: '//['",
        ),
        (
            [Answer(status=202, headers={"Location": "/v2/a/b/blobs/uploads/1"}), refusal(413, "SIZE_INVALID")],
            "{repository} did not take {digest}: status 413 SIZE_INVALID, 'no'",
        ),
    ],
)
def test_an_upload_that_is_not_confirmed_is_an_error(
    serve: Callable[..., Host], connect: Callable[..., Client], layer: Path, replies: list[Answer], said: str
) -> None:
    host = serve(*replies)
    with pytest.raises(Failed) as failed:
        connect().upload_blob(host.repository, digest_of(BLOB), layer)
    assert failed.value.reason == said.format(repository=host.repository, digest=digest_of(BLOB))


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Answer(status=201, headers={"Docker-Content-Digest": NOWHERE}), "was taken as '{nowhere}', which is not what"),
        (Answer(status=201, headers={"Docker-Content-Digest": "rot13:x"}), "was taken as 'rot13:x', which is not what"),
        (Answer(status=200), "was not taken: status 200 without the content"),
        (refusal(400, "MANIFEST_BLOB_UNKNOWN"), "was not taken: status 400 MANIFEST_BLOB_UNKNOWN, 'no'"),
        (refusal(413, "TOO_LARGE"), "was not taken: status 413 TOO_LARGE, 'no'"),
    ],
)
def test_a_manifest_that_is_not_confirmed_is_an_error(
    serve: Callable[..., Host], connect: Callable[..., Client], reply: Answer, said: str
) -> None:
    host = serve(reply)
    with pytest.raises(Failed) as failed:
        connect().put_manifest(host.tag(), BODY, OCI_MANIFEST)
    assert failed.value.reason.startswith(f"{host.tag()} {said.format(nowhere=NOWHERE)}"[:110])


@pytest.mark.parametrize(
    "header", [{}, {"Docker-Content-Digest": DIGEST}, {"Docker-Content-Digest": digest_of(BODY, "sha512")}]
)
def test_a_manifest_that_is_confirmed_is_published(
    serve: Callable[..., Host], connect: Callable[..., Client], header: dict[str, str]
) -> None:
    host = serve(Answer(status=201, headers=header))
    connect().put_manifest(host.tag(), BODY, OCI_MANIFEST)
    assert host.requests[0].headers["content-type"] == OCI_MANIFEST


def test_a_question_for_a_blob_that_is_not_answered_is_an_error(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    host = serve(always=Answer(status=403))
    with pytest.raises(Failed) as failed:
        connect().has_blob(host.repository, NOWHERE)
    assert failed.value.reason == f"{host.repository} was asked for {NOWHERE}: status 403"


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (refusal(404, "MANIFEST_UNKNOWN"), "is not there (MANIFEST_UNKNOWN)"),
        (refusal(403, "DENIED"), "could not be read: status 403 DENIED, 'no'"),
    ],
)
def test_a_document_that_cannot_be_read_is_an_error(
    serve: Callable[..., Host], connect: Callable[..., Client], reply: Answer, said: str
) -> None:
    host = serve(always=reply)
    with pytest.raises(Failed) as failed:
        connect().document(host.tag())
    assert failed.value.reason == f"{host.tag()} {said}"


def test_no_more_connections_are_opened_than_the_settings_say(
    serve: Callable[..., Host], connect: Callable[..., Client]
) -> None:
    at_once, most, lock = 0, 0, threading.Lock()

    def counted(request: Request, honest: Handler) -> Answer:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.02)
        with lock:
            at_once -= 1
        return honest(request)

    host = serve()
    host.publish()
    with Server(Path(host.sink._store.root), middleware=counted) as server:
        client = connect(**{server.address: HostSettings(connections=3)})
        reference = Repository(server.address, "a/b").tagged(Tag("1.0"))
        with ThreadPoolExecutor(12) as pool:
            found = list(pool.map(client.manifest, [reference] * 24))
    assert all(isinstance(one, Document) for one in found)
    assert most == 3
