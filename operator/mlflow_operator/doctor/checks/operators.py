"""Whether each operator runs, has a leader, and has the required permissions."""

from collections.abc import Iterable, Iterator

from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import ObservedCluster, Operator
from mlflow_operator.doctor.permissions import DATA_DELETION, Permission, is_platform_secret
from mlflow_operator.kube.objects import Object


def check(cluster: ObservedCluster) -> Iterator[Finding]:
    """Findings for each operator, or that there is none."""
    if isinstance(cluster.operators, Unobserved):
        yield Finding(
            "cluster",
            "operator",
            State.UNKNOWN,
            f"The operator could not be found: {cluster.operators.reason}",
            "Specify it with --operator NAMESPACE/NAME, or run doctor in its pod: "
            "kubectl exec -n NAMESPACE deploy/mlflow-operator -- mlflow-operator doctor",
        )
        return
    if not cluster.operators:
        yield Finding(
            "cluster",
            "operator",
            State.FAILED,
            "No operator was found: MLflowServers are not reconciled.",
            "Install the chart mlflow-operator. If the operator has other labels, use --operator NAMESPACE/NAME.",
        )
    for operator in cluster.operators:
        yield _deployment(operator)
        yield _lease(operator)
        yield _permissions(operator)
        yield from _version(operator, cluster.version)


def _doctor_in_pod(operator: Operator) -> str:
    return f"kubectl exec -n {operator.namespace} deploy/{operator.name} -- mlflow-operator doctor"


def _subject(operator: Operator) -> str:
    return f"operator {operator.namespace}/{operator.name}"


def _deployment(operator: Operator) -> Finding:
    subject, namespace_option = _subject(operator), f"-n {operator.namespace}"
    deployment = operator.deployment
    if isinstance(deployment, Unobserved):
        return Finding(subject, "deployment", State.UNKNOWN, f"Not checked: {deployment.reason}")
    desired = int((deployment.get("spec") or {}).get("replicas", 1))
    ready = int((deployment.get("status") or {}).get("readyReplicas") or 0)
    pods_ready = f"{ready} of {desired} pods ready"
    if desired == 0:
        return Finding(
            subject,
            "deployment",
            State.FAILED,
            "Scaled to 0: nothing is reconciled, and changes of MLflowServers have no effect.",
            f"kubectl scale {namespace_option} deployment/{operator.name} --replicas=1",
        )
    if ready == 0:
        reason = _not_ready_reason(operator.pods)
        return Finding(
            subject,
            "deployment",
            State.FAILED,
            f"{pods_ready}: {reason}." if reason else f"{pods_ready}.",
            f"kubectl describe {namespace_option} pods -l {_selector(deployment)}; "
            f"kubectl logs {namespace_option} deployment/{operator.name}",
        )
    namespaces = (
        "all namespaces" if not operator.watched_namespaces else ", ".join(operator.watched_namespaces)
    )
    if ready < desired:
        return Finding(
            subject,
            "deployment",
            State.PENDING,
            f"{pods_ready}: {_not_ready_reason(operator.pods) or 'the other pods are starting'}.",
            f"If this does not change: kubectl describe {namespace_option} pods -l {_selector(deployment)}",
        )
    return Finding(subject, "deployment", State.OK, f"{pods_ready}, watches {namespaces}")


def _not_ready_reason(pods: Iterable[Object]) -> str:
    """The first reason in the pods' statuses why a container does not run."""
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("reason") == "Unschedulable":
                return f"pod {pod['metadata']['name']} cannot be scheduled"
        for container in status.get("containerStatuses") or ():
            state = container.get("state") or {}
            for state_name in ("waiting", "terminated"):
                reason = (state.get(state_name) or {}).get("reason")
                if reason and not container.get("ready"):
                    return f"pod {pod['metadata']['name']} is in {reason}"
    return ""


def _selector(deployment: Object) -> str:
    match_labels = ((deployment.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in match_labels.items())


def _lease(operator: Operator) -> Finding:
    subject, lease = _subject(operator), operator.lease
    logs = f"kubectl logs -n {operator.namespace} deployment/{operator.name}"
    if isinstance(lease, Unobserved):
        return Finding(subject, "lease", State.UNKNOWN, f"Not checked: {lease.reason}")
    if lease is None:
        message = "The Lease does not exist: no operator has been the leader yet."
        return Finding(subject, "lease", State.FAILED, message, logs)
    if not lease.holder:
        return Finding(
            subject,
            "lease",
            State.FAILED,
            "The Lease has no holder: the operator was stopped, and no other one is the leader.",
            logs,
        )
    if not lease.is_renewed:
        message = f"{lease.holder} holds the Lease but does not renew it: no operator is active."
        return Finding(subject, "lease", State.FAILED, message, logs)
    return Finding(subject, "lease", State.OK, f"renewed by {lease.holder}")


def _permissions(operator: Operator) -> Finding:
    subject, access = _subject(operator), operator.access
    if isinstance(access, Unobserved):
        return Finding(
            subject,
            "permissions",
            State.UNKNOWN,
            f"Not checked: {access.reason}",
            f"Run doctor in its pod: {_doctor_in_pod(operator)}",
        )
    withheld = [p for p in access.denied if (p.group, p.resource, p.verb) in DATA_DELETION]
    missing = [p for p in access.denied if p not in withheld]
    if missing:
        return Finding(
            subject,
            "permissions",
            State.FAILED,
            f"{access.account} lacks permissions: {format_permissions(missing)}.",
            " ".join(_permission_steps(missing)),
        )
    if withheld:
        return Finding(
            subject,
            "permissions",
            State.NOTE,
            f"{access.account} has all required permissions except those to delete data "
            f"({format_permissions(withheld)}): a server with deletionPolicy Delete cannot be deleted.",
            "If this is not intended, set deletion.allowed to true in the chart's values.",
        )
    return Finding(subject, "permissions", State.OK, f"{access.account} has all required permissions")


def _permission_steps(missing: Iterable[Permission]) -> Iterator[str]:
    missing = [*missing]
    if any(map(is_platform_secret, missing)):
        yield (
            "Add the Secrets of platforms to platformSecrets in the values of the operator's chart, by their namespace."
        )
    if not all(map(is_platform_secret, missing)):
        yield (
            "Upgrade or reinstall the chart, which includes the roles, or apply manifests/operator.yaml. Then find out "
            "what removed the permissions."
        )


def format_permissions(permissions: Iterable[Permission]) -> str:
    """List each resource once per namespace, with its verbs: `statefulsets.apps (create, delete) in team-a`."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for permission in permissions:
        scope = f" in {permission.namespace}" if permission.namespace else ""
        name = f" {permission.name}" if permission.name else ""
        verbs.setdefault((permission.qualified_resource + name, scope), []).append(permission.verb)
    return "; ".join(
        f"{resource} ({', '.join(resource_verbs)}){scope}"
        for (resource, scope), resource_verbs in verbs.items()
    )


def _version(operator: Operator, doctor_version: str) -> Iterator[Finding]:
    if not operator.version:
        return
    if operator.version == doctor_version:
        yield Finding(_subject(operator), "version", State.OK, doctor_version)
        return
    yield Finding(
        _subject(operator),
        "version",
        State.NOTE,
        f"The operator's version is {operator.version}, the version of this doctor is {doctor_version}.",
        f"Run the operator's own doctor: {_doctor_in_pod(operator)}",
    )
