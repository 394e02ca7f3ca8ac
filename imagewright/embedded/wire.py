"""HTTP/1.1 on a socket: requests in, answers out, many per connection. Knows nothing of registries.

`http.server` would do, but reads headers with the e-mail parser and sends an answer in pieces; a survey asks for
thousands of small documents. https://www.rfc-editor.org/rfc/rfc9112
"""

import json
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from http import HTTPStatus
from io import BufferedReader
from typing import BinaryIO
from urllib.parse import parse_qsl, unquote

from imagewright.embedded.refusal import Code, Refused

_MAX_REQUEST_LINE = 8 * 2**10
_MAX_HEADER = 16 * 2**10
_MAX_HEADERS = 100
_MAX_CHUNK_LINE = 1024
_DRAINED = 8 * 2**20
"""Bytes of an unwanted body that are read and dropped, so that the connection can be used again."""
_LINGERED = 2**30
_LINGER = 2.0
"""Bytes, and seconds of silence, after which a client that sends on after its answer is cut off."""
_PIECE = 2**18
_IN_ONE_SEND = 256 * 2**10

_REQUEST_LINE = re.compile(r"([A-Z]{1,16}) ([!-~]+) HTTP/1\.([01])\Z")
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*(.*?)[ \t]*\Z", re.DOTALL)
_LENGTH = re.compile(r"[0-9]{1,15}\Z")
_CHUNK = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;.*)?\r?\n\Z", re.DOTALL)
_PHRASES = {status.value: status.phrase for status in HTTPStatus}


class Unreadable(Refused):
    """The request cannot be understood, so nobody knows where the next one starts: the connection must end."""


class Body:
    """A request's body, read in pieces. `ConnectionError` if the client goes away before its end."""

    def __init__(
        self, source: BufferedReader, length: int | None, announce: Callable[[], object] | None = None
    ) -> None:
        """length: as announced, None if it comes in chunks. announce: what to do before the first read, if anything."""
        self.length = length
        self._source = source
        self._announce = announce
        self._left = length or 0
        self._finished = length == 0

    def pieces(self) -> Iterator[bytes]:
        """The rest of the body."""
        while piece := self._read():
            yield piece

    def whole(self, limit: int) -> bytes:
        """The rest of the body at once; `Refused` if it is longer than `limit`."""
        content = bytearray()
        if (self.length or 0) <= limit:
            for piece in self.pieces():
                content += piece
                if len(content) > limit:
                    break
            else:
                return bytes(content)
        raise Refused(Code.TOO_LARGE, f"the body is longer than {limit} bytes")

    def drained(self) -> bool:
        """Reads what is left and drops it; False if its end is not in reach: the next request would start anywhere."""
        if self._finished:
            return True
        if self._announce or (self.length is not None and self._left > _DRAINED):
            return False
        dropped = 0
        try:
            for piece in self.pieces():
                dropped += len(piece)
                if dropped > _DRAINED:
                    return False
        except Unreadable:
            return False
        return True

    def _read(self) -> bytes:
        if self._announce:
            self._announce()
            self._announce = None
        if self.length is None and not self._finished and self._left == 0:
            self._next_chunk()
        if self._finished:
            return b""
        piece = self._source.read1(min(self._left, _PIECE))
        if not piece:
            raise ConnectionAbortedError("the client went away within a body")
        self._left -= len(piece)
        if self._left == 0:
            if self.length is None:
                self._expect_line_end()
            else:
                self._finished = True
        return piece

    def _next_chunk(self) -> None:
        line = self._line()
        size = _CHUNK.match(line)
        if not size:
            raise Unreadable(Code.BAD_REQUEST, "a chunk of the body has no size")
        self._left = int(size[1], 16)
        if self._left == 0:
            for _ in range(_MAX_HEADERS):
                if self._line() in (b"\r\n", b"\n"):
                    self._finished = True
                    return
            raise Unreadable(Code.BAD_REQUEST, "the body's trailer does not end")

    def _expect_line_end(self) -> None:
        if self._line() not in (b"\r\n", b"\n"):
            raise Unreadable(Code.BAD_REQUEST, "a chunk of the body is longer than it says")

    def _line(self) -> bytes:
        line = self._source.readline(_MAX_CHUNK_LINE)
        if not line:
            raise ConnectionAbortedError("the client went away within a body")
        return line


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request. target: as sent; path: its path, decoded; query: decoded; headers: names in lower case."""

    method: str
    target: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Body
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of an open file as an answer's body: `count` bytes from `offset`. The server closes the file."""

    file: BinaryIO
    offset: int
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What is sent back. A `Content-Length` in `headers` is kept as it is (HEAD, or a lie).

    body: an iterator is sent piece by piece, and the connection ends with it. bare: an iterator is sent without the
    head of an answer before it.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | Slice | Iterator[bytes] = b""
    bare: bool = False


