"""What readers of a repository see: whether all that its tags name is there, read raw from its folder."""

import json
from pathlib import Path


def named(place: Path) -> dict[str, str]:
    """Tag → the digest that it names. place: the folder of a repository."""
    return {
        one["annotations"]["org.opencontainers.image.ref.name"]: one["digest"]
        for one in json.loads((place / "index.json").read_bytes())["manifests"]
        if "annotations" in one
    }


def readers_see(place: Path) -> dict[str, str]:
    """Tag → `whole, 2 platforms`, or what is wrong: whether all that it names is there, down to the layers."""
    seen = {}
    for tag, digest in named(place).items():
        try:
            entries = json.loads(_blob(place, digest))["manifests"]
            for manifest in [json.loads(_blob(place, one["digest"])) for one in entries]:
                for one in (manifest["config"], *manifest["layers"]):
                    _blob(place, one["digest"])
            seen[tag] = f"whole, {len(entries)} platforms"
        except OSError as error:
            seen[tag] = f"a hole: {error}"
    return seen


def _blob(place: Path, digest: str) -> bytes:
    return (place / "blobs" / digest.replace(":", "/")).read_bytes()
