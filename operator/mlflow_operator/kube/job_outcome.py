"""Outcome of a Job: the outcome of the operator's own containers.

An admission webhook may inject containers that never exit, such as the proxy of a service mesh. Kubernetes then never
finishes the Job. Or such a container fails after the operator's own succeeded, and Kubernetes reports that the Job
failed. In these cases the outcome is read from the pod, and recorded in an annotation of the Job, because the pod will
be deleted.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from mlflow_operator.kube import json_patch, labels
from mlflow_operator.kube.objects import Object

_FINISHED = ("Complete", "Failed")
_MAX_MESSAGE_CHARS = 4096


@dataclass(frozen=True)
class Outcome:
    """Outcome of a Job, which ended at `time` (RFC 3339).

    `containers` has the terminated states of the own containers.
    """

    time: str
    containers: Mapping[str, Object]

    @property
    def condition_type(self) -> str:
        """The condition that the Job has without injected containers: `Complete` or `Failed`."""
        failed = any(terminated.get("exitCode") != 0 for terminated in self.containers.values())
        return "Failed" if failed else "Complete"


def component_of(obj: Object) -> str:
    """The component that a Job or a pod belongs to; empty if it has no such label."""
    return str((obj["metadata"].get("labels") or {}).get(labels.COMPONENT, ""))


def own_states(pod: Object) -> dict[str, Object]:
    """The states of the containers of a Job's pod by name, without those of injected containers."""
    names = labels.JOB_CONTAINERS.get(component_of(pod), ())
    statuses = (pod.get("status") or {}).get("containerStatuses") or ()
    return {status["name"]: status.get("state") or {} for status in statuses if status["name"] in names}


def own_containers_ended(pod: Object) -> bool:
    """Whether all own containers of a Job's pod have terminated. False for other pods."""
    names, states = labels.JOB_CONTAINERS.get(component_of(pod), ()), own_states(pod)
    return bool(names) and all((states.get(name) or {}).get("terminated") for name in names)


def recorded(job: Object) -> Outcome | None:
    """The outcome that was recorded in the annotation; None if there is none or if it is invalid."""
    text = (job["metadata"].get("annotations") or {}).get(labels.OUTCOME)
    try:
        value = json.loads(text or "null")
        containers = {str(name): dict(terminated) for name, terminated in value["containers"].items()}
        return Outcome(str(value["time"]), containers)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def to_record(job: Object, pods: Iterable[Object]) -> Outcome | None:
    """The outcome that must be recorded now; None if Kubernetes reports the same, or will do so.

    `pods` are those of the Job.
    """
    if recorded(job) or _condition(job, "Complete"):
        return None
    failed = _condition(job, "Failed")
    for pod in pods:
        if not (own_containers_ended(pod) and _injected_states(pod)):
            continue
        states = own_states(pod)
        containers = {name: _summary(state["terminated"]) for name, state in states.items()}
        time = failed.get("lastTransitionTime") if failed else _latest_end(states)
        outcome = Outcome(str(time or ""), containers)
        succeeded = outcome.condition_type == "Complete"
        unfinished = not failed and not all(state.get("terminated") for state in _injected_states(pod))
        if (failed and succeeded) or (unfinished and (succeeded or not _is_disrupted(pod))):
            return outcome
    return None


def with_outcome(job: Object, outcome: Outcome) -> Object:
    """A copy of the Job with the condition that it has without injected containers."""
    status = job.get("status") or {}
    others = [c for c in status.get("conditions") or () if c["type"] not in _FINISHED]
    condition = {"type": outcome.condition_type, "status": "True", "lastTransitionTime": outcome.time}
    return job | {"status": status | {"conditions": [*others, condition]}}


def patch(job: Object, outcome: Outcome) -> list[Object]:
    """Operations that record the outcome, and delete the pod of an unfinished Job. `job` is as Kubernetes stores it.

    Both in one request, so that no outcome is lost. The Job controller deletes the pods of a suspended Job, and counts
    no failure. Without that, the Job would be a failed one, because the injected container is killed.
    """
    text = json.dumps({"time": outcome.time, "containers": outcome.containers}, sort_keys=True)
    annotations = {**(job["metadata"].get("annotations") or {}), labels.OUTCOME: text}
    operations = [
        json_patch.test("/metadata/uid", job["metadata"]["uid"]),
        json_patch.put("/metadata/annotations", annotations),
    ]
    if not _condition(job, "Failed"):
        operations.append(json_patch.put("/spec/suspend", True))
    return operations


def is_suspended_run(job: Object) -> bool:
    """Whether the Job of a CronJob was suspended because of its outcome. The CronJob does not start another one."""
    owners = job["metadata"].get("ownerReferences") or ()
    by_cronjob = any(owner.get("kind") == "CronJob" for owner in owners)
    return by_cronjob and bool(job["spec"].get("suspend")) and recorded(job) is not None


def _condition(job: Object, condition_type: str) -> Object:
    conditions = (job.get("status") or {}).get("conditions") or ()
    found = (c for c in conditions if c["type"] == condition_type and c["status"] == "True")
    return next(found, {})


def _injected_states(pod: Object) -> list[Object]:
    statuses, own = (pod.get("status") or {}).get("containerStatuses") or (), own_states(pod)
    return [status.get("state") or {} for status in statuses if status["name"] not in own]


def _is_disrupted(pod: Object) -> bool:
    """Whether the pod is being evicted. Its failure does not count: the Job controller creates another pod."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "DisruptionTarget" and c.get("status") == "True" for c in conditions)


def _latest_end(states: Mapping[str, Object]) -> str:
    return max(str(state["terminated"].get("finishedAt") or "") for state in states.values())


def _summary(terminated: Object) -> Object:
    fields = {key: terminated[key] for key in ("exitCode", "reason", "finishedAt") if key in terminated}
    message = str(terminated.get("message") or "")[:_MAX_MESSAGE_CHARS]
    return fields | ({"message": message} if message else {})
