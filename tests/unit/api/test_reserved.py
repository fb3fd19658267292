"""The reserved environment variables, volumes and mount paths match those that the operator uses."""

import pytest

from mlflow_operator.api import parse
from mlflow_operator.api.env import RESERVED_ENV
from mlflow_operator.api.pods import RESERVED_MOUNT_PATHS
from mlflow_operator.api.volumes import RESERVED_VOLUMES
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, deployment, mlflow_env
from mlflow_operator.model.encryption import (
    FLASK_KEY_ENV,
    KEYRING_VOLUMES,
    PASSPHRASE_ENV,
    VERSION_ENV,
    WEBHOOK_KEY_ENV,
)
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.unit.api.refusals import ACCEPTED, Spec, external_database, s3

ENCRYPTION_VARIABLES = {PASSPHRASE_ENV, VERSION_ENV, WEBHOOK_KEY_ENV, FLASK_KEY_ENV}
"""Variables that users may set: the operator then does not set them."""
CA = {"caSecretRef": {"name": "ca"}}
TLS_SPEC = external_database(tls={"mode": "VerifyFull", **CA}) | s3(
    endpoint="https://a:9000", credentialsSecretRef={"name": "key"}, tls=CA
)
PRESIGNED_SPEC = s3(access="Presigned", publicEndpoint="https://b:9000")
SPECS = {
    case.title: case.spec
    for case in ACCEPTED
    if not {"env", "volumeMounts"} & case.spec.keys()
    and "volumes" not in case.spec.get("podTemplate", {}).get("spec", {})
}


def server_pod(spec: Spec) -> Object:
    """Pod spec of the server's Deployment."""
    manifest = {"metadata": {"name": "a", "namespace": "n", "uid": "u"}, "spec": spec}
    server = resolve(parse(manifest), ClusterDefaults(Images()))
    pod_spec: Object = deployment.deployment(server, "")["spec"]["template"]["spec"]
    return pod_spec


@pytest.mark.parametrize(
    "spec", [*SPECS.values(), TLS_SPEC, PRESIGNED_SPEC], ids=[*SPECS, "TLS", "presigned"]
)
def test_names_that_the_operator_uses_are_reserved(spec: Spec) -> None:
    """A user's variable, volume or mount with the same name would be overridden or make the pod invalid."""
    pod = server_pod(spec)
    container = pod["containers"][0]
    optional = {
        *container_parts.OVERRIDABLE_ENV,
        mlflow_env.UPLOAD_ARGUMENTS_ENV,
        mlflow_env.TELEMETRY_ENV,
        *ENCRYPTION_VARIABLES,
    }
    assert {variable["name"] for variable in container["env"]} - optional <= RESERVED_ENV.keys()
    assert {volume["name"] for volume in pod["volumes"]} <= set(RESERVED_VOLUMES)
    assert all(mount["mountPath"].startswith(RESERVED_MOUNT_PATHS) for mount in container["volumeMounts"])


def test_reserved_volume_names_are_used() -> None:
    """Only names that the operator uses are reserved."""
    volumes = {volume["name"] for volume in server_pod(TLS_SPEC)["volumes"]}
    # pods of backup, restore and re-encryption, which also have the volumes of the user
    assert volumes | set(KEYRING_VOLUMES) == set(RESERVED_VOLUMES)
