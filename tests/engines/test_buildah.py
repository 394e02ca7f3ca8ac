"""What the builder `buildah` makes with a real buildah, and what it says where that fails."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from imagewright.builders import BuildRequest, Ran
from imagewright.builders.buildah import Buildah, buildah
from imagewright.builders.buildkit import BuildKit
from imagewright.documents import MAX_MANIFEST_BYTES, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import Platform, Reference, parse_digest, parse_reference
from tests.engines import independent

AMD64, ARM64 = Platform("linux", "amd64"), Platform("linux", "arm64")
S390X = Platform("linux", "s390x")
HEAD = "ARG BASE_IMAGE\nFROM ${BASE_IMAGE}\nARG TOOL_VERSION\n"
EPOCH = 1_700_000_000
ISOLATIONS = ("oci", "chroot")
SEARCH_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
USER = "imagewright-test"
"""Whom scripts/setup-engines gave ids in /etc/subuid."""


@pytest.fixture
def env(tmp_path: Path) -> Mapping[str, str]:
    for name in ("home", "scratch"):
        (tmp_path / name).mkdir()
    return {"PATH": SEARCH_PATH, "HOME": str(tmp_path / "home"), "TMPDIR": str(tmp_path / "scratch")}


@pytest.fixture(scope="module", params=ISOLATIONS)
def builder(
    request: pytest.FixtureRequest, debian_registry: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Buildah]:
    home = tmp_path_factory.mktemp("home")
    env = {"PATH": SEARCH_PATH, "HOME": str(home), "TMPDIR": str(home), "BUILDAH_ISOLATION": request.param}
    with buildah(env, plain_http=[debian_registry]) as builder:
        yield builder
    assert list(home.iterdir()) == []


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
        labels={"org.example.text": 'two words,\na "quote", $HOME', "b": "2"},
        annotations={"z": "last", "a": "first"},
        epoch=EPOCH,
    )


def dockerfile(request_: BuildRequest, steps: str, head: str = HEAD) -> BuildRequest:
    (request_.context / "Dockerfile").write_text(head + steps)
    return request_


def onto(request_: BuildRequest, base: Reference) -> BuildRequest:
    return replace(request_, base=base, arguments={**request_.arguments, "BASE_IMAGE": str(base)})


def built(builder: Buildah | BuildKit, request_: BuildRequest, into: Path) -> Layout:
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
def test_the_layout_names_one_index_with_the_platforms_in_order_and_nothing_else(
    builder: Buildah, request_: BuildRequest, tmp_path: Path, platforms: tuple[Platform, ...]
) -> None:
    layout = built(builder, replace(request_, platforms=platforms), tmp_path / "a, b/out")
    (top,) = layout.entries()
    document = opened(layout, top.digest)
    assert (document["mediaType"], document["annotations"]) == (OCI_INDEX, {"a": "first", "z": "last"})
    assert [one["platform"] for one in document["manifests"]] == [
        {"architecture": one.architecture, "os": "linux"} for one in sorted(platforms)
    ]
    reached = {top.digest}
    for entry, manifest, config in images(layout):
        assert config["architecture"] == entry["platform"]["architecture"]
        assert config["config"]["Labels"] == dict(request_.labels)
        assert config["created"] == "2023-11-14T22:13:20Z"
        assert (entry["mediaType"], manifest["mediaType"], manifest.get("annotations")) == (
            OCI_MANIFEST,
            OCI_MANIFEST,
            None,
        )
        assert manifest["config"]["mediaType"] == OCI_CONFIG
        assert {one["mediaType"] for one in manifest["layers"]} == {OCI_LAYER_GZIP}
        reached |= {entry["digest"], manifest["config"]["digest"], *(one["digest"] for one in manifest["layers"])}
    assert {f"sha256:{path.name}" for path in layout.path.glob("blobs/sha256/*")} == reached


def test_steps_run_on_each_platform_and_see_their_arguments(
    builder: Buildah, request_: BuildRequest, tmp_path: Path
) -> None:
    lines: list[str] = []
    request_ = dockerfile(request_, 'ARG FLAVOUR\nRUN echo "$TOOL_VERSION $FLAVOUR $(uname -m)"\n')
    builder.build(request_, tmp_path / "out", lines.append)
    assert [line for line in lines if "RUN" in line or "1.2.3" in line] == [
        '[linux/amd64 4/6] RUN echo "$TOOL_VERSION $FLAVOUR $(uname -m)"',
        "[linux/amd64 4/6] 1.2.3 a,b=c x86_64",
        '[linux/arm64 4/6] RUN echo "$TOOL_VERSION $FLAVOUR $(uname -m)"',
        "[linux/arm64 4/6] 1.2.3 a,b=c aarch64",
    ]


def test_labels_platforms_and_the_layers_of_the_base_are_those_that_buildkit_makes(
    builder: Buildah, request_: BuildRequest, tmp_path: Path, buildkitd: str, engine_bin: Path
) -> None:
    request_ = dockerfile(request_, "COPY hello /opt/\nRUN uname -m > /opt/machine\n")
    kit = BuildKit(buildkitd, {"PATH": f"{engine_bin}:{SEARCH_PATH}", "HOME": str(tmp_path)})
    ours, theirs = (built(one, request_, tmp_path / one.name) for one in (builder, kit))
    (top,), (kit_top,) = ours.entries(), theirs.entries()
    assert opened(ours, top.digest)["annotations"] == opened(theirs, kit_top.digest)["annotations"]
    published = independent.contents(f"docker://{request_.base.repository}:1")  # type: ignore[union-attr]
    assert [entry["platform"] for entry, _, _ in images(ours)] == [entry["platform"] for entry, _, _ in images(theirs)]
    for (entry, manifest, config), (_, kit_manifest, kit_config) in zip(images(ours), images(theirs)):
        platform = f"linux/{entry['platform']['architecture']}"
        below = len(published[platform].layers)
        assert config["config"] == kit_config["config"]
        assert tuple(config["rootfs"]["diff_ids"][:below]) == published[platform].diff_ids
        assert tuple(one["digest"] for one in manifest["layers"][:below]) == published[platform].layers
        assert len(config["rootfs"]["diff_ids"]) == len(kit_config["rootfs"]["diff_ids"]) == below + 2
        assert manifest["layers"][:below] == kit_manifest["layers"][:below]


def test_the_same_input_makes_the_same_image_whatever_the_isolation_and_the_storage(
    request_: BuildRequest, tmp_path: Path, env: Mapping[str, str], debian_registry: str
) -> None:
    request_ = dockerfile(request_, "COPY hello /opt/\nRUN mkdir -p /a/b; date > /a/b/day; rm -f /a/b/day /bin/ls\n")
    made = []
    for isolation in ISOLATIONS:
        with buildah({**env, "BUILDAH_ISOLATION": isolation}, plain_http=[debian_registry]) as builder:
            made.append(built(builder, request_, tmp_path / isolation).entries())
        os.utime(request_.context / "hello", (EPOCH + 1, EPOCH + 1))
        request_.context.rename(tmp_path / f"moved-{isolation}")
        moved = tmp_path / f"moved-{isolation}"
        request_ = replace(request_, context=moved, dockerfile=moved / "Dockerfile")
    assert made[0] == made[1]


@pytest.mark.parametrize(
    ("words", "head"),
    [
        ("node:22", "FROM node:22\n"),
        ("docker.io/library/node:22", "FROM docker.io/library/node:22 AS node\n"),
        ("node", "FROM --platform=$TARGETPLATFORM node\n"),
    ],
)
def test_the_base_takes_the_place_of_the_words_in_a_from(
    builder: Buildah, request_: BuildRequest, tmp_path: Path, words: str, head: str
) -> None:
    request_ = dockerfile(replace(request_, stands_for=words), "RUN test -x /bin/busybox\n", head)
    layout = built(builder, request_, tmp_path / "out")
    published = independent.contents(f"docker://{request_.base.repository}:1")  # type: ignore[union-attr]
    for entry, manifest, _ in images(layout):
        layers = published[f"linux/{entry['platform']['architecture']}"].layers
        assert tuple(one["digest"] for one in manifest["layers"][: len(layers)]) == layers


def test_an_image_from_scratch_has_no_base(builder: Buildah, request_: BuildRequest, tmp_path: Path) -> None:
    request_ = dockerfile(replace(request_, base=None), "COPY hello /\n", "FROM scratch\n")
    layout = built(builder, request_, tmp_path / "out")
    assert [len(config["rootfs"]["diff_ids"]) for _, _, config in images(layout)] == [1, 1]


def test_a_shared_dockerfile_and_its_dockerignore_are_used(
    builder: Buildah, request_: BuildRequest, tmp_path: Path
) -> None:
    (request_.context / "other").write_text("other\n")
    (request_.context / ".containerignore").write_text("hello\n")
    (tmp_path / "Dockerfile.dockerignore").write_text("other\n")
    (tmp_path / "Dockerfile").write_text(f"{HEAD}COPY . /opt/\nRUN test -e /opt/hello && test ! -e /opt/other\n")
    built(builder, replace(request_, dockerfile=tmp_path / "Dockerfile"), tmp_path / "out")


def failure(builder: Buildah, request_: BuildRequest, into: Path) -> str:
    (into / "images").mkdir(parents=True, exist_ok=True)
    with pytest.raises(BuildFailed) as failed:
        builder.build(request_, into / "images" / "out", lambda _: None)
    assert list((into / "images").iterdir()) == [], "nothing is left of a failed build"
    return str(failed.value).replace(f"{request_.dockerfile}", "Dockerfile")


def test_a_failed_step_is_told_with_its_command_exit_code_and_last_lines(
    builder: Buildah, request_: BuildRequest, tmp_path: Path
) -> None:
    steps = (
        "COPY hello /\nRUN for n in $(seq 40); do echo line $n; done; \\\n    printf 'no \\033[31mnewline'; exit 7\n"
    )
    told = failure(builder, replace(dockerfile(request_, steps), platforms=(AMD64,)), tmp_path)
    last = "".join(f"\n    line {n}" for n in range(27, 41))
    command = "RUN for n in $(seq 40); do echo line $n; done;     printf 'no \\033[31mnewline'; exit 7"
    assert told == f"Dockerfile:5: codex-fedora: [4/6] {command}: exit code 7{last}\n    no newline"


def test_a_step_that_fails_on_one_platform_names_it(builder: Buildah, request_: BuildRequest, tmp_path: Path) -> None:
    told = failure(builder, dockerfile(request_, "RUN test $(uname -m) = x86_64\n"), tmp_path)
    assert told == "Dockerfile:4: codex-fedora: [linux/arm64 3/5] RUN test $(uname -m) = x86_64: exit code 1"


def test_what_a_program_prints_is_not_taken_for_an_error_of_buildah(
    builder: Buildah, request_: BuildRequest, tmp_path: Path
) -> None:
    command = "RUN echo 'Error: all is well'; exit 3"
    told = failure(builder, replace(dockerfile(request_, f"{command}\n"), platforms=(AMD64,)), tmp_path)
    assert told == f"Dockerfile:4: codex-fedora: [3/5] {command}: exit code 3\n    Error: all is well"


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        (
            "COPYY hello /\n",
            (
                'Dockerfile:4: codex-fedora: [3/5] COPYY hello /: Build error: Unknown instruction: "COPYY"\n'
                "  Correct the Dockerfile."
            ),
        ),
        (
            "COPY nothing /\n",
            (
                'Dockerfile:4: codex-fedora: [3/5] COPY nothing /: checking on sources under "{context}": '
                'copier: stat: "/nothing": no such file or directory\n  Correct the Dockerfile.'
            ),
        ),
        ("ENV A\n", "Dockerfile:4: codex-fedora: ENV must have two arguments\n  Correct the Dockerfile."),
        (
            "FROM a b c\n",
            (
                "Dockerfile: codex-fedora: FROM requires either one argument, or three: FROM <source> [as <name>]\n"
                "  Correct the Dockerfile."
            ),
        ),
        (
            "FROM node:22\nRUN true\n",
            (
                "Dockerfile:4: codex-fedora: the image 'node' can be one of any registry\n"
                "  Write the registry too, e.g. docker.io/library/debian:12."
            ),
        ),
    ],
)
def test_a_mistake_in_the_dockerfile_is_told_with_its_line(
    builder: Buildah, request_: BuildRequest, tmp_path: Path, steps: str, told: str
) -> None:
    request_ = replace(dockerfile(request_, steps), platforms=(AMD64,))
    assert failure(builder, request_, tmp_path) == told.format(context=request_.context)


def test_a_dockerfile_that_is_not_there_is_named(builder: Buildah, request_: BuildRequest, tmp_path: Path) -> None:
    (request_.context / "Dockerfile").unlink()
    assert failure(builder, request_, tmp_path).startswith("Dockerfile: codex-fedora: ")


def test_a_base_that_is_not_there_is_told_in_the_registrys_words(
    builder: Buildah, request_: BuildRequest, tmp_path: Path
) -> None:
    gone = request_.base.repository.at(parse_digest(f"sha256:{'0' * 64}"))  # type: ignore[union-attr]
    told = failure(builder, onto(request_, gone), tmp_path)
    assert told.startswith(f"codex-fedora: the base {gone} cannot be read: ")
    assert told.endswith(
        "manifest unknown\n  Look whether the base is still there; a new plan takes the base of today."
    )


def test_a_base_of_one_platform_is_not_taken_for_another(
    builder: Buildah, request_: BuildRequest, tmp_path: Path, engine_bin: Path
) -> None:
    argv = [engine_bin / "crane", "digest", "--insecure", "--platform", "linux/amd64", str(request_.base)]
    amd64 = subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()
    alone = onto(request_, request_.base.repository.at(parse_digest(amd64)))  # type: ignore[union-attr]
    assert failure(builder, alone, tmp_path) == (
        f"codex-fedora: the base {alone.base} lacks linux/arm64; it has linux/amd64\n"
        "  Leave the platform out for this base, or publish the base for it."
    )
    built(builder, replace(alone, platforms=(AMD64,)), tmp_path / "out")
    assert failure(builder, replace(request_, platforms=(S390X,)), tmp_path / "s390x").startswith(
        f"codex-fedora: the base {request_.base} "
    )


def test_a_build_that_takes_too_long_is_ended_with_what_it_runs(
    builder: Buildah, request_: BuildRequest, tmp_path: Path
) -> None:
    hasty = Buildah(builder._storage, timeout=3)
    told = failure(hasty, replace(dockerfile(request_, "RUN sleep 61.8034\n"), platforms=(AMD64,)), tmp_path)
    assert told == "codex-fedora: the build did not end within 3 s"
    assert_ended("sleep 61.8034")


def test_it_says_why_it_cannot_build(
    builder: Buildah, request_: BuildRequest, env: Mapping[str, str], tmp_path: Path
) -> None:
    exotic = replace(request_, platforms=(AMD64, S390X, Platform("linux", "riscv64")))
    assert builder.unable(request_) is None
    assert builder.unable(replace(request_, dockerfile=None)) == "the tool has no Dockerfile"
    assert builder.unable(exotic) == (
        "this machine does not run linux/s390x, linux/riscv64; it would with an emulator "
        "(Debian: qemu-user-static and binfmt-support)"
    )
    with buildah({**env, "PATH": str(tmp_path)}) as absent:
        assert absent.unable(request_) == "buildah is not installed"
        assert failure(absent, request_, tmp_path) == "codex-fedora: buildah is not installed"
    with buildah({**env, "TMPDIR": str(tmp_path / "nowhere")}) as homeless:
        assert homeless.unable(request_) == (
            f"it cannot keep images in {tmp_path}/nowhere: No such file or directory; TMPDIR names another folder"
        )
    with buildah({**env, "BUILDAH_ISOLATION": "none"}) as odd:
        assert (odd.unable(request_) or "").startswith("it cannot run here: ")


def test_a_full_disk_is_told(
    request_: BuildRequest, env: Mapping[str, str], debian_registry: str, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
    try:
        with buildah({**env, "TMPDIR": str(small)}, plain_http=[debian_registry]) as builder:
            request_ = dockerfile(request_, "RUN cat /bin/* > /big; cat /bin/* >> /big\n")
            told = failure(builder, replace(request_, platforms=(AMD64,)), tmp_path)
        assert told.splitlines()[-1] == (
            f"  Make room in {small} (TMPDIR names another), and where the image is written."
        )
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.parametrize(
    ("command", "ran"),
    [
        ("uname -m", Ran(status=0, output=("aarch64",))),
        ("cat /opt/hello; echo two >&2; exit 3", Ran(status=3, output=("hello", "two"))),
        ("echo $SECRET; grep CapEff /proc/self/status", Ran(status=0, output=("", "CapEff:\t0000000000000000"))),
        ("nc -w 2 {registry} </dev/null", None),
    ],
)
def test_a_command_runs_alone_in_the_image(
    builder: Buildah, request_: BuildRequest, tmp_path: Path, debian_registry: str, command: str, ran: Ran | None
) -> None:
    layout = built(builder, request_, tmp_path / "out")
    found = builder.run(layout.path, ARM64, command.format(registry=debian_registry.replace(":", " ")))
    if ran is None:
        assert found.status != 0
    else:
        assert found == replace(ran, output=tuple(line.replace("\t", "    ") for line in ran.output if line))


def test_a_command_that_takes_too_long_or_has_no_shell_is_told(
    builder: Buildah, request_: BuildRequest, tmp_path: Path
) -> None:
    layout = built(builder, replace(request_, platforms=(AMD64,)), tmp_path / "out")
    hasty = Buildah(builder._storage, timeout=2)
    ran = hasty.run(layout.path, AMD64, "echo begun; sleep 27.1828")
    assert ran == Ran(status=124, output=("begun", "it did not end within 2 s"))
    assert_ended("sleep 27.1828")
    bare = dockerfile(replace(request_, base=None, platforms=(AMD64,)), "COPY hello /\n", "FROM scratch\n")
    # Isolated by chroot, buildah now and then loses the words that say so.
    assert builder.run(built(builder, bare, tmp_path / "bare").path, AMD64, "true").status in (127, 1)
    with pytest.raises(BuildFailed, match=f"buildah cannot run 'true' in {tmp_path}/nothing: "):
        builder.run(tmp_path / "nothing", AMD64, "true")


def assert_ended(program: str) -> None:
    deadline = time.monotonic() + 5
    while program in programs():
        assert time.monotonic() < deadline, programs()
        time.sleep(0.05)


def programs() -> str:
    return subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout


PYTHON = shutil.which("python3", path=SEARCH_PATH) or sys.executable
"""Other users may be unable to reach the one that runs the tests."""
SCRIPT = """
import json, sys
from pathlib import Path
from imagewright.builders import BuildRequest
from imagewright.builders.buildah import buildah
from imagewright.names import Platform, parse_reference

