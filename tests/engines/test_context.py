"""What our reading of a build context leaves out and keeps is what BuildKit leaves out and keeps."""

import io
import random
import subprocess
import tarfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagewright.errors import BadCatalogue
from imagewright.recipe import Kind, build_context

CASES = 120
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


def ours(folder: Path) -> Mapping[str, str] | None:
    """Path → what is there; None where the rules are refused."""
    try:
        entries = build_context(folder / "context", folder / "dockerfile" / "Dockerfile")
    except BadCatalogue as error:
        return {} if "no build context" in error.reason else None
    shown = {Kind.FILE: "file", Kind.FOLDER: "folder"}
    return {
        one.path: f"link {one.target}" if one.kind is Kind.LINK else shown[one.kind] + " x" * one.executable
        for one in entries
    }


def buildkits(folder: Path, buildctl: Path, address: str) -> Mapping[str, str] | None:
    argv = [buildctl, "--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0"]
    argv += [f"--local=context={folder / 'context'}", f"--local=dockerfile={folder / 'dockerfile'}"]
    done = subprocess.run([*argv, "--output=type=tar"], capture_output=True, check=False)
    if done.returncode:
        assert b"pattern" in done.stderr, done.stderr.decode()
        return None
    found = {}
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as tar:
        for member in tar:
            executable = " x" if member.mode & 0o100 else ""
            shown = "folder" if member.isdir() else f"link {member.linkname}" if member.issym() else f"file{executable}"
            found[member.name.rstrip("/")] = shown
    return found


def test_our_reading_of_a_build_context_is_buildkits(engine_bin: Path, buildkitd: str, tmp_path: Path) -> None:
    cases = list(NAMED.items()) + [(f"seed {SEED + at}", made_up(SEED + at)) for at in range(CASES)]
    with ThreadPoolExecutor(4) as threads:
        futures = []
        for at, (name, case) in enumerate(cases):
            case.write(tmp_path / str(at))
            futures.append(
                (name, case, at, threads.submit(buildkits, tmp_path / str(at), engine_bin / "buildctl", buildkitd))
            )
        different = [
            (name, case, mine, theirs)
            for name, case, at, future in futures
            if (mine := ours(tmp_path / str(at))) != (theirs := future.result())
        ]
    assert not different
    assert len(cases) >= 100


@pytest.mark.parametrize("seed", [SEED, SEED + 1])
def test_a_made_up_case_is_always_the_same(seed: int) -> None:
    assert made_up(seed) == made_up(seed)
