"""The registry client: oras, guarded. The only file that imports oras.

oras does the talking, through one overridden method; everything it leaves open is closed here: limits, retries, one
token per repository, digests, typed answers. `tests/test_oras_contract.py` holds the quirks that this stands on.
"""

import math
import os
import random
import re
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import oras.auth.base
import oras.provider
import requests
import urllib3.exceptions

from imagewright.documents import (
    ACCEPT,
    MAX_CONFIG_BYTES,
    MAX_MANIFEST_BYTES,
    MAX_TAG_PAGE_BYTES,
    BadDocument,
    parse_tags,
)
from imagewright.errors import Failed
from imagewright.names import (
    BadName,
    Digest,
    Reference,
    Repository,
    Tag,
    digest_algorithm,
    digest_of,
    is_loopback,
    parse_tag,
    shown,
)
from imagewright.reasons import Unknown
from imagewright.registry import answers
from imagewright.registry.answers import RETRIES, Absent, Answer, Document, NotModified, Trouble
from imagewright.registry.auth import DOCKER_HUB, Credentials, Tokens
from imagewright.registry.transport import (
    MAX_HOPS,
    Arrival,
    GuardedSession,
    HashedFile,
    Interrupted,
    read_body,
    redirect_target,
    trouble_of,
    without_authorization,
)
from imagewright.settings import Settings, Surroundings
from imagewright.snapshot import HostSeen

_MAX_PAGES = 1_000
_MAX_TAGS = 1_000_000
_BREAKER_IN_A_ROW = 5
_BREAKER_COUNT = 20
_BREAKER_SHARE = 0.05
_BURST = 500
_SLOWEST = 5
"""Requests a second to a host that says that it is too much: with fewer a run would not end, whatever it found out."""
_SAFE = frozenset({"GET", "HEAD"})
_RETRY_AFTER_AT_MOST = 30.0
_REPOSITORY_PATH = re.compile(r"/v2/(.+)/(?:manifests|blobs|tags|referrers)/")
_TRANSFER_SECONDS = 1800.0


class _Refused(Exception):
    """A 401 or 403, handed back before oras answers it with whatever credential it has."""

    def __init__(self, response: requests.Response) -> None:
        super().__init__(response.status_code)
        self.response = response


class _NoCredentials(oras.auth.base.AuthBackend):  # type: ignore[misc]
    """In place of oras' authentication, which holds one token for every host and repository."""

    def authenticate_request(
        self, original: requests.Response, headers: dict[str, str], refresh: bool = False
    ) -> tuple[dict[str, str], bool]:
        raise _Refused(original)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asking:
    """A request as oras makes it, before anybody knows who asks."""

    method: str
    url: str
    headers: dict[str, str]
    data: Any
    json: Any


