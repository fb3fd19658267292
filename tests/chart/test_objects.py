"""Objects of the operator's chart: valid for Kubernetes, restricted, and with valid arguments."""

import tomllib
from collections.abc import Mapping
from typing import Any

import click
import pytest

from mlflow_operator.cli import main
from mlflow_operator.kube.objects import Object
from tests.chart.kubeconform import NEWEST_KUBERNETES, OLDEST_KUBERNETES, TESTED_KUBERNETES, schema_errors
from tests.chart.rendering import (
    ALL_VALUES,
    NAMESPACE,
    SERVER_VALUES_CASES,
    VALUES_CASES,
    get_object,
    render,
    render_error,
    render_server,
)
from tests.cluster.settings import ROOT, load
from tests.generate import CHART, CHARTS, ToolError, helm

CLUSTER_SCOPED = {
    "ClusterRole",
    "ClusterRoleBinding",
    "CustomResourceDefinition",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
}


def test_helm_lint_passes() -> None:
    """With `--strict`, warnings are errors."""
    helm("lint", "--strict", f"--kube-version={TESTED_KUBERNETES}", *map(str, CHARTS))


@pytest.mark.parametrize("kubernetes", [OLDEST_KUBERNETES, NEWEST_KUBERNETES])
def test_objects_of_both_charts_match_their_schemas(kubernetes: str) -> None:
    """In the oldest supported and the newest known Kubernetes version. Unknown fields are errors."""
    objects = [obj for values in VALUES_CASES.values() for obj in render(values)]
    objects += [obj for values in SERVER_VALUES_CASES.values() for obj in render_server(values)]
    assert {"ServiceMonitor", "MLflowServer"} <= {obj["kind"] for obj in objects}
    assert schema_errors(objects, kubernetes) == []


