"""What a server no longer needs goes, once it is Ready without it. Data stays: volumes, generated Secrets."""

from mlflow_operator.controller.apply import prune
from mlflow_operator.controller.steps.schema import never_begun
from mlflow_operator.controller.steps.step import Work
from mlflow_operator.core import desired, kinds

_DISPOSABLE = (kinds.STATEFULSET, kinds.SERVICE, kinds.CONFIGMAP, kinds.PDB)
"""Kinds that are made anew at will. Jobs that ran are a record, Secrets and volumes are data."""


async def run(work: Work) -> None:
    """Takes away an embedded store that the spec has left, the plugin of an access that is no longer asked for,
    the budget of replicas that are gone."""
    wanted = desired.objects(work.server)
    live = [obj for kind in _DISPOSABLE for obj in work.seen.of(kind)]
    await prune(work.out.cluster, wanted, live, work.seen.resource)
    for job in never_begun(work):
        await work.out.cluster.delete(job)
