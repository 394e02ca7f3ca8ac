"""The workflows are what a forge takes, are pinned, and have no more rights than they need; linters, and what these miss."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import workflow_runner

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
FILES = sorted(FOLDER.glob("*.yml"))
OURS = {file.name: workflow_runner.read(file) for file in FILES if file.name != "ci.yml"}
DISPATCHED = ("tool", "base", "target", "version", "base_digest", "reason", "key", "force")
"""The inputs that a dispatcher may give to build.yml."""

PERMISSIONS = {
    "plan.yml": {
        "versions": {"contents": "read"},
        "check": {"contents": "read", "packages": "read"},
        "plan": {"contents": "read"},
        "dispatch": {"contents": "read", "actions": "write"},
        "unknown": {},
    },
    "build.yml": {
        "versions": {"contents": "read"},
        "recheck": {"contents": "read", "packages": "read"},
        "amd64": {"contents": "read", "packages": "write"},
        "arm64": {"contents": "read", "packages": "write"},
        "publish": {"contents": "read", "packages": "write"},
        "verify": {"contents": "read", "packages": "read"},
        "attest": {"attestations": "write", "id-token": "write", "packages": "write"},
    },
    "build-tool.yml": {
        "versions": {"contents": "read"},
        "check": {"contents": "read", "packages": "read"},
        "plan": {"contents": "read"},
        "dispatch": {"contents": "read", "actions": "write"},
        "unknown": {},
    },
    "build-all.yml": {"all": {"contents": "read", "packages": "read", "actions": "write"}},
}


def jobs() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for file, document in OURS.items():
        for name, job in document["jobs"].items():
            yield file, name, job


def steps() -> Iterator[tuple[str, dict[str, Any]]]:
    for file, name, job in jobs():
        for step in job.get("steps", ()):
            yield f"{file}: {name}", step


# Linters


def linted(*argv: object) -> str:
    """What a linter objects to; empty for nothing."""
    program = Path(sys.executable).parent / str(argv[0])
    ended = subprocess.run([program, *argv[1:]], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    return "" if ended.returncode == 0 else ended.stdout + ended.stderr


def test_zizmor_objects_to_nothing() -> None:
    config = ROOT / ".github" / "zizmor.yml"
    assert linted("zizmor", "--offline", "--persona=auditor", "--quiet", f"--config={config}", *FILES) == ""


def test_the_schema_of_workflows_holds() -> None:
    assert linted("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *FILES) == ""


def test_shellcheck_objects_to_no_script() -> None:
    scripts = [one for one in sorted((ROOT / "scripts").iterdir()) if one.read_bytes().startswith(b"#!")]
    assert linted("shellcheck", "--external-sources", *scripts, ROOT / ".ci" / "run") == ""


@pytest.mark.parametrize("run", sorted({step["run"] for _, step in steps() if "run" in step}))
def test_shellcheck_objects_to_no_step(run: str, tmp_path: Path) -> None:
    (tmp_path / "step").write_text(f"#!/bin/bash\n{run}\n")
    assert linted("shellcheck", tmp_path / "step") == ""


# What linters do not see


def test_a_job_has_the_rights_that_are_listed_here_and_a_workflow_none() -> None:
    assert {file: document["permissions"] for file, document in OURS.items()} == {file: {} for file in PERMISSIONS}
    given: dict[str, Any] = {file: {} for file in PERMISSIONS}
    for file, name, job in jobs():
        given[file][name] = job["permissions"]
    assert given == PERMISSIONS


def test_who_calls_a_workflow_may_do_what_its_jobs_may() -> None:
    called = PERMISSIONS["build-tool.yml"].values()
    most = {
        name: "write" if any(one.get(name) == "write" for one in called) else "read" for one in called for name in one
    }
    assert PERMISSIONS["build-all.yml"]["all"] == most


def test_nothing_is_cached_and_nothing_that_runs_is_cut_off() -> None:
    for file, document in OURS.items():
        assert document["cache-mode"] == "none", file
        assert document["concurrency"]["cancel-in-progress"] is False, file
    for file, name, job in jobs():
        assert "concurrency" not in job, (file, name)
    assert OURS["plan.yml"]["concurrency"]["group"] == "plan"


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_action_is_pinned_and_says_its_version(file: Path) -> None:
    used = re.findall(r"^\s*(?:- )?uses: (.*)$", file.read_text(), re.MULTILINE)
    assert used
    for one in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", one) or one.startswith("./"), one


def test_each_action_has_one_pin() -> None:
    pins: dict[str, set[str]] = {}
    for file in FILES:
        for action, pin in re.findall(r"uses: ([\w/-]+)@(.*)$", file.read_text(), re.MULTILINE):
            pins.setdefault(action, set()).add(pin)
    assert {action: len(found) for action, found in pins.items()} == {"actions/checkout": 1, "actions/attest": 1}


def test_no_expression_gets_into_a_shell() -> None:
    assert [where for where, step in steps() if "${{" in step.get("run", "")] == []


def test_each_job_and_step_has_a_name_and_each_job_with_steps_an_end_and_a_named_machine() -> None:
    for file, name, job in jobs():
        assert job.get("name"), (file, name)
        if "uses" not in job:
            assert 1 <= job["timeout-minutes"] <= 360, (file, name)
            assert job["runs-on"] in ("ubuntu-24.04", "ubuntu-24.04-arm"), (file, name)
    assert [where for where, step in steps() if not step.get("name")] == []


def test_no_checkout_leaves_its_token_behind() -> None:
    checkouts = [step for _, step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkouts
    assert all(one["with"]["persist-credentials"] is False for one in checkouts)


def test_what_dispatches_runs_the_code_of_the_default_branch() -> None:
    for file in ("plan.yml", "build-tool.yml"):
        for job in OURS[file]["jobs"].values():
            for step in job["steps"]:
                if step.get("uses", "").startswith("actions/checkout@"):
                    assert step["with"]["ref"] == "${{ github.event.repository.default_branch || github.ref }}", file


def test_scripts_of_tools_run_without_any_secret() -> None:
    """They are run by `versions` alone: the other jobs are given what it read."""
    for file, name, job in jobs():
        if any(step.get("run") == "scripts/workflow versions" for step in job.get("steps", ())):
            assert not re.search(r"secrets\.|github\.token", json.dumps(job)), (file, name)


def test_secrets_and_the_job_token_reach_only_steps_that_need_them() -> None:
    for where, step in steps():
        if re.search(r"secrets\.|github\.token", json.dumps(step)):
            assert step["name"] in {
                "Check",
                "Recheck",
                "Dispatch",
                "Dispatch and follow",
                "Build and push by digest",
                "Publish",
                "Verify",
                "Log in",
            }, where


def test_jobs_need_jobs_that_there_are_and_read_outputs_that_they_have() -> None:
    for file, name, job in jobs():
        before = [job["needs"]] if isinstance(job.get("needs"), str) else job.get("needs", [])
        others = OURS[file]["jobs"]
        assert set(before) <= set(others), (file, name)
        for other, output in re.findall(r"needs\.(\w+)\.outputs\.(\w+)", json.dumps(job)):
            assert other in before, (file, name, other)
            assert output in others[other]["outputs"], (file, name, output)


def test_outputs_are_those_that_the_script_writes() -> None:
    written = set(
        re.findall(
            r"^ *(?:\[\[.*\|\| |.*then )?output (\w+) ", (ROOT / "scripts" / "workflow").read_text(), re.MULTILINE
        )
    )
    written |= {"amd64", "arm64"}  # by the platform's name
    written |= {
        f"{name}{part}" for name in ("versions", "report", "run", "plan") for part in ("", "_2", "_3")
    }  # `packed`
    for file, name, job in jobs():
        for expression in job.get("outputs", {}).values():
            step, output = re.fullmatch(r"\$\{\{ steps\.(\w+)\.outputs\.(\w+) \}\}", expression).groups()
            assert output in written, (file, name, output)
            assert any(one.get("id") == step for one in job["steps"]), (file, name, step)


def test_steps_are_those_that_the_script_has() -> None:
    script = (ROOT / "scripts" / "workflow").read_text()
    for where, step in steps():
        for verb in re.findall(r"scripts/workflow (\S+)", step.get("run", "")):
            assert f"step_{verb}() {{" in script, where


def test_each_expression_reads_an_input_that_is_declared() -> None:
    for file, document in OURS.items():
        trigger = document["on"]
        declared = (trigger.get("workflow_dispatch") or {}).get("inputs", {})
        assert set(re.findall(r"inputs\.(\w+)", (FOLDER / file).read_text())) <= set(declared), file
        if called := trigger.get("workflow_call"):
            assert called["inputs"] == declared, file
        assert len(declared) <= 25, file


def test_build_takes_what_a_dispatcher_gives() -> None:
    inputs = OURS["build.yml"]["on"]["workflow_dispatch"]["inputs"]
    assert tuple(inputs) == DISPATCHED
    assert not any(one.get("required") for one in inputs.values())
    assert {name: one["type"] for name, one in inputs.items()} == dict.fromkeys(DISPATCHED, "string") | {
        "force": "boolean"
    }


def test_builds_are_dispatched_and_never_called() -> None:
    """A workflow that is called is part of its caller's run: its key would stand in no list of runs."""
    assert list(OURS["build.yml"]["on"]) == ["workflow_dispatch"]
    assert [job["uses"] for _, _, job in jobs() if "uses" in job] == ["./.github/workflows/build-tool.yml"]
    assert OURS["build-all.yml"]["jobs"]["all"]["with"] == {"tool": "all"}


