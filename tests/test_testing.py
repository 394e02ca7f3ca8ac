"""The toolbox for tests: what a registry with vices says byte for byte, its log, its logins, the proxies; its page."""

import base64
import gzip
import inspect
import json
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
import trustme

from imagewright.documents import OCI_INDEX
from imagewright.testing import proxy as proxies
from imagewright.testing import vices
from imagewright.testing.images import Picture, layer, push
from imagewright.testing.logins import Basic, Bearer
from imagewright.testing.proxy import DelayingProxy, Fault, FaultyProxy
from imagewright.testing.registry import Registry
from imagewright.testing.vices import KINDS, Vice

PLATFORMS = ("linux/amd64", "linux/arm64")
INDEX, TAGS = "/v2/a/b/manifests/1.0", "/v2/a/b/tags/list"
NOWHERE = "sha256:" + "0" * 64
ANOTHER = "sha256:ae448ac86c4e8e4dec645729708ef41873ae79c6dff84eff73360989487f08e5"


@dataclass(frozen=True, slots=True)
class Reply:
    """What came over a connection until it ended. end: `end`, `reset` or `silence`."""

    raw: bytes
    end: str

    @property
    def head(self) -> str:
        return self.raw.partition(b"\r\n\r\n")[0].decode()

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    def header(self, name: str) -> str | None:
        found = re.search(rf"^{name}: (.*?)\r?$", self.head, re.MULTILINE)
        return found[1] if found else None

    @property
    def status(self) -> int:
        return int(self.head.split()[1])


