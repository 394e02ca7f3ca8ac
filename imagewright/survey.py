"""The survey: looks once at everything that the selected targets need, and at nothing else.

What a document names is asked for as soon as the document is read, and once, however many name it. What the documents
amount to is `resolve`'s to say.
"""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Self, TypeVar

from imagewright.cache import Cache
from imagewright.catalogue import Base, Catalogue, Pair, Target, Tool, refuse_collisions
from imagewright.errors import Unanswered
from imagewright.names import Digest, Reference, Repository, Tag, digest_of, parse_tag
from imagewright.reasons import Unknown
from imagewright.registry.answers import DENIED, NAME_UNKNOWN, Absent, Document, NotModified, Trouble
from imagewright.registry.client import Client
from imagewright.resolve import Documents
from imagewright.settings import Settings
from imagewright.snapshot import (
    BaseSeen,
    CanariesSeen,
    Missing,
    Observation,
    Pointer,
    PointerObservation,
    Published,
    Reading,
    Snapshot,
    TargetSeen,
    Unreachable,
)
from imagewright.tags import bases_in
from imagewright.versions import Readings

_WAIT_STEP = 2.0
_Listed = tuple[Tag, ...] | Absent | Trouble
_Seen = TypeVar("_Seen", Observation, PointerObservation)
_AT_ONCE = 8
_PERHAPS_CONDITIONS = frozenset({Unknown.AUTH, Unknown.UNEXPECTED_STATUS})
"""What may be said to `If-None-Match` and not to the plain question: a status that nobody expects, a repository denied."""


def list_bases(catalogue: Catalogue, client: Client) -> tuple[str, ...]:
    """The names of all bases: configured or discovered ones and our own, without the excluded. `Unanswered` if unknown."""
    bases = catalogue.settings.bases
    own = [name for name in catalogue.own_bases() if name not in bases.exclude]
    if not bases.discover:
        configured = [name for name in bases.names if name not in bases.exclude]
        return tuple(dict.fromkeys((*configured, *own)))
    match client.tags(bases.repository):
        case Trouble(reason, detail):
            raise Unanswered(f"the bases in {bases.repository} could not be listed: {detail}", remedy=reason.remedy)
        case Absent() if own and catalogue.settings.may_be_new(bases.repository):
            return tuple(own)
        case Absent(code):
            raise Unanswered(
                f"the bases in {bases.repository} could not be listed: the registry says {code}",
                remedy="Check `[tool.imagewright.bases] repository`, and that something is published there.",
            )
        case tags:
            found = sorted({*(name for name in bases_in(tags) if name not in bases.exclude), *own})
    if not found:
        raise Unanswered(
            f"{bases.repository} has {len(tags)} tags, and none of them is a base's (<base>-latest)",
            remedy="Check `[tool.imagewright.bases]`: repository, exclude.",
        )
    return tuple(found)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a survey is asked.

    base_digests: bases to look at by digest instead of by tag. wait: seconds to wait for what is not there yet. now:
    the time that the snapshot bears. nonce: makes a tag that cannot exist. last_good: target → reference that was fresh
    when it was last known.
    """

    catalogue: Catalogue
    base_names: Sequence[str]
    targets: Sequence[Target]
    base_digests: Mapping[str, Digest] = field(default_factory=dict)
    wait: float = 0
    now: str
    nonce: str
    last_good: Mapping[str, str] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        """The project's settings."""
        return self.catalogue.settings

    @property
    def repositories(self) -> tuple[Repository, ...]:
        """Where the targets are, each repository once."""
        return tuple(dict.fromkeys(target.repository for target in self.targets))

    @property
    def connections(self) -> int:
        """Requests at once."""
        return max((self.settings.host(one.host).connections for one in self.repositories), default=1)


def tools_of(targets: Iterable[Target]) -> tuple[Tool, ...]:
    """The tools of the pairs among some targets, each once, in order."""
    return tuple({one.tool.name: one.tool for one in targets if isinstance(one, Pair)}.values())


