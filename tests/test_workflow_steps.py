"""The workflows do their work: run job by job, by what they hand to each other and leave in a registry."""

import base64
import lzma
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from imagewright import plan as plans
from imagewright.names import Digest, parse_tag
from imagewright.testing import images
from imagewright.testing.images import Picture, layer
from imagewright.testing.logins import Basic
from imagewright.testing.projects import make_image, make_project, set_version
from imagewright.testing.registry import Registry
from tests import workflow_runner
from tests.workflow_runner import Job

ROOT = Path(__file__).parents[1]
WORKFLOWS = {file.stem: workflow_runner.read(file) for file in (ROOT / ".github" / "workflows").glob("*.yml")}
DISPATCH = frozenset({"dispatch"})
JOB_TOKEN = "the-token-of-the-job"


@dataclass
class Forge:
    """A repository on a forge, a registry, and workflows that are run by hand. variables, secrets: of the repository."""

    root: Path
    server: Registry
    variables: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.root / "project"

    def base(
        self, mark: str = "1", platforms: Sequence[str] = ("linux/amd64", "linux/arm64"), name: str = "fedora"
    ) -> Digest:
        steps = [layer({"etc/mark": mark}), "ENV A=1"]
        picture = {one: Picture(steps=[layer({"etc/os": one}), *steps]) for one in platforms}
        return images.push(self.server.sink, "own/bases", [f"{name}-latest"], picture)

    def run(self, workflow: str, leave_out: frozenset[str] = frozenset(), **inputs: Any) -> dict[str, Job]:
        scratch = self.root / f"run-{len(list(self.root.glob('run-*')))}"
        scratch.mkdir()
        environ = workflow_runner.environment(self.root / "home") | {"UV_PROJECT_ENVIRONMENT": sys.prefix}
        github = {"server_url": "http://forge.example", "ref": "refs/heads/main", "token": JOB_TOKEN}
        context = {"inputs": inputs, "github": github, "vars": self.variables, "secrets": self.secrets}
        return workflow_runner.run(WORKFLOWS[workflow], self.project, scratch, environ, context, leave_out)

    def inputs(self, ran: dict[str, Job]) -> list[dict[str, str]]:
        """What the dispatcher asks for, of a plan that a run of plan.yml made."""
        return [
            {
                "tool": build.tool or "",
                "base": build.base or "",
                "target": "" if build.tool else build.target,
                "version": build.version,
                "base_digest": build.base_digest,
                "reason": build.reasons[0].code.code if build.reasons else "forced",
                "key": build.key,
                "force": "true" if not build.reasons else "false",
            }
            for build in unpacked(self.root, ran).builds
        ]

    def tags(self) -> list[str]:
        store = self.server.store
        return sorted(store.repository("own/tools").tags()) if "own/tools" in store.names() else []


def unpacked(root: Path, ran: dict[str, Job]) -> plans.Plan:
    return plans.parse(lzma.decompress(base64.b64decode(ran["plan"].outputs["plan"])), str(root))


def results(ran: dict[str, Job]) -> dict[str, str]:
    return {name: job.result for name, job in ran.items()}


@pytest.fixture
def login() -> Basic | None:
    """Who may ask the registry: everybody, unless a test says otherwise."""
    return None


@pytest.fixture
def forge(tmp_path: Path, login: Basic | None) -> Iterator[Forge]:
    (tmp_path / "home").mkdir()
    with Registry(tmp_path / "registry", login=login) as server:
        made = Forge(tmp_path, server)
        make_project(made.project, registry=server.address, tools={"codex": "1.0.0"})
        (made.project / "scripts").mkdir()
        shutil.copy(ROOT / "scripts" / "workflow", made.project / "scripts" / "workflow")
        # The environment is the one of these tests.
        (made.project / "scripts" / "environment").write_text("sync_environment() { :; }\n")
        yield made


