"""The operators in the cluster: do they run, does one of each lead, may they do what they need."""

from collections.abc import Iterable, Iterator

from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.needs import TO_DELETE_DATA, Permission
from mlflow_operator.doctor.seen import ObservedCluster, Operator
from mlflow_operator.kube.objects import Object


def check(seen: ObservedCluster) -> Iterator[Finding]:
    """Each operator; or that there is none."""
    if isinstance(seen.operators, Unobserved):
        yield Finding(
            "cluster",
            "operator",
            State.UNKNOWN,
            f"The operator could not be looked for: {seen.operators.why}",
            "Name it with --operator NAMESPACE/NAME, or run doctor in its pod: "
            "kubectl exec -n NAMESPACE deploy/mlflow-operator -- mlflow-operator doctor",
        )
        return
    if not seen.operators:
        yield Finding(
            "cluster",
            "operator",
            State.FAULT,
            "No operator was found: nothing that is asked for comes to be, and nothing is repaired.",
            "Install the chart mlflow-operator; if its labels are not the chart's, name it: --operator NAMESPACE/NAME",
        )
    for operator in seen.operators:
        yield _deployment(operator)
        yield _lease(operator)
        yield _permissions(operator)
        yield from _version(operator, seen.version)


def _in_its_pod(operator: Operator) -> str:
    return f"kubectl exec -n {operator.namespace} deploy/{operator.name} -- mlflow-operator doctor"


def _subject(operator: Operator) -> str:
    return f"operator {operator.namespace}/{operator.name}"


def _deployment(operator: Operator) -> Finding:
    subject, place = _subject(operator), f"-n {operator.namespace}"
    live = operator.deployment
    if isinstance(live, Unobserved):
        return Finding(subject, "deployment", State.UNKNOWN, f"Not looked at: {live.why}")
    wanted = int((live.get("spec") or {}).get("replicas", 1))
    ready = int((live.get("status") or {}).get("readyReplicas") or 0)
    counted = f"{ready} of {wanted} pods ready"
    if wanted == 0:
        return Finding(
            subject,
            "deployment",
            State.FAULT,
            "It is scaled to 0: nothing is repaired, and no change of an MLflowServer has any effect.",
            f"kubectl scale {place} deployment/{operator.name} --replicas=1",
        )
    if ready == 0:
        why = _why(operator.pods)
        return Finding(
            subject,
            "deployment",
            State.FAULT,
            f"{counted}: {why}." if why else f"{counted}.",
            f"kubectl describe {place} pods -l {_selector(live)}; kubectl logs {place} deployment/{operator.name}",
        )
    watched = "all namespaces" if not operator.watched else ", ".join(operator.watched)
    if ready < wanted:
        return Finding(
            subject,
            "deployment",
            State.WAIT,
            f"{counted}: {_why(operator.pods) or 'the others are on their way'}.",
            f"If it stays so: kubectl describe {place} pods -l {_selector(live)}",
        )
    return Finding(subject, "deployment", State.OK, f"{counted}, serves {watched}")


def _why(pods: Iterable[Object]) -> str:
    """The first reason for which a container of the pods does not run, as Kubernetes calls it."""
    for pod in pods:
        status = pod.get("status") or {}
        for condition in status.get("conditions") or ():
            if condition.get("reason") == "Unschedulable":
                return f"no node takes pod {pod['metadata']['name']}"
        for container in status.get("containerStatuses") or ():
            state = container.get("state") or {}
            for at in ("waiting", "terminated"):
                reason = (state.get(at) or {}).get("reason")
                if reason and not container.get("ready"):
                    return f"pod {pod['metadata']['name']} is in {reason}"
    return ""


def _selector(deployment: Object) -> str:
    chosen = ((deployment.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    return ",".join(f"{key}={value}" for key, value in chosen.items())


def _lease(operator: Operator) -> Finding:
    subject, lease = _subject(operator), operator.lease
    logs = f"kubectl logs -n {operator.namespace} deployment/{operator.name}"
    if isinstance(lease, Unobserved):
        return Finding(subject, "lease", State.UNKNOWN, f"Not looked at: {lease.why}")
    if lease is None:
        return Finding(subject, "lease", State.FAULT, "There is none: no operator has led yet.", logs)
    if not lease.holder:
        return Finding(
            subject,
            "lease",
            State.FAULT,
            "Nobody holds it: the operator has stopped, and no other works.",
            logs,
        )
    if not lease.fresh:
        found = f"{lease.holder} holds it and does not renew it: no operator works."
        return Finding(subject, "lease", State.FAULT, found, logs)
    return Finding(subject, "lease", State.OK, f"renewed by {lease.holder}")


def _permissions(operator: Operator) -> Finding:
    subject, access = _subject(operator), operator.access
    if isinstance(access, Unobserved):
        return Finding(
            subject,
            "permissions",
            State.UNKNOWN,
            f"Not asked: {access.why}",
            f"Run doctor in its pod: {_in_its_pod(operator)}",
        )
    withheld = [p for p in access.refused if (p.group, p.resource, p.verb) in TO_DELETE_DATA]
    missing = [p for p in access.refused if p not in withheld]
    if missing:
        return Finding(
            subject,
            "permissions",
            State.FAULT,
            f"{access.account} may not: {spelled(missing)}.",
            "Upgrade or install the chart again (its roles come with it), or apply manifests/operator.yaml; "
            "then see who took them away.",
        )
    if withheld:
        return Finding(
            subject,
            "permissions",
            State.NOTE,
            f"{access.account} may do all it needs but delete data ({spelled(withheld)}): a server with "
            "deletionPolicy Delete can't go.",
            "If that is not wanted: the chart's value deletion.allowed.",
        )
    return Finding(subject, "permissions", State.OK, f"{access.account} may do all it needs")


def spelled(permissions: Iterable[Permission]) -> str:
    """Each resource once per place, with all its verbs: `statefulsets.apps (create, delete) in team-a`."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for p in permissions:
        where = f" in {p.namespace}" if p.namespace else ""
        which = f" {p.name}" if p.name else ""
        verbs.setdefault((p.on + which, where), []).append(p.verb)
    return "; ".join(f"{on} ({', '.join(asked)}){where}" for (on, where), asked in verbs.items())


def _version(operator: Operator, mine: str) -> Iterator[Finding]:
    if not operator.version:
        return
    if operator.version == mine:
        yield Finding(_subject(operator), "version", State.OK, mine)
        return
    yield Finding(
        _subject(operator),
        "version",
        State.NOTE,
        f"The operator is {operator.version}, this doctor {mine}.",
        f"Run the operator's own: {_in_its_pod(operator)}",
    )
