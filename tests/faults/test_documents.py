"""What a registry may serve instead of an image: real bytes under real digests, and what a target then is."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from imagewright.documents import (
    DOCKER_LIST,
    DOCKER_MANIFEST,
    MAX_MANIFEST_BYTES,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER_GZIP,
    OCI_MANIFEST,
    SCHEMA1_TYPES,
)
from imagewright.embedded.wire import Answer
from imagewright.names import digest_of
from imagewright.settings import Limits
from imagewright.snapshot import Published
from imagewright.testing import vices
from imagewright.testing.images import Layer, layer
from imagewright.testing.registry import Registry
from imagewright.testing.vices import Occasion, Vice
from tests.vicious import AMD, ARM, World

Json = dict[str, Any]
FRESH = "fresh"
MALFORMED, CONFUSED = "unknown: malformed", "unknown: type-confusion"
TARGET = "codex-fedora"


class Held:
    """What the registry serves, whatever a registry would take: bytes by digest, digests by tag, as they are put here."""

    def __init__(self) -> None:
        self.bodies: dict[str, tuple[bytes, str]] = {}
        self.tags: dict[str, str] = {}

    def put(self, document: Json | bytes, media_type: str, digest: str = "") -> Json:
        """Holds a document; its descriptor. digest: under which it is served, its own by default."""
        body = document if isinstance(document, bytes) else json.dumps(document).encode()
        name = digest or digest_of(body)
        self.bodies[name] = (body, media_type)
        return {"mediaType": media_type, "digest": name, "size": len(body)}

    def image(self, *layers: Layer | Json, on: str = AMD, config: Json | None = None, **members: Any) -> Json:
        """An image's manifest; its descriptor, with its platform. layers: or descriptors, with their diff ids."""
        platform = dict(zip(("os", "architecture"), on.split("/"), strict=True))
        diff_ids = [one.diff_id if isinstance(one, Layer) else one["diff_id"] for one in layers]
        settings = self.put(
            {**platform, "rootfs": {"type": "layers", "diff_ids": diff_ids}, **(config or {})}, OCI_CONFIG
        )
        blobs = [
            {"mediaType": OCI_LAYER_GZIP, "digest": one.digest, "size": len(one.blob)}
            if isinstance(one, Layer)
            else {name: value for name, value in one.items() if name != "diff_id"}
            for one in layers
        ]
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": settings, "layers": blobs, **members}
        return {**self.put(manifest, str(manifest["mediaType"])), "platform": platform}

    def index(self, *entries: Json, **members: Any) -> Json:
        """An index; its descriptor."""
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries), **members}
        return self.put(document, str(document["mediaType"]))

    def tag(self, name: str, descriptor: Json) -> None:
        """Names a document."""
        self.tags[name] = descriptor["digest"]

    def serves(self) -> Vice:
        """A registry of nothing but this."""

        def does(occasion: Occasion) -> Answer:
            asked = occasion.asked
            name = self.tags.get(asked.reference, asked.reference)
            if asked.kind == "tags":
                body = json.dumps({"name": asked.repository, "tags": sorted(self.tags)}).encode()
                return Answer(status=200, headers={"Content-Type": "application/json"}, body=body)
            if name not in self.bodies:
                code = "BLOB_UNKNOWN" if asked.kind == "config" else "MANIFEST_UNKNOWN"
                body = json.dumps({"errors": [{"code": code, "message": "unknown"}]}).encode()
                return Answer(status=404, headers={"Content-Type": "application/json"}, body=body)
            body, media_type = self.bodies[name]
            headers = {
                "Content-Type": media_type,
                **({"Docker-Content-Digest": digest_of(body)} if asked.kind != "config" else {}),
            }
            return Answer(status=200, headers=headers, body=body)

        return Vice(name="holds", does=does)


BASE = {on: (layer({"etc/one": on}), layer({"etc/two": on})) for on in (AMD, ARM)}
OWN = {on: layer({"bin/codex": on}) for on in (AMD, ARM)}