class Registry(oras.provider.Registry):  # type: ignore[misc]
    """One registry host. host: as in references. Every request of oras passes `do_request`.

    until: when, on the monotonic clock, nothing is asked any more.
    """

    def __init__(
        self,
        host: str,
        settings: Settings,
        surroundings: Surroundings,
        credentials: Credentials,
        until: float = math.inf,
    ) -> None:
        self._name = host
        self._host = "registry-1.docker.io" if host == DOCKER_HUB else host
        self._settings = settings.host(host)
        self._limits = settings.limits
        plain = self._settings.plain_http or is_loopback(host)
        super().__init__(hostname=self._host, insecure=plain, tls_verify=True)
        self.session = GuardedSession(settings.limits, surroundings, self._settings.connections)
        self._tls_verify = surroundings.ca_bundle or True
        self.auth = _NoCredentials()
        self.auth.session = self.session
        self._credentials = credentials
        self._tokens = Tokens(self._host, self._settings, credentials, self._fetch_token)
        self._breaker = _Breaker()
        self._noted = threading.Lock()
        self._questions = 0
        self._troubles: list[Trouble] = []
        self._pace = Pace(math.inf if is_loopback(host) else self._settings.per_second)
        self._until = until

    def do_request(  # noqa: PLR0917 - as oras calls it
        self,
        url: str,
        method: str = "GET",
        data: dict[str, Any] | bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
        json: dict[str, Any] | None = None,
        stream: bool = False,
        *,
        limit: int = MAX_MANIFEST_BYTES,
        seconds: float | None = None,
        into: HashedFile | None = None,
    ) -> requests.Response:
        """A request with its retries, whose body has been read. Raises `Interrupted` where there is no answer.

        limit: bytes of the body of a 200. seconds: for everything together, the settings' total by default. into: where
        the body of a 200 goes instead of memory.
        """
        if _origin(url) != (self.prefix, self._host):
            raise Interrupted(Trouble(Unknown.REDIRECT, f"{shown(url)} is not on {self._host}"))
        asking = _Asking(method=method, url=url, headers=dict(headers or {}), data=data, json=json)
        self._await_turn(self._until)
        arrival = Arrival(limit, min(time.monotonic() + (seconds or self._limits.total), self._until), into)
        attempt = 0
        while True:
            if attempt:
                self._await_turn(arrival.deadline)
            if self._breaker.is_open:
                raise Interrupted(Trouble(Unknown.HOST_DOWN, f"{self._host} failed too often"))
            if time.monotonic() > self._until:
                raise Interrupted(_RUN_IS_OVER)
            try:
                response = self._authorized(asking, arrival)
                trouble = _worth_retrying(response)
            except Interrupted as error:
                response, trouble = None, error.trouble
            if trouble is None and response is not None:
                self._breaker.succeeded()
                return response
            assert trouble is not None
            pause = trouble.retry_after or min(0.5 * 2**attempt, 10) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            attempt += 1
            if response is not None and response.status_code == 429:
                self._pace.slow_down(time.monotonic(), min(pause, _RETRY_AFTER_AT_MOST))
            if (
                method not in _SAFE
                or attempt > RETRIES.get(trouble.reason, 0)
                or pause > _RETRY_AFTER_AT_MOST
                or time.monotonic() + pause > arrival.deadline
            ):
                self._breaker.ended(trouble)
                if response is not None:
                    return response
                raise Interrupted(trouble)
            self._breaker.pause(pause)

    def _await_turn(self, until: float) -> None:
        """Waits until the host may be asked again, as far as there is time."""
        if pause := self._pace.wait(time.monotonic()):
            time.sleep(max(min(pause, until - time.monotonic()), 0))

    def _authorized(self, asking: _Asking, arrival: Arrival) -> requests.Response:
        """One request, with the authorization that its repository needs."""
        matched = _REPOSITORY_PATH.search(urlsplit(asking.url).path)
        repository = matched[1] if matched else ""
        actions = "pull" if asking.method in _SAFE else "pull,push"
        if not repository:
            return self._sent(asking, arrival, None)
        authorization = self._tokens.known(repository, actions, arrival.deadline)
        response = self._sent(asking, arrival, authorization)
        if response.status_code == 401:
            challenge = response.headers.get("WWW-Authenticate", "")
            sent = authorization if isinstance(authorization, str) else None
            authorization = self._tokens.renew(challenge, repository, actions, sent, arrival.deadline)
            response = self._sent(asking, arrival, authorization)
        if response.status_code == 403 and isinstance(authorization, str):
            another = self._tokens.another(repository, actions, authorization, arrival.deadline)
            response = self._sent(asking, arrival, another) if another else response
        return response

    def _sent(self, asking: _Asking, arrival: Arrival, authorization: str | Trouble | None) -> requests.Response:
        """One request, redirects followed by hand, its body read."""
        if isinstance(authorization, Trouble):
            raise Interrupted(authorization)
        if hasattr(asking.data, "seek"):
            asking.data.seek(0)  # a request that was refused has read it
        url = asking.url
        headers = asking.headers | ({"Authorization": authorization} if authorization else {})
        try:
            for _ in range(MAX_HOPS + 1):
                response = self._exchanged(asking, url, headers)
                if response.status_code not in (301, 302, 303, 307, 308) or asking.method not in _SAFE:
                    response._content = arrival.body(response)  # noqa: SLF001 - read with our own limits
                    return response
                response.close()
                target = redirect_target(response, self._host)
                if urlsplit(target).netloc != urlsplit(url).netloc:
                    headers = without_authorization(headers)
                url = target
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            raise Interrupted(trouble_of(error, self._limits)) from None
        except (ConnectionError, TimeoutError) as error:  # urllib3 lets the socket's own errors through while reading
            silent = isinstance(error, TimeoutError)
            raise Interrupted(
                Trouble(Unknown.TIMEOUT, f"silent for {self._limits.read:g} s")
                if silent
                else Trouble(Unknown.NETWORK, "the connection broke")
            ) from None
        raise Interrupted(Trouble(Unknown.REDIRECT, f"redirected more than {MAX_HOPS} times"))

    def _exchanged(self, asking: _Asking, url: str, headers: Mapping[str, str]) -> requests.Response:
        """One request and the head of its answer, whatever its status."""
        try:
            return _undecorated(
                self, url, method=asking.method, data=asking.data, headers=dict(headers), json=asking.json, stream=True
            )
        except _Refused as refused:
            return refused.response

    def _fetch_token(self, url: str, headers: Mapping[str, str], deadline: float) -> Answer | Trouble:
        try:
            response = self.session.request("GET", url, headers=dict(headers))
            response._content = read_body(response, answers.MAX_ERROR_BYTES, deadline)  # noqa: SLF001 - as above
        except Interrupted as error:
            return error.trouble
        except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
            return trouble_of(error, self._limits)
        return _answer(response)

    def url(self, repository: str, rest: str) -> str:
        """The URL of something in a repository of this host."""
        name = f"library/{repository}" if self._host == "registry-1.docker.io" and "/" not in repository else repository
        return f"{self.prefix}://{self._host}/v2/{name}/{rest}"

    def has_login(self, repository: str) -> bool:
        """Whether there is a credential that would be sent for a repository."""
        return not self._settings.anonymous and self._credentials.basic(self._host, repository) is not None

    def note(self, meaning: object) -> None:
        """Counts a question, and why it was left open if it was."""
        with self._noted:
            self._questions += 1
            if isinstance(meaning, Trouble):
                self._troubles.append(meaning)

    @property
    def questions(self) -> int:
        """How many there were so far."""
        with self._noted:
            return self._questions

    def seen(self) -> HostSeen | None:
        """What questions were left open and why; None where all were answered."""
        with self._noted:
            if not self._troubles:
                return None
            causes = [one for one in self._troubles if one.reason is not Unknown.HOST_DOWN] or self._troubles
            (reason, detail), _ = Counter((one.reason, one.detail) for one in causes).most_common(1)[0]
            return HostSeen(
                host=self._name,
                asked=self._questions,
                unanswered=len(self._troubles),
                reason=reason,
                detail=detail,
                retry_after=max((one.retry_after for one in self._troubles if one.retry_after), default=None),
            )

    def close(self) -> None:
        """Lets go of the connections."""
        self.session.close()


