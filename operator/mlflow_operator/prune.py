"""What a server no longer needs goes, once it is Ready without it. Data stays: volumes, generated Secrets."""

from mlflow_operator import render as desired
from mlflow_operator.components.migration import preflight_step
from mlflow_operator.framework import jobs
from mlflow_operator.framework.step import ReconcileContext
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import prune

_DISPOSABLE = (kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.PDB)
"""Kinds that are made anew at will. Jobs that did their work are a record, Secrets and volumes are data."""


async def run(context: ReconcileContext, upgrading: bool) -> None:
    """Takes away an embedded store that the spec has left, the plugin of an access that is no longer asked for,
    the budget of replicas that are gone, the Jobs of upgrades that came to their end or were given up."""
    wanted = desired.objects(context.server)
    live = [obj for kind in _DISPOSABLE for obj in context.observed.of(kind)]
    await prune(context.deps.cluster, wanted, live, context.observed.resource)
    if not upgrading:
        await preflight_step.tidy(context)
    for job in context.observed.of(kinds.JOB, labels.MIGRATION_POD):
        # asked for once more, this image begins anew instead of finding what once failed
        if jobs.finished_at(job, "Failed") and jobs.image_of(job) != context.server.image:
            await context.deps.cluster.delete(job)
