"""A storage of images for buildah that is ours alone, and how buildah was seen to run programs on this machine."""

import json
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock

from imagewright import process
from imagewright.builders.progress import clean

_QUESTION_SECONDS = 60.0
_TEMPORARY = "/var/tmp"  # noqa: S108 - folders in it are made by mkdtemp
"""Where buildah and its kin put what is large, unless TMPDIR says otherwise; /tmp may be in memory."""
_SYS_ADMIN = 1 << 21
"""https://man7.org/linux/man-pages/man7/capabilities.7.html"""
_ERROR = re.compile(r"\AError: ")
_PROBED = ("/bin", "/lib", "/lib64", "/usr")
"""The folders of this machine that are lent to an empty container, so that there is a program to be run in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way in which buildah works here.

    folder: for all that it keeps. env: of its process. driver: the options that name
    that of its storage. isolation: how it separates what it runs
    from the machine. runtime: what does so, empty for the one that is usual here. store: the part of the folder that is
    used as storage.
    """

    folder: Path
    env: Mapping[str, str]
    policy: tuple[str, ...]
    driver: tuple[str, ...]
    isolation: str
    runtime: str = ""
    store: str = "images"

    @property
    def blobs(self) -> Path:
        """Where blobs of bases are kept as they were published."""
        return self.folder / "blobs"

    def argv(self, verb: str, *words: str) -> list[str]:
        """The command line of one of buildah's verbs that have to do with images or containers."""
        place = self.folder / self.store
        storage = ("--root", f"{place}/root", "--runroot", f"{place}/run", *self.driver)
        return ["buildah", *storage, verb, *(self.policy if verb in ("build", "from", "pull", "push") else ()), *words]

    def isolated(self) -> tuple[str, ...]:
        """The options with which buildah runs programs this way."""
        return ("--isolation", self.isolation, *(("--runtime", self.runtime) if self.runtime else ()))


class Storage:
    """The storage, made and tried out when it is first asked for: who does not build with buildah does not pay for it.

    env: for buildah, with PATH and where credentials are. plain_http: registries (`host:port`) that are spoken to without
    TLS. The images of whoever runs this are neither read nor changed.
    """

    def __init__(self, env: Mapping[str, str], *, plain_http: Collection[str] = ()) -> None:
        self._env = env
        self._plain_http = plain_http
        self._lock = Lock()
        self._folder: Path | None = None
        self._way: Way | str | None = None

    def way(self) -> Way | str:
        """How buildah works here, or as one clause why it does not."""
        with self._lock:
            if self._way is None:
                self._way = self._found()
            return self._way

    def remove(self) -> None:
        """Removes all of it, and first ends what runs in it."""
        with self._lock:
            if self._folder:
                remove(self._folder, _environment(self._folder, self._env))
            self._folder = self._way = None

    def _found(self) -> Way | str:
        if not shutil.which("buildah", path=self._env.get("PATH", "")):
            return "buildah is not installed"
        place = self._env.get("TMPDIR") or _TEMPORARY
        try:
            self._folder = Path(tempfile.mkdtemp(prefix="imagewright-", dir=place))
            policy = self._configure(self._folder)
        except OSError as error:  # it is full, not there or not ours; buildah would say so later
            return f"it cannot keep images in {place}: {error.strerror}; TMPDIR names another folder"
        env = _environment(self._folder, self._env)
        if os.geteuid() != 0 and (lacking := _no_ids(env)):
            return lacking
        return _tried(self._folder, env, policy)

    def _configure(self, folder: Path) -> tuple[str, ...]:
        """Writes buildah's configuration; its options for a signature policy, where this machine has none.

        https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md
        https://github.com/containers/image/blob/main/docs/containers-policy.json.5.md
        """
        for name in ("blobs", "tmp"):
            (folder / name).mkdir()
        plain = "".join(
            f"[[registry]]\nlocation = {json.dumps(host)}\ninsecure = true\n" for host in sorted(self._plain_http)
        )
        (folder / "registries.conf").write_text(f"unqualified-search-registries = []\n{plain}", "utf-8")
        homes = [Path(self._env["HOME"], ".config/containers")] if self._env.get("HOME") else []
        if any((one / "policy.json").exists() for one in (*homes, Path("/etc/containers"))):
            return ()
        # The base is named by its digest.
        (folder / "policy.json").write_text('{"default":[{"type":"insecureAcceptAnything"}]}', "utf-8")
        return ("--signature-policy", str(folder / "policy.json"))


