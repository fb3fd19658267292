"""The resource: what owners write, what the API server refuses, what the operator reports."""

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
