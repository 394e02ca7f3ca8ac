"""Whom a question is put to, and who gets to see a credential: over TLS, with hosts that have names, as in the world."""

import json
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imagewright.settings import HostSettings, Limits, Surroundings
from imagewright.testing import proxy as proxies
from imagewright.testing import vices
from imagewright.testing.logins import Basic, Bearer
from imagewright.testing.proxy import FaultyProxy
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Kind, Vice
from tests.certificates import Tls, make_authority, resolve_here
from tests.vicious import World, publish, told

FRESH = {"codex-fedora": "fresh"}
UNREADABLE = {"codex-fedora": "unknown: base-unreadable"}
LIMITS = Limits(connect=1, read=2, total=3)
AT_ONCE = Limits(connect=0.3, read=0.3, total=0.3)
"""Limits that leave no time for a pause before another attempt."""
LOGIN = Bearer()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make_authority(tmp_path_factory.mktemp("tls"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """`registry.test` wants the tokens of a login; `stranger.test` has the same images, and writes down who asks."""

    registry: Registry
    stranger: Registry
    surroundings: Surroundings

    def port(self, registry: Registry) -> str:
        return registry.address.rpartition(":")[2]

    def filled(self, text: str) -> str:
        return text.format(registry=self.port(self.registry), stranger=self.port(self.stranger), target="{target}")

    def world(self, **host: object) -> World:
        return World(
            registry=self.registry,
            versions={"codex": "1.0"},
            bases=["fedora"],
            limits=LIMITS,
            address=f"registry.test:{self.port(self.registry)}",
            surroundings=self.surroundings,
            host=HostSettings(second_look=0, **host),  # type: ignore[arg-type]
        )

    def authorizations(self, of: Registry, *kinds: Kind) -> set[str]:
        """Which kinds of authorization a host has seen."""
        return {one.authorization.partition(" ")[0] for one in of.log if not kinds or one.kind in kinds}


Open = Callable[..., Hosts]


@pytest.fixture
def opened(tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Opens the hosts. strangers: their login, none by default. login: of the registry."""
    resolve_here(monkeypatch)
    with ExitStack() as stack:

        def start(*, strangers: Basic | None = None, login: Callable[[str], Basic] = lambda _: LOGIN) -> Hosts:
            root = tmp_path / "registry"
            stranger = stack.enter_context(
                Registry(root, tls=tls.context("stranger.test", "127.0.0.1"), login=strangers)
            )
            there = f"stranger.test:{stranger.address.rpartition(':')[2]}"
            registry = Registry(root, tls=tls.context("registry.test", "127.0.0.1"), login=login(there))
            stack.enter_context(registry)
            publish(registry.sink, ["codex"], ["fedora"])
            auth = tmp_path / "auth.json"
            mine = f"registry.test:{registry.address.rpartition(':')[2]}"
            auth.write_text(json.dumps({"auths": {mine: {"auth": LOGIN.encoded}}}))
            around = Surroundings(auth_files=(str(auth),), ca_bundle=tls.bundle)
            return Hosts(registry=registry, stranger=stranger, surroundings=around)

        yield start


def test_a_token_is_had_with_the_login_and_shown_instead_of_it(opened: Open) -> None:
    hosts = opened()
    assert hosts.world().told() == FRESH
    assert hosts.authorizations(hosts.registry, "token") == {"Basic"}
    assert hosts.authorizations(hosts.registry, "index", "child", "config") <= {"", "Bearer"}
    assert hosts.stranger.log == ()


@pytest.mark.parametrize("kind", ["index", "child", "config"])
def test_a22_a_redirect_to_a_cdn_is_followed_without_authorization(opened: Open, kind: Kind) -> None:
    hosts = opened()
    away = hosts.filled("https://stranger.test:{stranger}{target}")
    hosts.registry.becomes(vices.redirects(away).on(kind).where(lambda asked: asked.authorization != ""))
    assert hosts.world().told() == FRESH
    assert {one.kind for one in hosts.stranger.log} == {kind}
    assert hosts.authorizations(hosts.stranger) == {""}


@pytest.mark.parametrize(
    "to",
    [
        "http://stranger.test:{stranger}{target}",
        "http://registry.test:{registry}{target}",
        "https://127.0.0.1:{stranger}{target}",
        "https://localhost:{stranger}{target}",
        "https://[::ffff:127.0.0.1]:{stranger}{target}",
        "https://[::ffff:169.254.169.254]/latest/meta-data/",
    ],
)
def test_a22_a_redirect_to_plain_http_or_a_private_address_is_not_followed(opened: Open, to: str) -> None:
    hosts = opened()
    hosts.registry.becomes(vices.redirects(hosts.filled(to)).on("config"))
    made = hosts.world()
    assert made.told() == UNREADABLE
    assert made.seen().bases[0].observation.reason.code == "redirect"  # type: ignore[union-attr]
    assert hosts.stranger.log == ()


CHALLENGES = {
    # challenge: whether it can be answered
    'Bearer realm="http://registry.test:{registry}/token"': False,
    'Bearer realm="https://stranger.test:{stranger}/token"': False,
    'Bearer realm="https://127.0.0.1:{registry}/token"': False,
    'Bearer realm="https://registry.test:{registry}@stranger.test:{stranger}/token"': False,
    'Bearer realm="https://registry.test:{registry}.stranger.test:{stranger}/token"': False,
    'Bearer realm="https://stranger.test:{stranger}/token", Bearer realm="https://registry.test:{registry}/token"': False,
    'Bearer realm="https://registry.test:{registry}/token", Bearer realm="https://stranger.test:{stranger}/token"': True,
    'Bearer realm="https://registry.test:{registry}/token",realm="https://stranger.test:{stranger}/token"': False,
}


@pytest.mark.parametrize("challenge", CHALLENGES, ids=[f"A23 {one}" for one in CHALLENGES])
def test_a23_nobody_but_the_registry_is_asked_for_a_token(opened: Open, challenge: str) -> None:
    hosts = opened()
    once = vices.challenges(hosts.filled(challenge)).where(lambda asked: not asked.authorization)
    hosts.registry.becomes(once.on("index"))
    made = hosts.world()
    assert made.told() == (FRESH if CHALLENGES[challenge] else UNREADABLE)
    assert hosts.stranger.log == ()
    if not CHALLENGES[challenge]:
        assert made.seen().bases[0].observation.reason.code == "auth"  # type: ignore[union-attr]
        assert hosts.authorizations(hosts.registry) == {""}


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a23_a_token_server_that_sends_elsewhere_is_not_followed(opened: Open, status: int) -> None:
    hosts = opened()
    hosts.registry.becomes(vices.redirects(hosts.filled("https://stranger.test:{stranger}/token"), status).on("token"))
    made = hosts.world()
    assert made.told() == UNREADABLE
    assert made.seen().bases[0].observation.reason.code == "auth"  # type: ignore[union-attr]
    assert hosts.stranger.log == ()


def test_a23_a_declared_token_server_gets_the_login_and_the_registry_the_token(opened: Open) -> None:
    hosts = opened(strangers=LOGIN, login=lambda there: replace(LOGIN, realm=f"https://{there}/token"))
    there = hosts.filled("stranger.test:{stranger}")
    assert hosts.world(realms=(there,)).told() == FRESH
    assert {one.kind for one in hosts.stranger.log} == {"token"}
    assert hosts.authorizations(hosts.stranger) == {"Basic"}
    assert hosts.authorizations(hosts.registry) == {"", "Bearer"}
    hosts.stranger.becomes()
    assert hosts.world().told() == UNREADABLE
    assert hosts.stranger.log == ()


def test_a23_a_host_that_is_declared_anonymous_is_told_no_login(opened: Open) -> None:
    hosts = opened(login=lambda _: Bearer(to_anyone=True))
    assert hosts.world(anonymous=True).told() == FRESH
    assert hosts.authorizations(hosts.registry, "token") == {""}


# A29: what the surroundings say.


def test_a29_an_entry_in_netrc_is_ignored(opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / ".netrc"
    netrc.write_text("machine registry.test login somebody password CANARY\ndefault login other password CANARY\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("NETRC", str(netrc))
    hosts = opened()
    assert hosts.world().told() == FRESH
    tokens = {one.authorization for one in hosts.registry.log if one.kind == "token"}
    assert tokens == {f"Basic {LOGIN.encoded}"}


class Tunnel(socketserver.ThreadingTCPServer):
    """A proxy that opens a way to a port of this machine, whatever the host is called. heads: what it was told."""

    daemon_threads = True

    def __init__(self) -> None:
        self.heads: list[str] = []
        super().__init__(("127.0.0.1", 0), _Tunnelled)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Tunnelled(socketserver.StreamRequestHandler):
    server: Tunnel

    def handle(self) -> None:
        lines = []
        while (line := self.rfile.readline().decode().rstrip()) != "":
            lines.append(line)
        self.server.heads.append("\n".join(lines))
        port = int(lines[0].split()[1].rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as away:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(away, self.connection), daemon=True)
            back.start()
            _pump(self.connection, away)
            back.join()


def _pump(source: socket.socket, to: socket.socket) -> None:
    try:
        while piece := source.recv(65536):
            to.sendall(piece)
        to.shutdown(socket.SHUT_WR)
    except OSError:  # one side has had enough
        return


@pytest.fixture
def tunnel() -> Iterator[Tunnel]:
    with Tunnel() as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def test_a29_a_proxy_is_asked_to_connect_and_sees_nothing_else(opened: Open, tunnel: Tunnel) -> None:
    hosts = opened()
    through = replace(hosts, surroundings=replace(hosts.surroundings, proxies={"https": tunnel.address}))
    assert through.world().told() == FRESH
    assert hosts.authorizations(hosts.registry, "token") == {"Basic"}
    connects = {" ".join(one.split()[:2]) for one in tunnel.heads}
    assert connects == {hosts.filled("CONNECT registry.test:{registry}")}
    said = {line.partition(":")[0].lower() for one in tunnel.heads for line in one.split("\n")[1:]}
    assert said <= {"host", "user-agent", "accept", "accept-encoding", "connection"}


@pytest.mark.parametrize("exempt", ["registry.test", ".test", "other, registry.test", "*"])
def test_a29_a_host_in_no_proxy_is_asked_directly(opened: Open, tunnel: Tunnel, exempt: str) -> None:
    hosts = opened()
    around = replace(hosts.surroundings, proxies={"https": tunnel.address}, no_proxy=exempt)
    assert replace(hosts, surroundings=around).world().told() == FRESH
    assert tunnel.heads == []


# A13, A16, A27: below and around the requests.


def test_a16_who_cannot_be_trusted_is_tried_once_for_each_question(tmp_path: Path, opened: Open, tls: Tls) -> None:
    hosts = opened()
    hosts.registry.becomes(vices.answers(400))
    assert hosts.world().told() == UNREADABLE
    questions = len(hosts.registry.log)
    with (
        Registry(tmp_path / "other", tls=tls.context("other.test")) as registry,
        FaultyProxy(registry.address) as proxy,
    ):
        made = replace(hosts.world(), address=f"registry.test:{proxy.address.rpartition(':')[2]}")
        assert made.told() == UNREADABLE
        assert (proxy.connections, proxy.requests, registry.log) == (questions, 0, ())


def test_a13_a_connection_that_is_refused_is_no_answer(tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as registry:
        publish(registry.sink, ["codex"], ["fedora"])
        with FaultyProxy(registry.address, proxies.refuses_connections()) as proxy:
            made = World(
                registry=registry, versions={"codex": "1.0"}, bases=["fedora"], limits=AT_ONCE, address=proxy.address
            )
            assert made.told() == UNREADABLE
            assert made.seen().bases[0].observation.reason.code == "network"  # type: ignore[union-attr]


@pytest.mark.parametrize("vice", [vices.resets(), vices.answers(503), vices.refuses(401)], ids=lambda one: one.name)
def test_a27_a_host_that_dies_within_a_run_has_nothing_planned_for_it(
    tmp_path: Path, vice: Vice, pytestconfig: pytest.Config
) -> None:
    """Of three targets two are missing, which a whole run says. Whichever request is the last good one, no run says it.

    With `--proof` each request is the last good one, without it some are.
    """
    step = 1 if pytestconfig.getoption("--proof") else 8
    with Registry(tmp_path / "registry") as registry:
        publish(registry.sink, ["codex"], ["fedora"])
        versions = {"codex": "1.0", "crush": "2.0", "goose": "3.0"}
        made = World(registry=registry, versions=versions, bases=["fedora"], limits=AT_ONCE)
        whole = {
            "codex-fedora": "fresh",
            "crush-fedora": "stale: image-missing",
            "goose-fedora": "stale: image-missing",
        }
        assert made.told() == whole
        asked = len(registry.log)
        planned = {}
        for number in (*range(1, asked, step), asked):
            registry.becomes(vice.since(number))
            verdicts = [told(one) for one in made.verdicts().values()]
            planned[number] = [one for one in verdicts if not one.startswith(("unknown: ", "fresh"))]
        assert {number for number, stale in planned.items() if stale} == set()
        registry.becomes(vice.since(asked + 1))
        assert made.told() == whole
