"""A small project whose registry can have vices: looked at as a run of the checks looks, in this process, and judged."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from imagewright.cache import Cache
from imagewright.catalogue import Catalogue, Target, Tool
from imagewright.names import Digest, Repository
from imagewright.registry.client import Client
from imagewright.settings import BasesSettings, HostSettings, Limits, Settings, Surroundings, VersionsSettings
from imagewright.snapshot import Reading, Snapshot
from imagewright.survey import Request, survey
from imagewright.testing.images import Picture, Sink, layer, push
from imagewright.testing.registry import Registry
from imagewright.verdict import Verdict
from imagewright.versions import Readings
from tests.judging import judged

AMD, ARM = "linux/amd64", "linux/arm64"
PLATFORMS = (AMD, ARM)
HASTY = Limits(connect=0.3, read=0.3, total=0.5)
"""Limits that do not keep a test waiting: there is time for one retry, if any."""


def below(base: str, platforms: Sequence[str] = PLATFORMS, edition: str = "") -> dict[str, Picture]:
    """A base's image, on each platform. edition: another one has other layers."""
    return {one: Picture(steps=[layer({"etc/base": f"{base} {one} {edition}"}), "ENV A=1"]) for one in platforms}


def publish(
    sink: Sink,
    tools: Sequence[str],
    bases: Sequence[str],
    *,
    old: Sequence[str] = (),
    tags: Sequence[str] = ("1.0", "latest"),
    labels: Mapping[str, str] | None = None,
    platforms: Sequence[str] = PLATFORMS,
) -> dict[str, Digest]:
    """Publishes every base, and every tool on it; target → digest. old: targets that are built on an older base."""
    made = {}
    for base in bases:
        today = below(base, platforms)
        push(sink, "own/bases", [f"{base}-latest"], today)
        for tool in tools:
            on = below(base, platforms, "old") if f"{tool}-{base}" in old else today
            built = {one: picture.on_top(layer({f"bin/{tool}": one}), labels=labels) for one, picture in on.items()}
            made[f"{tool}-{base}"] = push(sink, "own/tools", [f"{tool}-{base}-{tag}" for tag in tags], built)
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A registry, and a project that publishes into it. versions: by tool. address: other than the registry's own."""

    registry: Registry
    versions: Mapping[str, str]
    bases: Sequence[str]
    limits: Limits = HASTY
    bootstrap: bool = False
    host: HostSettings = field(default_factory=lambda: HostSettings(connections=8))
    surroundings: Surroundings = field(default_factory=Surroundings)
    last_good: Mapping[str, str] = field(default_factory=dict)
    address: str = ""
    repository: str = "own/tools"

    @property
    def catalogue(self) -> Catalogue:
        """The project."""
        host = self.address or self.registry.address
        return Catalogue(
            root=Path(),
            settings=Settings(
                repository=Repository(host, self.repository),
                bases=BasesSettings(repository=Repository(host, "own/bases"), discover=False, names=tuple(self.bases)),
                bootstrap=self.bootstrap,
                registries={host: self.host},
                limits=self.limits,
            ),
            tools=tuple(Tool(name=name, folder=Path("tools") / name) for name in self.versions),
            hash="",
        )

    @property
    def targets(self) -> tuple[Target, ...]:
        """All targets of the project."""
        return self.catalogue.targets(self.bases)[0]

    def seen(self, cache: Cache | None = None) -> Snapshot:
        """What one survey sees. cache: what it need not ask for; nothing, by default."""
        catalogue = self.catalogue
        request = Request(
            catalogue=catalogue,
            base_names=self.bases,
            targets=self.targets,
            now="2026-01-01T00:00:00Z",
            nonce="n",
            last_good=self.last_good,
        )
        readings = Readings(
            [Reading(tool=tool, version=version) for tool, version in self.versions.items()], VersionsSettings(), {}
        )
        try:
            return survey(request, readings, lambda: Client(catalogue.settings, self.surroundings), cache or Cache())
        finally:
            readings.close()

    def verdicts(self, cache: Cache | None = None) -> dict[str, Verdict]:
        """Target → its verdict, all looked at once."""
        return judged(self.seen(cache), self.catalogue, self.targets)

    def told(self, cache: Cache | None = None) -> dict[str, str]:
        """Target → its verdict in words: `fresh`, `stale: image-missing`, `unknown: tls`."""
        return {target: told(verdict) for target, verdict in self.verdicts(cache).items()}


def told(verdict: Verdict) -> str:
    """A verdict in words."""
    codes = ", ".join(dict.fromkeys(one.code.code for one in verdict.reasons))
    return f"{verdict.state.value}: {codes}" if codes else verdict.state.value