def test_what_is_missing_is_planned_built_on_each_platform_published_and_verified(forge: Forge) -> None:
    forge.base()
    ran = forge.run("plan", DISPATCH)
    assert results(ran) == {
        "versions": "success",
        "check": "success",
        "plan": "success",
        "dispatch": "skipped",
        "unknown": "skipped",
    }
    assert (ran["plan"].outputs["exit"], ran["plan"].outputs["builds"]) == ("10", "true")
    assert "| codex-fedora | 1.0.0 | build | image-missing:" in ran["plan"].summary
    assert "::notice file=tools/codex/version.sh,line=1,title=codex-fedora%3A stale::" in ran["plan"].said

    (inputs,) = forge.inputs(ran)
    built = forge.run("build", **inputs)
    assert results(built) == {
        "versions": "skipped",
        "recheck": "success",
        "amd64": "success",
        "arm64": "success",
        "publish": "success",
        "verify": "success",
        "attest": "skipped",
    }
    assert built["publish"].outputs["outcome"] == "published"
    assert built["publish"].outputs["repository"] == f"{forge.server.address}/own/tools"
    assert forge.tags() == ["codex-fedora-1.0.0", "codex-fedora-latest"]

    after = forge.run("plan", DISPATCH)
    assert after["plan"].outputs == {"exit": "0", "builds": "", "plan": after["plan"].outputs["plan"]}

    again = forge.run("build", **inputs)
    assert (again["recheck"].outputs["outcome"], results(again)["publish"]) == ("done", "skipped")
    assert set(results(again).values()) == {"success", "skipped"}


def test_by_hand_a_target_is_enough_and_force_builds_what_is_fresh(forge: Forge) -> None:
    forge.base()
    assert results(forge.run("build", target="codex-fedora"))["verify"] == "success"
    forced = forge.run("build", tool="codex", base="fedora", force="true")
    assert results(forced) | {"attest": "skipped"} == dict.fromkeys(results(forced), "success") | {"attest": "skipped"}
    assert forced["publish"].outputs["outcome"] == "identical"


def test_a_platform_that_is_not_required_has_no_job(forge: Forge) -> None:
    forge.base(platforms=("linux/arm64",))
    ran = forge.run("build", target="codex-fedora")
    assert (ran["amd64"].result, ran["arm64"].result, ran["verify"].result) == ("skipped", "success", "success")


def test_a_build_is_judged_by_the_base_and_version_it_was_asked_for(forge: Forge) -> None:
    forge.base()
    forge.base(name="alpine")
    _, inputs = forge.inputs(forge.run("plan", DISPATCH))
    assert inputs["base"] == "fedora"
    forge.base("2")
    set_version(forge.project, "codex", "2.0.0")
    ran = forge.run("build", **inputs)
    assert results(ran)["verify"] == "success"
    assert ran["recheck"].outputs["base_digest"] == inputs["base_digest"]
    assert forge.tags() == ["codex-fedora-1.0.0", "codex-fedora-latest"]


def test_a_standalone_image_is_built_on_its_base_as_it_is_now(forge: Forge) -> None:
    digest = forge.base()
    parent = f"{forge.server.address}/own/bases:fedora-latest"
    make_image(forge.project, "helper", parent)
    settings = forge.project / "imagewright.toml"
    settings.write_text(f'{settings.read_text()}\n[images]\nrepository = "own/helpers"\nbootstrap = true\n')
    ran = forge.run("build", frozenset({"amd64", "arm64"}), target="helper", version="1.0.0")
    assert ran["recheck"].outputs == {
        "outcome": "build",
        "target": "helper",
        "version": "1.0.0",
        "base_digest": digest,
        "base_name": parent,
        "amd64": "true",
        "arm64": "true",
    }
    assert (ran["publish"].result, ran["verify"].result) == ("failure", "skipped")
    assert "no platform of helper was built" in ran["publish"].said
    other = forge.run("build", target="helper", version="0.9.0")
    assert "helper has the version 1.0.0 by now, not 0.9.0" in other["recheck"].said


def test_latest_that_is_behind_is_moved_without_a_build(forge: Forge) -> None:
    forge.base()
    forge.run("build", target="codex-fedora")
    forge.server.store.repository("own/tools").delete_tag(parse_tag("codex-fedora-latest"))
    ran = forge.run("build", target="codex-fedora")
    assert ran["recheck"].outputs["outcome"] == "retag"
    assert (ran["amd64"].result, ran["publish"].result, ran["verify"].result) == ("skipped", "success", "success")
    assert "codex-fedora-latest" in forge.tags()


