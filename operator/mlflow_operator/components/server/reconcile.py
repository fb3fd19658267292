"""The server: what it mounts, its Deployment, its Service, and what clients need to know."""

import asyncio
from dataclasses import replace
from enum import Enum

from mlflow_operator.components.credentials.reconcile import Credentials, arrive
from mlflow_operator.components.migration.reconcile import running_image
from mlflow_operator.components.server import env_from
from mlflow_operator.framework import previous_deployment, stuck_pods
from mlflow_operator.framework.previous_deployment import Serving
from mlflow_operator.framework.step import MENDED, Outcome, Work, step, suspended, waits
from mlflow_operator.kube import kinds, labels, pod_references
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.pod_references import Reference
from mlflow_operator.model import availability, client_config, deployment, plugins, rollout, storage_location
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, State, not_ready
from mlflow_operator.status.errors import UserMistake

_TYPE = ConditionType.SERVER


class Pods(Enum):
    """Which pods shall serve."""

    AS_ASKED = "those that the spec asks for, for the schema fits them"
    OF_BEFORE = "those of the version before, which the schema fits"
    AS_THEY_ARE = "whatever there is, for nobody knows what the schema fits"
    STOPPED = "none, for the schema moves"


@step(_TYPE)
async def run(
    work: Work, credentials: Credentials | None, pods: Pods, waits_for: str | None = None
) -> Outcome[Serving]:
    """Sees to all that the server is made of, as far as that is safe.

    `waits_for`: what must be ready before the pods are as the spec asks.
    """
    server = work.server
    await work.ensure(client_config.config_map(server))
    await work.ensure(deployment.service(server))
    live = work.seen.get(kinds.DEPLOYMENT, server.names.deployment)
    budget = deployment.disruption_budget(server)
    if budget:
        await work.ensure(budget)
    if server.suspended:
        return await _put_to_rest(work, live)
    if server.service.type != "ClusterIP" and not work.seen.get(kinds.SERVICE, server.names.service):
        # its node port belongs to the hosts that may ask: pods made before it is known would roll at once
        return Outcome(
            not_ready(_TYPE, Reason.PROGRESSING, "The Service is being made."), Serving(live, None)
        )
    if credentials is None:
        return Outcome(_before_start(live, "the credentials"), Serving(live, None))
    return await _run_pods(work, credentials, pods, live, waits_for)


async def _run_pods(
    work: Work, credentials: Credentials, pods: Pods, live: Object | None, waits_for: str | None
) -> Outcome[Serving]:
    if pods is Pods.AS_THEY_ARE:
        return Outcome(_before_start(live, waits_for or "the schema"), Serving(live, None))
    if pods is Pods.STOPPED:
        return await previous_deployment.stop(work, live)
    if pods is Pods.OF_BEFORE and live:
        return await previous_deployment.keep(work, live, await _inputs(work, credentials.rollout_key, live))
    if pods is Pods.OF_BEFORE:
        # somebody deleted them; their manifest went with them, and the spec is all there is to make them from
        return await _serve(replace(work, server=previous_deployment.server(work)), credentials, None)
    await arrive(work, credentials)
    return await _serve(work, credentials, work.server.version)


async def _serve(work: Work, credentials: Credentials, version: str | None) -> Outcome[Serving]:
    if client_config.has_secret(work.server) or work.seen.get(kinds.SECRET, work.server.names.client):
        own = credentials.store.own
        await work.ensure(
            client_config.secret(work.server, own.id if own else None, own.secret if own else None)
        )
    if plugins.wanted(work.server.artifacts):
        await work.ensure(plugins.config_map(work.server))
    inputs = await _inputs(work, credentials.rollout_key, deployment.deployment(work.server, ""))
    live = await work.ensure(deployment.deployment(work.server, inputs))
    condition = availability.of(live, work.seen.of(kinds.POD, labels.SERVER_POD))
    failure = availability.refused(live)
    if failure:
        await stuck_pods.prod(work, live, failure.get("lastTransitionTime"))
    # a value in a Secret or ConfigMap of the owner's may be what mends it, and no event tells of that
    at_fault = not condition.true and condition.reason is not Reason.PROGRESSING
    return Outcome(condition, Serving(live, version), MENDED if at_fault else None)


def serves_already(work: Work, credentials: Credentials | None) -> bool:
    """Whether pods run with this very image on this very database and store: then the schema was right before, and they
    are kept as they should be even while nobody can look at it."""
    live = work.seen.get(kinds.DEPLOYMENT, work.server.names.deployment)
    if credentials is None or not live or not live["spec"].get("replicas"):
        return False
    known = work.seen.status.get("database") or {}
    here = storage_location.same_database(known, credentials.connection) and not other_files(work)
    return here and running_image(work) == work.server.image


def other_files(work: Work) -> bool:
    """Whether the pods keep artifacts elsewhere than they shall: they stay there until the new place was looked at."""
    live = work.seen.get(kinds.DEPLOYMENT, work.server.names.deployment)
    return not storage_location.same_files(live, deployment.deployment(work.server, ""))


async def _put_to_rest(work: Work, live: Object | None) -> Outcome[Serving]:
    """Scales down what runs, as it is. To stop needs nothing: no credentials, no schema, no Secret of the owner's.

    A new image and new values wait until the server is to run again, and are looked at then.
    """
    if live and running_image(work) != work.server.image:
        live = await previous_deployment.rest(work, live)
    elif live:
        template = live["spec"]["template"]
        inputs = (template["metadata"].get("annotations") or {}).get(labels.INPUTS, "")
        live = await work.ensure(deployment.deployment(work.server, inputs))
    return Outcome(suspended(_TYPE), Serving(live, None))


def _before_start(live: Object | None, for_what: str) -> Condition:
    if live is None:
        return waits(_TYPE, for_what)
    return Condition(
        _TYPE,
        State.UNKNOWN,
        Reason.WAITING_FOR_DEPENDENCY,
        f"The server is left as it is and waits for {for_what}.",
    )


async def _inputs(work: Work, key: bytes, pods: Object) -> str:
    """The fingerprint of every value that the pods of a Deployment read."""
    pod = pods["spec"]["template"]["spec"]
    await _check_env_from(work, pod["containers"][0])
    found = sorted(pod_references.of_pod(pod), key=lambda r: (r.kind, r.name, r.key or ""))
    values = await asyncio.gather(*(_value(work, reference) for reference in found))
    read = {"/".join(filter(None, (r.kind, r.name, r.key))): v for r, v in zip(found, values, strict=True)}
    return rollout.fingerprint(read, key)


async def _check_env_from(work: Work, container: Object) -> None:
    sources = [
        (source, await work.read.values(reference.resource, reference.name))
        for source in container.get("envFrom") or ()
        for reference in pod_references.of_pod({"containers": [{"envFrom": [source]}]})
    ]
    env_from.check(sources, {variable["name"] for variable in container["env"]})


async def _value(work: Work, reference: Reference) -> dict[str, str] | None:
    """What the pods read of the object: all of it, or one key. None where it is not there, and need not be."""
    values = await work.read.values(reference.resource, reference.name)
    if reference.optional and (values is None or reference.key not in {None, *values}):
        return None
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
    return values if reference.key is None else {reference.key: values[reference.key]}
