"""Whether a text speaks of a version, and what follows when what was built is tried out."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from imagewright.builders import Ran
from imagewright.builders.copy import Copy
from imagewright.catalogue import Base, Image, Pair, Standalone, Tool
from imagewright.cli.trial import says, try_out
from imagewright.errors import BuildFailed
from imagewright.names import Platform, make_repository

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
REPOSITORY = make_repository("ghcr.io", "own/tools")


@pytest.mark.parametrize(
    ("version", "output", "there"),
    [
        ("1.2.3", "codex-cli 1.2.3", True),
        ("1.2.3", "v1.2.3", True),
        ("1.2.3", "tool, version 1.2.3 (linux/amd64)", True),
        ("1.2.3", "1.2.3\n", True),
        ("1.2.3", '{"version":"1.2.3"}', True),
        ("1.2.3", "tool/1.2.3 node/22", True),
        ("1.2.3", "It is 1.2.3.", True),
        ("1.2", "tool 1.2.3", False),
        ("1.2.3", "tool 11.2.3", False),
        ("1.2.3", "tool 0.1.2.3", False),
        ("1.2.3", "tool 1.2.30", False),
        ("1.2.3", "tool 1.2.3-rc.1", False),
        ("1.2.3", "tool 1.2.3+build", False),
        ("1.2.3-rc.1", "tool 1.2.3-rc.1", True),
        ("1.2.3", "tool 1x2x3", False),
        ("1.2.3", "", False),
        ("v1.2.3", "tool v1.2.3", True),
        ("v1.2.3", "tool 1.2.3", False),
    ],
)
def test_a_version_has_to_stand_by_itself(version: str, output: str, there: bool) -> None:
    assert says(version, output) is there


class Nobody:
    """Nothing to read bases from."""


class Runner(Copy):
    """A builder that runs commands, with the same end each time."""

    can = replace(Copy.can, runs=True)

    def __init__(self, status: int, *output: str) -> None:
        super().__init__(Nobody())  # type: ignore[arg-type]
        self.ran = Ran(status=status, output=output)
        self.asked: list[str] = []

    def run(self, layout: Path, platform: Platform, command: str) -> Ran:
        self.asked.append(f"{platform} {command}")
        return self.ran


def pair(command: str) -> Pair:
    return Pair(
        tool=Tool(name="codex", folder=Path("tools/codex"), command=command),
        base=Base(name="fedora", reference=REPOSITORY.tagged("fedora-latest")),
        repository=REPOSITORY,
        declared=(AMD, ARM),
    )


def standalone(command: str) -> Standalone:
    image = Image(name="util", folder=Path("images/util"), version="1.0", parent=None, command=command)
    return Standalone(image=image, repository=REPOSITORY, declared=(AMD,))


def tried(builder: Copy, target: Pair | Standalone, platforms: Sequence[Platform] = (AMD, ARM)) -> list[str]:
    told: list[str] = []
    try_out(target, "1.0", builder=builder, layout=Path("x"), platforms=tuple(platforms), say=told.append)
    return told


def test_what_works_on_every_platform_is_told() -> None:
    builder = Runner(0, "codex 1.0")
    assert tried(builder, pair("codex --version")) == [
        "linux/amd64: codex --version: codex 1.0",
        "linux/arm64: codex --version: codex 1.0",
    ]
    assert builder.asked == ["linux/amd64 codex --version", "linux/arm64 codex --version"]


def test_without_a_command_nothing_is_run() -> None:
    builder = Runner(1)
    assert (tried(builder, pair("")), builder.asked) == ([], [])


def test_a_builder_that_cannot_run_what_it_builds_says_so() -> None:
    assert tried(Copy(Nobody()), pair("codex --version")) == [  # type: ignore[arg-type]
        "'codex --version' is not run: copy cannot run what it builds"
    ]


def test_the_version_of_an_image_is_nothing_that_a_command_in_it_says() -> None:
    assert tried(Runner(0, "22.1"), standalone("npm --version"), [AMD]) == ["linux/amd64: npm --version: 22.1"]


REMEDY = "\n  Let install.sh install $TOOL_VERSION; a build cache may keep an older one, see --no-cache."


@pytest.mark.parametrize(
    ("builder", "said"),
    [
        (
            Runner(127, "sh: codex: not found"),
            "codex-fedora: 'codex --version' fails on linux/amd64 with exit code 127\n    sh: codex: not found",
        ),
        (
            Runner(0, "codex 0.9"),
            "codex-fedora: 'codex --version' does not speak of 1.0 on linux/amd64\n    codex 0.9" + REMEDY,
        ),
        (
            Runner(0),
            "codex-fedora: 'codex --version' does not speak of 1.0 on linux/amd64: it says nothing" + REMEDY,
        ),
    ],
)
def test_what_does_not_work_or_is_another_version_is_a_failed_build(builder: Runner, said: str) -> None:
    with pytest.raises(BuildFailed) as refused:
        tried(builder, pair("codex --version"))
    assert str(refused.value) == said
