"""A report, a plan and a snapshot that are not whole any more: cut at every byte, changed at every place, never believed."""

import copy
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from imagewright import plan, report, snapshot
from imagewright.errors import BadReport
from imagewright.testing.projects import make_project
from imagewright.testing.registry import Registry
from tests.vicious import publish

STATE = ".imagewright"
PROGRAM = [sys.executable, "-c", "from imagewright.cli import run; run()"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project after a run with something fresh, stale and unknown, and its plan."""
    root = tmp_path_factory.mktemp("cuts")
    with Registry(root / "registry") as registry:
        publish(registry.sink, ["codex", "crush"], ["fedora"], old=["crush-fedora"])
        made = make_project(
            root / "project", registry=registry.address, tools={"codex": "1.0", "crush": "1.0"}, bases=["fedora"]
        )
        subprocess.run([sys.executable, "-m", "pytest", "checks/", "-q"], cwd=made, capture_output=True, check=False)
        ended = subprocess.run([*PROGRAM, "plan"], cwd=made, capture_output=True, check=False)
    assert ended.returncode == 10, ended
    return made


Parse = Callable[[bytes], object]
FILES: dict[str, Parse] = {
    "report.json": lambda content: report.parse(content, "report.json"),
    "plan.json": lambda content: plan.parse(content, "plan.json"),
    "snapshot.json": lambda content: snapshot.load(content, "snapshot.json"),
}


def refused(parse: Parse, content: bytes) -> bool:
    """Whether it is refused by name; anything but that is an error of its own."""
    try:
        parse(content)
    except BadReport:
        return True
    return False


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_any_byte_is_none(project: Path, name: str) -> None:
    whole = (project / STATE / name).read_bytes()
    end = len(whole.rstrip())  # a final newline says nothing
    believed = [at for at in range(end) if not refused(FILES[name], whole[:at])]
    print(f"\n{name}: {end} cuts")
    assert not refused(FILES[name], whole)
    assert believed == []


def places(node: object, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document."""
    if path:
        yield path
    if isinstance(node, dict):
        for name, inner in node.items():
            yield from places(inner, (*path, name))
    elif isinstance(node, list):
        for at, inner in enumerate(node):
            yield from places(inner, (*path, at))


OTHERS: tuple[object, ...] = (None, True, 0, -1, 10**6, "", "fresh", "stale", "unknown", [], {}, [[]], 1.5)


def mutated(document: dict[str, Any]) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """Documents in which one place is gone, another value, or stands twice."""
    for path in places(document):
        parent = document
        for step in path[:-1]:
            parent = parent[step]
        value = parent[path[-1]]
        for other in OTHERS:
            if other != value or type(other) is not type(value):
                yield path, _with(document, path, lambda holder, key, other=other: holder.__setitem__(key, other))  # type: ignore[misc]
        yield path, _with(document, path, lambda holder, key: holder.pop(key))
        if isinstance(parent, list):
            yield path, _with(document, path, lambda holder, key: holder.insert(key, copy.deepcopy(holder[key])))


def _with(document: dict[str, Any], path: tuple[Any, ...], change: Callable[[Any, Any], object]) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    holder: Any = changed
    for step in path[:-1]:
        holder = holder[step]
    change(holder, path[-1])
    return changed


@pytest.mark.parametrize("name", ["report.json", "plan.json"])
def test_a_file_changed_anywhere_is_none(project: Path, name: str) -> None:
    whole = json.loads((project / STATE / name).read_bytes())
    count, believed = 0, []
    for path, changed in mutated(whole):
        count += 1
        if not refused(FILES[name], json.dumps(changed).encode()):
            believed.append(path)
    print(f"\n{name}: {count} changes")
    assert believed == []


@pytest.mark.parametrize("name", ["report.json"])
def test_a_changed_report_is_no_plan(project: Path, name: str) -> None:
    """A sample through the command itself."""
    file = project / STATE / name
    whole = file.read_bytes()
    changes = list(mutated(json.loads(whole)))
    try:
        for _, changed in changes[:: len(changes) // 12]:
            file.write_bytes(json.dumps(changed).encode())
            ended = subprocess.run([*PROGRAM, "plan"], cwd=project, capture_output=True, text=True, check=False)
            assert (ended.returncode, "Traceback" in ended.stderr) == (50, False), ended.stderr
            assert not (project / STATE / "plan.json").exists()
    finally:
        file.write_bytes(whole)
        assert subprocess.run([*PROGRAM, "plan"], cwd=project, capture_output=True, check=False).returncode == 10
