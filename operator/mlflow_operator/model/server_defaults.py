"""The defaults that a server takes from a platform: `spec.serverDefaults`, recorded in `status.platformDefaults`.

They are taken when the server is created, and only for fields that its spec leaves out. `apply` uses the recorded
values, and never reads the platform again: it can change or disappear without an effect on existing servers.
"""

from collections.abc import Mapping

from mlflow_operator import api
from mlflow_operator.api.backup import Backup
from mlflow_operator.api.mlflowserver import Spec
from mlflow_operator.api.resource import InvalidResource, parse_as
from mlflow_operator.api.server_defaults import ServerDefaults
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.platform import Platform
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


def taken(spec: Spec, platform: Platform) -> Object:
    """Return what a new server takes of the defaults of `platform`, for the status; empty if nothing."""
    defaults = platform.server_defaults
    values: Object = {}
    # With an image of its own, the version of the server is that of the image.
    if defaults.version and not (spec.version or spec.image):
        values["version"] = defaults.version
    if defaults.image_pull_secrets and not _sets_pull_secrets(spec):
        values["imagePullSecrets"] = [secret.manifest() for secret in defaults.image_pull_secrets]
    own, offered = spec.pod_template.metadata, defaults.pod_metadata
    metadata = {
        "labels": _missing(offered.labels, own.labels),
        "annotations": _missing(offered.annotations, own.annotations),
    }
    if any(metadata.values()):
        values["podMetadata"] = {field: entries for field, entries in metadata.items() if entries}
    if defaults.backup and _can_use_backup(spec, defaults.backup):
        values["backup"] = defaults.backup.manifest()
    if defaults.garbage_collection and spec.garbage_collection is None:
        values["garbageCollection"] = defaults.garbage_collection.manifest()
    return {"platform": platform.name, **values} if values else {}


def apply(server: api.MLflowServer, recorded: Object) -> api.MLflowServer:
    """Return `server` with the defaults that it took. What its spec sets takes precedence.

    `recorded` is `status.platformDefaults`. Its version is not applied: unlike one in the spec, it does not upgrade
    a server that runs another one. Raises ConfigurationError if another version of the operator recorded a value that
    this one does not know.
    """
    if not recorded:
        return server
    spec = server.spec
    is_set = {
        "version": True,
        "imagePullSecrets": _sets_pull_secrets(spec),
        "backup": spec.backup is not None,
        "garbageCollection": spec.garbage_collection is not None,
    }
    try:
        defaults = parse_as(
            ServerDefaults, {field: value for field, value in recorded.items() if not is_set.get(field)}
        )
    except InvalidResource as error:
        raise ConfigurationError(
            Reason.INVALID_RESOURCE,
            f'A default that the server took from MLflowPlatform "{recorded.get("platform")}" is invalid: '
            f"status.platformDefaults.{str(error).rstrip('.')}. Set the field in the spec of the server.",
        ) from None
    template = spec.pod_template
    own, offered = template.metadata, defaults.pod_metadata
    pod_spec = template.spec
    if not _sets_pull_secrets(spec):
        pod_spec = pod_spec.model_copy(update={"image_pull_secrets": defaults.image_pull_secrets})
    # Not validated again: together they may have more entries than the CRD allows in one place.
    metadata = own.model_copy(
        update={
            "labels": {**offered.labels, **own.labels},
            "annotations": {**offered.annotations, **own.annotations},
        }
    )
    changes: dict[str, object] = {
        "pod_template": template.model_copy(update={"metadata": metadata, "spec": pod_spec}),
        "garbage_collection": spec.garbage_collection or defaults.garbage_collection,
    }
    if defaults.backup and _can_use_backup(spec, defaults.backup):
        changes["backup"] = defaults.backup
    return server.model_copy(update={"spec": spec.model_copy(update=changes)})


def _sets_pull_secrets(spec: Spec) -> bool:
    """Whether the spec sets the Secrets, also to an empty list."""
    return "image_pull_secrets" in spec.pod_template.spec.model_fields_set


def _missing(offered: Mapping[str, str], own: Mapping[str, str]) -> Object:
    return {key: value for key, value in offered.items() if key not in own}


def _can_use_backup(spec: Spec, backup: Backup) -> bool:
    """Whether the spec has no backup, and the default one has an S3 store: its own bucket or that of the artifacts."""
    return spec.backup is None and (backup.s3 is not None or not spec.artifacts.external)
