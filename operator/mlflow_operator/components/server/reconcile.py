"""The server: what it mounts, its Deployment, its Service, and what clients need to know."""

import asyncio
from dataclasses import replace
from enum import Enum

from mlflow_operator.components.credentials.reconcile import Credentials, switch_database
from mlflow_operator.components.migration.reconcile import running_image
from mlflow_operator.components.server import env_from
from mlflow_operator.framework import previous_deployment, stuck_pods
from mlflow_operator.framework.previous_deployment import RunningServer
from mlflow_operator.framework.step import (
    RETRY_USER_ERROR_SECONDS,
    ReconcileContext,
    Result,
    step,
    suspended,
    waiting,
)
from mlflow_operator.kube import kinds, labels, pod_references
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.pod_references import Reference
from mlflow_operator.model import availability, client_config, deployment, plugins, rollout, storage_location
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, State, false_condition
from mlflow_operator.status.errors import ConfigurationError

_TYPE = ConditionType.SERVER


class PodPolicy(Enum):
    """Which pods shall serve."""

    DESIRED = "those that the spec asks for, for the schema fits them"
    PREVIOUS = "those of the version before, which the schema fits"
    UNCHANGED = "whatever there is, for nobody knows what the schema fits"
    STOPPED = "none, for the schema moves"


@step(_TYPE)
async def run(
    context: ReconcileContext, credentials: Credentials | None, pods: PodPolicy, waits_for: str | None = None
) -> Result[RunningServer]:
    """Sees to all that the server is made of, as far as that is safe.

    `waits_for`: what must be ready before the pods are as the spec asks.
    """
    server = context.server
    await context.ensure(client_config.config_map(server))
    await context.ensure(deployment.service(server))
    live = context.observed.get(kinds.DEPLOYMENT, server.names.deployment)
    budget = deployment.disruption_budget(server)
    if budget:
        await context.ensure(budget)
    if server.suspended:
        return await _scale_to_zero(context, live)
    if server.service.type != "ClusterIP" and not context.observed.get(kinds.SERVICE, server.names.service):
        # its node port belongs to the hosts that may ask: pods made before it is known would roll at once
        return Result(
            false_condition(_TYPE, Reason.PROGRESSING, "The Service is being made."),
            RunningServer(live, None),
        )
    if credentials is None:
        return Result(_before_start(live, "the credentials"), RunningServer(live, None))
    return await _run_pods(context, credentials, pods, live, waits_for)


async def _run_pods(
    context: ReconcileContext,
    credentials: Credentials,
    pods: PodPolicy,
    live: Object | None,
    waits_for: str | None,
) -> Result[RunningServer]:
    if pods is PodPolicy.UNCHANGED:
        return Result(_before_start(live, waits_for or "the schema"), RunningServer(live, None))
    if pods is PodPolicy.STOPPED:
        return await previous_deployment.stop(context, live)
    if pods is PodPolicy.PREVIOUS and live:
        return await previous_deployment.preserve(
            context, live, await _inputs(context, credentials.rollout_key, live)
        )
    if pods is PodPolicy.PREVIOUS:
        # somebody deleted them; their manifest went with them, and the spec is all there is to make them from
        return await _serve(replace(context, server=previous_deployment.server(context)), credentials, None)
    await switch_database(context, credentials)
    return await _serve(context, credentials, context.server.version)


async def _serve(
    context: ReconcileContext, credentials: Credentials, version: str | None
) -> Result[RunningServer]:
    if client_config.has_secret(context.server) or context.observed.get(
        kinds.SECRET, context.server.names.client
    ):
        own = credentials.store.service_key
        await context.ensure(
            client_config.secret(context.server, own.id if own else None, own.secret if own else None)
        )
    if plugins.wanted(context.server.artifacts):
        await context.ensure(plugins.config_map(context.server))
    inputs = await _inputs(context, credentials.rollout_key, deployment.deployment(context.server, ""))
    live = await context.ensure(deployment.deployment(context.server, inputs))
    condition = availability.condition(live, context.observed.of(kinds.POD, labels.SERVER_POD))
    failure = availability.refused(live)
    if failure:
        await stuck_pods.request_retry(context, live, failure.get("lastTransitionTime"))
    # a value in a Secret or ConfigMap of the owner's may be what mends it, and no event tells of that
    at_fault = not condition.is_true and condition.reason is not Reason.PROGRESSING
    return Result(condition, RunningServer(live, version), RETRY_USER_ERROR_SECONDS if at_fault else None)


