"""Errors for objects and pods that the API server rejects: a ResourceQuota is exceeded, or an admission policy forbids
them."""

import re

from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_MISSING_AMOUNT = "failed quota"
"""A ResourceQuota rejects pods without an amount that it limits."""

_LIMIT_RANGE = re.compile(r"(maximum|minimum) \S+ usage per |max limit to request ratio per ")
"""A LimitRange rejects the resources of a container or pod."""

_USED_AMOUNT = re.compile(r", used: \S+(?=, |$)")


def exceeds_quota(message: str) -> bool:
    """Whether a ResourceQuota caused the rejection."""
    return "exceeded quota" in message


def quota_error(subject: str, namespace: str, message: str, resource_fields: str = "") -> ConfigurationError:
    """Error for an object or pod (`subject`) that exceeds a ResourceQuota.

    `resource_fields` names the fields that decide how much of the quota the subject takes. The message leaves out the
    used amount, because it changes with every other pod of the namespace.
    """
    lower = f", or lower {resource_fields}" if resource_fields else ""
    return ConfigurationError(
        Reason.QUOTA_EXCEEDED,
        f"The namespace's ResourceQuota does not allow {subject}: "
        f"{_without_pod_name(_USED_AMOUNT.sub('', message))} Raise the quota{lower}. To see its usage, run: "
        f"kubectl describe quota -n {namespace}",
    )


def pod_error(subject: str, namespace: str, message: str, resource_fields: str) -> ConfigurationError:
    """Error for a controller that cannot create its pod.

    `subject` is what the pod belongs to ("the server"), `message` is the API server's response to the controller, and
    `resource_fields` names the fields that decide how much of a quota the pod takes.
    """
    if exceeds_quota(message):
        return quota_error(f"the pod of {subject}", namespace, message, resource_fields)
    missing = _MISSING_AMOUNT in message
    if resource_fields and (missing or _LIMIT_RANGE.search(message)):
        return ConfigurationError(
            Reason.QUOTA_EXCEEDED if missing else Reason.OPERATION_REFUSED,
            f"The ResourceQuota or LimitRange of the namespace rejects the pod of {subject}: "
            f"{_without_pod_name(message)} Set {resource_fields} accordingly. To see the limits, run: "
            f"kubectl describe quota,limitrange -n {namespace}",
        )
    return ConfigurationError(
        Reason.OPERATION_REFUSED,
        f"The API server rejects the pod of {subject}: {_without_pod_name(message)} Fix the reported cause.",
    )


def _without_pod_name(message: str) -> str:
    """Return the reason without the name of the rejected pod, which differs with each attempt."""
    return message_text.as_sentence(message.partition(" is forbidden: ")[2] or message)
