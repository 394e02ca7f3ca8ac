"""The report: made from evidence, written and read back equal, and refused unless it accounts for every target."""

import contextlib
import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright import reasons
from imagewright.catalogue import Base, Excluded, Pair, Tool
from imagewright.documents import OCI_INDEX
from imagewright.errors import BadReport, Exit
from imagewright.names import Platform, digest_of, make_repository
from imagewright.report import Evidence, Record, Report, assemble, dump, parse, seal
from imagewright.snapshot import (
    BaseSeen,
    CanariesSeen,
    HostSeen,
    Image,
    Missing,
    Pointer,
    Published,
    Reading,
    Snapshot,
    TargetSeen,
)
from imagewright.verdict import Finding, Reason, State

OWN = make_repository("ghcr.io", "own/tools")
BASES = make_repository("ghcr.io", "own/bases")
AMD = Platform("linux", "amd64")
STARTED, FINISHED, BEFORE = "2026-01-01T00:00:00Z", "2026-01-01T00:01:00Z", "2025-12-31T00:00:00Z"
CHANGED = Reason(code=reasons.Stale.BASE_CHANGED, platform="linux/amd64", expected="a", found="b", detail="moved")
LATE = Reason(code=reasons.Unknown.TIMEOUT, detail="silence")


def digest(name):
    return digest_of(name.encode())


def record(target="codex-fedora", state=State.FRESH, why=(), **members):
    return Record(
        **{
            "target": target,
            "tool": "codex",
            "base": "fedora",
            "version": "1.0",
            "reference": f"ghcr.io/own/tools:{target}-1.0",
            "digest": digest("index"),
            "base_digest": digest("base"),
            "recipe": "1:buildkit:x",
            "created": STARTED,
            "listed_before": True,
            "state": state,
            "reasons": tuple(why),
            "not_asked": ("recipe",),
            "since": None if state is State.FRESH else BEFORE,
            "last_layer": True,
        }
        | members
    )


def report(*records, **members):
    return Report(
        **{
            "nonce": "n",
            "catalogue": "sha256:c",
            "started": STARTED,
            "finished": FINISHED,
            "selection": "all",
            "total": len(records),
            "expected": tuple(one.target for one in records),
            "partial": (),
            "excluded": ({"target": "goose-node", "because": "needs GLIBC_2.38"},),
            "warnings": ("odd",),
            "bases": ({"base": "fedora", "reference": "r", "digest": None, "platforms": []},),
            "versions": ({"tool": "codex", "version": "1.0"},),
            "records": records,
        }
        | members
    )


GOOD = report(record("a"), record("b", State.STALE, [CHANGED]), record("c", State.UNKNOWN, [LATE]))


def document(one=GOOD, checks=6):
    return {
        "exitcode": 1,
        "summary": {"collected": checks + 2, "deselected": 2, "total": checks},
        "tests": [{"nodeid": f"t{at}"} for at in range(checks)],
        "imagewright": dump(one),
    }


def encoded(one):
    """Its bytes, with the hash that fits, as somebody makes it who knows how: what follows must hold all the same."""
    whole = isinstance(one, dict) and isinstance(one.get("imagewright"), dict)
    return one if isinstance(one, bytes) else b"".join(seal(one)) if whole else json.dumps(one).encode()


def refusal(content):
    with pytest.raises(BadReport) as caught:
        parse(encoded(content), "report.json")
    assert caught.value.exit is Exit.BAD_REPORT
    assert caught.value.where == "report.json"
    assert caught.value.remedy
    return caught.value.reason


def test_a_report_is_read_back_equal():
    assert parse(encoded(document()), "report.json") == GOOD


def test_a_report_counts_and_finds_its_records():
    assert GOOD.counts() == {State.FRESH: 1, State.STALE: 1, State.UNKNOWN: 1}
    assert GOOD.record("b") is GOOD.records[1]
    assert GOOD.record("x") is None


def test_a_report_cut_at_any_byte_is_no_report():
    content = encoded(document(report(record())))
    for length in range(len(content)):
        assert refusal(content[:length]).startswith("not a report: ")


def damaged(*path, to):
    one = copy.deepcopy(document())
    inner = one
    for step in path[:-1]:
        inner = inner[step]
    if to is ...:
        del inner[path[-1]]
    else:
        inner[path[-1]] = to
    return one


