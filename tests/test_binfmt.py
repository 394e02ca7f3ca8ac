"""Whose programs a machine runs, read from what the kernel shows of its emulators."""

import os
from pathlib import Path

import pytest

from imagewright.builders.binfmt import runs
from imagewright.names import parse_platform

ARM64 = "7f454c460201010000000000000000000200b700"
S390X = "7f454c4602020100000000000000000000020016"


def entry(magic: str, *, state: str = "enabled", flags: str = "PF") -> str:
    return f"{state}\ninterpreter /usr/bin/qemu\nflags: {flags}\noffset 0\nmagic {magic}\nmask {'ff' * 20}\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="needs an amd64 machine")
@pytest.mark.parametrize(
    ("platform", "entries", "answer"),
    [
        ("linux/amd64", {}, True),
        ("linux/386", {}, True),
        ("linux/arm64", {}, False),
        ("linux/arm64", {"qemu-aarch64": entry(ARM64)}, True),
        ("linux/arm64/v8", {"rosetta": entry(ARM64)}, True),
        ("linux/arm64", {"qemu-aarch64": entry(ARM64, state="disabled")}, False),
        ("linux/arm64", {"qemu-aarch64": entry(ARM64, flags="P")}, False),
        ("linux/arm/v7", {"qemu-aarch64": entry(ARM64)}, False),
        ("linux/s390x", {"qemu-s390x": entry(S390X)}, True),
        ("linux/arm64", {"qemu-s390x": entry(S390X)}, False),
        ("linux/arm64", {"python": "enabled\ninterpreter /usr/bin/python3\nflags: \nextension .py\n"}, False),
        ("linux/arm64", {"short": entry("7f454c46")}, False),
        ("windows/amd64", {}, False),
    ],
)
def test_a_platform_runs_natively_or_with_an_emulator_that_is_ready(
    tmp_path: Path, platform: str, entries: dict[str, str], answer: bool
) -> None:
    (tmp_path / "status").write_text("enabled\n")
    for name, text in entries.items():
        (tmp_path / name).write_text(text)
    assert runs(parse_platform(platform), tmp_path) is answer


def test_where_emulators_cannot_be_seen_they_may_be_there(tmp_path: Path) -> None:
    assert runs(parse_platform("linux/s390x"), tmp_path)
