"""Whether a server responds to clients in the cluster and through the API server's proxy."""

from collections.abc import Iterator

from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.observed import ProbeResult, Server
from mlflow_operator.status.conditions import ConditionType

THROUGH_PROXY = "through the API server's Service proxy"


def check(server: Server) -> Iterator[Finding]:
    """One finding for each of the two ways that was probed."""
    status = server.resource.get("status") or {}
    url = str(status.get("url") or "")
    if server.in_cluster is not None:
        source = f"{url}, {server.in_cluster_source}"
        yield _evaluate(server, "URL in cluster", server.in_cluster, source, through_proxy=False)
    if server.through_proxy is not None:
        yield _evaluate(server, "URL through proxy", server.through_proxy, THROUGH_PROXY, through_proxy=True)


def _requires_login(server: Server) -> bool:
    """Whether all pods require authentication. `doctor` sends no credentials, so they must refuse its requests.

    Pods without it may still run during a rollout.
    """
    status = server.resource.get("status") or {}
    is_rolled_out = any(
        condition.get("type") == ConditionType.SERVER and condition.get("status") == "True"
        for condition in status.get("conditions") or ()
    )
    return is_rolled_out and bool((status.get("auth") or {}).get("type") == "Basic")


def _evaluate(
    server: Server, check: str, result: ProbeResult | Unobserved, source: str, *, through_proxy: bool
) -> Finding:
    namespace, name = server.namespace, server.resource["metadata"]["name"]
    if isinstance(result, Unobserved):
        next_step = (
            f"Try: kubectl port-forward -n {namespace} service/{name} 5000:http" if through_proxy else ""
        )
        return Finding(server.subject, check, State.UNKNOWN, f"Not checked: {result.reason}", next_step)
    state, message, next_step = State.OK, f"responds ({source})", ""
    if result.status is None:
        state, message = State.FAILED, f"No response ({source}): {result.error}."
        next_step = (
            "See ServerAvailable. If it is True, check whether a NetworkPolicy, a service mesh or a proxy blocks "
            "requests."
        )
    elif result.host_rejected and not through_proxy:
        state, message = State.FAILED, f"MLflow rejects the host name of the URL ({source})."
        next_step = (
            "Check that the operator's clusterDomain is that of the cluster, or add the host name to "
            "spec.allowedHosts."
        )
    elif result.host_rejected:
        # The proxy sends the pod's IP address as Host, which MLflow rejects if it is not a private address.
        message = f"responds ({source}), but rejects the pod's IP address as host name"
    elif result.status == 200 and _requires_login(server):
        state, message = State.FAILED, f"Accepts requests without credentials ({source})."
        next_step = "See AuthenticationReady. If it is True, check whether a proxy adds credentials."
    elif result.status in (401, 403):
        message = f"responds and requires authentication ({source})"
    elif result.status >= 400:
        state, message = State.FAILED, f"Responds with status {result.status} ({source})."
        selector = f"mlflow-operator.dev/server={name},app.kubernetes.io/component=server"
        next_step = f"See the server's log: kubectl logs -n {namespace} -l {selector}"
    return Finding(server.subject, check, state, message, next_step)
