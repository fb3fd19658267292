"""What the resource's status says."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import client_config
from mlflow_operator.model.server import Server
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import Condition

STABLE = (
    "version",
    "image",
    "schemaRevision",
    "database",
    "artifacts",
    "replicas",
    "readyReplicas",
    "credentialsRotatedAt",
    "upgrade",
    "restoredBackup",
    "backup",
    "garbageCollection",
)
"""Members that keep their last value where a reconcile learns nothing new: a database that is away for a while
does not make us forget which one it was."""


@dataclass(frozen=True)
class StatusContext:
    """What was there before: the stored status, the spec's generation, and the time as RFC 3339."""

    before: Object
    generation: int
    now: str

    def conditions(self, said: Iterable[Condition]) -> list[Object]:
        """`said` for storing, each with the time of its last change."""
        return conditions.with_transition_times(
            said, self.before.get("conditions") or (), self.generation, self.now
        )


def status(server: Server, learned: Object, said: Iterable[Condition], at: StatusContext) -> Object:
    """The whole status. `learned` holds those of STABLE that are known now, an empty one of those that are over."""
    kept = {key: at.before[key] for key in STABLE if key in at.before}
    return {
        "observedGeneration": at.generation,
        "url": server.url,
        "selector": ",".join(
            f"{key}={value}" for key, value in labels.pods(server.owner.name, labels.SERVER_POD).items()
        ),
        "clientConfigMapRef": {"name": server.names.client},
        **({"clientSecretRef": {"name": server.names.client}} if client_config.has_secret(server) else {}),
        **{key: value for key, value in (kept | learned).items() if value != {}},
        "conditions": at.conditions(said),
    }


def refused(said: Iterable[Condition], at: StatusContext) -> Object:
    """The status of a resource that can't be read: all it said before, and why."""
    return {
        **at.before,
        "observedGeneration": at.generation,
        "conditions": at.conditions(said),
    }
