"""Publishing into a registry over real HTTP: what is pushed in which order, and what keeps tags where they are."""

import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imagewright.builders import BuildRequest
from imagewright.builders.copy import Copy
from imagewright.catalogue import Pair
from imagewright.embedded.server import Handler, Seen, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
from imagewright.errors import Failed
from imagewright.layout import Layout
from imagewright.load import load_catalogue
from imagewright.names import Digest, Platform, make_repository, parse_digest
from imagewright.publish import (
    Receipt,
    Work,
    confirm,
    move_latest,
    publish,
    push,
    push_platforms,
    refuse_unpublishable,
)
from imagewright.recipe import labels, recipe
from imagewright.registry.client import Client
from imagewright.settings import Surroundings
from imagewright.testing import images
from imagewright.testing.images import Picture, StoreSink, layer
from imagewright.testing.projects import make_project, make_tool

AMD, ARM, RISCV = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "riscv64")
BOTH = (AMD, ARM)
VERSION = "org.opencontainers.image.version"


@dataclass
class World:
    """A registry, a project that publishes into it, and what the registry was asked to write."""

    root: Path
    server: Server
    seen: list[Seen] = field(default_factory=list)
    misbehave: Callable[[Request, Handler], Answer | None] = field(default=lambda request, honest: None)
    on_write: Callable[[Seen], object] = field(default=lambda seen: None)

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def sink(self) -> StoreSink:
        return StoreSink(Store(self.root / "registry"))

    def make(self, *tools: str, yaml: str = "", platforms: Sequence[Platform] = BOTH) -> None:
        make_project(self.project, registry=self.server.address, tools={}, platforms=[str(one) for one in platforms])
        for tool in tools:
            make_tool(self.project, tool, "1.0.0", yaml)

    def base(self, mark: str = "1", platforms: Sequence[Platform] = BOTH) -> Digest:
        """Publishes the base fedora, with labels of its own."""
        said = {VERSION: "40", "vendor": "fedora"}
        picture = {
            str(one): Picture(steps=[layer({"etc/os": f"{one}"}), layer({"etc/mark": mark}), "ENV A=1"], labels=said)
            for one in platforms
        }
        return images.push(self.sink, "own/bases", ["fedora-latest"], picture)

    def pair(self, tool: str = "codex") -> Pair:
        catalogue = load_catalogue(self.project, {})
        found = catalogue.tool(tool)
        assert found
        return catalogue.pair(found, "fedora")

    def client(self) -> Client:
        return Client(load_catalogue(self.project, {}).settings, Surroundings())

    def build(
        self, base: Digest, version: str = "1.0.0", platforms: Sequence[Platform] = BOTH, tool: str = "codex"
    ) -> Path:
        """A layout as `build` leaves it."""
        pair = self.pair(tool)
        said = labels(
            pair,
            base_digest=base,
            version=version,
            recipe=recipe(pair.tool, "copy"),
            prefix="imagewright",
            created=0,
        )
        into = self.root / f"layout-{len(list(self.root.iterdir()))}"
        request = BuildRequest(
            target=pair.key,
            context=pair.tool.folder,
            dockerfile=None,
            base=pair.base.reference.repository.at(base),
            platforms=tuple(platforms),
            arguments={},
            labels=said,
            annotations=said,
            epoch=0,
        )
        with self.client() as client:
            Copy(client).build(request, into, lambda line: None)
        self.seen.clear()
        return into

    def work(self, base: Digest, *layouts: Path, version: str = "1.0.0", tool: str = "codex") -> Work:
        pair = self.pair(tool)
        return Work(target=pair, version=version, base=pair.base.reference.repository.at(base), layouts=layouts)

    def publish(self, *works: Work) -> list[Receipt]:
        with self.client() as client:
            return publish(client, self.project, works, dict(os.environ))

    def names(self, tag: str) -> str | None:
        """The digest that a tag names in the registry."""
        with self.client() as client:
            repository = make_repository(self.server.address, "own/tools")
            found = client.manifest(repository.tagged(tag))  # type: ignore[arg-type]
        return getattr(found, "digest", None)

    def index(self, digest: str) -> dict[str, object]:
        file = self.root / "registry" / "own+tools" / "blobs" / "sha256" / digest.removeprefix("sha256:")
        document: dict[str, object] = json.loads(file.read_bytes())
        return document

    def lose(self, digest: str) -> None:
        (self.root / "registry" / "own+tools" / "blobs" / "sha256" / digest.removeprefix("sha256:")).unlink()

    def tagged(self, tag: str, said: dict[str, str]) -> Digest:
        """Somebody publishes another image under a tag of codex-fedora."""
        picture = Picture(steps=[layer({"x": tag}), layer({"y": str(said)})], labels=said)
        return images.push(self.sink, "own/tools", [f"codex-fedora-{tag}"], {"linux/amd64": picture})

    def writes(self) -> list[str]:
        """PUT and POST of manifests, in order, as tag or as `sha256:…`."""
        puts = [one.target for one in self.seen if one.method == "PUT" and "/manifests/" in one.target]
        return [one.partition("/manifests/")[2] for one in puts]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)

    def between(request: Request, honest: Handler) -> Answer:
        return made.misbehave(request, honest) or honest(request)

    def told(seen: Seen) -> None:
        if seen.method in ("PUT", "POST", "PATCH"):
            made.on_write(seen)
        made.seen.append(seen)

    with Server(tmp_path / "registry", on_request=told, middleware=between) as server:
        made = World(tmp_path, server)
        yield made


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(Failed) as error:
        call()
    return str(error.value)


