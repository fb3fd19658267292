"""Everything outside a reconcile that it may read or write. There are no globals; tests replace these objects."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mlflow_operator.clients.ca_files import CAFiles
from mlflow_operator.clients.dns import Resolver
from mlflow_operator.clients.password_checks import PasswordChecks
from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.roles import PostgresRoles
from mlflow_operator.clients.s3.client import ObjectStores
from mlflow_operator.clients.s3.minio_admin import MinioAdmin
from mlflow_operator.clients.s3.seaweedfs_admin import SeaweedFSAdmin
from mlflow_operator.framework.cluster_identity import ClusterIdentity
from mlflow_operator.framework.memory_limit import MemoryLimit
from mlflow_operator.framework.shared_reads import SharedReads
from mlflow_operator.kube.apply import Applier
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.events import Events
from mlflow_operator.model.versions import Images
from mlflow_operator.status.metrics import Metrics


@dataclass(frozen=True)
class Timeouts:
    """Seconds that one reconcile spends on calls that may take long. The next reconcile continues.

    `bucket_check`: the check of a bucket that only backups use; the other conditions must not wait for it.
    `delete_objects`: the deletion of artifacts; other servers use the same threads.
    """

    bucket_check: float = 5.0
    delete_objects: float = 30.0


@dataclass(frozen=True)
class Dependencies:
    """Clients and settings of the operator process.

    `now` returns the current time as RFC 3339. `generate_password` returns a new random password of characters that
    need no quoting anywhere.
    """

    cluster: KubernetesClient
    applier: Applier
    postgres: Postgres
    postgres_admin: PostgresAdmin
    postgres_roles: PostgresRoles
    stores: ObjectStores
    minio_admin: MinioAdmin
    seaweedfs_admin: SeaweedFSAdmin
    resolver: Resolver
    ca_files: CAFiles
    events: Events
    metrics: Metrics
    images: Images
    cluster_domain: str
    now: Callable[[], str]
    generate_password: Callable[[], str]
    timeouts: Timeouts = Timeouts()
    memory: MemoryLimit = field(default_factory=MemoryLimit)
    cluster_identity: ClusterIdentity = field(default_factory=ClusterIdentity)
    shared_reads: SharedReads = field(default_factory=SharedReads)
    password_checks: PasswordChecks = field(default_factory=PasswordChecks)
