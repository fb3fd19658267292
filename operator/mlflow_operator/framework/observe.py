"""Read the observed state once per reconcile, directly from the API server (no cache).

Objects are found by labels with one request per kind; those with other names than the server uses are ignored. If there
is more than usual, they are requested by their names. Secrets always are: the operator has no permission to list them,
which would reveal all Secrets to an attacker with its token. Pods and Jobs have no fixed names. They count whether or
not they have the server as their controller: a pod without a controller writes to the database as well, and a migration
must wait for it.

`Reader` reads the Secrets and ConfigMaps that the server references.
"""

import asyncio
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow_operator.framework.memory_limit import Reservation
from mlflow_operator.framework.shared_reads import SharedReads
from mlflow_operator.framework.task_group import task_group
from mlflow_operator.kube import job_outcome, kinds, labels, read_limit
from mlflow_operator.kube.client import Forbidden, KubernetesClient, TooLarge, Unavailable
from mlflow_operator.kube.job_outcome import Outcome
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit
from mlflow_operator.model import owned_objects
from mlflow_operator.model.names import Names
from mlflow_operator.model.secrets import all_values, is_text
from mlflow_operator.model.server import SecretKey
from mlflow_operator.status.conditions import ConditionType, Reason
from mlflow_operator.status.errors import ConfigurationError

LISTED = (
    kinds.DEPLOYMENT,
    kinds.STATEFULSET,
    kinds.SERVICE,
    kinds.CONFIGMAP,
    kinds.PVC,
    kinds.JOB,
    kinds.CRONJOB,
    kinds.POD,
    kinds.PDB,
)
"""Kinds of the objects of an MLflowServer that the operator lists and watches: all but Secrets."""

_SMALL_BYTES = 1024 * 1024
"""Size of the objects of usual servers, with their finished Jobs."""

INITIAL_MEMORY_BYTES = read_limit.max_memory(_SMALL_BYTES)
"""Memory that a reconcile must reserve before it calls `observe`."""

_BEFORE_PODS = tuple(kind for kind in LISTED if kind != kinds.POD)

_LARGE_BYTES = 6 * 1024 * 1024
"""Maximum size of all objects: two hundred pods with 20 KiB each, during a rollout of a hundred, and Jobs."""

_MAX_REFERENCED_BYTES = 4 * 1024 * 1024
"""Maximum size of the Secrets and ConfigMaps that a server references."""

_USUAL_REFERENCED_BYTES = 256 * 1024
"""Memory for their values that every reconcile has. More must be free at the time."""


@dataclass(frozen=True)
class ObservedState:
    """An MLflowServer and all objects with its labels, by kind and name."""

    resource: Object
    owned: Mapping[tuple[str, str], Object]
    """By kind and name. A Job with injected containers has the condition that its own containers lead to."""
    unrecorded_outcomes: Mapping[str, tuple[Object, Outcome]]
    """Outcomes of Jobs that are only known from their pods, with the Job as Kubernetes stores it, by its name."""
    absent_secrets: frozenset[str] = frozenset()
    """Names of the server's Secrets that did not exist, with or without its labels."""

    def get(self, kind: Kind, name: str) -> Object | None:
        """The object of this kind and name; None if there is none or if it does not have the labels."""
        return self.owned.get((kind.kind, name))

    def list(self, kind: Kind, component: str | None = None) -> list[Object]:
        """All objects of a kind, or those of one component, sorted by name."""
        return sorted(
            (
                obj
                for (kind_name, _), obj in self.owned.items()
                if kind_name == kind.kind
                and (component is None or obj["metadata"]["labels"].get(labels.COMPONENT) == component)
            ),
            key=lambda obj: str(obj["metadata"]["name"]),
        )

    @property
    def status(self) -> Object:
        """The stored status; empty if there is none yet."""
        status: Object = self.resource.get("status") or {}
        return status

    def condition(self, condition_type: ConditionType) -> Object:
        """The stored condition of this type; empty if there is none yet."""
        stored = self.status.get("conditions") or ()
        return next((condition for condition in stored if condition.get("type") == condition_type.value), {})


