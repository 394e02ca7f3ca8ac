"""What the builder `docker` makes with real daemons and buildx builders, and what it says where that fails."""

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from imagewright.builders import BuildRequest, choose
from imagewright.builders.buildkit import BuildKit
from imagewright.builders.docker import EXPORTING, LOADING, Docker
from imagewright.documents import MAX_MANIFEST_BYTES, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import Platform, Reference, parse_digest, parse_reference
from imagewright.settings import Cache
from tests.engines import daemons, independent

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
HEAD = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\n"
EPOCH = 1_700_000_000

Env = Mapping[str, str]


@pytest.fixture(scope="module")
def programs(engine_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Env:
    """An environment with docker and buildx as its plugin, whose buildx builder `far` nobody uses yet."""
    home = tmp_path_factory.mktemp("home")
    (home / ".docker" / "cli-plugins").mkdir(parents=True)
    (home / ".docker" / "cli-plugins" / "docker-buildx").symlink_to(engine_folder / "bin" / "docker-buildx")
    return {"PATH": f"{engine_folder}/docker:{engine_folder}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)}


@pytest.fixture(scope="module")
def far(programs: Env, buildkitd: str) -> Env:
    """With a buildx builder of the driver `remote` in use, and no daemon."""
    env = {**programs, "DOCKER_HOST": "unix:///nowhere.sock", "BUILDX_BUILDER": "far"}
    docker(env, "buildx", "create", "--name", "far", "--driver", "remote", buildkitd)
    return env


@pytest.fixture(scope="module")
def bridge(engine_bin: Path) -> Iterator[str]:
    with daemons.network_bridge() as name:
        yield name


@pytest.fixture(scope="module")
def daemon(engine_bin: Path, bridge: str) -> Iterator[str]:
    with daemons.docker_daemon(engine_bin, bridge=bridge) as address:
        yield address


@pytest.fixture
def near(programs: Env, daemon: str) -> Iterator[Env]:
    """With the driver `docker` in use, and a daemon in which every test leaves images and containers as they were."""
    env = {**programs, "DOCKER_HOST": daemon}
    before = kept(env)
    yield env
    assert kept(env) == before


def docker(env: Env, *arguments: str) -> str:
    return subprocess.run(["docker", *arguments], env=env, check=True, capture_output=True, text=True).stdout.strip()


def kept(env: Env) -> tuple[str, str]:
    """What the daemon has: images with all their names, containers."""
    images = docker(env, "images", "--all", "--no-trunc", "--format", "{{.ID}} {{.Repository}}:{{.Tag}}")
    return images, docker(env, "ps", "--all", "--quiet", "--no-trunc")


@pytest.fixture(scope="module")
def base(engine_bin: Path, busybox_base: str) -> Reference:
    return by_digest(engine_bin, busybox_base)


def by_digest(engine_bin: Path, reference: str, *options: str) -> Reference:
    argv = [engine_bin / "crane", "digest", "--insecure", *options, reference]
    digest = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    return parse_reference(reference).repository.at(parse_digest(digest))


@pytest.fixture
def request_(tmp_path: Path, base: Reference) -> BuildRequest:
    context = tmp_path / "tool"
    context.mkdir()
    (context / "hello").write_text("hello\n")
    (context / "Dockerfile").write_text(f"{HEAD}COPY hello /opt/\nRUN echo $TOOL_VERSION >/opt/version\n")
    return BuildRequest(
        target="codex-fedora",
        context=context,
        dockerfile=context / "Dockerfile",
        base=base,
        platforms=(ARM64,),
        arguments={"BASE_IMAGE": str(base), "TOOL_VERSION": "1.2.3", "FLAVOUR": "a,b=c"},
        labels={"org.example.text": 'two words, a "quote"', "b": "2"},
        annotations={"z": "last", "a": "first"},
        epoch=EPOCH,
    )


def dockerfile(request_: BuildRequest, steps: str) -> BuildRequest:
    (request_.context / "Dockerfile").write_text(HEAD + steps)
    return request_


def onto(request_: BuildRequest, base: Reference) -> BuildRequest:
    return replace(request_, base=base, arguments={**request_.arguments, "BASE_IMAGE": str(base)})


def built(builder: Docker | BuildKit, request_: BuildRequest, into: Path) -> Layout:
    assert builder.unable(request_) is None
    builder.build(request_, into, lambda _: None)
    return Layout(into)


def images(layout: Layout) -> Iterator[tuple[dict, dict, dict]]:
    """(entry of the index, manifest, configuration) of each platform."""
    (top,) = layout.entries()
    for entry in opened(layout, top.digest)["manifests"]:
        manifest = opened(layout, entry["digest"])
        yield entry, manifest, opened(layout, manifest["config"]["digest"])


def opened(layout: Layout, digest: str) -> dict:
    return json.loads(layout.read(parse_digest(digest), MAX_MANIFEST_BYTES))


def assert_whole(layout: Layout, request_: BuildRequest) -> None:
    """What every builder promises."""
    (top,) = layout.entries()
    document = opened(layout, top.digest)
    assert (document["mediaType"], document["annotations"]) == (OCI_INDEX, {"a": "first", "z": "last"})
    assert [one["platform"] for one in document["manifests"]] == [
        {"architecture": one.architecture, "os": "linux"} for one in sorted(request_.platforms)
    ]
    reached = {top.digest}
    for entry, manifest, config in images(layout):
        assert (entry["mediaType"], manifest["config"]["mediaType"]) == (OCI_MANIFEST, OCI_CONFIG)
        assert {one["mediaType"] for one in manifest["layers"]} == {OCI_LAYER_GZIP}
        assert config["architecture"] == entry["platform"]["architecture"]
        assert config["config"]["Labels"] == dict(request_.labels)
        reached |= {entry["digest"], manifest["config"]["digest"], *(one["digest"] for one in manifest["layers"])}
    assert {f"sha256:{path.name}" for path in layout.path.glob("blobs/sha256/*")} == reached
    assert sorted(one.name for one in layout.path.iterdir()) == ["blobs", "index.json", "oci-layout"]


# With a buildx builder that can export


@pytest.mark.parametrize("platforms", [(AMD64,), (ARM64, AMD64)])
def test_an_exported_image_is_the_one_that_buildkit_makes_without_buildx(
    far: Env, buildkitd: str, request_: BuildRequest, tmp_path: Path, platforms: tuple[Platform, ...]
) -> None:
    request_ = replace(request_, platforms=platforms)
    layout = built(Docker(far), request_, tmp_path / "a, b/out")
    assert_whole(layout, request_)
    other = built(BuildKit(buildkitd, far), request_, tmp_path / "other")
    assert layout.entries() == other.entries()


def test_steps_run_on_each_platform_and_see_their_arguments(far: Env, request_: BuildRequest, tmp_path: Path) -> None:
    lines: list[str] = []
    request_ = dockerfile(request_, 'ARG FLAVOUR\nRUN echo "$TOOL_VERSION $FLAVOUR $(uname -m)"\n')
    Docker(far).build(replace(request_, platforms=(AMD64, ARM64)), tmp_path / "out", lines.append)
    assert sorted(line for line in lines if "1.2.3 a,b=c" in line and "RUN" not in line) == [
        "[linux/amd64 2/2] 1.2.3 a,b=c x86_64",
        "[linux/arm64 2/2] 1.2.3 a,b=c aarch64",
    ]


def test_attestations_follow_the_images_where_they_are_asked_for(
    far: Env, request_: BuildRequest, scanner: str, tmp_path: Path
) -> None:
    asked = replace(request_, platforms=(AMD64, ARM64), provenance=True, sbom=scanner)
    layout = built(Docker(far), asked, tmp_path / "out")
    (top,) = layout.entries()
    entries = opened(layout, top.digest)["manifests"]
    assert [one["platform"]["architecture"] for one in entries] == ["amd64", "arm64", "unknown", "unknown"]
    for entry in entries[2:]:
        said = [one["annotations"]["in-toto.io/predicate-type"] for one in opened(layout, entry["digest"])["layers"]]
        assert sorted(said) == ["https://slsa.dev/provenance/v0.2", "https://spdx.dev/Document"]


def test_the_base_takes_the_place_of_the_words_in_from(far: Env, request_: BuildRequest, tmp_path: Path) -> None:
    (request_.context / "Dockerfile").write_text("FROM fedora:41\nCOPY hello /opt/\n")
    layout = built(Docker(far), replace(request_, stands_for="fedora:41"), tmp_path / "out")
    ((_, _, config),) = images(layout)
    theirs = independent.contents(f"docker://{request_.base}")["linux/arm64"].diff_ids
    assert config["rootfs"]["diff_ids"][:-1] == list(theirs)


RANDOM = "RUN cat /proc/sys/kernel/random/uuid >/uuid\n"


@pytest.mark.parametrize("kind", ["local", "registry", "s3"])
def test_a_cache_saves_the_steps_and_its_credentials_are_in_no_command_line(
    far: Env,
    request_: BuildRequest,
    tmp_path: Path,
    debian_registry: str,
    s3_server: str,
    buildkitd: str,
    engine_bin: Path,
    kind: str,
) -> None:
    told = tmp_path / "arguments"
    wrapper = tmp_path / "bin" / "docker"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho "$@" >>{told}\nPATH={far["PATH"]}\nexec docker "$@"\n')
    wrapper.chmod(0o755)
    s3 = {"bucket": daemons.S3_BUCKET, "region": daemons.S3_REGION, "endpoint_url": s3_server, "use_path_style": "true"}
    attributes = {"local": {"dir": f"{tmp_path}/cache"}, "registry": {"ref": f"{debian_registry}/cache:x"}, "s3": s3}
    env = {
        **far,
        "PATH": f"{wrapper.parent}:{far['PATH']}",
        "AWS_ACCESS_KEY_ID": daemons.S3_ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": daemons.S3_SECRET_KEY,
    }
    cached = replace(dockerfile(request_, RANDOM), cache=Cache(kind=kind, attributes=attributes[kind]))
    first = built(Docker(env), cached, tmp_path / "first").entries()
    subprocess.run([engine_bin / "buildctl", "--addr", buildkitd, "prune", "--all"], check=True, capture_output=True)
    assert built(Docker(env), cached, tmp_path / "second").entries() == first
    assert built(Docker(env), replace(cached, no_cache=True), tmp_path / "third").entries() != first
    assert f"type={kind}" in told.read_text()
    assert daemons.S3_SECRET_KEY not in told.read_text()


def test_a_command_runs_in_a_step_of_a_build_that_makes_nothing(
    far: Env, request_: BuildRequest, tmp_path: Path
) -> None:
    layout = built(Docker(far), replace(request_, platforms=(AMD64, ARM64)), tmp_path / "out")
    before = sorted(layout.path.rglob("*"))
    ran = Docker(far).run(layout.path, ARM64, "cat /opt/version; uname -m >&2; exit 3")
    assert (ran.status, sorted(ran.output)) == (3, ["1.2.3", "aarch64"])
    assert Docker(far).run(layout.path, AMD64, "ls /sys/class/net").output == ("lo",)
    assert Docker(far, timeout=3).run(layout.path, AMD64, "echo a; sleep 60").output == (
        "a",
        "it did not end within 3 s",
    )
    assert sorted(layout.path.rglob("*")) == before


# With a daemon that keeps images itself


@pytest.mark.parametrize("platform", [AMD64, ARM64])
def test_a_loaded_image_becomes_the_same_as_an_exported_one_but_for_times(
    near: Env, buildkitd: str, request_: BuildRequest, tmp_path: Path, platform: Platform
) -> None:
    request_ = replace(request_, platforms=(platform,))
    layout = built(Docker(near), request_, tmp_path / "out")
    assert_whole(layout, request_)
    ((_, _, ours),) = images(layout)
    ((_, _, other),) = images(built(BuildKit(buildkitd, near), request_, tmp_path / "other"))
    base = independent.contents(f"docker://{request_.base}")[str(platform)].diff_ids
    assert base
    assert ours["rootfs"]["diff_ids"][: len(base)] == other["rootfs"]["diff_ids"][: len(base)] == list(base)
    assert len(ours["rootfs"]["diff_ids"]) == len(other["rootfs"]["diff_ids"])
    for part in ("Labels", "Env", "Cmd"):
        assert ours["config"][part] == other["config"][part]


def test_a_command_runs_in_a_container_without_network_and_anything_of_the_hosts(
    near: Env, request_: BuildRequest, tmp_path: Path
) -> None:
    near = {**near, "SECRET": "of the host"}
    (Path(near["HOME"]) / ".docker" / "config.json").write_text(
        json.dumps({"proxies": {"default": {"httpProxy": "http://user:password@127.0.0.1:1"}}})
    )
    layout = built(Docker(near), request_, tmp_path / "out")
    ran = Docker(near).run(layout.path, ARM64, "cat /opt/version; uname -m >&2; exit 3")
    assert (ran.status, sorted(ran.output)) == (3, ["1.2.3", "aarch64"])
    assert Docker(near).run(layout.path, ARM64, "ls /sys/class/net").output == ("lo",)
    assert Docker(near).run(layout.path, ARM64, "env | grep -e SECRET -e password").output == ()
    assert Docker(near).run(layout.path, ARM64, "grep CapEff /proc/self/status").output == (
        "CapEff:    0000000000000000",
    )
    assert Docker(near).run(layout.path, ARM64, "nosuch").status == 127
    assert Docker(near, timeout=3).run(layout.path, ARM64, "echo a; sleep 60").status == 124


@pytest.mark.parametrize("named", [True, False])
def test_an_image_that_somebody_has_already_stays_after_a_command_ran_in_it(
    near: Env, request_: BuildRequest, tmp_path: Path, named: bool
) -> None:
    layout = built(Docker(near), request_, tmp_path / "out")
    keep(near, f"oci:{layout.path}", "arm64")
    if not named:
        # Its name becomes another's.
        keep(near, f"docker://{request_.base}", "amd64")
    before = kept(near)
    assert Docker(near).run(layout.path, ARM64, "cat /opt/version").output == ("1.2.3",)
    assert kept(near) == before
    docker(near, "image", "rm", *docker(near, "images", "--quiet", "--no-trunc").split())


def keep(env: Env, image: str, architecture: str) -> None:
    """Has the daemon keep an image as `theirs:1`."""
    argv = ["skopeo", "copy", f"--override-arch={architecture}", "--src-tls-verify=false"]
    argv += [f"--dest-daemon-host={env['DOCKER_HOST']}", image, "docker-daemon:theirs:1"]
    subprocess.run(argv, check=True, capture_output=True)


def test_an_image_without_a_shell_says_so(near: Env, request_: BuildRequest, tmp_path: Path) -> None:
    (request_.context / "Dockerfile").write_text("FROM scratch\nCOPY hello /\n")
    layout = built(Docker(near), replace(request_, base=None), tmp_path / "out")
    ran = Docker(near).run(layout.path, ARM64, "true")
    assert ran.status == 127
    assert "no such file or directory" in ran.output[-1]


class Cut(KeyboardInterrupt):
    """As Ctrl-C raises it."""


def test_a_build_that_is_cut_off_leaves_nothing(near: Env, request_: BuildRequest, tmp_path: Path) -> None:
    def cut(line: str) -> None:
        if "begun" in line:
            raise Cut

    with pytest.raises(Cut):
        Docker(near).build(dockerfile(request_, "RUN echo be'gun'; sleep 60\n"), tmp_path / "images/out", cut)
    assert list((tmp_path / "images").iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"platforms": (AMD64, ARM64)},
            "docker: it builds for one platform at a time, not for linux/amd64, linux/arm64",
        ),
        ({"provenance": True}, "docker: it makes no attestations; `sbom` and `provenance` are set"),
        (
            {"stands_for": "fedora:41"},
            "docker: it cannot put the base's digest in the place of FROM fedora:41; start from ARG BASE_IMAGE",
        ),
        ({"dockerfile": None}, "docker: the tool has no Dockerfile"),
        (
            {"platforms": (Platform("linux", "s390x"),)},
            (
                "docker: the buildx builder default does not run linux/s390x; it would with an emulator "
                "(Debian: qemu-user-static and binfmt-support) and after a restart"
            ),
        ),
    ],
)
def test_what_such_a_daemon_cannot_do_is_said_before_it_starts(
    near: Env, request_: BuildRequest, changes: Mapping[str, object], reason: str
) -> None:
    with pytest.raises(BuildFailed) as refused:
        choose("docker", [Docker(near)], replace(request_, **changes))
    assert str(refused.value) == (
        f"codex-fedora: no builder can build this\n    {reason}\n  `imagewright doctor` says more."
    )


