"""The registry that tests give vices to answers as a real one does, as long as it has none: Debian's docker-registry."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from imagewright.documents import ACCEPT
from imagewright.testing.images import HttpSink, Picture, layer, push
from imagewright.testing.registry import Registry

PLATFORMS = ("linux/amd64", "linux/arm64")
NAME = "agreement/tools"
ABSENT = f"sha256:{'0' * 64}"
HEADERS = ("Content-Type", "Docker-Content-Digest", "Content-Length", "Etag", "Docker-Distribution-Api-Version")


@pytest.fixture(scope="module")
def both(debian_registry: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """The addresses of a real registry and of ours, with the same images."""
    with Registry(tmp_path_factory.mktemp("ours")) as ours:
        for address in (debian_registry, ours.address):
            images = {one: Picture(steps=[layer({"bin/tool": one}), "ENV A=1"]) for one in PLATFORMS}
            push(HttpSink(address), NAME, ["codex-fedora-1.0", "codex-fedora-latest"], images)
        yield debian_registry, ours.address


def asked(address: str, method: str, path: str, headers: dict[str, str]) -> tuple[int, dict[str, str], object]:
    """Status, what matters of the headers, and the body: of an error its codes, as its words are free."""
    answer = requests.request(method, f"http://{address}/v2/{path}", headers=headers, timeout=10, allow_redirects=False)
    if answer.status_code >= 400:
        return answer.status_code, {}, [one["code"] for one in answer.json()["errors"]] if answer.content else ""
    if answer.headers.get("Content-Type", "").startswith("application/json"):
        members = answer.json()
        return answer.status_code, {}, members | ({"tags": sorted(members["tags"])} if "tags" in members else {})
    kept = {name: answer.headers[name] for name in HEADERS if name in answer.headers and answer.status_code == 200}
    return answer.status_code, kept, answer.content


def get(address: str, reference: str) -> requests.Response:
    """A manifest."""
    url = f"http://{address}/v2/{NAME}/manifests/{reference}"
    return requests.get(url, headers={"Accept": ACCEPT}, timeout=10)


def children(address: str) -> list[tuple[str, str]]:
    """Digests of the manifests and configurations."""
    digests = [one["digest"] for one in get(address, "codex-fedora-1.0").json()["manifests"]]
    return [(digest, get(address, digest).json()["config"]["digest"]) for digest in digests]


INDEX = f"{NAME}/manifests/codex-fedora-1.0"
QUESTIONS: dict[str, tuple[str, str, dict[str, str]]] = {
    "ping": ("GET", "", {}),
    "index": ("GET", INDEX, {"Accept": ACCEPT}),
    "index, only its head": ("HEAD", INDEX, {"Accept": ACCEPT}),
    "index that is known": (
        "GET",
        f"{NAME}/manifests/codex-fedora-1.0",
        {"Accept": ACCEPT, "If-None-Match": '"{index}"'},
    ),
    "index that is not known": (
        "GET",
        f"{NAME}/manifests/codex-fedora-1.0",
        {"Accept": ACCEPT, "If-None-Match": f'"{ABSENT}"'},
    ),
    "child": ("GET", f"{NAME}/manifests/{{child}}", {"Accept": ACCEPT}),
    "configuration": ("GET", f"{NAME}/blobs/{{config}}", {}),
    "configuration, only its head": ("HEAD", f"{NAME}/blobs/{{config}}", {}),
    "no such tag": ("GET", f"{NAME}/manifests/codex-fedora-2.0", {"Accept": ACCEPT}),
    "no such child": ("GET", f"{NAME}/manifests/{ABSENT}", {"Accept": ACCEPT}),
    "no such configuration": ("GET", f"{NAME}/blobs/{ABSENT}", {}),
    "tags": ("GET", f"{NAME}/tags/list?n=1000", {}),
    "no such repository": ("GET", "agreement/nothing/tags/list?n=1000", {}),
    "no such tag, only its head": ("HEAD", f"{NAME}/manifests/codex-fedora-2.0", {"Accept": ACCEPT}),
}


@pytest.mark.parametrize("case", QUESTIONS)
def test_a_registry_without_vices_answers_as_a_real_one_does(both: tuple[str, str], case: str) -> None:
    method, path, headers = QUESTIONS[case]
    real, ours = both
    ((child, config), *_) = children(real)
    index = get(real, "codex-fedora-1.0").headers["Docker-Content-Digest"]
    known = {"child": child, "config": config, "index": index}
    filled = {name: value.format(**known) for name, value in headers.items()}
    expected = asked(real, method, path.format(**known), filled)
    assert asked(ours, method, path.format(**known), filled) == expected


def test_both_hold_the_same(both: tuple[str, str], tmp_path: Path) -> None:
    real, ours = both
    assert children(ours) == children(real)
