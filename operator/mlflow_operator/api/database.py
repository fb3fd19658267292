"""Where experiments, runs and registered models are kept: `spec.database`."""

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
from mlflow_operator.api.rules import Rule, at_most_one, exactly_one, matches, not_empty, text
from mlflow_operator.api.storage import DatabaseStorage
from mlflow_operator.api.string_types import ImageReference

DatabaseHost = Annotated[
    str,
    Field(max_length=253),
    matches(
        r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*",
        "is no host: write a name or an address alone; the port goes to port, "
        "a whole URI to a Secret named by uriSecretRef",
        secret=True,
    ),
]
"""Where a Postgres is."""

Port = Annotated[Int32, Field(ge=1, le=65535), NotPersistedDefault()]

DatabaseName = Annotated[
    str,
    Field(max_length=63),
    matches(
        r"[A-Za-z0-9_][A-Za-z0-9_.-]*",
        "is no name of a database this operator can use: take letters, digits, '_', '-' and '.'",
    ),
]
"""The name of a database; Postgres keeps 63 bytes of it."""

RoleName = Annotated[
    str,
    # two more are put behind it for those who log in
    Field(max_length=61),
    matches(
        r"[A-Za-z0-9_][A-Za-z0-9_-]*",
        "is no name of a role this operator can make: take letters, digits, '_' and '-'",
    ),
    text(
        "!self.startsWith('pg_') && !(self in ['public', 'none'])",
        "is a name that Postgres keeps for itself: take another one, or leave roleName out for a derived one",
        lambda name: not name.startswith("pg_") and name not in {"public", "none"},
    ),
]
"""The name of a role that owns a database."""


class DatabaseTLSMode(StrEnum):
    """How far a connection to the database is protected; libpq's `sslmode`."""

    DISABLE = "Disable"
    PREFER = "Prefer"
    REQUIRE = "Require"
    VERIFY_CA = "VerifyCA"
    VERIFY_FULL = "VerifyFull"


VERIFYING = frozenset({DatabaseTLSMode.VERIFY_CA, DatabaseTLSMode.VERIFY_FULL})


class DatabaseTLS(Model):
    """Protection of the connection to the database."""

    mode: DatabaseTLSMode = DatabaseTLSMode.PREFER
    """Disable: never encrypted. Prefer: encrypted where the database offers it. Require: encrypted or
    refused. VerifyCA: and signed by the CA of `caSecretRef`. VerifyFull: and made out for the host.
    """
    ca_secret_ref: CASecretRef | None = None
    """The CA that signed the certificate of the database. Needed by VerifyCA and VerifyFull."""

    # libpq's own fallback (the CAs of the image) serves VerifyFull only and differs from image to image.
    rules = (
        Rule(
            "!(self.mode in ['VerifyCA', 'VerifyFull']) || has(self.caSecretRef)",
            "mode VerifyCA or VerifyFull has no CA to verify with: name its Secret in caSecretRef, "
            "or use mode Require",
            field=".mode",
            holds=lambda tls: tls.mode not in VERIFYING or tls.ca_secret_ref is not None,
        ),
        Rule(
            "!(self.mode in ['Disable', 'Prefer']) || !has(self.caSecretRef)",
            "with mode Disable or Prefer nothing is verified and caSecretRef has no effect: "
            "set mode VerifyFull, or remove caSecretRef",
            field=".mode",
            holds=lambda tls: (
                tls.mode not in {DatabaseTLSMode.DISABLE, DatabaseTLSMode.PREFER} or tls.ca_secret_ref is None
            ),
        ),
    )


class EmbeddedDatabase(Model):
    """A Postgres of the server's own, with one instance and one volume."""

    image: ImageReference | None = None
    """Postgres image. Absent: the one the operator is tested with."""
    storage: DatabaseStorage = DatabaseStorage()
    """The volume that holds the database."""
    resources: Resources | None = None
    """CPU and memory of Postgres. Absent: enough for a team of some ten people."""


