"""The real registries, builders and tools work here, and what they make can be read back."""

import json
import os
import subprocess
import sys
import urllib.request
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.engines import bases, daemons, independent
from tests.engines.bases import PLATFORMS, File, layer

Solve = Callable[..., None]


@pytest.fixture
def solve(engine_bin: Path, buildkitd: str, tmp_path: Path) -> Solve:
    """Runs a Dockerfile for the platforms, nothing taken from a cache; `output` and `options` as buildctl knows them."""

    def run(
        dockerfile: str,
        *platforms: str,
        output: str = "",
        options: Sequence[str] = ("--no-cache",),
        at: str = buildkitd,
    ) -> None:
        (tmp_path / "Dockerfile").write_text(dockerfile)
        argv = [str(engine_bin / "buildctl"), f"--addr={at}", "build", "--frontend=dockerfile.v0", *options]
        argv += [
            f"--local=context={tmp_path}",
            f"--local=dockerfile={tmp_path}",
            f"--opt=platform={','.join(platforms)}",
        ]
        said(*argv, *([f"--output={output}"] if output else []))

    return run


def said(*argv: str | Path, env: Mapping[str, str] | None = None) -> str:
    """What a program wrote on stdout; the test fails with what it wrote on stderr if the program fails."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True, env=os.environ | dict(env or {}))
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="session")
def codex_version() -> str:
    """The version that npm's registry names as the newest."""
    view = ["npm", "view", "@openai/codex", "version"]
    return subprocess.run(view, check=True, capture_output=True, text=True).stdout.strip()


def test_the_registry_answers(debian_registry: str) -> None:
    with urllib.request.urlopen(f"http://{debian_registry}/v2/_catalog") as answer:
        assert isinstance(json.load(answer)["repositories"], list)


def test_a_base_has_the_layers_it_was_given(engine_folder: Path, busybox_base: str) -> None:
    found = independent.contents(f"docker://{busybox_base}")
    given = {platform: bases.busybox_layers(engine_folder, platform) for platform in PLATFORMS}
    assert {platform: one.diff_ids for platform, one in found.items()} == {
        platform: tuple(one.diff_id for one in layers.values()) for platform, layers in given.items()
    }


def test_a_base_is_rebuilt_with_another_layer_in_its_middle(engine_folder: Path, debian_registry: str) -> None:
    first = {
        **bases.busybox_layers(engine_folder, "linux/amd64"),
        "middle": layer({"etc/release": b"1\n"}),
        "last": layer({"usr/bin/hello": File(b"#!/bin/sh\necho hello\n", 0o755)}),
    }
    second = first | {"middle": layer({"etc/release": b"2\n"})}
    before, after = (
        independent.contents(
            f"docker://{bases.push_base(engine_folder, debian_registry, 'moving/base', 'latest', {'linux/amd64': one})}"
        )["linux/amd64"]
        for one in (first, second)
    )
    assert [a == b for a, b in zip(before.layers, after.layers, strict=True)] == [True, False, True]
    assert [a == b for a, b in zip(before.diff_ids, after.diff_ids, strict=True)] == [True, False, True]


