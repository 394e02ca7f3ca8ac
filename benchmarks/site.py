"""A world, its registry some way away and its project: what imagewright is asked there, and how the peers are run there."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.measure import Took, run
from benchmarks.registry import Away
from benchmarks.world import World


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """Where programs are. bin: those of the environment without the development group. env: what every process gets."""

    bin: Path
    env: Mapping[str, str]

    def has(self, name: str) -> bool:
        """Whether there is a program of that name."""
        return shutil.which(name, path=self.env["PATH"]) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """folder: as `world.make` made it. round_trip: seconds to the registry at `address`, which is the one of `away`."""

    folder: Path
    world: World
    away: Away
    address: str
    round_trip: float
    programs: Programs

    @property
    def name(self) -> str:
        """How tables call it."""
        distance = f"{self.round_trip * 1000:.0f} ms" if self.round_trip else "no delay"
        return f"{self.world.pairs:,} × {self.world.platforms}, {distance}"

    @property
    def project(self) -> Path:
        """The project."""
        return self.folder / "project"

    def settle(self) -> None:
        """Has the project name the registry at this address."""
        settings = self.project / "imagewright.toml"
        _, _, rest = settings.read_text().partition("\n")
        settings.write_text(f'registry = "{self.address}"\n{rest}')

    def cold(self, *arguments: str) -> Took:
        """The checks, with nothing remembered."""
        shutil.rmtree(self.project / ".imagewright", ignore_errors=True)
        return self.warm(*arguments)

    def warm(self, *arguments: str) -> Took:
        """The checks, with whatever is remembered."""
        return self.run([self.programs.bin / "pytest", "checks/", "-q", *arguments], self.project)

    def plan(self) -> Took:
        """A plan from the report of the last checks."""
        return self.run([self.programs.bin / "imagewright", "plan"], self.project)

    def run(self, argv: Sequence[str | Path], cwd: Path) -> Took:
        """Any process, and what it asks the registry."""
        self.away.counts()
        took = run(argv, cwd=cwd, env=self.programs.env)
        return replace(took, asked=dict(self.away.counts()))

    def at_least(self, requests: int) -> float:
        """The seconds that so many requests take on 32 connections, if nothing but the way to the registry takes any."""
        return requests / 32 * self.round_trip
