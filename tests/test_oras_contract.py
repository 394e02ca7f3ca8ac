"""What the guarded client stands on in oras: an upgrade that changes it is noticed here."""

import gzip
import importlib.metadata
import inspect
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import jsonschema
import oras.auth.base
import oras.container
import oras.decorator
import oras.defaults
import oras.layout
import oras.provider
import oras.utils
import pytest
import requests
import urllib3.exceptions

from imagewright.documents import OCI_CONFIG, OCI_INDEX, OCI_MANIFEST
from imagewright.embedded.server import Handler, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
from imagewright.layout import Layout
from imagewright.names import Repository, digest_of
from imagewright.reasons import Unknown
from imagewright.registry.auth import Credentials
from imagewright.registry.client import Registry
from imagewright.registry.transport import GuardedSession, Interrupted
from imagewright.settings import BasesSettings, Limits, Settings, Surroundings
from imagewright.testing.images import StoreSink

CONFIG = b"{}"
MANIFEST = {
    "schemaVersion": 2,
    "mediaType": OCI_MANIFEST,
    "config": {"mediaType": OCI_CONFIG, "digest": digest_of(CONFIG), "size": len(CONFIG)},
    "layers": [],
}
BODY = json.dumps(MANIFEST).encode()
UNDECORATED = oras.provider.Registry.do_request.__wrapped__


class Host:
    """An embedded registry that writes down what it is asked; `always`: said instead of its own answers."""

    def __init__(self, root: Path, always: Callable[[], Answer] | None) -> None:
        self.root = root
        self.requests: list[Request] = []
        self.clients: list[oras.provider.Registry] = []
        self._always = always
        self.server = Server(root, middleware=self._answer)
        sink = StoreSink(Store(root))
        sink.blob("a/b", CONFIG)
        sink.manifest("a/b", "1.0", OCI_MANIFEST, BODY)

    @property
    def address(self) -> str:
        return self.server.address

    def close_clients(self) -> None:
        for client in self.clients:
            client.session.close()

    def _answer(self, request: Request, honest: Handler) -> Answer:
        self.requests.append(request)
        return self._always() if self._always else honest(request)


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Host]]:
    with ExitStack() as stack:
        count = iter(range(10))

        def start(always: Callable[[], Answer] | None = None) -> Host:
            host = Host(tmp_path / f"registry-{next(count)}", always)
            stack.enter_context(host.server)
            stack.callback(host.close_clients)
            return host

        yield start


@pytest.fixture
def guarded() -> Iterator[Callable[[str], Registry]]:
    with ExitStack() as stack:

        def make(address: str) -> Registry:
            settings = Settings(
                repository=Repository(address, "own/tools"),
                bases=BasesSettings(repository=Repository(address, "own/bases")),
                limits=Limits(connect=1, read=1, total=2),
            )
            surroundings = Surroundings()
            registry = Registry(address, settings, surroundings, Credentials(surroundings))
            stack.callback(registry.close)
            return registry

        yield make


@pytest.fixture
def plain(serve: Callable[..., Host]) -> Iterator[tuple[Host, oras.provider.Registry]]:
    host = serve()
    registry = oras.provider.Registry(hostname=host.address, insecure=True)
    yield host, registry
    registry.session.close()


# oras as it is.


def test_oras_is_the_version_whose_source_was_read() -> None:
    assert importlib.metadata.version("oras") == "0.2.43"


def test_a_request_is_decorated_and_what_is_beneath_can_be_had() -> None:
    assert inspect.isfunction(UNDECORATED)
    assert not hasattr(UNDECORATED, "__wrapped__")
    assert list(inspect.signature(UNDECORATED).parameters) == [
        *("self", "url", "method", "data", "headers", "json", "stream"),
    ]


def test_every_parameter_of_a_request_is_one_of_ours() -> None:
    ours = list(inspect.signature(Registry.do_request).parameters.values())
    theirs = list(inspect.signature(UNDECORATED).parameters)
    assert [one.name for one in ours[: len(theirs)]] == theirs
    assert all(one.kind is inspect.Parameter.KEYWORD_ONLY for one in ours[len(theirs) :])


def test_all_requests_go_through_do_request_and_the_two_sessions() -> None:
    source = inspect.getsource(oras.provider)
    assert source.count("self.session.request(") == inspect.getsource(UNDECORATED).count("self.session.request(") == 3
    for other in ("requests.get(", "requests.post(", "requests.request(", "self.session.get(", "self.session.put("):
        assert other not in source


