"""The recipe moves with everything a builder gets, and with nothing else."""

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from imagewright.catalogue import Base, Pair, Tool
from imagewright.digests import FileDigests
from imagewright.errors import BadCatalogue
from imagewright.names import parse_digest, parse_reference
from imagewright.recipe import FAMILIES, build_context, labels, parse_dockerignore, recipe

DOCKERFILE = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\nCOPY install.sh /\n"
FILES = {
    "Dockerfile": DOCKERFILE,
    "install.sh": "#!/bin/sh\n",
    "data/b/c.txt": "c",
    "rootfs/usr/bin/hello": "#!/bin/sh\necho hello\n",
    "rootfs/etc/hello.conf": "greeting = hello\n",
}
REPOSITORY = Path(__file__).parents[1]
LATER = time.time_ns() + 3600 * 10**9
"""A moment at which what these tests write has long been there."""
EXECUTABLE = ("install.sh", "rootfs/usr/bin/hello")


def made(folder: Path, files: Mapping[str, str] = FILES) -> Tool:
    """A tool in `folder`: its files, an empty folder and a link to nowhere."""
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    for path in EXECUTABLE:
        (folder / path).chmod(0o755)
    for top in ("", "rootfs/"):
        (folder / top / "empty").mkdir()
        (folder / top / "link").symlink_to("install.sh")
    return Tool(name="codex", folder=folder, dockerfile=folder / "Dockerfile")


@pytest.fixture
def tool(tmp_path: Path) -> Tool:
    (tmp_path / "codex").mkdir()
    return made(tmp_path / "codex")


def test_golden_recipes(tool: Tool) -> None:
    """Published images carry these: if this test fails, every one of them would be rebuilt."""
    assert recipe(tool, "buildkit") == "1:buildkit:6916065a608612cd60f7878139e50948ab580b31edaceb49c9cee4e5cd3c8eec"
    assert recipe(tool, "copy") == "1:copy:e3d2f2bd36ceaf07801129d2be0cd2354f060477dc1ad8fe6cef858f50865879"
    assert (
        recipe(tool, "buildkit", {"FLAVOUR": "slim"})
        == "1:buildkit:67e8c815489b4beffc32e793d5a821dba4901685b47e6a50bd0e6a9155de8893"
    )


MOVES: dict[str, Callable[[Path], object]] = {
    "a byte of a file": lambda folder: (folder / "rootfs/etc/hello.conf").write_text("greeting = hellp\n"),
    "an empty file": lambda folder: (folder / "rootfs/new").touch(),
    "a file of another name": lambda folder: (folder / "rootfs/usr/bin/hello").rename(folder / "rootfs/usr/bin/hallo"),
    "a file in another folder": lambda folder: (folder / "rootfs/usr/bin/hello").rename(folder / "rootfs/usr/hello"),
    "a file that is gone": lambda folder: (folder / "rootfs/etc/hello.conf").unlink(),
    "a file that can be executed": lambda folder: (folder / "rootfs/etc/hello.conf").chmod(0o744),
    "a file that cannot be executed": lambda folder: (folder / "rootfs/usr/bin/hello").chmod(0o655),
    "a link's target": lambda folder: relinked(folder / "rootfs/link", "install.sh2"),
    "a link that became what it shows": lambda folder: unlinked(folder / "rootfs/link"),
    "a folder that became a link": lambda folder: relinked(folder / "rootfs/empty", "etc"),
    "an empty folder that is gone": lambda folder: (folder / "rootfs/empty").rmdir(),
    "a folder that became a file": lambda folder: (
        (folder / "rootfs/empty").rmdir(),
        (folder / "rootfs/empty").touch(),
    ),
}


def relinked(place: Path, target: str) -> None:
    if place.is_symlink():
        place.unlink()
    else:
        place.rmdir()
    place.symlink_to(target)


def unlinked(place: Path) -> None:
    place.unlink()
    place.write_text("#!/bin/sh\n")


@pytest.mark.parametrize("family", ["buildkit", "copy"])
@pytest.mark.parametrize("change", MOVES)
def test_it_moves_with(tool: Tool, change: str, family: str) -> None:
    before = recipe(tool, family)
    MOVES[change](tool.folder)
    assert recipe(tool, family) != before