@dataclass(frozen=True, slots=True)
class Place:
    """A registry in which a base and a target are in order, until a row changes one of the two."""

    held: Held
    registry: Registry

    def told(self, version: str = "1.0") -> str:
        """What the target is."""
        self.registry.becomes(self.held.serves())
        limits = Limits(connect=2, read=2, total=2)
        made = World(registry=self.registry, versions={"codex": version}, bases=["fedora"], limits=limits)
        (told,) = made.told().values()
        return told

    def base(self, top: Json) -> None:
        """What stands under the base's tag."""
        self.held.tag("fedora-latest", top)

    def target(self, top: Json) -> None:
        """What stands under the target's tags."""
        for tag in ("1.0", "latest"):
            self.held.tag(f"{TARGET}-{tag}", top)

    def images(self, **more: Any) -> list[Json]:
        """The target's images, in order."""
        return [self.held.image(*BASE[on], OWN[on], on=on, **more) for on in (AMD, ARM)]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    held = Held()
    with Registry(tmp_path / "registry") as registry:
        made = Place(held, registry)
        made.base(held.index(*(held.image(*BASE[on], on=on) for on in (AMD, ARM))))
        made.target(held.index(*made.images()))
        yield made


def test_what_is_in_order_is_fresh(place: Place) -> None:
    assert place.told() == FRESH


# B1-B6: bytes that are no image's. Under the target's tag, as its child, and as a configuration.


