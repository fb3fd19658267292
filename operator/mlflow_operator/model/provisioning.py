"""Names, markers and connection limits of what the operator creates for a server on a shared Postgres.

The owner of the database is a role without login. Two login roles are its members, and their sessions act as the owner:
objects that one creates belong to the owner, so the other login can replace it without a moment in which neither works.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import ConnectionPool, ProvisionedDatabase, Server, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

MAX_IDENTIFIER_BYTES = 63
"""Postgres truncates longer identifiers without an error."""

MAINTENANCE_DATABASE = "postgres"
"""The database to which an administrator connects; every Postgres server has it."""

LOGIN_SUFFIXES = ("_a", "_b")
"""Suffixes of the two login roles, after the name of the owner role."""

MAX_ROLE_BYTES = MAX_IDENTIFIER_BYTES - max(map(len, LOGIN_SUFFIXES))
"""Maximum length of the owner role's name."""

_MARKER_PREFIX = "mlflow-operator.dev: "
_NAMESPACE_SEPARATOR, _CLUSTER_SEPARATOR = " in namespace ", " in cluster "
_DIGEST_CHARS = 16
"""Hexadecimal digits of the hash in a shortened name. A collision becomes likely at four thousand million names."""

POOL_SIZE_ENV, MAX_OVERFLOW_ENV = "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"
"""Environment variables with the settings of each connection pool."""

_DEFAULT_POOL = ConnectionPool(5, 10)
"""SQLAlchemy's defaults for each engine: connections in the pool, and additional ones under load."""

_SMALLEST_POOL = ConnectionPool(1, 1)
"""MLflow treats 0 as unset. A request that logs a batch also needs two connections at the same time."""

_ENGINES_PER_PROCESS, _ENGINES_WITH_JOBS = 2, 3
"""MLflow's SQLAlchemy engines per process: tracking and registry, and with job execution one for jobs."""

_JOB_PROCESSES = 8
"""Job execution processes per pod. Each does one task at a time: one connection per engine."""

_RESERVED_CONNECTIONS = 5
"""For the migration (2), the operator's database check (1), and a user's shell or a backup (2)."""

_SUPERUSER_CONNECTIONS = 3
"""Postgres keeps them free for superusers."""

_MAX_CONNECTIONS_STEP = 100


