"""What the operator's chart makes: objects that Kubernetes takes, for an operator that is confined and starts."""

import tomllib
from typing import Any

import click
import pytest

from mlflow_operator.cli import main
from mlflow_operator.kube.objects import Object
from tests.chart.kubeconform import NEWEST, OLDEST, TESTED, misfits
from tests.chart.rendering import (
    CASES,
    EVERYTHING,
    NAMESPACE,
    SERVER_CASES,
    only,
    refusal,
    render,
    render_server,
)
from tests.cluster.settings import ROOT, load
from tests.generate import CHART, CHARTS, Failed, helm

CLUSTER_SCOPED = {"ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"}


def test_helm_finds_nothing_to_complain_about() -> None:
    """Not even a warning."""
    helm("lint", "--strict", f"--kube-version={TESTED}", *map(str, CHARTS))


@pytest.mark.parametrize("kubernetes", [OLDEST, NEWEST])
def test_every_object_of_both_charts_fits_its_schema(kubernetes: str) -> None:
    """In the oldest Kubernetes that is supported and the newest that is known; unknown fields count."""
    made = [obj for values in CASES.values() for obj in render(values)]
    made += [obj for values in SERVER_CASES.values() for obj in render_server(values)]
    assert {"ServiceMonitor", "MLflowServer"} <= {obj["kind"] for obj in made}
    assert misfits(made, kubernetes) == []


def test_what_does_not_fit_is_found() -> None:
    """An unknown field of each sort of schema, and a kind that has none."""
    monitor, server = only(render(EVERYTHING), "ServiceMonitor"), only(render_server(), "MLflowServer")
    wrong = [
        monitor | {"spec": monitor["spec"] | {"endpoint": []}},
        server | {"spec": {"replica": 2}},
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "stringdata": {}},
        {"apiVersion": "example.com/v1", "kind": "Unheard", "metadata": {"name": "a"}},
    ]
    told = sorted(misfits(wrong, OLDEST))
    assert [line.split()[0] for line in told] == ["MLflowServer", "Secret", "ServiceMonitor", "Unheard"]
    for line, word in zip(told, ("replica", "stringdata", "endpoint", "schema"), strict=True):
        assert word in line


@pytest.mark.parametrize("case", CASES)
def test_no_object_is_left_to_the_current_context(case: str) -> None:
    """`helm template | kubectl apply -f -` must not spread objects over whatever namespace is current."""
    for obj in render(CASES[case]):
        assert ("namespace" in obj["metadata"]) != (obj["kind"] in CLUSTER_SCOPED), obj["metadata"]