def test_the_session_is_an_attribute_and_that_of_the_authentication_too(
    plain: tuple[Host, oras.provider.Registry],
) -> None:
    _, registry = plain
    assert isinstance(registry.session, requests.Session)
    assert registry.auth.session is registry.session


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_undecorated_nothing_is_repeated_and_nothing_is_raised(serve: Callable[..., Host], status: int) -> None:
    host = serve(lambda: Answer(status=status))
    registry = oras.provider.Registry(hostname=host.address, insecure=True)
    answer = UNDECORATED(registry, f"http://{host.address}/v2/")
    assert (answer.status_code, len(host.requests)) == (status, 1)
    registry.session.close()


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_handed_to_the_authentication_before_anything_is_repeated(
    serve: Callable[..., Host], status: int
) -> None:
    host = serve(lambda: Answer(status=status))
    registry = oras.provider.Registry(hostname=host.address, insecure=True)
    handed: list[tuple[int, dict[str, str]]] = []

    class Backend(oras.auth.base.AuthBackend):
        def authenticate_request(
            self, original: requests.Response, headers: dict[str, str], refresh: bool = False
        ) -> tuple[dict[str, str], bool]:
            handed.append((original.status_code, headers))
            return headers, False

    registry.auth = Backend()
    with pytest.raises(ValueError, match="Cannot respond to request for authentication"):
        UNDECORATED(registry, f"http://{host.address}/v2/", headers={"X-Ours": "1"})
    assert handed == [(status, {"X-Ours": "1"})]
    assert len(host.requests) == 1
    registry.session.close()


def test_a_manifest_comes_without_its_bytes(plain: tuple[Host, oras.provider.Registry]) -> None:
    host, registry = plain
    assert registry.get_manifest(f"{host.address}/a/b:1.0") == MANIFEST


def test_insecure_means_plain_http_for_every_url() -> None:
    for insecure, prefix in ((True, "http"), (False, "https")):
        registry = oras.provider.Registry(hostname="r.example", insecure=insecure)
        assert registry.prefix == prefix
        registry.session.close()


def test_a_reference_is_searched_and_not_matched() -> None:
    assert oras.container.Container("r.example/a/b:1:2").registry == "docker.io"


def test_a_list_of_tags_follows_a_link_to_wherever_it_leads(serve: Callable[..., Host]) -> None:
    stranger = serve(lambda: Answer(status=200, body=b'{"tags": ["strange"]}'))
    link = f'<http://{stranger.address}/v2/a/b/tags/list>; rel="next"'
    host = serve(lambda: Answer(status=200, headers={"Link": link}, body=b'{"tags": ["own"]}'))
    registry = oras.provider.Registry(hostname=host.address, insecure=True)
    assert registry.get_tags(f"{host.address}/a/b") == ["own", "strange"]
    registry.session.close()


# What oras leaves open, and the guard closes.


