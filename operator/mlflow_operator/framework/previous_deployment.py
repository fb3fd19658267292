"""The servers of the version before, while another one is asked for: kept as they were made, stopped, started again."""

from dataclasses import dataclass, replace
from typing import Any

from mlflow_operator.framework.step import ReconcileContext, Result
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import availability
from mlflow_operator.model.server import Server
from mlflow_operator.status.conditions import ConditionType, Reason, false_condition

_TYPE = ConditionType.SERVER
_REPLICAS = "/spec/replicas"


@dataclass(frozen=True)
class RunningServer:
    """What the Deployment says. `version` is what its pods are to run; None where that was not touched now."""

    deployment: Object | None
    version: str | None


async def preserve(context: ReconcileContext, live: Object, inputs: str) -> Result[RunningServer]:
    """They serve on by the very manifest that they were made from: what else the spec asks for comes with the new
    version. Only their number follows it, and a value that they read elsewhere still rolls them: a password that was
    changed would lock them out."""
    steps = []
    if live["spec"].get("replicas") != context.server.replicas:
        steps.append(_put(_REPLICAS, context.server.replicas))
    if (live["spec"]["template"]["metadata"].get("annotations") or {}).get(labels.INPUTS) != inputs:
        steps.append(_put(f"/spec/template/metadata/annotations/{_escaped(labels.INPUTS)}", inputs))
    live = await _patched(context, live, steps)
    return Result(
        availability.condition(live, context.observed.of(kinds.POD, labels.SERVER_POD)),
        RunningServer(live, None),
    )


async def stop(context: ReconcileContext, live: Object | None) -> Result[RunningServer]:
    """They end, each when its requests are answered. When that was is noted in the same write."""
    if live and live["spec"].get("replicas"):
        when = _put(f"/metadata/annotations/{_escaped(labels.STOPPED)}", context.deps.now())
        live = await _patched(context, live, [_put(_REPLICAS, 0), when])
    said = "The servers are stopped while the tables move."
    return Result(false_condition(_TYPE, Reason.PROGRESSING, said), RunningServer(live, None))


async def scale_to_zero(context: ReconcileContext, live: Object) -> Object:
    """They end, by their owner's will; what they are made from stays."""
    return await _patched(context, live, [_put(_REPLICAS, 0)] if live["spec"].get("replicas") else [])


def server(context: ReconcileContext) -> Server:
    """The server as the spec asks for it, but of the version and image that are in force."""
    version = str(context.observed.status.get("version") or context.server.version)
    image = str(context.observed.status["image"])
    official = image == context.deps.images.server(version)
    return replace(context.server, version=version, image=image, is_default_image=official)


async def _patched(context: ReconcileContext, live: Object, steps: list[Object]) -> Object:
    if not steps:
        return live
    meta = live["metadata"]
    return await context.deps.cluster.json_patch(kinds.DEPLOYMENT, meta["namespace"], meta["name"], steps)


def _put(path: str, value: Any) -> Object:
    # adds a member, or replaces the one that is there
    return {"op": "add", "path": path, "value": value}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
