"""MLflowPlatform in the API server: validation, defaults and the columns of kubectl."""

import json
import uuid
from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION, KIND
from mlflow_operator.api.resource import API_VERSION
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Conflict, KubernetesClient
from mlflow_operator.model import server_defaults
from mlflow_operator.model.platform import resolve_platform
from tests.apiserver.client import ApiError, Client
from tests.apiserver.kubectl import Kubectl, KubectlError
from tests.unit.api.platform_refusals import ACCEPTED, REJECTED, platform
from tests.unit.api.refusals import Accepted, Rejected

Object = dict[str, Any]


def resource(spec: Object, name: str = "shared", **annotations: str) -> Object:
    """An MLflowPlatform."""
    metadata = {"name": name, "annotations": annotations}
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def create(client: Client, spec: Object) -> Object:
    """Create a platform as a dry run."""
    return client.create(kinds.MLFLOWPLATFORM, resource(spec), dryRun="All", fieldValidation="Strict")


@pytest.mark.parametrize("case", REJECTED, ids=lambda case: case.title)
def test_invalid_platform_is_rejected(admin: Client, case: Rejected) -> None:
    """The message names the field and the fix, and never a password."""
    with pytest.raises(ApiError) as rejected:
        create(admin, case.spec)
    assert rejected.value.status == 422
    assert case.field in str(rejected.value)
    assert case.message.lower() in str(rejected.value).lower()


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.title)
def test_valid_platform_is_accepted(admin: Client, case: Accepted) -> None:
    create(admin, case.spec)


def test_platform_without_a_spec_is_rejected(admin: Client) -> None:
    with pytest.raises(ApiError, match="spec: Required value"):
        admin.create(kinds.MLFLOWPLATFORM, {**resource({}), "spec": None}, dryRun="All")


def test_defaults_are_stored(admin: Client) -> None:
    """`kubectl get -o yaml` shows the safe defaults."""
    spec = create(admin, platform())["spec"]
    assert spec["database"]["postgres"] == {
        "host": "postgres.mlflow-platform.svc",
        "port": 5432,
        "adminSecretRef": {"name": "postgres-admin", "usernameKey": "username", "passwordKey": "password"},
        "tls": {"mode": "VerifyFull", "caSecretRef": {"name": "ca", "key": "ca.crt"}},
        "maxConnectionsPerServer": 130,
    }
    assert spec["artifacts"]["s3"]["prefix"] == "{namespace}/{name}"
    assert spec["artifacts"]["s3"]["bucketCreation"] == "IfMissing"


def test_default_limits_are_stored(admin: Client) -> None:
    """Defaults for servers are not: an empty backup would be a daily one."""
    spec = create(admin, platform())["spec"]
    assert spec["policy"] == {"stores": "Any", "serviceTypes": ["ClusterIP"]}
    assert "serverDefaults" not in spec
    spec = create(admin, platform(serverDefaults={"backup": {}}))["spec"]
    assert spec["serverDefaults"]["backup"]["schedule"] == "0 2 * * *"
    assert "garbageCollection" not in spec["serverDefaults"]


async def test_recorded_defaults_are_stored_unchanged(
    cluster: KubernetesClient, admin: Client, namespace: str
) -> None:
    """Otherwise each reconcile would write them again. The status takes part in no rule of the CRD."""
    defaults = next(case.spec for case in ACCEPTED if case.title == "all defaults")["serverDefaults"]
    spec = platform(serverDefaults=defaults)
    offered = resolve_platform(mlflowplatform.parse(create(admin, spec)))
    metadata = {"name": "tracking", "namespace": namespace}
    server = {"apiVersion": API_VERSION, "kind": api.KIND, "metadata": metadata}
    stored = admin.create(kinds.MLFLOWSERVER, {**server, "spec": {}})
    taken = server_defaults.taken(api.parse(stored).spec, offered)
    written = await cluster.apply_status({**server, "status": {"platformDefaults": taken}})
    assert written["status"]["platformDefaults"] == taken
    assert server_defaults.apply(api.parse(written), taken).spec.backup == offered.server_defaults.backup
    created = await cluster.list_creation_times(kinds.MLFLOWSERVER, namespace)
    assert created == {"tracking": stored["metadata"]["creationTimestamp"]}


