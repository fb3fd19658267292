"""The API: the fields of the spec, the rules that the API server enforces, and the status.

The names here are those of MLflowServer. `mlflowplatform` has those of MLflowPlatform.
"""

from mlflow_operator.api.mlflowserver import KIND, PLURAL, DeletionPolicy, MLflowServer, Spec, parse
from mlflow_operator.api.resource import API_VERSION, GROUP, VERSION, InvalidResource

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
