"""How a registry lets people in: by name and secret, or by a token per repository from a token server.

https://distribution.github.io/distribution/spec/auth/token/
"""

import base64
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count

from imagewright.embedded.wire import Answer, Request, json_answer

TOKEN_PATH = "/token"


@dataclass(frozen=True, slots=True, kw_only=True)
class Basic:
    """Name and secret with every request."""

    user: str = "robot"
    secret: str = "s3cret"

    @property
    def encoded(self) -> str:
        """Name and secret as they stand in an auth file, and after `Basic`."""
        return base64.b64encode(f"{self.user}:{self.secret}".encode()).decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer(Basic):
    """Tokens. realm: where they are had, `/token` of the registry itself by default; any registry with a `Bearer` login
    hands them out there, and all accept them.

    to_anyone: without name and secret, for reading. denied: the status for who has none, or wrong ones. repositories: those
    that the login is good for, all if none are named. uses, seconds: after which a token is at its end.
    """

    realm: str = ""
    to_anyone: bool = False
    denied: int = 401
    repositories: tuple[str, ...] = ()
    uses: int | None = None
    seconds: float | None = None


class Door:
    """Who may pass. scheme: of the registry's own address."""

    def __init__(self, login: Basic | None, scheme: str) -> None:
        self._login = login
        self._scheme = scheme
        self._numbers = count(1)
        self._used: Counter[str] = Counter()
        self._lock = threading.Lock()

    def answer(self, request: Request, repository: str) -> Answer | None:
        """A token, or the refusal of a request; None where it may pass. repository: that it is about, or empty."""
        login = self._login
        if login is None:
            return None
        authorization = request.headers.get("authorization", "")
        if not isinstance(login, Bearer):
            passes = authorization == f"Basic {login.encoded}"
            return None if passes else _challenge('Basic realm="a registry"')
        if request.path == TOKEN_PATH:
            return self._token(login, request.query, authorization)
        action = "pull" if request.method in ("GET", "HEAD") else "push"
        if self._is_good(login, authorization.removeprefix("Bearer "), repository, action):
            return None
        host = request.headers.get("host", "")
        realm = login.realm or f"{self._scheme}://{host}{TOKEN_PATH}"
        scope = f',scope="repository:{repository}:pull{"" if action == "pull" else ",push"}"' if repository else ""
        return _challenge(f'Bearer realm="{realm}",service="a registry"{scope}')

    def _token(self, login: Bearer, query: Mapping[str, str], authorization: str) -> Answer:
        scope = query.get("scope", "")
        known = authorization == f"Basic {login.encoded}"
        asked = re.fullmatch(r"repository:(.+):(pull|pull,push)", scope)
        if not known and not (login.to_anyone and not authorization and asked and asked[2] == "pull"):
            return _error(login.denied)
        if login.repositories and (not asked or asked[1] not in login.repositories):
            return _error(403)
        claims = {"scope": scope, "issued": time.monotonic(), "number": next(self._numbers), "by": id(self)}
        token = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        return json_answer(200, {"token": token})

    def _is_good(self, login: Bearer, token: str, repository: str, action: str) -> bool:
        try:
            claims = json.loads(base64.urlsafe_b64decode(f"{token}==="))
        except ValueError:  # absent, or not one of ours
            return False
        if not isinstance(claims, dict):
            return False
        name, _, actions = str(claims.get("scope")).removeprefix("repository:").rpartition(":")
        if repository and (name != repository or action not in actions.split(",")):
            return False
        if login.seconds is not None and time.monotonic() > float(claims["issued"]) + login.seconds:
            return False
        with self._lock:
            self._used[token] += 1
            return login.uses is None or self._used[token] <= login.uses


def _challenge(header: str) -> Answer:
    return _error(401, {"WWW-Authenticate": header})


def _error(status: int, headers: Mapping[str, str] | None = None) -> Answer:
    code = "UNAUTHORIZED" if status == 401 else "DENIED"
    return json_answer(status, {"errors": [{"code": code, "message": "authentication required"}]}, headers)
