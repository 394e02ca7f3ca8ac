"""What the guarded client stands on in oras: an upgrade that changes it is noticed here."""

import importlib.metadata
import inspect
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import oras.auth.base
import oras.container
import oras.defaults
import oras.provider
import pytest
import requests

from imagewright.documents import OCI_CONFIG, OCI_MANIFEST
from imagewright.embedded.server import Handler, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
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
        self.requests: list[Request] = []
        self._always = always
        self.server = Server(root, middleware=self._answer)
        sink = StoreSink(Store(root))
        sink.blob("a/b", CONFIG)
        sink.manifest("a/b", "1.0", OCI_MANIFEST, BODY)

    @property
    def address(self) -> str:
        return self.server.address

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
