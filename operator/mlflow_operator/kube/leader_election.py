"""Leader election with a Lease: only the holder of the Lease reconciles.

The rules are those of client-go. A candidate never trusts the clock of another process: it acquires the Lease of
another holder only after it has observed the Lease unchanged for the whole lease duration. The holder stops earlier:
when it could not renew the Lease within the renew deadline, measured from the start of the last successful request, not
from its response. Every write carries the resourceVersion that was read, so the API server rejects one of two
concurrent writes.
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
    """Times of the leader election. The defaults are those of client-go.

    `lease_duration_seconds`: how long candidates wait for a holder that does not renew. `renew_deadline_seconds`: the
    holder stops after this time without a renewal; it must be well below the lease duration, because the work takes
    time to stop. `retry_period_seconds`: delay between attempts. `request_timeout_seconds`: limit for one request, so
    that a hanging connection leaves time for another attempt.
    """

    lease_duration_seconds: float = 15.0
    renew_deadline_seconds: float = 10.0
    retry_period_seconds: float = 2.0
    request_timeout_seconds: float = 3.0

    def __post_init__(self) -> None:
        if (
            not self.lease_duration_seconds
            > self.renew_deadline_seconds
            > self.retry_period_seconds + self.request_timeout_seconds
        ):
            raise ValueError(
                "the lease duration must exceed the renew deadline, and the renew deadline must exceed the sum of the "
                "retry period and the request timeout"
            )


class LeaseLost(Exception):  # noqa: N818
    """Another process may already be the leader. This process must exit now, without finishing its work."""


class LeaderElector:
    """Candidate in a leader election.

    `identity` must differ from that of any other process, including previous runs of this one. `clock` is monotonic, in
    seconds, and defaults to the clock of the event loop.
    """

    def __init__(  # noqa: PLR0913 - its dependencies and names, and two parameters that only tests set
        self,
        cluster: KubernetesClient,
        metrics: Metrics,
        *,
        namespace: str,
        name: str,
        identity: str,
        settings: LeaseSettings | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._cluster = cluster
        self._metrics = metrics
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._settings = settings or LeaseSettings()
        self._clock = clock or (lambda: asyncio.get_running_loop().time())
        self._observed: Object = {}
        self._observed_at = 0.0
        self._renewed_at = float("-inf")
        self._last_message = ""

    async def run(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Acquire the lease, then run `work` while the lease is held.

        Returns or raises when `work` does. When cancelled, it cancels `work`, keeps renewing the lease until `work` has
        ended, and then releases the lease, so that the next leader need not wait. When the lease is lost, it cancels
        `work`, waits for it at most until another process may lead, and raises LeaseLost.
        """
        await self._acquire()
        self._metrics.leader.set(1)
        logger.info("became the leader as %s", self._identity)
        renewal = asyncio.create_task(self._renew_until_lost(), name="renew the lease")
        worker = asyncio.create_task(work(), name="lead")
        try:
            await asyncio.wait({renewal, worker}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            try:
                await self._stop(worker, renewal)
            finally:
                self._metrics.leader.set(0)
        if not worker.cancelled():
            await worker

    def is_leader(self) -> bool:
        """Whether this process certainly holds the lease at this moment."""
        return self._remaining_seconds() > 0

    def expires_at(self) -> float:
        """Return the monotonic time from which another process may lead; infinity if this one does not. Thread-safe."""
        renewed_at = self._renewed_at  # read once: the event loop may release the lease in the meantime
        return (
            renewed_at + self._settings.lease_duration_seconds if renewed_at > float("-inf") else float("inf")
        )

    async def _acquire(self) -> None:
        try:
            while True:
                if await self._try_with_timeout(self._settings.request_timeout_seconds):
                    return
                # Jitter: otherwise candidates that start together collide at every attempt.
                await asyncio.sleep(self._settings.retry_period_seconds * random.uniform(1, 1.2))  # noqa: S311
        except asyncio.CancelledError:
            # The last attempt may have acquired the lease although its response was not received.
            await self._release()
            raise

    async def _renew_until_lost(self) -> None:
        """Renew the lease forever. Raises LeaseLost if the renew deadline passes or another process holds the lease."""
        while True:
            await asyncio.sleep(max(min(self._settings.retry_period_seconds, self._remaining_seconds()), 0.0))
            if self._remaining_seconds() > 0:
                await self._try_with_timeout(
                    min(self._settings.request_timeout_seconds, self._remaining_seconds())
                )
            holder = self._observed.get("holderIdentity")
            if holder and holder != self._identity:
                raise LeaseLost(f"{holder} has acquired the lease {self._namespace}/{self._name}")
            if self._remaining_seconds() <= 0:
                raise LeaseLost(
                    f"the lease {self._namespace}/{self._name} was not renewed within "
                    f"{self._settings.renew_deadline_seconds:g} s"
                )

    def _remaining_seconds(self) -> float:
        """Return the seconds for which this process still certainly holds the lease."""
        return self._renewed_at + self._settings.renew_deadline_seconds - self._clock()

    async def _stop(self, worker: asyncio.Task[None], renewal: asyncio.Task[None]) -> None:
        worker.cancel()
        await asyncio.wait({worker, renewal}, return_when=asyncio.FIRST_COMPLETED)
        if renewal.done():
            remaining_seconds = self._renewed_at + self._settings.lease_duration_seconds - self._clock()
            await asyncio.wait({worker}, timeout=max(remaining_seconds, 0.0))
            logger.warning("leader election lost: %s", renewal.exception())
            await renewal
        renewal.cancel()
        with contextlib.suppress(asyncio.CancelledError, LeaseLost):
            await renewal
        await self._release()

    async def _try_with_timeout(self, timeout_seconds: float) -> bool:
        try:
            async with asyncio.timeout(timeout_seconds):
                return await self._try_acquire_or_renew()
        except (ClusterError, TimeoutError) as error:
            self._log_once(f"cannot read or write the lease: {_error_text(error)}", logging.WARNING)
            return False

    async def _try_acquire_or_renew(self) -> bool:
        """Acquire the lease if it is free, or renew it if this process holds it. Returns False if another holds it."""
        requested_at = self._clock()
        lease = await self._cluster.get(kinds.LEASE, self._namespace, self._name)
        if lease is None:
            updated = await self._cluster.create(self._lease_object(self._lease_spec({}), None))
            self._record_renewal(updated, requested_at)
            return True
        spec: Object = lease.get("spec") or {}
        if spec != self._observed:
            self._observed, self._observed_at = spec, self._clock()
        holder = spec.get("holderIdentity")
        duration_seconds = float(spec.get("leaseDurationSeconds") or self._settings.lease_duration_seconds)
        if holder and holder != self._identity and self._clock() < self._observed_at + duration_seconds:
            self._log_once(f"standing by: {holder} is the leader")
            return False
        requested_at = self._clock()
        updated = await self._cluster.replace(self._lease_object(self._lease_spec(spec), lease))
        self._record_renewal(updated, requested_at)
        return True

    def _record_renewal(self, lease: Object, requested_at: float) -> None:
        # From the start of the request: other candidates may have observed the new lease that early.
        self._renewed_at = requested_at
        self._observed, self._observed_at = lease["spec"], self._clock()
        self._last_message = ""

    def _lease_spec(self, previous: Object) -> Object:
        now = _timestamp()
        is_holder = previous.get("holderIdentity") == self._identity
        transitions = int(previous.get("leaseTransitions") or 0)
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._settings.lease_duration_seconds),
            "acquireTime": previous.get("acquireTime") or now if is_holder else now,
            "renewTime": now,
            "leaseTransitions": transitions if is_holder or not previous else transitions + 1,
        }

    def _lease_object(self, spec: Object, previous: Object | None) -> Object:
        metadata: Object = {"name": self._name, "namespace": self._namespace}
        if previous is None:
            metadata["labels"] = {labels.MANAGED_BY: labels.OPERATOR}
        else:
            metadata = {key: value for key, value in previous["metadata"].items() if key != "managedFields"}
        return {
            "apiVersion": kinds.LEASE.api_version,
            "kind": kinds.LEASE.kind,
            "metadata": metadata,
            "spec": spec,
        }

    async def _release(self) -> None:
        """Release the lease. If this fails, the other candidates wait until it expires."""
        self._renewed_at = float("-inf")
        try:
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                lease = await self._cluster.get(kinds.LEASE, self._namespace, self._name)
                spec: Object = (lease or {}).get("spec") or {}
                if lease is None or spec.get("holderIdentity") != self._identity:
                    return
                # As in client-go: without a holder, and with a short duration for clients that check only the duration.
                without_holder = {key: value for key, value in spec.items() if key != "holderIdentity"}
                expired = {"leaseDurationSeconds": 1, "renewTime": _timestamp()}
                await self._cluster.replace(self._lease_object({**without_holder, **expired}, lease))
        except (ClusterError, TimeoutError) as error:
            logger.warning("cannot release the lease: %s", _error_text(error))
        else:
            logger.info("released the lease")

    def _log_once(self, message: str, level: int = logging.INFO) -> None:
        if message != self._last_message:
            self._last_message = message
            logger.log(level, "%s", message)


def _error_text(error: Exception) -> str:
    return str(error) or "no response in time"


def _timestamp() -> str:
    # Informational only: no candidate compares it with its own clock.
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
