"""The API server itself refuses what makes no sense, with a sentence that tells the way out.

Everything is sent as a dry run: nothing is stored, no operator need run. Only for changes there is a stored
resource first, in a namespace whose quota lets no pod and no volume be made.
"""

import json
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException

from mlflow_operator.api import API_VERSION, GROUP, KIND, PLURAL, VERSION
from tests import cloudnativepg
from tests.e2e.kube import CommandError, Kube
from tests.unit.api.refusals import ACCEPTED, CHANGED, PRUNED, WRITTEN, Consent, Refusal

CRD = Path(__file__).parents[2] / "manifests" / "crd.yaml"
EXAMPLES = sorted((CRD.parent / "examples").glob("*.yaml"))

Object = dict[str, Any]


@pytest.fixture(autouse=True)
def watched() -> None:
    """Instead of the operator's log after each test: the operator has no part in what the API server refuses."""


class Servers:
    """MLflowServers of one namespace, as an API client that is not kubectl sends them."""

    def __init__(self, api: client.ApiClient, namespace: str) -> None:
        self.custom = client.CustomObjectsApi(api)
        self.namespace = namespace
        self.stored = cache(self._store)

    def try_out(self, body: Object, **options: Any) -> tuple[Object, str]:
        """Send a new resource as a dry run; the answer and the API server's warnings."""
        found, _, headers = self.custom.create_namespaced_custom_object_with_http_info(
            GROUP, VERSION, self.namespace, PLURAL, body, dry_run="All", **options
        )
        return found, headers.get("Warning", "")

    def try_change(self, before: Object, after: Object) -> Object:
        """Send, as a dry run, `after` as the new spec of a resource whose spec was `before`."""
        name = self.stored(json.dumps(before, sort_keys=True))
        # A patch, for an operator may write its status at any time and make a read version stale.
        patch = [{"op": "replace", "path": "/spec", "value": after}]
        found: Object = self.custom.patch_namespaced_custom_object(
            GROUP,
            VERSION,
            self.namespace,
            PLURAL,
            name,
            patch,
            dry_run="All",
            _content_type="application/json-patch+json",
        )
        return found

    def _store(self, spec: str) -> str:
        name = f"stored-{uuid.uuid4().hex[:8]}"
        body = resource(json.loads(spec), name)
        self.custom.create_namespaced_custom_object(GROUP, VERSION, self.namespace, PLURAL, body)
        return name


@pytest.fixture(scope="module")
def servers(kube: Kube) -> Iterator[Servers]:
    """A namespace in which nothing can run, gone afterwards; the CRD is this checkout's."""
    kube.kubectl("apply", "--server-side", "--force-conflicts", "--field-manager=helm", "-f", str(CRD))
    kube.kubectl("wait", "--for=condition=Established", "--timeout=30s", "-f", str(CRD))
    api = config.new_client_from_config(str(kube.settings.kubeconfig))
    # an example has a resource of this kind, too
    kube.apply(cloudnativepg.DEFINITION)
    definition = cloudnativepg.DEFINITION["metadata"]["name"]
    kube.kubectl("wait", "--for=condition=Established", "--timeout=30s", "crd", definition)
    core = client.CoreV1Api(api)
    name = f"refusals-{uuid.uuid4().hex[:8]}"
    core.create_namespace({"metadata": {"name": name}})
    core.create_namespaced_resource_quota(
        name,
        {"metadata": {"name": "nothing"}, "spec": {"hard": {"pods": "0", "persistentvolumeclaims": "0"}}},
    )
    yield Servers(api, name)
    core.delete_namespace(name)


@pytest.fixture
def kubectl(kube: Kube, servers: Servers) -> Callable[..., str]:
    """kubectl in that namespace, with `stdin` as its input; raises CommandError with what it printed."""
    return kube.within(servers.namespace).kubectl


def resource(spec: Object, name: str) -> Object:
    """A resource as somebody would write it."""
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": spec}


def sentence(error: ApiException) -> str:
    """What the API server answered."""
    return str(json.loads(error.body)["message"])


@pytest.mark.parametrize("case", [*WRITTEN, *PRUNED], ids=lambda case: case.promise)
def test_refused(servers: Servers, case: Refusal) -> None:
    """What is written is wrong, and the answer names the field and the way out."""
    with pytest.raises(ApiException) as refused:
        servers.try_out(resource(case.spec, case.name))
    assert refused.value.status == 422
    assert case.field in sentence(refused.value)
    assert case.words.lower() in sentence(refused.value).lower()


@pytest.mark.parametrize("case", CHANGED, ids=lambda case: case.promise)
def test_change_refused(servers: Servers, case: Refusal) -> None:
    """What was stored may not become this, and the answer names the field and the way out."""
    with pytest.raises(ApiException) as refused:
        servers.try_change(case.before or {}, case.spec)
    assert refused.value.status == 422
    assert case.field in sentence(refused.value)
    assert case.words in sentence(refused.value)


@pytest.mark.parametrize("case", ACCEPTED, ids=lambda case: case.promise)
def test_accepted(servers: Servers, case: Consent) -> None:
    """What people do write is not in the way of any rule."""
    if case.before is None:
        servers.try_out(resource(case.spec, case.name), field_validation="Strict")
    else:
        servers.try_change(case.before, case.spec)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_accepted(servers: Servers, kubectl: Callable[..., str], example: Path) -> None:
    """Who copies an example has something that works."""
    # In a namespace that is not there yet nothing can be tried, and the quota of this one lets no volume in.
    beside = {"Namespace", "PersistentVolumeClaim"}
    found = [part for part in yaml.safe_load_all(example.read_text()) if part["kind"] not in beside]
    for part in found:
        part["metadata"]["namespace"] = servers.namespace
    said = kubectl("apply", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump_all(found))
    assert said.count("server dry run") == len(found)


def test_kubectl_refuses_an_unknown_field(kubectl: Callable[..., str]) -> None:
    """A typo is seen when it is made."""
    typo = json.dumps(resource({"replica": 2}, "typo"))
    with pytest.raises(CommandError, match=r'unknown field "spec\.replica"'):
        kubectl("apply", "--dry-run=server", "-f", "-", stdin=typo)


def test_other_clients_are_warned_of_an_unknown_field(servers: Servers) -> None:
    """An older client's field is pruned, and the answer says so."""
    stored, warnings = servers.try_out(resource({"replica": 2}, "typo"), field_validation="Warn")
    assert "replica" not in stored["spec"]
    assert 'unknown field \\"spec.replica\\"' in warnings


def test_defaults_are_shown_and_no_union_is_filled(servers: Servers) -> None:
    """`kubectl get -o yaml` tells what an empty spec means, and leaves the choice of a store open."""
    stored, _ = servers.try_out(resource({}, "empty"))
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


def test_scaling_past_what_background_jobs_allow_is_refused(
    servers: Servers, kubectl: Callable[..., str]
) -> None:
    """The scale subresource is no way around the rules."""
    name = servers.stored(json.dumps({"jobExecution": "Enabled"}))
    with pytest.raises(CommandError, match="lower replicas, or set jobExecution to Disabled"):
        kubectl("scale", f"mls/{name}", "--replicas=2")


def test_every_field_explains_itself(kubectl: Callable[..., str]) -> None:
    """`kubectl explain` is the first place to look."""
    explained = " ".join(kubectl("explain", "mls.spec.artifacts.access").split())
    assert "Proxied: everything passes through the server" in explained
