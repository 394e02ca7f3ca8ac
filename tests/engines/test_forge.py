"""The loop on a real forge: Gitea starts the workflows, its runner builds with BuildKit and publishes to a real registry.

Of GitHub there are stand-ins for one action and for the set-up of a job; all else is as committed.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagewright.testing.projects import make_project
from tests.engines import bases, daemons, gitea, independent
from tests.engines.bases import PLATFORMS, layer
from tests.engines.gitea import OWNER, Gitea, Runner

ROOT = Path(__file__).parents[2]
NAME = "images"
SETTLE = 2
"""Seconds, in the settings of this project."""
DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG TOOL_VERSION
RUN echo "${TOOL_VERSION}" > /etc/tool
"""


@dataclass
class Maintainer:
    """Somebody with a project on the forge, and a registry."""

    forge: Gitea
    runner: Runner
    project: Path
    registry: str
    engine_folder: Path

    def rebuild(self, base: str, month: str) -> None:
        """The base is published anew."""
        layers = {
            one: {**bases.busybox_layers(self.engine_folder, one), "month": layer({"etc/month": month.encode()})}
            for one in PLATFORMS
        }
        bases.push_base(self.engine_folder, self.registry, "own/bases", f"{base}-latest", layers)

    def write(self, tools: Mapping[str, str], dockerfile: str = DOCKERFILE) -> None:
        make_project(
            self.project,
            registry=self.registry,
            tools=tools,
            bases=["small", "tiny"],
            settings=f'builder = "buildkit"\n[limits]\nsettle = {SETTLE}\n',
        )
        (self.project / "tools" / "Dockerfile").write_text(dockerfile)
        for tool in tools:
            (self.project / "tools" / tool / "install.sh").write_text("#!/bin/sh\n")
        workflows, scripts = self.project / ".github" / "workflows", self.project / "scripts"
        workflows.mkdir(parents=True, exist_ok=True)
        scripts.mkdir(exist_ok=True)
        for file in (ROOT / ".github" / "workflows").glob("*.yml"):
            if file.stem != "ci":
                (workflows / file.name).write_text(re.sub(r"(actions/checkout)@\S+ # .*", r"\1@v7", file.read_text()))
        steps = (ROOT / "scripts" / "workflow").read_text()
        set_up = ". scripts/environment && sync_environment --no-dev"
        assert set_up in steps
        (scripts / "workflow").write_text(steps.replace(set_up, ":"))
        (scripts / "workflow").chmod(0o755)

    def commit(self, message: str) -> None:
        """Commits everything, and pushes it."""
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message)
        self.forge.push(NAME, self.project, "main")

    def tag(self, name: str) -> None:
        """Pushes a tag, which starts a plan."""
        self.git("tag", name)
        self.forge.push(NAME, self.project, name)

    def git(self, *arguments: str) -> None:
        who = ["-c", "user.name=own", "-c", "user.email=own@example.test"]
        subprocess.run(["git", *who, *arguments], cwd=self.project, check=True, capture_output=True)

    def ended(self, workflow: str, count: int, seconds: float = 240) -> list[dict[str, Any]]:
        """So many runs of a workflow, all at their end, newest first."""
        self.forge.waits(lambda: len(self.forge.runs(NAME, workflow)) >= count, seconds, f"{count} runs of {workflow}")
        self.forge.waits(
            lambda: all(one["status"] == "completed" for one in self.forge.runs(NAME, workflow)),
            seconds,
            f"the end of {workflow}",
        )
        found = self.forge.runs(NAME, workflow)
        assert len(found) == count, [one["display_title"] for one in found]
        return found

    def told(self, run: Mapping[str, Any]) -> str:
        return self.forge.log(NAME, run["id"])

    def whole(self, pair: str, version: str) -> bool:
        """Whether that version is there on all platforms, `latest` names it, and it is on today's base; as skopeo reads it."""
        images = [f"docker://{self.registry}/own/tools:{pair}-{tag}" for tag in (version, "latest")]
        base = independent.contents(f"docker://{self.registry}/own/bases:{pair.partition('-')[2]}-latest")
        return all(
            found[one].diff_ids[: len(base[one].diff_ids)] == base[one].diff_ids
            for found in map(independent.contents, images)
            for one in PLATFORMS
        )

    def tags(self) -> list[str]:
        """The tags of what is published."""
        argv = ["skopeo", "list-tags", "--tls-verify=false", f"docker://{self.registry}/own/tools"]
        ran = subprocess.run(argv, capture_output=True, text=True, check=False)
        return list(json.loads(ran.stdout)["Tags"]) if ran.returncode == 0 else []


