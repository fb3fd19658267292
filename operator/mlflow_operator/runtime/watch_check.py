"""Notices that MLflowServers are not watched.

kopf reads which kinds the API server serves whenever a CustomResourceDefinition changes. The API server may list a new
kind only after the last of these changes. kopf then never watches it, and the operator would know no server until the
next restart.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import NoReturn

from mlflow_operator.kube.errors import ClusterError
from mlflow_operator.kube.objects import NamespacedName
from mlflow_operator.runtime.watch import WatchLost

CHECK_SECONDS = 30.0
"""Time between two checks; each is one request. A missed server is noticed after a minute, as is every other change
that no event tells of."""


async def verify(
    servers: Callable[[], Awaitable[Collection[NamespacedName]]],
    noticed: Collection[NamespacedName],
    pause: float = CHECK_SECONDS,
) -> NoReturn:
    """Compare the servers that exist with those that events have `noticed`, every `pause` seconds.

    Raises WatchLost for a server that is missing at two checks in a row; at the first one its event may be under way.
    If the API server does not answer, or does not serve the kind, the next check begins from nothing.
    """
    missing: set[NamespacedName] = set()
    while True:
        await asyncio.sleep(pause)
        try:
            found = await servers()
        except ClusterError:
            missing = set()
            continue
        before, missing = missing, {key for key in found if key not in noticed}
        if lost := before & missing:
            namespace, name = min(lost)
            raise WatchLost(f"no event has told of MLflowServer {namespace}/{name}")
