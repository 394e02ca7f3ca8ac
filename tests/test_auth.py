"""Who asks: challenges, token servers, places of credentials, and tokens over real HTTP."""

import base64
import json
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from imagewright.documents import OCI_CONFIG, OCI_MANIFEST
from imagewright.embedded.server import Handler, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
from imagewright.errors import Failed
from imagewright.names import Digest, Reference, Repository, Tag, digest_of
from imagewright.reasons import Unknown
from imagewright.registry import auth
from imagewright.registry.answers import Document, Trouble
from imagewright.registry.auth import Challenge, Credentials, parse_challenge, realm_is_declared
from imagewright.registry.client import Client
from imagewright.settings import BasesSettings, HostSettings, Limits, Settings, Surroundings
from imagewright.testing.images import StoreSink

HUB = "https://auth.docker.io/token"


# Challenges.


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (
            f'Bearer realm="{HUB}",service="registry.docker.io",scope="repository:a/b:pull"',
            Challenge("bearer", {"realm": HUB, "service": "registry.docker.io", "scope": "repository:a/b:pull"}),
        ),
        (
            f'Bearer realm="{HUB}",service="registry.docker.io",scope="repository:a/b:pull,push",error="invalid_token"',
            Challenge(
                "bearer",
                {
                    "realm": HUB,
                    "service": "registry.docker.io",
                    "scope": "repository:a/b:pull,push",
                    "error": "invalid_token",
                },
            ),
        ),
        (
            'Bearer realm="https://q.example/v2/auth",service="q.example"',
            Challenge("bearer", {"realm": "https://q.example/v2/auth", "service": "q.example"}),
        ),
        ('Bearer realm="https://ar.example/v2/token"', Challenge("bearer", {"realm": "https://ar.example/v2/token"})),
        (
            'Basic realm="https://1.ecr.example/",service="ecr.example"',
            Challenge("basic", {"realm": "https://1.ecr.example/", "service": "ecr.example"}),
        ),
        ("Basic", Challenge("basic", {})),
        (
            'BASIC realm="Repository Manager"',
            Challenge("basic", {"realm": "Repository Manager"}),
        ),
        (
            'bearer realm="https://h.example/service/token",service="harbor-registry"',
            Challenge("bearer", {"realm": "https://h.example/service/token", "service": "harbor-registry"}),
        ),
        (
            'Bearer realm="http://127.0.0.1:5000/auth/token",service="127.0.0.1",scope="repository::"',
            Challenge(
                "bearer", {"realm": "http://127.0.0.1:5000/auth/token", "service": "127.0.0.1", "scope": "repository::"}
            ),
        ),
        (
            'Bearer realm="https://a.example/api/docker/x/v2/token", service=a.example',
            Challenge("bearer", {"realm": "https://a.example/api/docker/x/v2/token", "service": "a.example"}),
        ),
        (r'Bearer realm="https://a.example/\"x\\y"', Challenge("bearer", {"realm": r'https://a.example/"x\y'})),
        (
            ' Bearer  REALM = "https://a.example/t" , Service = s ',
            Challenge("bearer", {"realm": "https://a.example/t", "service": "s"}),
        ),
        (
            'Bearer realm="https://a.example/t", Basic realm="x"',
            Challenge("bearer", {"realm": "https://a.example/t"}),
        ),
        ('Bearer realm="https://a.example/t', Challenge("bearer", {})),
        ("Bearer realm=", Challenge("bearer", {})),
        ("Bearer", Challenge("bearer", {})),
        ("Bearerrealm=x", None),
        ('Negotiate, Basic realm="x"', None),
        ('Digest realm="x", nonce="y"', None),
        ("", None),
    ],
)
def test_a_challenge_is_read_in_every_shape_that_registries_send(header: str, challenge: Challenge | None) -> None:
    assert parse_challenge(header) == challenge