env, base, context, into, platforms = json.loads(sys.argv[1])
request = BuildRequest(
    target="codex-fedora", context=Path(context), dockerfile=Path(context, "Dockerfile"), base=parse_reference(base),
    platforms=tuple(Platform("linux", one) for one in platforms),
    arguments={"BASE_IMAGE": base, "TOOL_VERSION": "1.2.3"}, labels={}, annotations={}, epoch=1_700_000_000,
)
with buildah(env, plain_http=[parse_reference(base).repository.host]) as builder:
    print(builder.unable(request), flush=True)
    builder.build(request, Path(into), lambda line: print(line, flush=True))
    print(builder.run(Path(into), request.platforms[0], "id -u; exit 4"))
"""


def started(
    request_: BuildRequest, env: Mapping[str, str], into: Path, user: str, capabilities: str = ""
) -> subprocess.Popen[str]:
    """Builds in a process of its own, as that user. capabilities: as setpriv changes them."""
    given = [
        dict(env),
        str(request_.base),
        str(request_.context),
        str(into),
        [p.architecture for p in request_.platforms],
    ]
    one = pwd.getpwnam(user)
    drop = ["setpriv", f"--reuid={one.pw_uid}", f"--regid={one.pw_gid}", "--clear-groups"] if one.pw_uid else []
    drop += ["setpriv", f"--bounding-set={capabilities}", f"--inh-caps={capabilities}"] if capabilities else []
    return subprocess.Popen(
        [*drop, PYTHON, "-c", SCRIPT, json.dumps(given)],
        cwd=request_.context.parent,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that other users can reach, as pytest's own cannot be."""
    folder = Path("/var/tmp", tmp_path_factory.mktemp("theirs").name + f"-{os.getpid()}")
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def lent(request_: BuildRequest, folder: Path, user: str) -> tuple[BuildRequest, dict[str, str]]:
    """The request and an environment, all in a folder that belongs to the user."""
    shutil.copytree(request_.context, folder / "tool")
    package = Path(__file__).parents[2] / "imagewright"
    shutil.copytree(package, folder / "imagewright", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "scratch").mkdir()
    for place in (folder, *folder.rglob("*")):
        shutil.chown(place, user)
    env = {"PATH": SEARCH_PATH, "HOME": str(folder), "TMPDIR": str(folder / "scratch")}
    return replace(request_, context=folder / "tool", dockerfile=folder / "tool/Dockerfile"), env


