"""Additional environment variables of the server: `spec.env`, `spec.envFrom`."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.model import Model
from mlflow_operator.api.quantities import is_quantity
from mlflow_operator.api.rules import Rule, at_most_one, cel_string, exactly_one, matches, string_rule
from mlflow_operator.api.string_types import DataKey, ObjectName

RESERVED_ENV = {
    "MLFLOW_BACKEND_STORE_URI": "spec.database",
    # The operator would neither migrate nor check a registry in another database.
    "MLFLOW_REGISTRY_STORE_URI": "spec.database",
    "MLFLOW_ARTIFACTS_DESTINATION": "spec.artifacts",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": "spec.artifacts",
    "MLFLOW_SERVE_ARTIFACTS": "spec.artifacts.access",
    "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD": "spec.artifacts.access",
    "MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD": "spec.artifacts.access",
    "MLFLOW_S3_ENDPOINT_URL": "spec.artifacts.s3.endpoint",
    "MLFLOW_OPERATOR_S3_PUBLIC_ENDPOINT_URL": "spec.artifacts.s3.publicEndpoint",
    "MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE": "spec.artifacts.s3.addressingStyle",
    "AWS_ACCESS_KEY_ID": "spec.artifacts.s3.credentialsSecretRef",
    "AWS_SECRET_ACCESS_KEY": "spec.artifacts.s3.credentialsSecretRef",
    "AWS_DEFAULT_REGION": "spec.artifacts.s3.region",
    "AWS_CA_BUNDLE": "spec.artifacts.s3.tls.caSecretRef",
    "PGSSLROOTCERT": "spec.database.external.tls.caSecretRef",
    "PGSSLMODE": "spec.database.external.tls.mode",
    "MLFLOW_HOST": "",
    "MLFLOW_PORT": "spec.service.port",
    # Probes and the URL of the Service use the root path.
    "MLFLOW_STATIC_PREFIX": "",
    "MLFLOW_WORKERS": "spec.workers",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "spec.allowedHosts",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "spec.allowedHosts",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "spec.jobExecution",
    "MLFLOW_OPERATOR_ASSISTANT": "spec.assistant",
    "MLFLOW_OPERATOR_AUTH": "spec.auth",
    "MLFLOW_OPERATOR_AUTH_ADMIN": "spec.auth.admin.username",
    "MLFLOW_OPERATOR_AUTH_ADMIN_PASSWORD": "spec.auth.admin.passwordSecretRef",
    "MLFLOW_OPERATOR_AUTH_DEFAULT_PERMISSION": "spec.auth.defaultPermission",
    "MLFLOW_UVICORN_OPTS": "",
    # MLflow does not accept it together with MLFLOW_UVICORN_OPTS.
    "MLFLOW_GUNICORN_OPTS": "",
    # Another value would keep parts of artifacts in memory.
    "MALLOC_MMAP_THRESHOLD_": "",
    "HOME": "",
    "TMPDIR": "",
    "PYTHONPATH": "",
}
"""Variables that the operator sets, or that would override its settings, and the field to use instead, if any.

