"""Requests to stores reach the right host, through a proxy of the environment if necessary."""

import asyncio
import ssl
import threading

import aiohttp
import pytest

from mlflow_operator.clients.s3 import http_transport
from mlflow_operator.clients.s3.http_transport import HTTPRequest, HTTPTransport
from tests.unit.clients.silent_servers import serve

LIMITS = aiohttp.ClientTimeout(total=10)


async def received(url: str) -> tuple[str, str]:
    """The request line and the Host header that a server on loopback receives; `url` may contain its port."""
    requests: list[str] = []

    async def respond(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()

    async with serve(respond) as port:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("http_proxy", f"127.0.0.1:{port}")
            patch.setenv("no_proxy", "localhost")
            request = HTTPRequest("GET", url.format(port=port), {}, b"", None)
            await HTTPTransport().send(request, LIMITS)
    lines = requests[0].split("\r\n")
    host = next(line.partition(":")[2].strip() for line in lines if line.lower().startswith("host:"))
    return lines[0], host.replace(str(port), "PORT")


async def test_host_is_sent_as_signed() -> None:
    """botocore signs the host in lower case, and MinIO verifies the signature of what it received."""
    line, host = await received("http://LOCALHOST:{port}/a%2Fb//c?prefix=d%2F")
    assert (line, host) == ("GET /a%2Fb//c?prefix=d%2F HTTP/1.1", "localhost:PORT")


async def test_proxy_without_scheme_is_used() -> None:
    """botocore accepts it, for example in an HTTP_PROXY of `proxy.corp:3128`."""
    line, host = await received("http://store.example.com:9000/bucket")
    assert (line, host) == ("GET http://store.example.com:9000/bucket HTTP/1.1", "store.example.com:9000")


async def test_certificates_are_loaded_outside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's Secret of 1 MiB takes half a second, in which no server would be reconciled."""
    threads: list[threading.Thread] = []

    def create(ca_path: str | None) -> ssl.SSLContext:
        threads.append(threading.current_thread())
        assert ca_path is None
        return ssl.create_default_context()

    monkeypatch.setattr(http_transport, "_create_ssl_context", create)
    request = HTTPRequest("GET", "https://127.0.0.1:1/", {}, b"", None)
    with pytest.raises(aiohttp.ClientError):
        await HTTPTransport().send(request, LIMITS)
    assert threads
    assert threading.main_thread() not in threads
