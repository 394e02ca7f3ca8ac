"""What the documents name exists, and what exists they name."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest

from imagewright import load
from imagewright.builders.page import page
from imagewright.cli import VERBS, main
from imagewright.errors import Exit
from imagewright.reasons import Stale, Unknown

ROOT = Path(__file__).parents[1]
READ = {
    path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *(ROOT / "docs").rglob("*.md"))
}


def test_reasons_has_a_section_for_each_code_with_its_meaning_and_remedy() -> None:
    stale, unknown = READ["docs/reasons.md"].split("\n# Unknown\n")
    for text, kind in ((stale, Stale), (unknown, Unknown)):
        sections = dict(re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
        assert list(sections) == [one.code for one in kind]
        for one in kind:
            assert sections[one.code].startswith(one.meaning), one.code
            assert f"Remedy: {one.remedy}\n" in f"{sections[one.code]}\n", one.code


def settings_in_docs() -> dict[str, list[str]]:
    project, _, tool = READ["docs/settings.md"].partition("\n# `tools/<tool>/`\n")
    tables = {"": project.partition("\n## ")[0]}
    tables |= dict(re.findall(r"^## `(.+?)`\n(.*?)(?=^## |\Z)", project, re.MULTILINE | re.DOTALL))
    listed = {name: re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE) for name, text in tables.items()}
    tool, _, image = tool.partition("\n# `images/<name>/`\n")
    for file, text in (("tool.yaml", tool), ("image.yml", image)):
        fields = text.partition(f"| field of `{file}`")[2]
        rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \|", fields, re.MULTILINE)
        listed[file] = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    return listed


def test_settings_lists_each_setting_and_each_field_of_tool_yaml_and_image_yml() -> None:
    exist = {name: sorted(keys) for name, keys in load.SETTINGS.items()} | {
        "tool.yaml": sorted(load.TOOL_FIELDS),
        "image.yml": sorted(load.IMAGE_FIELDS),
    }
    assert {name: sorted(keys) for name, keys in settings_in_docs().items()} == exist


def test_commands_lists_each_verb_and_each_option() -> None:
    text = READ["docs/commands.md"]
    sections = dict(re.findall(r"^## `imagewright (\S+)(?: [^`]*)?`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(VERBS)
    context = click.Context(main)
    for verb, section in sections.items():
        command = main.get_command(context, verb)
        assert command, verb
        commands = command.commands.values() if isinstance(command, click.Group) else (command,)
        options = {max(one.opts, key=len) for each in commands for one in each.params if isinstance(one, click.Option)}
        assert set(re.findall(r"`(--[a-z-]+)", section)) == options - {"--help"}, verb


def test_commands_lists_each_exit_code() -> None:
    rows = re.findall(r"^\| (\d+) \|", READ["docs/commands.md"].partition("## Exit codes")[2], re.MULTILINE)
    assert sorted(int(row) for row in rows) == sorted(Exit)
    assert all(str(int(one)) in (main.help or "") for one in Exit)


def test_commands_lists_each_option_of_the_checks() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "pytest", "checks/", "--help"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    ours = said.partition("what must be true of published images:")[2].partition("\n\n")[0]
    listed = READ["docs/commands.md"].partition("## `pytest checks/`")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^  (--[a-z-]+)", ours, re.MULTILINE)) == sorted(
        set(re.findall(r"^\| `(--[a-z-]+)", listed, re.MULTILINE))
    )


@pytest.mark.parametrize("page", READ)
def test_links_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", READ[page]):
        assert (ROOT / page).parent.joinpath(target).exists(), target


@pytest.mark.parametrize("page", READ)
def test_verbs_that_a_page_names_exist(page: str) -> None:
    code = re.findall(r"`[^`\n]+`", READ[page]) + re.findall(r"^\$ imagewright .*$", READ[page], re.MULTILINE)
    named = set(re.findall(r"imagewright ([a-z]+)\b", "\n".join(code)))
    assert named <= set(VERBS), named - set(VERBS)


def test_scripts_that_the_readme_names_exist() -> None:
    named = set(re.findall(r"`?(scripts/[a-z-]+)", READ["README.md"]))
    assert named
    assert all((ROOT / one).is_file() for one in named)


def test_reliability_cites_tests_that_exist_and_every_long_proof() -> None:
    cited = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?", READ["docs/reliability.md"].partition("## The last run")[0])
    for file, name in cited:
        assert (ROOT / file).is_file(), file
        assert not name or f"def {name}(" in (ROOT / file).read_text(), name
    proofs = {path.relative_to(ROOT).as_posix() for path in (ROOT / "tests" / "proof").glob("test_*.py")}
    assert proofs <= {file for file, _ in cited}


def test_each_dependency_has_its_reason() -> None:
    lines = (
        (ROOT / "pyproject.toml").read_text().partition("dependencies = [")[2].partition("]")[0].strip().splitlines()
    )
    assert all("#" in line for line in lines)
    assert len(lines) == len(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"])


def test_engines_is_what_the_builders_say_about_themselves() -> None:
    assert READ["docs/engines.md"] == page(), "run scripts/docs"
