"""The survey over real HTTP: what it asks for, how often, and what it believes."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from imagewright.cache import Cache
from imagewright.catalogue import Catalogue, Tool
from imagewright.embedded.server import Handler, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
from imagewright.errors import BadCatalogue, Unanswered
from imagewright.names import Digest, Platform, Repository, Tag
from imagewright.reasons import Unknown
from imagewright.registry.client import Client
from imagewright.settings import BasesSettings, HostSettings, Limits, Settings, Surroundings, VersionsSettings
from imagewright.snapshot import (
    BaseSeen,
    CanariesSeen,
    Gone,
    Missing,
    Pointer,
    Published,
    Reading,
    Snapshot,
    TargetSeen,
    Unreachable,
)
from imagewright.survey import Request as SurveyRequest
from imagewright.survey import list_bases, survey
from imagewright.testing.images import Picture, StoreSink, layer, push, push_manifest
from imagewright.versions import Readings

PLATFORMS = ("linux/amd64", "linux/arm64")
BASES, TOOLS = "own/bases", "own/tools"


def error(code: str, status: int = 404) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": "no"}]}).encode()
    return Answer(status=status, headers={"Content-Type": "application/json"}, body=body)


class World:
    """A registry, what was asked of it, and a fault: an answer given instead of its own, None to leave it honest."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[str] = []
        self.fault: Callable[[str], Answer | None] = lambda _: None
        self._lock = threading.Lock()
        self.server = Server(root / "registry", middleware=self._answer)
        self.store = Store(root / "registry")
        self.sink = StoreSink(self.store)

    def _answer(self, request: Request, honest: Handler) -> Answer:
        path = request.target.removeprefix("/v2/")
        with self._lock:
            self.asked.append(path)
        return self.fault(path) or honest(request)

    @property
    def address(self) -> str:
        return self.server.address

    def asked_for(self, start: str) -> list[str]:
        return [one for one in self.asked if one.startswith(start)]

    def base(self, name: str) -> Digest:
        return push(self.sink, BASES, [f"{name}-latest"], {one: self.picture(name, one) for one in PLATFORMS})

    def picture(self, base: str, platform: str) -> Picture:
        return Picture(steps=[layer({"etc/base": f"{base} {platform}"}), "ENV A=1"])

    def pair(self, tool: str, base: str, version: str = "1.0", *, latest: bool = True) -> Digest:
        tags = [f"{tool}-{base}-{one}" for one in ([version, "latest"] if latest else [version])]
        pictures = {
            one: self.picture(base, one).on_top(layer({f"bin/{tool}": f"{version} {one} {base}"})) for one in PLATFORMS
        }
        return push(self.sink, TOOLS, tags, pictures)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """A question to a world. versions: of tools, None for one that cannot be read."""

    world: World
    versions: Mapping[str, str | None]
    bases: Sequence[str] = ("fedora",)
    bootstrap: bool = False
    discover: bool = False
    exclude: Sequence[str] = ()
    wait: float = 0
    base_digests: Mapping[str, Digest] | None = None
    connections: int = 32
    second_look: float | None = None
    login: bool = False
    via: Literal["host", "image", "given"] = "host"
    last_good: Mapping[str, str] = field(default_factory=dict)
    bases_at: World | None = None

    @property
    def catalogue(self) -> Catalogue:
        host = self.world.address
        settings = Settings(
            repository=Repository(host, TOOLS),
            bases=BasesSettings(
                repository=Repository((self.bases_at or self.world).address, BASES),
                discover=self.discover,
                names=tuple(self.bases),
                exclude=tuple(self.exclude),
            ),
            bootstrap=self.bootstrap,
            registries={host: HostSettings(connections=self.connections, second_look=self.second_look)},
            limits=Limits(connect=1, read=2, total=3),
        )
        tools = tuple(Tool(name=name, folder=self.world.root / "tools" / name) for name in self.versions)
        return Catalogue(root=self.world.root, settings=settings, tools=tools, hash="hash")

    def connect(self) -> Client:
        auth = self.world.root / "auth.json"
        auth.write_text(json.dumps({"auths": {self.world.address: {"auth": "bWU6c2VjcmV0"}}} if self.login else {}))
        return Client(self.catalogue.settings, Surroundings(auth_files=(str(auth),)))

    def look(self) -> Snapshot:
        pairs, _ = self.catalogue.targets(self.bases)
        request = SurveyRequest(
            catalogue=self.catalogue,
            base_names=self.bases,
            targets=pairs,
            base_digests=self.base_digests or {},
            wait=self.wait,
            now="2026-01-01T00:00:00Z",
            nonce="n0nce",
            last_good=self.last_good,
        )
        readings = Readings(
            [
                Reading(tool=name, version=version, reason=None if version else Unknown.VERSION_FAILED, via=self.via)
                for name, version in self.versions.items()
            ],
            VersionsSettings(),
            {},
        )
        try:
            return survey(request, readings, self.connect, Cache())
        finally:
            readings.close()

    def only(self) -> TargetSeen:
        (target,) = self.look().targets
        return target

    def listed(self) -> tuple[str, ...]:
        with self.connect() as client:
            return list_bases(self.catalogue, client)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    with made.server:
        yield made