def test_what_an_engine_can_is_what_is_in_use(near: Env, far: Env) -> None:
    assert (Docker(near).can, Docker(far).can) == (LOADING, EXPORTING)


# Failures


def failure(builder: Docker, request_: BuildRequest, into: Path) -> str:
    with pytest.raises(BuildFailed) as failed:
        builder.build(request_, into / "images" / "out", lambda _: None)
    assert list((into / "images").iterdir()) == [], "nothing is left of a failed build"
    return str(failed.value).replace(f"{request_.dockerfile}:", "Dockerfile:")


@pytest.fixture(params=["far", "near"])
def either(request: pytest.FixtureRequest) -> Env:
    env: Env = request.getfixturevalue(request.param)
    return env


def test_a_failed_step_is_told_with_its_command_exit_code_and_last_lines(
    either: Env, request_: BuildRequest, tmp_path: Path
) -> None:
    steps = "COPY hello /\nRUN for n in $(seq 40); do echo line $n; done; printf 'no newline'; exit 7\n"
    told = failure(Docker(either), dockerfile(request_, steps), tmp_path)
    last = "".join(f"\n    line {n}" for n in range(27, 41))
    command = "RUN for n in $(seq 40); do echo line $n; done; printf 'no newline'; exit 7"
    assert told.removeprefix("Dockerfile:5: ") == (f"codex-fedora: [3/3] {command}: exit code 7{last}\n    no newline")


