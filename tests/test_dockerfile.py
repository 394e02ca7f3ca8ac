"""What a Dockerfile is built on, from its text alone."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.dockerfile import Parents, parents
from imagewright.errors import BadCatalogue

GIVEN = {"BASE_IMAGE": "given/base:1", "EMPTY": ""}

TABLE = {
    # name: (text, final, its line, its argument, others with their lines)
    "one image": ("FROM alpine", "alpine", 1, "", {}),
    "nothing": ("FROM scratch", "scratch", 1, "", {}),
    "a digest": (f"FROM a/b@sha256:{'0' * 64}", f"a/b@sha256:{'0' * 64}", 1, "", {}),
    "a port": ("FROM localhost:5000/a:1", "localhost:5000/a:1", 1, "", {}),
    "small letters": ("from alpine as x\nfrom x", "alpine", 1, "", {}),
    "a platform": ("FROM --platform=$BUILDPLATFORM alpine", "alpine", 1, "", {}),
    "blank lines and comments": ("\n# FROM x\n\n  # y\n  FROM alpine  \n", "alpine", 5, "", {}),
    "lines that end as on Windows": ("ARG A=x\r\nFROM \\\r\n  $A\r\n", "x", 2, "A", {}),
    "a byte order mark": ("\ufeffFROM alpine", "alpine", 1, "", {}),
    "tabs": ("FROM\talpine\tAS\tx", "alpine", 1, "", {}),
    "a given argument": ("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}", "given/base:1", 2, "BASE_IMAGE", {}),
    "a given one wins over its default": ("ARG BASE_IMAGE=x\nFROM $BASE_IMAGE", "given/base:1", 2, "BASE_IMAGE", {}),
    "a default": ("ARG A=x\nFROM ${A}", "x", 2, "A", {}),
    "the last default": ("ARG A=x\nARG A=y\nFROM $A", "y", 3, "A", {}),
    "two in one line": ("ARG A=x B=y\nFROM $A:$B", "x:y", 2, "", {}),
    "one made of another": ('ARG A=x\nARG B="${A}/y"\nFROM $B', "x/y", 3, "B", {}),
    "a part of the reference": ("ARG TAG=3\nFROM alpine:${TAG}", "alpine:3", 2, "", {}),
    "a default in the FROM": ("ARG A\nFROM ${A:-x}", "x", 2, "A", {}),
    "a default that is not needed": ("ARG A=y\nFROM ${A:-x}", "y", 2, "A", {}),
    "a default for an empty one": ("ARG EMPTY\nFROM ${EMPTY:-x}", "x", 2, "EMPTY", {}),
    "a default for an undeclared one": ("FROM ${A:-x}", "x", 1, "", {}),
    "a default in a default": ("ARG B=y\nFROM ${A:-${B}}", "y", 2, "", {}),
    "a default without the colon": ("ARG A\nFROM ${A-x}", "x", 2, "A", {}),
    "something instead": ("ARG A=1\nFROM x${A:+:slim}${B:+:none}", "x:slim", 2, "", {}),
    "undeclared arguments are not given": ("FROM ${BASE_IMAGE:-x}", "x", 1, "", {}),
    "quotes": ('ARG A=\'x y\' B="z"\nFROM "alpine:${B}"', "alpine:z", 2, "", {}),
    "single quotes hold no variables": ("ARG B=z\nARG A='$B'\nFROM x${A:+1}", "x1", 3, "", {}),
    "an ARG of a stage does not count": ("ARG A=x\nFROM $A AS b\nARG A=y\nFROM $A", "x", 4, "A", {}),
    "two stages": ("FROM a AS b\nRUN x\nFROM c\nCOPY --from=b /x /", "c", 3, "", {"a": 1}),
    "a stage on a stage": ("FROM a AS b\nFROM b AS c\nFROM c", "a", 1, "", {}),
    "a stage's argument": ("ARG A=x\nFROM $A AS b\nFROM b", "x", 2, "A", {}),
    "a stage by an argument": ("ARG A=b\nFROM x AS b\nFROM ${A}", "x", 2, "", {}),
    "a stage in other letters": ("FROM a AS Build\nFROM build\nCOPY --from=BUILD / /", "a", 1, "", {}),
    "the last of two stages of one name": ("FROM a AS x\nFROM b AS x\nFROM x", "b", 2, "", {"a": 1}),
    "only an earlier stage is one": ("FROM b AS a\nFROM a AS b\nFROM b", "b", 1, "", {}),
    "a stage by its number": ("FROM a\nFROM b\nCOPY --from=0 / /", "b", 2, "", {"a": 1}),
    "copied from an image": ("FROM a\nCOPY --from=b:1 /x /\nCOPY --from=c /y /", "a", 1, "", {"b:1": 2, "c": 3}),
    "copied twice": ("FROM a\nCOPY --from=b /x /\nCOPY --from=b /y /", "a", 1, "", {"b": 2}),
    "copied from the base itself": ("FROM a\nCOPY --from=a /x /", "a", 1, "", {}),
    "flags before": ("FROM a\nCOPY --chown=1:1 --from=b --link /x /", "a", 1, "", {"b": 2}),
    "no flag any more": ("FROM a\nRUN cp --from=b\nCOPY x --from=c /", "a", 1, "", {}),
    "a mount": (
        "FROM a\nRUN --mount=type=bind,from=b,target=/b --mount=from=c,target=/c x",
        "a",
        1,
        "",
        {"b": 2, "c": 2},
    ),
    "a mount of a stage": ("FROM b AS c\nFROM a\nRUN --mount=type=bind,from=c,target=/b x", "a", 2, "", {"b": 1}),
    "a mount of a cache": ("FROM a\nRUN --mount=type=cache,target=/b x", "a", 1, "", {}),
    "lines that go on": ("FROM a\nCOPY \\\n  # a comment\n\n  --from=b \\\n  /x /\nRUN \\\n y", "a", 1, "", {"b": 2}),
    "a backslash that is no end": ("FROM a\nRUN x \\\\\nCOPY --from=b / /", "a", 1, "", {"b": 3}),
    "blanks behind a backslash": ("FROM a\nRUN x \\  \nCOPY --from=b / /", "a", 1, "", {}),
    "another escape": ("# escape=`\nFROM a\nCOPY `\n--from=b x c:\\\nCOPY --from=d / /", "a", 2, "", {"b": 3, "d": 5}),
    "an escape too late": ("# x\n# escape=`\nFROM a\nRUN x `\nCOPY --from=b / /", "a", 3, "", {"b": 5}),
    "an escape behind another directive": (
        "# check=skip=all\n#ESCAPE = `\nFROM a\nRUN x `\nCOPY --from=b / /",
        "a",
        3,
        "",
        {},
    ),
    "a heredoc": ("FROM a\nRUN <<EOF\nFROM b\nCOPY --from=c / /\nEOF\nCOPY --from=d / /", "a", 1, "", {"d": 6}),
    "two heredocs": ('FROM a\nCOPY <<X <<"Y" /\nFROM b\nX\nFROM c\nY\n', "a", 1, "", {}),
    "a heredoc behind tabs": ("FROM a\nRUN <<-EOF\n\tFROM b\n\tEOF\nCOPY --from=d / /", "a", 1, "", {"d": 5}),
    "no heredoc": ('FROM a\nRUN x "<<EOF" && y<<<z\nCOPY --from=d / /', "a", 1, "", {"d": 3}),
    "a heredoc in a mount": ("FROM a\nRUN --mount=from=b,target=/b <<EOF\nFROM c\nEOF\n", "a", 1, "", {"b": 2}),
    "a heredoc for whoever builds on it": ("FROM a\nONBUILD RUN <<EOF\nFROM b\nEOF\n", "a", 1, "", {}),
    "what is for whoever builds on it": ("FROM a\nONBUILD COPY --from=b / /", "a", 1, "", {}),
    "nothing below and nothing beside": ("FROM scratch AS a\nFROM scratch\nCOPY --from=a / /", "scratch", 2, "", {}),
    "an unused stage": ("FROM a\nFROM b", "b", 2, "", {"a": 1}),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_dockerfile_is_built_on(name: str) -> None:
    text, final, line, argument, others = TABLE[name]
    assert parents(text, "Dockerfile", GIVEN) == Parents(
        final=final,
        final_line=line,
        final_argument=argument,
        others=tuple(others),
        other_lines=tuple(others.values()),
    )


REFUSED = [
    ("FROM a\nCOPY --from=1 / /", "d:2: there is no stage 1; they count from 0"),
    ("", "d: there is no FROM in it"),
    ("# FROM a\nARG A=1", "d: there is no FROM in it"),
    ("ARG A\nFROM x:$A", "d:2: the ARG A has no value\n  Give it one before the first FROM: ARG A=…"),
    ("\nFROM ${A}", "d:2: the ARG A has no value\n  Give it one before the first FROM: ARG A=…"),
    ("ARG A\nARG B=$A\nFROM $B", "d:3: the ARG B has no value\n  Give it one before the first FROM: ARG B=…"),
    ("ARG EMPTY\nFROM ${EMPTY}", "d:2: '${EMPTY}' is empty"),
    ("RUN x\nFROM a", "d:1: only ARG can stand before the first FROM, not 'RUN'"),
    ("# x\nCOPPY a b\nFROM a", "d:2: only ARG can stand before the first FROM, not 'COPPY'"),
    ("FROM a\n\nRUN <<EOF\nFROM b\n EOF\n", "d:3: the heredoc 'EOF' is never finished"),
    ("FROM a\nCOPY <<A <<B /\nA\n", "d:2: the heredoc 'B' is never finished"),
    ("FROM", "d:1: FROM takes an image, and perhaps AS and a name"),
    ("FROM a b", "d:1: FROM takes an image, and perhaps AS and a name"),
    ("FROM a AS", "d:1: FROM takes an image, and perhaps AS and a name"),
    ("FROM a # the base", "d:1: FROM takes an image, and perhaps AS and a name"),
    ("FROM ${A", "d:1: '${A': a brace that is never closed"),
    ("FROM ${A#x}", "d:1: '${A#x}' is not understood: of variables, :- and :+ are"),
    ("ARG B=${A%x}\nFROM $B", "d:1: '${A%x}' is not understood: of variables, :- and :+ are"),
    ("# escape=x\nFROM a", "d:1: escape can be \\ or `, not 'x'"),
    (
        "FROM a\nCOPY --from=$B / /",
        "d:2: '$B': from takes no variables\n  Give the image a stage, FROM … AS name, and take that.",
    ),
]


@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_what_cannot_be_read_is_refused_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(BadCatalogue) as refused:
        parents(text, "d", GIVEN)
    assert str(refused.value) == problem


lines = st.lists(
    st.sampled_from(
        [
            "FROM a",
            "FROM b AS c",
            "ARG A=1",
            "FROM $A",
            "COPY --from=c / /",
            "RUN <<X",
            "X",
            "\\",
            "RUN x \\",
            "#",
            "${",
            '"',
        ]
    ),
    max_size=12,
)


@given(lines | st.lists(st.text(max_size=30), max_size=5))
def test_whatever_the_text_it_is_read_or_refused(text: list[str]) -> None:
    try:
        made = parents("\n".join(text), "d", {})
    except BadCatalogue as refused:
        assert refused.where.startswith("d")
        return
    assert made.final
    assert made.final not in made.others
    assert len(made.others) == len(set(made.others)) == len(made.other_lines)