# Order


def test_platforms_then_index_then_version_then_the_checks_then_latest(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)
    children_there: list[bool] = []
    blobs = world.root / "registry" / "own+tools" / "blobs" / "sha256"

    def look(seen: Seen) -> None:
        if re.search(r"/manifests/codex-", seen.target):
            for manifest in children:
                body = json.loads((blobs / manifest).read_bytes())
                needed = [body["config"], *body["layers"]]
                children_there.append(all((blobs / one["digest"].removeprefix("sha256:")).is_file() for one in needed))

    (top,) = Layout(layout).entries()
    index = json.loads(Layout(layout).blob_path(top.digest).read_bytes())
    children = [one["digest"].removeprefix("sha256:") for one in index["manifests"]]
    world.on_write = look

    (receipt,) = world.publish(world.work(base, layout))

    assert (receipt.outcome, receipt.latest, receipt.problem) == ("published", "moved", "")
    assert world.writes() == [
        *(f"sha256:{one}" for one in children),
        receipt.digest,
        "codex-fedora-1.0.0",
        "codex-fedora-latest",
    ]
    assert children_there == [True] * 4
    asked = [(one.method, one.target.rpartition("/")[2]) for one in world.seen]
    moved = asked.index(("PUT", "codex-fedora-latest"))
    assert ("GET", "codex-fedora-1.0.0") in asked[asked.index(("PUT", "codex-fedora-1.0.0")) : moved]
    assert world.names("codex-fedora-latest") == world.names("codex-fedora-1.0.0") == receipt.digest


def test_layers_of_the_base_are_mounted_and_only_the_own_ones_are_uploaded(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)

    with world.client() as client:
        push(client, world.work(base, layout))

    mounted = [one for one in world.seen if "mount=" in one.target and one.status == 201]
    uploaded = [one for one in world.seen if one.method == "PUT" and "/blobs/" in one.target]
    assert len(mounted) == 3  # one layer of each platform, one of both
    assert all("from=own/bases" in one.target for one in mounted)
    assert len(uploaded) == 3  # the tool's own layer, two configurations


