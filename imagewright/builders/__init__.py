"""Builders: one file per engine, one result. A builder turns a request into an OCI layout and publishes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagewright.names import Platform, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One image to build.

    target: its key. context: the tool's folder. dockerfile: None where there is only `rootfs/`. base: by digest.
    arguments: build arguments except BASE_IMAGE and TOOL_VERSION, which every builder adds. labels go into each
    platform's configuration, annotations onto the index. epoch: seconds, the time that everything in the image bears.
    """

    target: str
    context: Path
    dockerfile: Path | None
    base: Reference
    version: str
    platforms: tuple[Platform, ...]
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    epoch: int


class Builder(Protocol):
    """What every engine offers."""

    name: str
    family: str
    """The recipe family: engines of one family read a build context alike."""

    def unable(self, request: BuildRequest) -> str | None:
        """Why this builder cannot do this request here, or None if it can."""

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """Builds into the folder `into`, which becomes an OCI layout whose `index.json` names one index.

        say: takes each line of the engine's output. Raises `BuildFailed`, which names the failed command.
        """
