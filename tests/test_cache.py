"""What is remembered between runs saves requests, and never changes what is seen."""

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from imagewright.cache import AGE, Cache
from imagewright.names import Reference, Repository, digest_of, parse_tag
from imagewright.registry.answers import Document
from imagewright.settings import Limits
from imagewright.testing.images import layer, push
from imagewright.testing.registry import Registry
from imagewright.testing.vices import (
    Vice,
    allows,
    answers_404_as_html,
    forgets_children,
    forgets_everything,
    ignores_conditions,
    is_overloaded,
    is_slow,
    says_that_nothing_changed,
    stumbles_over_conditions,
)
from tests.vicious import World, below, publish

NOW = 1_800_000_000
TYPE = "application/vnd.oci.image.index.v1+json"
REPOSITORY = Repository("ghcr.io", "own/tools")
TAG = REPOSITORY.tagged(parse_tag("codex-fedora-1.0"))
BODY = b'{"schemaVersion": 2}'
DOCUMENT = Document(body=BODY, media_type=TYPE, digest=digest_of(BODY))
AT = REPOSITORY.at(DOCUMENT.digest)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "documents"


@pytest.fixture
def full(place: Path) -> Path:
    """A file that remembers one document under one tag."""
    with Cache(place, now=NOW) as cache:
        cache.keep(TAG, "manifests", DOCUMENT)
    return place


def test_a_document_is_remembered_under_its_digest_and_under_its_tag(full: Path) -> None:
    with Cache(full, now=NOW + 1) as cache:
        assert cache.recall(TAG) == cache.recall(AT) == cache.document(AT, "manifests") == DOCUMENT


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        (Repository("ghcr.io", "own/other").at(DOCUMENT.digest), "manifests"),
        (Repository("quay.io", "own/tools").at(DOCUMENT.digest), "manifests"),
        (AT, "blobs"),
        (REPOSITORY.at(digest_of(b"other")), "manifests"),
    ],
)
def test_it_is_there_only_where_it_was_fetched(full: Path, reference: Reference, kind: str) -> None:
    with Cache(full, now=NOW) as cache:
        assert cache.document(reference, kind) is None  # type: ignore[arg-type]


@pytest.mark.parametrize(("seconds", "there"), [(0, True), (AGE - 1, True), (AGE, False), (-1, False)])
def test_it_counts_for_a_day(full: Path, seconds: int, there: bool) -> None:
    with Cache(full, now=NOW + seconds) as cache:
        assert (cache.recall(TAG) is not None, cache.document(AT, "manifests") is not None) == (there, there)


def test_who_asks_for_everything_is_told_nothing_but_remembers(full: Path) -> None:
    with Cache(full, now=NOW + AGE, reads=False) as cache:
        assert cache.recall(TAG) is None
        assert cache.document(AT, "manifests") is None
        cache.keep(TAG, "manifests", DOCUMENT)
    with Cache(full, now=NOW + AGE + 1) as cache:
        assert cache.recall(TAG) == DOCUMENT


@pytest.mark.parametrize(("whole", "there"), [(False, True), (True, False)])
def test_what_a_whole_run_did_not_ask_for_is_forgotten(full: Path, whole: bool, there: bool) -> None:
    with Cache(full, now=NOW + 1, whole=whole) as cache:
        other = Document(body=b"{}", media_type=TYPE, digest=digest_of(b"{}"))
        cache.keep(REPOSITORY.tagged(parse_tag("other")), "manifests", other)
    with Cache(full, now=NOW + 2) as cache:
        assert (cache.recall(TAG) is not None) == there
        assert cache.document(REPOSITORY.at(other.digest), "manifests") == other


def test_what_is_too_old_is_dropped(full: Path) -> None:
    size = full.stat().st_size
    with Cache(full, now=NOW + 2) as cache:
        big = b"x" * 100_000
        cache.keep(AT, "blobs", Document(body=big, media_type="", digest=digest_of(big)))
    assert full.stat().st_size > 100_000
    with Cache(full, now=NOW + AGE + 2):
        pass
    assert full.stat().st_size <= size


def test_nothing_is_written_by_a_run_that_ends_with_an_error(place: Path) -> None:
    with pytest.raises(RuntimeError), Cache(place, now=NOW) as cache:
        cache.keep(TAG, "manifests", DOCUMENT)
        raise RuntimeError
    with Cache(place, now=NOW) as cache:
        assert cache.recall(TAG) is None


def change(statement: str) -> Callable[[Path], None]:
    def changed(file: Path) -> None:
        with sqlite3.connect(file) as connection:
            connection.execute(statement)
        connection.close()

    return changed


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5000])


def turned(file: Path) -> None:
    """Every byte of the last page is another one."""
    content = file.read_bytes()
    file.write_bytes(content[:-4096] + bytes(one ^ 0xFF for one in content[-4096:]))


def is_a_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