@pytest.mark.parametrize("latest", ["in step", "behind"])
def test_what_is_published_already_is_not_pushed_again(world: World, latest: str) -> None:
    world.make("codex")
    base = world.base()
    first = world.build(base)
    with world.client() as client:
        pushed = push(client, world.work(base, first))
        if latest == "in step":
            move_latest(client, pushed)
    world.seen.clear()

    (receipt,) = world.publish(world.work(base, world.build(base)))

    assert (receipt.outcome, receipt.digest) == ("identical", pushed.digest)
    assert [one.target for one in world.seen if one.method == "POST"] == []
    assert world.writes() == ([] if latest == "in step" else ["codex-fedora-latest"])
    assert receipt.latest == ("already" if latest == "in step" else "moved")


def test_a_retag_moves_latest_and_nothing_else(world: World) -> None:
    world.make("codex")
    base = world.base()
    with world.client() as client:
        pushed = push(client, world.work(base, world.build(base)))
    old = world.tagged("latest", {VERSION: "0.9.0", "imagewright.tool": "codex"})
    world.seen.clear()

    (receipt,) = world.publish(world.work(base))

    assert world.names("codex-fedora-latest") == pushed.digest != old
    assert world.writes() == ["codex-fedora-latest"]
    assert (receipt.outcome, receipt.latest) == ("identical", "moved")


def test_a_retag_of_what_is_not_there_is_refused(world: World) -> None:
    world.make("codex")
    base = world.base()
    with world.client() as client:
        said = refused(lambda: push(client, world.work(base)))
    assert said == (
        f"{world.server.address}/own/tools:codex-fedora-1.0.0 is not there\n  Make a new plan: it has to be built."
    )


# What platforms say becomes what the index says


def test_layouts_and_digests_from_other_machines_make_the_same_index(world: World) -> None:
    world.make("codex")
    base = world.base()
    whole = world.build(base)
    with world.client() as client:
        digests = {}
        for platform in BOTH:
            alone = world.work(base, world.build(base, platforms=[platform]))
            digests |= push_platforms(client, alone)
            assert all("sha256:" in one for one in world.writes())
        joined = push(client, replace(world.work(base), digests=digests))
        elsewhere = replace(world.pair(), repository=make_repository(world.server.address, "own/others"))
        pushed = push(client, replace(world.work(base, whole), target=elsewhere))
        again = push(client, world.work(base, whole))

    assert joined.digest == pushed.digest == again.digest
    assert (joined.identical, pushed.identical, again.identical) == (False, False, True)
    assert world.index(joined.digest)["annotations"] == {
        "imagewright.base": "fedora",
        "imagewright.recipe": recipe(world.pair().tool, "copy"),
        "imagewright.tool": "codex",
        "org.opencontainers.image.base.digest": base,
        "org.opencontainers.image.base.name": f"{world.server.address}/own/bases:fedora-latest",
        "org.opencontainers.image.created": "1970-01-01T00:00:00Z",
        "org.opencontainers.image.title": "codex",
        "org.opencontainers.image.version": "1.0.0",
    }


def test_an_index_does_not_say_what_its_platforms_disagree_on(world: World) -> None:
    world.make("codex")
    base = world.base()
    own = layer({"bin/codex": ""})
    digests = {}
    for platform, mark in ((AMD, "a"), (ARM, "b")):
        below = Picture(
            steps=[layer({"etc/os": f"{platform}"}), layer({"etc/mark": "1"}), "ENV A=1"], labels={"vendor": "fedora"}
        )
        picture = below.on_top(own, labels={"mark": mark, "same": "yes"})
        members = {"os": platform.os, "architecture": platform.architecture}
        descriptor = images.push_manifest(world.sink, "own/tools", members, picture)
        digests[platform] = parse_digest(descriptor["digest"])
    with world.client() as client:
        pushed = push(client, replace(world.work(base), digests=digests))
    assert world.index(pushed.digest)["annotations"] == {"same": "yes"}


# What is refused before a tag moves


def platform_missing(world: World, base: Digest) -> Work:
    return world.work(base, world.build(base, platforms=[AMD]))


def platform_twice(world: World, base: Digest) -> Work:
    return world.work(base, world.build(base), world.build(base, platforms=[ARM]))


