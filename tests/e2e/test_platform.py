"""Servers on an MLflowPlatform, whose stores require verified TLS."""

from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.model.secrets import text_values
from tests.e2e import mlflow_platform, timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.load import SteadyLoad
from tests.e2e.mlflow_platform import BUCKET, MLflowPlatform
from tests.e2e.mlflow_workload import Workload
from tests.e2e.port_forward import PortForward
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import ADMIN_PASSWORD

GROUP = "mlflow_platform"

pytestmark = pytest.mark.start_early


def tenant_spec(**spec: object) -> Object:
    """Return a small spec without stores."""
    return small_spec(database=None, artifacts=None, **spec)


@pytest.fixture(scope="module")
def _mlflow_platform(module_ns: Kube) -> Iterator[MLflowPlatform]:
    created = mlflow_platform.start(module_ns)
    yield created
    created.delete(wait=False)


@pytest.fixture
def shared(_mlflow_platform: MLflowPlatform, module_evidence: None) -> MLflowPlatform:
    """The default platform of the namespaces that a test selects. It is Ready."""
    _mlflow_platform.wait_for("Ready")
    return _mlflow_platform


def database_of(server: Server) -> str:
    """Return the name that the operator derives for the database and its owner."""
    return f"mlflow_{server.kube.namespace}_{server.name}"


def test_empty_spec_becomes_a_server_on_the_default_platform(ns: Kube, shared: MLflowPlatform) -> None:
    """Its namespace contains no credentials of an administrator, and its key reaches only its own prefix."""
    shared.select(ns)
    server = Server(ns).apply({}).wait_ready()
    with PortForward(ns, server.names.service, 5000) as forward:
        workload = Workload(forward.url)
        workload.check_data(workload.log_data("empty-spec"))
    assert server.status["platform"]["name"] == shared.name
    assert server.status["platform"]["parts"] == ["Artifacts", "Database"]
    prefix = f"{ns.namespace}/tracking"
    assert server.status["artifacts"]["uri"] == f"s3://{BUCKET}/{prefix}"
    assert shared.keys(prefix)
    assert not server.kube.list("PersistentVolumeClaim")
    values = {value for obj in ns.list("Secret") for value in text_values(obj).values()}
    assert not values & {shared.minio.access_key, shared.minio.secret_key, ADMIN_PASSWORD}
    key = text_values(ns.require("Secret", server.names.artifacts_secret))
    client = shared.s3(key["accessKeyID"], key["secretAccessKey"])
    assert client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["KeyCount"]
    for other in ("", ns.namespace, "_mlflow-operator/"):
        with pytest.raises(ClientError, match="AccessDenied"):
            client.list_objects_v2(Bucket=BUCKET, Prefix=other)


