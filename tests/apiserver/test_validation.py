"""The CRD: the API server rejects invalid MLflowServers, and the message names the field and what to do.

New resources are sent as dry runs. A test of an update first stores the resource that is updated.
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
from tests.unit.api.refusals import ACCEPTED, CHANGED, PRUNED, WRITTEN, Consent, Refusal

Object = dict[str, Any]


class Servers:
    """MLflowServers of one namespace, sent by an API client that does not validate them itself."""

    def __init__(self, client: Client, namespace: str) -> None:
        self._client = client
        self._namespace = namespace
        self.stored = cache(self._store)

    def create(self, body: Object, **query: str) -> tuple[Object, str]:
        """Create a resource as a dry run; returns the answer and the API server's warnings."""
        path = kinds.MLFLOWSERVER.path(self._namespace)
        response = self._client.send("POST", path, body, dryRun="All", **query)
        return response.json(), response.headers.get("Warning", "")

    def update(self, before: Object, after: Object) -> Object:
        """Replace the spec `before` of a stored resource by `after`, as a dry run."""
        name = self.stored(json.dumps(before, sort_keys=True))
        patch = [{"op": "replace", "path": "/spec", "value": after}]
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


@pytest.mark.parametrize("case", [*WRITTEN, *PRUNED], ids=lambda case: case.promise)
def test_invalid_resource_is_rejected(servers: Servers, case: Refusal) -> None:
    """The answer names the field and what to do."""
    with pytest.raises(ApiError) as rejected:
        servers.create(resource(case.spec, case.name))
    assert rejected.value.status == 422
    assert case.field in str(rejected.value)
    assert case.words.lower() in str(rejected.value).lower()


@pytest.mark.parametrize("case", CHANGED, ids=lambda case: case.promise)
def test_invalid_update_is_rejected(servers: Servers, case: Refusal) -> None:
    """The answer names the field and what to do."""
    with pytest.raises(ApiError) as rejected:
        servers.update(case.before or {}, case.spec)
    assert rejected.value.status == 422
    assert case.field in str(rejected.value)
    assert case.words in str(rejected.value)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.promise)
def test_valid_resource_is_accepted(servers: Servers, case: Consent) -> None:
    """No rule rejects what users write."""
    if case.before is None:
        servers.create(resource(case.spec, case.name), fieldValidation="Strict")
    else:
        servers.update(case.before, case.spec)


def test_kubectl_rejects_an_unknown_field(kubectl: Kubectl) -> None:
    """A typo is reported when it is made."""
    typo = json.dumps(resource({"replica": 2}, "typo"))
    with pytest.raises(KubectlError, match=r'unknown field "spec\.replica"'):
        kubectl("apply", "--dry-run=server", "-f", "-", stdin=typo)


def test_other_clients_are_warned_of_an_unknown_field(servers: Servers) -> None:
    """The field is pruned, and the answer has a warning."""
    stored, warnings = servers.create(resource({"replica": 2}, "typo"), fieldValidation="Warn")
    assert "replica" not in stored["spec"]
    assert 'unknown field \\"spec.replica\\"' in warnings


def test_defaults_are_stored_and_no_union_is_defaulted(servers: Servers) -> None:
    """`kubectl get -o yaml` shows what an empty spec means. The choice of a store stays open."""
    stored, _ = servers.create(resource({}, "empty"))
    assert stored["spec"] == {
        "deletionPolicy": "Retain",
        "imagePullPolicy": "IfNotPresent",
        "jobExecution": "Disabled",
        "replicas": 1,
        "service": {"port": 5000, "type": "ClusterIP"},
        "storageChangePolicy": "Refuse",
        "suspend": False,
        "upgrade": {"backupBeforeMigration": "IfConfigured", "strategy": "Recreate"},
        "workers": 2,
    }


def test_scale_subresource_obeys_the_rules(servers: Servers, kubectl: Kubectl) -> None:
    """`kubectl scale` cannot set more replicas than background jobs allow."""
    name = servers.stored(json.dumps({"jobExecution": "Enabled"}))
    with pytest.raises(KubectlError, match="lower replicas, or set jobExecution to Disabled"):
        kubectl("scale", f"mls/{name}", "--replicas=2")


def test_kubectl_explain_describes_fields(kubectl: Kubectl) -> None:
    """`kubectl explain` is the first place to look."""
    explained = " ".join(kubectl("explain", "mls.spec.artifacts.access").split())
    assert "Proxied: everything passes through the server" in explained
