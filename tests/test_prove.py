"""What scripts/proof makes of the figures that its parts leave: nothing that did not pass holds."""

from pathlib import Path

import pytest

from tests.proof.prove import BEGIN, END, PAGE, PARTS, Row, table

JUNIT = """<testsuites><testsuite>
<testcase classname="tests.proof.test_a" name="test_one" time="1.0"/>
<testcase classname="tests.proof.test_a" name="test_two" time="0.5">{}</testcase>
</testsuite></testsuites>"""
FUZZED = '{"parser": "tags", "executions": 1234, "edges": 5, "features": 6, "findings": [%s], "said": "%s", "seconds": 2.0}\n'
MUTATED = '{"module": "tags", "mutants": 90, "explained": 2, "unexplained": %d, "seconds": 2.0}\n'


@pytest.mark.parametrize(
    ("part", "figures", "row"),
    [
        ("tests", JUNIT.format(""), Row(what="tests/proof/test_a.py", amount="2 tests", result="holds", seconds=1.5)),
        *(
            (
                "tests",
                JUNIT.format(f"<{kind}/>"),
                Row(what="tests/proof/test_a.py", amount="2 tests", result="1 did not pass: test_two", seconds=1.5),
            )
            for kind in ("failure", "error", "skipped")
        ),
        (
            "fuzz",
            FUZZED % ("", ""),
            Row(what="fuzzed: tags", amount="1,234 inputs, 5 edges", result="holds", seconds=2.0),
        ),
        (
            "fuzz",
            FUZZED % ('"a", "b"', "crash"),
            Row(what="fuzzed: tags", amount="1,234 inputs, 5 edges", result="a, b", seconds=2.0),
        ),
        (
            "fuzz",
            FUZZED % ("", "no atheris\\nhere"),
            Row(what="fuzzed: tags", amount="1,234 inputs, 5 edges", result="no atheris", seconds=2.0),
        ),
        (
            "mutation",
            MUTATED % 0,
            Row(what="mutated: tags", amount="90 mutants, 2 explained", result="holds", seconds=2.0),
        ),
        (
            "mutation",
            MUTATED % 3,
            Row(what="mutated: tags", amount="90 mutants, 2 explained", result="3 survived", seconds=2.0),
        ),
    ],
)
def test_figures_become_a_row(tmp_path: Path, part: str, figures: str, row: Row) -> None:
    (tmp_path / "figures").write_text(figures)
    assert list(PARTS[part].rows(tmp_path / "figures")) == [row]


def test_the_table_is_one_in_markdown() -> None:
    assert table([Row(what="fuzzed: tags", amount="7 inputs", result="a | b", seconds=2)]) == (
        "| what | how much | result | seconds |\n|---|---|---|---|\n| fuzzed: tags | 7 inputs | a / b | 2.0 |\n"
    )


def test_the_page_has_one_place_for_the_figures() -> None:
    assert PAGE.read_text().count(BEGIN) == PAGE.read_text().count(END) == 1