RAW: dict[str, tuple[Callable[[bytes], bytes], str, str]] = {
    # what becomes of the right bytes; what the target is where these are a manifest's, and where a configuration's
    "B1 manifests with layers": (
        lambda b: json.dumps({"manifests": [], "layers": [], **json.loads(b)}).encode(),
        CONFUSED,
        FRESH,
    ),
    "B2 a name twice": (lambda b: b[:-1] + b', "schemaVersion": 2, "schemaVersion": 2}', MALFORMED, MALFORMED),
    "B2 NaN": (lambda b: b[:-1] + b', "x": NaN}', MALFORMED, MALFORMED),
    "B2 Infinity": (lambda b: b[:-1] + b', "x": -Infinity}', MALFORMED, MALFORMED),
    "B2 a byte order mark": (lambda b: b"\xef\xbb\xbf" + b, MALFORMED, MALFORMED),
    "B2 UTF-16": (lambda b: b.decode().encode("utf-16"), MALFORMED, MALFORMED),
    "B2 bytes after the end": (lambda b: b + b"{}", MALFORMED, MALFORMED),
    "B2 invalid UTF-8": (lambda b: b[:-1] + b', "x": "\xff"}', MALFORMED, MALFORMED),
    "B2 overlong UTF-8": (lambda b: b[:-1] + b', "x": "\xc0\xaf"}', MALFORMED, MALFORMED),
    "B2 half a surrogate pair": (lambda b: b[:-1] + rb', "x": "\ud800"}', MALFORMED, MALFORMED),
    "B2 10,000 digits": (lambda b: b[:-1] + b', "x": ' + b"9" * 10_000 + b"}", MALFORMED, MALFORMED),
    "B2 a fraction of 10,000 digits": (lambda b: b[:-1] + b', "x": 0.' + b"9" * 10_000 + b"}", MALFORMED, MALFORMED),
    "B2 a number beyond all": (lambda b: b[:-1] + b', "x": 1e999999}', MALFORMED, MALFORMED),
    "B2 101 levels": (lambda b: b[:-1] + b', "x": ' + b"[" * 100 + b"]" * 100 + b"}", MALFORMED, MALFORMED),
    "B2 100 levels": (lambda b: b[:-1] + b', "x": ' + b"[" * 99 + b"]" * 99 + b"}", FRESH, FRESH),
    "B1 a name in another case": (
        lambda b: b[:-1] + b', "MediaType": "x", "RootFS": {}}',
        CONFUSED,
        CONFUSED,
    ),
    "B2 100,000 levels": (lambda b: b[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", MALFORMED, MALFORMED),
    "B3 a list": (lambda b: b"[" + b + b"]", MALFORMED, MALFORMED),
    "B3 null": (lambda b: b"null", MALFORMED, MALFORMED),
    "B3 a number": (lambda b: b"7", MALFORMED, MALFORMED),
    "B3 a text": (lambda b: b'"manifest"', MALFORMED, MALFORMED),
    "B3 an empty object": (lambda b: b"{}", CONFUSED, MALFORMED),
    "B4 schemaVersion 1": (
        lambda b: json.dumps({"schemaVersion": 1, "fsLayers": [], "history": []}).encode(),
        "unknown: unsupported-schema1",
        MALFORMED,
    ),
    "B5 4 MiB and a byte": (lambda b: b.ljust(MAX_MANIFEST_BYTES + 1), "unknown: too-large", FRESH),
    "B5 9 MiB": (lambda b: b.ljust(9 * 2**20), "unknown: too-large", "unknown: too-large"),
    "B5 50 MiB": (lambda b: b.ljust(50 * 2**20), "unknown: too-large", "unknown: too-large"),
    "at its limit": (lambda b: b.ljust(MAX_MANIFEST_BYTES), FRESH, FRESH),
    "an unknown member": (lambda b: b[:-1] + b', "x": {"y": [1.5e3, true, null]}}', FRESH, FRESH),
    "not JSON at all": (lambda b: b"\x7fELF", "unknown: garbage", "unknown: garbage"),
}  # fmt: skip


def rewritten(held: Held, descriptor: Json, change: Callable[[bytes], bytes]) -> Json:
    """A document with other bytes, under the digest of these."""
    body, media_type = held.bodies[descriptor["digest"]]
    return {**descriptor, **held.put(change(body), media_type)}


@pytest.mark.parametrize("where", ["index", "child", "child everywhere", "config"])
@pytest.mark.parametrize("case", RAW)
def test_bytes_that_are_no_document(place: Place, case: str, where: str) -> None:
    change, manifest, config = RAW[case]
    held = place.held
    if where == "index":
        place.target(rewritten(held, held.index(*place.images()), change))
    elif where == "config":
        amd, arm = place.images()
        inner = json.loads(held.bodies[amd["digest"]][0])
        inner["config"] = rewritten(held, inner["config"], change)
        place.target(held.index({**amd, **held.put(inner, OCI_MANIFEST)}, arm))
    else:
        amd, arm = place.images()
        arm = rewritten(held, arm, change) if where.endswith("everywhere") else arm
        place.target(held.index(rewritten(held, amd, change), arm))
    assert place.told() == (config if where == "config" else manifest)


Change = Callable[[Place], None]


def _tops(make: Callable[[Held, list[Json]], Json]) -> Change:
    """A row that changes what stands under the target's tags."""
    return lambda place: place.target(make(place.held, place.images()))


def _descriptor(**members: Any) -> Change:
    """A row that changes the entry of one platform."""
    return _tops(lambda held, images: held.index({**images[0], **members}, images[1]))


def _everywhere(**members: Any) -> Change:
    """A row that changes the entry of every platform."""
    return _tops(lambda held, images: held.index(*({**one, **members} for one in images)))


def _twin_base(at: int) -> Change:
    """The base has an image more for one platform, in this place, and the image is gone."""

    def change(place: Place) -> None:
        images = [place.held.image(*BASE[on], on=on) for on in (AMD, ARM)]
        images.insert(at, {**images[0], "digest": NOWHERE})
        place.base(place.held.index(*images))

    return change


def _nested(depth: int) -> Change:
    def change(place: Place) -> None:
        top = place.held.index(*place.images())
        for _ in range(depth):
            top = place.held.index(top)
        place.target(top)

    return change


def _sha512(place: Place) -> None:
    entries = []
    for one in place.images():
        body, media_type = place.held.bodies[one["digest"]]
        entries.append({**one, **place.held.put(body, media_type, digest_of(body, "sha512"))})
    place.target(place.held.index(*entries))


def _server_of_anything(place: Place) -> None:
    """Any digest is answered with an index that names two more."""
    body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}).encode()
    for one in place.images():
        place.held.bodies[one["digest"]] = (body, OCI_INDEX)


ATTESTATION = {"vnd.docker.reference.type": "attestation-manifest"}
FUTURE = "application/vnd.oci.image.manifest.v9+json"
NOWHERE = f"sha256:{'0' * 64}"
FOREIGN = {
    "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    "digest": digest_of(b"foreign"),
    "size": 7,
    "urls": ["https://example.invalid/layer"],
    "diff_id": digest_of(b"foreign diff"),
}
ZSTD = {
    "mediaType": "application/vnd.oci.image.layer.v1.tar+zstd",
    "digest": digest_of(b"z"),
    "size": 1,
    "diff_id": digest_of(b"zd"),
}


