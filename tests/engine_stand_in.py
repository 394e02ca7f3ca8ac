"""A container engine that needs no rights: it obeys docker's and podman's commands, and its containers are processes.

As with a real engine they live on without their client, and only `rm` ends them.
"""

import json
import shlex
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from imagewright import containers

REFERENCE = "registry.example/own/util:version-check-latest"
DIGEST = f"sha256:{'d' * 64}"

_PROGRAM = """\
#!/bin/bash
here={here}
printf '%s\\n' "$*" >>"$here/calls"
complain() {{ echo "$1" >&2; exit "${{2:-125}}"; }}
case $1 in
  info) cat "$here/info"; [[ ! -e $here/away ]] || complain 'Cannot connect to the daemon' 1 ;;
  image) [[ -e $here/image ]] || complain "Error: no such image: $3" 1; cat "$here/image" ;;
  pull) [[ -e $here/remote ]] || complain "Error: manifest unknown"; cp "$here/remote" "$here/image" ;;
  rm)
    for name; do
      [[ -e $here/live/$name ]] || continue
      kill -KILL -- "-$(cat "$here/live/$name")"
      rm "$here/live/$name"
      echo "$name"
    done ;;
  run)
    [[ ! -e $here/refuses ]] || complain "Error: $(cat "$here/refuses")"
    shift
    environment=(HOME=/tmp "PATH=$PATH" CONTAINER=yes)
    while [[ $1 == -* ]]; do
      case $1 in
        --name) name=$2 ;;
        --env) [[ $2 == *=* ]] || environment+=("$2=${{!2}}") ;;
        --mount) [[ $2 != *target=/tool,* ]] || {{ folder=${{2#*source=}}; folder=${{folder%%,target*}}; }} ;;
        --entrypoint) entrypoint=$2 ;;
        --rm | --read-only) shift; continue ;;
      esac
      shift 2
    done
    cd "${{folder:-/}}"
    setsid env -i "${{environment[@]}}" "$entrypoint" "${{@:2}}" </dev/null &
    echo $! >"$here/live/$name"
    wait $! 2>/dev/null
    status=$?
    rm -f "$here/live/$name"
    exit $status ;;
esac
"""


@dataclass(frozen=True)
class StandIn:
    """An engine's client in the folder `bin`; its other files say how it behaves and what it was asked."""

    bin: Path
    here: Path
    name: str

    @property
    def path(self) -> str:
        """PATH, with the client before all others."""
        return f"{self.bin}:/usr/bin:/bin"

    @property
    def calls(self) -> list[str]:
        """What it was asked, the words of each call with blanks between them."""
        file = self.here / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def asked(self, verb: str) -> list[str]:
        """Those of its calls."""
        return [one for one in self.calls if one.split()[0] == verb]

    @property
    def live(self) -> list[str]:
        """Names of its containers."""
        return sorted(one.name for one in (self.here / "live").iterdir())

    def away(self) -> None:
        """Its daemon is not running."""
        (self.here / "away").touch()

    def refuse(self, why: str) -> None:
        """It starts no container."""
        (self.here / "refuses").write_text(why)

    def tell(self, info: object) -> None:
        """What it says about itself."""
        (self.here / "info").write_text(json.dumps(info))

    def have(self, where: str = "remote", platform: str = "linux/amd64") -> None:
        """The image: here already (`image`), or to be pulled (`remote`)."""
        os_name, _, architecture = platform.partition("/")
        told = {
            "Id": f"{architecture}-id",
            "Digest": f"sha256:{'1' * 64}",
            "RepoDigests": [f"registry.example/own/util@sha256:{'1' * 64}", f"registry.example/own/util@{DIGEST}"],
            "Os": os_name,
            "Architecture": architecture,
        }
        (self.here / where).write_text(json.dumps([told]))


PODMAN = {"host": {"os": "linux", "arch": "amd64", "cgroupControllers": ["cpu", "memory", "pids"]}}
DOCKER = {"OSType": "linux", "Architecture": "x86_64", "PidsLimit": True, "MemoryLimit": True}


def stand_in(folder: Path, name: str) -> StandIn:
    """A client called `name` below `folder`, whose engine runs and has no image. Engines of this machine are hidden."""
    made = StandIn(bin=folder / "bin", here=folder / name, name=name)
    made.bin.mkdir(exist_ok=True)
    for hidden in containers.NAMES:
        if not (made.bin / hidden).exists():
            (made.bin / hidden).write_text("#!/bin/bash\necho hidden >&2; exit 1\n")
            (made.bin / hidden).chmod(0o755)
    (made.here / "live").mkdir(parents=True)
    made.tell(PODMAN if name == "podman" else DOCKER)
    client = made.bin / name
    client.write_text(_PROGRAM.format(here=shlex.quote(str(made.here))))
    client.chmod(0o755)
    return made


def processes(argument: str) -> list[int]:
    """The processes of this machine that were started with an argument that nothing else has."""
    found = []
    for one in Path("/proc").iterdir():
        try:
            if one.name.isdecimal() and argument.encode() in (one / "cmdline").read_bytes().split(b"\0"):
                found.append(int(one.name))
        except OSError:  # it has just ended
            continue
    return found


def gone(pids: Iterable[int]) -> bool:
    """Whether processes end within a moment: a killed one is there until its parent has seen it."""
    left = list(pids)
    for _ in range(50):
        if not any(map(_alive, left)):
            return True
        time.sleep(0.05)
    return False


def _alive(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in ("Z", "X")
