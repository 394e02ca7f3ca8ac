"""Projects in a folder: settings, tools, the checks, and the line that loads the plugin."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from imagewright.shipped import CHECKS


def make_project(
    root: Path,
    *,
    registry: str,
    tools: Mapping[str, str],
    bases: Sequence[str] = (),
    platforms: Sequence[str] = ("linux/amd64", "linux/arm64"),
    settings: str = "",
) -> Path:
    """A project whose tools (name → version) have a `version.sh` and a `rootfs/` with one program.

    bases: configured ones; discovered from `bases` in the registry if none are given. settings: more TOML. Its
    repository is `own/tools`.
    """
    root.mkdir(parents=True, exist_ok=True)
    names = f"names = {_toml_list(bases)}" if bases else "discover = true"
    (root / "imagewright.toml").write_text(
        f'registry = "{registry}"\nrepository = "own/tools"\nplatforms = {_toml_list(platforms)}\n'
        f'bootstrap = true\n{settings}\n[bases]\nrepository = "own/bases"\n{names}\n'
    )
    (root / "conftest.py").write_text('pytest_plugins = ["imagewright.pytest_plugin"]\n')
    shutil.copytree(CHECKS, root / "checks", ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
    for tool, version in tools.items():
        make_tool(root, tool, version)
    return root


def make_tool(root: Path, name: str, version: str, yaml: str = "") -> Path:
    """A tool that says it has `version` and installs one program."""
    folder = root / "tools" / name
    program = folder / "rootfs" / "usr" / "local" / "bin" / name
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\necho {name}\n")
    program.chmod(0o755)
    set_version(root, name, version)
    if yaml:
        (folder / "tool.yaml").write_text(yaml)
    return folder


def make_image(root: Path, name: str, parent: str, yaml: str = "version: 1.0.0\n", *, literal: bool = False) -> Path:
    """A standalone image that adds one file to `parent`. literal: its FROM names the parent, instead of BASE_IMAGE."""
    folder = root / "images" / name
    (folder / "rootfs" / "etc").mkdir(parents=True, exist_ok=True)
    (folder / "rootfs" / "etc" / name).write_text(f"{name}\n")
    start = f"FROM {parent}\n" if literal else f"ARG BASE_IMAGE={parent}\nFROM ${{BASE_IMAGE}}\n"
    (folder / "Dockerfile").write_text(f"{start}COPY rootfs/ /\n")
    (folder / "image.yml").write_text(yaml)
    return folder


def set_version(root: Path, name: str, version: str) -> None:
    """A release: from now on the tool says it has `version`."""
    (root / "tools" / name / "version.sh").write_text(f"#!/bin/bash\necho {version}\n")


def _toml_list(texts: Sequence[str]) -> str:
    return "[" + ", ".join(f'"{one}"' for one in texts) + "]"
