"""The real registry and the real builder work here, and what they make can be read back."""

import json
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engines import bases, independent
from tests.engines.bases import PLATFORMS, File, layer

Solve = Callable[..., None]


@pytest.fixture
def solve(engine_bin: Path, buildkitd: str, tmp_path: Path) -> Solve:
    """Runs a Dockerfile for the platforms, nothing taken from a cache; `output` as buildctl knows it."""

    def run(dockerfile: str, *platforms: str, output: str = "") -> None:
        (tmp_path / "Dockerfile").write_text(dockerfile)
        argv = [str(engine_bin / "buildctl"), f"--addr={buildkitd}", "build", "--frontend=dockerfile.v0", "--no-cache"]
        argv += [
            f"--local=context={tmp_path}",
            f"--local=dockerfile={tmp_path}",
            f"--opt=platform={','.join(platforms)}",
        ]
        done = subprocess.run(
            argv + ([f"--output={output}"] if output else []), check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-3000:]

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