OURS = "imagewright"
VERDICTS = dump(GOOD)["verdicts"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not a report: not JSON: Expecting value at line 1, column 1"),
        (b"{}{}", "not a report: not JSON: Extra data at line 1, column 3"),
        (b'{"exitcode": 0, "exitcode": 0}', "not a report: the member 'exitcode' stands twice"),
        (b'{"duration": NaN}', "not a report: NaN is not JSON"),
        (b'{"a": "\\ud800"}', "not a report: half of a surrogate pair stands for a character"),
        (b"\xff", "not a report: not UTF-8 at byte 0"),
        (b"[]", "the report has no section of imagewright"),
        (b"null", "the report has no section of imagewright"),
        (b"{}", "the report has no section of imagewright"),
        (damaged(OURS, to=[]), "the report has no section of imagewright"),
        (damaged(OURS, "schema", to=2), "the report has schema 2, not 1"),
        (damaged(OURS, "schema", to=...), "the report has schema None, not 1"),
        (damaged(OURS, "nonce", to=""), "the report is damaged: ValueError('no nonce')"),
        (damaged(OURS, "nonce", to=None), "the report is damaged: ValueError('no nonce')"),
        (damaged(OURS, "nonce", to=...), "the report is damaged: KeyError('nonce')"),
        (damaged(OURS, "selection", to=7), "the report is damaged: TypeError('selection is not a text')"),
        (damaged(OURS, "total", to="3"), "the report is damaged: TypeError('total is not a number')"),
        (
            damaged(OURS, "expected", to=["a", []]),
            "the report is damaged: TypeError('expected is not a list of texts')",
        ),
        (
            damaged(OURS, "verdicts", 0, "version", to=3.1),
            "the report is damaged: TypeError('version of a verdict is not a text')",
        ),
        (
            damaged(OURS, "verdicts", 0, "target", to=None),
            "the report is damaged: TypeError('target of a verdict is not a text')",
        ),
        (damaged(OURS, "expected", to=[]), "no target was selected with all its checks"),
        (damaged(OURS, "expected", to=["a", "b", "c", "d"]), "d has no verdict"),
        (damaged(OURS, "expected", to=["a", "b"]), "c was not expected"),
        (damaged(OURS, "expected", to=["a", "b", "c", "c"]), "a target is expected twice"),
        (damaged(OURS, "verdicts", to=VERDICTS[1:]), "a has no verdict"),
        (damaged(OURS, "verdicts", to=[]), "a has no verdict; b has no verdict; c has no verdict"),
        (damaged(OURS, "verdicts", to=[*VERDICTS, VERDICTS[0]]), "a has 2 verdicts"),
        (
            damaged(OURS, "expected", to=["v", "w", "x", "y", "z"]),
            "a was not expected; b was not expected; c was not expected; and 5 more",
        ),
        (
            damaged(OURS, "verdicts", 0, "verdict", to="green"),
            "the report is damaged: ValueError(\"'green' is not a valid State\")",
        ),
        (
            damaged(OURS, "verdicts", 0, "verdict", to="stale"),
            "the report is damaged: ValueError('a is stale with reasons that do not fit')",
        ),
        (
            damaged(OURS, "verdicts", 0, "verdict", to="unknown"),
            "the report is damaged: ValueError('a is unknown with reasons that do not fit')",
        ),
        (
            damaged(OURS, "verdicts", 1, "verdict", to="fresh"),
            "the report is damaged: ValueError('b is fresh with reasons that do not fit')",
        ),
        (
            damaged(OURS, "verdicts", 2, "verdict", to="stale"),
            "the report is damaged: ValueError('c is stale with reasons that do not fit')",
        ),
        (
            damaged(OURS, "verdicts", 1, "reasons", 0, "code", to="bored"),
            "the report is damaged: KeyError('bored')",
        ),
        (damaged("exitcode", to=2), "pytest ended with 2, so the run was not finished"),
        (damaged("exitcode", to=5), "pytest ended with 5, so the run was not finished"),
        (damaged("exitcode", to=-9), "pytest ended with -9, so the run was not finished"),
        (damaged("exitcode", to=...), "the report is damaged: KeyError('exitcode')"),
        (damaged("exitcode", to="0"), "pytest ended with 0, so the run was not finished"),
        (damaged("summary", "collected", to=9), "7 checks were selected, 6 ended and 6 are listed"),
        (damaged("summary", "total", to=5), "6 checks were selected, 5 ended and 6 are listed"),
        (damaged("summary", "deselected", to=...), "8 checks were selected, 6 ended and 6 are listed"),
        (damaged("summary", "total", to=...), "6 checks were selected, 0 ended and 6 are listed"),
        (damaged("tests", to=[]), "6 checks were selected, 6 ended and 0 are listed"),
        (damaged("summary", to=...), "the report is damaged: KeyError('summary')"),
    ],
)
def test_a_report_that_cannot_account_for_every_target_is_refused(content, reason):
    assert refusal(content) == reason


