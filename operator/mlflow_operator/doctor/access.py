"""Check the permissions of the operator's account, by impersonation or from the operator's own pod."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.observed import AccessReview
from mlflow_operator.doctor.permissions import Permission
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.readonly_client import ReadOnlyClient


@dataclass(frozen=True)
class Session:
    """A connection to the API server as `user`.

    `in_cluster`: this process runs in a pod of the cluster. `connect` creates a second client, for impersonation.
    `namespaces`: the user's selection, used if the namespaces that the operator watches are unknown.
    """

    client: ReadOnlyClient
    connect: Callable[[], Awaitable[ReadOnlyClient]]
    user: str
    in_cluster: bool
    namespaces: tuple[str, ...]


async def check_access(
    session: Session, account: str, required: tuple[Permission, ...]
) -> AccessReview | Unobserved:
    """Return which of the `required` permissions `account` lacks.

    An empty `account` means unknown: in the cluster it is then the account of this pod.
    """
    if not account and not session.in_cluster:
        return Unobserved("the operator's service account is unknown.")
    account = account or session.user
    if account == session.user:
        return AccessReview(account, await _denied(session.client, required))
    client = await session.connect()
    client.impersonate(account)
    try:
        return AccessReview(account, await _denied(client, required))
    except Forbidden:
        return Unobserved(f"this account is not allowed to impersonate {account}.")
    finally:
        await client.close()


async def _denied(client: ReadOnlyClient, required: tuple[Permission, ...]) -> tuple[Permission, ...]:
    allowed = await asyncio.gather(
        *(client.is_allowed(resource_attributes(permission)) for permission in required)
    )
    return tuple(
        permission for permission, is_allowed in zip(required, allowed, strict=True) if not is_allowed
    )


def resource_attributes(permission: Permission) -> Object:
    """The permission as `resourceAttributes` of a SelfSubjectAccessReview."""
    resource, _, subresource = permission.resource.partition("/")
    return {
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "verb": permission.verb,
        "namespace": permission.namespace or "",
        "name": permission.name,
    }
