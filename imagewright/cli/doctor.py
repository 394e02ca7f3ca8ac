"""`imagewright doctor`: looks, with a limit on every question; what it means is decided in `imagewright.doctor`."""

import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import click
import requests

from imagewright import cage, process, suite
from imagewright import doctor as judge
from imagewright.builders import BuildRequest, choose
from imagewright.builders.buildkit import DEFAULT_ADDRESS
from imagewright.builders.daemon import lacking
from imagewright.catalogue import Catalogue, Source
from imagewright.cli import Place
from imagewright.cli.engines import engines
from imagewright.doctor import Asked, Finding, State
from imagewright.edits import CONFTEST, loads_the_plugin
from imagewright.errors import BadCatalogue, BuildFailed
from imagewright.forge.answers import Unreadable
from imagewright.forge.client import Forge
from imagewright.forge.place import address_of, place_of
from imagewright.load import OWN_FILE, PROJECT_FILE, load_catalogue
from imagewright.names import Digest, is_loopback, shown
from imagewright.registry.auth import DOCKER_HUB, Credentials
from imagewright.registry.client import Client
from imagewright.registry.transport import GuardedSession, trouble_of
from imagewright.settings import Limits, Settings, surroundings
from imagewright.state import DEFAULT

_T = TypeVar("_T")
_SECONDS = 5.0
"""For one question to a program."""
_ALL_SECONDS = 10.0
"""For all questions together, which are asked at once."""
_LIMITS = Limits(connect=4, read=5, total=8)
_NO_FORGE = "See whether the forge is there, and whether a proxy stands between."
_BINFMT = Path("/proc/sys/fs/binfmt_misc")
_QUESTIONS = {
    "git": ("git", "--version"),
    "bash": ("bash", "--version"),
    "buildctl": ("buildctl", "--version"),
    "buildkitd": ("buildkitd", "--version"),
    "docker": ("docker", "--version"),
    "docker daemon": ("docker", "version", "--format", "{{.Server.Version}}"),
    "buildx": ("docker", "buildx", "version"),
    "buildah": ("buildah", "--version"),
    "podman": ("podman", "--version"),
}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_obj
def doctor(place: Place, as_json: bool) -> int:
    """Say what is installed and reachable here, and what to do about the rest. Changes nothing, starts nothing.

    \b
    imagewright doctor
    imagewright doctor --json
    """
    try:
        catalogue, problem = load_catalogue(place.root, place.environ), ""
    except BadCatalogue as error:
        catalogue, problem = None, str(error)
    findings = _findings(place, catalogue, problem)
    if as_json:
        members = {"ready": judge.ready(findings), "findings": [one.as_json() for one in findings]}
        click.echo(json.dumps({"schema": 1, **members}))
    else:
        for text, colour in judge.lines(findings):
            click.secho(text, fg=colour or None)
    return judge.exit_code(findings, catalogue_is_bad=catalogue is None)


