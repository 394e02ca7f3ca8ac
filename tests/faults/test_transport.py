"""What may go wrong between a registry and us, on each kind of question: what a target then is, and what it costs.

Each row is one of the reliability contract's; its verdict is that of the one target whose questions met the fault.
"""

import datetime as dt
import json
import ssl
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import trustme

from imagewright.settings import HostSettings, Limits, Surroundings
from imagewright.testing import vices
from imagewright.testing.logins import Bearer
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Asked, Kind, Vice
from tests.certificates import Tls, make_authority, resolve_here
from tests.judging import judged
from tests.vicious import AMD, ARM, HASTY, World, publish
from tests.vicious import told as in_words

FRESH, STALE = "fresh", "stale: image-missing"
ROOMY = Limits(connect=2, read=5, total=10)
TARGET = "codex-fedora"
EVERY: tuple[Kind, ...] = ("index", "child", "config", "tags", "token")
DOCUMENTS: tuple[Kind, ...] = ("index", "child", "config")
BY_DIGEST: tuple[Kind, ...] = ("child", "config")


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    """With a base and a target on it, which is in order. It wants a token, which anyone may have."""
    with Registry(tmp_path / "registry", login=Bearer(to_anyone=True)) as made:
        publish(made.sink, ["codex"], ["fedora"])
        yield made


@pytest.fixture
def stranger(tmp_path: Path) -> Iterator[Registry]:
    """Another server, at an address that nobody has declared. 127.0.0.2 is a stranger to 127.0.0.1."""
    with Registry(tmp_path / "stranger", host="127.0.0.2") as made:
        yield made


def world(registry: Registry, *, version: str = "1.0", limits: Limits = HASTY, **more: object) -> World:
    return World(registry=registry, versions={"codex": version}, bases=["fedora"], limits=limits, **more)  # type: ignore[arg-type]


