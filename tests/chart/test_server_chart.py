"""The chart mlflow-server: an MLflowServer with exactly the configured fields, and a `helm test` pod."""

import json
from typing import Any

import pytest
import yaml

from mlflow_operator import api
from mlflow_operator.api.crd import openapi_schema
from mlflow_operator.api.pods import PodSpec
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env
from mlflow_operator.model.container_parts import CONTAINER_SECURITY
from mlflow_operator.model.names import Names
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import DEFAULT_VERSION, Images
from tests import server_values
from tests.chart.rendering import SERVER_VALUES_CASES, get_object, render_error, render_server
from tests.cluster.settings import ROOT
from tests.generate import CHARTS, SERVER_CHART
from tests.schema_nodes import walk_schema

CLUSTER_API_VERSIONS = ("apiregistration.k8s.io/v1",)
"""API versions of a cluster without the operator. `helm template` without a cluster does not have them."""

API_VERSIONS_WITH_CRD = (*CLUSTER_API_VERSIONS, "mlflow-operator.dev/v1alpha1/MLflowServer")

for_each_case = pytest.mark.parametrize("case", SERVER_VALUES_CASES)


def rendered_server(values: Any = None, **options: Any) -> Object:
    """The MLflowServer that the chart renders."""
    return get_object(render_server(values, **options), "MLflowServer")


def rendered_test_pod(values: Any = None) -> Object:
    """The `helm test` pod that the chart renders."""
    return get_object(render_server(values), "Pod")


def server_render_error(
    values: Any = None, release: str = "tracking", api_versions: tuple[str, ...] = ()
) -> str:
    """Error message of Helm, or "" if it accepts the values."""
    return render_error(values or {}, chart=str(SERVER_CHART), release=release, api_versions=api_versions)


def test_unset_values_are_not_rendered() -> None:
    """The operator controls the defaults, and an autoscaler controls the replicas."""
    assert "spec" not in rendered_server()
    assert "annotations" not in rendered_server()["metadata"]


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
def test_values_are_rendered_unchanged(spec: Object) -> None:
    """Zero, false, large numbers, strings that YAML would parse as another type, and an empty union field."""
    assert rendered_server(spec)["spec"] == spec


@for_each_case
def test_rendered_server_is_valid(case: str) -> None:
    """The models accept it."""
    api.parse(rendered_server(SERVER_VALUES_CASES[case]))


@pytest.mark.parametrize(
    "example", sorted((ROOT / "manifests" / "examples").glob("*.yaml")), ids=lambda p: p.stem
)
def test_specs_of_examples_are_valid_values(example: Any) -> None:
    """The chart renders the same spec from the spec of an example. Without values there is none, which means `{}`."""
    documents = [d for d in yaml.safe_load_all(example.read_text()) if d and d["kind"] == api.KIND]
    assert documents
    for document in documents:
        assert rendered_server(document["spec"]).get("spec", {}) == document["spec"]


def test_user_labels_take_precedence() -> None:
    """They are added to the labels of the chart."""
    labels = rendered_server({"labels": {"team": "a", "app.kubernetes.io/name": "mine"}})["metadata"][
        "labels"
    ]
    assert labels["team"] == "a"
    assert labels["app.kubernetes.io/name"] == "mine"
    assert labels["app.kubernetes.io/instance"] == "tracking"


def test_server_has_the_release_name() -> None:
    """Unless fullnameOverride is set."""
    assert rendered_server(release="a" * 40)["metadata"]["name"] == "a" * 40
    assert rendered_server({"fullnameOverride": "other"}, release="9" * 53)["metadata"]["name"] == "other"


@pytest.mark.parametrize("name", ["a" * 41, "9tracking", "track.ing"])
def test_invalid_server_name_is_rejected(name: str) -> None:
    """The message states the rule and how to keep an existing release name."""
    error = server_render_error(release=name)
    assert f'The release name, "{name}", is not a valid name for an MLflowServer' in error
    assert f"at most 40 characters (it has {len(name)})" in error
    assert "set fullnameOverride" in error
    assert server_render_error({"fullnameOverride": name}).count("fullnameOverride") >= 1


