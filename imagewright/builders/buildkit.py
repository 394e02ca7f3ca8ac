"""The builder `buildkit`: `buildctl` against a BuildKit that runs already, or one started for the occasion."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from imagewright import process
from imagewright.builders import Abilities, BuildRequest, whole_or_nothing
from imagewright.builders.daemon import buildkitd, platforms_of, program
from imagewright.builders.exports import image_output, normalise
from imagewright.builders.progress import Story
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.recipe import BUILDKIT
from imagewright.settings import CACHE_KINDS

DEFAULT_ADDRESS = "unix:///run/buildkit/buildkitd.sock"

_HOUR = 3600.0


class BuildKit:
    """Builds through `buildctl`. address: of a buildkitd. env: for buildctl, with PATH and where credentials are."""

    name = "buildkit"
    family = BUILDKIT
    can = Abilities(
        several_platforms=True,
        caches=tuple(CACHE_KINDS),
        attestations=True,
        reproducible=True,
        keeps_base_layers=True,
        replaces_from=True,
        runs=True,
        note="`BUILDKIT_HOST` names another one than this machine's; with none running, one is started for the occasion.",
    )

    def __init__(self, address: str, env: Mapping[str, str], *, timeout: float = 2 * _HOUR) -> None:
        self._address = address
        self._env = env
        self._timeout = timeout

    def unable(self, request: BuildRequest) -> str | None:
        """See `Builder`."""
        if request.dockerfile is None:
            return "the tool has no Dockerfile"
        if not program("buildctl", self._env):
            return "buildctl is not installed"
        platforms = platforms_of(self._address, self._env)
        if isinstance(platforms, str):
            return f"no BuildKit answers at {self._address}: {platforms}"
        if missing := [str(one) for one in request.platforms if one.normalised() not in platforms]:
            return (
                f"the BuildKit at {self._address} does not run {', '.join(missing)}; it would with an emulator "
                "(Debian: qemu-user-static and binfmt-support) and after a restart"
            )
        return None

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """See `Builder`. A failed step is named with its exit code and its last lines."""
        with whole_or_nothing(into, request.target) as folder:
            story = Story(say, "buildctl")
            argv = ["buildctl", "--addr", self._address, *_arguments(request, folder)]
            try:
                ended = process.run(argv, timeout=self._timeout, env=self._env, on_line=story.read)
            except process.NotStarted as error:
                raise BuildFailed(f"{request.target}: buildctl cannot be run: {error.strerror}") from None
            if ended.timed_out:
                raise BuildFailed(f"{request.target}: the build did not end within {self._timeout:.0f} s")
            if ended.status != 0:
                raise story.failure(request, ended.status)
            story.refuse_other_platform(request)
            normalise(Layout(folder), request)


@contextmanager
def buildkit(env: Mapping[str, str], *, plain_http: Collection[str] = ()) -> Iterator[BuildKit]:
    """The builder with the BuildKit there is: the one of BUILDKIT_HOST, that of this machine, or one of our own.

    plain_http: registries that ours speaks plain HTTP to; another's configuration is its own affair. Where none can be
    had, the builder is unable and says why.
    """
    given = env.get("BUILDKIT_HOST")
    if given or not isinstance(platforms_of(DEFAULT_ADDRESS, env), str):
        yield BuildKit(given or DEFAULT_ADDRESS, env)
    elif os.geteuid() == 0 and program("buildkitd", env) and program("buildctl", env):
        with buildkitd(env, plain_http=plain_http) as address:
            yield BuildKit(address, env)
    else:
        yield BuildKit(DEFAULT_ADDRESS, env)


def _arguments(request: BuildRequest, into: Path) -> list[str]:
    """What follows `buildctl --addr …`."""
    dockerfile = request.dockerfile
    if dockerfile is None:
        raise BuildFailed(f"{request.target}: the tool has no Dockerfile")
    arguments = {**request.arguments, "SOURCE_DATE_EPOCH": str(request.epoch)}
    options = {
        "filename": dockerfile.name,
        "platform": ",".join(str(one) for one in sorted(request.platforms)),
        **{f"build-arg:{name}": value for name, value in sorted(arguments.items())},
        **{f"label:{name}": value for name, value in sorted(request.labels.items())},
    }
    return [
        *("build", "--progress", "rawjson", "--frontend", "dockerfile.v0"),
        *("--local", f"context={request.context}", "--local", f"dockerfile={dockerfile.parent}"),
        *(part for name, value in options.items() for part in ("--opt", f"{name}={value}")),
        *("--output", image_output(into)),
    ]