def _findings(place: Place, catalogue: Catalogue | None, problem: str) -> list[Finding]:
    address = place.environ.get("BUILDKIT_HOST") or DEFAULT_ADDRESS
    questions = {**_QUESTIONS, "workers": ("buildctl", "--addr", address, "debug", "workers")}
    settings = catalogue.settings if catalogue else None
    pool = ThreadPoolExecutor(32, thread_name_prefix="doctor")
    programs = {name: pool.submit(_ask, argv, place.environ) for name, argv in questions.items()}
    registries = {host: pool.submit(_registry, host, place, settings) for host in _hosts(settings) if settings}
    runs = [pool.submit(_runs, place, settings)] if settings else []
    choices = [pool.submit(_choose, catalogue, place)] if catalogue else []
    begun: list[Future[Any]] = [*programs.values(), *registries.values(), *runs, *choices]
    wait(begun, timeout=_ALL_SECONDS)
    pool.shutdown(wait=False, cancel_futures=True)
    asked = {name: _result(one, Asked(place=questions[name][0], said=_late())) for name, one in programs.items()}
    answers = {host: _result(one, _late()) for host, one in registries.items()}
    found = [_runtime(), _project(place, catalogue, problem), _checks(place), _files(place)]
    if catalogue:
        uncaged = cage.kind(place.environ.get("PATH", "")).why_not
        found.append(judge.versions(catalogue.settings, asked["bash"], _container_engine(asked), uncaged))
        credentials = Credentials(surroundings(place.environ))
        for host, answer in answers.items():
            found.append(judge.registry(host, answer, _credential(catalogue.settings, host, credentials)))
        found.append(judge.limits(catalogue.settings, answers))
        found.append(_forge(place, catalogue.settings, _result(runs[0], Unreadable(_late(), remedy=_NO_FORGE))))
    around = surroundings(place.environ)
    found += [
        judge.surroundings(around, bundle_is_there=Path(around.ca_bundle).exists()),
        judge.program("git", asked["git"], "images will not name a revision"),
        judge.buildkit(asked["buildctl"], asked["buildkitd"], asked["workers"], address),
        judge.docker(asked["docker"], asked["docker daemon"], asked["buildx"]),
        judge.program("buildah", asked["buildah"], ""),
        judge.program("podman", asked["podman"], ""),
    ]
    if catalogue:
        starts = _starts_buildkitd(catalogue, place, asked)
        choice = _result(choices[0], None)
        found.append(judge.builder(catalogue.settings.builder, choice, starts=starts))
        found += judge.emulation(catalogue.settings.platforms, platform.machine(), _handlers())
    return found


def _result(future: Future[_T], late: _T) -> _T:
    """What a question brought; `late` where its answer has not come."""
    return future.result() if future.done() else late


def _late() -> str:
    return f"no answer within {_ALL_SECONDS:.0f} s"


def _ask(argv: tuple[str, ...], environ: Mapping[str, str]) -> Asked:
    place = shutil.which(argv[0], path=environ.get("PATH", ""))
    if place is None:
        return Asked()
    try:
        ended = process.run([place, *argv[1:]], timeout=_SECONDS, env=environ)
    except process.NotStarted as error:
        return Asked(place=place, said=f"cannot be run: {error.strerror}")
    if ended.timed_out:
        return Asked(place=place, said=f"no answer within {_SECONDS:.0f} s")
    said = [
        line for line in (ended.stdout, ended.stderr)[ended.status != 0].decode("utf-8", "replace").splitlines() if line
    ]
    first = shown((said or ["nothing"])[0 if ended.status == 0 else -1], 160)[1:-1]
    return Asked(place=place, ok=ended.status == 0, said=first)


def _hosts(settings: Settings | None) -> list[str]:
    if settings is None:
        return []
    hosts = [settings.repository.host, settings.bases.repository.host]
    if settings.images.repository:
        hosts.append(settings.images.repository.host)
    return list(dict.fromkeys(hosts))


def _registry(host: str, place: Place, settings: Settings) -> judge.Greeting | str:
    """How a registry answers to a GET of `/v2/`, or why it does not."""
    address = "registry-1.docker.io" if host == DOCKER_HUB else host
    scheme = "http" if settings.host(host).plain_http or is_loopback(host) else "https"
    with GuardedSession(_LIMITS, surroundings(place.environ), 1) as session:
        try:
            with session.get(f"{scheme}://{address}/v2/") as answer:
                return judge.Greeting(answer.status_code, _ahead(answer.headers.get("Date", "")))
        except requests.RequestException as error:
            return trouble_of(error, _LIMITS).detail
        except OSError as error:  # the file with trusted authorities
            return str(error)


def _runs(place: Place, settings: Settings) -> Unreadable | None:
    """Why the runs of the workflow that builds cannot be read. None where they can, and where nobody can be asked."""
    address = address_of(settings.forge, place.environ)
    if not (address.repository and address.variable(place.environ)):
        return None
    with Forge(place_of(settings.forge, place.environ), _LIMITS, surroundings(place.environ)) as forge:
        try:
            forge.newest(settings.plan.workflow)
        except Unreadable as error:
            return error
        except OSError as error:  # the file with trusted authorities
            return Unreadable(str(error), remedy=_NO_FORGE)
    return None


