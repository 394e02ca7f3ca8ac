"""The same two tools on the same two bases, built by every engine through the same command: what is alike, and what not."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagewright.builders import AUTO
from tests.engines import bases, daemons, independent
from tests.engines.bases import Folder, layer

ROOT = Path(__file__).parents[2]
TARGETS = ("greet-other", "greet-tiny", "hello-other", "hello-tiny")
MOUNTED = {name: Folder() for name in ("dev", "proc", "sys")}
"""What every real base has. Where it is not there, RUN leaves it behind, but without root no `sys`."""
BASE_LABEL = {"vendor": "base"}
EPOCH = "1700000000"

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True, slots=True)
class Engine:
    """An engine that can be reached. environ: how. platforms: what it builds at once."""

    builder: str
    environ: Mapping[str, str]
    platforms: tuple[str, ...] = bases.PLATFORMS


@pytest.fixture(scope="module")
def registry(engine_folder: Path, debian_registry: str) -> str:
    """With two bases that differ in a layer, for both platforms."""
    for name in ("tiny", "other"):
        layers = {
            platform: {**bases.busybox_layers(engine_folder, platform), name: layer({f"etc/{name}": b"", **MOUNTED})}
            for platform in bases.PLATFORMS
        }
        bases.push_base(engine_folder, debian_registry, "everywhere/bases", f"{name}-latest", layers, labels=BASE_LABEL)
    return debian_registry


@pytest.fixture(scope="module")
def bridged_daemon(engine_bin: Path) -> Iterator[str]:
    with daemons.network_bridge() as bridge, daemons.docker_daemon(engine_bin, bridge=bridge) as address:
        yield address


@pytest.fixture(scope="module")
def engines(
    engine_folder: Path, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[str, Callable[[], Engine]]:
    """By name, each made ready when it is asked for."""
    home = tmp_path_factory.mktemp("home")
    (home / ".docker" / "cli-plugins").mkdir(parents=True)
    (home / ".docker" / "cli-plugins" / "docker-buildx").symlink_to(engine_folder / "bin" / "docker-buildx")
    path = f"{engine_folder}/docker:{engine_folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    plain = {"PATH": path, "HOME": str(home)}

    def buildkit(daemon: str) -> Engine:
        return Engine("buildkit", {**plain, "BUILDKIT_HOST": request.getfixturevalue(daemon)})

    def remote() -> Engine:
        environ = {**plain, "DOCKER_HOST": "unix:///nowhere.sock", "BUILDX_BUILDER": "far"}
        address = request.getfixturevalue("buildkitd")
        create = ["docker", "buildx", "create", "--name", "far", "--driver", "remote", address]
        subprocess.run(create, env=environ, check=True, capture_output=True)
        return Engine("docker", environ)

    def loading() -> Engine:
        environ = {**plain, "DOCKER_HOST": request.getfixturevalue("bridged_daemon")}
        return Engine("docker", environ, bases.PLATFORMS[:1])

    return {
        "buildkit": lambda: buildkit("buildkitd"),
        "buildkit, rootless": lambda: buildkit("rootless_buildkit_daemon"),
        "buildkit, another machine's": lambda: buildkit("tcp_buildkit_daemon"),
        "buildkit, started for the occasion": lambda: Engine("buildkit", plain),
        "docker, remote": remote,
        "docker, its own store": loading,
        "buildah": lambda: Engine("buildah", plain),
    }


ALL = (
    "buildkit",
    "buildkit, rootless",
    "buildkit, another machine's",
    "buildkit, started for the occasion",
    "docker, remote",
    "docker, its own store",
    "buildah",
)
EXPORTING = ALL[:5]
"""Those that are BuildKit, whoever speaks to it: their images are the same to the last bit."""


@dataclass(frozen=True, slots=True)
class Image:
    """What an engine made of one target for one platform, as skopeo sees it."""

    manifest: str
    diff_ids: tuple[str, ...]
    labels: Mapping[str, str]
    settings: Mapping[str, object]
    said: str


def project(root: Path, registry: str, engine: Engine) -> Path:
    root.mkdir()
    shutil.copy(ROOT / "conftest.py", root)
    shutil.copytree(ROOT / "checks", root / "checks", ignore=shutil.ignore_patterns("__pycache__"))
    platforms = ", ".join(f'"{one}"' for one in engine.platforms)
    (root / "imagewright.toml").write_text(
        f'registry = "{registry}"\nrepository = "everywhere/tools"\nbootstrap = true\n'
        f'builder = "{engine.builder}"\nplatforms = [{platforms}]\n'
        '[bases]\nrepository = "everywhere/bases"\n'
    )
    tools = root / "tools"
    tools.mkdir()
    for shared in ("Dockerfile", "Dockerfile.dockerignore"):
        shutil.copy(ROOT / "tools" / shared, tools)
    for name, version in (("hello", "1.2.3"), ("greet", "2024.1")):
        folder = tools / name
        folder.mkdir()
        (folder / "version.sh").write_text(f"#!/bin/bash\necho {version}\n")
        (folder / "tool.yaml").write_text(f"title: {name.title()}\nlicenses: MIT\ncommand: {name} --version\n")
    (tools / "hello" / "install.sh").write_text(
        "#!/bin/sh\nset -eu\nmkdir -p /usr/local/bin\n"
        'printf "#!/bin/sh\\necho hello %s on \\$(uname -m)\\n" "$TOOL_VERSION" >/usr/local/bin/hello\n'
        "chmod 755 /usr/local/bin/hello\n"
    )
    (tools / "greet" / "greet").write_text('#!/bin/sh\necho "greet $(cat /etc/greet)"\n')
    (tools / "greet" / "greet").chmod(0o755)
    (tools / "greet" / "left-out").write_text("x")
    (tools / "greet" / ".dockerignore").write_text("*\n!greet\n")
    (tools / "greet" / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\nENV GREETING=hello\n"
        "COPY . /usr/local/bin/\nRUN echo $TOOL_VERSION >/etc/greet\nUSER 1000\n"
    )
    return root


def ran(folder: Path, environ: Mapping[str, str], *argv: str, code: int) -> str:
    ended = subprocess.run(argv, cwd=folder, env=dict(environ), capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def imagewright(folder: Path, environ: Mapping[str, str], *arguments: str, code: int = 0) -> str:
    program = (sys.executable, "-c", "from imagewright.cli import run; run()")
    return ran(folder, {**environ, "SOURCE_DATE_EPOCH": EPOCH}, *program, *arguments, code=code)


@pytest.fixture(scope="module")
def built(
    registry: str, engines: Mapping[str, Callable[[], Engine]], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Mapping[tuple[str, str], Image]]:
    """What an engine, by name, makes of the plan: (target, platform) → image. Each builds once."""
    known: dict[str, Mapping[tuple[str, str], Image]] = {}

    def build(name: str) -> Mapping[tuple[str, str], Image]:
        if name not in known:
            engine = engines[name]()
            folder = project(tmp_path_factory.mktemp("engine") / "project", registry, engine)
            environ = {**engine.environ, "TMPDIR": str(tmp_path_factory.mktemp("tmp"))}
            ran(folder, environ, sys.executable, "-m", "pytest", "checks/", "-q", code=1)
            imagewright(folder, environ, "plan", code=10)
            told = imagewright(folder, environ, "build")
            known[name] = dict(seen(folder, engine.platforms, told))
        return known[name]

    return build


def seen(folder: Path, platforms: tuple[str, ...], told: str) -> Iterator[tuple[tuple[str, str], Image]]:
    layouts = folder / ".imagewright" / "images"
    assert sorted(path.name for path in layouts.iterdir()) == list(TARGETS)
    for target in TARGETS:
        image = f"oci:{layouts / target}"
        contents = independent.contents(image)
        assert list(contents) == list(platforms)
        for platform in platforms:
            config = independent.config(image, platform)
            settings = dict(config["config"])  # type: ignore[call-overload]
            command = f"{target.partition('-')[0]} --version: "
            (said,) = [
                line.partition(command)[2] for line in told.splitlines() if f"{target}: {platform}: {command}" in line
            ]
            yield (
                (target, platform),
                Image(
                    manifest=manifest(layouts / target, platform),
                    diff_ids=contents[platform].diff_ids,
                    labels=settings.pop("Labels"),
                    settings=settings,
                    said=said,
                ),
            )


def manifest(layout: Path, platform: str) -> str:
    (top,) = json.loads((layout / "index.json").read_bytes())["manifests"]
    index = json.loads((layout / "blobs" / "sha256" / top["digest"].partition(":")[2]).read_bytes())
    (digest,) = [one["digest"] for one in index["manifests"] if platform.endswith(one["platform"]["architecture"])]
    return str(digest)


def below(registry: str, target: str, platform: str) -> tuple[str, ...]:
    base = f"docker://{registry}/everywhere/bases:{target.partition('-')[2]}-latest"
    return independent.contents(base)[platform].diff_ids


@pytest.mark.parametrize("name", ALL)
def test_every_engine_makes_the_same_images(
    built: Callable[[str], Mapping[tuple[str, str], Image]], registry: str, name: str
) -> None:
    reference, made = built("buildkit"), built(name)
    assert {target for target, _ in made} == set(TARGETS)
    for (target, platform), image in made.items():
        expected = reference[target, platform]
        base = below(registry, target, platform)
        assert image.diff_ids[: len(base)] == base, "the base is below, as it was published"
        assert len(image.diff_ids) > len(base)
        version = {"hello": "1.2.3", "greet": "2024.1"}[target.partition("-")[0]]
        machine = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}[platform]
        assert image.said == (f"hello {version} on {machine}" if "hello" in target else f"greet {version}")
        family = "buildah" if name == "buildah" else "buildkit"
        assert image.labels["imagewright.recipe"].startswith(f"1:{family}:")
        assert without_recipe(image.labels) == without_recipe(expected.labels)
        assert image.labels["vendor"] == "base"
        kept = ("Env", "User", "Cmd", "Entrypoint", "WorkingDir")
        assert [image.settings.get(one) for one in kept] == [expected.settings.get(one) for one in kept]


@pytest.mark.parametrize("name", EXPORTING)
def test_whoever_speaks_to_buildkit_gets_the_same_bits(
    built: Callable[[str], Mapping[tuple[str, str], Image]], name: str
) -> None:
    assert {key: one.manifest for key, one in built(name).items()} == {
        key: one.manifest for key, one in built("buildkit").items()
    }


def without_recipe(labels: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in labels.items() if name != "imagewright.recipe"}


def test_auto_takes_the_first_that_works_and_says_why_not_those_before_it(
    registry: str, engines: Mapping[str, Callable[[], Engine]], tmp_path: Path
) -> None:
    engine = Engine(AUTO, engines["buildah"]().environ)
    folder = project(tmp_path / "project", registry, engine)
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(tmp_path)}
    told = imagewright(folder, environ, "build", "--tool", "hello", "--base", "tiny")
    assert "not buildkit: buildctl is not installed" in told
    assert "not docker: docker is not installed" in told
    assert "[1/1] hello-tiny: buildah builds 1.2.3 for linux/amd64, linux/arm64" in told


def test_with_nothing_it_says_what_each_lacks(
    registry: str, engines: Mapping[str, Callable[[], Engine]], tmp_path: Path
) -> None:
    folder = project(tmp_path / "project", registry, Engine(AUTO, {}))
    path = tmp_path / "bin"
    path.mkdir()
    (path / "bash").symlink_to("/bin/bash")
    told = imagewright(
        folder, {"PATH": str(path), "HOME": str(tmp_path)}, "build", "--tool", "hello", "--base", "tiny", code=1
    )
    assert "hello-tiny: failed: no builder can build this" in told
    for line in (
        "buildkit: buildctl is not installed",
        "docker: docker is not installed",
        "buildah: buildah is not installed",
        "copy: there is no folder rootfs/",
    ):
        assert line in told


def test_what_is_loaded_is_in_docker_under_dev_and_runs(
    registry: str, engines: Mapping[str, Callable[[], Engine]], tmp_path: Path
) -> None:
    engine = engines["docker, its own store"]()
    folder = project(tmp_path / "project", registry, engine)
    name = f"{registry}/everywhere/tools:hello-tiny-dev"
    told = imagewright(folder, engine.environ, "build", "--tool", "hello", "--base", "tiny", "--load")
    assert f"docker has {name} (linux/amd64)" in told
    run = ["docker", "run", "--rm", "--network=none", name, "hello", "--version"]
    assert ran(folder, engine.environ, *run, code=0).strip() == "hello 1.2.3 on x86_64"


def test_a_second_publication_of_the_same_pushes_nothing(
    registry: str, engines: Mapping[str, Callable[[], Engine]], tmp_path: Path
) -> None:
    engine = engines["buildkit"]()
    folder = project(tmp_path / "project", registry, engine)
    settings = folder / "imagewright.toml"
    settings.write_text(settings.read_text().replace("everywhere/tools", "everywhere/twice"))
    arguments = ("build", "--tool", "hello", "--base", "tiny", "--push", "--no-cache")
    assert "published" in imagewright(folder, engine.environ, *arguments)
    assert "hello-tiny: identical, latest already" in imagewright(folder, engine.environ, *arguments)
