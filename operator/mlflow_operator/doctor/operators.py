"""Find the operators and read their Deployments, pods and Leases."""

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from mlflow_operator.doctor import access, permissions, platforms
from mlflow_operator.doctor.access import Session
from mlflow_operator.doctor.connect import DoctorError
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.observed import Lease, ObservedPlatform, Operator
from mlflow_operator.kube import kinds, timestamps
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.readonly_client import ReadOnlyClient

LABEL_SELECTOR = "app.kubernetes.io/component=operator"
"""Label of the chart's Deployment. Its arguments show whether it is this operator."""
_LEASE_POLL_SECONDS = 1.0
_LEASE_GRACE_SECONDS = 3.0
"""Time in addition to the lease duration before a Lease without a renewal counts as expired."""


@dataclass(frozen=True)
class DeploymentRef:
    """Namespace and name of a Deployment."""

    namespace: str
    name: str


@dataclass(frozen=True)
class OperatorDeployment:
    """The Deployment of an operator, or the reason why it could not be read."""

    ref: DeploymentRef
    deployment: Object | Unobserved


async def find(
    client: ReadOnlyClient, ref: DeploymentRef | None
) -> tuple[OperatorDeployment, ...] | Unobserved:
    """Find the operator `ref`, or all with the chart's label. Raises DoctorError if `ref` does not exist."""
    if ref:
        try:
            deployment = await client.get(kinds.DEPLOYMENT, ref.namespace, ref.name)
        except Forbidden:
            reason = f"this account is not allowed to get Deployments in {ref.namespace}."
            return (OperatorDeployment(ref, Unobserved(reason)),)
        if deployment is None:
            raise DoctorError(
                f"There is no Deployment {ref.namespace}/{ref.name}. "
                f"See: kubectl get deployments -A -l {LABEL_SELECTOR}"
            )
        return (OperatorDeployment(ref, deployment),)
    try:
        deployments = await client.list(kinds.DEPLOYMENT, labels=LABEL_SELECTOR)
    except Forbidden:
        return Unobserved("this account is not allowed to list Deployments in all namespaces.")
    return tuple(
        OperatorDeployment(
            DeploymentRef(deployment["metadata"]["namespace"], deployment["metadata"]["name"]), deployment
        )
        for deployment in deployments
        if lease_name(deployment)
    )


async def observe(
    session: Session,
    operator: OperatorDeployment,
    observed_platforms: tuple[ObservedPlatform, ...],
    labels: Mapping[str, Mapping[str, str]],
) -> Operator:
    """Read the pods, the Lease and the permissions of an operator. `labels`: those of the namespaces, by name."""
    ref, deployment = operator.ref, operator.deployment
    # The chart gives the Lease the name of the Deployment.
    lease, account = ref.name, ""
    namespaces: tuple[str, ...] | None = None
    if not isinstance(deployment, Unobserved):
        lease, account = lease_name(deployment), _service_account_user(ref, deployment)
        namespaces = watched_namespaces(deployment)
    watched = session.namespaces if namespaces is None else namespaces
    required = [*permissions.required_permissions(watched, ref.namespace, lease)]
    for platform in platforms.selecting(observed_platforms, watched, labels):
        if platform.resolved:
            required += permissions.platform_secret_permissions(platform.resolved)
    pods, lease_state, review = await asyncio.gather(
        _pods(session.client, ref, deployment),
        _lease(session.client, ref.namespace, lease),
        access.check_access(session, account, tuple(required)),
    )
    return Operator(ref.namespace, ref.name, deployment, pods, lease_state, review, namespaces)


def run_arguments(deployment: Object) -> tuple[str, ...]:
    """The arguments of `mlflow-operator run`; empty if the Deployment runs something else."""
    containers = deployment["spec"]["template"]["spec"].get("containers") or [{}]
    args = tuple(str(argument) for argument in containers[0].get("args") or ())
    return args[1:] if args[:1] == ("run",) else ()


def _option_values(args: Iterable[str], option: str) -> tuple[str, ...]:
    """All values of an option, given as `--option=value` or `--option value`."""
    parts = [part for argument in args for part in argument.split("=", 1)]
    return tuple(value for name, value in pairwise(parts) if name == option)


def lease_name(deployment: Object) -> str:
    """Name of the operator's Lease; empty if the Deployment is not this operator."""
    args = run_arguments(deployment)
    return next(iter(_option_values(args, "--lease-name")), "")


def watched_namespaces(deployment: Object) -> tuple[str, ...]:
    """The namespaces that the operator watches; empty means all."""
    return _option_values(run_arguments(deployment), "--namespace")


def _service_account_user(ref: DeploymentRef, deployment: Object) -> str:
    name = deployment["spec"]["template"]["spec"].get("serviceAccountName") or "default"
    return f"system:serviceaccount:{ref.namespace}:{name}"


async def _pods(
    client: ReadOnlyClient, ref: DeploymentRef, deployment: Object | Unobserved
) -> tuple[Object, ...]:
    if isinstance(deployment, Unobserved):
        return ()
    match_labels = deployment["spec"]["selector"].get("matchLabels") or {}
    try:
        pods = await client.list(
            kinds.POD, ref.namespace, ",".join(f"{key}={value}" for key, value in match_labels.items())
        )
    except Forbidden:
        return ()
    return tuple(pod for pod in pods if not pod["metadata"].get("deletionTimestamp"))


async def _lease(client: ReadOnlyClient, namespace: str, name: str) -> Lease | Unobserved | None:
    try:
        lease = await client.get(kinds.LEASE, namespace, name)
        if lease is None:
            return None
        first_spec = lease.get("spec") or {}
        holder = str(first_spec.get("holderIdentity") or "")
        if not holder or is_recently_renewed(first_spec, datetime.now(UTC)):
            return Lease(holder, True)
        # The clocks may differ, so a renewal within the lease duration counts as well.
        for _ in range(int((_duration_seconds(first_spec) + _LEASE_GRACE_SECONDS) / _LEASE_POLL_SECONDS)):
            await asyncio.sleep(_LEASE_POLL_SECONDS)
            lease = await client.get(kinds.LEASE, namespace, name)
            spec = (lease or {}).get("spec") or {}
            if spec.get("renewTime") != first_spec.get("renewTime"):
                return Lease(str(spec.get("holderIdentity") or ""), True)
    except Forbidden:
        return Unobserved(f"this account is not allowed to get Leases in {namespace}.")
    return Lease(holder, False)


def _duration_seconds(spec: Object) -> float:
    return min(float(spec.get("leaseDurationSeconds") or 15), 60.0)


def is_recently_renewed(spec: Object, now: datetime) -> bool:
    """Whether the last renewal differs from `now` by at most the lease duration, in either direction."""
    renewed = timestamps.parse_optional(spec.get("renewTime"))
    if renewed is None:
        return False
    return abs((now - renewed).total_seconds()) <= _duration_seconds(spec)
