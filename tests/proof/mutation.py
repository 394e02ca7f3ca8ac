"""Changes the decision core in every small way and asks its unit tests: `mutation.py [MODULE…] [--json FILE]`.

Whatever no test objects to is explained in `survivors.md`, or this ends with 1; so it does for an explanation whose mutant
is gone. Works in a copy; the tree stays as it is.

mutmut changes the functions. It leaves out what runs at import, properties and the items of a table
(https://mutmut.readthedocs.io/en/latest/), and so just what a classifier consists of: statuses, retries, grammars, defaults.
These are changed here, with mutmut's operators and four of our own, each mutant in a forked process that imports the
module from the changed text. Examples that hypothesis draws do not count: tables alone must object, each time the same.
"""

import argparse
import contextlib
import gc
import importlib.abc
import importlib.util
import json
import multiprocessing
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from importlib.machinery import ModuleSpec
from multiprocessing import connection
from pathlib import Path
from types import ModuleType
from typing import Any

import hypothesis.strategies  # noqa: F401  # the forked processes need not import it
import libcst as cst
import pytest
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).parents[2]
SURVIVORS = Path(__file__).with_name("survivors.md")
CORE = {
    "answers": "imagewright/registry/answers.py",
    "verdict": "imagewright/verdict.py",
    "plan": "imagewright/plan.py",
    "tags": "imagewright/tags.py",
    "names": "imagewright/names.py",
}
TESTS = [f"tests/test_{name}.py" for name in CORE]
PYTEST = ["-m", "not hypothesis", "-p", "no:cacheprovider", "-p", "no:unraisableexception", "-p", "no:threadexception"]
"""Without the two last, which collect garbage after each run, it takes little more than half of its time."""
NEEDED = ["imagewright", "checks", "conftest.py", "pyproject.toml", "tests/conftest.py", *TESTS]
CPU_SECONDS = 20
AT_ONCE = os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change. place: the function, or empty. diff: lines with `-` or `+` in front, without their indentation."""

    module: str
    place: str
    diff: str


def functions_changed(module: str, folder: Path) -> Iterator[tuple[Mutant, str]]:
    """Every change that mutmut makes, and what became of it: killed, survived, no tests, timeout, …"""
    from mutmut.mutation.diff_apply import get_diff_for_mutant  # it reads the settings of the folder it is in

    dotted = CORE[module].removesuffix(".py").replace("/", ".")
    _mutmut(folder, "run", "--max-children", str(AT_ONCE), f"{dotted}.*")
    for line in _mutmut(folder, "results", "--all", "True").splitlines():
        name, _, status = line.strip().partition(": ")
        if matched := re.fullmatch(rf"{re.escape(dotted)}\.x(?:ǁ(\w+)ǁ|_)(\w+)__mutmut_\d+", name):
            place = ".".join(part for part in matched.groups() if part)
            diff = "" if status == "killed" else get_diff_for_mutant(name, path=CORE[module])
            yield Mutant(module, place, _changed_lines(diff.splitlines())), status


def _mutmut(folder: Path, *arguments: str) -> str:
    program = Path(sys.executable).with_name("mutmut")
    # The order in which a set is gone through must not decide what survives.
    environment = os.environ | {"PYTHONHASHSEED": "0"}
    ended = subprocess.run(
        [program, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(f"mutmut {arguments[0]} ended with {ended.returncode}:\n{ended.stdout[-2000:]}{ended.stderr}")
    return ended.stdout


def _changed_lines(lines: Iterable[str]) -> str:
    kept = [line for line in lines if re.match(r"[-+](?![-+])", line)]
    return "\n".join(f"{line[0]} {line[1:].strip()}" for line in kept)


class _Left(cst.CSTVisitor):
    """Finds what mutmut leaves out. here: (node, its function or an empty text, whether mutmut changes it as well)."""

    def __init__(self) -> None:
        self.here: list[tuple[cst.CSTNode, str, bool]] = []
        self.names: list[str] = []
        self.by_mutmut = 0

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Decorator | cst.Annotation | cst.AssignTarget | cst.Import | cst.ImportFrom):
            return False
        if isinstance(node, cst.Call | cst.Subscript) and _named(node) in ("NewType", "TypeVar", "Literal"):
            return False
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.names.append(node.name.value)
        if isinstance(node, cst.FunctionDef):
            self.by_mutmut += _changed_by_mutmut(node)
        self.here.append((node, ".".join(self.names), self.by_mutmut > 0))
        return True

    def on_leave(self, node: cst.CSTNode) -> None:
        if isinstance(node, cst.FunctionDef | cst.ClassDef):
            self.names.pop()
        if isinstance(node, cst.FunctionDef):
            self.by_mutmut -= _changed_by_mutmut(node)


def _named(node: cst.Call | cst.Subscript) -> str:
    name = node.func if isinstance(node, cst.Call) else node.value
    return name.value if isinstance(name, cst.Name) else ""


def _changed_by_mutmut(node: cst.FunctionDef) -> bool:
    names = [one.decorator.value for one in node.decorators if isinstance(one.decorator, cst.Name)]
    return not node.decorators or names in (["classmethod"], ["staticmethod"])


def without_an_item(node: cst.Set | cst.List | cst.Tuple | cst.Dict) -> Iterator[cst.CSTNode]:
    """A table, each time without one of its items."""
    for at in range(len(node.elements)):
        if rest := [*node.elements[:at], *node.elements[at + 1 :]]:
            yield node.with_changes(elements=rest)


def another_grammar(node: cst.SimpleString | cst.FormattedStringText) -> Iterator[cst.CSTNode]:
    """A regular expression with one repetition, alternative, range, anchor, escape or number changed."""
    if isinstance(node, cst.SimpleString) and not node.prefix.startswith("r"):
        return
    for token in _TOKEN.finditer(node.value):
        text = token[0]
        instead = [str(int(text) + 1), str(max(int(text) - 1, 0))] if text.isdecimal() else [_INSTEAD.get(text, "")]
        for new in instead:
            yield node.with_changes(value=node.value[: token.start()] + new + node.value[token.end() :])


_TOKEN = re.compile(r"\\[Z.]|[*+|]|(?<!\()\?|(?<![-\[\d])\d+(?![-\d])|(?<=\w)-(?=\w)")
_INSTEAD = {"\\.": ".", "*": "+"}


def condition_forced(node: cst.If) -> Iterator[cst.CSTNode]:
    """A rule that never applies, and one that always does; a name that the condition binds stays bound."""
    test = node.test.with_changes(lpar=[cst.LeftParen()], rpar=[cst.RightParen()])
    for operator, literal in ((cst.And(), "False"), (cst.Or(), "True")):
        yield node.with_changes(test=cst.BooleanOperation(left=test, operator=operator, right=cst.Name(literal)))


def statement_left_out(node: cst.SimpleStatementLine) -> Iterator[cst.CSTNode]:
    """A call or a `raise` that is not made."""
    if isinstance(node.body[0], cst.Raise) or (
        isinstance(node.body[0], cst.Expr) and isinstance(node.body[0].value, cst.Call)
    ):
        yield node.with_changes(body=[cst.Pass()])


OWN: list[tuple[Any, Any]] = [
    (cst.Set | cst.List | cst.Tuple | cst.Dict, without_an_item),
    (cst.SimpleString | cst.FormattedStringText, another_grammar),
    (cst.If, condition_forced),
    (cst.SimpleStatementLine, statement_left_out),
]


def rest_changed(module: str) -> Iterator[tuple[Mutant, str]]:
    """Every change that mutmut does not make, and the module's text with it."""
    source = (ROOT / CORE[module]).read_text()
    tree, left = cst.parse_module(source), _Left()
    tree.visit(left)
    for node, place, by_mutmut in left.here:
        for kind, operator in OWN if by_mutmut else [*OWN, *mutation_operators]:
            for new in operator(node) if isinstance(node, kind) else ():
                text = tree.deep_replace(node, new).code
                if text != source:
                    diff = unified_diff(source.splitlines(), text.splitlines(), n=0, lineterm="")
                    yield Mutant(module, place, _changed_lines(diff)), text


