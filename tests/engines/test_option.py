"""Whether engine tests run is decided by `--engines` and by what is there; a test that did not run is named."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ENGINE_TEST = "tests/engines/test_engines.py::test_the_registry_answers"


@pytest.mark.parametrize(
    ("option", "exit_code", "lines"),
    [
        (
            "auto",
            0,
            ("not run: 1 test needs ", "crane, buildctl, buildkitd, docker-registry, ", f"\n  {ENGINE_TEST}\n"),
        ),
        ("off", 0, ("not run: 1 test needs engines, and --engines is off\n", f"\n  {ENGINE_TEST}\n")),
        (
            "required",
            1,
            ("needs ", "crane, buildctl, buildkitd, docker-registry, ", ": run scripts/setup-engines as root\n"),
        ),
    ],
)
def test_without_engines(tmp_path: Path, option: str, exit_code: int, lines: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "pytest", ENGINE_TEST, f"--engines={option}", "-p", "no:cacheprovider"]
    done = subprocess.run(
        argv,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTEST_ADDOPTS": ""},
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == exit_code, done.stdout
    assert [line for line in lines if line not in done.stdout] == [], done.stdout
    assert not list(tmp_path.iterdir())