def _origin(url: str) -> tuple[str, str]:
    """Scheme and `host[:port]`."""
    return urlsplit(url)[:2]


_RUN_IS_OVER = Trouble(Unknown.TIMEOUT, "the time for the whole run is over")


class Pace:
    """When a host may be asked: so many times a second, after a burst, and slower once it has said that this is too much.
    Pure but for what it remembers. per_second: `inf` until then. Times are in seconds, on the monotonic clock.
    """

    def __init__(self, per_second: float) -> None:
        self._interval = 1 / per_second
        self._ahead = _BURST * self._interval
        self._due = float("-inf")
        self._asked = 0
        self._since = self._calm = float("-inf")
        self._lock = threading.Lock()

    def wait(self, now: float) -> float:
        """Seconds to wait before the next request, which this call takes."""
        with self._lock:
            if self._asked == 0:
                self._since = now
            self._asked += 1
            self._due = max(self._due, now) + self._interval
            return max(self._due - self._ahead - now, 0)

    def slow_down(self, now: float, pause: float) -> None:
        """After a 429: nothing before the pause is over, then half as much as before, at least five a second.

        What was under way meanwhile says no more than the first.
        """
        with self._lock:
            if now < self._calm:
                return
            rate = self._asked / max(now - self._since, 1) if self._interval == 0 else 1 / self._interval
            self._interval = 1 / max(rate / 2, _SLOWEST)
            self._ahead = self._interval
            self._due = now + pause
            self._calm = now + pause + 1


class _Breaker:
    """Whether a host failed so often that its other targets are not worth a request each."""

    def __init__(self) -> None:
        self._requests = self._failures = self._in_a_row = 0
        self._lock = threading.Lock()
        self._opened = threading.Event()

    @property
    def is_open(self) -> bool:
        """Whether nothing is to be asked any more."""
        return self._opened.is_set()

    def pause(self, seconds: float) -> None:
        """Waits, but not for a host that others find to be down meanwhile."""
        self._opened.wait(seconds)

    def succeeded(self) -> None:
        """Counts a request that was answered."""
        with self._lock:
            self._requests += 1
            self._in_a_row = 0

    def ended(self, trouble: Trouble) -> None:
        """Counts a request that came to no answer, after its retries."""
        with self._lock:
            self._requests += 1
            if trouble.reason in (Unknown.REGISTRY_UNAVAILABLE, Unknown.NETWORK, Unknown.TIMEOUT):
                self._failures += 1
                self._in_a_row += 1
                many = self._failures >= _BREAKER_COUNT and self._failures > _BREAKER_SHARE * self._requests
                if many or self._in_a_row >= _BREAKER_IN_A_ROW:
                    self._opened.set()


