"""Database of experiments, runs and registered models: `spec.database`."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.markers import Int32, NotPersistedDefault
from mlflow_operator.api.model import Model
from mlflow_operator.api.quantities import Resources
from mlflow_operator.api.references import (
    CASecretRef,
    DatabaseAdminRef,
    DatabaseCredentialsRef,
    URISecretRef,
)
from mlflow_operator.api.rules import Rule, at_most_one, exactly_one, matches, not_empty, string_rule
from mlflow_operator.api.storage import DatabaseStorage
from mlflow_operator.api.string_types import ImageReference

HOST_PATTERN = r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*"

DatabaseHost = Annotated[
    str,
    Field(max_length=253),
    matches(
        HOST_PATTERN,
        "is not a valid host: use a host name or an IP address only, set the port in port, and store a connection URI "
        "in a Secret that uriSecretRef names",
        sensitive=True,
    ),
]
"""Host name or IP address of PostgreSQL."""

Port = Annotated[Int32, Field(ge=1, le=65535), NotPersistedDefault()]

DatabaseName = Annotated[
    str,
    Field(max_length=63),
    matches(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]*",
        "is not a supported database name: use letters, digits, '_', '-' and '.'",
    ),
]
"""Name of a database. PostgreSQL truncates names to 63 bytes."""

RoleName = Annotated[
    str,
    # The operator appends two characters for the names of the login roles.
    Field(max_length=61),
    matches(
        r"[A-Za-z0-9_][A-Za-z0-9_-]*",
        "is not a supported role name: use letters, digits, '_' and '-'",
    ),
    string_rule(
        "!self.startsWith('pg_') && !(self in ['public', 'none'])",
        "is a role name that PostgreSQL reserves: use another name, or remove roleName to use a generated name",
        lambda name: not name.startswith("pg_") and name not in {"public", "none"},
    ),
]
"""Name of the role that owns a database."""


class DatabaseTLSMode(StrEnum):
    """TLS mode of database connections: libpq's `sslmode`."""

    DISABLE = "Disable"
    PREFER = "Prefer"
    REQUIRE = "Require"
    VERIFY_CA = "VerifyCA"
    VERIFY_FULL = "VerifyFull"


VERIFYING_MODES = frozenset({DatabaseTLSMode.VERIFY_CA, DatabaseTLSMode.VERIFY_FULL})


class DatabaseTLS(Model):
    """TLS settings of database connections."""

    mode: DatabaseTLSMode = DatabaseTLSMode.PREFER
    """TLS mode, as libpq's `sslmode`. Disable: no TLS. Prefer: TLS if the database supports it. Require: TLS without
    verification of the certificate. VerifyCA: TLS, and the certificate must be signed by the CA in `caSecretRef`.
    VerifyFull: like VerifyCA, and the certificate must be issued for the host. Defaults to Prefer.
    """
    ca_secret_ref: CASecretRef | None = None
    """Secret with the CA that signed the database's certificate. Required by VerifyCA and VerifyFull."""

    # libpq could fall back to the CAs of the image, but only with VerifyFull, and images have different CAs.
    rules = (
        Rule(
            "!(self.mode in ['VerifyCA', 'VerifyFull']) || has(self.caSecretRef)",
            "tls.mode VerifyCA and VerifyFull require caSecretRef: set caSecretRef to a Secret with the CA, or set "
            "mode to Require",
            field=".mode",
            holds=lambda tls: tls.mode not in VERIFYING_MODES or tls.ca_secret_ref is not None,
        ),
        Rule(
            "!(self.mode in ['Disable', 'Prefer']) || !has(self.caSecretRef)",
            "tls.caSecretRef has no effect with mode Disable or Prefer, which do not verify the certificate: set mode "
            "to VerifyFull, or remove caSecretRef",
            field=".mode",
            holds=lambda tls: (
                tls.mode not in {DatabaseTLSMode.DISABLE, DatabaseTLSMode.PREFER} or tls.ca_secret_ref is None
            ),
        ),
    )


class EmbeddedDatabase(Model):
    """PostgreSQL that the operator runs for this server only, with one pod and one volume."""

    image: ImageReference | None = None
    """PostgreSQL image. Defaults to the image that the operator is tested with."""
    storage: DatabaseStorage = DatabaseStorage()
    """Volume that holds the database."""
    resources: Resources | None = None
    """Compute resources of the PostgreSQL container. Defaults to values for a team of about ten people."""


