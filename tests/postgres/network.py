"""A network for tests: between a store and its server, and it can be cut without a word."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import parse_qs, urlsplit

__all__ = ["Network", "network_to"]

_BYTES = 65_536
_HELD_BYTES = 65_536  # where it is slow


class Network:
    """Passes bytes on, until it is cut: then it takes them, and they are gone.

    Attributes:
        url: of the server, by way of it.
        messages: how often a client has sent something.
        lost: how often something was sent while it was cut.
        rate: how many bytes it passes on in a second, each way; `None`: as many as come. Set it
            before a connection is made, so that it holds no more than a slow network does.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        query = parse_qs(parts.query)
        self._socket = f"{query['host'][0]}/.s.PGSQL.{query.get('port', ['5432'])[0]}"
        self._user, self._database = parts.username, parts.path
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_up = asyncio.Event()
        self._is_up.set()
        self.url = ""
        self.messages = self.lost = 0
        self.rate: float | None = None

    async def open(self) -> asyncio.Server:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        self.url = f"postgresql://{self._user}@127.0.0.1:{port}{self._database}"
        return server

    def cut(self) -> None:
        self._is_up.clear()

    def mend(self) -> None:
        """Pass on again what comes from now on; what was lost stays lost."""
        self._is_up.set()

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers = [writer]
        if self.rate is not None:
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, _HELD_BYTES)
        try:
            if not self._is_up.is_set():  # a connection that began in a hole stays there
                await asyncio.Event().wait()
            there, back = await asyncio.open_unix_connection(self._socket)
            writers.append(back)
            await asyncio.gather(self._pump(reader, back, True), self._pump(there, writer, False))
        finally:
            for each in writers:
                each.transport.abort()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_client: bool
    ) -> None:
        try:
            while data := await reader.read(_BYTES if self.rate is None else _HELD_BYTES):
                if self.rate is not None:
                    await asyncio.sleep(len(data) / self.rate)
                if self._is_up.is_set():
                    self.messages += is_client
                    writer.write(data)
                    await writer.drain()
                else:
                    self.lost += 1
            await self._is_up.wait()  # the end of a connection is no more heard than the rest
            writer.close()
        except OSError:
            writer.close()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


@asynccontextmanager
async def network_to(url: str) -> AsyncIterator[Network]:
    """Stand between a store and the server of an address, which has a socket in a directory."""
    network = Network(url)
    server = await network.open()
    try:
        yield network
    finally:
        server.close()
        await network.close()