@pytest.fixture
def whole(world: World) -> World:
    """A base and a pair on it, all in order."""
    world.base("fedora")
    world.pair("codex", "fedora")
    return world


def reason(observation: object) -> Unknown:
    assert isinstance(observation, Unreachable), observation
    return observation.reason


# Which bases there are.


def test_bases_are_those_that_are_configured_without_a_question(world: World) -> None:
    asked = Ask(world=world, versions={}, bases=("fedora", "debian", "alpine"), exclude=("debian",))
    assert asked.listed() == ("fedora", "alpine")
    assert world.asked == []


def test_bases_are_discovered_from_tags(world: World) -> None:
    for name in ("fedora", "debian", "alpine"):
        world.base(name)
    assert Ask(world=world, versions={}, discover=True, exclude=("debian",)).listed() == ("alpine", "fedora")
    assert world.asked == [f"{BASES}/tags/list?n=1000"]


def test_bases_are_discovered_on_every_page(world: World) -> None:
    pages = {
        f"{BASES}/tags/list?n=1000": (["a-latest"], f'</v2/{BASES}/tags/list?last=a>; rel="next"'),
        f"{BASES}/tags/list?last=a": ([], f'</v2/{BASES}/tags/list?last=b>; rel="next"'),
        f"{BASES}/tags/list?last=b": (["b-latest", "c-1.0"], ""),
    }

    def paged(path: str) -> Answer:
        tags, link = pages[path]
        body = json.dumps({"name": BASES, "tags": tags}).encode()
        return Answer(status=200, headers={"Link": link} if link else {}, body=body)

    world.fault = paged
    assert Ask(world=world, versions={}, discover=True).listed() == ("a", "b")


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            Answer(status=200, body=b'{"tags": []}'),
            "{bases} has 0 tags, and none of them is a base's (<base>-latest)",
        ),
        (
            Answer(status=200, body=b'{"tags": ["1.0", "latest", "fedora"]}'),
            "{bases} has 3 tags, and none of them is a base's (<base>-latest)",
        ),
        (
            Answer(status=200, body=b'{"tags": null}'),
            "{bases} has 0 tags, and none of them is a base's (<base>-latest)",
        ),
        (
            Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<html>"),
            "the bases in {bases} could not be listed: cut short, or no JSON document at all",
        ),
        (error("NAME_UNKNOWN"), "the bases in {bases} could not be listed: the registry says NAME_UNKNOWN"),
        (
            Answer(status=404, body=b"no"),
            "the bases in {bases} could not be listed: status 404 without a registry's error body",
        ),
        (error("DENIED", 403), "the bases in {bases} could not be listed: status 403 DENIED, 'no'"),
    ],
)
def test_bases_that_cannot_be_listed_are_not_none(world: World, answer: Answer, said: str) -> None:
    world.fault = lambda _: answer
    with pytest.raises(Unanswered) as unanswered:
        Ask(world=world, versions={}, discover=True).listed()
    assert unanswered.value.reason == said.format(bases=Repository(world.address, BASES))
    assert unanswered.value.remedy


# What a survey costs.


