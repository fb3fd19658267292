"""Data read from the cluster, before it is evaluated."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.permissions import Permission
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.platform import Platform


@dataclass(frozen=True)
class AccessReview:
    """The required permissions that an account lacks."""

    account: str
    denied: tuple[Permission, ...]


@dataclass(frozen=True)
class Lease:
    """The Lease for the leader election. `is_renewed`: by the local clock, or observed while waiting."""

    holder: str
    is_renewed: bool


@dataclass(frozen=True)
class Operator:
    """One operator. `watched_namespaces` empty: all; None: unknown, because its Deployment could not be read."""

    namespace: str
    name: str
    deployment: Object | Unobserved
    pods: tuple[Object, ...]
    lease: Lease | Unobserved | None
    access: AccessReview | Unobserved
    watched_namespaces: tuple[str, ...] | None

    @property
    def version(self) -> str:
        """Version from the chart's label; empty if it is unknown."""
        if isinstance(self.deployment, Unobserved):
            return ""
        labels = self.deployment["metadata"].get("labels") or {}
        return str(labels.get("app.kubernetes.io/version") or "")


@dataclass(frozen=True)
class UnreadableArtifacts:
    """A run whose artifacts cannot be listed, with their location and the error."""

    run: str
    location: str
    error: str


@dataclass(frozen=True)
class ExperimentLocation:
    """An experiment with an artifact location that is not proxied by the server."""

    experiment: str
    location: str


@dataclass(frozen=True)
class ArtifactRoots:
    """Results for the latest run of each experiment: how many were checked, and which have unreadable artifacts.

    `unchecked`: number of experiments for which the time was not sufficient, or whose request failed.
    """

    checked: int
    unreadable: tuple[UnreadableArtifacts, ...]
    not_proxied: tuple[ExperimentLocation, ...]
    unchecked: int = 0


@dataclass(frozen=True)
class ProbeResult:
    """Result of a request to a server. `status` None: no response; `error` is then the reason.

    `host_rejected`: MLflow rejected the Host header. `artifact_roots` None: not checked, or there are no runs.
    """

    status: int | None
    error: str = ""
    host_rejected: bool = False
    artifact_roots: ArtifactRoots | None = None


@dataclass(frozen=True)
class Server:
    """One MLflowServer with the results of requests in the cluster and through the API server; None: not probed."""

    resource: Object
    in_cluster: ProbeResult | Unobserved | None = None
    through_proxy: ProbeResult | Unobserved | None = None
    in_cluster_source: str = ""

    @property
    def namespace(self) -> str:
        """Namespace of the MLflowServer."""
        return str(self.resource["metadata"]["namespace"])

    @property
    def subject(self) -> str:
        """Subject of the findings."""
        return f"server {self.namespace}/{self.resource['metadata']['name']}"


@dataclass(frozen=True)
class ObservedPlatform:
    """One MLflowPlatform. `resolved` None: it violates the CRD of this version."""

    resource: Object
    resolved: Platform | None

    @property
    def name(self) -> str:
        """Name of the platform."""
        return str(self.resource["metadata"]["name"])

    @property
    def is_deleted(self) -> bool:
        """Whether the platform is being deleted."""
        return bool(self.resource["metadata"].get("deletionTimestamp"))

    @property
    def subject(self) -> str:
        """Subject of the findings."""
        return f"platform {self.name}"


@dataclass(frozen=True)
class ObservedPlatforms:
    """All platforms. `crd` None: their CRD does not exist.

    `checked`: names of those that concern the checked namespaces and servers. `namespaces`: labels of the namespaces
    that could be read, by name; empty if there are no platforms.
    """

    crd: Object | Unobserved | None
    resources: tuple[ObservedPlatform, ...] | Unobserved
    checked: frozenset[str]
    namespaces: Mapping[str, Mapping[str, str]]

    @property
    def by_name(self) -> Mapping[str, ObservedPlatform]:
        """The platforms by name; empty if they could not be read."""
        resources = () if isinstance(self.resources, Unobserved) else self.resources
        return {platform.name: platform for platform in resources}


@dataclass(frozen=True)
class ObservedCluster:
    """All data for the checks. `crd` is that of servers, None if it does not exist.

    `version`: of doctor, and so of the expected CRDs.

    `header`: address of the API server, user and origin of the requests; the first line of the report.
    """

    now: datetime
    version: str
    header: str
    crd: Object | Unobserved | None
    operators: tuple[Operator, ...] | Unobserved
    servers: tuple[Server, ...]
    platforms: ObservedPlatforms

    def operators_of(self, namespace: str) -> Iterator[Operator]:
        """The operators that watch a namespace, as far as that is known."""
        if isinstance(self.operators, Unobserved):
            return
        for operator in self.operators:
            watched = operator.watched_namespaces
            if watched is None or not watched or namespace in watched:
                yield operator