def test_a_report_nested_too_deep_is_refused():
    assert refusal(b"[" * 100_000) == "not a report: nested too deep"


def moved_verdicts(one):
    one[OURS]["verdicts"].reverse()


def judged_fresh(one):
    one[OURS]["verdicts"][1].update(verdict="fresh", reasons=[])


EDITS = {
    # what somebody did to a report that was in order, and that would be one still if only our own numbers were asked
    "a verdict and its reasons": judged_fresh,
    "a version": lambda one: one[OURS]["verdicts"][0].update(version="2.0"),
    "a digest of a base": lambda one: one[OURS]["verdicts"][0].update(base_digest=digest("other")),
    "records in another order": moved_verdicts,
    "a target less": lambda one: (one[OURS]["verdicts"].pop(), one[OURS]["expected"].pop()),
    "the total": lambda one: one[OURS].update(total=56),
    "the time": lambda one: one[OURS].update(started=FINISHED),
    "a warning less": lambda one: one[OURS]["warnings"].clear(),
    "a member more": lambda one: one[OURS].update(note="so it is"),
    "pytest's exit code": lambda one: one.update(exitcode=0),
    "all of pytest's numbers": lambda one: one.update(summary={"collected": 6, "total": 6}),
    "a test of pytest's": lambda one: one["tests"][0].update(outcome="passed"),
    "the hash": lambda one: one[OURS].update(self=digest("x")),
    "no hash": lambda one: one[OURS].pop("self"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_report_that_was_changed_after_it_was_written_is_refused(edit):
    one = json.loads(encoded(document()))
    assert parse(json.dumps(one, indent=1).encode(), "report.json") == GOOD, "its layout is nobody's business"
    EDITS[edit](one)
    assert refusal(json.dumps(one).encode()) == "the report was changed after it was written"


def test_what_is_no_text_is_written_and_read_back():
    one = document() | {"tests": [{"nodeid": "\udcff \u2028 \x1b"}] * 6}
    content = b"".join(seal(one))
    assert parse(content, "report.json") == GOOD
    assert json.loads(content)["tests"][0]["nodeid"] == "? \u2028 \x1b"


@given(st.data())
def test_a_report_with_any_member_replaced_is_read_or_refused(data):
    one = copy.deepcopy(document())
    inner = one
    while isinstance(inner, dict | list) and inner:
        step = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[step], dict | list) or not inner[step] or data.draw(st.booleans()):
            inner[step] = data.draw(st.sampled_from([None, 0, True, "", "x", [], ["x"], {}, {"x": 1}, 1e9]))
            break
        inner = inner[step]
    with contextlib.suppress(BadReport):
        parse(encoded(one), "report.json")


CHECKS = ("test_exists", "test_latest")
CODEX = Tool(name="codex", folder=Path("tools/codex"))


def pair(base):
    reference = BASES.tagged(f"{base}-latest")
    return Pair(tool=CODEX, base=Base(name=base, reference=reference), repository=OWN, declared=(AMD,))


def image(layers, created=STARTED):
    return Image(
        platform=AMD,
        digest=digest(layers),
        config=digest(layers),
        layers=tuple(map(digest, layers)),
        diff_ids=tuple(map(digest, layers)),
        history=None,
        labels={},
        created=created,
    )


def seen(reference, *images, **members):
    return Published(
        reference=reference,
        digest=digest(str(reference)),
        media_type=OCI_INDEX,
        is_index=True,
        images=images,
        **members,
    )


def right(target, *checks):
    return [Finding(check=one, target=target, kind="right") for one in checks]


def evidence(**members):
    version, latest = OWN.tagged("codex-fedora-1.0"), OWN.tagged("codex-fedora-latest")
    base = BASES.tagged("fedora-latest")
    snapshot = Snapshot(
        catalogue="sha256:c",
        taken=STARTED,
        base_names=("fedora",),
        readings=(Reading(tool="codex", version="1.0", seconds=0.25),),
        bases=(BaseSeen(name="fedora", observation=seen(base, image("a"))),),
        targets=(
            TargetSeen(
                target="codex-fedora",
                tool="codex",
                base="fedora",
                version="1.0",
                observation=seen(version, image("ax", FINISHED), warnings=("odd",)),
                latest=Pointer(reference=latest, digest=digest("x")),
                listed_before=True,
            ),
        ),
    )
    return Evidence(
        **{
            "nonce": "n",
            "catalogue": "sha256:c",
            "started": STARTED,
            "finished": FINISHED,
            "selection": "all",
            "checks": CHECKS,
            "expected": ["codex-fedora"],
            "partial": [],
            "targets": [pair("fedora")],
            "excluded": [Excluded(key="goose-node", tool="goose", base="node", because="old")],
            "findings": {"codex-fedora": right("codex-fedora", *CHECKS)},
            "crashed": [],
            "seen": snapshot,
            "since": {},
            "waits_for": {},
            "recipe": {"codex-fedora": "1:buildkit:x"},
            "warnings": ["slow"],
        }
        | members
    )


def test_a_fresh_target_is_recorded_with_all_that_its_verdict_rests_on():
    made = assemble(evidence())
    assert made.records == (
        record(
            digest=digest("ghcr.io/own/tools:codex-fedora-1.0"),
            base_digest=digest("ghcr.io/own/bases:fedora-latest"),
            created=FINISHED,
            not_asked=(),
        ),
    )
    assert made.excluded == ({"target": "goose-node", "tool": "goose", "base": "node", "because": "old"},)
    assert made.warnings == ("slow", "codex-fedora: odd")
    assert made.bases == (
        {
            "base": "fedora",
            "reference": "ghcr.io/own/bases:fedora-latest",
            "digest": digest("ghcr.io/own/bases:fedora-latest"),
            "platforms": ["linux/amd64"],
        },
    )
    assert made.versions == (
        {
            "tool": "codex",
            "version": "1.0",
            "reason": None,
            "detail": "",
            "via": "host",
            "seconds": 0.25,
            "image": "",
            "fallback": "",
        },
    )
    assert parse(encoded(document(made)), "report.json") == made


@pytest.mark.parametrize(("before", "since"), [({}, STARTED), ({"codex-fedora": BEFORE}, BEFORE)])
def test_what_is_not_fresh_is_so_since_the_report_before_or_now(before, since):
    stale = [
        *right("codex-fedora", "test_exists"),
        Finding(check="test_latest", target="codex-fedora", kind="stale", reasons=(CHANGED,)),
    ]
    (made,) = assemble(evidence(findings={"codex-fedora": stale}, since=before)).records
    assert (made.state, made.reasons, made.since) == (State.STALE, (CHANGED,), since)


def test_a_fresh_target_is_fresh_whatever_was_before():
    assert assemble(evidence(since={"codex-fedora": BEFORE})).records[0].since is None


def test_a_check_that_was_not_asked_is_listed_without_its_prefix():
    asked = [
        *right("codex-fedora", "test_exists"),
        Finding(check="test_latest", target="codex-fedora", kind="not-asked", why="x"),
    ]
    assert assemble(evidence(findings={"codex-fedora": asked})).records[0].not_asked == ("latest",)


@pytest.mark.parametrize(
    ("found", "crashed", "why"),
    [
        (["test_exists"], [("test_latest", "codex-fedora")], "while checking test_latest"),
        ([], [(one, "codex-fedora") for one in CHECKS], "while checking test_exists, test_latest"),
    ],
)
def test_a_target_whose_worker_died_is_unknown(found, crashed, why):
    findings = {"codex-fedora": right("codex-fedora", *found)}
    (made,) = assemble(evidence(findings=findings, crashed=crashed)).records
    assert (made.state, made.reasons) == (
        State.UNKNOWN,
        (Reason(code=reasons.Unknown.WORKER_CRASH, detail=why),),
    )


@pytest.mark.parametrize(
    ("found", "crashed"),
    [
        ([], []),
        (["test_exists"], []),
        (["test_exists"], [("test_latest", "codex-alpine")]),
        (["test_exists", "test_exists"], []),
        (["test_exists", "test_exists"], [("test_latest", "codex-fedora")]),
    ],
)
def test_a_target_that_cannot_be_accounted_for_has_no_record(found, crashed):
    findings = {"codex-fedora": right("codex-fedora", *found)}
    made = assemble(evidence(findings=findings, crashed=crashed))
    assert made.records == ()
    assert refusal(document(made)) == "codex-fedora has no verdict"


def test_without_a_snapshot_a_record_says_what_it_does_not_know():
    unknown = [Finding(check=one, target="codex-fedora", kind="unknown", reasons=(LATE,)) for one in CHECKS]
    (made,) = assemble(evidence(seen=None, findings={"codex-fedora": unknown}, recipe={})).records
    assert (made.version, made.reference, made.digest, made.base_digest) == (None, "", None, None)
    assert (made.created, made.listed_before, made.recipe, made.last_layer) == ("", None, None, None)


def test_bases_that_could_not_be_listed_are_one_record():
    lost = Reason(code=reasons.Unknown.BASES_UNKNOWN, detail="silence")
    found = {"bases": [Finding(check="test_exists", target="bases", kind="unknown", reasons=(lost,))]}
    made = assemble(evidence(expected=["bases"], targets=[], findings=found, seen=None))
    assert (made.total, made.expected) == (0, ("bases",))
    assert (made.records[0].target, made.records[0].state) == ("bases", State.UNKNOWN)
    assert parse(encoded(document(made)), "report.json") == made


DOWN = HostSeen(host="ghcr.io", asked=9, unanswered=7, reason=reasons.Unknown.REGISTRY_UNAVAILABLE, detail="status 503")
TRUSTED = CanariesSeen(repository=OWN, failed="")
LOST = CanariesSeen(repository=OWN, failed="it has lost x, which it had a moment ago")
BASES_LOST = CanariesSeen(repository=BASES, failed="asked for y: status 500")
CAN_NOT = Reason(code=reasons.Unknown.REGISTRY_UNAVAILABLE, detail="status 503")
DISTRUST = Reason(code=reasons.Unknown.CANARY_FAILED, detail="it has lost x")
LOOK_LATER = "ghcr.io left 7 of 9 questions open, registry-unavailable: status 503{}. {}"


def found(target, *why):
    rest = right(target, *CHECKS[1:])
    if not why:
        return right(target, *CHECKS)
    return [Finding(check=CHECKS[0], target=target, kind="unknown", reasons=why), *rest]


@pytest.mark.parametrize(
    ("hosts", "canaries", "why", "warnings"),
    [
        ((DOWN,), (TRUSTED,), (CAN_NOT,), [LOOK_LATER.format("; unknown for that: codex-fedora", "Look again later.")]),
        ((DOWN,), (TRUSTED,), (), [LOOK_LATER.format("", "Look again later.")]),
        ((replace(DOWN, retry_after=61),), (), (), [LOOK_LATER.format("", "Look again in 2 min.")]),
        (
            (replace(DOWN, host="quay.io"),),
            (),
            (CAN_NOT,),
            ["quay.io" + LOOK_LATER.format("", "Look again later.").removeprefix("ghcr.io")],
        ),
        (
            (),
            (LOST, BASES_LOST),
            (DISTRUST,),
            [
                f"{OWN} cannot be trusted, so nothing there counts as stale: it has lost x, which it had a moment ago",
                f"{BASES} cannot be trusted, so nothing there counts as stale: asked for y: status 500",
            ],
        ),
        (
            (),
            (LOST,),
            (),
            [f"{OWN} cannot be trusted, so nothing there counts as stale: it has lost x, which it had a moment ago"],
        ),
        ((), (LOST,), (CAN_NOT,), []),
        ((), (TRUSTED,), (DISTRUST,), []),
    ],
)
def test_a_host_that_leaves_questions_open_is_told_in_a_line(hosts, canaries, why, warnings):
    run = evidence(findings={"codex-fedora": found("codex-fedora", *why)})
    made = assemble(replace(run, seen=replace(run.seen, hosts=hosts, canaries=canaries)))
    assert list(made.warnings) == ["slow", *warnings, "codex-fedora: odd"]


def test_a_base_that_is_not_there_has_no_digest():
    gone = BaseSeen(name="old", observation=Missing(reference=BASES.tagged("old-latest"), code="MANIFEST_UNKNOWN"))
    snapshot = Snapshot(catalogue="", taken="", base_names=("old",), readings=(), bases=(gone,), targets=())
    (made,) = assemble(evidence(seen=snapshot)).bases
    assert made == {"base": "old", "reference": "ghcr.io/own/bases:old-latest", "digest": None, "platforms": []}
