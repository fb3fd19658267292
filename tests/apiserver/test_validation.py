"""Validation by the API server: it rejects invalid MLflowServers with a message that names the field and the fix.

New resources are sent as dry runs. A test of an update first stores the old resource.
"""

import json
import uuid
from functools import cache
from typing import Any

import pytest

from mlflow_operator.api import API_VERSION, KIND
from mlflow_operator.kube import kinds
from tests.apiserver.client import ApiError, Client
from tests.apiserver.kubectl import Kubectl, KubectlError
from tests.unit.api.refusals import (
    ACCEPTED,
    REJECTED_AFTER_PRUNING,
    REJECTED_ON_CREATE,
    REJECTED_ON_UPDATE,
    Accepted,
    Rejected,
)

Object = dict[str, Any]


class Servers:
    """Creates and updates MLflowServers in one namespace, without client-side validation."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.stored = cache(self._store)

    def create(self, body: Object, **query: str) -> tuple[Object, str]:
        """Create a resource as a dry run; return the response and the warnings of the API server."""
        path = kinds.MLFLOWSERVER.path(self._namespace)
        response = self._client.send("POST", path, body, dryRun="All", **query)
        return response.json(), response.headers.get("Warning", "")

    def update(self, old_spec: Object, spec: Object) -> Object:
        """Replace the spec of a stored resource as a dry run."""
        name = self.stored(json.dumps(old_spec, sort_keys=True))
        patch = [{"op": "replace", "path": "/spec", "value": spec}]
        return self._client.json_patch(kinds.MLFLOWSERVER, self._namespace, name, patch, dryRun="All")

    def _store(self, spec: str) -> str:
        name = f"stored-{uuid.uuid4().hex[:8]}"
        self._client.request(
            "POST", kinds.MLFLOWSERVER.path(self._namespace), resource(json.loads(spec), name)
        )
        return name


@pytest.fixture(scope="module")
def servers(admin: Client, namespace: str) -> Servers:
    """MLflowServers of the module's namespace."""
    return Servers(admin, namespace)


def resource(spec: Object, name: str) -> Object:
    """An MLflowServer."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


def test_namespace_of_an_administrators_secret_is_an_unknown_field(servers: Servers) -> None:
    """Earlier versions read the Secret there. kubectl rejects it; others' requests lose it."""
    admin_ref = {"name": "postgres-admin", "namespace": "kube-system"}
    spec = {"database": {"provision": {"host": "a", "adminSecretRef": admin_ref}}}
    stored, warning = servers.create(resource(spec, "tracking"), fieldValidation="Warn")
    assert "namespace" not in stored["spec"]["database"]["provision"]["adminSecretRef"]
    assert 'unknown field "spec.database.provision.adminSecretRef.namespace"' in warning.replace("\\", "")
    with pytest.raises(ApiError, match="unknown field"):
        servers.create(resource(spec, "tracking"), fieldValidation="Strict")


@pytest.mark.parametrize("case", [*REJECTED_ON_CREATE, *REJECTED_AFTER_PRUNING], ids=lambda case: case.title)
def test_invalid_resource_is_rejected(servers: Servers, case: Rejected) -> None:
    """The message names the field and the fix."""
    with pytest.raises(ApiError) as rejected:
        servers.create(resource(case.spec, case.name))
    assert rejected.value.status == 422
    assert case.field in str(rejected.value)
    assert case.message.lower() in str(rejected.value).lower()


@pytest.mark.parametrize("case", REJECTED_ON_UPDATE, ids=lambda case: case.title)
def test_invalid_update_is_rejected(servers: Servers, case: Rejected) -> None:
    """The message names the field and the fix."""
    with pytest.raises(ApiError) as rejected:
        servers.update(case.old_spec or {}, case.spec)
    assert rejected.value.status == 422
    assert case.field in str(rejected.value)
    assert case.message in str(rejected.value)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.title)
def test_valid_resource_is_accepted(servers: Servers, case: Accepted) -> None:
    """No rule rejects a valid spec."""
    if case.old_spec is None:
        servers.create(resource(case.spec, case.name), fieldValidation="Strict")
    else:
        servers.update(case.old_spec, case.spec)


def test_kubectl_rejects_an_unknown_field(kubectl: Kubectl) -> None:
    """kubectl reports a typo in a field name."""
    typo = json.dumps(resource({"replica": 2}, "typo"))
    with pytest.raises(KubectlError, match=r'unknown field "spec\.replica"'):
        kubectl("apply", "--dry-run=server", "-f", "-", stdin=typo)


def test_other_clients_are_warned_of_an_unknown_field(servers: Servers) -> None:
    """The field is pruned, and the response has a warning."""
    stored, warnings = servers.create(resource({"replica": 2}, "typo"), fieldValidation="Warn")
    assert "replica" not in stored["spec"]
    assert 'unknown field \\"spec.replica\\"' in warnings


def test_defaults_are_stored_and_no_union_is_defaulted(servers: Servers) -> None:
    """`kubectl get -o yaml` shows the defaults. Database and artifact store are not persisted."""
    stored, _ = servers.create(resource({}, "empty"))
    assert stored["spec"] == {
        "assistant": "Disabled",
        "deletionPolicy": "Retain",
        "imagePullPolicy": "IfNotPresent",
        "jobExecution": "Disabled",
        "replicas": 1,
        "service": {"port": 5000, "type": "ClusterIP"},
        "storageChangePolicy": "Refuse",
        "suspend": False,
        "telemetry": "Disabled",
        "upgrade": {"backupBeforeMigration": "IfConfigured", "strategy": "Recreate"},
        "workers": 2,
    }


def test_scale_subresource_obeys_the_rules(servers: Servers, kubectl: Kubectl) -> None:
    """`kubectl scale` cannot violate the rule on background jobs and replicas."""
    name = servers.stored(json.dumps({"jobExecution": "Enabled"}))
    with pytest.raises(KubectlError, match="lower replicas, or set jobExecution to Disabled"):
        kubectl("scale", f"mls/{name}", "--replicas=2")


def test_kubectl_explain_describes_fields(kubectl: Kubectl) -> None:
    """`kubectl explain` prints the descriptions of the CRD."""
    explained = " ".join(kubectl("explain", "mls.spec.artifacts.access").split())
    assert "Proxied: through the server" in explained