def _attested(**annotations: str) -> Change:
    return _tops(
        lambda held, images: held.index(
            *images,
            {
                **held.image(layer({"in-toto": "x"}), on="unknown/unknown"),
                **({"annotations": {**ATTESTATION, **annotations}} if annotations else {}),
            },
        )
    )


def _based_on(*layers: Json) -> Change:
    """Base and target begin with these layers."""

    def change(place: Place) -> None:
        place.base(place.held.index(*(place.held.image(*layers, *BASE[on], on=on) for on in (AMD, ARM))))
        place.target(place.held.index(*(place.held.image(*layers, *BASE[on], OWN[on], on=on) for on in (AMD, ARM))))

    return change


def _layers(pick: Callable[[str], list[Layer]]) -> Change:
    """A row that changes the layers of the target."""
    return lambda place: place.target(place.held.index(*(place.held.image(*pick(on), on=on) for on in (AMD, ARM))))


def _recompressed(place: Place) -> None:
    again = {on: tuple(layer({f"etc/{name}": on}, level=1) for name in ("one", "two")) for on in (AMD, ARM)}
    assert again[AMD][0].digest != BASE[AMD][0].digest
    assert again[AMD][0].diff_id == BASE[AMD][0].diff_id
    place.target(place.held.index(*(place.held.image(*again[on], OWN[on], on=on) for on in (AMD, ARM))))


def _config(body: bytes | None) -> Change:
    """The configuration of one platform is gone, or other bytes than its digest says."""

    def change(place: Place) -> None:
        manifest = json.loads(place.held.bodies[place.images()[0]["digest"]][0])
        digest = manifest["config"]["digest"]
        if body is None:
            del place.held.bodies[digest]
        else:
            place.held.bodies[digest] = (body, OCI_CONFIG)

    return change


def _base(make: Callable[[Held], Json]) -> Change:
    return lambda place: place.base(make(place.held))


def _no_base(place: Place) -> None:
    del place.held.tags["fedora-latest"]