def test_cluster_without_the_crd_is_rejected() -> None:
    """The message contains the command that installs the operator. `helm template` works without a cluster."""
    assert "Install the operator first: helm upgrade --install mlflow-operator" in server_render_error(
        api_versions=CLUSTER_API_VERSIONS
    )
    assert not server_render_error(api_versions=API_VERSIONS_WITH_CRD)
    assert not server_render_error()


@pytest.mark.parametrize(
    ("values", "field", "message"),
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
def test_invalid_value_is_rejected(values: Object, field: str, message: str) -> None:
    """Helm validates values before it sends anything to the cluster."""
    error = server_render_error(values)
    assert f"at '{field}'" in error or field in error
    assert message in error


def test_null_removes_a_value() -> None:
    """`--set replicas=null` overrides a values file."""
    assert "spec" not in rendered_server({"replicas": None, "jobExecution": None})


def test_every_spec_field_is_a_value() -> None:
    """It is in values.yaml, without a value."""
    values = yaml.safe_load((SERVER_CHART / "values.yaml").read_text())
    fields = openapi_schema()["properties"]["spec"]["properties"].keys()
    assert set(values) == set(fields) | (server_values.CHART_VALUES.keys() - {"global"})
    assert {name for name in fields if values[name]} == set()


def test_conflict_of_spec_field_and_chart_value_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """`make generate` fails if a new field of the spec has the name of a value of the chart."""
    monkeypatch.setitem(server_values.CHART_VALUES, "replicas", {})
    with pytest.raises(ValueError, match="replicas"):
        server_values.schema()


def test_schema_rejects_unknown_fields() -> None:
    """Except in objects that the CRD does not define and that Kubernetes validates."""
    schema = json.loads((SERVER_CHART / "values.schema.json").read_text())
    open_ended = {
        path
        for path, node in walk_schema(schema)
        if _is_object(node) and node.get("additionalProperties", True) is True
    }
    assert open_ended == {
        ".global",
        ".podTemplate.spec.affinity",
        ".podTemplate.spec.topologySpreadConstraints[].labelSelector",
        *(
            f".podTemplate.spec.volumes[].{name}"
            for name in (
                *(
                    "configMap",
                    "secret",
                    "emptyDir",
                    "persistentVolumeClaim",
                    "downwardAPI",
                    "csi",
                    "ephemeral",
                ),
                *(f"projected.sources[].{source}" for source in ("configMap", "secret", "downwardAPI")),
            )
        ),
    }


def test_chart_versions_are_equal() -> None:
    """Both charts are released together. The appVersion is the default MLflow version of the operator."""
    operator, server = (yaml.safe_load((chart / "Chart.yaml").read_text()) for chart in CHARTS)
    assert server["version"] == operator["version"]
    assert server["kubeVersion"] == operator["kubeVersion"]
    assert server["appVersion"] == DEFAULT_VERSION


@for_each_case
def test_helm_test_pod_has_the_settings_of_the_server_pods(case: str) -> None:
    """Same image, pull secrets, scheduling and user: if the server pods can start, the test pod can start, too."""
    values = SERVER_VALUES_CASES[case]
    resolved = resolve(api.parse(rendered_server(values)), ClusterDefaults(Images()))
    pod, spec = rendered_test_pod(values), rendered_test_pod(values)["spec"]
    (container,) = spec["containers"]
    expected = values.get("test", {}).get("image") or resolved.image
    assert container["image"] == expected
    assert container["envFrom"] == [{"configMapRef": {"name": Names(resolved.owner.name).client}}]
    assert (
        spec["securityContext"].items()
        >= {"runAsUser": mlflow_env.RUN_AS_USER, **resolved.pods.security_context}.items()
    )
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == CONTAINER_SECURITY
    assert spec["automountServiceAccountToken"] is False
    assert spec.get("imagePullSecrets", []) == list(resolved.pods.image_pull_secrets)
    assert spec.get("nodeSelector", {}) == resolved.pods.node_selector
    assert spec.get("tolerations", []) == list(resolved.pods.tolerations)
    assert spec.get("serviceAccountName") == resolved.pods.service_account
    assert spec.get("priorityClassName") == resolved.pods.priority_class
    assert container.get("imagePullPolicy") == values.get("imagePullPolicy")
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"


POD_SPEC_FIELDS: Object = {
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"operator": "Exists"}],
    "priorityClassName": "high",
    "serviceAccountName": "tracking",
    "imagePullSecrets": [{"name": "login"}],
}
SERVER_POD_SPEC_FIELDS: Object = {
    "affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [
        {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
    ],
    "volumes": [{"name": "extra", "emptyDir": {}}],
}
"""Fields of `podTemplate.spec` that only the server pods have."""


