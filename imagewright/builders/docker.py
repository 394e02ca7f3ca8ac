"""The builder `docker`: `docker buildx` with the buildx builder that is in use, which is never started or changed here."""

import json
import re
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

from imagewright import archive, process
from imagewright.builders import NOTICE, Abilities, BuildRequest, Ran, whole_or_nothing
from imagewright.builders.commands import (
    COMMAND_LIMITS,
    COMMAND_LINES,
    COMMAND_SECONDS,
    SHELL_STATUSES,
    exec_form,
    ran_in_a_build,
    took_too_long,
)
from imagewright.builders.daemon import program
from imagewright.builders.exports import (
    attestations,
    cache_export,
    cache_import,
    image_output,
    normalise,
    source_policy,
    usable,
)
from imagewright.builders.progress import Story, clean, remedy
from imagewright.documents import MAX_CONFIG_BYTES, BadDocument, load_json
from imagewright.errors import BuildFailed, Failed
from imagewright.layout import Layout
from imagewright.names import Platform, parse_platform
from imagewright.recipe import BUILDKIT
from imagewright.settings import CACHE_KINDS

_HOUR = 3600.0
_QUESTION_SECONDS = 30.0
_DAEMON_SECONDS = 600.0

EXPORTING = Abilities(
    several_platforms=True,
    caches=tuple(CACHE_KINDS),
    attestations=True,
    reproducible=True,
    keeps_base_layers=True,
    replaces_from=True,
    runs=True,
    note="`BUILDX_BUILDER` names another buildx builder than the one that is in use; it has to run already.",
)
"""What buildx can with its drivers `docker-container`, `remote` and `kubernetes`, and with containerd's image store."""

LOADING = Abilities(
    several_platforms=False,
    caches=(),
    attestations=False,
    reproducible=False,
    keeps_base_layers=False,
    replaces_from=False,
    runs=True,
    note="buildx' driver `docker` has the daemon keep the image, unpacked: all layers are compressed anew, the base's too.",
)
"""What buildx can with its driver `docker` and a daemon that has an image store of its own."""

