"""The checks: pure functions from an ObservedCluster to findings."""

from collections.abc import Iterator

from mlflow_operator.doctor.checks import crd, operators, platforms, servers
from mlflow_operator.doctor.finding import Finding, State
from mlflow_operator.doctor.observed import ObservedCluster


def findings(cluster: ObservedCluster) -> tuple[Finding, ...]:
    """All findings; those that others depend on come first."""
    return tuple(_findings(cluster))


def _findings(cluster: ObservedCluster) -> Iterator[Finding]:
    yield from crd.check(cluster)
    yield from operators.check(cluster)
    yield from platforms.check(cluster)
    if not cluster.servers and cluster.crd is not None:
        yield Finding("cluster", "servers", State.NOTE, "There is no MLflowServer in the checked namespaces.")
    for server in cluster.servers:
        yield from servers.check(server, cluster)
