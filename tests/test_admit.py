"""What may be asked of the forge now: a row for each state of the runs, the journal and the limits."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest

from imagewright.admit import BACKOFF_HOURS, Admission, Limits, admit
from imagewright.forge.runs import Run
from imagewright.journal import Entry
from imagewright.plan import Build

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
LIMITS = Limits(budget=20, per_hour=150, in_flight=20, settle=timedelta(minutes=5))
KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def build(key: str = KEY, target: str = "codex-fedora") -> Build:
    tool, _, base = target.partition("-")
    return Build(
        key=key, target=target, tool=tool, base=base, version="1.0", base_digest="", reasons=(), action="build"
    )


def run(
    status: str = "completed",
    conclusion: str = "failure",
    *,
    title: str = f"build codex-fedora 1.0 [{KEY}]",
    ago: float = 60,
    attempt: int = 1,
    number: int = 1,
    took: float = 1,
) -> Run:
    """A run that ended `ago` minutes ago, or was made then where it is under way."""
    in_flight = status != "completed"
    return Run(
        id=number,
        title=title,
        status=status,
        conclusion="" if in_flight else conclusion,
        created=NOW - minutes(ago if in_flight else ago + took),
        ended=None if in_flight else NOW - minutes(ago),
        attempt=attempt,
        url=f"https://forge/own/images/actions/runs/{number}",
    )


def failures(*ago: float) -> list[Run]:
    return [run(ago=one, number=number) for number, one in enumerate(ago, 1)]


def told(admission: Admission) -> str:
    """The decision about one build in words: `ask`, `backoff 60` with the minutes that are left, …"""
    if admission.asks:
        return "ask"
    (held,) = admission.deferred
    left = f" {(held.until - NOW) / minutes(1):g}" if held.until else ""
    return f"{held.because}{left}"


HAND = "build codex-fedora 1.0 []"
RUNS = {
    "no run": ([], "ask"),
    "queued": ([run("queued")], "in-flight"),
    "in progress": ([run("in_progress")], "in-flight"),
    "requested": ([run("requested")], "in-flight"),
    "waiting": ([run("waiting")], "in-flight"),
    "pending": ([run("pending")], "in-flight"),
    "a status that is not known yet": ([run("hibernating")], "in-flight"),
    "queued, for another key": ([run("queued", title=f"build codex-fedora 0.9 [{OTHER}]")], "ask"),
    "queued by hand, without a key": ([run("queued", title=HAND)], "in-flight"),
    "queued by hand, for a target that begins alike": ([run("queued", title="build codex-fedora-slim 1.0 []")], "ask"),
    "ended well just now: not visible yet": ([run(conclusion="success", ago=2)], "settling 3"),
    "ended well long ago, and stale all the same": ([run(conclusion="success", ago=9)], "ask"),
    "failed once just now": (failures(2), "settling 3"),
    "failed once": (failures(6), "ask"),
    "failed twice": (failures(6, 20), "ask"),
    "failed for the third time": (failures(10, 20, 30), "backoff 50"),
    "failed for the third time an hour ago": (failures(61, 70, 80), "ask"),
    "run three times under one number": ([run(ago=10, attempt=3)], "backoff 50"),
    "timed out for the third time": ([run(conclusion="timed_out", ago=10, attempt=3)], "backoff 50"),
    "ended well for the third time, and stale all the same": (
        [run(conclusion="success", ago=10, attempt=3)],
        "backoff 50",
    ),
    "failed for the fourth time": (failures(10, 90, 100, 110), "backoff 110"),
    "failed for the tenth time": ([run(ago=60, attempt=10)], f"backoff {31 * 60}"),
    "cancelled in the queue, by a newer one": ([run(conclusion="cancelled", ago=1)], "ask"),
    "skipped": ([run(conclusion="skipped", ago=1)], "ask"),
    "failed twice for another key": ([run(title=f"build codex-fedora 0.9 [{OTHER}]", ago=9, attempt=7)], "ask"),
}


@pytest.mark.parametrize("state", RUNS)
def test_what_the_forge_shows_decides(state: str) -> None:
    runs, expected = RUNS[state]
    assert told(admit([build()], runs, [], LIMITS, NOW, plan="p")) == expected


FORCED = {
    "queued": ([run("queued")], "in-flight"),
    "ended well just now": ([run(conclusion="success", ago=2)], "ask"),
    "failed for the tenth time": ([run(ago=6, attempt=10)], "ask"),
}


@pytest.mark.parametrize("state", FORCED)
def test_by_hand_nothing_is_waited_for_but_what_is_under_way(state: str) -> None:
    runs, expected = FORCED[state]
    assert told(admit([build()], runs, [], LIMITS, NOW, plan="p", force=True)) == expected


def entry(outcome: str, ago: float = 2, plan: str = "before", number: int | None = None) -> Entry:
    return Entry(key=KEY, target="codex-fedora", plan=plan, at=NOW - minutes(ago), outcome=outcome, run=number)


JOURNALS = {
    "asked, and nobody knows": ([entry("asking")], [], "settling 3"),
    "ambiguous": ([entry("ambiguous")], [], "settling 3"),
    "accepted, and not in the list yet": ([entry("accepted", number=9)], [], "settling 3"),
    "rejected": ([entry("rejected")], [], "ask"),
    "ambiguous, and never seen again": ([entry("ambiguous", ago=6)], [], "ask"),
    "ambiguous, and it was made": ([entry("ambiguous")], [run("queued", ago=2)], "in-flight"),
    "ambiguous, made and cancelled": ([entry("ambiguous", ago=4)], [run(conclusion="cancelled", ago=1)], "ask"),
    "accepted, made and cancelled": (
        [entry("accepted", ago=4, number=1)],
        [run(conclusion="cancelled", ago=1)],
        "ask",
    ),
    "ambiguous, and an older one is there": ([entry("ambiguous")], failures(30), "settling 3"),
    "asked for by this very plan": ([entry("accepted", ago=50, plan="p")], failures(40), "settling"),
    "rejected for this very plan": ([entry("rejected", plan="p")], [], "ask"),
}


@pytest.mark.parametrize("state", JOURNALS)
def test_the_journal_settles_what_the_list_cannot_show(state: str) -> None:
    entries, runs, expected = JOURNALS[state]
    assert told(admit([build()], runs, entries, LIMITS, NOW, plan="p")) == expected


def test_what_this_plan_asked_for_is_not_asked_for_again_by_hand_either() -> None:
    made = admit([build()], [], [entry("ambiguous", ago=50, plan="p")], LIMITS, NOW, plan="p", force=True)
    assert told(made) == "settling"


def many(count: int) -> list[Build]:
    return [build(f"{number:016x}", f"tool-b{number}") for number in range(count)]


def others(count: int, status: str, ago: float = 5) -> list[Run]:
    return [
        run(status, title=f"build x-y{one} 1 [{one + 50_000:016x}]", ago=ago, number=one + 100) for one in range(count)
    ]


ROOM = {
    "the budget": (LIMITS, [], 20, None),
    "places at once, some taken": (LIMITS, others(15, "queued"), 5, None),
    "more under way than there are places": (LIMITS, others(30, "in_progress"), 0, None),
    "an hour's builds, some made": (
        Limits(budget=20, per_hour=30, in_flight=20, settle=minutes(5)),
        others(25, "completed", ago=10),
        5,
        None,
    ),
    "an hour's builds, all made": (
        Limits(budget=20, per_hour=25, in_flight=20, settle=minutes(5)),
        others(25, "completed", ago=10),
        0,
        minutes(49),
    ),
    "builds of the hour before": (
        Limits(budget=20, per_hour=25, in_flight=20, settle=minutes(5)),
        others(25, "completed", ago=60),
        20,
        None,
    ),
}


@pytest.mark.parametrize("limit", ROOM)
def test_no_more_is_asked_for_than_there_is_room(limit: str) -> None:
    limits, runs, expected, until = ROOM[limit]
    made = admit(many(10_000), runs, [], limits, NOW, plan="p")
    assert [one.target for one in made.asks] == [f"tool-b{one}" for one in range(expected)]
    assert {one.because for one in made.deferred} == {"budget"}
    assert len(made.asks) + len(made.deferred) == 10_000
    assert made.deferred[0].until == (NOW + until if until else None)


def test_what_keeps_failing_does_not_take_the_place_of_what_was_not_tried() -> None:
    failing, new = many(40)[:30], many(40)[30:]
    runs = [
        run(title=f"build {one.target} 1.0 [{one.key}]", ago=70, attempt=3, number=at) for at, one in enumerate(failing)
    ]
    made = admit([*failing, *new], runs, [], LIMITS, NOW, plan="p")
    assert made.asks == (*new, *failing[:10])


def test_a_pair_that_stands_twice_in_a_plan_is_asked_for_once() -> None:
    assert admit([build(), build()], [], [], LIMITS, NOW, plan="p").asks == (build(),)


def test_a_build_that_always_fails_is_asked_for_at_most_twelve_times_a_week() -> None:
    """Every twenty minutes somebody looks, and each build fails within one."""
    asked: list[datetime] = []
    now = NOW
    while now < NOW + timedelta(days=7):
        runs = [
            Run(
                id=number,
                title=f"build codex-fedora 1.0 [{KEY}]",
                status="completed",
                conclusion="failure",
                created=one,
                ended=one + minutes(1),
                attempt=1,
                url="",
            )
            for number, one in enumerate(asked)
        ]
        if admit([build()], runs, [], LIMITS, now, plan=str(now)).asks:
            asked.append(now)
        now += minutes(20)
    pauses = [round((later - one) / timedelta(hours=1), 1) for one, later in pairwise(asked)]
    assert len(asked) == 12
    assert pauses[:3] == [0.3, 0.3, 1.3]
    assert all(hours <= pause for hours, pause in zip([*BACKOFF_HOURS, *[32] * 9], pauses, strict=False))