def test_schema_errors_are_reported() -> None:
    """Unknown fields in each type of schema, and a kind without a schema."""
    monitor, server = (
        get_object(render(ALL_VALUES), "ServiceMonitor"),
        get_object(render_server(), "MLflowServer"),
    )
    invalid = [
        monitor | {"spec": monitor["spec"] | {"endpoint": []}},
        server | {"spec": {"replica": 2}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringdata": {}},
        {"apiVersion": "example.com/v1", "kind": "Unknown", "metadata": {"name": "a"}},
    ]
    errors = sorted(schema_errors(invalid, OLDEST_KUBERNETES))
    assert [line.split()[0] for line in errors] == ["MLflowServer", "Secret", "ServiceMonitor", "Unknown"]
    for line, word in zip(errors, ("replica", "stringdata", "endpoint", "schema"), strict=True):
        assert word in line


@pytest.mark.parametrize("case", VALUES_CASES)
def test_namespaced_objects_have_an_explicit_namespace(case: str) -> None:
    """`helm template | kubectl apply -f -` must not create objects in the current namespace."""
    for obj in render(VALUES_CASES[case]):
        assert ("namespace" in obj["metadata"]) != (obj["kind"] in CLUSTER_SCOPED), obj["metadata"]


@pytest.mark.parametrize("case", VALUES_CASES)
def test_object_names_are_unique(case: str) -> None:
    """The second object would overwrite the first."""
    keys = [
        (o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in render(VALUES_CASES[case])
    ]
    assert len(keys) == len(set(keys))


def test_unsupported_kubernetes_version_is_rejected() -> None:
    """Helm fails before it creates objects."""
    with pytest.raises(ToolError, match=r"1\.29"):
        render(kubernetes="1.29.9")


def test_chart_version_is_the_project_version() -> None:
    """The chart installs the operator image of the same version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = _container(render())["image"]
    assert image == f"{load().pins['IMAGE_OPERATOR']}:{version}"
    assert get_object(render(), "Deployment")["metadata"]["labels"]["app.kubernetes.io/version"] == version


@pytest.mark.parametrize("case", VALUES_CASES)
def test_pod_meets_restricted_pod_security(case: str) -> None:
    """In addition, the root file system is read-only, and the only volume is an emptyDir."""
    pod, container = _pod(render(VALUES_CASES[case])), _container(render(VALUES_CASES[case]))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert [volume.keys() - {"name"} for volume in pod["volumes"]] == [{"emptyDir"}]


def test_pod_sets_no_user_id() -> None:
    """OpenShift assigns a user ID and rejects pods that set one."""
    assert "runAsUser" not in _pod(render())["securityContext"]


@pytest.mark.parametrize("case", VALUES_CASES)
def test_operator_accepts_its_arguments(case: str) -> None:
    """The command line of the chart is valid for the command."""
    _options(VALUES_CASES[case])


def test_values_are_passed_to_the_operator() -> None:
    """Every value sets the corresponding option."""
    options = _options({**ALL_VALUES, "watchNamespaces": ["team-a", "team-b"]})
    assert options == {
        "namespaces": ("team-a", "team-b"),
        "image_mlflow": "registry.example.com:5000/mlflow",
        "image_mlflow_digests": (("3.16.1", "sha256:" + "b" * 64), ("3.17.2", "sha256:" + "a" * 64)),
        "image_postgres": "registry.example.com/postgres:17",
        "image_minio": "registry.example.com/minio@sha256:" + "0" * 64,
        "image_seaweedfs": "registry.example.com/seaweedfs:4",
        "cluster_domain": "cluster.example.com",
        "lease_namespace": None,
        "lease_name": "an-operator",
        "port": 8080,
        "log_level": "debug",
        "log_format": "text",
    }


def test_values_are_set_in_the_pod() -> None:
    """Every value sets the corresponding field."""
    pod, container = _pod(render(ALL_VALUES)), _container(render(ALL_VALUES))
    template = get_object(render(ALL_VALUES), "Deployment")["spec"]["template"]["metadata"]
    assert container["image"] == "registry.example.com:5000/operator:2.0.0"
    assert container["imagePullPolicy"] == "Always"
    # Helm merges the values with the defaults.
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": 1, "memory": "1Gi"},
    }
    assert [variable for variable in container["env"] if "DOCTOR" not in variable["name"]] == ALL_VALUES[
        "extraEnv"
    ]
    for field in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod[field] == ALL_VALUES[field]
    assert pod["serviceAccountName"] == "existing"
    assert template["annotations"] == ALL_VALUES["podAnnotations"]
    assert template["labels"].items() >= ALL_VALUES["podLabels"].items()


def _uninstall_pod_metadata(values: Mapping[str, Any]) -> Object:
    """Metadata of the pod of the pre-delete hook."""
    job = get_object(render(values), "Job")
    metadata: Object = job["spec"]["template"]["metadata"]
    return metadata


def test_uninstall_hook_is_excluded_from_service_meshes() -> None:
    """A proxy that never exits would make `helm uninstall` fail. The labels and annotations can be changed."""
    metadata = _uninstall_pod_metadata({})
    assert metadata["labels"]["sidecar.istio.io/inject"] == "false"
    assert metadata["labels"]["kuma.io/sidecar-injection"] == "disabled"
    assert metadata["annotations"] == {"linkerd.io/inject": "disabled"}
    changed = _uninstall_pod_metadata(ALL_VALUES)
    assert "sidecar.istio.io/inject" not in changed["labels"]
    assert changed["labels"]["example.com/mesh"] == "none"
    assert changed["annotations"]["example.com/mesh"] == "none"


def test_probes_and_service_use_the_metrics_port() -> None:
    """Probes and Service refer to the port by name, and the selectors match the labels of the pod."""
    objects = render()
    container, service, deployment = (
        _container(objects),
        get_object(objects, "Service"),
        get_object(objects, "Deployment"),
    )
    assert {port["name"]: port["containerPort"] for port in container["ports"]} == {"metrics": 8080}
    probes = {name: container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/healthz", "port": "metrics"},
        "readinessProbe": {"path": "/readyz", "port": "metrics"},
    }
    assert [port["targetPort"] for port in service["spec"]["ports"]] == ["metrics"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    assert labels >= service["spec"]["selector"].items()
    assert labels >= deployment["spec"]["selector"]["matchLabels"].items()


def test_one_replica_has_no_pod_disruption_budget() -> None:
    """With one replica it would block node drains. With two replicas it keeps one pod running."""
    assert "PodDisruptionBudget" not in {obj["kind"] for obj in render()}
    pdb, deployment = (
        get_object(render({"replicaCount": 2}), kind) for kind in ("PodDisruptionBudget", "Deployment")
    )
    assert pdb["spec"] == {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": deployment["spec"]["selector"],
    }
    assert _pod(render({"replicaCount": 2}))["topologySpreadConstraints"]


def test_service_monitor_selects_the_service() -> None:
    """By its labels, its port name and the namespace of the release. It is not created by default."""
    assert "ServiceMonitor" not in {obj["kind"] for obj in render()}
    objects = render({"metrics": {"serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}}}})
    monitor, service = get_object(objects, "ServiceMonitor"), get_object(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [service["metadata"]["namespace"]]}
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    assert service["metadata"]["labels"].items() >= selected
    assert [endpoint["port"] for endpoint in monitor["spec"]["endpoints"]] == [
        p["name"] for p in service["spec"]["ports"]
    ]


def test_service_monitor_without_service_or_crd_is_rejected() -> None:
    """Without the Service it would select nothing; without the Prometheus operator its CRD does not exist."""
    service_monitor = {"serviceMonitor": {"enabled": True}}
    assert "metrics.service.enabled" in render_error(
        {"metrics": {"service": {"enabled": False}, **service_monitor}}
    )
    api_versions: tuple[str, ...] = ("apiregistration.k8s.io/v1",)
    assert "Install the Prometheus operator" in render_error(
        {"metrics": service_monitor}, api_versions=api_versions
    )
    api_versions += ("monitoring.coreos.com/v1/ServiceMonitor",)
    assert not render_error({"metrics": service_monitor}, api_versions=api_versions)


def test_rollout_keeps_one_operator_running() -> None:
    """The new pod is created before the old one is deleted. The Lease prevents that both are active."""
    rolling = get_object(render(), "Deployment")["spec"]["strategy"]["rollingUpdate"]
    assert rolling == {"maxSurge": 1, "maxUnavailable": 0}


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("mlflow-operator", "mlflow-operator"),
        ("prod-mlflow-operator", "prod-mlflow-operator"),
        ("prod", "prod-mlflow-operator"),
        ("p" * 53, "p" * 53),
    ],
)
def test_names_contain_the_release_name(release: str, name: str) -> None:
    """Two releases in a namespace do not conflict, and names fit into a label."""
    text = helm(
        "template",
        release,
        str(CHART),
        f"--kube-version={TESTED_KUBERNETES}",
        "--show-only=templates/deployment.yaml",
    )
    assert f"\n  name: {name}\n" in text


def test_existing_service_account_is_bound_to_the_roles() -> None:
    """No service account is created, and all bindings refer to the existing one."""
    objects = render({"serviceAccount": {"create": False, "name": "mine"}})
    assert "ServiceAccount" not in {obj["kind"] for obj in objects}
    assert _pod(objects)["serviceAccountName"] == "mine"
    bindings = [obj for obj in objects if obj["kind"].endswith("RoleBinding")]
    assert [binding["subjects"] for binding in bindings] == 4 * [
        [{"kind": "ServiceAccount", "name": "mine", "namespace": NAMESPACE}]
    ]


def test_pre_delete_hook_removes_finalizers() -> None:
    """It uses the image and the security context of the operator, and the operator's selector does not match it."""
    objects = render({**ALL_VALUES, "watchNamespaces": ["team-a"]})
    job, deployment = get_object(objects, "Job"), get_object(objects, "Deployment")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    pod, operator_pod = job["spec"]["template"], deployment["spec"]["template"]
    (container,), (operator,) = pod["spec"]["containers"], operator_pod["spec"]["containers"]
    for field in ("image", "imagePullPolicy", "securityContext", "resources"):
        assert container[field] == operator[field]
    for field in ("serviceAccountName", "securityContext", "tolerations", "nodeSelector", "imagePullSecrets"):
        assert pod["spec"][field] == operator_pod["spec"][field]
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert not pod["metadata"]["labels"].items() >= selector.items()
    command, *args = container["args"]
    assert isinstance(main, click.Group)
    assert main.commands[command].make_context(command, args).params == {
        "namespaces": ("team-a",),
        "operator": f"{NAMESPACE}/{deployment['metadata']['name']}",
    }


def _pod(objects: list[Object]) -> Object:
    pod: Object = get_object(objects, "Deployment")["spec"]["template"]["spec"]
    return pod


def _container(objects: list[Object]) -> Object:
    (container,) = _pod(objects)["containers"]
    operator: Object = container
    return operator


def _options(values: Any) -> dict[str, Any]:
    command, *args = _container(render(values))["args"]
    assert isinstance(main, click.Group)
    return main.commands[command].make_context(command, args).params