async def observe(resource: Object, cluster: KubernetesClient, memory: Reservation) -> ObservedState:
    """Read all objects that have the labels of the MLflowServer `resource` and a name that it uses.

    Pods come last: the result of a finished Job is in its pod only, so the pods must not be older than the Jobs.

    Everyone who may create objects in the namespace can set the labels: others must neither use up the operator's
    memory nor stop the reconciles. `memory` has INITIAL_MEMORY_BYTES. If that is not enough, more is reserved, which
    may have to wait for other reconciles. Raises ConfigurationError if the objects are too large.
    """
    limit = ReadLimit(_SMALL_BYTES)
    try:
        lists = await _list_all(resource, cluster, limit)
    except TooLarge:
        lists = None
    if lists is None:
        await memory.exchange(read_limit.max_memory(_LARGE_BYTES))
        limit = ReadLimit(_LARGE_BYTES)
        kinds_in_order = (*_BEFORE_PODS, kinds.SECRET, kinds.POD)
        lists = [await _read_large(kind, resource, cluster, limit) for kind in kinds_in_order]
    memory.shrink(limit.memory + _USUAL_REFERENCED_BYTES)
    found = {(obj["kind"], obj["metadata"]["name"]): obj for objects in lists for obj in objects}
    server = resource["metadata"]["name"]
    owned = {key: obj for key, obj in found.items() if labels.belong_to_server(obj["metadata"], server)}
    jobs = [obj for (kind, _), obj in owned.items() if kind == kinds.JOB.kind]
    unrecorded = {}
    for job in jobs:
        job_name = str(job["metadata"]["name"])
        # Also of a Job without an owner, for example from a backup of the cluster. It is suspended, so that Kubernetes
        # never finishes it, and everything would wait for it for ever. `adopt_job` checks it before its result is used.
        outcome = job_outcome.recorded(job)
        if outcome is None and _is_owned(job, resource["metadata"]["uid"]):
            outcome = job_outcome.to_record(job, pods_of(owned.values(), job))
            if outcome:
                unrecorded[job_name] = job, outcome
        if outcome:
            owned[kinds.JOB.kind, job_name] = job_outcome.with_outcome(job, outcome)
    absent = frozenset(name for name in _secret_names(resource) if (kinds.SECRET.kind, name) not in found)
    return ObservedState(resource, owned, unrecorded, absent)


