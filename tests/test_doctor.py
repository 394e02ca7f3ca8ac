"""What a doctor makes of what was found, and what the command finds here without changing anything."""

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imagewright import doctor
from imagewright.doctor import Asked, Chosen, Finding, Greeting, State
from imagewright.embedded.server import Seen, Server
from imagewright.errors import Exit
from imagewright.forge.answers import Unreadable
from imagewright.forge.place import Address
from imagewright.names import make_repository, parse_platform
from imagewright.settings import BasesSettings, Settings, Surroundings, VersionsSettings
from imagewright.testing.github import Fault, GitHub, Said
from imagewright.testing.projects import make_project
from tests.console import PROGRAM

SETTINGS = Settings(
    repository=make_repository("r.example", "a/b"),
    bases=BasesSettings(repository=make_repository("r.example", "c/d")),
)
FORGE = Address(
    api="https://f.example/api",
    repository="own/images",
    kind="gitea",
    variables=("IMAGEWRIGHT_FORGE_TOKEN", "GH_TOKEN"),
)
GONE = Asked()


def here(said: str = "1.0") -> Asked:
    return Asked(place="/bin/it", ok=True, said=said)


def mute(said: str = "no answer within 5 s") -> Asked:
    return Asked(place="/bin/it", said=said)


def short(one: Finding) -> tuple[str, ...]:
    return (one.state.value, one.found, *one.details)


# What it means


