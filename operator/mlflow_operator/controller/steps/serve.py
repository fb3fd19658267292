"""The server: what it mounts, its Deployment, its Service, and what clients need to know."""

import asyncio
from dataclasses import dataclass, replace

from mlflow_operator.controller.steps.credentials import Credentials
from mlflow_operator.controller.steps.schema import serves_already
from mlflow_operator.controller.steps.step import Outcome, Work, step, suspended, waits
from mlflow_operator.core import client, deployment, diagnosis, kinds, labels, proxied, references, rollout
from mlflow_operator.core.conditions import Condition, ConditionType, Reason, State, not_ready, ready
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.objects import Object
from mlflow_operator.core.references import Reference

_TYPE = ConditionType.SERVER


@dataclass(frozen=True)
class Serving:
    """What the Deployment says. `version` and `image` are what its pods run, None before there are any."""

    deployment: Object | None
    version: str | None


@step(_TYPE)
async def run(work: Work, credentials: Credentials | None, schema_ready: bool) -> Outcome[Serving]:
    """Sees to all that the server is made of, as far as that is safe."""
    server = work.server
    await work.ensure(client.config_map(server))
    await work.ensure(deployment.service(server))
    live = work.seen.get(kinds.DEPLOYMENT, server.names.deployment)
    budget = deployment.disruption_budget(server)
    if budget:
        await work.ensure(budget)
    if server.service.type != "ClusterIP" and not work.seen.get(kinds.SERVICE, server.names.service):
        # its node port belongs to the hosts that may ask: pods made before it is known would roll at once
        return Outcome(
            not_ready(_TYPE, Reason.PROGRESSING, "The Service is being made."), Serving(live, None)
        )
    version: str | None = server.version
    if not (schema_ready or serves_already(work)):
        if not (server.suspended and live):
            return Outcome(_before_start(live), Serving(live, None))
        # scaled down as it is: a new image must wait for its schema
        server = replace(server, image=live["spec"]["template"]["spec"]["containers"][0]["image"])
        version = None
    if credentials is None:
        return Outcome(_before_start(live, "the credentials"), Serving(live, None))
    if server.artifacts.proxied:
        await work.ensure(proxied.config_map(server.owner))
    inputs = await _inputs(work, credentials.rollout_key)
    live = await work.ensure(deployment.deployment(server, inputs))
    return Outcome(_availability(work, live), Serving(live, version))


def _before_start(live: Object | None, for_what: str = "the schema") -> Condition:
    if live is None:
        return waits(_TYPE, for_what)
    return Condition(
        _TYPE,
        State.UNKNOWN,
        Reason.WAITING_FOR_DEPENDENCY,
        f"The server is left as it is and waits for {for_what}.",
    )


async def _inputs(work: Work, key: bytes) -> str:
    """The fingerprint of every value the pods will read."""
    pod = deployment.deployment(work.server, "")["spec"]["template"]["spec"]
    found = sorted(references.of_pod(pod), key=lambda r: (r.kind, r.name, r.key or ""))
    values = await asyncio.gather(*(_value(work, reference) for reference in found))
    return rollout.fingerprint({f"{r.kind}/{r.name}": v for r, v in zip(found, values, strict=True)}, key)


async def _value(work: Work, reference: Reference) -> dict[str, str] | None:
    """All values of the object, also where only one key is read: a change of another then rolls the pods once
    too often, which is harmless and keeps this simple."""
    values = await work.read.values(reference.resource, reference.name)
    if reference.optional:
        return values
    if values is None:
        raise UserMistake(
            Reason.SECRET_NOT_FOUND,
            f'There is no {reference.kind} "{reference.name}" in namespace {work.server.owner.namespace}, and the '
            "server's pods can't start without it. Create it, or take it out of the spec.",
        )
    if reference.key is not None and reference.key not in values:
        raise UserMistake(
            Reason.SECRET_KEY_MISSING,
            f'{reference.kind} "{reference.name}" has no key "{reference.key}", and the server\'s pods can\'t start '
            "without it. Add it, or name another key in the spec.",
        )
    return values


def _availability(work: Work, live: Object) -> Condition:
    if work.server.suspended:
        return suspended(_TYPE)
    status, spec = live.get("status") or {}, live["spec"]
    settled = status.get("observedGeneration") == live["metadata"].get("generation")
    wanted = int(spec.get("replicas") or 0)
    up_to_date = int(status.get("updatedReplicas") or 0) >= wanted
    available = int(status.get("availableReplicas") or 0)
    gone = int(status.get("replicas") or 0) <= wanted
    if settled and up_to_date and gone and available >= wanted:
        return ready(_TYPE, "Every replica answers.")
    for condition in status.get("conditions") or ():
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            quota = "quota" in str(condition.get("message", ""))
            reason = Reason.QUOTA_EXCEEDED if quota else Reason.OPERATION_REFUSED
            return not_ready(_TYPE, reason, f"Pods can't be made: {condition.get('message')}.")
    finding = diagnosis.of_pods(work.seen.of(kinds.POD, labels.SERVER_POD))
    if finding:
        return not_ready(_TYPE, finding.reason, finding.message)
    if available:
        return not_ready(
            _TYPE, Reason.PROGRESSING, "A roll-out is under way; the pods from before it keep serving."
        )
    return not_ready(_TYPE, Reason.PROGRESSING, "The server's pods are starting.")
