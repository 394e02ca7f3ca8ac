"""SBOM and provenance from the settings to the registry: published with the image, shown, and no platforms to the checks."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from imagewright.testing.projects import make_project
from tests.engines import bases, daemons, independent
from tests.engines.bases import PLATFORMS

pytestmark = pytest.mark.timeout(300)

PROGRAM = (sys.executable, "-c", "from imagewright.cli import run; run()")


@pytest.fixture
def project(engine_folder: Path, debian_registry: str, scanner: str, tmp_path: Path) -> Path:
    bases.push_busybox(engine_folder, debian_registry, "own/bases", "tiny-latest")
    settings = f'builder = "buildkit"\n[build]\nsbom = "{scanner}"\nprovenance = true\n'
    root = make_project(tmp_path / "project", registry=debian_registry, tools={"codex": "1.0.0"}, settings=settings)
    settings_file = root / "imagewright.toml"
    settings_file.write_text(settings_file.read_text().replace("own/tools", f"attested/{tmp_path.name.lower()}"))
    (root / "tools" / "codex" / "Dockerfile").write_text(
        "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\nRUN echo $TOOL_VERSION >/etc/codex\n"
    )
    return root


def run(project: Path, environ: Mapping[str, str], *argv: str, code: int = 0) -> str:
    ended = subprocess.run(argv, cwd=project, env=environ, capture_output=True, text=True, check=False)
    assert ended.returncode == code, ended.stdout + ended.stderr
    return ended.stdout + ended.stderr


def test_attestations_are_published_and_no_platforms(
    project: Path, engine_bin: Path, buildkitd: str, debian_registry: str
) -> None:
    environ = {**os.environ, "BUILDKIT_HOST": buildkitd, "PATH": f"{engine_bin}:{os.environ['PATH']}"}
    build = (*PROGRAM, "build", "--tool", "codex", "--base", "tiny", "--version", "1.0.0", "--push")
    assert "codex-tiny: published, latest moved" in run(project, environ, *build)
    assert "1 target: 1 fresh" in run(project, environ, sys.executable, "-m", "pytest", "checks/", "-q")
    reference = next(
        one["reference"]
        for one in json.loads((project / ".imagewright" / "report.json").read_bytes())["imagewright"]["verdicts"]
    )
    assert independent.platforms(f"docker://{reference}") == list(PLATFORMS)

    index = manifest(engine_bin, reference)
    assert [one["platform"]["os"] for one in index["manifests"]] == ["linux", "linux", "unknown", "unknown"]
    kinds = set()
    for entry in index["manifests"][2:]:
        for layer in manifest(engine_bin, f"{reference.rpartition(':')[0]}@{entry['digest']}")["layers"]:
            kinds.add(layer["annotations"]["in-toto.io/predicate-type"])
    assert len(kinds) == 2
    assert "https://spdx.dev/Document" in kinds
    assert any("slsa.dev/provenance" in kind for kind in kinds)

    told = run(project, environ, *PROGRAM, "explain", "codex-tiny")
    for platform, entry in zip(PLATFORMS, index["manifests"][2:], strict=True):
        assert f"{platform}  attested by {entry['digest']}" in told
    assert "org.opencontainers.image.version" in told
    assert index["annotations"]["org.opencontainers.image.version"] == "1.0.0"

    # The second time their words are others (a build's time is in them), and the image is the same.
    assert "codex-tiny: identical, latest already" in run(project, environ, *build)


def manifest(engine_bin: Path, reference: str) -> dict:
    argv = [engine_bin / "crane", "manifest", "--insecure", reference]
    return json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)


def test_an_engine_that_makes_none_is_passed_over(project: Path, engine_bin: Path) -> None:
    settings = project / "imagewright.toml"
    settings.write_text(settings.read_text().replace('"buildkit"', '"buildah"'))
    told = run(project, os.environ, *PROGRAM, "build", "--tool", "codex", "--base", "tiny", "--version", "1", code=1)
    assert "buildah: it makes no attestations; `sbom` and `provenance` are set" in told


def test_a_wiped_builder_finds_its_steps_in_the_cache(
    project: Path, engine_bin: Path, s3_server: str, tmp_path: Path
) -> None:
    settings = project / "imagewright.toml"
    cache = (
        f"type=s3,bucket={daemons.S3_BUCKET},region={daemons.S3_REGION},endpoint_url={s3_server},"
        "use_path_style=true,name={target}"
    )
    text = settings.read_text()
    settings.write_text(text[: text.index("[build]")] + f'[build]\ncache = "{cache}"\n' + text[text.index("[bases]") :])
    # Without BUILDKIT_HOST each command starts a BuildKit of its own, which knows nothing.
    environ = {
        **{name: value for name, value in os.environ.items() if name != "BUILDKIT_HOST"},
        "PATH": f"{engine_bin}:{os.environ['PATH']}",
        "AWS_ACCESS_KEY_ID": daemons.S3_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": daemons.S3_SECRET_KEY,
    }
    build = (*PROGRAM, "build", "--tool", "codex", "--base", "tiny", "--version", "1.0.0")
    log = project / ".imagewright" / "logs" / "codex-tiny.log"
    run(project, environ, *build)
    assert not [line for line in log.read_text().splitlines() if "RUN echo" in line and "(cached)" in line]
    run(project, environ, *build)
    assert len([line for line in log.read_text().splitlines() if "RUN echo" in line and "(cached)" in line]) == 2
    run(project, environ, *build, "--no-cache")
    assert not [line for line in log.read_text().splitlines() if "RUN echo" in line and "(cached)" in line]