def about(kind: Kind) -> Callable[[Asked], bool]:
    """Whether a request is about the target. Canaries and bases are not: what they are for is told elsewhere."""

    def holds(asked: Asked) -> bool:
        ours = asked.repository == "own/tools" and "canary" not in asked.target and not asked.target.endswith("-latest")
        return kind == "token" or ours

    return holds


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the matrix. on: the kinds of question that meet the vice. told: what the target is then.

    most: so many requests for one URL at most. limits: None for hasty ones.
    """

    name: str
    vice: Vice
    on: Sequence[Kind]
    told: str
    most: int = 5
    limits: Limits | None = None


UNAVAILABLE = "unknown: registry-unavailable"
ROWS = (
    Row("A4 404 in HTML", vices.answers_404_as_html(), (*DOCUMENTS, "tags"), "unknown: not-a-registry-answer", 2),
    Row("A4 404 in plain text", vices.answers_404_as_text(), (*DOCUMENTS, "tags"), "unknown: not-a-registry-answer", 2),
    Row("A4 404 in HTML", vices.answers_404_as_html(), ["token"], "unknown: auth", 1),
    Row("404 with another code", vices.answers_404_as_json("NOT_FOUND"), (*DOCUMENTS, "tags"), "unknown: unexpected-status", 1),
    Row("A7 401 without challenge", vices.refuses(401, "UNAUTHORIZED"), EVERY, "unknown: auth", 2),
    Row("A7 401 for ever", vices.challenges('Bearer realm="{realm}"'), DOCUMENTS, "unknown: auth", 2),
    Row("A8 403", vices.refuses(403), EVERY, "unknown: auth", 3),
    Row("A9 429, then 200", vices.is_overloaded(429, "1").times(1), EVERY, FRESH, 2, ROOMY),
    *(
        Row(f"A11 {one} once", vices.answers(one).times(1), ["index"], FRESH, 2, ROOMY)
        for one in (408, 499, 500, 502, 504, 522)
    ),
    Row("A11 503 once", vices.is_overloaded(503).times(1), EVERY, FRESH, 2, ROOMY),
    *(Row(f"A12 {one} always", vices.answers(one), EVERY, UNAVAILABLE) for one in (429, 500, 502, 503, 504)),
    Row("A12 503 always, in full", vices.answers(503), ["index"], UNAVAILABLE, 5, ROOMY),
    Row("A12 503, to be left alone", vices.is_overloaded(503, "600"), EVERY, UNAVAILABLE, 1),
    Row("A13 no answer", vices.hangs_up(), EVERY, "unknown: network", 3),
    Row("A13 reset", vices.resets(), EVERY, "unknown: network", 3),
    Row("A13 reset within the body", vices.resets(after=20), EVERY, "unknown: network", 3),
    Row("A13 another protocol", vices.speaks_no_http(), EVERY, "unknown: network", 3),
    Row("A14 silence", vices.falls_silent(), EVERY, "unknown: timeout", 3),
    Row("A14 silence within the body", vices.falls_silent(after=20), EVERY, "unknown: timeout", 3),
    Row("A14 a byte now and then", vices.drips(0.05), EVERY, "unknown: timeout", 3),
    Row("A14 headers without end", vices.never_ends_its_headers(0.05), EVERY, "unknown: timeout", 3),
    Row("A17 a login page", vices.serves_a_login_page(), EVERY, "unknown: garbage", 3),
    Row("A17 empty", vices.serves_nothing(), EVERY, "unknown: garbage", 3),
    Row("A17 204", vices.serves_nothing(204), (*DOCUMENTS, "tags"), "unknown: garbage", 2),
    Row("A17 206", vices.serves_a_part(), (*DOCUMENTS, "tags"), "unknown: garbage", 2),
    Row("A17 204", vices.serves_nothing(204), ["token"], "unknown: auth", 1),
    Row("A18 cut, length of the whole", vices.cuts_the_body(), EVERY, "unknown: garbage", 3),
    Row("A18 cut, length of the part", vices.cuts_the_body(admits=True), EVERY, "unknown: garbage", 3),
    Row("A18 cut within a character", vices.cuts_a_character(), EVERY, "unknown: garbage", 3),
    Row("A18 cut within a character, length of the whole", vices.cuts_a_character(admits=False), EVERY, "unknown: garbage", 3),
    Row("A19 header and body differ", vices.lies_about_digest(), DOCUMENTS, "unknown: integrity", 2),
    Row("A19 other bytes by digest", vices.serves_other_bytes(), BY_DIGEST, "unknown: integrity", 2),
    Row("A19 no header", vices.states_no_digest(), DOCUMENTS, FRESH, 1),
    *(Row(f"A22 {hops} hops", vices.redirects_in_hops(hops), DOCUMENTS, FRESH, 1) for hops in (1, 3)),
    *(Row(f"A22 {hops} hops", vices.redirects_in_hops(hops), DOCUMENTS, "unknown: redirect", 1) for hops in (4, 31)),
    Row("A22 a loop", vices.redirects_in_a_loop(), (*DOCUMENTS, "tags"), "unknown: redirect", 4),
    Row("A22 metadata", vices.redirects_to_metadata(), (*DOCUMENTS, "tags"), "unknown: redirect", 1),
    Row("A22 metadata", vices.redirects_to_metadata(), ["token"], "unknown: auth", 1),
    *(
        Row(f"A22 {to}", vices.redirects(to), (*DOCUMENTS, "tags"), "unknown: redirect", 1)
        for to in ("http://[::1]:1/x", "file:///etc/passwd", "http://localhost:1/x", "http://cdn.example/x", "//127.0.0.2:1/x")
    ),
    *(
        Row(f"other status {one}", vices.answers(one), (*DOCUMENTS, "tags"), "unknown: unexpected-status", 1)
        for one in (400, 405, 406, 410, 451)
    ),
    Row("B5 promises much", vices.promises(10**15), (*DOCUMENTS, "tags"), "unknown: too-large", 1),
    Row("B5 has no end", vices.is_endless(), (*DOCUMENTS, "tags"), "unknown: too-large", 1),
    Row("B5 unpacks to far more", vices.compresses(20 * 2**20), (*DOCUMENTS, "tags"), "unknown: too-large", 1),
)  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every row on every kind of question with `--proof`; without it on the first kind that it is about."""
    if "row" not in metafunc.fixturenames:
        return
    proof = metafunc.config.getoption("--proof")
    cases = [
        pytest.param(row, kind, platform, id=f"{row.name} - {kind}{f' {platform}' if platform else ''}")
        for row in ROWS
        for kind in (row.on if proof else row.on[:1])
        for platform in ((ARM, "everywhere") if kind in BY_DIGEST else ("",))
    ]
    metafunc.parametrize(("row", "kind", "platform"), cases)


