"""Ensure the Deployment and the Service of the MLflow server, and the objects that its clients use.

Owns: condition ServerAvailable; Deployment, PodDisruptionBudget and Service `<name>`; ConfigMap `<name>-server` with
the plugins; ConfigMap and Secret `<name>-client`; Events StorageChanged and FastPathNotUsed; `version`, `image`,
`replicas`, `readyReplicas`, `fastPathFallback`, `database` and `artifacts` in the status.
Needs: credentials; the PodPolicy and the unmet dependency, which `pod_policy` derives from the results of database,
artifacts, upgrade, migration and authentication; `running_version` of upgrade.
Provides: `RunningServer` (Deployment and version) for rotation, garbage collection and the status.
"""

from dataclasses import replace

from mlflow_operator.api.status import ConditionStatus
from mlflow_operator.components.credentials.reconcile import Credentials, switch_database
from mlflow_operator.components.server import deployment_writer, pod_inputs
from mlflow_operator.components.server.pod_policy import (
    PodPolicy,
    artifact_location_changes,
    enables_authentication,
)
from mlflow_operator.framework import stuck_pods
from mlflow_operator.framework.component import (
    RETRY_USER_ERROR_SECONDS,
    ReconcileContext,
    Result,
    component,
    suspended,
    waiting,
)
from mlflow_operator.framework.running_server import RunningServer, running_image, server_at_running_version
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import availability, client_config, deployment, plugins, storage_location
from mlflow_operator.model.resolve import public_cluster_ips
from mlflow_operator.status.conditions import Condition, ConditionType, Reason, false_condition

_TYPE = ConditionType.SERVER


@component(_TYPE)
async def reconcile(
    context: ReconcileContext,
    credentials: Credentials | None,
    pod_policy: PodPolicy,
    unmet_dependency: str | None = None,
) -> Result[RunningServer]:
    """Ensure all objects of the server as far as that is safe now.

    `unmet_dependency`: what must be ready before the pods can be as the spec asks.
    """
    server = context.server
    await context.ensure(client_config.config_map(server))
    service = await context.ensure(deployment.service(server))
    observed = context.observed.get(kinds.DEPLOYMENT, server.names.deployment)
    budget = deployment.disruption_budget(server)
    if budget:
        await context.ensure(budget)
    if server.suspended:
        return await _scale_to_zero(context, observed)
    has_public_address = server.service.type != "ClusterIP" or public_cluster_ips(service)
    if has_public_address and not context.observed.get(kinds.SERVICE, server.names.service):
        # Its port or address is one of the allowed origins: pods created before it is known would be rolled at once.
        return Result(
            false_condition(_TYPE, Reason.PROGRESSING, "The Service is being created."),
            RunningServer(observed, None),
        )
    if credentials is None:
        return Result(_waiting(observed, "the credentials"), RunningServer(observed, None))
    return await _run_pods(context, credentials, pod_policy, observed, unmet_dependency)


async def _run_pods(
    context: ReconcileContext,
    credentials: Credentials,
    pod_policy: PodPolicy,
    observed: Object | None,
    unmet_dependency: str | None,
) -> Result[RunningServer]:
    if pod_policy is PodPolicy.UNCHANGED:
        return Result(_waiting(observed, unmet_dependency or "the schema"), RunningServer(observed, None))
    if pod_policy is PodPolicy.STOPPED:
        stopped = await deployment_writer.stop(context, observed) if observed else None
        message = "The server is scaled to 0 during the schema migration."
        return Result(false_condition(_TYPE, Reason.PROGRESSING, message), RunningServer(stopped, None))
    if pod_policy is PodPolicy.PREVIOUS and observed:
        inputs = await pod_inputs.fingerprint_of_deployment(context, credentials.rollout_key, observed)
        kept = await deployment_writer.keep_template(context, observed, context.server.replicas, inputs)
        return Result(_availability(context, kept), RunningServer(kept, None))
    if pod_policy is PodPolicy.PREVIOUS:
        # The Deployment was deleted, and its manifest with it: recreate it from the spec.
        return await _ensure_deployment(
            replace(context, server=server_at_running_version(context)), credentials, None
        )
    await switch_database(context, credentials)
    return await _ensure_deployment(context, credentials, context.server.version)