_undecorated: Callable[..., requests.Response] = oras.provider.Registry.do_request.__wrapped__
"""Without the decorator that sleeps 131 s on any error and repeats POST."""


def _worth_retrying(response: requests.Response) -> Trouble | None:
    if response.status_code not in answers.UNAVAILABLE:
        return None
    return answers.refusal(_answer(response))


def _answer(response: requests.Response) -> Answer:
    return Answer(
        status=response.status_code,
        headers={name.lower(): value for name, value in response.headers.items()},
        body=response.content,
    )


class Client:
    """All registries of a run. Reading returns typed answers and raises nothing; writing raises `Failed`.

    until: when, on the monotonic clock, nothing is asked any more.
    """

    def __init__(self, settings: Settings, surroundings: Surroundings, until: float = math.inf) -> None:
        self._settings = settings
        self._surroundings = surroundings
        self._credentials = Credentials(surroundings)
        self._registries: dict[str, Registry] = {}
        self._until = until
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for registry in self._registries.values():
            registry.close()

    def _registry(self, host: str) -> Registry:
        with self._lock:
            if host not in self._registries:
                registry = Registry(host, self._settings, self._surroundings, self._credentials, self._until)
                self._registries[host] = registry
            return self._registries[host]

    def manifest(
        self, reference: Reference, *, unless: Digest | None = None
    ) -> Document | NotModified | Absent | Trouble:
        """The index or manifest under a reference. unless: a digest; `NotModified` where the tag still names it."""
        registry = self._registry(reference.repository.host)
        url = registry.url(reference.repository.name, f"manifests/{reference.to}")
        missing_codes = self._settings.host(reference.repository.host).missing_codes

        def judge(answer: Answer) -> Document | NotModified | Absent | Trouble:
            if unless and answer.status == 304:
                return NotModified(unless)
            return answers.content(answer, reference.digest, missing_codes)

        headers = {"Accept": ACCEPT} | ({"If-None-Match": f'"{unless}"'} if unless else {})
        meaning: Document | NotModified | Absent | Trouble = _asked(registry, url, judge, MAX_MANIFEST_BYTES, headers)
        if reference.digest is None and unless is None and self._may_be_unborn(reference.repository, meaning):
            return Absent(answers.DENIED)
        return meaning

    def config(self, repository: Repository, digest: Digest) -> Document | Absent | Trouble:
        """An image configuration by its digest."""
        registry = self._registry(repository.host)
        url = registry.url(repository.name, f"blobs/{digest}")

        def judge(answer: Answer) -> Document | Absent | Trouble:
            return answers.content(answer, digest, (answers.BLOB_UNKNOWN,))

        return _asked(registry, url, judge, MAX_CONFIG_BYTES, {"Accept": "*/*"})

    def tags(self, repository: Repository) -> tuple[Tag, ...] | Absent | Trouble:
        """Every tag of a repository, all pages; tags outside the grammar are left out."""
        registry = self._registry(repository.host)
        url: str | None = registry.url(repository.name, "tags/list?n=1000")
        found: list[Tag] = []
        for _ in range(_MAX_PAGES):
            if url is None:
                return tuple(found)
            page: _TagPage | Absent | Trouble = _asked(registry, url, partial(_tag_page, url), MAX_TAG_PAGE_BYTES, {})
            if not isinstance(page, _TagPage):
                return Absent(answers.DENIED) if self._may_be_unborn(repository, page) else page
            found += page.tags
            url = page.following
            if len(found) > _MAX_TAGS:
                return Trouble(Unknown.TOO_LARGE, f"more than {_MAX_TAGS} tags")
        return Trouble(Unknown.TOO_LARGE, f"more than {_MAX_PAGES} pages of tags")

    @property
    def asked(self) -> int:
        """How many questions there were so far."""
        with self._lock:
            return sum(one.questions for one in self._registries.values())

    def hosts(self) -> tuple[HostSeen, ...]:
        """The hosts that left questions open."""
        with self._lock:
            return tuple(seen for one in self._registries.values() if (seen := one.seen()))

    def _may_be_unborn(self, repository: Repository, meaning: object) -> bool:
        """Whether a refusal can mean that the repository has yet to be made: the settings say so, and there is a login.

        ghcr.io denies packages that do not exist. https://github.com/oras-project/oras/issues/1128
        """
        settings = self._settings
        return (
            isinstance(meaning, Trouble)
            and meaning.reason is Unknown.AUTH
            and settings.bootstrap
            and repository == settings.repository
            and self._registry(repository.host).has_login(repository.name)
        )

    def document(self, reference: Reference) -> tuple[bytes, str]:
        """Bytes and media type of a manifest, for builders. `Failed` where it cannot be read."""
        match self.manifest(reference):
            case Document() as document:
                return document.body, document.media_type
            case Absent(code):
                raise Failed(f"{reference} is not there ({code})", remedy="It moved since the plan: make a new plan.")
            case Trouble(_, detail):
                raise Failed(f"{reference} could not be read: {detail}", remedy="Try again later.")
            case NotModified():
                raise AssertionError("no digest was sent along")

    def blob(self, repository: Repository, digest: Digest, to: Path) -> None:
        """Downloads a blob into the file `to`, verified. `Failed` where that cannot be done; then nothing has changed.

        It is written beside its place and renamed once its digest is right.
        """
        to.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=to.parent, prefix=f".{to.name}.", delete=False) as file:
            try:
                self._download(repository, digest, HashedFile(file, digest_algorithm(digest)))
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.replace(file.name, to)
            except BaseException:
                os.unlink(file.name)
                raise

    def _download(self, repository: Repository, digest: Digest, file: HashedFile) -> None:
        registry = self._registry(repository.host)
        url = registry.url(repository.name, f"blobs/{digest}")
        try:
            response = registry.do_request(url, limit=_MAX_BLOB_BYTES, seconds=_TRANSFER_SECONDS, into=file)
        except Interrupted as error:
            meaning: Absent | Trouble | None = error.trouble
        else:
            meaning = answers.streamed(_answer(response), digest, file.digest)
        match meaning:
            case None:
                return
            case Absent():
                raise Failed(f"{repository}@{digest} is not there", remedy="The registry lost content: mend the base.")
            case Trouble(reason, detail):
                raise Failed(f"{repository}@{digest} could not be read: {detail}", remedy=reason.remedy)

    def has_blob(self, repository: Repository, digest: Digest) -> bool:
        """Whether a blob is in a repository. `Failed` where the registry gives no answer."""
        registry = self._registry(repository.host)
        try:
            answer = _answer(registry.do_request(registry.url(repository.name, f"blobs/{digest}"), "HEAD"))
        except Interrupted as error:
            trouble = error.trouble
        else:
            if answer.status in (200, 404):
                return answer.status == 200
            trouble = answers.refusal(answer)
        if self._may_be_unborn(repository, trouble):
            return False
        raise Failed(f"{repository} was asked for {digest}: {trouble.detail}", remedy=trouble.reason.remedy)

    def mount_blob(self, repository: Repository, digest: Digest, source: Repository) -> bool:
        """Takes a blob over from another repository of the same host; False where the registry will not."""
        answer = self._write("POST", repository, f"blobs/uploads/?mount={digest}&from={source.name}")
        if answer.status == 202:  # it started an upload instead, which is left to expire
            return False
        return answer.status == 201

    def upload_blob(self, repository: Repository, digest: Digest, content: Path) -> None:
        """Uploads a blob in one piece. `Failed` unless the registry confirms it."""
        started = self._write("POST", repository, "blobs/uploads/")
        if started.status != 202 or "location" not in started.headers:
            raise _untaken(f"{repository} refuses an upload", started)
        here = self._registry(repository.host).url(repository.name, "blobs/uploads/")
        try:
            location = urljoin(here, started.headers["location"])
            elsewhere = _origin(location) != _origin(here)
        except ValueError:  # a Location that is no URL
            elsewhere = True
        if elsewhere:
            raise Failed(f"{repository} wants the upload on another host: {shown(started.headers['location'])}")
        url = f"{location}{'&' if '?' in location else '?'}digest={digest}"
        with content.open("rb") as file:
            headers = {"Content-Type": "application/octet-stream", "Content-Length": str(content.stat().st_size)}
            answer = self._send("PUT", repository, url, headers, file)
        if answer.status != 201:
            raise _untaken(f"{repository} did not take {digest}", answer)

    def put_manifest(self, reference: Reference, body: bytes, media_type: str) -> None:
        """Puts a manifest or index under a tag or its digest. `Failed` unless the registry confirms these bytes."""
        answer = self._write(
            "PUT", reference.repository, f"manifests/{reference.to}", headers={"Content-Type": media_type}, data=body
        )
        stated = answer.headers.get("docker-content-digest", "")
        if answer.status != 201:
            raise _untaken(f"{reference} was not taken", answer)
        if stated and stated not in (digest_of(body), digest_of(body, "sha512")):
            raise Failed(f"{reference} was taken as {shown(stated)}, which is not what was sent")

    def _write(
        self,
        method: str,
        repository: Repository,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
    ) -> Answer:
        url = self._registry(repository.host).url(repository.name, path)
        return self._send(method, repository, url, dict(headers or {}), data)

    def _send(
        self, method: str, repository: Repository, url: str, headers: Mapping[str, str], data: bytes | IO[bytes] | None
    ) -> Answer:
        registry = self._registry(repository.host)
        try:
            return _answer(registry.do_request(url, method, data=data, headers=headers, seconds=_TRANSFER_SECONDS))
        except Interrupted as error:
            raise Failed(
                f"{repository.host} did not answer a {method}: {error.trouble.detail}",
                remedy=error.trouble.reason.remedy,
            ) from None


