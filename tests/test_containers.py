"""Which engine is used, what it is asked, and that no container outlives its run."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from imagewright import containers, process
from imagewright.containers import Engine, Image
from imagewright.names import Platform
from tests.engine_stand_in import DIGEST, DOCKER, PODMAN, REFERENCE, StandIn, gone, stand_in

AMD = Platform("linux", "amd64")
ARM = Platform("linux", "arm64")


@pytest.fixture
def podman(tmp_path: Path) -> StandIn:
    return stand_in(tmp_path, "podman")


@pytest.fixture
def docker(tmp_path: Path) -> StandIn:
    return stand_in(tmp_path, "docker")


def found(made: StandIn) -> Engine:
    engine = containers.find({"PATH": made.path})
    assert isinstance(engine, Engine)
    assert engine.name == made.name
    return engine


def test_docker_is_used_where_it_runs_else_podman(docker: StandIn, podman: StandIn) -> None:
    assert found(docker).program == str(docker.bin / "docker")
    docker.away()
    assert found(podman).program == str(podman.bin / "podman")
    podman.away()
    assert containers.find({"PATH": podman.path}) == (
        "there is no container engine (docker: 'Cannot connect to the daemon'; podman: 'Cannot connect to the daemon')"
    )


def test_without_a_client_there_is_no_engine(tmp_path: Path) -> None:
    nothing = "there is no container engine (docker: not installed; podman: not installed)"
    assert containers.find({"PATH": str(tmp_path)}) == nothing
    assert containers.find({}) == nothing


def test_a_client_that_cannot_be_started_is_none(tmp_path: Path) -> None:
    (tmp_path / "docker").write_bytes(b"\x7fELF")
    (tmp_path / "docker").chmod(0o755)
    assert containers.find({"PATH": str(tmp_path)}) == (
        f"there is no container engine (docker: {tmp_path}/docker could not be started: Exec format error; "
        "podman: not installed)"
    )


@pytest.mark.parametrize(
    ("told", "limits", "unlimited"),
    [
        (PODMAN, ("processes", "memory"), ()),
        ({"host": PODMAN["host"] | {"cgroupControllers": None}}, (), ("processes", "memory")),
        ({"host": PODMAN["host"] | {"cgroupControllers": ["memory"]}}, ("memory",), ("processes",)),
        (DOCKER, ("processes", "memory"), ()),
        (DOCKER | {"PidsLimit": False}, ("memory",), ("processes",)),
    ],
)
def test_a_limit_that_cannot_be_set_is_known(
    docker: StandIn, told: object, limits: tuple[str, ...], unlimited: tuple[str, ...]
) -> None:
    docker.tell(told)
    engine = found(docker)
    assert (engine.limits, engine.unlimited, engine.platform) == (limits, unlimited, AMD)


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"ServerErrors": ["no daemon\x1b[0m"]}, r"'no daemon\x1b[0m'"),
        ({}, "says nothing about itself that is understood here: '{}'"),
        ([], "says nothing about itself that is understood here: '[]'"),
        ({"host": {"os": "linux"}}, 'says nothing about itself that is understood here: \'{"host": {"os": "linux"}}\''),
    ],
)
def test_an_engine_that_is_not_understood_is_none(docker: StandIn, podman: StandIn, told: object, why: str) -> None:
    docker.tell(told)
    podman.away()
    assert containers.find({"PATH": docker.path}) == (
        f"there is no container engine (docker: {why}; podman: 'Cannot connect to the daemon')"
    )


def test_an_image_that_is_here_is_not_pulled(podman: StandIn) -> None:
    podman.have("image")
    engine = found(podman)
    assert containers.pull(engine, REFERENCE) == Image(engine=engine, local="amd64-id", digest=DIGEST, platform=AMD)
    assert podman.asked("pull") == []


def test_an_image_that_is_not_here_is_pulled_for_this_machine(podman: StandIn) -> None:
    podman.have("remote")
    engine = found(podman)
    assert containers.pull(engine, REFERENCE) == Image(engine=engine, local="amd64-id", digest=DIGEST, platform=AMD)
    assert podman.asked("pull") == [f"pull --quiet --platform linux/amd64 {REFERENCE}"]


def test_an_image_of_another_platform_is_pulled_again(podman: StandIn) -> None:
    podman.have("image", "linux/amd64")
    podman.have("remote", "linux/arm64")
    engine = found(podman)
    assert containers.pull(engine, REFERENCE, ARM) == Image(
        engine=engine, local="arm64-id", digest=DIGEST, platform=ARM
    )
    assert podman.asked("pull") == [f"pull --quiet --platform linux/arm64 {REFERENCE}"]


def test_an_image_for_another_platform_only_is_none(podman: StandIn) -> None:
    podman.have("remote", "linux/amd64")
    assert (
        containers.pull(found(podman), REFERENCE, ARM)
        == f"the image {REFERENCE} is for linux/amd64, not for linux/arm64"
    )


def test_docker_chooses_the_platform_itself(docker: StandIn) -> None:
    docker.have("remote", "linux/amd64")
    engine = found(docker)
    assert containers.pull(engine, REFERENCE, ARM) == Image(
        engine=engine, local="amd64-id", digest=DIGEST, platform=ARM
    )


def test_an_image_that_cannot_be_pulled_says_why(podman: StandIn) -> None:
    assert containers.pull(found(podman), REFERENCE) == (
        f"the image {REFERENCE} cannot be pulled: 'Error: manifest unknown'"
    )


def image_of(made: StandIn) -> Image:
    made.have("image")
    image = containers.pull(found(made), REFERENCE)
    assert isinstance(image, Image)
    return image


def run(image: Image, command: str, *, timeout: float = 20, **options: object) -> process.Ended:
    given: dict = {"mounts": {}, "cwd": "/", "env": {}, "network": False} | options
    return containers.run(image, ["/bin/bash", "-c", command], timeout=timeout, **given)


def test_how_a_command_ends_is_returned(podman: StandIn) -> None:
    ended = run(image_of(podman), "echo out; echo why >&2; exit 3")
    assert (ended.status, ended.stdout, ended.stderr, ended.timed_out) == (3, b"out\n", b"why\n", False)
    assert podman.live == []
    assert podman.asked("rm") == []


def test_a_container_has_no_rights_no_secrets_and_limits(docker: StandIn) -> None:
    secret = "http://user:secret@proxy.example"
    image = image_of(docker)
    ended = run(
        image,
        "echo $HTTPS_PROXY; echo ${GH_TOKEN-none}",
        mounts={Path("/folder"): "/tool", Path("/ca.pem"): "/ca.pem"},
        cwd="/tool",
        env={"HTTPS_PROXY": secret, "LANG": "C"},
        network=True,
    )
    (call,) = docker.asked("run")
    before, _, after = call.partition(" --name imagewright-")
    assert before == "run --rm"
    assert after.partition(" ")[2] == (
        "--pull never --platform linux/amd64 --read-only --tmpfs /tmp:rw,exec,nosuid,nodev,mode=1777 --env HOME=/tmp "
        "--cap-drop ALL --security-opt no-new-privileges --security-opt label=disable --log-driver none "
        "--pids-limit 512 --memory 1g "
        "--mount type=bind,source=/folder,target=/tool,readonly --mount type=bind,source=/ca.pem,target=/ca.pem,readonly "
        "--env HTTPS_PROXY --env LANG --workdir /tool --entrypoint /bin/bash amd64-id "
        "-c echo $HTTPS_PROXY; echo ${GH_TOKEN-none}"
    )
    assert ended.stdout == f"{secret}\nnone\n".encode()


def test_a_limit_that_cannot_be_set_is_left_out_and_no_network_is_said(podman: StandIn) -> None:
    podman.tell({"host": PODMAN["host"] | {"cgroupControllers": []}})
    run(image_of(podman), "true")
    (call,) = podman.asked("run")
    assert "limit" not in call
    assert "--memory" not in call
    assert " --network none " in call


def test_a_container_that_cannot_be_started_is_an_error_of_its_own(podman: StandIn) -> None:
    image = image_of(podman)
    podman.refuse("no space left")
    with pytest.raises(process.NotStarted) as caught:
        run(image, "true")
    assert (caught.value.filename, caught.value.strerror) == ("the container", "'Error: no space left'")


@pytest.mark.parametrize("name", ["docker", "podman"])
def test_a_container_whose_time_is_up_is_removed_by_its_name(tmp_path: Path, name: str) -> None:
    made = stand_in(tmp_path, name)
    image = image_of(made)
    ended = run(image, f"echo $$ >{tmp_path}/pid; sleep 300", timeout=0.7)
    assert ended.timed_out
    assert gone([int((tmp_path / "pid").read_text())])
    assert made.live == []
    named = made.asked("run")[0].split("--name ")[1].split()[0]
    assert made.asked("rm") == [f"rm --force {'--time 0 ' if name == 'podman' else ''}{named}"]


def test_on_the_way_out_all_containers_are_removed_at_once(podman: StandIn, tmp_path: Path) -> None:
    image = image_of(podman)
    threads = [
        threading.Thread(target=run, args=(image, f"echo $$ >{tmp_path}/{at}; sleep 300"), kwargs={"timeout": 300})
        for at in range(3)
    ]
    for thread in threads:
        thread.start()
    pids = [tmp_path / str(at) for at in range(3)]
    until(lambda: all(pid.is_file() and pid.read_text().strip() for pid in pids) and len(podman.live) == 3)
    names = podman.live
    containers.end_all()
    for thread in threads:
        thread.join(20)
    assert gone(int(pid.read_text()) for pid in pids)
    assert podman.live == []
    assert sorted(podman.asked("rm")[0].split()[4:]) == names


def until(happens: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not happens():
        assert time.monotonic() < deadline
        time.sleep(0.02)
