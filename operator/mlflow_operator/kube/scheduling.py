"""Why the scheduler finds no node for a pod: which resource is short, and how much of it the pod asks for."""

import re

from mlflow_operator.kube.objects import Object
from mlflow_operator.status import message_text

UNBOUND = "unbound immediate PersistentVolumeClaims"
"""What the scheduler says of a pod that can't be placed before its volume is made."""

_COUNT = re.compile(r"^\d+ (?:node\(s\) )?")
_SHORT = re.compile(r"^Insufficient (\S+)$")


def obstacles(said: str) -> list[str]:
    """The scheduler's reasons, each once and in order, without how many nodes each of them holds for.

    For these numbers move with each node that comes or goes, and what it tried in the end (preemption) helps nobody.
    """
    _, counted, reasons = said.partition(" nodes are available: ")
    if not counted:
        return [message_text.as_sentence(said).rstrip(".")]
    listed = reasons.partition(". ")[0].rstrip(".").split(", ")
    return sorted({_COUNT.sub("", reason.strip()) for reason in listed if reason.strip()})


def sentence(pod: Object, said: str) -> str:
    """All obstacles in words; where a resource is short, with what the pod asks for."""
    return ", ".join(_with_demand(pod, obstacle) for obstacle in obstacles(said))


def _with_demand(pod: Object, obstacle: str) -> str:
    short = _SHORT.match(obstacle)
    asked = _asked(pod, short[1]) if short else ""
    return f"{obstacle} (it asks for {asked})" if asked else obstacle


def _asked(pod: Object, resource: str) -> str:
    containers = (pod.get("spec") or {}).get("containers") or ()
    each = (((c.get("resources") or {}).get("requests") or {}).get(resource) for c in containers)
    return " + ".join(str(request) for request in each if request)
