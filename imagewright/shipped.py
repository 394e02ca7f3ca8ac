"""What comes with the package for the projects of its users: checks, the recipe of tools that have none, workflows.

In the package it is a folder `project/`, made when the package is built; in a source checkout it is the checkout itself.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE / "project" if (_PACKAGE / "project").is_dir() else _PACKAGE.parent

CHECKS = _ROOT / "checks"
RECIPE = ("tools/Dockerfile", "tools/Dockerfile.dockerignore")
WORKFLOWS = tuple(f".github/workflows/{name}.yml" for name in ("plan", "build", "build-tool", "build-all"))
STEPS = "scripts/workflow"
"""What the workflows run. A line of it says how this repository gets its environment; a project gets another one there."""


def shipped() -> dict[str, bytes]:
    """Each file that a project gets a copy of: its path in the project → its content."""
    checks = {f"checks/{file.name}": file for file in sorted(CHECKS.glob("*.py"))}
    others = {one: _ROOT / one for one in (*RECIPE, *WORKFLOWS, STEPS)}
    return {path: file.read_bytes() for path, file in (checks | others).items()}
