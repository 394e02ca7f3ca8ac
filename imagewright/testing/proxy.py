"""A slow network: a TCP proxy on loopback that lets every byte wait."""

import asyncio
import threading
from typing import Self


class DelayingProxy:
    """`with DelayingProxy("127.0.0.1:5050", round_trip=0.03) as proxy:` and `proxy.address` is 30 ms away from there.

    round_trip: seconds; each direction takes half of it. Chunks keep their order and are not slowed down by one another.
    """

    def __init__(self, target: str, *, round_trip: float) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._delay = round_trip / 2
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="delaying proxy", daemon=True)
        self.address = ""

    def __enter__(self) -> Self:
        self._thread.start()
        starting = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = starting.result()
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
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
            await asyncio.gather(self._pump(reader, away_writer), self._pump(away_reader, writer))
        finally:
            for one in (writer, away_writer):
                one.transport.abort()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                self._loop.call_later(self._delay, writer.write, chunk)
        except ConnectionError:  # one side went away, and the other is told
            pass
        await asyncio.sleep(self._delay)
        writer.close()
