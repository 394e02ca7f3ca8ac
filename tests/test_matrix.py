"""The picture of a report: which cell says what, what stands beside the grid, and how it is drawn."""

import re
import textwrap
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.matrix import Cell, Mark, Matrix, draw, dump
from imagewright.pictures import annotations, markdown, page, svg, terminal
from imagewright.pictures.colours import DARK, FILLS, HOLLOW, INK, LIGHT
from imagewright.plan import Build, Held, Plan
from imagewright.reasons import Stale, Unknown
from imagewright.report import NO_BASES, Record, Report
from imagewright.verdict import Reason, State

STARTED, BEFORE = "2026-01-02T03:04:05Z", "2026-01-01T00:00:00Z"
DIGEST = "sha256:" + "ab" * 32
AMD, ARM = "linux/amd64", "linux/arm64"
CHANGED = tuple(Reason(code=Stale.BASE_CHANGED, platform=one, detail="layer 2 of 3 differs") for one in (AMD, ARM))
SILENT = (Reason(code=Unknown.TIMEOUT, detail="no answer"),)


def missing(target: str) -> tuple[Reason, ...]:
    return (Reason(code=Stale.IMAGE_MISSING, detail=f"the registry has no {target}-1.0"),)


def record(tool, base, why=(), *, target="", since=BEFORE, version="1.0"):
    kind = type(why[0].code) if why else None
    return Record(
        target=target or f"{tool}-{base}",
        tool=tool,
        base=base,
        version=version,
        reference="",
        digest=None,
        base_digest=None,
        recipe=None,
        created="",
        listed_before=None,
        state={None: State.FRESH, Stale: State.STALE, Unknown: State.UNKNOWN}[kind],
        reasons=tuple(why),
        not_asked=(),
        since=since if why else None,
        last_layer=None,
    )


def report(*records, tools=("codex", "gemini"), bases=("fedora", "node"), **members):
    return Report(
        **{
            "nonce": "1",
            "catalogue": "",
            "started": STARTED,
            "finished": STARTED,
            "selection": "all",
            "total": len(records),
            "expected": tuple(one.target for one in records),
            "partial": (),
            "excluded": (),
            "warnings": (),
            "bases": tuple({"base": one} for one in bases),
            "versions": tuple({"tool": one, "version": "1.0"} for one in tools),
            "records": records,
        }
        | members
    )


def grid(matrix: Matrix) -> dict[str, str]:
    """Each row as text: tool → its glyphs."""
    return {row.tool: "".join(cell.mark.glyph for cell in row.cells) for row in matrix.rows}


def told(matrix: Matrix, width: int = 80) -> str:
    return "\n".join("".join(span.text for span in line) for line in terminal.lines(matrix, width))


FOUR = (
    record("codex", "fedora"),
    record("codex", "node", CHANGED),
    record("gemini", "fedora", SILENT),
    record("gemini", "node"),
)
NOBODY = record("", "", (Reason(code=Unknown.BASES_UNKNOWN, detail="403 from a login page"),), target=NO_BASES)
HELD = "may not be redistributed"


# What a cell says


