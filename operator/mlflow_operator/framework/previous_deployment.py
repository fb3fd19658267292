"""The servers of the version before, while another one is asked for: kept as they were made, stopped, started again."""

from dataclasses import dataclass, replace
from typing import Any

from mlflow_operator.framework.step import Outcome, Work
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import availability
from mlflow_operator.model.server import Server
from mlflow_operator.status.conditions import ConditionType, Reason, not_ready

_TYPE = ConditionType.SERVER
_REPLICAS = "/spec/replicas"


@dataclass(frozen=True)
class Serving:
    """What the Deployment says. `version` is what its pods are to run; None where that was not touched now."""

    deployment: Object | None
    version: str | None


async def keep(work: Work, live: Object, inputs: str) -> Outcome[Serving]:
    """They serve on by the very manifest that they were made from: what else the spec asks for comes with the new
    version. Only their number follows it, and a value that they read elsewhere still rolls them: a password that was
    changed would lock them out."""
    steps = []
    if live["spec"].get("replicas") != work.server.replicas:
        steps.append(_put(_REPLICAS, work.server.replicas))
    if (live["spec"]["template"]["metadata"].get("annotations") or {}).get(labels.INPUTS) != inputs:
        steps.append(_put(f"/spec/template/metadata/annotations/{_escaped(labels.INPUTS)}", inputs))
    live = await _patched(work, live, steps)
    return Outcome(availability.of(live, work.seen.of(kinds.POD, labels.SERVER_POD)), Serving(live, None))


async def stop(work: Work, live: Object | None) -> Outcome[Serving]:
    """They end, each when its requests are answered. When that was is noted in the same write."""
    if live and live["spec"].get("replicas"):
        when = _put(f"/metadata/annotations/{_escaped(labels.STOPPED)}", work.out.now())
        live = await _patched(work, live, [_put(_REPLICAS, 0), when])
    said = "The servers are stopped while the tables move."
    return Outcome(not_ready(_TYPE, Reason.PROGRESSING, said), Serving(live, None))


async def rest(work: Work, live: Object) -> Object:
    """They end, by their owner's will; what they are made from stays."""
    return await _patched(work, live, [_put(_REPLICAS, 0)] if live["spec"].get("replicas") else [])


def server(work: Work) -> Server:
    """The server as the spec asks for it, but of the version and image that are in force."""
    version = str(work.seen.status.get("version") or work.server.version)
    image = str(work.seen.status["image"])
    official = image == work.out.images.server(version)
    return replace(work.server, version=version, image=image, official=official)


async def _patched(work: Work, live: Object, steps: list[Object]) -> Object:
    if not steps:
        return live
    meta = live["metadata"]
    return await work.out.cluster.json_patch(kinds.DEPLOYMENT, meta["namespace"], meta["name"], steps)


def _put(path: str, value: Any) -> Object:
    # adds a member, or replaces the one that is there
    return {"op": "add", "path": path, "value": value}


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
