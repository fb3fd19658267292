"""What Kubernetes' Events tell, and what they no longer mean."""

from mlflow_operator.kube.event_history import pod_creation_failure, provisioning_failure
from mlflow_operator.kube.objects import Object


def event(reason: str, at: int, message: str = "no", first: int | None = None) -> Object:
    """One that was seen last at a second of the minute."""
    seen = {"firstTimestamp": _second(at if first is None else first), "lastTimestamp": _second(at)}
    return {"reason": reason, "message": message, **seen}


def _second(number: int) -> str:
    return f"2026-01-01T00:00:{number:02}Z"


def test_the_last_refusal_speaks() -> None:
    """Two of them, when the quota was changed and still is too small."""
    events = [event("FailedCreate", 9, "second"), event("FailedCreate", 3, "first"), event("Scheduled", 20)]
    assert pod_creation_failure(events) == "second"


def test_a_refusal_that_is_over_is_history() -> None:
    """Events stay listed for an hour: a pod that is merely being made anew was not refused."""
    assert pod_creation_failure([event("FailedCreate", 3), event("SuccessfulCreate", 3)]) is None
    assert pod_creation_failure([event("SuccessfulCreate", 3), event("FailedCreate", 9, "again")]) == "again"
    assert pod_creation_failure([]) is None


def test_a_claim_says_what_stops_it() -> None:
    """A class that does not exist, no default class, a provisioner that fails."""
    assert (
        provisioning_failure([event("ProvisioningFailed", 1, 'class "x" not found')]) == 'class "x" not found'
    )
    assert provisioning_failure([event("FailedBinding", 1, "no class is set")]) == "no class is set"


def test_a_class_that_was_made_meanwhile_is_found() -> None:
    """The claim then waits for a pod, and the Event about the missing class stays listed."""
    assert provisioning_failure([event("ProvisioningFailed", 1), event("WaitForFirstConsumer", 9)]) is None
    assert provisioning_failure([event("WaitForFirstConsumer", 1), event("ProvisioningFailed", 9)]) == "no"


def test_a_volume_that_is_being_made_is_no_fault() -> None:
    """Until it has been waited for in vain for a while: then nobody makes it."""
    assert provisioning_failure([event("WaitForFirstConsumer", 50, first=1)]) is None
    assert provisioning_failure([event("ExternalProvisioning", 5, first=1)]) is None
    assert provisioning_failure([event("ExternalProvisioning", 50, "nobody", first=1)]) == "nobody"


def test_events_of_newer_controllers_are_read_too() -> None:
    """They carry other times."""
    newer = {
        "reason": "FailedCreate",
        "message": "new",
        "eventTime": "2026-01-01T00:00:30.000000Z",
        "firstTimestamp": None,
        "lastTimestamp": None,
    }
    assert pod_creation_failure([event("FailedCreate", 5, "old"), newer]) == "new"
