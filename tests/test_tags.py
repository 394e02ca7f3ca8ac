"""What tags say: the bases in a list of tags, and which of two versions is newer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imagewright.settings import SCHEMES
from imagewright.tags import bases_in, compare

SIGNATURE = "sha256-" + "a" * 64


@pytest.mark.parametrize(
    ("tags", "bases"),
    [
        ([], ()),
        (["fedora-latest", "alpine-latest"], ("alpine", "fedora")),
        (["fedora-amd64-latest", "fedora-arm64-latest", "fedora-latest"], ("fedora",)),
        (["arch-amd64-latest"], ("arch",)),
        (["pi-arm-v7-latest", "old-arm64-v8-latest", "z-s390x-latest"], ("old", "pi", "z")),
        (["a-arm-latest", "b-arm-v6-latest", "c-386-latest"], ("a", "b", "c")),
        (["a-ppc64le-latest", "b-riscv64-latest"], ("a", "b")),
        (["latest", "fedora", "fedora-1.2.3", "fedora-latest-2"], ()),
        ([SIGNATURE, f"{SIGNATURE}.sig", f"{SIGNATURE}-latest"], ()),
        ([f"sha256-{'05af9bd1' * 8}-latest", f"sha256-{'3c27e684' * 8}-latest"], ()),
        ([f"sha256-{'a' * 63}-latest"], (f"sha256-{'a' * 63}",)),
        ([f"x-{SIGNATURE}-latest"], (f"x-{SIGNATURE}",)),
        ([f"{kind}{at}-latest" for kind in "aA" for at in range(9)], tuple(f"a{at}" for at in range(9))),
        ([f"a{at}-{end}" for end in ("latest", "1") for at in range(9)], tuple(f"a{at}" for at in range(9))),
        (["-latest", "Foo-latest", "a--b-latest", "_x-latest"], ()),
        (["node-lts-slim-latest", "arm-latest", "amd64-latest"], ("amd64", "arm", "node-lts-slim")),
    ],
)
def test_bases_are_what_stands_before_latest_without_an_architecture(tags, bases):
    assert bases_in(tags) == bases


@given(st.lists(st.sampled_from(["a-latest", "a-amd64-latest", "b-latest", "c-1", "Z-latest", SIGNATURE])))
def test_neither_order_nor_repetition_of_tags_counts(tags):
    assert bases_in(tags) == bases_in(sorted(tags) * 2) == bases_in(reversed(tags))


SEMVER = ["1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-beta", "1.0.0-beta.2", "1.0.0-beta.11"]
SEMVER += ["1.0.0-rc.1", "1.0.0", "1.0.1-0", "1.0.1", "1.9.0", "1.10.0", "2.0.0-x-y", "2.0.0"]


def test_semver_orders_as_the_specification_lists_it():
    for at, one in enumerate(SEMVER):
        for other_at, other in enumerate(SEMVER):
            assert compare("semver", one, other) == (at > other_at) - (at < other_at), (one, other)


@pytest.mark.parametrize(
    ("scheme", "one", "other", "answer"),
    [
        ("semver", "v1.2.3", "1.2.3", 0),
        ("semver", "v1.2.3", "v1.2.4", -1),
        ("semver", "1.2.3-1", "1.2.3", -1),
        ("pep440", "1.2.3-1", "1.2.3", 1),
        ("semver", "1.2", "1.10", -1),
        ("semver", "1.0.0-a..b", "1.0.0", None),
        ("semver", "1.0.0-01", "1.0.0", None),
        ("semver", "1.0.0-1", "1.0", None),
        ("semver", "nightly-1", "1.0.0", None),
        ("pep440", "1.0rc1", "1.0", -1),
        ("pep440", "1.0.post1", "1.0", 1),
        ("pep440", "1.0.dev1", "1.0a1", -1),
        ("pep440", "1.0", "1.0.0", 0),
        ("pep440", "1.0-abc.x", "1.0", None),
        ("calver", "2025.09", "2025.9", 0),
        ("calver", "2025.10", "2025.9", 1),
        ("calver", "20251231", "20260101", -1),
        ("calver", "2025-09-01", "2025-10-01", None),
        ("opaque", "abc1", "abc1", 0),
        ("opaque", "2.0.0", "1.0.0", None),
        ("semver", "latest1", "latest1", 0),
    ],
)
def test_two_versions_compare_by_the_scheme_of_their_tool(scheme, one, other, answer):
    assert compare(scheme, one, other) == answer


SMALLEST = "0.0.0-0"
"""Of all versions that semver knows. What stands behind its `-` is not compared with what semver does not know."""


@pytest.mark.parametrize(
    "text",
    [
        *("0.0.1", "15.25.35", "10.20.30", "199.288.377", "v1.2.3"),
        *("1.0.0-0", "1.0.0-9", "1.0.0-10", "1.0.0-159", "1.0.0-a", "1.0.0-M", "1.0.0-aMzZ", "1.0.0--"),
        *("1.0.0-x-y-z.-", "1.0.0-SNAPSHOT-123", "1.0.0-alpha0.valid", "1.0.0-0A.is.legal", "1.0.0-159x.0"),
        *("1.0.0-0.3.7", "1.0.0-x.7.z.92", "1.0.0-a059", "1.0.0-a.b-c-somethinglong"),
    ],
)
def test_semver_knows_a_version(text):
    assert compare("semver", text, SMALLEST) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "1", "1.2", "1.2.3.4", "alpha", "-1.2.3", " 1.2.3", "1.2.3\n", "V1.2.3", "vv1.2.3", "v"),
        *("01.2.3", "1.02.3", "1.2.03", "00.0.0", "1x2.3", "1.2x3", "1..3", "1.2.3-", "1.2.3-a.", "1.2.3-.a"),
        *(
            "1.2.3-01",
            "1.2.3-00",
            "1.2.3-a.01",
            "1.2.3-a_b",
            "1.2.3-a..b",
            "1.2.3-a/b",
            "1.2.3-é",
            "1.2.3-a\n",
            "1.2.3+b",
        ),
    ],
)
def test_semver_does_not_know_a_version(text):
    assert compare("semver", text, SMALLEST) is None


versions = st.from_regex(r"v?[0-9]{1,2}(\.[0-9]{1,2}){0,2}(-?[a-z0-9]{1,3}(\.[0-9])?)?", fullmatch=True)


@given(st.sampled_from(SCHEMES), versions, versions)
def test_what_is_newer_one_way_is_older_the_other_way(scheme, one, other):
    there, back = compare(scheme, one, other), compare(scheme, other, one)
    assert there == (None if back is None else -back)


@given(st.sampled_from(SCHEMES), versions)
def test_a_version_equals_itself(scheme, one):
    assert compare(scheme, one, one) == 0


@given(st.sampled_from(SCHEMES), versions, versions, versions)
def test_versions_that_can_be_compared_make_one_order(scheme, a, b, c):
    ab, bc, ac = compare(scheme, a, b), compare(scheme, b, c), compare(scheme, a, c)
    if ab is not None and bc is not None and ac is not None and ab <= 0 and bc <= 0:
        assert ac <= 0
