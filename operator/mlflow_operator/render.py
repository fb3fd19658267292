"""The desired objects of one server: the output of `mlflow-operator render`, and input for tests and for pruning.

The reconciler calls the same builders, but creates each object only when its dependencies are ready. The Jobs of
preflight, restore and the backup before a migration are not included: they exist only for a time.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import yaml

from mlflow_operator.components.backup import manifests as backup
from mlflow_operator.components.garbage_collection import manifests as garbage_collection
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import (
    artifact_store,
    authentication,
    client_config,
    deployment,
    encryption,
    jobs,
    plugins,
    postgres,
    provisioning,
)
from mlflow_operator.model import secrets as secret_manifests
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase, Server


@dataclass(frozen=True)
class GeneratedValues:
    """Random values, and values that are stored only in Secrets of the user."""

    database_username: str
    database_password: str
    access_key: str
    secret_key: str
    rollout_key: str
    passphrase: str
    admin_password: str = ""


def secrets(server: Server, generated: GeneratedValues) -> list[Object]:
    """The Secrets that the operator generates."""
    owner, database = server.owner, server.database
    manifests = []
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
        manifests.append(secret_manifests.database_secret(owner, connection))
    store = server.artifacts.s3
    if store and (server.artifacts.embedded or store.admin):
        access_key = generated.access_key, generated.secret_key
        keys = dict(zip(secret_manifests.ACCESS_KEY_FIELDS, access_key, strict=True))
        if server.artifacts.embedded:
            # The same key, because only the running operator creates a separate user for the server.
            keys |= zip(secret_manifests.SERVER_ACCESS_KEY_FIELDS, access_key, strict=True)
        manifests.append(secret_manifests.artifacts_secret(owner, store, keys))
    if server.encryption.is_generated:
        manifests.append(encryption.rendered_secret(owner, generated.passphrase))
    if server.auth and server.auth.is_generated:
        manifests.append(authentication.secret(owner, server.auth.administrator, generated.admin_password))
    if client_config.has_secret(server):
        manifests.append(client_config.secret(server, generated.access_key, generated.secret_key))
    store_config = secret_manifests.embedded_store_config(
        server.artifacts, generated.access_key, generated.secret_key
    )
    return [
        *manifests,
        secret_manifests.server_secret(
            owner,
            secret_manifests.pod_database_uri(connection),
            generated.rollout_key,
            **store_config,
            **_copied_cas(server),
        ),
    ]


def _copied_cas(server: Server) -> dict[str, str]:
    """Placeholders for the CA certificates of a platform, which the operator copies for the pods."""
    database, store = server.database, server.artifacts.s3
    sources = {
        secret_manifests.DATABASE_CA_KEY: isinstance(database, ProvisionedDatabase) and database.ca_source,
        secret_manifests.ARTIFACTS_CA_KEY: store and store.ca_source,
    }
    return {key: "CA-CERTIFICATES" for key, source in sources.items() if source}


def objects(server: Server) -> list[Object]:
    """All objects except Secrets, in an order in which they can be applied."""
    manifests = [
        *supporting_objects(server),
        jobs.migration(server, "rendered", None),
        deployment.deployment(server, "rendered"),
    ]
    if server.garbage_collection:
        manifests.append(
            garbage_collection.cronjob(server, server.garbage_collection, paused=server.suspended)
        )
    if server.backup:
        manifests.append(backup.cronjob(server, server.backup))
    return manifests


def supporting_objects(server: Server) -> list[Object]:
    """The objects that a server needs beside its Deployment, Jobs, CronJobs and Secrets."""
    owner, database, embedded = server.owner, server.database, server.artifacts.embedded
    manifests = [client_config.config_map(server)]
    if plugins.is_needed(server):
        manifests.append(plugins.config_map(server))
    if isinstance(database, EmbeddedDatabase):
        manifests.append(postgres.volume_claim(owner, database))
        manifests += postgres.objects(owner, database, server.pods, running=not server.suspended)
    if embedded:
        manifests.append(artifact_store.volume_claim(owner, embedded))
        manifests += artifact_store.objects(owner, embedded, server.pods, running=not server.suspended)
    manifests.append(deployment.service(server))
    budget = deployment.disruption_budget(server)
    return [*manifests, budget] if budget else manifests


def as_yaml(manifests: Iterable[Object]) -> str:
    """Return objects as YAML documents. Texts of several lines, such as embedded programs, are block scalars."""
    return yaml.dump_all(manifests, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Writes no anchors and aliases, as manifests are usually written."""

    def ignore_aliases(self, data: object) -> bool:
        return True


_UNICODE_BREAKS = frozenset("\x85\u2028\u2029\ufeff")
"""YAML reads them as line breaks or as the byte order mark, unless they are escaped."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if _UNICODE_BREAKS.intersection(text):
        style = '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
