"""Structured text with its places: what is read from YAML and TOML, what is refused, and where the mistake stands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright import fields
from imagewright.errors import BadCatalogue
from imagewright.fields import Node, Problems, from_toml, from_yaml
from imagewright.names import parse_folder_name, parse_platform


def plain(node):
    """The values without their places."""
    if isinstance(node.value, dict):
        return {name: plain(member) for name, member in node.value.items()}
    if isinstance(node.value, list):
        return [plain(one) for one in node.value]
    return node.value


def refusal(parse, content):
    with pytest.raises(BadCatalogue) as caught:
        parse(content if isinstance(content, bytes) else content.encode(), "file")
    return caught.value.where, caught.value.reason


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", {}),
        ("# only a comment\n", {}),
        ("version: 3.10\n", {"version": "3.10"}),
        ("name: no\n", {"name": "no"}),
        ("yes: on\nnull: ~\n", {"yes": "on", "null": "~"}),
        ("a: 012\nb: 1_000\nc: 2026-01-01\nd: 1e3\n", {"a": "012", "b": "1_000", "c": "2026-01-01", "d": "1e3"}),
        ("a:\n", {"a": ""}),
        ("a: [x, 'y', \"z\"]\n", {"a": ["x", "y", "z"]}),
        ("a: {b: {c: d}}\n", {"a": {"b": {"c": "d"}}}),
        ("a: !!python/object:os.system x\n", {"a": "x"}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("just text\n", "just text"),
    ],
)
def test_every_scalar_of_yaml_is_a_text_as_it_was_written(text, value):
    assert plain(from_yaml(text.encode(), "file")) == value


def test_a_member_of_yaml_stands_where_its_name_does():
    root = from_yaml(b"title: x\nexclude-bases:\n  node: why\nplatforms:\n- linux/amd64\n", "tool.yaml")
    assert root.value["title"].place == "tool.yaml:1:1"
    assert root.value["exclude-bases"].value["node"].place == "tool.yaml:3:3"
    assert root.value["platforms"].value[0].place == "tool.yaml:5:3"


@pytest.mark.parametrize(
    ("content", "where", "reason"),
    [
        ("a: 1\na: 2\n", "file:2:1", "'a' stands twice"),
        ("a:\n  b: 1\n  b: 2\n", "file:3:3", "'b' stands twice"),
        ("a: &x 1\nb: *x\n", "file:2:4", "an alias; write the value out"),
        ("a: &x\n  <<: *x\n", "file:2:7", "an alias; write the value out"),
        ("? [a]\n: b\n", "file:1:3", "a name is expected before the colon"),
        ("[" * 21 + "]" * 21, "file:1:21", "nested deeper than 20 levels"),
        ("[" * 2000, "file:1:21", "nested deeper than 20 levels"),
        ("a:\n\tb: c\n", "file:2:1", "not YAML: found character that cannot start any token"),
        ("a: b: c\n", "file:1:5", "not YAML: mapping values are not allowed in this context"),
        ("a: [b\n", "file:2:1", "not YAML: did not find expected ',' or ']'"),
        (b"a: \xff\n", "file", "not UTF-8 at byte 3"),
        ("x" * 262_145, "file", "262145 bytes, at most 262144 are read"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_place(content, where, reason):
    assert refusal(from_yaml, content) == (where, reason)


@pytest.mark.parametrize("content", ["a: \x00b\n", "--- a\n--- b\n", "%YAML 9.9\n--- x\n", "a: \x1bb"])
def test_odd_yaml_is_refused_in_words(content):
    where, reason = refusal(from_yaml, content)
    assert where.startswith("file")
    assert reason.startswith("not YAML: ")


def test_toml_is_read_with_line_numbers():
    content = b'# c\na = 1\n[t]\nb = [\n  "x",\n]\n"q.r" = true\nd.e = 2.5\n[t."u.v"]\nw = "z"\n[[l]]\nm = 1\n'
    root = from_toml(content, "f")
    t = root.value["t"]
    assert plain(root) == {
        "a": 1,
        "t": {"b": ["x"], "q.r": True, "d": {"e": 2.5}, "u.v": {"w": "z"}},
        "l": [{"m": 1}],
    }
    assert root.value["a"].place == "f:2"
    assert t.place == "f:3"
    assert t.value["b"].place == "f:4"
    assert t.value["q.r"].place == "f:7"
    assert t.value["d"].value["e"].place == "f:8"
    assert t.value["u.v"].place == "f:9"
    assert t.value["u.v"].value["w"].place == "f:10"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("a = \n", "not TOML: Invalid value (at line 1, column 5)"),
        ("a = 1\na = 2\n", "not TOML: Cannot overwrite a value (at line 2, column 6)"),
        (b"a = '\xff'\n", "not UTF-8 at byte 5"),
        ("a = " + "[" * 10_000, "nested too deep"),
    ],
)
def test_what_is_not_toml_is_refused(content, reason):
    assert refusal(from_toml, content) == ("file", reason)


SCHEMA = {
    "title": fields.text,
    "squashed": fields.truth,
    "count": fields.whole,
    "seconds": fields.number,
    "scheme": fields.one_of("semver", "opaque"),
    "platforms": fields.listed(fields.named(parse_platform)),
    "excluded": fields.texts_by_name(parse_folder_name),
}


def read(text):
    problems = Problems()
    made = fields.read(from_yaml(text.encode(), "tool.yaml"), SCHEMA, problems)
    try:
        problems.refuse("Mend it.")
    except BadCatalogue as error:
        return str(error)
    return made


def test_members_are_made_by_their_readers():
    text = "title: 3.10\nsquashed: true\ncount: 3\nseconds: 0.5\nscheme: opaque\nexcluded: {no: 'on'}\n"
    assert read(text) == {
        "title": "3.10",
        "squashed": True,
        "count": 3,
        "seconds": 0.5,
        "scheme": "opaque",
        "excluded": {"no": "on"},
    }


def test_every_mistake_is_named_at_once_with_its_place():
    text = (
        "titel: x\nzzz: 1\nsquashed: yes\ncount: 1.5\nseconds: -1\nscheme: best\n"
        "platforms: [linux, linux/amd64]\nexcluded:\n  A: b\ntitle: [x]\n"
    )
    assert read(text).splitlines() == [
        "tool.yaml:1:1: titel: not a known field. Did you mean 'title'?",
        "tool.yaml:2:1: zzz: not a known field.",
        "tool.yaml:3:1: squashed: true or false is expected",
        "tool.yaml:4:1: count: a whole number is expected",
        "tool.yaml:5:1: seconds: a number, not negative, is expected",
        "tool.yaml:6:1: scheme: one of semver, opaque is expected",
        (
            "tool.yaml:7:1: platforms: 'linux' is not a platform: os/architecture or os/architecture/variant, "
            "e.g. linux/arm64"
        ),
        (
            "tool.yaml:8:1: excluded: 'A' cannot name a tool or base: lower-case letters and digits, joined by single "
            "'.', '_' or '-'"
        ),
        "tool.yaml:10:1: title: a text is expected",
        "  Mend it.",
    ]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("- a\n", "the document is not a table of fields"),
        ("text\n", "the document is not a table of fields"),
        ("platforms: linux/amd64\n", "platforms: a list is expected"),
        ("platforms: [linux/arm64, linux/arm64/v8]\n", "platforms: an entry stands twice"),
        ("platforms: [[x]]\n", "platforms: a text is expected"),
        ("excluded: [a]\n", "excluded: names with texts are expected"),
        ("excluded: {a: [b]}\n", "excluded: a text is expected"),
        ("squashed: no\n", "squashed: true or false is expected"),
        ("squashed: [true]\n", "squashed: true or false is expected"),
        ("count: nan\n", "count: a number, not negative, is expected"),
        ("count: inf\n", "count: a number, not negative, is expected"),
        ("count: {}\n", "count: a number, not negative, is expected"),
    ],
)
def test_a_member_of_the_wrong_kind_is_a_mistake(text, what):
    assert read(text) == f"tool.yaml:1:1: {what}\n  Mend it."


def test_a_truth_is_no_number_and_a_number_no_truth():
    with pytest.raises(ValueError, match="a number, not negative, is expected"):
        fields.number(Node(True, "x"))
    with pytest.raises(ValueError, match="true or false is expected"):
        fields.truth(Node(1, "x"))


def test_without_mistakes_nothing_is_refused():
    assert Problems().refuse("never said") is None


@given(st.text(max_size=30) | st.text(alphabet="a:- []{}&*?|>!%'\"\n\t#", max_size=30))
def test_any_text_is_read_or_refused(text):
    for parse in (from_yaml, from_toml):
        try:
            parse(text.encode(), "file")
        except BadCatalogue as error:
            assert error.where.startswith("file")
