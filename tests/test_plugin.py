"""`pytest checks/` in small true worlds: a registry over real HTTP, a project in a folder, a run, its report read back.

Most runs share this process, which costs a tenth; what needs a process of its own (workers, signals, crashes) gets one.
"""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from imagewright.embedded.server import Handler, Seen, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request
from imagewright.errors import BadReport
from imagewright.load import load_catalogue
from imagewright.names import Digest
from imagewright.recipe import BUILDKIT, recipe
from imagewright.report import Record, Report, parse
from imagewright.snapshot import Reading
from imagewright.state import StateFolder
from imagewright.testing.images import Layer, Picture, StoreSink, layer, push, push_manifest
from imagewright.testing.projects import make_project, make_tool
from imagewright.verdict import State
from imagewright.versions import dump_file

pytest_plugins = ["pytester"]

AMD, ARM, RISCV = "linux/amd64", "linux/arm64", "linux/riscv64"
BOTH = (AMD, ARM)
CHECKS = ("base_config", "contains_base", "exists", "latest", "platforms", "recipe", "version_label")
UNLABELLED = ("recipe", "version_label")


@dataclass(frozen=True)
class Ran:
    """A run that has ended. code: its exit code. text: all that it printed."""

    code: int
    text: str
    report: bytes | None
    path: Path

    @property
    def parsed(self) -> Report:
        assert self.report is not None, self.text
        return parse(self.report, str(self.path))

    def record(self, target: str) -> Record:
        found = self.parsed.record(target)
        assert found, self.text
        return found

    @property
    def states(self) -> dict[str, str]:
        return {one.target: one.state.value for one in self.parsed.records}

    @property
    def codes(self) -> dict[str, list[str]]:
        """Target → its reasons, each as `code` or `code platform`."""
        return {one.target: codes(one) for one in self.parsed.records}


def refusal(ran: Ran) -> str:
    """Why its report is none."""
    with pytest.raises(BadReport) as refused:
        parse(ran.report or b"", "report.json")
    return refused.value.reason


def codes(record: Record) -> list[str]:
    return [f"{one.code} {one.platform}".rstrip() for one in record.reasons]


@dataclass
class World:
    """A registry, a project that publishes into it, and what the registry was asked."""

    root: Path
    pytester: pytest.Pytester
    sink: StoreSink
    server: Server
    seen: list[Seen]
    misbehave: Callable[[Request, Handler], Answer | None] = field(default=lambda request, honest: None)
    bases: dict[str, dict[str, Picture]] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.root / "project"

    def make(self, tools: Mapping[str, str], **options: object) -> None:
        make_project(self.project, registry=self.server.address, tools=tools, **options)  # type: ignore[arg-type]

    def base(self, name: str, *steps: Layer | str, platforms: Sequence[str] = BOTH) -> Digest:
        """Publishes a base: by default three layers of its own and one command."""
        own = steps or (layer({"etc/os": name}), layer({"etc/mid": name}), "ENV A=1", layer({"etc/last": "same"}))
        self.bases[name] = {
            one: Picture(steps=[layer({"etc/arch": one}), *own]) if own[0] != "nothing" else Picture(steps=[])
            for one in platforms
        }
        return push(self.sink, "own/bases", [f"{name}-latest"], self.bases[name])

    def image(
        self,
        tool: str,
        base: str,
        version: str,
        *,
        on: Mapping[str, Picture] | None = None,
        tags: Sequence[str] = ("{version}", "latest"),
        labels: Mapping[str, str] | None = None,
    ) -> Digest:
        """Publishes a pair as a builder would. on: what it was built on, if not today's base."""
        built = {
            platform: picture.on_top(layer({f"bin/{tool}": platform}), labels=labels)
            for platform, picture in (on or self.bases[base]).items()
        }
        names = [f"{tool}-{base}-{one.format(version=version)}" for one in tags]
        return push(self.sink, "own/tools", names, built)

    def publish_all(self, tools: Mapping[str, str]) -> None:
        for tool, version in tools.items():
            for base in self.bases:
                self.image(tool, base, version)

    def lose_child(self, index: Digest, platform: str, repository: str = "own/tools") -> None:
        """Deletes the image of one platform, as a garbage collector gone wrong does."""
        folder = self.root / "registry" / repository.replace("/", "+") / "blobs" / "sha256"
        entries = json.loads((folder / index.removeprefix("sha256:")).read_bytes())["manifests"]
        architecture = platform.partition("/")[2]
        child = next(one["digest"] for one in entries if one["platform"]["architecture"] == architecture)
        (folder / child.removeprefix("sha256:")).unlink()

    def script(self, tool: str, text: str) -> None:
        """Replaces a tool's version.sh."""
        (self.project / "tools" / tool / "version.sh").write_text(f"#!/bin/bash\n{text}\n")

    def versions_read(self) -> list[str]:
        """The tools whose scripts, as `family` has them, were run."""
        log = self.root / "read"
        return log.read_text().split() if log.exists() else []

    def run(self, *arguments: str) -> Ran:
        """pytest in this process, in the project's folder."""
        self._forget()
        with warnings.catch_warnings(), pytest.MonkeyPatch.context() as patch:
            warnings.simplefilter("default")  # what is an error in our own tests is none in a project
            patch.chdir(self.project)
            result = self.pytester.runpytest_inprocess(*_with_checks(arguments))
        return self._ran(int(result.ret), result.stdout.str() + result.stderr.str())

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        """pytest as a process, leading a group of its own as from a terminal."""
        self._forget()
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", *_with_checks(arguments)],
            cwd=self.project,
            env=os.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def spawn(self, *arguments: str, **environ: str) -> Ran:
        """pytest as a process, to its end."""
        process = self.start(*arguments, **environ)
        text, _ = process.communicate(timeout=60)
        return self._ran(process.returncode, text)

    def _forget(self) -> None:
        self.seen.clear()
        before = self.project / ".imagewright" / "report.json"
        if before.is_file():
            before.rename(before.with_name("before.json"))

    def _ran(self, code: int, text: str) -> Ran:
        path = self.project / ".imagewright" / "report.json"
        return Ran(code, text, path.read_bytes() if path.is_file() else None, path)

    def asked(self) -> list[str]:
        """Paths that were asked for, sorted, canaries aside: their names are never the same."""
        return sorted(one.target for one in self.seen if "canary" not in one.target)


