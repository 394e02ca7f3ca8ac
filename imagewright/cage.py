"""The cage for a tool's script on this machine: what it sees, what it may use up, and that nothing of it is left.

On Linux a script gets PID and mount namespaces of its own: it sees its own processes only, its folder read-only, no home
directory and no engine's socket; when it ends, or has to, the kernel ends everything that it started. Where namespaces
cannot be made (macOS, some containers) its limits and its process group hold it, and a process that leaves the group is
not found.
https://man7.org/linux/man-pages/man7/pid_namespaces.7.html
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from imagewright import process

PROCESSES = 256
MEMORY = 2 * 2**30
"""Bytes of data for each process: https://man7.org/linux/man-pages/man2/getrlimit.2.html, RLIMIT_DATA."""

_SECONDS_TO_TRY = 10.0
_SIGNALLED = 128
"""A shell's exit code for a program that a signal ended, less the signal."""

SOCKETS = tuple(
    f"/run/{name}"
    for name in ("docker.sock", "podman/podman.sock", "containerd/containerd.sock", "buildkit/buildkitd.sock")
)
"""Where engines listen: whoever may speak to one can read the whole machine."""

_LIMITS = f"ulimit -c 0; ulimit -d {MEMORY // 1024} 2>/dev/null || true"
_OUTSIDE = f'{_LIMITS}; exec "$@"'
_INSIDE = f"""
set -e
folder=$1 home=$2 aside=$3 sockets=$4; shift 4
mount --bind "$folder" "$folder"
mount -o remount,bind,ro "$folder"
if [[ -n $home ]]; then
  kept=()
  while [[ $1 != -- ]]; do kept+=("$1"); shift; done
  for name in "${{kept[@]}}"; do mkdir -p "$aside/$name"; mount --bind "$home/$name" "$aside/$name"; done
  mount -t tmpfs -o size=64k,mode=755 tmpfs "$home"
  for name in "${{kept[@]}}"; do mkdir "$home/$name"; mount --bind "$aside/$name" "$home/$name"; done
fi
shift
for socket in $sockets; do
  [[ ! -S $socket ]] || mount --bind /dev/null "$socket"
done
[[ ! -d /run/user ]] || mount -t tmpfs -o size=64k,mode=755 tmpfs /run/user
cd "$folder"
unset OLDPWD
{_LIMITS}
status=0
exec 3>&2 2>/dev/null
setpriv --no-new-privs --inh-caps=-all --bounding-set=-all -- "$@" 2>&3 3>&- || status=$?
exit $status
"""
"""Run by the first process of the namespaces, which is not the script itself: signals do not end a first process.

What bash would say of a program that a signal ended goes nowhere.
"""


@dataclass(frozen=True, slots=True)
class Kind:
    """Which cage there is here. unshare: the command that makes the namespaces; empty where why_not says why not."""

    unshare: tuple[str, ...] = ()
    why_not: str = ""


def kind(path: str) -> Kind:
    """Which cage there is here, found by trying. path: where programs are looked for."""
    return _tried(path)


@cache
def _tried(path: str) -> Kind:
    if lacking := [name for name in ("unshare", "setpriv", "mount") if not shutil.which(name, path=path)]:
        return Kind(why_not=f"{lacking[0]} is not installed")
    user = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    unshare = ("unshare", *user, "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--")
    inside = 'mount --bind "$PWD" "$PWD" && setpriv --no-new-privs --inh-caps=-all --bounding-set=-all -- true'
    try:
        argv = [*unshare, "/bin/bash", "-c", inside]
        ended = process.run(argv, timeout=_SECONDS_TO_TRY, env={"PATH": path}, cwd=Path("/usr"))
    except process.NotStarted as error:
        return Kind(why_not=f"{error.filename}: {error.strerror}")
    if ended.status == 0:
        return Kind(unshare=unshare)
    said = ended.stderr.decode("utf-8", "replace").strip().splitlines()
    return Kind(why_not=said[-1] if said else f"unshare ended with {ended.status}")


def run(argv: Sequence[str], *, folder: Path, scratch: Path, timeout: float, env: Mapping[str, str]) -> process.Ended:
    """Runs `argv` in `folder`, which it can only read. How it ended; `process.NotStarted` if it cannot be run.

    scratch: holds `folder`, and the home and temporary folders that the program gets. env: all of its environment but the
    names of those. One that starts too many processes, or prints more than is kept, is ended.
    """
    home, temporary = scratch / "home", scratch / "tmp"
    home.mkdir()
    temporary.mkdir()
    own = {**env, "HOME": str(home), "TMPDIR": str(temporary)}
    found = kind(env.get("PATH", ""))
    if not found.unshare:
        wrapped = ["/bin/bash", "-c", _OUTSIDE, "cage", *argv]
        return process.run(wrapped, timeout=timeout, env=own, cwd=folder, ends=_floods)
    real = _home(env)
    kept = _kept(real, [scratch, *map(Path, env.get("PATH", "").split(os.pathsep))]) if real else []
    where = [str(folder), str(real or ""), str(scratch / "aside"), " ".join(SOCKETS), *kept]
    wrapped = [*found.unshare, "/bin/bash", "-c", _INSIDE, "cage", *where, "--", *argv]
    ended = process.run(wrapped, timeout=timeout, env=own, cwd=folder, ends=_runs_wild)
    return replace(ended, status=_SIGNALLED - ended.status) if ended.status > _SIGNALLED else ended


def _home(env: Mapping[str, str]) -> Path | None:
    """The home directory that is to be hidden; None where there is none to hide."""
    home = Path(env.get("HOME", ""))
    return home.resolve() if home.is_absolute() and home.is_dir() and home.resolve() != Path("/") else None


def _kept(home: Path, wanted: Sequence[Path]) -> list[str]:
    """What remains visible of a home directory: the folders in it without which programs, or the script, are not there."""
    inside = [one.resolve().relative_to(home) for one in wanted if one.is_dir() and one.resolve().is_relative_to(home)]
    return sorted({one.parts[0] for one in inside if one.parts})


def _floods(running: process.Watched) -> str:
    return f"printed more than {process.KEPT} bytes" if running.flooded else ""


def _runs_wild(running: process.Watched) -> str:
    if _crowd(running.pid) > PROCESSES:
        return f"started more than {PROCESSES} processes"
    return _floods(running)


def _crowd(leader: int) -> int:
    """How many processes there are in the PID namespace that the child of `leader` is the first of; 0 if it is gone."""
    try:
        first = Path(f"/proc/{leader}/task/{leader}/children").read_text("ascii").split()[0]
        seen = Path(f"/proc/{first}/root/proc")
        if seen.stat().st_dev == Path("/proc").stat().st_dev:
            return 0  # not its own yet: this would be a count of all that runs on this machine
        return sum(one.name.isdecimal() for one in seen.iterdir())
    except (OSError, IndexError):  # it has not begun yet, or has just ended
        return 0
