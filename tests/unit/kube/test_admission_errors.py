"""Errors for rejected pods and objects contain the cause and the remedy, and nothing that changes by itself."""

import pytest

from mlflow_operator.kube.admission_errors import pod_error, quota_error
from mlflow_operator.status.conditions import Reason

QUOTA = (
    'create Pod a-0 in StatefulSet a failed error: pods "a-0" is forbidden: exceeded quota: team, requested: '
    "limits.memory=1Gi,pods=1, used: limits.memory={used},pods=3, limited: limits.memory=4Gi,pods=3"
)


def test_quota_error_contains_request_and_limit() -> None:
    """It also names the fields that decide the request."""
    error = pod_error("the database", "team", QUOTA.format(used="3Gi"), "spec.database.embedded.resources")
    assert error.reason is Reason.QUOTA_EXCEEDED
    assert "does not allow the pod of the database: exceeded quota: team" in error.message
    assert "requested: limits.memory=1Gi,pods=1, limited: limits.memory=4Gi,pods=3." in error.message
    assert "lower spec.database.embedded.resources" in error.message
    assert "kubectl describe quota -n team" in error.message


def test_quota_error_does_not_depend_on_used_amount() -> None:
    """Otherwise every created or deleted pod of the namespace would cause an Event for this server."""
    messages = [quota_error("it", "team", QUOTA.format(used=used)).message for used in ("3Gi", "3584Mi")]
    assert messages[0] == messages[1]


def test_rejection_is_quoted_without_pod_name() -> None:
    """The pod name differs with each attempt."""
    errors = [
        pod_error(
            "the server", "team", f'pods "a-{pod}" is forbidden: violates PodSecurity "restricted"', "x"
        )
        for pod in ("1", "2")
    ]
    assert errors[0].message == errors[1].message
    assert errors[0].reason is Reason.OPERATION_REFUSED
    assert 'violates PodSecurity "restricted".' in errors[0].message


@pytest.mark.parametrize(
    ("cause", "reason"),
    [
        ("failed quota: compute: must specify limits.cpu for: migrate", Reason.QUOTA_EXCEEDED),
        ("maximum memory usage per Container is 512Mi, but limit is 1Gi", Reason.OPERATION_REFUSED),
        ("minimum cpu usage per Container is 100m, but request is 50m", Reason.OPERATION_REFUSED),
        (
            "memory max limit to request ratio per Container is 2, but provided ratio is 4",
            Reason.OPERATION_REFUSED,
        ),
    ],
)
def test_error_of_quota_or_limit_range_names_the_resources(cause: str, reason: Reason) -> None:
    """The namespace's limits usually cannot be changed by the owner of the server, but the resources can."""
    field = "spec.podTemplate.components[Migration].resources"
    error = pod_error("the migration", "team", f'pods "a-migrate-x" is forbidden: {cause}', field)
    assert error.reason is reason
    assert f"{cause}." in error.message
    assert f"Set {field}" in error.message
