"""What the builder `buildkit` makes with a real BuildKit, and what it says where that fails."""

import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from imagewright import process
from imagewright.builders import NOTICE, BuildRequest
from imagewright.builders.buildkit import BuildKit, buildkit
from imagewright.builders.daemon import buildkitd, lacking
from imagewright.documents import MAX_MANIFEST_BYTES, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import Platform, Reference, parse_digest, parse_reference
from imagewright.settings import Cache
from tests.engines.daemons import (
    ROOTLESS_USER,
    S3_ACCESS_KEY,
    S3_BUCKET,
    S3_REGION,
    S3_SECRET_KEY,
    scratch_folder,
)

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


def layers(engine_bin: Path, reference: Reference, platform: str) -> list[str]:
    """The diff ids of an image in a registry."""
    argv = [engine_bin / "crane", "config", "--insecure", "--platform", platform, str(reference)]
    ids: list[str] = json.loads(subprocess.run(argv, check=True, capture_output=True).stdout)["rootfs"]["diff_ids"]
    return ids


def test_the_layers_of_the_base_are_a_prefix_although_times_are_rewritten(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, engine_bin: Path
) -> None:
    layout = built(builder, dockerfile(request_, "COPY hello /opt/\nRUN date > /opt/now\n"), tmp_path / "out")
    for entry, _, config in images(layout):
        theirs = layers(engine_bin, request_.base, f"linux/{entry['platform']['architecture']}")
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


@pytest.mark.parametrize(
    "words",
    [
        "fedora",
        "fedora:latest",
        "fedora:42",
        "docker.io/library/fedora",
        "index.docker.io/fedora:42",
        "aicage/fedora",
        "localhost/fedora",
        "localhost:5000/fedora:42",
        "quay.io/aicage/fedora",
    ],
)
def test_a_base_takes_the_place_of_the_words_in_from(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, words: str, base: Reference, engine_bin: Path
) -> None:
    (request_.context / "Dockerfile").write_text(f"FROM {words}\nCOPY hello /opt/\n")
    layout = built(builder, replace(request_, stands_for=words, platforms=(AMD64,)), tmp_path / "out")
    ((_, _, config),) = images(layout)
    assert config["rootfs"]["diff_ids"][:-1] == layers(engine_bin, base, "linux/amd64")


def test_a_stage_with_the_name_of_the_base_keeps_its_steps(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path
) -> None:
    steps = "FROM fedora AS fedora\nRUN echo made >/here\nFROM fedora\nCOPY --from=fedora:latest /bin/sh /sh\n"
    (request_.context / "Dockerfile").write_text(f"{steps}RUN test $(cat /here) = made\n")
    built(builder, replace(request_, stands_for="fedora", platforms=(AMD64,)), tmp_path / "out")


def test_an_image_from_scratch_has_no_base(builder: BuildKit, request_: BuildRequest, tmp_path: Path) -> None:
    (request_.context / "Dockerfile").write_text("FROM scratch\nCOPY hello /opt/\n")
    layout = built(builder, replace(request_, base=None, arguments={}), tmp_path / "out")
    assert [len(config["rootfs"]["diff_ids"]) for _, _, config in images(layout)] == [1, 1]


def fresh(env: Mapping[str, str], request_: BuildRequest, into: Path) -> tuple[Descriptor, list[str]]:
    """What a BuildKit makes that has not built before, and what it tells."""
    lines: list[str] = []
    with buildkitd(env) as address:
        BuildKit(address, env, timeout=100).build(request_, into, lines.append)
    (top,) = Layout(into).entries()
    return top, lines


def once(request_: BuildRequest, cache: Cache | None) -> BuildRequest:
    """A step that never gives the same twice: if the image is the same, it came from the cache."""
    return replace(dockerfile(request_, "RUN cat /proc/sys/kernel/random/uuid >/opt\n"), cache=cache)


def cached(kind: str, **attributes: str) -> Cache:
    return Cache(kind=kind, attributes=attributes)


