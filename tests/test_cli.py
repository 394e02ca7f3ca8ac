"""The commands, as processes where that can make a difference: exit codes, texts, files, interruptions."""

import base64
import hashlib
import json
import os
import pty
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from inspect import cleandoc
from pathlib import Path
from typing import Any

import click
import pytest

from imagewright import plan as plans
from imagewright.cli import VERBS, main
from imagewright.embedded.server import Handler, Seen, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
from imagewright.load import load_catalogue
from imagewright.names import Digest
from imagewright.report import seal
from imagewright.testing import images
from imagewright.testing.images import Picture, StoreSink, layer
from imagewright.testing.projects import make_project, make_tool, set_version
from tests import console
from tests.console import PROGRAM, Ran
from tests.engine_stand_in import DIGEST as IMAGE_DIGEST
from tests.engine_stand_in import REFERENCE, StandIn, gone, processes, stand_in

TOOLS = {"codex": "1.0.0", "gemini": "2.1"}


@dataclass
class World:
    """A registry, a project that publishes into it, and commands run in the project's folder."""

    root: Path
    server: Server
    environ: dict[str, str]
    seen: list[Seen] = field(default_factory=list)
    misbehave: Callable[[Request, Handler], Answer | None] = field(default=lambda request, honest: None)

    @property
    def project(self) -> Path:
        return self.root / "project"

    @property
    def state(self) -> Path:
        return self.project / ".imagewright"

    @property
    def report(self) -> Path:
        return self.state / "report.json"

    @property
    def plan_file(self) -> Path:
        return self.state / "plan.json"

    def make(self, tools: Mapping[str, str] = TOOLS, **options: Any) -> None:
        make_project(self.project, registry=self.server.address, tools=tools, **options)

    def base(self, name: str = "fedora", mark: str = "1") -> Digest:
        picture = {
            one: Picture(steps=[layer({"etc/os": f"{name} {one}"}), layer({"etc/mark": mark}), "ENV A=1"])
            for one in ("linux/amd64", "linux/arm64")
        }
        return images.push(StoreSink(Store(self.root / "registry")), "own/bases", [f"{name}-latest"], picture)

    def layers_of_bases(self) -> list[str]:
        """Paths under which builders, and nobody else, fetch the bases' layers."""
        blobs = (self.root / "registry" / "own+bases" / "blobs" / "sha256").iterdir()
        return [f"/v2/own/bases/blobs/sha256:{one.name}" for one in blobs if one.read_bytes().startswith(b"\x1f\x8b")]

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        argv = [*PROGRAM, *arguments] if arguments[0] != "pytest" else [sys.executable, "-m", *arguments]
        return subprocess.Popen(
            argv,
            cwd=self.project,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **environ: str) -> Ran:
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in out + err, out + err
        return Ran(process.returncode, out, err)

    def call(self, *arguments: str) -> Ran:
        """The same in this process, for tables: without an interpreter's start."""
        return console.call(self.project, *arguments)

    def checks(self, *arguments: str, **environ: str) -> Ran:
        return self.run("pytest", "checks/", "-q", "-p", "no:cacheprovider", *arguments, **environ)

    def change(self, file: Path, edit: Callable[[Any], object]) -> None:
        """Edits a file; a report gets the hash that fits, as somebody gives it who knows how."""
        document = json.loads(file.read_bytes())
        edit(document)
        file.write_bytes(b"".join(seal(document)) if file == self.report else json.dumps(document).encode())


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    (tmp_path / "home").mkdir()
    (tmp_path / "tmp").mkdir()
    environ = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path / "home"),
        "TMPDIR": str(tmp_path / "tmp"),
    }

    seen: list[Seen] = []

    def between(request: Request, honest: Handler) -> Answer:
        return made.misbehave(request, honest) or honest(request)

    with Server(tmp_path / "registry", on_request=seen.append, middleware=between) as server:
        made = World(tmp_path, server, environ, seen)
        yield made


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project whose checks have just run: nothing is published. Its registry is gone; who plans asks nobody."""
    root = tmp_path_factory.mktemp("checked")
    with Server(root / "registry") as server:
        made = World(root, server, dict(os.environ))
        made.make()
        made.base()
        assert made.checks().code == 1
    yield root


@pytest.fixture
def planned(checked: Path, world: World) -> World:
    """A copy of that project, to be spoilt."""
    shutil.copytree(checked / "project", world.project)
    return world


def after(**time: float) -> str:
    return (datetime.now(UTC) + timedelta(**time)).strftime("%Y-%m-%dT%H:%M:%SZ")


# plan


def section(key: str, value: object) -> Callable[[World], object]:
    return lambda world: world.change(world.report, lambda document: document["imagewright"].update({key: value}))


def begun(**time: float) -> Callable[[World], object]:
    """Makes the report one of a run that began then, seen from the moment of the test."""

    def edit(world: World) -> None:
        section("started", after(**time))(world)

    return edit


def judged(*reasons: dict[str, str], state: str, targets: int = 1) -> Callable[[World], object]:
    """Makes the first targets of the report so."""

    def edit(document: Any) -> None:
        for record in document["imagewright"]["verdicts"][:targets]:
            record.update(verdict=state, reasons=list(reasons))

    return lambda world: world.change(world.report, edit)


def reason(code: str, platform: str = "", detail: str = "") -> dict[str, str]:
    return {"code": code, "platform": platform, "expected": "", "found": "", "detail": detail}


def report_gone(world: World) -> None:
    world.report.unlink()


def report_cut(world: World) -> None:
    world.report.write_bytes(world.report.read_bytes()[:-300])


def report_foreign(world: World) -> None:
    world.report.write_text("{}")


def report_edited(world: World) -> None:
    text = world.report.read_text()
    world.report.write_text(text.replace('"version":"1.0.0"', '"version":"1.0.1"'))


def run_unknown(world: World) -> None:
    (world.state / "run.json").unlink()


def tool_changed(world: World) -> None:
    set_version(world.project, "codex", "1.0.1")


def settings_changed(world: World) -> None:
    file = world.project / "imagewright.toml"
    file.write_text(f"bootstrap = false\n{file.read_text().replace('bootstrap = true', '')}")


def settings_broken(world: World) -> None:
    file = world.project / "imagewright.toml"
    file.write_text(f"colour = true\n{file.read_text()}")


def could_not_begin(world: World) -> None:
    error = {"exit": 40, "text": "tools/codex: no such thing"}
    world.change(world.state / "run.json", lambda document: document.update(error=error))
    world.report.unlink()


def many_vanished(world: World) -> None:
    world.change(world.report, lambda document: multiply(document["imagewright"], document))
    records = json.loads(world.report.read_bytes())["imagewright"]["verdicts"]
    good = {one["target"]: one["reference"] for one in records}
    (world.state / "last-good.json").write_text(json.dumps(good))


def multiply(ours: Any, document: Any) -> None:
    """The same report about ten targets."""
    first = ours["verdicts"][0]
    ours["verdicts"] = [{**first, "target": f"codex-b{at}", "reference": f"h/r:codex-b{at}-1"} for at in range(10)]
    ours["expected"] = [one["target"] for one in ours["verdicts"]]
    ours["total"] = 10


def held(world: World) -> None:
    """Settings that hold a tool, and a report that was made with them."""
    file = world.project / "imagewright.toml"
    file.write_text(f'{file.read_text()}\n[plan]\nhold = ["codex: its release is broken", "gemini-fedora: wait"]\n')
    section("catalogue", load_catalogue(world.project, {}).hash)(world)


NOT_OF_LAST = "the report is not of the run that started last"
CHANGED = "settings or tools/ have changed since the report"
PLANS: dict[str, tuple[Callable[[World], object], list[str], int, str]] = {
    # name: what is done to the project, arguments, exit code, what is said
    "stale": (lambda world: None, [], 10, r"build  codex-fedora   1\.0\.0  image-missing: the registry has no "),
    "report-gone": (report_gone, [], 50, "there is no report: No such file or directory\n  Run `pytest checks/` first"),
    "report-cut": (report_cut, [], 50, "report.json: not a report: "),
    "report-foreign": (report_foreign, [], 50, "the report has no section of imagewright"),
    "report-edited": (report_edited, [], 50, "report.json: the report was changed after it was written\n  Run `pytest"),
    "other-nonce": (section("nonce", "0"), [], 50, NOT_OF_LAST),
    "run-unknown": (run_unknown, [], 50, NOT_OF_LAST),
    "other-schema": (section("schema", 2), [], 50, "the report has schema 2, not 1"),
    "tool-changed": (tool_changed, [], 50, CHANGED),
    "settings-changed": (settings_changed, [], 50, CHANGED),
    "settings-broken": (settings_broken, [], 40, r"imagewright\.toml:1: colour: not a known field\.\n"),
    "could-not-begin": (could_not_begin, [], 40, "the checks could not begin:\ntools/codex: no such thing"),
    "too-old": (begun(minutes=-61), [], 50, "the report is 61 minutes old, at most 60 are trusted"),
    "old-enough": (begun(minutes=-61), ["--max-age", "7200"], 10, "2 to build"),
    "max-age": (begun(seconds=-9), ["--max-age", "5"], 50, "the report is 0 minutes old, at most"),
    "from-the-future": (begun(minutes=5), [], 50, "the report is from the future, "),
    "clock-a-little-off": (begun(seconds=30), [], 10, "2 to build"),
    "no-time": (section("started", "yesterday"), [], 50, "the report bears no time: 'yesterday'"),
    "fresh": (judged(state="fresh", targets=2), [], 0, "0 to build, 0 to retag, 0 put off, 0 refused"),
    "forced": (judged(state="fresh", targets=2), ["--force"], 10, r"build  codex-fedora   1\.0\.0  forced: it is fresh"),
    "retag": (judged(reason("latest-behind"), state="stale"), [], 10, "1 to build, 1 to retag"),
    "unknown": (judged(reason("timeout"), state="unknown"), [], 20, "refused  codex-fedora: unknown: timeout"),
    "unknown-forced": (judged(reason("auth"), state="unknown"), ["--force"], 20, "1 to build, .* 1 refused"),
    "brake": (many_vanished, [], 30, r"refused  codex-b0, .* and 2 more: brake: 10 images that were there are gone"),
    "brake-forced": (many_vanished, ["--force"], 30, "0 to build, 0 to retag, 0 put off, 10 refused"),
    "held": (held, [], 10, "put off  codex-fedora: held: its release is broken\n.*put off  gemini-fedora: held: wait"),
    "usage": (lambda world: None, ["--max-age", "soon"], 2, "Invalid value for '--max-age'"),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANS)
def test_plan(planned: World, name: str) -> None:
    spoil, arguments, code, said = PLANS[name]
    spoil(planned)
    planned.plan_file.write_text("an older plan")

    ran = planned.call("plan", *arguments)

    assert ran.code == code, ran
    assert re.search(said, ran.out + ran.err), ran
    if code in (0, 10, 20, 30):
        made = plans.parse(planned.plan_file.read_bytes(), "")
        assert made.exit == code
        assert (made.builds == ()) == (code in (0, 30) or name == "held")
        assert ("next: imagewright build .imagewright/plan.json --push" in ran.err) == bool(made.builds)
    elif code != 2:  # a refusal leaves no plan that could be taken for this one
        assert not planned.plan_file.exists()
        assert ran.out == ""


def test_plan_looks_like_this(planned: World) -> None:
    judged(reason("base-changed", "linux/amd64", "moved"), reason("recipe-changed"), state="stale")(planned)
    ran = planned.run("plan")
    assert (
        ran.out
        == """\
