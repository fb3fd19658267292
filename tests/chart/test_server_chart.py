"""The chart mlflow-server: one MLflowServer that says what was set and nothing else, and a test of it."""

import json
from typing import Any

import pytest
import yaml

from mlflow_operator import api
from mlflow_operator.api.crd import openapi_schema
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env
from mlflow_operator.model.names import Names
from mlflow_operator.model.pod_template import CONTAINER_SECURITY
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import DEFAULT_VERSION, Images
from tests import server_values
from tests.chart.rendering import SERVER_CASES, only, refusal, render_server
from tests.cluster.settings import ROOT
from tests.generate import CHARTS, SERVER_CHART

CLUSTER = ("apiregistration.k8s.io/v1",)
"""What tells a cluster from none."""

KNOWN = (*CLUSTER, "mlflow-operator.dev/v1alpha1/MLflowServer")

each_case = pytest.mark.parametrize("case", SERVER_CASES)


def server(values: Any = None, **more: Any) -> Object:
    """The MLflowServer."""
    return only(render_server(values, **more), "MLflowServer")


def pod(values: Any = None) -> Object:
    """The pod of `helm test`."""
    return only(render_server(values), "Pod")


def refused(values: Any = None, release: str = "tracking", apis: tuple[str, ...] = ()) -> str:
    """What Helm says to it; nothing if it is taken."""
    return refusal(values or {}, chart=str(SERVER_CHART), release=release, apis=apis)


def test_what_is_not_set_is_not_said() -> None:
    """So that defaults stay the operator's, and replicas an autoscaler's."""
    assert "spec" not in server()
    assert "annotations" not in server()["metadata"]


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 0},
        {"suspend": False},
        {"podTemplate": {"spec": {"securityContext": {"runAsUser": 1000650000}}}},
        {"env": [{"name": "A", "value": "on"}], "allowedHosts": ["a.example.com"]},
        {"database": {"embedded": {}}},
        {"resources": {"requests": {"cpu": 1, "memory": "1Gi"}}},
    ],
)
def test_what_is_set_is_said_as_it_was_set(spec: Object) -> None:
    """Zero, false, large numbers, words that YAML takes for something else, and the empty member of a union."""
    assert server(spec)["spec"] == spec


@each_case
def test_the_server_is_one(case: str) -> None:
    """The models take it."""
    api.parse(server(SERVER_CASES[case]))


