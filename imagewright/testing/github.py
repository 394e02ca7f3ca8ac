"""A GitHub with one repository, for as much of its Actions API as asking for builds needs, speaking real HTTP.

`with GitHub() as forge:` listens at `forge.api`. It keeps runs, makes one of each request, and can fail before or after it did.
"""

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

INPUTS = ("tool", "base", "target", "version", "base_digest", "reason", "key", "force")


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """An answer. body: JSON, or bytes as they are."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something that goes wrong with a method's requests. after: the request has done what it was for by then.

    said: instead of the right answer; None ends the connection without one. pause: seconds before either. times: how often.
    """

    method: str
    after: bool = False
    said: Said | None = None
    pause: float = 0
    times: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A request. body: as sent."""

    method: str
    path: str
    query: Mapping[str, Sequence[str]]
    headers: Mapping[str, str]
    body: bytes


def _utc() -> datetime:
    return datetime.now(UTC)  # noqa: TID251 - its own clock, which a test may replace


class GitHub:
    """One repository with one workflow. clock: what it stamps its runs with. ref: the branch there is.

    log: what it was asked. answers: those of its own, without what `fails` put in their place. terse: it leaves out what
    nobody here reads of a run, for long simulations.
    """

    def __init__(
        self,
        repository: str = "own/images",
        *,
        workflow: str = "build.yml",
        ref: str = "main",
        token: str = "t",  # noqa: S107 - a test knows it
        tells_runs: bool = True,
        terse: bool = False,
        clock: Callable[[], datetime] = _utc,
    ) -> None:
        self.repository, self.workflow, self.ref, self.token = repository, workflow, ref, token
        self.tells_runs, self.terse, self.clock = tells_runs, terse, clock
        self.runs: list[dict[str, Any]] = []
        self.log: list[Heard] = []
        self.answers: list[tuple[Heard, Said]] = []
        self._faults: list[Fault] = []
        self._lock = threading.RLock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def api(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fails(self, *faults: Fault) -> None:
        """From now on these go wrong, each as often as it says, in order."""
        with self._lock:
            self._faults = [one for fault in faults for one in [fault] * fault.times]

    def posts(self) -> list[dict[str, Any]]:
        """The bodies of all requests for runs so far."""
        with self._lock:
            return [json.loads(one.body) for one in self.log if one.method == "POST"]

    def add(
        self,
        title: str,
        *,
        status: str = "queued",
        conclusion: str | None = None,
        created: datetime | None = None,
        updated: datetime | None = None,
        attempt: int = 1,
    ) -> int:
        """Makes a run; its number."""
        with self._lock:
            number = len(self.runs) + 1
            made = created or self.clock()
            stamps = {"created_at": made, "updated_at": updated or made}
            self.runs.append(
                {
                    "id": number,
                    "run_number": number,
                    "run_attempt": attempt,
                    "display_title": title,
                    "status": status,
                    "conclusion": conclusion,
                    **{name: moment.strftime("%Y-%m-%dT%H:%M:%SZ") for name, moment in stamps.items()},
                }
            )
            return number

    def ends(self, number: int, conclusion: str) -> None:
        """Lets a run end now."""
        with self._lock:
            ended = self.clock().strftime("%Y-%m-%dT%H:%M:%SZ")
            self.runs[number - 1] |= {"status": "completed", "conclusion": conclusion, "updated_at": ended}

    def answer(self, heard: Heard) -> Said | None:
        """What it says to a request; None ends the connection."""
        with self._lock:
            self.log.append(heard)
            fault = next((one for one in self._faults if one.method == heard.method), None)
            if fault:
                self._faults.remove(fault)
            said = self._right(heard) if not fault or fault.after else None
            if fault is None and said:
                self.answers.append((heard, said))
        if fault:
            time.sleep(fault.pause)
            return fault.said
        return said

    def _right(self, heard: Heard) -> Said:
        workflow = f"/repos/{self.repository}/actions/workflows/{self.workflow}"
        if heard.headers.get("authorization") != f"Bearer {self.token}":
            return _error(401, "Bad credentials")
        if (heard.method, heard.path) == ("GET", f"{workflow}/runs"):
            return self._listed(heard.query)
        if (heard.method, heard.path) == ("POST", f"{workflow}/dispatches"):
            return self._dispatched(json.loads(heard.body))
        return _error(404, "Not Found")

    def _listed(self, query: Mapping[str, Sequence[str]]) -> Said:
        size, page = (int(query.get(name, [default])[0]) for name, default in (("per_page", "30"), ("page", "1")))
        newest = list(reversed(self.runs))[(page - 1) * size : page * size]
        return Said(status=200, body={"total_count": len(self.runs), "workflow_runs": [*map(self._told, newest)]})

    def _told(self, run: Mapping[str, Any]) -> dict[str, Any]:
        here = f"{self.api}/repos/{self.repository}"
        page = f"https://github.com/{self.repository}"
        one = f"{here}/actions/runs/{run['id']}"
        read = {**run, "path": f".github/workflows/{self.workflow}", "url": one}
        read["html_url"] = f"{page}/actions/runs/{run['id']}"
        if self.terse:
            return read
        owner, _, name = self.repository.partition("/")
        urls = {f"{what}_url": f"{one}/{what}" for what in ("jobs", "logs", "artifacts", "cancel", "rerun")}
        return {
            **read,
            **urls,
            "node_id": f"R{run['id']}",
            "name": "build",
            "head_branch": self.ref,
            "head_sha": "0" * 40,
            "event": "workflow_dispatch",
            "workflow_id": 1,
            "check_suite_url": f"{here}/check-suites/1",
            "workflow_url": f"{here}/actions/workflows/1",
            "pull_requests": [],
            "head_commit": None,
            "repository": _minimal(owner, name, here, page),
            "head_repository": _minimal(owner, name, here, page),
        }

    def _dispatched(self, body: Mapping[str, Any]) -> Said:
        inputs = body.get("inputs", {})
        if "return_run_details" in body and not self.tells_runs:
            return _error(400, '"return_run_details" is not a permitted key.')
        if body.get("ref") not in (self.ref, f"refs/heads/{self.ref}"):
            return _error(422, f"No ref found for: {body.get('ref')}")
        if unknown := sorted(set(inputs) - set(INPUTS)):
            return _error(422, f"Unexpected inputs provided: {json.dumps(unknown)}")
        target = inputs.get("target") or f"{inputs.get('tool')}-{inputs.get('base')}"
        number = self.add(f"build {target} {inputs.get('version', '')} [{inputs.get('key', '')}]")
        if not body.get("return_run_details"):
            return Said(status=204)
        told = self._told(self.runs[number - 1])
        return Said(status=200, body={"workflow_run_id": number, "run_url": told["url"], "html_url": told["html_url"]})


def _error(status: int, message: str) -> Said:
    return Said(status=status, body={"message": message, "documentation_url": "https://docs.github.com/rest"})


def _minimal(owner: str, name: str, here: str, page: str) -> dict[str, Any]:
    """A repository as far as it has to be told."""
    person = ("followers", "following", "gists", "starred", "subscriptions", "organizations", "repos", "events")
    user = {
        "login": owner,
        "id": 1,
        "node_id": "U1",
        "avatar_url": f"{page}/avatar",
        "gravatar_id": "",
        "url": f"{here}/user",
        "html_url": page,
        "received_events_url": f"{here}/user/received_events",
        "type": "User",
        "site_admin": False,
        **{f"{one}_url": f"{here}/user/{one}" for one in person},
    }
    parts: Iterable[str] = (
        *("archive", "assignees", "blobs", "branches", "collaborators", "comments", "commits", "compare", "contents"),
        *(
            "contributors",
            "deployments",
            "downloads",
            "events",
            "forks",
            "git_commits",
            "git_refs",
            "git_tags",
            "hooks",
        ),
        *("issue_comment", "issue_events", "issues", "keys", "labels", "languages", "merges", "milestones"),
        *("notifications", "pulls", "releases", "stargazers", "statuses", "subscribers", "subscription", "tags"),
        *("teams", "trees"),
    )
    return {
        "id": 1,
        "node_id": "R1",
        "name": name,
        "full_name": f"{owner}/{name}",
        "owner": user,
        "private": False,
        "html_url": page,
        "description": None,
        "fork": False,
        "url": here,
        **{f"{one}_url": f"{here}/{one}" for one in parts},
    }


def _handler(forge: GitHub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            heard = Heard(method=self.command, path=parts.path, query=parse_qs(parts.query), headers=headers, body=body)
            said = forge.answer(heard)
            if said is None:
                self.close_connection = True
                return
            content = said.body if isinstance(said.body, bytes) else b"" if said.body is None else _json(said.body)
            self.send_response(said.status)
            kind = "text/html" if isinstance(said.body, bytes) else "application/json; charset=utf-8"
            for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **said.headers}.items():
                if said.status != 204 or name != "Content-Length":
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_POST = do_GET  # noqa: N815 - as http.server looks for it

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class calls it so
            pass

    return Handler


def _json(body: object) -> bytes:
    return json.dumps(body).encode()
