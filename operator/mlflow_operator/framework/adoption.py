"""Records which namespace uses an entry of a platform's `spec.adoptions`, before its server gets anything by it.

An entry is the word of an administrator about the namespace that exists now. Without the record, it would also apply to
a namespace of another team that is created under the same name later.
"""

from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.resource import InvalidResource
from mlflow_operator.framework import platform_choice, status_writer
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.platform import PlatformUse, resolve_platform
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

EVENT_REASON = "AdoptionUsed"
"""Reason of the Event about the platform. No condition has this reason, because it is not an error."""


async def record_use(use: PlatformUse, owner: ServerRef, deps: Dependencies) -> bool:
    """Record that `owner` uses its entry. Returns False if there is none, or if it has been used already.

    Call it only if the server needs the entry. Raises Conflict if the platform or the namespace changes meanwhile, and
    ConfigurationError if the record cannot be written: the server must get nothing then.
    """
    if not use.has_unused_adoption(owner):
        return False
    resource = await deps.cluster.get(kinds.MLFLOWPLATFORM, None, use.platform.name)
    current = _current(use, resource) if resource else None
    if resource is None or current is None or not current.has_unused_adoption(owner):
        return False
    # Otherwise a reconcile that outlives its namespace would use up the entry for nothing.
    await platform_choice.check_namespace(current.origin(owner), owner.namespace, deps)
    server = str(owner)
    used = {**current.platform.used_adoptions, server: current.namespace_uid}
    records = [
        {"server": name, "namespaceUID": uid}
        for name, uid in sorted(used.items())
        if name in current.platform.adoptions
    ]
    await _write(resource, records, deps)
    message = (
        f"The server {server} may use what was created for a server of this name in an earlier namespace, or before it "
        "used the platform. Its entry in spec.adoptions counts for the present namespace only, which has the uid "
        f"{current.namespace_uid}. Remove it when the server is Ready."
    )
    await deps.events.publish(resource, True, EVENT_REASON, message)
    return True


def _current(use: PlatformUse, resource: Object) -> PlatformUse | None:
    try:
        platform = resolve_platform(mlflowplatform.parse(resource))
    except InvalidResource:
        return None
    return PlatformUse(platform, use.parts, use.namespace_uid)


async def _write(resource: Object, records: list[dict[str, str]], deps: Dependencies) -> None:
    field = f'status.adoptions of MLflowPlatform "{resource["metadata"]["name"]}"'
    try:
        written = await status_writer.write_ahead(resource, {"adoptions": records}, deps)
    except Forbidden as error:
        raise ConfigurationError(
            Reason.OPERATION_REFUSED,
            f"The operator is not allowed to write {field}, and without it data is not adopted: {error}. Install its "
            "chart with all of its roles.",
        ) from None
    if (written.get("status") or {}).get("adoptions") != records:
        # The API server drops fields that it does not know.
        raise ConfigurationError(
            Reason.OPERATION_REFUSED,
            f"The API server does not store {field}, and without it data is not adopted. Apply the CRDs of this "
            "release of the operator.",
        )
