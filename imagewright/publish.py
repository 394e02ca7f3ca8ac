"""The one place that pushes. Platforms by digest, then the index, then the version's tag; then the checks; then `latest`.

Tags have no compare-and-swap, so the order is what keeps readers safe: nothing points at something incomplete, and
`latest` moves only to what the checks have read back, never backwards.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from imagewright import reasons, suite
from imagewright.catalogue import Pair, Target
from imagewright.documents import (
    ATTESTED,
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    OCI_INDEX,
    BadDocument,
    Descriptor,
    Index,
    Manifest,
    parse_manifest,
)
from imagewright.errors import BadReport, Failed
from imagewright.layout import Layout, index_document
from imagewright.names import Digest, Platform, Reference, Repository, digest_of, is_loopback, shown
from imagewright.registry.answers import Document
from imagewright.registry.client import Client
from imagewright.resolve import Documents
from imagewright.snapshot import Image, Missing, Observation, Published, Unreachable
from imagewright.survey import look_at
from imagewright.tags import compare
from imagewright.verdict import (
    NotAsked,
    Reason,
    State,
    base_label_departure,
    layer_departures,
    reason_texts,
    stated_versions,
)
from imagewright.versions import parse_output

_VISIBLE_WITHIN = 30
"""Seconds that a registry may take to show what was pushed; a registry on loopback needs none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One target to publish. base: what it was built on, by digest; None for an image from scratch.

    layouts: where builders left platforms. digests: platforms that are in the repository already. Neither: what the
    version's tag names is published, and only `latest` may have to move.
    """

    target: Target
    version: str
    base: Reference | None
    layouts: Sequence[Path] = ()
    digests: Mapping[Platform, Digest] = field(default_factory=dict)

    @property
    def reference(self) -> Reference:
        """The tag of its version."""
        return self.target.tagged(self.version)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pushed:
    """The version's tag names a whole index. identical: nothing had to be sent. latest_before: what `latest` named then."""

    work: Work
    digest: Digest
    identical: bool
    latest_before: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """How the work on one target ended. outcome: `built` if it was not to be pushed. problem: empty unless it failed."""

    work: Work
    digest: Digest | None = None
    outcome: Literal["published", "identical", "built", "failed"]
    latest: Literal["moved", "already", "not moved", "unknown"] = "not moved"
    problem: str = ""

    def as_json(self) -> dict[str, str | None]:
        """Its members for `--json`."""
        return {
            "target": self.work.target.key,
            "reference": str(self.work.reference),
            "digest": self.digest,
            "outcome": self.outcome,
            "latest": self.latest,
            "problem": self.problem,
        }


class Unconfirmed(Failed):
    """`latest` was to be moved, and the registry did not say that it was. latest: what a look at it said afterwards."""

    def __init__(self, reason: str, *, remedy: str, latest: Literal["moved", "not moved", "unknown"]) -> None:
        super().__init__(reason, remedy=remedy)
        self.latest = latest


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """One platform to publish. layout: None where the repository has it already. attestations: what is said of it."""

    descriptor: Descriptor
    platform: Platform
    image: Image
    layout: Layout | None
    attestations: tuple[Descriptor, ...] = ()


def publish(client: Client, root: Path, works: Sequence[Work], environ: Mapping[str, str]) -> list[Receipt]:
    """Pushes targets, verifies them with the checks of the project in `root`, and moves `latest` to those that hold.

    One that fails does not stop the others. `confirm` is still to come. environ: for the checks, which run as a person
    would run them.
    """
    failures: dict[str, str] = {}
    pushed: list[Pushed] = []
    for work in works:
        try:
            pushed.append(push(client, work))
        except Failed as error:
            failures[work.target.key] = str(error)
    failures |= verify(root, pushed, environ, allowed=frozenset({reasons.Stale.LATEST_BEHIND}))
    latest: dict[str, Literal["moved", "already", "not moved", "unknown"]] = {}
    for one in pushed:
        if one.work.target.key not in failures:
            try:
                latest[one.work.target.key] = move_latest(client, one)
            except Unconfirmed as error:
                failures[one.work.target.key] = str(error)
                latest[one.work.target.key] = error.latest
            except Failed as error:
                failures[one.work.target.key] = str(error)
    done = {one.work.target.key: one for one in pushed}
    return [
        Receipt(
            work=work,
            digest=done[work.target.key].digest if work.target.key in done else None,
            outcome="failed"
            if work.target.key in failures
            else "identical"
            if done[work.target.key].identical
            else "published",
            latest=latest.get(work.target.key, "not moved"),
            problem=failures.get(work.target.key, ""),
        )
        for work in works
    ]