def _environment(folder: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Of buildah, which keeps what is temporary in our folder too."""
    temporary = str(folder / "tmp")
    return {**env, "CONTAINERS_REGISTRIES_CONF": f"{folder}/registries.conf", "TMPDIR": temporary}


@contextmanager
def store(way: Way) -> Iterator[Way]:
    """The same way with a storage that is empty, and removed at the end of the block with what still runs in it."""
    place = Path(tempfile.mkdtemp(prefix="store-", dir=way.folder))
    try:
        yield replace(way, store=place.name)
    finally:
        remove(place, way.env)


def remove(folder: Path, env: Mapping[str, str]) -> None:
    """Removes a folder with storage in it, and first the containers' processes and the mounts that are left in it.

    Interrupted, buildah leaves what it has mounted, and killed, what it has started.
    """
    for process_id in _inhabitants(folder):
        with suppress(ProcessLookupError):
            os.kill(process_id, signal.SIGKILL)
    with suppress(OSError):  # not Linux, or no such program: then rm meets a busy folder and leaves it
        mounted = [line.split()[1] for line in Path("/proc/self/mounts").read_text("utf-8").splitlines()]
        for place in reversed([one for one in mounted if one.startswith(f"{folder}/")]):
            process.run(["umount", "--lazy", place], timeout=_QUESTION_SECONDS, env=env)
        # To another than root most of it belongs to ids of a user namespace.
        inside = () if os.geteuid() == 0 else ("buildah", "unshare")
        process.run([*inside, "rm", "-rf", "--one-file-system", str(folder)], timeout=_QUESTION_SECONDS, env=env)
    shutil.rmtree(folder, ignore_errors=True)


def _inhabitants(folder: Path) -> list[int]:
    """The processes whose root directory is in the folder."""
    found = []
    for file in Path("/proc").glob("[0-9]*/mountinfo"):
        with suppress(OSError):  # it has ended meanwhile, or is somebody else's
            # The fifth field is where it is mounted: https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html
            mounts = [line for line in file.read_text("utf-8", "replace").splitlines() if line.split(" ")[4] == "/"]
            if any(f"/{folder.name}/" in line for line in mounts):
                found.append(int(file.parent.name))
    return found


def _no_ids(env: Mapping[str, str]) -> str:
    """Why the images' users cannot be told apart here: a user namespace has but one id. Empty if they can."""
    argv = ["buildah", "unshare", "cat", "/proc/self/uid_map"]
    try:
        ended = process.run(argv, timeout=_QUESTION_SECONDS, env=env)
    except process.NotStarted as error:
        return f"buildah cannot be run: {error.strerror}"
    if ended.status != 0:
        return f"it cannot run here: {told(ended)}"
    if len(ended.stdout.splitlines()) > 1:
        return ""
    said = re.search(
        r'no subuid ranges found for user \\?"[^"\\]+\\?" in /etc/subuid', ended.stderr.decode("utf-8", "replace")
    )
    why = said[0].replace("\\", "") if said else "there is one user id only"
    return f"it cannot run here: {why}; root gives some with usermod --add-subuids and --add-subgids"


def _tried(folder: Path, env: Mapping[str, str], policy: tuple[str, ...]) -> Way | str:
    """The first way in which a program of this machine ran in a container, best first; else what buildah said last."""
    usual = "oci" if os.geteuid() == 0 else "rootless"
    isolations = [(usual, ""), (usual, "runc"), ("chroot", "")]
    if wanted := env.get("BUILDAH_ISOLATION"):
        isolations = [(wanted, ""), (wanted, "runc")]
    problem = ""
    for driver in _drivers(env):
        for isolation, runtime in isolations:
            way = Way(folder=folder, env=env, policy=policy, driver=driver, isolation=isolation, runtime=runtime)
            if not (problem := _problem(way)):
                return way
    return f"it cannot run here: {problem}"


def _drivers(env: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    """Options of storage drivers, best first. `vfs`, which copies all of an image for each step, always works.

    Mounted in a user namespace, overlayfs keeps notes in `user.overlay.*` attributes, which buildah 1.28 takes into the
    layers: images would have them, and not be those that root makes. fuse-overlayfs hides what it notes.
    """
    overlay = ("--storage-driver", "overlay")
    if _mounts():
        yield overlay
    elif program := shutil.which("fuse-overlayfs", path=env.get("PATH", "")):
        yield (*overlay, "--storage-opt", f"overlay.mount_program={program}")
    yield ("--storage-driver", "vfs")


def _mounts() -> bool:
    """Whether buildah mounts as root of the machine, and not in a user namespace."""
    try:
        status = Path("/proc/self/status").read_text("ascii")
        ids = Path("/proc/self/uid_map").read_text("ascii").split()
    except OSError:  # not Linux
        return False
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return bool(found and int(found[1], 16) & _SYS_ADMIN) and ids == ["0", "0", "4294967295"]


def _problem(way: Way) -> str:
    """What is wrong with a way, in buildah's words; empty if nothing is."""
    volumes = [word for one in _PROBED if Path(one).is_dir() for word in ("--volume", f"{one}:{one}:ro")]
    with store(way) as empty:
        for argv in (
            empty.argv("from", "--name", "probe", "scratch"),
            empty.argv("run", *way.isolated(), "--network", "host", *volumes, "probe", "--", "/bin/true"),
        ):
            try:
                ended = process.run(argv, timeout=_QUESTION_SECONDS, env=way.env)
            except process.NotStarted as error:
                return f"buildah cannot be run: {error.strerror}"
            if ended.status != 0:
                return told(ended)
    return ""


def told(ended: process.Ended) -> str:
    """The last thing that buildah said, as one line."""
    lines = [line for line in ended.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)] or lines
    return clean(_ERROR.sub("", errors[-1])) if errors else f"exit code {ended.status}"
