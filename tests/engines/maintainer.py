"""Somebody with a project on a real forge, whose workflows build into a real registry: Gitea, its runner, docker-registry.

Of GitHub there are stand-ins for one action and for the set-up of a job; all else is as committed.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imagewright.testing.projects import make_project
from tests.engines import bases, gitea, independent
from tests.engines.bases import PLATFORMS, layer
from tests.engines.gitea import OWNER, Gitea, Runner

NAME = "images"
SETTLE = 2
"""Seconds, in the settings of this project."""
DOCKERFILE = """\
ARG BASE_IMAGE
FROM ${BASE_IMAGE}
ARG TOOL_VERSION
RUN echo "${TOOL_VERSION}" > /etc/tool
"""
_ROOT = Path(__file__).parents[2]


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
        """A project of these tools (name → version), on two bases, that BuildKit builds."""
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
        self.add_workflows()

    def add_workflows(self, cron: str = "") -> None:
        """The workflows and their steps, as committed, but for what sets up a job, which is there already.

        cron: when the clock starts plan.yml; never by default, as one more run at some minutes of the hour surprises.
        """
        workflows, scripts = self.project / ".github" / "workflows", self.project / "scripts"
        workflows.mkdir(parents=True, exist_ok=True)
        scripts.mkdir(exist_ok=True)
        for file in (_ROOT / ".github" / "workflows").glob("*.yml"):
            if file.stem != "ci":
                (workflows / file.name).write_text(re.sub(r"(actions/checkout)@\S+ # .*", r"\1@v7", file.read_text()))
        ticks = f'  schedule:\n    - cron: "{cron}"\n' if cron else ""
        plan, count = re.subn(r"  schedule:\n    - cron: .*\n", ticks, (workflows / "plan.yml").read_text())
        assert count == 1
        (workflows / "plan.yml").write_text(plan)
        steps = (_ROOT / "scripts" / "workflow").read_text()
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

    def by_hand(self, workflow: str, **inputs: str) -> int:
        """Asks for a run of a workflow, as the button on the forge's page does; its number."""
        return self.forge.dispatch(NAME, workflow, inputs)

    def end(self, run: int, seconds: float = 240) -> dict[str, Any]:
        """A run, once it is at its end."""
        self.forge.waits(lambda: self.forge.run(NAME, run)["status"] == "completed", seconds, f"the end of run {run}")
        return self.forge.run(NAME, run)

    def jobs(self, run: Mapping[str, Any]) -> dict[str, str]:
        """How each job of a run ended, by its name."""
        return {one["name"]: one["conclusion"] for one in self.forge.jobs(NAME, run["id"])}

    def told(self, run: Mapping[str, Any]) -> str:
        """What the jobs of a run wrote."""
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


@contextmanager
def at_work(engine_folder: Path, registry: str, folder: Path, **environ: str) -> Iterator[Maintainer]:
    """A maintainer with a forge, a runner and an empty project below `folder`. environ: what jobs find around them, too."""
    own = {
        "PATH": f"{engine_folder / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "UV_PROJECT_ENVIRONMENT": sys.prefix,
        "IMAGEWRIGHT_VERSIONS__HOST_FALLBACK": "true",
    }
    (folder / "home").mkdir()
    project, action = folder / "project", folder / "checkout"
    project.mkdir()
    action.mkdir()
    (action / "action.yml").write_text(gitea.CHECKOUT)
    with gitea.forge(engine_folder, own | environ) as (forge, runner):
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
        made = Maintainer(forge, runner, project, registry, engine_folder)
        made.git("init", "-q", "-b", "main")
        yield made
