"""What outlives a server, or goes with it: which objects hold data, and how sentences name them."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import storage_location
from mlflow_operator.model.names import Names


@dataclass
class RemovalProgress:
    """How far the deletion of a server's data is.

    `waits`: what for, None when all is done; `busy`: that goes on by itself, however long it takes. `stays`: what was
    not this server's, in words.
    """

    waits: str | None = None
    busy: bool = False
    stays: list[str] = field(default_factory=list)

    @property
    def untouched(self) -> str:
        """What stays, as a sentence with a space before it, or nothing."""
        return f" Not this server's, and so untouched: {'; '.join(self.stays)}." if self.stays else ""


def credentials(names: Names) -> tuple[tuple[Kind, str], ...]:
    """The Secrets without which its data can't be opened."""
    return (kinds.SECRET, names.database_secret), (kinds.SECRET, names.artifacts_secret)


def volumes(names: Names) -> tuple[tuple[Kind, str], ...]:
    """The volumes of its embedded stores."""
    return (kinds.PVC, names.postgres_data), (kinds.PVC, names.artifact_store_data)


def is_data_of(server: str, obj: Object) -> bool:
    """Whether it is data made for this server: by its labels, as it is taken back."""
    carried = obj["metadata"].get("labels") or {}
    return carried.get(labels.MANAGED_BY) == labels.OPERATOR and carried.get(labels.SERVER) == server


def as_text(objects: Iterable[Object]) -> str:
    """Volumes and Secrets in words: by kind and name, in a fixed order. Empty for none."""
    by_kind: dict[str, list[str]] = {}
    for obj in objects:
        by_kind.setdefault(obj["kind"], []).append(f'"{obj["metadata"]["name"]}"')
    return "; ".join(
        f"{kind}{'s' if len(names) > 1 else ''} {', '.join(sorted(names))}"
        for kind, names in sorted(by_kind.items())
    )


def outside(status: Object) -> str:
    """The database and the bucket that the status names, where they are not embedded: in words, or empty."""
    database, artifacts = status.get("database") or {}, status.get("artifacts") or {}
    said = []
    if database.get("host") and database.get("type") != "Embedded":
        said.append(f"the database {storage_location.as_text(database)}")
    if artifacts.get("uri") and artifacts.get("type") != "Embedded":
        said.append(f"the artifacts at {artifacts['uri']}")
    return " and ".join(said)