def confirm(root: Path, receipts: Sequence[Receipt], environ: Mapping[str, str]) -> list[Receipt]:
    """The receipts after a last run of the checks, which allows no objection any more."""
    good = [
        Pushed(work=one.work, digest=one.digest, identical=one.outcome == "identical", latest_before=None)
        for one in receipts
        if one.digest and one.outcome in ("published", "identical")
    ]
    problems = verify(root, good, environ, allowed=frozenset())
    return [
        replace(one, outcome="failed", problem=problems[one.work.target.key])
        if one.work.target.key in problems
        else one
        for one in receipts
    ]


def refuse_unpublishable(target: Target, version: str | None) -> None:
    """`Failed` for what is never to be pushed: what may not be, what is excluded, and `latest` or `dev` as a version.

    A version's tag moves before the checks; `latest` taken for one would move unseen. version: None if it is not known yet.
    """
    if not target.source.redistributable:
        raise Failed(
            f"{target.key} may not be redistributed, so it is never pushed",
            remedy="Build it without --push; it stays on this machine.",
        )
    if isinstance(target, Pair) and (why := target.tool.exclude_bases.get(target.base.name)):
        raise Failed(
            f"{target.key} is excluded, so it is never pushed: {why}",
            remedy=f"If it works by now, mend `exclude-bases` in {target.tool.folder}/tool.yaml.",
        )
    if version is None:
        return
    if not isinstance(target, Pair) and version != target.image.version:
        raise Failed(
            f"{target.key} has the version {target.image.version}, not {shown(version)}",
            remedy=f"Its version stands in {target.image.folder}/image.yml.",
        )
    if parse_output(version.encode())[0] is None:
        raise Failed(
            f"{shown(version)} is no version, so nothing is pushed under it", remedy="Name the tool's version."
        )


def push(client: Client, work: Work) -> Pushed:
    """Pushes all platforms of a target by digest, then their index, then the tag of its version.

    `Failed` where the platforms are not whole, are not built on the base, or the registry does not take them; then no tag
    was moved.
    """
    refuse_unpublishable(work.target, work.version)
    version, latest = work.reference, work.target.tagged("latest")
    seen = look_at(client, [version, latest, *([work.base] if work.base else [])])
    base, there, newest = seen[work.base] if work.base else None, seen[version], seen[latest]
    for one in (there, newest):
        if isinstance(one, Unreachable):
            raise Failed(f"{one.reference} cannot be read: {one.detail}", remedy=one.reason.remedy)
    if isinstance(base, Missing | Unreachable):
        why = base.code if isinstance(base, Missing) else base.detail
        raise Failed(f"the base {work.base} cannot be read: {why}", remedy="Make a new plan.")
    before = newest.digest if isinstance(newest, Published) else None
    if not work.layouts and not work.digests:
        if not isinstance(there, Published):
            raise Failed(f"{version} is not there", remedy="Make a new plan: it has to be built.")
        return Pushed(work=work, digest=there.digest, identical=True, latest_before=before)
    parts = _parts(client, work)
    _refuse_unfit(work, parts, base, _required(work, base))
    wanted = {one.platform: one.descriptor.digest for one in parts}
    if isinstance(there, Published) and {one.platform: one.digest for one in there.images} == wanted and not there.gone:
        return Pushed(work=work, digest=there.digest, identical=True, latest_before=before)
    send_platforms(client, work, parts)
    said = [attestation for one in parts for attestation in one.attestations]
    body = index_document([*(one.descriptor for one in parts), *said], annotations(parts, base))
    client.put_manifest(version.repository.at(digest_of(body)), body, OCI_INDEX)
    client.put_manifest(version, body, OCI_INDEX)
    return Pushed(work=work, digest=digest_of(body), identical=False, latest_before=before)