Only those AWS variables are reserved that have a field in the spec. Users may set the role, profile, session and proxy
of a workload identity (`AWS_ROLE_ARN`, `AWS_PROFILE`, `AWS_REGION`, ...).
"""

_RESERVED_FIELDS_CEL = ", ".join(
    f"{cel_string(name)}: {cel_string(field)}" for name, field in RESERVED_ENV.items()
)
_RESERVED_NAMES_CEL = ", ".join(cel_string(name) for name in RESERVED_ENV)


class ObjectKeySelector(Model):
    """Key of a Secret or ConfigMap."""

    name: Annotated[ObjectName, Field(examples=["tracking-settings"])]
    """Name of the object, in the namespace of the server."""
    key: Annotated[DataKey, Field(examples=["token"])]
    """Key of the value."""
    optional: Annotated[bool | None, Field(examples=[True])] = None
    """Whether the pod starts if the object or the key does not exist. Defaults to false."""


class FieldSelector(Model):
    """Field of the pod."""

    field_path: Annotated[str, Field(max_length=253)]
    """Path of the field, such as `metadata.name` or `status.podIP`."""
    api_version: Annotated[str, Field(max_length=64), Field(examples=["v1"])] | None = None
    """API version of the pod. Defaults to v1."""


class ResourceFieldSelector(Model):
    """Resource request or limit of a container."""

    resource: Annotated[str, Field(max_length=253), Field(examples=["limits.memory"])]
    """Resource to select, such as `limits.memory`."""
    container_name: Annotated[str, Field(max_length=63), Field(examples=["mlflow"])] | None = None
    """Name of the container. Defaults to the container of the server."""
    divisor: (
        Annotated[
            str,
            Field(max_length=32, examples=["1Mi"]),
            string_rule(
                "isQuantity(self)", "is not a valid quantity: use one such as 1, 1m or 1Mi", is_quantity
            ),
        ]
        | None
    ) = None
    """Unit of the value, such as `1Mi`. Defaults to 1."""


class EnvVarSource(Model):
    """Source of a value. Exactly one field must be set."""

    secret_key_ref: ObjectKeySelector | None = None
    """Key of a Secret."""
    config_map_key_ref: ObjectKeySelector | None = None
    """Key of a ConfigMap."""
    field_ref: FieldSelector | None = None
    """Field of the pod."""
    resource_field_ref: ResourceFieldSelector | None = None
    """Resource request or limit of a container."""

    rules = (
        exactly_one(
            "valueFrom",
            "secret_key_ref",
            "config_map_key_ref",
            "field_ref",
            "resource_field_ref",
        ),
    )


class EnvVar(Model):
    """Environment variable of the server."""

    name: Annotated[
        str,
        Field(max_length=253),
        matches(
            r"[A-Za-z_][A-Za-z0-9_]*",
            "is not a valid variable name: use letters, digits and '_', and do not begin with a digit",
        ),
    ]
    """Name of the variable. Variables that the operator sets are rejected."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """Value of the variable. Use `valueFrom` for secrets."""
    value_from: EnvVarSource | None = None
    """Source of the value. Mutually exclusive with `value`."""

    rules = (
        Rule(
            f"!(self.name in [{_RESERVED_NAMES_CEL}])",
            "spec.env must not set a variable that the operator sets: remove it from spec.env",
            message_expression=(
                f"'spec.env must not set ' + self.name + ': the operator sets it. Remove it' + "
                f"({{{_RESERVED_FIELDS_CEL}}}[self.name] == '' ? '' : "
                f"' and use ' + {{{_RESERVED_FIELDS_CEL}}}[self.name])"
            ),
            field=".name",
            holds=lambda variable: variable.name not in RESERVED_ENV,
            format_message=lambda variable: (
                f"spec.env must not set {variable.name}: the operator sets it. Remove it"
                + (f" and use {RESERVED_ENV[variable.name]}" if RESERVED_ENV[variable.name] else "")
            ),
        ),
        at_most_one("a variable in spec.env", "value", "value_from"),
    )


class EnvSource(Model):
    """Secret or ConfigMap whose keys become environment variables."""

    name: Annotated[ObjectName, Field(examples=["tracking-settings"])]
    """Name of the object, in the namespace of the server."""
    optional: Annotated[bool | None, Field(examples=[True])] = None
    """Whether the pod starts if the object does not exist. Defaults to false."""


class EnvFromSource(Model):
    """Environment variables from a Secret or a ConfigMap. Exactly one of `secretRef` and `configMapRef` must be set."""

    prefix: Annotated[str, Field(max_length=253), Field(examples=["TEAM_"])] | None = None
    """Prefix that is added to each key."""
    secret_ref: EnvSource | None = None
    """Secret whose keys become environment variables."""
    config_map_ref: EnvSource | None = None
    """ConfigMap whose keys become environment variables."""

    rules = (exactly_one("an entry of spec.envFrom", "secret_ref", "config_map_ref"),)