@pytest.mark.parametrize(
    "example", sorted((ROOT / "manifests" / "examples").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_example_can_be_had_through_the_chart(example: Any) -> None:
    """Its spec as values makes the very same spec."""
    documents = [d for d in yaml.safe_load_all(example.read_text()) if d and d["kind"] == api.KIND]
    assert documents
    for written in documents:
        assert server(written["spec"])["spec"] == written["spec"]


def test_labels_of_the_owner_win() -> None:
    """And stand beside the chart's own."""
    labels = server({"labels": {"team": "a", "app.kubernetes.io/name": "mine"}})["metadata"]["labels"]
    assert labels["team"] == "a"
    assert labels["app.kubernetes.io/name"] == "mine"
    assert labels["app.kubernetes.io/instance"] == "tracking"


def test_it_is_called_after_the_release() -> None:
    """Unless another name is set."""
    assert server(release="a" * 40)["metadata"]["name"] == "a" * 40
    assert server({"fullnameOverride": "other"}, release="9" * 53)["metadata"]["name"] == "other"


@pytest.mark.parametrize("name", ["a" * 41, "9tracking", "track.ing"])
def test_a_name_that_can_be_no_server_is_refused(name: str) -> None:
    """With the rule, and the way out for a release that is there already."""
    said = refused(release=name)
    assert f'The name of the release, "{name}", can\'t be the name of an MLflowServer' in said
    assert f"at most 40 characters (these are {len(name)})" in said
    assert "set fullnameOverride" in said
    assert refused({"fullnameOverride": name}).count("fullnameOverride") >= 1


def test_a_cluster_without_the_operator_is_told_apart() -> None:
    """In a sentence with the next command; and without a cluster, templates can be looked at."""
    assert "Install the operator first: helm upgrade --install mlflow-operator" in refused(apis=CLUSTER)
    assert not refused(apis=KNOWN)
    assert not refused()


@pytest.mark.parametrize(
    ("values", "field", "why"),
    [
        ({"replica": 2}, "replica", "not allowed"),
        ({"replicas": "two"}, "/replicas", "want null or integer"),
        ({"replicas": 101}, "/replicas", "maximum"),
        ({"workers": 0}, "/workers", "minimum"),
        ({"jobExecution": "On"}, "/jobExecution", "'Enabled'"),
        ({"database": {"embeded": {}}}, "/database", "embeded"),
        ({"database": {"external": None}}, "/database/external", "want object"),
        (
            {"database": {"external": {"host": "db", "port": "5432"}}},
            "/database/external/port",
            "want integer",
        ),
        ({"artifacts": {"s3": {"region": "us-east-1"}}}, "/artifacts/s3", "'bucket'"),
        ({"artifacts": {"access": "Mounted"}}, "/artifacts/access", "'Presigned'"),
        ({"env": [{"name": "A", "value": 1}]}, "/env/0/value", "want string"),
        ({"podTemplate": {"spec": {"hostNetwork": True}}}, "/podTemplate/spec", "hostNetwork"),
        ({"service": {"type": "ExternalName"}}, "/service/type", "'NodePort'"),
        ({"labels": {"a": 1}}, "/labels/a", "want string"),
        ({"test": {"images": "a"}}, "/test", "images"),
    ],
)
def test_a_slip_is_refused_by_name(values: Object, field: str, why: str) -> None:
    """Before anything reaches the cluster."""
    said = refused(values)
    assert f"at '{field}'" in said or field in said
    assert why in said


def test_a_value_can_be_taken_back() -> None:
    """`--set replicas=null` over a file of values that has it."""
    assert "spec" not in server({"replicas": None, "jobExecution": None})


def test_every_field_of_the_spec_is_a_value() -> None:
    """With its explanation, and not set."""
    values = yaml.safe_load((SERVER_CHART / "values.yaml").read_text())
    fields = openapi_schema()["properties"]["spec"]["properties"].keys()
    assert set(values) == set(fields) | (server_values.OWN.keys() - {"global"})
    assert {name for name in fields if values[name]} == set()


def test_a_field_never_hides_a_value_of_the_chart_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new field of such a name fails when the schema is made, not in somebody's release."""
    monkeypatch.setitem(server_values.OWN, "replicas", {})
    with pytest.raises(ValueError, match="replicas"):
        server_values.schema()


def test_the_chart_s_schema_is_as_strict_as_it_looks() -> None:
    """Every object that the definition describes is closed, but for those that it leaves to Kubernetes."""
    whole = json.loads((SERVER_CHART / "values.schema.json").read_text())
    open_ended = {path for path, node in _objects(whole) if node.get("additionalProperties", True) is True}
    assert open_ended == {
        ".global",
        ".podTemplate.spec.affinity",
        ".podTemplate.spec.securityContext",
        ".podTemplate.spec.topologySpreadConstraints[].labelSelector",
        ".podTemplate.spec.volumes[]",
    }


def test_versions_are_the_project_s() -> None:
    """Both charts are released together; the MLflow is the one that the operator gives."""
    operator, ours = (yaml.safe_load((chart / "Chart.yaml").read_text()) for chart in CHARTS)
    assert ours["version"] == operator["version"]
    assert ours["kubeVersion"] == operator["kubeVersion"]
    assert ours["appVersion"] == DEFAULT_VERSION


@each_case
def test_the_test_runs_where_and_as_the_server_does(case: str) -> None:
    """Same name, image, pull secrets, placement and user: what lets the server's pods start lets it, too."""
    values = SERVER_CASES[case]
    made = resolve(api.parse(server(values)), ClusterDefaults(Images()))
    found, spec = pod(values), pod(values)["spec"]
    (container,) = spec["containers"]
    expected = values.get("test", {}).get("image") or made.image
    assert container["image"] == expected
    assert container["envFrom"] == [{"configMapRef": {"name": Names(made.owner.name).client}}]
    assert (
        spec["securityContext"].items()
        >= {"runAsUser": mlflow_env.USER, **made.pods.security_context}.items()
    )
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == CONTAINER_SECURITY
    assert spec["automountServiceAccountToken"] is False
    assert spec.get("imagePullSecrets", []) == list(made.pods.pull_secrets)
    assert spec.get("nodeSelector", {}) == made.pods.node_selector
    assert spec.get("tolerations", []) == list(made.pods.tolerations)
    assert spec.get("serviceAccountName") == made.pods.service_account
    assert spec.get("priorityClassName") == made.pods.priority_class
    assert container.get("imagePullPolicy") == values.get("imagePullPolicy")
    assert found["metadata"]["annotations"]["helm.sh/hook"] == "test"


def test_the_test_is_no_pod_of_the_server_s() -> None:
    """Neither the operator nor the Service nor a budget takes it for one."""
    labels = pod()["metadata"]["labels"]
    assert not any(key.startswith("mlflow-operator.dev/") for key in labels)
    assert "app.kubernetes.io/managed-by" not in labels


@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({}, f"ghcr.io/mlflow/mlflow:v{DEFAULT_VERSION}-full"),
        ({"version": "3.16.1"}, "ghcr.io/mlflow/mlflow:v3.16.1-full"),
        ({"version": "3.16.1", "image": "example.com/mlflow:1"}, "example.com/mlflow:1"),
        (
            {"image": "example.com/mlflow:1", "test": {"image": "example.com/client:1"}},
            "example.com/client:1",
        ),
    ],
)
def test_the_test_uses_the_server_s_image(values: Object, image: str) -> None:
    """Its client is of the server's version. What a live server's status says needs a cluster: tests/e2e."""
    (container,) = pod(values)["spec"]["containers"]
    assert container["image"] == image


def test_the_test_trusts_the_store_that_it_reaches_itself() -> None:
    """With presigned URLs clients speak to the store; behind the server they need not."""
    presigned = SERVER_CASES["a store that clients reach, of a private authority"]
    spec = pod(presigned)["spec"]
    bundle = {e["name"]: e["value"] for e in spec["containers"][0]["env"]}["REQUESTS_CA_BUNDLE"]
    mounted = {m["mountPath"]: m["name"] for m in spec["containers"][0]["volumeMounts"]}
    volume = {v["name"]: v for v in spec["volumes"]}[mounted[bundle.rpartition("/")[0]]]
    assert volume["secret"] == {"secretName": "company-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    proxied = {"artifacts": presigned["artifacts"] | {"access": "Proxied"}}
    assert len(pod(proxied)["spec"]["volumes"]) == 1


def _objects(node: Any, path: str = "") -> Any:
    kinds = node.get("type", ())
    if "object" in ([kinds] if isinstance(kinds, str) else kinds):
        yield path, node
    for name, child in node.get("properties", {}).items():
        yield from _objects(child, f"{path}.{name}")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _objects(node["additionalProperties"], f"{path}.*")
    if "items" in node:
        yield from _objects(node["items"], f"{path}[]")