@pytest.mark.parametrize(
    ("realm", "host", "settings", "declared"),
    [
        ("https://r.example/token", "r.example", HostSettings(), True),
        ("https://r.example:8443/token", "r.example:8443", HostSettings(), True),
        ("https://auth.docker.io/token", "registry-1.docker.io", HostSettings(), True),
        ("https://auth.docker.io/token", "r.example", HostSettings(), False),
        ("https://auth.example/token", "r.example", HostSettings(realms=("auth.example",)), True),
        ("https://auth.example/token", "r.example", HostSettings(), False),
        ("https://auth.example:444/token", "r.example", HostSettings(realms=("auth.example",)), False),
        ("https://r.example.evil.example/token", "r.example", HostSettings(), False),
        ("https://r.example@evil.example/token", "r.example", HostSettings(), False),
        ("https://evil.example/r.example", "r.example", HostSettings(), False),
        ("http://r.example/token", "r.example", HostSettings(), False),
        ("http://r.example/token", "r.example", HostSettings(plain_http=True), True),
        ("http://auth.example/token", "r.example", HostSettings(realms=("auth.example",)), False),
        ("https://10.0.0.1/token", "r.example", HostSettings(), False),
        ("http://169.254.169.254/latest", "r.example", HostSettings(plain_http=True), False),
        ("http://127.0.0.1:5000/token", "127.0.0.1:5000", HostSettings(), True),
        ("http://127.0.0.1:5001/token", "127.0.0.1:5000", HostSettings(), True),
        ("http://localhost:5000/token", "127.0.0.1:5000", HostSettings(), False),
        ("http://[::1]:5001/token", "[::1]:5000", HostSettings(), True),
        ("http://auth.example/token", "localhost:5000", HostSettings(), False),
        ("ftp://127.0.0.1/token", "127.0.0.1:5000", HostSettings(), False),
        ("file:///etc/passwd", "r.example", HostSettings(), False),
        ("https://[::1", "r.example", HostSettings(), False),
        ("Some text", "r.example", HostSettings(), False),
        ("", "r.example", HostSettings(), False),
    ],
)
def test_a_token_server_is_the_host_itself_or_one_that_is_named(
    realm: str, host: str, settings: HostSettings, declared: bool
) -> None:
    assert realm_is_declared(realm, host, settings) is declared


# Where credentials are.


def encoded(user: str, secret: str) -> str:
    return base64.b64encode(f"{user}:{secret}".encode()).decode()


def login(name: str) -> dict[str, str]:
    return {"auth": encoded(name, "secret")}


