"""What our reading of a build context leaves out and keeps is what BuildKit leaves out and keeps.

Many contexts are read in one build, each under a name of its own, with the .dockerignore it holds; the special cases, and
those with a .dockerignore beside their Dockerfile, are built one by one. Of buildah, whose rules differ from version to
version, no file may be missed.
"""

import io
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from imagewright.errors import BadCatalogue
from imagewright.recipe import BUILDAH, BUILDKIT, Kind, build_context

ALONE, TOGETHER, BUILDAHS = 24, 1000, 250
LOT = 100
THREADS = 2
SEED = 20_11
NAMES = ("a", "b", "c.py", "d.go", ".e", "f g", "ä", "node_modules", "b.py", "x(1)+.txt", "[z]")
PIECES = (
    *NAMES,
    "*",
    "*",
    "**",
    "**",
    "?",
    "*.py",
    "[a-c]",
    "[^a]*",
    "a*",
    "**b",
    "b**",
    ".",
    "..",
    "\\*",
    "?.*",
    "***",
    "",
)
DOCKERFILE = "FROM scratch\nCOPY . /\n"


@dataclass(frozen=True)
class Case:
    """paths: files, with a final '/' folders. rules: of the context; own: beside the Dockerfile, None for no file."""

    paths: tuple[str, ...]
    rules: str
    own: str | None

    def write(self, folder: Path) -> None:
        context, beside = folder / "context", folder / "dockerfile"
        for path in ("context/", "dockerfile/", *(f"context/{path}" for path in self.paths)):
            place = folder / path
            (place if path.endswith("/") else place.parent).mkdir(parents=True, exist_ok=True)
            if path.endswith("link"):
                place.symlink_to("nowhere/at/all")
            elif not path.endswith("/"):
                place.write_text(path)
                place.chmod(0o755 if len(path) % 2 else 0o640)
        (context / ".dockerignore").write_text(self.rules)
        (beside / "Dockerfile").write_text(DOCKERFILE)
        if self.own is not None:
            (beside / "Dockerfile.dockerignore").write_text(self.own)


def made_up(seed: int) -> Case:
    chance = random.Random(seed)
    paths = []
    for _ in range(chance.randint(3, 14)):
        parts = [chance.choice(NAMES[:9]) + "_" * (depth == 0) for depth in range(chance.randint(0, 3))]
        paths.append("/".join([*parts, chance.choice((*(f"{name}" for name in NAMES), "link"))]))
        if chance.random() < 0.15:
            paths[-1] += "/"
    folders = {path.rsplit("/", cut)[0] for path in paths for cut in range(1, path.count("/") + 1)}
    kept = tuple(dict.fromkeys(path for path in paths if path.rstrip("/") not in folders or path.endswith("/")))
    return Case(kept, rules(chance, kept), rules(chance, kept) if chance.random() < 0.2 else None)


def rules(chance: random.Random, paths: tuple[str, ...]) -> str:
    broad = (*(path.split("/")[0] for path in paths), "*", "**", "*_", "**/*.py", "*/*", "**/[a-c]*", ".*")
    lines = [chance.choice(broad)] if chance.random() < 0.7 else []
    for _ in range(chance.randint(1, 6)):
        if chance.random() < 0.4:
            parts = chance.choice(paths).strip("/").split("/")
            for at in range(len(parts)):
                if chance.random() < 0.4:
                    parts[at] = chance.choice(PIECES)
            parts = parts[: chance.randint(1, len(parts))]
        else:
            parts = [chance.choice(PIECES) for _ in range(chance.randint(1, 3))]
        before = chance.choice(("", "", "", "/", "./", " ", "#" if chance.random() < 0.2 else ""))
        after = chance.choice(("", "", "", "/", " ", "\r", "/."))
        lines.append(chance.choice(("", "", "!", "!", "! ")) + before + "/".join(parts) + after)
    return chance.choice(("", "", "\ufeff")) + "\n".join(lines)