def other_base(world: World, base: Digest) -> Work:
    return world.work(world.base("2"), world.build(base))


def base_gone(world: World, base: Digest) -> Work:
    return world.work(Digest(f"sha256:{'0' * 64}"), world.build(base))


def no_layout(world: World, base: Digest) -> Work:
    return world.work(base, world.root)


def damaged_layout(world: World, base: Digest) -> Work:
    layout = world.build(base)
    (top,) = Layout(layout).entries()
    Layout(layout).blob_path(top.digest).write_bytes(b"{}")
    return world.work(base, layout)


def layer_lost(world: World, base: Digest) -> Work:
    layout = world.build(base)
    for one in layout.glob("blobs/sha256/*"):
        if one.read_bytes().startswith(b"\x1f\x8b"):  # gzip
            one.unlink()
    return world.work(base, layout)


def claimed_platform(world: World, base: Digest) -> Work:
    """The image of amd64 twice, once called arm64."""
    layout = Layout(world.build(base))
    (top,) = layout.entries()
    body = json.loads(layout.blob_path(top.digest).read_bytes())
    body["manifests"][1] = {**body["manifests"][0], "platform": {"os": "linux", "architecture": "arm64"}}
    layout.write_entries([layout.add_json(body, "application/vnd.oci.image.index.v1+json")])
    return world.work(base, layout.path)


def claimed_digest(world: World, base: Digest) -> Work:
    with world.client() as client:
        digests = push_platforms(client, world.work(base, world.build(base)))
    return replace(world.work(base), digests={AMD: digests[AMD], ARM: digests[AMD]})


def digest_not_there(world: World, base: Digest) -> Work:
    return replace(world.work(base, world.build(base, platforms=[AMD])), digests={ARM: Digest(f"sha256:{'1' * 64}")})


def digest_of_an_index(world: World, base: Digest) -> Work:
    return replace(world.work(base), digests={ARM: world.tagged("other", {})})


UNFIT = {
    platform_missing: r"codex-fedora is not whole: linux/arm64 was not built\n  Build it for all platforms\.",
    platform_twice: r"codex-fedora has a platform twice: linux/amd64, linux/arm64, linux/arm64",
    other_base: r"codex-fedora was not built on \S+/own/bases@sha256:\w{64}: base-changed on linux/amd64, linux/arm64: "
    r"layer 2 of 2 of the base is another one\n  Make a new plan and build again\.",
    base_gone: r"the base \S+@sha256:0{64} cannot be read: MANIFEST_UNKNOWN\n  Make a new plan\.",
    no_layout: r"\S+: not an OCI image layout: it has no index\.json",
    damaged_layout: r"\S+: the content is not what its name says\n  Remove the layout and build again\.",
    layer_lost: r"\S+: the layout has no content sha256:\w{64}",
    claimed_platform: r"\S+: the image given for linux/arm64 is one for linux/amd64",
    claimed_digest: r"\S+@sha256:\w{64}: the image given for linux/arm64 is one for linux/amd64",
    digest_not_there: r"\S+/own/tools@sha256:1{64}, given for linux/arm64, is not the manifest of an image there",
    digest_of_an_index: r"\S+/own/tools@sha256:\w{64}, given for linux/arm64, is not the manifest of an image there",
}


@pytest.mark.parametrize("prepare", UNFIT, ids=lambda one: one.__name__)
def test_what_is_not_whole_or_not_on_its_base_moves_no_tag(
    world: World, prepare: Callable[[World, Digest], Work]
) -> None:
    world.make("codex")
    work = prepare(world, world.base())
    world.seen.clear()
    with world.client() as client:
        said = refused(lambda: push(client, work))
    assert re.fullmatch(UNFIT[prepare], said), said
    assert [one for one in world.writes() if one.startswith("codex-")] == []


