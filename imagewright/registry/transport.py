"""How requests travel: limits on time and bytes, no netrc, nothing from the environment, redirects by our own rule.

requests follows redirects inside itself and reads bodies without limits, and http.client waits for the head of an
answer as long as bytes come, so all three are done here.
"""

import hashlib
import http.client
import io
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy
from typing import IO, Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.connection
import urllib3.exceptions
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict

from imagewright.names import Digest, is_loopback, shown
from imagewright.reasons import Unknown
from imagewright.registry.answers import MAX_ERROR_BYTES, Trouble, is_plain_url
from imagewright.settings import Limits, Surroundings

MAX_HOPS = 3


class Interrupted(Exception):
    """A request that came to no answer."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.detail)
        self.trouble = trouble


class _Patient(io.RawIOBase):
    """A socket's bytes, with one timeout for all of them together until `relax` is called."""

    def __init__(self, raw: io.RawIOBase, connection: socket.socket) -> None:
        self._raw = raw
        self._connection = connection
        self._patience = connection.gettimeout()
        self._until = time.monotonic() + (self._patience or 0)
        self._strict = self._patience is not None

    def relax(self) -> None:
        """From now on the timeout is for each read."""
        if self._strict:
            self._strict = False
            self._connection.settimeout(self._patience)

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def readinto(self, buffer: Any) -> int | None:
        if self._strict:
            self._connection.settimeout(max(self._until - time.monotonic(), 0.001))
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer whose head has to be complete within the read timeout: a byte now and then does not prolong it."""

    def __init__(self, sock: socket.socket, *args: Any, **named: Any) -> None:
        super().__init__(sock, *args, **named)
        self._patient = _Patient(self.fp.detach(), sock)
        self.fp = io.BufferedReader(self._patient)

    def begin(self) -> None:
        super().begin()
        self._patient.relax()


class _PlainConnection(urllib3.connection.HTTPConnection):
    response_class = _Response


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response


class _PlainPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _PlainConnection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(HTTPAdapter):
    """Connections that wait for the head of an answer as `_Response` does."""

    def init_poolmanager(self, *args: Any, **named: Any) -> None:
        super().init_poolmanager(*args, **named)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, proxy: str, **named: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **named)
        manager.pool_classes_by_scheme = _POOLS
        return manager


_OUR_URL = re.compile(r"https?://[A-Za-z0-9.:\[\]-]+/v2/[A-Za-z0-9._:/-]*\Z")
"""What needs no quoting: manifests and blobs by the names that `names` accepts."""

_HEADERS = {"User-Agent": "imagewright", "Accept-Encoding": "identity", "Accept": "*/*", "Connection": "keep-alive"}

_POOLS = {"http": _PlainPool, "https": _TlsPool}


class GuardedSession(requests.Session):
    """A session whose every request has limits and goes nowhere by itself. connections: kept and used at once."""

    def __init__(self, limits: Limits, surroundings: Surroundings, connections: int) -> None:
        super().__init__()
        # Disarms ~/.netrc, which would replace the bearer token, and reading the environment on every request.
        self.trust_env = False
        self.verify = surroundings.ca_bundle or True
        self._limits = limits
        self._proxies = dict(surroundings.proxies)
        self._no_proxy = tuple(
            one.strip().lstrip(".").lower() for one in surroundings.no_proxy.split(",") if one.strip()
        )
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        adapter = _Adapter(pool_connections=connections, pool_maxsize=connections, pool_block=True)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self.headers.update(_HEADERS)

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """As in requests, except that redirects are not followed and the body is left on the wire."""
        sending = {
            "stream": True,
            "timeout": (self._limits.connect, self._limits.read),
            "verify": self.verify,
            "proxies": {} if self._direct(url) else self._proxies,
        }
        if options.get("data") is None and options.get("json") is None and _OUR_URL.match(url):
            return self._asked(method, url, options.get("headers") or {}, sending)
        return super().request(method, url, **{**options, "allow_redirects": False, **sending})

    def _asked(
        self, method: str, url: str, headers: Mapping[str, str], sending: Mapping[str, Any]
    ) -> requests.Response:
        """A request without a body, as requests would send it: preparing it for all that might be costs a third of it."""
        prepared = requests.PreparedRequest()
        prepared.method, prepared.url = method, url
        prepared.headers = CaseInsensitiveDict({**_HEADERS, **headers})
        return self.get_adapter(url).send(prepared, **sending)

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        """None: even where it does not follow a redirect, requests would read all of its body to prepare for it."""
        return None

    def _direct(self, url: str) -> bool:
        name = (urlsplit(url).hostname or "").lower()
        if is_loopback(name) or "*" in self._no_proxy:
            return True
        return any(name == one or name.endswith(f".{one}") for one in self._no_proxy)


def read_body(response: requests.Response, limit: int, deadline: float) -> bytes:
    """The body, kept in memory; see `receive`."""
    body = bytearray()
    receive(response, limit, deadline, body.extend)
    return bytes(body)


def receive(response: requests.Response, limit: int, deadline: float, take: Callable[[bytes], object]) -> None:
    """Hands the body on as it comes: at most `limit` bytes after decoding, before `deadline`; else `Interrupted`.

    deadline: on the monotonic clock. `read1` returns what has come, so that a server that sends a byte now and then
    cannot outlast it.
    """
    received = 0
    try:
        while chunk := response.raw.read1(65536, decode_content=True):
            received += len(chunk)
            if received > limit:
                raise Interrupted(Trouble(Unknown.TOO_LARGE, f"more than {limit} bytes"))
            if time.monotonic() > deadline:
                raise Interrupted(Trouble(Unknown.TIMEOUT, "the answer did not end in time"))
            take(chunk)
    except BaseException:
        response.close()
        raise
    response.raw.release_conn()


class HashedFile:
    """An open file that is hashed while it is written; `restart` for another attempt."""

    def __init__(self, file: IO[bytes], algorithm: str) -> None:
        self._file = file
        self._algorithm = algorithm
        self.restart()

    def restart(self) -> None:
        """Forgets what was written."""
        self._file.seek(0)
        self._file.truncate()
        self._hash = hashlib.new(self._algorithm)

    def write(self, chunk: bytes) -> None:
        """Adds to the file."""
        self._file.write(chunk)
        self._hash.update(chunk)

    @property
    def digest(self) -> Digest:
        """The digest of what is in the file."""
        return Digest(f"{self._algorithm}:{self._hash.hexdigest()}")


@dataclass(frozen=True, slots=True)
class Arrival:
    """How the body of one answer is read. Only a 200 may be long, and only a 200 goes into a file."""

    limit: int
    deadline: float
    into: HashedFile | None

    def body(self, response: requests.Response) -> bytes:
        """The body, empty where it went into the file."""
        if response.status_code != 200:
            return read_body(response, MAX_ERROR_BYTES, self.deadline)
        if self.into is None:
            return read_body(response, self.limit, self.deadline)
        self.into.restart()
        receive(response, self.limit, self.deadline, self.into.write)
        return b""


def trouble_of(error: requests.RequestException | urllib3.exceptions.HTTPError, limits: Limits) -> Trouble:
    """What an exception of requests, or one of urllib3 that escapes it, means."""
    if isinstance(error, requests.exceptions.SSLError | urllib3.exceptions.SSLError):
        return Trouble(Unknown.TLS, "the server's certificate or its TLS cannot be trusted")
    if isinstance(error, requests.ConnectTimeout | urllib3.exceptions.ConnectTimeoutError):
        return Trouble(Unknown.NETWORK, f"no connection within {limits.connect:g} s")
    if isinstance(error, requests.ReadTimeout | urllib3.exceptions.ReadTimeoutError):
        return Trouble(Unknown.TIMEOUT, f"silent for {limits.read:g} s")
    for cause in _causes(error):
        for kinds, reason, detail in _MEANINGS:
            if isinstance(cause, kinds):
                return Trouble(reason, detail)
    return Trouble(Unknown.NETWORK, "the connection broke")


def was_not_sent(error: requests.RequestException | urllib3.exceptions.HTTPError) -> bool:
    """Whether there was no connection to send anything on; False where that is not certain."""
    never = (
        requests.ConnectTimeout,
        urllib3.exceptions.ConnectTimeoutError,
        urllib3.exceptions.NewConnectionError,
        ssl.SSLCertVerificationError,
    )
    return any(isinstance(cause, never) for cause in _causes(error))


_MEANINGS: tuple[tuple[tuple[type[BaseException], ...], Unknown, str], ...] = (
    ((urllib3.exceptions.NameResolutionError,), Unknown.NETWORK, "the host's name cannot be resolved"),
    ((ConnectionRefusedError,), Unknown.NETWORK, "connection refused"),
    ((ConnectionResetError, BrokenPipeError), Unknown.NETWORK, "connection reset"),
    (
        (urllib3.exceptions.IncompleteRead, urllib3.exceptions.DecodeError),
        Unknown.GARBAGE,
        "the answer ended too early",
    ),
)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """The error and everything that it wraps: requests and urllib3 pass the first cause on in four ways."""
    waiting, met = [error], set()
    while waiting:
        one = waiting.pop(0)
        if id(one) in met:
            continue
        met.add(id(one))
        yield one
        wrapped = (getattr(one, "reason", None), *one.args, one.__cause__, one.__context__)
        waiting += [inner for inner in wrapped if isinstance(inner, BaseException)]


def redirect_target(response: requests.Response, declared_host: str) -> str:
    """Where a redirect leads, if we go there: no downgrade to plain HTTP, no private address. Else `Interrupted`.

    declared_host: the registry's `host[:port]`; one on loopback may send to another port of the same literal address.
    """
    stated = response.headers.get("Location", "")
    try:
        target = urljoin(response.url, stated)
        here, there = urlsplit(response.url), urlsplit(target)
        name = there.hostname or ""
        if not is_plain_url(target):
            raise ValueError(target)
    except ValueError:
        raise Interrupted(Trouble(Unknown.REDIRECT, f"redirected to {shown(stated)}, which is no URL")) from None
    same_loopback = is_loopback(declared_host) and name == urlsplit(f"//{declared_host}").hostname
    if same_loopback or there.netloc == here.netloc:
        allowed = there.scheme in (here.scheme, "https")
    else:
        allowed = there.scheme == "https" and not _is_private(name)
    if not allowed:
        raise Interrupted(Trouble(Unknown.REDIRECT, f"redirected to {shown(f'{there.scheme}://{there.netloc}')}"))
    return target


def _is_private(name: str) -> bool:
    """Whether a host is no public address. `127.1`, `0x7f000001` and `2130706433` are addresses to whoever connects."""
    bare = name.rstrip(".")
    try:
        return not ipaddress.ip_address(bare if ":" in bare else socket.inet_aton(bare)).is_global
    except (ValueError, OSError):  # a name, not an address
        return is_loopback(bare)


def without_authorization(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers fit for another host. https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md"""
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}
