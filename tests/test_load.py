"""Settings and tools of a project: what is read from its files, and every mistake in them at once."""

import os
from pathlib import Path

import pytest

from imagewright.catalogue import Tool
from imagewright.errors import BadCatalogue, Exit
from imagewright.load import load_catalogue, load_settings
from imagewright.names import Platform, make_repository
from imagewright.settings import (
    BaseSettings,
    BasesSettings,
    HostSettings,
    Limits,
    PlanSettings,
    Settings,
    VersionsSettings,
)

AMD, ARM = Platform("linux", "amd64"), Platform("linux", "arm64")
LEAST = 'repository = "own/tools"\n[bases]\nrepository = "own/bases"\n'
WHOLE = """
registry = "Registry.example:5000"
repository = "own/tools"
platforms = ["linux/arm64/v8"]
builder = "copy"
label-prefix = "org.example"
bootstrap = true

[bases]
registry = "ghcr.io"
repository = "own/bases"
names = ["fedora", "arch"]
exclude = ["arch"]

[bases.arch]
platforms = ["linux/amd64"]

[versions]
timeout = 7.5

[registries."ghcr.io"]
plain-http = true
anonymous = true
realms = ["auth.example"]
missing-codes = ["NOT_FOUND"]
second-look = 0
connections = 3
per-second = 7.5

[limits]
connect = 1
read = 2
total = 3

[plan]
max-vanished = 9
hold = ["codex: wait: for it", "fedora:old"]
"""


def project(root, settings=LEAST, file="imagewright.toml"):
    root.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(settings)
    return root


def tool(root, name="codex", yaml="", **files):
    folder = root / "tools" / name
    folder.mkdir(parents=True)
    if yaml:
        (folder / "tool.yaml").write_bytes(yaml if isinstance(yaml, bytes) else yaml.encode())
    for path, content in files.items():
        (folder / path.replace("_", ".")).write_text(content)
    return folder


def refusal(call, *arguments):
    with pytest.raises(BadCatalogue) as caught:
        call(*arguments)
    assert caught.value.exit is Exit.BAD_CATALOGUE
    return str(caught.value)


def mistakes(call, *arguments):
    *lines, remedy = refusal(call, *arguments).splitlines()
    assert remedy.startswith("  Mend these ")
    return lines


def test_the_least_settings_have_defaults(tmp_path):
    assert load_settings(project(tmp_path), {}) == Settings(
        repository=make_repository("ghcr.io", "own/tools"),
        bases=BasesSettings(repository=make_repository("ghcr.io", "own/bases"), discover=True),
        platforms=(AMD, ARM),
        builder="auto",
        label_prefix="imagewright",
        bootstrap=False,
        versions=VersionsSettings(timeout=60),
        registries={},
        limits=Limits(connect=5, read=20, total=60),
        plan=PlanSettings(max_vanished=3, hold={}),
    )


def test_every_setting_is_read(tmp_path):
    assert load_settings(project(tmp_path, WHOLE), {}) == Settings(
        repository=make_repository("registry.example:5000", "own/tools"),
        bases=BasesSettings(
            repository=make_repository("ghcr.io", "own/bases"),
            discover=False,
            names=("fedora", "arch"),
            exclude=("arch",),
            single={"arch": BaseSettings(platforms=(AMD,))},
        ),
        platforms=(ARM,),
        builder="copy",
        label_prefix="org.example",
        bootstrap=True,
        versions=VersionsSettings(timeout=7.5),
        registries={
            "ghcr.io": HostSettings(
                plain_http=True,
                anonymous=True,
                realms=("auth.example",),
                missing_codes=("NOT_FOUND",),
                second_look=0,
                connections=3,
                per_second=7.5,
            )
        },
        limits=Limits(connect=1, read=2, total=3),
        plan=PlanSettings(max_vanished=9, hold={"codex": "wait: for it", "fedora": "old"}),
    )


def test_the_projects_own_file_wins_as_a_whole(tmp_path):
    in_pyproject = '[tool.imagewright]\nrepository = "other/tools"\nbuilder = "copy"\n'
    in_pyproject += '[tool.imagewright.bases]\nrepository = "other/bases"\n'
    project(tmp_path, in_pyproject, "pyproject.toml")
    assert str(load_settings(tmp_path, {}).repository) == "ghcr.io/other/tools"
    assert load_settings(tmp_path, {}).builder == "copy"
    project(tmp_path)
    assert str(load_settings(tmp_path, {}).repository) == "ghcr.io/own/tools"
    assert load_settings(tmp_path, {}).builder == "auto"


