"""Who asks: credentials from the places where docker and podman keep them, and tokens, one per repository and right.

A credential belongs to one host and is sent there, or to a token server that the host is declared to use, and nowhere
else. https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import json
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from imagewright import process
from imagewright.names import is_loopback
from imagewright.reasons import Unknown
from imagewright.registry.answers import Trouble
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
    """The challenge in a `WWW-Authenticate` header, None where it is absent or not one that we know. RFC 9110, 11.6.1."""
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
    there = urlsplit(realm)
    name = there.hostname or ""
    if is_loopback(host):
        return there.scheme in ("http", "https") and (name == host.rsplit(":", 1)[0] or there.netloc in settings.realms)
    declared = {host, *settings.realms, *_BUILT_IN_REALMS.get(host, ())}
    return there.netloc in declared and (there.scheme == "https" or settings.plain_http)


class Credentials:
    """Credentials by host, read once each. Never printed: it has no representation."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._surroundings = surroundings
        self._found: dict[str, str | None] = {}
        self._lock = threading.Lock()

    def basic(self, host: str, repository: str) -> str | None:
        """`user:secret` in base64 for a repository of a host, or None where there is none."""
        with self._lock:
            key = f"{host}/{repository}"
            if key not in self._found:
                self._found[key] = self._look(host, repository)
            return self._found[key]

    def _look(self, host: str, repository: str) -> str | None:
        for file in self._surroundings.auth_files:
            config = _read_auth_file(Path(file))
            for key in _keys(host, repository):
                entry = config.get("auths", {}).get(key)
                if isinstance(entry, dict) and isinstance(entry.get("auth"), str) and entry["auth"]:
                    return str(entry["auth"])
            helper = next(
                (config["credHelpers"][key] for key in _keys(host, "") if key in config.get("credHelpers", {})), ""
            )
            store = helper or config.get("credsStore", "")
            if store and (secret := self._ask_helper(str(store), _keys(host, "")[-1])):
                return secret
        return None

    def _ask_helper(self, suffix: str, server: str) -> str | None:
        """https://github.com/docker/docker-credential-helpers#usage"""
        if not re.fullmatch(r"[A-Za-z0-9._-]+", suffix):
            return None
        environment = {"PATH": self._surroundings.path, "HOME": str(Path("~").expanduser())}
        try:
            ended = process.run(
                [f"docker-credential-{suffix}", "get"], timeout=HELPER_SECONDS, env=environment, stdin=server.encode()
            )
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


class Tokens:
    """The authorization of requests to one host: a token per repository and right, fetched once whatever the threads.

    fetch: does a GET of a URL with headers and returns status and body, or a `Trouble`.
    """

    def __init__(
        self,
        host: str,
        settings: HostSettings,
        credentials: Credentials,
        fetch: Callable[[str, Mapping[str, str]], tuple[int, bytes] | Trouble],
    ) -> None:
        self._host = host
        self._settings = settings
        self._credentials = credentials
        self._fetch = fetch
        self._challenge: Challenge | None = None
        self._authorizations: dict[tuple[str, str], str] = {}
        self._locks: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def known(self, repository: str, actions: str) -> str | None | Trouble:
        """The authorization to send at once, None where none is needed as far as we know."""
        if self._challenge is None:
            return None
        return self._authorize(self._challenge, repository, actions, refused=None)

    def renew(self, header: str, repository: str, actions: str, refused: str | None) -> str | Trouble:
        """The authorization to try after a 401. refused: what was sent; whoever finds another one takes that."""
        challenge = parse_challenge(header)
        if challenge is None:
            return Trouble(Unknown.AUTH, "status 401 without a challenge that we know")
        self._challenge = challenge
        return self._authorize(challenge, repository, actions, refused)

    def _authorize(self, challenge: Challenge, repository: str, actions: str, refused: str | None) -> str | Trouble:
        key = (repository, actions)
        with self._lock:
            lock = self._locks.setdefault(key, threading.Lock())
        with lock:
            held = self._authorizations.get(key)
            if held is not None and held != refused:
                return held
            secret = None if self._settings.anonymous else self._credentials.basic(self._host, repository)
            made = (
                self._token(challenge, repository, actions, secret)
                if challenge.scheme == "bearer"
                else (f"Basic {secret}" if secret else Trouble(Unknown.AUTH, "a login is needed and none was found"))
            )
            if isinstance(made, str):
                if made == refused:
                    return Trouble(Unknown.AUTH, "the login was refused")
                self._authorizations[key] = made
            return made

    def _token(self, challenge: Challenge, repository: str, actions: str, secret: str | None) -> str | Trouble:
        realm = challenge.parameters.get("realm", "")
        if not realm_is_declared(realm, self._host, self._settings):
            return Trouble(
                Unknown.AUTH, f"its token server {urlsplit(realm).netloc or 'of no name'} is not declared in `realms`"
            )
        query = {"scope": f"repository:{repository}:{actions}"}
        if service := challenge.parameters.get("service"):
            query = {"service": service, **query}
        url = f"{realm}{'&' if '?' in realm else '?'}{urlencode(query)}"
        answer = self._fetch(url, {"Authorization": f"Basic {secret}"} if secret else {})
        if isinstance(answer, Trouble):
            return answer
        status, body = answer
        if status != 200:
            return Trouble(Unknown.AUTH, f"the token server answered status {status}")
        try:
            document = json.loads(body)
            token = document.get("token") or document.get("access_token")
        except (ValueError, AttributeError):
            token = None
        if not isinstance(token, str) or not re.fullmatch(r"[\x21-\x7e]+", token):
            return Trouble(Unknown.AUTH, "the token server's answer has no token")
        return f"Bearer {token}"
