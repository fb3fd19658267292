"""The CustomResourceDefinitions, generated from the models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from mlflow_operator.api import mlflowplatform, mlflowserver
from mlflow_operator.api.mlflowplatform import MLflowPlatform
from mlflow_operator.api.mlflowserver import MLflowServer
from mlflow_operator.api.model import Model
from mlflow_operator.api.resource import GROUP, VERSION
from mlflow_operator.api.rules import VALIDATIONS
from mlflow_operator.api.schema import Schema, structural_schema
from mlflow_operator.api.status import Status

_READY_COLUMNS: tuple[Schema, ...] = (
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
)
_AGE_COLUMN: Schema = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


@dataclass(frozen=True)
class CustomResource:
    """Kind with its models, and how kubectl names and prints it. `subresources` are those besides `status`."""

    kind: str
    plural: str
    short_name: str
    scope: str
    resource: type[Model]
    spec: type[Model]
    status: type[Model]
    printer_columns: Sequence[Schema]
    subresources: Mapping[str, Schema] = field(default_factory=dict)


SERVER = CustomResource(
    mlflowserver.KIND,
    mlflowserver.PLURAL,
    "mls",
    "Namespaced",
    MLflowServer,
    mlflowserver.Spec,
    Status,
    (
        *_READY_COLUMNS,
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
        {
            "name": "Platform",
            "type": "string",
            "description": "MLflowPlatform that the server uses.",
            "jsonPath": ".status.platform.name",
            "priority": 1,
        },
        _AGE_COLUMN,
    ),
    {
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    },
)

_METADATA_FIELDS = (
    *("annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"),
    *("generateName", "generation", "labels", "managedFields", "name", "namespace", "ownerReferences"),
    *("resourceVersion", "selfLink", "uid"),
)
"""Fields of ObjectMeta."""

PLATFORM = CustomResource(
    mlflowplatform.KIND,
    mlflowplatform.PLURAL,
    "mlp",
    "Cluster",
    MLflowPlatform,
    mlflowplatform.Spec,
    mlflowplatform.Status,
    (
        *_READY_COLUMNS,
        {
            "name": "Default",
            "type": "boolean",
            "description": "Whether the platform is the default of the namespaces that it selects.",
            "jsonPath": ".status.isDefault",
        },
        {
            "name": "Database",
            "type": "string",
            "description": "Host of the PostgreSQL for servers.",
            "jsonPath": ".spec.database.postgres.host",
        },
        {
            "name": "Artifacts",
            "type": "string",
            "description": "URL of the artifact store for servers.",
            "jsonPath": ".spec.artifacts.s3.endpoint",
        },
        _AGE_COLUMN,
        {
            "name": "Message",
            "type": "string",
            "description": "Message of the condition Ready.",
            "jsonPath": '.status.conditions[?(@.type=="Ready")].message',
            "priority": 1,
        },
    ),
)

CUSTOM_RESOURCES = (SERVER, PLATFORM)


def openapi_schema(resource: CustomResource = SERVER) -> Schema:
    """Return the OpenAPI schema of a resource for its CRD."""
    spec = structural_schema(resource.spec)
    required = [name for name, member in resource.resource.model_fields.items() if member.is_required()]
    # Kubernetes validates apiVersion, kind and metadata itself; a CRD must not describe metadata further.
    schema: Schema = {
        "description": " ".join((resource.resource.__doc__ or "").split()),
        "type": "object",
        "properties": {
            "apiVersion": {"description": "Group and version of this schema.", "type": "string"},
            "kind": {"description": "Kind of the resource.", "type": "string"},
            # Kubernetes' own limit, repeated so that the API server can estimate the cost of rules on the name.
            "metadata": {
                "type": "object",
                "properties": {"name": {"type": "string", "maxLength": 253}},
            },
            "spec": spec if "spec" in required else spec | {"default": {}},
            "status": structural_schema(resource.status),
        },
    }
    if "spec" in required:
        schema["required"] = ["spec"]
    if resource.resource.rules:
        schema[VALIDATIONS] = [rule.validation() for rule in resource.resource.rules]
    return schema


def unknown_fields(resource: dict[str, Any], definition: CustomResource = SERVER) -> list[str]:
    """Return the paths of fields that the API server would report as unknown, sorted. The status is not checked.

    The models ignore such fields, and kubectl reports them only when it applies the resource.
    """
    schema = openapi_schema(definition)
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


def custom_resource_definition(resource: CustomResource = SERVER) -> dict[str, Any]:
    """Return the CRD of a resource as an object.

    No resource is in the category `all`, so that `kubectl delete all --all` does not delete servers with data.
    """
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
            },
            "scope": resource.scope,
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "additionalPrinterColumns": [dict(column) for column in resource.printer_columns],
                    "subresources": {"status": {}, **resource.subresources},
                    "schema": {"openAPIV3Schema": openapi_schema(resource)},
                }
            ],
        },
    }


class _Dumper(yaml.SafeDumper):
    """YAML dumper without anchors and aliases, which are hard to read and which some tools do not support."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def as_yaml() -> str:
    """Return all CRDs as YAML documents. The output is deterministic."""
    header = "# Generated by `mlflow-operator crd` from operator/mlflow_operator/api. Do not edit.\n"
    return header + "---\n".join(
        yaml.dump(
            custom_resource_definition(resource),
            Dumper=_Dumper,
            sort_keys=False,
            width=110,
            allow_unicode=True,
        )
        for resource in CUSTOM_RESOURCES
    )
