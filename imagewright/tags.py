"""What tags say: which bases a list of tags names, and which of two versions is the newer one. Without I/O."""

import re
from collections.abc import Iterable

from packaging.version import InvalidVersion, Version

from imagewright.names import BadName, parse_folder_name
from imagewright.settings import Scheme

_ARCHITECTURES = ("amd64", "arm64", "arm64-v8", "arm", "arm-v6", "arm-v7", "386", "ppc64le", "riscv64", "s390x")
_SIGNATURE = re.compile(r"sha256-[0-9a-f]{64}")


def bases_in(tags: Iterable[str]) -> tuple[str, ...]:
    """The bases that a repository's tags name: `<base>-latest`, an architecture's tag folded into its base, in order.

    `sha256-…` tags belong to signatures. Names that cannot be a base's are left out.
    """
    listed = set(tags)
    found = set()
    for tag in listed:
        name = tag.removesuffix("-latest")
        if name == tag or _SIGNATURE.match(tag):
            continue
        folded = next((name.removesuffix(f"-{one}") for one in _ARCHITECTURES if name.endswith(f"-{one}")), name)
        try:
            found.add(parse_folder_name(folded))
        except BadName:
            continue
    return tuple(sorted(found))


def compare(scheme: Scheme, one: str, other: str) -> int | None:
    """Negative, 0 or positive as `one` is older than, equal to or newer than `other`; None where nobody can say.

    semver: strictly by https://semver.org, else as packaging orders them; a leading `v` does not count. pep440 and
    calver: as packaging does. opaque: only equality is known.

    What stands behind a `-` is older to semver and may be newer to packaging, so the two are never mixed over it.
    """
    if one == other:
        return 0
    if scheme == "opaque":
        return None
    if scheme == "semver":
        left, right = _semver(one), _semver(other)
        if left is not None and right is not None:
            return (left > right) - (left < right)
        if "-" in one + other:
            return None
    try:
        a, b = Version(one), Version(other)
    except InvalidVersion:
        return None
    return (a > b) - (a < b)


_NUMBER = r"(0|[1-9][0-9]*)"
_IDENTIFIER = r"(?:0|[1-9][0-9]*|[0-9]*[A-Za-z-][0-9A-Za-z-]*)"
_SEMVER = re.compile(rf"v?{_NUMBER}\.{_NUMBER}\.{_NUMBER}(?:-({_IDENTIFIER}(?:\.{_IDENTIFIER})*))?\Z")


def _semver(text: str) -> tuple[object, ...] | None:
    """A key that orders as section 11 of https://semver.org/spec/v2.0.0.html does."""
    matched = _SEMVER.match(text)
    if not matched:
        return None
    core = tuple(int(part) for part in matched.groups()[:3])
    if matched[4] is None:
        return (core, 1, ())
    identifiers = tuple((0, int(part), "") if part.isdecimal() else (1, 0, part) for part in matched[4].split("."))
    return (core, 0, identifiers)
