"""The plan: which builds follow from a report, which do not and why; written and read back, and no edit passes."""

import hashlib
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright import reasons
from imagewright.errors import BadReport, Exit
from imagewright.plan import Build, Held, Plan, Policy, Waiting, decide, dump, key, parse
from imagewright.report import Record, Report
from imagewright.verdict import Reason, State

NOW = "2026-01-01T00:00:00Z"
CHANGED = Reason(code=reasons.Stale.BASE_CHANGED, platform="linux/arm64", expected="a", found="b", detail="moved")
MISSING = Reason(code=reasons.Stale.IMAGE_MISSING)
HOLE = Reason(code=reasons.Stale.CHILD_MISSING, platform="linux/arm64")
BEHIND = Reason(code=reasons.Stale.LATEST_BEHIND)
LATE = Reason(code=reasons.Unknown.TIMEOUT, detail="silence")
AUTH = Reason(code=reasons.Unknown.AUTH)
BASE = f"sha256:{'b' * 64}"
NOTHING_HELD = Policy(vanished_at_most=3, hold={})


def record(target, *why):
    tool, _, base = target.partition("-")
    state = State.FRESH
    if why:
        state = State.UNKNOWN if isinstance(why[0].code, reasons.Unknown) else State.STALE
    return Record(
        target=target,
        tool=tool,
        base=base,
        version="1.0",
        reference=f"h/r:{target}-1.0",
        digest=None,
        base_digest=BASE,
        recipe="1:buildkit:x",
        created="",
        listed_before=True,
        state=state,
        reasons=why,
        not_asked=(),
        since=None,
        last_layer=None,
    )


def report(*records, total=None):
    return Report(
        nonce="n",
        catalogue="sha256:c",
        started=NOW,
        finished=NOW,
        selection="all",
        total=len(records) if total is None else total,
        expected=tuple(one.target for one in records),
        partial=(),
        excluded=(),
        warnings=(),
        bases=(),
        versions=(),
        records=records,
    )


def plan(*records, last_good=None, policy=NOTHING_HELD, force=False, total=None):
    return decide(
        report(*records, total=total),
        digest="sha256:r",
        last_good=last_good or {},
        policy=policy,
        force=force,
        now=NOW,
    )


def actions(made):
    return {one.target: one.action for one in made.builds}


def test_what_nobody_can_pull_comes_first_then_the_oldest_image():
    made = plan(
        replace(record("new-x", CHANGED), created="2026-02-01T00:00:00Z"),
        replace(record("old-x", BEHIND), created="2026-01-01T00:00:00Z"),
        record("absent-x", MISSING),
        replace(record("older-x", CHANGED), created="2025-01-01T00:00:00Z"),
    )
    assert [one.target for one in made.builds] == ["absent-x", "older-x", "old-x", "new-x"]


def test_a_stale_target_is_built_with_its_reasons_on_the_base_that_was_seen():
    made = plan(record("codex-fedora", CHANGED))
    assert made == Plan(
        report="sha256:r",
        catalogue="sha256:c",
        nonce="n",
        created=NOW,
        force=False,
        selection="all",
        builds=(
            Build(
                key="8e6ee9fbddab6c64",
                target="codex-fedora",
                tool="codex",
                base="fedora",
                version="1.0",
                base_digest=BASE,
                reasons=(CHANGED,),
                action="build",
            ),
        ),
        deferrals=(),
        refusals=(),
    )


@pytest.mark.parametrize(
    ("records", "force", "planned", "code"),
    [
        ([record("a-x")], False, {}, Exit.DONE),
        ([record("a-x")], True, {"a-x": "build"}, Exit.STALE),
        ([record("a-x", CHANGED)], False, {"a-x": "build"}, Exit.STALE),
        ([record("a-x", BEHIND)], False, {"a-x": "retag"}, Exit.STALE),
        ([record("a-x", BEHIND)], True, {"a-x": "retag"}, Exit.STALE),
        ([record("a-x", BEHIND, BEHIND)], False, {"a-x": "retag"}, Exit.STALE),
        ([record("a-x", BEHIND, CHANGED)], False, {"a-x": "build"}, Exit.STALE),
        ([record("a-x", LATE)], False, {}, Exit.UNKNOWN),
        ([record("a-x", LATE)], True, {}, Exit.UNKNOWN),
        ([record("a-x", CHANGED), record("b-x", LATE)], False, {"a-x": "build"}, Exit.UNKNOWN),
        ([record("b-x", MISSING), record("a-x", MISSING)], False, {"b-x": "build", "a-x": "build"}, Exit.STALE),
    ],
)
def test_what_is_planned_and_what_the_command_ends_with(records, force, planned, code):
    made = plan(*records, force=force)
    assert actions(made) == planned
    assert [one.target for one in made.builds] == list(planned)
    assert made.exit is code