@pytest.mark.parametrize(
    ("steps", "at_docker_20", "today"),
    [
        (
            "COPYY hello /\n",
            "Dockerfile:4: codex-fedora: dockerfile parse error line 4: unknown instruction: COPYY\n  Correct the Dockerfile.",
            (
                "Dockerfile:4: codex-fedora: dockerfile parse error on line 4: unknown instruction: COPYY (did you mean COPY?)"
                "\n  Correct the Dockerfile."
            ),
        ),
        (
            "COPY nothing /\n",
            (
                'codex-fedora: "/nothing" not found: not found\n'
                "  COPY and ADD find what is in the build context and not in .dockerignore."
            ),
            (
                'Dockerfile:4: codex-fedora: "/nothing": not found\n'
                "  COPY and ADD find what is in the build context and not in .dockerignore."
            ),
        ),
    ],
)
def test_a_mistake_in_the_dockerfile_is_told_with_its_line(
    request: pytest.FixtureRequest, request_: BuildRequest, tmp_path: Path, steps: str, at_docker_20: str, today: str
) -> None:
    for name, message in (("near", at_docker_20), ("far", today)):
        env = request.getfixturevalue(name)
        assert failure(Docker(env), dockerfile(request_, steps), tmp_path / name) == message


def test_a_base_that_is_gone_is_told(either: Env, request_: BuildRequest, tmp_path: Path) -> None:
    gone = request_.base.repository.at(parse_digest(f"sha256:{'0' * 64}"))
    told = failure(Docker(either), onto(request_, gone), tmp_path)
    assert f"codex-fedora: {gone}: " in told
    assert told.endswith(
        ": not found\n  Look whether the base is still there and may be read; a new plan takes the base of today."
    )


