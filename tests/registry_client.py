"""A client of the embedded registry over real HTTP, and the smallest documents that it can push."""

import hashlib
import json
from pathlib import Path

import requests

from imagewright.documents import OCI_INDEX, OCI_MANIFEST
from imagewright.layout import REF_NAME

CONFIG = b'{"architecture":"amd64","os":"linux"}'
LAYER = b"a layer, as far as a registry knows"
NOWHERE = "sha256:" + "0" * 64


def digest_of(content: bytes, algorithm: str = "sha256") -> str:
    return f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}"


def described(content: bytes, media_type: str, **members: object) -> dict[str, object]:
    return {"mediaType": media_type, "digest": digest_of(content), "size": len(content), **members}


def image(**members: object) -> bytes:
    """A manifest of CONFIG and LAYER; members replace or add to its own."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described(CONFIG, "application/vnd.oci.image.config.v1+json"),
        "layers": [described(LAYER, "application/vnd.oci.image.layer.v1.tar")],
        **members,
    }
    return json.dumps({name: value for name, value in document.items() if value is not None}).encode()


def index(*manifests: bytes, **members: object) -> bytes:
    children = [described(one, OCI_MANIFEST) for one in manifests]
    return json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": children, **members}).encode()


class Client:
    """Requests to one registry; `repository` stands where a path does not start with '/'."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.session = requests.Session()
        self.session.trust_env = False

    def ask(self, method: str, path: str, **settings: object) -> requests.Response:
        url = f"http://{self.address}{path if path.startswith('/') else '/v2/' + path}"
        return self.session.request(method, url, timeout=20, **settings)

    def push_blob(self, repository: str, content: bytes) -> str:
        answer = self.ask("POST", f"{repository}/blobs/uploads/", params={"digest": digest_of(content)}, data=content)
        assert answer.status_code == 201, answer.text
        return digest_of(content)

    def push(self, repository: str, reference: str, body: bytes, media_type: str = OCI_MANIFEST) -> requests.Response:
        path = f"{repository}/manifests/{reference}"
        return self.ask("PUT", path, data=body, headers={"Content-Type": media_type})

    def push_image(self, repository: str, tag: str, **members: object) -> str:
        self.push_blob(repository, CONFIG)
        self.push_blob(repository, LAYER)
        answer = self.push(repository, tag, image(**members))
        assert answer.status_code == 201, answer.text
        return answer.headers["Docker-Content-Digest"]

    def start_upload(self, repository: str) -> str:
        answer = self.ask("POST", f"{repository}/blobs/uploads/")
        assert answer.status_code == 202
        return answer.headers["Location"]

    def tags(self, repository: str) -> list[str]:
        return self.ask("GET", f"{repository}/tags/list").json()["tags"]


def refused(answer: requests.Response) -> tuple[int, str]:
    """Status and code of a refusal, which must have the specification's form."""
    assert answer.headers["Content-Type"] == "application/json"
    errors = answer.json()["errors"]
    assert all(set(one) <= {"code", "message", "detail"} and one["message"] for one in errors)
    return answer.status_code, errors[0]["code"]


def on_disk(root: Path, folder: str) -> list[tuple[str, str | None]]:
    """Digest and tag of each entry of a repository's index.json."""
    document = json.loads((root / folder / "index.json").read_bytes())
    assert document["schemaVersion"] == 2
    return [(one["digest"], one.get("annotations", {}).get(REF_NAME)) for one in document["manifests"]]