def test_helm_test_pod_has_each_pod_field_that_is_not_only_for_server_pods() -> None:
    """A new field of `podTemplate.spec` must be added to one of the two sets. `securityContext` is merged."""
    spec = {**POD_SPEC_FIELDS, **SERVER_POD_SPEC_FIELDS}
    fields = {field.alias for field in PodSpec.model_fields.values()}
    assert fields == {*spec, "securityContext"}
    pod_spec = rendered_test_pod({"podTemplate": {"spec": spec}})["spec"]
    assert {key: pod_spec.get(key) for key in POD_SPEC_FIELDS} == POD_SPEC_FIELDS
    # The pod has volumes of its own.
    assert pod_spec.keys() & SERVER_POD_SPEC_FIELDS.keys() == {"volumes"}
    assert "extra" not in {volume["name"] for volume in pod_spec["volumes"]}


def test_helm_test_pod_has_no_labels_of_the_server() -> None:
    """The operator, the Service and the PodDisruptionBudget must not select it."""
    labels = rendered_test_pod()["metadata"]["labels"]
    assert not any(key.startswith("mlflow-operator.dev/") for key in labels)
    assert "app.kubernetes.io/managed-by" not in labels


def test_labels_annotations_and_resources_of_the_helm_test_pod_can_be_set() -> None:
    """For a namespace with a service mesh or a ResourceQuota. The labels of the chart take precedence."""
    values = SERVER_VALUES_CASES["many values"]["test"]
    pod = rendered_test_pod({"test": values | {"podLabels": {"app.kubernetes.io/component": "x", "a": "b"}}})
    assert pod["metadata"]["labels"]["a"] == "b"
    assert pod["metadata"]["labels"]["app.kubernetes.io/component"] == "test"
    assert pod["metadata"]["annotations"]["linkerd.io/inject"] == "enabled"
    assert pod["metadata"]["annotations"]["helm.sh/hook"] == "test"
    resources = pod["spec"]["containers"][0]["resources"]
    assert resources["limits"] == values["resources"]["limits"]
    assert resources["requests"], "the default, because Helm merges maps"


def test_helm_test_ends_the_proxy_of_a_service_mesh() -> None:
    """After a success and after a failure: a proxy that runs keeps Helm waiting until its timeout."""
    (container,) = rendered_test_pod()["spec"]["containers"]
    program = container["command"][-1]
    assert program.rstrip().endswith("try:\n    main()\nfinally:\n    stop_proxies()")
    assert "http://127.0.0.1:15020/quitquitquit" in program
    assert "http://127.0.0.1:4191/shutdown" in program


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
def test_helm_test_pod_uses_the_server_image(values: Object, image: str) -> None:
    """Its client has the version of the server. tests/e2e tests the image from the status of a running server."""
    (container,) = rendered_test_pod(values)["spec"]["containers"]
    assert container["image"] == image


def test_helm_test_pod_trusts_the_ca_of_the_store_with_presigned_urls() -> None:
    """With presigned URLs clients connect to the store. With access Proxied they do not need its CA."""
    presigned = SERVER_VALUES_CASES["presigned URLs and a private CA"]
    spec = rendered_test_pod(presigned)["spec"]
    bundle = {e["name"]: e["value"] for e in spec["containers"][0]["env"]}["REQUESTS_CA_BUNDLE"]
    mounted = {m["mountPath"]: m["name"] for m in spec["containers"][0]["volumeMounts"]}
    volume = {v["name"]: v for v in spec["volumes"]}[mounted[bundle.rpartition("/")[0]]]
    assert volume["secret"] == {"secretName": "company-ca", "items": [{"key": "ca.crt", "path": "ca.crt"}]}
    proxied = {"artifacts": presigned["artifacts"] | {"access": "Proxied"}}
    assert len(rendered_test_pod(proxied)["spec"]["volumes"]) == 1


def _is_object(node: Any) -> bool:
    types = node.get("type", ())
    return "object" in ([types] if isinstance(types, str) else types)
