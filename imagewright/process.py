"""The one place that runs other programs: each in a process group, limited in time and output, nothing left behind."""

import contextlib
import os
import selectors
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

KEPT = 2**20
"""Bytes of each stream that are kept; what comes after is read and dropped."""

_INTERRUPTION_SECONDS = 1.0
_LOOK_SECONDS = 0.1

_live: set[int] = set()
_live_lock = threading.Lock()


class NotStarted(OSError):
    """The program is not there, or may not be run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a program ended. status: its exit code, or minus the signal. truncated: it printed more than is kept.

    stopped: why it was ended before its time, empty if it was not.
    """

    status: int
    stdout: bytes
    stderr: bytes
    seconds: float
    timed_out: bool
    truncated: bool
    stopped: str = ""


@dataclass(frozen=True, slots=True)
class Watched:
    """A program that runs. pid: of its process group. flooded: it printed more than is kept."""

    pid: int
    flooded: bool


def run(
    argv: Sequence[str],
    *,
    timeout: float,
    env: Mapping[str, str],
    cwd: Path | None = None,
    stdin: bytes = b"",
    on_line: Callable[[str], None] | None = None,
    ends: Callable[[Watched], str] | None = None,
) -> Ended:
    """Runs `argv` to its end and returns how it ended; whatever its status, that is no exception.

    timeout: seconds, after which its whole process group is killed. env: all of its environment. stdin: given to it,
    then closed. on_line: called with each line of stdout and stderr as it comes. ends: says why the program is to be
    ended now, if so; asked ten times a second. `NotStarted` if it cannot be run.
    """
    started = time.monotonic()
    child = _start(
        argv,
        cwd=cwd,
        env=dict(env),
        stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        if child.stdin:
            # Beside the reading: a program that never takes its input must not outlive its time limit.
            threading.Thread(target=_feed, args=(child.stdin, stdin), daemon=True).start()
        outputs, timed_out, stopped = _read(child, started + timeout, on_line, ends)
    except BaseException:
        # Somebody pressed Ctrl-C, or worse. Told so, a program can end what it has started in groups of their own.
        child.send_signal(signal.SIGINT)
        _await_end(child, _INTERRUPTION_SECONDS)
        raise
    finally:
        end_group(child.pid)
        child.wait()
        with _live_lock:
            _live.discard(child.pid)
        for pipe in (child.stdout, child.stderr):
            if pipe:
                pipe.close()
    (stdout, cut), (stderr, cut_too) = outputs
    return Ended(
        status=child.returncode,
        stdout=stdout,
        stderr=stderr,
        seconds=time.monotonic() - started,
        timed_out=timed_out,
        truncated=cut or cut_too,
        stopped=stopped,
    )


def _start(argv: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
    """Starts a program in a group of its own, which `end_all` knows of from its first moment on. `NotStarted`."""
    with _live_lock:
        try:
            child: subprocess.Popen[bytes] = subprocess.Popen(argv, start_new_session=True, **options)
        except OSError as error:
            raise NotStarted(error.errno, error.strerror or str(error), argv[0]) from None
        _live.add(child.pid)
    return child


class Running:
    """A program that runs beside this one, as `running` started it."""

    def __init__(self, child: subprocess.Popen[bytes]) -> None:
        self._child = child

    @property
    def status(self) -> int | None:
        """Its exit code, or minus the signal; None while it runs."""
        return self._child.poll()


@contextlib.contextmanager
def running(argv: Sequence[str], *, env: Mapping[str, str], output: Path, grace: float) -> Iterator[Running]:
    """Runs `argv` for as long as the block lasts, its outputs into the file `output`.

    At the end, however it comes, the program is asked to end (SIGTERM); after `grace` seconds its process group is
    killed. `NotStarted` if it cannot be run.
    """
    with output.open("wb") as file:
        child = _start(argv, env=dict(env), stdin=subprocess.DEVNULL, stdout=file, stderr=file)
    try:
        yield Running(child)
    finally:
        child.terminate()
        _await_end(child, grace)
        end_group(child.pid)
        child.wait()
        with _live_lock:
            _live.discard(child.pid)


def _await_end(child: subprocess.Popen[bytes], seconds: float) -> None:
    """Waits without reaping: until its group is killed, the number of its group must not become another's."""
    deadline = time.monotonic() + seconds
    while child.returncode is None and time.monotonic() < deadline:
        if os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT | os.WNOHANG):
            return
        time.sleep(0.01)


def _feed(pipe: IO[bytes], content: bytes) -> None:
    with contextlib.suppress(BrokenPipeError), pipe:  # it does not want its input
        pipe.write(content)


def end_group(leader: int) -> None:
    """Kills the process group of `leader`, if anything of it is left."""
    with contextlib.suppress(ProcessLookupError, PermissionError):  # all gone; on macOS: only zombies left
        os.killpg(leader, signal.SIGKILL)


def end_all() -> None:
    """Kills the process groups of all programs of `run` and `running`, in any thread. For the way out."""
    with _live_lock:
        leaders = list(_live)
    for leader in leaders:
        end_group(leader)


class _Stream:
    def __init__(self, on_line: Callable[[str], None] | None) -> None:
        self.kept = bytearray()
        self.cut = False
        self._on_line = on_line
        self._line = bytearray()

    def feed(self, chunk: bytes) -> None:
        room = KEPT - len(self.kept)
        self.kept += chunk[:room]
        self.cut = self.cut or len(chunk) > room
        if self._on_line:
            *lines, rest = (bytes(self._line) + chunk).split(b"\n")
            for line in lines:
                self._on_line(line.decode("utf-8", "replace").rstrip("\r"))
            self._line = bytearray(rest[:KEPT])

    def end(self) -> tuple[bytes, bool]:
        if self._on_line and self._line:
            self._on_line(self._line.decode("utf-8", "replace").rstrip("\r"))
        return bytes(self.kept), self.cut


def _read(
    child: subprocess.Popen[bytes],
    deadline: float,
    on_line: Callable[[str], None] | None,
    ends: Callable[[Watched], str] | None,
) -> tuple[list[tuple[bytes, bool]], bool, str]:
    """Both outputs to their end; whether the deadline ended them; why the program was ended before, if it was.

    A background process of the child may keep the pipes open: once the child has ended, its group is killed.
    """
    streams = {pipe: _Stream(on_line) for pipe in (child.stdout, child.stderr) if pipe}
    timed_out, stopped = False, ""
    next_look = time.monotonic()
    with selectors.DefaultSelector() as selector:
        for pipe in streams:
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            now = time.monotonic()
            if ends and not stopped and not timed_out and now >= next_look:
                next_look = now + _LOOK_SECONDS
                if stopped := ends(Watched(child.pid, any(one.cut for one in streams.values()))):
                    end_group(child.pid)
                    deadline = min(deadline, now + 1)
            if now >= deadline:
                # One second for the kernel to close the pipes of what was killed; who fled the group is not waited for.
                if timed_out or stopped or child.poll() is not None:
                    break
                timed_out = True
                end_group(child.pid)
                deadline = now + 1
            for key, _ in selector.select(min(0.1, max(deadline - now, 0))):
                chunk = os.read(key.fd, 65536)
                if chunk:
                    streams[key.fileobj].feed(chunk)  # type: ignore[index]
                else:
                    selector.unregister(key.fileobj)
            if child.poll() is not None and not timed_out and selector.get_map():
                end_group(child.pid)
                deadline = min(deadline, time.monotonic() + 1)
    if child.poll() is None:
        # Its pipes are closed, yet it runs on.
        try:
            child.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            timed_out = True
    return [stream.end() for stream in streams.values()], timed_out and not stopped, stopped
