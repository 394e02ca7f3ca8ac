"""What a registry's answer means. Pure: status, headers and body in; a typed meaning out. The only judge of a response.

Only `Absent` can ever lead to a build, so it needs the registry's own words: status 404 and its JSON error body. A text
or HTML 404 came from something else on the way.
https://github.com/opencontainers/distribution-spec/blob/v1.1.1/spec.md#error-codes
"""

import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from imagewright.documents import BadDocument, load_json
from imagewright.names import BadName, Digest, digest_algorithm, digest_of, parse_digest, shown
from imagewright.reasons import Unknown

MAX_ERROR_BYTES = 64 * 2**10

RETRIES: Mapping[Unknown, int] = {
    Unknown.REGISTRY_UNAVAILABLE: 4,
    Unknown.NETWORK: 2,
    Unknown.TIMEOUT: 2,
    Unknown.GARBAGE: 1,
    Unknown.INTEGRITY: 1,
    Unknown.NOT_A_REGISTRY_ANSWER: 1,
}
"""How often a GET or HEAD is repeated, by what it met. Whatever is not listed is final; no other method is repeated."""

UNAVAILABLE = frozenset({408, 429, 499, 500, 502, 503, 504, 522})
NAME_UNKNOWN = "NAME_UNKNOWN"
DENIED = "DENIED"
"""Stands for a refusal, 401 or 403, where a repository has yet to be made: some registries do not say that it is absent."""
BLOB_UNKNOWN = "BLOB_UNKNOWN"
_CODE = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A response, read to its end. headers: names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """Bytes that are what their digest says."""

    body: bytes
    media_type: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class NotModified:
    """The tag still names the digest that was sent along."""

    digest: Digest


@dataclass(frozen=True, slots=True)
class Absent:
    """The registry says, in its own words, that it has no such thing. code: as it said it."""

    code: str


@dataclass(frozen=True, slots=True)
class Trouble:
    """The question was not answered."""

    reason: Unknown
    detail: str
    retry_after: float | None = None


def content(answer: Answer, asked: Digest | None, missing_codes: Collection[str]) -> Document | Absent | Trouble:
    """What the answer to a GET of a manifest or blob means. asked: the digest it was asked by, None for a tag."""
    if answer.status == 200:
        return _verified(answer, asked)
    if answer.status == 404:
        return _not_found(answer, missing_codes)
    return refusal(answer)


def streamed(answer: Answer, asked: Digest, computed: Digest) -> Absent | Trouble | None:
    """What the answer to a GET of a blob means whose bytes were hashed on their way; None where they are right."""
    if answer.status == 200:
        wrong = f"the bytes have digest {computed}, asked for was {asked}"
        return None if computed == asked else Trouble(Unknown.INTEGRITY, wrong)
    if answer.status == 404:
        return _not_found(answer, (BLOB_UNKNOWN,))
    return refusal(answer)


def tag_page(answer: Answer) -> bytes | Absent | Trouble:
    """What the answer to a GET of a page of tags means: the body that lists them, or why not."""
    if answer.status == 200:
        return answer.body if _reads_as_json(answer.body) else _NO_DOCUMENT
    if answer.status == 404:
        return _not_found(answer, (NAME_UNKNOWN,))
    return refusal(answer)


def refusal(answer: Answer) -> Trouble:
    """What an answer that is neither 200 nor a plain 404 means."""
    code, message = _error(answer)
    said = f"status {answer.status}" + (f" {code}" if code else "") + (f", {shown(message)}" if message else "")
    if answer.status in (401, 403):
        return Trouble(Unknown.AUTH, said)
    if answer.status in UNAVAILABLE:
        return Trouble(Unknown.REGISTRY_UNAVAILABLE, said, _seconds(answer.headers.get("retry-after", "")))
    if answer.status in (200, 204, 206):
        return Trouble(Unknown.GARBAGE, f"status {answer.status} without the content that was asked for")
    return Trouble(Unknown.UNEXPECTED_STATUS, said)


