"""Resolve the connection to the server's database: with a generated login, or with credentials from the user's Secrets.

It writes nothing: `generated_login` writes the Secret `<name>-database`.
"""

from mlflow_operator.components.credentials import generated_login
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.model import cloudnativepg, postgres_uri, storage_location
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import (
    ClusterDatabase,
    EmbeddedDatabase,
    ExternalDatabase,
    ProvisionedDatabase,
    SecretKey,
)
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

STORAGE_CHANGE_MESSAGE = (
    "The database would change from {old} to {new}, and everything logged so far would stay in the old one. "
    "Point {field} back to the old database, or set spec.storageChangePolicy to Allow to switch."
)


async def resolve_connection(context: ReconcileContext) -> Connection:
    """Return the connection to the server's database for use by the operator.

    It contains no CA file path; the path in the server's pods is different. Raises ConfigurationError or
    TransientError.
    """
    database = context.server.database

    def check_storage_change(resolved: Connection) -> None:
        _check_same_database(context, resolved)

    match database:
        case EmbeddedDatabase():
            return await generated_login.embedded(context, database, check_storage_change)
        case ExternalDatabase():
            connection = await _external(context, database)
        case ProvisionedDatabase():
            return await generated_login.provisioned(context, database, check_storage_change)
        case ClusterDatabase():
            connection = await _cloudnativepg(context, database)
    check_storage_change(connection)
    return connection


async def _external(context: ReconcileContext, database: ExternalDatabase) -> Connection:
    if database.uri:
        source = f'Key "{database.uri.key}" of Secret "{database.uri.name}" ({database.uri.field})'
        resolved = postgres_uri.parse(await context.reader.value(database.uri), source)
        postgres_uri.check_options(resolved, source)
        if database.ca is None:
            _check_trusted_cas(resolved, source)
    else:
        username = await context.reader.optional_value(database.username) or ""
        password = await context.reader.optional_value(database.password) or ""
        resolved = Connection(database.host, database.port, database.database, username, password)
    return resolved.with_tls(database.tls, None)


def _check_trusted_cas(connection: Connection, source: str) -> None:
    """Raise ConfigurationError if the URI trusts the CAs of the image that connects.

    The operator, MLflow and pg_dump connect from different images, and not all of these contain CAs.
    """
    if dict(connection.options).get("sslrootcert") == "system":
        raise ConfigurationError(
            Reason.SECRET_VALUE_INVALID,
            f"{source} contains a URI with sslrootcert=system. This is not supported, because the operator and the "
            "pods connect from images with different CAs, or without any. Remove it from the URI, store the CA "
            "certificate of the database in a Secret, and reference the Secret in "
            "spec.database.external.tls.caSecretRef with mode VerifyFull.",
        )


async def _cloudnativepg(context: ReconcileContext, database: ClusterDatabase) -> Connection:
    namespace, field = context.server.owner.namespace, "spec.database.cloudNativePG.clusterName"
    try:
        cluster = await context.deps.cluster.get(kinds.CLOUD_NATIVE_PG, namespace, database.cluster)
    except Forbidden:
        raise ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The operator is not allowed to read Clusters of CloudNativePG in namespace {namespace}. Grant it get on "
            "clusters of postgresql.cnpg.io, as its chart does.",
        ) from None
    if cluster is None:
        raise TransientError(
            Reason.DATABASE_UNREACHABLE,
            f'There is no Cluster "{database.cluster}" of CloudNativePG (postgresql.cnpg.io/v1) in namespace '
            f"{namespace}. Install CloudNativePG if it is missing, create the Cluster, or correct {field}.",
        )
    if not cloudnativepg.has_ready_instance(cluster):
        raise TransientError(
            Reason.WAITING_FOR_DEPENDENCY,
            f'Waiting for a ready instance of Cluster "{database.cluster}"{cloudnativepg.phase_clause(cluster)}.',
        )
    secret_values = await context.reader.values(kinds.SECRET, database.secret)
    if secret_values is None:
        raise TransientError(
            Reason.SECRET_NOT_FOUND,
            f'There is no Secret "{database.secret}", which CloudNativePG creates for the application user of Cluster '
            f'"{database.cluster}". If the Cluster uses a Secret that you created, use spec.database.external instead '
            "and set the host, the database and that Secret there.",
        )
    resolved = Connection(
        secret_values.get("host") or database.host,
        int(secret_values.get("port") or database.port),
        database.database,
        await context.reader.value(SecretKey(database.secret, "username", field)),
        await context.reader.value(SecretKey(database.secret, "password", field)),
    )
    return resolved.with_tls(database.tls, None)


def _check_same_database(context: ReconcileContext, connection: Connection) -> None:
    """Raise ConfigurationError if the database differs from the one in the status and a change is not allowed.

    The validation rules of the CRD cannot detect this change if it is made inside a Secret.
    """
    recorded = context.observed.status.get("database") or {}
    old = storage_location.as_text(recorded)
    new = storage_location.as_text(
        {"host": connection.host, "port": connection.port, "name": connection.database}
    )
    if (
        recorded.get("host")
        and not storage_location.is_recorded_database(recorded, connection)
        and not context.server.storage_change_allowed
    ):
        external = context.server.database
        field = (
            external.uri.field if isinstance(external, ExternalDatabase) and external.uri else "spec.database"
        )
        raise ConfigurationError(
            Reason.STORAGE_CHANGE_REFUSED, STORAGE_CHANGE_MESSAGE.format(old=old, new=new, field=field)
        )
