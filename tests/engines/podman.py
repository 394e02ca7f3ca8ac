"""A podman of its own: its images and containers are in a folder that goes with the block, the machine's stay as they are."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.engines.daemons import scratch_folder

# As root podman raises limits that a root of few capabilities may not raise, and its usual runtime knows fewer kinds of
# control groups than runc. The network of the machine itself needs no bridge, which another engine may claim too.
_CONTAINERS = """\
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "none"
lock_type = "file"
tmp_dir = "{root}/tmp"
volume_path = "{root}/volumes"
"""
_STORAGE = """\
[storage]
driver = "overlay"
graphroot = "{root}/images"
runroot = "{root}/run"
"""
_REGISTRIES = """\
unqualified-search-registries = []
[[registry]]
location = "{registry}"
insecure = true
"""
_FILES = {
    "CONTAINERS_CONF": _CONTAINERS,
    "CONTAINERS_STORAGE_CONF": _STORAGE,
    "CONTAINERS_REGISTRIES_CONF": _REGISTRIES,
}


@contextmanager
def podman(registry: str) -> Iterator[dict[str, str]]:
    """What makes `podman` that podman, as variables of the environment. It speaks plain HTTP to `registry`."""
    with scratch_folder("podman") as root:  # it allows its folder 50 characters
        environ = {}
        for variable, content in _FILES.items():
            (root / variable).write_text(content.format(root=root, registry=registry))
            environ[variable] = str(root / variable)
        yield environ
        subprocess.run(["podman", "rm", "--all", "--force", "--time=0"], env=os.environ | environ, check=False)
