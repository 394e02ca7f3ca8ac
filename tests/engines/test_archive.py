"""Docker archives between our layouts and whoever else writes and reads them: docker, podman, skopeo."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagewright import archive
from imagewright.layout import Layout
from imagewright.names import Platform
from tests.engines import daemons, independent

PLATFORMS = {"linux/amd64": "x86_64", "linux/arm64": "aarch64"}
NAME = "registry.example/tool:1"


@pytest.fixture(scope="module")
def layout(engine_bin: Path, busybox_base: str, tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """The base as an OCI layout."""
    folder = tmp_path_factory.mktemp("base") / "layout"
    argv = [engine_bin / "crane", "pull", "--insecure", "--format=oci", busybox_base, folder]
    subprocess.run(argv, check=True, capture_output=True)
    return Layout(folder)


@pytest.fixture(params=PLATFORMS)
def platform(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def written(layout: Layout, platform: str, tmp_path: Path) -> Path:
    archive.write(layout, Platform(*platform.split("/")), NAME, tmp_path / "image.tar")
    return tmp_path / "image.tar"


Engine = Callable[..., str]


@pytest.fixture
def docker(docker_client: Path, docker_daemon: str) -> Iterator[Engine]:
    engine = caller(str(docker_client), f"--host={docker_daemon}")
    yield engine
    engine("image", "rm", NAME)


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Engine]:
    """With nothing in it; without cgroups of its own, as there is nobody here who would hand them out."""
    with daemons.scratch_folder("podman") as root:
        yield caller("podman", f"--root={root}/root", f"--runroot={root}/run", "--cgroup-manager=cgroupfs")


def caller(*prefix: str) -> Engine:
    def call(*arguments: str) -> str:
        ended = subprocess.run([*prefix, *arguments], check=False, capture_output=True, text=True)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout.strip()

    return call


def read(file: Path, tmp_path: Path) -> Layout:
    read_into = Layout.create(tmp_path / "read")
    read_into.write_only_index([archive.read(file, read_into)], {})
    return read_into


def test_docker_loads_it_runs_it_and_saves_it_as_the_same_image(
    docker: Engine, layout: Layout, written: Path, platform: str, tmp_path: Path
) -> None:
    assert docker("load", "--quiet", "--input", str(written)) == f"Loaded image: {NAME}"
    assert docker("run", "--rm", "--network=none", NAME, "uname", "-m") == PLATFORMS[platform]
    docker("save", "--output", str(tmp_path / "saved.tar"), NAME)
    assert_same(layout, read(tmp_path / "saved.tar", tmp_path), platform)


def test_podman_loads_it_and_saves_it_as_the_same_image(
    podman: Engine, layout: Layout, written: Path, platform: str, tmp_path: Path
) -> None:
    podman("load", "--quiet", "--input", str(written))
    podman("save", "--format=docker-archive", "--output", str(tmp_path / "saved.tar"), NAME)
    assert_same(layout, read(tmp_path / "saved.tar", tmp_path), platform)


def test_skopeo_reads_it_and_writes_what_is_read_as_the_same_image(
    layout: Layout, written: Path, platform: str, tmp_path: Path
) -> None:
    copied = f"docker-archive:{tmp_path}/copied.tar:{NAME}"
    argv = ["skopeo", "copy", f"--override-arch={platform.split('/')[1]}", f"docker-archive:{written}", copied]
    subprocess.run(argv, check=True, capture_output=True)
    assert_same(layout, read(tmp_path / "copied.tar", tmp_path), platform)


def test_container_structure_test_looks_into_it(written: Path, tmp_path: Path) -> None:
    """Its driver `tar` needs no engine."""
    wanted = {
        "schemaVersion": "2.0.0",
        "fileExistenceTests": [{"name": "busybox", "path": "/bin/busybox", "shouldExist": True, "uid": -1, "gid": -1}],
    }
    (tmp_path / "wanted.json").write_text(json.dumps(wanted))
    argv = [
        Path(sys.executable).parent / "container-structure-test",
        "test",
        "--driver=tar",
        f"--image={written}",
        f"--config={tmp_path}/wanted.json",
    ]
    ended = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    (tmp_path / "wanted.json").write_text(json.dumps(wanted).replace("/bin/busybox", "/bin/nosuch"))
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 1


def assert_same(theirs: Layout, ours: Layout, platform: str) -> None:
    """The same layers and the same settings; podman and skopeo write the rest of a configuration anew."""
    before, after = (independent.config(f"oci:{one.path}", platform) for one in (theirs, ours))
    assert before["rootfs"]["diff_ids"]
    for part in ("rootfs", "architecture", "os", "config"):
        assert after[part] == before[part]
