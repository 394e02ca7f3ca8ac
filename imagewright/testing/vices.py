"""What a registry may do wrong. Each vice is named after what the registry then does, and is a value.

A vice applies to every request until it is told to which: `is_overloaded().on("config").times(2)`. Of several vices of a
registry the first that applies answers; where none does, the registry is honest.
"""

import gzip
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from imagewright.embedded.wire import Answer
from imagewright.names import digest_of, parse_platform

Kind = Literal["ping", "token", "index", "child", "config", "tags", "push", "upload", "delete", "other"]
"""What a request is about: `index` a manifest by its tag, `child` one by its digest, `config` a blob by its digest, `tags`
a page of tags, `push` a manifest that is put, `upload` a blob that is sent."""

KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request. number: among all that the registry has heard, from 1. target: path and query as sent.

    repository, reference: empty where it names none; reference is a tag or a digest. platform: `os/architecture` of the
    image that a `child` or `config` belongs to, empty for anything else. authorization, unless: the headers Authorization
    and If-None-Match, empty without one.
    vice: the one that answered, empty where the registry was honest. status: of the answer, None where there is none.
    """

    number: int
    kind: Kind
    method: str
    target: str
    repository: str = ""
    reference: str = ""
    platform: str = ""
    authorization: str = ""
    unless: str = ""
    vice: str = ""
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Occasion:
    """What a vice may use. honest: the right answer, with its body in memory. plain: the same without `If-None-Match`.

    wait: returns after some seconds, None for never, and raises `ConnectionError` as soon as the registry ends.
    """

    asked: Asked
    honest: Callable[[], Answer]
    plain: Callable[[], Answer]
    wait: Callable[[float | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vice:
    """A way to be wrong, and when. name: for the log and for ids of tests. does: makes the answer, or raises
    `ConnectionError` to end the connection without one, `ConnectionResetError` to reset it.
    """

    name: str
    does: Callable[[Occasion], Answer]
    kinds: frozenset[Kind] = frozenset(KINDS)
    holds: tuple[Callable[[Asked], bool], ...] = ()
    most: int | None = None

    def on(self, *kinds: Kind) -> "Vice":
        """For requests of these kinds."""
        return replace(self, kinds=frozenset(kinds))

    def where(self, holds: Callable[[Asked], bool]) -> "Vice":
        """For requests of which this is true, too."""
        return replace(self, holds=(*self.holds, holds))

    def platform(self, platform: str) -> "Vice":
        """For manifests and configurations of one platform."""
        wanted = str(parse_platform(platform).normalised())
        return self.where(lambda asked: asked.platform == wanted)

    def at(self, *numbers: int) -> "Vice":
        """For these requests, counted over all that the registry hears, from 1."""
        return self.where(lambda asked: asked.number in numbers)

    def since(self, number: int) -> "Vice":
        """For this request and all after it, counted over all that the registry hears, from 1."""
        return self.where(lambda asked: asked.number >= number)

    def times(self, most: int) -> "Vice":
        """For so many requests; then the registry is honest again."""
        return replace(self, most=most)

    def applies(self, asked: Asked) -> bool:
        """Whether it is meant for a request, how often it applied aside."""
        return asked.kind in self.kinds and all(holds(asked) for holds in self.holds)


def _says(name: str, answer: Answer) -> Vice:
    return Vice(name=name, does=lambda _: answer)


def _error(status: int, code: str, headers: Mapping[str, str] | None = None) -> Answer:
    body = json.dumps({"errors": [{"code": code, "message": code.lower().replace("_", " ")}]}).encode()
    return Answer(status=status, headers={"Content-Type": "application/json", **(headers or {})}, body=body)


# Refusals.


def answers(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> Vice:
    """Answers with this status, body and headers."""
    return _says(f"answers({status})", Answer(status=status, headers=dict(headers or {}), body=body))


def answers_404_as_json(code: str = "MANIFEST_UNKNOWN") -> Vice:
    """Says in a registry's words that there is no such thing."""
    return _says(f"answers_404_as_json({code})", _error(404, code))


def answers_404_as_html() -> Vice:
    """Says that there is no such thing as a router or proxy says it, in HTML."""
    page = b"<html><head><title>404 Not Found</title></head><body>nginx</body></html>"
    return _says("answers_404_as_html", Answer(status=404, headers={"Content-Type": "text/html"}, body=page))


def answers_404_as_text() -> Vice:
    """Says that there is no such thing as a router says it, in plain text."""
    return _says(
        "answers_404_as_text", Answer(status=404, headers={"Content-Type": "text/plain"}, body=b"404 page not found\n")
    )


