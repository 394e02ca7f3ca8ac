"""Tools on bases: which pairs there are, which are excluded and why, and which names cannot stand together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.catalogue import Base, Catalogue, Excluded, Image, Pair, Tool, refuse_collisions
from imagewright.errors import BadCatalogue, Exit
from imagewright.names import BadName, Platform, make_repository, parse_familiar, parse_platform
from imagewright.settings import BaseSettings, BasesSettings, ImagesSettings, Settings

OWN = make_repository("ghcr.io", "own/tools")
BASES = make_repository("ghcr.io", "own/bases")
IMAGES = make_repository("ghcr.io", "own/images")
AMD, ARM, RISC = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "riscv64")


def tool(name, **members):
    return Tool(name=name, folder=Path("tools") / name, **members)


def image(name, parent="debian:12", **members):
    return Image(
        name=name,
        folder=Path("images") / name,
        version="1.0",
        parent=parse_familiar(parent) if parent else None,
        **members,
    )


def catalogue(*tools, platforms=(AMD, ARM), single=None, images=()):
    settings = Settings(
        repository=OWN,
        bases=BasesSettings(repository=BASES, single=single or {}),
        images=ImagesSettings(repository=IMAGES),
        platforms=platforms,
    )
    return Catalogue(root=Path(), settings=settings, tools=tools, images=images, hash="sha256:x")


def keys(pairs):
    return [one.key for one in pairs]


def refusal(call, *arguments):
    with pytest.raises(BadCatalogue) as caught:
        call(*arguments)
    assert caught.value.exit is Exit.BAD_CATALOGUE
    return str(caught.value)


REMEDY = "\n  Rename one of them, or exclude the base in the tool.yaml."


def test_every_tool_stands_on_every_base_in_order():
    pairs, excluded = catalogue(tool("b"), tool("a")).targets(["y", "x"])
    assert keys(pairs) == ["b-y", "b-x", "a-y", "a-x"]
    assert excluded == ()


def test_excluded_pairs_are_listed_with_their_reason():
    goose = tool("goose", exclude_bases={"node": "needs GLIBC_2.38"})
    claude = tool("claude", redistributable=False, exclude_bases={"node": "never seen"})
    pairs, excluded = catalogue(goose, claude).targets(["node", "fedora"])
    assert keys(pairs) == ["goose-fedora"]
    assert excluded == (
        Excluded(key="goose-node", tool="goose", base="node", because="needs GLIBC_2.38"),
        Excluded(key="claude-node", tool="claude", base="node", because="may not be redistributed"),
        Excluded(key="claude-fedora", tool="claude", base="fedora", because="may not be redistributed"),
    )


def test_without_bases_there_are_no_pairs():
    assert catalogue(tool("a")).targets([]) == ((), ())


def test_a_pair_and_its_base_know_their_references():
    (pair,), _ = catalogue(tool("codex")).targets(["fedora"])
    assert str(pair.tagged("0.77.0")) == "ghcr.io/own/tools:codex-fedora-0.77.0"
    assert str(pair.tagged("latest")) == "ghcr.io/own/tools:codex-fedora-latest"
    assert str(pair.base.reference) == "ghcr.io/own/bases:fedora-latest"


def test_two_pairs_with_one_key_are_refused_naming_both():
    assert refusal(catalogue(tool("a-b"), tool("a")).targets, ["c", "b-c"]) == (
        "tools/a on base b-c and tools/a-b on base c both are the target a-b-c" + REMEDY
    )


def test_an_excluded_pair_collides_with_nothing():
    pairs, _ = catalogue(tool("a-b"), tool("a", exclude_bases={"b-c": "taken"})).targets(["c", "b-c"])
    assert keys(pairs) == ["a-b-c", "a-b-b-c", "a-c"]


def test_pairs_can_collide_through_their_versions():
    pairs, _ = catalogue(tool("a"), tool("a-b")).targets(["b", "c"])
    by_key = {one.key: one for one in pairs}
    assert refusal(refuse_collisions, [(by_key["a-b"], "c-1"), (by_key["a-b-c"], "1")]) == (
        "tools/a-b on base c and tools/a on base b both make the tag a-b-c-1" + REMEDY
    )
    assert refuse_collisions([(by_key["a-b"], "1"), (by_key["a-b-c"], "1")]) is None


def test_a_version_called_latest_is_no_collision_with_itself():
    (pair,), _ = catalogue(tool("a")).targets(["b"])
    assert refuse_collisions([(pair, "latest")]) is None


def test_a_tag_of_128_characters_is_accepted_and_one_of_129_is_not():
    exact, over = "t" * 119, "t" * 120
    (pair,), _ = catalogue(tool(exact)).targets(["b"])
    assert len(str(pair.tagged("latest").to)) == 128
    assert refusal(catalogue(tool(over)).targets, ["b"]) == (
        f"tools/{over} on base b: '{'t' * 80}…' cannot be a tag: a tag has at most 128 characters, this one 129 "
        "(at most 128 characters)" + REMEDY
    )


def test_all_collisions_are_named_at_once():
    said = refusal(catalogue(tool("a-b"), tool("a"), tool("t" * 120)).targets, ["c", "b-c"])
    assert len(said.splitlines()) == 4


@pytest.mark.parametrize(
    ("members", "single", "offered", "required", "named"),
    [
        ({}, None, [AMD, ARM], (AMD, ARM), ()),
        ({}, None, [ARM], (ARM,), ()),
        ({}, None, [Platform("linux", "arm64", "v8"), Platform("linux", "x86_64")], (AMD, ARM), ()),
        ({}, None, [RISC], (), ()),
        ({}, None, [], (), ()),
        ({"platforms": (ARM,)}, None, [AMD, ARM], (ARM,), (ARM,)),
        ({}, (AMD,), [AMD, ARM], (AMD,), (AMD,)),
        ({"platforms": (RISC, ARM)}, (AMD,), [AMD, ARM], (ARM,), (RISC, ARM)),
    ],
)
def test_required_is_what_is_declared_and_the_base_offers(members, single, offered, required, named):
    one = {"b": BaseSettings(platforms=single)} if single else {}
    (pair,), _ = catalogue(tool("a", **members), single=one).targets(["b"])
    assert pair.required(offered) == required
    assert pair.named() == named


def test_a_tool_is_found_by_its_name():
    codex = tool("codex")
    assert catalogue(codex).tool("codex") is codex
    assert catalogue(codex).tool("goose") is None


def test_standalone_images_come_first_and_bases_of_our_own_are_among_the_bases():
    own = catalogue(tool("codex"), images=(image("util"), image("forest", is_base=True)))
    targets, _ = own.targets(["fedora", "forest"])
    assert [(one.key, str(one.tagged("1.0"))) for one in targets] == [
        ("util", "ghcr.io/own/images:util-1.0"),
        ("forest", "ghcr.io/own/bases:forest-1.0"),
        ("codex-fedora", "ghcr.io/own/tools:codex-fedora-1.0"),
        ("codex-forest", "ghcr.io/own/tools:codex-forest-1.0"),
    ]
    assert own.own_bases() == ("forest",)
    assert {one.key: own.waits_for(one) for one in targets} == {
        "util": "",
        "forest": "",
        "codex-fedora": "",
        "codex-forest": "forest",
    }


def test_an_image_that_starts_from_another_one_waits_for_it():
    own = catalogue(images=(image("a"), image("b", "ghcr.io/own/images:a-latest"), image("c", "")))
    targets, _ = own.targets([])
    assert {one.key: own.waits_for(one) for one in targets} == {"a": "", "b": "a", "c": ""}
    assert {one.key: str(one.base and one.base.name) for one in targets} == {
        "a": "docker.io/library/debian:12",
        "b": "ghcr.io/own/images:a-latest",
        "c": "None",
    }


def test_an_image_and_a_pair_cannot_have_one_key():
    both = catalogue(tool("codex"), images=(image("codex-fedora"),))
    assert refusal(both.targets, ["fedora"]) == (
        "tools/codex on base fedora and images/codex-fedora both are the target codex-fedora" + REMEDY
    )


def test_the_platforms_of_an_image_are_its_own_or_everybodys():
    ours = catalogue(images=(image("a"), image("b", platforms=(ARM,))))
    (a, b), _ = ours.targets([])
    assert [(one.declared, one.named()) for one in (a, b)] == [((AMD, ARM), ()), ((ARM,), (ARM,))]


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("util", "ghcr.io/own/images:util-latest"),
        ("codex-fedora", "ghcr.io/own/tools:codex-fedora-latest"),
        ("codex-cli-fedora", "ghcr.io/own/tools:codex-cli-fedora-latest"),
        ("codex", None),
        ("goose-fedora", None),
    ],
)
def test_a_target_is_found_by_its_key_whatever_bases_there_are(key, found):
    target = catalogue(tool("codex"), tool("codex-cli"), images=(image("util"),)).find(key)
    assert (str(target.tagged("latest")) if target else None) == found


def test_what_can_be_no_base_is_no_target():
    with pytest.raises(BadName, match="cannot"):
        catalogue(tool("codex")).find("codex-Not A Base")


words = st.lists(st.sampled_from(["a", "b", "a-b", "b-c", "c"]), min_size=1, max_size=4, unique=True)


@given(words, words)
def test_accepted_pairs_have_tags_of_their_own(tools, bases):
    try:
        pairs, _ = catalogue(*map(tool, tools)).targets(bases)
    except BadCatalogue:
        composed = [f"{one}-{base}" for one in tools for base in bases]
        assert len(set(composed)) < len(composed)
    else:
        assert len({pair.tagged("latest") for pair in pairs}) == len(tools) * len(bases)


@given(st.sets(st.sampled_from(["linux/amd64", "linux/arm64/v8", "linux/arm", "linux/riscv64"])))
def test_nothing_is_required_that_the_base_does_not_offer(offered):
    base = Base(name="b", reference=BASES.tagged("b-latest"))
    pair = Pair(tool=tool("a"), base=base, repository=OWN, declared=(AMD, ARM))
    assert set(pair.required(map(parse_platform, offered))) == {AMD, ARM} & set(map(parse_platform, offered))