def test_a_survey_asks_for_each_document_once(world: World) -> None:
    bases, tools = ("alpine", "debian", "fedora"), ("codex", "crush", "goose")
    for base in bases:
        world.base(base)
        for tool in tools:
            world.pair(tool, base)
    seen = Ask(world=world, versions=dict.fromkeys(tools, "1.0"), bases=bases).look()
    assert all(isinstance(one.observation, Published) for one in (*seen.targets, *seen.bases))
    pairs, platforms, canaries = 9, 2, 3
    assert len(world.asked) == (1 + 2 * platforms) * (pairs + len(bases)) + pairs + canaries
    assert set(Counter(world.asked).values()) == {1}
    assert [one for one in world.asked if "canary" in one] == [
        f"{TOOLS}/manifests/imagewright-canary-n0nce",
        f"{TOOLS}/manifests/imagewright-canary-n0nce-2",
    ]
    assert seen.canaries == (CanariesSeen(repository=Repository(world.address, TOOLS), failed=""),)
    assert not world.asked_for(f"{TOOLS}/tags")


def test_a_missing_target_costs_a_second_look_a_list_and_a_look_at_what_latest_names(whole: World) -> None:
    seen = Ask(world=whole, versions={"codex": "2.0"}).only()
    missing = f"{TOOLS}/manifests/codex-fedora-2.0"
    assert isinstance(seen.observation, Missing)
    assert Counter(whole.asked)[missing] == 2
    assert len(whole.asked) == 5 + 2 + 1 + 5 + 3  # the base, two looks, the list, latest, canaries
    assert len(whole.asked_for(f"{TOOLS}/manifests/imagewright-canary-n0nce")) == 2
    assert len(whole.asked_for(f"{BASES}/manifests/sha256:")) == 2 + 1
    assert whole.asked.index(missing) < whole.asked.index(f"{TOOLS}/tags/list?n=1000")


def test_a_document_that_is_named_twice_is_fetched_once(whole: World) -> None:
    whole.base("alpine")
    tags = [f"codex-{base}-{version}" for base in ("fedora", "alpine") for version in ("3.0", "latest")]
    push(whole.sink, TOOLS, tags, {one: Picture(steps=[layer({"same": one})]) for one in PLATFORMS})
    seen = Ask(world=whole, versions={"codex": "3.0"}, bases=("fedora", "alpine")).look()
    assert all(isinstance(one.observation, Published) for one in seen.targets)
    assert set(Counter(whole.asked).values()) == {1}
    assert len(whole.asked_for(f"{TOOLS}/blobs/")) == 2


def test_the_second_look_has_connections_of_its_own(whole: World) -> None:
    asked = Ask(world=whole, versions={"codex": "2.0"})
    clients = []

    def connect() -> Client:
        clients.append(Ask.connect(asked))
        return clients[-1]

    request = SurveyRequest(
        catalogue=asked.catalogue,
        base_names=("fedora",),
        targets=asked.catalogue.targets(("fedora",))[0],
        now="2026-01-01T00:00:00Z",
        nonce="n",
    )
    readings = Readings([Reading(tool="codex", version="2.0")], VersionsSettings(), {})
    survey(request, readings, connect, Cache())
    readings.close()
    assert len(clients) == 2


# What is seen.


def test_what_is_in_order_is_published(whole: World) -> None:
    seen = Ask(world=whole, versions={"codex": "1.0"}).look()
    (target,), (base,) = seen.targets, seen.bases
    assert isinstance(target.observation, Published)
    assert isinstance(base, BaseSeen)
    assert isinstance(base.observation, Published)
    assert target.observation.platforms == (Platform("linux", "amd64"), Platform("linux", "arm64"))
    assert target.observation.images[0].layers[:1] == base.observation.images[0].layers
    assert target.latest == Pointer(
        reference=Repository(whole.address, TOOLS).tagged(Tag("codex-fedora-latest")),
        digest=target.observation.digest,
    )


def test_latest_that_is_behind_is_seen_where_it_is(whole: World) -> None:
    old = whole.pair("codex", "fedora", "1.0")
    whole.pair("codex", "fedora", "2.0", latest=False)
    target = Ask(world=whole, versions={"codex": "2.0"}).only()
    assert isinstance(target.observation, Published)
    assert isinstance(target.latest, Pointer)
    assert target.latest.digest == old != target.observation.digest


