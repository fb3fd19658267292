"""What components have in common: the input and the result of `reconcile`, and how errors become conditions."""

from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.framework import name_conflicts
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import ObservedState, Reader
from mlflow_operator.framework.platform_choice import NamespaceCheck
from mlflow_operator.kube import admission_errors, kinds
from mlflow_operator.kube.apply import NameConflictError
from mlflow_operator.kube.client import Forbidden, Invalid, NamespaceTerminating, QuotaExceeded
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import PlatformOrigin, Server
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, false_condition
from mlflow_operator.status.errors import ReconcileError, TransientError

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
P = ParamSpec("P")

RETRY_TRANSIENT_SECONDS = 5.0
"""Seconds until a transient error is retried. A watch event triggers a reconcile sooner."""

RETRY_USER_ERROR_SECONDS = 15.0
"""Seconds until an error that a user must fix is checked again, because a user who has just created a Secret waits for
the result. The check only reads. Requests that the API server rejects are retried at the resync."""


@dataclass(frozen=True)
class ReconcileContext:
    """State of one reconcile of one MLflowServer: observed objects, desired server, and clients."""

    observed: ObservedState
    server: Server
    reader: Reader
    deps: Dependencies
    namespace_check: NamespaceCheck = field(default_factory=NamespaceCheck)

    @property
    def was_ready(self) -> bool:
        """Whether the server had ready replicas before. A missing dependency is then a failure, not a slow start."""
        return bool(self.observed.status.get("readyReplicas"))

    def is_absent(self, kind: Kind, name: str) -> bool:
        """Whether it is known without another request that no object of this name exists, whatever its labels are."""
        is_unknown = self.reader.latest(kind, name) is None
        return kind == kinds.SECRET and is_unknown and name in self.observed.absent_secrets

    async def check_namespace(self, origin: PlatformOrigin | None) -> None:
        """Raise Conflict if the namespace may not use the platform any more. Call it before each grant of access.

        All calls of a reconcile make one request. No generated Secret may be written after the first call.
        """
        await self.namespace_check.run(origin, self.server.owner.namespace, self.deps)

    async def ensure(self, desired: Object, *, data: bool = False) -> Object:
        """Create or update one object. Returns the stored object."""
        kind, name = kinds.of(desired), desired["metadata"]["name"]
        stored = await self.deps.applier.ensure(
            desired,
            self.observed.get(kind, name),
            self.observed.resource,
            data=data,
            is_absent=self.is_absent(kind, name),
        )
        return self.reader.store(stored)

    async def patch(self, obj: Object, operations: Sequence[Object]) -> Object:
        """Apply a JSON patch to one object. Returns the object after the patch; writes nothing without operations."""
        if not operations:
            return obj
        meta = obj["metadata"]
        patched = await self.deps.cluster.json_patch(
            kinds.of(obj), meta["namespace"], meta["name"], operations
        )
        return self.reader.store(patched)

    async def ensure_job(self, desired: Object, observed: Object | None = None) -> None:
        """Create a Job if it does not exist. An existing Job is never changed."""
        await self.deps.applier.ensure_job(desired, observed, self.observed.resource)

    async def adopt_job(self, desired: Object, observed: Object) -> Object:
        """Check that an existing Job belongs to the server before its result is used. Adopts one without an owner."""
        return await self.deps.applier.adopt_job(desired, observed, self.observed.resource)

    async def prune(self, desired: Iterable[Object], observed: Iterable[Object]) -> None:
        """Delete the server's objects in `observed` that are not in `desired`, except data."""
        await self.deps.applier.prune(desired, observed, self.observed.resource)


@dataclass(frozen=True)
class Result(Generic[T_co]):
    """Result of a component. `value` is the input of later components, None if they cannot continue.

    `requeue_after` is in seconds; None if a watch event or the next resync is early enough.
    """

    condition: Condition
    value: T_co | None = None
    requeue_after: float | None = None


Reconcile = Callable[Concatenate[ReconcileContext, P], Coroutine[Any, Any, Result[T]]]


def component(condition_type: ConditionType) -> Callable[[Reconcile[P, T]], Reconcile[P, T]]:
    """Decorate `reconcile` of a component: the errors that it raises become its condition.

    Unexpected exceptions propagate.
    """

    def wrap(run: Reconcile[P, T]) -> Reconcile[P, T]:
        @wraps(run)
        async def wrapped(context: ReconcileContext, /, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
            try:
                return await run(context, *args, **kwargs)
            except NameConflictError as error:
                message = await name_conflicts.message(
                    context.server, context.observed, context.deps.cluster, error.conflict
                )
                return Result(
                    false_condition(condition_type, error.reason, message),
                    requeue_after=RETRY_USER_ERROR_SECONDS,
                )
            except ReconcileError as error:
                is_transient = isinstance(error, TransientError)
                return Result(
                    false_condition(condition_type, error.reason, error.message),
                    requeue_after=RETRY_TRANSIENT_SECONDS if is_transient else RETRY_USER_ERROR_SECONDS,
                )
            except NamespaceTerminating:
                raise
            except QuotaExceeded as error:
                quota_error = admission_errors.quota_error(
                    error.subject, context.server.owner.namespace, str(error)
                )
                return Result(false_condition(condition_type, quota_error.reason, quota_error.message))
            except (Invalid, Forbidden) as error:
                message = (
                    f"The API server rejects the request: {_with_period(error)} Fix the reported cause. "
                    "Retried every 60 s."
                )
                return Result(false_condition(condition_type, Reason.OPERATION_REFUSED, message))

        return wrapped

    return wrap


def _with_period(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def waiting(condition_type: ConditionType, dependency: str) -> Condition:
    """The condition of a component that cannot start before `dependency` is ready."""
    return Condition(
        condition_type, ConditionStatus.UNKNOWN, Reason.WAITING_FOR_DEPENDENCY, f"Waiting for {dependency}."
    )


def suspended(condition_type: ConditionType) -> Condition:
    """The condition of a component that `spec.suspend` has stopped."""
    return false_condition(
        condition_type, Reason.SUSPENDED, "Suspended by spec.suspend. Set it to false to resume."
    )
