"""A real forge: Gitea with its own Actions and one runner that works on this machine, for as long as a `with` block lasts."""

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.engines.daemons import free_port, scratch_folder

OWNER = "own"
LABELS = ("ubuntu-24.04", "ubuntu-24.04-arm")
CHECKOUT = """\
name: checkout
description: A stand-in for the action of that name, with what our workflows ask of it.
inputs:
  ref: {description: what to check out, default: ""}
  fetch-depth: {description: unused, default: "1"}
  persist-credentials: {description: never, default: "false"}
runs:
  using: composite
  steps:
    - shell: bash
      env: {REF: "${{ inputs.ref }}", TOKEN: "${{ github.token }}"}
      run: |
        git init -q .
        git -c "http.extraheader=Authorization: Bearer $TOKEN" \\
          fetch -q "$GITHUB_SERVER_URL/$GITHUB_REPOSITORY" "${REF:-$GITHUB_SHA}"
        git checkout -q --detach FETCH_HEAD
"""

_INI = """\
APP_NAME = forge
RUN_USER = {user}
RUN_MODE = prod
WORK_PATH = {root}
I_AM_BEING_UNSAFE_RUNNING_AS_ROOT = true
[database]
DB_TYPE = sqlite3
PATH = {root}/gitea.db
[repository]
ROOT = {root}/repositories
[server]
HTTP_ADDR = 127.0.0.1
HTTP_PORT = {port}
ROOT_URL = http://127.0.0.1:{port}/
DOMAIN = 127.0.0.1
DISABLE_SSH = true
OFFLINE_MODE = true
STATIC_ROOT_PATH = {static}
[actions]
ENABLED = true
DEFAULT_ACTIONS_URL = self
ZOMBIE_TASK_TIMEOUT = 10s
[security]
INSTALL_LOCK = true
[service]
DISABLE_REGISTRATION = true
[log]
MODE = file
ROOT_PATH = {root}/log
logger.access.MODE = access
[log.access]
MODE = file
FILE_NAME = access.log
[cron.start_schedule_tasks]
ENABLED = true
SCHEDULE = @every 5s
[cron.stop_zombie_tasks]
SCHEDULE = @every 2s
"""