def test_a_squashed_image_is_known_by_its_label(world: World) -> None:
    world.make("codex", yaml="squashed: true\n")
    old = world.base()
    layout = world.build(old)
    with world.client() as client:
        assert not push(client, world.work(old, layout)).identical
        said = refused(lambda: push(client, world.work(world.base("2"), layout, version="1.0.1")))
    assert re.match(r"codex-fedora was not built on \S+: base-changed: ", said)
    assert world.names("codex-fedora-1.0.1") is None


@pytest.mark.parametrize(
    ("yaml", "version", "why"),
    [
        ("", "1.0.0", None),
        ("redistributable: false\n", "1.0.0", "codex-fedora may not be redistributed, so it is never pushed"),
        (
            "exclude-bases:\n  fedora: needs GLIBC_2.38\n",
            "1.0.0",
            "codex-fedora is excluded, so it is never pushed: needs GLIBC_2.38",
        ),
        ("", "latest", "'latest' is no version, so nothing is pushed under it"),
        ("", "dev", "'dev' is no version, so nothing is pushed under it"),
        ("", "1.0 beta", "'1.0 beta' is no version, so nothing is pushed under it"),
    ],
)
def test_what_must_not_be_pushed_is_refused(world: World, yaml: str, version: str, why: str | None) -> None:
    world.make("codex", yaml=yaml)
    if why is None:
        refuse_unpublishable(world.pair(), version)
    else:
        assert refused(lambda: refuse_unpublishable(world.pair(), version)).partition("\n")[0] == why


def test_the_place_that_pushes_refuses_what_must_not_be_pushed(world: World) -> None:
    world.make("codex", yaml="redistributable: false\n")
    base = world.base()
    layout = world.build(base)
    (receipt,) = world.publish(world.work(base, layout))
    assert (receipt.outcome, receipt.digest, receipt.latest) == ("failed", None, "not moved")
    assert world.seen == []


# `latest`


OURS = {"imagewright.tool": "codex"}
BACKWARDS = "{latest} names version {theirs}, newer than {ours}: it does not go backwards"
NOBODY = "{latest} names version {theirs}; nobody can say whether {ours} is newer"
LATEST: list[tuple[str, str | None, str, str]] = [
    # scheme, the version that latest names, the version to be published, what happens
    ("semver", None, "1.0.0", "moved"),
    ("semver", "1.9.0", "1.10.0", "moved"),
    ("semver", "1.10.0", "1.9.0", BACKWARDS),
    ("semver", "2.0.0", "2.0.0-rc.1", BACKWARDS),
    ("semver", "2.0.0-rc.1", "2.0.0", "moved"),
    ("semver", "1.0.0", "1.0.0", "moved"),
    ("semver", "nightly7", "1.0.0", NOBODY),
    ("pep440", "1.0rc1", "1.0", "moved"),
    ("pep440", "1.0.post1", "1.0", BACKWARDS),
    ("calver", "2026.01", "2025.12", BACKWARDS),
    ("calver", "2025.12", "2026.01", "moved"),
    ("opaque", "z9", "a1", "moved"),
]


@pytest.mark.parametrize(("scheme", "theirs", "ours", "expected"), LATEST)
def test_latest_never_goes_backwards(world: World, scheme: str, theirs: str | None, ours: str, expected: str) -> None:
    world.make("codex", yaml=f"version-scheme: {scheme}\n")
    base = world.base()
    before = world.tagged("latest", {VERSION: theirs, **OURS}) if theirs else None
    with world.client() as client:
        pushed = push(client, world.work(base, world.build(base, ours), version=ours))
        if expected == "moved":
            assert move_latest(client, pushed) == "moved"
            assert move_latest(client, pushed) == "already"
        else:
            said = refused(lambda: move_latest(client, pushed)).partition("\n")[0]
            reference = f"{world.server.address}/own/tools:codex-fedora-latest"
            assert said == expected.format(latest=reference, theirs=theirs, ours=ours)
    assert world.names("codex-fedora-latest") == (pushed.digest if expected == "moved" else before)
    assert world.names(f"codex-fedora-{ours}") == pushed.digest


