"""What Kubernetes' own Events tell of an object that is not getting on: the only place where some controllers say why.

Events are kept for an hour, so an old fault may well be listed long after it was mended. Callers ask only about objects
that are stuck now, and here the newest of what speaks of the same matter decides.
"""

from collections.abc import Iterable
from datetime import datetime

from mlflow_operator.kube.objects import Object

_LASTING_SECONDS = 30
"""For how long something has to be tried in vain before it counts: nearly every volume is waited for a little."""


def pod_creation_failure(events: Iterable[Object]) -> str | None:
    """Why a controller could not make its pod the last time it tried; None if it could, or has not tried yet."""
    last = _newest(events, ("FailedCreate", "SuccessfulCreate"))
    return str(last.get("message") or "") if last and last["reason"] == "FailedCreate" else None


def provisioning_failure(events: Iterable[Object]) -> str | None:
    """Why a claim gets no volume; None where it is on its way."""
    known = [*events]
    # to wait for a pod takes a class that exists: whatever failed before is over
    last = _newest(
        known, ("ProvisioningFailed", "FailedBinding", "WaitForFirstConsumer", "WaitForPodScheduled")
    )
    if last and last["reason"] in ("ProvisioningFailed", "FailedBinding"):
        return str(last.get("message") or "")
    waits = _newest(known, ("ExternalProvisioning",))
    return str(waits.get("message") or "") if waits and _lasts(waits) else None


def _newest(events: Iterable[Object], reasons: tuple[str, ...]) -> Object | None:
    """Of two in the same second the one whose reason is named last counts as the newer."""
    found = [event for event in events if event.get("reason") in reasons]
    return max(found, key=lambda event: (_time(event), reasons.index(event["reason"])), default=None)


def _time(event: Object) -> str:
    """When it was last seen; RFC 3339 in UTC sorts as text. Newer controllers write another member than older ones."""
    series = event.get("series") or {}
    return str(event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or "")[
        :19
    ]


def _lasts(event: Object) -> bool:
    first = str(event.get("firstTimestamp") or event.get("eventTime") or "")[:19]
    last = _time(event)
    if not first or not last:
        return False
    return (datetime.fromisoformat(last) - datetime.fromisoformat(first)).total_seconds() >= _LASTING_SECONDS