ROWS: dict[str, tuple[Change, str]] = {
    "B6 an index within an index": (_nested(1), FRESH),
    "B6 two deep": (_nested(2), FRESH),
    "B6 deeper than 3": (_nested(3), "unknown: too-deep"),
    "B7 any digest is an index": (_server_of_anything, "unknown: integrity"),
    "B9 an upper-case digest": (_descriptor(digest="sha256:" + "A" * 64), "unknown: bad-digest"),
    "B9 a path": (_descriptor(digest="sha256:../../etc/passwd"), "unknown: bad-digest"),
    "B9 md5": (_descriptor(digest="md5:" + "a" * 32), "unknown: bad-digest"),
    "B9 a wrong length": (_descriptor(digest="sha256:abc"), "unknown: bad-digest"),
    "B9 no text": (_descriptor(digest=7), "unknown: bad-digest"),
    "B9 a negative size": (_descriptor(size=-1), MALFORMED),
    "B9 a size that is a text": (_descriptor(size="7"), MALFORMED),
    "B9 a size that is no whole number": (_descriptor(size=7.5), MALFORMED),
    "B9 a size that is true": (_descriptor(size=True), MALFORMED),
    "B9 another size": (_descriptor(size=7), "unknown: integrity"),
    "B9 the largest size": (_descriptor(size=2**63 - 1), "unknown: integrity"),
    "B9 a size beyond all": (_descriptor(size=2**63), MALFORMED),
    "B9 md5 on all platforms": (_everywhere(digest="md5:" + "a" * 32), "unknown: bad-digest"),
    "B9 a negative size on all platforms": (_everywhere(size=-1), MALFORMED),
    "B9 another size on all platforms": (_everywhere(size=7), "unknown: integrity"),
    "B9 sha512": (_sha512, FRESH),
    "B10 an attestation": (_attested(**{"vnd.docker.reference.digest": NOWHERE}), FRESH),
    "B11 an attestation of nothing": (_attested(x="y"), FRESH),
    "B11 unknown/unknown": (_attested(), FRESH),
    "B15 a platform less": (_tops(lambda held, images: held.index(images[0])), "stale: platform-missing"),
    "B15 a platform more": (
        _tops(lambda held, images: held.index(*images, held.image(*BASE[AMD], OWN[AMD], on="linux/riscv64"))),
        FRESH,
    ),
    "B15 none": (_tops(lambda held, images: held.index()), "stale: platform-missing"),
    "B17 one manifest": (_tops(lambda held, images: images[0]), "stale: not-multiarch"),
    "B18 no layers": (_layers(lambda on: []), "stale: base-layers-missing"),
    "B18 a base without layers": (
        _base(lambda held: held.index(*(held.image(on=on) for on in (AMD, ARM)))),
        "unknown: base-empty",
    ),
    "B19 equal to its base": (_layers(lambda on: [*BASE[on]]), "stale: no-own-layers"),
    "B20 another first layer": (_layers(lambda on: [OWN[on], BASE[on][1], OWN[on]]), "stale: base-changed"),
    "B20 another middle layer": (_layers(lambda on: [BASE[on][0], OWN[on], BASE[on][1]]), "stale: base-changed"),
    "B20 another order": (_layers(lambda on: [BASE[on][1], BASE[on][0], OWN[on]]), "stale: base-changed"),
    "B20 one absent": (_layers(lambda on: [BASE[on][0], OWN[on]]), "stale: base-changed"),
    "B20 all there, not first": (_layers(lambda on: [OWN[on], *BASE[on]]), "stale: base-changed"),
    "B21 recompressed": (_recompressed, FRESH),
    "B24 a foreign layer": (_based_on(FOREIGN), FRESH),
    "B26 zstd": (_based_on(ZSTD), FRESH),
    "B28 a base with a lost twin before": (_twin_base(0), "unknown: base-unreadable"),
    "B28 a base with a lost twin behind": (_twin_base(2), "unknown: base-unreadable"),
    "B28 no base": (_no_base, "unknown: base-unreadable"),
    "B28 a base that is no image": (_base(lambda held: held.put(b"[]", OCI_INDEX)), "unknown: base-unreadable"),
    "B30 no configuration": (_config(None), "stale: child-missing"),
    "B30 another digest": (_config(b'{"os": "linux"}'), "unknown: integrity"),
    "B30 9 MiB": (_config(b"{}".ljust(9 * 2**20)), "unknown: too-large"),
    "B30 HTML": (_config(b"<html>"), "unknown: garbage"),
    "a Docker list": (
        lambda place: place.target(place.held.index(*place.images(mediaType=DOCKER_MANIFEST), mediaType=DOCKER_LIST)),
        FRESH,
    ),
    "a Docker manifest that calls itself an OCI one": (_descriptor(mediaType=DOCKER_MANIFEST), FRESH),
    "B1 a manifest that is called an index": (_descriptor(mediaType=OCI_INDEX), CONFUSED),
    "B1 an index that is called a manifest": (
        _tops(lambda held, images: held.index({**held.index(*images), "mediaType": OCI_MANIFEST})),
        CONFUSED,
    ),
    "B1 a manifest of a kind that nobody knows": (_descriptor(mediaType=FUTURE), CONFUSED),
    "an entry of a kind that nobody knows": (
        _tops(lambda held, images: held.index(*images, held.put(b"{}", FUTURE))),
        FRESH,
    ),
    "rootfs of another type": (
        lambda place: place.target(
            place.held.index(*place.images(config={"rootfs": {"type": "trees", "diff_ids": []}}))
        ),
        MALFORMED,
    ),
    "65 children": (_tops(lambda held, images: held.index(*images * 32, images[0])), "unknown: too-large"),
    "64 children": (_tops(lambda held, images: held.index(*images * 32)), FRESH),
    "513 layers": (_layers(lambda on: [*BASE[on], *[OWN[on]] * 511]), "unknown: too-large"),
    "512 layers": (_layers(lambda on: [*BASE[on], *[OWN[on]] * 510]), FRESH),
    "a platform that is none": (_descriptor(platform={"os": "li nux", "architecture": "amd64"}), MALFORMED),
    "a platform that is a text": (_descriptor(platform="linux/amd64"), MALFORMED),
    "annotations that are numbers": (_descriptor(annotations={"x": 1}), MALFORMED),
    "amd64/v1": (_descriptor(platform={"os": "linux", "architecture": "amd64", "variant": "v1"}), FRESH),
}  # fmt: skip


