"""The MLflowServer API: the fields of the spec, the rules that the API server enforces, and the status."""

from mlflow_operator.api.mlflowserver import (
    API_VERSION,
    GROUP,
    KIND,
    PLURAL,
    VERSION,
    DeletionPolicy,
    InvalidResource,
    MLflowServer,
    Spec,
    parse,
)

__all__ = [
    "API_VERSION",
    "GROUP",
    "KIND",
    "PLURAL",
    "VERSION",
    "DeletionPolicy",
    "InvalidResource",
    "MLflowServer",
    "Spec",
    "parse",
]