def test_an_image_from_before_adoption_does_not_hold_latest(world: World) -> None:
    world.make("codex")
    base = world.base()
    world.tagged("latest", {VERSION: "9.9.9"})  # the label may be its base's
    with world.client() as client:
        assert move_latest(client, push(client, world.work(base, world.build(base)))) == "moved"


@pytest.mark.parametrize("before", ["another", "none"])
def test_latest_that_somebody_moved_meanwhile_stays_there(world: World, before: str) -> None:
    world.make("codex")
    base = world.base()
    if before == "another":
        world.tagged("latest", {VERSION: "0.1.0", **OURS})
    layout = world.build(base)
    theirs: list[Digest] = []

    def move(seen: Seen) -> None:
        if seen.target.endswith("/manifests/codex-fedora-1.0.0"):
            theirs.append(world.tagged("latest", {VERSION: "0.2.0", **OURS}))

    world.on_write = move
    (receipt,) = world.publish(world.work(base, layout))

    assert (receipt.outcome, receipt.latest) == ("failed", "not moved")
    latest = f"{world.server.address}/own/tools:codex-fedora-latest"
    assert receipt.problem == f"{latest} was moved by somebody else meanwhile\n  Make a new plan."
    assert world.names("codex-fedora-latest") == theirs[0]
    assert world.names("codex-fedora-1.0.0") == receipt.digest


def test_latest_that_went_meanwhile_is_not_made_anew(world: World) -> None:
    world.make("codex")
    base = world.base()
    old = world.tagged("latest", {VERSION: "0.1.0", **OURS})
    with world.client() as client:
        pushed = push(client, world.work(base, world.build(base)))
        world.lose(old)
        said = refused(lambda: move_latest(client, pushed))
    assert said == f"{world.server.address}/own/tools:codex-fedora-latest has gone meanwhile\n  Make a new plan."


def test_latest_that_was_taken_and_did_not_move_is_noticed(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)

    def swallow(request: Request, honest: Handler) -> Answer | None:
        return Answer(status=201) if request.method == "PUT" and request.path.endswith("-latest") else None

    with world.client() as client:
        pushed = push(client, world.work(base, layout))
        world.misbehave = swallow
        said = refused(lambda: move_latest(client, pushed))
    latest = f"{world.server.address}/own/tools:codex-fedora-latest"
    assert said == f"{latest} does not name {pushed.digest} after it was moved\n  Make a new plan."


# Verification


def test_what_the_checks_do_not_confirm_keeps_latest_and_stops_nobody_else(world: World) -> None:
    world.make("codex", "gemini")
    base = world.base()
    old = world.tagged("latest", {VERSION: "0.1.0", **OURS})
    works = [world.work(base, world.build(base, tool=one), tool=one) for one in ("codex", "gemini")]

    def lose(seen: Seen) -> None:
        if seen.target.endswith("/manifests/codex-fedora-1.0.0"):
            entries = world.index(world.writes()[-1])["manifests"]
            world.lose(entries[1]["digest"])  # type: ignore[index]

    world.on_write = lose
    codex, gemini = world.publish(*works)

    assert (codex.outcome, codex.latest) == ("failed", "not moved")
    assert codex.problem.startswith("the checks do not hold: child-missing on linux/arm64: ")
    assert world.names("codex-fedora-latest") == old
    assert (gemini.outcome, gemini.latest, gemini.problem) == ("published", "moved", "")
    assert codex.as_json() == {
        "target": "codex-fedora",
        "reference": f"{world.server.address}/own/tools:codex-fedora-1.0.0",
        "digest": codex.digest,
        "outcome": "failed",
        "latest": "not moved",
        "problem": codex.problem,
    }


def test_an_index_that_was_taken_and_is_not_there_keeps_latest(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)

    def swallow(request: Request, honest: Handler) -> Answer | None:
        if request.method == "PUT" and request.path.endswith("/manifests/codex-fedora-1.0.0"):
            return Answer(status=201)
        return None

    world.misbehave = swallow
    (receipt,) = world.publish(world.work(base, layout))

    assert (receipt.outcome, receipt.latest) == ("failed", "not moved")
    assert receipt.problem == "the checks do not hold: image-missing: the registry has no codex-fedora-1.0.0"
    assert world.names("codex-fedora-latest") is None


