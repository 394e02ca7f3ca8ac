"""How much memory a survey takes whose registry serves what no registry should: each in a process of its own."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from imagewright.documents import OCI_INDEX
from imagewright.embedded.wire import Answer
from imagewright.names import digest_of
from imagewright.testing import vices
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Occasion, Vice
from tests.vicious import publish

MIB = 2**20
AT_MOST = 300
LOOK = """
import json, re, sys
from pathlib import Path
from imagewright.settings import Limits
from tests.vicious import World

world = World(
    registry=None, address=sys.argv[1], versions={"codex": sys.argv[2]}, bases=["fedora"],
    limits=Limits(connect=5, read=5, total=20),
)
told = world.told()
peak = re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())[1]
print(json.dumps([told, int(peak) / 1024]))
"""
"""Not `ru_maxrss`, which begins with what the process before it had: proc(5), getrusage(2)."""


def says(body: bytes, media_type: str = OCI_INDEX) -> Vice:
    """Serves this body with its right digest."""
    headers = {"Content-Type": media_type, "Docker-Content-Digest": digest_of(body)}
    return Vice(name="says", does=lambda _: Answer(status=200, headers=headers, body=body))


def endless_tags(occasion: Occasion) -> Answer:
    """Pages of 8 MiB, each with another one after it."""
    number = occasion.asked.number
    tags = [f"{'t' * 100}-{number}-{at}" for at in range(60_000)]
    headers = {"Content-Type": "application/json", "Link": f'</v2/own/tools/tags/list?last={number}>; rel="next"'}
    return Answer(status=200, headers=headers, body=json.dumps({"tags": tags}).encode())


def indexes_without_end(occasion: Occasion) -> Answer:
    """Under any digest an index of 64 more: what is served is not what was asked for."""
    number = occasion.asked.number
    entries = [
        {
            "mediaType": OCI_INDEX,
            "digest": digest_of(f"{number} {at}".encode()),
            "size": 9,
            "annotations": {"x": "y" * 60_000},
        }
        for at in range(64)
    ]
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries}).encode()
    return Answer(status=200, headers={"Content-Type": OCI_INDEX}, body=body)


def strings(size: int) -> bytes:
    """An index with one member of this many small texts."""
    return json.dumps({"schemaVersion": 2, "manifests": [], "x": ["a"] * (size // 5)}).encode()


def objects(size: int) -> bytes:
    """An index with one member of as many small objects as go into this many bytes."""
    return json.dumps({"schemaVersion": 2, "manifests": [], "x": [{"a": {}}] * (size // 12)}).encode()


HOSTILE: dict[str, Callable[[], Vice]] = {
    "in order": lambda: vices.is_slow(0).times(0),
    "50 MiB": lambda: says(b" " * (50 * MIB)),
    "without an end": vices.is_endless,
    "10^15 bytes": lambda: vices.promises(10**15),
    "gzip to 1 GiB": lambda: vices.compresses(2**30),
    "zstd to 1 GiB": lambda: vices.compresses(2**30, "zstd"),
    "4 MiB of [": lambda: says(b"[" * (4 * MIB)),
    "4 MiB of nested objects": lambda: says(b'{"a":' * (4 * MIB // 5)),
    "4 MiB of texts": lambda: says(strings(4 * MIB)),
    "4 MiB of objects": lambda: says(objects(4 * MIB)),
    "4 MiB of digits": lambda: says(b'{"a": ' + b"9" * (4 * MIB - 10) + b"}"),
    "8 MiB of an error": lambda: vices.answers(500, b"x" * (8 * MIB)),
    "headers without an end": lambda: vices.never_ends_its_headers(0),
}
TAGS: dict[str, Callable[[], Vice]] = {
    "pages of tags without an end": lambda: Vice(name="tags", does=endless_tags).on("tags"),
    "a million tags": lambda: says(json.dumps({"tags": [f"t{at}" for at in range(700_000)]}).encode()).on("tags"),
}


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with Registry(tmp_path / "registry") as made:
        publish(made.sink, ["codex"], ["fedora"])
        yield made


def peak(registry: Registry, version: str) -> tuple[str, float]:
    """What the target is, and MiB at most."""
    ran = subprocess.run(
        [sys.executable, "-c", LOOK, registry.address, version], capture_output=True, text=True, check=True, timeout=110
    )
    (told,), memory = (json.loads(ran.stdout)[0].values(), json.loads(ran.stdout)[1])
    return told, memory


@pytest.mark.parametrize("kind", ["index", "child", "config"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_body_costs_no_memory(registry: Registry, case: str, kind: vices.Kind) -> None:
    registry.becomes(HOSTILE[case]().on(kind).where(lambda asked: asked.repository == "own/tools"))
    told, memory = peak(registry, "1.0")
    print(f"\n{case}, {kind}: {memory:.0f} MiB, {told}")
    assert (told == "fresh") == (case == "in order")
    assert memory < AT_MOST


@pytest.mark.parametrize("case", TAGS)
def test_tags_without_end_cost_no_memory(registry: Registry, case: str) -> None:
    registry.becomes(TAGS[case]())
    told, memory = peak(registry, "2.0")
    print(f"\n{case}: {memory:.0f} MiB, {told}")
    assert told in ("unknown: too-large", "unknown: timeout", "stale: image-missing")
    assert memory < AT_MOST


def test_indexes_that_name_more_and_more_cost_no_memory(registry: Registry) -> None:
    vice = Vice(name="names more", does=indexes_without_end).on("index", "child")
    registry.becomes(vice.where(lambda asked: asked.repository == "own/tools" and "canary" not in asked.target))
    told, memory = peak(registry, "1.0")
    print(f"\nindexes without end: {memory:.0f} MiB, {told}")
    assert told == "unknown: integrity"
    assert memory < AT_MOST