def test_latest_that_is_absent_is_missing(world: World) -> None:
    world.base("fedora")
    world.pair("codex", "fedora", latest=False)
    target = Ask(world=world, versions={"codex": "1.0"}).only()
    assert isinstance(target.observation, Published)
    assert isinstance(target.latest, Missing)
    assert target.latest.code == "MANIFEST_UNKNOWN"


def test_a_base_may_be_looked_at_by_digest(whole: World) -> None:
    push(whole.sink, BASES, ["fedora-latest"], {one: Picture(steps=[layer({"new": one})]) for one in PLATFORMS})
    old = whole.base("fedora")
    push(whole.sink, BASES, ["fedora-latest"], {one: Picture(steps=[layer({"new": one})]) for one in PLATFORMS})
    (base,) = Ask(world=whole, versions={"codex": "1.0"}, base_digests={"fedora": old}).look().bases
    assert isinstance(base.observation, Published)
    assert base.observation.digest == old
    assert whole.asked_for(f"{BASES}/manifests/fedora-latest") == []


@pytest.mark.parametrize("repository", [BASES, TOOLS])
@pytest.mark.parametrize("kind", ["manifests/sha256", "blobs/sha256"])
def test_a_child_or_configuration_that_is_gone_is_a_hole(whole: World, repository: str, kind: str) -> None:
    honest = Ask(world=whole, versions={"codex": "1.0"}).look()
    seen = honest.bases[0].observation if repository == BASES else honest.targets[0].observation
    assert isinstance(seen, Published)
    lost = seen.images[1].digest if kind.startswith("manifests") else seen.images[1].config
    code = "MANIFEST_UNKNOWN" if kind.startswith("manifests") else "BLOB_UNKNOWN"
    whole.fault = lambda path: error(code) if path.endswith(lost) and path.startswith(repository) else None
    found = Ask(world=whole, versions={"codex": "1.0"}).look()
    holed = found.bases[0].observation if repository == BASES else found.targets[0].observation
    assert isinstance(holed, Published)
    assert holed.gone == (Gone(platform=Platform("linux", "arm64"), digest=seen.images[1].digest),)
    assert len(holed.images) == 1


def test_a_size_that_differs_is_a_matter_of_integrity(world: World) -> None:
    world.base("fedora")
    platform = {"os": "linux", "architecture": "amd64"}
    entry = push_manifest(world.sink, TOOLS, platform, Picture(steps=[layer({"a": "b"})]))
    index = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**entry, "size": entry["size"] + 1, "platform": platform}],
    }
    world.sink.manifest(TOOLS, "codex-fedora-1.0", index["mediaType"], json.dumps(index).encode())
    found = Ask(world=world, versions={"codex": "1.0"}).only().observation
    assert isinstance(found, Unreachable)
    assert found.reason is Unknown.INTEGRITY
    assert found.detail == f"linux/amd64: {entry['size']} bytes, but its descriptor says {entry['size'] + 1}"


# What is believed.


def test_a_tag_that_is_listed_is_not_missing(whole: World) -> None:
    whole.pair("codex", "fedora", "2.0")
    whole.fault = lambda path: error("MANIFEST_UNKNOWN") if path.endswith("codex-fedora-2.0") else None
    found = Ask(world=whole, versions={"codex": "2.0"}).only()
    assert reason(found.observation) is Unknown.LISTED_BUT_MISSING


def test_a_tag_that_appears_at_the_second_look_was_never_missing(whole: World) -> None:
    whole.pair("codex", "fedora", "2.0")
    faults = iter([error("MANIFEST_UNKNOWN")])
    whole.fault = lambda path: next(faults, None) if path.endswith("codex-fedora-2.0") else None
    found = Ask(world=whole, versions={"codex": "2.0"}).only()
    assert isinstance(found.observation, Published)
    assert isinstance(found.latest, Pointer)


@pytest.mark.parametrize("bootstrap", [True, False])
def test_a_repository_that_is_unknown_is_new_only_where_that_is_said(world: World, bootstrap: bool) -> None:
    world.base("fedora")
    found = Ask(world=world, versions={"codex": "1.0"}, bootstrap=bootstrap).only().observation
    if bootstrap:
        assert isinstance(found, Missing)
        assert found.code == "NAME_UNKNOWN"
    else:
        assert reason(found) is Unknown.REPOSITORY_UNKNOWN