_MAX_BLOB_BYTES = 16 * 2**30
_ROOM = "Make room for it: a quota, a limit of the registry's or of a proxy before it, or its disk."
_PUSH_REMEDIES = {
    401: "Check that the login may push there (`docker login`, or REGISTRY_AUTH_FILE).",
    403: "Check that the login may push there (`docker login`, or REGISTRY_AUTH_FILE), and any quota.",
    413: _ROOM,
    507: _ROOM,
}


def _untaken(what: str, answer: Answer) -> Failed:
    """What to say of something that was to be written and was not taken."""
    trouble = answers.refusal(answer)
    return Failed(f"{what}: {trouble.detail}", remedy=_PUSH_REMEDIES.get(answer.status, trouble.reason.remedy))


_SECOND_ASKING = frozenset({Unknown.GARBAGE, Unknown.INTEGRITY, Unknown.NOT_A_REGISTRY_ANSWER})
_Meaning = TypeVar("_Meaning")


def _asked(
    registry: Registry, url: str, judge: Callable[[Answer], _Meaning | Trouble], limit: int, headers: Mapping[str, str]
) -> _Meaning | Trouble:
    """What a GET came to; once more where the bytes were not what they should be: a cache may have been caught."""
    try:
        meaning = judge(_answer(registry.do_request(url, headers=headers, limit=limit)))
        if isinstance(meaning, Trouble) and meaning.reason in _SECOND_ASKING:
            meaning = judge(_answer(registry.do_request(url, headers=headers, limit=limit)))
    except Interrupted as error:
        meaning = error.trouble
    registry.note(meaning)
    return meaning