planned from 2 of 2 targets
  build  gemini-fedora  2.1    image-missing: the registry has no gemini-fedora-2.1
  build  codex-fedora   1.0.0  base-changed on linux/amd64: moved
                               recipe-changed: The recipe has changed since the image was built.
2 to build, 0 to retag, 0 put off, 0 refused
"""
    )


def test_plan_dry_run_writes_nothing_and_json_is_the_plan(planned: World) -> None:
    planned.plan_file.write_text("an older plan")
    before = sorted(planned.state.rglob("*"))
    ran = planned.run("plan", "--dry-run", "--json")
    assert ran.code == 10
    assert [one["target"] for one in ran.json["builds"]] == ["codex-fedora", "gemini-fedora"]
    assert planned.plan_file.read_text() == "an older plan"
    assert sorted(planned.state.rglob("*")) == before

    assert planned.run("plan", "--json").out.encode() == planned.plan_file.read_bytes()


def test_plan_reads_and_writes_where_it_is_told(planned: World) -> None:
    planned.state.rename(planned.project / "elsewhere")
    ran = planned.run("plan", "elsewhere/report.json", "-o", "made.json")
    assert (ran.code, ran.err) == (10, "next: imagewright build made.json --push\n")
    assert plans.parse((planned.project / "made.json").read_bytes(), "").builds
    assert not planned.plan_file.exists()


def test_plan_that_cannot_be_written_is_said_in_words(planned: World) -> None:
    ran = planned.run("plan", "-o", "nowhere/plan.json")
    assert ran.code == 1
    assert re.fullmatch(r"imagewright: \S*nowhere/\S+: No such file or directory\n", ran.err)


def test_plan_when_the_bases_could_not_be_listed_is_unknown(world: World) -> None:
    world.make()
    world.misbehave = lambda request, honest: Answer(status=403)
    assert world.checks().code == 1
    ran = world.run("plan")
    assert ran.code == 20
    assert "refused  bases: unknown: " in ran.out
    told = world.run("explain", "codex-fedora")
    assert told.code == 20
    assert told.err.startswith("imagewright: the bases could not be listed: ")


# build


def edited(world: World, **members: object) -> None:
    """Edits the first build of the plan and makes its hash right again, as somebody might who knows how."""
    document = json.loads(world.plan_file.read_bytes())
    document["builds"][0].update(members)
    document.pop("self")
    world.plan_file.write_text(json.dumps(document | {"self": plans._hash(document)}))


def plan_edited(world: World) -> None:
    text = world.plan_file.read_text()
    world.plan_file.write_text(text.replace('"1.0.0"', '"1.0.1"'))


def plan_gone(world: World) -> None:
    world.plan_file.unlink()


def plan_old(world: World) -> None:
    document = json.loads(world.plan_file.read_bytes())
    document.pop("self")
    document["created"] = after(minutes=-61)
    world.plan_file.write_text(json.dumps(document | {"self": plans._hash(document)}))


REFUSED_BUILDS: dict[str, tuple[Callable[[World], object], int, str]] = {
    "gone": (plan_gone, 50, "there is no plan: No such file or directory\n  Make one: `imagewright plan`."),
    "edited": (plan_edited, 50, "plan.json: not a plan: it was changed after it was made"),
    "cut": (lambda world: world.plan_file.write_text("{"), 50, "plan.json: not a plan: "),
    "a-report": (lambda world: shutil.copy(world.report, world.plan_file), 50, "plan.json: not a plan: "),
    "old": (plan_old, 50, "the plan is 61 minutes old, at most 60 are trusted"),
    "catalogue": (tool_changed, 50, "settings, tools/ or images/ have changed since the plan"),
    "settings": (settings_broken, 40, "colour"),
    "forged-base": (lambda world: edited(world, base_digest="sha256:0"), 50, "not a plan: codex-fedora: 'sha256:0' is"),
    "forged-tool": (lambda world: edited(world, tool="cat"), 50, "not a plan: codex-fedora: there is no tool 'cat'"),
    "forged-version": (lambda world: edited(world, version="a b"), 50, "not a plan: codex-fedora: 'codex-fedora-a b' "),
}


@pytest.mark.parametrize("name", REFUSED_BUILDS)
def test_build_refuses_a_plan_that_is_not_todays(planned: World, name: str) -> None:
    assert planned.call("plan").code == 10
    spoil, code, said = REFUSED_BUILDS[name]
    spoil(planned)
    ran = planned.call("build")
    assert ran.code == code, ran
    assert said in ran.err, ran
    assert not (planned.state / "images").exists()


def test_build_dry_run_says_what_it_would_do(planned: World) -> None:
    planned.run("plan")
    base = json.loads(planned.plan_file.read_bytes())["builds"][0]["base_digest"]
    address = re.search(r'registry = "(.*?)"', (planned.project / "imagewright.toml").read_text())
    assert address
    shown = planned.run("build", "--push", "--dry-run")
    assert (shown.code, shown.err) == (0, "")
    assert (
        shown.out
        == f"""\
