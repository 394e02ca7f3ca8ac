"""Reads images with skopeo instead of with our own code: the second witness."""

import json
import subprocess
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Contents:
    """What an image for one platform is made of, lowest layer first."""

    layers: tuple[str, ...]
    diff_ids: tuple[str, ...]


def contents(image: str) -> dict[str, Contents]:
    """By platform, `os/architecture`. image: as skopeo names it, `docker://host/name:tag` or `oci:folder`."""
    return {platform: _contents(image, platform) for platform in platforms(image)}


def platforms(image: str) -> list[str]:
    """The platforms of an index, in its order; what BuildKit adds as `unknown/unknown` is none."""
    entries = [entry["platform"] for entry in json.loads(_skopeo(image, "--raw"))["manifests"]]
    return [f"{one['os']}/{one['architecture']}" for one in entries if one["os"] != "unknown"]


def config(image: str, platform: str) -> dict[str, object]:
    """The image configuration for a platform, as JSON members."""
    members: dict[str, object] = json.loads(_skopeo(image, "--config", platform=platform))
    return members


def _contents(image: str, platform: str) -> Contents:
    rootfs = json.loads(_skopeo(image, "--config", platform=platform))["rootfs"]
    layers = json.loads(_skopeo(image, "--no-tags", platform=platform))["Layers"]
    return Contents(layers=tuple(layers), diff_ids=tuple(rootfs["diff_ids"]))


def _skopeo(image: str, *options: str, platform: str = "linux/amd64") -> str:
    os_name, _, architecture = platform.partition("/")
    argv = ["skopeo", f"--override-os={os_name}", f"--override-arch={architecture}", "inspect", "--tls-verify=false"]
    return subprocess.run([*argv, *options, image], check=True, capture_output=True, text=True).stdout
