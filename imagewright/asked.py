"""What a run of the checks is asked: its options read against the catalogue, versions, bases, and the targets they leave."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from imagewright import snapshot, survey
from imagewright.catalogue import Catalogue, Excluded, Standalone, Target, Tool
from imagewright.errors import ImagewrightError, Unanswered
from imagewright.names import BadName, Digest, parse_digest
from imagewright.registry.client import Client
from imagewright.report import NO_BASES
from imagewright.settings import surroundings
from imagewright.snapshot import Reading, Snapshot
from imagewright.versions import Readings, parse_output, read_file

RUN_SECONDS = 900.0
"""For the questions of one run together: a scheduled run ends before the next one begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlisted:
    """Stands in for all pairs where the bases could not be listed."""

    why: str
    key: str = NO_BASES


class Asked:
    """What one process of a run is asked. option: pytest's, ours among them. worker: what the controller told this worker.

    `pytest.UsageError` for what makes no sense, `BadCatalogue` for a file of versions that is none.
    """

    def __init__(
        self,
        option: Any,
        catalogue: Catalogue,
        environ: Mapping[str, str],
        worker: Mapping[str, Any] | None,
        *,
        is_controller: bool,
    ) -> None:
        self._option = option
        self._catalogue = catalogue
        self._environ = environ
        self._worker = worker
        self._is_controller = is_controller
        self._until = time.monotonic() + RUN_SECONDS
        self._given = self._given_readings()
        self.base_digests = self._read_base_digests()

    def _given_readings(self) -> list[Reading]:
        file = self._option.versions
        chosen = {one.tool: one for one in (read_file(Path(file)) if file else ())}
        for tool, version in _assignments(self._option.tool_version, "--tool-version", "T=V"):
            if parse_output(version.encode())[0] is None:
                raise pytest.UsageError(f"--tool-version: '{version}' is no version")
            chosen[tool] = Reading(tool=tool, version=version, via="given")
        known = {tool.name for tool in self._catalogue.tools}
        for name in (*self._option.tool, *chosen):
            if name not in known:
                raise pytest.UsageError(f"there is no tool '{name}'; there are {', '.join(sorted(known))}")
        return list(chosen.values())

    def _read_base_digests(self) -> dict[str, Digest]:
        try:
            return {
                base: parse_digest(text)
                for base, text in _assignments(self._option.base_digest, "--base-digest", "B=DIGEST")
            }
        except BadName as error:
            raise pytest.UsageError(f"--base-digest: {error}") from None

    def connect(self) -> Client:
        """A client for the registries of this run."""
        return Client(self._catalogue.settings, surroundings(self._environ), self._until)

    @cached_property
    def recorded(self) -> Snapshot | None:
        """The observations that are to be judged instead of new ones."""
        option = self._option
        if not (file := option.snapshot):
            return None
        if option.versions or option.tool_version or option.base_digest or option.wait:
            raise pytest.UsageError("--snapshot judges what was recorded, versions and bases included")
        try:
            return snapshot.load(Path(file).read_bytes(), file)
        except (OSError, ImagewrightError) as error:
            raise pytest.UsageError(f"--snapshot: {error}") from None

    @cached_property
    def base_names(self) -> tuple[str, ...] | str:
        """The names of all bases, listed once per run; or why they could not be."""
        if self._worker:
            return (
                tuple(self._worker["bases"]) if isinstance(self._worker["bases"], list) else str(self._worker["bases"])
            )
        if self.recorded:
            return self.recorded.base_names
        self.readings.start(self.tools())
        try:
            with self.connect() as client:
                return survey.list_bases(self._catalogue, client)
        except Unanswered as error:
            return error.reason

    @cached_property
    def readings(self) -> Readings:
        """Versions, being read."""
        known = [snapshot.load_reading(one) for one in self._worker["readings"]] if self._worker else self._given
        return Readings(known, self._catalogue.settings.versions, self._environ)

    def tools(self) -> list[Tool]:
        """The tools whose versions can be read before collection: what -k and -m leave is not known yet."""
        option = self._option
        if option.collectonly:
            return []
        if option.target:
            return [
                tool for tool in self._catalogue.tools if any(one.startswith(f"{tool.name}-") for one in option.target)
            ]
        if option.tool:
            return [tool for tool in self._catalogue.tools if tool.name in option.tool]
        narrowed = option.keyword or option.markexpr
        return list(self._catalogue.tools) if self._is_controller or not narrowed else []

    @cached_property
    def targets(self) -> tuple[tuple[Target, ...], tuple[Excluded, ...]]:
        """All targets of the catalogue and the excluded pairs. `BadCatalogue` where two of them collide."""
        return self._catalogue.targets(self.base_names if isinstance(self.base_names, tuple) else ())

    def chosen(self) -> Sequence[Target | Unlisted]:
        """The targets that --target, --tool and --base leave."""
        option = self._option
        names = self.base_names
        if isinstance(names, tuple):
            known = {*names, *(one.base.name for one in self.targets[0] if one.base)}
            for name in (*option.base, *self.base_digests):
                if name not in known:
                    raise pytest.UsageError(f"there is no base '{name}'; there are {', '.join(names)}")
            keys = {one.key for one in self.targets[0]}
            for name in option.target:
                if name not in keys:
                    raise pytest.UsageError(f"there is no target '{name}'; there are {_some(sorted(keys))}")
        chosen = [one for one in self.targets[0] if self._is_chosen(one)]
        if isinstance(names, tuple) or (chosen and set(option.target) == {one.key for one in chosen}):
            return chosen
        return [*chosen, Unlisted(why=names)]

    def _is_chosen(self, target: Target) -> bool:
        option = self._option
        if isinstance(target, Standalone):
            return target.key in option.target or not (option.target or option.tool or option.base)
        return (
            (not option.target or target.key in option.target)
            and (not option.tool or target.tool.name in option.tool)
            and (not option.base or target.base.name in option.base)
        )

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be said about how versions were read."""
        return self.readings.warnings if "readings" in self.__dict__ else ()

    def selection(self, count: int, total: int) -> str:
        """How the run was narrowed, as a person would say it; `all` if it was not. count: of total targets."""
        option = self._option
        named = {"--target": option.target, "--tool": option.tool, "--base": option.base}
        words = [f"{name} {one}" for name, given in named.items() for one in given]
        words += [f"-k '{option.keyword}'"] if option.keyword else []
        words += [f"-m '{option.markexpr}'"] if option.markexpr else []
        everything = count == total or isinstance(self.base_names, str)
        return " ".join(words) or ("all" if everything else f"{count} of {total}")

    def close(self) -> None:
        """Ends what is still being read."""
        if "readings" in self.__dict__:
            self.readings.close()


def _some(names: Sequence[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _assignments(texts: Sequence[str], option: str, form: str) -> list[tuple[str, str]]:
    pairs = [text.partition("=") for text in texts]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise pytest.UsageError(f"{option}: '{name}{equals}{value}' is not {form}")
    return [(name, value) for name, _, value in pairs]