def refuse_unfit(work: Work, base: Published | None, platforms: Sequence[Platform]) -> None:
    """`Failed` where what builders left lacks one of `platforms`, or is not built on its base; asked of all that is built."""
    _refuse_unfit(work, _built_parts(work), base, platforms)


def annotations(parts: Sequence[_Part], base: Published | None) -> dict[str, str]:
    """What an index says: the labels on which all of its platforms agree, without those that the base brought along.

    So it is the same index wherever its platforms were built.
    """
    own = [part.image.labels.items() - _labels_on(base, part.platform).items() for part in parts]
    return dict(sorted(set.intersection(*own)))


def _labels_on(base: Published | None, platform: Platform) -> Mapping[str, str]:
    below = base.on(platform) if base else None
    return below.labels if below else {}


def push_platforms(client: Client, work: Work) -> dict[Platform, Digest]:
    """Pushes platforms by digest and nothing else, so that they can be joined later; their digests."""
    parts = _parts(client, work)
    send_platforms(client, work, parts)
    return {one.platform: one.descriptor.digest for one in parts}


def send_platforms(client: Client, work: Work, parts: Sequence[_Part]) -> None:
    """Uploads what the repository does not have of some platforms, and reads each back by its digest. `Failed`."""
    repository = work.target.repository
    for part in parts:
        if part.layout:
            for descriptor in (part.descriptor, *part.attestations):
                _send(client, repository, descriptor, part.layout, work.base)
    back = look_at(client, [repository.at(part.descriptor.digest) for part in parts])
    for reference, seen in back.items():
        if not isinstance(seen, Published) or seen.gone:
            raise Failed(f"{reference} was pushed and cannot be read back", remedy="Try again later.")


def _send(
    client: Client, repository: Repository, descriptor: Descriptor, layout: Layout, base: Reference | None
) -> None:
    body = layout.read(descriptor.digest, MAX_MANIFEST_BYTES)
    manifest = parse_manifest(body, descriptor.media_type)
    assert isinstance(manifest, Manifest), "parts and what is said of them are manifests"
    assert manifest.config, "and have a configuration"
    for blob in (*manifest.layers, manifest.config):
        if blob.urls or client.has_blob(repository, blob.digest):
            continue
        if not layout.has(blob.digest):
            raise Failed(f"the layout has no content {blob.digest}", where=str(layout.path))
        same_host = base and base.repository.host == repository.host
        if base and same_host and client.mount_blob(repository, blob.digest, base.repository):
            continue
        client.upload_blob(repository, blob.digest, layout.blob_path(blob.digest))
    client.put_manifest(repository.at(descriptor.digest), body, descriptor.media_type)


def _parts(client: Client, work: Work) -> list[_Part]:
    found = _built_parts(work)
    references = {platform: work.target.repository.at(digest) for platform, digest in work.digests.items()}
    seen = look_at(client, references.values())
    for platform, reference in references.items():
        there = seen[reference]
        if not isinstance(there, Published) or there.is_index or not there.images:
            raise Failed(f"{reference}, given for {platform}, is not the manifest of an image there")
        _refuse_other_platform(platform, there.images[0], str(reference))
        body, media_type = client.document(reference)
        descriptor = Descriptor(media_type=media_type, digest=there.digest, size=len(body), platform=platform)
        found.append(_Part(descriptor=descriptor, platform=platform, image=there.images[0], layout=None))
    return sorted(found, key=lambda part: str(part.platform))


def _built_parts(work: Work) -> list[_Part]:
    return [part for path in work.layouts for part in _parts_in(Layout(path), work.target.repository)]


