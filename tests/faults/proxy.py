"""A TCP proxy that can be told to misbehave: cut, hang, slow, truncated bodies, HTTP errors."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum

from embedded.ports import LOOPBACK

CHUNK = 65536
METHODS = (b"GET ", b"PUT ", b"POST ", b"HEAD ", b"DELETE ", b"PATCH ")
ERROR = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Trouble(StrEnum):
    """What a link does to the bytes that cross it."""

    NONE = "none"
    CUT = "cut"  # connections are reset, new ones too
    HANG = "hang"  # nothing moves until it ends, then everything goes on
    SLOW = "slow"  # every chunk is late
    TRUNCATE = "truncate"  # some answers end in the middle
    ERRORS = "errors"  # some requests are answered with 503 instead (HTTP only)


@dataclass(eq=False)
class _Pair:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter

    def abort(self) -> None:
        for writer in (self.client, self.server):
            writer.transport.abort()


class Link:
    """One listening port in front of one real port. `set` may be called from any thread."""

    def __init__(self, name: str, target: int, listen: int, loop: asyncio.AbstractEventLoop, seed: int = 0) -> None:
        self.name, self._target, self._listen, self._loop = name, target, listen, loop
        self._random = random.Random(seed)
        self._pairs: set[_Pair] = set()
        self._moving = asyncio.Event()
        self._moving.set()
        self._server: asyncio.Server | None = None
        self.trouble = Trouble.NONE

    async def serve(self) -> None:
        self._server = await asyncio.start_server(self._accept, LOOPBACK, self._listen)

    def close(self) -> None:
        """Nobody new is let in."""
        if self._server:
            self._server.close()

    def set(self, trouble: Trouble) -> None:
        """From now on; what is open is affected, too."""
        asyncio.run_coroutine_threadsafe(self._set(trouble), self._loop).result(5)

    async def _set(self, trouble: Trouble) -> None:
        self.trouble = trouble
        if trouble is Trouble.CUT:
            for pair in list(self._pairs):
                pair.abort()
        if trouble is Trouble.HANG:
            self._moving.clear()
        else:
            self._moving.set()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.trouble is Trouble.CUT:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(LOOPBACK, self._target)
        except OSError:  # the server is down: so are we
            writer.transport.abort()
            return
        pair = _Pair(writer, far_writer)
        self._pairs.add(pair)
        with suppress(asyncio.CancelledError):
            await self._both(pair, reader, far_reader)
        self._pairs.discard(pair)
        for end in (writer, far_writer):
            end.close()

    async def _both(self, pair: _Pair, near: asyncio.StreamReader, far: asyncio.StreamReader) -> None:
        await asyncio.gather(
            self._pump(near, pair.server, pair, self._forth), self._pump(far, pair.client, pair, self._back)
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, pair: _Pair,
        spoil: Callable[[bytes, _Pair], bytes | None],
    ) -> None:  # fmt: skip
        with suppress(OSError):
            while data := await reader.read(CHUNK):
                await self._moving.wait()
                if self.trouble is Trouble.SLOW:
                    await asyncio.sleep(self._random.uniform(0.02, 0.2))
                kept = spoil(data, pair)
                if kept is None:
                    return
                writer.write(kept)
                await writer.drain()
        with suppress(OSError):
            writer.write_eof()

    def _forth(self, data: bytes, pair: _Pair) -> bytes | None:
        if self.trouble is Trouble.ERRORS and data.startswith(METHODS) and self._random.random() < 0.5:
            pair.client.write(ERROR)
            pair.client.close()
            pair.server.transport.abort()
            return None
        return data

    def _back(self, data: bytes, pair: _Pair) -> bytes | None:
        if self.trouble is Trouble.TRUNCATE and self._random.random() < 0.2:
            pair.client.write(data[: len(data) // 2])
            asyncio.get_running_loop().call_later(0.01, pair.abort)
            return None
        return data


class Proxy:
    """All links, in one thread of their own."""

    def __init__(self, routes: dict[str, tuple[int, int]], seed: int = 0) -> None:
        """``routes``: name -> (real port, listening port)."""
        self._loop = asyncio.new_event_loop()
        self.links = {n: Link(n, real, listen, self._loop, seed) for n, (real, listen) in routes.items()}
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)

    def start(self) -> None:
        self._thread.start()
        for link in self.links.values():
            asyncio.run_coroutine_threadsafe(link.serve(), self._loop).result(5)

    def heal(self) -> None:
        """All links as they should be."""
        for link in self.links.values():
            link.set(Trouble.NONE)

    def stop(self) -> None:
        """Every connection ends."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    async def _end(self) -> None:
        for link in self.links.values():
            link.close()
        tasks = [t for t in asyncio.all_tasks() if t is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
