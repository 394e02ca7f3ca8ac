"""What BuildKit is told to export, to keep and to start from, and how its image becomes the index all builders make."""

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from imagewright.builders import NOTICE, BuildRequest
from imagewright.documents import INDEX_TYPES, MAX_MANIFEST_BYTES, BadDocument, Descriptor, Index, parse_manifest
from imagewright.errors import BuildFailed
from imagewright.layout import Layout
from imagewright.names import parse_familiar
from imagewright.settings import Cache

_ALWAYS = {"mode": "max", "ignore-error": "true"}
"""A cache can only save time, so it keeps all steps, and a build does not fail for it."""
_REGISTRY = {"image-manifest": "true", "oci-mediatypes": "true"}
"""Registries refuse an index of things that are no images. https://docs.docker.com/build/cache/backends/registry/"""


def fields(values: Mapping[str, str]) -> str:
    """One argument of `--output` and its like: fields in CSV."""
    return ",".join(_csv(f"{name}={value}") for name, value in values.items())


def _csv(field: str) -> str:
    escaped = field.replace('"', '""')
    return f'"{escaped}"' if escaped != field or "," in field else field


def image_output(into: Path) -> str:
    """The `--output` that is an OCI layout in the folder `into`, with no time in it after SOURCE_DATE_EPOCH."""
    layout = {"type": "oci", "tar": "false", "dest": str(into)}
    return fields({**layout, "oci-mediatypes": "true", "rewrite-timestamp": "true"})


def cache_import(cache: Cache) -> str:
    """The `--import-cache` of a cache."""
    attributes = {"src": cache.attributes["dir"]} if cache.kind == "local" else cache.attributes
    return fields({"type": cache.kind, **attributes})


def cache_export(cache: Cache) -> str:
    """The `--export-cache` of a cache. What its attributes say goes before what is usual."""
    if cache.kind == "local":
        return fields({"type": "local", "dest": cache.attributes["dir"], **_ALWAYS})
    usual = _ALWAYS | _REGISTRY if cache.kind == "registry" else _ALWAYS
    return fields({"type": cache.kind, **usual, **cache.attributes})


def usable(cache: Cache, say: Callable[[str], None]) -> bool:
    """Whether a local cache can be written and read: a build would fail for it, in the end."""
    if cache.kind != "local":
        return True
    folder = Path(cache.attributes["dir"])
    index = folder / "index.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
        if index.exists():
            json.loads(index.read_bytes())
    except OSError as error:
        say(f"{NOTICE}the build cache {folder} is not used: {error.strerror}")
        return False
    except ValueError:
        say(f"{NOTICE}the build cache {folder} is not used: {index} is damaged; remove the folder")
        return False
    return True


def attestations(request: BuildRequest) -> dict[str, str]:
    """The frontend's options for the attestations that are asked for; without them it makes none.

    https://docs.docker.com/build/metadata/attestations/
    """
    options = {}
    if request.provenance:
        options["attest:provenance"] = "mode=max"
    if request.sbom:
        options["attest:sbom"] = fields({"generator": request.sbom})
    return options


def source_policy(request: BuildRequest) -> bytes:
    """A document that has BuildKit take the base where the Dockerfile names `stands_for`, however it is spelled there.

    A named context would do for most, but it also replaces a stage of that name (`FROM fedora AS fedora`), and is taken
    for any platform without a warning. https://docs.docker.com/build/building/variables/#experimental_buildkit_source_policy
    """
    rule = {
        "action": "CONVERT",
        "selector": {"identifier": f"docker-image://{parse_familiar(request.stands_for)}"},
        "updates": {"identifier": f"docker-image://{request.base}"},
    }
    return json.dumps({"version": 1, "rules": [rule]}).encode()


def normalise(layout: Layout, request: BuildRequest) -> None:
    """Replaces what BuildKit names in `index.json` by the one index that `Builder.build` promises.

    For one platform BuildKit names its image alone, and it never annotates an index. `BuildFailed` where the layout has
    other platforms than were asked for.
    """
    try:
        (top,) = layout.entries()
        entries = _entries(layout, top)
        images = [one for one in entries if not one.is_attestation]
        found = {one.platform.normalised() for one in images if one.platform}
        if found != {one.normalised() for one in request.platforms} or len(found) != len(images):
            made = ", ".join(str(one) for one in sorted(found)) or "nothing"
            raise BuildFailed(f"{request.target}: BuildKit made {made}, which is not what was asked for")
        if top.media_type in INDEX_TYPES:
            layout.blob_path(top.digest).unlink()
        wanted = request.sbom or request.provenance
        layout.write_only_index(entries if wanted else images, request.annotations)
    except (ValueError, BadDocument) as error:
        raise BuildFailed(f"{request.target}: BuildKit's layout is not one image: {error}") from None


def _entries(layout: Layout, top: Descriptor) -> tuple[Descriptor, ...]:
    if top.media_type not in INDEX_TYPES:
        return (top,)
    document = parse_manifest(layout.read(top.digest, MAX_MANIFEST_BYTES), top.media_type)
    return document.entries if isinstance(document, Index) else (top,)
