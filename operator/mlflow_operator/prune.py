"""Deletes objects that a Ready server no longer needs. Data is retained: volumes and generated Secrets."""

from mlflow_operator import render
from mlflow_operator.components.upgrade import reconcile as upgrade
from mlflow_operator.framework import jobs
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import is_adoptable

_PRUNED_KINDS = (kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.PDB)
"""Kinds that the operator can recreate at any time. Finished Jobs are kept as a record, Secrets and volumes as data."""

_JOBS = (
    labels.MIGRATION_POD,
    labels.PREFLIGHT_POD,
    labels.RESTORE_POD,
    labels.REWRAP_POD,
    labels.AUTHENTICATION_POD,
)


async def run(context: ReconcileContext, upgrading: bool) -> None:
    """Delete objects that are no longer desired.

    For example: an embedded store that the spec has replaced, the plugin of an artifact access mode that is no longer
    used, the PodDisruptionBudget of a server with one replica, the Jobs of finished or cancelled upgrades, and finished
    Jobs of a server that was deleted without them.
    """
    desired = render.supporting_objects(context.server)
    observed = [obj for kind in _PRUNED_KINDS for obj in context.observed.list(kind)]
    await context.prune(desired, observed)
    if not upgrading:
        await upgrade.prune_jobs(context)
    for component in _JOBS:
        for job in context.observed.list(kinds.JOB, component):
            # A record of a deleted MLflowServer of the same name. Its result proves nothing, and it has no owner with
            # which Kubernetes would delete it. Jobs of CronJobs keep theirs.
            if jobs.is_finished(job) and is_adoptable(job, context.observed.resource):
                await context.deps.cluster.delete(job)
    for job in context.observed.list(kinds.JOB, labels.MIGRATION_POD):
        # If this image is requested again later, its migration must not find the failed Job.
        if jobs.has_condition(job, "Failed") and jobs.image_of(job) != context.server.image:
            await context.deps.cluster.delete(job)
