"""What a `version.sh` may do wrong: it costs that tool its verdict, and nothing else."""

import contextlib
import os
import shutil
import socket
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from imagewright import cage
from imagewright.catalogue import Tool
from imagewright.reasons import Unknown
from imagewright.snapshot import Reading
from imagewright.versions import on_host
from tests.engine_stand_in import gone, processes

PROGRAMS = ("bash", "cat", "sleep", "env", "grep", "head", "rm", "touch", "yes", "ls", "tr", "setsid", "python3")
"""What scripts of these tests call. Without `unshare` among them there are no namespaces."""

FAILED, TIMEOUT, FORMAT = Unknown.VERSION_FAILED, Unknown.VERSION_TIMEOUT, Unknown.VERSION_FORMAT


@dataclass(frozen=True, slots=True)
class Place:
    """Where scripts run: the environment of a person, with a home directory in which there is a secret."""

    root: Path
    env: dict[str, str]
    has_namespaces: bool

    @property
    def home(self) -> Path:
        return self.root / "home"

    def read(self, script: str | bytes, timeout: float = 20) -> Reading:
        folder = self.root / "tools" / "codex"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "version.sh").write_bytes(script if isinstance(script, bytes) else script.encode())
        return on_host(Tool(name="codex", folder=folder), timeout, self.env)


def place(root: Path, path: str, *, has_namespaces: bool) -> Place:
    home = root / "home"
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text('{"auths": {"ghcr.io": {"auth": "S3CRET"}}}')
    env = {"PATH": path, "HOME": str(home), "LANG": "C", "GITHUB_TOKEN": "S3CRET", "REGISTRY_AUTH_FILE": "S3CRET"}
    return Place(root, env, has_namespaces)


@pytest.fixture
def caged(tmp_path: Path) -> Place:
    """With namespaces."""
    made = place(tmp_path, os.defpath, has_namespaces=True)
    if why := cage.kind(os.defpath).why_not:
        pytest.skip(f"needs namespaces, which cannot be made here: {why}")
    return made


@pytest.fixture
def grouped(tmp_path: Path) -> Place:
    """Without namespaces, as on macOS: the process group is all there is."""
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in PROGRAMS:
        found = shutil.which(name, path=os.defpath)
        assert found, name
        (programs / name).symlink_to(found)
    assert cage.kind(str(programs)).why_not == "unshare is not installed"
    return place(tmp_path, str(programs), has_namespaces=False)


@pytest.fixture(params=["caged", "grouped"])
def anywhere(request: pytest.FixtureRequest) -> Place:
    made: Place = request.getfixturevalue(request.param)
    return made