class ExternalDatabase(Model):
    """A Postgres that somebody else runs. The database and its user exist already; the encoding is UTF8."""

    uri_secret_ref: URISecretRef | None = None
    """A Secret that holds the whole connection URI, user and password included. Instead of `host`."""
    host: DatabaseHost | None = None
    """Name or address of the database. Instead of `uriSecretRef`; needs `credentialsSecretRef`."""
    port: Port = 5432
    """Port at `host`. Default 5432."""
    database_name: Annotated[DatabaseName, NotPersistedDefault()] = "mlflow"
    """Name of the database at `host`. Default mlflow."""
    credentials_secret_ref: DatabaseCredentialsRef | None = None
    """A Secret with the user and password for `host`."""
    tls: DatabaseTLS | None = None
    """How the connection is protected. Absent: mode Prefer."""

    rules = (
        exactly_one("spec.database.external", "uri_secret_ref", "host"),
        Rule(
            "!has(self.host) || has(self.credentialsSecretRef)",
            "spec.database.external.host has no user and password: name their Secret in credentialsSecretRef",
            holds=lambda it: it.host is None or it.credentials_secret_ref is not None,
        ),
        Rule(
            "!has(self.uriSecretRef) || "
            "!(has(self.port) || has(self.databaseName) || has(self.credentialsSecretRef))",
            "spec.database.external.uriSecretRef holds the whole URI: remove port, databaseName and "
            "credentialsSecretRef, or use host instead of uriSecretRef",
            holds=lambda it: (
                it.uri_secret_ref is None
                or not it.model_fields_set & {"port", "database_name", "credentials_secret_ref"}
            ),
        ),
    )


class ProvisionedDatabase(Model):
    """A database and a role of the server's own, made by the operator on a Postgres that many share."""

    host: DatabaseHost
    """Name or address of the Postgres; of itself, not of a pooler before it."""
    port: Port = 5432
    """Port at `host`. Default 5432."""
    admin_secret_ref: DatabaseAdminRef
    """A Secret with a user who may make roles and databases (CREATEROLE and CREATEDB; no superuser needed). Only the
    operator reads it.
    """
    database_name: DatabaseName | None = None
    """Name of the database. Absent: derived from the server's namespace and name, and unlike any other server's."""
    role_name: RoleName | None = None
    """Name of the role that owns the database. Absent: derived as the database's."""
    tls: DatabaseTLS | None = None
    """How connections are protected. Absent: mode Prefer."""


class CloudNativePGDatabase(Model):
    """A database in a Cluster of CloudNativePG, in the server's namespace."""

    cluster_name: Annotated[
        str,
        Field(max_length=50),
        matches(
            r"[a-z]([a-z0-9-]*[a-z0-9])?",
            "is no name of a Cluster: use lower-case letters, digits and '-'",
        ),
    ]
    """Name of the Cluster. The server logs in with its Secret `<cluster>-app`, and trusts the authority in
    `<cluster>-ca`.
    """
    database_name: Annotated[DatabaseName, NotPersistedDefault()] = "app"
    """Name of the database, which the user of that Secret owns. Default app, as the Cluster's own default."""


_MEMBERS = ("embedded", "external", "provision", "cloud_native_pg")


class Database(Model):
    """One member at most; none means `embedded`."""

    embedded: EmbeddedDatabase | None = None
    """A Postgres of the server's own, made and kept by the operator."""
    external: ExternalDatabase | None = None
    """A Postgres that somebody else runs."""
    provision: ProvisionedDatabase | None = None
    """A database and a role, made on a Postgres that many share."""
    cloud_native_pg: Annotated[CloudNativePGDatabase | None, Field(alias="cloudNativePG")] = None
    """A database in a Cluster of CloudNativePG."""

    rules = (
        at_most_one("spec.database", *_MEMBERS),
        not_empty("spec.database", *_MEMBERS),
    )