def _verified(answer: Answer, asked: Digest | None) -> Document | Trouble:
    media_type = answer.headers.get("content-type", "")
    if not answer.body:
        return Trouble(Unknown.GARBAGE, "status 200 with an empty body")
    if media_type.startswith("text/html"):
        return Trouble(Unknown.GARBAGE, "a web page instead of a document")
    stated = answer.headers.get("docker-content-digest", "")
    try:
        header = parse_digest(stated) if stated else None
    except BadName as error:
        return Trouble(Unknown.BAD_DIGEST, f"Docker-Content-Digest: {error}")
    computed = digest_of(answer.body, digest_algorithm(asked or header or Digest("sha256:")))
    for expected, who in ((asked, "asked for"), (header, "stated in the answer")):
        if expected and digest_of(answer.body, digest_algorithm(expected)) != expected:
            wrong = f"the bytes have digest {computed}, {who} was {expected}"
            return Trouble(Unknown.INTEGRITY, wrong) if _reads_as_json(answer.body) else _NO_DOCUMENT
    if not (asked or header) and not _reads_as_json(answer.body):
        return _NO_DOCUMENT
    return Document(body=answer.body, media_type=media_type, digest=computed)


_NO_DOCUMENT = Trouble(Unknown.GARBAGE, "cut short, or no JSON document at all")


def _reads_as_json(body: bytes) -> bool:
    """Whether these are the bytes of some document, whole: what a proxy says, or half an answer, seldom are."""
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True


def _not_found(answer: Answer, missing_codes: Collection[str]) -> Absent | Trouble:
    code, _ = _error(answer)
    if code in missing_codes or code == NAME_UNKNOWN:
        return Absent(code)
    if code:
        return Trouble(Unknown.UNEXPECTED_STATUS, f"status 404 {code}")
    return Trouble(Unknown.NOT_A_REGISTRY_ANSWER, "status 404 without a registry's error body")


def _error(answer: Answer) -> tuple[str, str]:
    """Code and message of the first error in a registry's error body; empty where it has none."""
    try:
        document = load_json(answer.body, MAX_ERROR_BYTES)
    except BadDocument:
        return "", ""
    errors = document.get("errors") if isinstance(document, dict) else None
    first = errors[0] if isinstance(errors, list) and errors else None
    if not isinstance(first, dict):
        return "", ""
    code = str(first.get("code") or "")
    return code if _CODE.fullmatch(code) else "", str(first.get("message") or "")


def _seconds(header: str) -> float | None:
    """`Retry-After` in seconds; dates and GHCR's `880.092µs` are not worth more than the usual backoff."""
    return float(header) if header.isdecimal() else None


def is_plain_url(text: str) -> bool:
    """Whether a URL from a header has nothing but a host and perhaps a port behind `//`, so that all read the same in it.

    Behind a backslash, for one, urllib goes on reading the host and urllib3 does not. RFC 3986, 3.2.
    """
    return _PLAIN_URL.match(text) is not None


_PLAIN_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[A-Za-z0-9._:\[\]-]*(?:[/?#]|\Z)")


def next_page(link: str, resolve: Callable[[str], str]) -> str | None:
    """The URL of the next page of tags from a `Link` header, resolved; None where there is none. RFC 8288."""
    for target, parameters in _LINK.findall(link):
        relations = [quoted or plain for quoted, plain in _RELATIONS.findall(parameters)]
        if any("next" in one.lower().split() for one in relations):
            return resolve(target)
    return None


_LINK = re.compile(r'<([^>]*)>((?:\s*;\s*[^\s=;,"]+\s*(?:=\s*(?:"[^"]*"|[^\s",;]*))?)*)')
_RELATIONS = re.compile(r';\s*rel\s*=\s*(?:"([^"]*)"|([^\s",;]*))', re.IGNORECASE)
