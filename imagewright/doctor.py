"""What this machine and this project lack, judged from what was found. Values in, findings out; nobody is asked here."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from urllib.parse import urlsplit

from imagewright.cage import MEMORY, PROCESSES
from imagewright.errors import Exit
from imagewright.forge.answers import Unreadable
from imagewright.forge.place import Address
from imagewright.names import Platform, is_loopback
from imagewright.settings import Settings, Surroundings

CHECKS, DISPATCH = "pytest checks/", "imagewright dispatch"


class State(Enum):
    """What a finding means: nothing against it, good to know, or what needs it cannot run here."""

    OK = "ok"
    NOTE = "note"
    PROBLEM = "problem"


_GLYPHS = {State.OK: "✓", State.NOTE: "-", State.PROBLEM: "✗"}
_COLOURS = {State.OK: "green", State.NOTE: "", State.PROBLEM: "red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. found: in a line. details: more lines. remedy: empty where nothing has to be done.

    needed_by: what cannot run where it is a problem, CHECKS or DISPATCH.
    """

    subject: str
    state: State
    found: str
    details: tuple[str, ...] = ()
    remedy: str = ""
    needed_by: str = CHECKS

    def as_json(self) -> dict[str, object]:
        """As it stands in the output of `doctor --json`."""
        return {
            "subject": self.subject,
            "state": self.state.value,
            "found": self.found,
            "details": list(self.details),
            "remedy": self.remedy,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A program that was asked something. place: where it is, empty where it is not installed. said: its first line.

    ok: it answered, with status 0 and in time.
    """

    place: str = ""
    ok: bool = False
    said: str = ""


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a registry answers to a GET of `/v2/`. ahead: seconds by which its clock is ahead of ours, None if unknown."""

    status: int
    ahead: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """The builder that would build, empty for none. passed_over: why each that would have come before it cannot."""

    name: str = ""
    passed_over: tuple[str, ...] = ()


def ready(findings: Iterable[Finding]) -> bool:
    """Whether `pytest checks/` can run here."""
    return not _problems(findings, CHECKS)


def _problems(findings: Iterable[Finding], needed_by: str) -> int:
    return sum(one.state is State.PROBLEM and one.needed_by == needed_by for one in findings)


def exit_code(findings: Sequence[Finding], *, catalogue_is_bad: bool) -> Exit:
    """The exit code of a doctor who found that."""
    if catalogue_is_bad:
        return Exit.BAD_CATALOGUE
    return Exit.FAILED if any(one.state is State.PROBLEM for one in findings) else Exit.DONE


def lines(findings: Sequence[Finding]) -> Iterator[tuple[str, str]]:
    """The findings as lines, each with its colour, empty for none."""
    width = max((len(one.subject) for one in findings), default=0)
    for one in findings:
        first, *rest = one.found.splitlines()
        indent = " " * (width + 4)
        yield f"{_GLYPHS[one.state]} {one.subject:<{width}}  {first}", _COLOURS[one.state]
        for detail in (*rest, *one.details):
            yield f"{indent}{detail.strip()}", _COLOURS[one.state]
        if one.remedy:
            yield f"{indent}→ {one.remedy}", _COLOURS[one.state]
    if ready(findings):
        yield f"{CHECKS} can run here", "green"
    for what in (CHECKS, DISPATCH):
        if count := _problems(findings, what):
            yield f"{what} cannot run here: {count} {'problem' if count == 1 else 'problems'}", "red"


def catalogue(settings: Settings, tools: int, images: int, source: str) -> Finding:
    """A project whose settings, tools and images could be loaded. source: the file of the settings."""
    bases = settings.bases
    count = " and ".join(
        f"{number} {word if number == 1 else f'{word}s'}"
        for number, word in ((tools, "tool"), (images, "image"))
        if number
    )
    where = f"discovered in {bases.repository}" if bases.discover else f"{', '.join(bases.names)} in {bases.repository}"
    excluded = f", without {', '.join(bases.exclude)}" if bases.exclude else ""
    return Finding(
        subject="project",
        state=State.OK,
        found=f"{count} for {settings.repository if tools else settings.images.repository} ({source})",
        details=(f"bases: {where}{excluded}",) if tools else (),
    )


def checks(promises: int | None, loads_the_plugin: bool) -> Finding:
    """The checks of the project. promises: how many there are; None where they could not be read."""
    subject, remedy = "checks", "Run `imagewright init`: it adds what is missing."
    if promises is None:
        found, remedy = "a file in checks/ is not Python", "Run `pytest checks/`: it names the line."
    elif not promises:
        found = "there are none in checks/"
    elif not loads_the_plugin:
        found = "conftest.py does not load the plugin"
    else:
        return Finding(subject=subject, state=State.OK, found=f"{promises} in checks/, conftest.py loads the plugin")
    return Finding(subject=subject, state=State.PROBLEM, found=found, remedy=remedy)


def program(subject: str, asked: Asked, without: str, remedy: str = "") -> Finding:
    """A program that is good to have. without: what its absence means."""
    if asked.ok:
        return Finding(subject=subject, state=State.OK, found=f"{asked.said} ({asked.place})")
    said = f"{asked.place} does not answer: {asked.said}" if asked.place else "not installed"
    return Finding(subject=subject, state=State.NOTE, found=f"{said}; {without}" if without else said, remedy=remedy)


def buildkit(client: Asked, daemon: Asked, workers: Asked, address: str) -> Finding:
    """BuildKit: buildctl, buildkitd, and what answers at the address. https://github.com/moby/buildkit"""
    if not client.place:
        found = "buildctl is not installed" + (f", buildkitd is: {daemon.place}" if daemon.place else "")
        return Finding(subject="buildkit", state=State.NOTE, found=found)
    details = (f"{daemon.said} ({daemon.place})",) if daemon.place else ("buildkitd is not installed",)
    answer = f"answers at {address}" if workers.ok else f"none answers at {address}: {workers.said}"
    state = State.OK if workers.ok else State.NOTE
    return Finding(subject="buildkit", state=state, found=f"{client.said} ({client.place}); {answer}", details=details)


def docker(client: Asked, daemon: Asked, buildx: Asked) -> Finding:
    """Docker: the client, its daemon, and buildx, which builds for several platforms."""
    if not client.place:
        return Finding(subject="docker", state=State.NOTE, found="not installed")
    details = (
        f"its daemon answers: {daemon.said}" if daemon.ok else f"its daemon does not answer: {daemon.said}",
        f"buildx: {buildx.said}" if buildx.ok else "buildx is not installed",
    )
    state = State.OK if daemon.ok else State.NOTE
    return Finding(subject="docker", state=state, found=f"{client.said} ({client.place})", details=details)


def builder(setting: str, chosen: Chosen | None, *, starts: bool) -> Finding:
    """Which builder would build. chosen: None where the builders did not say in time.

    starts: BuildKit is not running, and can be started for the occasion.
    """
    subject = "builder"
    if starts and (chosen is None or chosen.name != "buildkit"):
        found = f"`{setting}` takes buildkit, and starts a buildkitd for the occasion"
        return Finding(subject=subject, state=State.OK, found=found)
    if chosen is None:
        found = f"the builders did not say in time which of them `{setting}` takes"
        return Finding(subject=subject, state=State.NOTE, found=found)
    if chosen.name:
        found = f"`{setting}` takes {chosen.name}"
        return Finding(subject=subject, state=State.OK, found=found, details=chosen.passed_over)
    return Finding(
        subject=subject,
        state=State.NOTE,
        found=f"`{setting}` finds none: nothing can be built here",
        details=chosen.passed_over,
        remedy="Install BuildKit, docker or buildah; checks need none of them.",
    )


_EMULATORS = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "arm": "arm"}
"""Architecture → its name in QEMU, where the two differ."""
_RUNS_TOO = {"x86_64": {"amd64", "386"}, "aarch64": {"arm64"}, "arm64": {"arm64"}}
"""Machine, as the kernel calls it → architectures that it runs itself."""


