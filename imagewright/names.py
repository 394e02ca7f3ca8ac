"""Names of OCI things, parsed once: digests, tags, repositories, references, platforms; and of tools and bases.

Nothing else in the package parses a name. Every parser raises `BadName` with a sentence that says which rule was
broken; what it returns is normalised and safe in a URL, a path and a log line.

Grammars: https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#pulling-manifests (tag, name),
https://github.com/opencontainers/image-spec/blob/v1.1.1/descriptor.md#digests (digest).
"""

import hashlib
import re
import sys
from dataclasses import dataclass, replace
from typing import NewType

Digest = NewType("Digest", str)
"""`sha256:<64 hex>` or `sha512:<128 hex>`, as `parse_digest` made it."""

Tag = NewType("Tag", str)
"""A tag within the distribution specification's grammar, as `parse_tag` made it."""

_DIGEST = re.compile(r"(?:sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128})\Z")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}\Z")
_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*\Z")
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[0-9a-fA-F:]+\])(?::([0-9]{{1,5}}))?\Z")
_FOLDER = re.compile(r"[a-z0-9]+(?:[._-][a-z0-9]+)*\Z")

MAX_TAG = 128
MAX_NAME = 255
"""Host and repository together, as most registries limit them."""


class BadName(ValueError):
    """A text is not the name it should be; the message is a sentence fragment that names the text and the rule."""


def parse_digest(text: str) -> Digest:
    """A digest of an algorithm that can be verified here, or `BadName`."""
    if not _DIGEST.match(text):
        raise BadName(f"{shown(text)} is not a digest (sha256:<64 hex digits> or sha512:<128 hex digits>)")
    return Digest(sys.intern(text))  # many images name the same layers


def digest_of(content: bytes, algorithm: str = "sha256") -> Digest:
    """The digest of `content`."""
    return Digest(f"{algorithm}:{hashlib.new(algorithm, content).hexdigest()}")


def digest_algorithm(digest: Digest) -> str:
    """`sha256` or `sha512`."""
    return digest.partition(":")[0]


def parse_tag(text: str) -> Tag:
    """A tag, or `BadName`."""
    if not _TAG.match(text):
        rule = (
            f"a tag has at most {MAX_TAG} characters, this one {len(text)}"
            if len(text) > MAX_TAG
            else "a tag consists of letters, digits, '_', '.', '-' and starts with none of the last two"
        )
        raise BadName(f"{shown(text)} cannot be a tag: {rule}")
    return Tag(text)


def parse_host(text: str) -> str:
    """A registry's `host[:port]`, or `BadName`."""
    matched = _HOST.match(text)
    if not matched or int(matched[1] or 0) > 65535:
        raise BadName(f"{shown(text)} is not a registry: host or host:port, without scheme and path")
    return text.lower()


def parse_repository(text: str) -> str:
    """A repository's name within its registry, or `BadName`."""
    if not _REPOSITORY.match(text):
        raise BadName(
            f"{shown(text)} is not a repository: lower-case words of letters and digits, joined by '.', '_', '-' and '/'"
        )
    return text


def parse_folder_name(text: str) -> str:
    """The name of a tool or base: it becomes part of tags, ids, paths and run names. `BadName` otherwise."""
    if not _FOLDER.match(text) or len(text) > MAX_TAG:
        raise BadName(
            f"{shown(text)} cannot name a tool or base: lower-case letters and digits, joined by single '.', '_' or '-'"
        )
    return text


def is_loopback(host: str) -> bool:
    """Whether `host[:port]` is this machine, literally: only there plain HTTP is the default."""
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    return name in ("localhost", "[::1]") or re.match(r"127\.\d+\.\d+\.\d+\Z", name) is not None


@dataclass(frozen=True, slots=True, order=True)
class Repository:
    """A repository in a registry: `ghcr.io/aicage/aicage`. Fields are as `parse_host`, `parse_repository` return them."""

    host: str
    name: str

    def __str__(self) -> str:
        return f"{self.host}/{self.name}"

    def tagged(self, tag: Tag) -> "Reference":
        """The reference of a tag here."""
        return Reference(self, tag)

    def at(self, digest: Digest) -> "Reference":
        """The reference of a digest here."""
        return Reference(self, digest)


def make_repository(host: str, name: str) -> Repository:
    """A repository from two texts, or `BadName`; also refuses what is too long together."""
    repository = Repository(parse_host(host), parse_repository(name))
    if len(str(repository)) > MAX_NAME:
        raise BadName(f"{shown(str(repository))} has {len(str(repository))} characters, at most {MAX_NAME} are allowed")
    return repository