STAYS: dict[str, Callable[[Path], object]] = {
    "times": lambda folder: [os.utime(path, (1, 1), follow_symlinks=False) for path in folder.rglob("*")],
    "who may read and write": lambda folder: (folder / "rootfs/etc/hello.conf").chmod(0o600),
    "whether others may execute": lambda folder: (folder / "rootfs/usr/bin/hello").chmod(0o700),
    "who may enter a folder": lambda folder: (folder / "rootfs/etc").chmod(0o700),
    "what a link shows": lambda folder: relinked(folder / "rootfs/link", "install.sh"),
}


@pytest.mark.parametrize("family", ["buildkit", "copy"])
@pytest.mark.parametrize("change", STAYS)
def test_it_does_not_move_with(tool: Tool, change: str, family: str) -> None:
    before = recipe(tool, family)
    STAYS[change](tool.folder)
    assert recipe(tool, family) == before


def test_the_place_of_the_project_does_not_count(tmp_path: Path) -> None:
    for name in ("here", "there/and/elsewhere"):
        (tmp_path / name).mkdir(parents=True)
    here, there = made(tmp_path / "here"), made(tmp_path / "there/and/elsewhere")
    assert [recipe(here, family) for family in ("buildkit", "copy")] == [
        recipe(there, family) for family in ("buildkit", "copy")
    ]


def test_an_ignored_file_does_not_count(tool: Tool) -> None:
    (tool.folder / ".dockerignore").write_text("*.log\n")
    before = recipe(tool, "buildkit")
    (tool.folder / "build.log").write_text("noise")
    assert recipe(tool, "buildkit") == before


def test_an_ignored_dockerfile_counts_all_the_same(tool: Tool) -> None:
    (tool.folder / ".dockerignore").write_text("Dockerfile\n")
    before = recipe(tool, "buildkit")
    (tool.folder / "Dockerfile").write_text(DOCKERFILE + "RUN true\n")
    assert recipe(tool, "buildkit") != before


def test_the_shared_dockerfile_and_its_dockerignore_count(tool: Tool) -> None:
    shared = tool.folder.parent / "Dockerfile"
    shared.write_text(DOCKERFILE)
    sharing = Tool(name=tool.name, folder=tool.folder, dockerfile=shared)
    seen = {recipe(tool, "buildkit"), recipe(sharing, "buildkit")}
    shared.write_text(DOCKERFILE + "USER 1000\n")
    seen.add(recipe(sharing, "buildkit"))
    (tool.folder.parent / "Dockerfile.dockerignore").write_text("data\n")
    seen.add(recipe(sharing, "buildkit"))
    assert len(seen) == 3, "the same content elsewhere is the same recipe; two changes make two more"


def test_a_tool_without_a_dockerfile_has_a_recipe_of_both_families(tool: Tool) -> None:
    (tool.folder / "Dockerfile").unlink()
    bare = Tool(name=tool.name, folder=tool.folder)
    assert {recipe(bare, family).rpartition(":")[0] for family in ("buildkit", "copy")} == {"1:buildkit", "1:copy"}


def test_build_arguments_count_but_not_base_and_version(tool: Tool) -> None:
    plain = recipe(tool, "buildkit")
    assert recipe(tool, "buildkit", {"BASE_IMAGE": "x", "TOOL_VERSION": "1"}) == plain
    assert recipe(tool, "buildkit", {"A": "1", "B": "2"}) == recipe(tool, "buildkit", {"B": "2", "A": "1"})
    assert len({plain, recipe(tool, "buildkit", {"A": "1"}), recipe(tool, "buildkit", {"A": ""})}) == 3
    assert recipe(tool, "buildkit", {"A": "1B"}) != recipe(tool, "buildkit", {"A1": "B"})


def test_only_rootfs_counts_for_the_family_copy(tool: Tool) -> None:
    before = recipe(tool, "copy")
    (tool.folder / "install.sh").write_text("other")
    (tool.folder / ".dockerignore").write_text("rootfs")
    assert recipe(tool, "copy") == before


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "rootfs/pipe")


def listening(folder: Path) -> None:
    here = Path.cwd()
    os.chdir(folder / "rootfs")  # a socket's path is short
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("pipe")
    finally:
        os.chdir(here)


@pytest.mark.parametrize("family", ["buildkit", "copy"])
@pytest.mark.parametrize("make", [fifo, listening])
def test_what_cannot_be_in_an_image_is_refused_with_its_place(
    tool: Tool, family: str, make: Callable[[Path], None]
) -> None:
    make(tool.folder)
    with pytest.raises(BadCatalogue) as refused:
        recipe(tool, family)
    place = tool.folder / "rootfs/pipe"
    assert str(refused.value) == f"{place}: neither file, folder nor link: it cannot be in an image"


