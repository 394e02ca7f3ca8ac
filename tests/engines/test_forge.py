"""The loop on a real forge: Gitea starts the workflows, its runner builds with BuildKit and publishes to a real registry."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engines import daemons
from tests.engines.maintainer import DOCKERFILE, NAME, SETTLE, Maintainer, at_work

READ, RECHECKED = {"versions": "success"}, {"recheck": "success"}
BUILT = dict.fromkeys(["linux/amd64", "linux/arm64", "publish", "verify"], "success")
"""How the jobs of build.yml end."""


@pytest.fixture
def maintainer(engine_folder: Path, buildkitd: str, tmp_path: Path) -> Iterator[Maintainer]:
    with (
        daemons.docker_registry(engine_folder / "bin") as registry,
        at_work(engine_folder, registry, tmp_path, BUILDKIT_HOST=buildkitd) as made,
    ):
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


@pytest.mark.timeout(900)
def test_it_builds_by_the_clock_and_by_hand(maintainer: Maintainer) -> None:
    for base in ("small", "tiny"):
        maintainer.rebuild(base, "2026-01")
    maintainer.write({"hello": "1.0"})

    # The clock ticks each minute here, until it did once: nobody has to wait for the next of three an hour.
    maintainer.add_workflows(cron="* * * * *")
    maintainer.commit("begin")
    plans = lambda: maintainer.forge.runs(NAME, "plan.yml")  # noqa: E731
    maintainer.forge.waits(lambda: bool(plans()), 90, "a tick")
    planned = maintainer.end(plans()[-1]["id"])
    assert planned["conclusion"] == "success", maintainer.told(planned)
    maintainer.add_workflows()
    maintainer.commit("without a clock")  # not before the plan has ended: Gitea would end it
    built = maintainer.ended("build.yml", 2)
    assert {one["display_title"].split()[1] for one in built} == {"hello-small", "hello-tiny"}
    assert [one["conclusion"] for one in built] == ["success", "success"], maintainer.told(built[0])
    assert maintainer.whole("hello-small", "1.0")
    assert maintainer.whole("hello-tiny", "1.0")

    # A build by hand: what is fresh is not built, unless forced.
    fresh = maintainer.end(maintainer.by_hand("build.yml", tool="hello", base="small"))
    assert fresh["conclusion"] == "success", maintainer.told(fresh)
    assert maintainer.jobs(fresh) == READ | RECHECKED | dict.fromkeys([*BUILT, "attest"], "skipped")
    forced = maintainer.end(maintainer.by_hand("build.yml", tool="hello", base="small", force="true"))
    assert forced["conclusion"] == "success", maintainer.told(forced)
    assert maintainer.jobs(forced) == READ | RECHECKED | BUILT | {"attest": "skipped"}

    # All of them by hand: build-all calls build-tool, which asks for a run for each pair and follows them to their end.
    everything = maintainer.end(maintainer.by_hand("build-all.yml"))
    assert everything["conclusion"] == "success", maintainer.told(everything)
    small, tiny = sorted(maintainer.forge.runs(NAME, "build.yml")[:2], key=lambda one: one["display_title"])
    assert re.fullmatch(r"build hello-small 1\.0 \[[0-9a-f]{16}\]", small["display_title"])
    assert re.fullmatch(r"build hello-tiny 1\.0 \[[0-9a-f]{16}\]", tiny["display_title"])
    for one in (small, tiny):
        assert maintainer.jobs(one) == {"versions": "skipped"} | RECHECKED | BUILT | {"attest": "skipped"}
        assert re.search(rf"asked for .* success .*{one['html_url']}$", maintainer.told(everything), re.MULTILINE)
    assert len(maintainer.forge.runs(NAME, "build.yml")) == 6
    assert maintainer.whole("hello-small", "1.0")
    assert maintainer.whole("hello-tiny", "1.0")