def emulation(platforms: Iterable[Platform], machine: str, handlers: Mapping[str, str]) -> list[Finding]:
    """How each platform would be built on this machine. handlers: of binfmt_misc, name → content.

    https://docs.kernel.org/admin-guide/binfmt-misc.html: without flag F the kernel looks for the emulator within the
    container, where it is not.
    """
    found = []
    for platform in platforms:
        name = f"qemu-{_EMULATORS.get(platform.architecture, platform.architecture)}"
        flags = next((line[7:] for line in handlers.get(name, "").splitlines() if line.startswith("flags: ")), "")
        enabled = handlers.get(name, "").startswith("enabled")
        remedy = "Debian: apt-get install qemu-user-static binfmt-support."
        if platform.architecture in _RUNS_TOO.get(machine, {machine}):
            state, what, remedy = State.OK, "this machine's own", ""
        elif not enabled:
            state, what = State.NOTE, f"no emulator ({name}): it cannot be built here"
        elif "F" not in flags:
            state, what = State.NOTE, f"{name} lacks the flag F: containers do not find it"
        else:
            state, what, remedy = State.OK, f"emulated by {name}", ""
        found.append(Finding(subject=str(platform), state=state, found=what, remedy=remedy))
    return found


def versions(settings: Settings, bash: Asked, engine: str, uncaged: str) -> Finding:
    """How versions are read. engine: the container engine that would run the version-check image, empty for none.

    uncaged: why scripts get no namespaces of their own on this host, empty where they do.
    """
    subject, image, fallback = "versions", settings.versions.image, settings.versions.host_fallback
    no_bash = "bash is not installed: no version.sh runs on this host"
    if not image:
        if bash.place:
            found = f"every version.sh runs on this host, by {bash.place}"
            return Finding(subject=subject, state=State.OK, found=found, details=_cage(settings, uncaged))
        return Finding(subject=subject, state=State.PROBLEM, found=no_bash, remedy="Install bash.")
    if engine:
        return Finding(subject=subject, state=State.OK, found=f"every version.sh runs in {image}, by {engine}")
    found = f"neither docker nor podman answers, which {image} needs"
    if fallback and bash.place:
        found = f"{found}; every version.sh runs on this host"
        return Finding(subject=subject, state=State.NOTE, found=found, details=_cage(settings, uncaged))
    details = (no_bash,) if fallback else ("host-fallback is false",)
    remedy = "Install one of them, or let the host be asked."
    return Finding(subject=subject, state=State.PROBLEM, found=found, details=details, remedy=remedy)