@pytest.mark.parametrize("content", [None, "", "[tool]\n", "tool = 5\n", '[tool.other]\nimagewright = "x"\n'])
def test_a_project_without_settings_is_refused(tmp_path, content):
    if content is not None:
        project(tmp_path, content, "pyproject.toml")
    assert refusal(load_settings, tmp_path, {}) == (
        f"there are no settings in {tmp_path}\n  Make a project of it with `imagewright init`, or add [tool.imagewright] to "
        "pyproject.toml: at least `repository`, and `repository` of [tool.imagewright.bases]."
    )


def test_every_mistake_in_the_settings_is_named_at_once(tmp_path):
    settings = """registri = "x"
repository = "Own/Tools"
platforms = []
builder = "magic"
label-prefix = "a b"
bootstrap = "perhaps"
[bases]
names = ["fedora", "Fedora"]
wrong = 1
[bases.arch]
platfroms = []
[bases.alpine]
platforms = []
[limits]
read = -1
[plan]
hold = ["codex"]
max-vanished = 1.5
[versions]
timeout = "soon"
[registries."http://x"]
[registries."ghcr.io"]
connections = 0
per-second = 0
plain = true
"""
    words = "lower-case words of letters and digits, joined by '.', '_', '-' and '/'"
    folder = "lower-case letters and digits, joined by single '.', '_' or '-'"
    assert sorted(mistakes(load_settings, project(tmp_path, settings), {})) == sorted(
        f"imagewright.toml:{one}"
        for one in [
            "1: registri: not a known field. Did you mean 'registry'?",
            f"2: repository: 'Own/Tools' is not a repository: {words}",
            "3: platforms: an empty list means that nothing is published",
            "4: builder: one of auto, buildkit, docker, buildah, copy is expected",
            "5: label-prefix: a domain or a word is expected, e.g. imagewright or org.example",
            "6: bootstrap: true or false is expected",
            f"8: bases.names: 'Fedora' cannot name a tool or base: {folder}",
            "9: bases.wrong: not a known field.",
            "7: bases.repository: is not set",
            "11: bases.arch.platfroms: not a known field. Did you mean 'platforms'?",
            "12: bases.alpine.platforms: an empty list; use `exclude` for a base without images",
            "15: limits.read: a number, not negative, is expected",
            "17: plan.hold: each entry reads 'name: why'",
            "18: plan.max-vanished: a whole number is expected",
            "20: versions.timeout: a number, not negative, is expected",
            "21: registries: 'http://x' is not a registry: host or host:port, without scheme and path",
            '22: registries."ghcr.io".connections: at least 1',
            '22: registries."ghcr.io".per-second: more than 0',
            "25: registries.\"ghcr.io\".plain: not a known field. Did you mean 'plain-http'?",
        ]
    )


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("names = []\n", "3: bases: none is left: `names` is empty, or all of it is excluded"),
        (
            'names = ["a"]\nexclude = ["a"]\n',
            "3: bases: none is left: `names` is empty, or all of it is excluded",
        ),
        ("discover = false\n", "3: bases: none is left: `names` is empty, or all of it is excluded"),
        (
            'discover = true\nnames = ["a"]\n',
            "6: bases.names: the bases are discovered, `discover = true`; keep one of both",
        ),
        ('[bases.Arch]\nplatforms = ["linux/amd64"]\n', None),
    ],
)
def test_bases_that_leave_nothing_to_build_on_are_refused(tmp_path, more, said):
    found = mistakes(load_settings, project(tmp_path, f'repository = "a/b"\n\n[bases]\nrepository = "a/c"\n{more}'), {})
    assert len(found) == 1
    assert said is None or found == [f"imagewright.toml:{said}"]


@pytest.mark.parametrize("table", ["bases", "versions", "limits", "plan", "registries"])
def test_a_value_where_a_table_must_be_is_refused(tmp_path, table):
    root = project(tmp_path, f'repository = "a/b"\n{table} = 5\n')
    environ = {"IMAGEWRIGHT_BASES__REPOSITORY": "a/c", "IMAGEWRIGHT_PLAN__MAX_VANISHED": "1"}
    assert mistakes(load_settings, root, environ)[0].startswith(f"imagewright.toml:2: {table} is not a table")


