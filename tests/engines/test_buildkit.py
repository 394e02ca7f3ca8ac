"""What the builder `buildkit` makes with a real BuildKit, and what it says where that fails."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imagewright import process
from imagewright.builders import BuildRequest
from imagewright.builders.buildkit import BuildKit, buildkit
from imagewright.builders.daemon import buildkitd
from imagewright.documents import MAX_MANIFEST_BYTES, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import Platform, Reference, parse_digest, parse_reference

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
HEAD = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\n"
EPOCH = 1_700_000_000


@pytest.fixture(scope="module")
def env(engine_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    home = tmp_path_factory.mktemp("home")
    return {"PATH": f"{engine_bin}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(home)}


@pytest.fixture(scope="module")
def builder(buildkitd: str, env: Mapping[str, str]) -> BuildKit:
    return BuildKit(buildkitd, env, timeout=100)


@pytest.fixture(scope="module")
def base(engine_bin: Path, busybox_base: str) -> Reference:
    argv = [engine_bin / "crane", "digest", "--insecure", busybox_base]
    digest = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    return parse_reference(busybox_base).repository.at(parse_digest(digest))


@pytest.fixture
def request_(tmp_path: Path, base: Reference) -> BuildRequest:
    context = tmp_path / "tool"
    context.mkdir()
    (context / "hello").write_text("hello\n")
    (context / "Dockerfile").write_text(f"{HEAD}COPY hello /opt/\n")
    return BuildRequest(
        target="codex-fedora",
        context=context,
        dockerfile=context / "Dockerfile",
        base=base,
        platforms=(ARM64, AMD64),
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


def built(builder: BuildKit, request_: BuildRequest, into: Path) -> Layout:
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


@pytest.mark.parametrize("platforms", [(AMD64,), (ARM64,), (ARM64, AMD64)])
def test_the_layout_names_one_index_with_the_platforms_in_order(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, platforms: tuple[Platform, ...]
) -> None:
    layout = built(builder, replace(request_, platforms=platforms), tmp_path / "a, b/out")
    (top,) = layout.entries()
    document = opened(layout, top.digest)
    assert (document["mediaType"], document["annotations"]) == (OCI_INDEX, {"a": "first", "z": "last"})
    assert [one["platform"]["architecture"] for one in document["manifests"]] == [
        one.architecture for one in sorted(platforms)
    ]
    assert [(one["mediaType"], one["platform"]["os"]) for one in document["manifests"]] == [
        (OCI_MANIFEST, "linux")
    ] * len(platforms)
    reached = {top.digest}
    for entry, manifest, config in images(layout):
        assert config["architecture"] == entry["platform"]["architecture"]
        assert config["config"]["Labels"] == dict(request_.labels)
        assert manifest["config"]["mediaType"] == OCI_CONFIG
        assert {one["mediaType"] for one in manifest["layers"]} == {OCI_LAYER_GZIP}
        reached |= {entry["digest"], manifest["config"]["digest"], *(one["digest"] for one in manifest["layers"])}
    assert {f"sha256:{path.name}" for path in layout.path.glob("blobs/sha256/*")} == reached


def test_steps_run_on_each_platform_and_see_their_arguments(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path
) -> None:
    lines: list[str] = []
    request_ = dockerfile(request_, 'ARG FLAVOUR\nRUN echo "$TOOL_VERSION $FLAVOUR $(uname -m)"\n')
    builder.build(request_, tmp_path / "out", lines.append)
    assert sorted(line for line in lines if "1.2.3 a,b=c" in line and "RUN" not in line) == [
        "[linux/amd64 2/2] 1.2.3 a,b=c x86_64",
        "[linux/arm64 2/2] 1.2.3 a,b=c aarch64",
    ]


def test_the_layers_of_the_base_are_a_prefix_although_times_are_rewritten(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, engine_bin: Path
) -> None:
    layout = built(builder, dockerfile(request_, "COPY hello /opt/\nRUN date > /opt/now\n"), tmp_path / "out")
    for entry, _, config in images(layout):
        platform = f"linux/{entry['platform']['architecture']}"
        argv = [engine_bin / "crane", "config", "--insecure", "--platform", platform, str(request_.base)]
        theirs = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["rootfs"]["diff_ids"]
        assert theirs
        assert config["rootfs"]["diff_ids"][: len(theirs)] == theirs
        assert len(config["rootfs"]["diff_ids"]) == len(theirs) + 2


def test_the_same_input_makes_the_same_image_without_a_cache(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, engine_bin: Path, buildkitd: str
) -> None:
    first = built(builder, request_, tmp_path / "first").entries()
    subprocess.run([engine_bin / "buildctl", "--addr", buildkitd, "prune", "--all"], check=True, capture_output=True)
    # Times after the commit's become the commit's; BuildKit leaves earlier ones as they are.
    os.utime(request_.context / "hello", (EPOCH + 1, EPOCH + 1))
    request_.context.rename(tmp_path / "moved")
    moved = replace(request_, context=tmp_path / "moved", dockerfile=tmp_path / "moved/Dockerfile")
    assert built(builder, moved, tmp_path / "second").entries() == first


def test_a_shared_dockerfile_beside_the_tools_is_used(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path
) -> None:
    (request_.context / "Dockerfile").rename(tmp_path / "Dockerfile")
    built(builder, replace(request_, dockerfile=tmp_path / "Dockerfile"), tmp_path / "out")


def failure(builder: BuildKit, request_: BuildRequest, into: Path) -> str:
    with pytest.raises(BuildFailed) as failed:
        builder.build(request_, into / "images" / "out", lambda _: None)
    assert list((into / "images").iterdir()) == [], "nothing is left of a failed build"
    return str(failed.value).replace(f"{request_.dockerfile}:", "Dockerfile:")


def test_a_failed_step_is_told_with_its_command_exit_code_and_last_lines(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path
) -> None:
    steps = (
        "COPY hello /\nRUN for n in $(seq 40); do echo line $n; done; \\\n    printf 'no \\033[31mnewline'; exit 7\n"
    )
    told = failure(builder, replace(dockerfile(request_, steps), platforms=(AMD64,)), tmp_path)
    last = "".join(f"\n    line {n}" for n in range(27, 41))
    command = "RUN for n in $(seq 40); do echo line $n; done;     printf 'no \\033[31mnewline'; exit 7"
    assert told == f"Dockerfile:5: codex-fedora: [3/3] {command}: exit code 7{last}\n    no newline"


def test_a_step_that_fails_on_one_platform_names_it(builder: BuildKit, request_: BuildRequest, tmp_path: Path) -> None:
    told = failure(builder, dockerfile(request_, "RUN test $(uname -m) = x86_64\n"), tmp_path)
    assert told == "Dockerfile:4: codex-fedora: [linux/arm64 2/2] RUN test $(uname -m) = x86_64: exit code 1"


def test_a_base_that_is_not_there_is_told_in_the_frontends_words(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path
) -> None:
    gone = request_.base.repository.at(parse_digest(f"sha256:{'0' * 64}"))
    told = failure(builder, onto(request_, gone), tmp_path)
    says = f"{gone}: failed to resolve source metadata for {gone}: {gone}: not found"
    advice = "Look whether the base is still there and may be read; a new plan takes the base of today."
    assert told == f"Dockerfile:2: codex-fedora: {says}\n  {advice}"


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (
            "COPYY hello /\n",
            "dockerfile parse error on line 4: unknown instruction: COPYY (did you mean COPY?)",
        ),
        ("COPY nothing /\n", '"/nothing": not found'),
        ("RUN --mount=type=nonsense true\n", "unsupported mount type"),
    ],
)
def test_a_mistake_in_the_dockerfile_is_told_with_its_line(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, steps: str, message: str
) -> None:
    told = failure(builder, dockerfile(request_, steps), tmp_path)
    assert told.startswith("Dockerfile:4: codex-fedora: ")
    assert message in told


def test_a_build_that_takes_too_long_is_ended(
    buildkitd: str, env: Mapping[str, str], request_: BuildRequest, tmp_path: Path
) -> None:
    told = failure(BuildKit(buildkitd, env, timeout=2), dockerfile(request_, "RUN sleep 60\n"), tmp_path)
    assert told == "codex-fedora: the build did not end within 2 s"


def test_it_says_why_it_cannot_build(
    builder: BuildKit, request_: BuildRequest, buildkitd: str, env: Mapping[str, str], tmp_path: Path
) -> None:
    address = f"unix://{tmp_path}/nobody.sock"
    exotic = replace(request_, platforms=(AMD64, Platform("linux", "s390x"), Platform("linux", "mips64")))
    assert builder.unable(replace(request_, dockerfile=None)) == "the tool has no Dockerfile"
    assert builder.unable(exotic) == (
        f"the BuildKit at {buildkitd} does not run linux/s390x, linux/mips64; it would with an emulator "
        "(Debian: qemu-user-static and binfmt-support) and after a restart"
    )
    assert BuildKit(address, env).unable(request_) == f"no BuildKit answers at {address}: there is no such socket"
    assert BuildKit(buildkitd, {"PATH": str(tmp_path)}).unable(request_) == "buildctl is not installed"


def test_a_platform_that_the_base_lacks_fails(builder: BuildKit, request_: BuildRequest, tmp_path: Path) -> None:
    told = failure(builder, replace(request_, platforms=(AMD64, Platform("linux", "s390x"))), tmp_path)
    assert "no match for platform" in told


def test_a_base_of_one_platform_is_not_taken_for_another(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, engine_bin: Path
) -> None:
    argv = [engine_bin / "crane", "digest", "--insecure", "--platform", "linux/amd64", str(request_.base)]
    amd64 = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    alone = onto(replace(request_, platforms=(ARM64,)), request_.base.repository.at(parse_digest(amd64)))
    assert failure(builder, alone, tmp_path) == (
        f'codex-fedora: Base image {alone.base} was pulled with platform "linux/amd64", '
        'expected "linux/arm64" for current build (line 2)'
    )
    built(builder, replace(alone, platforms=(AMD64,)), tmp_path / "out")


def assert_gone(address: str) -> None:
    folder = Path(address.removeprefix("unix://")).parent
    assert not folder.exists()
    assert str(folder) not in programs()
    assert str(folder) not in Path("/proc/self/mounts").read_text()


def programs() -> str:
    return subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout


class Cut(KeyboardInterrupt):
    """As Ctrl-C raises it."""


def test_a_buildkit_of_our_own_builds_and_leaves_nothing(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path
) -> None:
    with buildkitd(env, plain_http=[request_.base.repository.host]) as address:
        built(BuildKit(address, env), request_, tmp_path / "out")
    assert_gone(address)


def test_a_buildkit_of_our_own_leaves_nothing_where_a_build_is_cut_off(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path
) -> None:
    def cut(line: str) -> None:
        if "begun" in line:
            raise Cut

    with pytest.raises(Cut):
        with buildkitd(env) as address:
            request_ = dockerfile(request_, "RUN echo be'gun'; sleep 31.4159\n")
            BuildKit(address, env).build(request_, tmp_path / "images/out", cut)
    assert_gone(address)
    assert list((tmp_path / "images").iterdir()) == []
    assert "sleep 31.4159" not in programs()


def test_a_buildkit_that_cannot_start_says_why(env: Mapping[str, str], tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="buildkitd ended at once:\n"):
        with buildkitd({**env, "PATH": env["PATH"].split(":", maxsplit=1)[0]}):  # no runc
            pass


def test_the_buildkit_that_is_named_is_used(env: Mapping[str, str], buildkitd: str, request_: BuildRequest) -> None:
    with buildkit({**env, "BUILDKIT_HOST": buildkitd}) as named:
        assert named.unable(request_) is None
    with buildkit({**env, "BUILDKIT_HOST": "tcp://127.0.0.1:1"}) as named:
        assert (named.unable(request_) or "").startswith("no BuildKit answers at tcp://127.0.0.1:1: ")


def test_a_daemon_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do /bin/sleep 0.1; done"]
    with process.running(argv, env={}, output=tmp_path / "log", grace=0.3) as daemon:
        while not (tmp_path / "log").read_text():
            assert daemon.status is None
    assert daemon.status == -9
