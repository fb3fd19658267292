"""Servers on loopback that accept connections and then misbehave as real servers and networks do."""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_SSL_REQUEST, _CANCEL_REQUEST = 80877103, 80877102


@asynccontextmanager
async def serve(handler: Handler) -> AsyncIterator[int]:
    """Run a server that handles each connection with `handler`; yield its port."""
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await handler(reader, writer)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read all data and never answer."""
    while await reader.read(65536):
        pass


async def connection_reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read the first byte and reset the connection."""
    await reader.read(1)
    sock: socket.socket = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def endless_header(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with an HTTP header that never ends, a few bytes at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    number = 0
    while True:
        number += 1
        writer.write(f"X-{number}: 1\r\n".encode() if number < 50 else b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless_body_in_small_pieces(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a body that never ends, one byte at a time."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless_body(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a body that never ends, as fast as the client reads it."""
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65536)
        await writer.drain()


async def short_elements(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a valid XML document of 0.9 MiB, whose elements need 30 MiB as objects."""
    await _respond(reader, writer, 200, b"<a/>" * 225_000)


async def elements_near_the_limit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a valid XML document of 0.4 MiB, whose elements need 13 MiB as objects."""
    await _respond(reader, writer, 200, b"<a/>" * 99_000)


async def expanding_entities(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with an XML document of 0.5 MiB, whose entities need 50 MiB as text."""
    await reader.readuntil(b"\r\n\r\n")
    body = b'<!DOCTYPE x [<!ENTITY a "' + b"y" * 500_000 + b'">]><ListBucketResult>' + b"&a;" * 95
    body += b"</ListBucketResult>"
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def error_with_short_elements(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with an error, whose elements need 30 MiB as objects."""
    await _respond(reader, writer, 403, b"<a/>" * 225_000)


async def _respond(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, status: int, elements: bytes
) -> None:
    await reader.readuntil(b"\r\n\r\n")
    body = b"<ListBucketResult>" + elements + b"</ListBucketResult>"
    writer.write(f"HTTP/1.1 {status} OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    await writer.drain()


async def _read_postgres_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
    """Read until the message that starts a session. Return False if the connection is for another purpose."""
    while True:
        (length,) = struct.unpack("!i", await reader.readexactly(4))
        (code,) = struct.unpack("!i", (await reader.readexactly(length - 4))[:4])
        if code == _CANCEL_REQUEST:
            return False
        if code != _SSL_REQUEST:
            return True
        writer.write(b"N")


async def postgres_endless_settings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept every login, and report settings of the session without an end."""
    if await _read_postgres_login(reader, writer):
        writer.write(b"R" + struct.pack("!ii", 8, 0))
        number = 0
        while True:
            number += 1
            setting = f"setting{number}\0".encode() + b"x" * 20_000 + b"\0"
            writer.write(b"S" + struct.pack("!i", 4 + len(setting)) + setting)
            await writer.drain()


async def postgres_endless_result(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept every login, and answer the first statement with rows without an end."""
    if await _read_postgres_login(reader, writer):
        writer.write(b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I")
        await reader.read(65536)
        column = b"value\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
        writer.write(b"T" + struct.pack("!ih", 6 + len(column), 1) + column)
        row = struct.pack("!hi", 1, 65536) + b"x" * 65536
        while True:
            writer.write(b"D" + struct.pack("!i", 4 + len(row)) + row)
            await writer.drain()


async def postgres_silent_after_login(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Accept every login and never answer a statement."""
    if await _read_postgres_login(reader, writer):
        writer.write(b"R" + struct.pack("!ii", 8, 0) + b"Z" + struct.pack("!i", 5) + b"I")
        await silent(reader, writer)


def postgres_with_iterations(number: int) -> Handler:
    """Return a handler that requests `number` SCRAM iterations, and then rejects the password."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not await _read_postgres_login(reader, writer):
            return
        writer.write(_postgres_message(b"R", struct.pack("!i", 10) + b"SCRAM-SHA-256\0\0"))
        client_nonce = (await _read_postgres_message(reader)).partition(b"r=")[2]
        first = b"r=" + client_nonce + b"server,s=c2FsdHNhbHQ=,i=%d" % number
        writer.write(_postgres_message(b"R", struct.pack("!i", 11) + first))
        await _read_postgres_message(reader)
        error = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
        writer.write(_postgres_message(b"E", error))
        await writer.drain()

    return handle


def postgres_that_requests_cleartext(passwords: list[bytes]) -> Handler:
    """Return a handler that requests a cleartext password, and adds what it gets to `passwords`."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await _read_postgres_login(reader, writer):
            writer.write(_postgres_message(b"R", struct.pack("!i", 3)))
            passwords.append(await _read_postgres_message(reader))

    return handle


async def _read_postgres_message(reader: asyncio.StreamReader) -> bytes:
    header = await reader.readexactly(5)
    return await reader.readexactly(struct.unpack("!i", header[1:])[0] - 4)


def _postgres_message(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("!i", 4 + len(content)) + content
