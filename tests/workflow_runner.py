"""Runs a workflow as a forge does, as far as ours go: jobs in order, each in a fresh clone, outputs, expressions, conditions.

An independent reading of the files: what jobs hand to each other is only what the files say.
https://docs.github.com/actions/reference/workflows-and-actions/expressions
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass
class Job:
    """How a job ended: `success`, `failure` or `skipped`; its outputs, what it printed and its summary."""

    result: str
    outputs: dict[str, str] = field(default_factory=dict)
    said: str = ""
    summary: str = ""


def read(file: Path) -> dict[str, Any]:
    """A workflow. YAML 1.1 takes the word `on` for a boolean."""
    document = yaml.safe_load(file.read_text())
    return {"on" if key is True else key: value for key, value in document.items()}


def run(
    workflow: dict[str, Any],
    project: Path,
    scratch: Path,
    environ: Mapping[str, str],
    context: Mapping[str, Any],
    leave_out: frozenset[str] = frozenset(),
) -> dict[str, Job]:
    """Runs all jobs but those left out, which count as skipped. environ: of the runner. context: inputs, github, …."""
    done: dict[str, Job] = {}
    for name, job in workflow["jobs"].items():
        before = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        assert set(before) <= set(done), f"{name} needs a job that does not stand before it"
        needs = {one: {"result": done[one].result, "outputs": done[one].outputs} for one in before}
        known = {**context, "needs": needs}
        if name in leave_out or not _is_wanted(job.get("if"), known):
            done[name] = Job("skipped", job.get("outputs", {}))  # as they stand there: so does Gitea
            continue
        done[name] = _run_job(job, project, scratch / name, environ, known)
    return done


def _is_wanted(condition: str | None, known: Mapping[str, Any]) -> bool:
    text = (condition or "").strip().removeprefix("${{").removesuffix("}}")
    fine = all(one["result"] == "success" for one in known["needs"].values())
    if "cancelled()" not in text:  # without a status function a job runs after success only
        return fine and bool(evaluate(text, known) if text else True)
    return bool(evaluate(text, known))


def _run_job(
    job: dict[str, Any], project: Path, clone: Path, environ: Mapping[str, str], known: Mapping[str, Any]
) -> Job:
    made = Job("success")
    steps: dict[str, Any] = {}
    for step in job["steps"]:
        if "run" not in step:
            if step["uses"].startswith("actions/checkout@"):
                shutil.copytree(project, clone)
            continue
        files = {name: clone.parent / f"{clone.name}-{name}" for name in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY")}
        for file in files.values():
            file.write_bytes(b"")
        own = {name: fill(str(value), known) for name, value in step.get("env", {}).items()}
        ended = subprocess.run(
            ["bash", "-e", "-c", step["run"]],
            cwd=clone if clone.exists() else clone.parent,
            env={**environ, "GITHUB_ACTIONS": "true", **{name: str(file) for name, file in files.items()}, **own},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=100,
            check=False,
        )
        made.said += ended.stdout
        made.summary += files["GITHUB_STEP_SUMMARY"].read_text()
        lines = files["GITHUB_OUTPUT"].read_text().splitlines()
        steps[step.get("id", "")] = {"outputs": dict(line.split("=", 1) for line in lines)}
        if ended.returncode:
            made.result = "failure"
            break
    with_steps = {**known, "steps": steps}
    made.outputs = {name: fill(value, with_steps) for name, value in job.get("outputs", {}).items()}
    return made


def fill(text: str, known: Mapping[str, Any]) -> str:
    """A text with its expressions replaced."""
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: _told(evaluate(found[1], known)), text, flags=re.DOTALL)


def _told(value: Any) -> str:
    return {True: "true", False: "false", None: ""}.get(value, str(value)) if not isinstance(value, str) else value


def evaluate(expression: str, known: Mapping[str, Any]) -> Any:
    """The value of an expression, by way of Python's own."""
    words = {"&&": " and ", "||": " or ", "!": " not ", "==": "==", "!=": "!="}
    text = ""
    for literal, name, sign, rest in re.findall(r"('[^']*')|([A-Za-z][\w.-]*)|(&&|\|\||==|!=|!)|(\S)", expression):
        if name in ("true", "false"):
            text += str(name == "true")
        elif name in ("format", "startsWith", "cancelled"):
            text += name
        else:
            text += f"at({name!r})" if name else literal or words.get(sign, "") or rest
    return eval(text, _FUNCTIONS | {"at": lambda path: _at(path, known)})


def _at(path: str, known: Mapping[str, Any]) -> Any:
    value: Any = known
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return "" if value is None else value


_FUNCTIONS = {
    "__builtins__": {},
    "format": lambda text, *values: text.format(*values),
    "startsWith": lambda text, start: str(text).lower().startswith(start.lower()),
    "cancelled": lambda: False,
}


def environment(home: Path) -> dict[str, str]:
    """What a runner gives to every step here."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "TMPDIR": os.environ.get("TMPDIR", "/tmp")}