@pytest.mark.parametrize(("platform", "machine"), [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")])
def test_a_run_step_sees_the_machine_of_its_platform(
    solve: Solve, busybox_base: str, platform: str, machine: str
) -> None:
    solve(f'FROM {busybox_base}\nRUN [ "$(uname -m)" = {machine} ]\n', platform)


def test_a_layout_of_both_platforms_has_the_base_below_one_layer_more(
    solve: Solve, busybox_base: str, tmp_path: Path
) -> None:
    solve(
        f"FROM {busybox_base}\nRUN uname -m >/machine\n", *PLATFORMS, output=f"type=oci,tar=false,dest={tmp_path}/out"
    )
    built, base = independent.contents(f"oci:{tmp_path}/out"), independent.contents(f"docker://{busybox_base}")
    assert {platform: one.diff_ids[:-1] for platform, one in built.items()} == {
        platform: one.diff_ids for platform, one in base.items()
    }


def test_npm_installs_a_tool_on_both_platforms(solve: Solve, node_base: str) -> None:
    solve(f'FROM {node_base}\nRUN npm install -g semver@7.7.2 && [ "$(semver 1.2.3)" = 1.2.3 ]\n', *PLATFORMS)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("platform", PLATFORMS)
def test_codex_is_installed_and_says_its_version(
    solve: Solve, node_base: str, codex_version: str, platform: str
) -> None:
    solve(
        f"FROM {node_base}\n"
        f"RUN npm install -g @openai/codex@{codex_version}\n"
        f'RUN [ "$(codex --version)" = "codex-cli {codex_version}" ]\n',
        platform,
    )


def test_a_rootless_builder_runs_steps_on_both_platforms(
    solve: Solve, rootless_buildkit_daemon: str, busybox_base: str
) -> None:
    all_ids = "4294967295"
    solve(f"FROM {busybox_base}\nRUN ! grep {all_ids} /proc/self/uid_map\n", *PLATFORMS, at=rootless_buildkit_daemon)


def test_buildx_builds_for_both_platforms_on_a_remote_builder(
    engine_bin: Path, tcp_buildkit_daemon: str, busybox_base: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox_base}\nRUN uname -m >/machine\n")
    buildx, env = engine_bin / "docker-buildx", {"DOCKER_CONFIG": str(tmp_path / "config")}
    said(buildx, "create", "--name=far", "--driver=remote", tcp_buildkit_daemon, env=env)
    output = f"--output=type=oci,tar=false,dest={tmp_path}/out"
    said(buildx, "--builder=far", "build", f"--platform={','.join(PLATFORMS)}", output, tmp_path, env=env)
    assert independent.platforms(f"oci:{tmp_path}/out") == list(PLATFORMS)


def test_buildx_is_a_plugin_of_docker(engine_bin: Path, docker_client: Path, tmp_path: Path) -> None:
    (tmp_path / "cli-plugins").mkdir()
    (tmp_path / "cli-plugins" / "docker-buildx").symlink_to(engine_bin / "docker-buildx")
    version = said(docker_client, "buildx", "version", env={"DOCKER_CONFIG": str(tmp_path)})
    assert version.split() == ["github.com/docker/buildx", "v0.29.1"]


def test_a_builder_takes_from_s3_what_another_left_there(
    solve: Solve, s3_server: str, tcp_buildkit_daemon: str, busybox_base: str, tmp_path: Path
) -> None:
    store = f"type=s3,endpoint_url={s3_server},use_path_style=true,name=image"
    store += f",region={daemons.S3_REGION},bucket={daemons.S3_BUCKET}"
    store += f",access_key_id={daemons.S3_ACCESS_KEY},secret_access_key={daemons.S3_SECRET_KEY}"
    dockerfile = f"FROM {busybox_base} AS made\nRUN cat /proc/sys/kernel/random/uuid >/uuid\n"
    dockerfile += "FROM scratch\nCOPY --from=made /uuid /\n"
    first, second = tmp_path / "first", tmp_path / "second"
    left = ["--no-cache", f"--export-cache={store},mode=max"]
    solve(dockerfile, "linux/amd64", output=f"type=local,dest={first}", options=left)
    taken = [f"--import-cache={store}"]
    solve(dockerfile, "linux/amd64", output=f"type=local,dest={second}", options=taken, at=tcp_buildkit_daemon)
    assert (first / "uuid").read_text() == (second / "uuid").read_text()


def test_a_scanner_gives_each_platform_an_sbom(solve: Solve, scanner: str, busybox_base: str, tmp_path: Path) -> None:
    solve(
        f"FROM {busybox_base}\nRUN uname -m >/machine\n",
        *PLATFORMS,
        output=f"type=oci,tar=false,dest={tmp_path}/out",
        options=[f"--opt=attest:sbom=generator={scanner}"],
    )

    def blob(descriptor: dict[str, Any]) -> Any:
        return json.loads((tmp_path / "out" / "blobs" / "sha256" / descriptor["digest"][7:]).read_bytes())

    index = blob(json.loads((tmp_path / "out" / "index.json").read_bytes())["manifests"][0])
    attached = [one for one in index["manifests"] if one["platform"]["architecture"] == "unknown"]
    statements = [blob(one) for manifest in attached for one in blob(manifest)["layers"]]
    assert [(one["predicateType"], one["predicate"]["spdxVersion"]) for one in statements] == [
        ("https://spdx.dev/Document", "SPDX-2.3"),
        ("https://spdx.dev/Document", "SPDX-2.3"),
    ]


@pytest.mark.parametrize(("platform", "machine"), [("linux/amd64", "x86_64\n"), ("linux/arm64", "aarch64\n")])
def test_docker_runs_a_container(
    docker_client: Path, docker_daemon: str, busybox_base: str, platform: str, machine: str
) -> None:
    run = [docker_client, f"--host={docker_daemon}", "run", "--rm", "--network=host", f"--platform={platform}"]
    assert said(*run, busybox_base, "uname", "-m") == machine


def test_docker_builds(docker_client: Path, docker_daemon: str, busybox_base: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox_base}\nRUN uname -m >/machine\n")
    docker = [docker_client, f"--host={docker_daemon}"]
    said(*docker, "build", "--pull", "--network=host", "--tag=built", tmp_path, env={"DOCKER_BUILDKIT": "0"})
    assert said(*docker, "run", "--rm", "--network=none", "built", "cat", "/machine") == "x86_64\n"


def test_buildah_builds_for_both_platforms(busybox_base: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {busybox_base}\nRUN uname -m >/machine\n")
    buildah = ["buildah", f"--root={tmp_path}/images", f"--runroot={tmp_path}/run", "--storage-driver=vfs"]
    build = ["build", f"--platform={','.join(PLATFORMS)}", "--network=host", "--tls-verify=false", "--manifest=built"]
    said(*buildah, *build, tmp_path)
    said(*buildah, "manifest", "push", "--all", "built", f"oci:{tmp_path}/out")
    assert sorted(independent.platforms(f"oci:{tmp_path}/out")) == list(PLATFORMS)


def test_podman_runs_a_container(busybox_base: str) -> None:
    run = ["run", "--rm", "--network=host", "--tls-verify=false"]
    # As root it wants more of these than a root of few capabilities may give.
    run += ["--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024"]
    with daemons.scratch_folder("podman") as root:  # it allows its folder 50 characters
        podman = ["podman", f"--root={root}/images", f"--runroot={root}/run", "--storage-driver=vfs"]
        assert said(*podman, "--cgroup-manager=cgroupfs", *run, busybox_base, "uname", "-m") == "x86_64\n"


def test_container_structure_test_judges_an_archive(engine_bin: Path, busybox_base: str, tmp_path: Path) -> None:
    said(engine_bin / "crane", "pull", "--platform=linux/amd64", busybox_base, tmp_path / "image.tar")
    expected = "schemaVersion: 2.0.0\nfileExistenceTests:\n- {name: a shell, path: /bin/sh, shouldExist: true}\n"
    (tmp_path / "expected.yaml").write_text(expected)
    judge = [Path(sys.executable).with_name("container-structure-test"), "test", "--driver=tar"]
    judged = said(*judge, f"--image={tmp_path}/image.tar", f"--config={tmp_path}/expected.yaml")
    assert "--- PASS\n" in judged


def test_a_browser_makes_a_picture_of_a_page(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text('<body style="background: #102030">')
    browser = ["chromium", "--headless", "--no-sandbox", f"--user-data-dir={tmp_path}/profile"]
    said(*browser, "--window-size=320,200", f"--screenshot={tmp_path}/page.png", f"file://{tmp_path}/page.html")
    picture = (tmp_path / "page.png").read_bytes()
    width, height = (int.from_bytes(picture[at : at + 4]) for at in (16, 20))
    first_pixel = zlib.decompressobj().decompress(picture[picture.index(b"IDAT") + 4 :], 4)[1:]
    assert (width, height, first_pixel) == (320, 200, b"\x10\x20\x30")
