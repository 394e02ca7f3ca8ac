"""From documents to an observation: what is asked for next, and what the answers amount to."""

import json

import pytest

from imagewright.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    OCI_ARTIFACT,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    HistoryEntry,
)
from imagewright.names import Platform, digest_of, make_repository
from imagewright.reasons import Unknown
from imagewright.registry.answers import Absent, Document, Trouble
from imagewright.resolve import Documents
from imagewright.snapshot import Gone, Image, Missing, Published, Unreachable

OWN = make_repository("ghcr.io", "own/tools")
TAG = OWN.tagged("codex-fedora-1")
AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
UNKNOWN = Platform("unknown", "unknown")
AMD_MEMBERS = {"os": "linux", "architecture": "amd64"}
ABSENT = Absent("MANIFEST_UNKNOWN")
LATE = Trouble(Unknown.TIMEOUT, "silence")


class World:
    """Documents by digest, as a registry has them; `answers` replaces what it says about one."""

    def __init__(self):
        self.held = {}
        self.answers = {}

    def keep(self, media_type, document):
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        digest = digest_of(body)
        self.held[digest] = Document(body=body, media_type=media_type, digest=digest)
        return {"mediaType": media_type, "digest": digest, "size": len(body)}

    def image(self, layers="a", *, diff_ids=None, os="linux", architecture="amd64", platform=True, **config):
        members = {"os": os, "architecture": architecture}
        rootfs = {"diff_ids": [digest_of(one.encode()) for one in (layers if diff_ids is None else diff_ids)]}
        configuration = self.keep(OCI_CONFIG, members | {"rootfs": rootfs} | config)
        blobs = [{"mediaType": OCI_LAYER_GZIP, "digest": blob(one), "size": 7} for one in layers]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": configuration, "layers": blobs}
        entry = self.keep(OCI_MANIFEST, manifest)
        return entry | ({"platform": members} if platform else {})

    def index(self, *entries, **members):
        return self.keep(OCI_INDEX, {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries} | members)

    def config_of(self, entry):
        return json.loads(self.held[entry["digest"]].body)["config"]["digest"]

    def waves(self, entry):
        """Asks for what is needed until nothing is: the documents, and how many of each kind each wave asked for."""
        documents, waves = Documents(), []
        while True:
            manifests, configs = documents.needed([TAG])
            if not manifests and not configs:
                return documents, waves
            waves.append((len(manifests), len(configs)))
            for reference in manifests:
                documents.put_manifest(reference, self.answer(reference.digest or entry["digest"]))
            for reference in configs:
                documents.put_config(reference, self.answer(reference.digest))

    def answer(self, digest):
        return self.answers.get(digest, self.held.get(digest, ABSENT))

    def observe(self, entry):
        return self.waves(entry)[0].observation(TAG)


def blob(letter):
    return digest_of(f"blob {letter}".encode())


@pytest.fixture
def world():
    return World()


def lost(reason, detail):
    return Unreachable(reference=TAG, reason=reason, detail=detail)


def test_an_index_is_read_to_its_end_in_three_waves(world):
    one = world.image("ab", config={"Labels": {"x": "y"}}, created="then", history=[{"created_by": "COPY"}])
    other = world.image("c", architecture="arm64", variant="v8")
    index = world.index(one, other | {"platform": {"os": "linux", "architecture": "arm64", "variant": "v8"}})
    documents, waves = world.waves(index)
    assert waves == [(1, 0), (2, 0), (0, 2)]
    assert documents.digest(TAG) == index["digest"]
    assert documents.observation(TAG) == Published(
        reference=TAG,
        digest=index["digest"],
        media_type=OCI_INDEX,
        is_index=True,
        images=(
            Image(
                platform=AMD,
                digest=one["digest"],
                config=world.config_of(one),
                layers=(blob("a"), blob("b")),
                diff_ids=(digest_of(b"a"), digest_of(b"b")),
                history=(HistoryEntry("COPY", False),),
                labels={"x": "y"},
                created="then",
            ),
            Image(
                platform=ARM,
                digest=other["digest"],
                config=world.config_of(other),
                layers=(blob("c"),),
                diff_ids=(digest_of(b"c"),),
                history=None,
                labels={},
                created="",
            ),
        ),
    )


