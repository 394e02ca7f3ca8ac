"""The embedded registry as a server: listens, answers on a thread per connection, stops completely."""

import contextlib
import os
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Self, cast

from imagewright.embedded.api import Api
from imagewright.embedded.store import Store
from imagewright.embedded.wire import Answer, Request, Slice, Unreadable, linger, read_request, refusal_answer, send
from imagewright.errors import Failed

Handler = Callable[[Request], Answer]
Middleware = Callable[[Request, Handler], Answer]
"""Stands between a request and its answer: `middleware(request, honest)` returns `honest(request)`, or something else.

A `ConnectionError` raised by it, or by a body of its making, ends the connection: a `ConnectionResetError` with a reset.
"""

_IDLE = 300.0
"""Seconds a connection may be silent."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A request that was answered. target: path and query as sent."""

    method: str
    target: str
    status: int


class Server:
    """The registry of one folder. `with Server(root) as server:` serves in the background until the block ends.

    One server per folder: others may write into its layouts, but two that push at the same moment can lose a tag.

    root: made if absent. port: 0 takes a free one. sparse: manifests may name content that is not here, as those of a
    mirror of some platforms do; else such a push is refused. on_request: told of each request just before its answer is
    sent, from the connection's thread. middleware: may answer instead. tls: for HTTPS instead of HTTP. `Failed` if the
    address cannot be had.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int = 0,
        host: str = "127.0.0.1",
        sparse: bool = False,
        on_request: Callable[[Seen], object] | None = None,
        middleware: Middleware | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        honest = Api(Store(root, sparse=sparse)).answer
        answer = honest if middleware is None else lambda request: middleware(request, honest)
        try:
            self._listener = _Listener((host, port), answer, on_request, tls)
        except OSError as error:
            raise Failed(
                f"cannot listen on {host}:{port}: {error.strerror}",
                remedy="Choose another port, or stop what uses this one.",
            ) from None
        self._thread: threading.Thread | None = None

    @property
    def address(self) -> str:
        """`host:port` as it stands in a reference."""
        host, port = self._listener.server_address[:2]
        return f"[{host!s}]:{port}" if ":" in str(host) else f"{host!s}:{port}"

    def start(self) -> None:
        """Serves in the background."""
        self._thread = threading.Thread(target=self.serve_forever, name=f"registry {self.address}", daemon=True)
        self._thread.start()

    def serve_forever(self) -> None:
        """Serves until `stop` is called by another thread, or an exception such as `KeyboardInterrupt` ends it."""
        self._listener.serve_forever(poll_interval=0.02)

    def stop(self) -> None:
        """Stops listening, ends all connections, and returns when the last request has been dealt with."""
        if self._thread is not None:
            self._listener.shutdown()
            self._thread.join()
            self._thread = None
        self._listener.server_close()
        self._listener.end_connections()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class _Listener(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        address: tuple[str, int],
        answer: Handler,
        on_request: Callable[[Seen], object] | None,
        tls: ssl.SSLContext | None,
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.answer = answer
        self.on_request = on_request
        self._tls = tls
        self._connections: dict[socket.socket, threading.Thread] = {}
        super().__init__(address, _Connection)

    def process_request(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
        """As the parent's, but remembers the connection and its thread, so that both can be ended."""
        connection = cast("socket.socket", request)
        if self._tls:  # the handshake is the thread's, at its first read: a silent client must not hold up the others
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        thread = threading.Thread(target=self.process_request_thread, args=(connection, client_address), daemon=True)
        self._connections[connection] = thread
        thread.start()

    def shutdown_request(self, request: socket.socket | tuple[bytes, socket.socket]) -> None:
        """Called when a connection has ended."""
        self._connections.pop(cast("socket.socket", request), None)
        super().shutdown_request(request)

    def end_connections(self) -> None:
        """Ends what clients keep alive, and waits for requests that are being answered."""
        connections = list(self._connections.items())
        for connection, _ in connections:
            with contextlib.suppress(OSError):  # it has just ended by itself
                connection.shutdown(socket.SHUT_RD)
        for _, thread in connections:
            thread.join(timeout=5)


class _Connection(socketserver.StreamRequestHandler):
    disable_nagle_algorithm = True
    rbufsize = 2**16
    timeout = _IDLE

    def handle(self) -> None:
        """Requests of one connection until either side ends it."""
        with contextlib.suppress(ConnectionError, TimeoutError, ssl.SSLError):  # the client is gone, asleep or wary
            try:
                while self._exchange():
                    pass
            except ConnectionResetError:
                _reset(self.connection)

    def _exchange(self) -> bool:
        """One request and its answer; whether another may follow."""
        try:
            request = read_request(cast("BufferedReader", self.rfile), self._continue)
        except Unreadable as refused:
            send(self.connection, refusal_answer(refused), head_only=False, keep_alive=False)
            linger(self.connection)
            return False
        if request is None:
            return False
        return self._answered(request)

    def _answered(self, request: Request) -> bool:
        listener = cast("_Listener", self.server)
        answer = listener.answer(request)
        try:
            answer = replace(answer, headers={"Docker-Distribution-Api-Version": "registry/2.0", **answer.headers})
            read = request.body.drained()
            if listener.on_request:
                listener.on_request(Seen(request.method, request.target, answer.status))
            head_only = request.method == "HEAD"
            again = send(self.connection, answer, head_only=head_only, keep_alive=read and request.keep_alive)
        finally:
            if isinstance(answer.body, Slice):
                answer.body.file.close()
        if not read:
            linger(self.connection)
        return again

    def _continue(self) -> None:
        self.connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def _reset(connection: socket.socket) -> None:
    """Ends a connection with a reset: lingering for no time at all means that, and only at once."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    os.close(connection.detach())