_LIMITS = ("--memory=2g", "--memory-swap=2g", "--pids-limit=512")
_CUT_OFF = ("--pull=never", "--network=none", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--log-driver=none")
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "ALL_PROXY", "NO_PROXY")
"""What the client gives each container, passwords included, where its configuration has proxies; unless it is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Engine:
    """The buildx builder that is in use. buildx: how buildx is called. loads: only the daemon can keep what it builds."""

    buildx: tuple[str, ...]
    builder: str
    driver: str
    platforms: frozenset[Platform]
    loads: bool


class Docker:
    """Builds through buildx. env: for docker, with PATH, HOME and whatever says which daemon and builder are meant.

    timeout: seconds that a build may take.
    """

    name = "docker"
    family = BUILDKIT

    def __init__(self, env: Mapping[str, str], *, timeout: float = 2 * _HOUR) -> None:
        self._env = env
        self._timeout = timeout
        self._seconds = min(timeout, COMMAND_SECONDS)

    @cached_property
    def _engine(self) -> _Engine | str:
        """What is there, or why nothing is. Asked once."""
        return _look(self._env)

    @cached_property
    def can(self) -> Abilities:
        """See `Builder`: as the buildx builder in use can. Where none is, `unable` says so."""
        return LOADING if isinstance(self._engine, _Engine) and self._engine.loads else EXPORTING

    def unable(self, request: BuildRequest) -> str | None:
        """See `Builder`."""
        if request.dockerfile is None:
            return "the tool has no Dockerfile"
        engine = self._engine
        if isinstance(engine, str):
            return engine
        if missing := [str(one) for one in request.platforms if one.normalised() not in engine.platforms]:
            return (
                f"the buildx builder {engine.builder} does not run {', '.join(missing)}; it would with an emulator "
                "(Debian: qemu-user-static and binfmt-support) and after a restart"
            )
        return None

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """See `Builder`. A failed step is named with its exit code and its last lines."""
        engine = self._ready()
        with whole_or_nothing(into, request.target) as folder:
            if engine.loads:
                self._load(engine, request, folder, say)
            else:
                self._export(engine, request, folder, say)

    def run(self, layout: Path, platform: Platform, command: str) -> Ran:
        """See `Builder`. With the driver `docker` in a container, which has limits on memory and processes.

        Otherwise in a step of a build that makes no image.
        """
        engine = self._ready()
        if engine.driver == "docker":
            return self._in_container(layout, platform, command)
        return self._in_build(engine, layout, platform, command)

    def _ready(self) -> _Engine:
        if isinstance(self._engine, str):
            raise BuildFailed(self._engine)
        return self._engine

    def _export(self, engine: _Engine, request: BuildRequest, folder: Path, say: Callable[[str], None]) -> None:
        """For a builder that can write a layout."""
        made = attestations(request)
        argv = [
            *_asked(request),
            *("--provenance", made.get("attest:provenance", "false"), "--sbom", made.get("attest:sbom", "false")),
            *("--output", image_output(folder)),
        ]
        if request.cache and usable(request.cache, say):
            argv += [] if request.no_cache else ["--cache-from", cache_import(request.cache)]
            argv += ["--cache-to", cache_export(request.cache)]
        with TemporaryDirectory() as notes:
            env = dict(self._env)
            if request.stands_for:
                policy = Path(notes) / "source-policy.json"
                policy.write_bytes(source_policy(request))
                env["EXPERIMENTAL_BUILDKIT_SOURCE_POLICY"] = str(policy)
            self._build(engine, request, argv, say, env).refuse_other_platform(request)
        # Where buildx received what it then moved to its place.
        shutil.rmtree(folder / "ingest", ignore_errors=True)
        normalise(Layout(folder), request)

    def _load(self, engine: _Engine, request: BuildRequest, folder: Path, say: Callable[[str], None]) -> None:
        """For a daemon that keeps images itself: under a name that nobody else has, and no longer than necessary."""
        self._refuse_other_platform(engine, request, say)
        name, file = _new_name(), folder / "archive.tar"
        argv = [*_asked(request), "--provenance=false", "--sbom=false", "--load", "--tag", name]
        try:
            self._build(engine, request, argv, say, self._env)
            self._docker(["save", "--output", str(file), name], request.target)
        finally:
            self._remove_image(name)
        try:
            layout = Layout.create(folder)
            image = archive.read(file, layout)
        except archive.BadArchive as error:
            raise BuildFailed(f"{request.target}: what docker has saved is {error.reason}") from None
        except OSError as error:  # a full disk
            told = str(error.strerror)
            raise BuildFailed(f"{request.target}: the image cannot be kept: {told}", remedy=remedy(told)) from None
        (wanted,) = request.platforms
        if image.platform is None or image.platform.normalised() != wanted.normalised():
            raise BuildFailed(f"{request.target}: docker made {image.platform}, which is not what was asked for")
        file.unlink()
        layout.write_only_index([replace(image, platform=wanted)], request.annotations)

    def _build(
        self,
        engine: _Engine,
        request: BuildRequest,
        arguments: Sequence[str],
        say: Callable[[str], None],
        env: Mapping[str, str],
    ) -> Story:
        """Runs one build to its end; what it told. `BuildFailed` where it does not deliver."""
        story = Story(say, "buildx")
        ended = _buildx(engine, arguments, self._timeout, env, story)
        if ended.timed_out:
            raise BuildFailed(
                f"{request.target}: the build did not end within {self._timeout:.0f} s",
                remedy="Look which step takes that long in the log.",
            )
        if ended.status != 0:
            failure = story.failure(request, ended.status)
            if story.exit_code() is None and isinstance(now := _look(self._env), str):
                raise BuildFailed(
                    f"{request.target}: the engine has ended while it was building: {now}",
                    remedy="Start it, look into its log, then build again.",
                )
            raise failure
        return story

    def _refuse_other_platform(self, engine: _Engine, request: BuildRequest, say: Callable[[str], None]) -> None:
        """`BuildFailed` where the base is one image for another platform, which such a daemon does not say.

        It would take it nevertheless and give it the name of the platform that is asked for.
        """
        if request.base is None:
            return
        (wanted,) = request.platforms
        argv = [*engine.buildx, "imagetools", "inspect", "--format", "{{json .Image}}", str(request.base)]
        ended = _answer(argv, self._env)
        try:
            told = load_json(ended.stdout, MAX_CONFIG_BYTES) if ended.status == 0 else None
        except BadDocument:
            told = None
        if not isinstance(told, dict):
            say(f"{NOTICE}which platform the base is for could not be asked: {_last(ended)}")
            return
        if "architecture" in told:  # otherwise one such by platform
            is_for = Platform(*(str(told.get(part, "")) for part in ("os", "architecture", "variant")))
            if is_for.normalised() != wanted.normalised():
                raise BuildFailed(
                    f"{request.target}: the base {request.base} is for {is_for} only, not for {wanted}",
                    remedy=remedy("no match for platform"),
                )

    def _in_container(self, layout: Path, platform: Platform, command: str) -> Ran:
        name, what = _new_name().partition(":")[0], f"'{command}'"
        proxies = [f"--env={word}=" for one in _PROXIES for word in (one, one.lower())]
        with self._loaded(layout, platform, what) as image:
            argv = [*("create", "--name", name, "--entrypoint", "/bin/sh"), *_CUT_OFF, *_LIMITS, *proxies, image]
            try:
                self._docker([*argv, "-c", command], what)
                output: deque[str] = deque(maxlen=COMMAND_LINES)
                argv = ["docker", "start", "--attach", name]
                ended = _run(argv, self._seconds, self._env, lambda line: output.append(clean(line)))
                if ended.timed_out:
                    return took_too_long(output, self._seconds)
                state = json.loads(self._docker(["inspect", "--format", "{{json .State}}", name], what))
                if state["Error"] and state["ExitCode"] not in SHELL_STATUSES:
                    raise BuildFailed(f"{what} cannot be run: {clean(state['Error'])}")
            finally:
                _run(["docker", "rm", "--force", "--volumes", name], _DAEMON_SECONDS, self._env)
        return Ran(status=int(state["ExitCode"]), output=tuple(output))

    @contextmanager
    def _loaded(self, layout: Path, platform: Platform, what: str) -> Iterator[str]:
        """The name of the image in the daemon, for as long as the block lasts."""
        name = _new_name()
        with TemporaryDirectory() as folder:
            file = Path(folder) / "archive.tar"
            try:
                image = archive.write(Layout(layout), platform, name, file)
            except Failed as error:
                raise BuildFailed(f"{what} cannot be run: {error.reason}", where=error.where) from None
            except OSError as error:  # a full disk
                told = str(error.strerror)
                raise BuildFailed(f"{what} cannot be run: {told}", where=folder, remedy=remedy(told)) from None
            if self._is_nameless(image):
                # Somebody's already; with a name of ours, taken away again, it would be gone.
                yield image
                return
            try:
                self._docker(["load", "--quiet", "--input", str(file)], what)
                yield name
            finally:
                self._remove_image(name)

    def _is_nameless(self, image: str) -> bool:
        told = _answer(["docker", "image", "inspect", "--format", "{{len .RepoTags}}", image], self._env)
        return told.stdout.strip() == b"0"

    def _in_build(self, engine: _Engine, layout: Path, platform: Platform, command: str) -> Ran:
        (top,) = Layout(layout).entries()
        with TemporaryDirectory() as temporary:
            # buildx makes a folder of its own in a layout that it reads.
            context, store = Path(temporary, "context"), Path(temporary, "layout")
            for folder in (context, store):
                folder.mkdir()
            for name in ("oci-layout", "index.json"):
                shutil.copy(layout / name, store)
            (store / "blobs").symlink_to(layout.resolve() / "blobs")
            (context / "Dockerfile").write_text(f"FROM built\nRUN --network=none {exec_form(command)}\n", "utf-8")
            argv = [
                *("build", "--progress", "rawjson", "--platform", str(platform), "--no-cache", "--provenance=false"),
                *("--build-context", f"built=oci-layout://{store}@{top.digest}", "--output", "type=cacheonly"),
                *(part for name, limit in COMMAND_LIMITS.items() for part in ("--ulimit", f"{name}={limit}")),
                str(context),
            ]
            story = Story(lambda _: None, "buildx", kept=COMMAND_LINES)
            ended = _buildx(engine, argv, self._seconds, self._env, story)
        return ran_in_a_build(story, ended, layout, command, self._seconds)

    def _docker(self, arguments: Sequence[str], what: str) -> bytes:
        """What a docker command prints; `BuildFailed` in its words where it fails."""
        ended = _run(["docker", *arguments], _DAEMON_SECONDS, self._env)
        if ended.timed_out:
            raise BuildFailed(f"{what}: docker {arguments[0]} did not end within {_DAEMON_SECONDS:.0f} s")
        if ended.status != 0:
            told = _last(ended)
            raise BuildFailed(f"{what}: docker {arguments[0]}: {told}", remedy=remedy(told))
        return ended.stdout

    def _remove_image(self, name: str) -> None:
        """Takes a name away, and what nobody else has a name for; images below it, which are somebody's, stay."""
        _run(["docker", "image", "rm", "--no-prune", name], _DAEMON_SECONDS, self._env)