@pytest.mark.parametrize("case", CASES)
def test_no_two_objects_share_a_name(case: str) -> None:
    """The second would overwrite the first."""
    made = [(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in render(CASES[case])]
    assert len(made) == len(set(made))


def test_a_kubernetes_that_is_too_old_is_refused() -> None:
    """Before anything is made."""
    with pytest.raises(Failed, match=r"1\.29"):
        render(kubernetes="1.29.9")


def test_the_versions_are_the_project_s() -> None:
    """One number: the chart installs the operator of the same commit."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    image = _container(render())["image"]
    assert image == f"{load().pins['IMAGE_OPERATOR']}:{version}"
    assert only(render(), "Deployment")["metadata"]["labels"]["app.kubernetes.io/version"] == version


@pytest.mark.parametrize("case", CASES)
def test_the_pod_passes_restricted_pod_security(case: str) -> None:
    """And goes beyond it: nothing is writable but an emptyDir."""
    pod, container = _pod(render(CASES[case])), _container(render(CASES[case]))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
    assert [volume.keys() - {"name"} for volume in pod["volumes"]] == [{"emptyDir"}]


def test_any_user_id_will_do() -> None:
    """OpenShift gives pods an id of its own and refuses those that ask for one."""
    assert "runAsUser" not in _pod(render())["securityContext"]


@pytest.mark.parametrize("case", CASES)
def test_the_operator_takes_its_arguments(case: str) -> None:
    """What the chart passes is what the command knows."""
    _options(CASES[case])


def test_every_setting_reaches_the_operator() -> None:
    """Under the meaning the value has."""
    options = _options({**EVERYTHING, "watchNamespaces": ["team-a", "team-b"]})
    assert options == {
        "namespaces": ("team-a", "team-b"),
        "image_mlflow": "registry.example.com:5000/mlflow",
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


def test_every_setting_reaches_the_pod() -> None:
    """As it was given."""
    pod, container = _pod(render(EVERYTHING)), _container(render(EVERYTHING))
    template = only(render(EVERYTHING), "Deployment")["spec"]["template"]["metadata"]
    assert container["image"] == "registry.example.com:5000/operator:2.0.0"
    assert container["imagePullPolicy"] == "Always"
    # Helm lays what is set over the defaults: what was not set stays.
    assert container["resources"] == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"cpu": 1, "memory": "1Gi"},
    }
    assert [one for one in container["env"] if "DOCTOR" not in one["name"]] == EVERYTHING["extraEnv"]
    for member in ("imagePullSecrets", "nodeSelector", "tolerations", "affinity", "priorityClassName"):
        assert pod[member] == EVERYTHING[member]
    assert pod["serviceAccountName"] == "somebody"
    assert template["annotations"] == EVERYTHING["podAnnotations"]
    assert template["labels"].items() >= EVERYTHING["podLabels"].items()


def test_probes_and_metrics_find_the_operator_s_port() -> None:
    """One port, by name; the Service and the selectors lead to the pod."""
    objects = render()
    container, service, deployment = (
        _container(objects),
        only(objects, "Service"),
        only(objects, "Deployment"),
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


def test_one_operator_never_blocks_a_drain() -> None:
    """A budget for a single pod would; from two on it keeps one working."""
    assert "PodDisruptionBudget" not in {obj["kind"] for obj in render()}
    budget, deployment = (
        only(render({"replicas": 2}), kind) for kind in ("PodDisruptionBudget", "Deployment")
    )
    assert budget["spec"] == {"maxUnavailable": 1, "selector": deployment["spec"]["selector"]}
    assert _pod(render({"replicas": 2}))["topologySpreadConstraints"]


def test_prometheus_finds_the_operator_through_its_service() -> None:
    """Where it is wanted: by the Service's labels, the port's name, and in the release's namespace."""
    assert "ServiceMonitor" not in {obj["kind"] for obj in render()}
    objects = render({"metrics": {"serviceMonitor": {"create": True, "labels": {"release": "prometheus"}}}})
    monitor, service = only(objects, "ServiceMonitor"), only(objects, "Service")
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["namespaceSelector"] == {"matchNames": [service["metadata"]["namespace"]]}
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    assert service["metadata"]["labels"].items() >= selected
    assert [end["port"] for end in monitor["spec"]["endpoints"]] == [
        p["name"] for p in service["spec"]["ports"]
    ]


def test_a_monitor_that_could_find_nothing_is_refused() -> None:
    """Without its Service, and in a cluster without the Prometheus operator."""
    wanted = {"serviceMonitor": {"create": True}}
    assert "metrics.service.create" in refusal({"metrics": {"service": {"create": False}, **wanted}})
    cluster: tuple[str, ...] = ("apiregistration.k8s.io/v1",)
    assert "Install the Prometheus operator" in refusal({"metrics": wanted}, apis=cluster)
    cluster += ("monitoring.coreos.com/v1/ServiceMonitor",)
    assert not refusal({"metrics": wanted}, apis=cluster)


def test_a_roll_out_never_leaves_the_cluster_without_an_operator() -> None:
    """The new pod is there before the old one goes; the lease keeps two from working at once."""
    rolling = only(render(), "Deployment")["spec"]["strategy"]["rollingUpdate"]
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
def test_names_follow_the_release(release: str, name: str) -> None:
    """Two releases in a namespace do not meet, and no name gets too long for a label."""
    text = helm(
        "template", release, str(CHART), f"--kube-version={TESTED}", "--show-only=templates/deployment.yaml"
    )
    assert f"\n  name: {name}\n" in text


def test_a_service_account_of_one_s_own_gets_the_roles() -> None:
    """Nothing is made, everything is bound to it."""
    objects = render({"serviceAccount": {"create": False, "name": "mine"}})
    assert "ServiceAccount" not in {obj["kind"] for obj in objects}
    assert _pod(objects)["serviceAccountName"] == "mine"
    bindings = [obj for obj in objects if obj["kind"].endswith("Binding")]
    assert [binding["subjects"] for binding in bindings] == 3 * [
        [{"kind": "ServiceAccount", "name": "mine", "namespace": NAMESPACE}]
    ]


def test_before_the_release_goes_the_finalizers_do() -> None:
    """By the operator's own image, under the same confinement, and not taken for one of the operator's pods."""
    objects = render({**EVERYTHING, "watchNamespaces": ["team-a"]})
    job, deployment = only(objects, "Job"), only(objects, "Deployment")
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
    pod, other = job["spec"]["template"], deployment["spec"]["template"]
    (container,), (operator,) = pod["spec"]["containers"], other["spec"]["containers"]
    for same in ("image", "imagePullPolicy", "securityContext", "resources"):
        assert container[same] == operator[same]
    for same in ("serviceAccountName", "securityContext", "tolerations", "nodeSelector", "imagePullSecrets"):
        assert pod["spec"][same] == other["spec"][same]
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert not pod["metadata"]["labels"].items() >= selector.items()
    command, *rest = container["args"]
    assert isinstance(main, click.Group)
    assert main.commands[command].make_context(command, rest).params == {
        "namespaces": ("team-a",),
        "operator": f"{NAMESPACE}/{deployment['metadata']['name']}",
    }


def _pod(objects: list[Object]) -> Object:
    pod: Object = only(objects, "Deployment")["spec"]["template"]["spec"]
    return pod


def _container(objects: list[Object]) -> Object:
    (container,) = _pod(objects)["containers"]
    found: Object = container
    return found


def _options(values: Any) -> dict[str, Any]:
    command, *rest = _container(render(values))["args"]
    assert isinstance(main, click.Group)
    return main.commands[command].make_context(command, rest).params