def forgets_everything() -> Vice:
    """Denies in a registry's words whatever is asked for, as one whose database is down may do."""

    def does(occasion: Occasion) -> Answer:
        codes = {"config": "BLOB_UNKNOWN", "upload": "NAME_UNKNOWN", "tags": "NAME_UNKNOWN"}
        return _error(404, codes.get(occasion.asked.kind, "MANIFEST_UNKNOWN"))

    return Vice(name="forgets_everything", does=does)


def forgets_children() -> Vice:
    """Has indexes, and none of the manifests that they name, as after a cleaning up of what has no tag."""
    return _says("forgets_children", _error(404, "MANIFEST_UNKNOWN")).on("child")


def says_that_nothing_changed() -> Vice:
    """Says of whatever is asked for with `If-None-Match` that it is not modified."""
    return _says("says_that_nothing_changed", Answer(status=304)).where(lambda asked: bool(asked.unless))


def ignores_conditions() -> Vice:
    """Does not know `If-None-Match`."""
    return Vice(name="ignores_conditions", does=lambda occasion: occasion.plain())


def stumbles_over_conditions(status: int = 400) -> Vice:
    """Has an error wherever `If-None-Match` is sent."""
    return _says(f"stumbles_over_conditions({status})", _error(status, "UNSUPPORTED")).where(
        lambda asked: bool(asked.unless)
    )


def refuses(status: int = 403, code: str = "DENIED") -> Vice:
    """Refuses, without a challenge."""
    return _says(f"refuses({status})", _error(status, code))


def challenges(header: str, status: int = 401) -> Vice:
    """Refuses with this challenge, whatever comes along."""
    return _says("challenges", _error(status, "UNAUTHORIZED", {"WWW-Authenticate": header}))


def is_overloaded(status: int = 503, retry_after: str = "") -> Vice:
    """Cannot answer now, and may say in how many seconds it will."""
    headers = {"Retry-After": retry_after} if retry_after else {}
    return _says(f"is_overloaded({status})", _error(status, "TOOMANYREQUESTS", headers))


# Content.


def lies_about_digest() -> Vice:
    """States a digest that its bytes do not have."""
    return _changes("lies_about_digest", headers={"Docker-Content-Digest": digest_of(b"another")})


def states_no_digest() -> Vice:
    """Leaves out the header with the digest, as some registries do."""
    return _changes("states_no_digest", headers={"Docker-Content-Digest": None})


def serves_other_bytes() -> Vice:
    """Serves bytes that mean the same and have another digest, as a cache that writes JSON anew does."""
    return _changes("serves_other_bytes", body=lambda body: body + b"\n")


def serves(body: bytes, content_type: str = "application/json", status: int = 200) -> Vice:
    """Serves this body, without a digest, whatever is asked for."""
    return _says("serves", Answer(status=status, headers={"Content-Type": content_type}, body=body))


def allows(count: int, seconds: float) -> Vice:
    """Lets so many requests through in so many seconds, and says to all others that they may come back in a second."""
    let: list[float] = []
    lock = threading.Lock()

    def is_too_much(_: Asked) -> bool:
        with lock:
            now = time.monotonic()
            let[:] = [one for one in let if one > now - seconds]
            if len(let) >= count:
                return True
            let.append(now)
            return False

    return replace(is_overloaded(429, "1"), name=f"allows({count})").where(is_too_much)


def serves_a_login_page() -> Vice:
    """Serves the page of a captive portal, with status 200."""
    return replace(serves(b"<!doctype html><title>Sign in</title>", "text/html"), name="serves_a_login_page")


def serves_nothing(status: int = 200) -> Vice:
    """Serves an empty body."""
    return _changes(f"serves_nothing({status})", status=status, body=lambda _: b"")


def serves_a_part() -> Vice:
    """Serves the first half with status 206, although all was asked for."""

    def does(occasion: Occasion) -> Answer:
        honest = occasion.honest()
        whole = _bytes(honest)
        half = len(whole) // 2
        headers = {**honest.headers, "Content-Range": f"bytes 0-{half - 1}/{len(whole)}"}
        return replace(honest, status=206, headers=headers, body=whole[:half])

    return Vice(name="serves_a_part", does=does)


def serves_too_much(size: int) -> Vice:
    """Serves the right document, with spaces after it up to this many bytes."""
    return _changes(f"serves_too_much({size})", headers={"Docker-Content-Digest": None}, body=lambda b: b.ljust(size))