Row = tuple[str, str | bytes, str | None, Unknown | None, str]
ROWS: tuple[Row, ...] = (
    ("C1 newline", "echo 1.2.3", "1.2.3", None, ""),
    ("C1 no newline", "printf 1.2.3", "1.2.3", None, ""),
    ("C1 carriage return", r"printf '1.2.3\r\n'", "1.2.3", None, ""),
    ("C1 script with carriage returns", b"#!/bin/bash\r\necho 1.2.3\r\n", "1.2.3", None, ""),
    ("C1 blanks at the end", "echo '1.2.3  '", None, FORMAT, "printed '1.2.3  ', which is no version"),
    ("C2 nothing", "true", None, FORMAT, "printed nothing"),
    ("C2 a newline", "echo", None, FORMAT, "printed nothing"),
    ("C2 two lines", "echo 1; echo 2", None, FORMAT, "printed 2 lines, the first is '1'"),
    ("C2 a megabyte", "head -c 1000000 /dev/zero | tr '\\0' 1", None, FORMAT, "printed 1000000 bytes"),
    ("C2 NUL", r"printf '1.2\0.3\n'", None, FORMAT, r"printed '1.2\x00.3', which is no version"),
    ("C2 not UTF-8", r"printf '1.2\xff\n'", None, FORMAT, r"printed '1.2\\xff\n'"),
    ("C3 exit 1 with a version", "echo 1.2.3; exit 1", None, FAILED, "exit status 1"),
    ("C3 noise", "echo noise >&2; echo 1.2.3", "1.2.3", None, ""),
    ("C3 SIGKILL", "echo 1.2.3; kill -9 $$", None, FAILED, "killed by signal 9"),
    ("C3 SIGTERM", "echo 1.2.3; kill -TERM $$", None, FAILED, "killed by signal 15"),
    ("C3 SIGSEGV", "echo 1.2.3; kill -SEGV $$", None, FAILED, "killed by signal 11"),
    ("C7 $(id)", "echo '$(id)'", None, FORMAT, "printed '$(id)', which is no version"),
    ("C7 `id`", "echo '`id`'", None, FORMAT, "printed '`id`', which is no version"),
    ("C7 ;rm -rf", "echo ';rm -rf 1'", None, FORMAT, "printed ';rm -rf 1', which is no version"),
    ("C7 ../../x", "echo ../../x1", None, FORMAT, "printed '../../x1', which is no version"),
    ("C7 -rf", "echo -- -rf1", None, FORMAT, "printed '-- -rf1', which is no version"),
    ("C7 --help", "echo --help", None, FORMAT, "printed '--help', which is no version"),
    ("C7 latest", "echo latest", None, FORMAT, "printed 'latest', which is no version"),
    ("C8 rate limit", "echo API rate limit exceeded", None, FORMAT, "printed 'API rate limit exceeded', which is no version"),
    ("C8 HTML", "echo '<html>60</html>'", None, FORMAT, "printed '<html>60</html>', which is no version"),
    ("C8 no network", "echo no route >&2; exit 7", None, FAILED, "exit status 7, it says 'no route'"),
    ("terminal control", r"printf '\033]0;x\007' >&2; exit 1", None, FAILED, r"exit status 1, it says '\x1b]0;x\x07'"),
    ("workflow command", "echo '::error::1' ", None, FORMAT, "printed '::error::1', which is no version"),
    ("floods stdout", "yes", None, FAILED, "printed more than 1048576 bytes"),
    ("floods stderr", "yes >&2", None, FAILED, "printed more than 1048576 bytes"),
    ("reads what is not there", "cat; echo 1.2.3", "1.2.3", None, ""),
)  # fmt: skip


@pytest.mark.parametrize(
    ("script", "version", "reason", "detail"), [row[1:] for row in ROWS], ids=[row[0] for row in ROWS]
)
def test_a_script_costs_its_tool_the_verdict_and_no_more(
    anywhere: Place, script: str | bytes, version: str | None, reason: Unknown | None, detail: str
) -> None:
    found = anywhere.read(script)
    assert (found.version, found.reason, found.detail) == (version, reason, detail)
    assert found.seconds < 10


# C4: what does not end by itself.

HANGS = {
    "hangs": "sleep {mark}",
    "ignores signals": "trap '' TERM INT HUP QUIT; sleep {mark}; sleep {mark}",
    "leaves children": "sleep {mark} & (sleep {mark} & wait) & sleep {mark}",
    "closes its outputs": "exec >&- 2>&-; sleep {mark}",
}
_marks = iter(f"300.{number:04}" for number in range(1, 9999))


@pytest.mark.parametrize("script", HANGS.values(), ids=HANGS)
def test_a_script_that_hangs_is_ended_with_all_that_it_started(anywhere: Place, script: str) -> None:
    mark = next(_marks)
    found = anywhere.read(script.format(mark=mark), timeout=0.7)
    assert (found.reason, found.detail) == (TIMEOUT, "did not end within 0.7 s")
    assert found.seconds < 5
    assert gone(processes(mark))


def test_what_a_script_leaves_in_the_background_is_ended(anywhere: Place) -> None:
    mark = next(_marks)
    found = anywhere.read(f"sleep {mark} & echo 1.0")
    assert (found.version, found.seconds < 5) == ("1.0", True)
    assert gone(processes(mark))


def test_what_leaves_its_process_group_is_ended_too(caged: Place) -> None:
    mark = next(_marks)
    assert caged.read(f"setsid sleep {mark} >/dev/null 2>&1 & echo 1.0").version == "1.0"
    assert gone(processes(mark))


def test_a_script_that_starts_processes_without_end_is_ended(caged: Place) -> None:
    began = time.monotonic()
    found = caged.read("bomb() { bomb | bomb & }; bomb; sleep 60", timeout=30)
    assert (found.reason, found.detail) == (FAILED, "started more than 256 processes")
    assert time.monotonic() - began < 20


def test_only_its_own_processes_are_counted(caged: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cage, "PROCESSES", 6)  # on this machine there are more
    assert len([one for one in Path("/proc").iterdir() if one.name.isdecimal()]) > 6
    assert {caged.read("sleep 0.15; echo 1.0").version for _ in range(20)} == {"1.0"}