def test_a_fault_makes_a_target_what_the_contract_says(registry: Registry, row: Row, kind: Kind, platform: str) -> None:
    vice = row.vice.on(kind).where(about(kind))
    limits = row.limits or HASTY
    made = world(registry, limits=limits, version="2.0" if kind == "tags" else "1.0")
    expected = STALE if (kind, row.told) == ("tags", FRESH) else row.told
    without_token = kind == "token" and row.told != FRESH  # whoever gets none cannot read the base either

    for _ in range(3):  # a busy machine is too slow for hasty limits now and then
        registry.becomes(vice.platform(platform) if platform == ARM else vice)
        began = time.monotonic()
        seen = made.seen()
        took = time.monotonic() - began
        told = {target: in_words(one) for target, one in judged(seen, made.catalogue, made.targets).items()}
        if without_token and told == {TARGET: "unknown: base-unreadable"}:
            told = {TARGET: f"unknown: {seen.bases[0].observation.reason}"}  # type: ignore[union-attr]
        if told == {TARGET: expected}:
            break

    assert told == {TARGET: expected}
    assert {one.method for one in registry.log} <= {"GET", "HEAD"}
    met = [one.target for one in registry.log if one.vice and "hop=" not in one.target]
    assert met
    if kind != "token":
        without_token = 1 if kind == "index" else 0
        assert max(map(met.count, met)) <= row.most * (2 if kind == "tags" else 1) + without_token
        assert took < 3 * limits.total + 2


# A1-A3, A6: what is absent.


def test_a1_what_is_denied_twice_and_not_listed_is_missing(registry: Registry) -> None:
    assert world(registry, version="2.0").told() == {TARGET: STALE}


def test_a1_what_is_denied_and_listed_is_not(registry: Registry) -> None:
    registry.becomes(vices.answers_404_as_json().where(lambda asked: asked.reference == "codex-fedora-1.0"))
    assert world(registry).told() == {TARGET: "unknown: listed-but-missing"}


@pytest.mark.parametrize(
    ("bootstrap", "was_there", "told"),
    [
        (True, False, STALE),
        (False, False, "unknown: repository-unknown"),
        (True, True, "unknown: repository-vanished"),
        (False, True, "unknown: repository-vanished"),
    ],
    ids=["A2 first publication", "A2 without bootstrap", "A3 it had images", "A3 without bootstrap"],
)
def test_an_unknown_repository(registry: Registry, bootstrap: bool, was_there: bool, told: str) -> None:
    registry.becomes(vices.answers_404_as_json("NAME_UNKNOWN").where(lambda asked: asked.repository == "own/tools"))
    last_good = {TARGET: f"{registry.address}/own/tools:codex-fedora-1.0"} if was_there else {}
    assert world(registry, bootstrap=bootstrap, last_good=last_good).told() == {TARGET: told}


@pytest.mark.parametrize("since", [1, 4, 8, 12])
def test_a6_a_registry_that_denies_everything_plans_nothing(registry: Registry, since: int) -> None:
    registry.becomes(vices.forgets_everything().since(since))
    (told,) = world(registry).told().values()
    assert told.startswith("unknown: ")


# A22, A23: where we do not go, and what does not come along.


def test_a22_a_redirect_to_another_port_is_followed_without_authorization(registry: Registry, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry") as cdn:
        registry.becomes(vices.redirects(f"http://{cdn.address}{{target}}").on("config"))
        assert world(registry).told() == {TARGET: FRESH}
        assert [one.kind for one in cdn.log] == ["config"] * 4
        assert {one.authorization for one in cdn.log} == {""}


REALMS = {
    "another host": "http://{stranger}/token",
    "another host as user": "http://{registry}@{stranger}/token",
    "another host behind a backslash": "http://{stranger}\\\\@{registry}/token",
    "localhost": "http://localhost:1/token",
    "an address in the private network": "http://10.0.0.1/token",
    "metadata": "http://169.254.169.254/token",
    "a file": "file:///etc/passwd",
    "no URL": "token",
    "nothing": "",
}


@pytest.mark.parametrize("realm", REALMS.values(), ids=[f"A23 {one}" for one in REALMS])
def test_a23_a_realm_that_is_not_declared_sees_nothing(
    registry: Registry, stranger: Registry, home: Surroundings, realm: str
) -> None:
    there = realm.format(stranger=stranger.address, registry=registry.address)
    registry.becomes(vices.challenges(f'Bearer realm="{there}",service="x"').on("index"))
    made = world(registry, surroundings=home)
    assert made.told() == {TARGET: "unknown: base-unreadable"}
    assert made.seen().bases[0].observation.reason.code == "auth"  # type: ignore[union-attr]
    assert stranger.log == ()


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        "Negotiate",
        'Digest realm="x"',
        'Bearer realm="',
        "Bearer realm=,,,",
        "\\x00",
        "Basic, Bearer",
        "x" * 9000,
    ],
    ids=lambda header: f"A23 {header[:20]!r}",
)
def test_a23_a_malformed_challenge_is_no_answer(registry: Registry, header: str) -> None:
    registry.becomes(vices.challenges(header).on("index"))
    made = world(registry)
    assert made.told() == {TARGET: "unknown: base-unreadable"}
    assert made.seen().bases[0].observation.reason.code in ("auth", "network")  # type: ignore[union-attr]


