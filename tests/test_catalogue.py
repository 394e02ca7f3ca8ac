"""Tools on bases: which pairs there are, which are excluded and why, and which names cannot stand together."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.catalogue import Base, Catalogue, Excluded, Pair, Tool, refuse_collisions
from imagewright.errors import BadCatalogue, Exit
from imagewright.names import Platform, make_repository, parse_platform
from imagewright.settings import BaseSettings, BasesSettings, Settings

OWN = make_repository("ghcr.io", "own/tools")
BASES = make_repository("ghcr.io", "own/bases")
AMD, ARM, RISC = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "riscv64")


def tool(name, **members):
    return Tool(name=name, folder=Path("tools") / name, **members)


def catalogue(*tools, platforms=(AMD, ARM), single=None):
    settings = Settings(repository=OWN, bases=BasesSettings(repository=BASES, single=single or {}), platforms=platforms)
    return Catalogue(root=Path(), settings=settings, tools=tools, hash="sha256:x")


def keys(pairs):
    return [one.key for one in pairs]


def refusal(call, *arguments):
    with pytest.raises(BadCatalogue) as caught:
        call(*arguments)
    assert caught.value.exit is Exit.BAD_CATALOGUE
    return str(caught.value)


REMEDY = "\n  Rename one of the tools, or exclude the base in its tool.yaml."


def test_every_tool_stands_on_every_base_in_order():
    pairs, excluded = catalogue(tool("b"), tool("a")).pairs(["y", "x"])
    assert keys(pairs) == ["b-y", "b-x", "a-y", "a-x"]
    assert excluded == ()


def test_excluded_pairs_are_listed_with_their_reason():
    goose = tool("goose", exclude_bases={"node": "needs GLIBC_2.38"})
    claude = tool("claude", redistributable=False, exclude_bases={"node": "never seen"})
    pairs, excluded = catalogue(goose, claude).pairs(["node", "fedora"])
    assert keys(pairs) == ["goose-fedora"]
    assert excluded == (
        Excluded(key="goose-node", because="needs GLIBC_2.38"),
        Excluded(key="claude-node", because="may not be redistributed"),
        Excluded(key="claude-fedora", because="may not be redistributed"),
    )


def test_without_bases_there_are_no_pairs():
    assert catalogue(tool("a")).pairs([]) == ((), ())


def test_a_pair_and_its_base_know_their_references():
    (pair,), _ = catalogue(tool("codex")).pairs(["fedora"])
    assert str(pair.tagged("0.77.0")) == "ghcr.io/own/tools:codex-fedora-0.77.0"
    assert str(pair.tagged("latest")) == "ghcr.io/own/tools:codex-fedora-latest"
    assert str(pair.base.reference) == "ghcr.io/own/bases:fedora-latest"


def test_two_pairs_with_one_key_are_refused_naming_both():
    assert refusal(catalogue(tool("a-b"), tool("a")).pairs, ["c", "b-c"]) == (
        "tools/a on base b-c and tools/a-b on base c both make the tag a-b-c-latest" + REMEDY
    )


def test_an_excluded_pair_collides_with_nothing():
    pairs, _ = catalogue(tool("a-b"), tool("a", exclude_bases={"b-c": "taken"})).pairs(["c", "b-c"])
    assert keys(pairs) == ["a-b-c", "a-b-b-c", "a-c"]


def test_pairs_can_collide_through_their_versions():
    pairs, _ = catalogue(tool("a"), tool("a-b")).pairs(["b", "c"])
    by_key = {one.key: one for one in pairs}
    assert refusal(refuse_collisions, [(by_key["a-b"], "c-1"), (by_key["a-b-c"], "1")]) == (
        "tools/a-b on base c and tools/a on base b both make the tag a-b-c-1" + REMEDY
    )
    assert refuse_collisions([(by_key["a-b"], "1"), (by_key["a-b-c"], "1")]) is None


def test_a_version_called_latest_is_no_collision_with_itself():
    (pair,), _ = catalogue(tool("a")).pairs(["b"])
    assert refuse_collisions([(pair, "latest")]) is None


def test_a_tag_of_128_characters_is_accepted_and_one_of_129_is_not():
    exact, over = "t" * 119, "t" * 120
    (pair,), _ = catalogue(tool(exact)).pairs(["b"])
    assert len(str(pair.tagged("latest").to)) == 128
    assert refusal(catalogue(tool(over)).pairs, ["b"]) == (
        f"tools/{over}: on base b: '{'t' * 80}…' cannot be a tag: a tag has at most 128 characters, this one 129 "
        "(at most 128 characters)" + REMEDY
    )


def test_all_collisions_are_named_at_once():
    said = refusal(catalogue(tool("a-b"), tool("a"), tool("t" * 120)).pairs, ["c", "b-c"])
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
    (pair,), _ = catalogue(tool("a", **members), single=one).pairs(["b"])
    assert pair.required(offered) == required
    assert pair.named() == named


def test_a_tool_is_found_by_its_name():
    codex = tool("codex")
    assert catalogue(codex).tool("codex") is codex
    assert catalogue(codex).tool("goose") is None


words = st.lists(st.sampled_from(["a", "b", "a-b", "b-c", "c"]), min_size=1, max_size=4, unique=True)


@given(words, words)
def test_accepted_pairs_have_tags_of_their_own(tools, bases):
    try:
        pairs, _ = catalogue(*map(tool, tools)).pairs(bases)
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
