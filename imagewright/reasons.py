"""Why a target is not fresh: every reason code, with what it means and what helps. The only list of them.

`docs/reasons.md` has a section per code; a test compares the two.
"""

from enum import Enum


class _Code(Enum):
    """value: (code as printed and recorded, one sentence for a person, the remedy)."""

    def __init__(self, code: str, meaning: str, remedy: str) -> None:
        self.code = code
        self.meaning = meaning
        self.remedy = remedy

    def __str__(self) -> str:
        return self.code


class Stale(_Code):
    """Something was verified to be wrong that a build (or moving `latest`) cures."""

    IMAGE_MISSING = ("image-missing", "The image of this version was never published.", "Build it.")
    CHILD_MISSING = ("child-missing", "The index names content that the registry no longer has.", "Build it again.")
    PLATFORM_MISSING = ("platform-missing", "A required platform is not in the index.", "Build it for all platforms.")
    NOT_MULTIARCH = ("not-multiarch", "One manifest stands where an index is required.", "Build it for all platforms.")
    BASE_CHANGED = ("base-changed", "The base has been rebuilt since the image was.", "Build it on today's base.")
    BASE_MISSING = (
        "base-missing",
        "Its base is an image of this project that is not published yet.",
        "Build the base first; this one waits for it.",
    )
    BASE_LAYERS_MISSING = ("base-layers-missing", "The image has no layers at all.", "Build it on today's base.")
    NO_OWN_LAYERS = ("no-own-layers", "The image is its base: the tool is not in it.", "Build it again.")
    BASE_CONFIG = ("base-config", "The base's configuration has changed since.", "Build it on today's base.")
    VERSION_LABEL = ("version-label", "The version label and the tag disagree.", "Build it again.")
    RECIPE_CHANGED = ("recipe-changed", "The recipe has changed since the image was built.", "Build it again.")
    LATEST_BEHIND = ("latest-behind", "`latest` does not name the current version's digest.", "Move the tag.")


class Unknown(_Code):
    """The question could not be answered; nothing follows, and it is never green."""

    AUTH = ("auth", "The registry did not let us read.", "Check the login, and `bootstrap` for a new repository.")
    NETWORK = ("network", "The host could not be reached.", "Look again when the connection works.")
    TIMEOUT = ("timeout", "The host did not answer in time.", "Look again later.")
    TLS = ("tls", "The connection is not trustworthy.", "Mend the certificate, or the trust in its authority.")
    REGISTRY_UNAVAILABLE = ("registry-unavailable", "The registry is overloaded or broken.", "Look again later.")
    HOST_DOWN = ("host-down", "The host failed too often in this run to be asked on.", "Look again later.")
    REDIRECT = ("redirect", "The registry sends us where we do not go.", "Check the registry's address.")
    UNEXPECTED_STATUS = ("unexpected-status", "The answer means nothing to us.", "Check the registry's address.")
    NOT_A_REGISTRY_ANSWER = (
        "not-a-registry-answer",
        "Something that is not a registry said no.",
        "Check the address, and proxies on the way.",
    )
    GARBAGE = ("garbage", "The answer is not a registry's document.", "Check the address, and proxies on the way.")
    MALFORMED = (
        "malformed",
        "The document breaks its specification.",
        "Look at it; publish the image again if it is yours.",
    )
    TYPE_CONFUSION = ("type-confusion", "The document can be read in two ways.", "Publish the image again.")
    UNSUPPORTED_SCHEMA1 = ("unsupported-schema1", "The manifest is in Docker's first format.", "Publish it anew.")
    BAD_DIGEST = ("bad-digest", "A digest is not one.", "Publish the image again.")
    INTEGRITY = ("integrity", "The bytes are not what their digest says.", "Look at caches and mirrors on the way.")
    TOO_LARGE = ("too-large", "The document is larger than any real one.", "Look at what is published there.")
    TOO_DEEP = ("too-deep", "Indexes within indexes, too deep.", "Publish the image with one index.")
    LISTED_BUT_MISSING = (
        "listed-but-missing",
        "The registry lists the tag and denies it has it.",
        "Look again later; the registry disagrees with itself.",
    )
    REPOSITORY_UNKNOWN = (
        "repository-unknown",
        "The registry does not know the repository.",
        "Check its name; for a first publication set `bootstrap = true`.",
    )
    REPOSITORY_VANISHED = (
        "repository-vanished",
        "The repository had images and has none any more.",
        "Find out what happened to it; delete .imagewright/last-good.json if it was meant to.",
    )
    CANARY_FAILED = ("canary-failed", "The registry denies what it has, or has what cannot be.", "Look again later.")
    BASES_UNKNOWN = ("bases-unknown", "The bases could not be listed, so there are no pairs.", "Look again later.")
    BASE_UNREADABLE = ("base-unreadable", "The base could not be read.", "Mend or wait for the base.")
    BASE_EMPTY = ("base-empty", "The base has no layers, so nothing can be compared.", "Mend the base.")
    BASE_PLATFORM_MISSING = (
        "base-platform-missing",
        "A platform that is named for the base or tool is not in the base.",
        "Mend the base, or the platforms in the settings.",
    )
    VERSION_FAILED = ("version-failed", "`version.sh` did not succeed.", "Run it by hand.")
    VERSION_TIMEOUT = ("version-timeout", "`version.sh` did not end in time.", "Run it by hand.")
    VERSION_WENT_BACKWARDS = (
        "version-went-backwards",
        "`version.sh` says an older version than the one that `latest` names.",
        "Run it by hand; if the older version is right, give it with --tool-version.",
    )
    VERSION_FORMAT = ("version-format", "`version.sh` printed no version.", "Make it print one line, a version.")
    WORKER_CRASH = ("worker-crash", "The process that looked has died.", "Run the checks again.")
    NOT_RECORDED = (
        "not-recorded",
        "The recorded observations do not hold the target.",
        "Run the checks without --snapshot.",
    )
    CHECK_FAILED = ("check-failed", "A check itself is broken.", "Mend the check; its traceback is in the output.")


CODES: dict[str, Stale | Unknown] = {one.code: one for kind in (Stale, Unknown) for one in kind}
"""Every reason by its code."""
