"""Looks at an installation, all of it at once, and thinks nothing about it."""

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from mlflow_operator import __version__
from mlflow_operator.api.mlflowserver import GROUP, PLURAL
from mlflow_operator.doctor import answers, connect, operators
from mlflow_operator.doctor.access import Asking
from mlflow_operator.doctor.connect import CouldNotAsk
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.operators import Deployed
from mlflow_operator.doctor.seen import ObservedCluster, Operator, Server
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import ClusterError, Forbidden, NotFound, Unavailable
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.readonly_client import ReadOnlyClient


@dataclass(frozen=True)
class Wanted:
    """What to look at. `namespaces` empty: all; `name` empty: every server; `operator` None: whichever there are."""

    namespaces: tuple[str, ...] = ()
    name: str = ""
    operator: Deployed | None = None
    kubeconfig: str | None = None
    context: str | None = None


async def look(wanted: Wanted) -> ObservedCluster:
    """Everything, in some tenths of a second. CouldNotAsk: there is nothing to be seen, and why."""
    onlooker = await connect.connect(wanted.kubeconfig, wanted.context)
    try:
        return await _look(onlooker, wanted)
    except ClusterError as error:
        raise CouldNotAsk(
            f"The API server at {onlooker.address} did not answer: {error}. Try again."
        ) from error
    finally:
        await onlooker.close()


async def _look(onlooker: ReadOnlyClient, wanted: Wanted) -> ObservedCluster:
    me = await _introduced(onlooker)
    within = connect.inside(wanted.kubeconfig, wanted.context)
    definition, servers, found = await asyncio.gather(
        _definition(onlooker), _servers(onlooker, wanted, me), operators.find(onlooker, wanted.operator)
    )
    seen: tuple[Operator, ...] | Unobserved = found if isinstance(found, Unobserved) else ()
    if not isinstance(found, Unobserved):
        another = partial(connect.connect, wanted.kubeconfig, wanted.context)
        asking = Asking(onlooker, another, me, within, wanted.namespaces)
        seen = tuple(await asyncio.gather(*(operators.seen(asking, one) for one in found)))
    there = () if servers is None else servers
    if isinstance(definition, Unobserved) and servers is None:
        definition = None
    return ObservedCluster(
        now=datetime.now(UTC),
        version=__version__,
        here=f"{onlooker.address} as {me or 'nobody in particular'}, {_from(within)}",
        definition=definition,
        operators=seen,
        servers=await answers.asked(onlooker, there, seen, within),
    )


def _from(within: bool) -> str:
    return f"from the pod {os.environ.get('HOSTNAME', '')}".rstrip() if within else "from outside the cluster"


async def _introduced(onlooker: ReadOnlyClient) -> str:
    try:
        return await onlooker.current_user()
    except Unavailable as error:
        raise CouldNotAsk(
            f"The API server at {onlooker.address} can't be asked: {error}. Does the cluster run, is this the right "
            "context, and are your credentials still good? Try: kubectl get --raw /readyz"
        ) from error
    except ClusterError:
        return ""  # who may not even ask that may see something all the same


async def _definition(onlooker: ReadOnlyClient) -> Object | Unobserved | None:
    try:
        found = await onlooker.list(kinds.CRD, fields=f"metadata.name={PLURAL}.{GROUP}")
    except Forbidden:
        return Unobserved("this account may not list customresourcedefinitions.")
    return found[0] if found else None


async def _servers(onlooker: ReadOnlyClient, wanted: Wanted, me: str) -> tuple[Server, ...] | None:
    """Those that were asked for; None: the cluster does not know the kind."""
    found: list[Object] = []
    for namespace in wanted.namespaces or (None,):
        try:
            found += await onlooker.list(kinds.MLFLOWSERVER, namespace)
        except NotFound:
            return None
        except Forbidden:
            if namespace is None:
                way_out = "Name a namespace in which you may: -n NAMESPACE"
            else:
                way_out = "Whoever may view the namespace may list them: ask for the role `view` in it."
            place = f"the namespace {namespace}" if namespace else "all namespaces"
            raise CouldNotAsk(f"{me or 'You'} may not list MLflowServers in {place}. {way_out}") from None
    if not found:
        for namespace in wanted.namespaces:
            await _must_exist(onlooker, namespace)
    if wanted.name:
        named = [one for one in found if one["metadata"]["name"] == wanted.name]
        if not named:
            raise CouldNotAsk(_no_such(wanted, found))
        found = named
    return tuple(Server(one) for one in found)


async def _must_exist(onlooker: ReadOnlyClient, namespace: str) -> None:
    try:
        if await onlooker.get(kinds.NAMESPACE, None, namespace) is None:
            raise CouldNotAsk(f"There is no namespace {namespace}. See: kubectl get namespaces")
    except Forbidden:
        return


def _no_such(wanted: Wanted, found: list[Object]) -> str:
    place = f"the namespace {', '.join(wanted.namespaces)}" if wanted.namespaces else "any namespace"
    others = ", ".join(
        sorted(f"{one['metadata']['namespace']}/{one['metadata']['name']}" for one in found[:20])
    )
    return f'There is no MLflowServer "{wanted.name}" in {place}. ' + (
        f"There are: {others}." if others else "There is none at all: kubectl get mlflowservers -A"
    )