def test_an_unknown_target_is_refused_with_each_code_once():
    assert plan(record("a-x", LATE, AUTH, LATE)).refusals == (Held(target="a-x", because="unknown: timeout, auth"),)


@pytest.mark.parametrize(
    ("hold", "because"),
    [
        ({"codex-fedora": "one"}, "held: one"),
        ({"codex": "two"}, "held: two"),
        ({"fedora": "three"}, "held: three"),
        ({"fedora": "three", "codex": "two", "codex-fedora": "one"}, "held: one"),
    ],
)
def test_what_is_held_is_put_off_with_the_reason(hold, because):
    made = plan(record("codex-fedora", CHANGED), policy=Policy(vanished_at_most=3, hold=hold))
    assert (made.builds, made.deferrals) == ((), (Held(target="codex-fedora", because=because),))
    assert made.exit is Exit.STALE


def vanished(count, why=MISSING):
    gone = [record(f"gone{at}-x", why) for at in range(count)]
    return gone, {one.target: one.reference for one in gone}


@pytest.mark.parametrize(
    ("count", "total", "brakes"),
    [
        (3, 3, False),
        (4, 4, True),
        (4, 199, True),
        (4, 200, False),
        (5, 200, True),
        (5, 249, True),
        (5, 250, False),
        (200, 10_000, False),
        (201, 10_000, True),
    ],
)
@pytest.mark.parametrize("why", [MISSING, HOLE])
def test_the_brake_holds_above_three_or_two_percent(count, total, brakes, why):
    gone, last_good = vanished(count, why)
    made = plan(*gone, last_good=last_good, total=total)
    assert (made.exit is Exit.BRAKE) is brakes
    assert len(made.builds) == (0 if brakes else count)


@pytest.mark.parametrize("why", [(HOLE, BEHIND), (BEHIND, HOLE), (MISSING, CHANGED)])
def test_an_image_that_vanished_counts_on_the_brake_whatever_else_is_wrong_with_it(why):
    gone = [record(f"gone{at}-x", *why) for at in range(4)]
    made = plan(*gone, last_good={one.target: one.reference for one in gone})
    assert (made.builds, made.exit) == ((), Exit.BRAKE)


def test_the_brake_refuses_everything_that_is_stale_and_says_so():
    gone, last_good = vanished(4)
    made = plan(*gone, record("b-x", CHANGED), record("c-x", LATE), last_good=last_good)
    why = "brake: 4 images that were there are gone; this looks like an accident of the registry"
    assert made.refusals == (
        Held(target="c-x", because="unknown: timeout"),
        *(Held(target=f"gone{at}-x", because=why) for at in range(4)),
        Held(target="b-x", because=why),
    )
    assert (made.builds, made.exit) == ((), Exit.BRAKE)


@pytest.mark.parametrize("last_good", [{}, {f"gone{at}-x": "h/r:another-version" for at in range(9)}])
def test_what_never_was_there_is_no_brake(last_good):
    gone, _ = vanished(9)
    assert len(plan(*gone, last_good=last_good).builds) == 9


def test_a_base_that_moved_under_every_pair_is_no_brake():
    moved = [record(f"t{at}-x", CHANGED) for at in range(99)]
    assert len(plan(*moved, last_good={one.target: one.reference for one in moved}).builds) == 99


VANISHED = Reason(code=reasons.Unknown.REPOSITORY_VANISHED)


@pytest.mark.parametrize(("count", "exit_code"), [(3, Exit.UNKNOWN), (4, Exit.BRAKE)])
def test_images_that_vanished_with_their_repository_count_on_the_brake(count, exit_code):
    gone, last_good = vanished(count, VANISHED)
    made = plan(*gone, record("codex-node", CHANGED), last_good=last_good)
    assert made.exit is exit_code
    assert actions(made) == ({"codex-node": "build"} if exit_code is Exit.UNKNOWN else {})


