"""Base images made on the spot: an ordered table of named layers per platform, in an OCI layout, pushed by crane.

Nothing here uses the package under test: what it makes of these images is judged against them.
Two tables with the same layers give the same digests. A rebuilt base with a changed layer in the middle and all others
as they were is the same table with one member replaced: `layers | {"libraries": layer({...})}`.
"""

import gzip
import hashlib
import io
import json
import os
import stat
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

OCI = "application/vnd.oci.image"
PLATFORMS = ("linux/amd64", "linux/arm64")
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SEARCH_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EPOCH = "1970-01-01T00:00:00Z"

# https://github.com/moby/buildkit/blob/v0.26.3/docs/attestations/sbom-protocol.md
SCAN = b"""\
#!/bin/sh
set -eu
scan() {
  syft scan "dir:$1" --quiet --output spdx-json=/tmp/spdx.json
  { printf '{"_type":"https://in-toto.io/Statement/v0.1","predicateType":"https://spdx.dev/Document","predicate":'
    cat /tmp/spdx.json
    printf '}'
  } >"$BUILDKIT_SCAN_DESTINATION/$(basename "$1").spdx.json"
}
export SYFT_CHECK_FOR_APP_UPDATE=false
scan "$BUILDKIT_SCAN_SOURCE"
for extra in "${BUILDKIT_SCAN_SOURCE_EXTRAS:-/nonexistent}"/*; do
  [ ! -d "$extra" ] || scan "$extra"
done
"""


@dataclass(frozen=True, slots=True)
class File:
    """A regular file of a layer."""

    content: bytes
    mode: int = 0o644


@dataclass(frozen=True, slots=True)
class Link:
    """A symbolic link of a layer."""

    target: str


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of a layer; only needed for empty ones and odd modes."""

    mode: int = 0o755


Entries = Mapping[str, bytes | File | Link | Folder]
"""What a layer has, by path without a leading slash; plain bytes are a file of mode 644."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A compressed layer. diff_id: digest of what was compressed."""

    blob: bytes
    diff_id: str


def layer(entries: Entries) -> Layer:
    """The layer with these entries and the folders above them; always the same bytes for the same entries."""
    folders = {str(parent): Folder() for path in entries for parent in PurePosixPath(path).parents if parent.name}
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, entry in sorted((folders | dict(entries)).items()):
            _add(tar, path, File(entry) if isinstance(entry, bytes) else entry)
    content = packed.getvalue()
    return Layer(gzip.compress(content, compresslevel=1, mtime=0), _digest(content))


def _add(tar: tarfile.TarFile, path: str, entry: File | Link | Folder) -> None:
    member = tarfile.TarInfo(path)
    match entry:
        case File(content, mode):
            member.mode, member.size = mode, len(content)
            tar.addfile(member, io.BytesIO(content))
        case Link(target):
            member.type, member.linkname, member.mode = tarfile.SYMTYPE, target, 0o777
            tar.addfile(member)
        case Folder(mode):
            member.type, member.mode = tarfile.DIRTYPE, mode
            tar.addfile(member)


def push_base(
    engine_folder: Path,
    registry: str,
    repository: str,
    tag: str,
    layers_by_platform: Mapping[str, Mapping[str, Layer]],
    *,
    env: Sequence[str] = (SEARCH_PATH,),
    entrypoint: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> str:
    """Pushes an index with an image per platform; the reference by tag."""
    reference = f"{registry}/{repository}:{tag}"
    config = {"Env": list(env), "Entrypoint": list(entrypoint), "Cmd": ["/bin/sh"], "Labels": dict(labels or {})}
    with tempfile.TemporaryDirectory(prefix="iw-base-") as folder:
        layout = Path(folder)
        (layout / "blobs" / "sha256").mkdir(parents=True)
        (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
        images = [_keep_image(layout, platform, config, layers) for platform, layers in layers_by_platform.items()]
        top = _keep_json(layout, {"schemaVersion": 2, "mediaType": f"{OCI}.index.v1+json", "manifests": images})
        (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [top]}))
        crane = engine_folder / "bin" / "crane"
        subprocess.run([crane, "push", "--insecure", layout, reference], check=True, capture_output=True)
    return reference


def _keep_image(
    layout: Path, platform: str, config: Mapping[str, object], layers: Mapping[str, Layer]
) -> dict[str, object]:
    """Writes an image into the layout; its entry for the index."""
    os_name, _, architecture = platform.partition("/")
    described = {
        "created": EPOCH,
        "os": os_name,
        "architecture": architecture,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [one.diff_id for one in layers.values()]},
        "history": [{"created": EPOCH, "created_by": name} for name in layers],
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _keep(layout, json.dumps(described).encode(), f"{OCI}.config.v1+json"),
        "layers": [_keep(layout, one.blob, f"{OCI}.layer.v1.tar+gzip") for one in layers.values()],
    }
    return _keep_json(layout, manifest) | {"platform": {"os": os_name, "architecture": architecture}}


def _keep_json(layout: Path, document: Mapping[str, object]) -> dict[str, object]:
    return _keep(layout, json.dumps(document).encode(), str(document["mediaType"]))


def _keep(layout: Path, content: bytes, media_type: str) -> dict[str, object]:
    """Writes a blob into the layout; its descriptor."""
    digest = _digest(content)
    (layout / "blobs" / "sha256" / digest.partition(":")[2]).write_bytes(content)
    return {"mediaType": media_type, "digest": digest, "size": len(content)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@cache
def busybox_layers(engine_folder: Path, platform: str) -> Mapping[str, Layer]:
    """One layer, "busybox": a shell with everything it brings, users, and a temporary folder."""
    busybox = _material(engine_folder, platform) / "busybox"
    applets = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True).stdout.split()
    entries: dict[str, bytes | File | Link | Folder] = {
        name: Link("/bin/busybox") for name in applets if name.partition("/")[0] in ("bin", "sbin", "usr")
    }
    entries |= {
        "bin/busybox": File(busybox.read_bytes(), 0o755),
        "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\n",
        "etc/group": b"root:x:0:\n",
        "root": Folder(0o700),
        "tmp": Folder(0o1777),
    }
    return {"busybox": layer(entries)}