@pytest.fixture
def maintainer(engine_folder: Path, buildkitd: str, tmp_path: Path) -> Iterator[Maintainer]:
    environ = {
        "PATH": f"{engine_folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(tmp_path / "home"),
        "BUILDKIT_HOST": buildkitd,
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "IMAGEWRIGHT_VERSIONS__HOST_FALLBACK": "true",
    }
    (tmp_path / "home").mkdir()
    with (
        daemons.docker_registry(engine_folder / "bin") as registry,
        gitea.forge(engine_folder, environ) as (forge, runner),
    ):
        action = tmp_path / "checkout"
        action.mkdir()
        (action / "action.yml").write_text(gitea.CHECKOUT)
        forge.ask("POST", "/orgs", {"username": "actions"})
        forge.ask("POST", "/orgs/actions/repos", {"name": "checkout", "default_branch": "main"})
        where = f"{forge.address.replace('://', f'://{OWNER}:{forge.token}@')}/actions/checkout.git"
        for argv in (
            ["init", "-q", "-b", "main"],
            ["add", "-A"],
            ["-c", "user.name=own", "-c", "user.email=own@example.test", "commit", "-q", "-m", "v7"],
            ["tag", "v7"],
            ["push", "-q", where, "main", "v7"],
        ):
            subprocess.run(["git", *argv], cwd=action, check=True, capture_output=True)
        project = tmp_path / "project"
        project.mkdir()
        made = Maintainer(forge, runner, project, registry, engine_folder)
        made.git("init", "-q", "-b", "main")
        yield made


@pytest.mark.timeout(900)
def test_the_forge_builds_what_is_stale_once_and_backs_off_from_what_keeps_failing(maintainer: Maintainer) -> None:
    for base in ("small", "tiny"):
        maintainer.rebuild(base, "2026-01")
    maintainer.write({"hello": "1.0", "broken": "2.0"})
    broken = maintainer.project / "tools" / "broken"
    (broken / "tool.yaml").write_text("exclude-bases: {small: not there}\n")
    (broken / "Dockerfile").write_text(f"{DOCKERFILE}RUN false\n")
    maintainer.commit("begin")

    # A tag: everything is missing, all of it is asked for; one fails, and nothing of it is published.
    maintainer.tag("v1")
    (planned,) = maintainer.ended("plan.yml", 1)
    assert planned["conclusion"] == "success", maintainer.told(planned)
    built = maintainer.ended("build.yml", 3)
    ends = {one["display_title"].split()[1]: one["conclusion"] for one in built}
    assert ends == {"hello-small": "success", "hello-tiny": "success", "broken-tiny": "failure"}, maintainer.told(
        built[0]
    )
    assert maintainer.whole("hello-small", "1.0")
    assert maintainer.whole("hello-tiny", "1.0")
    assert not [one for one in maintainer.tags() if one.startswith("broken")]

    # What failed is tried again, twice; then it has to wait. A base that is rebuilt has its own pairs built, and no others.
    for number in (2, 3):
        time.sleep(SETTLE)
        maintainer.tag(f"v{number}")
        maintainer.ended("plan.yml", number)
        assert maintainer.ended("build.yml", number + 2)[0]["display_title"].startswith("build broken-tiny 2.0 [")
    maintainer.rebuild("small", "2026-02")
    assert not maintainer.whole("hello-small", "1.0")
    time.sleep(SETTLE)
    maintainer.tag("v4")
    planned = maintainer.ended("plan.yml", 4)[0]
    assert re.search(r"put off +broken-tiny +2\.0: backoff until", maintainer.told(planned))
    assert maintainer.ended("build.yml", 6)[0]["display_title"].startswith("build hello-small 1.0 [")
    assert maintainer.whole("hello-small", "1.0")


@pytest.mark.timeout(900)
def test_a_runner_that_dies_leaves_nothing_half_published_and_the_next_plan_repairs_it(maintainer: Maintainer) -> None:
    for base in ("small", "tiny"):
        maintainer.rebuild(base, "2026-01")
    slow = f"{DOCKERFILE}RUN test -e /etc/quick || sleep 45\n"
    maintainer.write({"hello": "1.0"}, slow)
    (maintainer.project / "tools" / "hello" / "tool.yaml").write_text("exclude-bases: {small: not there}\n")
    maintainer.commit("begin")
    maintainer.tag("v1")
    maintainer.ended("plan.yml", 1)

    # While it is built, another plan asks for nothing.
    builds = lambda: maintainer.forge.runs(NAME, "build.yml")  # noqa: E731
    maintainer.forge.waits(lambda: [one["status"] for one in builds()] == ["in_progress"], 60, "a build")
    maintainer.tag("v2")
    planned = maintainer.ended("plan.yml", 2)[0]
    assert re.search(r"put off +hello-tiny +1\.0: in-flight", maintainer.told(planned))
    assert [one["status"] for one in builds()] == ["in_progress"]

    # The machine is switched off: nothing is there, and no run waits for ever.
    maintainer.runner.kill()
    maintainer.forge.waits(lambda: builds()[0]["status"] == "completed", 120, "the end of what was cut off")
    assert maintainer.tags() == []

    (maintainer.project / "tools" / "Dockerfile").write_text(DOCKERFILE)
    maintainer.commit("quicker")
    maintainer.runner.start()
    maintainer.tag("v3")
    maintainer.ended("plan.yml", 3)
    assert maintainer.ended("build.yml", 2)[0]["conclusion"] == "success"
    assert maintainer.whole("hello-tiny", "1.0")
