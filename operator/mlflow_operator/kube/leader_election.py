"""Who of several operators works: the holder of a Lease.

The rules are those of Kubernetes' own components. A candidate never trusts another's clock: it takes the
Lease over when it has itself watched it unchanged for the whole lease duration. The holder stops earlier, as
soon as it could not renew for the renew deadline, counted from when it asked, not from when it was answered.
Every write carries the resourceVersion that was read, so of two that try at once one is refused.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.errors import ClusterError
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.metrics import Metrics

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LeaseSettings:
    """In seconds. The defaults are client-go's.

    `lease`: how long a silent holder is waited for. `deadline`: after how long without renewal the holder
    gives up; it must be well below `lease`, for the work takes time to stop. `retry`: between two tries.
    `call`: for one request, so that a connection that hangs leaves time for another try.
    """

    lease: float = 15.0
    deadline: float = 10.0
    retry: float = 2.0
    call: float = 3.0

    def __post_init__(self) -> None:
        if not self.lease > self.deadline > self.retry + self.call:
            raise ValueError("lease must be above deadline, and deadline above retry and call together")


class LeaseLost(Exception):  # noqa: N818
    """Another may be leading already. The process must end now, without finishing anything."""


class LeaderElector:
    """One candidate. `identity` must be unlike any other's, that of its own past included.

    `clock` is monotonic, in seconds; absent: the event loop's.
    """

    def __init__(  # noqa: PLR0913 - what it is called, what it speaks to, and two things that tests replace
        self,
        cluster: KubernetesClient,
        metrics: Metrics,
        *,
        namespace: str,
        name: str,
        identity: str,
        times: LeaseSettings | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._times = times or LeaseSettings()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._observed: Object = {}
        self._observed_at = 0.0
        self._renewed = float("-inf")
        self._said = ""

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Wait for the lease, then do `work` for as long as it is held.

        Ends as `work` ends. Cancelled, it cancels `work`, waits for it, renewing all the while, and then
        gives the lease back, so that the next one need not wait. Raises LeaseLost after cancelling `work`,
        and without waiting for it any longer than until another may lead.
        """
        await self._acquire()
        self._metrics.leader.set(1)
        logger.info("became the leader, as %s", self._identity)
        renewing = asyncio.create_task(self._keep(), name="renew the lease")
        working = asyncio.create_task(work(), name="lead")
        try:
            await asyncio.wait({renewing, working}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                await self._stop(working, renewing)
            finally:
                self._metrics.leader.set(0)
        if not working.cancelled():
            await working

    def leads(self) -> bool:
        """Whether the lease is surely held at this moment."""
        return self._left() > 0

    def expires(self) -> float:
        """Monotonic time from which another process may lead; infinity if this one does not. Safe in any thread."""
        renewed = self._renewed  # read once: the event loop may give the lease back meanwhile
        return renewed + self._times.lease if renewed > float("-inf") else float("inf")

    async def _acquire(self) -> None:
        try:
            while True:
                if await self._try_in_time(self._times.call):
                    return
                # Not in step with the others, or two that start together meet for ever.
                await asyncio.sleep(self._times.retry * random.uniform(1, 1.2))  # noqa: S311
        except asyncio.CancelledError:
            # The very last try may have got it, unheard.
            await self._release()
            raise

    async def _keep(self) -> None:
        """Renew for ever. LeaseLost: it could not be, in time, or somebody else holds it."""
        while True:
            await asyncio.sleep(max(min(self._times.retry, self._left()), 0.0))
            if self._left() > 0:
                await self._try_in_time(min(self._times.call, self._left()))
            holder = self._observed.get("holderIdentity")
            if holder and holder != self._identity:
                raise LeaseLost(f"{holder} has taken the lease {self._namespace}/{self._name}")
            if self._left() <= 0:
                raise LeaseLost(
                    f"the lease {self._namespace}/{self._name} was not renewed for {self._times.deadline:g} s"
                )

    def _left(self) -> float:
        """Seconds for which the lease is surely held yet."""
        return self._renewed + self._times.deadline - self._clock()

    async def _stop(self, working: asyncio.Task[None], renewing: asyncio.Task[None]) -> None:
        working.cancel()
        await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        if renewing.done():
            left = self._renewed + self._times.lease - self._clock()
            await asyncio.wait({working}, timeout=max(left, 0.0))
            logger.warning("stops working: %s", renewing.exception())
            await renewing
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError, LeaseLost):
            await renewing
        await self._release()

    async def _try_in_time(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                return await self._try()
        except (ClusterError, TimeoutError) as error:
            self._say(f"the lease could not be read or written: {_why(error)}", logging.WARNING)
            return False

    async def _try(self) -> bool:
        """Take the lease if it is free, renew it if it is ours. False: somebody else has it."""
        asked = self._clock()
        found = await self._cluster.get(kinds.LEASE, self._namespace, self._name)
        if found is None:
            written = await self._cluster.create(self._lease(self._held({}), None))
            self._mine(written, asked)
            return True
        spec: Object = found.get("spec") or {}
        if spec != self._observed:
            self._observed, self._observed_at = spec, self._clock()
        holder = spec.get("holderIdentity")
        lasts = float(spec.get("leaseDurationSeconds") or self._times.lease)
        if holder and holder != self._identity and self._clock() < self._observed_at + lasts:
            self._say(f"stands by: {holder} leads")
            return False
        asked = self._clock()
        written = await self._cluster.replace(self._lease(self._held(spec), found))
        self._mine(written, asked)
        return True

    def _mine(self, written: Object, asked: float) -> None:
        # From when we asked: the others may have seen the new lease that early.
        self._renewed = asked
        self._observed, self._observed_at = written["spec"], self._clock()
        self._said = ""

    def _held(self, before: Object) -> Object:
        now = _timestamp()
        ours = before.get("holderIdentity") == self._identity
        transitions = int(before.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._times.lease),
            "acquireTime": before.get("acquireTime") or now if ours else now,
            "renewTime": now,
            "leaseTransitions": transitions if ours or not before else transitions + 1,
        }

    def _lease(self, spec: Object, before: Object | None) -> Object:
        metadata: Object = {"name": self._name, "namespace": self._namespace}
        if before is None:
            metadata["labels"] = {labels.MANAGED_BY: labels.OPERATOR}
        else:
            metadata = {key: value for key, value in before["metadata"].items() if key != "managedFields"}
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": kinds.LEASE.kind,
            "metadata": metadata,
            "spec": spec,
        }

    async def _release(self) -> None:
        """Give the lease back. If that fails, the others wait for it to expire: no harm."""
        self._renewed = float("-inf")
        try:
            async with asyncio.timeout(self._times.call):
                found = await self._cluster.get(kinds.LEASE, self._namespace, self._name)
                spec: Object = (found or {}).get("spec") or {}
                if found is None or spec.get("holderIdentity") != self._identity:
                    return
                # As client-go leaves it: nobody's, and short, for those who look at the duration alone.
                kept = {key: value for key, value in spec.items() if key != "holderIdentity"}
                now = {"leaseDurationSeconds": 1, "renewTime": _timestamp()}
                await self._cluster.replace(self._lease({**kept, **now}, found))
        except (ClusterError, TimeoutError) as error:
            logger.warning("the lease could not be given back: %s", _why(error))
        else:
            logger.info("gave the lease back")

    def _say(self, sentence: str, level: int = logging.INFO) -> None:
        if sentence != self._said:
            self._said = sentence
            logger.log(level, "%s", sentence)


def _why(error: Exception) -> str:
    return str(error) or "no answer in time"


def _timestamp() -> str:
    # For people only; nobody decides by it.
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