@pytest.mark.parametrize("is_default", [True, False])
async def test_kubectl_shows_the_default_platform(
    admin: Client, cluster: KubernetesClient, kubectl: Kubectl, is_default: bool
) -> None:
    """As the operator found it, whatever the annotation says."""
    name = f"shared-{uuid.uuid4().hex[:8]}"
    created = admin.create(kinds.MLFLOWPLATFORM, resource(platform(), name, **{DEFAULT_ANNOTATION: "true"}))
    meta = {key: created["metadata"][key] for key in ("name", "uid", "resourceVersion")}
    status = {"isDefault": is_default}
    await cluster.apply_status({"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "status": status})
    header, row = kubectl("get", "mlp", name).splitlines()
    assert header.split() == ["NAME", "READY", "DEFAULT", "DATABASE", "ARTIFACTS", "AGE"]
    stores = ["postgres.mlflow-platform.svc", "https://minio.mlflow-platform.svc:9000"]
    assert row.split()[:-1] == [name, str(is_default).lower(), *stores]
    admin.delete(kinds.MLFLOWPLATFORM, None, name)


async def test_applied_status_is_not_older_than_the_stored_one(
    admin: Client, cluster: KubernetesClient
) -> None:
    """The reconciles of a platform and of its servers write the same status."""
    name = f"shared-{uuid.uuid4().hex[:8]}"
    created = admin.create(kinds.MLFLOWPLATFORM, resource(platform(), name))
    adoptions = [{"server": "team-a/tracking", "namespaceUID": "uid-1"}]
    meta = {key: created["metadata"][key] for key in ("name", "uid", "resourceVersion")}
    applied = {"apiVersion": API_VERSION, "kind": KIND, "metadata": meta, "status": {"adoptions": adoptions}}
    stored = await cluster.apply_status(applied)
    assert stored["status"]["adoptions"] == adoptions
    with pytest.raises(Conflict):
        await cluster.apply_status({**applied, "status": {"observedGeneration": 1}})
    assert admin.need(kinds.MLFLOWPLATFORM, None, name)["status"] == {"adoptions": adoptions}
    admin.delete(kinds.MLFLOWPLATFORM, None, name)


def test_kubectl_explain_describes_fields(kubectl: Kubectl) -> None:
    explained = " ".join(kubectl("explain", "mlflowplatform.spec.artifacts.s3.prefix").split())
    assert "the prefix must contain both" in explained


def test_kubectl_rejects_a_namespace_in_a_reference(kubectl: Kubectl) -> None:
    """All Secrets are in `secretsNamespace`."""
    spec = platform(artifacts__s3__adminSecretRef={"name": "minio-admin", "namespace": "kube-system"})
    with pytest.raises(KubectlError, match=r'unknown field "spec\.artifacts\.s3\.adminSecretRef\.namespace"'):
        kubectl("apply", "--dry-run=server", "-f", "-", stdin=json.dumps(resource(spec)))


async def test_labels_of_namespaces_are_listed(cluster: KubernetesClient, admin: Client) -> None:
    """Without their annotations, which need more memory."""
    name = f"labels-{uuid.uuid4().hex[:8]}"
    metadata = {"name": name, "labels": {"team": "a"}, "annotations": {"large": "x" * 100_000}}
    admin.request("POST", "/api/v1/namespaces", {"metadata": metadata})
    found = await cluster.list_labels(kinds.NAMESPACE)
    assert found[name] == {"kubernetes.io/metadata.name": name, "team": "a"}
    assert "kube-system" in found