_OURS = ("-p", "no:hypothesispytest", "-p", "no:timeout")
"""Plugins of our own tests, whose imports would take most of a run's time."""


def _with_checks(arguments: Sequence[str]) -> list[str]:
    paths = () if any(one.startswith(("checks/", "other/")) for one in arguments) else ("checks/",)
    return [*_OURS, *paths, *arguments]


@pytest.fixture
def world(tmp_path: Path, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name in ("PYTEST_ADDOPTS", "CI", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    seen: list[Seen] = []

    def between(request: Request, honest: Handler) -> Answer:
        return made.misbehave(request, honest) or honest(request)

    with Server(tmp_path / "registry", on_request=seen.append, middleware=between) as server:
        made = World(tmp_path, pytester, StoreSink(Store(tmp_path / "registry")), server, seen)
        yield made


# What is found


def test_what_was_never_published_is_stale_and_fresh_once_it_is(world: World) -> None:
    tools = {"codex": "1.0.0", "gemini": "2.1"}
    world.make(tools)
    world.base("fedora")
    world.base("minimal")

    before = world.run()

    assert before.code == 1
    assert before.codes == {
        key: ["image-missing"] for key in ("codex-fedora", "codex-minimal", "gemini-fedora", "gemini-minimal")
    }
    assert before.parsed.selection == "all"
    assert before.parsed.total == 4
    first = before.record("codex-fedora")
    assert first.reference == f"{world.server.address}/own/tools:codex-fedora-1.0.0"
    assert (first.digest, first.last_layer, first.since) == (None, None, before.parsed.started)

    world.publish_all(tools)
    after = world.run()

    assert after.code == 0
    assert set(after.states.values()) == {"fresh"}
    assert {one.not_asked for one in after.parsed.records} == {UNLABELLED}
    assert {one.since for one in after.parsed.records} == {None}
    assert after.parsed.nonce != before.parsed.nonce
    assert StateFolder(world.project / ".imagewright").last_good()["codex-fedora"] == first.reference


OLD_MIDDLE = {
    one: Picture(
        steps=[
            layer({"etc/arch": one}),
            layer({"etc/os": "fedora"}),
            layer({"etc/mid": "old"}),
            "ENV A=1",
            layer({"etc/last": "same"}),
        ]
    )
    for one in BOTH
}
OLD_ENV = {
    one: Picture(
        steps=[
            layer({"etc/arch": one}),
            layer({"etc/os": "fedora"}),
            layer({"etc/mid": "fedora"}),
            "ENV A=0",
            layer({"etc/last": "same"}),
        ]
    )
    for one in BOTH
}

VERSION, RECIPE = "org.opencontainers.image.version", "imagewright.recipe"
BY_TOOL: dict[str, tuple[list[str], tuple[str, ...], bool | None]] = {
    # tool, named after how its image was published: reasons, what is not asked, the original rule's word
    "right": ([], UNLABELLED, True),
    "missing": (["image-missing"], tuple(one for one in CHECKS if one != "exists"), None),
    "middle": ([f"base-changed {AMD}", f"base-changed {ARM}"], UNLABELLED, True),
    "middle-on-arm": ([f"base-changed {ARM}"], UNLABELLED, True),
    "env": ([f"base-config {AMD}", f"base-config {ARM}"], UNLABELLED, True),
    "half": ([f"platform-missing {ARM}"], UNLABELLED, True),
    "wide": ([], UNLABELLED, True),
    "childless": ([f"child-missing {ARM}"], UNLABELLED, True),
    "single": (["not-multiarch"], UNLABELLED, True),
    "behind": (["latest-behind"], UNLABELLED, True),
    "nolatest": (["latest-behind"], UNLABELLED, True),
    "bare": ([f"no-own-layers {AMD}", f"no-own-layers {ARM}"], UNLABELLED, True),
    "labelled": ([], (), True),
    "mislabelled": ([f"version-label {AMD}", f"version-label {ARM}"], ("recipe",), True),
    "reworked": ([f"recipe-changed {AMD}", f"recipe-changed {ARM}"], ("version_label",), True),
    "foreign": ([], UNLABELLED, True),
}


def test_each_way_to_rot_has_its_reason(world: World) -> None:
    world.make(dict.fromkeys(BY_TOOL, "1.0"))
    world.base("fedora")
    on = world.bases["fedora"]
    world.image("right", "fedora", "1.0")
    world.image("middle", "fedora", "1.0", on=OLD_MIDDLE)
    world.image("middle-on-arm", "fedora", "1.0", on={AMD: on[AMD], ARM: OLD_MIDDLE[ARM]})
    world.image("env", "fedora", "1.0", on=OLD_ENV)
    world.image("half", "fedora", "1.0", on={AMD: on[AMD]})
    world.image("wide", "fedora", "1.0", on={**on, RISCV: on[AMD]})
    world.lose_child(world.image("childless", "fedora", "1.0"), ARM)
    members = {"os": "linux", "architecture": "amd64"}
    for tag in ("single-fedora-1.0", "single-fedora-latest"):
        push_manifest(world.sink, "own/tools", members, on[AMD].on_top(layer({"bin/single": ""})), tag)
    world.image("behind", "fedora", "0.9", tags=["latest"], on=OLD_ENV)
    world.image("behind", "fedora", "1.0", tags=["1.0"])
    world.image("nolatest", "fedora", "1.0", tags=["1.0"])
    push(world.sink, "own/tools", ["bare-fedora-1.0", "bare-fedora-latest"], on)
    today = {tool.name: recipe(tool, BUILDKIT) for tool in load_catalogue(world.project, {}).tools}
    world.image("labelled", "fedora", "1.0", labels={VERSION: "1.0", RECIPE: today["labelled"]})
    world.image("mislabelled", "fedora", "1.0", labels={VERSION: "1.1"})
    world.image("reworked", "fedora", "1.0", labels={RECIPE: today["labelled"]})
    world.image("foreign", "fedora", "1.0", labels={RECIPE: "2:kaniko:0000"})

    ran = world.run()

    assert ran.code == 1
    found = {
        one.tool: (codes(one), one.not_asked, one.last_layer)
        for one in sorted(ran.parsed.records, key=lambda r: r.tool)
    }
    assert found == dict(sorted(BY_TOOL.items()))
    assert {one.state.value for one in ran.parsed.records if one.reasons} == {"stale"}
    assert "Traceback" not in ran.text
    assert "Error" not in ran.text


BY_BASE = {
    # base, named after what is wrong with it: reasons of a tool on it, although nothing of it was ever published
    "fedora": ["image-missing"],
    "denied": ["base-unreadable"],
    "lost": ["base-unreadable"],
    "nothing": ["base-empty"],
    "named": ["base-platform-missing"],
    "strange": ["base-platform-missing"],
}


def test_a_base_that_cannot_be_compared_with_makes_its_pairs_unknown(world: World) -> None:
    world.make({"codex": "1.0"}, settings=f'[bases.named]\nplatforms = ["{RISCV}"]')
    for name in ("fedora", "denied", "named"):
        world.base(name)
    world.lose_child(world.base("lost"), ARM, "own/bases")
    world.base("nothing", "nothing")
    world.base("strange", platforms=[RISCV])
    world.misbehave = lambda request, honest: (
        Answer(status=403) if request.path.endswith("manifests/denied-latest") else None
    )

    ran = world.run()

    assert {one.base: codes(one) for one in ran.parsed.records} == BY_BASE
    assert {one.base: one.state.value for one in ran.parsed.records} == {
        base: "stale" if reasons == ["image-missing"] else "unknown" for base, reasons in BY_BASE.items()
    }


def test_excluded_pairs_are_shown_and_never_expected(world: World) -> None:
    world.make({"codex": "1.0"})
    make_tool(world.project, "goose", "1.0", "exclude-bases:\n  fedora: needs GLIBC_2.38\n")
    make_tool(world.project, "closed", "1.0", "redistributable: false\n")
    world.base("fedora")
    world.image("codex", "fedora", "1.0")

    ran = world.run()

    assert ran.code == 0
    assert ran.parsed.expected == ("codex-fedora",)
    assert ran.parsed.excluded == (
        {"target": "closed-fedora", "tool": "closed", "base": "fedora", "because": "may not be redistributed"},
        {"target": "goose-fedora", "tool": "goose", "base": "fedora", "because": "needs GLIBC_2.38"},
    )
    assert "- goose-fedora  excluded: needs GLIBC_2.38" in ran.text
    assert not [one for one in world.asked() if "goose" in one or "closed" in one]


# Who vouches for what is found

CANNOT_EXIST = Answer(status=451)


def deaf_to_canaries(request: Request, honest: Handler) -> Answer | None:
    return CANNOT_EXIST if "canary" in request.target else None


@pytest.mark.parametrize("which", ["before", "after"])
def test_what_is_stale_is_unknown_where_a_canary_fails_and_what_is_fresh_stays_fresh(world: World, which: str) -> None:
    tools = {"codex": "1.0.0", "gemini": "2.1"}
    world.make(tools)
    world.base("fedora")
    world.publish_all(tools)
    world.image("gemini", "fedora", "2.1", on={one: Picture(steps=[layer({"old": one})]) for one in BOTH})
    at = {"before": 0, "after": 1}[which]
    canaries = iter([index == at for index in range(2)])
    world.misbehave = lambda request, honest: CANNOT_EXIST if "canary" in request.target and next(canaries) else None

    ran = world.run()

    assert (ran.code, ran.states) == (1, {"codex-fedora": "fresh", "gemini-fedora": "unknown"})
    assert ran.codes["gemini-fedora"] == ["canary-failed"]
    assert "gemini-fedora  unknown  canary-failed: asked for " in ran.text


def test_where_everything_is_fresh_a_canary_that_fails_is_a_warning(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base("fedora")
    world.publish_all({"codex": "1.0.0"})
    world.misbehave = deaf_to_canaries

    ran = world.run()

    assert (ran.code, ran.states) == (0, {"codex-fedora": "fresh"})
    assert "own/tools cannot be trusted, so nothing there counts as stale: asked for " in ran.text


def test_a_version_that_went_backwards_builds_nothing_unless_a_person_gives_it(world: World) -> None:
    world.make({"codex": "1.0.0"})
    world.base("fedora")
    labels = {"org.opencontainers.image.version": "2.0.0", "imagewright.tool": "codex"}
    world.image("codex", "fedora", "2.0.0", labels=labels)

    ran, given = world.run(), world.run("--tool-version=codex=1.0.0")

    assert ran.codes == {"codex-fedora": ["version-went-backwards"]}
    assert "version-went-backwards: today's is 1.0.0, `latest` is 2.0.0" in ran.text
    assert given.codes == {"codex-fedora": ["image-missing"]}

    world.image(
        "codex", "fedora", "1.0.0", tags=["{version}"], labels=labels | {"org.opencontainers.image.version": "1.0.0"}
    )
    ran, given = world.run(), world.run("--tool-version=codex=1.0.0")

    assert ran.codes == {"codex-fedora": ["version-went-backwards"]}
    assert given.codes == {"codex-fedora": ["latest-behind"]}


def test_a_repository_that_was_full_has_vanished_and_that_counts_on_the_brake(world: World) -> None:
    tools = {f"t{at}": "1.0" for at in range(4)}
    world.make(tools)
    world.base("fedora")
    world.publish_all(tools)
    assert world.run().code == 0
    shutil.rmtree(world.root / "registry" / "own+tools")

    ran = world.run()

    assert set(map(tuple, ran.codes.values())) == {("repository-vanished",)}
    planned = subprocess.run(
        [sys.executable, "-c", "from imagewright.cli import run; run()", "plan"],
        cwd=world.project,
        capture_output=True,
        text=True,
        check=False,
    )
    assert planned.returncode == 30, planned.stderr
    assert "brake: 4 images that were there are gone" in planned.stdout


# What is selected


@pytest.fixture
def family(world: World) -> World:
    """Two tools on two bases, all fresh. Reading a version leaves a line in a file outside the project."""
    tools = {"codex": "1.0.0", "gemini": "2.1"}
    world.make(tools)
    for tool, version in tools.items():
        world.script(tool, f"echo {tool} >> {world.root}/read\necho {version}")
    world.base("fedora")
    world.base("minimal")
    world.publish_all(tools)
    return world


ALL = ("codex-fedora", "codex-minimal", "gemini-fedora", "gemini-minimal")
SELECTIONS: dict[str, tuple[list[str], tuple[str, ...], tuple[str, ...], str, int, list[str]]] = {
    # arguments, expected, partial, selection, requests (for what cannot exist aside), versions read.
    # A pair costs 6 requests: two tags, two manifests, two configurations; a base 5, and one of them 1 more at the end;
    # the list of bases 1.
    "all": ([], ALL, (), "all", 36, ["codex", "gemini"]),
    "tool": (["--tool", "codex"], ALL[:2], (), "--tool codex", 24, ["codex"]),
    "base": (["--base", "fedora"], ALL[::2], (), "--base fedora", 19, ["codex", "gemini"]),
    "tool and base": (
        ["--tool", "codex", "--base", "fedora"], ALL[:1], (), "--tool codex --base fedora", 13, ["codex"],
    ),
    "keyword": (["-k", "codex-fedora"], ALL[:1], (), "-k 'codex-fedora'", 13, ["codex"]),
    "marker": (["-m", "pair(tool='codex')"], ALL[:2], (), "-m 'pair(tool='codex')'", 24, ["codex"]),
    "deselected": (
        ["checks/", "--deselect", "checks/test_latest.py::test_latest[codex-fedora]"],
        ALL[1:], ALL[:1], "3 of 4", 36, ["codex", "gemini"],
    ),
    "one file": (["checks/test_exists.py"], (), ALL, "0 of 4", 36, ["codex", "gemini"]),
    "one item": (["checks/test_exists.py::test_exists[codex-fedora]"], (), ALL[:1], "0 of 4", 13, ["codex"]),
}  # fmt: skip


@pytest.mark.parametrize("case", SELECTIONS)
def test_a_selection_asks_for_what_it_selects(family: World, case: str) -> None:
    arguments, expected, partial, selection, requests, read = SELECTIONS[case]

    ran = family.run(*arguments)

    assert ran.code == 0
    section = json.loads(ran.report or b"")["imagewright"]
    assert (tuple(section["expected"]), tuple(section["partial"])) == (expected, partial)
    assert (section["selection"], section["total"]) == (selection, 4)
    assert [one["verdict"] for one in section["verdicts"]] == ["fresh"] * len(expected)
    assert len(family.asked()) == requests
    if expected:
        assert ran.parsed.expected == expected
    else:
        assert "no target was selected with all its checks" in refusal(ran)
    if case not in ("one file", "one item"):
        assert sorted(family.versions_read()) == read


def test_what_failed_last_is_partial_and_a_run_cut_short_is_no_report(family: World) -> None:
    family.base("fedora", layer({"etc/os": "new"}))
    first = family.run()
    assert first.codes["codex-fedora"] == [f"base-changed {AMD}", f"base-changed {ARM}"]

    again = family.run("--lf")
    section = json.loads(again.report or b"")["imagewright"]
    assert (section["expected"], section["partial"]) == ([], ["codex-fedora", "gemini-fedora"])

    cut = family.run("-x")
    assert cut.code == 1
    assert re.search(r"28 checks were selected, \d+ ended", refusal(cut))


def test_collecting_prints_ids_only_and_asks_for_the_bases_only(family: World) -> None:
    ran = family.run("--collect-only", "-q", "--tool", "codex")

    lines = ran.text.strip().splitlines()
    assert lines[:-2] == [
        f"checks/test_{check}.py::test_{check}[{key}]" for check in CHECKS for key in ("codex-fedora", "codex-minimal")
    ]
    assert lines[-2] == ""
    assert lines[-1].startswith("14 tests collected")
    assert family.asked() == ["/v2/own/bases/tags/list?n=1000"]
    assert family.versions_read() == []
    assert not (family.project / ".imagewright").exists()


NOT_THERE = "sha256:" + "0" * 64
MISUSES: dict[str, tuple[list[str], str]] = {
    "tool": (["--tool", "nope"], "there is no tool 'nope'; there are codex, gemini"),
    "base": (["--base", "nope"], "there is no base 'nope'; there are fedora, minimal"),
    "version of no tool": (["--tool-version", "nope=1"], "there is no tool 'nope'; there are codex, gemini"),
    "no version": (["--tool-version", "codex=null"], "--tool-version: 'null' is no version"),
    "half a version": (["--tool-version", "codex"], "--tool-version: 'codex' is not T=V"),
    "no digest": (["--base-digest", "fedora=abc"], "--base-digest: "),
    "digest of no base": (["--base-digest", f"nope={NOT_THERE}"], "there is no base 'nope'; there are fedora, minimal"),
    "no snapshot": (["--snapshot", "absent.json"], "--snapshot: "),
    "no versions": (["--versions", "absent.json"], "absent.json: cannot be read: No such file or directory"),
    "waiting backwards": (["--wait", "-1"], "--wait: "),
}


@pytest.mark.parametrize("case", MISUSES)
def test_misuse_ends_with_pytests_code_for_it_and_one_sentence(family: World, case: str) -> None:
    arguments, sentence = MISUSES[case]

    ran = family.run(*arguments)

    assert ran.code == 4, ran.text
    assert sentence in ran.text
    assert "Traceback" not in ran.text
    assert "INTERNALERROR" not in ran.text
    assert ran.report is None
    assert not [one for one in family.asked() if "manifests" in one]


def test_options_from_the_environment_and_a_report_elsewhere(family: World) -> None:
    ran = family.spawn(PYTEST_ADDOPTS="-n 2 --tool=codex --json-report-file=../out/report.json")

    assert ran.code == 0
    assert ran.report is None
    assert not (family.project / ".imagewright").exists()
    found = parse((family.root / "out" / "report.json").read_bytes(), "report.json")
    assert found.expected == ALL[:2]
    assert {one.name for one in (family.root / "out").iterdir()} - {"lock", "lock-workers", "cache"} == {
        "last-good.json", "report.json", "run.json", "snapshot.json",
    }  # fmt: skip


def test_digests_of_files_are_left_to_the_next_run(family: World) -> None:
    time.sleep(2.1)  # files that have just been written are not remembered

    family.run()

    known = (family.project / ".imagewright" / "cache" / "file-digests").read_bytes()
    assert f"{family.project}/tools/codex/version.sh".encode() in known


def test_tests_elsewhere_leave_it_inert(family: World) -> None:
    other = family.project / "other" / "test_own.py"
    other.parent.mkdir()
    other.write_text("def test_own():\n    print('hello')\n")

    ran = family.run("other/")
    assert (ran.code, ran.report) == (0, None)
    assert family.asked() == []
    assert not (family.project / ".imagewright").exists()

    mixed = family.run("other/", "checks/")
    assert mixed.code == 2, mixed.text
    assert "Checks are run by themselves: pytest checks/" in mixed.text
    assert "Traceback" not in mixed.text
    assert mixed.report is None


# What is given instead of looked up


def test_versions_and_bases_can_be_frozen(family: World, tmp_path: Path) -> None:
    old = family.base("fedora")
    family.image("codex", "fedora", "0.9")
    newer = family.base("fedora", layer({"etc/os": "newer"}))
    versions = tmp_path / "versions.json"
    versions.write_bytes(dump_file([Reading(tool="codex", version="0.8"), Reading(tool="gemini", version="2.1")]))
    only = ("--tool", "codex", "--base", "fedora")

    given = family.run(*only, "--versions", str(versions), "--tool-version", "codex=0.9")
    assert given.record("codex-fedora").version == "0.9"
    assert given.parsed.versions[0]["via"] == "given"
    assert given.codes["codex-fedora"] == [f"base-changed {AMD}", f"base-changed {ARM}"]
    assert given.record("codex-fedora").base_digest == newer

    frozen = family.run(*only, "--tool-version", "codex=0.9", "--base-digest", f"fedora={old}")
    assert frozen.record("codex-fedora").base_digest == old
    assert frozen.states == {"codex-fedora": "fresh"}

    gone = family.run("--tool", "codex", "--versions", str(versions))
    assert gone.codes == {"codex-fedora": ["image-missing"], "codex-minimal": ["image-missing"]}
    assert family.versions_read() == []


def test_recorded_observations_are_judged_without_a_registry(family: World) -> None:
    family.base("fedora", layer({"etc/os": "newer"}))
    first = family.run()
    recorded = family.root / "snapshot.json"
    shutil.copy(family.project / ".imagewright" / "snapshot.json", recorded)
    family.server.stop()
    read = family.versions_read()

    again = family.run("--snapshot", str(recorded))

    assert (again.code, again.codes) == (1, first.codes)
    assert again.parsed.bases == first.parsed.bases
    assert family.seen == []
    assert family.versions_read() == read

    make_tool(family.project, "newcomer", "1.0")
    more = family.run("--snapshot", str(recorded))
    assert more.codes["newcomer-fedora"] == ["not-recorded"]

    both = family.run("--snapshot", str(recorded), "--tool-version", "codex=2.0")
    assert both.code == 4
    assert "--snapshot judges what was recorded, versions and bases included" in both.text


def test_waiting_sees_what_appears_late(family: World) -> None:
    family.script("codex", "echo 2.0")
    looked = 0

    def publish_at_the_second_look(request: Request, honest: Handler) -> None:
        nonlocal looked
        if request.path.endswith("codex-fedora-2.0"):
            looked += 1
            if looked == 2:
                family.image("codex", "fedora", "2.0")

    family.misbehave = publish_at_the_second_look
    ran = family.run("--tool", "codex", "--base", "fedora", "--wait", "30")

    assert (ran.code, ran.states, looked) == (0, {"codex-fedora": "fresh"}, 2)


# xdist


@pytest.mark.parametrize("workers", ["2", "4"])
def test_workers_see_what_one_process_sees_and_ask_once(family: World, workers: str) -> None:
    family.base("fedora", layer({"etc/os": "newer"}))
    alone = family.run("--fresh")
    asked = family.asked()
    (family.root / "read").unlink()

    together = family.spawn("--fresh", "-n", workers)

    assert together.code == 1
    assert _timeless(together) == _timeless(alone)
    assert family.asked() == asked
    assert sorted(family.versions_read()) == ["codex", "gemini"]
    assert not list((family.project / ".imagewright").glob("shared-*"))


def _timeless(ran: Ran) -> dict[str, object]:
    """Our section without what differs between two runs."""
    section = json.loads(ran.report or b"")["imagewright"]
    for name in ("nonce", "started", "finished", "self"):
        del section[name]
    for one in section["versions"]:
        del one["seconds"]
    for one in section["verdicts"]:
        del one["since"]
    return dict(section)


def test_as_many_workers_as_help_are_none(family: World) -> None:
    ran = family.run("-n", "auto")

    assert ran.code == 0
    assert "created: " not in ran.text
    assert len(family.asked()) == 36


DIES = """
import os

def test_dies(target):
    if target.key == "codex-fedora":
        os._exit(7)
"""


def test_a_dead_worker_makes_its_target_unknown_and_the_others_keep_theirs(family: World) -> None:
    (family.project / "checks" / "test_dies.py").write_text(DIES)

    ran = family.spawn("-n", "2")

    assert ran.code == 1
    assert ran.codes == {key: ["worker-crash"] if key == "codex-fedora" else [] for key in ALL}
    assert ran.record("codex-fedora").reasons[0].detail == "while checking test_dies"
    assert ran.parsed.counts()[State.FRESH] == 3

    unreplaced = family.spawn("-n", "1", "--max-worker-restart=0")
    assert unreplaced.code != 0
    assert refusal(unreplaced)


# Broken checks


BROKEN = """
import logging

import pytest

@pytest.fixture
def sore(target):
    yield
    if target.key == "gemini-minimal":
        raise OSError("teardown went wrong")

def test_broken(target, observed, sore):
    print("TOKEN" + "-PRINTED")
    logging.error("TOKEN" + "-LOGGED")
    assert target.key != "codex-fedora", "as written"
    if target.key == "codex-minimal":
        raise KeyError("no such thing")
    if target.key == "gemini-fedora":
        pytest.skip("not today")
"""


def test_a_broken_check_is_unknown_and_traced_and_keeps_its_output_out_of_the_report(family: World) -> None:
    (family.project / "checks" / "test_broken.py").write_text(BROKEN)
    family.base("minimal", layer({"etc/os": "newer"}))

    ran = family.run("--deselect", "checks/test_broken.py::test_broken[gemini-fedora]", "checks/")

    assert ran.code == 1
    assert {one.target: one.reasons[0].detail.split("\n")[0] for one in ran.parsed.records} == {
        "codex-fedora": "test_broken: AssertionError: as written",
        "codex-minimal": "test_broken: KeyError: 'no such thing'",
        "gemini-minimal": "test_broken: RuntimeError: an error in its teardown",
    }
    assert set(ran.states.values()) == {"unknown"}
    assert 'raise KeyError("no such thing")' in ran.text
    assert 'raise OSError("teardown went wrong")' in ran.text
    assert "stale: base-changed" not in ran.text
    assert b"TOKEN-" not in (ran.report or b"")

    skipped = family.run("--tool", "gemini", "--base", "fedora")
    assert skipped.record("gemini-fedora").reasons[0].detail.startswith("test_broken: Skipped: not today")


def test_a_check_that_cannot_be_read_or_imported_is_said_with_its_place(family: World) -> None:
    check = family.project / "checks" / "test_wrong.py"
    check.write_text("def test_wrong(target:\n")
    ran = family.run()
    assert ran.code == 4
    assert f"{check}:1: '(' was never closed" in ran.text

    check.write_text("import nothing_like_it\n\ndef test_wrong(target):\n    pass\n")
    ran = family.run()
    assert ran.code == 2, ran.text
    assert "No module named 'nothing_like_it'" in ran.text
    assert "pytest ended with 2" in refusal(ran)


# Bad input


def _tool(text: str) -> Callable[[Path], object]:
    return lambda project: (project / "tools" / "codex" / "tool.yaml").write_text(text)


def _settings(text: str) -> Callable[[Path], object]:
    return lambda project: (project / "imagewright.toml").write_text(text)


BAD_PROJECTS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    # what is done to the project; the place; the sentence
    "broken YAML": (_tool("title: [\n"), "tools/codex/tool.yaml:2:1", ""),
    "a key twice": (_tool("title: a\ntitle: b\n"), "tools/codex/tool.yaml:2:1", "title"),
    "an unknown key": (_tool("titel: a\n"), "tools/codex/tool.yaml:1:1", "Did you mean 'title'?"),
    "no tool": (lambda project: shutil.rmtree(project / "tools" / "codex"), "tools", "there is neither a tool in"),
    "no tools": (lambda project: shutil.rmtree(project / "tools"), "tools", "there is neither a tool in"),
    "broken TOML": (_settings("registry = \n"), "imagewright.toml", ""),
    "an unknown setting": (_settings('registri = "x"\n'), "imagewright.toml:1", "Did you mean 'registry'?"),
    "no settings": (lambda project: (project / "imagewright.toml").unlink(), "project", "there are no settings in"),
}


@pytest.mark.parametrize("case", BAD_PROJECTS)
def test_a_bad_project_is_one_clear_sentence_before_anything_is_asked(world: World, case: str) -> None:
    damage, place, sentence = BAD_PROJECTS[case]
    world.make({"codex": "1.0"})
    damage(world.project)

    ran = world.run()

    assert ran.code == 4
    assert place in ran.text
    assert sentence in ran.text
    assert "Traceback" not in ran.text
    assert world.seen == []
    assert ran.report is None
    started = StateFolder(world.project / ".imagewright").started()
    assert started and started.error
    assert started.error[0] == 40
    assert started.error[1] in ran.text.replace("ERROR: ", "")


VERSIONS: dict[str, tuple[str, str, str]] = {
    # tool: its script, the reason, what is said
    "null": ("echo null", "version-format", "printed 'null', which is no version"),
    "two-lines": ("echo 1.0; echo 2.0", "version-format", "printed 2 lines, the first is '1.0'"),
    "page": ("echo '<html>API rate limit exceeded</html>'", "version-format", "printed '<html>API rate limit"),
    "silent": ("true", "version-format", "printed nothing"),
    "fails": ("echo 1.0; echo no route >&2; exit 3", "version-failed", "exit status 3, it says 'no route'"),
    "hangs": ("echo 1.0; sleep 60", "version-timeout", "did not end within 0.5 s"),
    "scriptless": ("", "version-failed", "there is no version.sh"),
}


def test_a_script_that_prints_no_version_makes_its_tool_unknown(world: World) -> None:
    world.make(dict.fromkeys((*VERSIONS, "good"), "1.0"), settings="[versions]\ntimeout = 0.5")
    for tool, (script, _, _) in VERSIONS.items():
        world.script(tool, script)
    (world.project / "tools" / "scriptless" / "version.sh").unlink()
    world.base("fedora")
    world.image("good", "fedora", "1.0")

    ran = world.run()

    assert ran.code == 1
    assert ran.codes == {f"{tool}-fedora": [reason] for tool, (_, reason, _) in VERSIONS.items()} | {"good-fedora": []}
    for tool, (_, _, said) in VERSIONS.items():
        assert ran.record(f"{tool}-fedora").reasons[0].detail.startswith(said)
        assert said in ran.text
    assert [
        one for one in world.asked() if "own/tools/manifests" in one and "good-" not in one and ":" not in one
    ] == []


def _html(request: Request, honest: Handler) -> Answer:
    return Answer(status=200, headers={"Content-Type": "text/html"}, body=b"<html>Please log in</html>")


def _reset(request: Request, honest: Handler) -> Answer:
    raise ConnectionResetError


def _silent(request: Request, honest: Handler) -> Answer:
    time.sleep(0.6)
    raise ConnectionAbortedError


def _lying(request: Request, honest: Handler) -> Answer:
    answer = honest(request)
    body = answer.body if isinstance(answer.body, bytes) else b""
    return replace(answer, body=body + b" ") if "/manifests/" in request.path else answer


def _of_tools(fault: Callable[[Request, Handler], Answer]) -> Callable[[Request, Handler], Answer | None]:
    return lambda request, honest: fault(request, honest) if "own/tools" in request.path else None


FAULTS: dict[str, tuple[Callable[[Request, Handler], Answer | None], dict[str, list[str]]]] = {
    "HTML for all": (_html, {"bases": ["bases-unknown"]}),
    "resets": (_reset, {"bases": ["bases-unknown"]}),
    "HTML for images": (_of_tools(_html), {"codex-fedora": ["garbage"]}),
    "silence for images": (_of_tools(_silent), {"codex-fedora": ["timeout"]}),
    "other bytes": (_of_tools(_lying), {"codex-fedora": ["integrity"]}),
    "denied images": (_of_tools(lambda request, honest: Answer(status=403)), {"codex-fedora": ["auth"]}),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_registry_that_misbehaves_leaves_unknown_targets(world: World, case: str) -> None:
    misbehave, found = FAULTS[case]
    world.make({"codex": "1.0"}, settings="[limits]\nconnect = 0.3\nread = 0.3\ntotal = 0.5")
    world.base("fedora")
    world.image("codex", "fedora", "1.0")
    world.misbehave = misbehave

    ran = world.run()

    assert ran.code == 1
    assert ran.codes == found
    assert set(ran.states.values()) == {"unknown"}
    assert "Traceback" not in ran.text
    if found == {"bases": ["bases-unknown"]}:
        assert "1 failed" not in ran.text
        assert ran.parsed.expected == ("bases",)


def test_a_registry_that_is_not_there(world: World) -> None:
    world.make({"codex": "1.0"}, settings="[limits]\ntotal = 0.3")
    world.server.stop()

    ran = world.run()

    assert (ran.code, ran.codes) == (1, {"bases": ["bases-unknown"]})
    assert "connection refused" in ran.text


def test_a_script_that_writes_into_the_project_stops_the_run(family: World) -> None:
    family.script("codex", f"echo 1.0.0; echo '# changed' >> {family.project}/tools/gemini/version.sh")
    for ran in (family.run(), family.spawn("-n", "2")):
        assert ran.code == 4, ran.text
        assert "tools/ changed while versions were read" in ran.text
        assert "Traceback" not in ran.text
        assert "INTERNALERROR" not in ran.text
        assert ran.report is None
        started = StateFolder(family.project / ".imagewright").started()
        assert started and started.error
        assert started.error[0] == 40


def test_versions_that_make_one_tag_of_two_stop_the_run(world: World) -> None:
    world.make({"a": "b-1", "a-x": "1"}, bases=["x", "b"])
    world.script("a", "echo b-1")
    (world.project / "tools" / "a-x" / "tool.yaml").write_text("exclude-bases:\n  x: so\n")
    world.base("x")
    world.base("b")
    for ran in (world.run(), world.spawn("-n", "2")):
        assert ran.code == 4, ran.text
        assert "both make the tag a-x-b-1" in ran.text
        assert "Traceback" not in ran.text
        assert ran.report is None
        assert not [one for one in world.asked() if "own/tools" in one]


# Interruptions, neighbours, full disks


def _children(marker: str) -> list[str]:
    """Command lines of living processes that have `marker` in their environment or command line."""
    found = []
    for one in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            if (
                one.name.isdecimal()
                and marker.encode() in (one / "environ").read_bytes() + (one / "cmdline").read_bytes()
            ):
                found.append((one / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return found


def _until(condition: Callable[[], object], seconds: float = 20) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit, "it never came to that"
        time.sleep(0.02)


INTERRUPTED: dict[str, tuple[list[str], bool, list[int]]] = {
    # arguments, whether it is the registry that hangs, or a version.sh, and what the process is sent
    "a hanging version.sh": ([], False, [signal.SIGINT]),
    "a hanging registry": ([], True, [signal.SIGINT]),
    "a hanging version.sh, workers": (["-n", "2"], False, [signal.SIGINT]),
    "a hanging registry, workers": (["-n", "2"], True, [signal.SIGINT]),
    "twice, workers": (["-n", "2"], True, [signal.SIGINT, signal.SIGTERM]),
    "terminated, its terminal gone": ([], False, [signal.SIGTERM, signal.SIGHUP]),
}


@pytest.mark.parametrize("case", INTERRUPTED)
def test_an_interrupted_run_ends_at_once_and_leaves_nothing_behind(family: World, case: str) -> None:
    arguments, registry_hangs, signals = INTERRUPTED[case]
    marker = f"marker-{family.root.name}"
    started, over = family.root / "started", threading.Event()

    def hang(request: Request, honest: Handler) -> None:
        if registry_hangs and "own/tools/manifests" in request.path:
            started.touch()
            over.wait(15)

    family.misbehave = hang
    if not registry_hangs:
        family.script("codex", f"touch {started}; exec -a {marker} sleep 60")
    process = family.start(*arguments, HOME=marker)
    _until(started.exists)
    time.sleep(0.1)

    before = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.02)
    text, _ = process.communicate(timeout=30)
    seconds = time.monotonic() - before
    over.set()

    assert process.returncode == 2, text
    assert seconds < 2, text
    assert "Traceback" not in text
    _until(lambda: not _children(marker), 1)
    report = family.project / ".imagewright" / "report.json"
    if report.exists():
        with pytest.raises(BadReport):
            parse(report.read_bytes(), "report.json")

    family.misbehave = lambda request, honest: None
    family.script("codex", "echo 1.0.0")
    assert family.run().code == 0


def test_a_run_that_is_not_to_hear_of_its_terminal_does_not(family: World) -> None:
    reached = threading.Event()

    def late(request: Request, honest: Handler) -> None:
        if "own/tools/manifests" in request.path:
            reached.set()
            time.sleep(0.1)

    family.misbehave = late
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        process = family.start()
    finally:
        signal.signal(signal.SIGHUP, before)
    assert reached.wait(20)
    process.send_signal(signal.SIGHUP)
    text, _ = process.communicate(timeout=30)
    assert process.returncode == 0, text


def test_of_two_runs_at_once_the_second_does_nothing(family: World) -> None:
    lock = StateFolder(family.project / ".imagewright")
    lock.lock()
    first = family.project / ".imagewright" / "run.json"
    first.write_text("of the first")

    second = family.run()

    assert second.code == 4
    assert f"another run is using {family.project}/.imagewright" in second.text
    assert "Wait for it, or write this one's report elsewhere with --json-report-file." in second.text
    assert "Traceback" not in second.text
    assert first.read_text() == "of the first"
    assert family.asked() == []
    lock.unlock()
    assert family.run().code == 0


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_asked(family: World) -> None:
    (family.project / ".imagewright").write_text("a file in its place")

    ran = family.run()

    assert ran.code == 4
    assert f"{family.project}/.imagewright cannot be written: File exists" in ran.text
    assert "Traceback" not in ran.text
    assert family.asked() == []

    (family.project / "tools" / "codex" / "tool.yaml").write_text("titel: a\n")
    broken = family.run()
    assert (broken.code, "Did you mean 'title'?" in broken.text) == (4, True)
    assert "Traceback" not in broken.text


@pytest.fixture
def small_disk(family: World) -> Iterator[Path]:
    """A file system of 64 KiB at .imagewright."""
    place = family.project / ".imagewright"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("mounting is not allowed here, so no disk can be full: run as root")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_no_report_and_is_no_success(family: World, small_disk: Path) -> None:
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 40 * 1024)

    ran = family.run()

    assert ran.code == 3
    assert f"the report could not be written to {small_disk}/report.json: No space left on device" in ran.text
    assert "Traceback" not in ran.text
    assert {one.name for one in small_disk.iterdir()} <= {"filler", "lock", "run.json", "snapshot.json", "cache"}

    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    sealed = family.run()
    assert sealed.code == 4
    assert f"{small_disk} cannot be written: Read-only file system" in sealed.text


def test_a_report_cut_anywhere_is_refused(family: World) -> None:
    whole = family.run().report or b""
    for length in (0, 1, *range(7, len(whole) - 1, 997), len(whole) - 1):
        with pytest.raises(BadReport):
            parse(whole[:length], "report.json")
    with pytest.raises(BadReport):
        parse(whole + whole, "report.json")


@pytest.mark.parametrize("arguments", [(), ("-n", "2")])
def test_a_recipe_that_cannot_be_read_stops_the_run_before_anybody_is_asked(
    world: World, arguments: tuple[str, ...]
) -> None:
    world.base("fedora")
    world.make({"codex": "1.0"})
    (world.project / "tools" / "codex" / ".dockerignore").write_text("[b\n")
    ran = world.run(*arguments)
    assert ran.code == 4
    assert "tools/codex/.dockerignore:1: '[b' is not a pattern" in ran.text
    assert "Traceback" not in ran.text
    assert not [one for one in world.asked() if "own/tools" in one]


def test_with_v_it_says_where_the_time_went(family: World) -> None:
    assert "where the time went" not in family.run().text
    said = family.run("-v").text.partition("where the time went: ")[2].splitlines()
    assert re.fullmatch(r"\d+\.\d\d s, 13 questions, 30 documents remembered", said[0])
    stages = [line.split()[0] for line in said[1:9]]
    assert stages == ["start", "discovery", "collection", "recipes", "survey", "versions", "checks", "report"]


HOOK = "\n\ndef pytest_runtest_setup(item):\n    pass\n"
FIXTURE = "\n\nimport pytest\n@pytest.fixture(autouse=True)\ndef around():\n    yield\n"
OVERRIDE = "\n\nimport pytest\n@pytest.fixture\ndef waits_for():\n    return ''\n"
LOOPS: dict[str, tuple[list[str], str, bool]] = {
    # arguments, what is added to conftest.py, whether the loop is ours
    "nothing": ([], "", True),
    "quiet": (["-q"], "", True),
    "durations": (["--durations=3"], "", True),
    "exit-first": (["-x"], "", True),
    "junit": (["--junitxml=junit.xml"], "", True),
    "a-fixture-that-is-a-function": ([], OVERRIDE, True),
    "a-hook": ([], HOOK, False),
    "a-fixture-that-is-more": ([], FIXTURE, False),
    "fixtures-are-shown": (["--setup-show"], "", False),
}


@pytest.mark.parametrize("case", LOOPS)
def test_checks_find_the_same_in_our_loop_and_in_pytests(family: World, case: str) -> None:
    arguments, added, is_ours = LOOPS[case]
    alone = family.run()
    conftest = family.project / "conftest.py"
    conftest.write_text(conftest.read_text() + added)
    ran = family.spawn(*arguments)
    assert ran.code == 0, ran.text
    tests = json.loads(ran.report or b"")["tests"]
    assert {"setup" in one for one in tests} == {not is_ours}
    assert _timeless(ran) == _timeless(alone)
    assert [one["outcome"] for one in tests].count("passed") == 20
    if case == "junit":
        assert (family.project / "junit.xml").read_text().count("<testcase ") == len(tests) == 28
