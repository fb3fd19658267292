"""Host names as the server's pods resolve them.

A pod's resolver appends the namespace of the pod to short names: for the MLflow server, `postgres` is a Service in its
own namespace. The operator runs in another namespace, where the same short name does not exist.
"""

import asyncio
import socket
from urllib.parse import urlsplit, urlunsplit

from mlflow_operator.model.allowed_hosts import is_address

_NDOTS = 5
"""`ndots` in the resolv.conf of every pod: the resolver tries the search domains first for names with fewer dots."""


class Resolver:
    """Resolves the host names of a spec as a pod in the server's namespace does."""

    def __init__(self, timeout_seconds: float = 5.0) -> None:
        self._timeout_seconds = timeout_seconds

    async def resolve(self, host: str, namespace: str, domain: str) -> tuple[str, str] | None:
        """Return the FQDN and the address that a pod in `namespace` gets for `host`; `domain` is the cluster domain.

        None if `host` does not depend on the namespace or does not exist there: the caller then uses `host` unchanged.
        """
        if not host or host.endswith(".") or host.count(".") >= _NDOTS or is_address(host):
            return None
        fqdn = f"{host}.{namespace}.svc.{domain}"
        try:
            async with asyncio.timeout(self._timeout_seconds):
                # The trailing dot prevents the operator's own resolver from appending search domains.
                addresses = await asyncio.get_running_loop().getaddrinfo(
                    f"{fqdn}.", None, type=socket.SOCK_STREAM
                )
        except (OSError, TimeoutError, UnicodeError):
            return None
        return fqdn, str(addresses[0][4][0])

    async def resolve_url(self, url: str, namespace: str, domain: str) -> str:
        """Return `url` with its host replaced by the FQDN in `namespace`, or unchanged if the host has none there."""
        parts = urlsplit(url)
        resolved = await self.resolve(parts.hostname or "", namespace, domain)
        if resolved is None:
            return url
        port = f":{parts.port}" if parts.port else ""
        return urlunsplit(parts._replace(netloc=f"{resolved[0]}{port}"))