@pytest.fixture
def caches(debian_registry: str, s3_server: str, tmp_path: Path) -> Mapping[str, Cache]:
    return {
        "local": cached("local", dir=f"{tmp_path}/a, cache/of codex"),
        "registry": cached("registry", ref=f"{debian_registry}/cache/{tmp_path.name.replace('_', '')}:codex"),
        "s3": cached(
            "s3", bucket=S3_BUCKET, region=S3_REGION, endpoint_url=s3_server, use_path_style="true", name=tmp_path.name
        ),
    }


@pytest.mark.parametrize("kind", ["local", "registry", "s3"])
def test_steps_are_taken_from_the_cache_that_an_earlier_build_filled(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path, kind: str, caches: Mapping[str, Cache]
) -> None:
    secrets = {"AWS_ACCESS_KEY_ID": S3_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": S3_SECRET_KEY}
    request_ = once(request_, caches[kind])
    first, told = fresh({**env, **secrets}, request_, tmp_path / "first")
    again, told_again = fresh({**env, **secrets}, request_, tmp_path / "again")
    anew, told_anew = fresh({**env, **secrets}, replace(request_, no_cache=True), tmp_path / "anew")
    assert (again, anew == first) == (first, False)
    assert [line for line in told + told_again + told_anew if line.startswith(NOTICE)] == []


def test_credentials_of_a_cache_are_no_arguments(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path, caches: Mapping[str, Cache]
) -> None:
    seen: list[str] = []
    secrets = {"AWS_ACCESS_KEY_ID": S3_ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": S3_SECRET_KEY}
    with buildkitd({**env, **secrets}) as address:
        BuildKit(address, {**env, **secrets}).build(
            once(request_, caches["s3"]), tmp_path / "out", lambda _: seen.append(programs())
        )
    assert seen
    assert S3_SECRET_KEY not in "".join(seen)


NOBODY = "127.0.0.1:1"


@pytest.mark.parametrize(
    ("cache", "notes"),
    [
        (
            cached("registry", ref=f"{NOBODY}/cache:codex"),
            [
                "the build cache was not read: .*connection refused",
                "the build cache was not written: .*connection refused",
            ],
        ),
        (
            cached("s3", bucket="b", region="r", endpoint_url=f"http://{NOBODY}", use_path_style="true"),
            ["the build cache was not read: .*", "the build cache was not written: .*"],
        ),
        (
            cached("local", dir="/proc/nothing"),
            ["the build cache /proc/nothing is not used: No such file or directory"],
        ),
        (
            cached("local", dir="{damaged}"),
            ["the build cache {damaged} is not used: {damaged}/index.json is damaged; remove the folder"],
        ),
        (
            cached("local", dir="{tiny}/cache"),
            ["the build cache was not written: .*no space left on device"],
        ),
    ],
    ids=["registry", "s3", "no folder", "damaged", "full"],
)
def test_a_cache_that_cannot_be_used_is_told_and_fails_no_build(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path, cache: Cache, notes: list[str], tiny: Path
) -> None:
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged/index.json").write_text("{")
    places = {"damaged": f"{tmp_path}/damaged", "tiny": str(tiny)}
    cache = replace(cache, attributes={name: text.format(**places) for name, text in cache.attributes.items()})
    _, told = fresh(env, once(request_, cache), tmp_path / "out")
    notices = [line for line in told if line.startswith(NOTICE)]
    assert len(notices) == len(notes), notices
    for line, note in zip(notices, notes):
        assert re.fullmatch(NOTICE + note.format(**places), line), line


@pytest.fixture
def tiny() -> Iterator[Path]:
    """A file system on which nothing has room."""
    with scratch_folder("tiny") as folder:
        place = folder / "mounted"
        place.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=True)
        yield place


@pytest.mark.parametrize("platforms", [(AMD64,), (AMD64, ARM64)])
@pytest.mark.parametrize(
    ("wanted", "predicates"),
    [
        ({"provenance": True}, {"https://slsa.dev/provenance/v1"}),
        ({"sbom": "scanner"}, {"https://spdx.dev/Document"}),
        ({"sbom": "scanner", "provenance": True}, {"https://spdx.dev/Document", "https://slsa.dev/provenance/v1"}),
    ],
    ids=["provenance", "sbom", "both"],
)
def test_attestations_stand_after_the_platforms_that_they_speak_of(
    builder: BuildKit,
    request_: BuildRequest,
    tmp_path: Path,
    scanner: str,
    platforms: tuple[Platform, ...],
    wanted: Mapping[str, Any],
    predicates: set[str],
) -> None:
    wanted = {name: scanner if value == "scanner" else value for name, value in wanted.items()}
    layout = built(builder, replace(request_, platforms=platforms, **wanted), tmp_path / "out")
    (top,) = layout.entries()
    document = opened(layout, top.digest)
    shipped, said = document["manifests"][: len(platforms)], document["manifests"][len(platforms) :]
    assert document["annotations"] == {"a": "first", "z": "last"}
    assert [one["platform"]["architecture"] for one in shipped] == [one.architecture for one in platforms]
    assert [(one["platform"], one["annotations"]) for one in said] == [
        (
            {"architecture": "unknown", "os": "unknown"},
            {"vnd.docker.reference.digest": one["digest"], "vnd.docker.reference.type": "attestation-manifest"},
        )
        for one in shipped
    ]
    reached = {top.digest}
    for entry in document["manifests"]:
        manifest = opened(layout, entry["digest"])
        reached |= {entry["digest"], manifest["config"]["digest"], *(one["digest"] for one in manifest["layers"])}
    for entry in said:
        statements = opened(layout, entry["digest"])["layers"]
        assert {one["annotations"]["in-toto.io/predicate-type"] for one in statements} <= predicates | SLSA_02
        assert len(statements) == len(predicates)
    assert {f"sha256:{path.name}" for path in layout.path.glob("blobs/sha256/*")} == reached


SLSA_02 = {"https://slsa.dev/provenance/v0.2"}
"""What BuildKit before 0.28 writes for provenance unless it is told otherwise."""


def test_two_builders_make_the_same_image_of_the_same_input(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path
) -> None:
    request_ = dockerfile(request_, "COPY . /opt/\nRUN mkdir /a; echo $(uname -m) >/a/b; ln -s b /a/c; rm /etc/group\n")
    for name, seconds in {"older": EPOCH - 9999, "newer": EPOCH + 9999, "at": EPOCH}.items():
        (request_.context / name).write_text(name)
        os.utime(request_.context / name, (seconds, seconds))
    made = []
    for place in ("first", "second"):
        made.append(fresh(env, replace(request_, no_cache=True), tmp_path / place)[0])
        time.sleep(1.1)  # so that its clock shows another second
    assert made[0] == made[1]


@pytest.fixture(scope="module")
def layout(builder: BuildKit, base: Reference, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image for both platforms in which commands can be run."""
    context = tmp_path_factory.mktemp("image")
    (context / "Dockerfile").write_text(f"FROM {base}\nENV NAME=codex\nWORKDIR /opt\nRUN echo 0.77 >version\n")
    request = BuildRequest(
        target="codex-fedora",
        context=context,
        dockerfile=context / "Dockerfile",
        base=base,
        platforms=(AMD64, ARM64),
        arguments={},
        labels={},
        annotations={},
        epoch=EPOCH,
        provenance=True,
    )
    builder.build(request, context / "out", lambda _: None)
    return context / "out"


@pytest.mark.parametrize(
    ("command", "status", "output"),
    [
        ("cat version; echo $NAME", 0, ("0.77", "codex")),
        ("echo out; echo err >&2; exit 3", 3, ("out", "err")),
        ("printf 'a\\033[31mb\\r\\033[0mc\\tno newline'", 0, ("c    no newline",)),
        ("cat <<'END'\nEND of \"it\"\n\\\nEND\n", 0, ('END of "it"', "\\")),
        ("ip -o addr show | grep -v ' lo '", 1, ()),
        ("ulimit -n; ulimit -u; ulimit -c", 0, ("4096", "4096", "0")),
        ("nothing-of-the-kind", 127, ("/bin/sh: nothing-of-the-kind: not found",)),
        ("sleep 9 & kill -9 $!; wait $!", 137, ("Killed",)),
    ],
)
def test_a_command_runs_in_what_was_built(
    builder: BuildKit, layout: Path, command: str, status: int, output: tuple[str, ...]
) -> None:
    ran = builder.run(layout, AMD64, command)
    assert (ran.status, sorted(ran.output)) == (status, sorted(output))


def test_a_command_runs_on_its_platform_each_time_anew_and_changes_nothing(builder: BuildKit, layout: Path) -> None:
    before = sorted(layout.rglob("*"))
    random = "uname -m; echo changed >version; cat /proc/sys/kernel/random/uuid"
    first, again = (builder.run(layout, ARM64, random).output for _ in range(2))
    assert (first[0], again[0]) == ("aarch64", "aarch64")
    assert first[1] != again[1]
    assert builder.run(layout, ARM64, "cat version").output == ("0.77",)
    assert sorted(layout.rglob("*")) == before


def test_a_command_that_takes_too_long_is_ended(buildkitd: str, env: Mapping[str, str], layout: Path) -> None:
    ran = BuildKit(buildkitd, env, timeout=2).run(layout, AMD64, "echo begun; sleep 31.4158")
    assert (ran.status, ran.output) == (124, ("begun", "it did not end within 2 s"))
    await_gone("sleep 31.4158")


def await_gone(command: str) -> None:
    deadline = time.monotonic() + 10
    while command in programs():
        assert time.monotonic() < deadline, f"{command} still runs"
        time.sleep(0.1)


def test_an_image_without_a_shell_runs_no_command(builder: BuildKit, request_: BuildRequest, tmp_path: Path) -> None:
    (request_.context / "Dockerfile").write_text("FROM scratch\nCOPY hello /opt/\n")
    layout = built(builder, replace(request_, base=None, platforms=(AMD64,)), tmp_path / "out")
    ran = builder.run(layout.path, AMD64, "true")
    assert ran.status == 127
    assert ran.output[-1].endswith('exec: "/bin/sh": stat /bin/sh: no such file or directory')


def test_a_command_for_a_platform_that_was_not_built_fails(builder: BuildKit, layout: Path) -> None:
    with pytest.raises(BuildFailed, match=r"\ABuildKit cannot run 'true' in .*: no match for platform"):
        builder.run(layout, Platform("linux", "s390x"), "true")


CORRECT = "Correct the Dockerfile."


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "codex-fedora: the Dockerfile cannot be empty"),
        (
            "FROM\n",
            (
                "Dockerfile:1: codex-fedora: dockerfile parse error on line 1: "
                f"FROM requires either one or three arguments\n  {CORRECT}"
            ),
        ),
        ("FROM ${NOTHING}\n", f"Dockerfile:1: codex-fedora: base name (${{NOTHING}}) should not be blank\n  {CORRECT}"),
        (
            "FROM fedora\nUSER nobody\nRUN true\n",
            (
                'Dockerfile:3: codex-fedora: process "/bin/sh -c true" did not complete successfully: '
                f"unable to find user nobody: no matching entries in passwd file\n  {CORRECT}"
            ),
        ),
        (
            "FROM fedora\nCOPY ../outside /opt/\n",
            (
                'Dockerfile:2: codex-fedora: "/outside": not found\n'
                "  COPY and ADD find what is in the build context and not in .dockerignore."
            ),
        ),
        (
            "FROM fedora\nRUN echo 'No space left on device'; exit 1\n",
            (
                "Dockerfile:2: codex-fedora: [2/2] RUN echo 'No space left on device'; exit 1: exit code 1\n"
                "    No space left on device\n  Make room where BuildKit keeps its state, or where the image is written."
            ),
        ),
        (
            f"FROM {NOBODY}/nothing:1\n",
            (
                f"Dockerfile:1: codex-fedora: {NOBODY}/nothing:1: failed to resolve source metadata for {NOBODY}/nothing:1: "
                f'failed to do request: Head "http://{NOBODY}/v2/nothing/manifests/1": dial tcp {NOBODY}: connect: '
                "connection refused\n  Look whether the registry can be reached from where BuildKit runs."
            ),
        ),
    ],
    ids=["empty", "no image", "blank", "user", "outside", "no room", "no registry"],
)
def test_what_cannot_be_built_is_told_in_one_sentence_with_a_remedy(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, text: str, message: str
) -> None:
    (request_.context / "Dockerfile").write_text(text)
    assert failure(builder, replace(request_, stands_for="fedora", platforms=(AMD64,)), tmp_path) == message


def test_a_dockerfile_or_a_context_that_is_not_there_is_named(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path
) -> None:
    elsewhere = replace(request_, context=tmp_path / "nowhere")
    assert failure(builder, elsewhere, tmp_path) == (
        f"codex-fedora: lstat {tmp_path}/nowhere: no such file or directory\n"
        "  Look whether it is there, and build again while nothing else changes the build context."
    )
    (request_.context / "Dockerfile").unlink()
    assert failure(builder, request_, tmp_path) == (
        "Dockerfile: codex-fedora: failed to read dockerfile: open Dockerfile: no such file or directory\n"
        "  Write it, or look whether it was moved."
    )


def test_a_context_may_change_while_it_is_sent(builder: BuildKit, request_: BuildRequest, tmp_path: Path) -> None:
    request_ = dockerfile(request_, "COPY . /opt/\n")
    for number in range(2000):
        (request_.context / f"file-{number}").write_text("x" * 1000)

    def vanish(line: str) -> None:
        for number in range(2000):
            (request_.context / f"file-{number}").unlink(missing_ok=True)

    try:
        builder.build(request_, tmp_path / "images/out", vanish)
    except BuildFailed as error:
        assert "no such file or directory" in str(error)
        assert list((tmp_path / "images").iterdir()) == []


def test_no_room_for_the_image_fails_and_leaves_nothing(builder: BuildKit, request_: BuildRequest, tiny: Path) -> None:
    told = failure(builder, dockerfile(request_, "RUN head -c 99999 /dev/urandom >/opt\n"), tiny)
    assert "no space left on device" in told
    assert told.endswith("\n  Make room where BuildKit keeps its state, or where the image is written.")


def test_a_literal_base_of_one_platform_is_not_taken_for_another(
    builder: BuildKit, request_: BuildRequest, tmp_path: Path, engine_bin: Path
) -> None:
    argv = [engine_bin / "crane", "digest", "--insecure", "--platform", "linux/amd64", str(request_.base)]
    amd64 = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    (request_.context / "Dockerfile").write_text("FROM fedora\nCOPY hello /opt/\n")
    alone = onto(replace(request_, platforms=(ARM64,)), request_.base.repository.at(parse_digest(amd64)))
    assert failure(builder, replace(alone, stands_for="fedora"), tmp_path) == (
        'codex-fedora: Base image fedora was pulled with platform "linux/amd64", '
        'expected "linux/arm64" for current build (line 1)'
    )


def daemon_of(address: str) -> int:
    """The process number of a buildkitd of ours."""
    config = f"{address.removeprefix('unix://').removesuffix('.sock')}.toml"
    argv = ["pgrep", "--exact", "--full", f"buildkitd --config {config}"]
    return int(subprocess.run(argv, check=True, capture_output=True, text=True).stdout)


def test_a_buildkit_that_dies_during_a_build_is_told_and_leaves_nothing(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path
) -> None:
    def kill(line: str) -> None:
        if line.endswith("] begun"):
            os.kill(daemon_of(address), signal.SIGKILL)

    request_ = replace(dockerfile(request_, "RUN echo be'gun'; sleep 31.4157\n"), platforms=(AMD64,))
    with buildkitd(env) as address, pytest.raises(BuildFailed) as failed:
        BuildKit(address, env).build(request_, tmp_path / "images/out", kill)
    assert re.match("codex-fedora: (error reading from server|connection error|closing transport)", failed.value.reason)
    assert (
        failed.value.remedy == "BuildKit has ended, or cannot be reached any more: look into its log, then build again."
    )
    assert list((tmp_path / "images").iterdir()) == []
    assert "sleep 31.4157" not in programs()
    assert_gone(address)


def forked(work: Callable[[], str], user: str = "root") -> str:
    """What `work` returns in a process of its own; where that is killed, what it last wrote with `os.write`."""
    reading, writing = os.pipe()
    if child := os.fork():
        os.close(writing)
        with os.fdopen(reading) as told:
            text = told.read()
        os.waitpid(child, 0)
        return text
    try:
        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
        os.write(writing, work().encode())
    except (AssertionError, BuildFailed, OSError) as error:
        os.write(writing, f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(0)


def test_a_buildkit_of_our_own_ends_where_we_are_killed(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path
) -> None:
    folders = set(Path("/tmp").glob("imagewright-buildkit-*"))

    def killed() -> str:
        with buildkitd(env) as address:
            BuildKit(address, env).build(
                request_, tmp_path / "out", lambda line: os.kill(os.getpid(), 9) if "begun" in line else None
            )
        return "it came to its end"

    request_ = dockerfile(request_, "RUN echo be'gun'; sleep 31.4156\n")
    assert forked(killed) == ""
    await_gone("sleep 31.4156")
    (left,) = set(Path("/tmp").glob("imagewright-buildkit-*")) - folders
    await_gone(str(left))
    assert str(left) not in Path("/proc/self/mounts").read_text()
    shutil.rmtree(left)


@pytest.fixture
def ordinary(engine_bin: Path, request_: BuildRequest) -> Iterator[BuildRequest]:
    """A request in a folder of an ordinary user, with BuildKit's programs in it."""
    with scratch_folder("ordinary") as folder:
        for name in ("buildctl", "buildkitd"):
            shutil.copy(engine_bin / name, folder)
        shutil.copytree(request_.context, folder / "tool")
        subprocess.run(["chown", "-R", f"{ROOTLESS_USER}:", folder], check=True)
        yield replace(request_, context=folder / "tool", dockerfile=folder / "tool/Dockerfile")


def test_an_ordinary_user_has_a_buildkit_of_their_own_that_leaves_nothing(ordinary: BuildRequest) -> None:
    folder = ordinary.context.parent
    env = {"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def work() -> str:
        with buildkit(env) as builder:
            assert builder.unable(ordinary) is None
            builder.build(ordinary, folder / "images/out", lambda _: None)
            ran = builder.run(folder / "images/out", ARM64, "uname -m; cat /owned; ls -ln /owned")
        return f"{builder.address} {ran.status} {' '.join(ran.output)}"

    ordinary = dockerfile(ordinary, "RUN echo owned >/owned; chown 33:33 /owned\n")
    address, *rest = forked(work, ROOTLESS_USER).split()
    assert rest[:3] == ["0", "aarch64", "owned"]
    assert rest[5:7] == ["33", "33"]
    assert_gone(address)


def test_an_ordinary_user_who_presses_ctrl_c_leaves_nothing(ordinary: BuildRequest) -> None:
    folder = ordinary.context.parent
    env = {"PATH": f"{folder}:/usr/sbin:/usr/bin:/sbin:/bin"}

    def work() -> str:
        def cut(line: str) -> None:
            if "begun" in line:
                raise Cut

        with suppress(Cut), buildkit(env) as builder:
            builder.build(ordinary, folder / "images/out", cut)
        return f"{builder.address} {len(list((folder / 'images').iterdir()))}"

    ordinary = dockerfile(ordinary, "RUN echo be'gun'; sleep 31.4155\n")
    address, left = forked(work, ROOTLESS_USER).split()
    assert left == "0"
    assert_gone(address)
    assert "sleep 31.4155" not in programs()


@pytest.mark.parametrize(
    ("user", "programs_", "reason"),
    [
        ("root", ["buildctl"], "buildkitd, runc are not installed"),
        ("root", ["buildctl", "buildkitd", "buildkit-runc"], ""),
        (ROOTLESS_USER, ["buildctl", "buildkitd", "runc"], "rootlesskit, newuidmap, newgidmap are not installed"),
        (ROOTLESS_USER, ["buildctl", "buildkitd", "runc", "rootlesskit", "newuidmap", "newgidmap"], ""),
        (
            "nobody",
            ["buildctl", "buildkitd", "runc", "rootlesskit", "newuidmap"],
            "newgidmap is not installed; /etc/subuid has no line for nobody; /etc/subgid has no line for nobody",
        ),
    ],
)
def test_what_a_buildkit_of_our_own_lacks_is_named(
    engine_folder: Path, user: str, programs_: list[str], reason: str
) -> None:
    with scratch_folder("programs") as folder:
        folder.chmod(0o755)
        for name in programs_:
            (folder / name).write_text("")
            (folder / name).chmod(0o755)
        assert forked(lambda: lacking({"PATH": str(folder)}), user) == reason


def test_where_no_buildkit_can_be_had_the_builder_says_what_it_takes(
    request_: BuildRequest, engine_bin: Path, tmp_path: Path
) -> None:
    (tmp_path / "buildctl").symlink_to(engine_bin / "buildctl")
    with buildkit({"PATH": str(tmp_path)}) as builder:
        assert builder.unable(request_) == (
            "no BuildKit answers at unix:///run/buildkit/buildkitd.sock: there is no such socket, "
            "and none can be started here: buildkitd, runc are not installed"
        )


def test_a_socket_at_which_nobody_answers_is_no_builder(
    env: Mapping[str, str], request_: BuildRequest, tmp_path: Path
) -> None:
    with scratch_folder("silent") as folder, socket.socket(socket.AF_UNIX) as silent:
        silent.bind(f"{folder}/buildkitd.sock")
        silent.listen()
        builder = BuildKit(f"unix://{folder}/buildkitd.sock", env)
        began = time.monotonic()
        for _ in range(3):
            assert builder.unable(request_) == (
                f"no BuildKit answers at unix://{folder}/buildkitd.sock: it says nothing for 10 s"
            )
        assert time.monotonic() - began < 15


@pytest.mark.parametrize("fixture", ["tcp_buildkit_daemon", "rootless_buildkit_daemon"])
def test_a_buildkit_elsewhere_builds_and_runs(
    request: pytest.FixtureRequest, env: Mapping[str, str], request_: BuildRequest, tmp_path: Path, fixture: str
) -> None:
    with buildkit({**env, "BUILDKIT_HOST": request.getfixturevalue(fixture)}) as builder:
        layout = built(builder, dockerfile(request_, "RUN uname -m >/opt\n"), tmp_path / "out")
        assert builder.run(layout.path, ARM64, "cat /opt").output == ("aarch64",)


def test_programs_that_are_not_there_are_told(buildkitd: str, request_: BuildRequest, tmp_path: Path) -> None:
    builder = BuildKit(buildkitd, {"PATH": str(tmp_path)})
    assert failure(builder, request_, tmp_path) == (
        "codex-fedora: buildctl cannot be run: No such file or directory\n  Install BuildKit, or repair PATH."
    )


def test_a_daemon_that_ignores_the_request_to_end_is_killed(tmp_path: Path) -> None:
    argv = ["/bin/sh", "-c", "trap '' TERM; echo up; while :; do /bin/sleep 0.1; done"]
    with process.running(argv, env={}, output=tmp_path / "log", grace=0.3) as daemon:
        while not (tmp_path / "log").read_text():
            assert daemon.status is None
    assert daemon.status == -9
