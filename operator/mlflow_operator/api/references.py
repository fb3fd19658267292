"""References to Secrets and other objects, in the namespace of the server unless stated otherwise."""

from typing import Annotated

from pydantic import Field

from mlflow_operator.api.model import Model
from mlflow_operator.api.string_types import DataKey, ObjectName


class LocalObjectReference(Model):
    """Reference to an object in the namespace of the server."""

    name: Annotated[ObjectName, Field(examples=["registry"])]
    """Name of the object."""


class PlatformRef(Model):
    """Reference to an MLflowPlatform."""

    name: Annotated[ObjectName, Field(examples=["shared"])]
    """Name of the MLflowPlatform."""


class URISecretRef(Model):
    """Reference to a key of a Secret that contains a connection URI."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""
    key: DataKey = "uri"
    """Key of the URI, such as `postgresql://user:password@host:5432/mlflow`. Defaults to uri."""


class CASecretRef(Model):
    """Reference to a key of a Secret that contains CA certificates in PEM format."""

    name: Annotated[ObjectName, Field(examples=["private-ca"])]
    """Name of the Secret, in the namespace of the server."""
    key: DataKey = "ca.crt"
    """Key of one or more CA certificates in PEM format. Defaults to ca.crt."""


class DatabaseUserRef(Model):
    """Reference to a Secret with a user and password."""

    name: ObjectName
    """Name of the Secret."""
    username_key: DataKey = "username"
    """Key of the user name. Defaults to username."""
    password_key: DataKey = "password"  # noqa: S105 - the name of a key
    """Key of the password. Defaults to password."""


class DatabaseCredentialsRef(DatabaseUserRef):
    """Reference to a Secret with the user and password for a database."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""


class S3KeyRef(Model):
    """Reference to a Secret with an S3 access key."""

    name: ObjectName
    """Name of the Secret."""
    access_key_id_key: Annotated[DataKey, Field(alias="accessKeyIDKey")] = "accessKeyID"
    """Key of the access key ID. Defaults to accessKeyID."""
    secret_access_key_key: DataKey = "secretAccessKey"  # noqa: S105 - the name of a key
    """Key of the secret access key. Defaults to secretAccessKey."""


class S3CredentialsRef(S3KeyRef):
    """Reference to a Secret with an S3 access key."""

    name: Annotated[ObjectName, Field(examples=["tracking-s3"])]
    """Name of the Secret, in the namespace of the server."""


class DatabaseAdminRef(DatabaseUserRef):
    """Reference to a Secret with a database user that may create roles and databases."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""


class S3AdminRef(S3KeyRef):
    """Reference to a Secret with an access key that may create buckets, users and policies."""

    name: ObjectName
    """Name of the Secret, in the namespace of the server."""