def can_serve_now(context: ReconcileContext, credentials: Credentials | None) -> bool:
    """Whether pods run with this very image on this very database and store: then the schema was right before, and they
    are kept as they should be even while nobody can look at it."""
    live = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    if credentials is None or not live or not live["spec"].get("replicas"):
        return False
    known = context.observed.status.get("database") or {}
    here = storage_location.same_database(known, credentials.connection) and not other_files(context)
    return here and running_image(context) == context.server.image


def other_files(context: ReconcileContext) -> bool:
    """Whether the pods keep artifacts elsewhere than they shall: they stay there until the new place was looked at."""
    live = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    return not storage_location.same_files(live, deployment.deployment(context.server, ""))


async def _scale_to_zero(context: ReconcileContext, live: Object | None) -> Result[RunningServer]:
    """Scales down what runs, as it is. To stop needs nothing: no credentials, no schema, no Secret of the owner's.

    A new image and new values wait until the server is to run again, and are looked at then.
    """
    if live and running_image(context) != context.server.image:
        live = await previous_deployment.scale_to_zero(context, live)
    elif live:
        template = live["spec"]["template"]
        inputs = (template["metadata"].get("annotations") or {}).get(labels.INPUTS, "")
        live = await context.ensure(deployment.deployment(context.server, inputs))
    return Result(suspended(_TYPE), RunningServer(live, None))


def _before_start(live: Object | None, for_what: str) -> Condition:
    if live is None:
        return waiting(_TYPE, for_what)
    return Condition(
        _TYPE,
        State.UNKNOWN,
        Reason.WAITING_FOR_DEPENDENCY,
        f"The server is left as it is and waits for {for_what}.",
    )


async def _inputs(context: ReconcileContext, key: bytes, pods: Object) -> str:
    """The fingerprint of every value that the pods of a Deployment read."""
    pod = pods["spec"]["template"]["spec"]
    await _check_env_from(context, pod["containers"][0])
    found = sorted(pod_references.of_pod(pod), key=lambda r: (r.kind, r.name, r.key or ""))
    values = await asyncio.gather(*(_value(context, reference) for reference in found))
    read = {"/".join(filter(None, (r.kind, r.name, r.key))): v for r, v in zip(found, values, strict=True)}
    return rollout.fingerprint(read, key)


async def _check_env_from(context: ReconcileContext, container: Object) -> None:
    sources = [
        (source, await context.reader.values(reference.resource, reference.name))
        for source in container.get("envFrom") or ()
        for reference in pod_references.of_pod({"containers": [{"envFrom": [source]}]})
    ]
    env_from.check(sources, {variable["name"] for variable in container["env"]})


async def _value(context: ReconcileContext, reference: Reference) -> dict[str, str] | None:
    """What the pods read of the object: all of it, or one key. None where it is not there, and need not be."""
    values = await context.reader.values(reference.resource, reference.name)
    if reference.optional and (values is None or reference.key not in {None, *values}):
        return None
    if values is None:
        raise ConfigurationError(
            Reason.SECRET_NOT_FOUND,
            f'There is no {reference.kind} "{reference.name}" in namespace {context.server.owner.namespace}, and the '
            "server's pods can't start without it. Create it, or take it out of the spec.",
        )
    if reference.key is not None and reference.key not in values:
        raise ConfigurationError(
            Reason.SECRET_KEY_MISSING,
            f'{reference.kind} "{reference.name}" has no key "{reference.key}", and the server\'s pods can\'t start '
            "without it. Add it, or name another key in the spec.",
        )
    return values if reference.key is None else {reference.key: values[reference.key]}