def test_the_brake_refuses_also_where_nothing_is_stale():
    gone, last_good = vanished(4, VANISHED)
    why = "brake: 4 images that were there are gone; this looks like an accident of the registry"
    made = plan(*gone, record("x-y", AUTH), last_good=last_good)
    assert made.exit is Exit.BRAKE
    assert [one.because for one in made.refusals] == [why] * 4 + ["unknown: auth"]


def test_a_limit_of_zero_brakes_at_the_first():
    gone, last_good = vanished(1)
    assert plan(*gone, last_good=last_good, policy=Policy(vanished_at_most=0, hold={})).exit is Exit.BRAKE


def test_the_key_is_the_same_everywhere_and_for_ever():
    assert key("codex-fedora", "0.77.0", "sha256:b", "1:buildkit:r") == "47911080938635d9"


@given(st.permutations(["a", "b", "c", "d"]))
def test_another_order_of_the_same_parts_is_other_work(parts):
    assert (key(*parts) == key("a", "b", "c", "d")) is (parts == ["a", "b", "c", "d"])


why = st.sampled_from([(), (CHANGED,), (BEHIND,), (MISSING,), (LATE,), (CHANGED, BEHIND), (HOLE,)])
records = st.lists(why, max_size=6).map(lambda all_of: [record(f"t{at}-x", *one) for at, one in enumerate(all_of)])


@given(records, st.booleans(), st.booleans(), st.sampled_from([{}, {"t0": "why"}, {"x": "all"}]))
def test_no_plan_holds_an_unknown_target_and_every_other_stale_one_is_accounted_for(found, force, known, hold):
    last_good = {one.target: one.reference for one in found} if known else {}
    made = plan(*found, force=force, last_good=last_good, policy=Policy(vanished_at_most=3, hold=hold))
    unknown = {one.target for one in found if one.state is State.UNKNOWN}
    accounted = [one.target for one in (*made.builds, *made.deferrals, *made.refusals)]
    assert not unknown & {one.target for one in (*made.builds, *made.deferrals)}
    assert sorted(accounted) == sorted(one.target for one in found if force or one.state is not State.FRESH)
    assert made.exit is not Exit.BRAKE or not made.builds


@given(records, st.booleans())
def test_a_plan_is_read_back_equal(found, force):
    made = plan(*found, force=force, policy=Policy(vanished_at_most=3, hold={"t0": "é"}))
    assert parse(dump(made), "plan.json") == made


SMALL = plan(record("a-x", CHANGED), record("b-x", LATE))


def refusal(content):
    with pytest.raises(BadReport) as caught:
        parse(content if isinstance(content, bytes) else json.dumps(content).encode(), "plan.json")
    assert caught.value.exit is Exit.BAD_REPORT
    return str(caught.value)


NEW = "\n  Make a new one: `imagewright plan`."


def test_a_plan_cut_at_any_byte_is_no_plan():
    content = dump(SMALL).rstrip()
    for length in range(len(content)):
        assert refusal(content[:length]).startswith("plan.json: not a plan: ")


@pytest.mark.parametrize("name", ["report", "catalogue", "nonce", "created", "force", "selection", "builds"])
def test_a_plan_that_was_changed_by_hand_is_refused(name):
    document = json.loads(dump(SMALL))
    document[name] = [] if name == "builds" else "another"
    assert refusal(document) == f"plan.json: not a plan: it was changed after it was made{NEW}"


@pytest.mark.parametrize(
    ("document", "what"),
    [
        (b"[]", "list indices must be integers"),
        (b"null", "'NoneType'"),
        ({}, "'self'"),
        ({"self": "x", "schema": 2}, "schema 2, not 1"),
        ({"self": "x"}, "'schema'"),
        (b"[" * 100_000, "maximum recursion depth"),
    ],
)
def test_what_never_was_a_plan_is_refused(document, what):
    said = refusal(document)
    if isinstance(document, bytes):
        assert said.startswith("plan.json: not a plan: ")
    else:
        assert said == f"plan.json: not a plan: {what}{NEW}"


def test_spacing_is_no_edit():
    assert parse(json.dumps(json.loads(dump(SMALL))).encode(), "plan.json") == SMALL


ABSENT = Reason(code=reasons.Stale.BASE_MISSING, expected="forest")


def standalone(target, *why):
    return replace(record(target, *why), tool=None, base=None)