def test_what_two_tags_share_is_asked_for_once(world):
    index = world.index(world.image())
    documents, other = Documents(), OWN.tagged("latest")
    assert documents.needed([TAG, other, TAG]) == ([TAG, other], [])
    for reference in (TAG, other):
        documents.put_manifest(reference, world.held[index["digest"]])
    manifests, _ = documents.needed([TAG, other])
    assert len(manifests) == 1


def test_a_bare_manifest_has_the_platform_of_its_configuration(world):
    seen = world.observe(world.image(os="Linux", architecture="aarch64", platform=False))
    assert (seen.is_index, seen.media_type, seen.platforms) == (False, OCI_MANIFEST, (ARM,))


def test_an_entry_without_a_platform_has_that_of_its_configuration(world):
    seen = world.observe(world.index(world.image(platform=False, architecture="arm64")))
    assert (seen.is_index, seen.platforms) == (True, (ARM,))


def test_the_platform_of_an_entry_counts_before_that_of_the_configuration(world):
    entry = world.image(architecture="amd64") | {"platform": {"os": "linux", "architecture": "arm64"}}
    assert world.observe(world.index(entry)).platforms == (ARM,)


def nested(world, levels):
    entry = world.image()
    for _ in range(levels):
        entry = world.index({name: value for name, value in entry.items() if name != "platform"} | platform(entry))
    return entry


def platform(entry):
    return {"platform": entry["platform"]} if "platform" in entry else {}


@pytest.mark.parametrize("levels", [0, 1, 2, 3])
def test_indexes_within_indexes_are_read_three_deep(world, levels):
    assert world.observe(nested(world, levels)).platforms == (AMD,)


@pytest.mark.parametrize("levels", [4, 5])
def test_deeper_indexes_are_not_read(world, levels):
    documents, waves = world.waves(nested(world, levels))
    assert documents.observation(TAG) == lost(Unknown.TOO_DEEP, "indexes within indexes, deeper than 3")
    assert waves == [(1, 0)] * 4


FUTURE = "application/vnd.oci.image.manifest.v9+json"


def test_an_entry_of_a_kind_that_nobody_knows_is_ignored_with_a_warning(world):
    future = world.keep(FUTURE, {"anything": 1})
    documents, waves = world.waves(world.index(world.image(), future))
    seen = documents.observation(TAG)
    assert waves == [(1, 0), (1, 0), (0, 1)]
    assert seen.platforms == (AMD,)
    assert seen.warnings == (f"an entry, {future['digest']}, is ignored, for it is '{FUTURE}'",)


@pytest.mark.parametrize(
    ("called", "make"),
    [
        (OCI_INDEX, lambda world: world.image()),
        (DOCKER_LIST, lambda world: world.image()),
        (FUTURE, lambda world: world.image()),
        (OCI_MANIFEST, lambda world: world.index(world.image()) | {"platform": AMD_MEMBERS}),
        (DOCKER_MANIFEST, lambda world: world.index(world.image()) | {"platform": AMD_MEMBERS}),
    ],
)
def test_an_entry_that_calls_its_child_what_it_is_not_is_not_read(world, called, make):
    entry = make(world)
    detail = f"linux/amd64: its entry calls it '{called}', it is {entry['mediaType']}"
    assert world.observe(world.index(entry | {"mediaType": called})) == lost(Unknown.TYPE_CONFUSION, detail)


@pytest.mark.parametrize("called", [OCI_MANIFEST, DOCKER_MANIFEST])
def test_manifests_of_both_families_are_read_alike(world, called):
    assert world.observe(world.index(world.image() | {"mediaType": called})).platforms == (AMD,)


def attestation(world, about, **members):
    return world.image("q", os="unknown", architecture="unknown") | {
        "annotations": {
            "vnd.docker.reference.type": "attestation-manifest",
            "vnd.docker.reference.digest": about,
        },
        **members,
    }


def test_attestations_are_neither_asked_for_nor_platforms(world):
    one = world.image()
    said = attestation(world, one["digest"])
    documents, waves = world.waves(world.index(one, said))
    seen = documents.observation(TAG)
    assert waves == [(1, 0), (1, 0), (0, 1)]
    assert (seen.platforms, seen.warnings) == ((AMD,), ())
    assert [(one.digest, one.about) for one in seen.attestations] == [(said["digest"], one["digest"])]


