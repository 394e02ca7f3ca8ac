"""The real registry and the real builder work here, and what they make can be read back."""

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines import bases, independent
from tests.engines.bases import PLATFORMS, File, layer

Build = Callable[..., str]


@pytest.fixture
def build(engine_bin: Path, buildkitd: str, tmp_path: Path) -> Build:
    """Builds a Dockerfile for the platforms, unchanged caches ignored; where the result is, as skopeo names it."""

    def run(dockerfile: str, *platforms: str) -> str:
        context, result = tmp_path / "context", tmp_path / "result"
        context.mkdir()
        (context / "Dockerfile").write_text(dockerfile)
        argv = [engine_bin / "buildctl", f"--addr={buildkitd}", "build", "--frontend=dockerfile.v0", "--no-cache"]
        argv += [f"--local=context={context}", f"--local=dockerfile={context}", f"--opt=platform={','.join(platforms)}"]
        argv += [f"--output=type=oci,tar=false,dest={result}"]
        done = subprocess.run(argv, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-3000:]
        return f"oci:{result}"

    return run


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
    expected = {p: tuple(one.diff_id for one in bases.busybox_layers(engine_folder, p).values()) for p in PLATFORMS}
    assert {platform: one.diff_ids for platform, one in found.items()} == expected


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


def test_a_run_step_runs_on_both_platforms(build: Build, busybox_base: str) -> None:
    image = build(
        f"FROM {busybox_base}\nRUN case $(uname -m) in "
        f'x86_64) [ "$(/bin/busybox arch)" = x86_64 ] ;; aarch64) [ "$(/bin/busybox arch)" = aarch64 ] ;; *) exit 1 ;; esac\n',
        *PLATFORMS,
    )
    built, base = independent.contents(image), independent.contents(f"docker://{busybox_base}")
    assert list(built) == list(PLATFORMS)
    for platform in PLATFORMS:
        assert built[platform].diff_ids[: len(base[platform].diff_ids)] == base[platform].diff_ids


@pytest.mark.parametrize(("platform", "machine"), [("linux/amd64", "x86_64"), ("linux/arm64", "aarch64")])
def test_a_run_step_sees_the_machine_of_its_platform(
    build: Build, busybox_base: str, platform: str, machine: str
) -> None:
    build(f'FROM {busybox_base}\nRUN [ "$(uname -m)" = {machine} ]\n', platform)


def test_npm_installs_a_tool_on_both_platforms(build: Build, node_base: str) -> None:
    built = build(f'FROM {node_base}\nRUN npm install -g semver@7.7.2 && [ "$(semver 1.2.3)" = 1.2.3 ]\n', *PLATFORMS)
    assert independent.platforms(built) == list(PLATFORMS)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_codex_is_installed_and_says_its_version(
    build: Build, node_base: str, codex_version: str, platform: str
) -> None:
    install = f"npm install -g @openai/codex@{codex_version}"
    build(
        f'FROM {node_base}\nRUN {install} && codex --version && [ "$(codex --version)" = "codex-cli {codex_version}" ]\n',
        platform,
    )