def test_a_version_that_somebody_else_published_meanwhile_keeps_latest(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)

    def replace_it(seen: Seen) -> None:
        if seen.target.endswith("/manifests/codex-fedora-1.0.0"):
            body = json.dumps({**world.index(world.writes()[-1]), "annotations": {"by": "somebody"}}).encode()
            world.sink.manifest("own/tools", "codex-fedora-1.0.0", "application/vnd.oci.image.index.v1+json", body)

    world.on_write = replace_it
    (receipt,) = world.publish(world.work(base, layout))

    reference = f"{world.server.address}/own/tools:codex-fedora-1.0.0"
    assert receipt.problem == f"{reference} names {world.names('codex-fedora-1.0.0')} instead of {receipt.digest}"
    assert (receipt.outcome, receipt.latest) == ("failed", "not moved")
    assert world.names("codex-fedora-latest") is None


def test_checks_that_cannot_run_confirm_nothing(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)
    (world.project / "checks" / "test_broken.py").write_text("def test_x(:\n")

    (receipt,) = world.publish(world.work(base, layout))

    assert (receipt.outcome, receipt.latest) == ("failed", "not moved")
    assert receipt.problem.startswith("the checks could not be run on it: the checks left no report, they say: ")
    assert world.names("codex-fedora-latest") is None


def test_the_last_run_of_the_checks_allows_no_objection(world: World) -> None:
    world.make("codex", "gemini")
    base = world.base()
    works = [world.work(base, world.build(base, tool=one), tool=one) for one in ("codex", "gemini")]
    with world.client() as client:
        done = []
        for work in works:
            pushed = push(client, work)
            done.append(Receipt(work=work, digest=pushed.digest, outcome="published", latest="moved"))
            if work.target.key == "gemini-fedora":
                move_latest(client, pushed)

    environ = dict(os.environ)
    codex, gemini = confirm(world.project, done, environ)

    assert codex.outcome == "failed"
    assert codex.problem.startswith("the checks do not hold: latest-behind: ")
    assert gemini == done[1]
    failed = Receipt(work=works[0], outcome="failed", problem="x")
    assert confirm(world.project, [failed], environ) == [failed]


# A registry that fails


def fail_write(world: World, at: int, how: Callable[[], Answer]) -> None:
    """Lets the request to write number `at` fail, and all after it."""
    count = iter(range(1000))

    def misbehave(request: Request, honest: Handler) -> Answer | None:
        return how() if request.method in ("PUT", "POST") and next(count) >= at else None

    world.misbehave = misbehave


def reset() -> Answer:
    raise ConnectionResetError


FAULTS: dict[str, Callable[[], Answer]] = {"503": lambda: Answer(status=503), "reset": reset}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_push_cut_at_any_request_leaves_the_version_as_it_was(world: World, fault: str) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)
    work = world.work(base, layout)
    with world.client() as client:
        push(
            client,
            replace(work, target=replace(work.target, repository=make_repository(world.server.address, "own/x"))),
        )
    writes = [one for one in world.seen if one.method in ("PUT", "POST")]
    assert writes[-1].target.endswith("/manifests/codex-fedora-1.0.0")

    for at in range(len(writes)):
        repository = make_repository(world.server.address, f"own/at{at}")
        fail_write(world, at, FAULTS[fault])
        with world.client() as client:  # each with a breaker of its own
            moved = replace(work, target=replace(work.target, repository=repository))
            refused(lambda moved=moved, client=client: push(client, moved))  # type: ignore[misc]
            world.misbehave = lambda request, honest: None
        place = world.root / "registry" / f"own+at{at}" / "index.json"
        assert b"codex-fedora" not in (place.read_bytes() if place.exists() else b""), at