FOUND: dict[str, tuple[Finding, tuple[str, ...]]] = {
    "a program": (doctor.program("git", here(), "no revision"), ("ok", "1.0 (/bin/it)")),
    "no program": (doctor.program("git", GONE, "no revision"), ("note", "not installed; no revision")),
    "a mute program": (
        doctor.program("podman", mute(), ""),
        ("note", "/bin/it does not answer: no answer within 5 s"),
    ),
    "no BuildKit": (doctor.buildkit(GONE, GONE, GONE, "unix:///s"), ("note", "buildctl is not installed")),
    "only buildkitd": (
        doctor.buildkit(GONE, here(), GONE, "unix:///s"),
        ("note", "buildctl is not installed, buildkitd is: /bin/it"),
    ),
    "BuildKit answers": (
        doctor.buildkit(here("buildctl 1"), GONE, here(), "tcp://h:1"),
        ("ok", "buildctl 1 (/bin/it); answers at tcp://h:1", "buildkitd is not installed"),
    ),
    "BuildKit does not": (
        doctor.buildkit(here("buildctl 1"), here("buildkitd 1"), mute("refused"), "tcp://h:1"),
        ("note", "buildctl 1 (/bin/it); none answers at tcp://h:1: refused", "buildkitd 1 (/bin/it)"),
    ),
    "no docker": (doctor.docker(GONE, GONE, GONE), ("note", "not installed")),
    "docker without a daemon": (
        doctor.docker(here("docker 1"), mute("refused"), here("buildx 1")),
        ("note", "docker 1 (/bin/it)", "its daemon does not answer: refused", "buildx: buildx 1"),
    ),
    "docker": (
        doctor.docker(here("docker 1"), here("29"), mute()),
        ("ok", "docker 1 (/bin/it)", "its daemon answers: 29", "buildx is not installed"),
    ),
    "the first builder": (
        doctor.builder("auto", Chosen(name="buildkit"), starts=False),
        ("ok", "`auto` takes buildkit"),
    ),
    "a later builder": (
        doctor.builder("auto", Chosen(name="docker", passed_over=("buildkit: gone",)), starts=False),
        ("ok", "`auto` takes docker", "buildkit: gone"),
    ),
    "a builder that is started": (
        doctor.builder("auto", Chosen(name="docker", passed_over=("buildkit: gone",)), starts=True),
        ("ok", "`auto` takes buildkit, and starts a buildkitd for the occasion"),
    ),
    "no builder": (
        doctor.builder("buildah", Chosen(passed_over=("buildah: gone",)), starts=False),
        ("note", "`buildah` finds none: nothing can be built here", "buildah: gone"),
    ),
    "builders that did not say": (
        doctor.builder("auto", None, starts=False),
        ("note", "the builders did not say in time which of them `auto` takes"),
    ),
    "checks": (doctor.checks(7, True), ("ok", "7 in checks/, conftest.py loads the plugin")),
    "no checks": (doctor.checks(0, True), ("problem", "there are none in checks/")),
    "no plugin": (doctor.checks(7, False), ("problem", "conftest.py does not load the plugin")),
    "bad checks": (doctor.checks(None, True), ("problem", "a file in checks/ is not Python")),
    "discovered bases": (
        doctor.catalogue(SETTINGS, 1, 0, "pyproject.toml"),
        ("ok", "1 tool for r.example/a/b (pyproject.toml)", "bases: discovered in r.example/c/d"),
    ),
    "configured bases": (
        doctor.catalogue(
            replace(SETTINGS, bases=replace(SETTINGS.bases, discover=False, names=("x", "y", "z"), exclude=("z",))),
            2,
            1,
            "imagewright.toml",
        ),
        (
            "ok",
            "2 tools and 1 image for r.example/a/b (imagewright.toml)",
            "bases: x, y, z in r.example/c/d, without z",
        ),
    ),
    "a registry": (
        doctor.registry("r.example", Greeting(401), "/home/me/.docker/config.json"),
        ("ok", "answers", "credential: /home/me/.docker/config.json"),
    ),
    "a registry for everybody": (
        doctor.registry("r.example", Greeting(200, ahead=-60), ""),
        ("ok", "answers", "no credential: asked anonymously"),
    ),
    "a registry whose clock is ahead": (
        doctor.registry("r.example", Greeting(200, ahead=61.4), ""),
        ("note", "answers; its clock is 61 s ahead of this one", "no credential: asked anonymously"),
    ),
    "a registry whose clock is behind": (
        doctor.registry("r.example", Greeting(401, ahead=-3600), ""),
        ("note", "answers; its clock is 3600 s behind this one", "no credential: asked anonymously"),
    ),
    "scripts in namespaces": (
        doctor.versions(SETTINGS, here(), "", ""),
        (
            "ok",
            "every version.sh runs on this host, by /bin/it",
            "in PID and mount namespaces of its own: it sees no other process, no home directory, and only reads its folder",
            "each at most 60 s, 256 processes and 2 GiB of memory a process",
        ),
    ),
    "scripts without namespaces": (
        doctor.versions(SETTINGS, here(), "", "unshare is not installed"),
        (
            "ok",
            "every version.sh runs on this host, by /bin/it",
            "held by its process group alone, as there are no namespaces: unshare is not installed",
            "each at most 60 s and 2 GiB of memory a process",
        ),
    ),
    "limits": (
        doctor.limits(SETTINGS, ["r.example", "127.0.0.1:5000"]),
        (
            "ok",
            "5 s to connect, 20 s of silence, 60 s for a request with its retries",
            "r.example: 32 connections, 100 requests a second",
            "127.0.0.1:5000: 32 connections, as many requests a second as they carry",
        ),
    ),
    "no forge": (
        doctor.forge(replace(FORGE, repository=""), "", "build.yml", None),
        ("note", "none is named: outside of Actions imagewright dispatch asks nobody for builds"),
    ),
    "a forge": (
        doctor.forge(FORGE, "GH_TOKEN", "build.yml", None),
        ("ok", "own/images at https://f.example/api (gitea)", "token: GH_TOKEN", "the runs of build.yml can be read"),
    ),
    "a forge without a token": (
        doctor.forge(FORGE, "", "build.yml", None),
        ("note", "own/images at https://f.example/api (gitea)", "no token: nothing was asked"),
    ),
    "a forge that does not answer": (
        doctor.forge(FORGE, "GH_TOKEN", "build.yml", Unreadable("it is silent", remedy="Wait.")),
        ("problem", "own/images at https://f.example/api (gitea)", "token: GH_TOKEN", "it is silent"),
    ),
    "another server": (
        doctor.registry("r.example", Greeting(302, ahead=900), ""),
        ("problem", "status 302 to GET /v2/", "no credential: asked anonymously"),
    ),
    "no server": (
        doctor.registry("r.example", "connection refused", ""),
        ("problem", "does not answer: connection refused", "no credential: asked anonymously"),
    ),
    "no proxy": (
        doctor.surroundings(Surroundings(), bundle_is_there=False),
        ("ok", "no proxy", "trusted authorities: those that come with requests"),
    ),
    "a proxy, without its login": (
        doctor.surroundings(
            Surroundings(
                proxies={"https": "http://me:secret@proxy.example:3128", "http": "proxy.example"},
                no_proxy="localhost",
                ca_bundle="/etc/ca.pem",
            ),
            bundle_is_there=True,
        ),
        (
            "ok",
            "http by proxy.example, https by proxy.example:3128, not for localhost",
            "trusted authorities: /etc/ca.pem",
        ),
    ),
    "a bundle that is not there": (
        doctor.surroundings(Surroundings(ca_bundle="/etc/ca.pem"), bundle_is_there=False),
        ("problem", "no proxy", "trusted authorities: there is no /etc/ca.pem"),
    ),
    "a folder that can be written": (
        doctor.state_folder(".imagewright/", writable=True),
        ("ok", ".imagewright/ can be written"),
    ),
    "a folder that cannot": (
        doctor.state_folder(".imagewright/", writable=False),
        ("problem", ".imagewright/ cannot be written"),
    ),
}