def test_what_is_unknown_ends_red_and_what_is_stale_is_built_all_the_same(forge: Forge) -> None:
    forge.base()
    (forge.project / "tools" / "broken").mkdir()
    (forge.project / "tools" / "broken" / "version.sh").write_text("exit 1\n")
    ran = forge.run("plan", DISPATCH)
    assert (ran["plan"].result, ran["plan"].outputs["exit"], ran["plan"].outputs["builds"]) == ("success", "20", "true")
    assert ran["unknown"].result == "failure"
    assert [one["tool"] for one in forge.inputs(ran)] == ["codex"]


def test_a_build_of_what_is_unknown_is_red_and_pushes_nothing(forge: Forge) -> None:
    ran = forge.run("build", target="codex-fedora")
    assert (ran["recheck"].result, ran["amd64"].result, ran["publish"].result) == ("failure", "skipped", "skipped")


def test_a_tool_that_fails_to_build_publishes_nothing(forge: Forge) -> None:
    forge.base()
    shutil.rmtree(forge.project / "tools" / "codex" / "rootfs")
    (forge.project / "tools" / "codex" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nRUN false\n")
    settings = forge.project / "imagewright.toml"
    settings.write_text(f'builder = "copy"\n{settings.read_text()}')  # which runs nothing
    ran = forge.run("build", target="codex-fedora")
    assert (ran["recheck"].result, ran["amd64"].result, ran["arm64"].result) == ("success", "failure", "failure")
    assert ran["publish"].result == ran["verify"].result == "skipped"
    assert forge.tags() == []


def test_all_tools_are_planned_fresh_or_not(forge: Forge) -> None:
    forge.base()
    forge.run("build", target="codex-fedora")
    ran = forge.run("build-tool", DISPATCH, tool="all")
    assert [one["reason"] for one in forge.inputs(ran)] == ["forced"]
    assert forge.inputs(forge.run("build-tool", DISPATCH, tool="codex"))


@pytest.mark.parametrize("login", [Basic(user="robot", secret="s3cret")])
def test_a_login_from_the_secrets_of_the_repository_reads_and_pushes_and_stays_nowhere(forge: Forge) -> None:
    forge.base()
    forge.variables = {"REGISTRY_HOST": forge.server.address, "REGISTRY_USER": "robot"}
    forge.secrets = {"REGISTRY_PASSWORD": "s3cret"}
    ran = forge.run("build", target="codex-fedora")
    assert results(ran)["verify"] == "success"
    assert forge.tags() == ["codex-fedora-1.0.0", "codex-fedora-latest"]
    assert "s3cret" not in "".join(job.said + job.summary + str(job.outputs) for job in ran.values())
    assert list((forge.root / "home").iterdir()) == []


@pytest.mark.parametrize("login", [Basic(user="robot", secret=JOB_TOKEN)])
def test_the_token_of_a_job_is_given_to_no_registry_but_the_forges_own(forge: Forge) -> None:
    forge.base()
    forge.variables = {"REGISTRY_HOST": forge.server.address, "REGISTRY_USER": "robot"}
    ran = forge.run("plan", DISPATCH)
    assert (ran["plan"].outputs["exit"], ran["unknown"].result) == ("20", "failure")
    assert "needed and none was found" in ran["plan"].said


def test_for_a_tag_that_is_not_on_the_default_branch_nothing_is_asked_for(forge: Forge) -> None:
    def git(*arguments: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        argv = ["git", "-C", str(forge.project), *who, *arguments]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    git("init", "--quiet", "--initial-branch=main")
    git("commit", "--quiet", "--allow-empty", "--message=on main")
    git("checkout", "--quiet", "-b", "aside")
    git("commit", "--quiet", "--allow-empty", "--message=aside")
    aside = git("rev-parse", "HEAD")
    git("checkout", "--quiet", "main")

    environ = workflow_runner.environment(forge.root / "home") | {"UV_PROJECT_ENVIRONMENT": sys.prefix}
    tag = {"GITHUB_REF_TYPE": "tag", "GITHUB_REF_NAME": "v1", "GITHUB_SHA": aside}
    argv = ["scripts/workflow", "dispatch"]
    ran = subprocess.run(argv, cwd=forge.project, env=environ | tag, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, "the tag v1 is not on the default branch: nothing is asked for\n")


def test_a_report_goes_to_the_next_job_in_as_many_parts_as_it_takes(forge: Forge) -> None:
    """What is random does not get smaller: 250,000 bytes are 333,000 letters, and a variable may have 131,072."""
    forge.base()
    checks = forge.project / "checks" / "conftest.py"
    checks.write_text(LONG_WINDED.replace("SIZE", "125_000"))
    ran = forge.run("plan", DISPATCH)
    assert [len(ran["check"].outputs[name]) for name in ("report", "report_2")] == [130_000, 130_000]
    assert ran["check"].outputs["report_3"]
    assert ran["plan"].outputs["exit"] == "10"

    checks.write_text(LONG_WINDED.replace("SIZE", "160_000"))
    ran = forge.run("plan", DISPATCH)
    assert (ran["check"].result, ran["plan"].result) == ("failure", "skipped")
    assert "report.json is too large for the next job: narrow the run by TOOL or BASE" in ran["check"].said


LONG_WINDED = """
import secrets


def pytest_json_modifyreport(json_report):
    json_report["environment"]["noise"] = secrets.token_hex(SIZE * 2)
"""
"""Fills a report with what cannot be made smaller: of each pair of digits half is left."""


BAD_INPUTS = {
    "a command": {"tool": "codex", "base": "fedora; id"},
    "a path": {"target": "../codex"},
    "nothing": {},
    "half": {"tool": "codex"},
    "two targets": {"target": "codex-fedora", "tool": "codex", "base": "node"},
    "no such target": {"target": "qwen-fedora"},
    "no such tool": {"tool": "qwen", "base": "fedora"},
    "a version with a newline": {"target": "codex-fedora", "version": "1\n2"},
    "a digest that is none": {"target": "codex-fedora", "version": "1.0.0", "base_digest": "sha256:0"},
    "a key that is none": {"target": "codex-fedora", "version": "1.0.0", "key": "x]"},
}


@pytest.mark.parametrize("case", BAD_INPUTS)
def test_inputs_that_cannot_be_are_refused_before_a_registry_is_asked(forge: Forge, case: str) -> None:
    ran = forge.run("build", **{"version": "1.0.0", **BAD_INPUTS[case]})
    assert ran["recheck"].result == "failure"
    assert re.search(r"^scripts/workflow: (?!.*id\b)", ran["recheck"].said, re.MULTILINE), ran["recheck"].said
    assert {job.result for name, job in ran.items() if name not in ("recheck", "versions")} == {"skipped"}


def test_a_base_that_there_is_not_is_refused_by_the_checks(forge: Forge) -> None:
    forge.base()
    ran = forge.run("build", tool="codex", base="windows", version="1.0.0")
    assert "there is no target 'codex-windows'; there are codex-fedora" in ran["recheck"].said


def test_words_of_a_script_are_no_commands(forge: Forge) -> None:
    forge.base()
    (forge.project / "tools" / "codex" / "version.sh").write_text('echo "::error::1"\necho "::add-mask::a" >&2\n')
    ran = forge.run("plan", DISPATCH)
    assert "::error::1" in ran["versions"].said
    assert [line for job in ran.values() for line in commands(job.said)] == [
        line
        for line in ran["plan"].said.splitlines()
        if line.startswith("::warning file=tools/codex/version.sh,line=1,")
    ]


def commands(said: str) -> list[str]:
    """The lines that a forge obeys, without those that stop and resume that."""
    found, word = [], ""
    for line in said.splitlines():
        if word:
            word = "" if line == f"::{word}::" else word
        elif line.startswith("::stop-commands::"):
            word = line.removeprefix("::stop-commands::")
        elif line.startswith("::"):
            found.append(line)
    assert not word
    return found
