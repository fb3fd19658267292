"""HTTP requests to stores. They run on the event loop, each with a total timeout and a limit for the response.

The endpoint belongs to the user of the server, who may run anything there. A timeout per read does not end a response
that arrives byte by byte, and a response of any size would use up the operator's memory.
"""

import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
from botocore.httpsession import get_cert_path
from botocore.utils import get_environ_proxies
from yarl import URL

MAX_RESPONSE_BYTES = 1024 * 1024
"""Maximum size of a response. The largest ones are a page of object versions and a bucket's lifecycle rules."""
MAX_RESPONSE_TOKENS = 100_000
"""Maximum number of delimiters of XML and JSON in a response. A parsed element needs many times the memory of its text:
1 MiB of the shortest elements would need 30 MiB. A page of object versions has 10,000."""
_DELIMITERS = (b"<", b"=", b"{", b"[", b",")
_MAX_SSL_CONTEXTS = 8


class ResponseTooLarge(Exception):  # noqa: N818 - named after the fact, like the errors of the API server
    """The store sends more than any valid response contains."""


@dataclass(frozen=True)
class HTTPRequest:
    """HTTP request. `url` is encoded. `ca_path` None means the public CAs.

    `truncate`: return the beginning of a response that is too large, instead of an error.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    ca_path: str | None
    truncate: bool = False


@dataclass(frozen=True)
class HTTPResponse:
    """HTTP response."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class HTTPTransport:
    """Sends requests. It caches the TLS settings of the last stores."""

    def __init__(self) -> None:
        # Loading CA certificates takes some milliseconds, and most servers use the same ones.
        self._ssl_context = functools.lru_cache(_MAX_SSL_CONTEXTS)(_create_ssl_context)

    async def send(self, request: HTTPRequest, limits: aiohttp.ClientTimeout) -> HTTPResponse:
        """Send a request within `limits`, which must have a total, and read the whole response.

        Raises ResponseTooLarge, and aiohttp.ClientError, OSError or ValueError if there is no complete response.
        """
        async with (
            aiohttp.ClientSession(
                timeout=limits,
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            ) as session,
            session.request(
                request.method,
                URL(request.url, encoded=True),
                data=request.body or None,
                headers=request.headers,
                # Not aiohttp's trust_env, which reads a netrc file in a thread for each request.
                proxy=get_environ_proxies(request.url).get(urlsplit(request.url).scheme),
                ssl=self._ssl_context(request.ca_path) if request.url.startswith("https:") else True,
                allow_redirects=False,
            ) as response,
        ):
            content = bytearray()
            async for part in response.content.iter_any():
                content += part
                if len(content) > MAX_RESPONSE_BYTES:
                    if not request.truncate:
                        raise ResponseTooLarge
                    del content[MAX_RESPONSE_BYTES:]
                    break
            if not request.truncate and sum(map(content.count, _DELIMITERS)) > MAX_RESPONSE_TOKENS:
                raise ResponseTooLarge
            return HTTPResponse(response.status, response.headers, bytes(content))


def _create_ssl_context(ca_path: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_path or get_cert_path(True))
