"""Kinds and names of the objects that belong to a server, without their contents. Jobs have no fixed names."""

from mlflow_operator.kube import kinds
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.model import client_config, deployment, plugins, retained_data
from mlflow_operator.model.names import Names
from mlflow_operator.model.server import EmbeddedDatabase, ProvisionedDatabase, Server

KindAndName = tuple[Kind, str]


def all_disposable(names: Names) -> tuple[KindAndName, ...]:
    """The disposable objects that a server can have, whatever its spec."""
    return (
        (kinds.DEPLOYMENT, names.deployment),
        (kinds.PDB, names.deployment),
        (kinds.SERVICE, names.service),
        (kinds.SECRET, names.server_secret),
        (kinds.SECRET, names.client),
        (kinds.CONFIGMAP, names.client),
        (kinds.CONFIGMAP, names.plugin_config_map),
        *((kind, name) for name in _stores(names) for kind in (kinds.STATEFULSET, kinds.SERVICE)),
        (kinds.CRONJOB, names.backup),
        (kinds.CRONJOB, names.garbage_collection),
    )


def disposable(server: Server) -> list[KindAndName]:
    """The disposable objects that the spec of the server requires."""
    names = server.names
    unneeded = {
        (kinds.PDB, names.deployment): deployment.disruption_budget(server) is None,
        (kinds.SECRET, names.client): not client_config.has_secret(server),
        (kinds.CONFIGMAP, names.plugin_config_map): not plugins.is_needed(server),
        (kinds.STATEFULSET, names.postgres): not isinstance(server.database, EmbeddedDatabase),
        (kinds.SERVICE, names.postgres): not isinstance(server.database, EmbeddedDatabase),
        (kinds.STATEFULSET, names.artifact_store): server.artifacts.embedded is None,
        (kinds.SERVICE, names.artifact_store): server.artifacts.embedded is None,
        (kinds.CRONJOB, names.backup): server.backup is None,
        (kinds.CRONJOB, names.garbage_collection): server.garbage_collection is None,
    }
    return [key for key in all_disposable(names) if not unneeded.get(key)]


def data(server: Server) -> list[KindAndName]:
    """The volumes and generated credentials that the spec of the server requires."""
    names, store = server.names, server.artifacts.s3
    objects: list[KindAndName] = []
    if isinstance(server.database, EmbeddedDatabase | ProvisionedDatabase):
        objects.append((kinds.SECRET, names.database_secret))
    if isinstance(server.database, EmbeddedDatabase):
        objects.append((kinds.PVC, names.postgres_data))
    if server.artifacts.embedded or (store and store.admin):
        objects.append((kinds.SECRET, names.artifacts_secret))
    if server.artifacts.embedded:
        objects.append((kinds.PVC, names.artifact_store_data))
    if server.encryption.is_generated:
        objects.append((kinds.SECRET, names.encryption_secret))
    if server.auth and server.auth.is_generated:
        objects.append((kinds.SECRET, names.admin_secret))
    return objects


def fixed_names(names: Names, kind: Kind) -> frozenset[str] | None:
    """The names of all objects of a kind that a server can have; None if the kind has no fixed names."""
    known = (*all_disposable(names), *retained_data.credentials(names), *retained_data.volumes(names))
    return frozenset(name for known_kind, name in known if known_kind == kind) or None


def _stores(names: Names) -> tuple[str, ...]:
    return names.postgres, names.artifact_store