def asks(host: Host, backend: str = "token") -> oras.provider.Registry:
    registry = oras.provider.Registry(hostname=host.address, insecure=True, auth_backend=backend)
    host.clients.append(registry)
    return registry


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long oras would have slept, by turns."""
    seconds: list[float] = []
    monkeypatch.setattr(oras.decorator.time, "sleep", seconds.append)
    return seconds


@pytest.mark.parametrize(
    ("status", "phrase"),
    [
        (400, "Bad Request"),
        (404, "Not Found"),
        (410, "Gone"),
        (429, "Too Many Requests"),
        (502, "Bad Gateway"),
        (503, "Service Unavailable"),
        (504, "Gateway Timeout"),
    ],
)
def test_whatever_is_wrong_is_one_error_and_nothing_is_repeated(
    serve: Callable[..., Host], slept: list[float], status: int, phrase: str
) -> None:
    host = serve(lambda: Answer(status=status, headers={"Retry-After": "1"}))
    with pytest.raises(ValueError, match=rf"^Issue with http://{host.address}/v2/a/b/manifests/1.0: {phrase}$"):
        asks(host).get_manifest(f"{host.address}/a/b:1.0")
    assert (len(host.requests), slept) == (1, [])


def test_a_web_page_is_the_same_kind_of_error_as_a_missing_image(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=200, body=b"<html>"))
    with pytest.raises(requests.JSONDecodeError) as raised:
        asks(host).get_manifest(f"{host.address}/a/b:1.0")
    assert isinstance(raised.value, ValueError)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_server_error_is_waited_for_131_seconds_and_a_post_is_repeated_too(
    serve: Callable[..., Host], slept: list[float], method: str
) -> None:
    host = serve(lambda: Answer(status=500))
    assert asks(host).do_request(f"http://{host.address}/v2/", method).status_code == 500
    assert slept == [3, 5, 11, 29, 83]
    assert [one.method for one in host.requests] == [method] * 6


def test_a_redirect_in_a_loop_makes_186_requests(serve: Callable[..., Host], slept: list[float]) -> None:
    host = serve(lambda: Answer(status=302, headers={"Location": "/v2/"}))
    with pytest.raises(requests.TooManyRedirects):
        asks(host).do_request(f"http://{host.address}/v2/")
    assert (len(host.requests), sum(slept)) == (186, 131)


def test_no_request_has_a_limit_of_time(plain: tuple[Host, oras.provider.Registry]) -> None:
    host, registry = plain
    given: list[dict[str, object]] = []

    class Recording(requests.Session):
        def request(self, *args: object, **keywords: object) -> requests.Response:
            given.append(keywords)
            return super().request(*args, **keywords)  # type: ignore[arg-type]

    registry.session.close()
    registry.session = Recording()
    registry.get_manifest(f"{host.address}/a/b:1.0")
    assert [sorted(one) for one in given] == [["data", "headers", "json", "stream", "verify"]]


def test_no_body_is_too_large_not_even_unpacked(serve: Callable[..., Host]) -> None:
    packed = gzip.compress(b'{"x": "' + bytes(32 * 2**20).replace(b"\0", b"a") + b'"}')
    assert len(packed) < 2**15 + 2**10
    host = serve(lambda: Answer(status=200, headers={"Content-Encoding": "gzip"}, body=packed))
    assert len(asks(host).get_manifest(f"{host.address}/a/b:1.0")["x"]) == 32 * 2**20


def test_other_bytes_than_the_digest_says_are_taken(serve: Callable[..., Host], tmp_path: Path) -> None:
    host = serve(lambda: Answer(status=200, body=b'{"other": "bytes"}'))
    registry, name = asks(host), f"{host.address}/a/b"
    assert registry.get_manifest(f"{name}@{digest_of(BODY)}") == {"other": "bytes"}
    registry.download_blob(name, digest_of(BODY), str(tmp_path / "blob"))
    assert (tmp_path / "blob").read_bytes() == b'{"other": "bytes"}'


def challenged(realm: str) -> Answer:
    challenge = f'Bearer realm="{realm}",service="s",scope="repository:a/b:pull"'
    return Answer(status=401, headers={"WWW-Authenticate": challenge})


def authorizations(host: Host) -> list[str]:
    return [one.headers.get("authorization", "") for one in host.requests]


def test_one_token_is_for_everything_and_is_sent_again_where_it_was_refused(serve: Callable[..., Host]) -> None:
    issuer = serve(lambda: Answer(status=200, body=b'{"token": "of-a"}'))

    def answer() -> Answer:
        request = host.requests[-1]
        may = request.path.startswith("/v2/a/") and request.headers.get("authorization") == "Bearer of-a"
        return Answer(status=200, body=b"{}") if may else challenged(f"http://{issuer.address}/token")

    host = serve(answer)
    registry = asks(host)
    assert UNDECORATED(registry, f"http://{host.address}/v2/a/b/manifests/1").status_code == 200
    assert UNDECORATED(registry, f"http://{host.address}/v2/c/d/manifests/1").status_code == 401
    assert authorizations(host) == ["", "Bearer of-a", "Bearer of-a", "Bearer of-a"]
    assert len(issuer.requests) == 1


def test_a_token_goes_to_any_host(serve: Callable[..., Host]) -> None:
    host, stranger = serve(), serve()
    registry = asks(host)
    registry.auth.set_token_auth("secret")
    registry.do_request(f"http://{stranger.address}/v2/")
    assert authorizations(stranger) == ["Bearer secret"]


def test_a_password_goes_to_whatever_realm_a_challenge_names(serve: Callable[..., Host]) -> None:
    stranger = serve(lambda: Answer(status=200, body=b'{"token": "t"}'))
    host = serve(lambda: challenged(f"http://{stranger.address}/token"))
    registry = asks(host)
    registry.auth.set_basic_auth("user", "secret")
    UNDECORATED(registry, f"http://{host.address}/v2/")
    assert authorizations(stranger) == ["Basic dXNlcjpzZWNyZXQ="]


def test_a_netrc_takes_the_place_of_the_token(
    plain: tuple[Host, oras.provider.Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, registry = plain
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    registry.auth.set_token_auth("token")
    registry.do_request(f"http://{host.address}/v2/")
    assert authorizations(host) == ["Basic dXNlcjpzZWNyZXQ="]


def test_basic_authentication_costs_two_requests_each_time(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=200 if host.requests[-1].headers.get("authorization") else 401))
    registry = asks(host, "basic")
    registry.auth.set_basic_auth("user", "secret")
    for _ in range(2):
        assert UNDECORATED(registry, f"http://{host.address}/v2/").status_code == 200
    assert authorizations(host) == ["", "Basic dXNlcjpzZWNyZXQ="] * 2


def test_basic_authentication_without_credentials_is_a_crash(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=401))
    registry = asks(host, "basic")
    with pytest.raises(AttributeError, match="_basic_auth"):
        UNDECORATED(registry, f"http://{host.address}/v2/")


def test_the_name_of_a_basic_realm_is_taken_for_a_url(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="Some text"'}))
    with pytest.raises(requests.exceptions.InvalidURL, match="Some text"):
        UNDECORATED(asks(host), f"http://{host.address}/v2/")


def test_the_authentication_of_ecr_gives_a_text_where_a_pair_is_unpacked(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=200, body=b'{"token": "t"}'))
    registry = asks(host, "ecr")
    refused = requests.Response()
    refused.headers["Www-Authenticate"] = f'Bearer realm="http://{host.address}/",service="ecr.amazonaws.com"'
    assert registry.auth.authenticate_request(refused, {}) == "t"


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b"{}", b'{"a": NaN}', b'{"a": 1, "a": 2}', b'{"manifests": [], "layers": [], "config": {}}'],
)
def test_whatever_is_json_is_a_manifest(serve: Callable[..., Host], body: bytes) -> None:
    host = serve(lambda: Answer(status=200, body=body))
    assert repr(asks(host).get_manifest(f"{host.address}/a/b:1.0")) == repr(json.loads(body))


def test_json_that_is_nested_deep_is_a_crash(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=200, body=b"[" * 100_000))
    with pytest.raises(RecursionError):
        asks(host).get_manifest(f"{host.address}/a/b:1.0")


def test_a_list_of_tags_ends_at_an_empty_page(serve: Callable[..., Host]) -> None:
    link = '</v2/a/b/tags/list?last=x>; rel="next"'
    host = serve(lambda: Answer(status=200, headers={"Link": link}, body=b'{"tags": []}'))
    assert asks(host).get_tags(f"{host.address}/a/b") == []
    assert len(host.requests) == 1


def test_a_list_of_tags_has_no_last_page_and_a_relative_link_starts_at_the_root(serve: Callable[..., Host]) -> None:
    def answer() -> Answer:
        link = {"Link": '<list?last=x>; rel="next"'} if len(host.requests) < 300 else {}
        return Answer(status=200, headers=link, body=b'{"tags": ["x"]}')

    host = serve(answer)
    assert asks(host).get_tags(f"{host.address}/a/b") == ["x"] * 300
    assert host.requests[1].target == "/list?last=x"


def test_the_headers_of_a_caller_are_changed(plain: tuple[Host, oras.provider.Registry]) -> None:
    host, registry = plain
    registry.auth.set_token_auth("secret")
    registry.get_tags(f"{host.address}/a/b")
    assert registry.headers == {"Authorization": "Bearer secret"}


def test_a_tag_is_deleted_with_all_tags_that_share_its_digest(plain: tuple[Host, oras.provider.Registry]) -> None:
    host, registry = plain
    StoreSink(Store(host.root)).manifest("a/b", "latest", OCI_MANIFEST, BODY)
    assert registry.delete_tag(f"{host.address}/a/b", "1.0")
    assert registry.get_tags(f"{host.address}/a/b") == []
    assert host.requests[0].headers["accept"] == OCI_MANIFEST


def test_a_missing_tag_and_a_tag_of_an_index_are_both_not_deleted(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=404))
    assert asks(host).delete_tag(f"{host.address}/a/b", "index") is False


def test_an_index_cannot_be_pushed(plain: tuple[Host, oras.provider.Registry]) -> None:
    host, registry = plain
    index = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}
    with pytest.raises(jsonschema.ValidationError, match="'config' is a required property"):
        registry.upload_manifest(index, oras.container.Container(f"{host.address}/a/b:2.0"))


def test_the_blobs_of_a_layout_are_not_hashed_and_a_digest_leaves_its_folder(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path / "layout")
    layout.write_entries(
        [
            {
                "mediaType": OCI_MANIFEST,
                "digest": "sha256:../../../outside",
                "size": 1,
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }
        ]
    )
    (tmp_path / "outside").write_bytes(BODY)
    theirs = oras.layout.Layout(str(tmp_path / "layout"))
    assert theirs.get_ordered_blobs() == [digest_of(CONFIG), "sha256:../../../outside"]


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        ("ghcr.io/o/r:1:2", "docker.io/v2/1/manifests/2"),
        ("localhost/foo", "docker.io/v2/localhost/foo/manifests/latest"),
        ("docker.io/x", "docker.io/v2/x/manifests/latest"),
        ("ghcr.io/o/r@../../../x", "ghcr.io/v2/o/r/manifests/../../../x"),
        ("ghcr.io/o/r:a?n=1", "ghcr.io/v2/o/r/manifests/a?n=1"),
        ("ghcr.io/o/../r", "ghcr.io/v2/o/../r/manifests/latest"),
        ("ghcr.io//o/r", "docker.io/v2/o/r/manifests/latest"),
    ],
)
def test_no_rule_stands_between_a_reference_and_a_url(reference: str, url: str) -> None:
    assert oras.container.Container(reference).manifest_url() == url


def test_a_login_of_docker_to_its_hub_is_not_found(plain: tuple[Host, oras.provider.Registry]) -> None:
    _, registry = plain
    registry.auth._auth_config = {"auths": {"https://index.docker.io/v1/": {"auth": "dXNlcjpzZWNyZXQ="}}}
    assert not registry.auth._load_auth("docker.io")


@pytest.mark.parametrize("variable", ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_RUNTIME_DIR"])
def test_no_variable_says_where_the_login_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for place in (tmp_path / "config.json", tmp_path / "containers" / "auth.json"):
        place.parent.mkdir(exist_ok=True)
        place.write_text("{}")
    monkeypatch.setenv("HOME", "/home/of-nobody")
    monkeypatch.setenv(variable, str(tmp_path))
    assert oras.utils.find_docker_config() is None


def test_a_credential_helper_that_fails_is_run_for_every_manifest(
    plain: tuple[Host, oras.provider.Registry], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host, registry = plain
    helper, runs = tmp_path / "docker-credential-failing", tmp_path / "runs"
    helper.write_text(f"#!/bin/sh\necho run >> {runs}\nexit 1\n")
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    registry.auth._auth_config = {"credHelpers": {host.address: "failing"}}
    for _ in range(3):
        registry.get_manifest(f"{host.address}/a/b:1.0")
    assert runs.read_text().count("run") == 3


def test_a_header_of_our_own_is_not_sent_with_manifests(plain: tuple[Host, oras.provider.Registry]) -> None:
    host, registry = plain
    registry.set_header("X-Ours", "1")
    registry.get_manifest(f"{host.address}/a/b:1.0")
    assert "x-ours" not in host.requests[-1].headers


def test_the_pool_keeps_ten_connections_and_opens_as_many_as_there_are_threads() -> None:
    registry = oras.provider.Registry(hostname="r.example")
    adapter = registry.session.get_adapter("https://r.example/")
    assert isinstance(adapter, requests.adapters.HTTPAdapter)
    assert (adapter._pool_maxsize, adapter._pool_block) == (10, False)


def test_a_body_that_ends_early_is_an_error_of_another_family(serve: Callable[..., Host]) -> None:
    host = serve(lambda: Answer(status=200, headers={"Content-Length": "9"}, body=iter([b"cut"])))
    response = asks(host).get_blob(f"{host.address}/a/b", digest_of(CONFIG), stream=True)
    with pytest.raises(urllib3.exceptions.ProtocolError):
        response.raw.read()
    assert not issubclass(urllib3.exceptions.ProtocolError, requests.RequestException)


# oras under our guard.


def test_the_guard_is_in_both_places(guarded: Callable[[str], Registry]) -> None:
    registry = guarded("127.0.0.1:1")
    assert isinstance(registry.session, GuardedSession)
    assert registry.auth.session is registry.session
    assert not registry.session.trust_env


def test_what_is_inherited_works_through_the_guard(
    serve: Callable[..., Host], guarded: Callable[[str], Registry]
) -> None:
    host = serve()
    registry = guarded(host.address)
    name = f"{host.address}/a/b"
    assert registry.get_tags(name) == ["1.0"]
    assert registry.get_manifest(f"{name}:1.0") == MANIFEST
    assert registry.get_blob(name, digest_of(CONFIG)).content == CONFIG
    assert registry.upload_manifest(MANIFEST, oras.container.Container(f"{name}:2.0")).status_code == 201
    assert registry.get_tags(name) == ["1.0", "2.0"]
    assert {one.headers["user-agent"] for one in host.requests} == {"imagewright"}
    assert {one.headers["accept-encoding"] for one in host.requests} == {"identity"}


INHERITED: dict[str, Callable[[Registry, str], object]] = {
    "get_tags": lambda registry, name: registry.get_tags(name),
    "get_manifest": lambda registry, name: registry.get_manifest(f"{name}:1.0"),
    "get_blob": lambda registry, name: registry.get_blob(name, digest_of(CONFIG)),
    "upload_manifest": lambda registry, name: registry.upload_manifest(
        MANIFEST, oras.container.Container(f"{name}:1.0")
    ),
}


@pytest.mark.parametrize("call", INHERITED.values(), ids=INHERITED)
def test_what_is_inherited_has_the_limits_of_the_guard(
    serve: Callable[..., Host], guarded: Callable[[str], Registry], call: Callable[[Registry, str], object]
) -> None:
    faults: tuple[tuple[Callable[[], Answer], Unknown], ...] = (
        (lambda: Answer(status=200, body=iter([bytes(2**20)] * 8)), Unknown.TOO_LARGE),
        (lambda: Answer(status=401, body=b"no challenge"), Unknown.AUTH),
        (lambda: Answer(status=307, headers={"Location": "http://10.0.0.1/"}), Unknown.REDIRECT),
    )
    for fault, reason in faults:
        host = serve(fault)
        registry = guarded(host.address)
        try:
            call(registry, f"{host.address}/a/b")
        except Interrupted as interrupted:
            assert interrupted.trouble.reason is reason
        else:
            assert reason is Unknown.REDIRECT  # a PUT is not redirected: its 307 is the answer
            assert host.requests[-1].method == "PUT"
        assert len(host.requests) == 1


@pytest.mark.parametrize("call", INHERITED.values(), ids=INHERITED)
def test_what_is_inherited_goes_to_no_other_host(
    serve: Callable[..., Host], guarded: Callable[[str], Registry], call: Callable[[Registry, str], object]
) -> None:
    host, stranger = serve(), serve()
    with pytest.raises(Interrupted) as interrupted:
        call(guarded(host.address), f"{stranger.address}/a/b")
    assert interrupted.value.trouble.reason is Unknown.REDIRECT
    assert stranger.requests == []


def test_an_inherited_list_of_tags_is_not_led_to_another_host(
    serve: Callable[..., Host], guarded: Callable[[str], Registry]
) -> None:
    stranger = serve()
    link = f'<http://{stranger.address}/v2/a/b/tags/list>; rel="next"'
    host = serve(lambda: Answer(status=200, headers={"Link": link}, body=b'{"tags": ["own"]}'))
    with pytest.raises(Interrupted):
        guarded(host.address).get_tags(f"{host.address}/a/b")
    assert stranger.requests == []


def test_threads_share_a_registry_without_mixing_headers(
    serve: Callable[..., Host], guarded: Callable[[str], Registry]
) -> None:
    host = serve()
    registry = guarded(host.address)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: registry.get_blob(f"{host.address}/a/b", digest_of(CONFIG)), range(32)))
    assert {one.content for one in answers} == {CONFIG}
    assert registry.headers == {}
