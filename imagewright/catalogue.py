"""What is published: tools, bases, and the pairs they make. Values only; `load` reads them from files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagewright.errors import BadCatalogue
from imagewright.names import MAX_TAG, BadName, Platform, Reference, Repository, parse_tag
from imagewright.settings import Scheme, Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A folder in `tools/`: what is installed, on every base.

    folder: where it is. dockerfile: its own or the shared one, None where a tool only has `rootfs/`. exclude_bases: base
    → why. platforms: None means the global list.
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
    exclude_bases: Mapping[str, str] = field(default_factory=dict, hash=False)
    platforms: tuple[Platform, ...] | None = None
    redistributable: bool = True
    check_base_config: bool = True
    squashed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Base:
    """An image that others are built on. platforms: None unless the settings name some for this base."""

    name: str
    reference: Reference
    platforms: tuple[Platform, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One tool on one base: the first kind of target. Its key is `<tool>-<base>`."""

    tool: Tool
    base: Base
    repository: Repository
    declared: tuple[Platform, ...]

    @property
    def key(self) -> str:
        """The identity of the target, everywhere."""
        return f"{self.tool.name}-{self.base.name}"

    def tagged(self, version: str) -> Reference:
        """The reference of one version, or of `latest` or `dev`."""
        return self.repository.tagged(parse_tag(f"{self.key}-{version}"))

    def required(self, offered: Iterable[Platform]) -> tuple[Platform, ...]:
        """The platforms that must be published: the declared ones that the base offers, in declared order."""
        available = {one.normalised() for one in offered}
        return tuple(one for one in self.declared if one in available)

    def named(self) -> tuple[Platform, ...]:
        """Platforms named for this very base or tool: one that the base lacks is a question, not a smaller target."""
        return self.tool.platforms or self.base.platforms or ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Excluded:
    """A pair that is not published, and why."""

    key: str
    because: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All that a project says it publishes. hash: over settings and every file of `tools/`."""

    root: Path
    settings: Settings
    tools: tuple[Tool, ...]
    hash: str

    def tool(self, name: str) -> Tool | None:
        """The tool of that name."""
        return next((one for one in self.tools if one.name == name), None)

    def base(self, name: str) -> Base:
        """The base of that name, published or not."""
        single = self.settings.bases.single.get(name)
        return Base(
            name=name,
            reference=self.settings.bases.repository.tagged(parse_tag(f"{name}-latest")),
            platforms=single.platforms if single else None,
        )

    def pairs(self, bases: Sequence[str]) -> tuple[tuple[Pair, ...], tuple[Excluded, ...]]:
        """Every tool on every base, in order, and the excluded ones with the reason.

        `BadCatalogue` where two pairs have one key (`a-b` on `c`, `a` on `b-c`) or a name makes an illegal tag.
        """
        pairs, excluded = [], []
        for tool in self.tools:
            for name in bases:
                pair = self._pair(tool, self.base(name))
                if not tool.redistributable:
                    excluded.append(Excluded(key=pair.key, because="may not be redistributed"))
                elif name in tool.exclude_bases:
                    excluded.append(Excluded(key=pair.key, because=tool.exclude_bases[name]))
                else:
                    pairs.append(pair)
        refuse_collisions((pair, "latest") for pair in pairs)
        return tuple(pairs), tuple(excluded)

    def pair(self, tool: Tool, base: str) -> Pair:
        """One tool on one base, published or not."""
        return self._pair(tool, self.base(base))

    def _pair(self, tool: Tool, base: Base) -> Pair:
        declared = tool.platforms or base.platforms or self.settings.platforms
        return Pair(tool=tool, base=base, repository=self.settings.repository, declared=declared)


def refuse_collisions(versioned: Iterable[tuple[Pair, str]]) -> None:
    """`BadCatalogue` where a composed tag is illegal or two pairs claim it; all such cases at once."""
    owners: dict[str, Pair] = {}
    problems = []
    for pair, version in versioned:
        for suffix in dict.fromkeys((version, "latest")):
            try:
                tag = pair.tagged(suffix).to
            except BadName as error:
                problems.append(f"{pair.tool.folder}: on base {pair.base.name}: {error} (at most {MAX_TAG} characters)")
                continue
            owner = owners.setdefault(tag, pair)
            if owner is not pair:
                problems.append(
                    f"{pair.tool.folder} on base {pair.base.name} and {owner.tool.folder} on base {owner.base.name} "
                    f"both make the tag {tag}"
                )
    if problems:
        raise BadCatalogue(
            "\n".join(dict.fromkeys(problems)), remedy="Rename one of the tools, or exclude the base in its tool.yaml."
        )