def test_the_environment_overrides_single_keys(tmp_path):
    environ = {
        "IMAGEWRIGHT_REGISTRY": "127.0.0.1:5000",
        "IMAGEWRIGHT_REPOSITORY": "their/tools",
        "IMAGEWRIGHT_PLATFORMS": "linux/amd64, linux/riscv64,",
        "IMAGEWRIGHT_LABEL_PREFIX": "x",
        "IMAGEWRIGHT_BOOTSTRAP": "true",
        "IMAGEWRIGHT_BASES__NAMES": "a,b",
        "IMAGEWRIGHT_BASES__EXCLUDE": "b",
        "IMAGEWRIGHT_VERSIONS__TIMEOUT": "1.5",
        "IMAGEWRIGHT_LIMITS__TOTAL": "9",
        "IMAGEWRIGHT_PLAN__MAX_VANISHED": "5",
        "IMAGEWRIGHT_PLAN__HOLD": "a: why, b: not",
        "IMAGEWRIGHT_FORGE_TOKEN": "a secret, not a setting",
        "OTHER": "x",
    }
    read = load_settings(project(tmp_path, LEAST), environ)
    assert str(read.repository) == "127.0.0.1:5000/their/tools"
    assert str(read.bases.repository) == "127.0.0.1:5000/own/bases"
    assert read.platforms == (AMD, Platform("linux", "riscv64"))
    assert (read.label_prefix, read.bootstrap, read.versions.timeout, read.limits.total) == ("x", True, 1.5, 9)
    assert (read.bases.names, read.bases.exclude, read.bases.discover) == (("a", "b"), ("b",), False)
    assert (read.plan.max_vanished, read.plan.hold) == (5, {"a": "why", "b": "not"})


def test_mistakes_in_the_environment_name_the_variable(tmp_path):
    environ = {
        "IMAGEWRIGHT_REPOSITRY": "x",
        "IMAGEWRIGHT_BUILDER": "magic",
        "IMAGEWRIGHT_PLATFORMS": "",
        "IMAGEWRIGHT_BOOTSTRAP": "yes",
    }
    assert sorted(mistakes(load_settings, project(tmp_path), environ)) == [
        "environment variable IMAGEWRIGHT_BOOTSTRAP: bootstrap: true or false is expected",
        "environment variable IMAGEWRIGHT_BUILDER: builder: one of auto, buildkit, docker, buildah, copy is expected",
        "environment variable IMAGEWRIGHT_PLATFORMS: platforms: an empty list means that nothing is published",
        "environment variable IMAGEWRIGHT_REPOSITRY: not a known setting",
    ]


def test_host_and_repository_may_have_255_characters_together(tmp_path):
    over, exact = "a" * 248, "a" * 247
    assert mistakes(load_settings, project(tmp_path, LEAST.replace("own/tools", over)), {}) == [
        f"imagewright.toml:1: repository: 'ghcr.io/{'a' * 72}…' has 256 characters, at most 255 are allowed"
    ]
    assert load_settings(project(tmp_path, LEAST.replace("own/tools", exact)), {}).repository.name == exact


def load(root):
    return load_catalogue(root, {})


def test_a_tool_needs_nothing_but_its_folder(tmp_path):
    folder = tool(project(tmp_path))
    assert load(tmp_path).tools == (Tool(name="codex", folder=folder),)


def test_every_field_of_a_tool_is_read(tmp_path):
    yaml = """title: Codex
homepage: https://example.com
description: 3.10
licenses: no
command: codex --version
version-scheme: calver
exclude-bases:
  no: on
platforms: [linux/arm64/v8]
redistributable: false
base-config: ignore
squashed: true
"""
    folder = tool(project(tmp_path), yaml=yaml, Dockerfile="FROM x")
    assert load(tmp_path).tools == (
        Tool(
            name="codex",
            folder=folder,
            dockerfile=folder / "Dockerfile",
            title="Codex",
            homepage="https://example.com",
            description="3.10",
            licenses="no",
            command="codex --version",
            version_scheme="calver",
            exclude_bases={"no": "on"},
            platforms=(ARM,),
            redistributable=False,
            check_base_config=False,
            squashed=True,
        ),
    )