def _look(env: Mapping[str, str]) -> _Engine | str:
    """The buildx builder in use, or why there is none: one clause, with what to do."""
    try:
        return _found(env)
    except BuildFailed as error:  # a program that is there and cannot be run
        return error.reason


def _found(env: Mapping[str, str]) -> _Engine | str:
    buildx = _buildx_program(env)
    if isinstance(buildx, str):
        return buildx
    told = _answer([*buildx, "inspect"], env)
    if told.status != 0:
        return f"buildx does not say which builder is in use: {_last(told)}"
    head, _, nodes = told.stdout.decode("utf-8", "replace").partition("\nNodes:")
    name, driver = (" ".join(_values(head, word)) for word in ("Name", "Driver"))
    if errors := _values(head, "Error") + _values(nodes, "Error"):
        return f"the buildx builder {name} cannot be used: {errors[0]}"
    # To build with a builder that does not run would start it.
    if idle := [one for one in _values(nodes, "Status") if one != "running"]:
        return (
            f"the buildx builder {name} ({driver}) is {idle[0]}; `docker buildx inspect --bootstrap {name}` starts it"
        )
    if driver == "docker" and not program("docker", env):
        return f"the buildx builder {name} (docker) hands images over through docker, which is not installed"
    platforms = [one.strip(" *") for line in _values(nodes, "Platforms") for one in line.split(",")]
    return _Engine(
        buildx=buildx,
        builder=name,
        driver=driver,
        platforms=frozenset(parse_platform(one) for one in platforms if one),
        loads=driver == "docker" and not _has_containerds_store(env),
    )