RUNS = {
    "a pair": (
        {"tool": "codex", "base": "fedora", "version": "0.77.0", "key": "0123456789abcdef"},
        "build codex-fedora 0.77.0 [0123456789abcdef]",
        "build-codex-fedora",
    ),
    "an image": (
        {"target": "builder", "version": "0.1.0", "key": "0123456789abcdef"},
        "build builder 0.1.0 [0123456789abcdef]",
        "build-builder",
    ),
    "by hand": ({"target": "codex-fedora"}, "build codex-fedora  []", "build-codex-fedora"),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_build_bears_its_target_and_key_in_its_name_and_its_target_in_its_group(case: str) -> None:
    inputs, name, group = RUNS[case]
    build, known = OURS["build.yml"], {"inputs": inputs}
    assert workflow_runner.fill(build["run-name"], known) == name
    assert workflow_runner.fill(build["concurrency"]["group"], known) == group


def test_the_plan_is_made_three_times_an_hour_and_not_on_the_hour() -> None:
    assert OURS["plan.yml"]["on"]["schedule"] == [{"cron": "7,27,47 * * * *"}]
    assert OURS["plan.yml"]["on"]["push"] == {"tags": ["**"]}
    inputs = OURS["plan.yml"]["on"]["workflow_dispatch"]["inputs"]
    assert {name: one["type"] for name, one in inputs.items()} == {
        "tool": "string",
        "base": "string",
        "force": "boolean",
    }


def test_each_platform_of_the_settings_has_a_job() -> None:
    built = [
        step["run"].split()[-1] for _, step in steps() if step.get("run", "").startswith("scripts/workflow build ")
    ]
    assert built == ["linux/amd64", "linux/arm64"]