def test_root_that_may_not_mount_makes_the_same_image(request_: BuildRequest, theirs: Path, engine_bin: Path) -> None:
    request_ = dockerfile(request_, "RUN uname -m > /opt; chown 7:7 /opt\n")
    request_, env = lent(replace(request_, platforms=(AMD64,)), theirs, "root")
    made = []
    for name, capabilities in (("whole", ""), ("locked", "-sys_admin")):
        process = started(request_, env, theirs / name, "root", capabilities)
        told, errors = process.communicate(timeout=100)
        assert told.startswith("None\n"), told + errors
        assert list((theirs / "scratch").iterdir()) == []
        made.append(Layout(theirs / name).entries())
    assert made[0] == made[1]


@pytest.mark.parametrize("isolation", ["", "chroot"])
def test_an_ordinary_user_makes_the_same_image_as_root(
    request_: BuildRequest, theirs: Path, isolation: str, engine_bin: Path
) -> None:
    request_ = dockerfile(request_, "COPY hello /opt/\nRUN uname -m > /opt/machine; chown 7:7 /opt/machine\n")
    request_, env = lent(request_, theirs, USER)
    env |= {"BUILDAH_ISOLATION": isolation} if isolation else {}
    made = []
    for user in (USER, "root"):
        process = started(request_, env, theirs / f"out-{user}", user)
        told, errors = process.communicate(timeout=100)
        assert (process.returncode, told.splitlines()[-1]) == (0, "Ran(status=4, output=('0',))"), told + errors
        assert list((theirs / "scratch").iterdir()) == []
        made.append(Layout(theirs / f"out-{user}").entries())
    assert made[0] == made[1]


