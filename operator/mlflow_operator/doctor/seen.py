"""What was seen of an installation, before anything is thought about it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.needs import Permission
from mlflow_operator.kube.objects import Object


@dataclass(frozen=True)
class Access:
    """Which of what it needs an account was refused."""

    account: str
    refused: tuple[Permission, ...]


@dataclass(frozen=True)
class Lease:
    """The Lease by which operators elect. `fresh`: renewed in time by our clock, or before our eyes."""

    holder: str
    fresh: bool


@dataclass(frozen=True)
class Operator:
    """One operator. `watched` empty: all namespaces; None: its Deployment could not be looked at."""

    namespace: str
    name: str
    deployment: Object | Unobserved
    pods: tuple[Object, ...]
    lease: Lease | Unobserved | None
    access: Access | Unobserved
    watched: tuple[str, ...] | None

    @property
    def version(self) -> str:
        """As its chart labels it; empty where that could not be looked at."""
        if isinstance(self.deployment, Unobserved):
            return ""
        labels = self.deployment["metadata"].get("labels") or {}
        return str(labels.get("app.kubernetes.io/version") or "")


@dataclass(frozen=True)
class LostRoot:
    """A run whose artifacts can't be listed: where they should be, and what came of it."""

    run: str
    place: str
    why: str


@dataclass(frozen=True)
class Elsewhere:
    """An experiment whose artifacts do not pass through the server."""

    experiment: str
    location: str


@dataclass(frozen=True)
class Roots:
    """Where runs keep their artifacts: of how many experiments the youngest was `looked` at, and which are `lost`.

    `unasked`: experiments for which there was no time, or no answer.
    """

    looked: int
    lost: tuple[LostRoot, ...]
    elsewhere: tuple[Elsewhere, ...]
    unasked: int = 0


@dataclass(frozen=True)
class ProbeResult:
    """How a URL answered. `status` None: not at all, and `error` says how that failed.

    `foreign`: MLflow refused the name that it was called by. `roots` None: not asked for, or there are no runs.
    """

    status: int | None
    error: str = ""
    foreign: bool = False
    roots: Roots | None = None


@dataclass(frozen=True)
class Server:
    """One MLflowServer, and how it answers a client in the cluster and one outside; None: not asked."""

    resource: Object
    inside: ProbeResult | Unobserved | None = None
    outside: ProbeResult | Unobserved | None = None
    inside_way: str = ""

    @property
    def namespace(self) -> str:
        """Where it lives."""
        return str(self.resource["metadata"]["namespace"])

    @property
    def subject(self) -> str:
        """As findings name it."""
        return f"server {self.namespace}/{self.resource['metadata']['name']}"


@dataclass(frozen=True)
class ObservedCluster:
    """All of it. `definition` None: there is none. `version`: this doctor's own, and so that of the schema it expects.

    `here`: the server's address, and as whom and from where it was asked, for the table's head.
    """

    now: datetime
    version: str
    here: str
    definition: Object | Unobserved | None
    operators: tuple[Operator, ...] | Unobserved
    servers: tuple[Server, ...]

    def watching(self, namespace: str) -> Iterator[Operator]:
        """The operators that serve a namespace, as far as that is known."""
        if isinstance(self.operators, Unobserved):
            return
        for operator in self.operators:
            if operator.watched is None or not operator.watched or namespace in operator.watched:
                yield operator
