"""Read from a scheduler message why no node can run a pod, and add the pod's requests for each missing resource."""

import re

from mlflow_operator.kube.objects import Object
from mlflow_operator.status import message_text

UNBOUND_CLAIMS = "unbound immediate PersistentVolumeClaims"
"""Part of the scheduler's message for a pod whose PersistentVolumeClaims have no volumes."""

_NODE_COUNT = re.compile(r"^\d+ (?:node\(s\) )?")
_INSUFFICIENT_RESOURCE = re.compile(r"^Insufficient (\S+)$")


def failure_reasons(message: str) -> list[str]:
    """Return the scheduler's reasons, sorted and without duplicates.

    Leaves out the number of nodes for each reason, which changes with every added or removed node, and the result of
    preemption, which does not help the user.
    """
    _, separator, reasons = message.partition(" nodes are available: ")
    if not separator:
        return [message_text.as_sentence(message).rstrip(".")]
    entries = reasons.partition(". ")[0].rstrip(".").split(", ")
    return sorted({_NODE_COUNT.sub("", reason.strip()) for reason in entries if reason.strip()})


def describe(pod: Object, message: str) -> str:
    """Return the scheduler's reasons as text; for an insufficient resource with the amount that the pod requests."""
    return ", ".join(_with_request(pod, reason) for reason in failure_reasons(message))


def _with_request(pod: Object, reason: str) -> str:
    insufficient = _INSUFFICIENT_RESOURCE.match(reason)
    requested = _requested(pod, insufficient[1]) if insufficient else ""
    return f"{reason} (requested: {requested})" if requested else reason


def _requested(pod: Object, resource: str) -> str:
    containers = (pod.get("spec") or {}).get("containers") or ()
    requests = (((c.get("resources") or {}).get("requests") or {}).get(resource) for c in containers)
    return " + ".join(str(request) for request in requests if request)