@dataclass(frozen=True)
class Login:
    """Name and password of a login role."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class DatabasePlan:
    """A database and its owner role. `marker` is the comment that identifies them as created for the server.

    `platform`: name of the platform that they belong to, empty if they belong to none. `adopts`: whether they may have
    been created for a server in an earlier namespace of the same name.
    `connection_limit` is the limit of the database, which applies to both logins together, and of each login: the owner
    of a database can lift its limit.
    """

    database: str
    role: str
    connection_limit: int
    marker: str
    platform: str = ""
    adopts: bool = False

    def owns(self, comment: str | None) -> bool:
        """Whether the server may use an object with this comment."""
        return is_marker_of(comment, self.marker) or (self.adopts and is_of_same_name(comment, self.marker))

    @property
    def logins(self) -> tuple[str, ...]:
        """Names of the two login roles. One is in use; both are only while a password is rotated."""
        return logins(self.role)


def logins(role: str) -> tuple[str, ...]:
    """Names of the two login roles of the owner `role`."""
    return tuple(f"{role}{end}" for end in LOGIN_SUFFIXES)


def derived_name(owner: ServerRef) -> str:
    """Name of the database and the owner role if the spec sets none.

    It is unique among the servers of a cluster: neither namespaces nor names can contain the underscores between them.
    A name that is too long is cut, followed by two underscores, which no other name contains in a row, and a hash.
    """
    name = f"mlflow_{owner.namespace}_{owner.name}"
    if len(name) <= MAX_ROLE_BYTES:
        return name
    digest = hashlib.sha256(str(owner).encode()).hexdigest()[:_DIGEST_CHARS]
    return f"{name[: MAX_ROLE_BYTES - _DIGEST_CHARS - 2]}__{digest}"


def marker(owner: ServerRef, cluster: str | None, namespace_uid: str | None = None) -> str:
    """Comment on everything that is created for `owner`.

    `cluster` distinguishes clusters that share a Postgres; None if the operator is not allowed to read its cluster's
    ID. `namespace_uid`: on a platform, the uid of the server's namespace, which distinguishes it from later namespaces
    of the same name, and from those of other clusters.
    """
    namespace = f"{_NAMESPACE_SEPARATOR}{namespace_uid}" if namespace_uid else ""
    cluster = f"{_CLUSTER_SEPARATOR}{cluster}" if cluster else ""
    return f"{_MARKER_PREFIX}{owner}{namespace}{cluster}"


def is_marker_of(comment: str | None, marker: str) -> bool:
    """Whether `comment` marks an object as created for the server of `marker`.

    If `marker` contains the uid of the namespace, `comment` must contain the same. Otherwise the clusters are compared,
    if both contain theirs.
    """
    if comment is None:
        return False
    (server, namespace, cluster), (other_server, other_namespace, other_cluster) = map(
        _parts, (marker, comment)
    )
    if namespace:
        return (server, namespace) == (other_server, other_namespace)
    return server == other_server and (not cluster or not other_cluster or cluster == other_cluster)


def is_of_same_name(comment: str | None, marker: str) -> bool:
    """Whether `comment` marks an object as created for a server of the namespace and name in `marker`, at any time."""
    return comment is not None and _parts(comment)[0] == _parts(marker)[0]


def has_namespace(comment: str | None) -> bool:
    """Whether `comment` contains the uid of a namespace: what it marks was created for a server on a platform."""
    return comment is not None and bool(_parts(comment)[1])


def _parts(marker: str) -> tuple[str, str, str]:
    """The server with the prefix of all markers, the uid of its namespace, and the cluster; empty if missing."""
    server_and_namespace, _, cluster = marker.partition(_CLUSTER_SEPARATOR)
    server, _, namespace = server_and_namespace.partition(_NAMESPACE_SEPARATOR)
    return server, namespace, cluster


def adoption_required(
    description: str, marker: str, platform: str, comment: str | None = None
) -> ConfigurationError:
    """Return the error for data that a server with `marker` may only use with an entry in `spec.adoptions`.

    `description` is the subject of a sentence, such as `The role "a"`. `comment` is the marker of the data, if any.
    """
    server, _, cluster = _parts(marker)
    server = server.removeprefix(_MARKER_PREFIX)
    other_cluster = _parts(comment or "")[2]
    is_of_other_cluster = bool(cluster and other_cluster) and cluster != other_cluster
    warning = (
        "Another cluster created it: if that cluster still exists, an adoption takes the data away from its server. "
        if is_of_other_cluster
        else ""
    )
    return ConfigurationError(
        Reason.ADOPTION_REQUIRED,
        f"{description} was not created for this server on a platform, but perhaps before it used one, or for one in "
        f"an earlier namespace of the same name. {warning}The operator does not use it. If the data may be used here, "
        f'ask a cluster administrator to add "{server}" to spec.adoptions of MLflowPlatform "{platform}". If it is '
        "listed already, an earlier namespace has used the entry: remove it, and add it again once status.adoptions "
        "does not list it.",
    )


def connection_limit(
    replicas: int, workers: int, *, job_execution: bool = False, env: Sequence[Object] = ()
) -> int:
    """Maximum number of connections of a server: all pools of all pods are full, and a rolling update adds one pod.

    Counted are the workers with both of MLflow's engines, and their parent process with one connection per engine.
    `env` may set another pool size. This is an upper bound, not an estimate: a busy worker mostly uses five
    connections.
    """
    return _demand(replicas, workers, _own_pool(env), job_execution=job_execution)


def limited_pool(
    limit: int, replicas: int, workers: int, *, job_execution: bool = False, env: Sequence[Object] = ()
) -> ConnectionPool | None:
    """Return the largest pool with which a server needs at most `limit` connections.

    None if it does with its own pool. If it needs more with every pool, as `check_limit` reports, return the smallest
    one.
    """
    own = _own_pool(env)
    if _demand(replicas, workers, own, job_execution=job_execution) <= limit:
        return None
    engines, single = _engines_and_single_connections(job_execution=job_execution)
    per_pod = (limit - _RESERVED_CONNECTIONS) // _pods(replicas)
    connections = max((per_pod - single) // (workers * engines), _total(_SMALLEST_POOL))
    size = min(own.size, connections - 1)
    return ConnectionPool(size, connections - size)


def check_limit(server: Server) -> None:
    """Raise ConfigurationError if a server needs more connections than its platform allows, with the smallest pools."""
    database = server.database
    if not isinstance(database, ProvisionedDatabase) or not database.origin or server.pool is None:
        return
    needed = _demand(server.replicas, server.workers, server.pool, job_execution=server.job_execution)
    if database.max_connections is None or needed <= database.max_connections:
        return
    platform = database.origin.name
    jobs = ", jobExecution" if server.job_execution else ""
    raise ConfigurationError(
        Reason.POLICY_VIOLATION,
        f'MLflowPlatform "{platform}" limits each server to {database.max_connections} database connections, and this '
        f"server needs {needed} even with the smallest connection pools (replicas {max(server.replicas, 1)}, workers "
        f"{server.workers}{jobs}). Lower spec.replicas or spec.workers, or ask the administrator of the platform to "
        f"raise {database.field}.maxConnectionsPerServer.",
    )


def limit_note(server: Server, database: ProvisionedDatabase) -> str:
    """Return a sentence with a leading space about smaller connection pools; empty if they are not limited."""
    if server.pool is None or not database.origin:
        return ""
    needed = connection_limit(
        server.replicas, server.workers, job_execution=server.job_execution, env=server.env
    )
    return (
        f' MLflowPlatform "{database.origin.name}" limits each server to {database.max_connections} connections. This '
        f"server could open {needed}, so each of its connection pools is limited to {_total(server.pool)} connections, "
        "and requests may wait. To avoid that, lower spec.replicas or spec.workers, or ask the administrator of the "
        f"platform to raise {database.field}.maxConnectionsPerServer."
    )


def _own_pool(env: Sequence[Object]) -> ConnectionPool:
    """The pool that `spec.env` sets."""
    values = {e["name"]: e.get("value") for e in env}
    return ConnectionPool(
        positive_int(values.get(POOL_SIZE_ENV), _DEFAULT_POOL.size),
        positive_int(values.get(MAX_OVERFLOW_ENV), _DEFAULT_POOL.max_overflow),
    )


def _demand(replicas: int, workers: int, pool: ConnectionPool, *, job_execution: bool) -> int:
    engines, single = _engines_and_single_connections(job_execution=job_execution)
    return _pods(replicas) * (workers * engines * _total(pool) + single) + _RESERVED_CONNECTIONS


def _engines_and_single_connections(*, job_execution: bool) -> tuple[int, int]:
    """Engines per process, and connections of the processes of a pod that use one per engine."""
    engines = _ENGINES_WITH_JOBS if job_execution else _ENGINES_PER_PROCESS
    return engines, engines + (_JOB_PROCESSES * engines if job_execution else 0)


def _pods(replicas: int) -> int:
    """Number of pods during a rolling update. A suspended server keeps the limit of one replica."""
    return max(replicas, 1) + 1


def _total(pool: ConnectionPool) -> int:
    return pool.size + pool.max_overflow


def embedded_max_connections(
    replicas: int, workers: int, *, job_execution: bool = False, env: Sequence[Object] = ()
) -> int:
    """`max_connections` of an embedded Postgres: as many as its server can open, in steps.

    A change restarts the database. The steps avoid that for most changes of the number of replicas or workers.
    """
    needed = connection_limit(replicas, workers, job_execution=job_execution, env=env)
    needed += _SUPERUSER_CONNECTIONS
    return -(-needed // _MAX_CONNECTIONS_STEP) * _MAX_CONNECTIONS_STEP


def positive_int(text: str | None, default: int) -> int:
    """The value of an environment variable, `default` if it is not a number or 0, which MLflow treats as unset."""
    return int(text) if text and text.isdecimal() and int(text) else default