@pytest.mark.parametrize(
    ("bootstrap", "login", "denied", "expected"),
    [
        (True, True, TOOLS, "DENIED"),
        (True, False, TOOLS, Unknown.AUTH),
        (False, True, TOOLS, Unknown.AUTH),
        (True, True, f"{TOOLS}/manifests", Unknown.AUTH),  # it lists its tags, so it is there
        (True, True, "", Unknown.BASE_UNREADABLE),
    ],
)
def test_a_refusal_means_a_new_repository_only_where_that_is_said_and_somebody_is_logged_in(
    whole: World, bootstrap: bool, login: bool, denied: str, expected: str | Unknown
) -> None:
    whole.fault = lambda path: error("DENIED", 403) if denied in path else None
    seen = Ask(world=whole, versions={"codex": "2.0"}, bootstrap=bootstrap, login=login).look()
    (target,), (base,) = seen.targets, seen.bases
    if expected == "DENIED":
        assert isinstance(target.observation, Missing)
        assert target.observation.code == expected
    elif expected is Unknown.BASE_UNREADABLE:  # the check of existence takes the base first
        assert reason(base.observation) is Unknown.AUTH
    else:
        assert reason(target.observation) is expected


def test_a_repository_that_is_empty_is_no_evidence(whole: World) -> None:
    empty = Answer(status=200, body=b'{"tags": []}')
    whole.fault = lambda path: empty if path.startswith(f"{TOOLS}/tags") else None
    assert reason(Ask(world=whole, versions={"codex": "2.0"}).only().observation) is Unknown.REPOSITORY_UNKNOWN
    assert isinstance(Ask(world=whole, versions={"codex": "2.0"}, bootstrap=True).only().observation, Missing)


def test_a_list_that_cannot_be_read_leaves_the_question_open(whole: World) -> None:
    whole.fault = lambda path: error("DENIED", 403) if path.startswith(f"{TOOLS}/tags") else None
    assert reason(Ask(world=whole, versions={"codex": "2.0"}).only().observation) is Unknown.AUTH


def test_a_registry_that_has_lost_everything_is_not_believed(whole: World) -> None:
    def forgets(path: str) -> Answer | None:
        second_look = len(whole.asked_for(f"{TOOLS}/manifests/codex-fedora-2.0")) > 1
        return error("MANIFEST_UNKNOWN") if second_look and "/manifests/" in path else None

    whole.fault = forgets
    seen = Ask(world=whole, versions={"codex": "2.0"}).look()
    assert seen.distrust(Repository(whole.address, TOOLS)).endswith(", which it had a moment ago")


def test_canaries_are_asked_for_last(whole: World) -> None:
    Ask(world=whole, versions={"codex": "2.0"}).look()
    assert set(whole.asked[-2:]) == {
        f"{TOOLS}/manifests/imagewright-canary-n0nce-2",
        whole.asked_for(f"{BASES}/manifests/sha256:")[-1],
    }


def test_a_registry_that_has_every_tag_is_not_believed(whole: World) -> None:
    index = json.dumps({"schemaVersion": 2, "manifests": []}).encode()
    anything = Answer(status=200, headers={"Content-Type": "application/vnd.oci.image.index.v1+json"}, body=index)

    def has_all_but_one(path: str) -> Answer | None:
        if path.endswith("codex-fedora-2.0"):
            return error("MANIFEST_UNKNOWN")
        return anything if "canary" in path else None

    whole.fault = has_all_but_one
    seen = Ask(world=whole, versions={"codex": "2.0"}).look()
    why = f"it has {whole.address}/{TOOLS}:imagewright-canary-n0nce, which cannot exist"
    assert seen.distrust(Repository(whole.address, TOOLS)) == why


@pytest.mark.parametrize("which", ["canary-n0nce", "canary-n0nce-2", "manifests/sha256:"])
def test_each_canary_can_fail_alone(whole: World, which: str) -> None:
    neighbour = Ask(world=whole, versions={"codex": "1.0"}).look().bases[0].observation
    assert isinstance(neighbour, Published)
    end = which if "canary" in which else f"{which}{neighbour.digest.removeprefix('sha256:')}"
    whole.fault = lambda path: Answer(status=451) if path.endswith(end) else None
    seen = Ask(world=whole, versions={"codex": "1.0"}).look()
    assert seen.distrust(Repository(whole.address, TOOLS)).endswith(": status 451")
    assert isinstance(seen.targets[0].observation, Published)


