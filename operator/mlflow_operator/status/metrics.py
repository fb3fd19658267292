"""Prometheus metrics of the operator.

They have a separate registry: kopf and libraries use the global registry, and each test needs an empty one.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_DURATION_BUCKETS_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """All metrics of the operator. There is one instance per process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.reconciles = Counter(
            "mlflow_operator_reconciles",
            "Number of reconciles, by kind of the resource and by result: done, waiting or error.",
            ["kind", "result"],
            registry=self.registry,
        )
        self.reconcile_duration = Histogram(
            "mlflow_operator_reconcile_duration_seconds",
            "Duration of one reconcile of one resource, in seconds, by its kind.",
            ["kind"],
            buckets=_DURATION_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self.errors = Counter(
            "mlflow_operator_errors",
            "Number of unexpected exceptions, by where they were caught. Each is logged with a traceback.",
            ["where"],
            registry=self.registry,
        )
        self.queue_depth = Gauge(
            "mlflow_operator_queue_depth",
            "Number of resources that are due and wait for a worker, by their kind.",
            ["kind"],
            registry=self.registry,
        )
        self.api_writes = Counter(
            "mlflow_operator_api_writes",
            "Number of write requests to the API server, by kind and verb. In steady state only Lease writes increase.",
            ["kind", "verb"],
            registry=self.registry,
        )
        self.leader = Gauge(
            "mlflow_operator_leader",
            "1 if this process holds the lease and reconciles, otherwise 0.",
            registry=self.registry,
        )
        self.servers = Gauge(
            "mlflow_operator_servers",
            "Number of MLflowServers, by status of the Ready condition: True, False or Unknown.",
            ["ready"],
            registry=self.registry,
        )
        self.platforms = Gauge(
            "mlflow_operator_platforms",
            "Number of MLflowPlatforms, by status of the Ready condition: True or False. Unknown are those that an "
            "operator of selected namespaces does not check, because they select none of its namespaces.",
            ["ready"],
            registry=self.registry,
        )
        self.set_servers_by_ready({})
        self.set_platforms_by_ready({})

    def set_servers_by_ready(self, counts: Mapping[str, int]) -> None:
        """Set the number of MLflowServers for each status of the Ready condition. A status without a count gets 0."""
        _set_by_ready(self.servers, counts)

    def set_platforms_by_ready(self, counts: Mapping[str, int]) -> None:
        """Set the number of MLflowPlatforms, like `set_servers_by_ready`."""
        _set_by_ready(self.platforms, counts)

    def exposition(self) -> bytes:
        """Return the metrics in the Prometheus text format (`CONTENT_TYPE`)."""
        return generate_latest(self.registry)


def _set_by_ready(gauge: Gauge, counts: Mapping[str, int]) -> None:
    for status in ("True", "False", "Unknown"):
        gauge.labels(ready=status).set(counts.get(status, 0))