def test_a_tool_with_a_script_uses_the_shared_dockerfile_and_its_own_first(tmp_path):
    project(tmp_path)
    own = tool(tmp_path, "own", Dockerfile="FROM x", install_sh="")
    tool(tmp_path, "shared", install_sh="")
    tool(tmp_path, "without")
    (tmp_path / "tools" / "Dockerfile").write_text("FROM y")
    assert [one.dockerfile for one in load(tmp_path).tools] == [
        own / "Dockerfile",
        tmp_path / "tools" / "Dockerfile",
        None,
    ]


def test_plain_files_among_the_tools_are_ignored(tmp_path):
    tool(project(tmp_path))
    for name in ("README.md", "Dockerfile", ".hidden", "Not A Tool"):
        (tmp_path / "tools" / name).write_text("x")
    assert [one.name for one in load(tmp_path).tools] == ["codex"]


def test_no_folder_of_tools_and_an_empty_one_are_refused(tmp_path):
    project(tmp_path)
    folder = tmp_path / "tools"
    said = (
        f"there is neither a tool in {folder} nor an image in {tmp_path / 'images'}\n"
        "  Add a folder per tool, with version.sh and install.sh: `imagewright new tool NAME`."
    )
    assert refusal(load, tmp_path) == said
    folder.mkdir()
    (folder / "README.md").write_text("x")
    assert refusal(load, tmp_path) == said


@pytest.mark.parametrize("name", ["Foo", "foo bar", "-x", ".hidden", "foo--bar", "é", "x" * 200, "foo_"])
def test_a_folder_that_cannot_name_a_tool_is_refused(tmp_path, name):
    tool(project(tmp_path), name)
    (said,) = mistakes(load, tmp_path)
    assert said.startswith(f"tools/{name}: ")
    assert said.endswith(" cannot name a tool or base: lower-case letters and digits, joined by single '.', '_' or '-'")


@pytest.mark.parametrize("name", ["con", "no", "3.10", "a_b"])
def test_an_odd_name_within_the_grammar_is_accepted(tmp_path, name):
    tool(project(tmp_path), name)
    assert [one.name for one in load(tmp_path).tools] == [name]


def test_mistakes_in_all_tools_are_named_at_once(tmp_path):
    project(tmp_path)
    tool(tmp_path, "a", yaml="titel: x\nsquashed: maybe\n")
    tool(tmp_path, "b", yaml="title: x\ntitle: y\n")
    tool(tmp_path, "c", yaml="platforms: []\n")
    tool(tmp_path, "d", yaml=b"title: \xff\n")
    tool(tmp_path, "e", yaml="title:\n\tx\n")
    tool(tmp_path, "f", yaml="[" * 2000)
    tool(tmp_path, "g", yaml="a: &a [x]\nb: *a\n")
    tool(tmp_path, "H")
    tool(tmp_path, "i", yaml="exclude-bases: {X: y}\n")
    folder = "lower-case letters and digits, joined by single '.', '_' or '-'"
    assert sorted(mistakes(load, tmp_path)) == [
        f"tools/H: 'H' cannot name a tool or base: {folder}",
        "tools/a/tool.yaml:1:1: titel: not a known field. Did you mean 'title'?",
        "tools/a/tool.yaml:2:1: squashed: true or false is expected",
        "tools/b/tool.yaml:2:1: 'title' stands twice",
        "tools/c/tool.yaml: platforms: an empty list means that nothing is published",
        "tools/d/tool.yaml: not UTF-8 at byte 7",
        "tools/e/tool.yaml:2:1: not YAML: found character that cannot start any token",
        "tools/f/tool.yaml:1:21: nested deeper than 20 levels",
        "tools/g/tool.yaml:2:4: an alias; write the value out",
        f"tools/i/tool.yaml:1:1: exclude-bases: 'X' cannot name a tool or base: {folder}",
    ]


@pytest.mark.parametrize(
    ("target", "leaves"),
    [("/etc/passwd", True), ("../../../outside", True), ("../../checks", False), ("nowhere", False), ("link", False)],
)
def test_a_link_that_leaves_the_project_is_refused(tmp_path, target, leaves):
    folder = tool(project(tmp_path / "project"))
    (tmp_path / "project" / "checks").mkdir()
    (folder / "link").symlink_to(target)
    if leaves:
        said = f"tools/codex/link: a link that leaves the project, to '{target}'"
        assert mistakes(load, tmp_path / "project") == [said]
    else:
        assert len(load(tmp_path / "project").tools) == 1


