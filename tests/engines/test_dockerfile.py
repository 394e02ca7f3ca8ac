"""What our scanner says a Dockerfile is built on is what BuildKit looks for when it checks it.

Every name there is stands for an empty folder here; BuildKit tells whose .dockerignore it loads.
"""

import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from imagewright.dockerfile import SCRATCH, parents
from imagewright.errors import BadCatalogue
from tests.test_dockerfile import GIVEN, REFUSED, TABLE

ONLY_OURS = ("not understood", "is empty", "from takes no variables")
NAMES = sorted({name for _, final, _, _, others in TABLE.values() for name in (final, *others)} - {SCRATCH})
ELSEWISE = {"only an earlier stage is one", "the last of two stages of one name", "an unused stage"}
"""A folder given for a name also stands in for the stage of that name, and stages that are not needed are not looked at."""
PROVABLE = {name: one for name, one in TABLE.items() if name not in ELSEWISE}
LOADED = re.compile(r"^#\d+ \[context (\S+)\] load \.dockerignore$", re.MULTILINE)


def checked(buildctl: Path, address: str, text: str, folder: Path) -> set[str] | None:
    """The names that BuildKit looks for; None where it refuses the file."""
    (folder / "nothing").mkdir(parents=True)
    (folder / "Dockerfile").write_bytes(text.encode())
    argv = [buildctl, "--addr", address, "build", "--progress=plain", "--frontend=dockerfile.v0"]
    argv += [
        f"--local=context={folder / 'nothing'}",
        f"--local=dockerfile={folder}",
        "--opt=requestid=frontend.outline",
    ]
    argv += [f"--opt=build-arg:{name}={value}" for name, value in GIVEN.items()]
    stages = {name.lower() for name in re.findall(r"\sAS\s+(\S+)", text, re.IGNORECASE)}
    for at, name in enumerate(name for name in NAMES if name not in stages):
        argv += [f"--local=c{at}={folder / 'nothing'}", f"--opt=context:{name}=local:c{at}"]
    done = subprocess.run(argv, capture_output=True, check=False, text=True)
    return None if done.returncode else set(LOADED.findall(done.stderr))


def test_our_parents_are_buildkits(engine_bin: Path, buildkitd: str, tmp_path: Path) -> None:
    def its(at: int, text: str) -> set[str] | None:
        return checked(engine_bin / "buildctl", buildkitd, text, tmp_path / str(at))

    texts = [text for text, *_ in PROVABLE.values()]
    with ThreadPoolExecutor(2) as threads:
        theirs = list(threads.map(its, range(len(texts)), texts))
    different = {}
    for name, text, found in zip(PROVABLE, texts, theirs, strict=True):
        made = parents(text, "Dockerfile", GIVEN)
        if {made.final, *made.others} - {SCRATCH} != found:
            different[name] = (text, made, found)
    assert not different, "\n".join(map(str, different.items()))


@pytest.mark.parametrize(("text", "problem"), REFUSED)
def test_what_we_refuse_buildkit_refuses(
    engine_bin: Path, buildkitd: str, tmp_path: Path, text: str, problem: str
) -> None:
    with pytest.raises(BadCatalogue):
        parents(text, "d", GIVEN)
    if not any(one in problem for one in ONLY_OURS):
        assert checked(engine_bin / "buildctl", buildkitd, text, tmp_path) is None
