"""An image holds the version that its tag promises, as far as its label tells."""

from imagewright.reasons import Stale as Because
from imagewright.snapshot import Published
from imagewright.verdict import VERSION_LABEL, Reason, Stale, own_labels


def test_version_label(version: str, observed: Published, below: Published | None) -> None:
    """The tag names one version and the image another. Build it again."""
    labels = own_labels(observed, below, VERSION_LABEL)
    wrong = [
        Reason(code=Because.VERSION_LABEL, platform=str(platform), expected=version, found=label)
        for platform, label in labels.items()
        if label != version
    ]
    if wrong:
        raise Stale(wrong)
