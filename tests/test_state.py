"""What runs leave in their folder, and what is made of it when it is damaged."""

from pathlib import Path

import pytest

from imagewright.state import StateFolder

NOTED = '{"nonce": "n", "started": "2026-01-01T00:00:00Z"'


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (f"{NOTED}}}", ("n", None)),
        (f'{NOTED}, "error": {{"exit": 40, "text": "tools/x"}}}}', ("n", (40, "tools/x"))),
        (f'{NOTED}, "error": {{"exit": "40", "text": "tools/x"}}}}', ("n", None)),
        (f'{NOTED}, "error": 5}}', ("n", None)),
        (f'{NOTED}, "error": [40, "tools/x"]}}', ("n", None)),
        ('{"nonce": 5, "started": "2026-01-01T00:00:00Z"}', None),
        ('{"nonce": "n"}', None),
        ("[]", None),
        ("[" * 100_000, None),
        ('{"nonce": "\xff"}', None),
        (NOTED, None),
        ("", None),
    ],
)
def test_what_run_json_says_of_the_run_that_started_last(
    tmp_path: Path, content: str, known: tuple[str, tuple[int, str] | None] | None
) -> None:
    (tmp_path / "run.json").write_text(content)
    found = StateFolder(tmp_path).started()
    assert (found and (found.nonce, found.error)) == known


def test_nothing_is_remembered_where_there_is_nothing(tmp_path: Path) -> None:
    state = StateFolder(tmp_path / "absent")
    assert (state.started(), state.since(), state.last_good()) == (None, {}, {})


def test_what_was_good_is_added_to_and_never_lost(tmp_path: Path) -> None:
    state = StateFolder(tmp_path)
    state.remember_good({"a-x": "r:1", "b-x": "r:2"})
    state.remember_good({"a-x": "r:3"})
    state.remember_good({})
    assert state.last_good() == {"a-x": "r:3", "b-x": "r:2"}
