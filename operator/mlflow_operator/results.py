"""Results of all components of one reconcile, and what follows from them: conditions, status, next reconcile."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.artifacts import locations
from mlflow_operator.components.authentication import reconcile as authentication
from mlflow_operator.components.backup import reconcile as backup
from mlflow_operator.components.credentials.reconcile import Credentials
from mlflow_operator.components.encryption import reconcile as encryption
from mlflow_operator.components.garbage_collection import reconcile as garbage_collection
from mlflow_operator.components.garbage_collection.reconcile import CollectionStatus
from mlflow_operator.components.restore import manifests as restore_manifests
from mlflow_operator.components.server import fast_path
from mlflow_operator.components.upgrade import reconcile as upgrade
from mlflow_operator.components.upgrade.preflight_decision import UpgradePlan
from mlflow_operator.framework.component import ReconcileContext, Result
from mlflow_operator.framework.running_server import RunningServer
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import storage_location
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.model.server import EncryptionKeys
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import Condition, Reason


@dataclass(frozen=True)
class Prerequisites:
    """Results of the components that the server pods depend on.

    `upgrade_plan` has a value once the preflight allows the new image. `authentication` is None if the spec requires
    none.
    """

    database: Result[DatabaseState]
    artifacts: Result[None]
    upgrade_plan: Result[UpgradePlan]
    schema: Result[str]
    encryption: Result[EncryptionKeys]
    authentication: Result[Accounts] | None

    @property
    def are_ready(self) -> bool:
        """Whether both stores and the schema are ready."""
        return all(result.condition.is_true for result in (self.database, self.artifacts, self.schema))


@dataclass(frozen=True)
class Results:
    """The result of each component, in the order of the conditions in the status.

    `rotation` reports the condition of the credentials. `backup` and `garbage_collection` are None if the spec does
    not configure them.
    """

    credentials: Result[Credentials]
    prerequisites: Prerequisites
    server: Result[RunningServer]
    rotation: Result[str]
    backup: Result[None] | None
    garbage_collection: Result[CollectionStatus] | None

    def conditions(self) -> list[Condition]:
        """Return the conditions for the status, `Ready` first. They contain no credentials."""
        components = [result.condition for result in self._all() if result is not self.credentials]
        keys = self.credentials.value
        if keys:
            components = [
                replace(condition, message=keys.redact(condition.message)) for condition in components
            ]
        return [conditions.ready_condition(components), *components]

    @property
    def requires_adoption(self) -> bool:
        """Whether a store contains something of the server's name that belongs to an earlier namespace."""
        return any(result.condition.reason is Reason.ADOPTION_REQUIRED for result in self._all())

    @property
    def requeue_after(self) -> float | None:
        """Seconds until the next reconcile that a component asks for; None if none does."""
        delays = [result.requeue_after for result in self._all() if result.requeue_after is not None]
        return min(delays, default=None)

    def status_patch(self, context: ReconcileContext) -> Object:
        """Return the fields of the status for which this reconcile determined a value."""
        database, schema = self.prerequisites.database.value, self.prerequisites.schema.value
        running, keys = self.server.value, self.credentials.value
        patch: Object = {
            "upgrade": upgrade.build_status(context, self.prerequisites.upgrade_plan.value, self.server),
            "backup": backup.build_status(context),
            **garbage_collection.status_patch(self.garbage_collection),
            **fast_path.status_patch(context, running),
            **encryption.status(self.prerequisites.encryption.value, context),
            **authentication.status_patch(context, database, running),
        }
        if database:
            patch["restoredBackup"] = restore_manifests.source_backup_id(database.table_comment) or {}
        if schema:
            patch["schemaRevision"] = schema
        if running and running.version:
            patch |= {"version": running.version, "image": context.server.image}
            if keys:
                patch |= storage_location.status_fields(context.server, keys.connection)
                patch["artifacts"] |= locations.status_field(context)
        if running and running.deployment:
            deployment_status = running.deployment.get("status") or {}
            for field in ("replicas", "readyReplicas"):
                patch[field] = int(deployment_status.get(field) or 0)
        if self.rotation.value:
            patch["credentialsRotatedAt"] = self.rotation.value
        return patch

    def _all(self) -> Iterator[Result[object]]:
        stages = self.prerequisites
        yield from (self.credentials, self.rotation)
        yield from (stages.database, stages.artifacts, stages.upgrade_plan, stages.schema)
        yield stages.encryption
        if stages.authentication:
            yield stages.authentication
        yield self.server
        yield from (result for result in (self.backup, self.garbage_collection) if result)
