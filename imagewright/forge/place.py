"""Where the forge is, and who we are there. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from imagewright.errors import Failed
from imagewright.settings import ForgeKind, ForgeSettings

GITHUB = "api.github.com"
OWN_TOKEN = "IMAGEWRIGHT_FORGE_TOKEN"
NAME_IT = 'Set `repository = "owner/name"` in [tool.imagewright.forge].'


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a forge is. api: without a slash at its end. repository: empty where nobody says which.

    variables: of the environment, any of which may hold the token; the first one that does counts.
    """

    api: str
    repository: str
    kind: ForgeKind
    variables: tuple[str, ...]

    def variable(self, environ: Mapping[str, str]) -> str:
        """The name of the variable that holds the token; empty for none."""
        return next((name for name in self.variables if environ.get(name)), "")


def address_of(settings: ForgeSettings, environ: Mapping[str, str]) -> Address:
    """The forge that Actions says it is, or else the settings'.

    `GH_TOKEN` and `GITHUB_TOKEN` are for github.com, or inside Actions for the forge that it is.
    https://docs.github.com/en/actions/reference/workflows-and-actions/variables
    """
    inside = environ.get("GITHUB_ACTIONS") == "true" and "GITHUB_API_URL" in environ
    api, repository, kind = settings.api, settings.repository, settings.kind
    if inside:
        api, repository = environ["GITHUB_API_URL"].rstrip("/"), environ.get("GITHUB_REPOSITORY", "")
        kind = "gitea" if {"GITEA_ACTIONS", "FORGEJO_ACTIONS"} & environ.keys() else "github"
    names = (OWN_TOKEN, "GH_TOKEN", "GITHUB_TOKEN") if inside or urlsplit(api).netloc == GITHUB else (OWN_TOKEN,)
    return Address(api=api, repository=repository, kind=kind, variables=names)


def place_of(settings: ForgeSettings, environ: Mapping[str, str]) -> Place:
    """The forge, and who we are there. `Failed` where there is no repository, or no token."""
    found = address_of(settings, environ)
    if not found.repository:
        raise Failed("nobody says where the builds are to be asked for", remedy=NAME_IT)
    variable = found.variable(environ)
    if not variable:
        raise Failed(
            f"there is no token for {found.api}",
            remedy=f"Set {' or '.join(found.variables)}; it needs `actions: write`.",
        )
    return Place(api=found.api, repository=found.repository, kind=found.kind, token=environ[variable])