class _Changed(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from another text."""

    def __init__(self, module: str, text: str) -> None:
        self.name, self.text = CORE[module].removesuffix(".py").replace("/", "."), text

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return importlib.util.spec_from_loader(name, self) if name == self.name else None

    def get_source(self, fullname: str) -> str:
        return self.text


def _test(module: str, text: str) -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    sys.meta_path.insert(0, _Changed(module, text))
    own = f"tests/test_{module}.py"
    # Without its rewriting of asserts and our plugin pytest starts in a quarter of the time.
    ended = (
        pytest.main([*PYTEST, "--assert=plain", "--noconftest", "-x", *tests])
        for tests in ([own], [one for one in TESTS if one != own])
    )
    sys.exit(next((code for code in ended if code), 0))


def fates(module: str, mutants: Iterable[tuple[Mutant, str]]) -> Iterator[tuple[Mutant, str]]:
    """What becomes of each changed text: killed, survived or timeout."""
    fork, running = multiprocessing.get_context("fork"), {}
    jobs = iter(mutants)
    gc.freeze()  # what is here already need not be looked through in each forked process
    while True:
        while len(running) < AT_ONCE and (job := next(jobs, None)):
            process = fork.Process(target=_test, args=(module, job[1]))
            process.start()
            running[process.sentinel] = process, job[0]
        if not running:
            return
        for sentinel in connection.wait(list(running)):
            process, mutant = running.pop(sentinel)
            process.join()
            code = process.exitcode or 0
            yield mutant, "timeout" if code < 0 else "killed" if code else "survived"


def explained(text: str) -> set[Mutant]:
    """The mutants that `survivors.md` explains: `## module`, `### function`, a diff or several, then the reason."""
    found, module, place, unexplained = set(), "", "", []
    for part in re.split(r"(^```diff\n.*?^```\n|^##[^\n]*\n)", text, flags=re.MULTILINE | re.DOTALL):
        if heading := re.fullmatch(r"(##|###) (\S+)\n", part):
            module, place = (heading[2], "") if heading[1] == "##" else (module, heading[2])
        elif part.startswith("```diff"):
            unexplained.append(Mutant(module, place, part[8:-4].strip()))
        elif part.strip():
            found.update(unexplained)
            unexplained = []
    if unexplained:
        raise SystemExit(f"{SURVIVORS.name} gives no reason for:\n{_shown(unexplained[0], '')}")
    return found


def _shown(mutant: Mutant, status: str) -> str:
    place = f"### {mutant.place}\n" if mutant.place else ""
    return f"## {mutant.module}\n{place}```diff\n{mutant.diff}\n```\n{status}\n"


def copied(folder: Path) -> None:
    """Puts what the tests need into a folder, with mutmut's settings: it works where these are."""
    for name in NEEDED:
        origin, there = ROOT / name, folder / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if origin.is_dir():
            shutil.copytree(origin, there, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(origin, there)
    settings = {
        "source_paths": ["imagewright"],
        "only_mutate": list(CORE.values()),
        "also_copy": ["checks", "conftest.py"],
        "pytest_add_cli_args": PYTEST,
        "pytest_add_cli_args_test_selection": TESTS,
    }
    with (folder / "pyproject.toml").open("a") as file:
        file.write("\n[tool.mutmut]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items()))


def main() -> int:
    """The command."""
    arguments = argparse.ArgumentParser(prog="mutation.py", description="Mutates the decision core.")
    arguments.add_argument("modules", nargs="*", metavar="MODULE", help=f"of {', '.join(CORE)}; all by default")
    arguments.add_argument("--json", type=Path, metavar="FILE", help="the figures, a line of JSON a module")
    asked = arguments.parse_args()
    if unknown := sorted(set(asked.modules) - set(CORE)):
        arguments.error(f"there is no module {', '.join(unknown)}")
    reasons, lines, wrong = explained(SURVIVORS.read_text()), [], []
    print("| module | mutants | killed | survived | explained | unexplained | seconds |\n|---|---|---|---|---|---|---|")
    for module in asked.modules or CORE:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as name, contextlib.chdir(name):
            copied(Path(name))
            made = list(functions_changed(module, Path(name)))
        with contextlib.chdir(ROOT):
            # Where the tests fail by themselves, everything would seem to be killed.
            if [fate for _, fate in fates(module, [(Mutant(module, "", ""), Path(CORE[module]).read_text())])] != [
                "survived"
            ]:
                raise SystemExit(f"the tests fail where {CORE[module]} is as it is: pytest {' '.join(TESTS)}")
            made += fates(module, rest_changed(module))
        survived = {mutant: status for mutant, status in made if status != "killed"}
        here = {one for one in reasons if one.module == module}
        wrong += [_shown(one, status) for one, status in survived.items() if one not in here]
        wrong += [_shown(one, "is explained, but was killed or is no mutant any more") for one in here - set(survived)]
        figures = {
            "mutants": len(made),
            "killed": sum(status == "killed" for _, status in made),
            "survived": sum(status != "killed" for _, status in made),
            "explained": sum(mutant in here for mutant, status in made if status != "killed"),
            "unexplained": sum(mutant not in here for mutant, status in made if status != "killed"),
            "seconds": round(time.monotonic() - started, 1),
        }
        print(f"| {module} | {' | '.join(str(value) for value in figures.values())} |", flush=True)
        lines.append(json.dumps({"module": module} | figures))
    if asked.json:
        asked.json.write_text("".join(f"{line}\n" for line in lines))
    print(*(f"\n{one}" for one in wrong), sep="")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