def test_tools_that_are_a_link_out_of_the_project_are_refused(tmp_path):
    tool(tmp_path / "elsewhere")
    root = project(tmp_path / "project")
    (root / "tools").symlink_to("../elsewhere/tools")
    assert mistakes(load, root) == ["tools: a link that leaves the project, to '../elsewhere/tools'"]


def test_a_project_behind_a_link_is_a_project(tmp_path):
    tool(project(tmp_path / "real"))
    (tmp_path / "link").symlink_to("real")
    assert load(tmp_path / "link").hash == load(tmp_path / "real").hash


@pytest.fixture
def hashed(tmp_path):
    folder = tool(project(tmp_path, WHOLE), yaml="title: x\n", version_sh="echo 1\n")
    (folder / "link").symlink_to("version.sh")
    (tmp_path / "tools" / "Dockerfile").write_text("FROM x\n")
    return tmp_path


CODEX = Path("tools/codex")


def rewrite(path, old, new):
    return lambda root: (root / path).write_text((root / path).read_text().replace(old, new))


def relink(root):
    (root / CODEX / "link").unlink()
    (root / CODEX / "link").symlink_to("tool.yaml")


CHANGES = {
    "content": rewrite(CODEX / "version.sh", "1", "2"),
    "a comment in tool.yaml": rewrite(CODEX / "tool.yaml", "x", "x # y"),
    "the shared Dockerfile": rewrite("tools/Dockerfile", "x", "y"),
    "mode": lambda root: (root / CODEX / "version.sh").chmod(0o755),
    "link": relink,
    "a new file": lambda root: (root / CODEX / "new").write_text(""),
    "a new name": lambda root: (root / CODEX / "version.sh").rename(root / CODEX / "version2.sh"),
    "a name that is not UTF-8": lambda root: Path(os.fsdecode(os.fsencode(root / CODEX) + b"/\xff")).write_text(""),
    "a new tool": lambda root: (root / "tools/goose").mkdir() or (root / "tools/goose/version.sh").write_text(""),
    "a setting": rewrite("imagewright.toml", "own/tools", "own/other"),
    "a nested setting": rewrite("imagewright.toml", "timeout = 7.5", "timeout = 8"),
    "a setting of one host": rewrite("imagewright.toml", "connections = 3", "connections = 4"),
    "what is held": rewrite("imagewright.toml", "fedora:old", "fedora:older"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_hash_of_the_catalogue_changes_with(hashed, change):
    before = load(hashed).hash
    CHANGES[change](hashed)
    assert load(hashed).hash != before


NO_CHANGES = {
    "nothing": lambda root: None,
    "times": lambda root: os.utime(root / CODEX / "version.sh", (0, 0)),
    "rights of others": lambda root: (root / CODEX / "version.sh").chmod(0o600),
    "comments in the settings": rewrite("imagewright.toml", "[plan]", "# why\n[plan]"),
    "the order of what is held": rewrite(
        "imagewright.toml", '"codex: wait: for it", "fedora:old"', '"fedora: old", "codex: wait: for it"'
    ),
    "files elsewhere": lambda root: (root / "README.md").write_text("x"),
}


@pytest.mark.parametrize("change", NO_CHANGES)
def test_the_hash_of_the_catalogue_does_not_change_with(hashed, change):
    before = load(hashed).hash
    assert before.startswith("sha256:")
    assert len(before) == 71
    NO_CHANGES[change](hashed)
    assert load(hashed).hash == before


def test_the_environment_is_part_of_the_hash(hashed):
    assert load_catalogue(hashed, {"IMAGEWRIGHT_BUILDER": "buildkit"}).hash != load(hashed).hash
    assert load_catalogue(hashed, {"IMAGEWRIGHT_BUILDER": "copy"}).hash == load(hashed).hash


def test_where_builds_are_asked_for_is_not(hashed):
    assert load_catalogue(hashed, {"IMAGEWRIGHT_FORGE__REPOSITORY": "own/images"}).hash == load(hashed).hash