@cache
def node_layers(engine_folder: Path, platform: str) -> Mapping[str, Layer]:
    """Five layers, in this order: "busybox", "libraries", "node", "npm", "trust"."""
    material = _material(engine_folder, platform)
    node = {"usr/bin/node": File((material / "node").read_bytes(), 0o755)}
    return {
        **busybox_layers(engine_folder, platform),
        "libraries": layer(tree(material / "libraries", at="")),
        "node": layer(node),
        "npm": _npm_layer(engine_folder),
        "trust": _trust_layer(),
    }


@cache
def _npm_layer(engine_folder: Path) -> Layer:
    modules = "usr/lib/node_modules"
    commands = {f"usr/bin/{name}": Link(f"../lib/node_modules/npm/bin/{name}-cli.js") for name in ("npm", "npx")}
    return layer({**tree(engine_folder / "base" / "npm", at=modules), **commands})


@cache
def _trust_layer() -> Layer:
    """How this machine reaches npm's registry: whom it trusts and its npm settings, credentials included.

    So such a base is for a registry that lives no longer than its tests.
    """
    entries = {CERTIFICATES.relative_to("/").as_posix(): CERTIFICATES.read_bytes()}
    for key, path in (("globalconfig", "usr/etc/npmrc"), ("userconfig", "root/.npmrc")):
        settings = Path(_npm_setting(key))
        if settings.is_file():
            entries[path] = settings.read_bytes()
    return layer(entries)


def _npm_setting(key: str) -> str:
    return subprocess.run(["npm", "config", "get", key], check=True, capture_output=True, text=True).stdout.strip()


def node_env() -> tuple[str, ...]:
    """The environment that goes with `node_layers`."""
    return (
        SEARCH_PATH,
        "HOME=/root",
        f"NODE_EXTRA_CA_CERTS={CERTIFICATES}",
        f"SSL_CERT_FILE={CERTIFICATES}",
        f"npm_config_cafile={CERTIFICATES}",
        f"npm_config_registry={_npm_setting('registry')}",
        "npm_config_update_notifier=false",
        "npm_config_fund=false",
        "npm_config_audit=false",
    )


def push_busybox(engine_folder: Path, registry: str, repository: str, tag: str) -> str:
    """Pushes the busybox base for both platforms; its reference."""
    layers = {platform: busybox_layers(engine_folder, platform) for platform in PLATFORMS}
    return push_base(engine_folder, registry, repository, tag, layers)


def push_node(engine_folder: Path, registry: str, repository: str, tag: str) -> str:
    """Pushes the Node.js base for both platforms; its reference."""
    with ThreadPoolExecutor() as threads:  # compressing lets other threads run
        layers = dict(zip(PLATFORMS, threads.map(lambda platform: node_layers(engine_folder, platform), PLATFORMS)))
    return push_base(engine_folder, registry, repository, tag, layers, env=node_env())


def push_scanner(engine_folder: Path, registry: str, repository: str, tag: str) -> str:
    """Pushes a generator of SBOMs for BuildKit: busybox, syft and a script; its reference.

    BuildKit runs a generator on its own platform whatever it builds for, so one platform is enough.
    """
    platform = "linux/amd64"
    layers = {
        **busybox_layers(engine_folder, platform),
        "syft": layer({"bin/syft": File((engine_folder / "bin" / "syft").read_bytes(), 0o755)}),
        "scan": layer({"bin/scan": File(SCAN, 0o755)}),
    }
    return push_base(engine_folder, registry, repository, tag, {platform: layers}, entrypoint=["/bin/scan"])


def push_debian(engine_folder: Path, registry: str, repository: str, tag: str) -> str:
    """Pushes a Debian for linux/amd64 in which apt works as on this machine; its reference."""
    raw = (engine_folder / "base" / "debian" / "amd64.tar").read_bytes()
    # A machine's clock may be ahead of Debian's lists; and dpkg need not outlive a loss of power.
    settings = layer(
        {
            "etc/apt/apt.conf.d/clock": b'Acquire::Check-Date "false";\nAcquire::Check-Valid-Until "false";\n',
            "etc/dpkg/dpkg.cfg.d/fast": b"force-unsafe-io\n",
        }
    )
    layers = {"debian": Layer(gzip.compress(raw, compresslevel=1, mtime=0), _digest(raw)), "settings": settings}
    return push_base(engine_folder, registry, repository, tag, {PLATFORMS[0]: layers})


def tree(folder: Path, *, at: str) -> Entries:
    """What is below `folder`, to be placed below `at`/<its name>, or at the root if `at` is empty."""
    start = PurePosixPath(at, folder.name) if at else PurePosixPath()
    entries: dict[str, bytes | File | Link | Folder] = {}
    for place, _, _ in os.walk(folder):
        for found in Path(place).iterdir():
            path = str(start / found.relative_to(folder))
            if found.is_symlink():
                entries[path] = Link(str(found.readlink()))
            elif found.is_file():
                entries[path] = File(found.read_bytes(), stat.S_IMODE(found.stat().st_mode) | 0o444)
    return entries


def _material(engine_folder: Path, platform: str) -> Path:
    return engine_folder / "base" / platform.partition("/")[2]
