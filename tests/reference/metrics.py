"""docs/reference/metrics.md: the operator's Prometheus metrics, from its registry."""

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
    registry = Metrics().registry
    rows = []
    for metric in registry.collect():
        suffix = "_total" if metric.type == "counter" else ""
        rows.append(
            (
                code(f"{metric.name}{suffix}"),
                metric.type,
                ", ".join(map(code, _labels(metric.name))),
                metric.documentation,
            )
        )
    return "\n".join([_INTRODUCTION, table(("Metric", "Type", "Labels", "Description"), sorted(rows))])


def _labels(name: str) -> tuple[str, ...]:
    """The label names of a metric, which a metric without samples does not show."""
    metrics = vars(Metrics()).values()
    found = {getattr(metric, "_name", None): getattr(metric, "_labelnames", ()) for metric in metrics}
    return tuple(found.get(name, ()))
