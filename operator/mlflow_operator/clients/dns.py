"""Names of hosts as the server's pods understand them.

DNS in a cluster completes a name with the namespace of the pod that asks: `postgres` is a Service beside the server to
MLflow, and nothing at all to the operator, which lives in another namespace.
"""

import asyncio
import ipaddress
import socket
from urllib.parse import urlsplit, urlunsplit

_SECONDS = 5
_NDOTS = 5
"""With fewer dots a pod's name is completed first (`ndots` of every pod's resolv.conf)."""


async def resolve_in_namespace(host: str, namespace: str, domain: str) -> tuple[str, str] | None:
    """The full name that a pod in `namespace` makes of `host`, and its address.

    None where it means the same to everybody, or nothing to anybody: then `host` itself is what to ask for. `domain`
    is the cluster's.
    """
    if not host or host.endswith(".") or host.count(".") >= _NDOTS or _is_address(host):
        return None
    full = f"{host}.{namespace}.svc.{domain}"
    try:
        async with asyncio.timeout(_SECONDS):
            # its last dot keeps this process from completing it once more
            found = await asyncio.get_running_loop().getaddrinfo(f"{full}.", None, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError):
        return None
    return full, str(found[0][4][0])


async def resolve_url_in_namespace(url: str, namespace: str, domain: str) -> str:
    """`url` with the full name of its host, where there is one."""
    parts = urlsplit(url)
    found = await resolve_in_namespace(parts.hostname or "", namespace, domain)
    if found is None:
        return url
    port = f":{parts.port}" if parts.port else ""
    return urlunsplit(parts._replace(netloc=f"{found[0]}{port}"))


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
