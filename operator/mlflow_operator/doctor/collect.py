"""Read everything from the cluster that the checks need, without evaluating it."""

import asyncio
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from mlflow_operator import __version__
from mlflow_operator.api.crd import CUSTOM_RESOURCES
from mlflow_operator.api.resource import GROUP
from mlflow_operator.doctor import connect, operators, platforms, probe
from mlflow_operator.doctor.access import Session
from mlflow_operator.doctor.connect import DoctorError
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.observed import (
    ObservedCluster,
    ObservedPlatform,
    ObservedPlatforms,
    Operator,
    Server,
)
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
    crds, servers, found_operators, found_platforms = await asyncio.gather(
        asyncio.gather(*(_crd(client, resource.plural) for resource in CUSTOM_RESOURCES)),
        _servers(client, options, user),
        operators.find(client, options.operator),
        platforms.read(client),
    )
    crd, platform_crd = crds
    readable = found_platforms if isinstance(found_platforms, tuple) else ()
    watched = _watched_namespaces(found_operators)
    in_scope = {*(options.namespaces or watched), *(server.namespace for server in servers or ())}
    labels = await platforms.namespace_labels(client, in_scope | {*watched}) if readable else {}
    observed_operators: tuple[Operator, ...] | Unobserved
    if isinstance(found_operators, Unobserved):
        observed_operators = found_operators
    else:
        connect_again = partial(connect.connect, options.kubeconfig, options.context)
        session = Session(client, connect_again, user, in_cluster, options.namespaces)
        observed_operators = tuple(
            await asyncio.gather(
                *(operators.observe(session, operator, readable, labels) for operator in found_operators)
            )
        )
    if isinstance(crd, Unobserved) and servers is None:
        crd = None
    if isinstance(platform_crd, Unobserved) and found_platforms is None:
        platform_crd = None
    return ObservedCluster(
        now=datetime.now(UTC),
        version=__version__,
        header=f"{client.address} as {user or 'an unknown user'}, {_client_location(in_cluster)}",
        crd=crd,
        operators=observed_operators,
        servers=await probe.probe_servers(client, servers or (), observed_operators, in_cluster),
        platforms=ObservedPlatforms(
            platform_crd,
            found_platforms or (),
            _checked_platforms(options, readable, servers or (), watched, labels),
            labels,
        ),
    )


def _watched_namespaces(found: tuple[operators.OperatorDeployment, ...] | Unobserved) -> tuple[str, ...]:
    """The namespaces that the operators watch; empty if one of them watches all, or if that is unknown."""
    if isinstance(found, Unobserved):
        return ()
    watched = [
        ()
        if isinstance(operator.deployment, Unobserved)
        else operators.watched_namespaces(operator.deployment)
        for operator in found
    ]
    return tuple(name for names in watched for name in names) if all(watched) else ()


def _checked_platforms(
    options: Options,
    found: tuple[ObservedPlatform, ...],
    servers: tuple[Server, ...],
    watched: tuple[str, ...],
    labels: Mapping[str, Mapping[str, str]],
) -> frozenset[str]:
    """Names of the platforms to check: those that the servers use, and those that select a checked namespace.

    An operator ignores a platform that selects none of the namespaces that it watches.
    """
    used = {
        str(((server.resource.get("status") or {}).get("platform") or {}).get("name")) for server in servers
    }
    namespaces = options.namespaces or watched
    if options.name:
        selected: list[ObservedPlatform] = []
    elif namespaces:
        selected = platforms.selecting(found, namespaces, labels)
    else:
        selected = [*found]
    return frozenset(platform.name for platform in found if platform.name in used or platform in selected)


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


async def _crd(client: ReadOnlyClient, plural: str) -> Object | Unobserved | None:
    try:
        crds = await client.list(kinds.CRD, fields=f"metadata.name={plural}.{GROUP}")
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