def test_credentials_on_a_platform_rotate_without_failed_requests(
    ns: Kube, shared: MLflowPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The password of the database and the key of the store change, and the previous ones stop working."""
    shared.select(ns)
    server = Server(ns).apply(tenant_spec()).wait_ready()
    before = {
        name: text_values(ns.require("Secret", name))
        for name in (server.names.artifacts_secret, server.names.database_secret)
    }
    with SteadyLoad(server.url, monkeypatch) as steady_load:
        server.rotate_credentials()
    assert not steady_load.errors
    assert steady_load.succeeded
    key = before[server.names.artifacts_secret]
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        shared.s3(key["accessKeyID"], key["secretAccessKey"]).list_objects_v2(
            Bucket=BUCKET, Prefix=f"{ns.namespace}/tracking/"
        )
    now = text_values(ns.require("Secret", server.names.database_secret))
    assert now["password"] != before[server.names.database_secret]["password"]
    server.delete()


def test_deletion_removes_the_data_of_one_server_and_then_releases_the_platform(
    ns: Kube, other_ns: Kube, shared: MLflowPlatform
) -> None:
    """Another server's data stays. The platform exists until no server uses it."""
    second = mlflow_platform.MLflowPlatform(
        shared.kube, f"{shared.name}-second", shared.postgres, shared.minio, shared.authority
    )
    second.select(ns, other_ns)
    second.apply(is_default=False)
    spec = tenant_spec(platformRef={"name": second.name}, deletionPolicy="Delete")
    servers = [Server(kube).apply(spec) for kube in (ns, other_ns)]
    deleted, kept = (server.wait_ready() for server in servers)
    Workload(deleted.url).log_data("deleted")
    data = Workload(kept.url).log_data("kept")
    prefix = f"{ns.namespace}/tracking/"
    assert shared.keys(prefix)
    key = text_values(ns.require("Secret", deleted.names.artifacts_secret))
    second.delete(wait=False)
    assert "servers use it" in second.wait_for("Ready", "False", "DeletionBlocked")["message"]
    deleted.delete()
    assert not shared.keys(prefix)
    assert database_of(deleted) not in shared.databases()
    assert not {role for role in shared.roles() if ns.namespace in role}
    with pytest.raises(ClientError, match="InvalidAccessKeyId"):
        shared.s3(key["accessKeyID"], key["secretAccessKey"]).list_objects_v2(Bucket=BUCKET, Prefix=prefix)
    Workload(kept.url).check_data(data)
    kept.delete()
    eventually(
        "the platform is gone",
        lambda: shared.kube.get("MLflowPlatform", second.name) is None,
        timeouts.RESYNC_SECONDS,
    )
    assert not {name for name in shared.databases() if other_ns.namespace in name}


def test_retained_data_returns_to_the_namespace_it_belongs_to(
    create_ns: Callable[[], Kube], shared: MLflowPlatform
) -> None:
    """A namespace that is created again with the same name gets it only if the platform adopts the server."""
    kube = create_ns()
    shared.select(kube)
    server = Server(kube).apply(tenant_spec()).wait_ready()
    data = Workload(server.url).log_data("retained")
    server.delete()
    server.apply(tenant_spec()).wait_ready()
    Workload(server.url).check_data(data)

    labels = kube.require("Namespace", kube.namespace)["metadata"]["labels"]
    kube.kubectl("delete", "namespace", kube.namespace, "--timeout=120s")
    kube.apply(
        {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"name": kube.namespace, "labels": labels},
        }
    )
    server.apply(tenant_spec())
    message = server.wait_for("DatabaseReady", "False", "AdoptionRequired")["message"]
    entry = f"{kube.namespace}/tracking"
    assert entry in message
    assert server.wait_for("ArtifactStoreReady", "False", "AdoptionRequired")
    assert not server.pods("server")
    shared.apply(adoptions=[entry])
    server.trigger_reconcile()
    server.wait_ready()
    Workload(server.url).check_data(data)
    shared.apply()
    server.trigger_reconcile()
    server.wait_ready()


def test_faults_of_a_platform_are_reported_and_servers_keep_running(ns: Kube, shared: MLflowPlatform) -> None:
    """The administrator's password is wrong, its Secret is missing, and Postgres is unreachable."""
    shared.select(ns)
    server = Server(ns).apply(tenant_spec()).wait_ready()
    pod = server.pod()["metadata"]["uid"]
    shared.put_admin_secrets(database_password="wrong")
    shared.wait_for("DatabaseReady", "False", "DatabaseAuthenticationFailed")
    shared.kube.delete("Secret", mlflow_platform.DATABASE_ADMIN)
    shared.wait_for("DatabaseReady", "False", "SecretNotFound")
    server.wait_reachable()
    shared.put_admin_secrets()
    shared.wait_for("Ready")
    shared.postgres.set_reachable(reachable=False)
    shared.wait_for("DatabaseReady", "False", "DatabaseUnreachable")
    shared.postgres.set_reachable(reachable=True)
    shared.wait_for("Ready")
    server.trigger_reconcile()
    server.wait_ready()
    assert server.pod()["metadata"]["uid"] == pod