@dataclass(frozen=True, slots=True)
class _TagPage:
    """A page of tags. following: the URL of the next one."""

    tags: list[Tag]
    following: str | None


def _tag_page(url: str, answer: Answer) -> _TagPage | Absent | Trouble:
    page = answers.tag_page(answer)
    if not isinstance(page, bytes):
        return page
    try:
        tags = _legal_tags(page)
    except BadDocument as error:
        return Trouble(error.reason, f"the tag list: {error.detail}")
    link = answer.headers.get("link", "")
    try:
        following = answers.next_page(link, partial(urljoin, url))
        elsewhere = following is not None and _origin(following) != _origin(url)
    except ValueError:  # a Link that is no URL
        elsewhere = True
    if elsewhere:
        return Trouble(Unknown.REDIRECT, "the next page of tags is on another host")
    if following is None and "next" in link.lower():  # a list that is cut short could make a tag look absent
        return Trouble(Unknown.MALFORMED, f"the next page of tags cannot be read: Link: {shown(link)}")
    return _TagPage(tags, following)


def _legal_tags(page: bytes) -> list[Tag]:
    legal = []
    for text in parse_tags(page):
        try:
            legal.append(parse_tag(text))
        except BadName:  # no tag of ours, and none that can be asked for
            continue
    return legal