NAMED = {
    "an exception below an ignored folder": Case(("a/b/c.py", "a/b/d.go"), "*\n!**/*.py", None),
    "the file beside the Dockerfile wins": Case(("a", "b"), "a", "b"),
    "an empty file beside the Dockerfile": Case(("a", "b"), "a", ""),
    "everything ignored": Case(("a", "b/c"), "*", None),
    "empty folders are kept": Case(("a/", "b/c/"), "x", None),
    "an ignored empty folder": Case(("a/", "b"), "a/", None),
    "the last rule wins": Case(("a", "b"), "a\n!a\nb\n!b\nb", None),
    "braces and bars keep their meaning": Case(("ab", "b", "aab", "cb"), "a{2}?\nx*|cb", None),
    "an unfinished set is refused": Case(("a",), "[a", None),
    "nothing behind the exclamation mark is refused": Case(("a",), "a\n!", None),
    "a trailing backslash is refused": Case(("a",), "a\\", None),
    "a range without an end is refused": Case(("a",), "[a-]", None),
    "comments may not be indented": Case(("a", "# a"), " # a\n#a", None),
    "an exception from above the top ignores": Case(("a", "b/c"), "!../b", None),
    "an exclamation mark behind a slash is one": Case(("a", "!a"), "*\n/!a", None),
    "a rule for the top": Case(("a",), "/\n.\n", None),
}

FOR_BUILDAH = {
    "a file name": Case(("a", "b", "c/a"), "a", None),
    "a folder": Case(("node_modules/x/y", "b"), "node_modules/", None),
    "an ending": Case(("a.md", "b/c.md", "d"), "*.md\n**/*.md", None),
    "a folder at any depth": Case(("a/node_modules/x", "node_modules/y", "z"), "**/node_modules", None),
    "all but some": Case(("a/b/c", "d", "e/f"), "*\n!a\n!d", None),
    "an exception below": Case(("a/b/c", "a/d"), "a\n!a/b", None),
    "a folder at any depth, and an exception": Case(("a/b/node_modules/x", "z"), "**/node_modules\n!z", None),
    "a byte order mark": Case(("a", "b"), "\ufeffa\nb", None),
    "beside the Dockerfile": Case(("a", "b"), "b", "a"),
}
MORE_COUNTS = {"beside the Dockerfile"}


def ours(folder: Path, family: str = BUILDKIT) -> Mapping[str, str] | None:
    """Path → what is there; None where the rules are refused."""
    try:
        entries = build_context(folder / "context", folder / "dockerfile" / "Dockerfile", family)
    except BadCatalogue:
        return None
    shown = {Kind.FILE: "file", Kind.FOLDER: "folder"}
    return {
        one.path: f"link {one.target}" if one.kind is Kind.LINK else shown[one.kind] + " x" * one.executable
        for one in entries
    }


def packed(content: bytes) -> Iterator[tuple[str, str]]:
    with tarfile.open(fileobj=io.BytesIO(content)) as tar:
        for member in tar:
            executable = " x" if member.mode & 0o100 else ""
            shown = "folder" if member.isdir() else f"link {member.linkname}" if member.issym() else f"file{executable}"
            yield member.name.rstrip("/"), shown