def _forge(place: Place, settings: Settings, trouble: Unreadable | None) -> Finding:
    address = address_of(settings.forge, place.environ)
    return judge.forge(address, address.variable(place.environ), settings.plan.workflow, trouble)


def _ahead(date: str) -> float | None:
    """By how many seconds the clock that a `Date` header was made from is ahead of ours. RFC 9110, 6.6.1."""
    try:
        return parsedate_to_datetime(date).timestamp() - time.time()
    except (ValueError, OverflowError):  # none, or no date
        return None


def _choose(catalogue: Catalogue, place: Place) -> judge.Chosen | None:
    """The builder that would build something with a Dockerfile, if there is one; why not those before it."""
    settings = catalogue.settings
    sources: list[Source] = [*catalogue.tools, *catalogue.images]
    tool = next((one for one in sources if one.dockerfile), sources[0])
    request = BuildRequest(
        target=tool.name,
        context=tool.folder,
        dockerfile=tool.dockerfile,
        base=settings.bases.repository.at(Digest(f"sha256:{'0' * 64}")),
        platforms=tool.platforms or settings.platforms,
        arguments={},
        labels={},
        annotations={},
        epoch=0,
    )
    # Named, a BuildKit is only asked; unnamed, one would be started.
    environ = {**place.environ, "BUILDKIT_HOST": place.environ.get("BUILDKIT_HOST") or DEFAULT_ADDRESS}
    with Client(replace(settings, limits=_LIMITS), surroundings(environ)) as client:
        with engines(settings, replace(place, environ=environ), client, sources) as builders:
            try:
                choice = choose(settings.builder, builders, request)
            except BuildFailed as error:
                first, *reasons = error.reason.splitlines()
                return judge.Chosen(passed_over=tuple(reasons) or (first,))
    return judge.Chosen(name=choice.builder.name, passed_over=choice.passed_over)


def _starts_buildkitd(catalogue: Catalogue, place: Place, asked: Mapping[str, Asked]) -> bool:
    """Whether `imagewright build` would start a buildkitd; see `builders.buildkit`."""
    sources: list[Source] = [*catalogue.tools, *catalogue.images]
    wanted = catalogue.settings.builder in ("auto", "buildkit") and any(one.dockerfile for one in sources)
    running = asked["workers"].ok or place.environ.get("BUILDKIT_HOST")
    return bool(wanted and not running and asked["buildctl"].place and not lacking(place.environ))


def _container_engine(asked: Mapping[str, Asked]) -> str:
    return "docker" if asked["docker daemon"].ok else "podman" if asked["podman"].ok else ""


def _credential(settings: Settings, host: str, credentials: Credentials) -> str:
    if settings.host(host).anonymous:
        return ""
    repositories = (settings.repository, settings.bases.repository, settings.images.repository)
    name = next(one.name for one in repositories if one and one.host == host)
    return credentials.source(host, name)


def _handlers() -> dict[str, str]:
    try:
        return {one.name: one.read_text("utf-8", "replace") for one in _BINFMT.glob("qemu-*")}
    except OSError:  # not Linux, or not mounted
        return {}


def _runtime() -> Finding:
    python = f"Python {platform.python_version()} ({sys.executable})"
    return Finding(subject="imagewright", state=State.OK, found=f"{version('imagewright')}, {python}")


def _project(place: Place, catalogue: Catalogue | None, problem: str) -> Finding:
    if catalogue is None:
        return Finding(subject="project", state=State.PROBLEM, found=problem)
    source = OWN_FILE if (place.root / OWN_FILE).is_file() else PROJECT_FILE
    return judge.catalogue(catalogue.settings, len(catalogue.tools), len(catalogue.images), source)


def _checks(place: Place) -> Finding:
    conftest = place.root / CONFTEST
    loaded = conftest.is_file() and loads_the_plugin(conftest.read_bytes())
    try:
        return judge.checks(len(suite.promises(place.root)), loaded)
    except SyntaxError:
        return judge.checks(None, loaded)


def _files(place: Place) -> Finding:
    folder = place.root / DEFAULT
    there = folder if folder.exists() else place.root
    return judge.state_folder(f"{DEFAULT}/", writable=there.is_dir() and os.access(there, os.W_OK | os.X_OK))
