"""Who asks: credentials from the places where docker and podman keep them, and tokens, one per repository and right.

A credential belongs to one host and is sent there, or to a token server that the host is declared to use, and nowhere
else. https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from imagewright import process
from imagewright.names import is_loopback, shown
from imagewright.reasons import Unknown
from imagewright.registry.answers import UNAVAILABLE, Answer, Trouble, is_plain_url, refusal
from imagewright.settings import HostSettings, Surroundings

HELPER_SECONDS = 20
DOCKER_HUB = "docker.io"
_BUILT_IN_REALMS = {"registry-1.docker.io": ("auth.docker.io",)}


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a 401 asks for. scheme: `bearer` or `basic`."""

    scheme: str
    parameters: Mapping[str, str]


_SCHEME = re.compile(r"\s*(bearer|basic)(?:\s+|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(r'\s*([a-zA-Z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|\Z)')


def parse_challenge(header: str) -> Challenge | None:
    """The challenge in a `WWW-Authenticate` header, None where there is none that we know. RFC 9110, 11.6.1."""
    matched = _SCHEME.match(header)
    if not matched:
        return None
    parameters = {}
    at = matched.end()
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if not parameter:
            break
        quoted, plain = parameter[2], parameter[3]
        parameters[parameter[1].lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
        at = parameter.end()
    return Challenge(matched[1].lower(), parameters)


def realm_is_declared(realm: str, host: str, settings: HostSettings) -> bool:
    """Whether the token server may see a credential or a question of ours: the host itself, or one named for it."""
    try:
        there = urlsplit(realm)
        name = there.hostname or ""
    except ValueError:  # no URL
        return False
    if not is_plain_url(realm):
        return False
    if is_loopback(host):
        same = name == urlsplit(f"//{host}").hostname
        return there.scheme in ("http", "https") and (same or there.netloc in settings.realms)
    declared = {host, *settings.realms, *_BUILT_IN_REALMS.get(host, ())}
    return there.netloc in declared and (there.scheme == "https" or settings.plain_http)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a credential is, or a helper that may have one."""

    file: str
    basic: str = field(default="", repr=False)
    helper: str = ""


class Credentials:
    """Credentials by host and repository, read once each. Never printed: it has no representation.

    helper_seconds: how long a credential helper may take.
    """

    def __init__(self, surroundings: Surroundings, helper_seconds: float = HELPER_SECONDS) -> None:
        self._surroundings = surroundings
        self._helper_seconds = helper_seconds
        self._found: dict[str, str | None] = {}
        self._from_helpers: dict[tuple[str, str], str | None] = {}
        self._lock = threading.Lock()

    def basic(self, host: str, repository: str) -> str | None:
        """`user:secret` in base64 for a repository of a host, or None where there is none."""
        with self._lock:
            key = f"{host}/{repository}"
            if key not in self._found:
                self._found[key] = self._look(host, repository)
            return self._found[key]

    def source(self, host: str, repository: str) -> str:
        """Where the credential would come from, without asking any helper: a file, and its helper; empty for nowhere."""
        first = next(self._places(host, repository), None)
        if first is None:
            return ""
        return f"{first.file}, by docker-credential-{first.helper}" if first.helper else first.file

    def _look(self, host: str, repository: str) -> str | None:
        for place in self._places(host, repository):
            if secret := place.basic or self._from_helper(place.helper, _keys(host, "")[-1]):
                return secret
        return None

    def _places(self, host: str, repository: str) -> Iterator[_Place]:
        """Where a credential stands or may stand, the first that has one counts."""
        for file in self._surroundings.auth_files:
            config = _read_auth_file(Path(file))
            entries, helpers = _member(config, "auths"), _member(config, "credHelpers")
            for key in _keys(host, repository):
                entry = entries.get(key)
                if isinstance(entry, dict) and isinstance(entry.get("auth"), str) and entry["auth"]:
                    yield _Place(file, basic=str(entry["auth"]))
                    break
            helper = next((helpers[key] for key in _keys(host, "") if key in helpers), config.get("credsStore"))
            if helper:
                yield _Place(file, helper=str(helper))

    def _from_helper(self, suffix: str, server: str) -> str | None:
        """What a helper says, asked once: one that hangs must not do so for every repository."""
        key = (suffix, server)
        if key not in self._from_helpers:
            self._from_helpers[key] = self._ask_helper(suffix, server)
        return self._from_helpers[key]

    def _ask_helper(self, suffix: str, server: str) -> str | None:
        """https://github.com/docker/docker-credential-helpers#usage"""
        if not re.fullmatch(r"[A-Za-z0-9._-]+", suffix):
            return None
        environment = {"PATH": self._surroundings.path, "HOME": self._surroundings.home}
        argv = [f"docker-credential-{suffix}", "get"]
        try:
            ended = process.run(argv, timeout=self._helper_seconds, env=environment, stdin=server.encode())
            if ended.status != 0 or ended.timed_out:
                return None
            answer = json.loads(ended.stdout)
            return base64.b64encode(f"{answer['Username']}:{answer['Secret']}".encode()).decode()
        except (process.NotStarted, ValueError, KeyError, TypeError):
            # Not installed, or it knows nothing of this server: the registry will say whether it was needed.
            return None


def _keys(host: str, repository: str) -> list[str]:
    """Under which keys a credential may stand, the most specific first."""
    hub = host in ("registry-1.docker.io", DOCKER_HUB)
    name = DOCKER_HUB if hub else host
    parts = repository.split("/") if repository else []
    keys = ["/".join([name, *parts[:length]]) for length in range(len(parts), -1, -1)]
    return [*keys, *(("index.docker.io", "https://index.docker.io/v1/") if hub else ())]


def _read_auth_file(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError):  # most of the places are empty; a broken file is a login that does not count
        return {}
    return document if isinstance(document, dict) else {}


def _member(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """An object within an auth file, empty where it has none: `"auths": null` is what some programs write."""
    member = config.get(name)
    return member if isinstance(member, dict) else {}


class _Scope:
    """What is known of one repository and right. asked: how often its authorization was made, or tried to be.

    denied: whether a token was replaced already because it was not enough.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked = 0
        self.denied = False
        self.authorization: str | None = None
        self.trouble: Trouble | None = None


class Tokens:
    """The authorization of requests to one host: a token per repository and right, fetched once whatever the threads.

    fetch: does a GET of a URL with headers, before a deadline on the monotonic clock.
    """

    def __init__(
        self,
        host: str,
        settings: HostSettings,
        credentials: Credentials,
        fetch: Callable[[str, Mapping[str, str], float], Answer | Trouble],
    ) -> None:
        self._host = host
        self._settings = settings
        self._credentials = credentials
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._scopes: dict[tuple[str, str], _Scope] = {}
        self._lock = threading.Lock()

    def known(self, repository: str, actions: str, deadline: float) -> str | Trouble | None:
        """The authorization to send at once, None where none is needed as far as we know."""
        challenge = self._challenge
        if challenge is None or (challenge.scheme == "basic" and self._secret(repository) is None):
            return None
        return self._authorize(challenge, repository, actions, None, deadline)

    def renew(self, header: str, repository: str, actions: str, refused: str | None, deadline: float) -> str | Trouble:
        """The authorization to try after a 401. refused: what was sent; whoever finds another one takes that."""
        challenge = parse_challenge(header)
        if challenge is None:
            return Trouble(Unknown.AUTH, "status 401 without a challenge that we know")
        self._challenge = challenge
        return self._authorize(challenge, repository, actions, refused, deadline)

    def another(self, repository: str, actions: str, refused: str, deadline: float) -> str | Trouble | None:
        """A new token in the place of one that was met with 403, once for each repository and right; None after that.

        ghcr.io's tokens are refused now and then and the next one is taken; what is denied for good stays denied.
        """
        challenge = self._challenge
        if challenge is None or challenge.scheme != "bearer":
            return None
        with self._lock:
            scope = self._scopes.setdefault((repository, actions), _Scope())
            if scope.denied and scope.authorization == refused:
                return None
            scope.denied = True
        return self._authorize(challenge, repository, actions, refused, deadline)

    def _authorize(
        self, challenge: Challenge, repository: str, actions: str, refused: str | None, deadline: float
    ) -> str | Trouble:
        with self._lock:
            scope = self._scopes.setdefault((repository, actions), _Scope())
        before = scope.asked
        if not scope.lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            return Trouble(Unknown.TIMEOUT, "the token server did not answer in time")
        try:
            if scope.authorization is not None and scope.authorization != refused:
                return scope.authorization
            if scope.trouble is not None and scope.asked != before:
                return scope.trouble  # somebody else has just asked, while this thread was waiting
            made = self._made(challenge, repository, actions, deadline)
            if made == refused:
                made = Trouble(Unknown.AUTH, "the login was refused")
            scope.asked += 1
            if isinstance(made, str):
                scope.authorization, scope.trouble = made, None
            else:
                scope.trouble = made
            return made
        finally:
            scope.lock.release()

    def _made(self, challenge: Challenge, repository: str, actions: str, deadline: float) -> str | Trouble:
        secret = self._secret(repository)
        if challenge.scheme == "bearer":
            return self._token(challenge, _scope_text(repository, actions), secret, deadline)
        return f"Basic {secret}" if secret else Trouble(Unknown.AUTH, "a login is needed and none was found")

    def _secret(self, repository: str) -> str | None:
        return None if self._settings.anonymous else self._credentials.basic(self._host, repository)

    def _token(self, challenge: Challenge, scope: str, secret: str | None, deadline: float) -> str | Trouble:
        realm = challenge.parameters.get("realm", "")
        if not realm_is_declared(realm, self._host, self._settings):
            return Trouble(Unknown.AUTH, f"its token server {shown(realm)} is not declared in `realms`")
        query = {"scope": scope}
        if service := challenge.parameters.get("service"):
            query = {"service": service, **query}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        headers = {"Authorization": f"Basic {secret}"} if secret else {}
        answer = self._fetch(url, headers, deadline)
        if isinstance(answer, Answer) and answer.status == 403:
            answer = self._fetch(url, headers, deadline)  # as in `another`
        if isinstance(answer, Trouble):
            return answer
        if answer.status != 200:
            refused = refusal(answer)
            reason = refused.reason if answer.status in UNAVAILABLE else Unknown.AUTH
            return Trouble(reason, f"the token server: {refused.detail}", refused.retry_after)
        try:
            document = json.loads(answer.body)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            return Trouble(Unknown.GARBAGE, "the token server's answer has no token")
        return f"Bearer {token}"


def _scope_text(repository: str, actions: str) -> str:
    return f"repository:{repository}:{actions}"
