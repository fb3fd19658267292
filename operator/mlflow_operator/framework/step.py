"""What steps are given and what they give back."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.observe import ObservedState, Reader
from mlflow_operator.kube import admission_errors, kinds
from mlflow_operator.kube.apply import ensure
from mlflow_operator.kube.client import Forbidden, Invalid, NamespaceTerminating, QuotaExceeded
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Server
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, State, false_condition
from mlflow_operator.status.errors import ReconcileError, TransientError

T = TypeVar("T")
P = ParamSpec("P")

RETRY_TRANSIENT_SECONDS = 5.0
"""Seconds until a fault that may pass by itself is looked at again; faults that events tell of come sooner."""

RETRY_USER_ERROR_SECONDS = 15.0
"""Seconds until a fault that somebody has to mend is looked at again: who has just created a Secret waits for it. To
look is all it costs; what the API server refuses is tried again at the resync."""


@dataclass(frozen=True)
class ReconcileContext:
    """One reconcile of one server: what was seen, what shall be, and what may be touched."""

    observed: ObservedState
    server: Server
    reader: Reader
    deps: Dependencies

    @property
    def was_ready(self) -> bool:
        """Whether the server was Ready before; what is not there then is no longer merely on its way."""
        return bool(self.observed.status.get("readyReplicas"))

    async def ensure(self, desired: Object, *, data: bool = False) -> Object:
        """Makes one object what it should be; returns it as it is then."""
        live = self.observed.get(kinds.of(desired), desired["metadata"]["name"])
        written = await ensure(self.deps.cluster, desired, live, self.observed.resource, data=data)
        return written or live or desired


@dataclass(frozen=True)
class Result(Generic[T]):
    """A step's answer. `value` is what later steps need, None where there is nothing to go on with.

    `again` asks for another look after so many seconds; None: an event, or the next resync, will do.
    """

    condition: Condition
    value: T | None = None
    requeue_after: float | None = None


Step = Callable[Concatenate[ReconcileContext, P], Coroutine[Any, Any, Result[T]]]


def step(condition_type: ConditionType) -> Callable[[Step[P, T]], Step[P, T]]:
    """Turns what a step raises into its condition. What is no fault of the world goes on up."""

    def wrap(run: Step[P, T]) -> Step[P, T]:
        @wraps(run)
        async def wrapped(context: ReconcileContext, /, *args: P.args, **kwargs: P.kwargs) -> Result[T]:
            try:
                return await run(context, *args, **kwargs)
            except ReconcileError as fault:
                again = (
                    RETRY_TRANSIENT_SECONDS if isinstance(fault, TransientError) else RETRY_USER_ERROR_SECONDS
                )
                return Result(
                    false_condition(condition_type, fault.reason, fault.message), requeue_after=again
                )
            except NamespaceTerminating:
                raise
            except QuotaExceeded as error:
                what = str(error).partition(": 403")[0].partition(" ")[2]
                quota = admission_errors.of_quota(what, context.server.owner.namespace, str(error))
                return Result(false_condition(condition_type, quota.reason, quota.message))
            except (Invalid, Forbidden) as error:
                said = f"The API server rejects the request: {_with_period(error)} Fix the reported field. Retried every 60 s."
                return Result(false_condition(condition_type, Reason.OPERATION_REFUSED, said))

        return wrapped

    return wrap


def _with_period(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def waiting(condition_type: ConditionType, dependency: str) -> Condition:
    """A part that can't say anything before another one is ready."""
    return Condition(condition_type, State.UNKNOWN, Reason.WAITING_FOR_DEPENDENCY, f"Waits for {dependency}.")


def suspended(condition_type: ConditionType) -> Condition:
    """A part that is down because its owner wants it so."""
    return false_condition(
        condition_type, Reason.SUSPENDED, "Suspended by spec.suspend; set it to false to start again."
    )
