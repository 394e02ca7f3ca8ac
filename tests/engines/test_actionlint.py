"""actionlint, which reads workflows as GitHub does: those of this repository, and those that `imagewright init` writes."""

import subprocess
from pathlib import Path

from imagewright.adopt import Wanted, carry_out, draft

ROOT = Path(__file__).parents[2]
UNKNOWN_TO_IT = 'unexpected key "cache-mode"'
"""GitHub has it since September 2026."""


def objections(program: Path, files: list[Path]) -> str:
    argv = [program, "-no-color", "-shellcheck=", "-pyflakes=", "-ignore", UNKNOWN_TO_IT, *files]
    return subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False).stdout


def test_actionlint_objects_to_none_of_our_workflows(engine_bin: Path) -> None:
    assert objections(engine_bin / "actionlint", sorted((ROOT / ".github" / "workflows").glob("*.yml"))) == ""


def test_actionlint_objects_to_no_workflow_of_a_new_project(engine_bin: Path, tmp_path: Path) -> None:
    carry_out(tmp_path, draft(tmp_path, Wanted(), None, {}, "0.1.0"))
    files = sorted((tmp_path / ".github" / "workflows").glob("*.yml"))
    assert [file.name for file in files] == ["build-all.yml", "build-tool.yml", "build.yml", "plan.yml"]
    assert objections(engine_bin / "actionlint", files) == ""