def _is_owned(job: Object, server_uid: str) -> bool:
    """Whether a Job belongs to the server or to a CronJob. Anyone may give a Job of their own the server's labels."""
    owners = job["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == server_uid or owner.get("kind") == "CronJob" for owner in owners)


def pods_of(objects: Iterable[Object], job: Object) -> list[Object]:
    """Pods of a Job. Matches by uid, because pods of an earlier Job of the same name may still exist."""
    uid = job["metadata"]["uid"]
    return [
        obj
        for obj in objects
        if obj["kind"] == kinds.POD.kind
        and any(ref.get("uid") == uid for ref in obj["metadata"].get("ownerReferences") or ())
    ]


async def _list_all(resource: Object, cluster: KubernetesClient, limit: ReadLimit) -> list[list[Object]]:
    namespace, server = resource["metadata"]["namespace"], resource["metadata"]["name"]
    names, selector = Names(server), labels.server_selector(server)

    async def read(kind: Kind) -> list[Object]:
        fixed_names = owned_objects.fixed_names(names, kind)
        return await cluster.list(kind, namespace, selector, limit=limit, names=fixed_names)

    async with task_group() as group:
        tasks = [
            *(group.create_task(read(kind)) for kind in _BEFORE_PODS),
            *(
                group.create_task(_by_name(kinds.SECRET, name, resource, cluster, limit))
                for name in sorted(_secret_names(resource))
            ),
        ]
    return [*(task.result() for task in tasks), await read(kinds.POD)]


async def _read_large(
    kind: Kind, resource: Object, cluster: KubernetesClient, limit: ReadLimit
) -> list[Object]:
    """The objects of one kind. Those with fixed names are requested by name, because others may be larger."""
    namespace, server = resource["metadata"]["namespace"], resource["metadata"]["name"]
    names, selector = owned_objects.fixed_names(Names(server), kind), labels.server_selector(server)
    if kind == kinds.SECRET:
        names = _secret_names(resource)
    try:
        if names is not None:
            found = [await _by_name(kind, name, resource, cluster, limit) for name in sorted(names)]
            return [obj for objects in found for obj in objects]
        if kind == kinds.POD:
            return await _without_ended_server_pods(namespace, selector, cluster, limit)
        return await cluster.list(kind, namespace, selector, limit=limit)
    except TooLarge:
        raise ConfigurationError(
            Reason.NAME_CONFLICT,
            f"The objects in namespace {namespace} with the labels of this MLflowServer need more than "
            f"{_LARGE_BYTES // 2**20} MiB. Delete finished Jobs, and what the operator did not create: "
            f"kubectl get {kind.plural} -n {namespace} -l {selector}",
        ) from None


async def _by_name(
    kind: Kind, name: str, resource: Object, cluster: KubernetesClient, limit: ReadLimit
) -> list[Object]:
    """The object of this name, with or without the labels of the server; an empty list if there is none."""
    found = await cluster.get(kind, resource["metadata"]["namespace"], name, limit)
    return [found] if found else []


def _secret_names(resource: Object) -> frozenset[str]:
    """Names of the Secrets that the server can have.

    Data outlives a change of the stores, so its Secrets can exist whatever the spec is. That of the administrator is
    used with authentication only, and deleted with the server. The Secret for clients can exist as well if the status
    does not name it; `server` requests it when it must be emptied.
    """
    names = Names(resource["metadata"]["name"])
    secrets = owned_objects.fixed_names(names, kinds.SECRET) or frozenset()
    status = resource.get("status") or {}
    is_deleted = bool(resource["metadata"].get("deletionTimestamp"))
    needs_admin = is_deleted or "auth" in (resource.get("spec") or {}) or "adminSecretRef" in status
    unneeded = {names.client: "clientSecretRef" not in status, names.admin_secret: not needs_admin}
    return secrets - {name for name, is_unneeded in unneeded.items() if is_unneeded}


async def _without_ended_server_pods(
    namespace: str, selector: str, cluster: KubernetesClient, limit: ReadLimit
) -> list[Object]:
    """All pods except ended ones of the server: Kubernetes keeps thousands of them, if a node evicts each new pod."""
    component, server_pod = labels.COMPONENT, labels.SERVER_POD
    running = await cluster.list(
        kinds.POD,
        namespace,
        f"{selector},{component}={server_pod}",
        "status.phase!=Failed,status.phase!=Succeeded",
        limit=limit,
    )
    others = await cluster.list(kinds.POD, namespace, f"{selector},{component}!={server_pod}", limit=limit)
    return [*running, *others]


class Reader:
    """Reads Secrets and ConfigMaps that a resource references, each at most once per reconcile.

    `namespace` is the one of a reference that names none. The objects in `known`, by kind and name, and those that the
    reconcile writes are known without a request. With `shared`, those in other namespaces, which are the Secrets of a
    platform, can be a second old.
    """

    def __init__(
        self,
        cluster: KubernetesClient,
        namespace: str,
        known: Mapping[tuple[str, str], Object],
        memory: Reservation,
        shared: SharedReads | None = None,
    ) -> None:
        self.cluster = cluster
        self._shared = shared
        self.namespace = namespace
        self.known = dict(known)
        self._memory = memory
        self._unused_memory = _USUAL_REFERENCED_BYTES
        self._limit = ReadLimit(_MAX_REFERENCED_BYTES)
        self._read: dict[tuple[str, str, str], asyncio.Task[dict[str, str] | None]] = {}

    async def values(self, kind: Kind, name: str, namespace: str | None = None) -> dict[str, str] | None:
        """All values of a Secret or ConfigMap; None if it does not exist.

        `namespace` as in `SecretKey`: only a reference of an MLflowPlatform has another one than the server's.
        """
        known = self.known.get((kind.kind, name)) if namespace in {None, self.namespace} else None
        if known is not None:
            return _values_of(known)
        key = (kind.kind, namespace or self.namespace, name)
        if key not in self._read:
            self._read[key] = asyncio.create_task(
                self._fetch(kind, *key[1:]), name=f"read {kind.kind} {name}"
            )
        return await asyncio.shield(self._read[key])

    async def value(self, reference: SecretKey) -> str:
        """One value of a Secret.

        Raises ConfigurationError, which names the missing Secret or key and the field that references it.
        """
        namespace = reference.namespace or self.namespace
        values = await self.values(kinds.SECRET, reference.name, namespace)
        if values is None:
            raise ConfigurationError(
                Reason.SECRET_NOT_FOUND,
                f'There is no Secret "{reference.name}" in namespace {namespace}. '
                f"Create it, or reference another Secret in {reference.field}.name.{_hint(reference)}",
            )
        if reference.key not in values:
            raise ConfigurationError(
                Reason.SECRET_KEY_MISSING,
                f'Secret "{reference.name}" has no key "{reference.key}". Add the key, or reference another key in '
                f"{reference.field}.",
            )
        if not is_text(values[reference.key]):
            raise ConfigurationError(
                Reason.SECRET_VALUE_INVALID,
                f'Key "{reference.key}" of Secret "{reference.name}" is not valid UTF-8 text. Store the value as text, '
                f"or reference another key in {reference.field}.",
            )
        return values[reference.key]

    async def optional_value(self, reference: SecretKey | None) -> str | None:
        """Like `value`; None if `reference` is None."""
        return None if reference is None else await self.value(reference)

    async def _fetch(self, kind: Kind, namespace: str, name: str) -> dict[str, str] | None:
        try:
            obj = await self._get(kind, namespace, name)
        except TooLarge:
            raise ConfigurationError(
                Reason.SECRET_VALUE_INVALID,
                "The Secrets and ConfigMaps that this resource references need more than "
                f'{_MAX_REFERENCED_BYTES // 2**20} MiB, with {kind.kind} "{name}". Reference smaller ones.',
            ) from None
        except Forbidden:
            if namespace == self.namespace:
                raise
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f'The operator is not allowed to read Secret "{name}" in namespace {namespace}. Ask its administrator '
                f"to add this Secret to the operator chart's value platformSecrets.",
            ) from None
        if obj is None:
            return None
        values = _values_of(obj)
        self._count(values, f'{kind.kind} "{name}"')
        return values

    async def _get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        if self._shared is None or namespace == self.namespace:
            return await self.cluster.get(kind, namespace, name, self._limit)

        async def read() -> tuple[Object | None, ReadLimit]:
            limit = ReadLimit(_MAX_REFERENCED_BYTES)
            return await self.cluster.get(kind, namespace, name, limit), limit

        key = (kind, namespace, name)
        obj, limit = await self._shared.get(key, read)
        self._limit.take_shared(limit, f"get {kind.kind} {namespace}/{name}")
        if obj is None:
            # Its platform was perhaps just created. The next server must find the Secret.
            self._shared.forget(key)
        return obj

    def _count(self, values: Mapping[str, str], description: str) -> None:
        """Reserve memory for values, which the reconcile keeps until its end."""
        size = sum(map(sys.getsizeof, values.values()))
        if size > self._unused_memory:
            missing = size - self._unused_memory
            if not self._memory.grow(missing):
                raise Unavailable(f"read {description}: other reconciles use the memory for its {size} bytes")
            self._unused_memory += missing
        self._unused_memory -= size

    def latest(self, kind: Kind, name: str) -> Object | None:
        """The Secret or ConfigMap as the reconcile observed it or wrote it last; None if it is not known."""
        return self.known.get((kind.kind, name))

    def store(self, obj: Object) -> Object:
        """Remember an object as it was read or written, and return it."""
        if obj["kind"] in {kinds.SECRET.kind, kinds.CONFIGMAP.kind}:
            self.known[obj["kind"], obj["metadata"]["name"]] = obj
        return obj


def _hint(reference: SecretKey) -> str:
    """A sentence with a leading space about the Secret of an administrator, empty for other references.

    A spec could once name one in another namespace. The API server drops this field, also from stored servers.
    """
    if reference.namespace or not reference.field.endswith(".adminSecretRef"):
        return ""
    return (
        " It must be in the namespace of the server. To use one in another namespace, let the server use an "
        'MLflowPlatform, which can take over its data: see the guide "Migrate to a platform".'
    )


def _values_of(obj: Object) -> dict[str, str]:
    if obj["kind"] == kinds.SECRET.kind:
        return all_values(obj)
    return {**(obj.get("data") or {}), **(obj.get("binaryData") or {})}
