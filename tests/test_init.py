"""Becoming a project: `imagewright init` and `imagewright new tool`, by what they leave in a folder and what they say."""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from imagewright import adopt, original
from imagewright.adopt import Wanted
from imagewright.embedded.server import Server
from imagewright.errors import BadCatalogue, ImagewrightError
from imagewright.load import TOOL_FIELDS, load_catalogue
from imagewright.original import Remark
from imagewright.shipped import shipped
from imagewright.skeletons import parse_source
from imagewright.testing import images
from imagewright.testing.images import HttpSink, Picture, layer
from imagewright.versions import on_host
from tests.console import PROGRAM, Ran

ROOT = Path(__file__).parents[1]
ORIGINAL = Path(__file__).parent / "original"
CHECKS = [f"checks/{file.name}" for file in sorted((ROOT / "checks").glob("*.py"))]
WORKFLOWS = [f".github/workflows/{one}.yml" for one in ("plan", "build", "build-tool", "build-all")]
FAMILY = ("claude", "cline", "codex", "copilot", "crush", "gemini", "goose", "opencode", "qwen")


def run(folder: Path, *arguments: str, program: list[str] = PROGRAM) -> Ran:
    argv = [*program, *arguments] if arguments[0] != "pytest" else [sys.executable, "-m", *arguments]
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
    ended = subprocess.run(argv, cwd=folder, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ended.stdout + ended.stderr, ended.stderr
    return Ran(ended.returncode, ended.stdout, ended.stderr)


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Path → content and mode of every file."""
    return {
        one.relative_to(folder).as_posix(): (one.read_bytes(), one.stat().st_mode & 0o777)
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


def draft(root: Path, source: Path | None = None, **wanted: str) -> adopt.Draft:
    return adopt.draft(root, Wanted(**wanted), source, {}, "0.1.0")


def init(root: Path, source: Path | None = None, **wanted: str) -> adopt.Draft:
    made = draft(root, source, **wanted)
    adopt.carry_out(root, made)
    return made


def told(remarks: tuple[Remark, ...] | list[Remark]) -> list[str]:
    return [f"{one.place}: {one.what}" for one in remarks]


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "My Images"
    folder.mkdir()
    return folder


# An empty folder


def test_an_empty_folder_becomes_a_project_and_is_told_its_edits(empty: Path) -> None:
    ran = run(empty, "init")

    assert ran == Ran(
        0,
        f"""\
wrote pyproject.toml, conftest.py, .gitignore
wrote checks/: {", ".join(one.removeprefix("checks/") for one in CHECKS)}
wrote tools/: Dockerfile, Dockerfile.dockerignore
wrote .github/workflows/: plan.yml, build.yml, build-tool.yml, build-all.yml
wrote scripts/: workflow
wrote tools/example/: version.sh, install.sh, tool.yaml

To do:
  1. pyproject.toml:9: repository is empty
     Name the repository that the images are published to.
  2. pyproject.toml:14: bases.repository is empty
     Name the repository that has the bases.
  3. tools/example/version.sh:5: is not written yet
     Let it print the version: one line on stdout, nothing else.
  4. tools/example/install.sh:5: is not written yet
     Let it install exactly $TOOL_VERSION.

Then: pytest checks/
""",
        "",
    )
    assert (
        (empty / "pyproject.toml").read_text()
        == """\
[project]
name = "my-images"
version = "0"
requires-python = ">=3.11"
dependencies = ["imagewright==@"]

[tool.imagewright]
registry = "ghcr.io"
repository = ""   # of the images: <tool>-<base>-<version> and -latest are tags here
platforms = ["linux/amd64", "linux/arm64"]
bootstrap = true   # nothing is published yet; remove this line once it is

[tool.imagewright.bases]
repository = ""   # of the bases: its tags <base>-latest are the bases
""".replace("@", version("imagewright"))
    )
    assert (empty / "conftest.py").read_text() == 'pytest_plugins = ["imagewright.pytest_plugin"]\n'
    assert (empty / ".gitignore").read_text() == ".imagewright/\n.venv/\n"
    for path in (*CHECKS, "tools/Dockerfile", "tools/Dockerfile.dockerignore", *WORKFLOWS):
        assert (empty / path).read_bytes() == (ROOT / path).read_bytes(), path
    assert {path for path, (_, mode) in files(empty).items() if mode == 0o755} == {
        "tools/example/version.sh",
        "tools/example/install.sh",
        "scripts/workflow",
    }


def test_the_steps_of_the_workflows_differ_in_one_line_which_pins_imagewright(empty: Path) -> None:
    init(empty)
    ours, theirs = ((root / "scripts" / "workflow").read_text().splitlines() for root in (ROOT, empty))
    assert [(one, other) for one, other in zip(ours, theirs, strict=True) if one != other] == [
        (
            "  . scripts/environment && sync_environment --no-dev # `imagewright init` writes another line here",
            '  python3 -m venv "$environment" && "$environment/bin/python" -m pip install --quiet "imagewright==0.1.0"',
        )
    ]


def test_a_workflow_that_is_there_stays(empty: Path) -> None:
    (empty / ".github" / "workflows").mkdir(parents=True)
    (empty / ".github" / "workflows" / "build.yml").write_text("name: mine\n")
    made = init(empty, repository="a/b", bases="c/d")
    assert (empty / ".github" / "workflows" / "build.yml").read_text() == "name: mine\n"
    assert told(made.remarks) == [".github/workflows/build.yml: is not the one of imagewright 0.1.0: left as it is"]


def test_until_its_settings_are_edited_the_checks_name_the_lines(empty: Path) -> None:
    init(empty)
    words = "lower-case words of letters and digits, joined by '.', '_', '-' and '/'"

    ran = run(empty, "pytest", "checks/", "-q", "-p", "no:cacheprovider")

    assert ran.code == 4
    assert f"pyproject.toml:9: repository: '' is not a repository: {words}\n" in ran.err
    assert f"pyproject.toml:14: bases.repository: '' is not a repository: {words}\n" in ran.err


def test_a_second_time_nothing_changes_and_it_says_so(empty: Path) -> None:
    first = run(empty, "init")
    before = files(empty)

    second = run(empty, "init")

    assert files(empty) == before
    assert second.out == "nothing to write: all of it is there\n" + "\n" + first.out.partition("\n\n")[2]


def test_three_edits_later_the_checks_say_something_true(empty: Path) -> None:
    with Server(empty.parent / "registry") as server:
        picture = {one: Picture(steps=[layer({"etc/os": f"fedora {one}"})]) for one in ("linux/amd64", "linux/arm64")}
        images.push(HttpSink(server.address), "acme/bases", ["fedora-latest"], picture)
        run(empty, "init", "--registry", server.address)

        settings = (empty / "pyproject.toml").read_text()
        settings = settings.replace('repository = "" ', 'repository = "acme/tools" ', 1)
        (empty / "pyproject.toml").write_text(settings.replace('repository = "" ', 'repository = "acme/bases" ', 1))
        (empty / "tools" / "example" / "version.sh").write_text("echo 1.2.3\n")

        checks = run(empty, "pytest", "checks/", "-q", "-p", "no:cacheprovider")
        plan = run(empty, "plan")
        doctor = run(empty, "doctor")

    assert "✗ example-fedora  stale    image-missing: the registry has no example-fedora-1.2.3\n" in checks.out
    assert "1 target: 0 fresh, 1 stale, 0 unknown\n" in checks.out
    assert (checks.code, plan.code) == (1, 10)
    assert (doctor.code, doctor.out.splitlines()[-1]) == (0, "pytest checks/ can run here")


def test_options_fill_the_settings_in(empty: Path) -> None:
    run(empty, "init", "--registry", "r.example:5000", "--repository", "a/b", "--bases-repository", "c/d")
    settings = tomllib.loads((empty / "pyproject.toml").read_text())["tool"]["imagewright"]
    assert (settings["registry"], settings["repository"], settings["bases"]) == (
        "r.example:5000",
        "a/b",
        {"repository": "c/d"},
    )
    assert load_catalogue(empty, {}).settings.bootstrap


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--registry", "https://x"), "'https://x' is not a registry: host or host:port, without scheme and path"),
        (
            ("--repository", "A/b"),
            "'A/b' is not a repository: lower-case words of letters and digits, joined by '.', '_', '-' and '/'",
        ),
    ],
)
def test_what_cannot_be_a_setting_is_misuse_and_writes_nothing(
    empty: Path, arguments: tuple[str, ...], said: str
) -> None:
    assert run(empty, "init", *arguments) == Ran(2, "", f"imagewright: {said}\n")
    assert files(empty) == {}


def test_a_dry_run_says_the_same_and_writes_nothing(empty: Path) -> None:
    ran = run(empty, "init", "--dry-run")
    assert ran.out.startswith("would write pyproject.toml, conftest.py, .gitignore\nwould write checks/: ")
    assert files(empty) == {}


def test_json_names_every_file_remark_and_edit(empty: Path) -> None:
    (empty / ".gitignore").write_text("dist\n")
    document = run(empty, "init", "--json", "--dry-run").json
    assert document == {
        "schema": 1,
        "dry_run": True,
        "written": [
            {"path": "pyproject.toml", "appended": False},
            {"path": "conftest.py", "appended": False},
            {"path": ".gitignore", "appended": True},
            *({"path": path, "appended": False} for path in (*CHECKS, "tools/Dockerfile")),
            {"path": "tools/Dockerfile.dockerignore", "appended": False},
            *({"path": path, "appended": False} for path in (*WORKFLOWS, "scripts/workflow")),
            *({"path": f"tools/example/{one}", "appended": False} for one in ("version.sh", "install.sh", "tool.yaml")),
        ],
        "kept": [],
        "remarks": [],
        "edits": document["edits"],
    }
    assert document["edits"][0] == {
        "place": "pyproject.toml:9",
        "what": "repository is empty",
        "remedy": "Name the repository that the images are published to.",
    }


# A repository that has things already


def test_an_existing_repository_keeps_every_byte_and_gets_lines_at_the_end(empty: Path) -> None:
    there = {
        "pyproject.toml": b'[project]\r\nname = "x"\r\nversion = "1"\r\n# a comment\r\n',
        "conftest.py": b"import os",
        ".gitignore": b"dist/\n/.venv",
        "checks/test_latest.py": b"mine\n",
        "README.md": b"hello\n",
    }
    for path, content in there.items():
        (empty / path).parent.mkdir(exist_ok=True)
        (empty / path).write_bytes(content)
    (empty / "conftest.py").chmod(0o600)

    made = init(empty, repository="a/b", bases="c/d")

    after = files(empty)
    assert {path: after[path][0][: len(content)] for path, content in there.items()} == there
    assert after["pyproject.toml"][0] == there["pyproject.toml"] + (
        b'\r\n[tool.imagewright]\r\nregistry = "ghcr.io"\r\n'
        b'repository = "a/b"   # of the images: <tool>-<base>-<version> and -latest are tags here\r\n'
        b'platforms = ["linux/amd64", "linux/arm64"]\r\n'
        b"bootstrap = true   # nothing is published yet; remove this line once it is\r\n\r\n"
        b'[tool.imagewright.bases]\r\nrepository = "c/d"   # of the bases: its tags <base>-latest are the bases\r\n'
    )
    assert after["conftest.py"] == (b'import os\n\npytest_plugins = ["imagewright.pytest_plugin"]\n', 0o600)
    assert after[".gitignore"][0] == b"dist/\n/.venv\n.imagewright/\n"
    assert told(made.remarks) == ["checks/test_latest.py: is not the one of imagewright 0.1.0: left as it is"]
    assert [(one.place, one.what, one.remedy) for one in made.edits] == [
        ("pyproject.toml:1", "does not depend on imagewright", 'Add "imagewright==0.1.0" to `dependencies`.'),
        ("tools/", "there is no tool", "Make one: `imagewright new tool NAME --npm PACKAGE`."),
    ]
    assert draft(empty).pieces == ()


CONFTESTS = {
    "loads the plugin": ('pytest_plugins = ["a", "imagewright.pytest_plugin"]\n', []),
    "names other plugins": (
        'import os\npytest_plugins = ["a"]\n',
        ['conftest.py:2: names other plugins. Add "imagewright.pytest_plugin" to pytest_plugins.'],
    ),
    "is not Python": (
        "def (\n",
        ['conftest.py: is not Python, so nothing was added. Add "imagewright.pytest_plugin" to pytest_plugins.'],
    ),
}


@pytest.mark.parametrize("case", CONFTESTS)
def test_a_conftest_that_cannot_take_a_line_is_left_and_named(empty: Path, case: str) -> None:
    content, edits = CONFTESTS[case]
    (empty / "conftest.py").write_text(content)
    made = init(empty, repository="a/b", bases="c/d")
    assert (empty / "conftest.py").read_text() == content
    assert [f"{one.place}: {one.what}. {one.remedy}" for one in made.edits if one.place.startswith("conf")] == edits


PROJECTS = {
    "a dependency": ('[project]\nname = "x"\ndependencies = ["Imagewright>=0.1"]\n', []),
    "a dependency of a group": ('[project]\nname = "x"\n[dependency-groups]\ndev = ["imagewright"]\n', []),
    "other dependencies": (
        '[project]\nname = "x"\ndependencies = ["click"]\n',
        ["pyproject.toml:3: does not depend on imagewright"],
    ),
    "no project": ("[tool.black]\n", []),
}


@pytest.mark.parametrize("case", PROJECTS)
def test_a_project_without_imagewright_is_told_to_depend_on_it(empty: Path, case: str) -> None:
    content, edits = PROJECTS[case]
    (empty / "pyproject.toml").write_text(content)
    made = draft(empty, repository="a/b", bases="c/d")
    assert [one for one in told(made.edits) if one.startswith("pyproject")] == edits


def test_a_pyproject_that_cannot_take_a_table_gets_settings_in_a_file_of_their_own(empty: Path) -> None:
    (empty / "pyproject.toml").write_text("tool = {black = {}}\n")
    made = init(empty, repository="a/b", bases="c/d")
    assert (empty / "pyproject.toml").read_text() == "tool = {black = {}}\n"
    assert told(made.remarks)[0].startswith("pyproject.toml: cannot take a table at its end (not TOML: ")
    assert told(made.remarks)[0].endswith("): imagewright.toml instead")
    assert load_catalogue_settings(empty) == ("ghcr.io/a/b", "ghcr.io/c/d")
    assert draft(empty).pieces == ()


def load_catalogue_settings(root: Path) -> tuple[str, str]:
    adopt.carry_out(root, adopt.new_tool(root, "probe", None, ""))
    settings = load_catalogue(root, {}).settings
    shutil.rmtree(root / "tools" / "probe")
    return str(settings.repository), str(settings.bases.repository)


def test_a_pyproject_that_is_not_toml_stops_it_before_anything_is_written(empty: Path) -> None:
    (empty / "pyproject.toml").write_text("[\n")
    ran = run(empty, "init")
    assert (ran.code, ran.out) == (40, "")
    assert ran.err.startswith("imagewright: pyproject.toml: not TOML: ")
    assert list(files(empty)) == ["pyproject.toml"]


def test_settings_that_are_there_stay(empty: Path) -> None:
    (empty / "imagewright.toml").write_text('repository = "a/b"\n[bases]\nrepository = "c/d"\n')
    made = init(empty, repository="e/f")
    assert told(made.remarks) == ["imagewright.toml:1: the settings are there: left as they are"]
    assert load_catalogue_settings(empty) == ("ghcr.io/a/b", "ghcr.io/c/d")
    assert not (empty / "pyproject.toml").exists()


def test_a_file_in_the_way_of_a_folder_stops_it_before_anything_is_written(empty: Path) -> None:
    (empty / "checks").write_text("")
    ran = run(empty, "init")
    assert ran.err == (
        "imagewright: checks is in the way: a folder of that name is needed\n  Move it; nothing was written.\n"
    )
    assert (ran.code, list(files(empty))) == (1, ["checks"])


def test_where_writing_fails_it_says_what_was_written_before(empty: Path) -> None:
    made = draft(empty)
    (empty / ".gitignore").mkdir()  # it appears after the look at the folder
    with pytest.raises(ImagewrightError) as caught:
        adopt.carry_out(empty, made)
    assert str(caught.value) == (
        ".gitignore cannot be written: Is a directory; written before it: pyproject.toml, conftest.py\n"
        "  Mend that and run the same again: it goes on where it stopped."
    )
    assert sorted(files(empty)) == ["conftest.py", "pyproject.toml"]
    (empty / ".gitignore").rmdir()
    init(empty)
    assert {path for path in files(empty) if not path.startswith("tools/example/")} == {
        "pyproject.toml",
        "conftest.py",
        ".gitignore",
        *shipped(),
    }


# Tools of the earlier layout


def test_a_family_in_the_earlier_layout_comes_along_whole(empty: Path) -> None:
    made = init(empty, ORIGINAL / "tools")

    catalogue = load_catalogue(empty, {})
    assert tuple(one.name for one in catalogue.tools) == FAMILY
    assert {one.name: (one.title, one.command) for one in catalogue.tools} == {
        "claude": ("Claude Code", "claude --version"),
        "cline": ("Cline CLI", "cline --version"),
        "codex": ("Codex CLI", "codex --version"),
        "copilot": ("GitHub Copilot CLI", "copilot --version"),
        "crush": ("Crush", "crush --version"),
        "gemini": ("Gemini CLI", "gemini --version"),
        "goose": ("goose", "goose --version"),
        "opencode": ("opencode", "opencode --version"),
        "qwen": ("Qwen Code", "qwen --version"),
    }
    assert catalogue.tools[2].homepage == "https://github.com/openai/codex"
    assert str(catalogue.settings.repository) == "ghcr.io/aicage/aicage"
    assert str(catalogue.settings.bases.repository) == "ghcr.io/aicage/aicage-image-base"
    assert not catalogue.settings.bootstrap  # there are images already: "no such name" is no word for "none yet"
    scripts = [f"tools/{tool}/{script}" for tool in FAMILY for script in ("version.sh", "install.sh")]
    earlier, now = files(ORIGINAL), files(empty)
    assert {path: now[path] for path in scripts} == {path: earlier[path] for path in scripts}
    assert b"bash /recipe/install.sh" in now["tools/Dockerfile"][0]
    assert told(made.edits) == [
        f"tools/{tool}/install.sh: installs whatever is newest: TOOL_VERSION is not in it" for tool in FAMILY
    ]
    config = ORIGINAL / "config.yaml"
    assert told(made.remarks)[:3] == [
        f"{config}:3:1: AICAGE_IMAGE_REGISTRY_API_URL: not needed, the registry says it",
        f"{config}:4:1: AICAGE_IMAGE_REGISTRY_API_TOKEN_URL: not needed, the registry says it",
        f"{config}:7:1: AICAGE_LOCAL_IMAGE_REPOSITORY: not carried over",
    ]
    assert draft(empty, ORIGINAL / "tools").pieces == ()
    assert draft(empty).remarks == ()


def test_many_tools_with_one_mistake_are_one_line(empty: Path) -> None:
    ran = run(empty, "init", "--from", str(ORIGINAL / "tools"))
    places = ", ".join(f"tools/{tool}/install.sh" for tool in FAMILY)
    assert f"  1. {places}: installs whatever is newest: TOOL_VERSION is not in it\n" in ran.out
    assert ran.out.count("tool_path names no program") == 1


def test_in_place_the_fields_are_named_and_nothing_is_rewritten(empty: Path) -> None:
    shutil.copytree(ORIGINAL, empty, dirs_exist_ok=True)
    before = files(empty)

    made = init(empty, empty / "tools")

    after = files(empty)
    assert {path: after[path] for path in before} == before
    assert [f"{one.place}: {one.what}. {one.remedy}" for one in made.edits if "codex" in one.place] == [
        "tools/codex/tool.yaml:1:1: tool_path is an earlier field. Write `command: codex --version`.",
        "tools/codex/tool.yaml:2:1: tool_full_name is an earlier field. Write `title: Codex CLI`.",
        "tools/codex/tool.yaml:3:1: tool_homepage is an earlier field. Write `homepage: https://github.com/openai/codex`.",
        "tools/codex/install.sh: installs whatever is newest: TOOL_VERSION is not in it. " + PIN,
    ]


PIN = "Install exactly $TOOL_VERSION, so that an image holds the version in its tag."


def earlier(root: Path, path: str, content: str | bytes, mode: int = 0o644) -> None:
    file = root / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    file.chmod(mode)


NO_NAME = "cannot name a tool or base: lower-case letters and digits, joined by single '.', '_' or '-'"
PINNED = "#!/bin/sh\necho $TOOL_VERSION\n"
ODDITIES: dict[str, tuple[Callable[[Path], None], list[str], list[str]]] = {
    "a plain file": (
        lambda old: earlier(old, "notes.txt", ""),
        ["OLD/notes.txt: not a folder, so not a tool: not carried over"],
        [],
    ),
    "a bad name": (
        lambda old: earlier(old, "Bad_Name/version.sh", ""),
        [
            f"OLD/Bad_Name: 'Bad_Name' {NO_NAME}: not carried over",
        ],
        [],
    ),
    "a link": (
        lambda old: (old / "tool" / "link").symlink_to("/etc/passwd"),
        ["OLD/tool/link: a link or no file: not carried over"],
        [],
    ),
    "no version.sh": (
        lambda old: (old / "tool" / "version.sh").unlink(),
        [],
        ["tools/tool: there is no version.sh: the tool is unknown until one prints its version"],
    ),
    "no install.sh": (
        lambda old: (old / "tool" / "install.sh").unlink(),
        [],
        ["tools/tool: nothing installs the tool"],
    ),
    "rootfs instead of install.sh": (
        lambda old: (
            (old / "tool" / "install.sh").unlink(),
            earlier(old, "tool/rootfs/usr/bin/tool", "#!/bin/sh\n", 0o755),
        ),
        [],
        [],
    ),
    "CRLF": (
        lambda old: earlier(old, "tool/install.sh", "#!/bin/sh\r\necho $TOOL_VERSION\r\n"),
        [],
        ["tools/tool/install.sh: has CRLF line ends, which a shell does not run"],
    ),
    "a Dockerfile of its own": (
        lambda old: earlier(old, "tool/Dockerfile", "FROM debian\nRUN true\n"),
        [],
        ["tools/tool/Dockerfile: has no ARG BASE_IMAGE", "tools/tool/Dockerfile: has no ARG TOOL_VERSION"],
    ),
    "a good Dockerfile": (
        lambda old: earlier(
            old, "tool/Dockerfile", "ARG BASE_IMAGE=x\nFROM ${BASE_IMAGE}\narg TOOL_VERSION\nRUN true\n"
        ),
        [],
        [],
    ),
    "an unknown field": (
        lambda old: earlier(old, "tool/tool.yaml", "tool_full_name: T\nbase_exclude:\n  - alpine\nwhat: 1\n"),
        [
            "OLD/tool/tool.yaml:2:1: base_exclude: not a field of ours, now a comment",
            "OLD/tool/tool.yaml:4:1: what: not a field of ours, now a comment",
        ],
        [],
    ),
    "a tool.yaml that is none": (
        lambda old: earlier(old, "tool/tool.yaml", "a: [\n"),
        [
            "OLD/tool/tool.yaml:2:1: not YAML: did not find expected node content: carried over as it is",
        ],
        [],
    ),
}


@pytest.mark.parametrize("case", ODDITIES)
def test_whatever_does_not_fit_is_carried_over_or_named(tmp_path: Path, case: str) -> None:
    old, root = tmp_path / "old", tmp_path / "new"
    root.mkdir()
    earlier(old, "tool/version.sh", "echo 1\r\n", 0o755)
    earlier(old, "tool/install.sh", PINNED)
    earlier(old, "tool/tool.yaml", "tool_full_name: T\n")
    break_it, remarks, edits = ODDITIES[case]
    break_it(old)

    made = init(root, old, repository="a/b", bases="c/d")

    assert [one.replace(str(old), "OLD") for one in told(made.remarks)] == remarks
    assert told(made.edits) == edits
    carried = {
        path.removeprefix("tools/"): both for path, both in files(root).items() if path.startswith("tools/tool/")
    }
    expected = {path: both for path, both in files(old).items() if path.startswith("tool/") and "link" not in path}
    del carried["tool/tool.yaml"], expected["tool/tool.yaml"]
    assert carried == expected


@pytest.mark.parametrize("name", ["there", "nothing"])
def test_a_folder_without_tools_is_misuse(tmp_path: Path, name: str) -> None:
    (tmp_path / "there").mkdir()
    folder = tmp_path / name
    with pytest.raises(ImagewrightError) as caught:
        draft(tmp_path, folder)
    what = "tool in" if name == "there" else "folder"
    assert str(caught.value) == f"there is no {what} {folder}\n  Name the folder that has a folder per tool."


def test_the_environment_of_the_earlier_layout_overrides_its_file(empty: Path) -> None:
    environ = {"AICAGE_IMAGE_REPOSITORY": "me/mine", "AICAGE_REPOSITORY": "older/name"}
    made = adopt.draft(empty, Wanted(bases="the/option"), ORIGINAL / "tools", environ, "0.1.0")
    adopt.carry_out(empty, made)
    settings = load_catalogue(empty, {}).settings
    assert (str(settings.repository), str(settings.bases.repository)) == ("ghcr.io/me/mine", "ghcr.io/the/option")


CONVERSIONS = {
    "in its order, with its comments": (
        "# ours\ntool_homepage: https://x.example  # where\n\ntool_path: bin/tool\ntool_full_name: 'A: B'\n",
        '# ours\nhomepage: https://x.example\n\ncommand: bin/tool --version\ntitle: "A: B"\n',
    ),
    "with CRLF": ("tool_full_name: T\r\nsquashed: true\r\n", "title: T\nsquashed: true\n"),
    "fields of ours stay": (
        "exclude-bases:\n  alpine: why\ncommand: t -V\ntool_path: t\n",
        "exclude-bases:\n  alpine: why\ncommand: t -V\n# tool_path: t\n",
    ),
    "empty": ("# nothing\n", "# nothing\n"),
    "a name that YAML would take for something else": ("tool_full_name: '#1 [x]'\n", 'title: "#1 [x]"\n'),
}


@pytest.mark.parametrize("case", CONVERSIONS)
def test_tool_yaml_is_converted(case: str) -> None:
    before, after = CONVERSIONS[case]
    content, _ = original.converted(before.encode(), "tool.yaml", "tool", TOOL_FIELDS)
    assert content.decode() == after


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            "{tool_path: x, tool_full_name: y}\n",
            "tool.yaml:1:1: several fields on one line\n  Give each a line of its own.",
        ),
        ("- x\n", "tool.yaml:1:1: not a table of fields"),
    ],
)
def test_a_tool_yaml_that_cannot_be_converted_is_refused(content: str, said: str) -> None:
    with pytest.raises(BadCatalogue) as caught:
        original.converted(content.encode(), "tool.yaml", "tool", TOOL_FIELDS)
    assert str(caught.value) == said


# A new tool


@pytest.fixture
def project(empty: Path) -> Path:
    (empty / "imagewright.toml").write_text('repository = "a/b"\n[bases]\nrepository = "c/d"\n')
    return empty


SOURCES = {
    "npm": (("--npm", "@openai/codex"), "npm", "9.8.7", "@openai/codex@${TOOL_VERSION}"),
    "pypi": (("--pypi", "aider-chat"), "python3", "tool (9.8.7)\nAvailable versions: 9.8.7, 1\n", "aider-chat=="),
    "github": (
        ("--github", "block/goose"),
        "curl",
        "https://github.com/block/goose/releases/tag/v9.8.7",
        "v${TOOL_VERSION}",
    ),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_new_tool_knows_its_version_and_installs_exactly_it(project: Path, kind: str) -> None:
    option, program, answer, pinned = SOURCES[kind]
    ran = run(project, "new", "tool", "thing", *option)
    assert ran == Ran(0, "wrote tools/thing/: version.sh, install.sh, tool.yaml\n\nNext: pytest checks/\n", "")

    (tool,) = load_catalogue(project, {}).tools
    assert (tool.title, tool.command) == ("thing", "thing --version")
    assert pinned in (tool.folder / "install.sh").read_text()
    bin_folder = project.parent / "bin"
    bin_folder.mkdir()
    (bin_folder / program).write_text(f"#!/bin/sh\ncat <<'END'\n{answer}\nEND\n")
    (bin_folder / program).chmod(0o755)
    assert on_host(tool, 20, {"PATH": f"{bin_folder}:/usr/bin:/bin"}).version == "9.8.7"

    (bin_folder / program).write_text("#!/bin/sh\nexit 1\n")
    assert on_host(tool, 20, {"PATH": f"{bin_folder}:/usr/bin:/bin"}).version is None


def test_a_new_tool_without_a_source_says_what_to_write(project: Path) -> None:
    ran = run(project, "new", "tool", "mine", "--json")
    assert [one["place"] for one in ran.json["edits"]] == ["tools/mine/version.sh:5", "tools/mine/install.sh:5"]
    (tool,) = load_catalogue(project, {}).tools
    reading = on_host(tool, 20, {"PATH": "/usr/bin:/bin"})
    assert reading.detail == "exit status 1, it says 'tools/mine/version.sh is not written yet'"


def test_a_new_tool_may_be_tried_dry(project: Path) -> None:
    ran = run(project, "new", "tool", "mine", "--npm", "mine", "--dry-run")
    assert ran.out == "would write tools/mine/: version.sh, install.sh, tool.yaml\n\nNext: pytest checks/\n"
    assert list(files(project)) == ["imagewright.toml"]


REFUSALS = {
    "a bad name": (
        ("Mine",),
        2,
        f"'Mine' {NO_NAME}",
    ),
    "one that exists": (("there",), 1, "tools/there: there is something of that name already\n  Take another name."),
    "two sources": (
        ("mine", "--npm", "a", "--pypi", "a"),
        2,
        "a tool has its releases in one place\n  Name one of --npm, --pypi and --github.",
    ),
    "a source that is a command": (
        ("mine", "--npm", "a'; rm -rf /"),
        2,
        "--npm: 'a'; rm -rf /' is not a package, e.g. @openai/codex",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_cannot_be_a_new_tool_is_refused(project: Path, case: str) -> None:
    (project / "tools" / "there").mkdir(parents=True)
    arguments, code, said = REFUSALS[case]
    assert run(project, "new", "tool", *arguments) == Ran(code, "", f"imagewright: {said}\n")


def test_a_new_tool_needs_a_project(empty: Path) -> None:
    said = f"imagewright: {empty} is no project: there are no settings\n  Make one: `imagewright init`.\n"
    assert run(empty, "new", "tool", "mine") == Ran(40, "", said)


@pytest.mark.parametrize(
    ("kind", "text", "fits"),
    [
        ("npm", "codex", True),
        ("npm", "@qwen-code/qwen-code", True),
        ("npm", "@qwen-code/qwen-code@latest", False),
        ("npm", "-g", False),
        ("pypi", "aider-chat", True),
        ("pypi", "a b", False),
        ("pypi", "-r", False),
        ("github", "block/goose", True),
        ("github", "goose", False),
        ("github", "block/goose/x", False),
        ("github", "block/$(id)", False),
        ("github", "block/goose\n", False),
    ],
)
def test_only_names_of_packages_get_into_scripts(kind: Any, text: str, fits: bool) -> None:
    if fits:
        assert parse_source(kind, text) == text
        return
    with pytest.raises(ValueError, match=" is not a "):
        parse_source(kind, text)


# From the wheel


def test_the_package_brings_the_checks_along(tmp_path: Path) -> None:
    uv = shutil.which("uv") or str(ROOT / ".tools" / "uv" / "bin" / "uv")
    if not Path(uv).exists():
        pytest.skip("needs uv: scripts/test installs it")
    subprocess.run([uv, "build", "--wheel", "--quiet", "-o", tmp_path, ROOT], check=True, timeout=100)
    (wheel,) = tmp_path.glob("*.whl")
    environment, folder = tmp_path / "environment", tmp_path / "images"
    folder.mkdir()
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, environment], check=True, timeout=60)
    python = environment / "bin" / "python"
    subprocess.run([uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel], check=True, timeout=60)
    # The dependencies are those of this environment; the package itself is the wheel's.
    mine = next(one for one in sys.path if one.endswith("site-packages"))
    program = [str(python), "-c", f"import sys; sys.path.append({mine!r}); from imagewright.cli import run; run()"]

    ran = run(folder, "init", program=program)

    assert ran.code == 0, ran.err
    same = {path: content for path, content in shipped().items() if path != "scripts/workflow"}
    assert {path: (folder / path).read_bytes() for path in same} == same
    assert set(same) == {*CHECKS, "tools/Dockerfile", "tools/Dockerfile.dockerignore", *WORKFLOWS}
    assert (folder / "scripts" / "workflow").stat().st_mode & 0o777 == 0o755