def _cage(settings: Settings, uncaged: str) -> tuple[str, ...]:
    memory = f"{MEMORY // 2**30} GiB of memory a process"
    if uncaged:
        return (
            f"held by its process group alone, as there are no namespaces: {uncaged}",
            f"each at most {settings.versions.timeout:g} s and {memory}",
        )
    return (
        "in PID and mount namespaces of its own: it sees no other process, no home directory, and only reads its folder",
        f"each at most {settings.versions.timeout:g} s, {PROCESSES} processes and {memory}",
    )


def registry(host: str, answer: Greeting | str, credential: str) -> Finding:
    """A registry. answer: to a GET of `/v2/`, or why there is none. credential: where it would come from."""
    login = f"credential: {credential}" if credential else "no credential: asked anonymously"
    if isinstance(answer, str) or answer.status not in (200, 401):
        what = f"does not answer: {answer}" if isinstance(answer, str) else f"status {answer.status} to GET /v2/"
        remedy = "See whether this is a registry, and whether a proxy stands between."
        return Finding(subject=host, state=State.PROBLEM, found=what, details=(login,), remedy=remedy)
    if answer.ahead is None or abs(answer.ahead) <= _SKEW:
        return Finding(subject=host, state=State.OK, found="answers", details=(login,))
    clock = f"its clock is {abs(answer.ahead):.0f} s {'ahead of' if answer.ahead > 0 else 'behind'} this one"
    remedy = "Set the clock that is wrong: certificates, tokens and the age of a report depend on it."
    return Finding(subject=host, state=State.NOTE, found=f"answers; {clock}", details=(login,), remedy=remedy)


