"""References to Secrets and ConfigMaps in the server's own namespace."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.model import Model
from mlflow_operator.api.string_types import DataKey, NamespaceName, ObjectName


class LocalObjectReference(Model):
    """An object in the server's namespace."""

    name: ObjectName
    """Name of the object."""


class URISecretRef(Model):
    """The key of a Secret that holds a connection URI."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""
    key: DataKey = "uri"
    """Key that holds the URI, such as `postgresql://user:password@host:5432/mlflow`."""


class CASecretRef(Model):
    """The key of a Secret that holds CA certificates in PEM."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""
    key: DataKey = "ca.crt"
    """Key that holds the certificates, in PEM; more than one may follow each other."""


class DatabaseCredentialsRef(Model):
    """A Secret with the user and password for a database."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""
    username_key: DataKey = "username"
    """Key that holds the user name."""
    password_key: DataKey = "password"  # noqa: S105 - the name of a key
    """Key that holds the password."""


class S3CredentialsRef(Model):
    """A Secret with an access key for S3."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""
    access_key_id_key: Annotated[DataKey, Field(alias="accessKeyIDKey")] = "accessKeyID"
    """Key that holds the access key id."""
    secret_access_key_key: DataKey = "secretAccessKey"  # noqa: S105 - the name of a key
    """Key that holds the secret access key."""


class DatabaseAdminRef(Model):
    """A Secret with a user who may make roles and databases."""

    name: ObjectName
    """Name of the Secret."""
    namespace: NamespaceName | None = None
    """Namespace of the Secret. Absent: that of the server. In another one the Secret must name the server's in its
    annotation `mlflow-operator.dev/allow-namespaces`.
    """
    username_key: DataKey = "username"
    """Key that holds the user name."""
    password_key: DataKey = "password"  # noqa: S105 - the name of a key
    """Key that holds the password."""


class S3AdminRef(Model):
    """A Secret with an access key that may make buckets, users and policies."""

    name: ObjectName
    """Name of the Secret."""
    namespace: NamespaceName | None = None
    """Namespace of the Secret. Absent: that of the server. In another one the Secret must name the server's in its
    annotation `mlflow-operator.dev/allow-namespaces`.
    """
    access_key_id_key: Annotated[DataKey, Field(alias="accessKeyIDKey")] = "accessKeyID"
    """Key that holds the access key id."""
    secret_access_key_key: DataKey = "secretAccessKey"  # noqa: S105 - the name of a key
    """Key that holds the secret access key."""