def version_of(target: Target, versions: Mapping[str, str | None]) -> str | None:
    """Today's version of a target, None where its tool's could not be read. versions: by tool."""
    return versions[target.tool.name] if isinstance(target, Pair) else target.image.version


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What is to be looked at. bases: by name. targets: by key, those whose version is known. latest: of each target.

    own_bases: the bases that are targets of this project, so that their absence means a build. read: the targets whose
    version a script said, and nobody else.
    """

    bases: Mapping[str, Reference]
    own_bases: frozenset[Reference]
    targets: Mapping[str, Reference]
    latest: Mapping[Reference, Reference]
    read: frozenset[Reference]

    def must_be_sure(self) -> list[Reference]:
        """What is not believed to be absent just because a registry says so once."""
        return [*self.targets.values(), *sorted(self.own_bases)]

    def watched(self) -> list[Repository]:
        """The repositories that are asked what is known: the targets', and one of each host where only bases are."""
        ours = dict.fromkeys(one.repository for one in self.must_be_sure())
        hosts = {one.host for one in ours}
        others = {
            one.repository.host: one.repository for one in self.bases.values() if one.repository.host not in hosts
        }
        return [*ours, *others.values()]


def survey(request: Request, readings: Readings, connect: Callable[[], Client], cache: Cache) -> Snapshot:
    """Looks at bases and targets and returns what was seen.

    connect: makes a client; the second look has one of its own, so fresh connections. cache: what need not be asked for.
    `BadCatalogue` where two targets claim one tag once versions are known; then no target was asked for.
    """
    tools = tools_of(request.targets)
    readings.start(tools)
    bases = {one.base.name: _base_reference(one.base, request.base_digests) for one in request.targets if one.base}
    with ExitStack() as clients:
        used: list[Client] = []

        def client() -> Client:
            used.append(clients.enter_context(connect()))
            return used[-1]

        look = _Look(client(), request.connections, cache)
        if not readings.all_known():
            look.at(bases.values())
        known = readings.results(tools)
        versions = {one.tool: one.version for one in known}
        wanted = _wanted(request, known, bases)
        look, listed, canaries = _looked(request, wanted, look, client)
        if look.conditions_fail:
            plain = _Look(client(), request.connections, None)
            look, listed, canaries = _looked(request, wanted, plain, client)
        hosts = {seen.host: seen for client in used for seen in client.hosts()}
    trust = {one: _trust(one, request, listed.get(one)) for one in dict.fromkeys(_repositories(wanted))}
    return Snapshot(
        catalogue=request.catalogue.hash,
        taken=request.now,
        base_names=tuple(request.base_names),
        readings=known,
        bases=tuple(
            BaseSeen(name=name, observation=_base_seen(reference, wanted, look, trust))
            for name, reference in bases.items()
        ),
        targets=tuple(
            _target_seen(one, version_of(one, versions), wanted.targets.get(one.key), look, trust)
            for one in request.targets
        ),
        canaries=canaries,
        hosts=tuple(hosts.values()),
    )


def _looked(
    request: Request, wanted: _Wanted, look: "_Look", client: Callable[[], Client]
) -> "tuple[_Look, Mapping[Repository, _Listed], tuple[CanariesSeen, ...]]":
    """Looks at everything, and twice at what seems to be absent. client: makes another one."""
    _first_look(request, wanted, look)
    listed: Mapping[Repository, _Listed] = {}
    if doubtful := look.doubtful(wanted.must_be_sure(), wanted.latest):
        time.sleep(max(request.settings.second_look(one.repository.host) for one in doubtful))
        look = look.through(client())
        listed = _second_look(wanted, look, doubtful)
    return look, listed, _last_look(request, wanted, look)


def _repositories(wanted: _Wanted) -> Iterator[Repository]:
    return (one.repository for one in wanted.must_be_sure())