@pytest.mark.parametrize("row", ROWS)
def test_a_document_makes_a_target_what_the_contract_says(place: Place, row: str) -> None:
    change, told = ROWS[row]
    change(place)
    assert place.told() == told
    assert all("example.invalid" not in one.target for one in place.registry.log)


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1)], ids=["B16 partial amd64", "B16 partial arm64", "B16 ghost"])
def test_b16_children_that_are_gone(place: Place, which: tuple[int, ...]) -> None:
    images = place.images()
    for at in which:
        del place.held.bodies[images[at]["digest"]]
    assert place.told() == "stale: child-missing"


@pytest.mark.parametrize("media_type", sorted(SCHEMA1_TYPES))
def test_b4_what_is_served_as_schema_1(place: Place, media_type: str) -> None:
    top = place.held.index(*place.images())
    body, _ = place.held.bodies[top["digest"]]
    place.held.bodies[top["digest"]] = (body, media_type)
    assert place.told() == "unknown: unsupported-schema1"


TAG_LISTS: Mapping[str, tuple[bytes, str]] = {
    "empty": (b'{"tags": []}', "unknown: repository-unknown"),
    "null": (b'{"tags": null}', "unknown: repository-unknown"),
    "none": (b"{}", "unknown: garbage"),
    "B2 a name twice": (b'{"tags": [], "tags": ["x"]}', MALFORMED),
    "B2 NaN": (b'{"tags": ["x"], "n": NaN}', MALFORMED),
    "B3 a list": (b'["x"]', MALFORMED),
    "numbers": (b'{"tags": [1]}', MALFORMED),
    "a text": (b'{"tags": "x"}', MALFORMED),
    "B5 9 MiB": (b'{"tags": ["x"]}'.ljust(9 * 2**20), "unknown: too-large"),
    "illegal tags": (b'{"tags": ["../x", "a b", "ok"]}', "stale: image-missing"),
}


@pytest.mark.parametrize("case", TAG_LISTS)
def test_a_list_of_tags(place: Place, case: str) -> None:
    body, told = TAG_LISTS[case]
    honest = place.held.serves()
    listed = Answer(status=200, headers={"Content-Type": "application/json"}, body=body)
    place.registry.becomes(Vice(name="lists", does=lambda _: listed).on("tags"), honest)
    made = World(registry=place.registry, versions={"codex": "2.0"}, bases=["fedora"])
    assert made.told() == {TARGET: told}


def test_b27_a_base_that_moves_while_we_look_is_one_base(place: Place) -> None:
    """The base is asked for once, however many targets are on it, and whatever its tag names by then."""
    place.told()
    asked = [one for one in place.registry.log if one.reference == "fedora-latest"]
    assert len(asked) == 1


@pytest.mark.parametrize("kind", ["index", "child", "config", "tags"])
@pytest.mark.parametrize(("coding", "told"), [("gzip", "unknown: too-large"), ("zstd", "unknown: garbage")])
def test_b5_a_body_that_unpacks_to_far_more_is_not_unpacked(
    place: Place, coding: Literal["gzip", "zstd"], told: str, kind: vices.Kind
) -> None:
    bomb = vices.compresses(50 * 2**20, coding).on(kind).where(lambda asked: asked.repository == "own/tools")
    place.registry.becomes(bomb, place.held.serves())
    version = "2.0" if kind == "tags" else "1.0"
    assert World(registry=place.registry, versions={"codex": version}, bases=["fedora"]).told() == {TARGET: told}


@pytest.mark.parametrize(
    ("row", "warning"),
    [
        ("B11 an attestation of nothing", "describes nothing in its index"),
        ("B11 unknown/unknown", "describes nothing in its index"),
        ("an entry of a kind that nobody knows", f"is ignored, for it is '{FUTURE}'"),
    ],
)
def test_b11_what_is_ignored_is_a_warning(place: Place, row: str, warning: str) -> None:
    change, _ = ROWS[row]
    change(place)
    place.registry.becomes(place.held.serves())
    (target,) = World(registry=place.registry, versions={"codex": "1.0"}, bases=["fedora"]).seen().targets
    assert isinstance(target.observation, Published)
    assert [one.endswith(warning) for one in target.observation.warnings] == [True]
