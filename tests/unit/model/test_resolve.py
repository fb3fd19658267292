"""Defaults are decided once, in `resolve`, and each as the documentation says."""

import pytest

from mlflow_operator.kube import quantity
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.deployment import deployment
from mlflow_operator.model.resolve import ClusterDefaults, cluster_defaults
from mlflow_operator.model.server import EmbeddedDatabase, ExternalDatabase, TLSMode
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS, Images
from tests.unit.servers import env, server


def test_an_empty_spec_is_a_whole_server() -> None:
    """Ten lines of YAML are enough: everything embedded, artifacts behind the server."""
    found = server()
    assert isinstance(found.database, EmbeddedDatabase)
    assert found.artifacts.embedded
    assert found.artifacts.proxied
    assert (found.replicas, found.workers, found.job_execution) == (1, 2, False)
    assert found.image == f"ghcr.io/mlflow/mlflow:v{DEFAULT_VERSION}-full"
    assert found.url == "http://a.team.svc:5000"


def test_an_operator_upgrade_never_changes_a_servers_version() -> None:
    """Without spec.version the server stays at what it runs, whatever the operator was tested with."""
    assert server(status={"version": "3.14.0"}).version == "3.14.0"
    assert server({"version": "3.16.1"}, status={"version": "3.14.0"}).version == "3.16.1"


def test_a_mirror_named_once_serves_every_server() -> None:
    """`--image-mlflow` and its like move all images, spec.image one."""
    images = Images("mirror/mlflow", "mirror/postgres:17", "mirror/minio:1", "mirror/weed:4")
    found = server(around=ClusterDefaults(images))
    assert found.image == f"mirror/mlflow:v{DEFAULT_VERSION}-full"
    assert isinstance(found.database, EmbeddedDatabase)
    assert found.artifacts.embedded
    assert (found.database.image, found.artifacts.embedded.image) == ("mirror/postgres:17", "mirror/minio:1")
    weed = server({"artifacts": {"embedded": {"engine": "SeaweedFS"}}}, ClusterDefaults(images)).artifacts
    assert weed.embedded
    assert weed.embedded.image == "mirror/weed:4"
    assert server({"image": "own:1"}, ClusterDefaults(images)).image == "own:1"


def test_suspended_means_no_replica() -> None:
    """Whatever spec.replicas says."""
    assert server({"suspend": True, "replicas": 3}).replicas == 0


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("jobs", [False, True])
@pytest.mark.parametrize("image", [{}, {"image": "own:1", "version": "3.17.2"}], ids=["official", "own"])
def test_default_memory_holds_the_workers(workers: int, jobs: bool, image: Object) -> None:
    """What MLflow was measured to need at rest fits the request, and twice the growth fits the limit."""
    waits = {1: 421, 2: 617, 4: 964, 8: 964 + 4 * 174}[workers] + (1310 if jobs else 0)
    serves = {1: 217, 2: 336, 4: 396, 8: 396 + 4 * 60}[workers]
    measured_mb = waits if jobs or image else serves
    spec: Object = {"workers": workers, "jobExecution": "Enabled" if jobs else "Disabled", **image}
    resources = server(spec).resources
    assert quantity.compare(resources["requests"]["memory"], f"{measured_mb}M") >= 0
    assert quantity.compare(resources["requests"]["memory"], f"{int(measured_mb * 1.5)}M") < 0
    assert quantity.compare(resources["limits"]["memory"], f"{int(waits * 1.5)}M") >= 0


def test_asked_resources_win() -> None:
    """Computed ones are for those who name none."""
    asked = {"limits": {"memory": "1Gi"}}
    assert server({"resources": asked}).resources == asked


@pytest.mark.parametrize(
    ("mode", "libpq"),
    [
        ("Disable", TLSMode.DISABLE),
        ("Prefer", TLSMode.PREFER),
        ("Require", TLSMode.REQUIRE),
        ("VerifyCA", TLSMode.VERIFY_CA),
        ("VerifyFull", TLSMode.VERIFY_FULL),
    ],
)
def test_every_tls_mode_is_one_of_libpqs(mode: str, libpq: TLSMode) -> None:
    """A mode that fell through would silently mean another one."""
    tls: Object = {"mode": mode}
    if mode.startswith("Verify"):
        tls["caSecretRef"] = {"name": "ca"}
    spec = {"database": {"external": {"uriSecretRef": {"name": "db"}, "tls": tls}}}
    database = server(spec).database
    assert isinstance(database, ExternalDatabase)
    assert database.tls is libpq


def test_what_the_cluster_gave_the_service_is_known() -> None:
    """Node ports and the load balancer's names become hosts that may ask."""
    live = {
        "spec": {"ports": [{"nodePort": 30500}]},
        "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}, {"ip": "203.0.113.9"}]}},
    }
    around = cluster_defaults(Images(), "cluster.local", live)
    assert around.node_ports == (30500,)
    hosts = server(around=around).allowed_hosts
    assert {"lb.example.com", "lb.example.com:*", "203.0.113.9"} <= set(hosts)


def test_the_tested_version_has_a_known_schema() -> None:
    """Otherwise every new server would cost one needless Job."""
    assert DEFAULT_VERSION in SCHEMA_HEADS


def test_without_an_endpoint_nothing_stands_in_the_way_of_a_workload_identity() -> None:
    """boto3 takes what the identity's webhook gives the pod, unless a key or an address comes first."""
    artifacts = {"s3": {"bucket": "models", "region": "eu-central-1"}}
    identity = {"spec": {"serviceAccountName": "tracking"}}
    pod = deployment(server({"artifacts": artifacts, "podTemplate": identity}), "")["spec"]["template"][
        "spec"
    ]
    names = {variable["name"] for variable in pod["containers"][0]["env"]}
    assert not {name for name in names if "ENDPOINT" in name or "ACCESS_KEY" in name}
    assert "AWS_DEFAULT_REGION" in names
    assert pod["serviceAccountName"] == "tracking"


def test_a_store_that_is_not_s3_gets_its_address_and_nothing_of_s3() -> None:
    pod = deployment(server({"artifacts": {"external": {"uri": "gs://models/a"}}}), "")["spec"]["template"][
        "spec"
    ]
    plain = env(pod["containers"][0])
    assert plain["MLFLOW_ARTIFACTS_DESTINATION"] == "gs://models/a"
    assert not {name for name in plain if name.startswith(("AWS_", "MLFLOW_S3", "MLFLOW_BOTO"))}


def test_an_administrators_secret_is_read_where_it_is_and_the_servers_own_beside_the_server() -> None:
    admin = {"name": "admin", "namespace": "platform", "accessKeyIDKey": "id"}
    spec = {"artifacts": {"s3": {"bucket": "models", "endpoint": "http://a:9000", "adminSecretRef": admin}}}
    store = server(spec).artifacts.s3
    assert store
    assert store.admin
    assert (store.admin.access_key.namespace, store.admin.access_key.key) == ("platform", "id")
    assert store.access_key
    assert (store.access_key.name, store.access_key.namespace) == ("a-artifacts", None)
