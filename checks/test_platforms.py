"""An image is published for every platform that is declared for it and that its base has."""

from collections.abc import Sequence

from imagewright.names import Platform
from imagewright.reasons import Stale as Because
from imagewright.snapshot import Published
from imagewright.verdict import Reason, Stale


def test_platforms(observed: Published, required: Sequence[Platform]) -> None:
    """Users of a platform cannot pull the image. Build it for all of them."""
    absent = [one for one in required if one not in observed.platforms]
    if absent and not observed.is_index and len(required) > 1:
        wanted = ", ".join(str(one) for one in required)
        raise Stale([Reason(code=Because.NOT_MULTIARCH, expected=wanted, found=observed.media_type)])
    if absent:
        raise Stale([Reason(code=Because.PLATFORM_MISSING, platform=str(one)) for one in absent])