def _wanted(request: Request, known: Iterable[Reading], bases: Mapping[str, Reference]) -> _Wanted:
    versions = {one.tool: one.version for one in known}
    said = {one.tool for one in known if one.via != "given"}
    dated = [(one, version_of(one, versions)) for one in request.targets]
    refuse_collisions((one, version or "latest") for one, version in dated)
    own = {bases[one.base.name] for one in request.targets if one.base and request.catalogue.waits_for(one)}
    return _Wanted(
        bases=bases,
        own_bases=frozenset(one for one in own if not one.digest),
        targets={one.key: one.tagged(version) for one, version in dated if version},
        latest={one.tagged(version): one.tagged("latest") for one, version in dated if version},
        read=frozenset(
            one.tagged(version) for one, version in dated if version and isinstance(one, Pair) and one.tool.name in said
        ),
    )


def _first_look(request: Request, wanted: _Wanted, look: "_Look") -> None:
    """Looks at everything, and again while something is not there yet and there is time."""
    canaries = [_impossible(one, request.nonce) for one in wanted.watched()]
    look.at([*wanted.bases.values(), *wanted.targets.values()], wanted.latest, canaries=canaries)
    deadline = time.monotonic() + request.wait
    while (doubtful := look.doubtful(wanted.targets.values())) and time.monotonic() < deadline:
        time.sleep(min(_WAIT_STEP, max(deadline - time.monotonic(), 0)))
        look.again(doubtful, wanted.latest)


def _second_look(wanted: _Wanted, look: "_Look", doubtful: Sequence[Reference]) -> "Mapping[Repository, _Listed]":
    """Asks again for what is absent, and lists the tags of the repositories where that is."""
    look.again(doubtful, wanted.latest)
    return {one: look.tags(one) for one in dict.fromkeys(reference.repository for reference in doubtful)}


def _last_look(request: Request, wanted: _Wanted, look: "_Look") -> tuple[CanariesSeen, ...]:
    """Looks at what `latest` names where that may be newer, and then asks what vouches for all answers before."""
    look.at(wanted.latest[one] for one in wanted.targets.values() if one in wanted.read and look.is_other(one, wanted))
    watched = wanted.watched()
    opening = {one: _impossible(one, request.nonce) for one in watched}
    closing = {one: _impossible(one, f"{request.nonce}-2") for one in watched}
    neighbours = {one: look.anything_on(one.host, wanted) for one in watched}
    look.at((), canaries=[*closing.values(), *dict.fromkeys(one for one in neighbours.values() if one)])
    seen = []
    for one in watched:
        neighbour = neighbours[one]
        failures = [look.canary_failed(canary, must_be_absent=True) for canary in (opening[one], closing[one])]
        failures += [look.canary_failed(neighbour, must_be_absent=False)] if neighbour else []
        seen.append(CanariesSeen(repository=one, failed=next((why for why in failures if why), "")))
    return tuple(seen)


def _impossible(repository: Repository, nonce: str) -> Reference:
    """A tag that nobody can have published."""
    return repository.tagged(parse_tag(f"imagewright-canary-{nonce}"))


def look_at(client: Client, references: Iterable[Reference]) -> dict[Reference, Observation]:
    """What is published under some references, now, without a second look."""
    chosen = tuple(references)
    look = _Look(client, _AT_ONCE, Cache())
    look.at(chosen)
    return {one: look.documents.observation(one) for one in chosen}


def _base_reference(base: Base, digests: Mapping[str, Digest]) -> Reference:
    frozen = digests.get(base.name)
    return base.reference.repository.at(frozen) if frozen else base.reference


_Question = Callable[[Reference], object]
_Told = Callable[..., object]