@pytest.mark.parametrize("case", FOUND)
def test_what_is_found_means_something(case: str) -> None:
    found, expected = FOUND[case]
    assert short(found) == expected


@pytest.mark.parametrize("case", FOUND)
def test_whoever_has_a_problem_is_told_what_to_do(case: str) -> None:
    found, _ = FOUND[case]
    assert found.remedy or found.state is not State.PROBLEM


IMAGE = "r.example/versions:1"
VERSIONS = {
    "on the host": (VersionsSettings(), here(), "", "ok", "every version.sh runs on this host, by /bin/it"),
    "no bash": (
        VersionsSettings(),
        GONE,
        "docker",
        "problem",
        "bash is not installed: no version.sh runs on this host",
    ),
    "in the image": (
        VersionsSettings(image=IMAGE),
        GONE,
        "podman",
        "ok",
        f"every version.sh runs in {IMAGE}, by podman",
    ),
    "no engine, so the host": (
        VersionsSettings(image=IMAGE),
        here(),
        "",
        "note",
        f"neither docker nor podman answers, which {IMAGE} needs; every version.sh runs on this host",
    ),
    "no engine and no host": (
        VersionsSettings(image=IMAGE, host_fallback=False),
        here(),
        "",
        "problem",
        f"neither docker nor podman answers, which {IMAGE} needs",
    ),
    "nothing at all": (
        VersionsSettings(image=IMAGE),
        GONE,
        "",
        "problem",
        f"neither docker nor podman answers, which {IMAGE} needs",
    ),
}


@pytest.mark.parametrize("case", VERSIONS)
def test_versions_are_read_somewhere_or_it_is_a_problem(case: str) -> None:
    settings, bash, engine, state, found = VERSIONS[case]
    made = doctor.versions(replace(SETTINGS, versions=settings), bash, engine, "")
    assert (made.state.value, made.found) == (state, found)


ENABLED = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n"
EMULATION: dict[str, tuple[str, str, Mapping[str, str], str, str]] = {
    "its own": ("linux/amd64", "x86_64", {}, "ok", "this machine's own"),
    "its elder sister": ("linux/386", "x86_64", {}, "ok", "this machine's own"),
    "an arm machine": ("linux/arm64", "arm64", {}, "ok", "this machine's own"),
    "one that we have no word for": ("linux/riscv64", "riscv64", {}, "ok", "this machine's own"),
    "emulated": ("linux/arm64", "x86_64", {"qemu-aarch64": ENABLED}, "ok", "emulated by qemu-aarch64"),
    "not there": ("linux/arm64", "x86_64", {}, "note", "no emulator (qemu-aarch64): it cannot be built here"),
    "switched off": (
        "linux/arm64",
        "x86_64",
        {"qemu-aarch64": ENABLED.replace("enabled", "disabled")},
        "note",
        "no emulator (qemu-aarch64): it cannot be built here",
    ),
    "without F": (
        "linux/arm64",
        "x86_64",
        {"qemu-aarch64": ENABLED.replace("POCF", "POC")},
        "note",
        "qemu-aarch64 lacks the flag F: containers do not find it",
    ),
    "amd64 on arm": ("linux/amd64", "aarch64", {"qemu-x86_64": ENABLED}, "ok", "emulated by qemu-x86_64"),
}


