"""The status of an MLflowServer."""

from collections.abc import Iterable
from dataclasses import dataclass

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import client_config
from mlflow_operator.model.server import Server
from mlflow_operator.status import conditions
from mlflow_operator.status.conditions import Condition

RETAINED_FIELDS = (
    "version",
    "image",
    "schemaRevision",
    "platform",
    "platformDefaults",
    "database",
    "artifacts",
    "replicas",
    "readyReplicas",
    "fastPathFallback",
    "credentialsRotatedAt",
    "upgrade",
    "restoredBackup",
    "backup",
    "garbageCollection",
    "encryption",
    "auth",
    "adminSecretRef",
)
"""Fields that keep their last value if a reconcile does not determine a new one: while a database is unreachable, the
status still shows which one it is."""


@dataclass(frozen=True)
class StatusContext:
    """Inputs from outside: the previous status, the generation of the spec, and the current time (RFC 3339)."""

    previous: Object
    generation: int
    now: str

    def conditions(self, new_conditions: Iterable[Condition]) -> list[Object]:
        """`new_conditions` for the status, each with its `lastTransitionTime`."""
        return conditions.with_transition_times(
            new_conditions, self.previous.get("conditions") or (), self.generation, self.now
        )


def status(
    server: Server, status_patch: Object, new_conditions: Iterable[Condition], context: StatusContext
) -> Object:
    """Build the complete status.

    `status_patch` contains the RETAINED_FIELDS with a new value; an empty value removes the field.
    """
    retained = {key: context.previous[key] for key in RETAINED_FIELDS if key in context.previous}
    return {
        "observedGeneration": context.generation,
        "url": server.url,
        "selector": ",".join(
            f"{key}={value}"
            for key, value in labels.pod_selector(server.owner.name, labels.SERVER_POD).items()
        ),
        "clientConfigMapRef": {"name": server.names.client},
        **({"clientSecretRef": {"name": server.names.client}} if client_config.has_secret(server) else {}),
        **{key: value for key, value in (retained | status_patch).items() if value != {}},
        "conditions": context.conditions(new_conditions),
    }


def rejected_status(ready: Condition, context: StatusContext) -> Object:
    """The status of a resource that is not reconciled: the previous status with another condition Ready.

    The other conditions stay as they were observed last, with the generation that they had then.
    """
    previous = context.previous.get("conditions") or ()
    others = [dict(condition) for condition in previous if condition.get("type") != ready.type]
    return {
        **context.previous,
        "observedGeneration": context.generation,
        "conditions": [*context.conditions([ready]), *others],
    }


def deletion_status(ready: Condition, context: StatusContext) -> Object:
    """The status of a resource that is being deleted: the previous status with no other condition than Ready."""
    return {
        **context.previous,
        "observedGeneration": context.generation,
        "conditions": context.conditions([ready]),
    }
