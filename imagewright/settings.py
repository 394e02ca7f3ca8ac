"""Settings as values, with their defaults. Reading them from files and environment is `load`'s."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from imagewright.names import Platform, Repository, is_loopback

Scheme = Literal["semver", "pep440", "calver", "opaque"]
"""How the versions of a tool are ordered."""

SCHEMES: tuple[Scheme, ...] = get_args(Scheme)

DEFAULT_PLATFORMS = (Platform("linux", "amd64"), Platform("linux", "arm64"))


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSettings:
    """What differs for one base. platforms: None means the global list, cut to what the base has."""

    platforms: tuple[Platform, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BasesSettings:
    """Where the bases are. names: given when they are configured instead of discovered."""

    repository: Repository
    discover: bool = True
    names: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    single: Mapping[str, BaseSettings] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSettings:
    """How one registry host is spoken to. second_look: seconds, None for the default (5, on loopback 0).

    per_second: requests, sustained after a burst of 500; on loopback there is no such limit.
    """

    plain_http: bool = False
    anonymous: bool = False
    realms: tuple[str, ...] = ()
    missing_codes: tuple[str, ...] = ("MANIFEST_UNKNOWN",)
    second_look: float | None = None
    connections: int = 32
    per_second: float = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Seconds: to connect, to wait for the next bytes, for a request with all its retries; settle: after a build ended,
    until it may be asked for again.
    """

    connect: float = 5
    read: float = 20
    total: float = 60
    settle: float = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSettings:
    """max_vanished: the brake. hold: what is not to be built now (target, tool or base), with the reason.

    budget, per_hour, in_flight: builds that may be asked of the forge, by one run, within an hour, and at once. workflow,
    ref: what is started there.
    """

    max_vanished: int = 3
    hold: Mapping[str, str] = field(default_factory=dict)
    budget: int = 20
    per_hour: int = 150
    in_flight: int = 20
    workflow: str = "build.yml"
    ref: str = "main"


ForgeKind = Literal["github", "gitea"]
"""What a forge speaks. Forgejo speaks Gitea's."""

FORGES: tuple[ForgeKind, ...] = get_args(ForgeKind)


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgeSettings:
    """Where builds are asked for; inside Actions it says so itself. repository: `owner/name`, empty if it is not set."""

    api: str = "https://api.github.com"
    repository: str = ""
    kind: ForgeKind = "github"


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionsSettings:
    """How versions are read. image: the version-check image, empty for the host only. timeout: seconds for a script.

    host_fallback: whether the host is asked where the image does not answer.
    """

    image: str = ""
    host_fallback: bool = True
    timeout: float = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagesSettings:
    """Where the standalone images are; None where none is published but bases of our own."""

    repository: Repository | None = None
    bootstrap: bool = False


CACHE_KINDS: Mapping[str, tuple[str, ...]] = {"local": ("dir",), "registry": ("ref",), "s3": ("bucket", "region")}
"""The kinds of build cache, and what each has to say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cache:
    """A build cache. attributes: as BuildKit calls them, without the type; of `local` only `dir`. No credentials.

    https://docs.docker.com/build/cache/backends/
    """

    kind: str
    attributes: Mapping[str, str] = field(hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildSettings:
    """How images are built here. parallel: builds at once. sbom: the scanner image, empty for no SBOM attestation."""

    parallel: int = 2
    cache: Cache | None = None
    sbom: str = ""
    provenance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of a project."""

    repository: Repository
    bases: BasesSettings
    platforms: tuple[Platform, ...] = DEFAULT_PLATFORMS
    builder: str = "auto"
    label_prefix: str = "imagewright"
    bootstrap: bool = False
    images: ImagesSettings = field(default_factory=ImagesSettings)
    versions: VersionsSettings = field(default_factory=VersionsSettings)
    build: BuildSettings = field(default_factory=BuildSettings)
    registries: Mapping[str, HostSettings] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    plan: PlanSettings = field(default_factory=PlanSettings)
    forge: ForgeSettings = field(default_factory=ForgeSettings)

    def host(self, name: str) -> HostSettings:
        """How to speak to a host."""
        return self.registries.get(name, HostSettings())

    def may_be_new(self, repository: Repository) -> bool:
        """Whether a repository may not exist yet: then it holds nothing, instead of being unknown."""
        standalone = self.images.bootstrap and repository in (self.images.repository, self.bases.repository)
        return standalone or (self.bootstrap and repository == self.repository)

    def second_look(self, host: str) -> float:
        """Seconds after which a missing image of `host` is asked for again."""
        configured = self.host(host).second_look
        return configured if configured is not None else 0 if is_loopback(host) else 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the environment says about reaching the world; read once, by `cli` and `pytest_plugin`.

    auth_files: where credentials may be, in order of precedence. proxies: as requests takes them. no_proxy: hosts reached
    directly. ca_bundle: a file with trusted authorities, empty for the default. path, home: for credential helpers.
    """

    auth_files: tuple[str, ...] = ()
    proxies: Mapping[str, str] = field(default_factory=dict)
    no_proxy: str = ""
    ca_bundle: str = ""
    path: str = ""
    home: str = ""


def surroundings(environ: Mapping[str, str]) -> Surroundings:
    """The surroundings that an environment describes.

    Order of the credential files: https://github.com/containers/image/blob/main/docs/containers-auth.json.5.md
    """
    home = environ.get("HOME", "")
    configured = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    docker = environ.get("DOCKER_CONFIG") or f"{home}/.docker"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    candidates = [
        environ.get("REGISTRY_AUTH_FILE", ""),
        f"{runtime}/containers/auth.json" if runtime else "",
        f"{configured}/containers/auth.json",
        f"{docker}/config.json",
    ]
    proxies = {}
    for scheme in ("http", "https"):
        address = environ.get(f"{scheme}_proxy") or environ.get(f"{scheme.upper()}_PROXY")
        if address:
            proxies[scheme] = address
    return Surroundings(
        auth_files=tuple(one for one in candidates if one),
        proxies=proxies,
        no_proxy=environ.get("no_proxy") or environ.get("NO_PROXY") or "",
        ca_bundle=environ.get("REQUESTS_CA_BUNDLE") or environ.get("SSL_CERT_FILE") or "",
        path=environ.get("PATH", ""),
        home=home,
    )