@pytest.mark.parametrize("case", EMULATION)
def test_a_platform_is_this_machines_own_or_emulated_or_cannot_be_built(case: str) -> None:
    platform, machine, handlers, state, found = EMULATION[case]
    (made,) = doctor.emulation([parse_platform(platform)], machine, handlers)
    assert (made.subject, made.state.value, made.found) == (platform, state, found)


OK, NOTE, PROBLEM = (Finding(subject=one.value, state=one, found="x") for one in State)
NO_FORGE = replace(PROBLEM, needed_by=doctor.DISPATCH)


@pytest.mark.parametrize(
    ("findings", "bad", "code"),
    [
        ([OK, NOTE], False, Exit.DONE),
        ([OK, PROBLEM], False, Exit.FAILED),
        ([OK, NO_FORGE], False, Exit.FAILED),
        ([OK, PROBLEM], True, Exit.BAD_CATALOGUE),
    ],
)
def test_only_problems_fail_and_bad_settings_have_their_own_code(
    findings: list[Finding], bad: bool, code: Exit
) -> None:
    assert doctor.exit_code(findings, catalogue_is_bad=bad) == code


def test_each_finding_is_a_line_with_its_glyph_and_what_to_do() -> None:
    findings = [
        Finding(subject="git", state=State.OK, found="2.39"),
        Finding(subject="docker", state=State.NOTE, found="client", details=("no daemon",)),
        Finding(subject="project", state=State.PROBLEM, found="a:1: no\n  Mend it.", remedy="Run `imagewright init`."),
    ]
    assert [text for text, _ in doctor.lines(findings)] == [
        "✓ git      2.39",
        "- docker   client",
        "           no daemon",
        "✗ project  a:1: no",
        "           Mend it.",
        "           → Run `imagewright init`.",
        "pytest checks/ cannot run here: 1 problem",
    ]
    assert list(doctor.lines([]))[-1] == ("pytest checks/ can run here", "green")


def test_without_a_forge_the_checks_can_run_all_the_same() -> None:
    assert doctor.ready([NO_FORGE])
    assert list(doctor.lines([NO_FORGE]))[-2:] == [
        ("pytest checks/ can run here", "green"),
        ("imagewright dispatch cannot run here: 1 problem", "red"),
    ]
    assert list(doctor.lines([PROBLEM, PROBLEM, NO_FORGE]))[-2:] == [
        ("pytest checks/ cannot run here: 2 problems", "red"),
        ("imagewright dispatch cannot run here: 1 problem", "red"),
    ]


# What the command finds


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(0o755)


