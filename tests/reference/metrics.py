"""docs/reference/metrics.md: the operator's Prometheus metrics, from its registry."""

from collections.abc import Mapping, Sequence

from prometheus_client.metrics import MetricWrapperBase

from mlflow_operator.status.metrics import Metrics
from tests.reference.markdown import NOTICE, code, table

_INTRODUCTION = f"""\
# Metrics reference

{NOTICE}

The operator serves these metrics at `/metrics` on port 8080. [Monitoring](../operations/monitoring.md) describes how
Prometheus finds them and which alerts are useful.
"""


def page() -> str:
    """Return the page."""
    metrics = Metrics()
    labels = _labels(metrics)
    rows = []
    for metric in metrics.registry.collect():
        suffix = "_total" if metric.type == "counter" else ""
        rows.append(
            (
                code(f"{metric.name}{suffix}"),
                metric.type,
                ", ".join(map(code, labels.get(metric.name, ()))),
                metric.documentation,
            )
        )
    return "\n".join([_INTRODUCTION, table(("Metric", "Type", "Labels", "Description"), sorted(rows))])


def _labels(metrics: Metrics) -> Mapping[str, Sequence[str]]:
    """The label names of each metric, by its name. A metric without samples does not show them in the registry."""
    members = (member for member in vars(metrics).values() if isinstance(member, MetricWrapperBase))
    return {member._name: member._labelnames for member in members}
