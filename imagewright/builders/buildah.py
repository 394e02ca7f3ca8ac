"""The builder `buildah`: no daemon, and no rights that a locked-down machine would not give."""

import os
import re
import secrets
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from imagewright import process
from imagewright.builders import Abilities, BuildRequest, Ran, whole_or_nothing
from imagewright.builders.binfmt import runs
from imagewright.builders.commands import COMMAND_LINES, COMMAND_SECONDS, SHELL_STATUSES, took_too_long
from imagewright.builders.progress import SHOWN_LINES, clean, indented
from imagewright.builders.storage import Storage, Way, store, told
from imagewright.documents import (
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_MANIFEST,
    BadDocument,
    Descriptor,
    Manifest,
    load_json,
    parse_config,
    parse_manifest,
)
from imagewright.errors import BuildFailed, Failed
from imagewright.layout import Layout
from imagewright.names import Platform, parse_digest, parse_familiar
from imagewright.recipe import BUILDAH

_HOUR = 3600.0
_COMMAND_MEMORY = "2g"
_GRACE_SECONDS = 5.0
_NO_SHELL = SHELL_STATUSES[-1]

_LINGERING = ("/bin/sh", "-c", '/bin/sh -c "$0"; status=$?; sleep 0.2; exit $status')
"""How a command is run where buildah's isolation is `chroot`, which loses one in a hundred last words of who ends at once."""


