"""Builders: one file per engine, one result. A builder turns a request into an OCI layout and publishes nothing."""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagewright.errors import BuildFailed
from imagewright.names import Platform, Reference

AUTO = "auto"


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
        """Why this builder cannot do this request here, as one clause, or None if it can."""

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """Builds into the folder `into`, which becomes an OCI layout whose `index.json` names one index.

        The index has one image for each platform asked for, in their order, all documents with OCI media types. `into`
        is absent or empty before, and left so where the build fails. say: takes each line of the engine's output.
        Raises `BuildFailed`, which names the failed command.
        """


def choose(name: str, builders: Sequence[Builder], request: BuildRequest) -> Builder:
    """The builder of that name, or for `auto` the first that is able. `BuildFailed` says why it, or each, is not."""
    asked = [one for one in builders if name in (AUTO, one.name)]
    reasons = []
    for builder in asked:
        if (reason := builder.unable(request)) is None:
            return builder
        reasons.append(f"{builder.name}: {reason}")
    known = ", ".join((AUTO, *(one.name for one in builders)))
    raise BuildFailed(
        f"{request.target}: no builder can build this" + "".join(f"\n    {reason}" for reason in reasons)
        if asked
        else f"{request.target}: there is no builder {name}; there are {known}",
        remedy="" if asked else "Set `builder` in the settings.",
    )


@contextmanager
def whole_or_nothing(into: Path, target: str) -> Iterator[Path]:
    """A new folder beside `into` that takes its place at the end of the block; after an exception nothing is there."""
    if into.exists() and any(into.iterdir()):
        raise BuildFailed(f"{target}: the folder for the image is not empty", where=str(into))
    into.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}."))
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(into)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
