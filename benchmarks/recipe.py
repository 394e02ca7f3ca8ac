"""How long the recipe of 20,000 files takes, 200 MB in all: unknown, known, and with one file changed. Medians of five.

    .venv/bin/python -m benchmarks.recipe [FOLDERS]

FOLDERS: how many, with a hundred files each.
"""

import os
import statistics
import sys
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


def measure(folders: int = FOLDERS) -> dict[str, float]:
    """What → seconds."""
    with tempfile.TemporaryDirectory(prefix="imagewright-recipe-") as folder:
        tool, known = _made(Path(folder) / "tool", folders), Path(folder) / "cache" / "file-digests"
        time.sleep(SETTLE)
        return {
            "unknown": _median(tool, known, lambda: known.unlink(missing_ok=True)),
            "known": _median(tool, known, lambda: None),
            "one changed": _median(tool, known, lambda: _change(tool.folder / "0" / "0")),
        }


def _made(folder: Path, folders: int) -> Tool:
    for outer in range(folders):
        (folder / str(outer)).mkdir(parents=True)
        for inner in range(FILES):
            (folder / str(outer) / str(inner)).write_bytes(os.urandom(BYTES))
    (folder / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nCOPY . /\n")
    return Tool(name="large", folder=folder, dockerfile=folder / "Dockerfile")


def _change(file: Path) -> None:
    file.write_bytes(os.urandom(BYTES))


def _median(tool: Tool, known: Path, before: Callable[[], None]) -> float:
    took = []
    for _ in range(RUNS):
        before()
        began = time.perf_counter()
        digests = FileDigests(known, now=time.time_ns())
        recipe(tool, BUILDKIT, digests=digests)
        digests.save()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    for what, seconds in measure(int(sys.argv[1]) if len(sys.argv) > 1 else FOLDERS).items():
        print(f"{what:<12} {seconds:.2f} s")
