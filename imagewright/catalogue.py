"""What is published: tools, bases, the pairs they make, and standalone images. Values only; `load` reads them from files."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagewright.errors import BadCatalogue
from imagewright.names import MAX_TAG, BadName, Platform, Reference, Repository, parse_tag
from imagewright.settings import Scheme, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A folder that images are built from: a tool's, or a standalone image's.

    folder: where it is. dockerfile: its own or a shared one, None where there is only `rootfs/`. command: what proves that
    the image works. platforms: None means the global list.
    """

    name: str
    folder: Path
    dockerfile: Path | None = None
    title: str = ""
    homepage: str = ""
    description: str = ""
    licenses: str = ""
    command: str = ""
    version_scheme: Scheme = "semver"
    platforms: tuple[Platform, ...] | None = None
    redistributable: bool = True
    check_base_config: bool = True
    squashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool(Source):
    """A folder in `tools/`: what is installed, on every base. exclude_bases: base → why."""

    exclude_bases: Mapping[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Image(Source):
    """A folder in `images/`: an image that stands alone, or that pairs are built on.

    version: as `image.yml` says, or the project's. parent: what its Dockerfile's last stage starts from, None for scratch.
    stands_for: the words there that a digest of the parent takes the place of; empty where BASE_IMAGE names it.
    """

    version: str
    parent: Reference | None
    stands_for: str = ""
    is_base: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An image that others are built on. name: for standalone images, which name their base themselves, its reference.

    platforms: None unless the settings name some for this base.
    """

    name: str
    reference: Reference
    platforms: tuple[Platform, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Target(ABC):
    """What all targets have. declared: the platforms it is for, as far as its base has them."""

    repository: Repository
    declared: tuple[Platform, ...]

    @property
    @abstractmethod
    def key(self) -> str:
        """The identity of the target, everywhere."""

    def tagged(self, version: str) -> Reference:
        """The reference of one version, or of `latest` or `dev`."""
        return self.repository.tagged(parse_tag(f"{self.key}-{version}"))

    def required(self, offered: Iterable[Platform]) -> tuple[Platform, ...]:
        """The platforms that must be published: the declared ones that the base offers, in declared order."""
        available = {one.normalised() for one in offered}
        return tuple(one for one in self.declared if one in available)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair(_Target):
    """One tool on one base. Its key is `<tool>-<base>`."""

    tool: Tool
    base: Base

    @property
    def source(self) -> Tool:
        """The tool."""
        return self.tool

    @property
    def key(self) -> str:
        """The identity of the target, everywhere."""
        return f"{self.tool.name}-{self.base.name}"

    def named(self) -> tuple[Platform, ...]:
        """Platforms named for this very tool or base."""
        return self.tool.platforms or self.base.platforms or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Standalone(_Target):
    """A standalone image. Its key is its name."""

    image: Image

    @property
    def source(self) -> Image:
        """The image's folder."""
        return self.image

    @property
    def base(self) -> Base | None:
        """What its Dockerfile starts from; None for scratch."""
        parent = self.image.parent
        return Base(name=str(parent), reference=parent) if parent else None

    @property
    def key(self) -> str:
        """The identity of the target, everywhere."""
        return self.image.name

    def named(self) -> tuple[Platform, ...]:
        """Platforms that its image.yml names."""
        return self.image.platforms or ()


def repositories_of(target: Pair | Standalone) -> tuple[Repository, ...]:
    """Where a target and its base are."""
    return (target.repository, *([target.base.reference.repository] if target.base else []))


Target = Pair | Standalone
"""Anything that gets built and published. `source` is what it is built from, `base` what it is built on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A pair that is not published, and why."""

    key: str
    tool: str
    base: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All that a project says it publishes. hash: over settings and every file of `tools/` and `images/`."""

    root: Path
    settings: Settings
    tools: tuple[Tool, ...]
    images: tuple[Image, ...] = ()
    hash: str

    def tool(self, name: str) -> Tool | None:
        """The tool of that name."""
        return next((one for one in self.tools if one.name == name), None)

    def image(self, name: str) -> Image | None:
        """The standalone image of that name."""
        return next((one for one in self.images if one.name == name), None)

    def base(self, name: str) -> Base:
        """The base of that name, published or not."""
        single = self.settings.bases.single.get(name)
        return Base(
            name=name,
            reference=self.settings.bases.repository.tagged(parse_tag(f"{name}-latest")),
            platforms=single.platforms if single else None,
        )

    def own_bases(self) -> tuple[str, ...]:
        """The bases that are images of this project."""
        return tuple(one.name for one in self.images if one.is_base)

    def targets(self, bases: Sequence[str]) -> tuple[tuple[Target, ...], tuple[Excluded, ...]]:
        """Every standalone image and every tool on every base, in order, and the excluded pairs with the reason.

        `BadCatalogue` where two targets have one key (`a-b` on `c`, `a` on `b-c`) or a name makes an illegal tag.
        """
        targets: list[Target] = [self.standalone(image) for image in self.images]
        excluded = []
        for tool in self.tools:
            for name in bases:
                pair = self.pair(tool, name)
                why = "may not be redistributed" if not tool.redistributable else tool.exclude_bases.get(name)
                if why:
                    excluded.append(Excluded(key=pair.key, tool=tool.name, base=name, because=why))
                else:
                    targets.append(pair)
        refuse_collisions((target, "latest") for target in targets)
        return tuple(targets), tuple(excluded)

    def pair(self, tool: Tool, base: str) -> Pair:
        """One tool on one base, published or not."""
        on = self.base(base)
        declared = tool.platforms or on.platforms or self.settings.platforms
        return Pair(tool=tool, base=on, repository=self.settings.repository, declared=declared)

    def standalone(self, image: Image) -> Standalone:
        """The target that a standalone image is: among the bases if pairs are built on it."""
        repository = self.settings.bases.repository if image.is_base else self.settings.images.repository
        assert repository, "the catalogue was not loaded without"
        return Standalone(image=image, repository=repository, declared=image.platforms or self.settings.platforms)

    def find(self, key: str) -> Target | None:
        """The target of that key, whatever bases there are: an image, or the tool with the longest fitting name.

        `BadName` where what is left of the key can be no base.
        """
        if image := self.image(key):
            return self.standalone(image)
        fitting = [tool for tool in self.tools if key.startswith(f"{tool.name}-")]
        if not fitting:
            return None
        tool = max(fitting, key=lambda one: len(one.name))
        return self.pair(tool, key.removeprefix(f"{tool.name}-"))

    def waits_for(self, target: Target) -> str:
        """The key of the target of this project that another one is built on; empty if it is none of ours."""
        if target.base is None:
            return ""
        return next((one.name for one in self.images if self._is_latest_of(one, target.base.reference)), "")

    def _is_latest_of(self, image: Image, reference: Reference) -> bool:
        return self.standalone(image).tagged("latest") == reference


def refuse_collisions(versioned: Iterable[tuple[Target, str]]) -> None:
    """`BadCatalogue` where a composed tag is illegal, or two targets claim a tag or a key; all such cases at once."""
    owners: dict[str, Target] = {}
    problems = []
    for target, version in versioned:
        claims = [(f"{target.key}", f"both are the target {target.key}")]
        for suffix in dict.fromkeys((version, "latest")):
            try:
                tagged = target.tagged(suffix)
            except BadName as error:
                problems.append(f"{_told(target)}: {error} (at most {MAX_TAG} characters)")
            else:
                claims.append((str(tagged), f"both make the tag {tagged.to}"))
        for claim, what in claims:
            if (owner := owners.setdefault(claim, target)) is not target:
                problems.append(f"{_told(target)} and {_told(owner)} {what}")
                break
    if problems:
        raise BadCatalogue(
            "\n".join(dict.fromkeys(problems)), remedy="Rename one of them, or exclude the base in the tool.yaml."
        )


def _told(target: Target) -> str:
    return (
        f"{target.source.folder} on base {target.base.name}" if isinstance(target, Pair) else str(target.image.folder)
    )
