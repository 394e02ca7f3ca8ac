"""The checks of a project: which there are, what each promises, and running them as a person would."""

import ast
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagewright import process, report
from imagewright.errors import BadReport
from imagewright.report import Report

FOLDER = "checks"
_SECONDS = 900.0


def promises(root: Path) -> dict[str, str]:
    """Check → what it promises, for all checks in a project, read from the source, by name.

    Read and not collected: what a run leaves out must not go unnoticed. SyntaxError where a file has one.
    """
    found = {}
    for file in sorted((root / FOLDER).rglob("test_*.py")):
        tree = ast.parse(file.read_bytes(), str(file))
        said = (ast.get_docstring(tree) or "").partition("\n\n")[0]
        found.update(
            {one.name: said for one in tree.body if isinstance(one, ast.FunctionDef) and one.name.startswith("test")}
        )
    return dict(sorted(found.items()))


def run(root: Path, arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> tuple[Report, bytes]:
    """Runs the checks of the project in `root`, which leave their files in `folder`; the report, parsed and as bytes.

    They ask for everything anew: who runs them from a program wants to know what is there now. `BadReport` where they did not
    leave a whole one.
    """
    file = folder / "report.json"
    argv = [sys.executable, "-m", "pytest", f"{FOLDER}/", "-q", "-p", "no:cacheprovider"]
    argv += ["--fresh", f"--json-report-file={file}"]
    env = {name: value for name, value in environ.items() if name != "PYTEST_ADDOPTS"}
    ended = process.run([*argv, *arguments], timeout=_SECONDS, env=env, cwd=root)
    try:
        content = file.read_bytes()
    except OSError:
        said = (ended.stderr or ended.stdout).decode("utf-8", "replace").strip().splitlines()
        raise BadReport(
            f"the checks left no report, they say: {' '.join(said[-3:])}", remedy="Run `pytest checks/` by hand."
        ) from None
    return report.parse(content, str(file)), content
