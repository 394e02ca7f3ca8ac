"""What an engine test asks for: programs, registries, builders, bases. All of them rest on `engine_bin`."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import NOT_RUN
from tests.engines import bases, daemons

SETUP = Path(__file__).parents[2] / "scripts" / "setup-engines"


@pytest.fixture(scope="session")
def engine_folder(request: pytest.FixtureRequest) -> Path:
    """What scripts/setup-engines made: `bin/` and `base/`. Decides whether engine tests run here at all."""
    wanted = request.config.getoption("--engines")
    if wanted == "off":
        pytest.skip(f"{NOT_RUN}engines, and --engines is off")
    if missing := _missing():
        reason = f"{', '.join(missing)}: run scripts/setup-engines as root"
        if wanted == "required":
            pytest.fail(f"needs {reason}", pytrace=False)
        pytest.skip(NOT_RUN + reason)
    return Path(subprocess.run([SETUP, "--where"], check=True, capture_output=True, text=True).stdout.strip())


@pytest.fixture(scope="session")
def engine_bin(engine_folder: Path) -> Path:
    """The folder with `conformance`, `crane`, `buildctl`, `buildkitd`, `docker-buildx`, `docker-registry`, `dockerd`, ….

    `syft` and `versitygw` are there too.
    """
    return engine_folder / "bin"


@pytest.fixture(scope="session")
def debian_registry(engine_bin: Path) -> Iterator[str]:
    """`127.0.0.1:port` of Debian's docker-registry, shared by the session: choose a repository of your own in it."""
    with daemons.docker_registry(engine_bin) as address:
        yield address


@pytest.fixture(scope="session")
def buildkitd(engine_bin: Path) -> Iterator[str]:
    """`unix://…/buildkitd.sock` of a BuildKit whose RUN steps have the network of this machine."""
    with daemons.buildkit_daemon(engine_bin) as address:
        yield address


@pytest.fixture(scope="session")
def tcp_buildkit_daemon(engine_bin: Path) -> Iterator[str]:
    """`tcp://127.0.0.1:port` of another BuildKit, reached as one on another machine is."""
    with daemons.tcp_buildkit_daemon(engine_bin) as address:
        yield address


@pytest.fixture(scope="session")
def rootless_buildkit_daemon(engine_bin: Path) -> Iterator[str]:
    """`unix://…/buildkitd.sock` of a BuildKit that an unprivileged user runs."""
    with daemons.rootless_buildkit_daemon(engine_bin) as address:
        yield address


@pytest.fixture(scope="session")
def docker_daemon(engine_bin: Path) -> Iterator[str]:
    """`unix://…/docker.sock` of Debian's dockerd, without networks: run containers with --network=host or none."""
    with daemons.docker_daemon(engine_bin) as address:
        yield address


@pytest.fixture(scope="session")
def docker_client(engine_folder: Path) -> Path:
    """The `docker` that belongs to that daemon: no plugins of its own, and maybe older than the machine's."""
    return engine_folder / "docker" / "docker"


@pytest.fixture(scope="session")
def s3_server(engine_bin: Path) -> Iterator[str]:
    """`http://127.0.0.1:port` of an S3 store; bucket and credentials are constants in `daemons`."""
    with daemons.s3_server(engine_bin) as address:
        yield address


@pytest.fixture(scope="session")
def scanner(engine_folder: Path, debian_registry: str) -> str:
    """A reference: what BuildKit can be given to make SBOMs, 90 MB."""
    return bases.push_scanner(engine_folder, debian_registry, "tools/scanner", "1")


@pytest.fixture(scope="session")
def busybox_base(engine_folder: Path, debian_registry: str) -> str:
    """A reference: busybox for linux/amd64 and linux/arm64, about 1 MB each."""
    return bases.push_busybox(engine_folder, debian_registry, "bases/busybox", "1")


@pytest.fixture(scope="session")
def node_base(engine_folder: Path, debian_registry: str) -> str:
    """A reference: busybox, a C library, Node.js and npm for both platforms, 58 MB each. RUN npm install works."""
    return bases.push_node(engine_folder, debian_registry, "bases/node", "1")


@pytest.fixture(scope="session")
def debian_base(engine_folder: Path, debian_registry: str) -> str:
    """A reference: a Debian for linux/amd64 in which apt works, 80 MB."""
    return bases.push_debian(engine_folder, debian_registry, "bases/debian", "1")


def _missing() -> list[str]:
    """The names of what scripts/setup-engines would install."""
    check = subprocess.run([SETUP, "--check"], check=False, capture_output=True, text=True)
    if check.returncode not in (0, 1):
        return ["a Debian machine"]
    lines = [line.split(maxsplit=1) for line in check.stdout.splitlines()]
    return [rest.partition(" (")[0].partition(":")[0] for state, rest in lines if state == "missing"]
