"""All objects of one server at once: what `render` prints and what tests hold against Kubernetes' schemas.

The operator itself makes them step by step, each when what it needs is ready; both call the same builders.
"""

from dataclasses import dataclass

from mlflow_operator.components.backup import manifests as backup
from mlflow_operator.components.garbage_collection import manifests as garbage
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import (
    artifact_store,
    client_config,
    deployment,
    jobs,
    plugins,
    postgres,
    provisioning,
)
from mlflow_operator.model import secrets as credentials
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase, Server


@dataclass(frozen=True)
class Generated:
    """Values that are random, or that only a Secret of the owner's knows; given from outside."""

    database_username: str
    database_password: str
    access_key: str
    secret_key: str
    rollout_key: str


def secrets(server: Server, generated: Generated) -> list[Object]:
    """The Secrets the operator makes."""
    owner, database = server.owner, server.database
    found = []
    username = generated.database_username
    if isinstance(database, EmbeddedDatabase):
        username = database.username
    if isinstance(database, ProvisionedDatabase):
        username = provisioning.logins(database.role)[0]
    connection = Connection(
        database.host or "DATABASE-HOST",
        database.port,
        database.database,
        username,
        generated.database_password,
    )
    if isinstance(database, EmbeddedDatabase | ProvisionedDatabase):
        found.append(credentials.database_secret(owner, connection))
    store = server.artifacts.s3
    if store and (server.artifacts.embedded or store.admin):
        pair = generated.access_key, generated.secret_key
        keys = dict(zip(credentials.STORE_KEY, pair, strict=True))
        if server.artifacts.embedded:
            # the same again: nobody but the operator makes the server a user of its own
            keys |= zip(credentials.OWN_KEY, pair, strict=True)
        found.append(credentials.artifacts_secret(owner, store, keys))
    if client_config.has_secret(server):
        found.append(client_config.secret(server, generated.access_key, generated.secret_key))
    users = credentials.store_users(server.artifacts, generated.access_key, generated.secret_key)
    return [
        *found,
        credentials.server_secret(owner, credentials.server_uri(connection), generated.rollout_key, **users),
    ]


def objects(server: Server) -> list[Object]:
    """Everything but Secrets, in an order that can be applied as it is."""
    owner, database, embedded = server.owner, server.database, server.artifacts.embedded
    found = [client_config.config_map(server)]
    if plugins.wanted(server.artifacts):
        found.append(plugins.config_map(server))
    if isinstance(database, EmbeddedDatabase):
        found.append(postgres.data(owner, database))
        found += postgres.objects(owner, database, server.pods, running=not server.suspended)
    if embedded:
        found.append(artifact_store.data(owner, embedded))
        found += artifact_store.objects(owner, embedded, server.pods, running=not server.suspended)
    found += [
        jobs.migration(server, "rendered", None),
        deployment.service(server),
        deployment.deployment(server, "rendered"),
    ]
    if server.garbage_collection:
        found.append(garbage.cronjob(server, server.garbage_collection, paused=server.suspended))
    budget = deployment.disruption_budget(server)
    if budget:
        found.append(budget)
    if server.backup:
        found.append(backup.cronjob(server, server.backup))
    return found