class Buildah:
    """Builds with `buildah build`, one platform after another. storage: its own. timeout: seconds for a platform."""

    name = "buildah"
    family = BUILDAH
    can = Abilities(
        several_platforms=True,
        caches=(),
        attestations=False,
        reproducible=True,
        keeps_base_layers=True,
        replaces_from=True,
        runs=True,
        note="It needs neither root nor a daemon; `BUILDAH_ISOLATION=chroot` names the isolation that needs least.",
    )

    def __init__(self, storage: Storage, *, timeout: float = 2 * _HOUR) -> None:
        self._storage = storage
        self._timeout = timeout

    def unable(self, request: BuildRequest) -> str | None:
        """See `Builder`."""
        if request.dockerfile is None:
            return "the tool has no Dockerfile"
        if isinstance(way := self._storage.way(), str):
            return way
        if missing := [str(one) for one in request.platforms if not runs(one)]:
            return (
                f"this machine does not run {', '.join(missing)}; it would with an emulator "
                "(Debian: qemu-user-static and binfmt-support)"
            )
        return None

    def build(self, request: BuildRequest, into: Path, say: Callable[[str], None]) -> None:
        """See `Builder`. A failed step is named with its exit code and its last lines."""
        way = self._way(request.target)
        with whole_or_nothing(into, request.target) as folder:
            for platform in sorted(request.platforms):
                base = self._pull(way, request, platform, say) if request.base else ""
                image = self._image(way, request, platform, base, say)
                # For buildah a colon ends the path.
                place = f"oci:{folder}:{platform.architecture}{platform.variant}"
                argv = way.argv("push", "--quiet", "--format", "oci", "--blob-cache", str(way.blobs), image, place)
                self._ask(way, argv, f"{request.target}: buildah cannot write the image of {platform}")
            _normalise(Layout(folder), request)

    def run(self, layout: Path, platform: Platform, command: str) -> Ran:
        """See `Builder`. A command that takes too long has the status 124.

        Its memory is limited where buildah's isolation is `oci`; there it also sees no process but its own.
        """
        failed = f"buildah cannot run '{command}' in {layout}"
        chroot = self._way(failed).isolation == "chroot"
        lonely = () if chroot else ("--network", "none")
        limits = ("--memory", _COMMAND_MEMORY) if self._way(failed).isolation == "oci" else ()
        with store(self._way(failed)) as way, _nameable(layout, failed) as named:
            options = ("--platform", str(platform), *way.isolated(), "--http-proxy=false", "--ulimit", "core=0:0")
            words = ("--quiet", "--name", "it", *options, *lonely, *limits, f"oci:{named}")
            self._ask(way, way.argv("from", *words), failed)
            words = (
                *way.isolated(),
                *lonely,
                "--cap-drop",
                "all",
                "it",
                "--",
                *(_LINGERING if chroot else ("/bin/sh", "-c")),
                command,
            )
            argv = way.argv("run", *words)
            lines: deque[str] = deque(maxlen=COMMAND_LINES)
            seconds = min(self._timeout, COMMAND_SECONDS)
            # `chroot` has its caller's network, so its caller must have none; for that it takes root, of a kind.
            alone = [*(() if os.geteuid() == 0 else ("buildah", "unshare")), "unshare", "--net"] if chroot else []
            ended = _run(way, [*alone, *argv], seconds, lines.append)
        told_all = _Told.of([clean(line) for line in lines])
        if ended.seconds >= seconds:
            return took_too_long(told_all.output, seconds)
        if why := [line for line in told_all.output if ended.status == 1 and _NOT_STARTED.search(line)]:
            if "no such file" not in why[0]:
                raise BuildFailed(f"{failed}: {why[0]}")
            return Ran(status=_NO_SHELL, output=tuple(why))
        if ended.status != 0 and not _EXIT.match(told_all.problem):
            raise BuildFailed(
                f"{failed}: {told_all.problem or f'exit code {ended.status}'}" + indented(told_all.output)
            )
        return Ran(status=ended.status, output=told_all.output)

    def _way(self, doing: str) -> Way:
        way = self._storage.way()
        if isinstance(way, str):
            raise BuildFailed(f"{doing}: {way}")
        return way

    def _ask(self, way: Way, argv: Sequence[str], failed: str) -> str:
        """What buildah prints; `BuildFailed`, which begins with `failed`, where it does not do it."""
        ended = process.run(argv, timeout=self._timeout, env=way.env)
        if ended.timed_out:
            raise BuildFailed(f"{failed}: it did not end within {self._timeout:.0f} s")
        if ended.status != 0:
            words = told(ended)
            raise BuildFailed(f"{failed}: {words}", remedy=_remedy((*_REMEDIES, *_REGISTRY_REMEDIES), words, way))
        return ended.stdout.decode("utf-8", "replace").strip()

    def _pull(self, way: Way, request: BuildRequest, platform: Platform, say: Callable[[str], None]) -> str:
        """The id of the base's image for the platform, which is in the storage then."""
        say(f"{platform}: from {request.base}")
        failed = f"{request.target}: the base {request.base} cannot be read"
        options = ("--quiet", "--blob-cache", str(way.blobs), "--platform", str(platform))
        image = self._ask(way, way.argv("pull", *options, str(request.base)), failed).split()[-1]
        found = self._platform(way, image)
        # Of a base without an index, or without the platform in it, buildah takes what there is, with a warning.
        if not _is(found, platform):
            raise BuildFailed(
                f"{request.target}: the base {request.base} lacks {platform}; it has {found.normalised()}",
                remedy="Leave the platform out for this base, or publish the base for it.",
            )
        return image

    def _image(self, way: Way, request: BuildRequest, platform: Platform, base: str, say: Callable[[str], None]) -> str:
        """The id of the image for the platform, which is in the storage then."""
        with tempfile.TemporaryDirectory(dir=way.folder) as scratch:
            made = Path(scratch, "id")
            options = (*_options(request, platform, base), *way.isolated(), "--iidfile", str(made))
            story = _Story(say, request, platform)
            ended = _run(way, way.argv("build", *options, str(request.context)), self._timeout, story.read)
            if ended.seconds >= self._timeout:
                raise BuildFailed(f"{request.target}: the build did not end within {self._timeout:.0f} s")
            if ended.status != 0:
                raise story.failure(way, ended.status)
            return made.read_text("ascii").strip()

    def _platform(self, way: Way, image: str) -> Platform:
        """What an image in the storage says that it is for."""
        shape = "{{.OCIv1.OS}}/{{.OCIv1.Architecture}}/{{.OCIv1.Variant}}"
        argv = way.argv("inspect", "--type", "image", "--format", shape, image)
        return Platform(*self._ask(way, argv, f"buildah cannot inspect {image}").split("/"))


@contextmanager
def _nameable(layout: Path, failed: str) -> Iterator[Path]:
    """The same layout at a path that can be the name of an image, as buildah makes one of it; not every TMPDIR can."""
    try:
        (top,) = Layout(layout).entries()
    except (Failed, ValueError) as error:
        raise BuildFailed(f"{failed}: {error}") from None
    view = Layout.create(Path("/tmp") / f"imagewright-{secrets.token_hex(8)}")  # noqa: S108 - random, ours alone
    try:
        shutil.rmtree(view.path / "blobs")
        (view.path / "blobs").symlink_to(layout.resolve() / "blobs")
        view.write_entries([{"mediaType": top.media_type, "digest": top.digest, "size": top.size}])
        yield view.path
    finally:
        shutil.rmtree(view.path, ignore_errors=True)