def test_a_base_of_one_platform_is_not_taken_for_another(
    either: Env, engine_bin: Path, busybox_base: str, request_: BuildRequest, tmp_path: Path
) -> None:
    alone = onto(request_, by_digest(engine_bin, busybox_base, "--platform", "linux/amd64"))
    told = failure(Docker(either), alone, tmp_path)
    assert told.startswith("codex-fedora: ")
    assert "linux/amd64" in told
    assert "linux/arm64" in told
    built(Docker(either), replace(alone, platforms=(AMD64,)), tmp_path / "out")


def test_a_build_that_takes_too_long_is_ended(either: Env, request_: BuildRequest, tmp_path: Path) -> None:
    told = failure(Docker(either, timeout=3), dockerfile(request_, "RUN sleep 60\n"), tmp_path)
    assert told == "codex-fedora: the build did not end within 3 s\n  Look which step takes that long in the log."


@contextmanager
def disk(folder: Path, size: str) -> Iterator[Path]:
    """A file system of that size."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize("size", ["500k", "2500k"])
def test_a_full_disk_is_told(either: Env, request_: BuildRequest, tmp_path: Path, size: str) -> None:
    (request_.context / "random").write_bytes(os.urandom(3_000_000))
    with disk(tmp_path / "small", size) as small:
        told = failure(Docker(either), dockerfile(request_, "COPY random /\n"), small)
    assert told.startswith("codex-fedora: ")
    assert "no space left on device" in told.lower()
    assert told.endswith("\n  Make room where BuildKit keeps its state, or where the image is written.")


def test_a_daemon_that_ends_while_it_builds_is_told(
    programs: Env, engine_bin: Path, bridge: str, request_: BuildRequest, tmp_path: Path
) -> None:
    with daemons.docker_daemon(engine_bin, bridge=bridge) as address:
        pid = int((Path(address.removeprefix("unix://")).parent / "pid").read_text())

        def end(line: str) -> None:
            if "begun" in line:
                os.kill(pid, signal.SIGTERM)

        builder = Docker({**programs, "DOCKER_HOST": address})
        assert builder.unable(request_) is None
        with pytest.raises(BuildFailed) as failed:
            builder.build(dockerfile(request_, "RUN echo be'gun'; sleep 20\n"), tmp_path / "images/out", end)
    assert str(failed.value) == (
        "codex-fedora: the engine has ended while it was building: the buildx builder default cannot be used: "
        f"Cannot connect to the Docker daemon at {address}. Is the docker daemon running?\n"
        "  Start it, look into its log, then build again."
    )
    assert list((tmp_path / "images").iterdir()) == []


def with_no_docker(env: Env, folder: Path) -> Env:
    return {**env, "PATH": "/usr/bin:/bin"}


def with_no_buildx(env: Env, folder: Path) -> Env:
    return {**env, "PATH": f"{env['PATH'].split(':')[0]}:/usr/bin:/bin", "HOME": str(folder)}


def with_something_else_named_docker(env: Env, folder: Path) -> Env:
    for name in ("docker", "docker-buildx"):
        (folder / name).write_text("not a program")
        (folder / name).chmod(0o755)
    return {**env, "PATH": str(folder)}


def with_no_daemon(env: Env, folder: Path) -> Env:
    return {**env, "DOCKER_HOST": f"unix://{folder}/nobody.sock"}


def with_an_unknown_builder(env: Env, folder: Path) -> Env:
    return {**env, "BUILDX_BUILDER": "nobody"}


def with_an_idle_builder(env: Env, folder: Path) -> Env:
    socket = f"unix://{folder}/nobody.sock"
    env = {**env, "DOCKER_CONFIG": str(folder), "BUILDX_BUILDER": "idle"}
    (folder / "cli-plugins").symlink_to(Path(env["HOME"]) / ".docker" / "cli-plugins")
    docker(env, "buildx", "create", "--name", "idle", "--driver", "remote", socket)
    return env


@pytest.mark.parametrize(
    ("surroundings", "reason"),
    [
        (with_no_docker, "docker is not installed"),
        (with_something_else_named_docker, "docker cannot be run: Exec format error"),
        (with_no_buildx, "docker has no buildx; install it (docker-buildx-plugin or docker-buildx)"),
        (
            with_no_daemon,
            (
                "the buildx builder default cannot be used: "
                "Cannot connect to the Docker daemon at unix://FOLDER/nobody.sock. Is the docker daemon running?"
            ),
        ),
        (with_an_unknown_builder, 'buildx does not say which builder is in use: no builder "nobody" found'),
        (
            with_an_idle_builder,
            "the buildx builder idle (remote) is inactive; `docker buildx inspect --bootstrap idle` starts it",
        ),
    ],
)
def test_it_says_why_it_cannot_build(
    programs: Env, request_: BuildRequest, tmp_path: Path, surroundings: Callable[[Env, Path], Env], reason: str
) -> None:
    (folder := tmp_path / "f").mkdir()
    builder = Docker(surroundings(programs, folder))
    assert builder.unable(request_) == reason.replace("FOLDER", str(folder))
    with pytest.raises(BuildFailed):
        builder.build(request_, tmp_path / "out", lambda _: None)
    assert not (tmp_path / "out").exists()


def test_buildx_is_found_without_docker(far: Env, engine_bin: Path, request_: BuildRequest, tmp_path: Path) -> None:
    built(Docker({**far, "PATH": f"{engine_bin}:/usr/bin:/bin"}), request_, tmp_path / "out")