_SKEW = 60.0
"""Seconds by which two clocks may differ unnoticed: tokens live for minutes."""


def forge(address: Address, variable: str, workflow: str, trouble: Unreadable | None) -> Finding:
    """Where builds are asked for. variable: with the token, empty for none. trouble: why its runs cannot be read, if so."""
    subject = "forge"
    if not address.repository:
        found = f"none is named: outside of Actions {DISPATCH} asks nobody for builds"
        return Finding(subject=subject, state=State.NOTE, found=found)
    place = f"{address.repository} at {address.api} ({address.kind})"
    if not variable:
        details, remedy = ("no token: nothing was asked",), f"For {DISPATCH}: set {' or '.join(address.variables)}."
        return Finding(subject=subject, state=State.NOTE, found=place, details=details, remedy=remedy)
    token = f"token: {variable}"
    if trouble:
        return Finding(
            subject=subject,
            state=State.PROBLEM,
            found=place,
            details=(token, trouble.reason),
            remedy=trouble.remedy,
            needed_by=DISPATCH,
        )
    return Finding(subject=subject, state=State.OK, found=place, details=(token, f"the runs of {workflow} can be read"))


def limits(settings: Settings, hosts: Iterable[str]) -> Finding:
    """What holds for every question to a registry."""
    most = settings.limits
    seconds = (
        f"{most.connect:g} s to connect, {most.read:g} s of silence, {most.total:g} s for a request with its retries"
    )
    polite = tuple(
        f"{host}: {one.connections} connections, "
        + ("as many requests a second as they carry" if is_loopback(host) else f"{one.per_second:g} requests a second")
        for host, one in ((host, settings.host(host)) for host in hosts)
    )
    return Finding(subject="limits", state=State.OK, found=seconds, details=polite)


def surroundings(around: Surroundings, *, bundle_is_there: bool) -> Finding:
    """Proxies and trusted authorities in force. Of a proxy's address nothing that may be a login is shown."""
    proxies = [f"{scheme} by {_address(url)}" for scheme, url in sorted(around.proxies.items())]
    found = ", ".join(proxies) or "no proxy"
    if proxies and around.no_proxy:
        found += f", not for {around.no_proxy}"
    details = (f"trusted authorities: {around.ca_bundle or 'those that come with requests'}",)
    if around.ca_bundle and not bundle_is_there:
        details = (f"trusted authorities: there is no {around.ca_bundle}",)
        remedy = "Mend REQUESTS_CA_BUNDLE or SSL_CERT_FILE."
        return Finding(subject="network", state=State.PROBLEM, found=found, details=details, remedy=remedy)
    return Finding(subject="network", state=State.OK, found=found, details=details)


def _address(url: str) -> str:
    try:
        parts = urlsplit(url if "//" in url else f"//{url}")
        return f"{parts.hostname or '?'}:{parts.port}" if parts.port else parts.hostname or "?"
    except ValueError:  # no address at all
        return "?"


def state_folder(path: str, *, writable: bool) -> Finding:
    """Where a run leaves its files."""
    if writable:
        return Finding(subject="files", state=State.OK, found=f"{path} can be written")
    remedy = "Let this user write there; --json-report-file puts a run's files elsewhere."
    return Finding(subject="files", state=State.PROBLEM, found=f"{path} cannot be written", remedy=remedy)
