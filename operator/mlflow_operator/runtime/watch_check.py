"""Detects that MLflowServers or MLflowPlatforms are not watched.

kopf reads which kinds the API server serves whenever a CustomResourceDefinition changes. The API server may list a new
kind only after the last of these changes. kopf then never watches it, and the operator would not see any resource of
this kind until it is restarted.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import NoReturn

from mlflow_operator.kube.errors import ClusterError
from mlflow_operator.kube.objects import NamespacedName
from mlflow_operator.runtime.watch import WatchLost

CHECK_INTERVAL_SECONDS = 30.0
"""Seconds between two checks; each is two list requests (more if namespaces are given). A missed resource is
detected after one minute, as long as the resync takes to detect any other change without a watch event."""


async def verify(
    list_resources: Callable[[], Awaitable[Collection[NamespacedName]]],
    seen: Collection[NamespacedName],
    interval_seconds: float = CHECK_INTERVAL_SECONDS,
) -> NoReturn:
    """Compare the existing resources with those that watch events have reported (`seen`), every `interval_seconds`.

    The namespace of an MLflowPlatform is empty. Raises WatchLost for a resource that is missing from `seen` at two
    checks in a row; at the first check its event may still be on the way. If the API server does not answer or does not
    serve the kind, the next check counts as the first.
    """
    missing: set[NamespacedName] = set()
    while True:
        await asyncio.sleep(interval_seconds)
        try:
            existing = await list_resources()
        except ClusterError:
            missing = set()
            continue
        previous, missing = missing, {key for key in existing if key not in seen}
        if unwatched := previous & missing:
            namespace, name = min(unwatched)
            resource = f"MLflowServer {namespace}/{name}" if namespace else f"MLflowPlatform {name}"
            raise WatchLost(f"received no watch event for {resource}")