would build and publish {address[1]}/own/tools:codex-fedora-1.0.0
                     on {address[1]}/own/bases@{base}
would build and publish {address[1]}/own/tools:gemini-fedora-2.1
                     on {address[1]}/own/bases@{base}
"""
    )
    jobs = planned.run("build", "--dry-run", "--json").json
    assert jobs["schema"] == 1
    assert jobs["jobs"][0] == {
        "target": "codex-fedora",
        "action": "build",
        "reference": f"{address[1]}/own/tools:codex-fedora-1.0.0",
        "base": f"{address[1]}/own/bases@{base}",
        "after": None,
        "platforms": None,
        "push": False,
    }
    assert not (planned.state / "images").exists()


def test_build_of_one_target_may_be_for_a_platform_and_on_a_base_that_are_named(world: World) -> None:
    world.make({"codex": "1.0.0"})
    before = world.base()
    after = world.base("fedora", "2")
    assert before != after
    chosen = ("build", "--target", "codex-fedora", "--base-digest", before, "--platform", "linux/arm64/v8")

    shown = world.run(*chosen, "--dry-run")
    assert shown.out == (
        f"would build {world.server.address}/own/tools:codex-fedora-1.0.0\n"
        f"         on {world.server.address}/own/bases@{before}\n"
        "        for linux/arm64\n"
    )
    whole = world.run("build", "--target", "codex-fedora", "--dry-run", "--json").json["jobs"][0]
    assert whole["base"].endswith(f"@{after}")
    assert whole["platforms"] == ["linux/amd64", "linux/arm64"]

    assert world.run(*chosen).code == 0
    layout = ("--layout", ".imagewright/images/codex-fedora")
    pushed = world.run("publish", "codex-fedora", "--version", "1.0.0", *layout)
    assert [one.partition("=")[0] for one in pushed.out.split()] == ["linux/arm64"]


NO_BUILDS = {
    "a platform that is none": (
        ("--target", "codex-fedora", "--platform", "arm64"),
        2,
        "'arm64' is not a platform: os/architecture or os/architecture/variant, e.g. linux/arm64",
    ),
    "a platform that it is not for": (
        ("--target", "codex-fedora", "--platform", "linux/riscv64", "--dry-run"),
        1,
        "codex-fedora is not for linux/riscv64\n  It is for linux/amd64, linux/arm64.",
    ),
    "half of it pushed": (
        ("--target", "codex-fedora", "--platform", "linux/arm64", "--push"),
        2,
        "a target is published whole\n  Push platforms with `imagewright publish --layout`.",
    ),
    "a plan with a platform": (
        ("--platform", "linux/arm64"),
        2,
        "--platform and --base-digest are for one target\n  A plan says what each is built on.",
    ),
    "a digest that is none": (
        ("--target", "codex-fedora", "--base-digest", "latest"),
        2,
        "'latest' is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)",
    ),
}


@pytest.mark.parametrize("case", NO_BUILDS)
def test_build_refuses_a_choice_that_makes_no_sense(world: World, case: str) -> None:
    arguments, code, said = NO_BUILDS[case]
    world.make({"codex": "1.0.0"})
    world.base()
    ran = world.run("build", *arguments)
    assert (ran.code, ran.out, ran.err) == (code, "", f"imagewright: {said}\n")
    assert not (world.state / "images").exists()


def test_the_whole_loop(world: World) -> None:
    world.make()
    world.base()
    assert world.checks().code == 1
    assert world.run("plan").code == 10

    built = world.run("build")
    assert built.code == 0
    assert built.out == "".join(
        f"built      {world.server.address}/own/tools:{one}\n" for one in ("codex-fedora-1.0.0", "gemini-fedora-2.1")
    )
    assert "codex-fedora: the image is in .imagewright/images/codex-fedora\n" in built.err
    assert (world.state / "images" / "codex-fedora" / "index.json").is_file()
    assert [one.target for one in world.seen if one.method in ("PUT", "POST")] == []

    pushed = world.run("build", ".imagewright/plan.json", "--push", "--json")
    assert pushed.code == 0
    assert [(one["target"], one["outcome"], one["latest"]) for one in pushed.json["results"]] == [
        ("codex-fedora", "published", "moved"),
        ("gemini-fedora", "published", "moved"),
    ]
    assert list((world.state / "images").iterdir()) == []
    again = world.run("build", "--push")
    assert [line.split()[0] for line in again.out.splitlines()] == ["identical", "identical"]
    assert "latest already" in again.out

    assert world.checks().code == 0
    assert world.run("plan").code == 0
    nothing = world.run("build")
    assert (nothing.code, nothing.out, nothing.err) == (0, "", "nothing to build\n")
    assert [one.name for one in (world.root / "tmp").iterdir()] == []


def test_one_build_that_fails_stops_no_other_and_names_its_log(world: World) -> None:
    world.make({"codex": "1.0.0", "gemini": "2.1", "goose": "3"})
    world.base()
    world.checks()
    world.run("plan")
    lost = world.layers_of_bases()[0]
    left = [1]

    def once(request: Request, honest: Handler) -> Answer | None:
        return Answer(status=403) if request.path == lost and left and left.pop() else None

    world.misbehave = once
    ran = world.run("build", "--push")
    assert ran.code == 1
    outcomes = sorted(line.split()[0] for line in ran.out.splitlines())
    assert outcomes == ["failed", "published", "published"]
    (failed,) = re.findall(r"^(\w+-fedora): failed: .*\n  all of its output: (\S+)$", ran.err, re.MULTILINE)
    assert failed[1] == f".imagewright/logs/{failed[0]}.log"
    assert (world.project / failed[1]).is_file()


def test_a_context_that_cannot_be_built_stops_no_other(world: World) -> None:
    world.make()
    world.base()
    world.checks()
    world.run("plan")
    (world.project / "tools/codex/rootfs/.wh.x").write_text("")
    world.run("pytest", "checks/", "-q")
    assert world.run("plan").code == 10
    ran = world.run("build", "--json")
    assert ran.code == 1
    outcomes = {one["target"]: (one["outcome"], one["problem"]) for one in ran.json["results"]}
    assert outcomes["gemini-fedora"] == ("built", "")
    assert outcomes["codex-fedora"][0] == "failed"
    assert "a file name that starts with .wh. cannot be in an image" in outcomes["codex-fedora"][1]


def no_version(world: World) -> None:
    (world.project / "tools/codex/version.sh").write_text("#!/bin/bash\necho null\n")


SINGLES: dict[str, tuple[list[str], int, str, Callable[[World], object]]] = {
    "today": (["--base", "fedora"], 0, ":codex-fedora-1.0.0", lambda world: None),
    "version": (["--base", "fedora", "--version", "9.9"], 0, ":codex-fedora-9.9", lambda world: None),
    "dev": (["--base", "fedora", "--version", "dev"], 0, ":codex-fedora-dev", lambda world: None),
    "dev-push": (["--base", "fedora", "--version", "dev", "--push"], 1, "'dev' is no version", lambda world: None),
    "latest-push": (["--base", "fedora", "--version", "latest", "--push"], 1, "is no version", lambda world: None),
    "unknown-version": (["--base", "fedora"], 1, "Name it with --version.", no_version),
    "not-needed": (["--base", "fedora", "--version", "1"], 0, ":codex-fedora-1", no_version),
    "illegal-version": (["--base", "fedora", "--version", "1+2"], 2, "'codex-fedora-1+2' cannot be a tag", no_version),
    "no-base": ([], 2, "either a plan, or --target, or both --tool and --base", lambda world: None),
    "base-gone": (["--base", "gone"], 1, "/own/bases:gone-latest cannot be read: it is not there", lambda world: None),
    "base-illegal": (["--base", "a b"], 2, "'a b-latest' cannot be a tag", lambda world: None),
    "and-a-plan": (
        ["plan.json", "--base", "fedora"],
        2,
        "either a plan, or --target, or both --tool and --base",
        lambda world: None,
    ),
}


@pytest.mark.parametrize("name", SINGLES)
def test_build_one_pair(world: World, name: str) -> None:
    arguments, code, said, spoil = SINGLES[name]
    world.make({"codex": "1.0.0"})
    world.base()
    spoil(world)
    ran = world.call("build", "--tool", "codex", *arguments)
    assert ran.code == code, ran
    assert said in ran.out + ran.err, ran
    assert (world.state / "images" / "codex-fedora" / "index.json").exists() == (code == 0)


def test_build_of_an_unknown_tool_names_those_there_are(world: World) -> None:
    world.make()
    ran = world.run("build", "--tool", "x", "--base", "fedora")
    assert (ran.code, ran.err) == (2, "imagewright: there is no tool 'x'\n  There are codex, gemini.\n")


def test_two_builds_in_one_project_do_not_meet(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base()
    layers = world.layers_of_bases()
    reached, go = threading.Event(), threading.Event()

    def wait(request: Request, honest: Handler) -> Answer | None:
        if request.path in layers:
            reached.set()
            go.wait(30)
        return None

    world.misbehave = wait
    arguments = ("build", "--tool", "codex", "--base", "fedora")
    first = world.start(*arguments)
    assert reached.wait(30)
    second = world.run(*arguments)
    go.set()
    assert second.code == 1
    assert "another build is running in this project\n  Wait for it.\n" in second.err
    assert first.communicate(timeout=30)[0].startswith("built  ")
    assert first.returncode == 0


def test_what_may_not_be_redistributed_is_built_here_and_never_pushed(world: World) -> None:
    world.make({})
    make_tool(world.project, "claude", "2.0", "redistributable: false\n")
    base = world.base()
    single = ("build", "--tool", "claude", "--base", "fedora")
    assert world.run(*single).code == 0
    layout = str(world.state / "images" / "claude-fedora")
    for arguments in (
        (*single, "--push"),
        (*single, "--push", "--dry-run"),
        ("publish", "claude-fedora", "--version", "2.0", "--layout", layout),
        ("publish", "claude-fedora", "--version", "2.0", "--layout", layout, "--tags", "--base-digest", base),
    ):
        ran = world.run(*arguments)
        assert ran.code == 1
        assert ran.err == (
            "imagewright: claude-fedora may not be redistributed, so it is never pushed\n"
            "  Build it without --push; it stays on this machine.\n"
        )
    assert [one.target for one in world.seen if one.method in ("PUT", "POST")] == []


# matrix, for a forge


def test_a_summary_has_the_plan_of_its_report_and_of_no_other(planned: World) -> None:
    summary = planned.project / "summary.md"
    planned.call("matrix", "--markdown", str(summary))
    assert "to build" not in summary.read_text()
    planned.call("plan")
    planned.call("matrix", "--markdown", str(summary))
    assert "### 2 to build, 0 put off, 0 refused" in summary.read_text()
    planned.change(planned.report, lambda document: document.update(duration=1))
    planned.call("matrix", "--markdown", str(summary))
    assert "to build" not in summary.read_text()
    planned.plan_file.write_text("{}")
    assert planned.call("matrix", "--markdown", str(summary)).code == 50


def test_annotations_are_all_that_is_printed_with_them(planned: World) -> None:
    lines = planned.call("matrix", "--annotations").out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["::notice"] * len(lines)
    assert lines


# publish


def test_publish_what_other_machines_built(world: World) -> None:
    world.make({"codex": "1.0.0"})
    base = world.base()
    world.run("build", "--tool", "codex", "--base", "fedora")
    shown = ("publish", "codex-fedora", "--version", "1.0.0", "--base-digest", base)
    layout = ("--layout", ".imagewright/images/codex-fedora")

    would = world.run(*shown, *layout, "--dry-run", "--tags")
    assert would.out == (
        f"would push the platforms in .imagewright/images/codex-fedora to {world.server.address}/own/tools\n"
        f"would move {world.server.address}/own/tools:codex-fedora-1.0.0, verify it, "
        f"and move {world.server.address}/own/tools:codex-fedora-latest\n"
    )
    assert world.run(*shown, *layout, "--dry-run", "--json").json["jobs"][0]["layouts"] == [layout[1]]
    assert [one.target for one in world.seen if one.method in ("PUT", "POST")] == []

    pushed = world.run(*shown, *layout)
    digests = pushed.out.split()
    assert [one.partition("=")[0] for one in digests] == ["linux/amd64", "linux/arm64"]
    assert dict(one.split("=") for one in digests) == world.run(*shown, *layout, "--json").json["digests"]

    options = [word for one in digests for word in ("--digest", one)]
    half = world.run(*shown, *options[:2], "--tags")
    assert (half.code, half.err) == (1, "")
    assert half.out == (
        f"failed  {world.server.address}/own/tools:codex-fedora-1.0.0, latest not moved\n"
        "  codex-fedora is not whole: linux/arm64 was not built\n  Build it for all platforms.\n"
    )
    whole = world.run(*shown, *options, "--tags", "--json")
    assert whole.code == 0
    (result,) = whole.json["results"]
    assert (result["outcome"], result["latest"]) == ("published", "moved")
    same = f"identical  {world.server.address}/own/tools:codex-fedora-1.0.0  {result['digest']}, latest already\n"
    assert world.run("publish", "codex-fedora", "--version", "1.0.0", *options, "--tags").out == same
    assert world.run("publish", "codex-fedora", "--version", "1.0.0", "--tags").out == same


DIGEST = f"linux/amd64=sha256:{'0' * 64}"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["codex-fedora", "--version", "1"], "nothing to publish\n  Name --layout, --digest, or both; --tags alone"),
        (["codex-fedora", "--digest", DIGEST], "Missing option '--version'"),
        (["x-fedora", "--version", "1", "--digest", DIGEST], "there is no target 'x-fedora'\n  There are codex-<base>."),
        (["codex-fe dora", "--version", "1", "--digest", DIGEST], "'fe dora-latest' cannot be a tag"),
        (["codex-fedora", "--version", "1+1", "--digest", DIGEST], "'codex-fedora-1+1' cannot be a tag"),
        (["codex-fedora", "--version", "1", "--digest", "sha256:0"], "'sha256:0' is not PLATFORM=DIGEST"),
        (["codex-fedora", "--version", "1", "--digest", "linux=sha256:0"], "'linux'"),
        (["codex-fedora", "--version", "1", "--digest", "linux/amd64=x"], "'x' is not a digest"),
        (["codex-fedora", "--version", "1", "--digest", DIGEST, "--digest", DIGEST], "names linux/amd64 twice"),
        (["codex-fedora", "--version", "1", "--digest", DIGEST, "--base-digest", "x"], "'x' is not a digest"),
        (["codex-fedora", "--version", "1", "--layout", "nowhere"], "Directory 'nowhere' does not exist"),
    ],
)  # fmt: skip
def test_publish_refuses_misuse(world: World, arguments: list[str], said: str) -> None:
    world.make({"codex": "1.0.0"})
    world.base()
    ran = world.call("publish", *arguments)
    assert ran.code == 2, ran
    assert said in ran.err


# explain


def test_explain_fresh_stale_and_now(world: World) -> None:
    world.make({"codex": "1.0.0"})
    make_tool(world.project, "goose", "1.0", "exclude-bases:\n  fedora: needs GLIBC_2.38\n")
    make_tool(world.project, "claude", "1.0", "redistributable: false\n")
    first = world.base()
    world.run("build", "--tool", "codex", "--base", "fedora", "--push")
    assert world.checks().code == 0

    fresh = world.run("explain", "codex-fedora")
    assert (fresh.code, fresh.out.splitlines()[0]) == (0, "✓ codex-fedora is fresh")
    assert fresh.out.count("4 layers") == 0
    assert fresh.out.count("3 layers, the first 2 are the base's") == 2
    assert f"{first}  index: linux/amd64, linux/arm64" in fresh.out
    assert max(len(line) for line in fresh.out.splitlines()) <= 125

    second = world.base(mark="2")
    still = world.run("explain", "codex-fedora")
    assert still.code == 0
    now = world.run("explain", "codex-fedora", "--fresh")
    assert now.code == 10
    assert second in now.out
    assert "✗ contains_base  An image is built on the base that is published today." in now.out
    assert "stale: base-changed on linux/amd64, linux/arm64: layer 2 of 2 of the base is another one" in now.out
    assert now.out.endswith("  remedy: Build it on today's base.\n")
    assert json.loads(world.report.read_bytes())["imagewright"]["verdicts"][0]["verdict"] == "fresh"

    assert world.checks().code == 1
    section("verdicts", [{**json.loads(world.report.read_bytes())["imagewright"]["verdicts"][0],
                          "since": "2026-01-01T00:00:00Z"}])(world)  # fmt: skip
    ran = world.run("explain", "codex-fedora", "--fresh", "--json")
    assert ran.code == 10
    assert ran.json["record"]["since"] == "2026-01-01T00:00:00Z"
    assert (ran.json["record"]["target"], ran.json["observed"]["target"]) == ("codex-fedora", "codex-fedora")
    assert ran.json["base"]["name"] == "fedora"
    assert [one["check"] for one in ran.json["findings"] if one["kind"] == "stale"] == ["test_contains_base"]

    for arguments, said in (
        (["goose-fedora"], "'goose-fedora' is excluded: needs GLIBC_2.38\n"),
        (["goose-fedora", "--fresh"], "'goose-fedora' is excluded: needs GLIBC_2.38\n"),
        (["claude-fedora", "--fresh"], "'claude-fedora' is excluded: may not be redistributed\n"),
        (["nope"], "the report has no target 'nope'\n  It has codex-fedora.\n"),
        (["nope", "--fresh"], "there is no target 'nope'\n  There are claude-<base>, codex-<base>, "),
        (["codex-nope", "--fresh"], "the report has no target 'codex-nope'\n  It has codex-fedora.\n"),
    ):
        ran = world.run("explain", *arguments)
        assert ran.code == 2, ran
        assert said in ran.err


def test_explain_unknown(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base()
    no_version(world)
    world.checks()
    ran = world.run("explain", "codex-fedora")
    assert ran.code == 20
    assert ran.out.startswith("? codex-fedora is unknown, since ")
    assert "  version  unknown: version-format: printed 'null', which is no version  (version.sh on the host" in ran.out


def snapshot_gone(world: World) -> None:
    (world.state / "snapshot.json").unlink()


def snapshot_cut(world: World) -> None:
    (world.state / "snapshot.json").write_text("{")


def broken_check(world: World) -> None:
    (world.project / "checks" / "test_broken.py").write_text("def test_x(:\n")


def partial(world: World) -> None:
    def edit(document: Any) -> None:
        ours = document["imagewright"]
        ours["partial"] = ["codex-fedora"]
        ours["expected"].remove("codex-fedora")
        ours["verdicts"] = ours["verdicts"][1:]

    world.change(world.report, edit)


EXPLANATIONS: dict[str, tuple[Callable[[World], object], int, str]] = {
    "as-it-is": (lambda world: None, 10, "✗ codex-fedora is stale"),
    "no-report": (report_gone, 50, "Run `pytest checks/` first, or ask now with --fresh."),
    "cut": (report_cut, 50, "report.json: not a report: "),
    "edited": (report_edited, 50, "report.json: the report was changed after it was written\n  Run `pytest"),
    "no-snapshot": (snapshot_gone, 10, "exists         An image is published: "),
    "snapshot-cut": (snapshot_cut, 50, "snapshot.json: "),
    "broken-check": (broken_check, 40, "test_broken.py:1: not Python: "),
    "settings": (settings_broken, 40, "colour"),
    "partial": (partial, 2, "the report has no verdict about 'codex-fedora': it was asked only some of the checks"),
}


@pytest.mark.parametrize("name", EXPLANATIONS)
def test_explain(planned: World, name: str) -> None:
    spoil, code, said = EXPLANATIONS[name]
    spoil(planned)
    ran = planned.call("explain", "codex-fedora")
    assert ran.code == code, ran
    assert said in ran.out + ran.err, ran


# matrix


MATRICES: dict[str, tuple[Callable[[World], object], list[str], int, str]] = {
    # name: what is done to the project, arguments, exit code, what is said
    "whole": (lambda world: None, [], 0, "2 tools on 1 base: 0 of 2 fresh\n"),
    "old": (begun(days=-9), [], 0, "2 tools on 1 base: 0 of 2 fresh\n"),
    "settings-broken": (settings_broken, [], 0, "2 tools on 1 base: 0 of 2 fresh\n"),
    "report-gone": (report_gone, [], 50, "there is no report: No such file or directory\n  Run `pytest checks/` first"),
    "report-cut": (report_cut, [], 50, "report.json: not a report: "),
    "report-edited": (report_edited, [], 50, "report.json: the report was changed after it was written\n  Run `pytest"),
    "report-foreign": (report_foreign, [], 50, "the report has no section of imagewright"),
    "excluded-is-text": (section("excluded", ["goose-node"]), [], 50, "excluded is not a list of objects"),
    "because-of-a-number": (
        section("excluded", [{"target": "a-b", "because": 1}]), [], 50, "excluded has a member that is not a text"
    ),
    "a-base-without-name": (section("bases", [{"base": None}]), [], 50, "bases has a member that is not a text"),
    "a-version-of-a-number": (section("versions", [{"tool": "a", "version": 1}]), [], 50, "versions has a member that"),
    "no-such-folder": (lambda world: None, ["--html", "no/m.html"], 1, "no/m.html: cannot be written: No such file"),
    "page-is-a-folder": (lambda world: None, ["--html", "tools"], 2, "File 'tools' is a directory"),
}  # fmt: skip


@pytest.mark.parametrize("name", MATRICES)
def test_matrix(planned: World, name: str) -> None:
    spoil, arguments, code, said = MATRICES[name]
    spoil(planned)
    before = sorted(planned.project.rglob("*"))
    ran = planned.call("matrix", *arguments)
    assert ran.code == code, ran
    assert said in (ran.out if code == 0 else ran.err), ran
    assert sorted(planned.project.rglob("*")) == before


def test_matrix_writes_the_page_and_the_drawing_and_prints_only_what_is_asked_for(planned: World) -> None:
    (planned.project / "m.svg").write_text("an older one")
    ran = planned.run("matrix", ".imagewright/report.json", "--html", ".imagewright/matrix.html", "--svg", "m.svg")
    assert (ran.code, ran.out, ran.err) == (0, "", "wrote .imagewright/matrix.html\nwrote m.svg\n")
    page, drawing = planned.state / "matrix.html", planned.project / "m.svg"
    assert page.read_text().startswith("<!DOCTYPE html>\n")
    assert drawing.read_text().startswith("<svg ")
    written = page.read_bytes(), drawing.read_bytes()

    ran = planned.run("matrix", "--json", "--html", ".imagewright/matrix.html", "--svg", "m.svg")
    assert (ran.code, ran.json["schema"], ran.json["counts"]["stale"]) == (0, 1, 2)
    assert (page.read_bytes(), drawing.read_bytes()) == written
    digest = hashlib.sha256(planned.report.read_bytes()).hexdigest()
    assert ran.json["report"]["digest"] == f"sha256:{digest}"
    assert digest in page.read_text()


def in_a_terminal(world: World, *arguments: str, **environ: str) -> str:
    """What a command writes into a terminal of 60 columns."""
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 60))
    with subprocess.Popen(
        [*PROGRAM, *arguments], cwd=world.project, env=world.environ | environ, stdout=theirs, stderr=theirs
    ):
        os.close(theirs)
        said = b""
        with suppress(OSError):  # how Linux says that nobody writes any more
            while read := os.read(ours, 65536):
                said += read
    os.close(ours)
    return said.decode()


@pytest.mark.parametrize(
    ("environ", "coloured"),
    [({"TERM": "xterm"}, True), ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": "1"}, False)],
)
def test_matrix_keeps_to_the_terminal(planned: World, environ: dict[str, str], coloured: bool) -> None:
    said = in_a_terminal(planned, "matrix", **environ)
    assert ("\x1b[31m" in said) == coloured
    lines = re.sub(r"\x1b\[\d*m", "", said).splitlines()
    assert max(len(line) for line in lines) <= 60
    assert "codex   ✗ image-missing" in lines


# versions, registry


def test_versions(world: World) -> None:
    world.make()
    ran = world.run("versions", "-o", "versions.json")
    assert ran.code == 0
    assert re.fullmatch(r"codex   1\.0\.0  \(host, \d+\.\d s\)\ngemini  2\.1    \(host, \d+\.\d s\)\n", ran.out)
    written = json.loads((world.project / "versions.json").read_bytes())
    assert [(one["tool"], one["version"]) for one in written["versions"]] == [("codex", "1.0.0"), ("gemini", "2.1")]

    no_version(world)
    ran = world.run("versions")
    assert ran.code == 20
    assert "codex   unknown: version-format: printed 'null', which is no version  (host, " in ran.out
    ran = world.run("versions", "--json")
    assert (ran.code, ran.json["schema"]) == (20, 1)
    assert [one["version"] for one in ran.json["versions"]] == [None, "2.1"]
    assert world.run("versions", "-o", "nowhere/versions.json").code == 1


def with_image(world: World) -> tuple[StandIn, dict[str, str]]:
    """An engine that has the version-check image, and the environment in which both are used."""
    podman = stand_in(world.root, "podman")
    podman.have()
    return podman, {"PATH": podman.path, "IMAGEWRIGHT_VERSIONS__IMAGE": REFERENCE}


def test_versions_in_the_image(world: World) -> None:
    world.make()
    (world.project / "tools/gemini/version.sh").write_text("[[ -z $CONTAINER ]] || exit 3; echo 2.1")
    podman, environ = with_image(world)
    ran = world.run("versions", "-o", "versions.json", **environ)
    assert (ran.code, ran.err) == (0, "")
    assert re.sub(r"\d+\.\d s", "T", ran.out) == (
        "codex   1.0.0  (image, T)\ngemini  2.1    (host, T; in the image: exit status 3)\n"
    )
    written = json.loads((world.project / "versions.json").read_bytes())["versions"]
    assert [(one["via"], one["image"], one["fallback"]) for one in written] == [
        ("image", IMAGE_DIGEST, ""),
        ("host", "", "exit status 3"),
    ]

    alone = world.run("versions", IMAGEWRIGHT_VERSIONS__HOST_FALLBACK="false", **environ)
    assert alone.code == 20
    assert "gemini  unknown: version-failed: exit status 3  (image, " in alone.out

    podman.away()
    ran = world.run("versions", **environ)
    why = "there is no container engine (docker: 'hidden'; podman: 'Cannot connect to the daemon')"
    assert (ran.code, ran.err) == (0, f"warning: versions are read on the host: {why}\n")
    assert re.sub(r"\d+\.\d s", "T", ran.out) == "codex   1.0.0  (host, T)\ngemini  2.1    (host, T)\n"
    assert world.run("versions", "--json", **environ).json["warnings"] == [f"versions are read on the host: {why}"]


def test_versions_compared(world: World) -> None:
    world.make({"codex": "1.0.0", "gemini": "2.1", "goose": "3.0"})
    _, environ = with_image(world)
    same = world.run("versions", "--compare", **environ)
    assert (same.code, same.err) == (0, "")
    assert same.out == (
        "tool    host   image linux/amd64  result\n"
        "codex   1.0.0  1.0.0              same\n"
        "gemini  2.1    2.1                same\n"
        "goose   3.0    3.0                same\n"
    )

    (world.project / "tools/codex/version.sh").write_text("exit 3")
    (world.project / "tools/gemini/version.sh").write_text("echo 2.1$CONTAINER")
    other = world.run("versions", "--compare", "--platform", "linux/amd64", "--platform", "linux/arm64", **environ)
    wrong = f"the image {REFERENCE} is for linux/amd64, not for linux/arm64"
    assert (other.code, other.err) == (1, "")
    assert other.out == (
        "tool    host  image linux/amd64  image linux/arm64  result\n"
        "codex   -     -                  -                  "
        f"host: exit status 3; image linux/amd64: exit status 3; image linux/arm64: {wrong}\n"
        f"gemini  2.1   2.1yes             -                  image linux/arm64: {wrong}\n"
        f"goose   3.0   3.0                -                  image linux/arm64: {wrong}\n"
    )
    as_json = world.run("versions", "--compare", "--json", **environ)
    assert as_json.code == 1
    assert [(one["tool"], one["result"], one["failures"]) for one in as_json.json["comparisons"]] == [
        ("codex", "failed", ["host: exit status 3", "image linux/amd64: exit status 3"]),
        ("gemini", "differs", []),
        ("goose", "same", []),
    ]
    assert [one["platform"] for one in as_json.json["comparisons"][0]["images"]] == ["linux/amd64"]


@pytest.mark.parametrize(
    ("arguments", "image", "said"),
    [
        (
            ["--compare"],
            "",
            "there is no version-check image to compare with\n  Set `image` in [tool.imagewright.versions].",
        ),
        (["--compare", "-o", "x"], REFERENCE, "--compare writes no versions\n  Leave out --output."),
        (
            ["--platform", "linux/amd64"],
            REFERENCE,
            "--platform is for --compare\n  Versions are asked once, whatever the platform.",
        ),
        (
            ["--compare", "--platform", "amd64"],
            REFERENCE,
            "'amd64' is not a platform: os/architecture or os/architecture/variant, e.g. linux/arm64",
        ),
    ],
)
def test_versions_misused(world: World, arguments: list[str], image: str, said: str) -> None:
    world.make()
    ran = world.run("versions", *arguments, IMAGEWRIGHT_VERSIONS__IMAGE=image)
    assert (ran.code, ran.out, ran.err) == (2, "", f"imagewright: {said}\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_versions_interrupted_leave_no_container(world: World, number: int, code: int) -> None:
    world.make()
    podman, environ = with_image(world)
    began = world.root / "began"
    for name in TOOLS:
        (world.project / "tools" / name / "version.sh").write_text(f"echo $$ >> {began}\nexec sleep 600\n")
    process = world.start("versions", **environ)
    await_lines(began, 2)
    process.send_signal(number)
    process.communicate(timeout=20)
    assert process.returncode == code
    assert podman.live == []
    assert len(began.read_text().split()) == 2
    assert gone(map(int, began.read_text().split()))


def await_lines(file: Path, count: int) -> None:
    deadline = time.monotonic() + 30
    while not file.is_file() or len(file.read_text().splitlines()) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_fallback_and_its_cause_are_in_report_and_explanation(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base()
    podman, environ = with_image(world)
    world.checks(**environ)
    ran = world.run("explain", "codex-fedora", **environ)
    assert re.search(
        rf"  version  1\.0\.0  \(version\.sh in the image, \d+\.\d s\)\n           {IMAGE_DIGEST}\n", ran.out
    )
    section = json.loads(world.report.read_bytes())["imagewright"]
    assert (section["warnings"], section["versions"][0]["image"]) == ([], IMAGE_DIGEST)

    podman.away()
    why = "there is no container engine (docker: 'hidden'; podman: 'Cannot connect to the daemon')"
    for workers in ([], ["-n", "1"]):
        ran = world.checks(*workers, **environ)
        assert f"warning: versions are read on the host: {why}" in ran.out
        section = json.loads(world.report.read_bytes())["imagewright"]
        assert section["warnings"] == [f"versions are read on the host: {why}"]
        assert (section["versions"][0]["via"], section["versions"][0]["fallback"]) == ("host", why)
    ran = world.run("explain", "codex-fedora", **environ)
    assert "(version.sh on the host" in ran.out
    assert f"           in the image: {why}\n" in ran.out


def test_registry_serve_until_interrupted(world: World) -> None:
    world.make()
    process = world.start("registry", "serve", "--port", "0", "--root", "served")
    assert process.stderr
    line = process.stderr.readline()
    matched = re.fullmatch(r"serving served at (127\.0\.0\.1:\d+); stop with Ctrl-C\n", line)
    assert matched
    port = matched[1].partition(":")[2]

    taken = world.run("registry", "serve", "--port", port)
    assert taken.code == 1
    assert taken.err == (
        f"imagewright: cannot listen on 127.0.0.1:{port}: Address already in use\n"
        "  Choose another port, or stop what uses this one.\n"
    )
    with socket.create_connection(("127.0.0.1", int(port))) as client:  # one that stays does not hold it
        client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(15) == b"HTTP/1.1 200 OK"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=5)
    assert (process.returncode, out, err) == (130, "", "\nimagewright: interrupted\n")


# All verbs


@pytest.mark.parametrize(
    "arguments",
    [["nope"], ["plan", "--nope"], ["plan", "a", "b"], ["explain"], ["registry", "serve", "--port", "99999"],
     ["registry", "nope"], ["build", "--max-age", "nan"], ["demo", "x"], []],
)  # fmt: skip
def test_misuse_ends_with_2(world: World, arguments: list[str]) -> None:
    world.project.mkdir()
    ran = subprocess.run([*PROGRAM, *arguments], cwd=world.project, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Usage: imagewright" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_folder_that_is_no_project_ends_with_40(world: World) -> None:
    world.project.mkdir()
    for verb in (["versions"], ["plan"], ["build"], ["explain", "codex-fedora"]):
        assert world.run(*verb).code == 40, verb


@pytest.mark.parametrize("verb", [one for one in VERBS if one != "demo"])
def test_help_shows_examples(verb: str) -> None:
    command = main.get_command(click.Context(main), verb)
    assert command
    commands = [command] if not isinstance(command, click.Group) else list(command.commands.values())
    for one in commands:
        assert cleandoc(one.help or "").count(f"\nimagewright {verb}") >= 2


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    seconds = []
    for _ in range(5):
        began = time.monotonic()
        subprocess.run([*PROGRAM, "--help"], check=True, capture_output=True)
        seconds.append(time.monotonic() - began)
    assert statistics.median(seconds) < 0.6  # 0.15 is the aim; machines are busy
    probe = "import sys\nfrom imagewright.cli import main\nmain(['--help'], standalone_mode=False)\nprint(*sys.modules)"
    said = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True).stdout
    loaded = set(said.splitlines()[-1].split())
    assert loaded & {"pytest", "_pytest", "oras", "requests", "urllib3", "yaml", "packaging", "subprocess"} == set()


def test_output_into_a_closed_pipe(planned: World) -> None:
    for stream in ("stdout", "stderr"):
        for arguments in (["plan"], ["build", "--max-age", "0"]):
            reader, writer = os.pipe()
            os.close(reader)
            others = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, stream: writer}
            ran = subprocess.run(
                [*PROGRAM, *arguments], cwd=planned.project, env=planned.environ, text=True, check=False, **others
            )  # type: ignore[call-overload]
            os.close(writer)
            assert "Traceback" not in (ran.stdout or "") + (ran.stderr or "")
            assert ran.returncode in (1, 10, 50)


# Interruptions


def processes_of(session: int) -> list[str]:
    """Processes whose working folder or session is that of a command; read from /proc."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                if os.getsid(int(entry.name)) == session:
                    found.append((entry / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return found


@pytest.mark.parametrize(("number", "code", "said"), [
    (signal.SIGINT, 130, "imagewright: interrupted\n"),
    (signal.SIGTERM, 143, "imagewright: terminated\n"),
])  # fmt: skip
def test_an_interrupted_build_ends_soon_and_leaves_nothing(world: World, number: int, code: int, said: str) -> None:
    world.make()
    world.base()
    world.checks()
    world.run("plan")
    reached, go = threading.Semaphore(0), threading.Event()
    layers = world.layers_of_bases()

    def silent(request: Request, honest: Handler) -> Answer | None:
        if request.path in layers:
            reached.release()
            go.wait(30)
        return None

    world.misbehave = silent
    process = world.start("build", "--push")
    assert reached.acquire(timeout=30)
    assert reached.acquire(timeout=30)
    began = time.monotonic()
    process.send_signal(number)
    try:
        out, err = process.communicate(timeout=10)
    finally:
        seconds = time.monotonic() - began
        go.set()
    assert seconds < 2
    assert (process.returncode, out) == (code, "")
    assert err.endswith(said)
    assert "Traceback" not in err
    assert list((world.state / "images").iterdir()) == []
    assert processes_of(process.pid) == []
    assert [one.target for one in world.seen if one.method in ("PUT", "POST")] == []


def test_what_a_killed_build_left_is_removed_by_the_next(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base()
    half = world.state / "images" / ".codex-fedora.x1"
    half.mkdir(parents=True)
    assert world.run("build", "--tool", "codex", "--base", "fedora").code == 0
    assert [one.name for one in (world.state / "images").iterdir()] == ["codex-fedora"]


def test_an_interrupted_verification_ends_soon_and_moves_nothing(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base()
    reached, go = threading.Event(), threading.Event()
    tagged: list[bool] = []

    def silent(request: Request, honest: Handler) -> Answer | None:
        if request.method == "PUT" and request.path.endswith("codex-fedora-1.0.0"):
            tagged.append(True)
        elif tagged and request.method == "GET":
            reached.set()
            go.wait(30)
        return None

    world.misbehave = silent
    process = world.start("build", "--tool", "codex", "--base", "fedora", "--push")
    assert reached.wait(30)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=10)
    finally:
        seconds = time.monotonic() - began
        go.set()
    assert seconds < 2
    assert process.returncode == 130, err
    assert [
        one.target for one in world.seen if one.target.endswith("codex-fedora-latest") and one.method == "PUT"
    ] == []
    assert [one.name for one in (world.root / "tmp").iterdir()] == []


# Secrets


def test_no_secret_is_printed_or_written(world: World) -> None:
    canary = "CANARY-4711"
    world.make()
    world.base()
    script = world.project / "tools" / "gemini" / "version.sh"
    script.write_text(f"{script.read_text()}env >&2\n")
    login = base64.b64encode(f"somebody:{canary}".encode()).decode()
    auth = world.root / "auth.json"
    auth.write_text(json.dumps({"auths": {world.server.address: {"auth": login}}}))
    used: list[str] = []

    def ask(request: Request, honest: Handler) -> Answer | None:
        said = request.headers.get("authorization", "")
        used.append(said)
        if said != f"Basic {login}":
            return Answer(status=401, headers={"WWW-Authenticate": 'Basic realm="here"'})
        return Answer(status=403) if refusing and "gemini" in request.path and request.method == "PUT" else None

    refusing = [True]
    world.misbehave = ask
    environ = {"REGISTRY_AUTH_FILE": str(auth), "GH_TOKEN": canary, "IMAGEWRIGHT_FORGE_TOKEN": canary}
    said = [world.run("versions", **environ), world.checks(**environ), world.run("plan", "--json", **environ)]
    build = world.run("build", "--push", "--json", **environ)
    assert {one["target"]: one["outcome"] for one in build.json["results"]} == {
        "codex-fedora": "published",
        "gemini-fedora": "failed",
    }
    said += [build, world.checks(**environ), world.run("explain", "codex-fedora", "--fresh", "--json", **environ)]
    said += [world.run("explain", "gemini-fedora", **environ)]
    assert f"Basic {login}" in used

    written = [file for place in ("project", "registry", "tmp") for file in (world.root / place).rglob("*")]
    for secret in (canary, login):
        assert [one for one in said if secret in one.out + one.err] == []
        assert [file for file in written if file.is_file() and secret.encode() in file.read_bytes()] == []


def test_an_interrupted_explanation_leaves_no_script_running(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base()
    (world.project / "tools" / "codex" / "version.sh").write_text("exec sleep 600.0724\n")
    process = world.start("explain", "codex-fedora", "--fresh")
    deadline = time.monotonic() + 30
    while not processes("600.0724") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert processes("600.0724")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=5)
    assert process.returncode == 130
    assert gone(processes("600.0724"))