@dataclass(frozen=True)
class BuildKit:
    buildctl: Path
    address: str

    def alone(self, folder: Path) -> Mapping[str, str] | None:
        done = self._build(folder / "context", folder / "dockerfile", [])
        if done.returncode:
            assert b"pattern" in done.stderr, done.stderr.decode()
            return None
        return dict(packed(done.stdout))

    def together(self, folders: Sequence[Path]) -> list[Mapping[str, str]]:
        """Every folder's context in a folder of one image."""
        main = folders[0].with_name(f"{folders[0].name}-and-more")
        main.mkdir()
        copies = [f"COPY --from=c{at} . /c{at}/\n" for at in range(len(folders))]
        (main / "Dockerfile").write_text("".join(["FROM scratch\n", *copies]))
        options = []
        for at, folder in enumerate(folders):
            options += [f"--local=c{at}={folder / 'context'}", f"--opt=context:c{at}=local:c{at}"]
        done = self._build(main, main, options)
        assert done.returncode == 0, done.stderr.decode()
        found: list[dict[str, str]] = [{} for _ in folders]
        for name, shown in packed(done.stdout):
            top, _, path = name.partition("/")
            if path:
                found[int(top[1:])][path] = shown
        return list(found)

    def _build(self, context: Path, dockerfile: Path, options: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        argv = [self.buildctl, "--addr", self.address, "build", "--progress=plain", "--frontend=dockerfile.v0"]
        argv += [f"--local=context={context}", f"--local=dockerfile={dockerfile}", "--output=type=tar", *options]
        return subprocess.run(argv, capture_output=True, check=False)


@pytest.fixture
def buildkit(engine_bin: Path, buildkitd: str) -> BuildKit:
    return BuildKit(engine_bin / "buildctl", buildkitd)


@pytest.fixture
def buildah(engine_bin: Path) -> str:
    program = shutil.which("buildah")
    assert program, "run scripts/setup-engines as root"
    return program


def test_our_reading_of_a_build_context_is_buildkits(buildkit: BuildKit, tmp_path: Path) -> None:
    cases = {**NAMED, **{f"seed {SEED + at}": made_up(SEED + at) for at in range(ALONE)}}
    folders = [tmp_path / str(at) for at in range(len(cases))]
    for case, folder in zip(cases.values(), folders, strict=True):
        case.write(folder)
    with ThreadPoolExecutor(THREADS) as threads:
        theirs = list(threads.map(buildkit.alone, folders))
    different = [
        (*case, mine, its)
        for case, folder, its in zip(cases.items(), folders, theirs, strict=True)
        if (mine := ours(folder)) != its
    ]
    assert not different
    assert sum(case.own is not None for case in cases.values()) >= 4


def test_our_reading_of_a_thousand_contexts_is_buildkits(buildkit: BuildKit, tmp_path: Path) -> None:
    cases, refused, at = {}, {}, SEED
    while len(cases) < TOGETHER:
        at += 1
        made = made_up(at)
        case = replace(made, rules=made.rules if made.own is None else made.own, own=None)
        folder = tmp_path / str(at)
        case.write(folder)
        (cases if ours(folder) is not None else refused)[folder] = case
    folders = list(cases)
    lots = [folders[first : first + LOT] for first in range(0, len(folders), LOT)]
    with ThreadPoolExecutor(THREADS) as threads:
        theirs = [one for lot in threads.map(buildkit.together, lots) for one in lot]
        accepted = [
            case for case, its in zip(refused.values(), threads.map(buildkit.alone, refused)) if its is not None
        ]
    different = [
        (folder.name, cases[folder], mine, its)
        for folder, its in zip(folders, theirs, strict=True)
        if (mine := ours(folder)) != its
    ]
    assert not different
    assert not accepted, "what we refuse, BuildKit refuses"


def test_nothing_that_buildah_copies_is_missed(buildah: str, tmp_path: Path) -> None:
    cases = {**NAMED, **FOR_BUILDAH, **{f"seed {SEED + at}": made_up(SEED + at) for at in range(BUILDAHS)}}
    folders = [tmp_path / str(at) for at in range(len(cases))]
    for case, folder in zip(cases.values(), folders, strict=True):
        case.write(folder)

    def copied(folder: Path) -> Mapping[str, str]:
        """None of the files where the rules are refused: then there is no image."""
        argv = [buildah, "--root", tmp_path / "root", "--runroot", tmp_path / "runroot", "--storage-driver=vfs", "bud"]
        argv += ["--isolation=chroot", "--quiet", f"--output=type=tar,dest={folder / 'image.tar'}"]
        argv += ["--file", folder / "dockerfile" / "Dockerfile", folder / "context"]
        done = subprocess.run(argv, capture_output=True, check=False)
        if done.returncode:
            assert b"pattern" in done.stderr or b"processing excludes" in done.stderr, done.stderr.decode()
            return {}
        return dict(packed((folder / "image.tar").read_bytes()))

    with ThreadPoolExecutor(THREADS) as threads:
        theirs = list(threads.map(copied, folders))
    counted = [ours(folder, BUILDAH) for folder in folders]
    missed = [
        (*case, its.items() - mine.items())
        for case, mine, its in zip(cases.items(), counted, theirs, strict=True)
        if mine is not None and its.items() - mine.items()
    ]
    assert not missed
    for name in FOR_BUILDAH:
        at = list(cases).index(name)
        assert (counted[at] == theirs[at]) == (name not in MORE_COUNTS), name
    exact = sum(mine == its for mine, its in zip(counted, theirs, strict=True))
    print(f"\nof {len(cases)} contexts buildah copies all that counts from {exact}")


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_a_made_up_case_is_always_the_same(seed: int) -> None:
    assert made_up(seed) == made_up(seed)
