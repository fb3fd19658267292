"""Read the cause of a stuck object from its Kubernetes Events, the only place where some controllers report it.

Events are kept for an hour, so an Event may describe a failure that is already fixed. Callers must pass only the Events
of objects that are stuck now; the latest Event on the same subject is used.
"""

from collections.abc import Iterable

from mlflow_operator.kube import timestamps
from mlflow_operator.kube.objects import Object

_MIN_STUCK_SECONDS = 30
"""Seconds of repeated Events before provisioning counts as failed: almost every volume takes a short time."""


def pod_creation_failure(events: Iterable[Object]) -> str | None:
    """Return why the controller's last attempt to create a pod failed; None if it succeeded or there was none."""
    last = _latest(events, ("FailedCreate", "SuccessfulCreate"))
    return str(last.get("message") or "") if last and last["reason"] == "FailedCreate" else None


def provisioning_failure(events: Iterable[Object]) -> str | None:
    """Return why a PersistentVolumeClaim gets no volume; None if the volume is being provisioned."""
    all_events = [*events]
    # The WaitFor* reasons require an existing StorageClass, so earlier failures are obsolete.
    last = _latest(
        all_events, ("ProvisioningFailed", "FailedBinding", "WaitForFirstConsumer", "WaitForPodScheduled")
    )
    if last and last["reason"] in ("ProvisioningFailed", "FailedBinding"):
        return str(last.get("message") or "")
    external = _latest(all_events, ("ExternalProvisioning",))
    return str(external.get("message") or "") if external and _is_stuck(external) else None


def _latest(events: Iterable[Object], reasons: tuple[str, ...]) -> Object | None:
    """Return the latest Event with one of the reasons. Within one second, later entries of `reasons` win."""
    matching = [event for event in events if event.get("reason") in reasons]
    return max(matching, key=lambda event: (_last_seen(event), reasons.index(event["reason"])), default=None)


def _last_seen(event: Object) -> str:
    """Return the last observation of an Event: RFC 3339 in UTC, which sorts as text.

    Older controllers set lastTimestamp, newer ones set series.lastObservedTime or eventTime.
    """
    series = event.get("series") or {}
    return str(event.get("lastTimestamp") or series.get("lastObservedTime") or event.get("eventTime") or "")[
        :19
    ]


def _is_stuck(event: Object) -> bool:
    first = str(event.get("firstTimestamp") or event.get("eventTime") or "")[:19]
    last = _last_seen(event)
    if not first or not last:
        return False
    return timestamps.seconds_between(first, last) >= _MIN_STUCK_SECONDS
