"""What the findings of the checks amount to, and how an image is compared with its base."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright import reasons
from imagewright.catalogue import Base, Pair, Tool
from imagewright.documents import OCI_INDEX, HistoryEntry
from imagewright.names import Platform, digest_of, make_repository, parse_reference
from imagewright.snapshot import Gone, Image, Missing, Published, Unreachable
from imagewright.verdict import (
    Finding,
    NotAsked,
    Reason,
    Stale,
    State,
    Unknown,
    Verdict,
    base_label_departure,
    believed,
    config_departures,
    finding,
    judge,
    layer_departures,
    own_labels,
    readable_base,
    reason_texts,
    recipe_departures,
    refuse_backwards,
    stated_versions,
)

AMD, ARM, RISC = Platform("linux", "amd64"), Platform("linux", "arm64"), Platform("linux", "riscv64")
REFERENCE = parse_reference("ghcr.io/own/bases:fedora-latest")
BEHIND = Reason(code=reasons.Stale.LATEST_BEHIND, expected="a", found="b")
CHANGED = Reason(code=reasons.Stale.BASE_CHANGED, platform="linux/arm64", detail="layer 2 of 3 is another one")
LATE = Reason(code=reasons.Unknown.TIMEOUT, detail="silence")


def digest(name):
    return digest_of(name.encode())


def image(layers, platform=AMD, *, labels=None, history=None):
    """layers: a letter each."""
    return Image(
        platform=platform,
        digest=digest(f"manifest {layers}"),
        config=digest(f"config {layers}"),
        layers=tuple(digest(f"blob {one}") for one in layers),
        diff_ids=tuple(digest(one) for one in layers),
        history=history,
        labels=labels or {},
        created="",
    )


def published(*images, **members):
    return Published(
        reference=REFERENCE, digest=digest("index"), media_type=OCI_INDEX, is_index=True, images=images, **members
    )


def pair(*, declared=(AMD, ARM), **members):
    return Pair(
        tool=Tool(name="codex", folder=Path("tools/codex"), **members),
        base=Base(name="fedora", reference=REFERENCE),
        repository=make_repository("ghcr.io", "own/tools"),
        declared=declared,
    )


def raised(kind, call, *arguments, **more):
    with pytest.raises(kind) as caught:
        call(*arguments, **more)
    return caught.value


RIGHT = Finding(check="a", target="t", kind="right")
STALE = Finding(check="b", target="t", kind="stale", reasons=(BEHIND,))
UNKNOWN = Finding(check="c", target="t", kind="unknown", reasons=(LATE,))
NOT_ASKED = Finding(check="d", target="t", kind="not-asked", why="no label")
NOTHING = Reason(code=reasons.Unknown.CHECK_FAILED, detail="no check had anything to ask")


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ([RIGHT], Verdict(state=State.FRESH)),
        ([RIGHT, NOT_ASKED], Verdict(state=State.FRESH, not_asked={"d": "no label"})),
        ([RIGHT, STALE], Verdict(state=State.STALE, reasons=(BEHIND,))),
        ([STALE, NOT_ASKED], Verdict(state=State.STALE, reasons=(BEHIND,), not_asked={"d": "no label"})),
        ([STALE, UNKNOWN], Verdict(state=State.UNKNOWN, reasons=(LATE,))),
        ([RIGHT, UNKNOWN], Verdict(state=State.UNKNOWN, reasons=(LATE,))),
        (
            [RIGHT, STALE, UNKNOWN, NOT_ASKED],
            Verdict(state=State.UNKNOWN, reasons=(LATE,), not_asked={"d": "no label"}),
        ),
        ([NOT_ASKED], Verdict(state=State.UNKNOWN, reasons=(NOTHING,), not_asked={"d": "no label"})),
        ([], Verdict(state=State.UNKNOWN, reasons=(NOTHING,))),
    ],
)
def test_unknown_outranks_stale_outranks_fresh_and_nothing_asked_is_not_fresh(found, verdict):
    checks = [one.check for one in found]
    for order in itertools.permutations(found):
        assert judge(order, checks) == verdict


@pytest.mark.parametrize(
    ("found", "checks"),
    [
        ([RIGHT], ["a", "b"]),
        ([], ["a"]),
        ([RIGHT, RIGHT], ["a"]),
        ([RIGHT, STALE], ["a"]),
        ([RIGHT, RIGHT], ["a", "b"]),
    ],
)
def test_there_is_no_verdict_unless_each_check_was_heard_once(found, checks):
    assert judge(found, checks) is None


def test_checks_may_be_named_in_any_order():
    assert judge([RIGHT, STALE], ["b", "a"]) == Verdict(state=State.STALE, reasons=(BEHIND,))


def test_every_reason_of_every_check_is_kept_once():
    second = Finding(check="e", target="t", kind="stale", reasons=(CHANGED, BEHIND))
    assert judge([STALE, second], ["b", "e"]) == Verdict(state=State.STALE, reasons=(BEHIND, CHANGED))


findings = st.lists(st.sampled_from([RIGHT, STALE, UNKNOWN, NOT_ASKED]), max_size=4, unique=True)


@given(findings)
def test_one_more_unknown_makes_anything_unknown(found):
    more = Finding(check="z", target="t", kind="unknown", reasons=(LATE,))
    assert judge([*found, more], [*(one.check for one in found), "z"]).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (None, Finding(check="c", target="t", kind="right")),
        (Stale([BEHIND]), Finding(check="c", target="t", kind="stale", reasons=(BEHIND,), why=str(BEHIND))),
        (Unknown([LATE]), Finding(check="c", target="t", kind="unknown", reasons=(LATE,), why=str(LATE))),
        (NotAsked("no label"), Finding(check="c", target="t", kind="not-asked", why="no label")),
        (
            AssertionError("1 == 2"),
            Finding(
                check="c",
                target="t",
                kind="unknown",
                reasons=(Reason(code=reasons.Unknown.CHECK_FAILED, detail="c: AssertionError: 1 == 2"),),
            ),
        ),
        (
            KeyboardInterrupt(),
            Finding(
                check="c",
                target="t",
                kind="unknown",
                reasons=(Reason(code=reasons.Unknown.CHECK_FAILED, detail="c: KeyboardInterrupt: "),),
            ),
        ),
    ],
)
def test_a_finding_is_what_the_check_raised_and_a_crash_is_unknown(what, expected):
    assert finding("c", "t", what) == expected
    assert expected.is_crash is (not isinstance(what, Stale | Unknown | NotAsked | None))


def test_the_words_of_a_crash_are_bounded():
    assert len(finding("c", "t", ValueError("x" * 9999)).reasons[0].detail) == 500


@pytest.mark.parametrize("found", [RIGHT, STALE, UNKNOWN, NOT_ASKED, finding("c", "t", OSError("x"))])
def test_a_finding_passes_through_the_report_unchanged(found):
    assert Finding.from_json(json.loads(json.dumps(found.as_json()))) == found


def test_what_was_not_said_is_empty_in_the_report():
    assert Reason(code=reasons.Stale.IMAGE_MISSING).as_json() == {
        "code": "image-missing",
        "platform": "",
        "expected": "",
        "found": "",
        "detail": "",
    }
    assert RIGHT.as_json() == {"check": "a", "target": "t", "kind": "right", "reasons": [], "why": ""}


def test_the_three_verdicts_by_name():
    assert [one.value for one in State] == ["fresh", "stale", "unknown"]


def test_a_verdict_has_no_reasons_unless_it_names_some_and_can_be_counted():
    assert Verdict(state=State.FRESH) == Verdict(state=State.FRESH, reasons=(), not_asked={})
    assert len({Verdict(state=State.FRESH, not_asked={"d": "no label"}), Verdict(state=State.FRESH)}) == 2


@pytest.mark.parametrize("reason", [BEHIND, CHANGED, LATE])
def test_a_reason_passes_through_the_report_unchanged(reason):
    assert Reason.from_json(json.loads(json.dumps(reason.as_json()))) == reason


@pytest.mark.parametrize(
    ("members", "error"), [({"code": "made-up"}, KeyError), ({"detail": None}, TypeError), ({"platform": 7}, TypeError)]
)
def test_a_damaged_reason_is_none(members, error):
    with pytest.raises(error):
        Reason.from_json(BEHIND.as_json() | members)


def test_what_is_wrong_with_a_damaged_reason_is_said():
    with pytest.raises(TypeError, match=r"\Aa reason has a member that is not a text\Z"):
        Reason.from_json(BEHIND.as_json() | {"expected": []})


@pytest.mark.parametrize(
    ("reason", "text"),
    [
        (CHANGED, "base-changed on linux/arm64: layer 2 of 3 is another one"),
        (BEHIND, "latest-behind: `latest` does not name the current version's digest."),
        (LATE, "timeout: silence"),
    ],
)
def test_a_reason_reads_as_one_sentence(reason, text):
    assert str(reason) == text


ONLY_STALE = "stale wants at least one reason, and only reasons for being stale"
ONLY_UNKNOWN = "unknown wants at least one reason, and only reasons for not knowing"


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (Stale, [LATE], ONLY_STALE),
        (Stale, [BEHIND, LATE], ONLY_STALE),
        (Stale, [], ONLY_STALE),
        (Unknown, [BEHIND], ONLY_UNKNOWN),
        (Unknown, [LATE, BEHIND], ONLY_UNKNOWN),
        (Unknown, [], ONLY_UNKNOWN),
    ],
)
def test_an_outcome_takes_only_reasons_of_its_kind(kind, wrong, message):
    with pytest.raises(ValueError, match=rf"\A{message}\Z"):
        kind(wrong)


def test_several_reasons_are_said_in_one_line():
    assert str(Stale([BEHIND, CHANGED])) == f"{BEHIND}; {CHANGED}"


BOTH = published(image("a"), image("b", ARM))


@pytest.mark.parametrize(
    ("members", "base"),
    [
        ({}, BOTH),
        ({}, published(image("a"))),
        ({"platforms": (ARM,)}, BOTH),
        ({}, published(image("a"), image("", RISC))),
        ({}, published(image("a"), gone=(Gone(platform=RISC, digest=digest("x")),))),
    ],
)
def test_a_base_that_can_be_compared_with_is_given_back(members, base):
    one = pair(declared=members.get("platforms", (AMD, ARM)), **members)
    assert readable_base(one, base) is base


AT = "ghcr.io/own/bases:fedora-latest"


@pytest.mark.parametrize(
    ("members", "base", "code", "detail"),
    [
        (
            {},
            Missing(reference=REFERENCE, code="MANIFEST_UNKNOWN"),
            "base-unreadable",
            f"{AT} is not there (MANIFEST_UNKNOWN)",
        ),
        (
            {},
            Unreachable(reference=REFERENCE, reason=reasons.Unknown.TLS, detail="certificate expired"),
            "base-unreadable",
            f"{AT}: certificate expired",
        ),
        (
            {},
            published(image("a"), gone=(Gone(platform=ARM, digest=digest("x")),)),
            "base-unreadable",
            f"{AT} has lost its content for linux/arm64",
        ),
        ({}, published(image("a"), image("", ARM)), "base-empty", f"{AT} has no layers on linux/arm64"),
        (
            {},
            published(image(""), image("", ARM)),
            "base-empty",
            f"{AT} has no layers on linux/amd64, linux/arm64",
        ),
        (
            {},
            published(image("a"), image("b", ARM), gone=(Gone(platform=ARM, digest=digest("x")),)),
            "base-unreadable",
            f"{AT} has lost its content for linux/arm64",
        ),
        (
            {},
            published(gone=(Gone(platform=AMD, digest=digest("x")), Gone(platform=ARM, digest=digest("y")))),
            "base-unreadable",
            f"{AT} has lost its content for linux/amd64, linux/arm64",
        ),
        (
            {},
            published(image("a", RISC)),
            "base-platform-missing",
            f"{AT} has linux/riscv64, not linux/amd64, linux/arm64",
        ),
        (
            {"platforms": (AMD, RISC)},
            BOTH,
            "base-platform-missing",
            f"{AT} has linux/amd64, linux/arm64, not linux/riscv64",
        ),
    ],
)
def test_a_base_that_cannot_be_compared_with_makes_its_pairs_unknown(members, base, code, detail):
    one = pair(declared=members.get("platforms", (AMD, ARM)), **members)
    assert raised(Unknown, readable_base, one, base).reasons == (Reason(code=reasons.CODES[code], detail=detail),)


@pytest.mark.parametrize(
    ("mine", "base", "expected"),
    [
        (published(image("ax"), image("bx", ARM)), BOTH, []),
        (published(image("ax")), BOTH, []),
        (
            published(image("c", ARM)),
            BOTH,
            [
                Reason(
                    code=reasons.Stale.BASE_CHANGED,
                    platform="linux/arm64",
                    expected=digest("b"),
                    found=digest("c"),
                    detail="layer 1 of 1 of the base is another one",
                )
            ],
        ),
        (published(image("ax"), image("bx", ARM)), published(image("a")), []),
        (
            published(image("ax"), image("cx", ARM)),
            BOTH,
            [
                Reason(
                    code=reasons.Stale.BASE_CHANGED,
                    platform="linux/arm64",
                    expected=digest("b"),
                    found=digest("c"),
                    detail="layer 1 of 1 of the base is another one",
                )
            ],
        ),
        (
            published(image("a"), image("bx", ARM)),
            BOTH,
            [Reason(code=reasons.Stale.NO_OWN_LAYERS, platform="linux/amd64")],
        ),
        (
            published(image(""), image("bx", ARM)),
            BOTH,
            [Reason(code=reasons.Stale.BASE_LAYERS_MISSING, platform="linux/amd64")],
        ),
        (
            published(image("acz")),
            published(image("abz")),
            [
                Reason(
                    code=reasons.Stale.BASE_CHANGED,
                    platform="linux/amd64",
                    expected=digest("b"),
                    found=digest("c"),
                    detail="layer 2 of 3 of the base is another one",
                )
            ],
        ),
    ],
)
def test_an_image_departs_from_its_base_on_the_platforms_where_it_does(mine, base, expected):
    assert layer_departures(mine, base, on=(AMD, ARM)) == expected


@pytest.mark.parametrize(
    ("raised", "distrust", "expected"),
    [
        (Stale([BEHIND]), "it lost x", "unknown: canary-failed: it lost x"),
        (Stale([BEHIND]), "", "stale: latest-behind: `latest` does not name the current version's digest."),
        (Unknown([LATE]), "it lost x", "unknown: timeout: silence"),
        (NotAsked("no label"), "it lost x", "not-asked: no label"),
        (None, "it lost x", None),
    ],
)
def test_what_is_wrong_does_not_count_where_nobody_vouches_for_the_registry(raised, distrust, expected):
    found = believed(raised, distrust)
    assert (f"{found.kind}: {found}" if found else None) == expected


OURS = "org.opencontainers.image.version"


def latest_with(*labels):
    platforms = (AMD, ARM)
    return published(*(image("a", on, labels=one) for on, one in zip(platforms, labels, strict=False)))


@pytest.mark.parametrize(
    ("newest", "versions"),
    [
        (latest_with({OURS: "1.0", "imagewright.tool": "codex"}), ("1.0",)),
        (latest_with({OURS: "1.0", "x.recipe": "1:copy:y"}, {OURS: "2.0", "x.tool": "codex"}), ("1.0", "2.0")),
        (latest_with({OURS: "1.0", "x.recipe": "y"}, {OURS: "1.0", "x.recipe": "y"}), ("1.0",)),
        (latest_with({OURS: "42"}), ()),
        (latest_with({"imagewright.tool": "codex"}), ()),
        (latest_with({OURS: "42"}, {OURS: "1.0", "x.tool": "codex"}), ("1.0",)),
    ],
)
def test_an_image_of_ours_states_its_version(newest, versions):
    assert stated_versions(newest) == versions


def test_several_stated_versions_have_one_order():
    stated = ("1.0", "1.1", "1.2", "1.3", "1.4", "1.5", "1.6", "1.7")
    images = [image("a", labels={OURS: one, "x.tool": "codex"}) for one in reversed(stated)]
    assert stated_versions(published(*images)) == stated


@pytest.mark.parametrize(
    ("scheme", "today", "latest", "backwards"),
    [
        ("semver", "1.9.0", "1.10.0", True),
        ("semver", "1.10.0", "1.9.0", False),
        ("semver", "1.10.0", "1.10.0", False),
        ("semver", "1.0.0-rc.1", "1.0.0", True),
        ("semver", "nightly-7", "1.0.0", False),
        ("opaque", "a1", "b2", False),
        ("opaque", "1.0", "2.0", False),
        ("semver", "1.0.0-x.9", "1.0.0-x.10", True),
        ("pep440", "1.0.dev1", "1.0", True),
        ("calver", "2026.1", "2026.11", True),
    ],
)
def test_a_version_older_than_what_latest_names_is_no_version_to_build(scheme, today, latest, backwards):
    newest = latest_with({OURS: latest, "imagewright.tool": "codex"})
    if not backwards:
        refuse_backwards(scheme, today, newest)
        return
    found = raised(Unknown, refuse_backwards, scheme, today, newest)
    detail = f"today's is {today}, `latest` is {latest}"
    assert found.reasons == (Reason(code=reasons.Unknown.VERSION_WENT_BACKWARDS, detail=detail),)


def test_where_latest_cannot_be_read_nobody_knows_whether_it_is_newer():
    unread = Unreachable(reference=REFERENCE, reason=reasons.Unknown.TLS, detail="no")
    found = raised(Unknown, refuse_backwards, "semver", "1.0.0", unread)
    detail = "`latest`, which may be of a newer version, could not be read: no"
    assert found.reasons == (Reason(code=reasons.Unknown.TLS, detail=detail),)


@pytest.mark.parametrize("newest", [None, Missing(reference=REFERENCE, code="MANIFEST_UNKNOWN")])
def test_where_there_is_no_latest_nothing_is_newer(newest):
    refuse_backwards("semver", "1.0.0", newest)


def test_a_squashed_image_names_its_base_in_a_label():
    label = "org.opencontainers.image.base.digest"
    today, before = digest("index"), digest("before")
    base = published(image("a"))
    assert base_label_departure(published(image("x", labels={label: today})), base) == []
    assert base_label_departure(published(image("x"), annotations={label: today}), base) == []
    changed = Reason(code=reasons.Stale.BASE_CHANGED, expected=today, found=before)
    assert base_label_departure(published(image("x", labels={label: before})), base) == [changed]
    mixed = published(image("x", labels={label: today}), image("y", ARM, labels={label: before}))
    assert base_label_departure(mixed, base) == [changed]
    earlier, later = sorted([digest("before"), digest("long before")])
    two = published(image("x", labels={label: later}), image("y", ARM, labels={label: earlier}))
    assert [one.found for one in base_label_departure(two, base)] == [earlier, later]
    silent = raised(NotAsked, base_label_departure, published(image("x")), base)
    assert str(silent) == "a squashed image without the label org.opencontainers.image.base.digest"


def steps(*commands):
    return tuple(HistoryEntry(one.removeprefix("+"), not one.startswith("+")) for one in commands)


def test_a_configuration_departs_with_both_steps_named():
    base = published(image("a", history=steps("+a", "ENV A=2")), image("a", ARM, history=steps("+a", "ENV A=2")))
    mine = published(
        image("ax", history=steps("+a", "ENV A=1", "+x")), image("ax", ARM, history=steps("+a", "ENV A=2", "+x"))
    )
    assert config_departures(mine, base, on=(AMD, ARM)) == [
        Reason(
            code=reasons.Stale.BASE_CONFIG,
            platform="linux/amd64",
            expected="ENV A=2",
            found="ENV A=1",
            detail="step 2 of the base's history is another one",
        )
    ]


def test_long_steps_are_cut():
    base = published(image("a", history=steps("+a", "x" * 999)))
    mine = published(image("a", history=steps("+a", "y" * 999)))
    (reason,) = config_departures(mine, base, on=(AMD,))
    assert (reason.expected, reason.found) == ("x" * 160, "y" * 160)


@pytest.mark.parametrize(
    ("mine", "below"), [(None, steps("+a")), (steps("+a"), None), (steps("ENV"), steps("+a")), (None, None)]
)
def test_without_whole_histories_the_configuration_is_not_asked(mine, below):
    call = raised(
        NotAsked,
        config_departures,
        published(image("a", history=mine)),
        published(image("a", history=below)),
        on=(AMD,),
    )
    assert str(call) == "the histories do not account for every layer"


def test_a_label_that_came_with_the_base_is_not_the_images_own():
    base = published(image("a", labels={"v": "40"}), image("a", ARM))
    mine = published(image("ax", labels={"v": "40"}), image("ax", ARM, labels={"v": "1.2"}), image("ax", RISC))
    assert own_labels(mine, base, "v") == {ARM: "1.2"}
    assert own_labels(published(image("ax", labels={"v": "1"})), base, "v") == {AMD: "1"}
    assert own_labels(published(image("ax", RISC, labels={"v": "1"})), base, "v") == {RISC: "1"}
    assert own_labels(published(image("x", labels={"v": "40"})), None, "v") == {AMD: "40"}
    for without in (published(image("ax", labels={"v": "40"})), published(image("ax"))):
        assert str(raised(NotAsked, own_labels, without, base, "v")) == "the image has no label v of its own"


def test_recipes_are_compared_where_today_has_one_of_the_same_kind():
    today = {"1:buildkit:old": "1:buildkit:new", "1:buildkit:new": "1:buildkit:new", "2:other:x": None}
    published_ones = {AMD: "1:buildkit:old", ARM: "1:buildkit:new", RISC: "2:other:x"}
    assert recipe_departures(published_ones, today) == [
        Reason(
            code=reasons.Stale.RECIPE_CHANGED,
            platform="linux/amd64",
            expected="1:buildkit:new",
            found="1:buildkit:old",
        )
    ]
    assert recipe_departures({ARM: "1:buildkit:new"}, today) == []
    foreign = raised(NotAsked, recipe_departures, {RISC: "2:other:x"}, today)
    assert str(foreign) == "the recipe label is of another scheme or builder family"


ABSENT_BASE = "Its base is an image of this project that is not published yet."
OLD, NEW = f"sha256:{'0123456789abcdef' * 4}", f"sha512:{'fedcba9876543210' * 8}"


def changed(platform="", expected="", found="", detail=""):
    return Reason(code=reasons.Stale.BASE_CHANGED, platform=platform, expected=expected, found=found, detail=detail)


@pytest.mark.parametrize(
    ("found", "texts"),
    [
        ([], []),
        ([LATE], ["timeout: silence"]),
        ([changed()], ["base-changed: The base has been rebuilt since the image was."]),
        ([BEHIND], ["latest-behind: `latest` does not name the current version's digest. (expected a, found b)"]),
        ([changed("linux/arm64", detail="why")], ["base-changed on linux/arm64: why"]),
        (
            [changed("linux/amd64", "a", "b", "why"), changed("linux/arm64", "c", "d", "why")],
            ["base-changed on linux/amd64, linux/arm64: why"],
        ),
        ([changed(detail="one"), changed(detail="two")], ["base-changed: one", "base-changed: two"]),
        ([changed("linux/amd64", detail="w"), changed(detail="w")], ["base-changed on linux/amd64: w"]),
        ([changed(detail="w", expected="a", found="b")], ["base-changed: w (expected a, found b)"]),
        ([changed(detail="w", expected="a")], ["base-changed: w"]),
        ([changed(detail="w", found="b")], ["base-changed: w"]),
        (
            [changed(detail="w", expected=OLD, found=NEW)],
            ["base-changed: w (expected sha256:0123456789ab…, found sha512:fedcba987654…)"],
        ),
        ([changed(detail="w", expected="x:y", found="sha256")], ["base-changed: w (expected x:y, found sha256)"]),
        (
            [changed(detail="w", expected="x" * 101, found="a\nb")],
            [f"base-changed: w (expected {'x' * 100}…, found a\\nb)"],
        ),
        ([Reason(code=reasons.Stale.BASE_MISSING, expected="forest")], [f"base-missing: {ABSENT_BASE} (forest)"]),
        (
            [Reason(code=reasons.Stale.BASE_MISSING, expected=one) for one in ("a", "b")],
            [f"base-missing: {ABSENT_BASE}"],
        ),
        (
            [Reason(code=reasons.Stale.BASE_MISSING, expected=one, found="x") for one in ("a", "b")],
            [f"base-missing: {ABSENT_BASE}"],
        ),
    ],
)
def test_reasons_read_as_a_sentence_a_story(found, texts):
    assert reason_texts(found) == texts
