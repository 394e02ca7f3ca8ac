"""How long the recipe of 20,000 files takes, 200 MB in all: unknown, known, and with one file changed. Medians of five.

.venv/bin/python benchmarks/recipe.py
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from imagewright.catalogue import Tool
from imagewright.digests import FileDigests
from imagewright.recipe import BUILDKIT, recipe

FOLDERS, FILES, BYTES = 200, 100, 10_000
RUNS = 5
SETTLE = 2.5
"""Seconds after which a file that was just written is remembered."""


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="imagewright-recipe-") as folder:
        tool, known = _made(Path(folder) / "tool"), Path(folder) / "cache" / "file-digests"
        time.sleep(SETTLE)
        _tell("unknown", tool, known, lambda: known.unlink(missing_ok=True))
        _tell("known", tool, known, lambda: None)
        _tell("one changed", tool, known, lambda: _change(tool.folder / "0" / "0"))


def _made(folder: Path) -> Tool:
    for outer in range(FOLDERS):
        (folder / str(outer)).mkdir(parents=True)
        for inner in range(FILES):
            (folder / str(outer) / str(inner)).write_bytes(os.urandom(BYTES))
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY . /\n")
    return Tool(name="large", folder=folder, dockerfile=folder / "Dockerfile")


def _change(file: Path) -> None:
    file.write_bytes(os.urandom(BYTES))


def _tell(what: str, tool: Tool, known: Path, before: Callable[[], None]) -> None:
    took, digests = [], FileDigests()
    for _ in range(RUNS):
        before()
        began = time.perf_counter()
        digests = FileDigests(known, now=time.time_ns())
        recipe(tool, BUILDKIT, digests=digests)
        digests.save()
        took.append(time.perf_counter() - began)
    print(f"{what:<12} {statistics.median(took):.2f} s, {digests.read} files read")


if __name__ == "__main__":
    main()
