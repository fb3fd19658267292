"""Causes are read from the latest Events, and obsolete Events are ignored."""

from mlflow_operator.kube.event_history import pod_creation_failure, provisioning_failure
from mlflow_operator.kube.objects import Object


def event(reason: str, last_second: int, message: str = "no", first_second: int | None = None) -> Object:
    """Return an Event whose last occurrence is at this second of the minute."""
    times = {
        "firstTimestamp": _second(last_second if first_second is None else first_second),
        "lastTimestamp": _second(last_second),
    }
    return {"reason": reason, "message": message, **times}


def _second(number: int) -> str:
    return f"2026-01-01T00:00:{number:02}Z"


def test_latest_creation_failure_is_returned() -> None:
    """There are two failures if a quota was changed and is still too small."""
    events = [event("FailedCreate", 9, "second"), event("FailedCreate", 3, "first"), event("Scheduled", 20)]
    assert pod_creation_failure(events) == "second"


def test_earlier_creation_failure_is_ignored_after_success() -> None:
    """Events are kept for an hour. A pod that was recreated since then must not count as rejected."""
    assert pod_creation_failure([event("FailedCreate", 3), event("SuccessfulCreate", 3)]) is None
    assert pod_creation_failure([event("SuccessfulCreate", 3), event("FailedCreate", 9, "again")]) == "again"
    assert pod_creation_failure([]) is None


def test_provisioning_failure_is_returned() -> None:
    """The StorageClass does not exist, there is no default class, or the provisioner fails."""
    assert (
        provisioning_failure([event("ProvisioningFailed", 1, 'class "x" not found')]) == 'class "x" not found'
    )
    assert provisioning_failure([event("FailedBinding", 1, "no class is set")]) == "no class is set"


def test_failure_is_ignored_once_claim_waits_for_a_pod() -> None:
    """The StorageClass was created later. The claim waits for a pod, but the Event about the missing class remains."""
    assert provisioning_failure([event("ProvisioningFailed", 1), event("WaitForFirstConsumer", 9)]) is None
    assert provisioning_failure([event("WaitForFirstConsumer", 1), event("ProvisioningFailed", 9)]) == "no"


def test_external_provisioning_is_a_failure_only_after_a_delay() -> None:
    """A volume that is not provisioned after a while has no running provisioner."""
    assert provisioning_failure([event("WaitForFirstConsumer", 50, first_second=1)]) is None
    assert provisioning_failure([event("ExternalProvisioning", 5, first_second=1)]) is None
    assert provisioning_failure([event("ExternalProvisioning", 50, "stuck", first_second=1)]) == "stuck"


def test_event_time_of_newer_controllers_is_supported() -> None:
    """Newer controllers set eventTime instead of lastTimestamp."""
    new_event = {
        "reason": "FailedCreate",
        "message": "new",
        "eventTime": "2026-01-01T00:00:30.000000Z",
        "firstTimestamp": None,
        "lastTimestamp": None,
    }
    assert pod_creation_failure([event("FailedCreate", 5, "old"), new_event]) == "new"
