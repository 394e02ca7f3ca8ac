"""What a person sees of builds that run at once."""

import pytest

from imagewright.cli.progress import Progress, is_live


def test_elsewhere_than_on_a_terminal_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(live=False)
    progress.say("[1/2] a: buildkit builds 1.0")
    progress.step("[1/2] a", "[2/3] RUN true")
    progress.step("[2/2] b", "x" * 200)
    progress.end("[1/2] a")
    progress.say("[1/2] a: built in 0.1 s")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.splitlines() == [
        "[1/2] a: buildkit builds 1.0",
        "[1/2] a: [2/3] RUN true",
        f"[2/2] b: {'x' * 91}",
        "[1/2] a: built in 0.1 s",
    ]


def test_on_a_terminal_each_build_has_one_line_below_what_stays(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    progress = Progress(live=True)
    progress.step("a", "one")
    progress.step("b", "two")
    progress.say("stays")
    progress.step("a", "longer than the terminal is wide")
    progress.end("b")
    progress.end("a")
    assert screen(capsys.readouterr().err) == ["stays"]
    progress.step("a", "one")
    progress.step("b", "two")
    progress.say("stays too")
    progress.step("a", "longer than the terminal is wide")
    assert screen(capsys.readouterr().err) == ["stays too", "a: longer than the ", "b: two"]


def screen(written: str) -> list[str]:
    """What a terminal shows after these characters, of which `up N lines` and `clear below` move something."""
    lines: list[str] = []
    for part in written.split("\x1b[J"):
        text, _, up = part.partition("\x1b[")
        lines += text.splitlines()
        if up:
            del lines[len(lines) - int(up.removesuffix("A")) :]
    return lines


@pytest.mark.parametrize(
    ("environ", "terminal", "live"),
    [
        ({"TERM": "xterm"}, True, True),
        ({"TERM": "xterm"}, False, False),
        ({"TERM": "dumb"}, True, False),
        ({}, True, False),
        ({"TERM": "xterm", "CI": "true"}, True, False),
    ],
)
def test_lines_are_redrawn_where_a_person_looks(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], terminal: bool, live: bool
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: terminal, raising=False)
    assert is_live(environ) is live