def _buildx_program(env: Mapping[str, str]) -> tuple[str, ...] | str:
    """How buildx is called: as a plugin of docker, or by itself."""
    if program("docker", env) and _answer(["docker", "buildx", "version"], env).status == 0:
        return ("docker", "buildx")
    if alone := program("docker-buildx", env):
        return (alone,)
    if program("docker", env):
        return "docker has no buildx; install it (docker-buildx-plugin or docker-buildx)"
    return "docker is not installed"


def _has_containerds_store(env: Mapping[str, str]) -> bool:
    """https://docs.docker.com/engine/storage/containerd/"""
    told = _answer(["docker", "info", "--format", "{{json .DriverStatus}}"], env)
    return b"io.containerd.snapshotter" in told.stdout


def _values(text: str, name: str) -> list[str]:
    """What `buildx inspect` says behind a word, once for each node."""
    return re.findall(rf"^{name}:[ \t]*(\S.*?)\s*$", text, re.MULTILINE)


def _answer(argv: Sequence[str], env: Mapping[str, str]) -> process.Ended:
    return _run(argv, _QUESTION_SECONDS, env)


def _run(
    argv: Sequence[str], seconds: float, env: Mapping[str, str], on_line: Callable[[str], None] | None = None
) -> process.Ended:
    try:
        return process.run(argv, timeout=seconds, env=env, on_line=on_line)
    except process.NotStarted as error:
        raise BuildFailed(
            f"{argv[0]} cannot be run: {error.strerror}", remedy="Repair PATH, or install it anew."
        ) from None


def _buildx(
    engine: _Engine, arguments: Sequence[str], seconds: float, env: Mapping[str, str], story: Story
) -> process.Ended:
    verb, *rest = arguments
    argv = [*engine.buildx, verb, "--builder", engine.builder, *rest]
    return _run(argv, seconds, env, story.read)


def _asked(request: BuildRequest) -> list[str]:
    """A build of what is asked for, whatever becomes of it."""
    arguments = {**request.arguments, "SOURCE_DATE_EPOCH": str(request.epoch)}
    return [
        *("build", "--progress", "rawjson", "--file", str(request.dockerfile)),
        *("--platform", ",".join(str(one) for one in sorted(request.platforms))),
        *(part for name, value in sorted(arguments.items()) for part in ("--build-arg", f"{name}={value}")),
        *(part for name, value in sorted(request.labels.items()) for part in ("--label", f"{name}={value}")),
        *(["--no-cache"] if request.no_cache else []),
        str(request.context),
    ]


def _new_name() -> str:
    return f"imagewright-{secrets.token_hex(8)}:build"


def _last(ended: process.Ended) -> str:
    """What a program said in the end, on one line."""
    if ended.timed_out:
        return f"it says nothing for {_QUESTION_SECONDS:.0f} s"
    lines = [clean(line) for line in ended.stderr.decode("utf-8", "replace").split("\n") if line.strip()]
    told = lines[-1] if lines else f"exit code {ended.status}"
    return re.sub(r"\A(?:ERROR: |Error response from daemon: |Error: )", "", told)