@dataclass(frozen=True, slots=True, order=True)
class Reference:
    """A manifest in a repository, by tag or by digest: `ghcr.io/a/b:1` or `ghcr.io/a/b@sha256:…`."""

    repository: Repository
    to: Tag | Digest

    def __str__(self) -> str:
        return f"{self.repository}{'@' if self.digest else ':'}{self.to}"

    @property
    def digest(self) -> Digest | None:
        """The digest, where the reference is one by digest. A tag cannot contain ':'."""
        return Digest(self.to) if ":" in self.to else None


def parse_reference(text: str) -> Reference:
    """`host/repository:tag` or `host/repository@digest`, completely; no default host and no default tag."""
    head, at, digest = text.partition("@")
    host, slash, path = head.partition("/")
    if not slash:
        raise BadName(f"{shown(text)} is not a reference: host/repository:tag or host/repository@digest")
    if at:
        return make_repository(host, path).at(parse_digest(digest))
    name, colon, tag = path.partition(":")
    if not colon:
        raise BadName(f"{shown(text)} has neither tag nor digest")
    return make_repository(host, name).tagged(parse_tag(tag))


def parse_familiar(text: str) -> Reference:
    """A reference as a Dockerfile's FROM has it, or `BadName`: `debian` is `docker.io/library/debian:latest`.

    Of a tag and a digest together the digest counts.
    https://github.com/distribution/reference/blob/v0.6.0/normalize.go
    """
    head, at, digest = text.partition("@")
    host, slash, path = head.partition("/")
    if not slash or not ("." in host or ":" in host or host == "localhost"):
        host, path = "docker.io", head
    name, colon, tag = path.partition(":")
    if host.lower() in ("docker.io", "index.docker.io"):
        host, name = "docker.io", name if "/" in name else f"library/{name}"
    repository = make_repository(host, name)
    tagged = repository.tagged(parse_tag(tag if colon else "latest"))
    return repository.at(parse_digest(digest)) if at else tagged


_ARCHITECTURES = {
    "x86_64": "amd64",
    "x86-64": "amd64",
    "aarch64": "arm64",
    "i386": "386",
    "armhf": "arm",
    "armel": "arm",
}
_VARIANTS = {
    ("i386", None): "",
    ("armhf", None): "v7",
    ("armel", None): "v6",
    ("amd64", "v1"): "",
    ("arm64", "8"): "",
    ("arm64", "v8"): "",
    ("arm", ""): "v7",
    ("arm", "5"): "v5",
    ("arm", "6"): "v6",
    ("arm", "7"): "v7",
    ("arm", "8"): "v8",
}
"""(architecture, variant) → variant. None: whatever the variant is, as the architecture was spelled."""


@dataclass(frozen=True, slots=True, order=True)
class Platform:
    """os, architecture, variant and (Windows) os.version together name a platform."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""

    def __str__(self) -> str:
        path = "/".join(part for part in (self.os, self.architecture, self.variant) if part)
        return f"{path}:{self.os_version}" if self.os_version else path

    def normalised(self) -> "Platform":
        """Spelled as containerd does, so that equal platforms compare equal: `arm64/v8` is `arm64`, `arm` is `arm/v7`.

        https://github.com/containerd/platforms/blob/v1.0.0/database.go
        """
        spelled, variant = self.architecture.lower(), self.variant.lower()
        architecture = _ARCHITECTURES.get(spelled, spelled)
        variant = _VARIANTS.get((spelled, None), _VARIANTS.get((architecture, variant), variant))
        os = self.os.lower()
        return replace(self, os="darwin" if os == "macos" else os, architecture=architecture, variant=variant)


_PLATFORM_PART = re.compile(r"[a-z0-9][a-z0-9_.-]*\Z")


def parse_platform(text: str) -> Platform:
    """`os/architecture[/variant]` as people write it, normalised, or `BadName`."""
    parts = text.split("/")
    if len(parts) not in (2, 3) or not all(_PLATFORM_PART.match(part) for part in parts):
        raise BadName(f"{shown(text)} is not a platform: os/architecture or os/architecture/variant, e.g. linux/arm64")
    return Platform(*parts).normalised()


def shown(text: str, limit: int = 80) -> str:
    """Foreign text, quoted for one line of a terminal: control characters escaped, cut at `limit` characters."""
    escaped = text if text.isprintable() else text.encode("unicode_escape").decode("ascii")
    return f"'{escaped}'" if len(escaped) <= limit else f"'{escaped[:limit]}…'"