class Home:
    """A folder with auth files and helpers. `files`: in order of precedence."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: list[str] = []
        self.calls = root / "calls"
        (root / "bin").mkdir()

    def auth_file(self, content: Mapping[str, object] | str) -> None:
        file = self.root / f"auth-{len(self.files)}.json"
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        self.files.append(str(file))

    def helper(self, name: str, script: str) -> None:
        file = self.root / "bin" / f"docker-credential-{name}"
        file.write_text(f'#!/bin/sh\nread server\necho "$1 $server" >> {self.calls}\n{script}\n')
        file.chmod(0o755)

    @property
    def surroundings(self) -> Surroundings:
        return Surroundings(auth_files=tuple(self.files), path=f"{self.root / 'bin'}:/usr/bin:/bin")

    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []

    def found(self, host: str, repository: str = "a/b") -> str | None:
        return Credentials(self.surroundings).basic(host, repository)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.mark.parametrize(
    ("keys", "host", "repository", "found"),
    [
        (["r.example"], "r.example", "a/b", "r.example"),
        (["r.example"], "s.example", "a/b", None),
        (["r.example"], "r.example:443", "a/b", None),
        (["r.example", "r.example/a"], "r.example", "a/b", "r.example/a"),
        (["r.example", "r.example/a", "r.example/a/b"], "r.example", "a/b", "r.example/a/b"),
        (["r.example/a"], "r.example", "c/d", None),
        (["r.example/a"], "r.example", "ab/c", None),
        (["https://index.docker.io/v1/"], "registry-1.docker.io", "library/x", "https://index.docker.io/v1/"),
        (["index.docker.io"], "docker.io", "library/x", "index.docker.io"),
        (["docker.io", "https://index.docker.io/v1/"], "registry-1.docker.io", "library/x", "docker.io"),
        (["docker.io/library"], "docker.io", "library/x", "docker.io/library"),
        (["https://index.docker.io/v1/"], "r.example", "library/x", None),
    ],
)
def test_a_credential_stands_under_its_host_or_namespace(
    home: Home, keys: list[str], host: str, repository: str, found: str | None
) -> None:
    home.auth_file({"auths": {key: login(key) for key in keys}})
    assert home.found(host, repository) == (found and encoded(found, "secret"))


def test_the_first_file_that_knows_a_credential_counts(home: Home) -> None:
    home.files.append(str(home.root / "absent.json"))
    for broken in ("{", "[]", '"x"', "\x00", '{"auths": null, "credHelpers": null}', '{"auths": []}'):
        home.auth_file(broken)
    home.auth_file({"auths": {"r.example": {}, "s.example": {"auth": ""}, "t.example": None, "u.example": {"auth": 7}}})
    home.auth_file({"auths": {"r.example": login("first"), "u.example": login("u")}})
    home.auth_file({"auths": {"r.example": login("second"), "s.example": login("s"), "t.example": login("t")}})
    for host, user in (("r.example", "first"), ("s.example", "s"), ("t.example", "t"), ("u.example", "u")):
        assert home.found(host) == encoded(user, "secret")


ANSWERS = """echo '{"ServerURL": "x", "Username": "robot", "Secret": "s3cret"}'"""


def test_a_helper_is_asked_for_the_host_in_its_care(home: Home) -> None:
    home.helper("vault", ANSWERS)
    home.auth_file({"credHelpers": {"r.example": "vault"}})
    assert home.found("r.example") == encoded("robot", "s3cret")
    assert home.found("s.example") is None
    assert home.asked() == ["get r.example"]


def test_a_store_is_asked_where_no_file_holds_the_secret(home: Home) -> None:
    home.helper("store", ANSWERS)
    home.auth_file({"credsStore": "store", "auths": {"r.example": {}, "s.example": login("s")}})
    assert home.found("r.example") == encoded("robot", "s3cret")
    assert home.found("s.example") == encoded("s", "secret")
    assert home.found("docker.io") == encoded("robot", "s3cret")
    assert home.asked() == ["get r.example", "get https://index.docker.io/v1/"]


@pytest.mark.parametrize(
    "script",
    [
        "echo 'credentials not found in native keychain'; exit 1",
        f"{ANSWERS}; exit 1",
        "exit 0",
        "echo not JSON",
        "echo '[]'",
        """echo '{"Username": "robot"}'""",
        "echo 7",
        "kill -9 $$",
    ],
)
def test_a_helper_that_knows_nothing_is_not_the_end(home: Home, script: str) -> None:
    home.helper("vault", script)
    home.auth_file({"credHelpers": {"r.example": "vault"}})
    assert home.found("r.example") is None
    home.auth_file({"auths": {"r.example": login("elsewhere")}})
    assert home.found("r.example") == encoded("elsewhere", "secret")


@pytest.mark.parametrize("name", ["absent", "../vault", "", "a b", "$(id)"])
def test_a_helper_that_is_not_there_is_not_the_end(home: Home, name: str) -> None:
    home.auth_file({"credHelpers": {"r.example": name}})
    assert home.found("r.example") is None


def test_a_helper_that_hangs_does_so_once_and_for_a_limited_time(home: Home) -> None:
    assert auth.HELPER_SECONDS == 20
    home.helper("vault", "sleep 60")
    home.auth_file({"credHelpers": {"r.example": "vault"}})
    credentials = Credentials(home.surroundings, helper_seconds=0.5)
    started = time.monotonic()
    assert [credentials.basic("r.example", f"a/{number}") for number in range(20)] == [None] * 20
    assert time.monotonic() - started < 3
    assert home.asked() == ["get r.example"]


def test_where_a_credential_would_come_from_is_told_without_asking_a_helper(home: Home) -> None:
    home.helper("vault", ANSWERS)
    home.auth_file({"credHelpers": {"r.example": "vault"}})
    home.auth_file({"auths": {"r.example": login("r"), "s.example/a": login("s")}})
    credentials = Credentials(home.surroundings)
    told = {host: credentials.source(host, "a/b") for host in ("r.example", "s.example", "t.example")}
    first, second = home.files
    assert told == {"r.example": f"{first}, by docker-credential-vault", "s.example": second, "t.example": ""}
    assert home.asked() == []


def test_credentials_do_not_print_themselves(home: Home) -> None:
    home.auth_file({"auths": {"r.example": login("canary")}})
    credentials = Credentials(home.surroundings)
    secret = credentials.basic("r.example", "a/b")
    assert secret is not None
    assert secret not in repr(credentials) + str(credentials)


# Tokens over HTTP.

CONFIG = b"{}"
BODY = json.dumps(
    {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": digest_of(CONFIG), "size": len(CONFIG)},
        "layers": [],
    }
).encode()
LOGIN = encoded("robot", "s3cret")


class Guarded:
    """A registry that wants a token per repository, from itself unless `realm` says otherwise; or a login.

    tokens: the requests for tokens, as (scope, authorization). valid: tokens that count. denied: valid tokens that are
    not enough. token_answers: given instead of tokens, one each.
    """

    def __init__(self, root: Path, *, basic: bool = False, login_needed: bool = False) -> None:
        self.basic = basic
        self.login_needed = login_needed
        self.realm = ""
        self.service = "registry"
        self.tokens: list[tuple[str, str]] = []
        self.token_answers: list[Answer] = []
        self.token_pause = 0.0
        self.denied: set[str] = set()
        self.valid: dict[str, str] = {}
        self.seen: list[tuple[str, str, str | None, int]] = []
        self.bodies: list[int] = []
        self.barrier: threading.Barrier | None = None
        self._lock = threading.Lock()
        self.server = Server(root, middleware=self._answer)
        self.sink = StoreSink(Store(root))

    @property
    def address(self) -> str:
        return self.server.address

    def publish(self, *repositories: str) -> list[Reference]:
        for name in repositories:
            self.sink.blob(name, CONFIG)
            self.sink.manifest(name, "1.0", OCI_MANIFEST, BODY)
        return [Repository(self.address, name).tagged(Tag("1.0")) for name in repositories]

    def expire(self) -> None:
        self.valid.clear()

    def statuses(self) -> list[int]:
        return [status for *_, status in self.seen]

    def _answer(self, request: Request, honest: Handler) -> Answer:
        authorization = request.headers.get("authorization")
        if request.path == "/token":
            return self._token(request, authorization)
        repository = re.match("/v2/(.+)/(?:manifests|blobs|tags)/", request.path)
        assert repository
        refused = self._refuses(repository[1], request.method, authorization)
        denied = (authorization or "").removeprefix("Bearer ") in self.denied
        if refused and self.barrier:
            self.barrier.wait(5)
        answer = self._challenge() if refused else Answer(status=403) if denied else honest(request)
        with self._lock:
            self.seen.append((request.method, request.target, authorization, answer.status))
        return answer

    def _refuses(self, repository: str, method: str, authorization: str | None) -> bool:
        if self.basic:
            return authorization != f"Basic {LOGIN}"
        actions = "pull" if method in ("GET", "HEAD") else "pull,push"
        scope = self.valid.get((authorization or "").removeprefix("Bearer "))
        return scope != f"repository:{repository}:{actions}"

    def _challenge(self) -> Answer:
        realm = self.realm or f"http://{self.address}/token"
        text = 'Basic realm="Some text"' if self.basic else f'Bearer realm="{realm}",service="{self.service}"'
        return Answer(status=401, headers={"WWW-Authenticate": text}, body=b"true")

    def _token(self, request: Request, authorization: str | None) -> Answer:
        time.sleep(self.token_pause)
        with self._lock:
            scope = parse_qs(urlsplit(request.target).query)["scope"][0]
            self.tokens.append((scope, authorization or ""))
            if self.token_answers:
                return self.token_answers.pop(0)
            if self.login_needed and authorization != f"Basic {LOGIN}":
                return Answer(status=401)
            token = f"token-{len(self.tokens)}"
            self.valid[token] = scope
        return Answer(
            status=200, headers={"Content-Type": "application/json"}, body=json.dumps({"token": token}).encode()
        )


@pytest.fixture
def guard(tmp_path: Path) -> Iterator[Callable[..., Guarded]]:
    with ExitStack() as stack:
        count = iter(range(100))

        def start(**settings: bool) -> Guarded:
            made = Guarded(tmp_path / f"registry-{next(count)}", **settings)
            stack.enter_context(made.server)
            return made

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    with ExitStack() as stack:

        def make(surroundings: Surroundings | None = None, total: float = 30, **registries: HostSettings) -> Client:
            settings = Settings(
                repository=Repository("r.example", "own/tools"),
                bases=BasesSettings(repository=Repository("r.example", "own/bases")),
                registries=registries,
                limits=Limits(connect=2, read=5, total=total),
            )
            return stack.enter_context(Client(settings, surroundings or Surroundings()))

        yield make


def test_a_token_is_fetched_for_who_is_nobody(guard: Callable[..., Guarded], connect: Callable[..., Client]) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    assert isinstance(connect().manifest(reference), Document)
    assert registry.tokens == [("repository:a/b:pull", "")]
    assert [one[2:] for one in registry.seen] == [(None, 401), ("Bearer token-1", 200)]


def test_sixteen_threads_fetch_one_token_per_repository(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    references = registry.publish(*(f"a/r{number}" for number in range(8)))
    registry.token_pause = 0.02
    client = connect()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(client.manifest, references * 12))
    assert all(isinstance(one, Document) for one in found)
    assert sorted(registry.tokens) == [(f"repository:a/r{number}:pull", "") for number in range(8)]


def test_once_a_host_has_asked_tokens_are_fetched_before_they_are_asked_for(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    references = registry.publish("a/r0", "a/r1", "a/r2")
    client = connect()
    for reference in references:
        client.manifest(reference)
    assert registry.statuses() == [401, 200, 200, 200]


def test_a_token_at_its_end_is_replaced_once_whatever_the_threads(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    client = connect()
    client.manifest(reference)
    registry.expire()
    registry.barrier = threading.Barrier(16)
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(client.manifest, [reference] * 16))
    assert all(isinstance(one, Document) for one in found)
    assert len(registry.tokens) == 2
    answered = [one[2] for one in registry.seen if one[3] == 200]
    assert answered == ["Bearer token-1"] + ["Bearer token-2"] * 16


def test_a_server_that_refuses_its_own_tokens_is_asked_twice_and_no_more(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    client = connect()
    useless = Answer(status=200, body=b'{"access_token": "useless"}')
    registry.token_answers = [useless] * 3
    assert client.manifest(reference) == Trouble(Unknown.AUTH, "status 401")
    assert (len(registry.tokens), registry.statuses()) == (1, [401, 401])
    assert client.manifest(reference) == Trouble(Unknown.AUTH, "the login was refused")


def test_a_token_that_is_not_enough_is_replaced_once(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    reference, other = registry.publish("a/b", "a/c")
    registry.denied = {"token-1"}
    client = connect()
    assert isinstance(client.manifest(reference), Document)
    assert (len(registry.tokens), registry.statuses()) == (2, [401, 403, 200])
    registry.denied = {"token-2", "token-3"}
    assert client.manifest(reference) == Trouble(Unknown.AUTH, "status 403")
    assert len(registry.tokens) == 2
    assert isinstance(client.manifest(other), Document)  # another repository has a token of its own to replace
    assert len(registry.tokens) == 4


def test_a_login_that_is_not_enough_is_not_sent_again(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home
) -> None:
    registry = guard(basic=True)
    (reference,) = registry.publish("a/b")
    client = connect(surroundings_of(home, **{registry.address: LOGIN}))
    assert isinstance(client.manifest(reference), Document)
    registry.denied = {f"Basic {LOGIN}"}
    assert client.manifest(reference) == Trouble(Unknown.AUTH, "status 403")
    assert registry.statuses() == [401, 200, 403]


def test_a_token_server_that_denies_once_is_asked_again(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    registry.token_answers = [Answer(status=403)]
    assert isinstance(connect().manifest(reference), Document)


def test_a_token_for_reading_is_not_the_one_for_writing(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    client = connect()
    client.manifest(reference)
    client.put_manifest(reference, BODY, OCI_MANIFEST)
    assert [scope for scope, _ in registry.tokens] == ["repository:a/b:pull", "repository:a/b:pull,push"]


def test_a_repository_may_be_called_like_a_part_of_the_protocol(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/manifests/tags/blobs/b")
    assert isinstance(connect().manifest(reference), Document)
    assert registry.tokens == [("repository:a/manifests/tags/blobs/b:pull", "")]


def test_the_token_of_an_upload_ends_on_its_way_and_the_blob_arrives_whole(
    guard: Callable[..., Guarded], connect: Callable[..., Client], tmp_path: Path
) -> None:
    registry = guard()
    content = os.urandom(2**20)
    (tmp_path / "layer").write_bytes(content)
    once, honest = iter([True]), registry._refuses
    registry._refuses = lambda name, method, authorization: (  # type: ignore[method-assign]
        (method == "PUT" and next(once, False)) or honest(name, method, authorization)
    )
    repository = Repository(registry.address, "a/b")
    client = connect()
    client.upload_blob(repository, digest_of(content), tmp_path / "layer")
    assert [(one[0], one[3]) for one in registry.seen] == [("POST", 401), ("POST", 202), ("PUT", 401), ("PUT", 201)]
    client.blob(repository, digest_of(content), tmp_path / "back")
    assert (tmp_path / "back").read_bytes() == content


# Logins.


def surroundings_of(home: Home, **logins: str) -> Surroundings:
    home.auth_file({"auths": {host: {"auth": secret} for host, secret in logins.items()}})
    return home.surroundings


def test_a_login_goes_to_the_token_server_and_the_token_to_the_registry(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home
) -> None:
    registry = guard(login_needed=True)
    (reference,) = registry.publish("a/b")
    client = connect(surroundings_of(home, **{registry.address: LOGIN}))
    assert isinstance(client.manifest(reference), Document)
    assert registry.tokens == [("repository:a/b:pull", f"Basic {LOGIN}")]
    assert {one[2] for one in registry.seen} == {None, "Bearer token-1"}


def test_a_token_server_that_refuses_the_login_leaves_the_question_open(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home
) -> None:
    registry = guard(login_needed=True)
    (reference,) = registry.publish("a/b")
    expected = Trouble(Unknown.AUTH, "the token server: status 401")
    assert connect().manifest(reference) == expected
    assert connect(surroundings_of(home, **{registry.address: encoded("x", "y")})).manifest(reference) == expected


def test_a_host_that_is_declared_anonymous_gets_no_login(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    surroundings = surroundings_of(home, **{registry.address: LOGIN})
    assert isinstance(
        connect(surroundings, **{registry.address: HostSettings(anonymous=True)}).manifest(reference), Document
    )
    assert registry.tokens == [("repository:a/b:pull", "")]


def test_a_basic_login_is_sent_once_it_is_asked_for_and_at_once_from_then_on(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home
) -> None:
    registry = guard(basic=True)
    references = registry.publish("a/r0", "a/r1", "a/r2")
    client = connect(surroundings_of(home, **{registry.address: LOGIN}))
    assert all(isinstance(client.manifest(one), Document) for one in references)
    assert [one[2:] for one in registry.seen] == [(None, 401), *[(f"Basic {LOGIN}", 200)] * 3]


def test_a_basic_login_that_is_wrong_or_absent_leaves_the_question_open(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home
) -> None:
    registry = guard(basic=True)
    (reference,) = registry.publish("a/b")
    assert connect().manifest(reference) == Trouble(Unknown.AUTH, "a login is needed and none was found")
    client = connect(surroundings_of(home, **{registry.address: encoded("x", "y")}))
    assert client.manifest(reference) == Trouble(Unknown.AUTH, "status 401")
    assert client.manifest(reference) == Trouble(Unknown.AUTH, "the login was refused")


def test_one_repository_that_needs_a_login_does_not_close_the_others(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard(basic=True)
    closed, open_to_all = registry.publish("a/closed", "a/open")
    registry._refuses = lambda repository, *_: repository == "a/closed"  # type: ignore[method-assign]
    client = connect()
    assert isinstance(client.manifest(closed), Trouble)
    assert isinstance(client.manifest(open_to_all), Document)


# Token servers that misbehave.


@pytest.mark.parametrize(
    ("answer", "reason", "detail", "asked"),
    [
        (Answer(status=403), Unknown.AUTH, "the token server: status 403", 2),
        (Answer(status=404), Unknown.AUTH, "the token server: status 404", 1),
        (Answer(status=400), Unknown.AUTH, "the token server: status 400", 1),
        (Answer(status=302, headers={"Location": "/elsewhere"}), Unknown.AUTH, "the token server: status 302", 1),
        (Answer(status=200, body=b"<html>"), Unknown.GARBAGE, "the token server's answer has no token", 2),
        (Answer(status=200, body=b"{}"), Unknown.GARBAGE, "the token server's answer has no token", 2),
        (Answer(status=200, body=b"[]"), Unknown.GARBAGE, "the token server's answer has no token", 2),
        (Answer(status=200, body=b"null"), Unknown.GARBAGE, "the token server's answer has no token", 2),
        (Answer(status=200, body=b'{"token": 7}'), Unknown.GARBAGE, "the token server's answer has no token", 2),
        (
            Answer(status=200, body=b'{"token": "a\\r\\nX-Evil: 1"}'),
            Unknown.GARBAGE,
            "the token server's answer has no token",
            2,
        ),
        (Answer(status=200, body=b" " * 65537), Unknown.TOO_LARGE, "more than 65536 bytes", 1),
        (
            Answer(status=429, headers={"Retry-After": "60"}),
            Unknown.REGISTRY_UNAVAILABLE,
            "the token server: status 429",
            1,
        ),
    ],
)
def test_a_token_server_that_gives_no_token_leaves_the_question_open(
    guard: Callable[..., Guarded],
    connect: Callable[..., Client],
    answer: Answer,
    reason: Unknown,
    detail: str,
    asked: int,
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    registry.token_answers = [answer] * 10
    found = connect().manifest(reference)
    assert isinstance(found, Trouble)
    assert (found.reason, found.detail, len(registry.tokens)) == (reason, detail, asked)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_token_server_that_fails_for_a_moment_is_waited_for(
    guard: Callable[..., Guarded], connect: Callable[..., Client], status: int
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    registry.token_answers = [Answer(status=status)]
    assert isinstance(connect().manifest(reference), Document)
    assert len(registry.tokens) == 2


def test_threads_that_wait_for_a_token_share_its_failure(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    registry.token_answers = [Answer(status=403)] * 100
    registry.token_pause = 0.3
    registry.barrier = threading.Barrier(16)
    client = connect()
    started = time.monotonic()
    with ThreadPoolExecutor(16) as pool:
        found = set(pool.map(client.manifest, [reference] * 16))
    assert found == {Trouble(Unknown.AUTH, "the token server: status 403")}
    assert len(registry.tokens) <= 3
    assert time.monotonic() - started < 2


def test_a_token_server_that_is_silent_costs_no_more_than_one_request_may(
    guard: Callable[..., Guarded], connect: Callable[..., Client]
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")

    def dripping() -> Iterator[bytes]:
        for _ in range(50):
            time.sleep(0.1)
            yield b" "

    registry.token_answers = [Answer(status=200, body=dripping()) for _ in range(10)]
    client = connect(total=1)
    started = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(client.manifest, [reference] * 8))
    assert {one.reason for one in found if isinstance(one, Trouble)} == {Unknown.TIMEOUT}
    assert len(found) == 8
    assert time.monotonic() - started < 2.5


# A credential belongs to one host.


class Stranger:
    """Another host that writes down what it is told."""

    def __init__(self, root: Path) -> None:
        self.requests: list[Request] = []
        self.server = Server(root, middleware=self._answer)

    def _answer(self, request: Request, honest: Handler) -> Answer:
        self.requests.append(request)
        return Answer(status=200, headers={"Content-Type": "application/json"}, body=b'{"token": "strange"}')

    @property
    def address(self) -> str:
        return self.server.address


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Stranger]:
    made = Stranger(tmp_path / "stranger")
    with made.server:
        yield made


@pytest.mark.parametrize(
    "realm",
    ["http://localhost:{port}/token", "http://127.0.0.2:{port}/token", "https://evil.example/token", "text"],
)
def test_a_realm_that_is_not_declared_sees_no_request(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home, stranger: Stranger, realm: str
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    registry.realm = realm.format(port=stranger.address.split(":")[1])
    client = connect(surroundings_of(home, **{registry.address: LOGIN}))
    found = client.manifest(reference)
    assert found == Trouble(Unknown.AUTH, f"its token server '{registry.realm}' is not declared in `realms`")
    assert stranger.requests == []


def test_a_realm_that_is_declared_gets_the_login(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home, stranger: Stranger
) -> None:
    registry = guard()
    (reference,) = registry.publish("a/b")
    port = stranger.address.split(":")[1]
    registry.realm = f"http://localhost:{port}/token"
    registry.valid["strange"] = "repository:a/b:pull"
    settings = {registry.address: HostSettings(realms=(f"localhost:{port}",))}
    client = connect(surroundings_of(home, **{registry.address: LOGIN}), **settings)
    assert isinstance(client.manifest(reference), Document)
    assert [one.headers["authorization"] for one in stranger.requests] == [f"Basic {LOGIN}"]


@pytest.mark.parametrize("basic", [True, False], ids=["basic", "bearer"])
def test_no_credential_follows_a_redirect_to_another_host(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home, stranger: Stranger, basic: bool
) -> None:
    registry = guard(basic=basic)
    (reference,) = registry.publish("a/b")
    client = connect(surroundings_of(home, **{registry.address: LOGIN, stranger.address: encoded("an", "other")}))
    assert isinstance(client.manifest(reference), Document)
    away = Answer(status=307, headers={"Location": f"http://{stranger.address}/v2/a/b/blobs/x"})
    registry._refuses = lambda *_: True  # type: ignore[method-assign]
    registry._challenge = lambda: away  # type: ignore[method-assign]
    client.config(reference.repository, Digest("sha256:" + "0" * 64))
    assert registry.seen[-1][2] is not None
    assert len(stranger.requests) == 2  # its bytes are wrong, so it is asked twice
    assert all("authorization" not in one.headers for one in stranger.requests)


def test_an_upload_that_is_sent_elsewhere_is_refused(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home, stranger: Stranger
) -> None:
    registry = guard(basic=True)
    (home.root / "layer").write_bytes(b"x")
    away = Answer(status=202, headers={"Location": f"http://{stranger.address}/v2/a/b/blobs/uploads/1"})
    registry._challenge = lambda: away  # type: ignore[method-assign]
    client = connect(surroundings_of(home, **{registry.address: LOGIN}))
    with pytest.raises(Failed) as failed:
        client.upload_blob(Repository(registry.address, "a/b"), digest_of(b"x"), home.root / "layer")
    assert "wants the upload on another host" in failed.value.reason
    assert stranger.requests == []


def test_the_credential_of_one_host_is_not_sent_to_the_next(
    guard: Callable[..., Guarded], connect: Callable[..., Client], home: Home, stranger: Stranger
) -> None:
    registry = guard(basic=True)
    (reference,) = registry.publish("a/b")
    client = connect(surroundings_of(home, **{registry.address: LOGIN}))
    assert isinstance(client.manifest(reference), Document)
    client.manifest(Repository(stranger.address, "a/b").tagged(Tag("1.0")))
    assert all("authorization" not in one.headers for one in stranger.requests)
    assert len(stranger.requests) >= 1