async def _ensure_deployment(
    context: ReconcileContext, credentials: Credentials, version: str | None
) -> Result[RunningServer]:
    if client_config.has_secret(context.server) or await _must_empty_client_secret(context):
        key = credentials.store.service_key
        await context.ensure(
            client_config.secret(context.server, key.id if key else None, key.secret if key else None)
        )
    if plugins.is_needed(context.server):
        await context.ensure(plugins.config_map(context.server))
    inputs = await pod_inputs.fingerprint(context, credentials.rollout_key)
    observed = await deployment_writer.apply(context, inputs)
    condition = _availability(context, observed)
    failure = availability.replica_failure(observed)
    if failure:
        await stuck_pods.request_retry(context, observed, failure.get("lastTransitionTime"))
    # A changed Secret or ConfigMap of the user may fix it, and the operator does not watch those.
    is_failing = not condition.is_true and condition.reason is not Reason.PROGRESSING
    return Result(
        condition, RunningServer(observed, version), RETRY_USER_ERROR_SECONDS if is_failing else None
    )


async def _must_empty_client_secret(context: ReconcileContext) -> bool:
    """Whether clients receive no credentials any more, and a Secret may still contain them.

    It is empty since the server is Ready without direct access. Until then, the status does not always name the Secret:
    the spec can change before the first status is written, and a backup of the cluster contains none.
    """
    name, status = context.server.names.client, context.observed.status
    if "clientSecretRef" in status:
        return context.observed.get(kinds.SECRET, name) is not None
    if context.observed.condition(ConditionType.READY).get("status") == ConditionStatus.TRUE.value:
        return False
    owner = context.server.owner
    secret = await context.deps.cluster.get(kinds.SECRET, owner.namespace, name)
    return secret is not None and labels.belong_to_server(secret["metadata"], owner.name)


def can_serve_now(context: ReconcileContext, credentials: Credentials | None) -> bool:
    """Whether the Deployment already runs the desired image on the desired database and artifact store.

    The schema was then compatible before, so the pods are reconciled even while the stores cannot be checked. Not if
    they must begin to require authentication, for which the accounts must be ready.
    """
    observed = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    if credentials is None or not observed or not observed["spec"].get("replicas"):
        return False
    if enables_authentication(context):
        return False
    recorded = context.observed.status.get("database") or {}
    same_storage = storage_location.is_recorded_database(
        recorded, credentials.connection
    ) and not artifact_location_changes(context)
    return same_storage and running_image(context) == context.server.image


async def _scale_to_zero(context: ReconcileContext, observed: Object | None) -> Result[RunningServer]:
    """Scale the Deployment to 0. This needs no credentials, no schema and no Secret of the user.

    A new image and new values of Secrets are checked and applied when the server is resumed.
    """
    if observed and running_image(context) != context.server.image:
        observed = await deployment_writer.keep_template(context, observed, replicas=0)
    elif observed:
        observed = await deployment_writer.apply(context, deployment_writer.inputs_digest_of(observed))
    return Result(suspended(_TYPE), RunningServer(observed, None))


def _availability(context: ReconcileContext, observed: Object) -> Condition:
    return availability.condition(observed, context.observed.list(kinds.POD, labels.SERVER_POD))


def _waiting(observed: Object | None, dependency: str) -> Condition:
    if observed is None:
        return waiting(_TYPE, dependency)
    return Condition(
        _TYPE,
        ConditionStatus.UNKNOWN,
        Reason.WAITING_FOR_DEPENDENCY,
        f"The Deployment is not changed. Waiting for {dependency}.",
    )