def test_an_ignored_pipe_is_nobodys_business(tool: Tool) -> None:
    fifo(tool.folder)
    before = (tool.folder / ".dockerignore").write_text("rootfs/pipe\n") and recipe(tool, "buildkit")
    (tool.folder / "rootfs/pipe").unlink()
    assert recipe(tool, "buildkit") == before


@pytest.mark.parametrize("name", [b"rootfs/\xff", b"rootfs/caf\xe9"])
def test_a_name_that_is_not_utf8_is_refused(tool: Tool, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tool.folder) + b"/" + name)).touch()
    with pytest.raises(BadCatalogue, match="a file name that is not UTF-8"):
        recipe(tool, "copy")


def test_of_an_empty_context_the_dockerfile_is_the_recipe(tool: Tool) -> None:
    (tool.folder / ".dockerignore").write_text("**")
    assert build_context(tool.folder, tool.dockerfile) == ()
    before = recipe(tool, "buildkit")
    (tool.folder / "another").touch()
    assert recipe(tool, "buildkit") == before
    assert tool.dockerfile
    tool.dockerfile.write_text(f"{DOCKERFILE}RUN true\n")
    assert recipe(tool, "buildkit") != before


def test_without_files_the_builder_copy_has_nothing_to_copy(tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    with pytest.raises(BadCatalogue) as refused:
        recipe(Tool(name="bare", folder=tmp_path / "bare"), "copy")
    assert str(refused.value) == f"{tmp_path / 'bare' / 'rootfs'}: the builder copy needs files here"


def test_a_name_that_would_delete_a_file_of_the_base_is_refused(tool: Tool) -> None:
    (tool.folder / "rootfs/.wh.passwd").touch()
    with pytest.raises(
        BadCatalogue, match=r"rootfs/.wh.passwd: a file name that starts with .wh. cannot be in an image"
    ):
        recipe(tool, "copy")


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("", "a a/b.py a/c a/d a/d/e.py f"),
        ("# a\n\n  \n", "a a/b.py a/c a/d a/d/e.py f"),
        ("a", "f"),
        ("/a/", "f"),
        ("./a/.", "f"),
        ("*", ""),
        ("**", ""),
        ("*/*", "a f"),
        ("*\n!**/*.py", "a a/b.py a/d a/d/e.py"),
        ("*\n!*.py", ""),
        ("**/*.py", "a a/c a/d f"),
        ("*.py", "a a/b.py a/c a/d a/d/e.py f"),
        ("a\n!a/d", "a a/d a/d/e.py f"),
        ("!a/d\na", "f"),
        ("a/?", "a a/b.py f"),
        ("a/[b-d]*", "a f"),
        ("a/[^b]*", "a a/b.py f"),
        ("a**", "f"),
        ("**/d", "a a/b.py a/c f"),
        ("a/**/e.py", "a a/b.py a/c a/d f"),
        ("\ufefff\r\n", "a a/b.py a/c a/d a/d/e.py"),
        ("! f\nf\n! f", "a a/b.py a/c a/d a/d/e.py f"),
        ("../f", "a a/b.py a/c a/d a/d/e.py f"),
        (".", "a a/b.py a/c a/d a/d/e.py f"),
    ],
)
def test_what_a_dockerignore_keeps(tmp_path: Path, rules: str, kept: str) -> None:
    for path in ("a/b.py", "a/c", "a/d/e.py", "f"):
        (tmp_path / "context" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "context" / path).touch()
    (tmp_path / "Dockerfile.dockerignore").write_text(rules)
    assert kept_paths(tmp_path) == kept


def kept_paths(folder: Path) -> str:
    return " ".join(entry.path for entry in build_context(folder / "context", folder / "Dockerfile"))


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("a\n[b", "x:2: '[b' is not a pattern: a '[' or '\\' that is never finished"),
        ("a\\", "x:1: 'a\\' is not a pattern: a '[' or '\\' that is never finished"),
        ("!", "x:1: '!' is not a pattern: nothing stands behind '!'"),
        (r"\d", r"x:1: '\d' is not a pattern: \d is read differently by different builders"),
        ("[a*]", "x:1: '[a*]' is not a pattern: the set [a*] is read differently by different builders"),
    ],
)
def test_a_rule_that_cannot_be_read_is_refused_with_its_line(rules: str, problem: str) -> None:
    with pytest.raises(BadCatalogue) as refused:
        parse_dockerignore(rules.encode(), "x")
    assert str(refused.value) == problem


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=8).filter(
    lambda name: name not in (".", "..") and not name.startswith(".wh.") and len(name.encode()) < 200
)
trees = st.dictionaries(names, st.binary(max_size=20), min_size=1, max_size=8)


