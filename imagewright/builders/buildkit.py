"""The builder `buildkit`: `buildctl` against a BuildKit that runs already, or one started for the occasion."""

import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from imagewright import process
from imagewright.builders import Abilities, BuildRequest, Ran, whole_or_nothing
from imagewright.builders.commands import COMMAND_LIMITS, COMMAND_LINES, COMMAND_SECONDS, exec_form, ran_in_a_build
from imagewright.builders.daemon import buildkitd, lacking, platforms_of, program
from imagewright.builders.exports import (
    attestations,
    cache_export,
    cache_import,
    fields,
    image_output,
    normalise,
    source_policy,
    usable,
)
from imagewright.builders.progress import Story
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import Platform
from imagewright.recipe import BUILDKIT
from imagewright.settings import CACHE_KINDS

DEFAULT_ADDRESS = "unix:///run/buildkit/buildkitd.sock"

_HOUR = 3600.0


class BuildKit:
    """Builds through `buildctl`. address: of a buildkitd. env: for buildctl, with PATH and where credentials are.

    timeout: seconds that a build may take. no_other: why no BuildKit can be started here, if none answers there.
    """

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
        note="`BUILDKIT_HOST` names another than this machine's, root's or the user's; with none, one is started for the time.",
    )

    def __init__(self, address: str, env: Mapping[str, str], *, timeout: float = 2 * _HOUR, no_other: str = "") -> None:
        self.address = address
        self._env = env
        self._timeout = timeout
        self._no_other = no_other

    @cached_property
    def platforms(self) -> frozenset[Platform] | str:
        """What it can run, or why it did not say. Asked once."""
        return platforms_of(self.address, self._env)

    def unable(self, request: BuildRequest) -> str | None:
        """See `Builder`."""
        if request.dockerfile is None:
            return "the tool has no Dockerfile"
        if not program("buildctl", self._env):
            return "buildctl is not installed"
        if isinstance(self.platforms, str):
            other = f", and none can be started here: {self._no_other}" if self._no_other else ""
            return f"no BuildKit answers at {self.address}: {self.platforms}{other}"
        if missing := [str(one) for one in request.platforms if one.normalised() not in self.platforms]:
            return (
                f"the BuildKit at {self.address} does not run {', '.join(missing)}; it would with an emulator "
                "(Debian: qemu-user-static and binfmt-support) and after a restart"
            )
        return None

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """See `Builder`. A failed step is named with its exit code and its last lines."""
        with whole_or_nothing(into, request.target) as folder, tempfile.TemporaryDirectory() as notes:
            story = Story(say, "buildctl")
            ended = self._buildctl(
                buildctl_arguments(request, folder, Path(notes), say), self._timeout, story, request.target
            )
            if ended.timed_out:
                raise BuildFailed(f"{request.target}: the build did not end within {self._timeout:.0f} s")
            if ended.status != 0:
                raise story.failure(request, ended.status)
            story.refuse_other_platform(request)
            # Where buildctl received what it then moved to its place.
            shutil.rmtree(folder / "ingest", ignore_errors=True)
            normalise(Layout(folder), request)

    def run(self, layout: Path, platform: Platform, command: str) -> Ran:
        """See `Builder`. A command that takes too long has the status 124; without a shell in the image it is 127.

        BuildKit cannot limit its memory.
        """
        (top,) = Layout(layout).entries()
        seconds = min(self._timeout, COMMAND_SECONDS)
        with tempfile.TemporaryDirectory() as temporary:
            # buildctl makes a folder of its own in a layout that it reads.
            context, store = Path(temporary, "context"), Path(temporary, "layout")
            for folder in (context, store):
                folder.mkdir()
            (store / "blobs").symlink_to(layout.resolve() / "blobs")
            (context / "Dockerfile").write_text(f"FROM built\nRUN {exec_form(command)}\n", "utf-8")
            options = {
                "platform": str(platform),
                "context:built": f"oci-layout://built@{top.digest}",
                "force-network-mode": "none",
                "ulimit": fields(COMMAND_LIMITS),
            }
            story = Story(lambda _: None, "buildctl", kept=COMMAND_LINES)
            argv = [*_frontend(context, context, options), "--oci-layout", f"built={store}", "--no-cache"]
            ended = self._buildctl(argv, seconds, story, f"'{command}'")
        return ran_in_a_build(story, ended, layout, command, seconds)

    def _buildctl(self, arguments: Sequence[str], seconds: float, story: Story, what: str) -> process.Ended:
        argv = ["buildctl", "--addr", self.address, *arguments]
        try:
            return process.run(argv, timeout=seconds, env=self._env, on_line=story.read)
        except process.NotStarted as error:
            raise BuildFailed(
                f"{what}: buildctl cannot be run: {error.strerror}", remedy="Install BuildKit, or repair PATH."
            ) from None


