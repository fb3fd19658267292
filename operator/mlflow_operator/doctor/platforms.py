"""Read the platforms, and the labels of the namespaces that they can select."""

import asyncio
from collections.abc import Collection, Iterable, Mapping

from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.resource import InvalidResource
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.observed import ObservedPlatform
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.readonly_client import ReadOnlyClient
from mlflow_operator.model.platform import Platform, resolve_platform


async def read(client: ReadOnlyClient) -> tuple[ObservedPlatform, ...] | Unobserved | None:
    """Read all platforms. None if the API server does not know the kind MLflowPlatform."""
    try:
        resources = await client.list(kinds.MLFLOWPLATFORM)
    except NotFound:
        return None
    except Forbidden:
        return Unobserved("this account is not allowed to list mlflowplatforms.")
    return tuple(ObservedPlatform(resource, _resolve(resource)) for resource in resources)


def _resolve(resource: Object) -> Platform | None:
    # An operator of another version may have written the status.
    without_status = {key: value for key, value in resource.items() if key != "status"}
    try:
        return resolve_platform(mlflowplatform.parse(without_status))
    except InvalidResource:
        return None


async def namespace_labels(
    client: ReadOnlyClient, required: Collection[str]
) -> Mapping[str, Mapping[str, str]]:
    """Read the labels of all namespaces, or of those in `required` that this account is allowed to get."""
    try:
        return await client.list_labels(kinds.NAMESPACE)
    except Forbidden:
        names = sorted(required)
    namespaces = await asyncio.gather(*(_namespace(client, name) for name in names))
    return {
        name: namespace["metadata"].get("labels") or {}
        for name, namespace in zip(names, namespaces, strict=True)
        if namespace
    }


async def _namespace(client: ReadOnlyClient, name: str) -> Object | None:
    try:
        return await client.get(kinds.NAMESPACE, None, name)
    except Forbidden:
        return None


def selecting(
    platforms: Iterable[ObservedPlatform],
    namespaces: Collection[str],
    labels: Mapping[str, Mapping[str, str]],
) -> list[ObservedPlatform]:
    """Return the platforms that select one of `namespaces`, and the invalid ones, whose selector is unknown."""
    found = [labels[namespace] for namespace in namespaces if namespace in labels]
    return [
        platform
        for platform in platforms
        if platform.resolved is None or any(map(platform.resolved.selects, found))
    ]
