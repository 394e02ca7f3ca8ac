"""What the project's own version control says: the time, place and commit that images name."""

import re
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

from imagewright import process
from imagewright.cli import Place
from imagewright.errors import Usage

_SECONDS = 20.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """epoch: seconds since 1970. url, revision: empty where nobody knows."""

    epoch: int
    url: str = ""
    revision: str = ""


def source_of(place: Place) -> Source:
    """`SOURCE_DATE_EPOCH`, else the commit's time, else 0: the same input then gives the same image.

    https://reproducible-builds.org/docs/source-date-epoch/
    """
    stated = place.environ.get("SOURCE_DATE_EPOCH", "")
    if stated and not stated.isdecimal():
        raise Usage(f"SOURCE_DATE_EPOCH is '{stated}', not a number of seconds", remedy="Mend it, or unset it.")
    said = _git(place, "log", "-1", "--format=%ct %H").split()
    epoch = int(stated or (said[0] if said else 0))
    if not said:
        return Source(epoch=epoch)
    return Source(epoch=epoch, revision=said[1], url=_public(_git(place, "config", "--get", "remote.origin.url")))


def _git(place: Place, *arguments: str) -> str:
    try:
        ended = process.run(["git", *arguments], timeout=_SECONDS, env=place.environ, cwd=place.root)
    except process.NotStarted:  # git is not needed
        return ""
    return ended.stdout.decode("utf-8", "replace").strip() if ended.status == 0 else ""


def _public(remote: str) -> str:
    """A remote as a web address, without the login that may stand in it; empty for what is none."""
    if shell := re.fullmatch(r"[^@/]+@([^:/]+):(.+)", remote):
        return f"https://{shell[1]}/{shell[2].removesuffix('.git')}"
    parts = urlsplit(remote)
    if parts.scheme not in ("http", "https", "ssh") or not parts.hostname:
        return ""
    return urlunsplit(("https", parts.hostname, parts.path.removesuffix(".git"), "", ""))
