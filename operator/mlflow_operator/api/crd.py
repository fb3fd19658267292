"""The CustomResourceDefinition, generated from the models."""

from collections.abc import Iterator
from typing import Any

import yaml

from mlflow_operator.api.mlflowserver import KIND, PLURAL, MLflowServer, Spec
from mlflow_operator.api.resource import GROUP, VERSION
from mlflow_operator.api.rules import VALIDATIONS
from mlflow_operator.api.schema import Schema, structural_schema
from mlflow_operator.api.status import Status

PRINTER_COLUMNS = (
    {
        "name": "Ready",
        "type": "string",
        "description": "Status of the condition Ready.",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
    },
    {
        "name": "Reason",
        "type": "string",
        "description": "Reason of the condition Ready.",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].reason',
        "priority": 1,
    },
    {
        "name": "Version",
        "type": "string",
        "description": "MLflow version that is running.",
        "jsonPath": ".status.version",
    },
    {
        "name": "URL",
        "type": "string",
        "description": "URL of the server inside the cluster.",
        "jsonPath": ".status.url",
    },
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
)

_METADATA_FIELDS = (
    *("annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"),
    *("generateName", "generation", "labels", "managedFields", "name", "namespace", "ownerReferences"),
    *("resourceVersion", "selfLink", "uid"),
)
"""Fields of ObjectMeta."""


def openapi_schema() -> Schema:
    """Return the OpenAPI schema of MLflowServer for the CRD."""
    # Kubernetes validates apiVersion, kind and metadata itself; a CRD must not describe metadata further.
    return {
        "description": " ".join((MLflowServer.__doc__ or "").split()),
        "type": "object",
        "properties": {
            "apiVersion": {"description": "Group and version of this schema.", "type": "string"},
            "kind": {"description": "Kind of the resource.", "type": "string"},
            # Kubernetes' own limit, repeated so that the API server can estimate the cost of rules on the name.
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 253}},
            },
            # A resource without a spec is valid.
            "spec": structural_schema(Spec) | {"default": {}},
            "status": structural_schema(Status),
        },
        VALIDATIONS: [rule.validation() for rule in MLflowServer.rules],
    }


def unknown_fields(resource: dict[str, Any]) -> list[str]:
    """Return the paths of fields that the API server would report as unknown, sorted. The status is not checked.

    The models ignore such fields, and kubectl reports them only when it applies the resource.
    """
    schema = openapi_schema()
    schema["properties"] |= {
        "metadata": {"properties": {name: {} for name in _METADATA_FIELDS}},
        "status": {},
    }
    return sorted(path.removeprefix(".") for path in _unknown_fields(resource, schema, ""))


def _unknown_fields(value: Any, schema: Schema, path: str) -> Iterator[str]:
    if isinstance(value, list) and "items" in schema:
        for index, item in enumerate(value):
            yield from _unknown_fields(item, schema["items"], f"{path}[{index}]")
    properties = schema.get("properties")
    if not isinstance(value, dict) or properties is None or schema.get("additionalProperties"):
        return
    for name, member in value.items():
        if name in properties:
            yield from _unknown_fields(member, properties[name], f"{path}.{name}")
        elif not schema.get("x-kubernetes-preserve-unknown-fields"):
            yield f"{path}.{name}"


def custom_resource_definition() -> dict[str, Any]:
    """Return the CRD as an object.

    MLflowServer is not in the category `all`, so that `kubectl delete all --all` does not delete servers with data.
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
                    "additionalPrinterColumns": [dict(column) for column in PRINTER_COLUMNS],
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
    """YAML dumper without anchors and aliases, which are hard to read and which some tools do not support."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml() -> str:
    """Return the CRD as YAML. The output is deterministic."""
    header = "# Generated by `mlflow-operator crd` from operator/mlflow_operator/api. Do not edit.\n"
    return header + yaml.dump(
        custom_resource_definition(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True
    )