DAMAGES: dict[str, Callable[[Path], None]] = {
    "empty": lambda file: file.write_bytes(b"") and None,
    "text": lambda file: file.write_bytes(b"hello, world\n" * 1000) and None,
    "cut": cut,
    "turned": turned,
    "of-another-version": change("PRAGMA user_version = 99"),
    "of-another-program": change("DROP TABLE documents"),
    "other-columns": change("ALTER TABLE documents RENAME COLUMN seal TO signature"),
    "other-bytes": change("UPDATE documents SET body = 'other'"),
    "bytes-of-another-type": change("UPDATE documents SET body = 3"),
    "other-media-type": change("UPDATE documents SET media_type = 'application/json'"),
    "newer-than-it-is": change("UPDATE documents SET fetched = fetched + 1"),
    "no-time": change("UPDATE documents SET fetched = 'x'"),
    "other-digest": change(f"UPDATE tags SET digest = '{digest_of(b'other')}'"),
    "no-digest": change("UPDATE tags SET digest = 'x'"),
    "nothing-for-a-digest": change("UPDATE tags SET digest = NULL"),
    "bytes-for-a-digest": change("UPDATE tags SET digest = x'ff'"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_no_memory_and_becomes_one_again(full: Path, damage: str) -> None:
    DAMAGES[damage](full)
    with Cache(full, now=NOW + 2) as cache:
        assert cache.recall(TAG) is None
    with Cache(full, now=NOW + 2) as cache:  # what cannot be used at all is made anew by the next run
        cache.keep(TAG, "manifests", DOCUMENT)
    with Cache(full, now=NOW + 3) as cache:
        assert cache.recall(TAG) == DOCUMENT


def test_a_place_that_cannot_be_had_is_no_memory(full: Path) -> None:
    is_a_folder(full)
    with Cache(full, now=NOW) as cache:
        cache.keep(TAG, "manifests", DOCUMENT)
        assert cache.recall(TAG) is None
    assert full.is_dir()
    with Cache(full / "file" / "deeper", now=NOW) as cache:
        assert cache.recall(TAG) is None
    full.with_name("file").write_text("")
    with Cache(full.with_name("file") / "documents", now=NOW) as cache:
        cache.keep(TAG, "manifests", DOCUMENT)


def test_a_file_that_vanishes_meanwhile_is_no_memory(full: Path) -> None:
    with Cache(full, now=NOW) as cache:
        full.unlink()
        cache.keep(TAG, "manifests", DOCUMENT)
    assert not full.exists()


def test_two_runs_at_once_do_not_disturb_each_other(full: Path) -> None:
    with Cache(full, now=NOW) as one, Cache(full, now=NOW) as other:
        assert one.recall(TAG) == other.recall(TAG) == DOCUMENT
        for cache, text in ((one, b"1"), (other, b"2")):
            cache.keep(AT, "blobs", Document(body=text, media_type="", digest=digest_of(text)))
    with Cache(full, now=NOW) as cache:
        assert [cache.document(REPOSITORY.at(digest_of(text)), "blobs") is not None for text in (b"1", b"2")] == [
            True
        ] * 2


def test_a_file_that_another_run_has_locked_for_long_costs_time_only(full: Path) -> None:
    other = sqlite3.connect(full, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with Cache(full, now=NOW) as cache:
        assert cache.recall(TAG) is None
        cache.keep(TAG, "manifests", DOCUMENT)
    other.execute("ROLLBACK")
    other.close()
    with Cache(full, now=NOW) as cache:
        assert cache.recall(TAG) == DOCUMENT


# In a survey.

TOOLS, BASES = ("codex", "gemini"), ("fedora", "minimal")


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Registry(tmp_path / "registry") as registry:
        publish(registry.sink, TOOLS, BASES)
        yield World(registry=registry, versions=dict.fromkeys(TOOLS, "1.0"), bases=BASES, limits=Limits(total=5))


def remembering(place: Path, seconds: float = 0, *, reads: bool = True) -> Cache:
    return Cache(place, now=NOW + seconds, reads=reads, whole=True)


def look(world: World, place: Path, seconds: float = 0, *, reads: bool = True) -> dict[str, str]:
    with remembering(place, seconds, reads=reads) as cache:
        return world.told(cache)


def asked(world: World) -> Counter[str]:
    """How often the registry was asked for what, since the last time."""
    counted = Counter(
        "canary" if one.reference.startswith("imagewright-canary") else one.kind for one in world.registry.log
    )
    world.registry.becomes()
    return counted


@pytest.mark.parametrize(
    "platforms", [("linux/amd64",), ("linux/amd64", "linux/arm64"), ("linux/amd64", "linux/arm64", "linux/s390x")]
)
def test_a_second_look_asks_for_what_can_have_changed(tmp_path: Path, place: Path, platforms: tuple[str, ...]) -> None:
    tools, bases, pairs, each = 3, 2, 6, len(platforms)
    with Registry(tmp_path / "registry") as registry:
        names = [f"tool{at}" for at in range(tools)]
        publish(registry.sink, names, BASES, platforms=platforms)
        world = World(registry=registry, versions=dict.fromkeys(names, "1.0"), bases=BASES, limits=Limits())
        first = look(world, place)
        cold = asked(world)
        second = look(world, place, 1)
        warm = asked(world)
        third = look(world, place, 2, reads=False)
        fresh = asked(world)
    assert first == second == third
    assert set(first.values()) == {"fresh"}
    canaries = 3
    assert cold.total() == (1 + 2 * each) * (pairs + bases) + pairs + canaries
    assert warm.total() == 2 * pairs + bases + canaries
    assert fresh == cold


def rebuild(world: World) -> None:
    push(world.registry.sink, "own/bases", ["fedora-latest"], below("fedora", edition="new"))


def replace_pair(world: World) -> None:
    pictures = {one: picture.on_top(layer({"bin/codex": "other"})) for one, picture in below("fedora").items()}
    push(world.registry.sink, "own/tools", ["codex-fedora-1.0"], pictures)


def delete_tag(world: World) -> None:
    world.registry.store.repository("own/tools").delete_tag(parse_tag("codex-fedora-1.0"))


def nothing(_: World) -> None:
    pass


STALE_ON_FEDORA = {"codex-fedora": "stale: base-changed", "gemini-fedora": "stale: base-changed"}


@pytest.mark.parametrize(
    ("happens", "told"),
    [
        (nothing, {}),
        (rebuild, STALE_ON_FEDORA),
        (replace_pair, {"codex-fedora": "stale: latest-behind"}),
        (delete_tag, {"codex-fedora": "stale: image-missing"}),
    ],
)
@pytest.mark.parametrize(
    "vice",
    [
        None,
        ignores_conditions(),
        says_that_nothing_changed(),
        stumbles_over_conditions(),
        is_slow(0.05),
    ],
    ids=lambda vice: vice.name if vice else "honest",
)
def test_what_changed_is_seen_whatever_the_registry_makes_of_conditions(
    world: World, place: Path, happens: Callable[[World], None], told: dict[str, str], vice: Vice | None
) -> None:
    look(world, place)
    happens(world)
    world.registry.becomes(*([vice] if vice else []))
    assert look(world, place, 1) == dict.fromkeys(world.told(), "fresh") | told


def test_no_document_is_fetched_twice_whatever_names_it(world: World, place: Path) -> None:
    look(world, place)
    publish(world.registry.sink, TOOLS, BASES, tags=("2.0", "latest"))
    asked(world)
    assert set(look(replace(world, versions=dict.fromkeys(TOOLS, "2.0")), place, 1).values()) == {"fresh"}
    counted = asked(world)
    assert (counted["child"], counted["config"]) == (1, 0), "only the one that has to be there is asked for"


def test_a_run_in_an_outage_loses_no_memory(world: World, place: Path) -> None:
    look(world, place)
    world.registry.becomes(is_overloaded())
    look(world, place, 1)
    world.registry.becomes()
    look(world, place, 2)
    assert asked(world)["child"] + asked(world)["config"] <= 1


TROUBLES = {
    "forgets-everything": forgets_everything(),
    "forgets-tags": forgets_everything().on("index"),
    "says-404-as-html": answers_404_as_html(),
    "is-overloaded": is_overloaded(),
    "is-overloaded-once": is_overloaded().on("index").times(1),
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_registry_in_trouble_is_judged_as_without_a_memory(world: World, place: Path, trouble: str) -> None:
    look(world, place)
    world.registry.becomes(TROUBLES[trouble])
    without = world.told()
    world.registry.becomes(TROUBLES[trouble])
    assert look(world, place, 1) == without


def test_a_registry_that_allows_so_much_is_asked_so_much(tmp_path: Path) -> None:
    tools = [f"tool{at}" for at in range(16)]
    with Registry(tmp_path / "registry", allows(60, 1)) as registry:
        publish(registry.sink, tools, BASES)
        world = World(registry=registry, versions=dict.fromkeys(tools, "1.0"), bases=BASES, limits=Limits())
        assert set(world.told().values()) == {"fresh"}
        refused = [one for one in registry.log if one.status == 429]
        assert len(registry.log) > 200
        assert 0 < len(refused) < 40, "the requests under way at the time, and few after that"


def test_what_was_seen_to_be_gone_is_not_believed_to_be_there(world: World, place: Path) -> None:
    look(world, place)
    world.registry.becomes(forgets_children())
    with Cache(place, now=NOW + 1, reads=False) as cache:
        told = world.told(cache)
    assert "fresh" not in told.values()
    assert look(world, place, 2) == told


@pytest.mark.parametrize(
    ("seconds", "reads", "told"),
    [(1, True, "fresh"), (1, False, "stale: child-missing"), (AGE, True, "stale: child-missing")],
)
def test_a_child_that_was_deleted_is_noticed_when_asked_and_within_a_day(
    world: World, place: Path, seconds: int, reads: bool, told: str
) -> None:
    look(world, place)
    world.registry.becomes(forgets_children().where(lambda asked: asked.repository == "own/tools"))
    assert look(world, place, seconds, reads=reads) == {f"{tool}-{base}": told for tool in TOOLS for base in BASES}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_costs_time_and_never_a_verdict(world: World, place: Path, damage: str) -> None:
    look(world, place)
    rebuild(world)
    DAMAGES[damage](place)
    assert look(world, place, 1) == dict.fromkeys(world.told(), "fresh") | STALE_ON_FEDORA
