"""What a person reads at the end of a run, compared whole."""

from collections.abc import Sequence

import pytest

from imagewright.reasons import Stale, Unknown
from imagewright.render import next_step, report_lines
from imagewright.report import Record, Report
from imagewright.verdict import STALE, Finding, Reason, State

CHANGED = tuple(
    Reason(code=Stale.BASE_CHANGED, platform=f"linux/{one}", detail="layer 1 of 2 of the base is another one")
    for one in ("amd64", "arm64")
)
BEHIND = (
    Reason(code=Stale.LATEST_BEHIND, expected="sha256:" + "a" * 64, found="sha256:" + "b" * 64),
    Reason(code=Stale.VERSION_LABEL, platform="linux/amd64", expected="1.0", found="0.9"),
)
REFUSED = (Reason(code=Unknown.NETWORK, detail="connection refused"),)


def _missing(target: str) -> tuple[Reason, ...]:
    return (Reason(code=Stale.IMAGE_MISSING, detail=f"the registry has no {target}-1.0"),)


def _record(target: str, state: State, why: tuple[Reason, ...] = ()) -> Record:
    tool, _, base = target.rpartition("-")
    return Record(
        target=target,
        tool=tool,
        base=base,
        version="1.0",
        reference="",
        digest=None,
        base_digest=None,
        recipe=None,
        created="",
        listed_before=None,
        state=state,
        reasons=why,
        not_asked=(),
        since=None,
        last_layer=None,
    )


def _report(
    records: Sequence[Record],
    *,
    expected: Sequence[str] | None = None,
    partial: Sequence[str] = (),
    excluded: Sequence[dict[str, str]] = (),
    warnings: Sequence[str] = (),
    total: int | None = None,
) -> Report:
    names = tuple(one.target for one in records) if expected is None else tuple(expected)
    return Report(
        nonce="1",
        catalogue="",
        started="",
        finished="",
        selection="all",
        total=len(names) if total is None else total,
        expected=names,
        partial=tuple(partial),
        excluded=tuple(excluded),
        warnings=tuple(warnings),
        bases=(),
        versions=(),
        records=tuple(records),
    )


def _text(report: Report, found: Sequence[Finding] = ()) -> str:
    return "\n".join(one.text for one in report_lines(report, found))


FRESH = _record("codex-fedora", State.FRESH)


def test_unknown_comes_before_stale_and_each_has_its_reasons_below_each_other() -> None:
    report = _report(
        [FRESH, _record("b-node", State.STALE, BEHIND), _record("long-name-x", State.UNKNOWN, REFUSED)],
        excluded=[{"target": "goose-node", "because": "needs GLIBC_2.38"}],
        warnings=["codex-fedora: an attestation describes nothing"],
        total=5,
    )

    assert (
        _text(report)
        == """\
? long-name-x  unknown  network: connection refused
✗ b-node       stale    latest-behind: `latest` does not name the current version's digest. \
(expected sha256:aaaaaaaaaaaa…, found sha256:bbbbbbbbbbbb…)
                        version-label on linux/amd64: The version label and the tag disagree. (expected 1.0, found 0.9)
warning: codex-fedora: an attestation describes nothing
- goose-node  excluded: needs GLIBC_2.38
3 of 5 targets: 1 fresh, 1 stale, 1 unknown"""
    )


def test_many_with_one_cause_share_a_line_wherever_they_stand() -> None:
    records = []
    for at in range(10):
        records += [
            _record(f"t{at}-fedora", State.STALE, CHANGED),
            _record(f"t{at}-node", State.STALE, _missing(f"t{at}-node")),
        ]

    assert (
        _text(_report(records))
        == """\
✗ 10 targets stale: t0-fedora, t1-fedora, t2-fedora, t3-fedora, t4-fedora, t5-fedora, t6-fedora, t7-fedora and 2 more
    base-changed on linux/amd64, linux/arm64: layer 1 of 2 of the base is another one
✗ 10 targets stale: t0-node, t1-node, t2-node, t3-node, t4-node, t5-node, t6-node, t7-node and 2 more
    image-missing: the registry has no <target>-1.0
20 targets: 0 fresh, 20 stale, 0 unknown"""
    )


def test_what_was_found_about_targets_without_a_verdict_is_said() -> None:
    found = [Finding(check="test_exists", target="codex-fedora", kind=STALE, reasons=_missing("codex-fedora"))]
    report = _report([], expected=[], partial=["codex-fedora"], total=4)

    assert (
        _text(report, found)
        == """\
✗ codex-fedora  exists: image-missing: the registry has no codex-fedora-1.0
1 target asked only some of the checks: no verdict"""
    )


STALE_ONE, UNKNOWN_ONE = _record("b-node", State.STALE, CHANGED), _record("c-node", State.UNKNOWN, REFUSED)


@pytest.mark.parametrize(
    ("report", "step"),
    [
        (_report([FRESH]), "nothing to do"),
        (_report([FRESH, STALE_ONE]), "next: imagewright plan"),
        (_report([UNKNOWN_ONE, STALE_ONE]), "next: imagewright plan"),
        (_report([UNKNOWN_ONE]), "next: mend or wait for what could not be answered, then pytest checks/"),
        (_report([], partial=["b-node"]), "next, for verdicts: pytest checks/"),
        (
            _report([STALE_ONE], expected=["b-node", "c-node"]),
            "next, as this run did not come to its end: pytest checks/",
        ),
    ],
)
def test_the_last_line_says_what_to_do_next(report: Report, step: str) -> None:
    assert next_step(report, "report.json") == f"report: report.json; {step}"


def test_colours_say_how_bad_it_is() -> None:
    def colour(*records: Record) -> str:
        return list(report_lines(_report(records)))[-1].colour

    assert [colour(FRESH), colour(FRESH, STALE_ONE), colour(STALE_ONE, UNKNOWN_ONE)] == ["green", "red", "yellow"]
