"""The version-check image and the builder image as they are built, and `version.sh` in real containers."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from imagewright.testing.projects import make_project
from tests.engines import bases
from tests.engines.podman import podman

pytestmark = pytest.mark.timeout(600)  # the first test builds an image with some 400 Debian packages

IMAGES = Path(__file__).parents[2] / "images"
PROGRAM = [sys.executable, "-c", "from imagewright.cli import run; run()"]
AUTHORITIES = ("SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "PIP_CERT")
NPM = "npm view is-odd version\n"
PYPI = "python3 -m pip index versions iniconfig 2>/dev/null | sed -n '1s/.*(\\(.*\\))/\\1/p'\n"
LOCAL = "cat data.txt\n"


STAGES = {"docker": "docker.io/library/docker:", "buildkit": "docker.io/moby/buildkit:"}


@pytest.fixture(scope="module")
def stages(engine_folder: Path, engine_bin: Path, debian_registry: str) -> dict[str, str]:
    """What takes the place of the images that the builder image takes programs from: the same programs, made here."""
    programs = {
        "docker": {
            "usr/local/bin/docker": engine_folder / "docker" / "docker",
            "usr/local/libexec/docker/cli-plugins/docker-buildx": engine_bin / "docker-buildx",
        },
        "buildkit": {"usr/bin/buildctl": engine_bin / "buildctl"},
    }
    pushed = {}
    for name, files in programs.items():
        entries = {path: bases.File(file.read_bytes(), 0o755) for path, file in files.items()}
        layers = {"linux/amd64": {name: bases.layer(entries)}}
        pushed[name] = bases.push_base(engine_folder, debian_registry, f"stages/{name}", "1", layers)
    return pushed


@pytest.fixture(scope="module")
def published(
    engine_bin: Path,
    buildkitd: str,
    debian_registry: str,
    debian_base: str,
    stages: dict[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """The repository of images/version-check and images/builder: planned by the checks, built, published and verified.

    As they are but for their bases, for linux/amd64 alone.
    """
    project = tmp_path_factory.mktemp("images") / "project"
    shutil.copytree(IMAGES, project / "images")
    shutil.copy(IMAGES.parent / "conftest.py", project)
    shutil.copytree(IMAGES.parent / "checks", project / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    repository = f"{debian_registry}/own/util"
    (project / "pyproject.toml").write_text(
        f'[project]\nname = "x"\nversion = "1"\n[tool.imagewright]\nregistry = "{debian_registry}"\nbuilder = "buildkit"\n'
        '[tool.imagewright.images]\nrepository = "own/util"\nbootstrap = true\n'
    )
    for image in (project / "images").iterdir():
        recipe, yaml = image / "Dockerfile", image / "image.yml"
        text = re.sub(r"(?m)^ARG BASE_IMAGE=\S+", f"ARG BASE_IMAGE={debian_base}", recipe.read_text())
        for stage, name in STAGES.items():
            text = re.sub(rf"(?m)^FROM {re.escape(name)}\S+", f"FROM {stages[stage]}", text)
        recipe.write_text(text)
        yaml.write_text(yaml.read_text().replace("[linux/amd64, linux/arm64]", "[linux/amd64]"))
    environ = {**os.environ, "BUILDKIT_HOST": buildkitd, "PATH": f"{engine_bin}:{os.environ['PATH']}"}
    checks = [sys.executable, "-m", "pytest", "checks/", "-q", "-p", "no:cacheprovider"]

    def run(*argv: str, code: int) -> str:
        ended = subprocess.run(argv, cwd=project, env=environ, capture_output=True, text=True, check=False)
        assert ended.returncode == code, ended.stdout + ended.stderr
        return ended.stdout + ended.stderr

    assert "2 targets: 0 fresh, 2 stale, 0 unknown" in run(*checks, code=1)
    run(*PROGRAM, "plan", code=10)
    told = run(*PROGRAM, "build", "--push", code=0)
    assert "version-check: linux/amd64: npm --version" in told
    assert "builder: linux/amd64: docker --version" in told
    assert "2 targets: 2 fresh, 0 stale, 0 unknown" in run(*checks, code=0)
    return repository


@pytest.fixture(scope="module")
def version_check(published: str) -> str:
    """A reference: images/version-check."""
    return f"{published}:version-check-latest"


@dataclass
class World:
    """A project, an engine, and the version-check image in its settings."""

    project: Path
    environ: dict[str, str]
    engine: str

    def tools(self, scripts: dict[str, str]) -> None:
        make_project(self.project, registry="127.0.0.1:1", tools=dict.fromkeys(scripts, "0"))
        for name, script in scripts.items():
            (self.project / "tools" / name / "version.sh").write_bytes(script.encode())

    def start(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*PROGRAM, "versions", *arguments],
            cwd=self.project,
            env=self.environ | environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        process = self.start(*arguments, **environ)
        out, err = process.communicate(timeout=300)
        assert "Traceback" not in out + err, out + err
        return process.returncode, re.sub(r"\d+\.\d s", "T", out), err

    def readings(self, **environ: str) -> dict[str, dict[str, Any]]:
        _, out, err = self.run("--json", **environ)
        assert err == ""
        return {one["tool"]: one for one in json.loads(out)["versions"]}

    def containers(self) -> list[str]:
        """All of the engine, running or not."""
        argv = [self.engine, "ps", "--all", "--format={{.Names}}"]
        return subprocess.run(argv, env=self.environ, check=True, capture_output=True, text=True).stdout.split()


@pytest.fixture(scope="module", params=["podman", "docker"])
def engine(request: pytest.FixtureRequest, debian_registry: str) -> Iterator[tuple[str, dict[str, str]]]:
    """An engine's name, and what makes its client reach one that is not the machine's."""
    if request.param == "docker":
        client: Path = request.getfixturevalue("docker_client")
        path = f"{client.parent}:{os.environ['PATH']}"
        yield "docker", {"PATH": path, "DOCKER_HOST": request.getfixturevalue("docker_daemon")}
    else:
        with podman(debian_registry) as environ:
            yield "podman", {"PATH": os.environ["PATH"], "DOCKER_HOST": "unix:///nowhere", **environ}


@pytest.fixture
def world(engine: tuple[str, dict[str, str]], version_check: str, tmp_path: Path) -> Iterator[World]:
    name, environ = engine
    for folder in ("home", "tmp"):
        (tmp_path / folder).mkdir()
    environ = environ | {"HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "tmp"), "LANG": "C.UTF-8"}
    environ |= dict.fromkeys(AUTHORITIES, str(bases.CERTIFICATES))
    made = World(tmp_path / "project", environ | {"IMAGEWRIGHT_VERSIONS__IMAGE": version_check}, name)
    yield made
    assert made.containers() == []
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_images_are_small(engine_bin: Path, published: str) -> None:
    sizes = {}
    for name in ("version-check", "builder"):
        argv = [engine_bin / "crane", "manifest", "--insecure", "--platform=linux/amd64", f"{published}:{name}-latest"]
        layers = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["layers"]
        sizes[name] = sum(one["size"] for one in layers) / 1e6
        print(f"\n{name}: {sizes[name]:.0f} MB compressed, of which its base {layers[0]['size'] / 1e6:.0f} MB")
    assert sizes["version-check"] < 150


def test_packages_and_files_have_one_version_on_host_and_in_image(world: World) -> None:
    world.tools({"local": LOCAL} | ({"npm": NPM, "pypi": PYPI} if world.engine == "podman" else {}))
    (world.project / "tools/local/data.txt").write_text("4.5.6\n")
    found = world.readings()
    assert [(one["via"], one["detail"], one["fallback"]) for one in found.values()] == [("image", "", "")] * len(found)
    assert all(one["image"].startswith("sha256:") for one in found.values())
    assert found["local"]["version"] == "4.5.6"
    on_host = world.readings(IMAGEWRIGHT_VERSIONS__IMAGE="")
    assert {one["via"] for one in on_host.values()} == {"host"}
    assert {name: one["version"] for name, one in on_host.items()} == {
        name: one["version"] for name, one in found.items()
    }
    code, out, err = world.run("--compare")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].split() == ["tool", "host", "image", "linux/amd64", "result"]
    assert [line.split() for line in out.splitlines()[1:]] == [
        [name, one["version"], one["version"], "same"] for name, one in found.items()
    ]


MISTAKES = {
    "a failure hidden by a pipe": ("lacking 2>/dev/null | sed s/x/y/", "printed nothing"),
    "jq's null": ("echo '{}' | jq -r .name", "printed 'null', which is no version"),
    "two lines": ("echo 1.0; echo 2.0", "printed 2 lines, the first is '1.0'"),
    "a warning first": ("echo 'npm warn'; echo 1.0", "printed 2 lines, the first is 'npm warn'"),
    "colours": (r"printf '\033[32m1.0\033[0m\n'", r"printed '\x1b[32m1.0\x1b[0m', which is no version"),
    "a status": ("echo 1.0; echo why >&2; exit 3", "exit status 3, it says 'why'"),
    "no such program": ("nothing-of-the-kind", "exit status 127, it says './version.sh: line 1: nothing-of-the-kind: "),
    "it writes into its folder": ("touch new && echo 1.0", "exit status 1, it says 'touch: "),
    "it writes into the system": ("touch /etc/new && echo 1.0", "exit status 1, it says 'touch: "),
    "it wants rights": ("chown 1000 /tmp && echo 1.0", "exit status 1, it says 'chown: "),
    "it never ends": ("sleep 600", "did not end within 8 s"),
    "it forks": ("trap '' TERM INT; sleep 600 & sleep 600 & wait", "did not end within 8 s"),
}
HARMLESS = {
    "carriage returns": ("if true; then\r\n  echo 1.0\r\nfi\r\n", "1.0"),
    "it reads its input": ("cat; read -r; echo 1.0", "1.0"),
    "it leaves work in the background": ("sleep 600 & echo 1.0", "1.0"),
    "it writes where it may": ("echo 1.0 >$HOME/x; cp $HOME/x /tmp/y; cat /tmp/y", "1.0"),
    "its own programs are run": ("printf '#!/bin/sh\\necho 1.0' >/tmp/x; chmod +x /tmp/x; /tmp/x", "1.0"),
}


def test_known_mistakes_are_unknown_in_the_image_with_their_reason(world: World) -> None:
    names = {f"tool{at}": mistake for at, mistake in enumerate(MISTAKES)}
    world.tools({name: f"{MISTAKES[mistake][0]}\n" for name, mistake in names.items()})
    before = sorted(path.relative_to(world.project) for path in world.project.rglob("*"))
    found = world.readings(IMAGEWRIGHT_VERSIONS__HOST_FALLBACK="false", IMAGEWRIGHT_VERSIONS__TIMEOUT="8")
    for name, mistake in names.items():
        said = MISTAKES[mistake][1]
        assert found[name]["version"] is None, mistake
        assert found[name]["detail"][: len(said)] == said, mistake
        assert found[name]["via"] == "image", mistake
    assert sorted(path.relative_to(world.project) for path in world.project.rglob("*")) == before


def test_what_is_no_mistake_is_answered_in_the_image_and_on_the_host(world: World) -> None:
    names = {f"tool{at}": case for at, case in enumerate(HARMLESS)}
    world.tools({name: HARMLESS[case][0] for name, case in names.items()})
    for image in ({}, {"IMAGEWRIGHT_VERSIONS__IMAGE": ""}):
        found = world.readings(IMAGEWRIGHT_VERSIONS__HOST_FALLBACK="false", **image)
        assert {names[name]: one["version"] for name, one in found.items()} == {
            case: version for case, (_, version) in HARMLESS.items()
        }


def test_a_script_sees_nothing_secret(world: World) -> None:
    world.tools({"tool": "env | cut -d= -f1 | sort | tr '\\n' . ; ls /root 2>&1 | wc -l"})
    found = world.readings(GH_TOKEN="secret", IMAGEWRIGHT_FORGE_TOKEN="secret", HTTPS_PROXY="http://user:secret@proxy")
    names = set((found["tool"]["version"] or found["tool"]["detail"]).split("."))
    assert {"HOME", "PATH", "LANG", "SSL_CERT_FILE", "HTTPS_PROXY"} <= names
    assert not {"GH_TOKEN", "IMAGEWRIGHT_FORGE_TOKEN", "DOCKER_HOST", "CONTAINERS_CONF"} & names


def test_what_the_image_lacks_the_host_may_know(world: World) -> None:
    world.tools({"tool": f"[[ ! -e {world.project} ]] || echo 1.0"})
    assert world.run()[:2] == (0, "tool  1.0  (host, T; in the image: printed nothing)\n")
    assert world.run(IMAGEWRIGHT_VERSIONS__HOST_FALLBACK="false")[:2] == (
        20,
        "tool  unknown: version-format: printed nothing  (image, T)\n",
    )


def test_an_image_that_is_not_there_is_said_once(world: World, debian_registry: str) -> None:
    world.tools({"a": "echo 1.0", "b": "echo 2.0"})
    absent = {"IMAGEWRIGHT_VERSIONS__IMAGE": f"{debian_registry}/own/util:absent"}
    code, out, err = world.run(**absent)
    assert (code, out) == (0, "a  1.0  (host, T)\nb  2.0  (host, T)\n")
    begin = f"warning: versions are read on the host: the image {debian_registry}/own/util:absent cannot be pulled: '"
    assert (err[: len(begin)], err.count("\n")) == (begin, 1)
    code, out, err = world.run(IMAGEWRIGHT_VERSIONS__HOST_FALLBACK="false", **absent)
    assert code == 20
    assert out.count("unknown: version-failed: the image ") == 2
    assert err.startswith("warning: no version could be read: the image ")


def test_a_difference_and_each_failure_are_in_the_table(world: World) -> None:
    world.tools({"differs": f"[[ -e {world.project} ]] && echo 1.0 || echo 2.0", "fails": "exit 3", "same": "echo 1.0"})
    code, out, err = world.run("--compare")
    assert (code, err) == (1, "")
    assert out == (
        "tool     host  image linux/amd64  result\n"
        "differs  1.0   2.0                differs\n"
        "fails    -     -                  host: exit status 3; image linux/amd64: exit status 3\n"
        "same     1.0   1.0                same\n"
    )


def test_nine_versions_take_as_long_as_the_slowest(world: World) -> None:
    world.tools({f"tool{at}": f"sleep {at % 4}; echo 1.{at}" for at in range(9)})
    world.readings()  # the image is pulled
    best = float("inf")
    for _ in range(3):  # test machines are shared
        began = time.monotonic()
        found = world.readings()
        best = min(best, time.monotonic() - began)
        assert [one["version"] for one in found.values()] == [f"1.{at}" for at in range(9)]
        if best < 3 + 2:
            break
    print(f"\n9 versions in {world.engine}: {best:.1f} s, the slowest script sleeps 3 s")
    assert best < 3 + 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_it_leaves_no_container(world: World, number: int, code: int) -> None:
    world.tools({"a": "sleep 600", "b": "sleep 600"})
    process = world.start()
    last_moment = time.monotonic() + 60
    while len(world.containers()) < 2:
        assert time.monotonic() < last_moment
        time.sleep(0.1)
    process.send_signal(number)
    process.communicate(timeout=30)
    assert process.returncode == code
    assert world.containers() == []
    shutil.rmtree(world.environ["TMPDIR"], ignore_errors=True)
    Path(world.environ["TMPDIR"]).mkdir()


def test_the_builder_image_has_its_clients(published: str, debian_registry: str) -> None:
    with podman(debian_registry) as environ:
        command = "docker --version && docker buildx version && buildctl --version && python3 -m pip --version && git --version"
        argv = [
            "podman",
            "run",
            "--rm",
            "--quiet",
            "--network=host",
            f"{published}:builder-latest",
            "bash",
            "-c",
            command,
        ]
        ran = subprocess.run(argv, env=os.environ | environ, check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert [line.split()[0] for line in ran.stdout.splitlines()] == [
        "Docker",
        "github.com/docker/buildx",
        "buildctl",
        "pip",
        "git",
    ]


def test_a_build_runs_in_the_builder_image(
    published: str, debian_registry: str, buildkitd: str, engine_folder: Path, tmp_path: Path
) -> None:
    """With podman and a BuildKit, and of this machine's Python nothing."""
    bases.push_busybox(engine_folder, debian_registry, "in-image/bases", "tiny-latest")
    project = tmp_path / "project"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "tools", "images", "tests", "benchmarks")
    shutil.copytree(IMAGES.parent, project, ignore=left_out)
    (project / "imagewright.toml").write_text(
        f'registry = "{debian_registry}"\nrepository = "in-image/tools"\nplatforms = ["linux/amd64"]\nbuilder = "buildkit"\n'
        '[bases]\nrepository = "in-image/bases"\n'
    )
    hello = project / "tools" / "hello"
    hello.mkdir(parents=True)
    shutil.copytree(IMAGES.parent / ".github", project / ".github")  # its workflows are in the package
    for name in ("Dockerfile", "Dockerfile.dockerignore"):  # and so are they
        shutil.copy(IMAGES.parent / "tools" / name, project / "tools")
    (hello / "version.sh").write_text("echo 1.2.3\n")
    (hello / "tool.yaml").write_text("command: cat /etc/hello\n")
    (hello / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\nRUN echo $TOOL_VERSION >/etc/hello\n"
    )
    with podman(debian_registry) as environ:
        given = {
            "BUILDKIT_HOST": buildkitd,
            "BUILDER_IMAGE": f"{published}:builder-latest",
            "DOCKER_HOST": "unix:///none",
        }
        everything = os.environ | environ | given
        argv = ["scripts/build", "--in-image", "hello", "tiny"]
        ran = subprocess.run(argv, cwd=project, env=everything, check=False, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert "hello-tiny: linux/amd64: cat /etc/hello: 1.2.3" in ran.stderr
        assert "podman has localhost/hello-tiny:dev" in ran.stdout
        argv = ["podman", "run", "--rm", "--network=none", "localhost/hello-tiny:dev", "cat", "/etc/hello"]
        assert subprocess.run(argv, env=everything, check=True, capture_output=True, text=True).stdout == "1.2.3\n"