@given(trees, st.randoms(use_true_random=False))
def test_the_order_in_which_files_were_made_does_not_count(tree: dict[str, bytes], chance: object) -> None:
    shuffled = list(tree.items())
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert hashed(tree) == hashed(dict(shuffled))


@given(trees, trees)
def test_two_folders_have_one_recipe_only_if_they_are_equal(one: dict[str, bytes], other: dict[str, bytes]) -> None:
    assert (hashed(one) == hashed(other)) == (one == other)


def hashed(tree: Mapping[str, bytes]) -> str:
    with TemporaryDirectory() as folder:
        (Path(folder) / "rootfs").mkdir()
        for name, content in tree.items():
            (Path(folder) / "rootfs" / name).write_bytes(content)
        return recipe(Tool(name="t", folder=Path(folder)), "copy")


@dataclass(frozen=True)
class Made:
    """What a tool is made of. files: content, and whether it can be executed."""

    files: Mapping[str, tuple[bytes, bool]]
    links: Mapping[str, bytes]
    dockerfile: bytes
    arguments: Mapping[str, str]

    def hashed(self, folder: Path, digests: FileDigests | None = None) -> list[str]:
        """The recipes of all families, of a tool that is made anew in `folder`."""
        rootfs = folder / "rootfs"
        shutil.rmtree(folder, ignore_errors=True)
        rootfs.mkdir(parents=True)
        (folder / "Dockerfile").write_bytes(self.dockerfile)
        for name, (content, executable) in self.files.items():
            (rootfs / name).write_bytes(content)
            (rootfs / name).chmod(0o755 if executable else 0o644)
        for name, target in self.links.items():
            (rootfs / name).symlink_to(os.fsdecode(target))
        return self.again(folder, digests)

    def again(self, folder: Path, digests: FileDigests | None = None) -> list[str]:
        tool = Tool(name="t", folder=folder, dockerfile=folder / "Dockerfile")
        return [recipe(tool, family, self.arguments, digests) for family in FAMILIES]


def with_one_bit_changed(content: bytes, at: int) -> bytes:
    at %= len(content) * 8
    return content[: at // 8] + bytes([content[at // 8] ^ (1 << at % 8)]) + content[at // 8 + 1 :]


targets = names.map(str.encode)
things = st.builds(
    Made,
    files=st.dictionaries(names, st.tuples(st.binary(min_size=1, max_size=40), st.booleans()), min_size=1, max_size=4),
    links=st.dictionaries(st.sampled_from(["link 1", "link two"]), targets, min_size=1),
    dockerfile=st.binary(min_size=1, max_size=40),
    arguments=st.dictionaries(st.sampled_from(["A", "FLAVOUR"]), st.text("ab", min_size=1, max_size=3), min_size=1),
).filter(lambda made: not made.files.keys() & made.links.keys())


def text_with_one_bit_changed(text: str, at: int) -> str:
    """Text that can be a name, or as it was."""
    try:
        changed = with_one_bit_changed(text.encode(), at).decode()
    except UnicodeDecodeError:
        return text
    return text if changed in (".", "..") or changed.startswith(".wh.") or {"/", "\0"} & {*changed} else changed


def content_changed(made: Made, at: int) -> Made:
    name, (content, executable) = sorted(made.files.items())[at % len(made.files)]
    return replace(made, files={**made.files, name: (with_one_bit_changed(content, at), executable)})


def executable_changed(made: Made, at: int) -> Made:
    name, (content, executable) = sorted(made.files.items())[at % len(made.files)]
    return replace(made, files={**made.files, name: (content, not executable)})


def path_changed(made: Made, at: int) -> Made:
    name = sorted(made.files)[at % len(made.files)]
    other = text_with_one_bit_changed(name, at)
    if other in made.files or other in made.links:
        return made
    return replace(made, files={other if one == name else one: this for one, this in made.files.items()})


def target_changed(made: Made, at: int) -> Made:
    name, target = sorted(made.links.items())[at % len(made.links)]
    return replace(made, links={**made.links, name: text_with_one_bit_changed(target.decode(), at).encode()})


def dockerfile_changed(made: Made, at: int) -> Made:
    return replace(made, dockerfile=with_one_bit_changed(made.dockerfile, at))


def argument_changed(made: Made, at: int) -> Made:
    name, value = sorted(made.arguments.items())[at % len(made.arguments)]
    return replace(made, arguments={**made.arguments, name: text_with_one_bit_changed(value, at)})


@pytest.mark.parametrize(
    ("change", "families"),
    [
        (content_changed, FAMILIES),
        (executable_changed, FAMILIES),
        (path_changed, FAMILIES),
        (target_changed, FAMILIES),
        (dockerfile_changed, ("buildkit", "buildah")),
        (argument_changed, ("buildkit", "buildah")),
    ],
)
@given(made=things, at=st.integers(min_value=0, max_value=10_000))
@settings(max_examples=40)
def test_one_bit_moves_the_recipe(change: Callable[[Made, int], Made], families: tuple[str, ...], made, at) -> None:
    changed = change(made, at)
    assume(changed != made)
    with TemporaryDirectory() as place:
        digests = FileDigests(now=LATER)
        before = made.hashed(Path(place) / "t", digests)
        after = changed.hashed(Path(place) / "t", digests)
        assert after == changed.again(Path(place) / "t"), "what is remembered is what is there"
    assert [one for one, was, now in zip(FAMILIES, before, after, strict=True) if was != now] == list(families)


@given(made=things, mode=st.integers(min_value=0, max_value=0o77), seconds=st.integers(min_value=0, max_value=2**31))
@settings(max_examples=40)
def test_times_owners_and_what_others_may_do_does_not_move_it(made: Made, mode: int, seconds: int) -> None:
    with TemporaryDirectory() as place:
        before = made.hashed(Path(place) / "t")
        moved = Path(place) / "else where" / "t"
        moved.parent.mkdir()
        umask = os.umask(mode)
        try:
            made.hashed(moved)
        finally:
            os.umask(umask)
        for path in moved.rglob("*"):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o700 | mode)
            os.utime(path, (seconds, seconds), follow_symlinks=False)
            if os.geteuid() == 0:
                os.chown(path, 1234, 1234, follow_symlinks=False)
        assert made.again(moved) == before