def test_a_host_with_nothing_but_bases_has_canaries_of_its_own(whole: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    with other.server:
        other.base("fedora")
        asked = Ask(world=whole, versions={"codex": "1.0"}, bases_at=other)
        bases = Repository(other.address, BASES)
        assert [one.repository for one in asked.look().canaries] == [Repository(whole.address, TOOLS), bases]
        other.fault = lambda path: Answer(status=451) if "canary" in path else None
        seen = asked.look()
    assert seen.distrust(bases) == f"asked for {bases}:imagewright-canary-n0nce: status 451"
    assert not seen.distrust(Repository(whole.address, TOOLS))


def test_a_repository_is_not_distrusted_for_another_one_of_its_host() -> None:
    one, other, third = (Repository("ghcr.io", name) for name in ("own/tools", "own/images", "own/bases"))
    canaries = (CanariesSeen(repository=one, failed=""), CanariesSeen(repository=other, failed="denied"))
    seen = Snapshot(catalogue="", taken="", base_names=(), readings=(), bases=(), targets=(), canaries=canaries)
    assert [seen.distrust(repository) for repository in (one, other, third)] == ["", "denied", "denied"]
    assert seen.distrust(Repository("quay.io", "own/tools")) == ""


# Whether `latest` is absent, and whether it is newer.


def test_an_absent_latest_is_asked_for_twice_and_not_believed_where_it_is_listed(world: World) -> None:
    world.base("fedora")
    world.pair("codex", "fedora")
    world.fault = lambda path: error("MANIFEST_UNKNOWN") if path.endswith("codex-fedora-latest") else None
    target = Ask(world=world, versions={"codex": "1.0"}).only()
    assert isinstance(target.observation, Published)
    assert isinstance(target.latest, Unreachable)
    assert target.latest.reason is Unknown.LISTED_BUT_MISSING
    assert len(world.asked_for(f"{TOOLS}/manifests/codex-fedora-latest")) == 2


def test_a_latest_that_appears_at_the_second_look_was_never_absent(whole: World) -> None:
    faults = iter([error("MANIFEST_UNKNOWN")])
    whole.fault = lambda path: next(faults, None) if path.endswith("codex-fedora-latest") else None
    assert isinstance(Ask(world=whole, versions={"codex": "1.0"}).only().latest, Pointer)


@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("via", ["host", "image", "given"])
def test_what_latest_names_instead_is_looked_at_unless_the_version_was_given(
    whole: World, there: bool, via: Literal["host", "image", "given"]
) -> None:
    if there:
        whole.pair("codex", "fedora", "0.9", latest=False)
    latest = Repository(whole.address, TOOLS).tagged(Tag("codex-fedora-latest"))
    newest = Ask(world=whole, versions={"codex": "0.9"}, via=via).only().newest
    if via == "given":
        assert newest is None
    else:
        assert isinstance(newest, Published)
        assert newest.reference == latest


def test_what_latest_names_is_not_looked_at_where_it_is_this_image(whole: World) -> None:
    assert Ask(world=whole, versions={"codex": "1.0"}).only().newest is None


@pytest.mark.parametrize(
    ("bootstrap", "before", "expected"),
    [
        (True, "own/tools:codex-fedora-1.0", Unknown.REPOSITORY_VANISHED),
        (False, "own/tools:codex-fedora-1.0", Unknown.REPOSITORY_VANISHED),
        (True, "own/tools-of-old:codex-fedora-1.0", None),
        (False, "own/tools-of-old:codex-fedora-1.0", Unknown.REPOSITORY_UNKNOWN),
    ],
)
@pytest.mark.parametrize("empty", [True, False])
def test_a_repository_that_had_images_has_vanished(
    world: World, bootstrap: bool, before: str, empty: bool, expected: Unknown | None
) -> None:
    world.base("fedora")
    if empty:
        answers = {f"{TOOLS}/tags": Answer(status=200, body=b'{"tags": []}'), TOOLS: error("MANIFEST_UNKNOWN")}
        world.fault = lambda path: next((one for start, one in answers.items() if path.startswith(start)), None)
    last_good = {"codex-fedora": f"{world.address}/{before}"}
    found = Ask(world=world, versions={"codex": "1.0"}, bootstrap=bootstrap, last_good=last_good).only().observation
    assert isinstance(found, Missing) if expected is None else reason(found) is expected


def test_a_base_that_is_missing_does_not_hide_its_targets(whole: World) -> None:
    whole.fault = lambda path: error("MANIFEST_UNKNOWN") if path.startswith(f"{BASES}/manifests/fedora") else None
    seen = Ask(world=whole, versions={"codex": "2.0"}).look()
    assert isinstance(seen.bases[0].observation, Missing)
    assert isinstance(seen.targets[0].observation, Missing)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(status=404, body=b"no"), Unknown.NOT_A_REGISTRY_ANSWER),
        (error("DENIED", 403), Unknown.AUTH),
        (Answer(status=200, body=b"<html>"), Unknown.GARBAGE),
        (error("MANIFEST_UNKNOWN", 410), Unknown.UNEXPECTED_STATUS),
    ],
)
def test_what_is_no_answer_is_unknown_and_gets_no_second_look(whole: World, answer: Answer, expected: Unknown) -> None:
    whole.fault = lambda path: answer if path.endswith("codex-fedora-1.0") else None
    assert reason(Ask(world=whole, versions={"codex": "1.0"}).only().observation) is expected
    assert not whole.asked_for(f"{TOOLS}/tags")


