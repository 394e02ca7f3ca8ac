"""From documents to an observation: which documents a reference still needs, and what they amount to. Without I/O."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

from imagewright.documents import (
    ATTESTED,
    INDEX_TYPES,
    BadDocument,
    Config,
    Descriptor,
    Index,
    Manifest,
    parse_config,
    parse_manifest,
)
from imagewright.names import Digest, Platform, Reference, shown
from imagewright.reasons import Unknown
from imagewright.registry.answers import Absent, Document, Trouble
from imagewright.snapshot import Attestation, Gone, Image, Missing, Observation, Published, Unreachable

MAX_DEPTH = 3
MAX_DOCUMENTS = 400
"""Of one image. A few small indexes that name each other 64 times over would be 262,144 platforms."""


@dataclass(frozen=True, slots=True)
class Read:
    """An index or manifest whose bytes have this digest."""

    digest: Digest
    document: Index | Manifest


class _Hole(Exception):  # not an error: something that stops the reading of one reference
    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.detail)
        self.trouble = trouble


class Documents:
    """Documents by the reference they were asked by; each is kept once, parsed."""

    def __init__(self) -> None:
        self._manifests: dict[Reference, Read | Absent | Trouble] = {}
        self._configs: dict[Reference, Config | Absent | Trouble] = {}
        self._sizes: dict[Reference, int] = {}
        self._observed: dict[Reference, Observation] = {}

    def put_manifest(self, reference: Reference, answer: Document | Absent | Trouble) -> None:
        """Keeps what a registry answered to the question for a manifest."""
        self._observed.clear()
        if isinstance(answer, Document):
            self._sizes[reference] = len(answer.body)
            try:
                self._manifests[reference] = Read(answer.digest, parse_manifest(answer.body, answer.media_type))
            except BadDocument as error:
                self._manifests[reference] = Trouble(error.reason, error.detail)
        else:
            self._manifests[reference] = answer

    def put_config(self, reference: Reference, answer: Document | Absent | Trouble) -> None:
        """Keeps what a registry answered to the question for a configuration."""
        self._observed.clear()
        if isinstance(answer, Document):
            self._sizes[reference] = len(answer.body)
            try:
                self._configs[reference] = parse_config(answer.body)
            except BadDocument as error:
                self._configs[reference] = Trouble(error.reason, error.detail)
        else:
            self._configs[reference] = answer

    def __contains__(self, reference: Reference) -> bool:
        """Whether it has been asked for."""
        return reference in self._manifests

    def digest(self, reference: Reference) -> Digest | None:
        """The digest under a reference, if its manifest has been read."""
        read = self._manifests.get(reference)
        return read.digest if isinstance(read, Read) else None

    def needed(self, references: Iterable[Reference]) -> tuple[list[Reference], list[Reference]]:
        """The manifests and the configurations that can be asked for next, each once."""
        manifests: dict[Reference, None] = {}
        configs: dict[Reference, None] = {}
        for reference in references:
            for wanted, is_config in islice(self._under(reference, 0), MAX_DOCUMENTS):
                if wanted not in (self._configs if is_config else self._manifests):
                    (configs if is_config else manifests)[wanted] = None
        return list(manifests), list(configs)

    def _under(self, reference: Reference, depth: int) -> Iterator[tuple[Reference, bool]]:
        """A reference and every document under it, as far as they have been read; whether it is a configuration."""
        yield reference, False
        read = self._manifests.get(reference)
        if not isinstance(read, Read):
            return
        if isinstance(read.document, Manifest):
            if read.document.config:
                yield reference.repository.at(read.document.config.digest), True
        elif depth < MAX_DEPTH:
            for entry in read.document.entries:
                if not entry.is_attestation and not _is_ignored(entry):
                    yield from self._under(reference.repository.at(entry.digest), depth + 1)

    def forget(self, references: Iterable[Reference]) -> None:
        """Drops what some references were answered with, and every absence under them: it is asked for again."""
        self._observed.clear()
        for reference in references:
            for one, is_config in list(islice(self._under(reference, 0), MAX_DOCUMENTS)):
                if is_config and isinstance(self._configs.get(one), Absent):
                    del self._configs[one]
                elif not is_config and isinstance(self._manifests.get(one), Absent):
                    del self._manifests[one]
            self._manifests.pop(reference, None)

    def observation(self, reference: Reference) -> Observation:
        """What the documents under a reference amount to, once nothing of it is needed any more."""
        if reference not in self._observed:
            self._observed[reference] = self._observe(reference)
        return self._observed[reference]

    def _observe(self, reference: Reference) -> Observation:
        read = self._manifests[reference]
        match read:
            case Absent(code):
                return Missing(reference=reference, code=code)
            case Trouble(reason, detail):
                return Unreachable(reference=reference, reason=reason, detail=detail)
            case Read():
                try:
                    return self._published(reference, read)
                except _Hole as hole:
                    return Unreachable(reference=reference, reason=hole.trouble.reason, detail=hole.trouble.detail)

    def _published(self, reference: Reference, read: Read) -> Published:
        if next(islice(self._under(reference, 0), MAX_DOCUMENTS, None), None):
            raise _Hole(Trouble(Unknown.TOO_LARGE, f"it consists of more than {MAX_DOCUMENTS} documents"))
        warnings: list[str] = []
        parts = list(self._parts(reference, read, None, 0, warnings))
        index = read.document if isinstance(read.document, Index) else None
        return Published(
            reference=reference,
            digest=read.digest,
            media_type=read.document.media_type,
            is_index=index is not None,
            images=tuple(one for one in parts if isinstance(one, Image)),
            gone=tuple(one for one in parts if isinstance(one, Gone)),
            annotations=read.document.annotations,
            attestations=_attestations(index) if index else (),
            warnings=tuple(warnings),
        )

    def _parts(
        self, reference: Reference, read: Read, entry: Descriptor | None, depth: int, warnings: list[str]
    ) -> Iterator[Image | Gone]:
        if isinstance(read.document, Manifest):
            yield self._image(reference, read.digest, read.document, entry)
            return
        if depth >= MAX_DEPTH:
            raise _Hole(Trouble(Unknown.TOO_DEEP, f"indexes within indexes, deeper than {MAX_DEPTH}"))
        described = {one.digest for one in read.document.entries}
        for child in read.document.entries:
            if child.is_attestation:
                about = child.annotations.get(ATTESTED, "")
                if about not in described:
                    warnings.append(f"an attestation, {child.digest}, describes nothing in its index")
                continue
            if _is_ignored(child):
                warnings.append(f"an entry, {child.digest}, is ignored, for it is {shown(child.media_type)}")
                continue
            at = reference.repository.at(child.digest)
            match self._manifests[at]:
                case Read() as inner:
                    self._check_size(at, child, f"{_stated(child)}: ")
                    _check_kind(child, inner.document)
                    yield from self._parts(at, inner, child, depth + 1, warnings)
                case Absent():
                    yield Gone(platform=_stated(child), digest=child.digest)
                case Trouble(reason, detail):
                    raise _Hole(Trouble(reason, f"{_stated(child)}: {detail}"))

    def _image(
        self, reference: Reference, digest: Digest, manifest: Manifest, entry: Descriptor | None
    ) -> Image | Gone:
        where = f"{_stated(entry)}: " if entry and entry.platform else ""
        if manifest.config is None:
            raise _Hole(Trouble(Unknown.MALFORMED, f"{where}an artifact, not an image"))
        at = reference.repository.at(manifest.config.digest)
        match self._configs[at]:
            case Absent():
                return Gone(platform=_stated(entry), digest=digest)
            case Trouble(reason, detail):
                raise _Hole(Trouble(reason, f"{where}configuration: {detail}"))
            case config:
                self._check_size(at, manifest.config, f"{where}configuration: ")
                if config.diff_ids is None or len(config.diff_ids) != len(manifest.layers):
                    count = 0 if config.diff_ids is None else len(config.diff_ids)
                    detail = f"{where}{len(manifest.layers)} layers, but {count} diff ids"
                    raise _Hole(Trouble(Unknown.MALFORMED, detail))
                return Image(
                    platform=_stated(entry) if entry and entry.platform else config.platform.normalised(),
                    digest=digest,
                    config=manifest.config.digest,
                    layers=tuple(layer.digest for layer in manifest.layers),
                    diff_ids=config.diff_ids,
                    history=config.history,
                    labels=config.labels,
                    created=config.created,
                )

    def _check_size(self, reference: Reference, described: Descriptor, where: str) -> None:
        if self._sizes[reference] != described.size:
            detail = f"{where}{self._sizes[reference]} bytes, but its descriptor says {described.size}"
            raise _Hole(Trouble(Unknown.INTEGRITY, detail))


def _is_ignored(entry: Descriptor) -> bool:
    """Whether an entry of an index is left out. One that claims a platform is not: readers may or may not find it."""
    return entry.is_of_unknown_kind and entry.platform is None


def _check_kind(entry: Descriptor, document: Index | Manifest) -> None:
    """Clients read a child as what its entry calls it, and whoever reads it as something else sees another image.

    https://github.com/opencontainers/image-spec/security/advisories/GHSA-77vh-xpmg-72qh
    """
    if entry.is_of_unknown_kind or (entry.media_type in INDEX_TYPES) != isinstance(document, Index):
        detail = f"{_stated(entry)}: its entry calls it {shown(entry.media_type)}, it is {document.media_type}"
        raise _Hole(Trouble(Unknown.TYPE_CONFUSION, detail))


def _attestations(index: Index) -> tuple[Attestation, ...]:
    described = {one.digest: one.digest for one in index.entries}
    return tuple(
        Attestation(digest=one.digest, about=about)
        for one in index.entries
        if one.is_attestation and (about := described.get(Digest(one.annotations.get(ATTESTED, ""))))
    )


def _stated(entry: Descriptor | None) -> Platform:
    return entry.platform.normalised() if entry and entry.platform else Platform("unknown", "unknown")