@contextmanager
def buildkit(env: Mapping[str, str], *, plain_http: Collection[str] = ()) -> Iterator[BuildKit]:
    """The builder with the BuildKit there is: the one of BUILDKIT_HOST, that of this machine, or one of our own.

    plain_http: registries that ours speaks plain HTTP to; another's configuration is its own affair. Where none can be
    had, the builder is unable and says why.
    """
    given = env.get("BUILDKIT_HOST")
    candidates = [BuildKit(address, env) for address in ([given] if given else _usual_addresses(env))]
    running = next((one for one in candidates if given or not isinstance(one.platforms, str)), None)
    with ExitStack() as stack:
        if running is None and not (why := lacking(env)):
            try:
                running = BuildKit(stack.enter_context(buildkitd(env, plain_http=plain_http)), env)
            except BuildFailed as error:
                why = str(error)
        yield running or BuildKit(DEFAULT_ADDRESS, env, no_other=why)


def _usual_addresses(env: Mapping[str, str]) -> list[str]:
    """Where this machine's BuildKit listens: root's, and that of the user."""
    runtime = env.get("XDG_RUNTIME_DIR")
    return [DEFAULT_ADDRESS, *([f"unix://{runtime}/buildkit/buildkitd.sock"] if runtime and os.geteuid() else [])]


def _frontend(context: Path, dockerfiles: Path, options: Mapping[str, str]) -> list[str]:
    """The arguments that name what is to be built from."""
    return [
        *("build", "--progress", "rawjson", "--frontend", "dockerfile.v0"),
        *("--local", f"context={context}", "--local", f"dockerfile={dockerfiles}"),
        *(part for name, value in options.items() for part in ("--opt", f"{name}={value}")),
    ]


def buildctl_arguments(request: BuildRequest, into: Path, notes: Path, say: Callable[[str], None]) -> list[str]:
    """What follows `buildctl --addr …`. notes: a folder for what buildctl is to read."""
    dockerfile = request.dockerfile
    if dockerfile is None:
        raise BuildFailed(f"{request.target}: the tool has no Dockerfile")
    arguments = {**request.arguments, "SOURCE_DATE_EPOCH": str(request.epoch)}
    options = {
        "filename": dockerfile.name,
        "platform": ",".join(str(one) for one in sorted(request.platforms)),
        **{f"build-arg:{name}": value for name, value in sorted(arguments.items())},
        **{f"label:{name}": value for name, value in sorted(request.labels.items())},
        **attestations(request),
    }
    argv = [*_frontend(request.context, dockerfile.parent, options), "--output", image_output(into)]
    if request.stands_for:
        policy = notes / "source-policy.json"
        policy.write_bytes(source_policy(request))
        argv += ["--source-policy-file", str(policy)]
    if request.no_cache:
        argv.append("--no-cache")
    if request.cache and usable(request.cache, say):
        argv += [] if request.no_cache else ["--import-cache", cache_import(request.cache)]
        argv += ["--export-cache", cache_export(request.cache)]
    return argv