# Waiting, and versions.


def test_a_tag_that_appears_a_second_later_is_waited_for(whole: World) -> None:
    with ThreadPoolExecutor(1) as later:
        looking = later.submit(Ask(world=whole, versions={"codex": "2.0"}, wait=10).only)
        time.sleep(1)
        digest = whole.pair("codex", "fedora", "2.0")
        found = looking.result()
    assert isinstance(found.observation, Published)
    assert isinstance(found.latest, Pointer)
    assert found.observation.digest == found.latest.digest == digest
    assert not whole.asked_for(f"{TOOLS}/tags")


def test_waiting_ends_when_its_time_is_up(whole: World) -> None:
    started = time.monotonic()
    found = Ask(world=whole, versions={"codex": "2.0"}, wait=0.5).only()
    assert isinstance(found.observation, Missing)
    assert 0.5 <= time.monotonic() - started < 2


def test_the_second_look_waits_as_the_settings_say(whole: World) -> None:
    started = time.monotonic()
    Ask(world=whole, versions={"codex": "2.0"}, second_look=0.4).only()
    assert time.monotonic() - started >= 0.4


def test_targets_that_claim_one_tag_stop_the_survey_before_any_is_asked_for(world: World) -> None:
    for name in ("x", "1"):
        world.base(name)
    colliding = Ask(world=world, versions={"codex": "1-2", "codex-x": "2"}, bases=("x", "1"))
    with pytest.raises(BadCatalogue) as bad:
        colliding.look()
    assert "both make the tag codex-x-1-2" in bad.value.reason
    assert world.asked_for(TOOLS) == []


def test_a_version_that_cannot_be_read_costs_that_tool_only(world: World) -> None:
    world.base("fedora")
    world.pair("codex", "fedora")
    seen = Ask(world=world, versions={"codex": "1.0", "goose": None}).look()
    readable, unreadable = seen.targets
    assert isinstance(readable.observation, Published)
    assert (unreadable.target, unreadable.version, unreadable.observation, unreadable.latest) == (
        "goose-fedora",
        None,
        None,
        None,
    )
    assert not world.asked_for(f"{TOOLS}/manifests/goose")


def test_where_no_version_is_known_only_bases_are_looked_at(whole: World) -> None:
    seen = Ask(world=whole, versions={"codex": None}).look()
    assert isinstance(seen.bases[0].observation, Published)
    assert whole.asked_for(TOOLS) == []


def test_a_host_may_be_asked_one_thing_at_a_time(whole: World) -> None:
    assert isinstance(Ask(world=whole, versions={"codex": "1.0"}, connections=1).only().observation, Published)
