"""Servers on loopback that take connections and do not do their part: what a network does to real ones."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Line = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_SSL_REQUEST, _CANCEL_REQUEST = 80877103, 80877102


@asynccontextmanager
async def listening(line: Line) -> AsyncIterator[int]:
    """A server that treats each connection by `line`; gives its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await line(reader, writer)
        writer.close()

    server = await asyncio.start_server(one, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Takes whatever comes and never says a word."""
    while await reader.read(65536):
        pass


async def torn(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Hears the first words, and tears the connection."""
    await reader.read(1)
    line: socket.socket = writer.get_extra_info("socket")
    line.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def dripping(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answers by HTTP, and never gets to the end of the header."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    number = 0
    while True:
        number += 1
        writer.write(f"X-{number}: 1\r\n".encode() if number < 50 else b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def postgres_that_falls_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lets everybody in, and answers no statement."""
    while True:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        (code,) = struct.unpack("!i", (await reader.readexactly(length - 4))[:4])
        if code == _CANCEL_REQUEST:
            return
        if code != _SSL_REQUEST:
            break
        writer.write(b"N")
    writer.write(b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I")
    await deaf(reader, writer)
