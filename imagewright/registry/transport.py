"""How requests travel: limits on time and bytes, no netrc, no surprises from the environment, redirects by our own rule.

requests follows redirects inside itself and reads bodies without limits, so both are done here.
"""

import ipaddress
import time
from collections.abc import Iterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3.exceptions
from requests.adapters import HTTPAdapter

from imagewright.names import is_loopback
from imagewright.reasons import Unknown
from imagewright.registry.answers import Trouble
from imagewright.settings import Limits, Surroundings

MAX_HOPS = 3


class Interrupted(Exception):
    """A request that came to no answer."""

    def __init__(self, trouble: Trouble) -> None:
        super().__init__(trouble.detail)
        self.trouble = trouble


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
        adapter = HTTPAdapter(pool_connections=connections, pool_maxsize=connections, pool_block=True)
        self.mount("https://", adapter)
        self.mount("http://", adapter)
        self.headers.update({"User-Agent": "imagewright", "Accept-Encoding": "identity"})

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]
        """As in requests, except that redirects are not followed and the body is left on the wire."""
        options |= {
            "allow_redirects": False,
            "stream": True,
            "timeout": (self._limits.connect, self._limits.read),
            "verify": self.verify,
            "proxies": {} if self._direct(url) else self._proxies,
        }
        return super().request(method, url, **options)

    def _direct(self, url: str) -> bool:
        name = (urlsplit(url).hostname or "").lower()
        if is_loopback(name) or "*" in self._no_proxy:
            return True
        return any(name == one or name.endswith(f".{one}") for one in self._no_proxy)


def read_body(response: requests.Response, limit: int, deadline: float) -> bytes:
    """The body, at most `limit` bytes after decoding, before `deadline` on the monotonic clock; else `Interrupted`.

    `read1` returns what has come, so that a server that sends a byte now and then cannot outlast the deadline.
    """
    body = bytearray()
    while chunk := response.raw.read1(65536, decode_content=True):
        body += chunk
        if len(body) > limit:
            response.close()
            raise Interrupted(Trouble(Unknown.TOO_LARGE, f"more than {limit} bytes"))
        if time.monotonic() > deadline:
            response.close()
            raise Interrupted(Trouble(Unknown.TIMEOUT, "the answer did not end in time"))
    expected = response.headers.get("Content-Length", "")
    if expected.isdecimal() and response.raw.tell() < int(expected) and response.request.method != "HEAD":
        raise Interrupted(Trouble(Unknown.GARBAGE, f"the answer ended after {len(body)} of {expected} bytes"))
    response.raw.release_conn()
    return bytes(body)


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
    target = urljoin(response.url, response.headers.get("Location", ""))
    here, there = urlsplit(response.url), urlsplit(target)
    name = there.hostname or ""
    same_loopback = is_loopback(declared_host) and name == declared_host.rsplit(":", 1)[0]
    if same_loopback or there.netloc == here.netloc:
        allowed = there.scheme == here.scheme or there.scheme == "https"
    else:
        allowed = there.scheme == "https" and not _is_private(name)
    if not allowed:
        raise Interrupted(Trouble(Unknown.REDIRECT, f"redirected to {there.scheme}://{there.netloc}"))
    return target


def _is_private(name: str) -> bool:
    try:
        return not ipaddress.ip_address(name).is_global
    except ValueError:  # a name, not an address
        return is_loopback(name)


def without_authorization(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers fit for another host. https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md"""
    return {name: value for name, value in headers.items() if name.lower() != "authorization"}
