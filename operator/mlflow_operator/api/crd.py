"""The CustomResourceDefinition, made from the models."""

from typing import Any

import yaml

from mlflow_operator.api.mlflowserver import GROUP, KIND, PLURAL, VERSION, MLflowServer, Spec
from mlflow_operator.api.rules import VALIDATIONS
from mlflow_operator.api.schema import Schema, structural
from mlflow_operator.api.status import Status

COLUMNS = (
    {
        "name": "Ready",
        "type": "string",
        "description": "Whether the server works.",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
    },
    {
        "name": "Reason",
        "type": "string",
        "description": "Why it does not, in a word.",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
        "priority": 1,
    },
    {"name": "Version", "type": "string", "description": "MLflow version.", "jsonPath": ".status.version"},
    {"name": "URL", "type": "string", "description": "Where clients reach it.", "jsonPath": ".status.url"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)


def openapi_schema() -> Schema:
    """Return the schema of an MLflowServer as the CRD carries it."""
    # Kubernetes itself checks the first three, and lets no CRD describe metadata.
    return {
        "description": " ".join((MLflowServer.__doc__ or "").split()),
        "type": "object",
        "properties": {
            "apiVersion": {"description": "Group and version of this schema.", "type": "string"},
            "kind": {"description": "Kind of the resource.", "type": "string"},
            # Kubernetes' own limit, repeated so that the cost of the rules on the name can be estimated.
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 253}},
            },
            # A resource without a spec is a whole server, too.
            "spec": structural(Spec) | {"default": {}},
            "status": structural(Status),
        },
        VALIDATIONS: [rule.validation() for rule in MLflowServer.rules],
    }


def custom_resource_definition() -> dict[str, Any]:
    """Return the CRD as an object.

    It stays out of the category `all`: `kubectl get all` is what people delete by, and this holds their data.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["mls"],
            },
            "scope": "Namespaced",
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [dict(column) for column in COLUMNS],
                    "subresources": {
                        "status": {},
                        "scale": {
                            "specReplicasPath": ".spec.replicas",
                            "statusReplicasPath": ".status.replicas",
                            "labelSelectorPath": ".status.selector",
                        },
                    },
                    "schema": {"openAPIV3Schema": openapi_schema()},
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """Writes equal parts out each time: aliases are hard to read and not every tool follows them."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml() -> str:
    """Return the CRD as YAML, the same text for the same models."""
    header = "# Made by `mlflow-operator crd`; change operator/mlflow_operator/api and make it again.\n"
    return header + yaml.dump(
        custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True
    )