class ExternalDatabase(Model):
    """PostgreSQL database that the operator does not manage. The database and its user must exist, and the encoding
    must be UTF8.
    """

    uri_secret_ref: URISecretRef | None = None
    """Secret with the complete connection URI, including user and password. Mutually exclusive with `host`."""
    host: DatabaseHost | None = None
    """Host name or IP address of PostgreSQL. Requires `credentialsSecretRef`. Mutually exclusive with
    `uriSecretRef`.
    """
    port: Port = 5432
    """Port of PostgreSQL at `host`. Defaults to 5432."""
    database_name: Annotated[DatabaseName, NotPersistedDefault()] = "mlflow"
    """Name of the database at `host`. Defaults to mlflow."""
    credentials_secret_ref: DatabaseCredentialsRef | None = None
    """Secret with the user and password for `host`."""
    tls: DatabaseTLS | None = None
    """TLS settings of the connection. Defaults to mode Prefer."""

    rules = (
        exactly_one("spec.database.external", "uri_secret_ref", "host"),
        Rule(
            "!has(self.host) || has(self.credentialsSecretRef)",
            "spec.database.external.host requires credentialsSecretRef: set it to a Secret with the user and password",
            holds=lambda database: database.host is None or database.credentials_secret_ref is not None,
        ),
        Rule(
            "!has(self.uriSecretRef) || "
            "!(has(self.port) || has(self.databaseName) || has(self.credentialsSecretRef))",
            "spec.database.external.uriSecretRef already contains the complete URI: remove port, databaseName and "
            "credentialsSecretRef, or replace uriSecretRef by host",
            holds=lambda database: (
                database.uri_secret_ref is None
                or not database.model_fields_set & {"port", "database_name", "credentials_secret_ref"}
            ),
        ),
    )


class ProvisionedDatabase(Model):
    """Database and role that the operator creates for this server on a shared PostgreSQL."""

    host: DatabaseHost
    """Host name or IP address of PostgreSQL. Must not be a connection pooler."""
    port: Annotated[Port, Field(examples=[5432])] = 5432
    """Port of PostgreSQL at `host`. Defaults to 5432."""
    admin_secret_ref: DatabaseAdminRef
    """Secret with a user that may create roles and databases (CREATEROLE and CREATEDB; superuser is not required). Only
    the operator reads this Secret.
    """
    database_name: Annotated[DatabaseName | None, Field(examples=["tracking"])] = None
    """Name of the database. Defaults to a unique name that is generated from the namespace and name of the server."""
    role_name: Annotated[RoleName | None, Field(examples=["tracking"])] = None
    """Name of the role that owns the database. Defaults to a name that is generated like the name of the database."""
    tls: DatabaseTLS | None = None
    """TLS settings of connections. Defaults to mode Prefer."""


class CloudNativePGDatabase(Model):
    """Database in a CloudNativePG Cluster in the namespace of the server."""

    cluster_name: Annotated[
        str,
        Field(max_length=50),
        matches(
            r"[a-z]([a-z0-9-]*[a-z0-9])?",
            "is not a valid Cluster name: use lower-case letters, digits and '-'",
        ),
    ]
    """Name of the Cluster. The server uses the credentials in Secret `<cluster>-app` and trusts the CA in Secret
    `<cluster>-ca`.
    """
    database_name: Annotated[DatabaseName, NotPersistedDefault()] = "app"
    """Name of the database. The user in Secret `<cluster>-app` must own it. Defaults to app, the default of Clusters.
    """


class PlatformDatabase(Model):
    """Database that the operator creates for this server on the PostgreSQL of a platform. It has no settings: the
    platform has them.
    """


_MEMBERS = ("embedded", "external", "provision", "cloud_native_pg", "platform")


class Database(Model):
    """At most one of `embedded`, `external`, `provision`, `cloudNativePG` and `platform`. If none is set, a new server
    uses the platform in `platformRef`, or the default platform of its namespace, if it offers a database, and otherwise
    `embedded`.
    """

    embedded: EmbeddedDatabase | None = None
    """PostgreSQL that the operator runs for this server only."""
    external: ExternalDatabase | None = None
    """PostgreSQL database that the operator does not manage."""
    provision: ProvisionedDatabase | None = None
    """Database and role that the operator creates on a shared PostgreSQL."""
    cloud_native_pg: Annotated[CloudNativePGDatabase | None, Field(alias="cloudNativePG")] = None
    """Database in a CloudNativePG Cluster."""
    platform: PlatformDatabase | None = None
    """Database on the PostgreSQL of the platform in `platformRef`, or of the default platform of the namespace."""

    rules = (
        at_most_one("spec.database", *_MEMBERS),
        not_empty("spec.database", *_MEMBERS),
    )
