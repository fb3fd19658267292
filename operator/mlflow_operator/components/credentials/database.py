"""How the server gets into its database: a login that was generated, or one that the owner's Secrets hold."""

from mlflow_operator.components.credentials import generated_login
from mlflow_operator.framework.step import ReconcileContext
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

STORAGE_CHANGE = (
    "The database would change from {old} to {new}, and everything logged so far would stay behind. "
    "Point {field} back, or set spec.storageChangePolicy to Allow if that is what you want."
)


async def connection(context: ReconcileContext, allow_storage_change: bool) -> Connection:
    """What opens the server's database, as the operator uses it: without a file to verify with."""
    database = context.server.database

    def allowed(found: Connection) -> None:
        _same_database(context, found, allow_storage_change)

    match database:
        case EmbeddedDatabase():
            return await generated_login.embedded(context, database, allowed)
        case ExternalDatabase():
            found = await _external(context, database)
        case ProvisionedDatabase():
            return await generated_login.provisioned(context, database, allowed)
        case ClusterDatabase():
            found = await _of_cluster(context, database)
    allowed(found)
    return found


async def _external(context: ReconcileContext, database: ExternalDatabase) -> Connection:
    if database.uri:
        where = f'Key "{database.uri.key}" of Secret "{database.uri.name}" ({database.uri.field})'
        found = postgres_uri.parse(await context.reader.value(database.uri), where)
    else:
        username = await context.reader.optional(database.username) or ""
        password = await context.reader.optional(database.password) or ""
        found = Connection(database.host, database.port, database.database, username, password)
    return found.with_tls(database.tls, None)


async def _of_cluster(context: ReconcileContext, database: ClusterDatabase) -> Connection:
    namespace, field = context.server.owner.namespace, "spec.database.cloudNativePG.clusterName"
    try:
        live = await context.deps.cluster.get(kinds.CLOUD_NATIVE_PG, namespace, database.cluster)
    except Forbidden:
        raise ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The operator may not look at Clusters of CloudNativePG in namespace {namespace}. Grant it get on "
            "clusters of postgresql.cnpg.io, as its chart does.",
        ) from None
    if live is None:
        raise TransientError(
            Reason.DATABASE_UNREACHABLE,
            f'There is no Cluster "{database.cluster}" of CloudNativePG (postgresql.cnpg.io/v1) in namespace '
            f"{namespace}. Install CloudNativePG if it is not there, create the Cluster, or correct {field}.",
        )
    if not cloudnativepg.serves(live):
        raise TransientError(
            Reason.WAITING_FOR_DEPENDENCY,
            f'Waits for an instance of Cluster "{database.cluster}"{cloudnativepg.phase(live)}.',
        )
    values = await context.reader.values(kinds.SECRET, database.secret)
    if values is None:
        raise TransientError(
            Reason.SECRET_NOT_FOUND,
            f'There is no Secret "{database.secret}", which CloudNativePG makes for the user of Cluster '
            f'"{database.cluster}". If the Cluster was given a Secret of your own, name its host, the database and '
            "that Secret in spec.database.external.",
        )
    found = Connection(
        values.get("host") or database.host,
        int(values.get("port") or database.port),
        database.database,
        await context.reader.value(SecretKey(database.secret, "username", field)),
        await context.reader.value(SecretKey(database.secret, "password", field)),
    )
    return found.with_tls(database.tls, None)


def _same_database(context: ReconcileContext, found: Connection, allowed: bool) -> None:
    """A Secret's content is no field of the resource, so the CRD's own rule can't see it change."""
    before = context.observed.status.get("database") or {}
    old = storage_location.as_text(before)
    new = storage_location.as_text({"host": found.host, "port": found.port, "name": found.database})
    if before.get("host") and not storage_location.same_database(before, found) and not allowed:
        external = context.server.database
        field = (
            external.uri.field if isinstance(external, ExternalDatabase) and external.uri else "spec.database"
        )
        raise ConfigurationError(
            Reason.STORAGE_CHANGE_REFUSED, STORAGE_CHANGE.format(old=old, new=new, field=field)
        )
