"""Fingerprint of the values that the server's pods read from Secrets and ConfigMaps. A change restarts the pods."""

import asyncio
from collections.abc import Iterable

from mlflow_operator.components.server import env_from
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import pod_references
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.pod_references import Reference
from mlflow_operator.model import deployment, rollout
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


async def fingerprint(context: ReconcileContext, rollout_key: bytes) -> str:
    """Return the fingerprint of all values that the desired pods read.

    Raises ConfigurationError if a value is missing, or if a variable of the operator would be overridden.
    """
    server = context.server
    await _check_env_from(context, server.env_from, deployment.variable_names(server))
    return await _fingerprint(context, rollout_key, deployment.references(server))


async def fingerprint_of_deployment(context: ReconcileContext, rollout_key: bytes, observed: Object) -> str:
    """Like `fingerprint`, for the pods of an existing Deployment."""
    pod_spec = observed["spec"]["template"]["spec"]
    container = pod_spec["containers"][0]
    variable_names = {variable["name"] for variable in container["env"]}
    await _check_env_from(context, container.get("envFrom") or (), variable_names)
    return await _fingerprint(context, rollout_key, pod_references.of_pod(pod_spec))


async def _fingerprint(context: ReconcileContext, rollout_key: bytes, references: Iterable[Reference]) -> str:
    ordered = sorted(references, key=lambda reference: (reference.kind, reference.name, reference.key or ""))
    values = await asyncio.gather(*(_referenced_values(context, reference) for reference in ordered))
    inputs = {
        "/".join(filter(None, (reference.kind, reference.name, reference.key))): value
        for reference, value in zip(ordered, values, strict=True)
    }
    return rollout.fingerprint(inputs, rollout_key)


async def _check_env_from(
    context: ReconcileContext, sources: Iterable[Object], variable_names: set[str]
) -> None:
    with_values = [
        (source, await context.reader.values(reference.resource, reference.name))
        for source in sources
        for reference in pod_references.of_settings((), (source,), ())
    ]
    env_from.check(with_values, variable_names)


async def _referenced_values(context: ReconcileContext, reference: Reference) -> dict[str, str] | None:
    """Return the values that the pods use of the object: all, or one key. None if they are missing and optional."""
    values = await context.reader.values(reference.resource, reference.name)
    if reference.optional and (values is None or reference.key not in {None, *values}):
        return None
    if values is None:
        raise ConfigurationError(
            Reason.SECRET_NOT_FOUND,
            f'There is no {reference.kind} "{reference.name}" in namespace {context.server.owner.namespace}, and the '
            "server's pods cannot start without it. Create it, or remove it from the spec.",
        )
    if reference.key is not None and reference.key not in values:
        raise ConfigurationError(
            Reason.SECRET_KEY_MISSING,
            f'{reference.kind} "{reference.name}" has no key "{reference.key}", and the server\'s pods cannot '
            "start without it. Add the key, or reference another key in the spec.",
        )
    return values if reference.key is None else {reference.key: values[reference.key]}
