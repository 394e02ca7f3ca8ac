"""A network in the way: TCP proxies on loopback that let every byte wait, or break connections."""

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, Self, cast


class _Proxy:
    """A proxy in a thread of its own. Who inherits says what becomes of a connection."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=type(self).__name__, daemon=True)
        self._server: asyncio.Server | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        running = [one for one in asyncio.all_tasks() if one is not asyncio.current_task()]
        for one in running:
            one.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            away_reader, away_writer = await asyncio.open_connection(*self._target)
        except OSError:  # the target is gone: so is this connection
            writer.close()
            return
        try:
            await self._connected(reader, writer, away_reader, away_writer)
        except asyncio.CancelledError:  # the proxy ends; the callback of the streams of Python 3.11 would log it
            return
        finally:
            for one in (writer, away_writer):
                one.transport.abort()

    async def _connected(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        away_reader: asyncio.StreamReader,
        away_writer: asyncio.StreamWriter,
    ) -> None:
        """Carries bytes between the two sides of one connection until either ends it."""
        raise NotImplementedError


class DelayingProxy(_Proxy):
    """`with DelayingProxy("127.0.0.1:5050", round_trip=0.03) as proxy:` and `proxy.address` is 30 ms away from there.

    round_trip: seconds; each direction takes half of it. Chunks keep their order and are not slowed down by one another.
    """

    def __init__(self, target: str, *, round_trip: float) -> None:
        super().__init__(target)
        self._delay = round_trip / 2
        self._sides: set[_Delayed] = set()

    async def _start(self) -> None:
        def accepted() -> "_Delayed":
            return _Delayed(self._loop, self._delay, self._target, self._sides)

        self._server = await self._loop.create_server(accepted, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"

    async def _end(self) -> None:
        await super()._end()
        for side in self._sides:
            side.abort()


class _Delayed(asyncio.Protocol):
    """One side of a connection: what it hears, the other side says some time later. Without streams, which cost more time
    than the small answers of a registry themselves.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, delay: float, target: tuple[str, int] | None, sides: "set[_Delayed]"
    ) -> None:
        sides.add(self)
        self._sides = sides
        self._loop = loop
        self._delay = delay
        self._target = target
        self._other: _Delayed | None = None
        self._early: list[bytes | None] = []
        self._transport: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        if self._target:
            self._connecting = self._loop.create_task(self._connect(*self._target))

    async def _connect(self, host: str, port: int) -> None:
        other = _Delayed(self._loop, self._delay, None, self._sides)
        other._other = self
        try:
            await self._loop.create_connection(lambda: other, host, port)
        except OSError:  # the target is gone: so is this connection
            self.say(None)
            return
        self._other = other
        early, self._early = self._early, []
        for chunk in early:
            other.say(chunk)

    def data_received(self, data: bytes) -> None:
        self._loop.call_later(self._delay, self._pass_on, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._sides.discard(self)
        self._loop.call_later(self._delay, self._pass_on, None)

    def abort(self) -> None:
        """Ends this side at once."""
        if self._transport:
            self._transport.abort()

    def _pass_on(self, chunk: bytes | None) -> None:
        if self._other:
            self._other.say(chunk)
        else:
            self._early.append(chunk)

    def say(self, chunk: bytes | None) -> None:
        """Sends something, or None: the end."""
        if self._transport is None or self._transport.is_closing():
            return
        if chunk is None:
            self._transport.close()
        else:
            self._transport.write(chunk)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in the traffic a fault may strike: the connection and the request among all, both from 1.

    request: 0 before the connection's first one.
    """

    connection: int
    request: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What becomes of an answer. after: bytes of it, headers included, that come through. then: what happens.

    holds: whether it strikes there; most: how often it may.
    """

    then: Literal["resets", "ends", "falls silent", "refuses"]
    after: int = 0
    holds: Callable[[Place], bool] = lambda _: True
    most: int | None = None

    def on_connection(self, *numbers: int) -> "Fault":
        """Only on these connections, counted from 1."""
        return replace(self, holds=lambda place: place.connection in numbers)

    def on_request(self, *numbers: int) -> "Fault":
        """Only on the answers to these requests, counted from 1."""
        return replace(self, holds=lambda place: place.request in numbers)

    def since_request(self, number: int) -> "Fault":
        """On the answers to this request and all after it, counted from 1."""
        return replace(self, holds=lambda place: place.request >= number)

    def times(self, most: int) -> "Fault":
        """So often; then everything comes through."""
        return replace(self, most=most)


def refuses_connections(since: int = 1) -> Fault:
    """Nobody listens any more, from this connection on."""
    return Fault(then="refuses", holds=lambda place: place.connection >= since)


def resets_connections(after: int = 0) -> Fault:
    """The connection is reset. after: so many bytes of the answer."""
    return Fault(then="resets", after=after)


def ends_connections(after: int = 0) -> Fault:
    """The connection ends. after: so many bytes of the answer."""
    return Fault(then="ends", after=after)


def silences_connections(after: int = 0) -> Fault:
    """Nothing comes through any more. after: so many bytes of the answer."""
    return Fault(then="falls silent", after=after)


class FaultyProxy(_Proxy):
    """`with FaultyProxy(registry.address, resets_connections().on_request(3)) as proxy:` breaks what passes through it.

    Requests are told apart by the empty line after their headers, so they must not have a body with one. connections and
    requests: how many there were.
    """

    def __init__(self, target: str, *faults: Fault) -> None:
        super().__init__(target)
        self._faults = faults
        self._struck = [0] * len(faults)
        self.connections = 0
        self.requests = 0

    async def _start(self) -> None:
        await super()._start()
        self._refuse_if_told(1)

    def _refuse_if_told(self, connection: int) -> None:
        place = Place(connection=connection, request=0)
        if self._server and any(one.then == "refuses" and one.holds(place) for one in self._faults):
            self._server.close()

    async def _connected(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        away_reader: asyncio.StreamReader,
        away_writer: asyncio.StreamWriter,
    ) -> None:
        self.connections += 1
        self._refuse_if_told(self.connections + 1)
        writer.transport.set_write_buffer_limits(0)  # so that drained is sent
        line = _Line(connection=self.connections)
        asking = asyncio.ensure_future(self._ask(reader, away_writer, line))
        try:
            with contextlib.suppress(ConnectionError):  # one side went away, and the other is told
                await self._reply(away_reader, writer, line)
        finally:
            asking.cancel()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: "_Line") -> None:
        """Carries requests, and has the fault, if there is one for it, wait for each one's answer."""
        before = b""
        with contextlib.suppress(ConnectionError):
            while chunk := await reader.read(65536):
                text = before + chunk
                for _ in range(text.count(_END)):
                    self.requests += 1
                    line.fault = self._strikes(Place(connection=line.connection, request=self.requests))
                    line.passed = 0
                before = b"" if text.endswith(_END) else text[-len(_END) + 1 :]
                writer.write(chunk)
        writer.close()

    def _strikes(self, place: Place) -> Fault | None:
        for at, fault in enumerate(self._faults):
            if fault.then != "refuses" and fault.holds(place) and (fault.most is None or self._struck[at] < fault.most):
                self._struck[at] += 1
                return fault
        return None

    async def _reply(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: "_Line") -> None:
        """Carries answers, up to where a fault strikes."""
        while chunk := await reader.read(65536):
            fault = line.fault
            writer.write(chunk[: fault.after - line.passed] if fault else chunk)
            line.passed += len(chunk)
            await writer.drain()
            if fault and line.passed >= fault.after:
                await _strike(fault, writer)
                return


_END = b"\r\n\r\n"


@dataclass(slots=True, kw_only=True)
class _Line:
    """One connection. fault: what the answer under way will meet; passed: bytes of it so far."""

    connection: int
    fault: Fault | None = None
    passed: int = 0


async def _strike(fault: Fault, writer: asyncio.StreamWriter) -> None:
    if fault.then == "falls silent":
        await asyncio.Event().wait()
    if fault.then == "resets":  # lingering for no time at all makes a reset of the end that follows
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