def _is(found: Platform, wanted: Platform) -> bool:
    """Whether an image's platform is the one that is wanted; many images leave out their variant."""
    if not found.variant:
        return (found.os, found.architecture) == (wanted.os, wanted.architecture)
    return found.normalised() == wanted.normalised()


@contextmanager
def buildah(env: Mapping[str, str], *, plain_http: Collection[str] = ()) -> Iterator[Buildah]:
    """The builder with a storage of images that is its own and ends with the block; see `Storage`."""
    storage = Storage(env, plain_http=plain_http)
    try:
        yield Buildah(storage)
    finally:
        storage.remove()


def _run(way: Way, argv: Sequence[str], seconds: float, on_line: Callable[[str], None]) -> process.Ended:
    """Runs buildah for so many seconds at most. Its two outputs are one, so that lines come in their order."""
    # Interrupted, buildah ends what it runs in a process group of its own; killed, it cannot.
    limited = ["timeout", "--signal=INT", f"--kill-after={_GRACE_SECONDS:.0f}", f"{seconds}", *argv]
    return process.run(
        ["/bin/sh", "-c", 'exec "$@" 2>&1', "sh", *limited],
        timeout=seconds + 2 * _GRACE_SECONDS,
        env=way.env,
        on_line=on_line,
    )


def _options(request: BuildRequest, platform: Platform, base: str) -> list[str]:
    """What follows `buildah build`, but for how programs are isolated. base: its image's id, empty if there is none."""
    dockerfile = cast("Path", request.dockerfile)
    arguments = {**request.arguments, "SOURCE_DATE_EPOCH": str(request.epoch)}
    # By its id: another build may have the name stand for another platform's image meanwhile.
    names = {
        str(request.base),
        *((request.stands_for, str(parse_familiar(request.stands_for))) if request.stands_for else ()),
    }
    # A step is a layer, as with BuildKit, but none is taken over: `FROM scratch` of one platform would be that of all.
    return [
        *("--format", "oci", "--platform", str(platform), "--timestamp", str(request.epoch), "--identity-label=false"),
        *("--layers", "--no-cache", "--pull=false", "--network", "host", "--file", str(dockerfile)),
        *("--ignorefile", str(_ignore_file(request.context, dockerfile))),
        *(part for name in sorted(names) if base for part in ("--build-context", f"{name}=container-image://{base}")),
        *(part for name, value in sorted(arguments.items()) for part in ("--build-arg", f"{name}={value}")),
        *(part for name, value in sorted(request.labels.items()) for part in ("--label", f"{name}={value}")),
    ]


