"""The result of a reconcile, for the work queue."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReconcileResult:
    """Result of a reconcile.

    `ready`: status of the Ready condition; None if there is nothing to reconcile. `requeue_after`: seconds until the
    next reconcile; None if a watch event or the resync is early enough. `platforms`: names of the platforms that a
    server uses or waits for, and whose changes therefore concern it.
    """

    ready: str | None
    requeue_after: float | None = None
    platforms: frozenset[str] = frozenset()