def ask(address: str, target: str = INDEX, *, method: str = "GET", patience: float = 0.3, most: int = 2**20) -> Reply:
    """Asks for one thing on a connection of its own, and reads until its end, or `most` bytes."""
    host, port = address.split(":")
    raw = b""
    with socket.create_connection((host, int(port)), timeout=patience) as connection:
        connection.sendall(f"{method} {target} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        until = time.monotonic() + patience
        try:
            while len(raw) < most and time.monotonic() < until:
                piece = connection.recv(65536)
                if not piece:
                    return Reply(raw, "end")
                raw += piece
        except TimeoutError:
            pass
        except ConnectionResetError:
            return Reply(raw, "reset")
    return Reply(raw, "silence")


Start = Callable[..., Registry]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts registries that have the image `a/b:1.0`."""
    with ExitStack() as stack:

        def made(*found: Vice, **settings: object) -> Registry:
            registry = Registry(tmp_path / "registry", *found, **settings)  # type: ignore[arg-type]
            pictures = {one: Picture(steps=[layer({"etc/arch": one})]) for one in PLATFORMS}
            push(registry.sink, "a/b", ["1.0"], pictures)
            return stack.enter_context(registry)

        yield made


@pytest.fixture
def honest(start: Start) -> Registry:
    return start()


def children(registry: Registry) -> list[str]:
    index = json.loads(ask(registry.address).body)
    return [f"/v2/a/b/manifests/{one['digest']}" for one in index["manifests"]]


def configs(registry: Registry) -> list[str]:
    manifests = [json.loads(ask(registry.address, one).body) for one in children(registry)]
    return [f"/v2/a/b/blobs/{one['config']['digest']}" for one in manifests]


# The log.


def test_a_registry_without_vices_writes_down_each_kind_of_request(honest: Registry) -> None:
    child, config = children(honest)[1], configs(honest)[1]
    honest.becomes()
    asked = [
        ("GET", "/v2/", "ping", 200),
        ("GET", "/token?scope=x", "token", 404),
        ("GET", INDEX, "index", 200),
        ("HEAD", INDEX, "index", 200),
        ("GET", child, "child", 200),
        ("GET", config, "config", 200),
        ("GET", f"{TAGS}?n=1", "tags", 200),
        ("PUT", "/v2/a/b/manifests/2.0", "push", 400),
        ("POST", "/v2/a/b/blobs/uploads/", "upload", 202),
        ("DELETE", f"/v2/a/b/manifests/{NOWHERE}", "delete", 404),
        ("GET", "/v2/_catalog", "other", 200),
    ]
    for method, target, _, _ in asked:
        ask(honest.address, target, method=method)
    assert [(one.method, one.target, one.kind, one.status) for one in honest.log] == asked
    assert [one.number for one in honest.log] == list(range(1, 12))
    assert {one.kind for one in honest.log} == set(KINDS)
    assert {one.vice for one in honest.log} == {""}


def test_the_log_names_repository_reference_platform_and_authorization(honest: Registry) -> None:
    child, config = children(honest)[1], configs(honest)[1]
    honest.becomes()
    url = f"http://{honest.address}"
    for target in (INDEX, child, config, TAGS):
        requests.get(url + target, headers={"Authorization": "Bearer x"}, timeout=5)
    found = [(one.repository, one.reference, one.platform, one.authorization) for one in honest.log]
    assert found == [
        ("a/b", "1.0", "", "Bearer x"),
        ("a/b", child.rpartition("/")[2], "linux/arm64", "Bearer x"),
        ("a/b", config.rpartition("/")[2], "linux/arm64", "Bearer x"),
        ("a/b", "", "", "Bearer x"),
    ]


def test_the_log_names_the_vice_and_has_no_status_where_there_was_no_answer(start: Start) -> None:
    registry = start(vices.hangs_up().at(1), vices.speaks_no_http().at(2), vices.refuses().at(3))
    for _ in range(4):
        ask(registry.address)
    found = [(one.vice, one.status) for one in registry.log]
    assert found == [("hangs_up", None), ("speaks_no_http", None), ("refuses(403)", 403), ("", 200)]


# When a vice applies.


def statuses(registry: Registry, *targets: str) -> list[int]:
    return [ask(registry.address, one).status for one in targets]


def test_a_vice_applies_to_every_request_until_it_is_told_to_which(start: Start) -> None:
    registry = start(vices.refuses())
    assert statuses(registry, "/v2/", INDEX, TAGS) == [403, 403, 403]
    registry.becomes(vices.refuses().on("tags", "ping"))
    assert statuses(registry, "/v2/", INDEX, TAGS) == [403, 200, 403]
    registry.becomes(vices.refuses().at(1, 3))
    assert statuses(registry, INDEX, INDEX, INDEX, INDEX) == [403, 200, 403, 200]
    registry.becomes(vices.refuses().since(3))
    assert statuses(registry, INDEX, INDEX, INDEX, INDEX) == [200, 200, 403, 403]
    registry.becomes(vices.refuses().on("index").times(2))
    assert statuses(registry, TAGS, INDEX, INDEX, INDEX) == [200, 403, 403, 200]
    registry.becomes(vices.refuses().where(lambda asked: asked.reference == "1.0").since(2))
    assert statuses(registry, INDEX, TAGS, INDEX) == [200, 200, 403]


def test_of_several_vices_the_first_that_applies_answers(start: Start) -> None:
    registry = start(vices.refuses(401).times(1), vices.is_overloaded().on("index").times(1), vices.refuses(403))
    assert statuses(registry, INDEX, INDEX, INDEX) == [401, 503, 403]


def test_a_vice_may_be_about_one_platform(start: Start) -> None:
    registry = start()
    targets = children(registry) + configs(registry)
    registry.becomes(vices.refuses().platform("linux/arm64/v8"))
    assert statuses(registry, INDEX, *targets) == [200, 200, 403, 200, 403]


def test_becoming_another_starts_log_and_counting_anew_and_ends_what_waits(start: Start) -> None:
    registry = start(vices.falls_silent().times(1))
    host, port = registry.address.split(":")
    with socket.create_connection((host, int(port)), timeout=5) as waiting:
        waiting.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        while not registry.log:
            time.sleep(0.01)
        registry.becomes(vices.refuses().at(1))
        assert waiting.recv(1) == b""
    assert statuses(registry, INDEX, INDEX) == [403, 200]
    assert [one.number for one in registry.log] == [1, 2]


def test_a_registry_ends_although_some_wait_for_it(start: Start, tmp_path: Path) -> None:
    registry = Registry(tmp_path / "registry", vices.drips(60))
    with registry:
        ask(registry.address, "/v2/", patience=0.05)
        before = time.monotonic()
    assert time.monotonic() - before < 2


# What each vice does.


JSON_404 = b'{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}'
ANSWERS: list[tuple[Vice, int, bytes | None]] = [
    # vice, status, body (None: the right one)
    (vices.answers(410, b"gone"), 410, b"gone"),
    (vices.answers_404_as_json(), 404, JSON_404),
    (vices.answers_404_as_html(), 404, b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>"),
    (vices.answers_404_as_text(), 404, b"404 page not found\n"),
    (vices.forgets_everything(), 404, JSON_404),
    (vices.refuses(), 403, b'{"errors": [{"code": "DENIED", "message": "denied"}]}'),
    (vices.challenges("Bearer x"), 401, b'{"errors": [{"code": "UNAUTHORIZED", "message": "unauthorized"}]}'),
    (vices.is_overloaded(429), 429, b'{"errors": [{"code": "TOOMANYREQUESTS", "message": "toomanyrequests"}]}'),
    (vices.lies_about_digest(), 200, None),
    (vices.states_no_digest(), 200, None),
    (vices.serves(b"[]"), 200, b"[]"),
    (vices.serves_a_login_page(), 200, b"<!doctype html><title>Sign in</title>"),
    (vices.serves_nothing(), 200, b""),
    (vices.serves_nothing(204), 204, b""),
    (vices.is_slow(0.01), 200, None),
    (vices.redirects("http://127.0.0.2:1{target}", 302), 302, b""),
    (vices.redirects_in_a_loop(), 307, b""),
    (vices.redirects_in_hops(2), 307, b""),
    (vices.redirects_to_metadata(), 307, b""),
    (vices.links_elsewhere("http://127.0.0.2:1/"), 200, None),
    (vices.lists_no_end_of_tags(), 200, None),
    (vices.lists_nothing(), 200, None),
    (vices.forgets_children(), 200, None),
    (vices.takes_and_loses(), 200, None),
]


@pytest.mark.parametrize(("vice", "status", "body"), ANSWERS, ids=lambda one: one.name if isinstance(one, Vice) else "")
def test_a_vice_answers_with_a_whole_answer(start: Start, vice: Vice, status: int, body: bytes | None) -> None:
    registry = start()
    right = ask(registry.address)
    registry.becomes(vice)
    reply = ask(registry.address)
    assert (reply.status, reply.body, reply.end) == (status, right.body if body is None else body, "end")


def test_vices_of_headers_change_what_they_say(start: Start) -> None:
    registry = start()
    right = ask(registry.address)
    said = {
        vices.lies_about_digest(): (
            "Docker-Content-Digest",
            ANOTHER,
        ),
        vices.states_no_digest(): ("Docker-Content-Digest", None),
        vices.serves_other_bytes(): ("Docker-Content-Digest", right.header("Docker-Content-Digest")),
        vices.challenges("Bearer x"): ("WWW-Authenticate", "Bearer x"),
        vices.is_overloaded(503, "7"): ("Retry-After", "7"),
        vices.redirects("http://127.0.0.2:1{target}"): ("Location", f"http://127.0.0.2:1{INDEX}"),
        vices.redirects_in_a_loop(): ("Location", INDEX),
        vices.redirects_in_hops(2): ("Location", f"{INDEX}?hop=1"),
        vices.redirects_to_metadata(): ("Location", "http://169.254.169.254/latest/meta-data/"),
        vices.promises(10**15): ("Content-Length", "1000000000000000"),
        vices.serves_a_login_page(): ("Content-Type", "text/html"),
    }
    for vice, (name, expected) in said.items():
        registry.becomes(vice)
        assert ask(registry.address, most=1000).header(name) == expected, vice.name


def test_other_bytes_mean_the_same(start: Start) -> None:
    registry = start()
    right = ask(registry.address)
    registry.becomes(vices.serves_other_bytes())
    other = ask(registry.address)
    assert other.body == right.body + b"\n"
    assert other.header("Content-Length") == str(len(right.body) + 1)
    registry.becomes(vices.serves_too_much(5000))
    assert ask(registry.address).body == right.body.ljust(5000)


def test_a_part_is_the_first_half(start: Start) -> None:
    registry = start()
    right = ask(registry.address)
    registry.becomes(vices.serves_a_part())
    part = ask(registry.address)
    assert (part.status, part.body) == (206, right.body[: len(right.body) // 2])
    assert part.header("Content-Range") == f"bytes 0-{len(part.body) - 1}/{len(right.body)}"


@pytest.mark.parametrize("admits", [False, True])
def test_a_body_that_is_cut_may_admit_it(start: Start, admits: bool) -> None:
    registry = start()
    right = ask(registry.address)
    registry.becomes(vices.cuts_the_body(admits=admits))
    cut = ask(registry.address)
    assert (cut.body, cut.end) == (right.body[: len(right.body) // 2], "end")
    assert cut.header("Content-Length") == str(len(cut.body) if admits else len(right.body))
    registry.becomes(vices.cuts_a_character(admits=admits))
    cut = ask(registry.address)
    assert cut.body == right.body[:-1] + b', "annotations": {"author": "\xc3'
    assert cut.header("Content-Length") == str(len(cut.body) + (0 if admits else 3))


def test_what_is_compressed_unpacks_to_far_more(start: Start) -> None:
    reply = ask(start(vices.compresses(10**7)).address)
    assert reply.header("Content-Encoding") == "gzip"
    assert len(reply.body) < 20_000
    assert gzip.decompress(reply.body) == b" " * 10**7


def test_a_zstd_frame_is_blocks_that_repeat_a_byte(start: Start) -> None:
    reply = ask(start(vices.compresses(2**17 + 5, "zstd")).address)
    assert reply.header("Content-Encoding") == "zstd"
    # magic, no checksum, window of 128 KiB, a block of 2**17 spaces, the last block of 5
    assert reply.body.hex() == "28b52ffd0038" + "020010" + "20" + "2b0000" + "20"


def test_an_endless_body_goes_on(start: Start) -> None:
    reply = ask(start(vices.is_endless()).address, most=2**22)
    assert len(reply.raw) >= 2**22
    assert reply.header("Content-Length") is None


def test_a_drip_is_a_byte_at_a_time(start: Start) -> None:
    reply = ask(start(vices.drips(0.05)).address, patience=0.3)
    assert reply.end == "silence"
    assert 1 <= len(reply.body) <= 6
    assert int(reply.header("Content-Length") or 0) > 100


def test_headers_without_an_end_go_on(start: Start) -> None:
    reply = ask(start(vices.never_ends_its_headers(0.02)).address, patience=0.3)
    assert reply.end == "silence"
    assert b"\r\n\r\n" not in reply.raw
    assert reply.raw.startswith(b"HTTP/1.1 200 OK\r\nX-Another: header\r\nX-Another: header\r\n")


@pytest.mark.parametrize(
    ("vice", "raw", "end"),
    [
        (vices.falls_silent(), rb"", "silence"),
        (vices.falls_silent(5), rb"HTTP/1.1 200 .*\r\n\r\n.{5}", "silence"),
        (vices.hangs_up(), rb"", "end"),
        (vices.resets(), rb"", "reset"),
        (vices.resets(7), rb"HTTP/1.1 200 .*\r\n\r\n.{7}", "reset"),
        (vices.speaks_no_http(), rb"SSH-2.0-OpenSSH_9.9\r\n", "end"),
    ],
    ids=lambda one: one.name if isinstance(one, Vice) else "",
)
def test_a_vice_of_connections_ends_them_so(start: Start, vice: Vice, raw: bytes, end: str) -> None:
    reply = ask(start(vice).address)
    assert re.fullmatch(raw, reply.raw, re.DOTALL), reply.raw
    assert reply.end == end


def test_hops_lead_to_the_right_answer(start: Start) -> None:
    registry = start(vices.redirects_in_hops(2))
    reply = requests.get(f"http://{registry.address}{INDEX}", timeout=5)
    assert (reply.status_code, len(reply.history)) == (200, 2)


def test_children_are_forgotten_and_everything_in_the_registrys_words(start: Start) -> None:
    registry = start()
    child, config = children(registry)[0], configs(registry)[0]
    registry.becomes(vices.forgets_children())
    assert statuses(registry, INDEX, child, config) == [200, 404, 200]
    registry.becomes(vices.forgets_everything())
    codes = [
        json.loads(ask(registry.address, one).body)["errors"][0]["code"] for one in (INDEX, child, config, TAGS, "/v2/")
    ]
    assert codes == ["MANIFEST_UNKNOWN", "MANIFEST_UNKNOWN", "BLOB_UNKNOWN", "NAME_UNKNOWN", "MANIFEST_UNKNOWN"]


def test_pages_of_tags_have_no_end_are_empty_or_lead_elsewhere(start: Start) -> None:
    registry = start(vices.lists_no_end_of_tags())
    pages = [ask(registry.address, TAGS) for _ in range(2)]
    assert [json.loads(one.body)["tags"][0] for one in pages] == ["tag-1-0", "tag-2-0"]
    assert pages[1].header("Link") == f'<{TAGS}?last=tag-2-9>; rel="next"'
    registry.becomes(vices.lists_nothing())
    assert json.loads(ask(registry.address, TAGS).body) == {"name": "a/b", "tags": []}
    registry.becomes(vices.links_elsewhere("http://127.0.0.2:1/"))
    assert ask(registry.address, TAGS).header("Link") == '<http://127.0.0.2:1/>; rel="next"'


def test_what_is_taken_is_lost(start: Start) -> None:
    registry = start(vices.takes_and_loses())
    body = ask(registry.address).body
    put = requests.put(
        f"http://{registry.address}/v2/a/b/manifests/2.0", data=body, headers={"Content-Type": OCI_INDEX}, timeout=5
    )
    assert put.status_code == 201
    assert statuses(registry, "/v2/a/b/manifests/2.0") == [404]


# Logins.


def token(registry: Registry, scope: str = "repository:a/b:pull", login: str | None = None) -> requests.Response:
    headers = {"Authorization": f"Basic {login}"} if login else {}
    return requests.get(f"http://{registry.address}/token", params={"scope": scope}, headers=headers, timeout=5)


def with_token(registry: Registry, text: str, target: str = INDEX, method: str = "GET") -> int:
    url = f"http://{registry.address}{target}"
    return requests.request(method, url, headers={"Authorization": f"Bearer {text}"}, timeout=5).status_code


def test_a_basic_login_is_wanted_with_every_request(start: Start) -> None:
    registry = start(login=Basic(user="me", secret="key"))
    refused = ask(registry.address)
    assert (refused.status, refused.header("WWW-Authenticate")) == (401, 'Basic realm="a registry"')
    for secret, status in (("key", 200), ("other", 401)):
        found = requests.get(f"http://{registry.address}{INDEX}", auth=("me", secret), timeout=5)
        assert found.status_code == status


def test_a_challenge_names_the_registrys_own_token_server_and_the_scope(start: Start) -> None:
    registry = start(login=Bearer())
    realm = f'Bearer realm="http://{registry.address}/token",service="a registry"'
    assert ask(registry.address).header("WWW-Authenticate") == f'{realm},scope="repository:a/b:pull"'
    posted = ask(registry.address, "/v2/a/b/blobs/uploads/", method="POST")
    assert posted.header("WWW-Authenticate") == f'{realm},scope="repository:a/b:pull,push"'
    assert ask(registry.address, "/v2/").header("WWW-Authenticate") == realm


def test_a_token_is_good_for_its_repository_and_its_right(start: Start) -> None:
    login = Bearer()
    registry = start(login=login)
    reading = token(registry, login=login.encoded).json()["token"]
    assert with_token(registry, reading) == 200
    assert with_token(registry, reading, "/v2/a/c/manifests/1.0") == 401
    assert with_token(registry, reading, "/v2/a/b/blobs/uploads/", "POST") == 401
    writing = token(registry, "repository:a/b:pull,push", login.encoded).json()["token"]
    assert with_token(registry, writing) == 200
    assert with_token(registry, writing, "/v2/a/b/blobs/uploads/", "POST") == 202
    assert with_token(registry, "stolen") == 401
    assert with_token(registry, base64.urlsafe_b64encode(b"[]").decode()) == 401


def test_a_token_server_refuses_who_has_no_login_or_a_wrong_one(start: Start) -> None:
    registry = start(login=Bearer(denied=403, repositories=("a/c",)))
    wrong = base64.b64encode(b"robot:guessed").decode()
    assert [token(registry, login=one).status_code for one in (None, wrong)] == [403, 403]
    right = Bearer().encoded
    assert token(registry, login=right).status_code == 403
    assert token(registry, "repository:a/c:pull", right).status_code == 200


def test_a_token_server_may_serve_anyone_who_reads(start: Start) -> None:
    registry = start(login=Bearer(to_anyone=True))
    assert with_token(registry, token(registry).json()["token"]) == 200
    assert token(registry, "repository:a/b:pull,push").status_code == 401
    assert token(registry, login="wrong").status_code == 401


def test_a_token_comes_to_its_end_after_some_uses_or_seconds(start: Start) -> None:
    registry = start(login=Bearer(to_anyone=True, uses=2))
    text = token(registry).json()["token"]
    assert [with_token(registry, text) for _ in range(3)] == [200, 200, 401]
    assert with_token(registry, token(registry).json()["token"]) == 200
    registry = start(login=Bearer(to_anyone=True, seconds=0.1))
    text = token(registry).json()["token"]
    assert with_token(registry, text) == 200
    time.sleep(0.15)
    assert with_token(registry, text) == 401


def test_a_token_server_may_be_elsewhere(start: Start) -> None:
    login = Bearer(to_anyone=True)
    elsewhere = start(login=login)
    registry = start(login=Bearer(realm=f"http://{elsewhere.address}/token"))
    assert f'realm="http://{elsewhere.address}/token"' in (ask(registry.address).header("WWW-Authenticate") or "")
    assert with_token(registry, token(elsewhere).json()["token"]) == 200


def test_a_vice_comes_before_the_login(start: Start) -> None:
    registry = start(vices.is_overloaded().on("index").times(1), login=Bearer())
    assert statuses(registry, INDEX, INDEX) == [503, 401]


# TLS.


def test_a_registry_speaks_tls_where_it_is_given_a_certificate(start: Start, tmp_path: Path) -> None:
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    registry = start(login=Bearer(), tls=context)
    url = f"https://{registry.address}{INDEX}"
    found = requests.get(url, verify=str(tmp_path / "ca.pem"), timeout=5)
    assert found.status_code == 401
    assert f'realm="https://{registry.address}/token"' in found.headers["WWW-Authenticate"]
    with pytest.raises(requests.exceptions.SSLError):
        requests.get(url, timeout=5)
    assert len(registry.log) == 1
    registry.becomes(vices.resets(), vices.hangs_up())
    with pytest.raises(requests.ConnectionError):
        requests.get(url, verify=str(tmp_path / "ca.pem"), timeout=5)


# Proxies.


@pytest.mark.parametrize(
    ("fault", "length", "end"),
    [
        (proxies.resets_connections(), 0, "reset"),
        (proxies.resets_connections(after=30), 30, "reset"),
        (proxies.ends_connections(), 0, "end"),
        (proxies.ends_connections(after=30), 30, "end"),
        (proxies.silences_connections(), 0, "silence"),
        (proxies.silences_connections(after=30), 30, "silence"),
    ],
)
def test_a_fault_lets_so_many_bytes_through(honest: Registry, fault: Fault, length: int, end: str) -> None:
    whole = ask(honest.address)
    with FaultyProxy(honest.address, fault.on_connection(2)) as proxy:
        assert ask(proxy.address).body == whole.body
        reply = ask(proxy.address)
        assert (reply.raw, reply.end) == (whole.raw[:length], end)
        assert ask(proxy.address).body == whole.body
        assert (proxy.connections, proxy.requests) == (3, 3)


def get(address: str, session: requests.Session) -> int | str:
    try:
        return session.get(f"http://{address}{INDEX}", timeout=5).status_code
    except requests.ConnectionError:
        return "broken"


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (proxies.resets_connections().on_request(2), [200, "broken", 200, 200]),
        (proxies.resets_connections().since_request(3), [200, 200, "broken", "broken"]),
        (proxies.resets_connections().since_request(2).times(2), [200, "broken", "broken", 200]),
        (proxies.ends_connections().on_request(1, 4), ["broken", 200, 200, "broken"]),
    ],
)
def test_a_fault_strikes_at_requests_on_a_connection_that_is_kept(
    honest: Registry, fault: Fault, expected: list[int | str]
) -> None:
    with FaultyProxy(honest.address, fault) as proxy, requests.Session() as session:
        assert [get(proxy.address, session) for _ in range(4)] == expected
        assert proxy.connections == 1 + expected[:3].count("broken")


def test_connections_are_refused_from_the_start_or_later(honest: Registry) -> None:
    with FaultyProxy(honest.address, proxies.refuses_connections()) as proxy:
        with pytest.raises(ConnectionRefusedError):
            ask(proxy.address)
    with FaultyProxy(honest.address, proxies.refuses_connections(since=3)) as proxy:
        assert statuses_through(proxy, 2) == [200, 200]
        with pytest.raises(ConnectionRefusedError):
            ask(proxy.address)


def statuses_through(proxy: FaultyProxy, count: int) -> list[int]:
    return [ask(proxy.address).status for _ in range(count)]


def test_of_several_faults_the_first_that_strikes_counts(honest: Registry) -> None:
    faults = (proxies.resets_connections().times(1), proxies.ends_connections().on_connection(2))
    with FaultyProxy(honest.address, *faults) as proxy:
        assert [ask(proxy.address).end for _ in range(2)] == ["reset", "end"]
        assert statuses_through(proxy, 1) == [200]


def test_a_delay_is_half_a_round_trip_each_way(honest: Registry) -> None:
    with DelayingProxy(honest.address, round_trip=0.1) as proxy:
        before = time.monotonic()
        reply = ask(proxy.address, patience=2)
        assert reply.status == 200
        assert 0.1 <= time.monotonic() - before < 1


# The page about it.

PAGE = (Path(__file__).parents[1] / "docs" / "testing.md").read_text()


def told(functions: dict[str, object], made: type, leaving_out: int = 0) -> list[str]:
    """A line of a table for each public function that makes one of these, as its signature and docstring say."""
    return [
        f"| `{name}({', '.join([*inspect.signature(one).parameters][leaving_out:])})` | {inspect.getdoc(one)} |"
        for name, one in functions.items()
        if inspect.isfunction(one) and not name.startswith("_")
        if one.__annotations__.get("return") in (made, made.__name__)
    ]


@pytest.mark.parametrize(
    ("heading", "rows"),
    [
        ("| | |", told(vars(Vice), Vice, 1)),
        ("| the registry … | |", told(vars(vices), Vice)),
        ("| of `FaultyProxy` | |", told(vars(proxies), Fault)),
        ("| and when | |", told(vars(Fault), Fault, 1)),
    ],
)
def test_the_page_lists_each_vice_and_fault_in_its_own_words(heading: str, rows: list[str]) -> None:
    table = PAGE.partition(f"\n{heading}\n|---|---|\n")[2].partition("\n\n")[0].rstrip()
    assert len(rows) >= 4
    assert table.split("\n") == rows


def test_the_page_lists_each_kind_of_request() -> None:
    assert f"A kind is one of {', '.join(f'`{one}`' for one in KINDS)}.\n" in PAGE


def test_the_example_of_the_page_works(tmp_path: Path) -> None:
    code = PAGE.partition("```python\n")[2].partition("```")[0]
    found: dict[str, Callable[[Path], None]] = {}
    exec(compile(code, "docs/testing.md", "exec"), found)
    found["test_what_is_lost_is_built_again_and_what_is_not_known_is_not"](tmp_path)
