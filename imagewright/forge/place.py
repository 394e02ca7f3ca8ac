"""Where the forge is, and who we are there. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from imagewright.errors import Failed
from imagewright.settings import ForgeKind, ForgeSettings

GITHUB = "api.github.com"
OWN_TOKEN = "IMAGEWRIGHT_FORGE_TOKEN"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A repository on a forge. api: without a slash at its end. token: for this API and no other; it is never shown."""

    api: str
    repository: str
    kind: ForgeKind
    token: str = field(repr=False)

    @property
    def host(self) -> str:
        """`host[:port]` of the API."""
        return urlsplit(self.api).netloc


def place_of(settings: ForgeSettings, environ: Mapping[str, str]) -> Place:
    """The forge that Actions says it is, or else the settings'. `Failed` where there is no repository, or no token.

    `GH_TOKEN` and `GITHUB_TOKEN` are for github.com, or inside Actions for the forge that it is.
    https://docs.github.com/en/actions/reference/workflows-and-actions/variables
    """
    inside = environ.get("GITHUB_ACTIONS") == "true" and "GITHUB_API_URL" in environ
    api, repository, kind = settings.api, settings.repository, settings.kind
    if inside:
        api, repository = environ["GITHUB_API_URL"].rstrip("/"), environ.get("GITHUB_REPOSITORY", "")
        kind = "gitea" if {"GITEA_ACTIONS", "FORGEJO_ACTIONS"} & environ.keys() else "github"
    if not repository:
        raise Failed(
            "nobody says where the builds are to be asked for",
            remedy='Set `repository = "owner/name"` in [tool.imagewright.forge].',
        )
    names = (OWN_TOKEN, "GH_TOKEN", "GITHUB_TOKEN") if inside or urlsplit(api).netloc == GITHUB else (OWN_TOKEN,)
    token = next((environ[name] for name in names if environ.get(name)), "")
    if not token:
        raise Failed(f"there is no token for {api}", remedy=f"Set {' or '.join(names)}; it needs `actions: write`.")
    return Place(api=api, repository=repository, kind=kind, token=token)