def test_a_registry_that_took_something_else_is_not_believed(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)

    def other(request: Request, honest: Handler) -> Answer | None:
        if request.method == "PUT" and request.path.endswith("-1.0.0"):
            return Answer(status=201, headers={"Docker-Content-Digest": f"sha256:{'2' * 64}"})
        return None

    world.misbehave = other
    with world.client() as client:
        said = refused(lambda: push(client, world.work(base, layout)))
    reference = f"{world.server.address}/own/tools:codex-fedora-1.0.0"
    assert said == f"{reference} was taken as 'sha256:{'2' * 64}', which is not what was sent"


@pytest.mark.parametrize("tag", ["1.0.0", "latest"])
def test_a_tag_that_cannot_be_read_stops_the_push_before_it_begins(world: World, tag: str) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)

    def forbid(request: Request, honest: Handler) -> Answer | None:
        return Answer(status=403) if request.path.endswith(f"codex-fedora-{tag}") else None

    world.misbehave = forbid
    with world.client() as client:
        said = refused(lambda: push(client, world.work(base, layout)))
    assert said.startswith(f"{world.server.address}/own/tools:codex-fedora-{tag} cannot be read: ")
    assert world.writes() == []


def test_platforms_pushed_by_digest_move_no_tag_and_are_read_back(world: World) -> None:
    world.make("codex")
    base = world.base()
    layout = world.build(base)
    with world.client() as client:
        digests = push_platforms(client, world.work(base, layout))
    assert list(digests) == [AMD, ARM]
    assert world.writes() == list(digests.values())

    def forget(request: Request, honest: Handler) -> Answer | None:
        if request.method == "PUT" and "/manifests/" in request.path:
            return Answer(status=201)
        return None

    world.misbehave = forget
    (world.project / "tools" / "codex" / "rootfs" / "new").write_text("x")
    other = world.build(base)
    with world.client() as client:
        said = refused(lambda: push_platforms(client, world.work(base, other)))
    assert re.fullmatch(r"\S+@sha256:\w{64} was pushed and cannot be read back\n  Try again later\.", said)


@pytest.mark.parametrize("login", [True, False])
def test_the_first_push_makes_a_repository_that_was_denied_before(world: World, login: bool) -> None:
    """As ghcr.io does: 403 for a package that does not exist, to whoever asks."""
    world.make("codex")
    base = world.base()
    work = world.work(base, world.build(base))
    there = world.root / "registry" / "own+tools" / "blobs"

    def deny_the_unborn(request: Request, honest: Handler) -> Answer | None:
        asked = request.method in ("GET", "HEAD") and "/own/tools/" in request.path
        body = b'{"errors": [{"code": "DENIED", "message": "requested access to the resource is denied"}]}'
        return Answer(status=403, body=body) if asked and not there.exists() else None

    world.misbehave = deny_the_unborn
    auth = world.root / "auth.json"
    auth.write_text(json.dumps({"auths": {world.server.address: {"auth": "bWU6c2VjcmV0"}}} if login else {}))
    environ = os.environ | {"REGISTRY_AUTH_FILE": str(auth)}
    with Client(load_catalogue(world.project, {}).settings, Surroundings(auth_files=(str(auth),))) as client:
        (receipt,) = publish(client, world.project, [work], environ)

    if login:
        assert (receipt.outcome, receipt.latest) == ("published", "moved")
        assert world.names("codex-fedora-latest") == receipt.digest
    else:
        assert receipt.problem.startswith(f"{work.reference} cannot be read: status 403 DENIED")
        assert not there.exists()


def test_a_platform_that_the_base_lacks_is_not_asked_for(world: World) -> None:
    world.make("codex", platforms=[AMD, ARM, RISCV])
    base = world.base()
    with world.client() as client:
        pushed = push(client, world.work(base, world.build(base)))
    assert [one["platform"]["architecture"] for one in world.index(pushed.digest)["manifests"]] == ["amd64", "arm64"]  # type: ignore[attr-defined]