class _Crew:
    """Threads that ask, and one queue of what came of it. Unlike those of `concurrent.futures` they do not outlive an
    interruption: who presses Ctrl-C does not want to wait until a silent registry's time is up.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._threads: list[threading.Thread] = []
        self._work: queue.SimpleQueue[tuple[_Question, Reference, _Told] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[tuple[_Told, Reference, object]] = queue.SimpleQueue()
        self._under_way = 0

    def ask(self, ask: _Question, reference: Reference, then: _Told) -> None:
        """Has a thread ask, once one is free; `then` is told by `settle`."""
        self._under_way += 1
        self._work.put((ask, reference, then))
        if len(self._threads) < min(self._size, self._under_way):
            thread = threading.Thread(target=self._run, name=f"survey-{len(self._threads)}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def settle(self) -> None:
        """Hands on all answers, in this thread, also those to questions that are asked meanwhile."""
        while self._under_way:
            then, reference, answer = self._done.get()
            self._under_way -= 1
            if isinstance(answer, BaseException):
                raise answer
            then(reference, answer)

    def _run(self) -> None:
        while work := self._work.get():
            ask, reference, then = work
            answer: object
            try:
                answer = ask(reference)
            except BaseException as error:  # noqa: BLE001 - whatever it is, it belongs to who asked
                answer = error
            self._done.put((then, reference, answer))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for _thread in self._threads:
            self._work.put(None)
        if kind is None:
            for thread in self._threads:
                thread.join()


class _Look:
    """Documents, `latest` tags and canaries seen so far; what is asked through one client adds to them.

    cache: what need not be asked for. None: nothing is, and everything is asked for as it is, without `If-None-Match`.
    """

    def __init__(self, client: Client, connections: int, cache: Cache | None) -> None:
        self._client = client
        self._connections = connections
        self._is_plain = cache is None
        self._cache = cache or Cache()
        self.documents = Documents()
        self.pointers: dict[Reference, PointerObservation] = {}
        self._canaries: dict[Reference, Document | NotModified | Absent | Trouble] = {}

    def through(self, client: Client) -> "_Look":
        """The same documents, added to through another client."""
        other = _Look(client, self._connections, None if self._is_plain else self._cache)
        other.documents, other.pointers, other._canaries = self.documents, self.pointers, self._canaries
        return other

    def at(
        self,
        references: Iterable[Reference],
        latest: Mapping[Reference, Reference] | None = None,
        canaries: Iterable[Reference] = (),
    ) -> None:
        """Fetches all that is not here yet of the documents under `references`, down to the configurations.

        latest: reference → the tag that should name the same digest, asked for once the digest is known.
        """
        roots = list(dict.fromkeys(references))
        known = self._recall(roots)  # before there are threads: each look into the cache would let them go first
        with _Crew(self._connections) as crew:
            for canary in canaries:
                unless = digest_of(b"what nobody has") if canary.digest and not self._is_plain else None
                crew.ask(partial(self._client.manifest, unless=unless), canary, self._canaries.__setitem__)
            self._follow_down(crew, roots, known, latest or {})
            crew.settle()

    def _recall(self, roots: Iterable[Reference]) -> dict[Reference, Document]:
        """What tags named when they were last asked for. What these documents need is taken from the cache as well."""
        known: dict[Reference, Document] = {}
        for root in roots:
            if root not in self.documents and (found := self._cache.recall(root)):
                at = root.repository.at(found.digest)
                self.documents.put_manifest(at, found)
                self._lacking(at)
                if not root.digest:
                    known[root] = found
        return known

    def _lacking(self, root: Reference) -> tuple[list[Reference], list[Reference]]:
        """The manifests and configurations to ask for next: all that the cache has of what is needed is taken from there."""
        while True:
            manifests, configs = self.documents.needed([root])
            there = False
            for one in manifests:
                if found := self._cache.document(one, "manifests"):
                    self.documents.put_manifest(one, found)
                    there = True
            for one in configs:
                if found := self._cache.document(one, "blobs"):
                    self.documents.put_config(one, found)
                    there = True
            if not there:
                return manifests, configs

    def _follow_down(
        self,
        crew: _Crew,
        roots: Iterable[Reference],
        known: Mapping[Reference, Document],
        latest: Mapping[Reference, Reference],
    ) -> None:
        """Asks for some references, and for what they turn out to need as soon as that is known."""
        waiting: dict[Reference, dict[Reference, None]] = {}

        def want(root: Reference) -> None:
            manifests, configs = self._lacking(root)
            for one in manifests:
                ask(one, root, partial(self._fetch_manifest, known=known.get(one)), keep_manifest)
            for one in configs:
                ask(one, root, self._fetch_config, keep_config)

        def ask(one: Reference, root: Reference, how: _Question, then: _Told) -> None:
            if one not in waiting:
                waiting[one] = {}
                crew.ask(how, one, then)
            waiting[one][root] = None

        def keep_manifest(reference: Reference, answer: Document | Absent | Trouble) -> None:
            self.documents.put_manifest(reference, answer)
            if isinstance(answer, Document):
                self._cache.keep(reference, "manifests", answer, is_new=answer is not known.get(reference))
            elif isinstance(answer, Absent):
                self._cache.lose(reference, "manifests")
            tag, digest = latest.get(reference), self.documents.digest(reference)
            if tag and digest:
                crew.ask(partial(self._follow, digest=digest), tag, self.pointers.__setitem__)
            again(reference)

        def keep_config(reference: Reference, answer: Document | Absent | Trouble) -> None:
            self.documents.put_config(reference, answer)
            if isinstance(answer, Document):
                self._cache.keep(reference, "blobs", answer)
            elif isinstance(answer, Absent):
                self._cache.lose(reference, "blobs")
            again(reference)

        def again(reference: Reference) -> None:
            for root in waiting.pop(reference):
                want(root)

        for root in roots:
            want(root)

    def tags(self, repository: Repository) -> _Listed:
        """The tags of a repository."""
        return self._client.tags(repository)

    def again(self, references: Sequence[Reference], latest: Mapping[Reference, Reference]) -> None:
        """Fetches what is under `references` once more, and whatever was absent before."""
        self.documents.forget(references)
        self.at(references, latest)

    def doubtful(
        self, references: Iterable[Reference], latest: Mapping[Reference, Reference] | None = None
    ) -> list[Reference]:
        """The references under which something is absent, or whose `latest` is."""
        seen = [(one, self.documents.observation(one)) for one in references]
        lacking = {one for one, what in self.pointers.items() if isinstance(what, Missing)}
        return [
            one
            for one, what in seen
            if isinstance(what, Missing)
            or (isinstance(what, Published) and (what.gone or (latest or {}).get(one) in lacking))
        ]

    def is_other(self, reference: Reference, wanted: _Wanted) -> bool:
        """Whether `latest` may name another image than this one: this one is absent, or it does."""
        if isinstance(self.documents.observation(reference), Missing):
            return True
        names = self.pointers.get(wanted.latest[reference])
        return isinstance(names, Pointer) and names.digest != self.documents.digest(reference)

    def anything_on(self, host: str, wanted: _Wanted) -> Reference | None:
        """Something on a host that has been read, by its digest."""
        for one in (*wanted.bases.values(), *wanted.targets.values()):
            if one.repository.host == host and (digest := self.documents.digest(one)):
                return one.repository.at(digest)
        return None

    @property
    def conditions_fail(self) -> bool:
        """Whether a registry says of what it has that it is something else, unmodified, or cannot be asked so."""
        asked = [answer for one, answer in self._canaries.items() if one.digest]
        return not self._is_plain and any(
            isinstance(one, NotModified) or (isinstance(one, Trouble) and one.reason is Unknown.UNEXPECTED_STATUS)
            for one in asked
        )

    def canary_failed(self, reference: Reference, *, must_be_absent: bool) -> str | None:
        """Why a canary did not hold, None where it did or was not sent."""
        match self._canaries.get(reference):
            case Document() | NotModified() if must_be_absent:
                return f"it has {reference}, which cannot exist"
            case Absent() if not must_be_absent:
                return f"it has lost {reference}, which it had a moment ago"
            case Trouble(_, detail):
                return f"asked for {reference}: {detail}"
            case _:
                return None

    def _fetch_manifest(self, reference: Reference, *, known: Document | None) -> Document | Absent | Trouble:
        """What is under a reference; `known` itself, where a tag still names it."""
        if known:
            match self._client.manifest(reference, unless=known.digest):
                case NotModified():
                    return known
                case Document() | Absent() as changed:
                    return changed
                case Trouble(reason) as trouble if reason not in _PERHAPS_CONDITIONS:
                    return trouble
                case Trouble():
                    pass
        answer = self._client.manifest(reference)
        assert not isinstance(answer, NotModified), "no digest was sent along"
        return answer

    def _fetch_config(self, reference: Reference) -> Document | Absent | Trouble:
        assert reference.digest, "configurations are named by digest"
        return self._client.config(reference.repository, reference.digest)

    def _follow(self, tag: Reference, *, digest: Digest) -> PointerObservation:
        match self._client.manifest(tag, unless=None if self._is_plain else digest):
            case NotModified() | Document() as same_or_other:
                return Pointer(reference=tag, digest=same_or_other.digest)
            case Absent(code):
                return Missing(reference=tag, code=code)
            case Trouble(reason, detail):
                return Unreachable(reference=tag, reason=reason, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Trust:
    """What it takes to believe that something is missing in a repository.

    bootstrap: it may not exist yet. was_full: it had images when it was last looked at. listed: its tags, or why they
    could not be read; None where nobody had to ask.
    """

    bootstrap: bool
    was_full: bool
    listed: frozenset[Tag] | Absent | Trouble | None

    def believe(self, seen: _Seen) -> _Seen | Unreachable:
        """What was seen, or `Unreachable` where an absence is not proved."""
        if not isinstance(seen, Missing) or not (wrong := self._against_absence(seen)):
            return seen
        reason, detail = wrong
        return Unreachable(reference=seen.reference, reason=reason, detail=detail)

    def _against_absence(self, seen: Missing) -> tuple[Unknown, str] | None:
        repository = seen.reference.repository
        match self.listed:
            case Trouble(reason, detail):
                return reason, f"the tags of {repository} could not be listed: {detail}"
            case frozenset() as tags if seen.reference.to in tags:
                return Unknown.LISTED_BUT_MISSING, f"{repository} lists the tag and answers {seen.code} for it"
            case frozenset() as tags if tags and seen.code == DENIED:
                return Unknown.AUTH, f"{repository} is there, as it lists its tags, and denies this one"
        if self.listed and not isinstance(self.listed, Absent) and seen.code != NAME_UNKNOWN:
            return None
        if self.was_full:
            return Unknown.REPOSITORY_VANISHED, f"{repository} had images and is unknown there now, or empty"
        if not self.bootstrap:
            return Unknown.REPOSITORY_UNKNOWN, f"{repository} is unknown there, or empty"
        return None

    def listed_before(self, tag: Reference) -> bool | None:
        """Whether the repository lists a tag; None where its list was not read."""
        return tag.to in self.listed if isinstance(self.listed, frozenset) else None


def _trust(repository: Repository, request: Request, listed: _Listed | None) -> _Trust:
    return _Trust(
        bootstrap=request.settings.may_be_new(repository),
        was_full=any(one.startswith((f"{repository}:", f"{repository}@")) for one in request.last_good.values()),
        listed=frozenset(listed) if isinstance(listed, tuple) else listed,
    )


def _base_seen(reference: Reference, wanted: _Wanted, look: _Look, trust: Mapping[Repository, _Trust]) -> Observation:
    seen = look.documents.observation(reference)
    return trust[reference.repository].believe(seen) if reference in wanted.own_bases else seen


def _target_seen(
    target: Target, version: str | None, reference: Reference | None, look: _Look, trust: Mapping[Repository, _Trust]
) -> TargetSeen:
    latest = target.tagged("latest")
    believed = trust.get(target.repository)
    names = look.pointers.get(latest) if reference else None
    return TargetSeen(
        target=target.key,
        tool=target.tool.name if isinstance(target, Pair) else "",
        base=target.base.name if target.base else "",
        version=version,
        observation=believed.believe(look.documents.observation(reference)) if reference and believed else None,
        latest=believed.believe(names) if names and believed else None,
        newest=believed.believe(look.documents.observation(latest)) if believed and latest in look.documents else None,
        listed_before=believed.listed_before(latest) if believed else None,
    )
