"""What is made for one server on a Postgres that many share: names, a marker, how many connections it may take.

The database belongs to a role that nobody can log in with. Who logs in is one of two members of that role, whose
sessions act as the owner: whatever either makes belongs to the owner, so that one can take the other's place without
a moment in which neither works.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import ServerRef

LONGEST_DATABASE = 63
"""Bytes of a name that Postgres keeps; it cuts off the rest without a word."""

LOGINS = ("_a", "_b")
"""What is put behind the owner's name for the two who log in."""

LONGEST_ROLE = LONGEST_DATABASE - max(map(len, LOGINS))
"""Bytes of the owner's name."""

_SIGNATURE = "mlflow-operator.dev: "
_CLUSTER = " in cluster "
_DIGEST = 16
"""Hexadecimal digits of the hash in a name that had to be cut: two names out of four thousand million would meet."""

_POOL_SIZE, _MAX_OVERFLOW = 5, 10
"""Connections that SQLAlchemy keeps, and opens on top under load, for each of its engines."""

_ENGINES, _JOB_ENGINES = 2, 3
"""MLflow's engines in each process: one for tracking, one for the registry; with job execution one for jobs, too."""

_JOB_PROCESSES = 8
"""Processes of job execution in a pod. Each does one thing at a time: a connection an engine."""

_BESIDE = 5
"""The migration (2), the operator's look at the database (1), and a person with a shell or a backup (2)."""


@dataclass(frozen=True)
class Login:
    """Who logs in."""

    name: str
    password: str = field(repr=False)


@dataclass(frozen=True)
class DatabasePlan:
    """A database and the role that owns it. `marker` is the comment that tells them from other people's.

    `connection_limit` is of the database: it holds for both logins together.
    """

    database: str
    role: str
    connection_limit: int
    marker: str

    @property
    def logins(self) -> tuple[str, ...]:
        """The names of the two who may log in; one of them does, both only while a password is replaced."""
        return logins(self.role)


def logins(role: str) -> tuple[str, ...]:
    """The names of the two who may log in to what `role` owns."""
    return tuple(f"{role}{end}" for end in LOGINS)


def derived_name(owner: ServerRef) -> str:
    """The name of database and role where the spec gives none.

    No two servers of a cluster get the same one: neither namespaces nor names can hold the underscores between them,
    and one that is too long is cut and told by a hash, after two underscores, which no other one has in a row.
    """
    name = f"mlflow_{owner.namespace}_{owner.name}"
    if len(name) <= LONGEST_ROLE:
        return name
    digest = hashlib.sha256(f"{owner.namespace}/{owner.name}".encode()).hexdigest()[:_DIGEST]
    return f"{name[: LONGEST_ROLE - _DIGEST - 2]}__{digest}"


def marker(owner: ServerRef, cluster: str | None) -> str:
    """The comment on all that is made for `owner`. `cluster` tells clusters apart that share a Postgres; None where the
    operator may not ask which one it is in."""
    return f"{_SIGNATURE}{owner.namespace}/{owner.name}{f'{_CLUSTER}{cluster}' if cluster else ''}"


def is_ours(comment: str | None, marker: str) -> bool:
    """Whether `comment` says that something was made for the server of `marker`.

    Where either does not know its cluster, the server's name decides.
    """
    if comment is None:
        return False
    (here, _, cluster), (there, _, another) = marker.partition(_CLUSTER), comment.partition(_CLUSTER)
    return here == there and (not cluster or not another or cluster == another)


def connection_limit(
    replicas: int, workers: int, *, job_execution: bool = False, env: Sequence[Object] = ()
) -> int:
    """How many connections one server may take: every pool full, in every pod, while a rolling update has one more.

    Counted are the pods' workers with both of MLflow's engines, and the process above them with a connection each.
    `env` may give pools of another size. A bound and no forecast: a busy worker takes five, most of the time.
    """
    plain = {e["name"]: e.get("value") for e in env}
    size = _number(plain.get("MLFLOW_SQLALCHEMYSTORE_POOL_SIZE"), _POOL_SIZE)
    overflow = _number(plain.get("MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"), _MAX_OVERFLOW)
    engines = _JOB_ENGINES if job_execution else _ENGINES
    jobs = _JOB_PROCESSES * engines if job_execution else 0
    pod = workers * engines * (size + overflow) + engines + jobs
    return (max(replicas, 1) + 1) * pod + _BESIDE


def _number(text: str | None, default: int) -> int:
    # MLflow takes 0 for unset
    return int(text) if text and text.isdecimal() and int(text) else default