def _parts_in(layout: Layout, repository: Repository) -> Iterator[_Part]:
    """The platforms in a layout, at the top or in its one index, each with its attestations."""
    where = str(layout.path)
    try:
        for top in layout.entries():
            document = parse_manifest(layout.read(top.digest, MAX_MANIFEST_BYTES), top.media_type)
            entries = document.entries if isinstance(document, Index) else (top,)
            for entry in entries:
                if not entry.is_attestation:
                    image = _image_in(layout, repository.at(entry.digest), entry)
                    platform = entry.platform.normalised() if entry.platform else image.platform
                    _refuse_other_platform(platform, image, where)
                    yield _Part(
                        descriptor=replace(entry, platform=platform),
                        platform=platform,
                        image=image,
                        layout=layout,
                        attestations=tuple(one for one in entries if one.annotations.get(ATTESTED) == entry.digest),
                    )
    except BadDocument as error:
        raise Failed(f"not an image: {error.detail}", where=where) from None


def _refuse_other_platform(stated: Platform, image: Image, where: str) -> None:
    """An index can claim any platform for an image; nobody who pulls it would notice before it runs."""
    if (stated.os, stated.architecture) != (image.platform.os, image.platform.architecture):
        raise Failed(f"the image given for {stated} is one for {image.platform}", where=where)


def _image_in(layout: Layout, reference: Reference, entry: Descriptor) -> Image:
    documents = Documents()
    while any(wave := documents.needed([reference])):
        for one in wave[0]:
            body = layout.read(entry.digest, MAX_MANIFEST_BYTES)
            documents.put_manifest(one, Document(body=body, media_type=entry.media_type, digest=entry.digest))
        for one in wave[1]:
            assert one.digest, "configurations are named by digest"
            body = layout.read(one.digest, MAX_CONFIG_BYTES)
            documents.put_config(one, Document(body=body, media_type="", digest=one.digest))
    seen = documents.observation(reference)
    if not isinstance(seen, Published) or not seen.images:
        raise Failed("not an image", where=str(layout.path))
    return seen.images[0]


def _refuse_unfit(work: Work, parts: Sequence[_Part], base: Published | None, required: Sequence[Platform]) -> None:
    """A target is published whole, or not at all; and only on the base that it was planned for."""
    platforms = [part.platform for part in parts]
    if absent := [str(one) for one in required if one not in platforms]:
        raise Failed(
            f"{work.target.key} is not whole: {', '.join(absent)} was not built", remedy="Build it for all platforms."
        )
    if len(set(platforms)) != len(platforms):
        raise Failed(f"{work.target.key} has a platform twice: {', '.join(str(one) for one in platforms)}")
    built = Published(
        reference=work.reference,
        digest=Digest(""),
        media_type=OCI_INDEX,
        is_index=True,
        images=tuple(part.image for part in parts),
    )
    if base and (departures := _departures(built, base, work, required)):
        raise Failed(
            f"{work.target.key} was not built on {work.base}: {'; '.join(reason_texts(departures))}",
            remedy="Make a new plan and build again.",
        )


def _required(work: Work, base: Published | None) -> tuple[Platform, ...]:
    return work.target.required(base.platforms) if base else work.target.declared


def _departures(built: Published, base: Published, work: Work, required: Sequence[Platform]) -> list[Reason]:
    if not work.target.source.squashed:
        return layer_departures(built, base, on=required)
    try:
        return base_label_departure(built, base)
    except NotAsked:  # it was built where nobody writes the label
        return []


def move_latest(client: Client, pushed: Pushed) -> Literal["moved", "already"]:
    """Lets `latest` name what was pushed. `Failed` where that would be backwards, or somebody else has moved it meanwhile.

    `Unconfirmed` where the registry did not take it, or took it and did not say so: it is asked, and not told again.
    """
    work = pushed.work
    latest = work.target.tagged("latest")
    seen = look_at(client, [latest])[latest]
    match seen:
        case Unreachable(detail=detail):
            raise Failed(f"{latest} cannot be read before it is moved: {detail}", remedy=seen.reason.remedy)
        case Published(digest=digest):
            if digest == pushed.digest:
                return "already"
            if digest != pushed.latest_before:
                raise Failed(f"{latest} was moved by somebody else meanwhile", remedy="Make a new plan.")
            refuse_backwards(seen, work)
        case Missing() if pushed.latest_before:
            raise Failed(f"{latest} has gone meanwhile", remedy="Make a new plan.")
        case Missing():
            pass
    body, media_type = client.document(latest.repository.at(pushed.digest))
    try:
        client.put_manifest(latest, body, media_type)
    except Failed as error:
        raise _unconfirmed(error, look_at(client, [latest])[latest], pushed) from None
    back = look_at(client, [latest])[latest]
    if isinstance(back, Unreachable):
        said = f"{latest} cannot be read after it was moved: {back.detail}"
        raise Unconfirmed(said, remedy=back.reason.remedy, latest="unknown")
    if not isinstance(back, Published) or back.digest != pushed.digest:
        raise Failed(f"{latest} does not name {pushed.digest} after it was moved", remedy="Make a new plan.")
    return "moved"


