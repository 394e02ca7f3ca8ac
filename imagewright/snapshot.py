"""What was seen in the registries: one frozen picture that can be written, read back and judged again.

An observation is `Published`, `Missing` or `Unreachable`. Only positive evidence makes one of the first two: every byte
behind a `Published` was hashed, every `Missing` was said by a registry in its own words.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from math import isfinite
from types import NoneType
from typing import Any, Literal

from imagewright.documents import HistoryEntry
from imagewright.errors import BadReport
from imagewright.names import (
    Digest,
    Platform,
    Reference,
    Repository,
    make_repository,
    parse_digest,
    parse_reference,
    shown,
)
from imagewright.pieces import pieces
from imagewright.reasons import CODES, Unknown

SCHEMA = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One platform of an image, from its manifest and configuration. created: as the configuration says, may be empty.

    history: None where the configuration has none. digest, config: of manifest and configuration.
    """

    platform: Platform
    digest: Digest
    config: Digest
    layers: tuple[Digest, ...]
    diff_ids: tuple[Digest, ...]
    history: tuple[HistoryEntry, ...] | None
    labels: Mapping[str, str] = field(hash=False)
    created: str

    @property
    def history_is_whole(self) -> bool:
        """Whether the history accounts for every layer, so that steps without a layer are in it too."""
        return self.history is not None and sum(not step.empty_layer for step in self.history) == len(self.diff_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """A platform that the index names and whose manifest or configuration the registry says it does not have."""

    platform: Platform
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Attestation:
    """What an index says of one of its platforms, an SBOM or provenance. about: the digest of that platform's manifest."""

    digest: Digest
    about: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where an image departs from its base. at: position, from 0. found: empty where the image has nothing there."""

    at: int
    expected: str
    found: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """An image that is there, read to its end. is_index: False where one manifest stands under the tag.

    images: a platform each, normalised, in document order. gone: platforms with holes. attestations: not looked behind.
    warnings: odd, but harmless.
    """

    reference: Reference
    digest: Digest
    media_type: str
    is_index: bool
    images: tuple[Image, ...]
    gone: tuple[Gone, ...] = ()
    annotations: Mapping[str, str] = field(default_factory=dict, hash=False)
    attestations: tuple[Attestation, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def platforms(self) -> tuple[Platform, ...]:
        """Every platform that the image names, holes included."""
        return (*(one.platform for one in self.images), *(one.platform for one in self.gone))

    def on(self, platform: Platform) -> Image | None:
        """The image of one platform."""
        return next((one for one in self.images if one.platform == platform), None)

    def common(self, other: "Published") -> tuple[tuple[Platform, Image, Image], ...]:
        """The platforms that both have, with the two images."""
        both = ((one.platform, one, other.on(one.platform)) for one in self.images)
        return tuple((platform, mine, theirs) for platform, mine, theirs in both if theirs)

    def departs_from(self, base: "Published", platform: Platform) -> Difference | None:
        """Where the base's layers, or else its diff ids, are not an ordered prefix of the image's; None if they are.

        Both are tried because recompressing a layer changes its digest and no diff id.
        """
        mine, theirs = self.on(platform), base.on(platform)
        if mine is None or theirs is None or mine.layers[: len(theirs.layers)] == theirs.layers:
            return None
        return _first_difference(theirs.diff_ids, mine.diff_ids)

    def config_departs_from(self, base: "Published", platform: Platform) -> Difference | None:
        """Where the base's history is not a prefix of the image's: ENV, USER or ENTRYPOINT changed, which make no layer.

        Compares commands, not times: builders rewrite those. None where either history is not whole, see
        `history_is_whole`.
        """
        mine, theirs = self.on(platform), base.on(platform)
        if mine is None or theirs is None or not (mine.history_is_whole and theirs.history_is_whole):
            return None
        return _first_difference(_steps(theirs), _steps(mine))

    def has_last_layer_of(self, base: "Published") -> bool | None:
        """The original rule: the base's last layer is somewhere in the image, on every platform. None: cannot be asked."""
        pairs = [(mine, theirs) for _, mine, theirs in self.common(base) if theirs.diff_ids]
        if not pairs:
            return None
        return all(theirs.layers[-1] in mine.layers or theirs.diff_ids[-1] in mine.diff_ids for mine, theirs in pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The registry said, in its own words, that it has no such manifest. code: its error code."""

    reference: Reference
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreachable:
    """The question was not answered. detail: one clause, fit to be shown."""

    reference: Reference
    reason: Unknown
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointer:
    """What a tag names, without a look behind it."""

    reference: Reference
    digest: Digest


Observation = Published | Missing | Unreachable
PointerObservation = Pointer | Missing | Unreachable


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """What a tool's `version.sh` said. version: None where it said nothing usable; then reason and detail tell why.

    via: where it was asked last. image: digest of the version-check image, if that one answered. fallback: why the image
    did not answer, where the host did.
    """

    tool: str
    version: str | None
    reason: Unknown | None = None
    detail: str = ""
    via: Literal["image", "host", "given"] = "host"
    seconds: float = 0.0
    image: str = ""
    fallback: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseSeen:
    """One base, looked at once in a run: every pair on it is judged against this."""

    name: str
    observation: Observation


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetSeen:
    """One target. version, observation, latest: None where the version is unknown, so nothing could be asked.

    latest is also None where the version's tag is missing. newest: the image that `latest` names, looked at where it is
    not this one and the version was read, not given. listed_before: whether the repository lists a tag
    `<target>-latest`; None where the list was not read.
    """

    target: str
    tool: str
    base: str
    version: str | None
    observation: Observation | None
    latest: PointerObservation | None
    newest: Observation | None = None
    listed_before: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CanariesSeen:
    """What was asked of a repository to which the answer is known. failed: why the answer was not that; empty if it was."""

    repository: Repository
    failed: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSeen:
    """A registry host that left questions open. asked, unanswered: how many. reason, detail: why, most often.

    retry_after: seconds that it asked to be left alone, None where it did not.
    """

    host: str
    asked: int
    unanswered: int
    reason: Unknown
    detail: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything that one survey saw. base_names: all bases of the catalogue, also those not looked at.

    hosts: those that left questions open.
    """

    catalogue: str
    taken: str
    base_names: tuple[str, ...]
    readings: tuple[Reading, ...]
    bases: tuple[BaseSeen, ...]
    targets: tuple[TargetSeen, ...]
    canaries: tuple[CanariesSeen, ...] = ()
    hosts: tuple[HostSeen, ...] = ()

    def base(self, name: str) -> BaseSeen | None:
        """The base of that name, if it was looked at."""
        return next((one for one in self.bases if one.name == name), None)

    def distrust(self, *repositories: Repository) -> str:
        """Why nothing there counts as wrong: a repository's own canaries failed, or its host's; empty where they held."""
        for repository in repositories:
            own = [one for one in self.canaries if one.repository == repository]
            asked = own or [one for one in self.canaries if one.repository.host == repository.host]
            if failed := next((one.failed for one in asked if one.failed), ""):
                return failed
        return ""

    def reading(self, tool: str) -> Reading | None:
        """The version of that tool, if it was read."""
        return next((one for one in self.readings if one.tool == tool), None)


def _steps(image: Image) -> tuple[str, ...]:
    return tuple(f"{'' if step.empty_layer else 'layer: '}{step.created_by}" for step in image.history or ())


def _first_difference(expected: tuple[str, ...], found: tuple[str, ...]) -> Difference | None:
    for at, one in enumerate(expected):
        there = found[at] if at < len(found) else ""
        if there != one:
            return Difference(at=at, expected=one, found=there)
    return None


def dump(snapshot: Snapshot) -> Iterator[str]:
    """The snapshot as JSON, piece by piece; `load` reads it back equal."""
    return pieces(
        {
            "schema": SCHEMA,
            "catalogue": snapshot.catalogue,
            "taken": snapshot.taken,
            "base_names": snapshot.base_names,
            "canaries": [{"repository": str(one.repository), "failed": one.failed} for one in snapshot.canaries],
            "hosts": [_dump_host(one) for one in snapshot.hosts],
            "readings": [dump_reading(one) for one in snapshot.readings],
            "bases": [{"name": one.name, "seen": _dump_observation(one.observation)} for one in snapshot.bases],
            "targets": (
                {
                    "target": one.target,
                    "tool": one.tool,
                    "base": one.base,
                    "version": one.version,
                    "seen": _dump_observation(one.observation),
                    "latest": _dump_observation(one.latest),
                    "newest": _dump_observation(one.newest),
                    "listed_before": one.listed_before,
                }
                for one in snapshot.targets
            ),
        }
    )


def load(text: str | bytes, where: str) -> Snapshot:
    """A snapshot from its JSON. `BadReport` with the place where it is not one."""
    try:
        document = json.loads(text)
        if document["schema"] != SCHEMA:
            raise ValueError(f"schema {document['schema']} instead of {SCHEMA}")
        return Snapshot(
            catalogue=_of(document["catalogue"], str),
            taken=_of(document["taken"], str),
            base_names=_texts(document["base_names"]),
            canaries=tuple(_load_canaries(one) for one in document["canaries"]),
            hosts=tuple(_load_host(one) for one in document["hosts"]),
            readings=tuple(load_reading(one) for one in document["readings"]),
            bases=tuple(
                BaseSeen(name=_of(one["name"], str), observation=_load_observation(one["seen"]))
                for one in document["bases"]
            ),
            targets=tuple(
                TargetSeen(
                    target=_of(one["target"], str),
                    tool=_of(one["tool"], str),
                    base=_of(one["base"], str),
                    version=_of(one["version"], str, NoneType),
                    observation=_load_observation(one["seen"]) if one["seen"] else None,
                    latest=_load_pointer(one["latest"]) if one["latest"] else None,
                    newest=_load_observation(one["newest"]) if one["newest"] else None,
                    listed_before=_of(one["listed_before"], bool, NoneType),
                )
                for one in document["targets"]
            ),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadReport(
            f"not a snapshot: {error}", remedy="Run `pytest checks/` again to make a new one.", where=where
        ) from None


def _of(value: Any, *kinds: type) -> Any:
    """A value of one of these types, itself; TypeError for any other."""
    if type(value) not in kinds:
        raise TypeError(f"{shown(repr(value))} instead of {' or '.join(one.__name__ for one in kinds)}")
    return value


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_of(one, str) for one in _of(value, list))


def _texts_by_name(value: Any) -> Mapping[str, str]:
    return {name: _of(text, str) for name, text in _of(value, dict).items()}


def _seconds(value: Any) -> float:
    if not isfinite(seconds := float(_of(value, int, float))):
        raise ValueError(f"{value} seconds")
    return seconds


def dump_reading(reading: Reading) -> dict[str, Any]:
    """A reading as JSON members."""
    return {
        "tool": reading.tool,
        "version": reading.version,
        "reason": reading.reason.code if reading.reason else None,
        "detail": reading.detail,
        "via": reading.via,
        "seconds": round(reading.seconds, 3),
        "image": reading.image,
        "fallback": reading.fallback,
    }


def load_reading(members: Mapping[str, Any]) -> Reading:
    """A reading from its JSON members; KeyError, TypeError, ValueError where they are not."""
    via = members["via"]
    if via not in ("image", "host", "given"):
        raise ValueError(f"a version cannot come from {via!r}")
    tool, version, reason = _of(members["tool"], str), _of(members["version"], str, NoneType), members["reason"]
    if (version is None) != bool(reason):
        raise ValueError(f"{tool} has neither a version nor a reason, or both")
    return Reading(
        tool=tool,
        version=version,
        reason=_unknown(reason) if reason else None,
        detail=_of(members["detail"], str),
        via=via,
        seconds=round(_seconds(members["seconds"]), 3),
        image=_of(members.get("image", ""), str),
        fallback=_of(members.get("fallback", ""), str),
    )


def _unknown(code: str) -> Unknown:
    reason = CODES[code]
    if not isinstance(reason, Unknown):
        raise ValueError(f"{code} is no reason for not knowing")
    return reason


def _dump_observation(seen: Observation | PointerObservation | None) -> dict[str, Any] | None:
    match seen:
        case None:
            return None
        case Missing():
            return {"kind": "missing", "reference": str(seen.reference), "code": seen.code}
        case Unreachable():
            return {
                "kind": "unreachable",
                "reference": str(seen.reference),
                "reason": seen.reason.code,
                "detail": seen.detail,
            }
        case Pointer():
            return {"kind": "pointer", "reference": str(seen.reference), "digest": seen.digest}
        case Published():
            return {
                "kind": "published",
                "reference": str(seen.reference),
                "digest": seen.digest,
                "media_type": seen.media_type,
                "is_index": seen.is_index,
                "annotations": dict(seen.annotations),
                "attestations": [{"digest": one.digest, "about": one.about} for one in seen.attestations],
                "warnings": seen.warnings,
                "gone": [{"platform": _parts(one.platform), "digest": one.digest} for one in seen.gone],
                "images": [
                    {
                        "platform": _parts(one.platform),
                        "digest": one.digest,
                        "config": one.config,
                        "created": one.created,
                        "labels": dict(one.labels),
                        "layers": one.layers,
                        "diff_ids": one.diff_ids,
                        "history": None
                        if one.history is None
                        else [[step.created_by, step.empty_layer] for step in one.history],
                    }
                    for one in seen.images
                ],
            }


def _load_canaries(members: Mapping[str, Any]) -> CanariesSeen:
    host, _, name = members["repository"].partition("/")
    return CanariesSeen(repository=make_repository(host, name), failed=_of(members["failed"], str))


def _dump_host(seen: HostSeen) -> dict[str, Any]:
    return {
        "host": seen.host,
        "asked": seen.asked,
        "unanswered": seen.unanswered,
        "reason": seen.reason.code,
        "detail": seen.detail,
        "retry_after": seen.retry_after,
    }


def _load_host(members: Mapping[str, Any]) -> HostSeen:
    return HostSeen(
        host=_of(members["host"], str),
        asked=_of(members["asked"], int),
        unanswered=_of(members["unanswered"], int),
        reason=_unknown(members["reason"]),
        detail=_of(members["detail"], str),
        retry_after=None if members["retry_after"] is None else _seconds(members["retry_after"]),
    )


def _load_observation(members: Mapping[str, Any]) -> Observation:
    seen = _load_any(members)
    if isinstance(seen, Pointer):
        raise ValueError("a pointer where an image was looked at")
    return seen


def _load_pointer(members: Mapping[str, Any]) -> PointerObservation:
    seen = _load_any(members)
    if isinstance(seen, Published):
        raise ValueError("an image where only a pointer was read")
    return seen


def _load_any(members: Mapping[str, Any]) -> Observation | PointerObservation:
    reference = parse_reference(members["reference"])
    match members["kind"]:
        case "missing":
            return Missing(reference=reference, code=_of(members["code"], str))
        case "unreachable":
            reason = _unknown(members["reason"])
            return Unreachable(reference=reference, reason=reason, detail=_of(members["detail"], str))
        case "pointer":
            return Pointer(reference=reference, digest=parse_digest(members["digest"]))
        case "published":
            return Published(
                reference=reference,
                digest=parse_digest(members["digest"]),
                media_type=_of(members["media_type"], str),
                is_index=_of(members["is_index"], bool),
                annotations=_texts_by_name(members["annotations"]),
                attestations=tuple(
                    Attestation(digest=parse_digest(one["digest"]), about=parse_digest(one["about"]))
                    for one in members["attestations"]
                ),
                warnings=_texts(members["warnings"]),
                gone=tuple(
                    Gone(platform=_platform(one["platform"]), digest=parse_digest(one["digest"]))
                    for one in members["gone"]
                ),
                images=tuple(_load_image(one) for one in members["images"]),
            )
        case other:
            raise ValueError(f"no such kind of observation: {other!r}")


def _load_image(members: Mapping[str, Any]) -> Image:
    history = members["history"]
    return Image(
        platform=_platform(members["platform"]),
        digest=parse_digest(members["digest"]),
        config=parse_digest(members["config"]),
        created=_of(members["created"], str),
        labels=_texts_by_name(members["labels"]),
        layers=_digests(members["layers"]),
        diff_ids=_digests(members["diff_ids"]),
        history=None
        if history is None
        else tuple(HistoryEntry(_of(by, str), _of(empty, bool)) for by, empty in history),
    )


def _digests(texts: Iterable[str]) -> tuple[Digest, ...]:
    return tuple(parse_digest(one) for one in texts)


def _parts(platform: Platform) -> list[str]:
    return [platform.os, platform.architecture, platform.variant, platform.os_version]


def _platform(parts: Iterable[str]) -> Platform:
    """Foreign documents may leave parts of a platform empty, so it is kept in parts and not parsed again."""
    os, architecture, variant, os_version = _texts(parts)
    return Platform(os, architecture, variant, os_version)
