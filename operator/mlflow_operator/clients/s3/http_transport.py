"""HTTP requests to stores. They run on the event loop, each with a total timeout and a limit for the response.

The endpoint belongs to the user of the server, who may run anything there. A timeout per read does not end a response
that arrives byte by byte, and a response of any size would use up the operator's memory.
"""

import asyncio
import functools
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from botocore.httpsession import ProxyConfiguration, get_cert_path
from botocore.utils import get_environ_proxies
from yarl import URL

from mlflow_operator.clients import metadata_addresses

MAX_RESPONSE_BYTES = 1024 * 1024
"""Maximum size of a response. The largest ones are a page of object versions and a bucket's lifecycle rules."""
MAX_RESPONSE_TOKENS = 100_000
"""Maximum number of delimiters of XML and JSON in a response. A parsed element needs many times the memory of its text:
1 MiB of the shortest elements would need 30 MiB. A page of object versions has 10,000."""
MAX_RESPONSE_TAGS = 40_000
"""Maximum number of XML tags, which need the most memory: 4 MiB for each of the responses that are parsed at the same
time. A thousand lifecycle rules, the maximum of a bucket, have 22,000."""
_DELIMITERS = (b"<", b"=", b"{", b"[", b",")
_DOCUMENT_TYPE = b"<!DOCTYPE"
"""It can define entities, which expand to a hundred times the size of the response. Stores do not send it."""
_MIN_ERROR_STATUS = 300
_MAX_SSL_CONTEXTS = 8


class ResponseTooLarge(Exception):  # noqa: N818 - named after the fact, like the errors of the API server
    """The store sends more than any valid response contains."""


@dataclass(frozen=True)
class HTTPRequest:
    """HTTP request. `url` is encoded. `ca_path` None means the public CAs.

    `truncate`: return the beginning of an object that is too large, instead of an error.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes
    ca_path: str | None
    truncate: bool = False
    max_response_bytes: int = MAX_RESPONSE_BYTES


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
        # In a thread: loading a large bundle takes up to a second.
        ssl_context = (
            await asyncio.to_thread(self._ssl_context, request.ca_path)
            if request.url.startswith("https:")
            else True
        )
        url = URL(request.url, encoded=True)
        async with (
            aiohttp.ClientSession(
                # Called with each address before the connection, also with one in the URL.
                connector=aiohttp.TCPConnector(socket_factory=metadata_addresses.create_socket),
                timeout=limits,
                auto_decompress=False,
                skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
            ) as session,
            session.request(
                request.method,
                # botocore signs the host in lower case.
                url.with_host((url.raw_host or "").lower()),
                data=request.body or None,
                headers=request.headers,
                # Not aiohttp's trust_env, which reads a netrc file in a thread for each request.
                # botocore's rules, which also accept a proxy without a scheme.
                proxy=ProxyConfiguration(get_environ_proxies(request.url)).proxy_url_for(request.url),
                ssl=ssl_context,
                allow_redirects=False,
            ) as response,
        ):
            # boto3 parses the response to a failed request for an object, too.
            truncate = request.truncate and response.status < _MIN_ERROR_STATUS
            content = bytearray()
            async for part in response.content.iter_any():
                content += part
                if len(content) > request.max_response_bytes:
                    if not truncate:
                        raise ResponseTooLarge
                    del content[request.max_response_bytes :]
                    break
            if not truncate and _needs_much_memory(content):
                raise ResponseTooLarge
            return HTTPResponse(response.status, response.headers, bytes(content))


def _needs_much_memory(content: bytearray) -> bool:
    """Whether the parsed response would need many times the memory of its text."""
    return (
        content.count(b"<") > MAX_RESPONSE_TAGS
        or sum(map(content.count, _DELIMITERS)) > MAX_RESPONSE_TOKENS
        or _DOCUMENT_TYPE in content
    )


def _create_ssl_context(ca_path: str | None) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=ca_path or get_cert_path(True))
