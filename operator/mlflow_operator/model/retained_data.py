"""The data of a server: which objects contain it, which of it is deleted, and how messages name it."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import storage_location
from mlflow_operator.model.names import Names


@dataclass
class RemovalProgress:
    """Progress of the deletion of a server's data.

    `waiting_for`: what the deletion waits for; None if it is complete. `in_progress`: the deletion continues without a
    change from outside, even if it takes long. `keeps_database`: the database is not deleted. `retained`: descriptions
    of data that does not belong to this server, and of the keys that it needs.
    """

    waiting_for: str | None = None
    in_progress: bool = False
    keeps_database: bool = False
    retained: list[str] = field(default_factory=list)

    @property
    def retained_note(self) -> str:
        """A sentence with a leading space that lists `retained`; empty if there is none."""
        return (
            f" Kept, because it does not belong to this server: {'; '.join(self.retained)}."
            if self.retained
            else ""
        )


def credentials(names: Names) -> tuple[tuple[Kind, str], ...]:
    """The Secrets that are needed to access the data."""
    secrets = names.database_secret, names.artifacts_secret, names.encryption_secret, names.admin_secret
    return tuple((kinds.SECRET, name) for name in secrets)


def volumes(names: Names) -> tuple[tuple[Kind, str], ...]:
    """The PersistentVolumeClaims of the embedded stores."""
    return (kinds.PVC, names.postgres_data), (kinds.PVC, names.artifact_store_data)


def is_data_of(server: str, obj: Object) -> bool:
    """Whether the object contains data of this server, by the labels with which a recreated server adopts it."""
    return labels.belong_to_server(obj["metadata"], server)


def as_text(objects: Iterable[Object]) -> str:
    """PersistentVolumeClaims and Secrets as text: kind and names, in a fixed order. Empty if there are none."""
    by_kind: dict[str, list[str]] = {}
    for obj in objects:
        by_kind.setdefault(obj["kind"], []).append(f'"{obj["metadata"]["name"]}"')
    return "; ".join(
        f"{kind}{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}"
        for kind, names in sorted(by_kind.items())
    )


def external_locations(status: Object) -> str:
    """The external database and bucket in the status, as text; empty if both are embedded or unknown."""
    database, artifacts = status.get("database") or {}, status.get("artifacts") or {}
    locations = []
    if database.get("host") and database.get("type") != "Embedded":
        locations.append(f"the database {storage_location.as_text(database)}")
    if artifacts.get("uri") and artifacts.get("type") != "Embedded":
        locations.append(f"the artifacts at {artifacts['uri']}")
    return " and ".join(locations)