def _ignore_file(context: Path, dockerfile: Path) -> Path:
    """What BuildKit would read; else nothing, as buildah has names of its own for it."""
    candidates = (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore")
    return next((one for one in candidates if one.is_file()), Path("/dev/null"))


def _normalise(layout: Layout, request: BuildRequest) -> None:
    """Makes an index of the images that buildah wrote. `BuildFailed` where they are not those that were asked for."""
    try:
        children = [_plain(layout, one) for one in layout.entries()]
        found = {one.platform.normalised() for one in children if one.platform}
        if found != {one.normalised() for one in request.platforms} or len(found) != len(children):
            made = ", ".join(str(one) for one in sorted(found)) or "nothing"
            raise BuildFailed(f"{request.target}: buildah made {made}, which is not what was asked for")
        layout.write_only_index(children, request.annotations)
    except (ValueError, BadDocument) as error:
        raise BuildFailed(f"{request.target}: buildah's layout is not one image: {error}") from None


def _plain(layout: Layout, entry: Descriptor) -> Descriptor:
    """Writes an image anew without what depends on who built it where, or is wrong.

    As the base buildah's annotations name the step before the last; its history has hashes of who owns the files that
    were copied, and ids that follow from these.
    """
    content = layout.read(entry.digest, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(content, entry.media_type)
    if not isinstance(manifest, Manifest) or not manifest.config or manifest.media_type != OCI_MANIFEST:
        raise ValueError(f"{entry.digest} is a {manifest.media_type}")
    described = layout.read(manifest.config.digest, MAX_CONFIG_BYTES)
    platform = parse_config(described).platform
    config = cast("dict[str, Any]", load_json(described, MAX_CONFIG_BYTES))
    config["history"] = [_plain_step(one) for one in config.get("history") or ()]
    members = cast("dict[str, Any]", load_json(content, MAX_MANIFEST_BYTES))
    members.pop("annotations", None)
    for digest in (entry.digest, manifest.config.digest):
        layout.blob_path(digest).unlink()
    members["config"] = layout.add_json(config, OCI_CONFIG)
    written = parse_digest(str(layout.add_json(members, OCI_MANIFEST)["digest"]))
    return Descriptor(media_type=OCI_MANIFEST, digest=written, size=layout.size(written), platform=platform)


_COPIED = re.compile(r"(#\(nop\) (?:ADD|COPY)) (?:file|dir|multi):[0-9a-f]{64} in ")


def _plain_step(step: Mapping[str, object]) -> dict[str, object]:
    kept = {name: value for name, value in step.items() if name != "comment" or not str(value).startswith("FROM ")}
    return kept | {"created_by": _COPIED.sub(r"\1 ", str(step.get("created_by", "")))}


_STEP = re.compile(r"(?:\[(\d+/\d+)\] )?STEP (\d+/\d+): (.*)\Z")
_AT_STEP = 'Error: building at STEP "'
_LAST_WORDS = re.compile(rf"{_AT_STEP}|\AError: ")
_EXIT = re.compile(r"\A(?:while running runtime: )?exit status (\d+)\Z")
_NOISE = re.compile(r"(?:(?:subprocess|container) exited (?:with status \d+|on [\w ]+))+\Z|\Atime=\"[^\"]*\" level=.*")
_NOT_STARTED = re.compile(r"\A(?:error running container: from|process failed to start with error:) ")
_SHORT_NAME = re.compile(r'Resolv(?:ed|ing) "([^"]*)" (?:as an alias|using unqualified-search)')
_PARSING = re.compile(r"\A(?:parsing main Dockerfile: \S.*?: )?(([A-Z]+)\b.*)\Z")
_INNARDS = re.compile(r" &imagebuilder\.Step\{.*", re.DOTALL)

_REMEDIES = (
    (r"(?i)no space left on device", "Make room in {folder} (TMPDIR names another), and where the image is written."),
    (r"(?i)exec format error", "Install an emulator (Debian: qemu-user-static and binfmt-support)."),
)
"""What to do about an error in which the expression is found; the first counts."""
_REGISTRY_REMEDIES = (
    (r"manifest unknown|not found", "Look whether the base is still there; a new plan takes the base of today."),
    (r"(?i)unauthorized|denied", "Log in to the registry: REGISTRY_AUTH_FILE, or `buildah login`."),
    (r"pinging container registry|no such host", "Look whether the registry can be reached from here."),
)
"""The same for what has to do with a registry."""
_CORRECT = "Correct the Dockerfile."


class _Story:
    """What buildah tells while it builds for one platform. say: takes each line fit to be shown."""

    def __init__(self, say: Callable[[str], None], request: BuildRequest, platform: Platform) -> None:
        self._say = say
        self._request = request
        self._platform = f"{platform} " if len(request.platforms) > 1 else ""
        self._number = "  "
        self._step = ""
        self._lines: deque[str] = deque(maxlen=200)

    def read(self, line: str) -> None:
        """Takes one line. `BuildFailed` where buildah would look for an image somewhere, or take another than the base."""
        text = clean(line)
        if found := _STEP.match(text):
            stage = f"{found[1]} " if found[1] else ""
            self._number, self._step = f"[{self._platform}{stage}{found[2]}]", found[3]
            self._lines.clear()
            self._say(f"{self._number} {self._step}")
        else:
            self._lines.append(text)
            self._say(f"{self._number} {text}")
        if found := _SHORT_NAME.match(text):
            raise BuildFailed(
                f"{self._request.target}: the image '{found[1]}' can be one of any registry",
                remedy="Write the registry too, e.g. docker.io/library/debian:12.",
                where=self._place(self._step),
            )
        words = self._request.stands_for
        if words and self._step.split()[:2] in (["FROM", words], ["FROM", str(parse_familiar(words))]):
            raise BuildFailed(
                f"{self._request.target}: buildah does not put the base in the place of FROM {words} as it stands there",
                remedy="Write it without a variable, or start from ARG BASE_IMAGE.",
                where=str(self._request.dockerfile),
            )

    def failure(self, way: Way, status: int) -> BuildFailed:
        """The error to raise after buildah has ended with that status."""
        all_told = _Told.of(self._lines, self._step)
        problem = all_told.problem or f"buildah ended with status {status}"
        target, dockerfile = self._request.target, self._request.dockerfile
        if all_told.at_step:
            name, where = f"{target}: {self._number} {self._step}", self._place(self._step)
            if code := _EXIT.match(problem):
                lines = all_told.output[-SHOWN_LINES:]
                remedy = _remedy(_REMEDIES, "\n".join(lines), way)
                return BuildFailed(f"{name}: exit code {code[1]}" + indented(lines), where=where, remedy=remedy)
            advice = _remedy(_REMEDIES, problem, way) or _CORRECT
            return BuildFailed(f"{name}: {problem}", where=where, remedy=advice)
        if found := _PARSING.match(problem):
            return BuildFailed(f"{target}: {found[1]}", where=self._only(found[2]), remedy=_CORRECT)
        advice = _remedy((*_REMEDIES, *_REGISTRY_REMEDIES), problem, way)
        return BuildFailed(f"{target}: {problem}", where=str(dockerfile), remedy=advice)

    def _place(self, step: str) -> str:
        """`Dockerfile:line` of a step, if it stands there once as it is told; else the Dockerfile."""
        return self._line(lambda words: words == step.split())

    def _only(self, instruction: str) -> str:
        """`Dockerfile:line` of the instruction of that name, if there is but one; else the Dockerfile."""
        return self._line(lambda words: words[0].upper() == instruction)

    def _line(self, wanted: Callable[[list[str]], bool]) -> str:
        dockerfile = cast("Path", self._request.dockerfile)
        found = [line for line, words in _instructions(dockerfile) if wanted(words)]
        return f"{dockerfile}:{found[0]}" if len(found) == 1 else str(dockerfile)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """What was printed, apart. output: of programs. problem: buildah's own last words, in one line. at_step: of a step."""

    output: tuple[str, ...]
    problem: str = ""
    at_step: bool = False

    @classmethod
    def of(cls, lines: Collection[str], step: str = "") -> "_Told":
        """Lines in their order. step: the one that they are of. A program that ends without a newline is told too."""
        listed = list(lines)
        ends = [(at, found) for at, line in enumerate(listed) if (found := _LAST_WORDS.search(line))]
        if not ends:
            return cls(output=_without_noise(listed))
        at, found = ends[-1]
        words = "\n".join([listed[at][found.end() :], *listed[at + 1 :]])
        at_step = found[0] == _AT_STEP
        if at_step:
            own = f'{step}": '
            words = words.removeprefix(own) if words.startswith(own) else words.partition('": ')[2]
        problem = " ".join(_INNARDS.sub("", words).split())
        return cls(output=_without_noise([*listed[:at], listed[at][: found.start()]]), problem=problem, at_step=at_step)


def _without_noise(lines: Iterable[str]) -> tuple[str, ...]:
    """Lines without what buildah says among them of how a program ended, and without its log."""
    cleaned = [_NOISE.sub("", line) for line in lines]
    return tuple(text for text in cleaned if text)


def _instructions(dockerfile: Path) -> Iterator[tuple[int, list[str]]]:
    """Line and words of each instruction, joined where a backslash ends a line. None where there is no such file."""
    started, text = 0, ""
    lines = dockerfile.read_text("utf-8", "replace").splitlines() if dockerfile.is_file() else ()
    for number, line in enumerate(lines, 1):
        words = line.strip()
        if not words or words.startswith("#"):
            continue
        started = started or number
        text += words.removesuffix("\\")
        if words.endswith("\\"):
            text += " "
            continue
        yield started, text.split()
        started, text = 0, ""


def _remedy(table: Iterable[tuple[str, str]], text: str, way: Way) -> str:
    place = way.folder.parent
    return next((advice.format(folder=place) for found, advice in table if re.search(found, text)), "")
