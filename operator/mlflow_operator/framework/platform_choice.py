"""Finds the platform that a server uses, and records the choice before anything is created.

Platforms and the namespace are requested directly: a watch may not know a platform yet that was created together with
the server, and the choice is final. A server that uses no platform makes no request once it has been started.
"""

from mlflow_operator import api
from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.resource import InvalidResource
from mlflow_operator.framework import status_writer
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.client import Conflict, Forbidden, NotFound
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import platform_choice
from mlflow_operator.model.names import Names
from mlflow_operator.model.platform import Part, Platform, PlatformUse, defaults_for, resolve_platform
from mlflow_operator.model.platform_choice import FIELDS, Request
from mlflow_operator.model.server import PlatformOrigin, ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


async def choose(
    resource: Object, parsed: api.MLflowServer, deps: Dependencies
) -> tuple[Object, PlatformUse | None]:
    """Return the resource, with the choice recorded in its status, and what it uses of a platform.

    Raises ConfigurationError if the server must wait: nothing is created then.
    """
    requested = platform_choice.request(parsed)
    if requested is None:
        return resource, None
    try:
        found = await _find(requested, parsed.metadata.namespace, deps)
        if found is None:
            return resource, None
        platform, namespace = found
        retained = await _retained(requested, platform, parsed, deps)
    except Forbidden as error:
        raise ConfigurationError(
            Reason.OPERATION_REFUSED,
            f"The operator is not allowed to read what decides about the platform of the server: {error}. Install its "
            "chart with all of its roles.",
        ) from None
    parts = requested.parts(platform) - retained
    use = PlatformUse(platform, parts, _uid_of(namespace)) if parts else None
    if use:
        # Before the choice is recorded, because it is final.
        meta = parsed.metadata
        owner = ServerRef(meta.name, meta.namespace, meta.uid)
        platform_choice.check_taken_over(requested.added, use, owner, resource.get("status") or {})
    if requested.recorded is None and not parts and not requested.name:
        return resource, None
    recorded = {"name": platform.name, "uid": platform.uid, "parts": sorted(part.value for part in parts)}
    if (resource.get("status") or {}).get("platform") != recorded:
        resource = await status_writer.write_ahead(resource, {"platform": recorded}, deps)
    return resource, use


async def recorded(parsed: api.MLflowServer, deps: Dependencies) -> PlatformUse | None:
    """Return what a server that is being deleted uses of a platform.

    The platform need not select the namespace any more: what was created there must be deleted. Raises
    ConfigurationError if the platform does not exist.
    """
    if parsed.status.platform is None:
        return None
    platform = await _get(parsed.status.platform.name, deps)
    namespace = await _namespace(parsed.metadata.namespace, deps)
    parts = frozenset(part for part in Part if part in parsed.status.platform.parts)
    missing = sorted(parts - platform.parts)
    if missing:
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'MLflowPlatform "{platform.name}" no longer has the store of the server ({missing[0]}), whose data is to '
            "be deleted there. Ask its administrator to restore it.",
        )
    return PlatformUse(platform, parts, _uid_of(namespace)) if parts else None


async def check_namespace(origin: PlatformOrigin | None, namespace: str, deps: Dependencies) -> None:
    """Raise Conflict if the namespace is no longer the one whose server may use the platform.

    For use between the write of a generated Secret and the grant of access with it. A reconcile can outlive its
    namespace: the Secret would be in one that was created again, and the access that of the deleted one.
    """
    if origin is None:
        return
    current = await deps.cluster.get(kinds.NAMESPACE, None, namespace)
    if current is None or _uid_of(current) != origin.namespace_uid:
        raise Conflict(f"namespace {namespace} was deleted during the reconcile")


