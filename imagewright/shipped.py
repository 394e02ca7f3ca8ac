"""What comes with the package for the projects of its users: the checks, and the recipe of tools that have none of their own.

In the package it is a folder `project/`, made when the package is built; in a source checkout it is the checkout itself.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent
_ROOT = _PACKAGE / "project" if (_PACKAGE / "project").is_dir() else _PACKAGE.parent

CHECKS = _ROOT / "checks"
RECIPE = ("tools/Dockerfile", "tools/Dockerfile.dockerignore")


def shipped() -> dict[str, bytes]:
    """Each file that a project gets a copy of: its path in the project → its content."""
    checks = {f"checks/{file.name}": file for file in sorted(CHECKS.glob("*.py"))}
    return {path: file.read_bytes() for path, file in (checks | {one: _ROOT / one for one in RECIPE}).items()}
