"""A second opinion on a target: from bytes alone, sharing no code with what it judges. As short and slow as can be.

A world is `{"manifests": {digest: bytes}, "blobs": {digest: bytes}, "tags": {tag: digest}}`, tags `base`, `image`, `latest`.
"""

import hashlib
import json

OCI, DOCKER = "application/vnd.oci.image.", "application/vnd.docker.distribution.manifest."
INDEXES, MANIFESTS = {f"{OCI}index.v1+json", f"{DOCKER}list.v2+json"}, {f"{OCI}manifest.v1+json", f"{DOCKER}v2+json"}
WANTED = (("linux", "amd64"), ("linux", "arm64"))
Doubt = type("Doubt", (Exception,), {})  # something cannot be believed
Gone = type("Gone", (Exception,), {})  # something that is named is not there


def judge(world):
    """`fresh`, `unknown`, or the set of codes for which the image is stale."""
    tags, manifests = world["tags"], world["manifests"]
    try:
        base, lost = platforms(world, tags["base"])
        required = [one for one in WANTED if one in base or one in lost]
        if not required or any(one in lost or not base[one]["diff_ids"] for one in required):
            return "unknown"
        if "image" not in tags:
            return {"image-missing"}
        image, gone = platforms(world, tags["image"])
    except (Doubt, Gone, KeyError):
        return "unknown"
    codes = {"child-missing"} if gone else set()
    if any(one not in image and one not in gone for one in required):
        is_index = "manifests" in json.loads(manifests[tags["image"]])
        codes.add("platform-missing" if is_index or len(required) == 1 else "not-multiarch")
    for one in required:
        codes |= departures(base[one], image[one]) if one in image else set()
    return codes | ({"latest-behind"} if tags.get("latest") != tags["image"] else set()) or "fresh"


def departures(below, image):
    count = len(below["diff_ids"])
    told = None not in (below["steps"], image["steps"])
    codes = {"base-config"} if told and image["steps"][: len(below["steps"])] != below["steps"] else set()
    if not image["diff_ids"]:
        return codes | {"base-layers-missing"}
    if image["layers"][:count] != below["layers"] and image["diff_ids"][:count] != below["diff_ids"]:
        return codes | {"base-changed"}
    return codes | ({"no-own-layers"} if len(image["diff_ids"]) == count else set())


def platforms(world, digest, size=None, depth=0, kinds=INDEXES | MANIFESTS):
    """(os, architecture) → what is needed of its first image; and the platforms of which something is gone."""
    document, found, gone = read(world["manifests"], digest, size), {}, set()
    if not kinds & (INDEXES if "manifests" in document else MANIFESTS) or (depth == 3 and "manifests" in document):
        raise Doubt
    if "manifests" not in document:
        try:
            image = image_of(world, document)
        except Gone:
            return {}, {(None, None)}
        return {image["platform"]: image}, gone
    for entry in document["manifests"]:
        stated = tuple(entry.get("platform", {}).get(name) for name in ("os", "architecture"))
        nobodys = entry["mediaType"] not in INDEXES | MANIFESTS and "platform" not in entry
        if nobodys or "vnd.docker.reference.type" in entry.get("annotations", {}) or stated == ("unknown", "unknown"):
            continue
        try:
            images, lost = platforms(world, entry["digest"], entry["size"], depth + 1, {entry["mediaType"]})
        except Gone:
            images, lost = {}, {stated}
        gone |= {stated if stated[0] else one for one in lost}
        for platform, image in images.items():
            found.setdefault(stated if stated[0] else platform, image)
    return found, gone


def image_of(world, document):
    config = read(world["blobs"], document["config"]["digest"], document["config"]["size"])
    layers, diff_ids = [one["digest"] for one in document["layers"]], config["rootfs"]["diff_ids"]
    if len(layers) != len(diff_ids):
        raise Doubt
    steps = [(one["created_by"], one.get("empty_layer", False)) for one in config.get("history", [])]
    whole = "history" in config and sum(not empty for _, empty in steps) == len(diff_ids)
    platform = (config["os"], config["architecture"])
    return {"layers": layers, "diff_ids": diff_ids, "steps": steps if whole else None, "platform": platform}


def read(held, digest, size):
    if digest not in held:
        raise Gone
    body = held[digest]
    if "sha256:" + hashlib.sha256(body).hexdigest() != digest or size not in (None, len(body)):
        raise Doubt
    return json.loads(body)
