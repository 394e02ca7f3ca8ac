"""`imagewright dispatch` against a stateful stand-in of GitHub: each build asked for once, noted before, and told."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from imagewright import plan as plans
from imagewright.errors import Failed
from imagewright.forge.runs import Outcome
from imagewright.journal import Entry, Journal, held
from imagewright.load import load_catalogue
from imagewright.plan import Build, Held, Plan
from imagewright.reasons import Stale
from imagewright.testing.github import Fault, GitHub, Heard, Said
from imagewright.testing.projects import make_project
from imagewright.testing.proxy import DelayingProxy
from imagewright.verdict import Reason
from tests import console
from tests.console import PROGRAM, Ran

TOOLS = ("codex", "gemini", "goose")
BASE = f"sha256:{'b' * 64}"


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class World:
    """A project with a plan, and its forge."""

    project: Path
    github: GitHub
    number: int = 0
    environ: dict[str, str] = field(
        default_factory=lambda: {"PATH": os.environ["PATH"], "IMAGEWRIGHT_FORGE_TOKEN": "t"}
    )

    @property
    def state(self) -> Path:
        return self.project / ".imagewright"

    @property
    def told(self) -> Any:
        return json.loads((self.state / "dispatch.json").read_bytes())

    def plans(self, *builds: Build, created: datetime | None = None, force: bool = False, **members: Any) -> None:
        """Writes a plan, another one each time."""
        self.number += 1
        made = Plan(
            report=f"sha256:{self.number}",
            catalogue=members.pop("catalogue", load_catalogue(self.project, {}).hash),
            nonce="n",
            created=(created or now()).strftime("%Y-%m-%dT%H:%M:%SZ"),
            force=force,
            selection="all",
            builds=builds,
            deferrals=(Held(target="x-y", because="held: why"),),
            refusals=(),
        )
        self.state.mkdir(exist_ok=True)
        (self.state / "plan.json").write_bytes(plans.dump(made))

    def call(self, *arguments: str) -> Ran:
        return console.call(self.project, "dispatch", *arguments, environ=self.environ)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with GitHub() as github:
        settings = (
            f'[forge]\napi = "{github.api}"\nrepository = "own/images"\n[limits]\nread = 0.5\ntotal = 1\n'
            "[plan]\nbudget = 3\nin-flight = 4\n"
        )
        project = make_project(
            tmp_path, registry="ghcr.io", tools=dict.fromkeys(TOOLS, "1.0"), bases=["b0"], settings=settings
        )
        yield World(project, github)


def build(tool: str = "codex", base: str = "b0", version: str = "1.0", action: plans.Action = "build") -> Build:
    return Build(
        key=plans.key(f"{tool}-{base}", version, BASE, ""),
        target=f"{tool}-{base}",
        tool=tool,
        base=base,
        version=version,
        base_digest=BASE,
        reasons=(Reason(code=Stale.BASE_CHANGED),),
        action=action,
    )


def many(count: int) -> list[Build]:
    return [build(base=f"b{number}") for number in range(count)]


def outcomes(told: Any) -> dict[str, str]:
    return {one["target"]: one["outcome"] for one in told["asked"]}


def because(told: Any) -> dict[str, str]:
    return {one["target"]: one["because"] for one in told["deferred"]}


def test_each_build_of_a_plan_is_asked_for_once_and_named_by_its_key(world: World) -> None:
    world.plans(build(), build("gemini", action="retag"))
    ran = world.call()
    assert (ran.code, ran.err) == (0, "")
    assert [one["display_title"] for one in world.github.runs] == [
        f"build {one.target} 1.0 [{one.key}]" for one in (build(), build("gemini"))
    ]
    assert [(one["target"], one["outcome"], one["run"], one["url"]) for one in world.told["asked"]] == [
        ("codex-b0", "accepted", 1, "https://github.com/own/images/actions/runs/1"),
        ("gemini-b0", "accepted", 2, "https://github.com/own/images/actions/runs/2"),
    ]
    assert world.told["waiting"] == [{"target": "x-y", "because": "held: why"}]
    assert ran.out.splitlines() == [
        "  asked for  codex-b0  1.0  https://github.com/own/images/actions/runs/1",
        "  asked for  gemini-b0  1.0  https://github.com/own/images/actions/runs/2",
        "2 asked for, 0 put off, 0 not asked",
    ]


def test_a_plan_without_builds_asks_nobody(world: World) -> None:
    world.plans()
    world.environ.clear()
    assert world.call().code == 0
    assert world.github.log == []
    assert world.told["asked"] == []


def test_a_plan_carried_out_twice_asks_once(world: World) -> None:
    world.plans(build())
    assert (world.call().code, world.call().code) == (0, 0)
    assert because(world.told) == {"codex-b0": "in-flight"}
    world.github.ends(1, "success")
    assert world.call().code == 0
    assert because(world.told) == {"codex-b0": "settling"}
    assert "settling, this plan has asked for it already" in world.call().out
    assert len(world.github.posts()) == 1


def test_the_next_plan_asks_again_for_what_failed_and_not_for_what_is_under_way(world: World) -> None:
    world.plans(build(), build("gemini"))
    world.call()
    world.github.clock = lambda: now() - timedelta(minutes=6)
    world.github.ends(1, "failure")
    for run in world.github.runs:
        run["created_at"] = "2026-01-01T00:00:00Z" if run["id"] == 1 else run["created_at"]
    journal = world.state / "journal.jsonl"
    journal.unlink()
    world.plans(build(), build("gemini"))
    assert world.call().code == 0
    assert (outcomes(world.told), because(world.told)) == ({"codex-b0": "accepted"}, {"gemini-b0": "in-flight"})


def test_no_more_than_the_budget_is_asked_for_and_the_rest_is_said(world: World) -> None:
    world.plans(*many(10))
    ran = world.call()
    assert (ran.code, len(world.github.posts())) == (0, 3)
    assert set(because(world.told).values()) == {"budget"}
    world.plans(*many(10))
    world.call()
    assert len(world.github.posts()) == 4  # at most four at once
    assert sorted(because(world.told).values()) == ["budget"] * 6 + ["in-flight"] * 3


def test_a_dry_run_prints_the_requests_and_makes_none(world: World) -> None:
    world.plans(*many(4))
    ran = world.call("--dry-run")
    assert ran.code == 0
    assert {one.method for one in world.github.log} == {"GET"}
    assert not (world.state / "journal.jsonl").exists()
    assert not (world.state / "dispatch.json").exists()
    lines = ran.out.splitlines()
    start = "POST /repos/own/images/actions/workflows/build.yml/dispatches "
    sent = [json.loads(line.removeprefix(start)) for line in lines if line.startswith(start)]
    assert sent[0] == {
        "ref": "main",
        "inputs": {
            "tool": "codex",
            "base": "b0",
            "version": "1.0",
            "base_digest": BASE,
            "reason": "base-changed",
            "key": build().key,
        },
    }
    assert lines[3:] == [
        "  put off    codex-b3  1.0: budget",
        "3 would be asked for, 1 put off, 0 not asked",
    ]
    world.call()
    assert [{name: one[name] for name in ("ref", "inputs")} for one in world.github.posts()] == sent


HTML = b"<html>Unicorn!</html>"
DOUBTS: dict[str, tuple[Fault, str, int]] = {
    "401": (Fault(method="POST", said=Said(status=401)), "rejected", 0),
    "403": (Fault(method="POST", said=Said(status=403)), "rejected", 0),
    "404": (Fault(method="POST", said=Said(status=404)), "rejected", 0),
    "422": (Fault(method="POST", said=Said(status=422)), "rejected", 0),
    "429": (Fault(method="POST", said=Said(status=429)), "rejected", 0),
    "500 before": (Fault(method="POST", said=Said(status=500)), "ambiguous", 0),
    "500 after": (Fault(method="POST", said=Said(status=500), after=True), "ambiguous", 1),
    "HTML after": (Fault(method="POST", said=Said(status=200, body=HTML), after=True), "ambiguous", 1),
    "no answer before": (Fault(method="POST"), "ambiguous", 0),
    "no answer after": (Fault(method="POST", after=True), "ambiguous", 1),
    "silence after": (Fault(method="POST", after=True, pause=0.8), "ambiguous", 1),
}


@pytest.mark.parametrize("doubt", DOUBTS)
def test_the_first_answer_that_is_no_plain_yes_ends_it_and_nothing_is_built_twice(world: World, doubt: str) -> None:
    fault, outcome, made = DOUBTS[doubt]
    world.github.fails(fault)
    world.plans(build(), build("gemini"), build("goose"))
    ran = world.call()
    assert ran.code == 60
    assert len(world.github.posts()) == 1
    assert outcomes(world.told) == {"codex-b0": outcome}
    assert [one["target"] for one in world.told["stopped"]] == ["gemini-b0", "goose-b0"]
    assert f"  {outcome}   codex-b0  1.0: the forge" in ran.out
    # The same plan once more, then the next one: never a second run.
    world.call()
    world.plans(build(), build("gemini"), build("goose"))
    world.call()
    titles = [one["display_title"] for one in world.github.runs]
    assert sorted(titles) == sorted(set(titles))
    assert len(titles) == (3 if made or outcome == "rejected" else 2)
    if outcome == "ambiguous":
        assert because(world.told)["codex-b0"] == ("in-flight" if made else "settling")


UNREADABLE: dict[str, Fault] = {
    "401": Fault(method="GET", said=Said(status=401), times=9),
    "404": Fault(method="GET", said=Said(status=404), times=9),
    "503": Fault(method="GET", said=Said(status=503), times=9),
    "HTML": Fault(method="GET", said=Said(status=200, body=HTML), times=9),
    "no answer": Fault(method="GET", times=9),
    "cut": Fault(method="GET", said=Said(status=200, body={"total_count": 7, "workflow_runs": []}), times=9),
}


@pytest.mark.parametrize("trouble", UNREADABLE)
def test_where_the_runs_cannot_be_read_nothing_is_asked_for(world: World, trouble: str) -> None:
    world.github.fails(UNREADABLE[trouble])
    world.plans(build())
    ran = world.call()
    assert (ran.code, world.github.posts()) == (60, [])
    assert "imagewright: the runs of own/images cannot be read" in ran.err
    assert not (world.state / "dispatch.json").exists()


BAD_PLANS: dict[str, tuple[Callable[[World], object], int]] = {
    "none": (lambda world: None, 50),
    "old": (lambda world: world.plans(build(), created=now() - timedelta(hours=2)), 50),
    "of the future": (lambda world: world.plans(build(), created=now() + timedelta(hours=2)), 50),
    "of another catalogue": (lambda world: world.plans(build(), catalogue="sha256:else"), 50),
    "edited": (
        lambda world: (
            world.plans(build()),
            (world.state / "plan.json").write_text((world.state / "plan.json").read_text().replace("1.0", "2.0")),
        ),
        50,
    ),
    "with a tool that is none of ours": (lambda world: world.plans(build("evil")), 50),
    "with a version that is none": (lambda world: world.plans(build(version="$(id)")), 50),
    "with a base that is none": (lambda world: world.plans(build(base="../x")), 50),
    "with latest as a version": (lambda world: world.plans(build(version="latest")), 1),
}


@pytest.mark.parametrize("what", BAD_PLANS)
def test_a_bad_plan_asks_for_nothing(world: World, what: str) -> None:
    make, code = BAD_PLANS[what]
    make(world)
    ran = world.call()
    assert (ran.code, world.github.log) == (code, [])
    assert ran.err.startswith("imagewright: ")


def test_without_a_journal_nothing_is_asked_for(world: World) -> None:
    world.plans(build())
    (world.state / "journal.jsonl").mkdir()
    ran = world.call()
    assert (ran.code, world.github.posts()) == (1, [])
    assert "journal.jsonl" in ran.err


def test_two_at_once_ask_once(world: World) -> None:
    world.plans(build())
    with held(world.state / "journal.jsonl"):
        ran = world.call()
    assert (ran.code, world.github.posts()) == (1, [])
    assert "another dispatch is under way" in ran.err


def test_the_token_of_github_is_not_sent_elsewhere(world: World) -> None:
    world.environ = {"PATH": os.environ["PATH"], "GH_TOKEN": "t", "GITHUB_TOKEN": "t"}
    world.plans(build())
    ran = world.call()
    assert (ran.code, world.github.log) == (1, [])
    assert "IMAGEWRIGHT_FORGE_TOKEN" in ran.err


def test_the_result_as_json_is_the_file(world: World) -> None:
    world.plans(build())
    ran = world.call("--json")
    assert ran.json == world.told


def test_twenty_builds_are_asked_for_in_three_seconds_at_a_round_trip_of_thirty_milliseconds(world: World) -> None:
    with DelayingProxy(world.github.api.removeprefix("http://"), round_trip=0.03) as proxy:
        file = world.project / "imagewright.toml"
        text = file.read_text().replace(world.github.api, f"http://{proxy.address}")
        file.write_text(text.replace("budget = 3\nin-flight = 4", "budget = 20\nin-flight = 20"))
        world.plans(*many(30))
        started = time.monotonic()
        ran = subprocess.run([*PROGRAM, "dispatch"], cwd=world.project, env=world.environ, check=False)
        took = time.monotonic() - started
    print(f"\n{took:.2f} s")
    assert ran.returncode == 0
    assert [one.method for one in world.github.log] == ["GET", *["POST"] * 20]
    assert took < 3


# Watching


def _ends_each(github: GitHub, conclusions: Sequence[str]) -> None:
    """Lets each run end as soon as its page is read a second time."""
    left, listed = iter(conclusions), github._listed

    def read(query: Any) -> Said:
        said = listed(query)
        for run in github.runs:
            if run["status"] == "queued":
                github.ends(run["id"], next(left))
        return said

    github._listed = read  # type: ignore[method-assign]


def test_a_file_with_authorities_that_is_not_there_is_named(world: World) -> None:
    world.plans(build())
    world.environ |= {"IMAGEWRIGHT_FORGE__API": "https://127.0.0.1:9", "REQUESTS_CA_BUNDLE": "/not/there"}
    ran = world.call()
    assert (ran.code, ran.err.count("/not/there")) == (1, 1)
    assert Journal(world.state / "journal.jsonl").entries() == ()


def test_watching_follows_all_to_their_end_and_asks_for_more_as_others_end(world: World) -> None:
    _ends_each(world.github, ["success"] * 7)
    world.plans(*many(7))
    ran = world.call("--watch")
    assert (ran.code, len(world.github.posts())) == (0, 7)
    assert [one["conclusion"] for one in world.told["asked"]] == ["success"] * 7
    assert "7 asked for, 0 put off, 0 not asked" in ran.out


def test_watching_ends_with_1_where_a_run_failed(world: World) -> None:
    _ends_each(world.github, ["success", "failure"])
    world.plans(*many(2))
    ran = world.call("--watch")
    assert ran.code == 1
    assert "codex-b1  1.0  failure" in ran.out


def test_a_list_that_cannot_be_read_meanwhile_loses_nothing_of_what_was_asked_for(world: World) -> None:
    world.plans(build())
    page = Fault(method="GET", said=Said(status=200, body=HTML))
    answer = world.github.answer
    looks = iter(range(99))

    def answers(heard: Heard) -> Said | None:
        if heard.method == "GET" and (look := next(looks)):
            if look == 1:
                world.github.fails(page)
            else:
                world.github.ends(1, "success")
        return answer(heard)

    world.github.answer = answers  # type: ignore[method-assign]
    ran = world.call("--watch")
    assert (ran.code, "cannot be read" in ran.err) == (0, True)
    assert [one["conclusion"] for one in world.told["asked"]] == ["success"]


def test_a_run_that_was_there_before_is_not_taken_for_the_one_that_was_asked_for(world: World) -> None:
    github = world.github
    github.tells_runs = False
    an_hour_ago = now() - timedelta(hours=1)
    github.add(f"build codex-b0 1.0 [{build().key}]", status="completed", conclusion="failure", created=an_hour_ago)
    listed, looks = github._listed, iter(range(99))

    def read(query: Any) -> Said:
        runs, look = github.runs, next(looks)
        if look == 1:  # the list is behind: the new run is not in it yet
            github.runs = runs[:1]
        elif look > 1:
            github.ends(2, "success")
        said = listed(query)
        github.runs = runs
        return said

    github._listed = read  # type: ignore[method-assign]
    world.plans(build())
    ran = world.call("--watch")
    assert ran.code == 0, ran.out
    assert [(one["run"], one["conclusion"]) for one in world.told["asked"]] == [(2, "success")]


def test_watching_ends_at_its_limit_and_lists_the_rest(world: World) -> None:
    world.plans(*many(5))
    ran = world.call("--watch", "--watch-limit", "2")
    assert ran.code == 1
    assert len(world.told["asked"]) == 4
    assert because(world.told) == {"codex-b4": "budget"}


def test_killed_while_it_asks_it_has_noted_what_it_asks_for(world: World) -> None:
    world.github.fails(Fault(method="POST", after=True, pause=3))
    world.plans(build())
    process = subprocess.Popen([*PROGRAM, "dispatch"], cwd=world.project, env=world.environ)
    until = time.monotonic() + 20
    while not world.github.runs and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (entry,) = Journal(world.state / "journal.jsonl").entries()
    assert (entry.key, entry.outcome) == (build().key, "asking")
    world.plans(build())
    world.call()
    assert because(world.told) == {"codex-b0": "in-flight"}
    assert len(world.github.runs) == 1


# The journal

ENTRY = Entry(key="k", target="t", plan="p", at=datetime(2026, 1, 1, tzinfo=UTC), outcome="asking")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.jsonl"


def test_a_journal_tells_each_request_with_what_became_of_it(path: Path) -> None:
    with held(path) as journal:
        assert journal.entries() == ()
        journal.asking(ENTRY)
        assert journal.entries() == (ENTRY,)
        journal.became(ENTRY, Outcome(outcome="accepted", run=7, url="u"))
    (entry,) = Journal(path).entries()
    assert (entry.outcome, entry.run) == ("accepted", 7)


def test_a_line_that_was_not_finished_is_none_and_gives_way(path: Path) -> None:
    with held(path) as journal:
        journal.asking(ENTRY)
        whole = path.read_bytes()
        for cut in range(1, len(whole)):
            path.write_bytes(whole + whole[:cut])
            assert journal.entries() == (ENTRY,)
        journal.became(ENTRY, Outcome(outcome="rejected"))
    assert [one.outcome for one in Journal(path).entries()] == ["rejected"]


def test_a_damaged_journal_is_told_with_its_line(path: Path) -> None:
    with held(path) as journal:
        journal.asking(ENTRY)
        path.write_bytes(b"{}\n" + path.read_bytes())
        with pytest.raises(Failed, match=r"journal\.jsonl:1: not a journal"):
            journal.entries()


def test_a_journal_is_held_by_one(path: Path) -> None:
    with held(path), pytest.raises(Failed, match="another dispatch"), held(path):
        raise AssertionError
