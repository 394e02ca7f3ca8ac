"""Whose programs this machine runs: its own, and those that an emulator is registered for."""

import os
from contextlib import suppress
from pathlib import Path

from imagewright.names import Platform

REGISTERED = Path("/proc/sys/fs/binfmt_misc")

_ELF = b"\x7fELF"
_MACHINES = {
    "386": (1, 1, 3),
    "amd64": (2, 1, 62),
    "arm": (1, 1, 40),
    "arm64": (2, 1, 183),
    "loong64": (2, 1, 258),
    "mips64": (2, 2, 8),
    "mips64le": (2, 1, 8),
    "ppc64le": (2, 1, 21),
    "riscv64": (2, 1, 243),
    "s390x": (2, 2, 22),
}
"""Class, byte order (1: little) and machine of each architecture's programs. https://refspecs.linuxfoundation.org/elf/gabi4+/ch4.eheader.html"""
_ALSO_NATIVE = {"amd64": ("386",)}


def runs(platform: Platform, registered: Path = REGISTERED) -> bool:
    """Whether a program of that platform runs here in another root directory, as far as anybody can know.

    Without binfmt_misc in sight, as in most containers, the host may still emulate: then it is taken to.
    https://docs.kernel.org/admin-guide/binfmt-misc.html
    """
    native = Platform("linux", os.uname().machine).normalised().architecture
    wanted = platform.normalised()
    if wanted.os != "linux":
        return False
    if wanted.architecture in (native, *_ALSO_NATIVE.get(native, ())) or not (registered / "status").exists():
        return True
    return wanted.architecture in _emulated(registered)


def _emulated(registered: Path) -> set[str]:
    found = set()
    for entry in registered.iterdir():
        with suppress(OSError):  # `register` cannot be read, and any other may be gone
            found |= _architecture(entry.read_text("ascii"))
    return found


def _architecture(entry: str) -> set[str]:
    """The architecture that an entry is for: enabled, and with an emulator that is open already (flag F)."""
    state, _, rest = entry.partition("\n")
    members = dict(line.partition(" ")[::2] for line in rest.splitlines())
    magic = bytes.fromhex(members.get("magic", ""))
    if state != "enabled" or "F" not in members.get("flags:", "") or len(magic) < 20 or not magic.startswith(_ELF):
        return set()
    return {
        name
        for name, (size, order, machine) in _MACHINES.items()
        if magic[4:6] == bytes((size, order)) and magic[18:20] == machine.to_bytes(2, "little" if order == 1 else "big")
    }
