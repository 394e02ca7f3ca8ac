"""What people do without imagewright, on the same world and from the same distance: written as one would by hand.

All of them find everything in order there. None of them asks as much as imagewright does, which reads every platform's
manifest and configuration of image and base, and what `latest` names: each says what it asks.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.site import Site

LOOP = r"""# The usual shell loop: is the last layer of the base, as it is now, among those of the image?
layers() {
  skopeo inspect --tls-verify=false --format '{{range .Layers}}{{println .}}{{end}}' "docker://$1"
}

look() {
  local image last
  image=$(layers "$REGISTRY/own/tools:$1-$2-$3") || { echo "$1-$2: missing"; return 1; }
  last=$(layers "$REGISTRY/own/bases:$2-latest" | tail -1)
  [[ $image == *"$last"* ]] || { echo "$1-$2: the base has changed"; return 1; }
}
"""

ONE_AT_A_TIME = """. ./loop.sh
while read -r tool base version; do
  look "$tool" "$base" "$version" || exit
done <pairs
"""

AT_ONCE = """. ./loop.sh
export -f layers look
xargs -P "$1" -L 1 bash -c 'look "$@"' look <pairs
"""

PLAIN = '''"""The plainest suite: a test per pair, and each fetches for itself."""

import os
from pathlib import Path

import oras.provider
import pytest

REGISTRY = os.environ["REGISTRY"]
PAIRS = [line.split() for line in Path("pairs").read_text().splitlines()]
TYPES = ["application/vnd.oci.image.index.v1+json", "application/vnd.oci.image.manifest.v1+json"]

registry = oras.provider.Registry(hostname=REGISTRY, insecure=True)


@pytest.mark.parametrize(("tool", "base", "version"), PAIRS)
def test_pair_is_published(tool, base, version):
    index = registry.get_manifest(f"{REGISTRY}/own/tools:{tool}-{base}-{version}", allowed_media_type=TYPES)
    for child in index["manifests"]:
        registry.get_manifest(f"{REGISTRY}/own/tools@{child['digest']}", allowed_media_type=TYPES)
'''

TESTS_OF_A_PAIR = 7
EMPTY = """import pytest


@pytest.mark.parametrize("pair", range({pairs}))
@pytest.mark.parametrize("check", range({checks}))
def test_nothing(pair, check):
    pass
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """needs: the program without which it cannot be run. asks: what it asks of each pair."""

    name: str
    needs: str
    asks: str
    argv: tuple[str | Path, ...]


SKOPEO = "the usual shell loop over `skopeo inspect`"
ONE_PLATFORM = "image and base, this machine's platform only: is the base's last layer in the image? (all tags, twice)"
SUITE = "image: the index and each platform's manifest; no base, no configuration"
REGCTL = "regctl, 32 at a time"
CRANE = "crane, 32 at a time"
ORAS = "plain pytest suite on oras"
IN_LINE = f"{SKOPEO}, one at a time"


def prepare(site: Site, folder: Path) -> None:
    """Writes what the peers need into `folder`, where they are to be run."""
    folder.mkdir()
    pairs = list(_pairs(site))
    bases, tools = f"{site.address}/own/bases", f"{site.address}/own/tools"
    files = {
        "pairs": [f"{tool} {base} {version}" for tool, base, version in pairs],
        "images": [f"{tools}:{tool}-{base}-{version}" for tool, base, version in pairs],
        "based": [f"{bases}:{base}-latest {tools}:{tool}-{base}-{version}" for tool, base, version in pairs],
        "loop.sh": [f"export REGISTRY={site.address}", LOOP],
        "one-at-a-time.sh": [ONE_AT_A_TIME],
        "at-once.sh": [AT_ONCE],
        "test_plain.py": [PLAIN],
    }
    for name, lines in files.items():
        (folder / name).write_text("\n".join(lines) + "\n")


def peers(site: Site) -> list[Peer]:
    """All of them, whether they are installed or not."""
    check_base = ("regctl", "--host", f"reg={site.address},tls=disabled", "image", "check-base", "--quiet", "--base")
    suite = ("env", f"REGISTRY={site.address}", "pytest", "-q", "test_plain.py")
    return [
        Peer(name=IN_LINE, needs="skopeo", asks=ONE_PLATFORM, argv=("bash", "one-at-a-time.sh")),
        Peer(name=f"{SKOPEO}, 8 at a time", needs="skopeo", asks=ONE_PLATFORM, argv=("bash", "at-once.sh", "8")),
        Peer(name=f"{SKOPEO}, 32 at a time", needs="skopeo", asks=ONE_PLATFORM, argv=("bash", "at-once.sh", "32")),
        Peer(
            name=REGCTL,
            needs="regctl",
            asks="`image check-base --base`: are the base's layers and steps the image's first ones, on each platform?",
            argv=("xargs", "-a", "based", "-P", "32", "-n", "2", *check_base),
        ),
        Peer(
            name=CRANE,
            needs="crane",
            asks="`manifest`: fetches the image's index, and says nothing about it",
            argv=("xargs", "-a", "images", "-P", "32", "-n", "1", "crane", "manifest", "--insecure"),
        ),
        Peer(name=ORAS, needs="pytest", asks=SUITE, argv=suite),
        Peer(name=f"{ORAS}, `-n 8`", needs="pytest", asks=SUITE, argv=(*suite, "-n", "8")),
    ]


def empty(folder: Path, pairs: int) -> Peer:
    """pytest itself with its report, on as many tests as `pairs` have that do nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "test_empty.py").write_text(EMPTY.format(pairs=pairs, checks=TESTS_OF_A_PAIR))
    omitted = ("--json-report-omit", "log", "streams", "collectors", "keywords")
    return Peer(
        name="pytest and its report, on as many empty tests",
        needs="pytest",
        asks="nothing",
        argv=("pytest", "-q", "--json-report", *omitted, "--json-report-file=report.json", "test_empty.py"),
    )


def _pairs(site: Site) -> Iterator[tuple[str, str, str]]:
    for at in range(site.world.tools):
        for number in range(site.world.bases):
            yield site.world.tool(at), site.world.base(number), f"1.{at}.0"