def json_answer(status: int, document: object, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer with a JSON document."""
    content = json.dumps(document, separators=(",", ":")).encode()
    return Answer(status=status, headers={"Content-Type": "application/json", **(headers or {})}, body=content)


def refusal_answer(refused: Refused, headers: Mapping[str, str] | None = None) -> Answer:
    """The answer that says why not, in the specification's form."""
    error: dict[str, object] = {"code": refused.code.text, "message": refused.message}
    if refused.detail is not None:
        error["detail"] = refused.detail
    return json_answer(refused.code.status, {"errors": [error]}, headers)


def read_request(source: BufferedReader, announce: Callable[[], object]) -> Request | None:
    """The next request of a connection, its body still unread; None at the end of the connection. `Unreadable`.

    announce: sends `100 Continue`.
    """
    line = _line(source, _MAX_REQUEST_LINE, Code.TARGET_TOO_LONG)
    if line == "":
        line = _line(
            source, _MAX_REQUEST_LINE, Code.TARGET_TOO_LONG
        )  # RFC 9112, 2.2: an empty line before a request is to be ignored
    if line is None:
        return None
    matched = _REQUEST_LINE.match(line)
    if not matched:
        raise Unreadable(Code.BAD_REQUEST, "this is no HTTP/1.1 request")
    method, target, minor = matched.groups()
    headers = _headers(source)
    path, _, query = target.partition("?")
    expects = headers.get("expect", "").lower() == "100-continue"
    connection = headers.get("connection", "").lower()
    return Request(
        method=method,
        target=target,
        path=unquote(path) if "%" in path else path,
        query=dict(parse_qsl(query, keep_blank_values=True)) if query else {},
        headers=headers,
        body=Body(source, _length(headers), announce if expects else None),
        keep_alive="close" not in connection and (minor == "1" or "keep-alive" in connection),
    )


def send(connection: socket.socket, answer: Answer, *, head_only: bool, keep_alive: bool) -> bool:
    """Sends an answer, a small one with one system call; whether the connection can be used again."""
    body, headers = answer.body, dict(answer.headers)
    bodiless = answer.status in (204, 304)
    if isinstance(body, Iterator):
        keep_alive = False
    elif "Content-Length" not in headers and not bodiless:
        headers["Content-Length"] = str(body.count if isinstance(body, Slice) else len(body))
    headers["Date"] = formatdate(usegmt=True)
    if not keep_alive:
        headers["Connection"] = "close"
    lines = [f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, '')}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    head = b"" if answer.bare else "\r\n".join((*lines, "\r\n")).encode("latin-1")
    _send_all(connection, head, b"" if head_only or bodiless else body)
    return keep_alive


def linger(connection: socket.socket) -> None:
    """Lets a client read the answer that ends its connection although it is still sending.

    Closing with bytes unread makes the kernel reset the connection, and a reset takes the answer with it.
    https://www.rfc-editor.org/rfc/rfc9112#section-9.6
    """
    connection.shutdown(socket.SHUT_WR)
    connection.settimeout(_LINGER)
    dropped = 0
    while dropped < _LINGERED and (piece := connection.recv(_PIECE)):
        dropped += len(piece)


def _send_all(connection: socket.socket, head: bytes, body: bytes | Slice | Iterator[bytes]) -> None:
    if isinstance(body, bytes):
        connection.sendall(head + body)
    elif isinstance(body, Slice) and body.count <= _IN_ONE_SEND:
        body.file.seek(body.offset)
        connection.sendall(head + body.file.read(body.count))
    elif isinstance(body, Slice):
        connection.sendall(head)
        connection.sendfile(body.file, body.offset, body.count)
    else:
        connection.sendall(head)
        for piece in body:
            connection.sendall(piece)


def _line(source: BufferedReader, limit: int, too_long: Code) -> str | None:
    line = source.readline(limit + 1)
    if not line:
        return None
    if not line.endswith(b"\n"):
        if len(line) > limit:
            raise Unreadable(too_long, f"a line of the request has more than {limit} bytes")
        raise Unreadable(Code.BAD_REQUEST, "a line of the request is cut")
    return line.rstrip(b"\r\n").decode("latin-1")


def _headers(source: BufferedReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    for _ in range(_MAX_HEADERS):
        line = _line(source, _MAX_HEADER, Code.BAD_REQUEST)
        if not line:
            return headers
        matched = _HEADER.match(line)
        if not matched:
            raise Unreadable(Code.BAD_REQUEST, "a header of the request is not one")
        name, value = matched[1].lower(), matched[2]
        if name in headers and name in ("content-length", "transfer-encoding", "content-range", "host"):
            raise Unreadable(Code.BAD_REQUEST, f"the header {name} stands twice")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    raise Unreadable(Code.BAD_REQUEST, f"the request has more than {_MAX_HEADERS} headers")


def _length(headers: Mapping[str, str]) -> int | None:
    """Bytes of the body, None if it comes in chunks. Both announced, or neither readable: `Unreadable`."""
    coding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if coding is not None:
        if coding.lower() != "chunked" or length is not None:
            raise Unreadable(Code.BAD_REQUEST, "the body's length cannot be told from its headers")
        return None
    if length is None:
        return 0
    if not _LENGTH.match(length):
        raise Unreadable(Code.SIZE_INVALID, "Content-Length is not a number of bytes")
    return int(length)
