"""Whether clients get an answer: where they are in the cluster, and from outside."""

from collections.abc import Iterator

from mlflow_operator.doctor.finding import Finding, State, Unobserved
from mlflow_operator.doctor.seen import ProbeResult, Server

THROUGH_PROXY = "through the API server's proxy for Services"


def check(server: Server) -> Iterator[Finding]:
    """A line for each side that was asked."""
    status = server.resource.get("status") or {}
    address = str(status.get("url") or "")
    if server.inside is not None:
        yield _judged(server, "URL from inside", server.inside, f"{address}, {server.inside_way}")
    if server.outside is not None:
        yield _judged(server, "URL from outside", server.outside, THROUGH_PROXY)


def _judged(server: Server, check: str, answer: ProbeResult | Unobserved, way: str) -> Finding:
    from_outside = check.endswith("outside")
    namespace, name = server.namespace, server.resource["metadata"]["name"]
    if isinstance(answer, Unobserved):
        try_it = (
            f"Try it: kubectl port-forward -n {namespace} service/{name} 5000:http" if from_outside else ""
        )
        return Finding(server.subject, check, State.UNKNOWN, f"Not asked: {answer.why}", try_it)
    state, found, to_do = State.OK, f"answers ({way})", ""
    if answer.status is None:
        state, found = State.FAULT, f"No answer ({way}): {answer.error}."
        to_do = (
            "See ServerAvailable; if that is True: does a NetworkPolicy, a mesh or a proxy stand in between?"
        )
    elif answer.foreign and not from_outside:
        state, found = State.FAULT, f"MLflow refuses the name that it was called by ({way})."
        to_do = "Is the operator's clusterDomain that of the cluster? Else add the name to spec.allowedHosts."
    elif answer.foreign:
        # the proxy calls a pod by its address, and that need not be a private one
        found = f"answers ({way}), though not to a pod's address"
    elif answer.status in (401, 403):
        found = f"answers and asks who you are ({way})"
    elif answer.status >= 400:
        state, found = State.FAULT, f"Answers with {answer.status} ({way})."
        chosen = f"mlflow-operator.dev/server={name},app.kubernetes.io/component=server"
        to_do = f"Its log says why: kubectl logs -n {namespace} -l {chosen}"
    return Finding(server.subject, check, state, found, to_do)
