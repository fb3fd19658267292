"""Asks the API server what the operator's account may do: as that account, which an administrator may impersonate."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.needs import Permission
from mlflow_operator.doctor.seen import Access
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.readonly_client import ReadOnlyClient


@dataclass(frozen=True)
class Asking:
    """Who asks: `me`, `within` the cluster or not. `another`: makes a second client, to speak as somebody else.

    `namespaces`: what the user asked for, in the place of what an unseen operator watches.
    """

    onlooker: ReadOnlyClient
    another: Callable[[], Awaitable[ReadOnlyClient]]
    me: str
    within: bool
    namespaces: tuple[str, ...]


async def of(asking: Asking, account: str, needed: tuple[Permission, ...]) -> Access | Unobserved:
    """Which of what is needed `account` may not. Empty: unknown, so our own, if we are in its pod."""
    if not account and not asking.within:
        return Unobserved("the operator's account is not known.")
    account = account or asking.me
    if account == asking.me:
        return Access(account, await _refused(asking.onlooker, needed))
    client = await asking.another()
    client.impersonate(account)
    try:
        return Access(account, await _refused(client, needed))
    except Forbidden:
        return Unobserved(f"this account may not impersonate {account}.")
    finally:
        await client.close()


async def _refused(client: ReadOnlyClient, needed: tuple[Permission, ...]) -> tuple[Permission, ...]:
    allowed = await asyncio.gather(*(client.is_allowed(attributes(one)) for one in needed))
    return tuple(one for one, may in zip(needed, allowed, strict=True) if not may)


def attributes(permission: Permission) -> Object:
    """A permission as the API server is asked for it."""
    resource, _, subresource = permission.resource.partition("/")
    return {
        "group": permission.group,
        "resource": resource,
        "subresource": subresource,
        "verb": permission.verb,
        "namespace": permission.namespace or "",
        "name": permission.name,
    }
