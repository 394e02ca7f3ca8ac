"""`latest` of an image names the same image as the tag of today's version."""

from imagewright.reasons import Stale as Because
from imagewright.snapshot import Missing, Pointer, PointerObservation, Published, Unreachable
from imagewright.verdict import Reason, Stale, Unknown


def test_latest(observed: Published, latest: PointerObservation) -> None:
    """Users of `latest` get another image than users of the version. Move the tag."""
    match latest:
        case Unreachable(reason=reason, detail=detail):
            raise Unknown([Reason(code=reason, detail=f"`latest`: {detail}")])
        case Missing():
            raise Stale([Reason(code=Because.LATEST_BEHIND, expected=observed.digest, found="no such tag")])
        case Pointer(digest=digest) if digest != observed.digest:
            raise Stale([Reason(code=Because.LATEST_BEHIND, expected=observed.digest, found=digest)])
