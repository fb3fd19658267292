"""What Prometheus reads about the operator itself.

A registry of its own: kopf and the libraries put theirs into the global one, and tests need a fresh one each.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """All of the operator's metrics; made once per process and passed down."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "mlflow_operator_reconciles",
            "Reconciles of MLflowServers, by result: done, waiting or error.",
            ["result"],
            registry=self.registry,
        )
        self.duration = Histogram(
            "mlflow_operator_reconcile_duration_seconds",
            "How long one reconcile of one MLflowServer took.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.errors = Counter(
            "mlflow_operator_errors",
            "Exceptions nobody expected, by where they were caught. Each has a traceback in the log.",
            ["where"],
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "mlflow_operator_queue_depth",
            "MLflowServers that are due and wait for a worker.",
            registry=self.registry,
        )
        self.api_writes = Counter(
            "mlflow_operator_api_writes",
            "Requests to the API server that change something, by kind and verb. At rest only the Lease's move.",
            ["kind", "verb"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "mlflow_operator_leader",
            "1 while this process holds the lease and works, else 0.",
            registry=self.registry,
        )
        self.servers = Gauge(
            "mlflow_operator_servers",
            "MLflowServers by the status of their Ready condition: True, False or Unknown.",
            ["ready"],
            registry=self.registry,
        )
        self.servers_by_ready({})

    def servers_by_ready(self, counts: Mapping[str, int]) -> None:
        """Set how many MLflowServers have which status of Ready; a status not named has none."""
        for status in ("True", "False", "Unknown"):
            self.servers.labels(ready=status).set(counts.get(status, 0))

    def page(self) -> bytes:
        """The page that Prometheus scrapes, in the format that `CONTENT_TYPE` names."""
        return generate_latest(self.registry)
