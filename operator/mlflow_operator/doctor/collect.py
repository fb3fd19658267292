"""Read everything from the cluster that the checks need, without evaluating it."""

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from mlflow_operator import __version__
from mlflow_operator.api.mlflowserver import PLURAL
from mlflow_operator.api.resource import GROUP
from mlflow_operator.doctor import connect, operators, probe
from mlflow_operator.doctor.access import Session
from mlflow_operator.doctor.connect import DoctorError
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.observed import ObservedCluster, Operator, Server
from mlflow_operator.doctor.operators import DeploymentRef
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import ClusterError, Forbidden, NotFound, Unavailable
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.readonly_client import ReadOnlyClient


@dataclass(frozen=True)
class Options:
    """What to check. `namespaces` empty: all. `name` empty: every server. `operator` None: all that are found."""

    namespaces: tuple[str, ...] = ()
    name: str = ""
    operator: DeploymentRef | None = None
    kubeconfig: str | None = None
    context: str | None = None


async def observe(options: Options) -> ObservedCluster:
    """Read the cluster, which takes less than a second. Raises DoctorError if there is nothing to check."""
    client = await connect.connect(options.kubeconfig, options.context)
    try:
        return await _observe(client, options)
    except ClusterError as error:
        raise DoctorError(
            f"The API server at {client.address} did not respond: {error}. Try again."
        ) from error
    finally:
        await client.close()


async def _observe(client: ReadOnlyClient, options: Options) -> ObservedCluster:
    user = await _current_user(client)
    in_cluster = connect.runs_in_cluster(options.kubeconfig, options.context)
    crd, servers, found_operators = await asyncio.gather(
        _crd(client), _servers(client, options, user), operators.find(client, options.operator)
    )
    observed_operators: tuple[Operator, ...] | Unobserved
    if isinstance(found_operators, Unobserved):
        observed_operators = found_operators
    else:
        connect_again = partial(connect.connect, options.kubeconfig, options.context)
        session = Session(client, connect_again, user, in_cluster, options.namespaces)
        observed_operators = tuple(
            await asyncio.gather(*(operators.observe(session, operator) for operator in found_operators))
        )
    if isinstance(crd, Unobserved) and servers is None:
        crd = None
    return ObservedCluster(
        now=datetime.now(UTC),
        version=__version__,
        header=f"{client.address} as {user or 'an unknown user'}, {_client_location(in_cluster)}",
        crd=crd,
        operators=observed_operators,
        servers=await probe.probe_servers(client, servers or (), observed_operators, in_cluster),
    )


def _client_location(in_cluster: bool) -> str:
    return (
        f"from the pod {os.environ.get('HOSTNAME', '')}".rstrip()
        if in_cluster
        else "from outside the cluster"
    )


async def _current_user(client: ReadOnlyClient) -> str:
    try:
        return await client.current_user()
    except Unavailable as error:
        raise DoctorError(
            f"The API server at {client.address} cannot be reached: {error}. Check that the cluster is running, the "
            "context is correct and your credentials are valid: kubectl get --raw /readyz"
        ) from error
    except ClusterError:
        return ""  # an account without this permission may still be allowed to read the rest


async def _crd(client: ReadOnlyClient) -> Object | Unobserved | None:
    try:
        crds = await client.list(kinds.CRD, fields=f"metadata.name={PLURAL}.{GROUP}")
    except Forbidden:
        return Unobserved("this account is not allowed to list customresourcedefinitions.")
    return crds[0] if crds else None


async def _servers(client: ReadOnlyClient, options: Options, user: str) -> tuple[Server, ...] | None:
    """The requested servers. None if the API server does not know the kind MLflowServer."""
    servers: list[Object] = []
    for namespace in options.namespaces or (None,):
        try:
            servers += await client.list(kinds.MLFLOWSERVER, namespace)
        except NotFound:
            return None
        except Forbidden:
            if namespace is None:
                next_step = "Specify a namespace in which you are allowed to: -n NAMESPACE"
            else:
                next_step = "Ask for the ClusterRole `view` in the namespace: it includes this permission."
            scope = f"the namespace {namespace}" if namespace else "all namespaces"
            raise DoctorError(
                f"{user or 'This account'} is not allowed to list MLflowServers in {scope}. {next_step}"
            ) from None
    if not servers:
        for namespace in options.namespaces:
            await _check_namespace(client, namespace)
    if options.name:
        named = [server for server in servers if server["metadata"]["name"] == options.name]
        if not named:
            raise DoctorError(_not_found_message(options, servers))
        servers = named
    return tuple(Server(server) for server in servers)


async def _check_namespace(client: ReadOnlyClient, namespace: str) -> None:
    try:
        if await client.get(kinds.NAMESPACE, None, namespace) is None:
            raise DoctorError(f"There is no namespace {namespace}. See: kubectl get namespaces")
    except Forbidden:
        return


def _not_found_message(options: Options, servers: list[Object]) -> str:
    scope = f"the namespace {', '.join(options.namespaces)}" if options.namespaces else "any namespace"
    existing = ", ".join(
        sorted(f"{server['metadata']['namespace']}/{server['metadata']['name']}" for server in servers[:20])
    )
    return f'There is no MLflowServer "{options.name}" in {scope}. ' + (
        f"Existing servers: {existing}." if existing else "There are no servers: kubectl get mlflowservers -A"
    )