def test_an_attestation_of_nothing_is_a_warning(world):
    stray = attestation(world, blob("elsewhere"))
    bare = world.image("r", os="unknown", architecture="unknown")
    seen = world.observe(world.index(world.image(), stray, bare))
    assert seen.platforms == (AMD,)
    assert seen.warnings == (
        f"an attestation, {stray['digest']}, describes nothing in its index",
        f"an attestation, {bare['digest']}, describes nothing in its index",
    )


def test_an_index_of_attestations_only_has_no_platforms(world):
    seen = world.observe(world.index(attestation(world, blob("x"))))
    assert (seen.is_index, seen.platforms) == (True, ())


def test_what_is_not_there_is_missing():
    documents = Documents()
    documents.put_manifest(TAG, Absent("NAME_UNKNOWN"))
    assert documents.needed([TAG]) == ([], [])
    assert documents.observation(TAG) == Missing(reference=TAG, code="NAME_UNKNOWN")
    assert documents.digest(TAG) is None


def test_what_was_not_answered_is_unreachable():
    documents = Documents()
    documents.put_manifest(TAG, LATE)
    assert documents.needed([TAG]) == ([], [])
    assert documents.observation(TAG) == lost(Unknown.TIMEOUT, "silence")


def test_a_child_that_is_gone_leaves_a_hole_and_the_others(world):
    one, other = world.image(), world.image("b", architecture="arm64")
    world.answers[other["digest"]] = ABSENT
    seen = world.observe(world.index(one, other))
    assert [image.platform for image in seen.images] == [AMD]
    assert seen.gone == (Gone(platform=ARM, digest=other["digest"]),)


def test_an_image_all_of_whose_children_are_gone_is_still_published(world):
    one, other = world.image(), world.image("b", architecture="arm64")
    world.answers |= {one["digest"]: ABSENT, other["digest"]: ABSENT}
    seen = world.observe(world.index(one, other))
    assert (seen.images, seen.platforms) == ((), (AMD, ARM))


def test_a_child_without_platform_that_is_gone_is_a_hole_somewhere(world):
    one = world.image(platform=False)
    world.answers[one["digest"]] = ABSENT
    assert world.observe(world.index(one)).gone == (Gone(platform=UNKNOWN, digest=one["digest"]),)


def test_a_configuration_that_is_gone_is_a_hole_too(world):
    one = world.image()
    world.answers[world.config_of(one)] = ABSENT
    assert world.observe(world.index(one)).gone == (Gone(platform=AMD, digest=one["digest"]),)
    assert world.observe(one).gone == (Gone(platform=UNKNOWN, digest=one["digest"]),)


def test_one_unanswered_question_makes_the_whole_image_unreachable(world):
    one, other = world.image(), world.image("b", architecture="arm64")
    index = world.index(one, other)
    world.answers = {other["digest"]: LATE}
    assert world.observe(index) == lost(Unknown.TIMEOUT, "linux/arm64: silence")
    world.answers = {world.config_of(other): LATE}
    assert world.observe(index) == lost(Unknown.TIMEOUT, "linux/arm64: configuration: silence")
    world.answers = {one["digest"]: ABSENT, other["digest"]: LATE}
    assert world.observe(index) == lost(Unknown.TIMEOUT, "linux/arm64: silence")


@pytest.mark.parametrize(
    ("layers", "diff_ids", "detail"),
    [
        ("ab", "a", "linux/amd64: 2 layers, but 1 diff ids"),
        ("a", "ab", "linux/amd64: 1 layers, but 2 diff ids"),
        ("a", "", "linux/amd64: 1 layers, but 0 diff ids"),
    ],
)
def test_layers_and_diff_ids_must_be_as_many(world, layers, diff_ids, detail):
    one = world.image(layers, diff_ids=diff_ids)
    assert world.observe(world.index(one)) == lost(Unknown.MALFORMED, detail)
    assert world.observe(one) == lost(Unknown.MALFORMED, detail.removeprefix("linux/amd64: "))


def test_a_configuration_without_rootfs_accounts_for_no_layer(world):
    assert world.observe(world.image(rootfs=None)) == lost(Unknown.MALFORMED, "1 layers, but 0 diff ids")


def test_an_image_without_layers_is_an_image(world):
    assert world.observe(world.image("")).images[0].layers == ()


def test_an_artifact_is_no_image(world):
    artifact = world.keep(OCI_ARTIFACT, {"mediaType": OCI_ARTIFACT, "blobs": [], "artifactType": "a/b"})
    assert world.observe(artifact) == lost(Unknown.MALFORMED, "an artifact, not an image")
    named = artifact | {"platform": {"os": "linux", "architecture": "amd64"}}
    assert world.observe(world.index(named)) == lost(Unknown.MALFORMED, "linux/amd64: an artifact, not an image")