def test_a_script_that_takes_all_memory_is_ended(anywhere: Place) -> None:
    found = anywhere.read("python3 -c 'x = bytearray(3 * 2**30)'; echo $?; exit 3")
    assert (found.reason, found.detail) == (FAILED, "exit status 3, it says 'MemoryError'")


# What it sees.


def test_a_script_sees_nothing_of_the_environment_but_what_it_needs(anywhere: Place) -> None:
    names = "PATH|HOME|TMPDIR|LANG|PWD|SHLVL|_"
    assert anywhere.read(f"env | grep -Ev '^({names})=' >&2; exit 9").detail == "exit status 9"


def test_a_script_has_a_home_directory_of_its_own(anywhere: Place) -> None:
    assert anywhere.read("ls -A ~ >&2; exit 9").detail == "exit status 9"


def test_a_script_finds_no_home_directory(caged: Place) -> None:
    path = caged.home / ".docker" / "config.json"
    found = caged.read(f"cat {path}")
    assert found.detail == f"exit status 1, it says 'cat: {path}: No such file or directory'"


def test_a_script_reaches_no_engine(caged: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "docker.sock"
    monkeypatch.setattr(cage, "SOCKETS", ("/nowhere/podman.sock", str(path)))
    connects = f"""python3 -c 'import socket; socket.socket(socket.AF_UNIX).connect("{path}")'; echo 1.0"""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as engine:
        engine.bind(str(path))
        engine.listen()
        engine.settimeout(0.1)
        assert caged.read(connects).version == "1.0"
        with pytest.raises(TimeoutError):
            engine.accept()


def test_programs_in_a_home_directory_are_found_all_the_same(caged: Place) -> None:
    program = caged.home / ".local" / "bin" / "what-version"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/bash\necho 7.8\n")
    program.chmod(0o755)
    caged.env["PATH"] = f"{program.parent}:{os.defpath}"
    assert caged.read("what-version").version == "7.8"
    assert caged.read(f"ls -A {caged.home}; exit 4").detail == "exit status 4"
    assert caged.read(f"ls -A {caged.home} | tr '\\n' ' ' >&2; exit 4").detail == "exit status 4, it says '.local'"


def test_a_script_sees_no_other_process(caged: Place) -> None:
    found = caged.read("grep -l S3CRET /proc/*/environ /proc/*/cmdline; ls /proc | grep -c '^[0-9]' >&2; exit 9")
    assert found.reason is FAILED
    assert int(found.detail.rpartition("'")[0].rpartition("'")[2]) < 10


def test_a_script_can_only_read_its_folder(caged: Place) -> None:
    assert caged.read("touch new || exit 9").detail.startswith("exit status 9, it says 'touch: cannot touch ")


def test_a_script_may_write_where_it_is_told_to(anywhere: Place) -> None:
    assert anywhere.read('echo 1.0 >"$TMPDIR/x"; cat "$TMPDIR/x" >~/y; cat ~/y').version == "1.0"
    assert sorted(one.name for one in anywhere.home.iterdir()) == [".docker"]


def test_the_scratch_folder_is_removed_whatever_a_script_leaves_there(anywhere: Place, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(scratch))
        anywhere.read("mkdir -p ~/a/b; touch ~/a/b/c; chmod 0 ~/a/b; echo 1.0" if os.geteuid() == 0 else "echo 1.0")
    assert list(scratch.iterdir()) == []


def test_a_script_without_the_bit_to_run_is_run(anywhere: Place) -> None:
    assert anywhere.read("echo 1.0").version == "1.0"
    script = anywhere.root / "tools" / "codex" / "version.sh"
    assert not stat.S_IMODE(script.stat().st_mode) & 0o111


# C12


@pytest.mark.parametrize(
    ("make", "detail"),
    [
        (lambda path: None, "there is no version.sh"),
        (lambda path: path.mkdir(), "there is no version.sh"),
    ],
    ids=["C12 absent", "C12 a folder"],
)
def test_without_a_script_the_version_is_unknown(anywhere: Place, make: Callable[[Path], None], detail: str) -> None:
    folder = anywhere.root / "tools" / "gemini"
    folder.mkdir(parents=True)
    make(folder / "version.sh")
    found = on_host(Tool(name="gemini", folder=folder), 5, anywhere.env)
    assert (found.reason, found.detail) == (FAILED, detail)