def _unconfirmed(error: Failed, seen: Observation, pushed: Pushed) -> Unconfirmed:
    """What became of `latest`, whose move failed. seen: what it names now."""
    match seen:
        case Unreachable():
            return Unconfirmed(
                f"{error.reason}; nobody knows what {seen.reference} names now", remedy=error.remedy, latest="unknown"
            )
        case Published(digest=pushed.digest):
            return Unconfirmed(
                f"{error.reason}; {seen.reference} names the new image all the same",
                remedy="Run the checks again.",
                latest="moved",
            )
        case Published() | Missing():
            return Unconfirmed(error.reason, remedy=error.remedy, latest="not moved")


def refuse_backwards(newest: Published, work: Work) -> None:
    """`Failed` where `latest` names a newer version than the one that it should be moved to.

    Only images that say what they are can tell; with the scheme `opaque` today's version is the one the tool names.
    """
    scheme = work.target.source.version_scheme
    if scheme == "opaque":
        return
    for version in stated_versions(newest):
        order = compare(scheme, version, work.version)
        if order is None:
            raise Failed(
                f"{newest.reference} names version {version}; nobody can say whether {work.version} is newer",
                remedy=f"Set `version-scheme` in {work.target.source.folder}/tool.yaml.",
            )
        if order > 0:
            raise Failed(
                f"{newest.reference} names version {version}, newer than {work.version}: it does not go backwards",
                remedy="If the older version is right, remove the newer tag and `latest` in the registry.",
            )


def verify(
    root: Path, pushed: Sequence[Pushed], environ: Mapping[str, str], *, allowed: frozenset[reasons.Stale]
) -> dict[str, str]:
    """Runs the checks for what was pushed, with version and base frozen; target → what is wrong with it.

    allowed: reasons for being stale that are no objection yet.
    """
    if not pushed:
        return {}
    wait = 0 if all(is_loopback(one.work.target.repository.host) for one in pushed) else _VISIBLE_WITHIN
    chosen = [
        f"--wait={wait}",
        *(f"--target={one.work.target.key}" for one in pushed),
        *sorted({option for one in pushed for option in _frozen(one.work)}),
    ]
    with TemporaryDirectory(prefix="imagewright-verify-") as scratch:
        try:
            found, _ = suite.run(root, chosen, environ, Path(scratch))
        except BadReport as error:
            return {one.work.target.key: f"the checks could not be run on it: {error.reason}" for one in pushed}
    problems = {}
    for one in pushed:
        record = found.record(one.work.target.key)
        if record is None:
            problems[one.work.target.key] = "the checks gave no verdict about it"
        elif record.state is not State.FRESH and not all(reason.code in allowed for reason in record.reasons):
            why = "; ".join(reason_texts(record.reasons))
            problems[one.work.target.key] = f"the checks do not hold: {why}"
        elif record.digest != one.digest:
            problems[one.work.target.key] = f"{one.work.reference} names {record.digest} instead of {one.digest}"
    return problems


def _frozen(work: Work) -> Iterator[str]:
    """Options that hold version and base still for the checks."""
    if isinstance(work.target, Pair):
        yield f"--tool-version={work.target.tool.name}={work.version}"
    if work.target.base and work.base:
        yield f"--base-digest={work.target.base.name}={work.base.digest}"
