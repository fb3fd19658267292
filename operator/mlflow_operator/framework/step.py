"""What steps are given and what they give back."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar

from mlflow_operator.framework.dependencies import Outside
from mlflow_operator.framework.observe import Reader, Seen
from mlflow_operator.kube import admission_errors, kinds
from mlflow_operator.kube.apply import ensure
from mlflow_operator.kube.client import Forbidden, Invalid, NamespaceTerminating, QuotaExceeded
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Server
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, State, not_ready
from mlflow_operator.status.errors import Fault, NotReady

T = TypeVar("T")
P = ParamSpec("P")

SOON = 5.0
"""Seconds until a fault that may pass by itself is looked at again; faults that events tell of come sooner."""

MENDED = 15.0
"""Seconds until a fault that somebody has to mend is looked at again: who has just created a Secret waits for it. To
look is all it costs; what the API server refuses is tried again at the resync."""


@dataclass(frozen=True)
class Work:
    """One reconcile of one server: what was seen, what shall be, and what may be touched."""

    seen: Seen
    server: Server
    read: Reader
    out: Outside

    @property
    def settled(self) -> bool:
        """Whether the server was Ready before; what is not there then is no longer merely on its way."""
        return bool(self.seen.status.get("readyReplicas"))

    async def ensure(self, desired: Object, *, data: bool = False) -> Object:
        """Makes one object what it should be; returns it as it is then."""
        live = self.seen.get(kinds.of(desired), desired["metadata"]["name"])
        written = await ensure(self.out.cluster, desired, live, self.seen.resource, data=data)
        return written or live or desired


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """A step's answer. `value` is what later steps need, None where there is nothing to go on with.

    `again` asks for another look after so many seconds; None: an event, or the next resync, will do.
    """

    condition: Condition
    value: T | None = None
    again: float | None = None


Step = Callable[Concatenate[Work, P], Coroutine[Any, Any, Outcome[T]]]


def step(kind: ConditionType) -> Callable[[Step[P, T]], Step[P, T]]:
    """Turns what a step raises into its condition. What is no fault of the world goes on up."""

    def wrap(run: Step[P, T]) -> Step[P, T]:
        @wraps(run)
        async def wrapped(work: Work, /, *args: P.args, **kwargs: P.kwargs) -> Outcome[T]:
            try:
                return await run(work, *args, **kwargs)
            except Fault as fault:
                again = SOON if isinstance(fault, NotReady) else MENDED
                return Outcome(not_ready(kind, fault.reason, fault.message), again=again)
            except NamespaceTerminating:
                raise
            except QuotaExceeded as error:
                what = str(error).partition(": 403")[0].partition(" ")[2]
                quota = admission_errors.of_quota(what, work.server.owner.namespace, str(error))
                return Outcome(not_ready(kind, quota.reason, quota.message))
            except (Invalid, Forbidden) as error:
                said = f"The API server refuses: {_closed(error)} Mend what it names; it is tried again every minute."
                return Outcome(not_ready(kind, Reason.OPERATION_REFUSED, said))

        return wrapped

    return wrap


def _closed(error: Exception) -> str:
    return f"{str(error).rstrip('.')}."


def waits(kind: ConditionType, for_what: str) -> Condition:
    """A part that can't say anything before another one is ready."""
    return Condition(kind, State.UNKNOWN, Reason.WAITING_FOR_DEPENDENCY, f"Waits for {for_what}.")


def suspended(kind: ConditionType) -> Condition:
    """A part that is down because its owner wants it so."""
    return not_ready(kind, Reason.SUSPENDED, "Suspended by spec.suspend; set it to false to start again.")
