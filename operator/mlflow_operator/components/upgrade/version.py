"""Which MLflow version a reconcile works with. It can differ from the version in the spec."""

from dataclasses import replace

from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.components.upgrade.preflight_decision import UpgradePlan
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.model.versions import SCHEMA_HEADS, version_for_revision


def with_schema_version(context: ReconcileContext, database: DatabaseState | None) -> ReconcileContext:
    """Use the version of the existing schema for a server that was recreated on the data of a deleted one.

    The status of the deleted server is lost, and the operator's default version may be newer: using the default would
    migrate the database without a request. If a Deployment was restored with the data, its version is used as long as
    it has this schema.
    """
    if not context.server.version_is_default or database is None or not database.revision:
        return context
    if SCHEMA_HEADS.get(context.server.version) == database.revision:
        return context
    version = version_for_revision(database.revision)
    if version is None:
        return context
    image = context.deps.images.server(version)
    return replace(context, server=replace(context.server, version=version, image=image))


def with_image_version(context: ReconcileContext, plan: UpgradePlan | None) -> ReconcileContext:
    """Use the version that the preflight found in a custom image, if the spec sets no version."""
    if context.server.version_is_explicit or not plan or not plan.preflight or not plan.preflight.version:
        return context
    return replace(context, server=replace(context.server, version=plan.preflight.version))
