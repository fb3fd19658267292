"""`resolve` sets all defaults, as documented."""

import pytest

from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.kube import quantity
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.deployment import deployment
from mlflow_operator.model.resolve import ClusterDefaults, cluster_defaults
from mlflow_operator.model.server import EmbeddedDatabase, ExternalDatabase
from mlflow_operator.model.versions import DEFAULT_VERSION, Images
from tests.unit.servers import env, server


def test_an_empty_spec_is_a_complete_server() -> None:
    """Ten lines of YAML are enough: all stores are embedded, artifacts are proxied."""
    resolved = server()
    assert isinstance(resolved.database, EmbeddedDatabase)
    assert resolved.artifacts.embedded
    assert resolved.artifacts.proxied
    assert (resolved.replicas, resolved.workers, resolved.job_execution) == (1, 2, False)
    assert resolved.image == f"ghcr.io/mlflow/mlflow:v{DEFAULT_VERSION}-full"
    assert resolved.url == "http://a.team.svc:5000"


def test_an_operator_upgrade_never_changes_a_servers_version() -> None:
    """Without spec.version the server keeps its current version, whatever the operator's default is."""
    assert server(status={"version": "3.14.0"}).version == "3.14.0"
    assert server({"version": "3.16.1"}, status={"version": "3.14.0"}).version == "3.16.1"


def test_image_defaults_apply_to_every_server() -> None:
    """`--image-mlflow` and the like change all default images; spec.image changes one."""
    images = Images("mirror/mlflow", "mirror/postgres:17", "mirror/minio:1", "mirror/weed:4")
    resolved = server(defaults=ClusterDefaults(images))
    assert resolved.image == f"mirror/mlflow:v{DEFAULT_VERSION}-full"
    assert isinstance(resolved.database, EmbeddedDatabase)
    assert resolved.artifacts.embedded
    assert (resolved.database.image, resolved.artifacts.embedded.image) == (
        "mirror/postgres:17",
        "mirror/minio:1",
    )
    weed = server({"artifacts": {"embedded": {"engine": "SeaweedFS"}}}, ClusterDefaults(images)).artifacts
    assert weed.embedded
    assert weed.embedded.image == "mirror/weed:4"
    assert server({"image": "own:1"}, ClusterDefaults(images)).image == "own:1"


def test_images_of_versions_can_be_pinned_to_digests() -> None:
    """`--image-mlflow-digest` pins the default image of one version."""
    images = Images(mlflow="mirror/mlflow", mlflow_digests=((DEFAULT_VERSION, f"sha256:{'a' * 64}"),))
    pinned = server(defaults=ClusterDefaults(images))
    assert pinned.image == f"mirror/mlflow:v{DEFAULT_VERSION}-full@sha256:{'a' * 64}"
    assert pinned.is_default_image
    assert pinned.fast_path
    assert server({"version": "3.16.1"}, ClusterDefaults(images)).image == "mirror/mlflow:v3.16.1-full"


def test_default_image_with_a_digest_is_still_the_default_image() -> None:
    """Otherwise a pinned server would need twice the memory. The preflight checks which version is in it."""
    image = Images().server(DEFAULT_VERSION)
    pinned = server({"image": f"{image}@sha256:{'a' * 64}"})
    assert pinned.image == f"{image}@sha256:{'a' * 64}"
    assert pinned.is_default_image
    assert pinned.fast_path
    assert not server({"image": f"ghcr.io/mlflow/mlflow@sha256:{'a' * 64}"}).is_default_image
    assert not server({"image": f"{Images().server('3.16.1')}@sha256:{'a' * 64}"}).is_default_image


def test_a_suspended_server_has_no_replicas() -> None:
    """spec.suspend takes precedence over spec.replicas."""
    assert server({"suspend": True, "replicas": 3}).replicas == 0


@pytest.mark.parametrize("workers", [1, 2, 4, 8])
@pytest.mark.parametrize("jobs", [False, True])
@pytest.mark.parametrize("image", [{}, {"image": "own:1", "version": "3.17.2"}], ids=["default", "custom"])
def test_default_memory_is_enough_for_the_workers(workers: int, jobs: bool, image: Object) -> None:
    """The request covers the measured memory when idle, the limit 1.5 times the memory without the fast path."""
    full_mb = {1: 421, 2: 617, 4: 964, 8: 964 + 4 * 174}[workers] + (1310 if jobs else 0)
    fast_path_mb = {1: 217, 2: 336, 4: 396, 8: 396 + 4 * 60}[workers]
    measured_mb = full_mb if jobs or image else fast_path_mb
    spec: Object = {"workers": workers, "jobExecution": "Enabled" if jobs else "Disabled", **image}
    resources = server(spec).resources
    assert quantity.compare(resources["requests"]["memory"], f"{measured_mb}M") >= 0
    assert quantity.compare(resources["requests"]["memory"], f"{int(measured_mb * 1.5)}M") < 0
    assert quantity.compare(resources["limits"]["memory"], f"{int(full_mb * 1.5)}M") >= 0


def test_resources_of_the_spec_take_precedence() -> None:
    """Computed resources only apply if the spec sets none."""
    asked = {"limits": {"memory": "1Gi"}}
    assert server({"resources": asked}).resources == asked