@given(made=things, noise=st.binary(max_size=20))
@settings(max_examples=20)
def test_what_every_builder_ignores_does_not_move_it(made: Made, noise: bytes) -> None:
    with TemporaryDirectory() as place:
        made.hashed(folder := Path(place) / "t")
        (folder / ".dockerignore").write_text("*.log\nbuild/\n**/__pycache__\n")
        before = made.again(folder)
        for path in ("a.log", "build/x/y", "src/__pycache__/z"):
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(noise)
        (folder / "src/__pycache__/z").unlink()
        (folder / "src/__pycache__").rmdir()
        (folder / "src").rmdir()
        assert made.again(folder) == before


@pytest.mark.parametrize("locale", ["C", "POSIX", "C.UTF-8"])
def test_the_locale_does_not_move_it(tool: Tool, locale: str) -> None:
    (tool.folder / "rootfs/tür").write_bytes(b"x")
    (tool.folder / "rootfs/zeiger").symlink_to("tür")
    program = (
        "import sys; from pathlib import Path; from imagewright.catalogue import Tool; from imagewright.recipe import recipe;"
        "folder = Path(sys.argv[1]);"
        "print(recipe(Tool(name='codex', folder=folder, dockerfile=folder / 'Dockerfile'), 'buildkit'))"
    )
    environ = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONPATH": str(REPOSITORY)}
    ran = subprocess.run([sys.executable, "-c", program, tool.folder], env=environ, capture_output=True, check=True)
    assert ran.stdout.decode().strip() == recipe(tool, "buildkit")


def test_links_that_lead_nowhere_or_round_in_circles_are_links(tool: Tool) -> None:
    (tool.folder / "rootfs/round").symlink_to("round")
    (tool.folder / "rootfs/up").symlink_to("..")
    kinds = {one.path: (one.kind, one.target) for one in build_context(tool.folder, tool.dockerfile)}
    assert kinds["rootfs/round"] == ("link", "round")
    assert kinds["rootfs/up"] == ("link", "..")


def test_a_tool_that_is_a_link_to_itself_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "t").symlink_to("t")
    with pytest.raises(BadCatalogue) as refused:
        recipe(Tool(name="t", folder=tmp_path / "t"), "buildkit")
    assert str(refused.value) == f"{tmp_path / 't'}: cannot be read: Too many levels of symbolic links"