async def _find(
    requested: Request, namespace_name: str, deps: Dependencies
) -> tuple[Platform, Object] | None:
    """Return the platform and the namespace, None if no platform is requested and there is no default."""
    if requested.name:
        platform = await _get(requested.name, deps, is_new=requested.recorded is None)
        namespace = await _namespace(namespace_name, deps)
        return platform_choice.allowed(platform, namespace_name, _labels_of(namespace)), namespace
    defaults = await _defaults(deps)
    namespace = await _namespace(namespace_name, deps) if defaults else {}
    selecting = defaults_for(defaults, _labels_of(namespace)) if defaults else []
    if len(selecting) > 1:
        names = " and ".join(f'"{name}"' for name in sorted(platform.name for platform in selecting))
        raise ConfigurationError(
            Reason.DEFAULT_PLATFORM_CONFLICT,
            f"The default platforms {names} select namespace {namespace_name}, so none of them is the default here, "
            "and the choice could not be changed later. Name one of them in spec.platformRef, or set "
            "spec.database and spec.artifacts.",
        )
    if selecting:
        return selecting[0], namespace
    if requested.is_required:
        field = FIELDS[min(requested.explicit)]
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f"{field}.platform requests the default platform, but no default MLflowPlatform selects namespace "
            f"{namespace_name}. Name a platform in spec.platformRef, ask its administrator for one, or configure "
            f"another store in {field}.",
        )
    return None


async def _get(name: str, deps: Dependencies, *, is_new: bool = False) -> Platform:
    """Return a platform. `is_new`: the server does not use it yet, so it must not be about to be deleted."""
    resource = await deps.cluster.get(kinds.MLFLOWPLATFORM, None, name)
    if resource and is_new and resource["metadata"].get("deletionTimestamp"):
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'MLflowPlatform "{name}" is being deleted. Use another platform in spec.platformRef.',
        )
    if resource is None:
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'There is no MLflowPlatform "{name}". Ask a cluster administrator to create it, or correct '
            "spec.platformRef.",
        )
    return _parse(resource)


async def _defaults(deps: Dependencies) -> list[Platform]:
    """Return the default platforms of all namespaces. An invalid one could be the default of this namespace."""
    try:
        resources = await deps.cluster.list(kinds.MLFLOWPLATFORM)
    except NotFound:
        return []  # Without its CRD, which an upgrade may have omitted, there is no platform.
    return [_parse(resource) for resource in resources if _is_default(resource)]


def _is_default(resource: Object) -> bool:
    annotations = resource["metadata"].get("annotations") or {}
    is_default = annotations.get(mlflowplatform.DEFAULT_ANNOTATION) == "true"
    return is_default and not resource["metadata"].get("deletionTimestamp")


def _parse(resource: Object) -> Platform:
    try:
        return resolve_platform(mlflowplatform.parse(resource))
    except InvalidResource as error:
        raise ConfigurationError(
            Reason.PLATFORM_NOT_FOUND,
            f'MLflowPlatform "{resource["metadata"]["name"]}" is invalid: {str(error).rstrip(".")}. Ask its '
            "administrator to correct it.",
        ) from None


async def _namespace(name: str, deps: Dependencies) -> Object:
    namespace = await deps.cluster.get(kinds.NAMESPACE, None, name)
    if namespace is None:
        raise ConfigurationError(Reason.PLATFORM_NOT_FOUND, f"The namespace {name} does not exist any more.")
    return namespace


def _labels_of(namespace: Object) -> dict[str, str]:
    return {**(namespace["metadata"].get("labels") or {})}


def _uid_of(namespace: Object) -> str:
    return str(namespace["metadata"]["uid"])


async def _retained(
    requested: Request, platform: Platform, parsed: api.MLflowServer, deps: Dependencies
) -> frozenset[Part]:
    """Return the stores for which the spec sets no field and whose embedded volume of an earlier server exists.

    A server that is created again, or whose status was lost with the restore of a cluster backup, must find its data.
    """
    if not requested.is_new:
        return frozenset()
    namespace, server = parsed.metadata.namespace, parsed.metadata.name
    names = Names(server)
    claims = {Part.DATABASE: names.postgres_data, Part.ARTIFACTS: names.artifact_store_data}
    retained = set()
    for part in sorted(platform.parts & requested.open):
        claim = await deps.cluster.get(kinds.PVC, namespace, claims[part])
        if claim is None or not labels.belong_to_server(claim["metadata"], server):
            continue
        if requested.name:
            raise ConfigurationError(
                Reason.STORAGE_CHANGE_REFUSED,
                f'The PersistentVolumeClaim "{claims[part]}" contains data of an earlier server of this name, which '
                f"the server would not use on a platform. Set {FIELDS[part]}.embedded to {{}} to use it, or "
                f"{FIELDS[part]}.platform to {{}} to start on the platform without it.",
            )
        retained.add(part)
    return frozenset(retained)