def cuts_the_body(*, admits: bool = False) -> Vice:
    """Ends the connection after half of the body. admits: and states the length of the half, not of the whole."""

    def does(occasion: Occasion) -> Answer:
        honest = occasion.honest()
        whole = _bytes(honest)
        return _ended(honest, whole[: len(whole) // 2], None if admits else len(whole))

    return Vice(name="cuts_the_body(admits)" if admits else "cuts_the_body", does=does)


def cuts_a_character(*, admits: bool = True) -> Vice:
    """Ends a JSON text in the middle of a character of two bytes. admits: and states the length of what it sends."""

    def does(occasion: Occasion) -> Answer:
        honest = occasion.honest()
        part = _bytes(honest).rstrip()[:-1] + ', "annotations": {"author": "é'.encode()[:-1]
        return _ended(honest, part, None if admits else len(part) + 3)

    return Vice(name="cuts_a_character(admits)" if admits else "cuts_a_character", does=does)


def compresses(size: int, coding: Literal["gzip", "zstd"] = "gzip") -> Vice:
    """Serves a small body that unpacks to this many bytes."""
    packed = gzip.compress(b" " * size) if coding == "gzip" else _zstd_of_spaces(size)
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    return _says(f"compresses({size}, {coding})", Answer(status=200, headers=headers, body=packed))


def is_endless() -> Vice:
    """Serves a body without an end."""
    return Vice(name="is_endless", does=lambda occasion: replace(_headless(occasion), body=_endless(occasion)))


def promises(size: int) -> Vice:
    """States a body of this many bytes, and sends on until the other side has had enough."""

    def does(occasion: Occasion) -> Answer:
        answer = _headless(occasion)
        return replace(answer, headers={**answer.headers, "Content-Length": str(size)}, body=_endless(occasion))

    return Vice(name=f"promises({size})", does=does)


# Time.


def is_slow(seconds: float) -> Vice:
    """Answers rightly, later."""

    def does(occasion: Occasion) -> Answer:
        occasion.wait(seconds)
        return occasion.honest()

    return Vice(name=f"is_slow({seconds:g})", does=does)


def drips(pause: float) -> Vice:
    """Answers rightly, a byte of the body at a time. pause: seconds before each."""

    def does(occasion: Occasion) -> Answer:
        honest = occasion.honest()
        whole = _bytes(honest)
        return _stated(replace(honest, body=_dripping(occasion, whole, pause)), len(whole))

    return Vice(name=f"drips({pause:g})", does=does)


def never_ends_its_headers(pause: float) -> Vice:
    """Sends headers without an end. pause: seconds before each."""

    def lines(occasion: Occasion) -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\n"
        while True:
            occasion.wait(pause)
            yield b"X-Another: header\r\n"

    return Vice(
        name=f"never_ends_its_headers({pause:g})",
        does=lambda occasion: Answer(status=200, body=lines(occasion), bare=True),
    )


def falls_silent(after: int | None = None) -> Vice:
    """Says nothing any more. after: so many bytes of the body; without it, not even headers."""

    def does(occasion: Occasion) -> Answer:
        if after is None:
            occasion.wait(None)
        return _interrupted(occasion, after or 0, lambda: occasion.wait(None))

    return Vice(name="falls_silent" if after is None else f"falls_silent({after})", does=does)


# Connections.


def hangs_up() -> Vice:
    """Ends the connection without an answer."""

    def does(_: Occasion) -> Answer:
        raise ConnectionAbortedError

    return Vice(name="hangs_up", does=does)


def resets(after: int | None = None) -> Vice:
    """Resets the connection. after: so many bytes of the body; without it, before the headers."""

    def reset() -> None:
        raise ConnectionResetError

    def does(occasion: Occasion) -> Answer:
        if after is None:
            reset()
        return _interrupted(occasion, after or 0, reset)

    return Vice(name="resets" if after is None else f"resets({after})", does=does)


def speaks_no_http() -> Vice:
    """Answers in another protocol."""
    return Vice(
        name="speaks_no_http",
        does=lambda _: Answer(status=200, body=iter([b"SSH-2.0-OpenSSH_9.9\r\n"]), bare=True),
    )


# Redirects and links.


def redirects(to: str, status: int = 307) -> Vice:
    """Sends elsewhere. to: a URL, in which `{target}` stands for path and query of the request."""

    def does(occasion: Occasion) -> Answer:
        return Answer(status=status, headers={"Location": to.replace("{target}", occasion.asked.target)})

    return Vice(name=f"redirects({to})", does=does)


def redirects_in_a_loop() -> Vice:
    """Sends to where the request has come from."""
    return replace(redirects("{target}"), name="redirects_in_a_loop")


def redirects_in_hops(hops: int) -> Vice:
    """Sends on to another address of its own, so many times; then it answers rightly."""

    def does(occasion: Occasion) -> Answer:
        path, _, marker = occasion.asked.target.partition("?hop=")
        hop = int(marker or 0)
        if hop == hops:
            return occasion.honest()
        return Answer(status=307, headers={"Location": f"{path}?hop={hop + 1}"})

    return Vice(name=f"redirects_in_hops({hops})", does=does)


def redirects_to_metadata() -> Vice:
    """Sends to the address where machines of a cloud find their credentials."""
    return replace(redirects("http://169.254.169.254/latest/meta-data/"), name="redirects_to_metadata")


def links_elsewhere(to: str) -> Vice:
    """Lists tags, and says that the next page is at `to`."""

    def does(occasion: Occasion) -> Answer:
        honest = occasion.honest()
        return replace(honest, headers={**honest.headers, "Link": f'<{to}>; rel="next"'})

    return Vice(name=f"links_elsewhere({to})", does=does).on("tags")


def lists_no_end_of_tags() -> Vice:
    """Lists tags on a page, and another page, without an end."""

    def does(occasion: Occasion) -> Answer:
        number = occasion.asked.number
        page = {"name": occasion.asked.repository, "tags": [f"tag-{number}-{at}" for at in range(10)]}
        path = occasion.asked.target.partition("?")[0]
        headers = {"Content-Type": "application/json", "Link": f'<{path}?last=tag-{number}-9>; rel="next"'}
        return Answer(status=200, headers=headers, body=json.dumps(page).encode())

    return Vice(name="lists_no_end_of_tags", does=does).on("tags")


def lists_nothing() -> Vice:
    """Lists no tags, as if the repository were empty."""

    def does(occasion: Occasion) -> Answer:
        body = json.dumps({"name": occasion.asked.repository, "tags": []}).encode()
        return Answer(status=200, headers={"Content-Type": "application/json"}, body=body)

    return Vice(name="lists_nothing", does=does).on("tags")


# Writing.


def takes_and_loses() -> Vice:
    """Confirms what is pushed, and does not keep it."""

    def does(occasion: Occasion) -> Answer:
        asked = occasion.asked
        headers = {"Location": asked.target}
        if ":" in asked.reference:
            headers["Docker-Content-Digest"] = asked.reference
        return Answer(status=201, headers=headers)

    return Vice(name="takes_and_loses", does=does).on("push")


# What they have in common.


def _bytes(answer: Answer) -> bytes:
    assert isinstance(answer.body, bytes), "an occasion's honest answer is in memory"
    return answer.body


def _changes(
    name: str,
    *,
    status: int = 200,
    headers: Mapping[str, str | None] | None = None,
    body: Callable[[bytes], bytes] = lambda body: body,
) -> Vice:
    """The right answer, changed where it is a 200. headers: None takes one out."""

    def does(occasion: Occasion) -> Answer:
        honest = occasion.honest()
        if honest.status != 200:
            return honest
        changed = {**honest.headers, **(headers or {})}
        kept = {key: value for key, value in changed.items() if value is not None}
        return Answer(status=status, headers=kept, body=body(_bytes(honest)))

    return Vice(name=name, does=does)


def _stated(answer: Answer, length: int | None) -> Answer:
    if length is None:
        return answer
    return replace(answer, headers={**answer.headers, "Content-Length": str(length)})


def _ended(answer: Answer, part: bytes, stated: int | None) -> Answer:
    """An answer whose connection ends with its body. stated: the length that it claims, None for its own."""
    return _stated(replace(answer, body=iter([part])), len(part) if stated is None else stated)


def _interrupted(occasion: Occasion, after: int, end: Callable[[], None]) -> Answer:
    """The right answer up to a byte of its body, where something else happens."""
    honest = occasion.honest()
    whole = _bytes(honest)

    def pieces() -> Iterator[bytes]:
        yield whole[:after]
        end()

    return _stated(replace(honest, body=pieces()), len(whole))


def _dripping(occasion: Occasion, whole: bytes, pause: float) -> Iterator[bytes]:
    for at in range(len(whole)):
        occasion.wait(pause)
        yield whole[at : at + 1]


def _headless(occasion: Occasion) -> Answer:
    """The right answer's status and type."""
    honest = occasion.honest()
    return Answer(status=200, headers={"Content-Type": honest.headers.get("Content-Type", "application/json")})


def _endless(occasion: Occasion) -> Iterator[bytes]:
    piece = b" " * 2**16
    while True:
        occasion.wait(0)
        yield piece


def _zstd_of_spaces(size: int) -> bytes:
    """A zstd frame of blocks that each repeat one byte. https://www.rfc-editor.org/rfc/rfc8878#section-3.1.1"""
    most = 2**17
    lengths = [most] * (size // most) + ([size % most] if size % most else [])
    blocks = [
        ((length << 3) | (1 << 1) | (at == len(lengths) - 1)).to_bytes(3, "little") + b" "
        for at, length in enumerate(lengths)
    ]
    no_checksum_and_a_window_of_128_kib = b"\x00\x38"
    return b"\x28\xb5\x2f\xfd" + no_checksum_and_a_window_of_128_kib + b"".join(blocks)