def on(one, waits_for, **members):
    return replace(one, waits_for=waits_for, **members)


@pytest.mark.parametrize(
    ("records", "builds", "deferrals"),
    [
        (
            [standalone("forest", MISSING), on(record("a-forest", ABSENT), "forest")],
            ["forest"],
            ["a-forest waits-for:forest"],
        ),
        (
            [standalone("forest", CHANGED), on(record("a-forest", MISSING), "forest")],
            ["forest"],
            ["a-forest waits-for:forest"],
        ),
        ([standalone("forest", CHANGED), on(record("a-forest"), "forest")], ["forest"], []),
        ([standalone("forest", BEHIND), on(record("a-forest", MISSING), "forest")], ["a-forest", "forest"], []),
        ([standalone("forest"), on(record("a-forest", MISSING), "forest")], ["a-forest"], []),
        ([on(record("a-forest", ABSENT), "forest")], [], ["a-forest waits-for:forest"]),
        ([on(record("a-forest", MISSING), "forest")], ["a-forest"], []),
        (
            [standalone("a", MISSING), on(standalone("b", ABSENT), "a"), on(record("c-b", ABSENT), "b")],
            ["a"],
            ["b waits-for:a", "c-b waits-for:b"],
        ),
    ],
)
def test_what_is_built_on_a_target_that_is_to_be_built_waits_for_it(records, builds, deferrals):
    made = plan(*records)
    assert [one.target for one in made.builds] == builds
    assert [f"{one.target} {one.because}" for one in made.deferrals] == deferrals
    assert parse(dump(made), "plan.json") == made


def test_who_waits_keeps_what_it_is_and_its_version():
    waits = on(record("a-forest", ABSENT), "forest")
    assert plan(waits, replace(waits, version=None)).deferrals == (
        Waiting(target="a-forest", waits_for="forest", tool="a", base="forest", version="1.0"),
        Waiting(target="a-forest", waits_for="forest", tool="a", base="forest", version=""),
    )


def test_an_image_from_scratch_has_no_base_and_the_key_of_that():
    (made,) = plan(replace(standalone("forest", MISSING), version=None, base_digest=None, recipe=None)).builds
    assert (made.key, made.version, made.base_digest) == ("ed1e7890c63cc333", "", "")


def test_who_waits_for_what_is_held_is_built_on_what_is_there():
    held = Policy(vanished_at_most=3, hold={"a": "later"})
    made = plan(standalone("a", CHANGED), on(standalone("b", MISSING), "a"), policy=held)
    assert [one.target for one in made.builds] == ["b"]
    assert made.deferrals == (Held(target="a", because="held: later"),)


def test_a_plan_in_bytes():
    made = plan(
        record("codex-fedora", CHANGED), record("a-x", CHANGED), policy=Policy(vanished_at_most=3, hold={"a": "é"})
    )
    assert dump(made).decode() == WRITTEN
    assert parse(WRITTEN.encode(), "plan.json") == made


WRITTEN = """{
 "schema": 1,
 "report": "sha256:r",
 "catalogue": "sha256:c",
 "nonce": "n",
 "created": "2026-01-01T00:00:00Z",
 "force": false,
 "selection": "all",
 "builds": [
  {
   "key": "8e6ee9fbddab6c64",
   "target": "codex-fedora",
   "tool": "codex",
   "base": "fedora",
   "version": "1.0",
   "base_digest": "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb",
   "reasons": [
    {
     "code": "base-changed",
     "platform": "linux/arm64",
     "expected": "a",
     "found": "b",
     "detail": "moved"
    }
   ],
   "action": "build"
  }
 ],
 "deferrals": [
  {
   "target": "a-x",
   "because": "held: é"
  }
 ],
 "refusals": [],
 "self": "sha256:c164e7ac06ab49f664e71f5c7a62f358bd3c65a2bea771b8713173d5d7afd98a"
}
"""


def test_an_action_that_nobody_knows_is_refused():
    document = json.loads(dump(SMALL))
    document["builds"][0]["action"] = "delete"
    assert refusal(signed(document)) == f"plan.json: not a plan: no such action: delete{NEW}"


def signed(document):
    """The document with the hash that `imagewright plan` would write: of its JSON without spaces, keys in order."""
    rest = {name: value for name, value in document.items() if name != "self"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return rest | {"self": f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"}