class Vanishing(FileDigests):
    """The file is gone by the time that it is read."""

    def sha256(self, path: str, seen: os.stat_result) -> bytes:
        Path(path).unlink()
        return super().sha256(path, seen)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_file_that_vanishes_cannot_be_read(tool: Tool, family: str) -> None:
    with pytest.raises(BadCatalogue) as refused:
        recipe(tool, family, digests=Vanishing())
    first = "rootfs/etc/hello.conf" if family == "copy" else "Dockerfile"
    assert str(refused.value) == f"{tool.folder / first}: cannot be read: No such file or directory"


def test_folders_as_deep_as_a_path_can_be_are_read_and_deeper_ones_refused(tool: Tool) -> None:
    depth = (4000 - len(str(tool.folder))) // 2
    here = Path.cwd()
    os.chdir(tool.folder)
    try:
        for _ in range(depth):
            Path("d").mkdir()
            os.chdir("d")
        assert "/".join("d" * depth) in {one.path for one in build_context(tool.folder, None)}
        Path("x" * 200).touch()
        with pytest.raises(BadCatalogue) as refused:
            build_context(tool.folder, None)
        assert refused.value.reason == "cannot be read: File name too long"
        os.unlink("x" * 200)
        for _ in range(depth):
            os.chdir("..")
            Path("d").rmdir()
    finally:
        os.chdir(here)


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("a\n", "f"),
        ("*\n!f", "f"),
        ("**/d\n", "a a/b.py a/c f"),
        ("a\n!a/d", "a a/d a/d/e.py f"),
        ("*\n!a/d", "a a/d a/d/e.py"),
        ("a/[b-d]*", "a a/b.py a/c a/d a/d/e.py f"),
        ("a\n! f", "a a/b.py a/c a/d a/d/e.py f"),
        ("./a", "a a/b.py a/c a/d a/d/e.py f"),
    ],
)
def test_of_the_family_buildah_only_what_all_ignore_is_ignored(tmp_path: Path, rules: str, kept: str) -> None:
    for path in ("a/b.py", "a/c", "a/d/e.py", "f"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).touch()
    (tmp_path / ".dockerignore").write_text(rules)
    found = [one.path for one in build_context(tmp_path, None, "buildah") if one.path != ".dockerignore"]
    assert " ".join(found) == kept


@pytest.mark.parametrize(
    ("files", "ignored"),
    [
        (["t/.dockerignore"], True),
        (["t/.containerignore"], True),
        (["t/.dockerignore", "t/.containerignore"], False),
        (["Dockerfile.dockerignore"], False),
        (["Dockerfile.containerignore", "t/.dockerignore"], False),
    ],
)
def test_of_the_family_buildah_one_ignore_file_in_the_context_counts(
    tmp_path: Path, files: list[str], ignored: bool
) -> None:
    (tmp_path / "t").mkdir()
    for name in ("t/a", "t/b", "Dockerfile"):
        (tmp_path / name).touch()
    for name in files:
        (tmp_path / name).write_text("a\n")
    paths = {one.path for one in build_context(tmp_path / "t", tmp_path / "Dockerfile", "buildah")}
    assert ("a" not in paths) == ignored
    tool = Tool(name="t", folder=tmp_path / "t", dockerfile=tmp_path / "Dockerfile")
    before = recipe(tool, "buildah")
    (tmp_path / files[0]).write_text("a\n\n")
    assert recipe(tool, "buildah") != before


def test_labels_say_what_is_known() -> None:
    tool = Tool(name="codex", folder=Path("x"), title="Codex", licenses="Apache-2.0", homepage="https://example.org")
    base = Base(name="fedora", reference=parse_reference("ghcr.io/a/base:fedora-latest"))
    digest = parse_digest(f"sha256:{'0' * 64}")
    pair = Pair(tool=tool, base=base, repository=base.reference.repository, declared=())
    made = labels(
        pair,
        base_digest=digest,
        version="1.2",
        recipe="1:copy:ab",
        prefix="org.x",
        created=86400,
        revision="c0ffee",
    )
    assert made == {
        "org.opencontainers.image.title": "Codex",
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.url": "https://example.org",
        "org.opencontainers.image.version": "1.2",
        "org.opencontainers.image.created": "1970-01-02T00:00:00Z",
        "org.opencontainers.image.revision": "c0ffee",
        "org.opencontainers.image.base.name": "ghcr.io/a/base:fedora-latest",
        "org.opencontainers.image.base.digest": digest,
        "org.x.tool": "codex",
        "org.x.base": "fedora",
        "org.x.recipe": "1:copy:ab",
    }
