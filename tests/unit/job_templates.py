"""Pod templates of all Jobs that a server can have."""

from mlflow_operator.components.authentication import manifests as authentication
from mlflow_operator.components.backup import manifests as backup
from mlflow_operator.components.encryption import manifests as encryption
from mlflow_operator.components.garbage_collection import manifests as garbage_collection
from mlflow_operator.components.restore import manifests as restore
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import jobs
from tests.unit.servers import server

SPEC: Object = {
    "backup": {},
    "garbageCollection": {},
    "restoreFrom": {"serverName": "old", "backup": "latest"},
    "auth": {"basic": {}},
}
"""The fields without which a server does not have all Jobs."""


def job_templates(spec: Object | None = None) -> tuple[Object, ...]:
    """The pod templates of all Jobs of a server with `spec` in addition to SPEC, one for each component."""
    resolved = server(SPEC | (spec or {}))
    assert resolved.backup
    assert resolved.restore
    assert resolved.garbage_collection
    collection = garbage_collection.cronjob(resolved, resolved.garbage_collection, paused=False)
    return (
        jobs.migration(resolved, "db", None)["spec"]["template"],
        jobs.preflight(resolved, "db")["spec"]["template"],
        backup.template(resolved, resolved.backup),
        restore.job(resolved, resolved.restore, "db")["spec"]["template"],
        collection["spec"]["jobTemplate"]["spec"]["template"],
        encryption.job(resolved, None, 0, "db")["spec"]["template"],
        authentication.job(resolved, "db")["spec"]["template"],
    )
