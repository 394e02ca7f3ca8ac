"""An image is published: the index, every platform's manifest and every configuration can be read."""

from imagewright.catalogue import Target
from imagewright.reasons import Stale as Because
from imagewright.snapshot import Missing, Observation, Unreachable
from imagewright.verdict import Reason, Stale, Unknown, readable_base


def test_exists(target: Target, looked: Observation, base_looked: Observation | None, waits_for: str) -> None:
    """The image of today's version is not there, or not all of it. Build it."""
    if waits_for:
        detail = f"{waits_for} is an image of this project and not published yet"
        raise Stale([Reason(code=Because.BASE_MISSING, expected=waits_for, detail=detail)])
    if base_looked:
        readable_base(target, base_looked)
    match looked:
        case Unreachable(reason=reason, detail=detail):
            raise Unknown([Reason(code=reason, detail=detail)])
        case Missing(reference=reference):
            detail = f"the registry has no {reference.to}"
            raise Stale([Reason(code=Because.IMAGE_MISSING, expected=str(reference), detail=detail)])
        case published if published.gone:
            raise Stale(
                [
                    Reason(code=Because.CHILD_MISSING, platform=str(one.platform), expected=one.digest)
                    for one in published.gone
                ]
            )
