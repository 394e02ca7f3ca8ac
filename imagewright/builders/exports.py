"""What BuildKit is told to export, and how an image that it has exported becomes the index that every builder makes."""

from pathlib import Path

from imagewright.builders import BuildRequest
from imagewright.documents import INDEX_TYPES, MAX_MANIFEST_BYTES, BadDocument, Descriptor, Index, parse_manifest
from imagewright.errors import BuildFailed
from imagewright.layout import Layout


def image_output(into: Path) -> str:
    """The output that is an OCI layout in the folder `into`, with all times that of SOURCE_DATE_EPOCH."""
    fields = ["type=oci", "tar=false", f"dest={into}", "oci-mediatypes=true", "rewrite-timestamp=true"]
    return ",".join(_csv(one) for one in fields)


def _csv(field: str) -> str:
    escaped = field.replace('"', '""')
    return f'"{escaped}"' if escaped != field or "," in field else field


def normalise(layout: Layout, request: BuildRequest) -> None:
    """Replaces what BuildKit names in `index.json`: for one platform its image alone, and never with annotations."""
    try:
        (top,) = layout.entries()
        images = _images(layout, top)
    except (ValueError, BadDocument) as error:
        raise BuildFailed(f"{request.target}: BuildKit's layout is not one image: {error}") from None
    found = {one.platform.normalised() for one in images if one.platform}
    if found != {one.normalised() for one in request.platforms} or len(found) != len(images):
        made = ", ".join(str(one) for one in sorted(found)) or "nothing"
        raise BuildFailed(f"{request.target}: BuildKit made {made}, which is not what was asked for")
    if top.media_type in INDEX_TYPES:
        layout.blob_path(top.digest).unlink()
    layout.write_only_index(images, request.annotations)


def _images(layout: Layout, top: Descriptor) -> list[Descriptor]:
    if top.media_type not in INDEX_TYPES:
        return [top]
    document = parse_manifest(layout.read(top.digest, MAX_MANIFEST_BYTES), top.media_type)
    return [one for one in document.entries if not one.is_attestation] if isinstance(document, Index) else [top]
