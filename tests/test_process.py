"""Other programs are run with limits, and nothing of them is left behind."""

import os
import threading
import time

import pytest

from imagewright.process import NotStarted, end_all, run

ENV = {"PATH": os.defpath}


def bash(script, timeout=20, **more):
    return run(["bash", "-c", script], timeout=timeout, env=ENV, **more)


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] not in ("Z", "X")
    except FileNotFoundError:
        return False


def gone(pid):
    for _ in range(100):
        if not alive(pid):
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(
    ("script", "status", "stdout", "stderr"),
    [
        ("true", 0, b"", b""),
        ("echo out; echo err >&2", 0, b"out\n", b"err\n"),
        ("echo out; exit 7", 7, b"out\n", b""),
        ("kill -9 $$", -9, b"", b""),
        ("printf '\\377\\000'", 0, b"\xff\0", b""),
    ],
)
def test_how_a_program_ended_is_told_and_is_no_exception(script, status, stdout, stderr):
    ended = bash(script)
    assert (ended.status, ended.stdout, ended.stderr) == (status, stdout, stderr)
    assert (ended.timed_out, ended.truncated) == (False, False)
    assert 0 < ended.seconds < 20


def test_a_program_gets_the_environment_and_folder_it_is_given_and_no_other(tmp_path):
    assert bash("pwd", cwd=tmp_path).stdout == f"{tmp_path}\n".encode()
    ended = run(["/usr/bin/env"], timeout=20, env={"ONLY": "this"})
    assert ended.stdout == b"ONLY=this\n"


@pytest.mark.parametrize("given", [b"", b"text", b"x" * 1_000_000])
def test_a_program_gets_its_input_to_the_end(given):
    assert bash("cat", stdin=given).stdout == given


def test_a_program_may_leave_its_input_unread():
    assert bash("exec 0<&-; exit 3", stdin=b"x" * 1_000_000).status == 3


def test_input_that_nobody_takes_stretches_no_time_limit():
    started = time.monotonic()
    assert bash("sleep 300", timeout=0.5, stdin=b"x" * 1_000_000).timed_out
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("trap", ["", "trap '' TERM; "])
def test_at_its_time_limit_a_program_is_ended_with_its_children(tmp_path, trap):
    pid = tmp_path / "pid"
    started = time.monotonic()
    ended = bash(f"{trap}echo before; sleep 300 & echo $! > {pid}; sleep 300", timeout=0.5)
    assert (ended.timed_out, ended.status, ended.stdout) == (True, -9, b"before\n")
    assert time.monotonic() - started < 5
    assert gone(int(pid.read_text()))


def test_a_program_that_closes_its_outputs_and_stays_is_ended_too():
    started = time.monotonic()
    ended = bash("exec >&- 2>&-; sleep 300", timeout=0.5)
    assert (ended.timed_out, ended.status) == (True, -9)
    assert time.monotonic() - started < 5


def test_who_fled_the_group_with_the_pipe_is_not_waited_for(tmp_path):
    pid = tmp_path / "pid"
    started = time.monotonic()
    ended = bash(f"setsid bash -c 'echo $$ > {pid}; exec sleep 20' & while [ ! -s {pid} ]; do :; done; echo 1")
    os.kill(int(pid.read_text()), 9)
    assert (ended.status, ended.stdout, ended.timed_out) == (0, b"1\n", False)
    assert time.monotonic() - started < 10


def test_output_is_kept_up_to_a_limit_and_read_to_its_end():
    ended = bash("head -c 3000000 /dev/zero; echo err >&2")
    assert (ended.status, len(ended.stdout), ended.stderr, ended.truncated) == (0, 2**20, b"err\n", True)
    exact = bash("head -c 1048576 /dev/zero")
    assert (len(exact.stdout), exact.truncated) == (2**20, False)


def test_lines_are_told_as_they_come():
    lines = []
    bash("echo a; sleep 0.1; echo b >&2; sleep 0.1; printf 'c\\r\\nlast'", on_line=lines.append)
    assert lines == ["a", "b", "c", "last"]


@pytest.mark.parametrize(
    ("name", "what"),
    [("/nowhere/at/all", "No such file or directory"), ("/etc/passwd", "Permission denied")],
)
def test_what_cannot_be_started_is_said(name, what):
    with pytest.raises(NotStarted) as caught:
        run([name], timeout=1, env=ENV)
    assert (caught.value.strerror, caught.value.filename) == (what, name)


def test_all_that_runs_in_any_thread_can_be_ended(tmp_path):
    pid, ended = tmp_path / "pid", []
    thread = threading.Thread(target=lambda: ended.append(bash(f"echo $$ > {pid}; sleep 300", timeout=300)))
    thread.start()
    while not pid.is_file() or not pid.read_text().strip():
        time.sleep(0.01)
    end_all()
    thread.join(10)
    assert [one.status for one in ended] == [-9]
    assert gone(int(pid.read_text()))
