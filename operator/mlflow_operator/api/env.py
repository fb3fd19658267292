"""Environment of the server beyond what the operator sets: `spec.env`, `spec.envFrom`."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule, at_most_one, exactly_one, matches, quoted
from mlflow_operator.api.string_types import DataKey, ObjectName

RESERVED_ENV = {
    "MLFLOW_BACKEND_STORE_URI": "spec.database",
    # A registry elsewhere would be neither migrated nor watched.
    "MLFLOW_REGISTRY_STORE_URI": "spec.database",
    "MLFLOW_ARTIFACTS_DESTINATION": "spec.artifacts",
    "MLFLOW_DEFAULT_ARTIFACT_ROOT": "spec.artifacts",
    "MLFLOW_SERVE_ARTIFACTS": "spec.artifacts.access",
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
    # Probes and the Service know no other path.
    "MLFLOW_STATIC_PREFIX": "",
    "MLFLOW_WORKERS": "spec.workers",
    "MLFLOW_SERVER_ALLOWED_HOSTS": "spec.allowedHosts",
    "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": "spec.allowedHosts",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "spec.jobExecution",
    "MLFLOW_UVICORN_OPTS": "",
    # MLflow refuses it together with uvicorn's options.
    "MLFLOW_GUNICORN_OPTS": "",
    # Parts of artifacts would stay in memory.
    "MALLOC_MMAP_THRESHOLD_": "",
    "HOME": "",
    "TMPDIR": "",
    "PYTHONPATH": "",
}
"""Names the operator sets, or that would undo what it sets, and the field that decides their value, if any.

Of AWS's names only those with a field here: role, profile, session and proxy settings of a workload identity
(`AWS_ROLE_ARN`, `AWS_PROFILE`, `AWS_REGION`, ...) are the owner's.
"""

_RESERVED_CEL = ", ".join(f"{quoted(name)}: {quoted(field)}" for name, field in RESERVED_ENV.items())
_NAMES_CEL = ", ".join(quoted(name) for name in RESERVED_ENV)


class ObjectKeySelector(Model):
    """One key of a Secret or ConfigMap."""

    name: ObjectName
    """Name of the object, in the namespace of the server."""
    key: DataKey
    """The key."""
    optional: bool | None = None
    """True: the pod starts even where the object or key is missing."""


class FieldSelector(Model):
    """A field of the pod."""

    field_path: Annotated[str, Field(max_length=253)]
    """Path of the field, such as `metadata.name` or `status.podIP`."""
    api_version: Annotated[str, Field(max_length=64)] | None = None
    """Version of the pod's schema. Absent: v1."""


class ResourceFieldSelector(Model):
    """A request or limit of the container."""

    resource: Annotated[str, Field(max_length=253)]
    """The resource, such as `limits.memory`."""
    container_name: Annotated[str, Field(max_length=63)] | None = None
    """Absent: the server's own container."""
    divisor: Annotated[str, Field(max_length=32)] | None = None
    """Unit of the value, such as `1Mi`."""


class EnvVarSource(Model):
    """Where a value comes from; exactly one member."""

    secret_key_ref: ObjectKeySelector | None = None
    """A key of a Secret."""
    config_map_key_ref: ObjectKeySelector | None = None
    """A key of a ConfigMap."""
    field_ref: FieldSelector | None = None
    """A field of the pod."""
    resource_field_ref: ResourceFieldSelector | None = None
    """A request or limit of the container."""

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
    """A variable of the server's environment."""

    name: Annotated[
        str,
        Field(max_length=253),
        matches(r"[A-Za-z_][A-Za-z0-9_]*", "is no name of a variable: use letters, digits and '_'"),
    ]
    """Name of the variable. Names that the operator sets are refused."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """The value. For anything secret use `valueFrom`."""
    value_from: EnvVarSource | None = None
    """Where the value comes from, instead of `value`."""

    rules = (
        Rule(
            f"!(self.name in [{_NAMES_CEL}])",
            "spec.env names a variable that the operator sets: remove it from spec.env",
            message_expression=(
                f"'spec.env must not set ' + self.name + ': the operator sets it. Remove it' + "
                f"({{{_RESERVED_CEL}}}[self.name] == '' ? '' : "
                f"' and use ' + {{{_RESERVED_CEL}}}[self.name])"
            ),
            field=".name",
            holds=lambda it: it.name not in RESERVED_ENV,
            says=lambda it: (
                f"spec.env must not set {it.name}: the operator sets it. Remove it"
                + (f" and use {RESERVED_ENV[it.name]}" if RESERVED_ENV[it.name] else "")
            ),
        ),
        at_most_one("a variable", "value", "value_from"),
    )


class EnvSource(Model):
    """A Secret or ConfigMap whose every key becomes a variable."""

    name: ObjectName
    """Name of the object, in the namespace of the server."""
    optional: bool | None = None
    """True: the pod starts even where the object is missing."""


class EnvFromSource(Model):
    """Variables from one Secret or ConfigMap; exactly one of the two."""

    prefix: Annotated[str, Field(max_length=253)] | None = None
    """Put before every key."""
    secret_ref: EnvSource | None = None
    """A Secret."""
    config_map_ref: EnvSource | None = None
    """A ConfigMap."""

    rules = (exactly_one("an entry of spec.envFrom", "secret_ref", "config_map_ref"),)
