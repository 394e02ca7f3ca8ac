"""Builders: one file per engine, one result. A builder turns a request into an OCI layout and publishes nothing."""

import errno
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from imagewright.errors import BuildFailed
from imagewright.names import Platform, Reference
from imagewright.settings import Cache

AUTO = "auto"

NOTICE = "note: "
"""How a line of a builder begins that is for the person who watches, not only for the log. No engine's output does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildRequest:
    """One image to build.

    target: its key. context: the folder that is sent. dockerfile: None where there is only `rootfs/`. base: by digest;
    None for an image from scratch. stands_for: the words in the Dockerfile's FROM that the base takes the place of, never
    with a digest, which nothing replaces; empty where BASE_IMAGE names it. arguments: all build arguments but
    SOURCE_DATE_EPOCH, which is for the engine to give. labels go into each platform's configuration,
    annotations onto the index. epoch: seconds, the time that everything in the image bears. cache: where steps are
    kept between builds, None for nowhere; `{target}` is replaced already. no_cache: every step is run again. sbom: the
    scanner's reference, empty for no SBOM. provenance: whether there is one.
    """

    target: str
    context: Path
    dockerfile: Path | None
    base: Reference | None
    platforms: tuple[Platform, ...]
    arguments: Mapping[str, str]
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    epoch: int
    stands_for: str = ""
    cache: Cache | None = None
    no_cache: bool = False
    sbom: str = ""
    provenance: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Abilities:
    """What an engine can do, as far as it is known before it is asked. `docs/engines.md` is made of these.

    several_platforms: in one image. caches: kinds of build cache that it uses. attestations: SBOM and provenance.
    reproducible: the same input gives the same digest. keeps_base_layers: the base's layers are in the image as they were
    published, not only their content. replaces_from: a base can take the place of the words in a FROM. runs: commands can
    be run in what was built. note: what else there is to know, one sentence.
    """

    several_platforms: bool
    caches: tuple[str, ...]
    attestations: bool
    reproducible: bool
    keeps_base_layers: bool
    replaces_from: bool
    runs: bool
    note: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ran:
    """How a command in an image ended. status: its exit code. output: its lines on both outputs, fit to be shown."""

    status: int
    output: tuple[str, ...]


class Builder(Protocol):
    """What every engine offers."""

    name: str
    family: str
    """The recipe family: engines of one family read a build context alike."""

    @property
    def can(self) -> Abilities:
        """What it can do; of an engine with several forms, what the one here can."""

    def unable(self, request: BuildRequest) -> str | None:
        """Why this builder cannot do this request here, as one clause, or None if it can."""

    def run(self, layout: Path, platform: Platform, command: str) -> Ran:
        """Runs a shell command in the image of that platform in a layout that `build` made; only if it `can.runs`.

        Without network, without anybody's credentials, with limits on time, processes and memory as far as the engine has
        them; what it takes is removed again. `BuildFailed` where the engine could not start it.
        """

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """Builds into the folder `into`, which becomes an OCI layout whose `index.json` names one index.

        The index has one image for each platform asked for, in their order, all documents with OCI media types. `into`
        is absent or empty before, and left so where the build fails. say: takes each line of the engine's output.
        Raises `BuildFailed`, which names the failed command.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """The builder that is to build. passed_over: why each that would have come before it cannot."""

    builder: Builder
    passed_over: tuple[str, ...] = ()


def choose(name: str, builders: Sequence[Builder], request: BuildRequest) -> Choice:
    """The builder of that name, or for `auto` the first that is able. `BuildFailed` says why it, or each, is not."""
    asked = [one for one in builders if name in (AUTO, one.name)]
    reasons: list[str] = []
    for builder in asked:
        if (reason := _against(builder.can, request) or builder.unable(request)) is None:
            return Choice(builder=builder, passed_over=tuple(reasons))
        reasons.append(f"{builder.name}: {reason}")
    known = ", ".join((AUTO, *(one.name for one in builders)))
    raise BuildFailed(
        f"{request.target}: no builder can build this" + "".join(f"\n    {reason}" for reason in reasons)
        if asked
        else f"{request.target}: there is no builder {name}; there are {known}",
        remedy="`imagewright doctor` says more." if asked else "Set `builder` in the settings.",
    )


def _against(can: Abilities, request: BuildRequest) -> str | None:
    """Why a request is beyond an engine anywhere, whatever is installed; None if it is not.

    A cache only saves time, so an engine that cannot use it builds without.
    """
    if len(request.platforms) > 1 and not can.several_platforms:
        return f"it builds for one platform at a time, not for {', '.join(map(str, request.platforms))}"
    if (request.sbom or request.provenance) and not can.attestations:
        return "it makes no attestations; `sbom` and `provenance` are set"
    if request.stands_for and not can.replaces_from:
        return f"it cannot put the base's digest in the place of FROM {request.stands_for}; start from ARG BASE_IMAGE"
    return None


@contextmanager
def whole_or_nothing(into: Path, target: str) -> Iterator[Path]:
    """A new folder beside `into` that takes its place at the end of the block; after an exception nothing is there.

    `BuildFailed` where `into` is not empty, or the disk is full.
    """
    if into.exists() and any(into.iterdir()):
        raise BuildFailed(f"{target}: the folder for the image is not empty", where=str(into))
    into.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(dir=into.parent, prefix=f".{into.name}."))
    try:
        yield folder
        folder.chmod(0o755)
        folder.replace(into)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise BuildFailed(
            f"{target}: there is no room for the image", remedy="Make room on that disk.", where=str(into)
        ) from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)