@pytest.mark.parametrize(
    ("mode", "libpq"),
    [
        ("Disable", DatabaseTLSMode.DISABLE),
        ("Prefer", DatabaseTLSMode.PREFER),
        ("Require", DatabaseTLSMode.REQUIRE),
        ("VerifyCA", DatabaseTLSMode.VERIFY_CA),
        ("VerifyFull", DatabaseTLSMode.VERIFY_FULL),
    ],
)
def test_every_tls_mode_maps_to_its_sslmode(mode: str, libpq: DatabaseTLSMode) -> None:
    """A missing mode would silently become another one."""
    tls: Object = {"mode": mode}
    if mode.startswith("Verify"):
        tls["caSecretRef"] = {"name": "ca"}
    spec = {"database": {"external": {"uriSecretRef": {"name": "db"}, "tls": tls}}}
    database = server(spec).database
    assert isinstance(database, ExternalDatabase)
    assert database.tls is libpq


def test_node_ports_and_load_balancer_addresses_are_read_from_the_service() -> None:
    """They become allowed hosts. So do cluster IPs that are not private; others would restart the pods for nothing."""
    service = {
        "spec": {"ports": [{"nodePort": 30500}], "clusterIPs": ["34.118.226.1", "fd00::1"]},
        "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}, {"ip": "203.0.113.9"}]}},
    }
    cluster = cluster_defaults(Images(), "cluster.local", service)
    assert cluster.node_ports == (30500,)
    resolved = server(defaults=cluster)
    assert {"lb.example.com", "lb.example.com:*", "203.0.113.9"} <= set(resolved.allowed_hosts)
    assert {"http://203.0.113.9", "http://34.118.226.1"} <= set(resolved.allowed_origins)
    assert "http://[fd00::1]" not in resolved.allowed_origins


def test_without_an_endpoint_the_environment_allows_workload_identity() -> None:
    """Access keys or an endpoint in the environment would take precedence over the pod's workload identity."""
    artifacts = {"s3": {"bucket": "models", "region": "eu-central-1"}}
    identity = {"spec": {"serviceAccountName": "tracking"}}
    pod = deployment(server({"artifacts": artifacts, "podTemplate": identity}), "")["spec"]["template"][
        "spec"
    ]
    names = {variable["name"] for variable in pod["containers"][0]["env"]}
    assert not {name for name in names if "ENDPOINT" in name or "ACCESS_KEY" in name}
    assert "AWS_DEFAULT_REGION" in names
    assert pod["serviceAccountName"] == "tracking"


def test_a_store_other_than_s3_gets_its_uri_and_no_s3_settings() -> None:
    pod = deployment(server({"artifacts": {"external": {"uri": "gs://models/a"}}}), "")["spec"]["template"][
        "spec"
    ]
    plain = env(pod["containers"][0])
    assert plain["MLFLOW_ARTIFACTS_DESTINATION"] == "gs://models/a"
    assert not {name for name in plain if name.startswith(("AWS_", "MLFLOW_S3", "MLFLOW_BOTO"))}


def test_the_admin_secret_is_in_the_namespace_of_the_server() -> None:
    admin = {"name": "admin", "accessKeyIDKey": "id"}
    spec = {"artifacts": {"s3": {"bucket": "models", "endpoint": "http://a:9000", "adminSecretRef": admin}}}
    store = server(spec).artifacts.s3
    assert store
    assert store.admin
    assert (store.admin.access_key.namespace, store.admin.access_key.key) == (None, "id")
    assert store.access_key
    assert (store.access_key.name, store.access_key.namespace) == ("a-artifacts", None)


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2026-01-01T02:00:00+02:00", "2026-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00+05:00", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59-05:00", "9999-12-31T23:59:59Z"),
    ],
)
def test_every_time_of_a_rotation_can_be_resolved(time: str, expected: str) -> None:
    """An error here would also stop the deletion of the server."""
    assert server({"rotateCredentialsAt": time}).rotation_requested_at == expected


def environment(spec: Object | None = None) -> dict[str, Object]:
    """The variables of the server's container by name."""
    (container,) = deployment(server(spec), "")["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable for variable in container["env"]}


def test_usage_data_and_the_assistant_are_off_by_default() -> None:
    """A shared server must not send data of its users, and must not offer a shell in its pod."""
    variables = environment()
    assert variables["MLFLOW_DISABLE_TELEMETRY"]["value"] == "true"
    assert variables["MLFLOW_OPERATOR_ASSISTANT"]["value"] == "false"
    enabled = environment({"telemetry": "Enabled", "assistant": "Enabled"})
    assert not {"MLFLOW_DISABLE_TELEMETRY", "MLFLOW_OPERATOR_ASSISTANT"} & enabled.keys()


def test_variable_of_the_user_takes_precedence_over_telemetry() -> None:
    """Many specs set it, also from a Secret."""
    variable = {"name": "MLFLOW_DISABLE_TELEMETRY", "value": "false"}
    assert environment({"env": [variable]})["MLFLOW_DISABLE_TELEMETRY"] == variable