CELLS = {
    # name: the report, its grid
    "verdicts": (report(*FOUR), {"codex": "✓✗", "gemini": "?✓"}),
    "no-such-pair": (report(*FOUR[:3]), {"codex": "✓✗", "gemini": "?∅"}),
    "narrowed": (report(*FOUR[:2], total=4), {"codex": "✓✗", "gemini": "··"}),
    "a-tool-without-any-pair": (report(*FOUR, tools=["zed"]), {"codex": "✓✗", "gemini": "?✓", "zed": "∅∅"}),
    "excluded": (
        report(*FOUR[:3], excluded=({"target": "gemini-node", "because": "needs GLIBC_2.38"},)),
        {"codex": "✓✗", "gemini": "?–"},
    ),
    "withheld": (
        report(*FOUR[:3], excluded=({"target": "gemini-node", "because": HELD},)),
        {"codex": "✓✗", "gemini": "?§"},
    ),
    "excluded-with-tool-and-base": (
        report(*FOUR, excluded=({"target": "a-b-c", "tool": "a-b", "base": "c", "because": HELD},)),
        {"a-b": "§∅∅", "codex": "∅✓✗", "gemini": "∅?✓"},
    ),
    "bases-not-listed": (report(NOBODY, bases=(), total=0), {"codex": "", "gemini": ""}),
    "no-tools": (report(NOBODY, tools=(), total=0), {}),
    "images-only": (report(record("", "", target="builder"), tools=(), bases=()), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CELLS)
def test_a_cell_says(name: str) -> None:
    of, expected = CELLS[name]
    assert grid(draw(of, DIGEST)) == expected


ELSEWHERE = {
    "unknown-tool": ({"target": "goose-node", "because": "old"}, "goose-node"),
    "unknown-base": ({"target": "codex-arch", "because": "old"}, "codex-arch"),
    "ambiguous": ({"target": "a-b-c", "because": "old"}, "a-b-c"),
    "an-image": ({"target": "installer", "tool": None, "base": None, "because": HELD}, "installer"),
    "no-room": ({"target": "codex-node", "because": "old"}, "codex-node"),
}


@pytest.mark.parametrize("name", ELSEWHERE)
def test_an_excluded_target_whose_place_is_not_sure_is_listed_below(name: str) -> None:
    excluded, target = ELSEWHERE[name]
    drawn = draw(report(*FOUR, tools=("a", "a-b"), bases=("c", "b-c"), excluded=(excluded,)), DIGEST)
    assert [cell.target for cell in drawn.elsewhere] == [target]
    assert drawn.groups[-1].who == (target,)
    assert grid(drawn) == {"a": "∅∅∅∅", "a-b": "∅∅∅∅", "codex": "∅∅✓✗", "gemini": "∅∅?✓"}


@pytest.mark.parametrize("nothing", ["", None])
def test_a_standalone_image_stands_below_the_grid(nothing: str | None) -> None:
    drawn = draw(report(*FOUR, record(nothing, nothing, CHANGED, target="builder")), DIGEST)
    assert [(cell.target, cell.brief, cell.places) for cell in drawn.images] == [
        ("builder", "base-changed", "amd64 arm64")
    ]
    assert grid(drawn) == {"codex": "✓✗", "gemini": "?✓"}


HEADLINES = {
    "whole": (report(*FOUR), "2 of 4 fresh"),
    "narrowed": (report(*FOUR[:2], total=4), "1 of 2 fresh, 2 of 4 targets looked at"),
    "nobody": (report(NOBODY, bases=(), total=0), "no targets: the bases could not be listed"),
    "nobody-and-an-image": (
        report(NOBODY, record("", "", target="builder"), bases=(), total=1),
        "1 of 1 fresh; the bases could not be listed",
    ),
}


@pytest.mark.parametrize("name", HEADLINES)
def test_the_headline_is(name: str) -> None:
    of, expected = HEADLINES[name]
    drawn = draw(of, DIGEST)
    assert drawn.headline == expected
    assert told(drawn).splitlines()[0].endswith(expected)
    assert f"<title>{expected} · imagewright</title>" in page.document(drawn)
    assert f"<title>{expected}, as seen at 2026-01-02 03:04 UTC</title>" in svg.document(drawn)


# Stories


TOOLS, BASES = [f"t{at}" for at in range(4)], [f"b{at}" for at in range(6)]
WHO = {
    # name: (tool, base) of the stale ones, whom the story is about
    "a-few": (lambda tool, base: base == "b0" and tool < "t3", ("t0-b0", "t1-b0", "t2-b0")),
    "a-row": (lambda tool, base: tool == "t1", ("t1 on all 6 bases",)),
    "nearly-a-row": (lambda tool, base: tool == "t1" and base != "b2", ("t1-b0", "t1-b1", "t1-b3", "t1-b4", "t1-b5")),
    "nearly-two-rows": (lambda tool, base: tool < "t2" and base != "b2", ("t0, t1 on all bases but b2",)),
    "two-columns": (lambda tool, base: base in ("b1", "b2"), ("all 4 tools on b1, b2",)),
    "all": (lambda tool, base: True, ("all 4 tools on all 6 bases",)),
    "no-block": (lambda tool, base: tool == "t0" or (tool, base) == ("t1", "b1"),
                 ("t0-b0", "t0-b1", "t0-b2", "t0-b3", "t0-b4", "t0-b5", "t1-b1")),
}  # fmt: skip


@pytest.mark.parametrize("name", WHO)
def test_a_story_is_about(name: str) -> None:
    stale, expected = WHO[name]
    records = [record(tool, base, CHANGED if stale(tool, base) else ()) for tool in TOOLS for base in BASES]
    (group,) = draw(report(*records), DIGEST).groups
    assert group.who == expected


def test_targets_with_one_cause_share_a_story_and_each_alone_has_its_own_words() -> None:
    child = [
        Reason(code=Stale.CHILD_MISSING, platform=ARM, expected="sha256:" + letter * 64) for letter in "cd"
    ]  # digests tell targets apart, not causes
    records = (
        record("codex", "fedora", missing("codex-fedora")),
        record("codex", "node", missing("codex-node"), since=STARTED),
        record("gemini", "fedora", child[:1]),
        record("gemini", "node", child[1:]),
        record("", "", missing("builder"), target="builder"),
    )
    assert [(group.who, group.why, group.since) for group in draw(report(*records), DIGEST).groups] == [
        (("codex-fedora", "codex-node"), ("image-missing: the registry has no <target>-<version>",), BEFORE),
        (
            ("gemini-fedora", "gemini-node"),
            ("child-missing on linux/arm64: The index names content that the registry no longer has.",),
            BEFORE,
        ),
        (("builder",), ("image-missing: the registry has no builder-1.0",), BEFORE),
    ]


# In a terminal


WHOLE = report(
    *FOUR,
    record("", "", target="version-check", version="0.1"),
    record("", "", (Reason(code=Stale.RECIPE_CHANGED),), target="builder", version="0.1"),
    excluded=(
        {"target": "goose-fedora", "tool": "goose", "base": "fedora", "because": HELD},
        {"target": "goose-node", "tool": "goose", "base": "node", "because": HELD},
        {"target": "what-is-this", "because": "nobody knows"},
    ),
    partial=("codex-arch",),
    selection="-k 'codex or gemini'",
    total=9,
)


def test_the_picture_in_a_terminal_looks_like_this() -> None:
    assert (
        told(draw(WHOLE, DIGEST))
        == """\
3 tools on 2 bases: 3 of 6 fresh, 6 of 9 targets looked at
looked at 2026-01-02 03:04 UTC, report sha256:abababababab…
selected: -k 'codex or gemini'

        fedora     node
codex   ✓          ✗ base-changed amd64 arm64
gemini  ? timeout  ✓
goose   §          §

images
  ✓ version-check  0.1
  ✗ builder        0.1  recipe-changed

✓ fresh 3   ✗ stale 2   ? unknown 1   – excluded 1
§ may not be redistributed 2

? gemini-fedora unknown, since 2026-01-01 00:00 UTC
    timeout: no answer

✗ codex-node stale, since 2026-01-01 00:00 UTC
    base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs
✗ builder stale, since 2026-01-01 00:00 UTC
    recipe-changed: The recipe has changed since the image was built.

– what-is-this excluded
    nobody knows

§ goose-fedora, goose-node
    may not be redistributed

no verdict, as only some of the checks were asked: codex-arch"""
    )


def test_where_reasons_do_not_fit_glyphs_stand_under_the_names() -> None:
    assert told(draw(report(*FOUR), DIGEST), 40).split("\n\n")[1] == textwrap.dedent(
        """\
                fedora  node
        codex   ✓       ✗
        gemini  ?       ✓"""
    )


def test_where_names_do_not_fit_they_are_written_downwards_and_the_grid_is_cut_into_blocks() -> None:
    bases = [f"{letter}{at}" for letter in "abc" for at in range(4)]
    drawn = draw(report(*(record("codex", base) for base in bases), tools=(), bases=()), DIGEST)
    assert told(drawn, 35).split("\n\n")[1] == textwrap.dedent(
        """\
               a a a a b b b b c c c c
               0 1 2 3 0 1 2 3 0 1 2 3
        codex  ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓ ✓"""
    )
    assert told(drawn, 16).split("\n\n")[1:3] == [
        "       aaaabbbbc\n       012301230\ncodex  ✓✓✓✓✓✓✓✓✓",
        "       ccc\n       123\ncodex  ✓✓✓",
    ]


def large() -> Report:
    """40 tools on 60 bases, one of them rebuilt and one that does not answer."""
    tools, bases = [f"tool-{at:02}" for at in range(40)], [f"base-{at:02}" for at in range(60)]
    states = {0: CHANGED, 1: SILENT}
    return report(
        *(record(tool, base, states.get(at, ())) for tool in tools for at, base in enumerate(bases)),
        tools=tools,
        bases=bases,
    )


@pytest.mark.parametrize("width", [40, 80, 132, 250])
def test_forty_tools_on_sixty_bases_fit_a_terminal(width: int) -> None:
    drawn = draw(large(), DIGEST)
    lines = told(drawn, width).splitlines()
    assert max(len(line) for line in lines) <= width
    cells = sum(line.count("✓") for line in lines if line.startswith("tool-"))
    assert cells == drawn.counts[Mark.FRESH] == 40 * 58


def test_spans_of_a_state_have_its_colour() -> None:
    colours = {
        span.text.strip()[:1]: span.colour for line in terminal.lines(draw(WHOLE, DIGEST), 80) for span in line[1:]
    }
    assert {glyph: colours[glyph] for glyph in "✓✗?–§"} == {
        "✓": "green", "✗": "red", "?": "yellow", "–": "blue", "§": "magenta",
    }  # fmt: skip


# On a page, in a drawing


class Reader(HTMLParser):
    """The elements of a page: (name, attributes, text directly in it)."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None], list[str]]] = []
        self.open: list[int] = []
        self.feed(document)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), []))
        if tag != "meta":
            self.open.append(len(self.elements) - 1)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()][0] == tag, tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.elements[self.open[-1]][2].append(data)


def test_important_lines_of_the_page() -> None:
    lines = page.document(draw(WHOLE, DIGEST)).splitlines()
    for line in (
        "<h1>3 of 6 fresh, 6 of 9 targets looked at</h1>",
        '<p>3 tools on 2 bases, as seen at <time datetime="2026-01-02T03:04:05Z">2026-01-02 03:04 UTC</time></p>',
        f'<p class="quiet">selected: -k &#x27;codex or gemini&#x27; · report {DIGEST}</p>',
        '<li class="stale"><span class="glyph" title="stale">✗</span><b>2</b> stale</li>',
        (
            '<tr><th scope="row" title="codex">codex<small>1.0</small></th>'
            '<td class="fresh" title="codex-fedora 1.0: fresh"><span><b>✓</b></span></td>'
            '<td class="stale"><a href="#why-2" title="codex-node 1.0: stale since 2026-01-01 00:00 UTC\n'
            'base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs">'
            "<b>✗</b><small>base-changed<i>amd64 arm64</i></small></a></td></tr>"
        ),
        (
            '<li id="why-2" class="stale"><span class="glyph" title="stale">✗</span><p class="who">codex-node</p>'
            "<div><p>base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs</p></div>"
            '<p class="quiet">since 2026-01-01 00:00 UTC</p></li>'
        ),
        "<h2>Excluded</h2>",
        "<p>Only some of the checks were asked about codex-arch.</p>",
    ):
        assert line in "\n".join(lines)


def test_the_page_needs_nothing_else() -> None:
    reader = Reader(page.document(draw(WHOLE, DIGEST)))
    assert not reader.open
    names = {name for name, _, _ in reader.elements}
    assert names & {"script", "link", "img", "iframe", "object", "embed", "base", "form"} == set()
    addresses = [
        value for _, attributes, _ in reader.elements for key, value in attributes.items() if key in ("href", "src")
    ]
    anchors = {attributes["id"] for _, attributes, _ in reader.elements if "id" in attributes}
    assert {value[1:] for value in addresses if value} <= anchors
    styles = "".join(text for name, _, texts in reader.elements if name == "style" for text in texts)
    assert "url(" not in styles
    assert "@import" not in styles


def test_important_parts_of_the_drawing() -> None:
    root = ET.fromstring(svg.document(draw(WHOLE, DIGEST)))
    texts = [one.text for one in root.iter("{http://www.w3.org/2000/svg}text")]
    assert texts[:3] == [
        "3 of 6 fresh, 6 of 9 targets looked at",
        "3 tools on 2 bases, as seen at 2026-01-02 03:04 UTC, selected: -k 'codex or gemini',",
        "report sha256:abababababab…",
    ]
    for text in (
        "base-changed",
        "amd64 arm64",
        "codex-node, since 2026-01-01 00:00 UTC",
        "base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs",
        "builder 0.1 recipe-changed",
    ):
        assert text in texts


def test_a_drawing_with_many_stories_says_how_many_it_leaves_out() -> None:
    records = [record("codex", f"b{at:02}", (replace(CHANGED[0], detail=f"story {at:02}"),)) for at in range(15)]
    text = svg.document(draw(report(*records, tools=(), bases=()), DIGEST))
    assert re.findall(r"story \d\d", text) == [f"story {at:02}" for at in range(12)]
    assert ">and 3 more</text>" in text


def luminance(colour: str) -> float:
    """https://www.w3.org/TR/WCAG21/#dfn-relative-luminance"""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(one: str, other: str) -> float:
    dark, light = sorted((luminance(one), luminance(other)))
    return (light + 0.05) / (dark + 0.05)


def test_texts_can_be_read_in_both_schemes() -> None:
    assert round(contrast("#ffffff", "#767676"), 2) == 4.54  # a pair that is known
    on_fills = [(INK, colour) for mark, colour in FILLS.items() if mark not in HOLLOW]
    on_paper = [
        (scheme[text], scheme[on])
        for scheme in (LIGHT, DARK)
        for text in ("text", "quiet")
        for on in ("paper", "raised")
    ]
    assert {pair: contrast(*pair) for pair in on_fills + on_paper if contrast(*pair) < 4.5} == {}


# Laws


MARKUP = ["<script>alert(1)</script>", '"><b>', "a&amp;b", "]]>", "'"]
CONTROL = ["\x1b[31mred", "\u202eback", "\ud800", "a\nb"]
NASTY = st.one_of(st.sampled_from(MARKUP + CONTROL), st.text(max_size=8))
PARTS = st.one_of(st.sampled_from(["a", "b", "a-b", "b-a"]), NASTY)
WHY = st.builds(
    lambda code, platform, detail: Reason(code=code, platform=platform, detail=detail),
    st.sampled_from([Stale.BASE_CHANGED, Stale.LATEST_BEHIND]),
    NASTY,
    NASTY,
)


@st.composite
def reports(draw_one):
    pairs = draw_one(st.lists(st.tuples(PARTS, PARTS), max_size=8))
    records = [
        record(tool, base, draw_one(st.lists(WHY, max_size=2)), target=f"{at}{tool}-{base}", since=draw_one(NASTY))
        for at, (tool, base) in enumerate(pairs)
    ]
    excluded = [
        {"target": f"{tool}-{base}", "because": draw_one(NASTY | st.just(HELD))}
        | draw_one(st.sampled_from([{}, {"tool": tool, "base": base}]))
        for tool, base in draw_one(st.lists(st.tuples(PARTS, PARTS), max_size=6))
    ]
    return report(
        *records,
        tools=draw_one(st.lists(PARTS, max_size=3)),
        bases=draw_one(st.lists(PARTS, max_size=3)),
        excluded=tuple(excluded),
        partial=tuple(draw_one(st.lists(NASTY, max_size=2))),
        selection=draw_one(NASTY),
        started=draw_one(NASTY),
    )


def shown_cells(drawn: Matrix) -> list[Cell]:
    return [*(cell for row in drawn.rows for cell in row.cells), *drawn.images, *drawn.elsewhere]


JUDGED = (Mark.FRESH, Mark.STALE, Mark.UNKNOWN)


@given(reports())
def test_each_record_and_each_excluded_target_appears_once(of: Report) -> None:
    drawn = draw(of, DIGEST)
    marks = [cell.mark for cell in shown_cells(drawn)]
    assert sum(mark in JUDGED for mark in marks) + drawn.nobody == len(of.records)
    assert sum(mark in (Mark.EXCLUDED, Mark.WITHHELD) for mark in marks) == len(of.excluded)
    plain = {one.target for one in of.records if one.target.isprintable() and len(one.target) < 100}
    assert plain <= {cell.target for cell in shown_cells(drawn) if cell.mark in JUDGED}
    grouped = [id(cell) for group in drawn.groups for cell in group.cells]
    assert sorted(grouped) == sorted(
        id(cell) for cell in shown_cells(drawn) if cell.mark not in (Mark.FRESH, Mark.NOT_ASKED, Mark.NO_PAIR)
    )
    assert all(len(row.cells) == len(drawn.bases) for row in drawn.rows)


@given(reports())
def test_nothing_foreign_gets_out_of_its_place(of: Report) -> None:
    drawn = draw(of, DIGEST)
    assert all(line.isprintable() for line in told(drawn).split("\n"))
    reader = Reader(page.document(drawn))
    assert not reader.open
    assert {name for name, _, _ in reader.elements} <= {
        "html", "head", "meta", "title", "style", "body", "header", "h1", "h2", "p", "time", "ul", "ol", "li", "span",
        "b", "div", "table", "thead", "tbody", "tr", "th", "td", "a", "small", "i",
    }  # fmt: skip
    drawing = svg.document(drawn)
    assert {one.tag.rpartition("}")[2] for one in ET.fromstring(drawing).iter()} <= {
        "svg", "title", "style", "rect", "g", "text",
    }  # fmt: skip
    assert (page.document(drawn) + drawing).encode()


@given(reports())
def test_the_same_report_gives_the_same_bytes(of: Report) -> None:
    one, other = draw(of, DIGEST), draw(of, DIGEST)
    assert page.document(one) == page.document(other)
    assert svg.document(one) == svg.document(other)
    assert dump(one) == dump(other)


def test_the_matrix_as_json() -> None:
    of = report(*FOUR[1:2], bases=(), tools=("codex",), excluded=({"target": "what-is-this", "because": HELD},))
    assert dump(draw(of, DIGEST)) == {
        "schema": 1,
        "report": {"digest": DIGEST, "started": STARTED, "selection": "all"},
        "counts": {
            "fresh": 0, "stale": 1, "unknown": 0, "excluded": 0, "withheld": 1, "not-in-report": 0, "no-pair": 0,
        },
        "tools": [{"tool": "codex", "version": "1.0"}],
        "bases": ["node"],
        "bases_listed": True,
        "cells": [
            {
                "target": "codex-node",
                "tool": "codex",
                "base": "node",
                "state": "stale",
                "version": "1.0",
                "codes": ["base-changed"],
                "platforms": [AMD, ARM],
                "why": ["base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs"],
                "since": BEFORE,
            }
        ],
        "images": [],
        "excluded": [
            {
                "target": "what-is-this",
                "tool": None,
                "base": None,
                "state": "withheld",
                "version": None,
                "codes": [],
                "platforms": [],
                "why": [HELD],
                "since": None,
            }
        ],
        "partial": [],
    }  # fmt: skip


# For a forge


def planned(*builds: Build, put_off=(), refused=()) -> Plan:
    return Plan(
        report=DIGEST,
        catalogue="",
        nonce="1",
        created=STARTED,
        force=False,
        selection="all",
        builds=builds,
        deferrals=tuple(Held(target=one, because="held: the vendor is down") for one in put_off),
        refusals=tuple(Held(target=one, because="unknown: timeout") for one in refused),
    )


def test_the_summary_of_a_job_has_the_matrix_the_reasons_and_the_plan() -> None:
    build = Build(
        key="0123456789abcdef",
        target="codex-node",
        tool="codex",
        base="node",
        version="1.0",
        base_digest="",
        reasons=CHANGED,
        action="build",
    )
    forced = replace(build, target="codex-fedora", base="fedora", reasons=())
    of = report(record("codex", "fedora"), record("codex", "node", CHANGED), record("gemini", "node", SILENT))
    text = markdown.document(
        draw(of, DIGEST), planned(build, forced, put_off=("gemini-fedora",), refused=("gemini-node",))
    )
    assert (
        text
        == """\
### 1 of 3 fresh

Looked at 2026-01-02 03:04 UTC; report `sha256:abababababab…`

|  | fedora | node |
|---|---|---|
| codex 1.0 | ✅ | ❌ base-changed amd64 arm64 |
| gemini 1.0 | ∅ | ❔ timeout |

✅ fresh 1 · ❌ stale 1 · ❔ unknown 1 · ∅ no such pair 1

- ❔ **gemini-node** unknown, since 2026-01-01 00:00 UTC
  - timeout: no answer
- ❌ **codex-node** stale, since 2026-01-01 00:00 UTC
  - base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs

### 2 to build, 1 put off, 1 refused

| target | version |  | why |
|---|---|---|---|
| codex-node | 1.0 | build | base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs |
| codex-fedora | 1.0 | build | forced: it is fresh |

- Put off: **gemini-fedora**: held: the vendor is down
- Refused: **gemini-node**: unknown: timeout

"""
    )


BAD_WORDS = "<b>|`x`| [a](http://x) *y* @root\n::error::z"


def test_foreign_words_are_neither_markdown_nor_html_in_a_summary() -> None:
    why = (Reason(code=Unknown.GARBAGE, detail=BAD_WORDS),)
    text = markdown.document(draw(report(record("codex", "node", why)), DIGEST), None)
    (line,) = [one for one in text.splitlines() if "garbage:" in one]
    assert line == (
        "  - garbage: &lt;b&gt;&#124;&#96;x&#96;&#124; &#91;a&#93;(http&#58;//x) &#42;y&#42; &#64;root&#92;n::error::z"
    )


@given(reports())
def test_a_summary_has_no_html_of_anybody(of: Report) -> None:
    assert not re.search(r"[<>]", markdown.document(draw(of, DIGEST), None))


def test_annotations_stand_beside_the_file_of_the_tool_and_what_is_unknown_comes_first() -> None:
    of = report(record("codex", "fedora"), record("codex", "node", CHANGED), record("gemini", "node", SILENT))
    assert list(annotations.commands(draw(of, DIGEST))) == [
        "::warning file=tools/gemini/version.sh,line=1,title=gemini-node%3A unknown::timeout: no answer",
        (
            "::notice file=tools/codex/version.sh,line=1,title=codex-node%3A stale::"
            "base-changed on linux/amd64, linux/arm64: layer 2 of 3 differs"
        ),
    ]


def test_there_are_nine_annotations_at_most_and_the_rest_is_counted() -> None:
    whys = [(Reason(code=Stale.BASE_CHANGED, detail=f"story {at}"),) for at in range(12)]
    of = report(*(record(f"tool{at}", "node", why) for at, why in enumerate(whys)))
    lines = list(annotations.commands(draw(of, DIGEST)))
    assert len(lines) == 10
    assert lines[-1] == "::notice::and 3 more"


@given(reports())
def test_each_annotation_is_one_command(of: Report) -> None:
    for line in annotations.commands(draw(of, DIGEST)):
        assert re.fullmatch(
            r"::(notice|warning) (file=[^:,\r\n]+,line=1,)?title=[^:,\r\n]+::[^\r\n]*", line
        ) or line.startswith("::notice::and ")