def test_a23_a_declared_realm_is_used(tmp_path: Path, home: Surroundings) -> None:
    with Registry(tmp_path / "tokens", login=Bearer(to_anyone=True)) as tokens:
        login = Bearer(to_anyone=True, realm=f"http://{tokens.address}/token")
        with Registry(tmp_path / "registry", login=login) as registry:
            publish(registry.sink, ["codex"], ["fedora"])
            host = HostSettings(realms=(tokens.address,))
            assert world(registry, host=host, surroundings=home).told() == {TARGET: FRESH}
        assert {one.kind for one in tokens.log} == {"token"}


@pytest.fixture
def home(tmp_path: Path) -> Surroundings:
    """With a login for every host that these tests may meet but the strangers."""
    auth = tmp_path / "auth.json"
    auth.write_text(json.dumps({"auths": {"127.0.0.1": {"auth": Bearer().encoded}}}))
    return Surroundings(auth_files=(str(auth),))


def test_a28_yesterdays_index_is_judged_as_its_bytes_say(registry: Registry) -> None:
    publish(registry.sink, ["codex"], ["fedora"], old=[TARGET])
    assert world(registry).told() == {TARGET: "stale: base-changed"}


# A15, A16: TLS.


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return make_authority(tmp_path_factory.mktemp("tls"))


NOW = dt.datetime.now(dt.UTC)
DAY = dt.timedelta(days=1)


def _old_tls(tls: Tls) -> ssl.SSLContext:
    context = tls.context("registry.test")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1
    context.set_ciphers("ALL:@SECLEVEL=0")
    return context


SERVERS: dict[str, tuple[Callable[[Tls], ssl.SSLContext | None], str]] = {
    "in order": (lambda tls: tls.context("registry.test"), FRESH),
    "A16 self-signed": (lambda tls: replace(tls, authority=trustme.CA()).context("registry.test"), "tls"),
    "A16 expired": (lambda tls: tls.context("registry.test", since=NOW - 9 * DAY, until=NOW - DAY), "tls"),
    "A16 not yet valid": (lambda tls: tls.context("registry.test", since=NOW + DAY, until=NOW + 9 * DAY), "tls"),
    "A16 for another name (A15 DNS to the wrong host)": (lambda tls: tls.context("other.test"), "tls"),
    "A16 TLS 1.0": (_old_tls, "tls"),
    "A16 plain HTTP": (lambda tls: None, "tls"),
}


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1 is deprecated")
@pytest.mark.parametrize("case", SERVERS)
def test_a16_what_cannot_be_trusted_is_not_talked_to(
    tmp_path: Path, tls: Tls, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    make, expected = SERVERS[case]
    resolve_here(monkeypatch)
    with Registry(tmp_path / "registry", tls=make(tls)) as registry:
        publish(registry.sink, ["codex"], ["fedora"])
        address = f"registry.test:{registry.address.rpartition(':')[2]}"
        made = world(
            registry,
            limits=ROOMY,
            address=address,
            surroundings=Surroundings(ca_bundle=tls.bundle),
            host=HostSettings(second_look=0),
        )
        assert made.told() == {TARGET: FRESH if expected == FRESH else "unknown: base-unreadable"}
        if expected != FRESH:
            assert made.seen().bases[0].observation.reason.code == expected  # type: ignore[union-attr]
            assert registry.log == ()


def test_a15_a_name_that_nobody_knows_is_no_answer(registry: Registry) -> None:
    made = world(registry, address="registry.invalid", host=HostSettings(second_look=0))
    assert made.seen().bases[0].observation.reason.code == "network"  # type: ignore[union-attr]


def test_platforms_are_both_asked_for(registry: Registry) -> None:
    assert world(registry).told() == {TARGET: FRESH}
    assert {one.platform for one in registry.log if one.kind in BY_DIGEST} >= {AMD, ARM}