def test_documents_that_cannot_be_believed_say_why(world):
    broken = world.keep(OCI_MANIFEST, b"{}{}")
    detail = "not JSON: Extra data at line 1, column 3"
    assert world.observe(broken) == lost(Unknown.MALFORMED, detail)
    entry = broken | {"platform": {"os": "linux", "architecture": "arm64"}}
    assert world.observe(world.index(entry)) == lost(Unknown.MALFORMED, f"linux/arm64: {detail}")
    one = world.image()
    config = world.config_of(one)
    world.answers[config] = Document(body=b"[]", media_type=OCI_CONFIG, digest=config)
    assert world.observe(world.index(one)) == lost(
        Unknown.MALFORMED, "linux/amd64: configuration: the configuration is not an object"
    )


def test_a_child_that_is_served_as_another_kind_than_its_parent_says_is_not_read(world):
    index = world.index(world.image())
    world.held[index["digest"]] = Document(
        body=world.held[index["digest"]].body, media_type=OCI_MANIFEST, digest=index["digest"]
    )
    assert world.observe(index) == lost(
        Unknown.TYPE_CONFUSION, f"served as {OCI_MANIFEST}, but calls itself {OCI_INDEX}"
    )


def test_what_is_forgotten_is_asked_for_again_with_every_hole(world):
    one, other = world.image(), world.image("b", architecture="arm64")
    index = world.index(one, other)
    world.answers = {other["digest"]: ABSENT, world.config_of(one): ABSENT}
    documents, _ = world.waves(index)
    documents.forget([TAG])
    assert documents.needed([TAG]) == ([TAG], [])
    documents.put_manifest(TAG, world.held[index["digest"]])
    assert documents.needed([TAG]) == ([OWN.at(other["digest"])], [OWN.at(world.config_of(one))])


def test_what_was_verified_is_not_asked_for_again(world):
    index = world.index(world.image())
    documents, _ = world.waves(index)
    documents.forget([TAG])
    documents.put_manifest(TAG, world.held[index["digest"]])
    assert documents.needed([TAG]) == ([], [])


def test_an_index_that_names_itself_ends():
    documents, digest = Documents(), blob("itself")
    body = itself(digest, 2)
    for reference in (TAG, OWN.at(digest)):
        documents.put_manifest(reference, Document(body=body, media_type=OCI_INDEX, digest=digest))
    assert documents.needed([TAG]) == ([], [])
    assert documents.observation(TAG) == lost(Unknown.TOO_DEEP, "indexes within indexes, deeper than 3")


def itself(digest, times):
    """An index that names `digest` some times over, with its own size."""
    size = 0
    while True:
        entry = {"mediaType": OCI_INDEX, "digest": digest, "size": size}
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [entry] * times}).encode()
        if len(body) == size:
            return body
        size = len(body)


def test_a_few_indexes_that_name_each_other_over_and_over_are_too_large(world):
    entry = world.image()
    for _ in range(3):
        entry = world.index(*[entry] * 64)
    documents, waves = world.waves(entry)
    assert waves == [(1, 0), (1, 0), (1, 0), (1, 0), (0, 1)]
    assert documents.observation(TAG) == lost(Unknown.TOO_LARGE, "it consists of more than 400 documents")


def test_an_image_of_very_many_documents_is_given_up(world):
    inner = [world.index(*[world.image(f"{at}{one}") for one in range(40)]) for at in range(6)]
    documents, waves = world.waves(world.index(*inner))
    # What an earlier wave asked for is counted again: twice the limit is the most.
    assert sum(manifests + configs for manifests, configs in waves) <= 800
    assert documents.observation(TAG) == lost(Unknown.TOO_LARGE, "it consists of more than 400 documents")


def test_an_image_with_as_many_children_as_an_index_may_have_is_read(world):
    assert len(world.observe(world.index(*[world.image(chr(at + 256)) for at in range(64)])).images) == 64


def test_a_size_that_is_not_the_stated_one_is_a_matter_of_integrity(world):
    one = world.image()
    size = one["size"]
    detail = f"linux/amd64: {size} bytes, but its descriptor says {size + 1}"
    assert world.observe(world.index(one | {"size": size + 1})) == lost(Unknown.INTEGRITY, detail)