def run(project: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    settings = {"PATH": str(project.parent / "bin"), "HOME": str(project.parent), **environ}
    ended = subprocess.run(
        [*PROGRAM, "doctor", *arguments],
        cwd=project,
        env=settings,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stderr, ended.stderr
    return ended


def state_of(folder: Path) -> dict[str, int]:
    return {str(one): one.stat().st_mtime_ns for one in folder.rglob("*") if "__pycache__" not in one.parts}


def test_it_names_what_is_here_asks_little_and_changes_nothing(tmp_path: Path) -> None:
    bin_folder, project, seen = tmp_path / "bin", tmp_path / "project", list[Seen]()
    bin_folder.mkdir()
    (bin_folder / "bash").symlink_to(shutil.which("bash") or "/bin/bash")
    program(bin_folder, "git", "echo git 2")
    program(bin_folder, "docker", 'case "$*" in *Server*) echo refused >&2; exit 1;; *) echo docker 29;; esac')
    (tmp_path / ".docker").mkdir()
    with Server(tmp_path / "registry", on_request=seen.append) as server:
        make_project(project, registry=server.address, tools={"codex": "1"}, platforms=["linux/amd64"])
        login = {"auths": {server.address: {"auth": "c2VjcmV0OnNlY3JldA=="}}, "credsStore": "never-asked"}
        (tmp_path / ".docker" / "config.json").write_text(json.dumps(login))
        before = state_of(tmp_path)
        ran = run(project)
        document = json.loads(run(project, "--json").stdout)
        assert state_of(tmp_path) == before

    found = {one["subject"]: (one["state"], one["found"], *one["details"]) for one in document["findings"]}
    assert found["project"] == (
        "ok",
        f"1 tool for {server.address}/own/tools (imagewright.toml)",
        f"bases: discovered in {server.address}/own/bases",
    )
    assert found[server.address] == ("ok", "answers", f"credential: {tmp_path}/.docker/config.json")
    assert found["git"] == ("ok", f"git 2 ({bin_folder}/git)")
    assert found["docker"][:3] == ("note", f"docker 29 ({bin_folder}/docker)", "its daemon does not answer: refused")
    assert found["buildkit"] == ("note", "buildctl is not installed")
    assert found["builder"] == ("ok", "`auto` takes copy")
    assert (ran.returncode, ran.stderr, document["ready"], document["schema"]) == (0, "", True, 1)
    assert ran.stdout.splitlines()[-1] == "pytest checks/ can run here"
    assert "c2VjcmV0" not in ran.stdout + json.dumps(document)
    assert {(one.method, one.target) for one in seen} == {("GET", "/v2/")}


def test_bad_settings_are_named_and_the_rest_is_still_looked_at(tmp_path: Path) -> None:
    program(tmp_path / "bin", "git", "echo git 2")
    project = tmp_path / "project"
    project.mkdir()
    ran = run(project)
    assert ran.returncode == 40
    assert f"✗ project      there are no settings in {project}\n" in ran.stdout
    assert "✗ checks       there are none in checks/\n" in ran.stdout
    assert f"✓ git          git 2 ({tmp_path}/bin/git)\n" in ran.stdout
    assert ran.stdout.splitlines()[-1] == "pytest checks/ cannot run here: 2 problems"


def test_no_daemon_is_started_where_one_could_be(tmp_path: Path) -> None:
    bin_folder, project = tmp_path / "bin", tmp_path / "project"
    started = tmp_path / "started"
    program(bin_folder, "buildctl", 'case "$*" in *version*) echo buildctl 1;; *) echo refused >&2; exit 1;; esac')
    program(bin_folder, "buildkitd", f'case "$*" in *version*) echo buildkitd 1;; *) echo >{started};; esac')
    program(bin_folder, "runc", "exit 1")
    make_project(project, registry="127.0.0.1:9", tools={"codex": "1"})
    (project / "tools" / "codex" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")

    findings = json.loads(run(project, "--json").stdout)["findings"]

    assert not started.exists()
    (builder,) = (one for one in findings if one["subject"] == "builder")
    as_root = "`auto` takes buildkit, and starts a buildkitd for the occasion"
    assert builder["found"] == (as_root if os.geteuid() == 0 else "`auto` takes copy")
    (registry,) = (one for one in findings if one["subject"] == "127.0.0.1:9")
    assert (registry["state"], registry["found"]) == ("problem", "does not answer: connection refused")


def test_with_everything_dead_it_ends_within_half_a_minute(tmp_path: Path) -> None:
    bin_folder, project = tmp_path / "bin", tmp_path / "project"
    for name in ("git", "bash", "buildctl", "buildkitd", "docker", "buildah", "podman"):
        program(bin_folder, name, "/bin/sleep 100")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        make_project(project, registry=address, tools={"codex": "1"})
        (project / "tools" / "codex" / "Dockerfile").write_text("ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\n")
        began = time.monotonic()
        ran = run(project, BUILDKIT_HOST="tcp://127.0.0.1:9")
        seconds = time.monotonic() - began
    assert seconds < 30
    assert ran.returncode == 1
    assert "does not answer: silent for 5 s\n" in ran.stdout
    assert f"- podman           {bin_folder}/podman does not answer: no answer within 5 s\n" in ran.stdout
    assert "- builder          the builders did not say in time which of them `auto` takes\n" in ran.stdout


def _forge_of(project: Path, code: int, **environ: str) -> dict[str, object]:
    """What it finds out about the forge."""
    ran = run(project, "--json", **environ)
    assert ran.returncode == code, ran.stdout
    assert TOKEN not in ran.stdout + ran.stderr
    (found,) = (one for one in json.loads(ran.stdout)["findings"] if one["subject"] == "forge")
    return dict(found)


TOKEN = "never-shown"


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    program(tmp_path / "bin", "git", "echo git 2")
    (tmp_path / "bin" / "bash").symlink_to(shutil.which("bash") or "/bin/bash")
    with Server(tmp_path / "registry") as server:
        yield server.address


def test_the_forge_of_the_settings_is_asked_once_for_its_runs(tmp_path: Path, registry: str) -> None:
    with GitHub(token=TOKEN) as github:
        settings = f'[forge]\napi = "{github.api}"\nrepository = "own/images"\n'
        project = make_project(tmp_path / "project", registry=registry, tools={"codex": "1"}, settings=settings)
        place = f"own/images at {github.api} (github)"
        assert _forge_of(project, 0, IMAGEWRIGHT_FORGE_TOKEN=TOKEN) == {
            "subject": "forge",
            "state": "ok",
            "found": place,
            "details": ["token: IMAGEWRIGHT_FORGE_TOKEN", "the runs of build.yml can be read"],
            "remedy": "",
        }
        assert [(one.method, one.path) for one in github.log] == [
            ("GET", "/repos/own/images/actions/workflows/build.yml/runs")
        ]

        # A token for github.com is for no other forge; without one nobody is asked.
        assert _forge_of(project, 0, GH_TOKEN=TOKEN) == {
            "subject": "forge",
            "state": "note",
            "found": place,
            "details": ["no token: nothing was asked"],
            "remedy": "For imagewright dispatch: set IMAGEWRIGHT_FORGE_TOKEN.",
        }
        assert len(github.log) == 1

        github.fails(Fault(method="GET", said=Said(status=404, body={"message": "Not Found"})))
        assert _forge_of(project, 1, IMAGEWRIGHT_FORGE_TOKEN=TOKEN) == {
            "subject": "forge",
            "state": "problem",
            "found": place,
            "details": [
                "token: IMAGEWRIGHT_FORGE_TOKEN",
                "the runs of own/images cannot be read: the forge answered 404: 'Not Found'",
            ],
            "remedy": "The token may not see the repository's Actions, or there is no such repository.",
        }


def test_inside_actions_the_forge_is_the_one_that_runs_the_job(tmp_path: Path, registry: str) -> None:
    with GitHub(token=TOKEN) as github:
        project = make_project(tmp_path / "project", registry=registry, tools={"codex": "1"})
        inside = {"GITHUB_ACTIONS": "true", "GITHUB_API_URL": github.api, "GITHUB_REPOSITORY": "own/images"}
        found = _forge_of(project, 0, GITHUB_TOKEN=TOKEN, **inside)
        assert found["details"] == ["token: GITHUB_TOKEN", "the runs of build.yml can be read"]
        assert _forge_of(project, 0, GITHUB_TOKEN=TOKEN)["state"] == "note"
        assert len(github.log) == 1


def test_a_forge_that_is_not_there_is_a_problem_of_dispatch_alone(tmp_path: Path, registry: str) -> None:
    settings = '[forge]\napi = "http://127.0.0.1:9"\nrepository = "own/images"\n'
    project = make_project(tmp_path / "project", registry=registry, tools={"codex": "1"}, settings=settings)
    ran = run(project, IMAGEWRIGHT_FORGE_TOKEN=TOKEN)
    assert ran.returncode == 1
    assert ran.stdout.splitlines()[-2:] == [
        "pytest checks/ can run here",
        "imagewright dispatch cannot run here: 1 problem",
    ]
    assert "the runs of own/images cannot be read: connection refused\n" in ran.stdout
