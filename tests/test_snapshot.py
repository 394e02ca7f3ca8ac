"""One picture of the registries: written and read back equal; and how an image stands to its base."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.documents import OCI_INDEX, HistoryEntry
from imagewright.errors import BadReport, Exit
from imagewright.names import Platform, digest_of, parse_reference
from imagewright.reasons import Unknown
from imagewright.snapshot import (
    Attestation,
    BaseSeen,
    CanariesSeen,
    Difference,
    Gone,
    HostSeen,
    Image,
    Missing,
    Pointer,
    Published,
    Reading,
    Snapshot,
    TargetSeen,
    Unreachable,
    dump,
    load,
)

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
REFERENCE = parse_reference("ghcr.io/own/tools:codex-fedora-1")


def digest(name):
    return digest_of(name.encode())


def image(layers, *, diff_ids=None, history=None, platform=AMD, labels=None):
    """layers, diff_ids: a letter each."""
    return Image(
        platform=platform,
        digest=digest(f"manifest {layers} {platform}"),
        config=digest(f"config {layers}"),
        layers=tuple(digest(f"blob {one}") for one in layers),
        diff_ids=tuple(digest(one) for one in (layers if diff_ids is None else diff_ids)),
        history=history,
        labels=labels or {},
        created="2026-01-01T00:00:00Z",
    )


def published(*images, **members):
    return Published(
        reference=REFERENCE, digest=digest("index"), media_type=OCI_INDEX, is_index=True, images=images, **members
    )


def steps(*commands):
    """History: `+x` made a layer, `x` none."""
    return tuple(HistoryEntry(one.removeprefix("+"), not one.startswith("+")) for one in commands)


@pytest.mark.parametrize(
    ("mine", "theirs", "difference"),
    [
        (image("abx"), image("ab"), None),
        (image("ab"), image("ab"), None),
        (image("acz"), image("abz"), (1, "b", "c")),
        (image("acz"), image("abzq"), (1, "b", "c")),
        (image("bax"), image("ab"), (0, "a", "b")),
        (image("xab"), image("ab"), (0, "a", "x")),
        (image("a"), image("ab"), (1, "b", "")),
        (image(""), image("a"), (0, "a", "")),
        (image("pqx", diff_ids="abx"), image("ab"), None),
        (image("abx", diff_ids="pqx"), image("ab"), None),
        (image("pqx", diff_ids="acx"), image("ab"), (1, "b", "c")),
    ],
)
def test_a_base_is_contained_if_its_layers_or_diff_ids_are_the_first_ones(mine, theirs, difference):
    found = published(mine).departs_from(published(theirs), AMD)
    if difference is None:
        assert found is None
    else:
        at, expected, there = difference
        assert found == Difference(at=at, expected=digest(expected), found=digest(there) if there else "")


def test_nothing_is_said_of_a_platform_that_one_of_them_lacks():
    both, one = published(image("a"), image("x", platform=ARM)), published(image("b"))
    assert both.departs_from(one, ARM) is None
    assert one.departs_from(both, ARM) is None
    assert [platform for platform, _, _ in both.common(one)] == [AMD]


@pytest.mark.parametrize(
    ("mine", "theirs", "last_layer", "contained"),
    [
        ("abzx", "abz", True, True),
        ("acz", "abz", True, False),
        ("zx", "abz", True, False),
        ("abx", "abz", False, False),
    ],
)
def test_the_last_layer_alone_says_true_where_the_prefix_says_changed(mine, theirs, last_layer, contained):
    one, base = published(image(mine)), published(image(theirs))
    assert one.has_last_layer_of(base) is last_layer
    assert (one.departs_from(base, AMD) is None) is contained


def test_the_last_layer_is_found_by_its_diff_id_where_it_was_recompressed():
    assert published(image("pqx", diff_ids="abx")).has_last_layer_of(published(image("ab"))) is True


def test_the_last_layer_must_be_there_on_every_platform():
    base = published(image("ab"), image("ab", platform=ARM))
    assert published(image("abx"), image("ax", platform=ARM)).has_last_layer_of(base) is False


def test_the_last_layer_cannot_be_asked_without_a_common_platform_or_layers():
    assert published(image("a", platform=ARM)).has_last_layer_of(published(image("a"))) is None
    assert published(image("a")).has_last_layer_of(published(image(""))) is None


@pytest.mark.parametrize(
    ("mine", "theirs", "difference"),
    [
        (steps("+a", "ENV A=1", "+x"), steps("+a", "ENV A=1"), None),
        (steps("+a", "ENV A=1", "+x"), steps("+a", "ENV A=2"), Difference(at=1, expected="ENV A=2", found="ENV A=1")),
        (steps("+a", "+x"), steps("+a", "USER me"), Difference(at=1, expected="USER me", found="layer: x")),
        (steps("+a"), steps("+a", "USER me"), Difference(at=1, expected="USER me", found="")),
        (steps("a", "+b"), steps("+a"), Difference(at=0, expected="layer: a", found="a")),
        (None, steps("+a"), None),
        (steps("+a"), None, None),
        (steps("+a", "+b", "+c"), steps("ENV"), None),
    ],
)
def test_a_configuration_departs_where_the_steps_of_the_base_are_not_the_first_ones(mine, theirs, difference):
    layers = sum(not one.empty_layer for one in mine or ()) if mine else 1
    below = sum(not one.empty_layer for one in theirs or ()) if theirs and theirs[0].created_by != "ENV" else 1
    one = published(image("abc"[:layers], history=mine))
    base = published(image("abc"[:below], history=theirs))
    assert one.config_departs_from(base, AMD) == difference


@pytest.mark.parametrize(
    ("history", "whole"), [(None, False), ((), False), (steps("+a"), True), (steps("x", "+a"), True)]
)
def test_a_history_is_whole_if_it_accounts_for_every_layer(history, whole):
    assert image("a", history=history).history_is_whole is whole


def test_holes_are_platforms_too():
    one = published(image("a"), gone=(Gone(platform=ARM, digest=digest("hole")),))
    assert one.platforms == (AMD, ARM)
    assert one.on(ARM) is None


texts = st.text(max_size=6)
digests = st.binary(max_size=2).map(digest_of)
references = st.sampled_from([REFERENCE, parse_reference("localhost:5000/a:1"), REFERENCE.repository.at(digest("x"))])
platforms = st.builds(Platform, texts, texts, texts, texts)
histories = st.none() | st.lists(st.builds(HistoryEntry, texts, st.booleans()), max_size=2).map(tuple)
unknowns = st.sampled_from(list(Unknown))
labels = st.dictionaries(texts, texts, max_size=2)


via = st.sampled_from(["host", "given"])
seconds = st.integers(0, 10**6).map(lambda one: one / 1000)


def tuples(of):
    return st.lists(of, max_size=2).map(tuple)


images = st.builds(
    Image,
    platform=platforms,
    digest=digests,
    config=digests,
    layers=tuples(digests),
    diff_ids=tuples(digests),
    history=histories,
    labels=labels,
    created=texts,
)
whole = st.builds(
    Published,
    reference=references,
    digest=digests,
    media_type=texts,
    is_index=st.booleans(),
    images=tuples(images),
    gone=tuples(st.builds(Gone, platform=platforms, digest=digests)),
    annotations=labels,
    attestations=tuples(st.builds(Attestation, digest=digests, about=digests)),
    warnings=tuples(texts),
)
missing = st.builds(Missing, reference=references, code=texts)
unreachable = st.builds(Unreachable, reference=references, reason=unknowns, detail=texts)
pointers = st.builds(Pointer, reference=references, digest=digests)
snapshots = st.builds(
    Snapshot,
    catalogue=texts,
    taken=texts,
    base_names=tuples(texts),
    hosts=tuples(
        st.builds(
            HostSeen,
            host=texts,
            asked=st.integers(0, 9),
            unanswered=st.integers(0, 9),
            reason=unknowns,
            detail=texts,
            retry_after=st.none() | st.integers(0, 99).map(float),
        )
    ),
    canaries=tuples(st.builds(CanariesSeen, repository=references.map(lambda one: one.repository), failed=texts)),
    readings=tuples(
        st.one_of(
            st.builds(Reading, tool=texts, version=version, reason=reason, detail=texts, via=via, seconds=seconds)
            for version, reason in ((texts, st.none()), (st.none(), unknowns))
        )
    ),
    bases=tuples(st.builds(BaseSeen, name=texts, observation=whole | missing | unreachable)),
    targets=tuples(
        st.builds(
            TargetSeen,
            target=texts,
            tool=texts,
            base=texts,
            version=st.none() | texts,
            observation=st.none() | whole | missing | unreachable,
            latest=st.none() | pointers | missing | unreachable,
            newest=st.none() | whole | missing | unreachable,
            listed_before=st.none() | st.booleans(),
        )
    ),
)


@given(snapshots)
def test_a_snapshot_is_read_back_equal(snapshot):
    assert load("".join(dump(snapshot)), "snapshot.json") == snapshot


SMALL = Snapshot(
    catalogue="sha256:c",
    taken="2026-01-01T00:00:00Z",
    base_names=("fedora",),
    readings=(Reading(tool="codex", version="1"),),
    bases=(BaseSeen(name="fedora", observation=published(image("a"))),),
    targets=(
        TargetSeen(
            target="codex-fedora",
            tool="codex",
            base="fedora",
            version="1",
            observation=Missing(reference=REFERENCE, code="MANIFEST_UNKNOWN"),
            latest=None,
        ),
    ),
)


def test_bases_and_readings_are_found_by_name():
    assert SMALL.base("fedora") is SMALL.bases[0]
    assert SMALL.base("alpine") is None
    assert SMALL.reading("codex") is SMALL.readings[0]
    assert SMALL.reading("goose") is None


def refusal(text):
    with pytest.raises(BadReport) as caught:
        load(text, "snapshot.json")
    assert caught.value.exit is Exit.BAD_REPORT
    return str(caught.value)


def changed(*path, to):
    document = json.loads("".join(dump(SMALL)))
    inner = document
    for one in path[:-1]:
        inner = inner[one]
    inner[path[-1]] = to
    return json.dumps(document)


AGAIN = "\n  Run `pytest checks/` again to make a new one."


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (changed("schema", to=2), "schema 2 instead of 1"),
        (changed("readings", 0, "via", to="guess"), "a version cannot come from 'guess'"),
        (changed("targets", 0, "seen", "kind", to="rumour"), "no such kind of observation: 'rumour'"),
        (
            changed("targets", 0, "seen", to={"kind": "pointer", "reference": "h/a:1", "digest": digest("x")}),
            "a pointer where an image was looked at",
        ),
        (
            changed("bases", 0, "seen", to={"kind": "unreachable", "reference": "h/a:1", "reason": "base-changed"}),
            "base-changed is no reason for not knowing",
        ),
        (
            changed("bases", 0, "seen", "digest", to="sha256:x"),
            "'sha256:x' is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)",
        ),
    ],
)
def test_a_damaged_snapshot_is_refused_with_what_is_wrong(text, what):
    assert refusal(text) == f"snapshot.json: not a snapshot: {what}{AGAIN}"


def test_an_image_cannot_stand_where_only_a_pointer_was_read():
    document = json.loads("".join(dump(SMALL)))
    text = changed("targets", 0, "latest", to=document["bases"][0]["seen"])
    assert refusal(text) == f"snapshot.json: not a snapshot: an image where only a pointer was read{AGAIN}"


def test_a_snapshot_cut_anywhere_is_no_snapshot():
    text = "".join(dump(SMALL))
    for length in range(len(text)):
        assert refusal(text[:length]).startswith("snapshot.json: not a snapshot: ")


@pytest.mark.parametrize("text", ["null", "[]", "7", '"x"', "{}", '{"schema":1}', "[" * 100_000])
def test_what_never_was_a_snapshot_is_refused(text):
    assert refusal(text).startswith("snapshot.json: not a snapshot: ")