@dataclass(frozen=True)
class Gitea:
    """The server, as its one user. token: for the API and for git."""

    address: str
    token: str
    root: Path

    @property
    def api(self) -> str:
        """The address of its API."""
        return f"{self.address}/api/v1"

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """A request to the API; its answer's JSON."""
        request = urllib.request.Request(
            f"{self.api}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def runs(self, repository: str, workflow: str = "") -> list[dict[str, Any]]:
        """The runs of a repository, newest first."""
        found = self.ask("GET", f"/repos/{OWNER}/{repository}/actions/runs?limit=50")["workflow_runs"]
        return [one for one in found if one["path"].startswith(workflow)]

    def run(self, repository: str, run: int) -> dict[str, Any]:
        """A run, by its number."""
        found: dict[str, Any] = self.ask("GET", f"/repos/{OWNER}/{repository}/actions/runs/{run}")
        return found

    def jobs(self, repository: str, run: int) -> list[dict[str, Any]]:
        """The jobs of a run."""
        found: list[dict[str, Any]] = self.ask("GET", f"/repos/{OWNER}/{repository}/actions/runs/{run}/jobs")["jobs"]
        return found

    def dispatch(self, repository: str, workflow: str, inputs: Mapping[str, str]) -> int:
        """Asks for a run of a workflow on `main`; its number."""
        path = f"/repos/{OWNER}/{repository}/actions/workflows/{workflow}/dispatches?return_run_details=true"
        return int(self.ask("POST", path, {"ref": "main", "inputs": inputs})["workflow_run_id"])

    def log(self, repository: str, run: int) -> str:
        """What the jobs of a run wrote."""
        texts = []
        for job in self.jobs(repository, run):
            request = urllib.request.Request(
                f"{self.api}/repos/{OWNER}/{repository}/actions/jobs/{job['id']}/logs",
                headers={"Authorization": f"token {self.token}"},
            )
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    text = answer.read().decode("utf-8", "replace")
            except urllib.error.HTTPError as error:
                text = f"no log: {error}"
            texts.append(f"--- {job['name']}: {job.get('conclusion') or job['status']}\n{text}")
        return "\n".join(texts)

    def push(self, repository: str, folder: Path, *references: str) -> None:
        """Pushes a folder's repository; it is made where it is not there yet."""
        try:
            self.ask("POST", "/user/repos", {"name": repository, "private": True, "default_branch": "main"})
        except urllib.error.HTTPError as error:
            assert error.code == 409, error
        where = f"{self.address.replace('://', f'://{OWNER}:{self.token}@')}/{OWNER}/{repository}.git"
        subprocess.run(["git", "push", "-q", where, *references], cwd=folder, check=True, capture_output=True)

    def heard(self, agent: str) -> list[str]:
        """The requests of a user agent so far, as `GET /path`, oldest first."""
        log, mark = self.root / "log" / "access.log", f"mark={time.monotonic_ns()}"
        self.ask("GET", f"/version?{mark}")
        self.waits(lambda: mark in log.read_text(), 20, "the forge's log")
        return re.findall(rf'"([A-Z]+ \S+) HTTP/[^"]*".* "{agent}"$', log.read_text(), re.MULTILINE)

    def waits(self, holds: Callable[[], bool], seconds: float, what: str) -> None:
        """Returns when something holds."""
        until = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < until, f"{what}: not within {seconds} s"
            time.sleep(0.5)


@contextmanager
def forge(engine_folder: Path, environ: Mapping[str, str]) -> Iterator[tuple[Gitea, "Runner"]]:
    """Starts one. environ: what jobs find around them, as on a machine that somebody has set up."""
    program = (engine_folder / "bin" / "gitea").resolve()
    with scratch_folder("gitea") as root:
        port = free_port()
        (root / "custom" / "conf").mkdir(parents=True)
        (root / "home").mkdir()
        ini = _INI.format(user=os.environ.get("USER", "root"), root=root, port=port, static=program.parent)
        (root / "custom" / "conf" / "app.ini").write_text(ini)
        own = {"PATH": os.environ["PATH"], "HOME": str(root / "home"), "GITEA_WORK_DIR": str(root)}

        def say(*arguments: str) -> str:
            ran = subprocess.run([program, *arguments], env=own, capture_output=True, text=True, check=True)
            return ran.stdout.strip().splitlines()[-1] if ran.stdout.strip() else ""

        say("migrate")
        create = ["admin", "user", "create", "--username", OWNER, "--password", "not-a-secret-0", "--admin"]
        say(*create, "--email", "own@example.test", "--must-change-password=false")
        ask_token = ["admin", "user", "generate-access-token", "--username", OWNER, "--token-name", "t"]
        token = say(*ask_token, "--scopes", "all", "--raw")
        made = Gitea(f"http://127.0.0.1:{port}", token, root)
        process = _started([str(program), "web"], own, root / "web.log")
        try:
            made.waits(lambda: _answers(made), 30, "gitea")
            runner = Runner(engine_folder, made, own | dict(environ))
            runner.register(say("actions", "generate-runner-token"))
            runner.start()
            try:
                yield made, runner
            finally:
                runner.stop()
        finally:
            _end(process)


def _answers(gitea: Gitea) -> bool:
    try:
        return bool(gitea.ask("GET", "/version"))
    except (urllib.error.URLError, ConnectionError):
        return False


class Runner:
    """What runs jobs, on this machine. It can be killed, and started again."""

    def __init__(self, engine_folder: Path, gitea: Gitea, environ: Mapping[str, str]) -> None:
        self._program = str(engine_folder / "bin" / "runner")
        self._folder = gitea.root / "runner"
        self._environ = dict(environ)
        self._gitea = gitea
        self._process: subprocess.Popen[bytes] | None = None

    def register(self, token: str) -> None:
        """Makes it known to the forge."""
        self._folder.mkdir()
        settings = {
            "runner": {
                "file": ".runner",
                "capacity": 3,
                "timeout": "1h",
                "fetch_interval": "1s",
                "fetch_interval_max": "1s",
                "log_report_interval": "1s",
                "state_report_interval": "1s",
                "labels": [f"{one}:host" for one in LABELS],
                "envs": self._environ,
            },
            "cache": {"enabled": False},
            "host": {"workdir_parent": str(self._folder / "work")},
        }
        (self._folder / "config.yaml").write_text(json.dumps(settings))
        argv = [self._program, "register", "--no-interactive", "-c", "config.yaml", "--name", "here"]
        argv += ["--instance", self._gitea.address, "--token", token]
        subprocess.run(argv, cwd=self._folder, env=self._environ, check=True, capture_output=True)

    def start(self) -> None:
        """Lets it work."""
        argv = [self._program, "daemon", "-c", "config.yaml"]
        self._process = _started(argv, self._environ, self._folder / "log", self._folder)

    def kill(self) -> None:
        """Ends it and whatever it runs, as a machine that is switched off."""
        assert self._process
        doomed = [self._process.pid, *_below(self._process.pid)]
        for one in doomed:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        self._process.wait()

    def stop(self) -> None:
        """Ends it."""
        assert self._process
        _end(self._process)


def _below(process: int) -> list[int]:
    """All that a process has started, and what these have."""
    found = subprocess.run(["pgrep", "-P", str(process)], capture_output=True, text=True, check=False).stdout.split()
    return [one for child in map(int, found) for one in (child, *_below(child))]


def _started(
    argv: list[str], environ: Mapping[str, str], log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(
            argv, env=dict(environ), cwd=cwd, stdout=file, stderr=file, stdin=subprocess.DEVNULL, start_new_session=True
        )


def _end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(timeout=20)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
