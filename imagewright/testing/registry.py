"""A registry with vices: the embedded one behind real HTTP, wrong where it is told to be, and a log of what it was asked."""

import json
import re
import ssl
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Self

from imagewright.embedded.refusal import Refused
from imagewright.embedded.server import Handler, Server
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request, Slice
from imagewright.names import Digest, Platform
from imagewright.testing.images import StoreSink
from imagewright.testing.logins import TOKEN_PATH, Basic, Door
from imagewright.testing.vices import Asked, Kind, Occasion, Vice

_PATH = re.compile(r"/v2/(?P<repository>.+)/(?P<what>manifests|blobs|tags|referrers)/(?P<reference>.+)", re.DOTALL)
_READS = ("GET", "HEAD")


class Registry:
    """`with Registry(folder, forgets_children()) as registry:` serves the images of a folder at `registry.address`.

    root: made if absent; `sink` puts images there without a request. login: who may ask. tls: for HTTPS. host: the address
    to listen on.
    """

    def __init__(
        self,
        root: Path,
        *vices: Vice,
        login: Basic | None = None,
        tls: ssl.SSLContext | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.store = Store(root)
        self.sink = StoreSink(self.store)
        self._door = Door(login, "https" if tls else "http")
        self._lock = threading.Lock()
        self._server = Server(root, host=host, middleware=self._answer, tls=tls)
        self._ended = threading.Event()
        self.becomes(*vices)

    @property
    def address(self) -> str:
        """`host:port` as it stands in a reference."""
        return self._server.address

    @property
    def log(self) -> tuple[Asked, ...]:
        """What it was asked since it last became what it is, in order; also while it runs."""
        with self._lock:
            return tuple(self._log)

    def becomes(self, *vices: Vice) -> None:
        """From now on it has these vices, and its log and its counting start anew."""
        self._ended.set()
        with self._lock:
            self._vices = vices
            self._applied: Counter[int] = Counter()
            self._log: list[Asked] = []
            self._ended = threading.Event()

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._server.stop()

    def _answer(self, request: Request, handler: Handler) -> Answer:
        described = self._described(request)
        with self._lock:
            log, ended = self._log, self._ended
            asked = replace(described, number=len(log) + 1)
            vice = self._vice(asked)
            log.append(replace(asked, vice=vice.name if vice else ""))

        def honest() -> Answer:
            return self._door.answer(request, asked.repository) or _in_memory(handler(request))

        def plain() -> Answer:
            headers = {name: value for name, value in request.headers.items() if name != "if-none-match"}
            return self._door.answer(request, asked.repository) or _in_memory(
                handler(replace(request, headers=headers))
            )

        occasion = Occasion(asked=asked, honest=honest, plain=plain, wait=lambda seconds: _wait(ended, seconds))
        answer = vice.does(occasion) if vice else honest()
        if not answer.bare:
            with self._lock:
                log[asked.number - 1] = replace(log[asked.number - 1], status=answer.status)
        return answer

    def _vice(self, asked: Asked) -> Vice | None:
        for at, vice in enumerate(self._vices):
            if vice.applies(asked) and (vice.most is None or self._applied[at] < vice.most):
                self._applied[at] += 1
                return vice
        return None

    def _described(self, request: Request) -> Asked:
        matched = _PATH.fullmatch(request.path)
        repository, what, reference = matched.group("repository", "what", "reference") if matched else ("", "", "")
        kind = _kind(request, what, reference)
        return Asked(
            number=0,
            kind=kind,
            method=request.method,
            target=request.target,
            repository=repository,
            reference=reference if what in ("manifests", "blobs", "referrers") else "",
            platform=self._platform(repository, reference) if kind in ("child", "config") else "",
            authorization=request.headers.get("authorization", ""),
            unless=request.headers.get("if-none-match", ""),
        )

    def _platform(self, repository: str, digest: str) -> str:
        """The platform that a manifest's configuration, or a configuration, states; empty for anything else."""
        try:
            place = self.store.repository(repository)
            document = json.loads(place.blob(Digest(digest)).read_bytes())
            if isinstance(document, dict) and isinstance(document.get("config"), dict) and "layers" in document:
                document = json.loads(place.blob(Digest(document["config"]["digest"])).read_bytes())
            return str(Platform(document["os"], document["architecture"], document.get("variant", "")).normalised())
        except (Refused, OSError, ValueError, KeyError, TypeError):  # an index, a layer, or not here at all
            return ""


def _kind(request: Request, what: str, reference: str) -> Kind:
    if request.path == TOKEN_PATH:
        return "token"
    if request.path.rstrip("/") == "/v2":
        return "ping"
    if request.method == "DELETE":
        return "delete"
    if what == "tags":
        return "tags"
    if what == "manifests":
        return ("child" if ":" in reference else "index") if request.method in _READS else "push"
    if what == "blobs":
        return "config" if request.method in _READS and not reference.startswith("uploads/") else "upload"
    return "other"


def _in_memory(answer: Answer) -> Answer:
    body = answer.body
    if not isinstance(body, Slice):
        return answer
    with body.file as file:
        file.seek(body.offset)
        return replace(answer, body=file.read(body.count))


def _wait(ended: threading.Event, seconds: float | None) -> None:
    if ended.wait(seconds):
        raise ConnectionAbortedError("the registry has ended")
