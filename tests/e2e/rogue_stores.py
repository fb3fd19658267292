"""Program of a tenant's pod: a Postgres and an S3 that try to obtain credentials and data of others.

Prints what it receives, credentials as digests: the tests compare them, and logs must not contain secrets.
"""

import hashlib
import http.client
import os
import re
import socketserver
import struct
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

POSTGRES_PORT, RELAY_PORT, ENDLESS_PORT = 5432, 9000, 9001
DRIP_PORTS = range(9101, 9109)
ALL_PORTS = (POSTGRES_PORT, RELAY_PORT, ENDLESS_PORT, *DRIP_PORTS)

UPSTREAM, FORGED_KEY = "UPSTREAM", "FORGED_KEY"
"""Environment variables: `host:port` of the real S3, and the key that the relay lists under each prefix."""

_ENCRYPTION_REQUESTS = (b"\x04\xd2\x16\x2f", b"\x04\xd2\x16\x30")
"""Codes of libpq's requests for TLS and for GSSAPI."""
_CLEARTEXT_PASSWORD = 3
_DRIP_SECONDS = 2
_LISTING = """<?xml version="1.0" encoding="UTF-8"?>
<ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>bucket</Name><IsTruncated>false</IsTruncated>
<Version><Key>{key}</Key><VersionId>null</VersionId><IsLatest>true</IsLatest><Size>1</Size></Version>
</ListVersionsResult>"""


def digest(text: str) -> str:
    """Return what is printed instead of a credential."""
    return hashlib.sha256(text.encode()).hexdigest()


class Postgres(socketserver.BaseRequestHandler):
    """Offers no encryption and requests the password in cleartext."""

    def handle(self) -> None:
        """Print the user and the password of one client, and reject it."""
        with suppress(OSError):
            startup = self._message()
            while startup[:4] in _ENCRYPTION_REQUESTS:
                self.request.sendall(b"N")
                startup = self._message()
            self.request.sendall(b"R" + struct.pack("!II", 8, _CLEARTEXT_PASSWORD))
            self._receive(1)
            password = self._message().rstrip(b"\0").decode()
            parameters = startup[4:].split(b"\0")
            user = parameters[parameters.index(b"user") + 1].decode()
            print("postgres", digest(user), digest(password), flush=True)
            message = b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"
            self.request.sendall(b"E" + struct.pack("!I", 4 + len(message)) + message)

    def _message(self) -> bytes:
        (length,) = struct.unpack("!I", self._receive(4))
        return self._receive(length - 4)

    def _receive(self, length: int) -> bytes:
        content = b""
        while len(content) < length:
            part = self.request.recv(length - len(content))
            if not part:
                raise ConnectionError
            content += part
        return content


class Relay(BaseHTTPRequestHandler):
    """Passes requests on to a real S3 with their host and signature, but lies about policies and listings."""

    protocol_version = "HTTP/1.1"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Print nothing: `_relay` prints each request."""

    def _relay(self) -> None:
        url = urlsplit(self.path)
        credential = re.search(r"Credential=([^/]+)", self.headers.get("Authorization", ""))
        print("s3", digest(credential[1]) if credential else "-", self.command, url.path, flush=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if url.path.endswith("/list-canned-policies"):
            self._answer(200, {"Content-Type": "application/json"}, b"{}")
        elif self.command == "GET" and "versions" in parse_qs(url.query, keep_blank_values=True):
            listing = _LISTING.format(key=os.environ[FORGED_KEY]).encode()
            self._answer(200, {"Content-Type": "application/xml"}, listing)
        else:
            self._answer(*self._forward(body))

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _relay  # noqa: N815 - names of the base class

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(os.environ[UPSTREAM], timeout=30)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        response = connection.getresponse()
        headers = {
            name: value
            for name, value in response.getheaders()
            if name.lower() not in {"connection", "content-length", "transfer-encoding"}
        }
        return response.status, headers, response.read()

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Endless(socketserver.BaseRequestHandler):
    """Answers with bytes until the client closes the connection."""

    def handle(self) -> None:
        """Answer one client."""
        with suppress(OSError):
            self.request.recv(65536)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n")
            while True:
                self.request.sendall(b" " * 65536)


class Drip(socketserver.BaseRequestHandler):
    """Answers with a byte now and then: no read times out."""

    def handle(self) -> None:
        """Answer one client."""
        with suppress(OSError):
            self.request.recv(65536)
            self.request.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n\r\n")
            while True:
                self.request.sendall(b" ")
                time.sleep(_DRIP_SECONDS)


class Server(socketserver.ThreadingTCPServer):
    """Serves each connection in a thread."""

    allow_reuse_address = daemon_threads = True


def main() -> None:
    """Serve until the process is killed."""
    servers: list[socketserver.BaseServer] = [
        Server(("", POSTGRES_PORT), Postgres),
        Server(("", ENDLESS_PORT), Endless),
        *(Server(("", port), Drip) for port in DRIP_PORTS),
    ]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    ThreadingHTTPServer(("", RELAY_PORT), Relay).serve_forever()


if __name__ == "__main__":
    main()