def test_a_user_without_ids_of_their_own_is_told_so(request_: BuildRequest, theirs: Path, engine_bin: Path) -> None:
    request_, env = lent(request_, theirs, "nobody")
    process = started(request_, env, theirs / "out", "nobody")
    told, errors = process.communicate(timeout=60)
    why = (
        'it cannot run here: no subuid ranges found for user "nobody" in /etc/subuid; '
        "root gives some with usermod --add-subuids and --add-subgids"
    )
    assert (process.returncode, told) == (1, f"{why}\n")
    assert errors.splitlines()[-1].endswith(f"codex-fedora: {why}")


@pytest.mark.parametrize("user", ["root", USER])
@pytest.mark.parametrize("isolation", ["", "chroot"])
def test_nothing_is_left_of_a_build_that_is_interrupted(
    request_: BuildRequest, theirs: Path, user: str, isolation: str, engine_bin: Path
) -> None:
    request_ = dockerfile(request_, "RUN echo be'gun'; sleep 31.4159\n")
    request_, env = lent(request_, theirs, user)
    env |= {"BUILDAH_ISOLATION": isolation} if isolation else {}
    process = started(request_, env, theirs / "images/out", user)
    assert process.stdout
    for line in process.stdout:
        if line.endswith("] begun\n"):
            break
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=30)
    assert errors.rstrip().endswith("KeyboardInterrupt"), told + errors
    assert list((theirs / "images").iterdir()) == list((theirs / "scratch").iterdir()) == []
    assert str(theirs) not in Path("/proc/self/mounts").read_text()
    assert_ended("sleep 31.4159")
