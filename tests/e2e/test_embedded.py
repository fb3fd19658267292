"""A server with embedded stores, installed by its Helm chart, from its first start to its restore from a backup.

The tests share one server: each starts with it Ready, and leaves it Ready with the data that was logged first.
"""

from functools import partial

import pytest
import requests

from tests.e2e import timeouts
from tests.e2e.helm import SERVER_CHART, helm, uids
from tests.e2e.kube import Kube, Object
from tests.e2e.load import SteadyLoad
from tests.e2e.mlflow_workload import LoggedData, Workload
from tests.e2e.pod_exec import can_list_bucket
from tests.e2e.server import SMALL_RESOURCES, Server, eventually, small_spec

GROUP = "embedded"

pytestmark = pytest.mark.start_early

SERVER_NAME = "tracking"
USER_ID = 1000650000
"""A user id that is in no image's /etc/passwd, like those that OpenShift assigns to a namespace."""

OBJECTS = ("Deployment", "StatefulSet", "Service", "Job", "Pod")
RARE_SCHEDULE = "0 0 29 2 *"
"""Runs only on February 29: the tests start backups by `kubectl create job`."""

JOB_TIMEOUT_SECONDS = 120.0
"""Limit for a Job of a small database, its pod's start included."""


def chart_values(kube: Kube) -> Object:
    """Return the chart's values, with all optional fields for which later tests would otherwise restart pods."""
    pins = kube.settings.pins
    ids = {"runAsUser": USER_ID, "runAsGroup": USER_ID, "fsGroup": USER_ID}
    return small_spec(
        labels={"example.com/team": "a"},
        podTemplate={"spec": {"securityContext": ids, "imagePullSecrets": [{"name": "mirror-login"}]}},
        database={"embedded": {"image": pins["IMAGE_POSTGRES"], "resources": SMALL_RESOURCES}},
        artifacts={"embedded": {"image": pins["IMAGE_MINIO"], "resources": SMALL_RESOURCES}},
        garbageCollection={"schedule": RARE_SCHEDULE},
        backup={"schedule": RARE_SCHEDULE},
    )


@pytest.fixture(scope="module")
def _installed_server(module_ns: Kube) -> Server:
    notes = helm(module_ns, "install", SERVER_NAME, SERVER_CHART, values=chart_values(module_ns))
    assert f"mlflowserver/{SERVER_NAME}" in notes
    return Server(module_ns, SERVER_NAME)


@pytest.fixture
def installed_server(_installed_server: Server, module_evidence: None) -> Server:
    """The module's server, which may not be ready yet."""
    return _installed_server


@pytest.fixture
def server(installed_server: Server) -> Server:
    """The module's server, Ready."""
    return installed_server.wait_ready()


@pytest.fixture(scope="module")
def logged_data(_installed_server: Server) -> LoggedData:
    """The data that was logged first."""
    return Workload(_installed_server.wait_ready().url).log_data()


def test_helm_test_waits_for_a_new_server_and_passes(installed_server: Server) -> None:
    """Run right after the installation, so that the test pod waits for the server."""
    ns = installed_server.kube
    output = ns.run("sh", "-c", f"helm -n {ns.namespace} test {SERVER_NAME} 2>&1")
    assert "ok  artifact read back, content identical" in output
    assert "Phase:          Succeeded" in output
    assert installed_server.wait_ready().resource()["metadata"]["labels"]["example.com/team"] == "a"


def test_every_pod_has_pull_secret_and_user_id_of_spec(server: Server) -> None:
    """Pods of the server, the migration, Postgres and MinIO, with the images of the spec."""
    pods = server.pods()
    found = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
    assert found == {"server", "database", "artifact-store", "migration"}
    for pod in pods:
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror-login"}], pod["metadata"]["name"]
        assert pod["spec"]["securityContext"]["runAsUser"] == USER_ID, pod["metadata"]["name"]
    for component in ("server", "database", "artifact-store"):
        name = server.pod(component)["metadata"]["name"]
        assert server.kube.kubectl("exec", name, "--", "id", "-u").strip() == str(USER_ID)


def test_helm_upgrade_and_rollback_keep_objects_and_replicas(server: Server, logged_data: LoggedData) -> None:
    """Only the server's pod is replaced, because the test scales the server to 0 in between."""
    ns = server.kube
    kinds = ("MLflowServer", *OBJECTS, "ConfigMap", "Secret", "PersistentVolumeClaim")
    before = uids(ns, *kinds)
    annotation = {"example.com/mark": "upgraded"}

    def current_annotation() -> Object:
        annotations = server.service["metadata"].get("annotations") or {}
        return {key: value for key, value in annotations.items() if key in annotation}

    ns.kubectl("scale", f"mlflowserver/{SERVER_NAME}", "--replicas=0")
    initial_values = chart_values(ns)
    helm(
        ns,
        "upgrade",
        SERVER_NAME,
        SERVER_CHART,
        values=initial_values | {"service": initial_values["service"] | {"annotations": annotation}},
    )
    eventually("the upgrade is applied", lambda: current_annotation() == annotation, timeouts.STATUS_SECONDS)
    assert server.resource()["spec"]["replicas"] == 0, "the Helm upgrade reverted `kubectl scale`"
    assert server.status["image"] in helm(ns, "get", "hooks", SERVER_NAME)
    helm(ns, "rollback", SERVER_NAME, "1")
    eventually("the rollback is applied", lambda: not current_annotation(), timeouts.STATUS_SECONDS)
    ns.kubectl("scale", f"mlflowserver/{SERVER_NAME}", "--replicas=1")
    server.wait_ready()
    after = uids(ns, *kinds)
    assert {key: uid for key, uid in before.items() if key[0] != "Pod" and after.get(key) != uid} == {}
    Workload(server.url).check_data(logged_data)


def test_suspended_server_runs_no_pods_and_resumes_with_its_data(
    server: Server, logged_data: LoggedData
) -> None:
    """Its URL stays the same, and its CronJobs are suspended meanwhile."""
    ns, url = server.kube, (server.status["url"], server.url)
    server.patch_spec(suspend=True)
    try:
        server.wait_for("Ready", "False", "Suspended", within=timeouts.STATUS_SECONDS)
        eventually("no pod runs", lambda: not server.running_pods(), timeouts.DELETION_SECONDS)
        assert len(ns.list("CronJob")) == 2
        assert all(cronjob["spec"]["suspend"] for cronjob in ns.list("CronJob"))
        assert claim_uids(ns).keys() == {server.names.postgres_data, server.names.artifact_store_data}
    finally:
        server.patch_spec(suspend=None)
        server.wait_ready()
    assert (server.status["url"], server.url) == url
    assert not any(cronjob["spec"]["suspend"] for cronjob in ns.list("CronJob"))
    Workload(server.url).check_data(logged_data)


def claim_uids(kube: Kube) -> dict[str, str]:
    """Return the uids of the namespace's volume claims by name."""
    return {c["metadata"]["name"]: c["metadata"]["uid"] for c in kube.list("PersistentVolumeClaim")}


@pytest.mark.parametrize("component", ["server", "database", "artifact-store"])
def test_data_survives_pod_kill(server: Server, logged_data: LoggedData, component: str) -> None:
    """The pod is deleted without a grace period, and the server works with the new pod."""
    old = server.pod(component)
    server.kube.delete("Pod", old["metadata"]["name"], grace_seconds=0)
    server.wait_replaced(component, old)
    server.wait_ready(timeouts.ROLLOUT_SECONDS)
    workload = Workload(server.url)
    workload.check_data(logged_data)
    workload.check_data(workload.log_data(f"after-{component}"))


def test_server_recreated_from_a_cluster_backup_keeps_its_data_and_pods(
    server: Server, logged_data: LoggedData
) -> None:
    """A restore loses ownerReferences, status and uid. The objects are adopted, and no pod is restarted."""
    ns, resource = server.kube, server.resource()
    pods = {pod["metadata"]["uid"] for pod in server.running_pods()}
    ns.kubectl("delete", "mlflowserver", server.name, "--cascade=orphan")
    for kind in ("Deployment", "StatefulSet", "Service"):
        assert all("ownerReferences" not in obj["metadata"] for obj in ns.list(kind))
    kept = ("name", "labels", "annotations")
    meta = {key: resource["metadata"][key] for key in kept if key in resource["metadata"]}
    ns.apply({**{key: resource[key] for key in ("apiVersion", "kind", "spec")}, "metadata": meta})
    server.wait_ready()
    assert {pod["metadata"]["uid"] for pod in server.running_pods()} == pods
    Workload(server.url).check_data(logged_data)
    uid = server.resource()["metadata"]["uid"]
    for kind in ("Deployment", "StatefulSet", "Service"):
        assert {obj["metadata"]["ownerReferences"][0]["uid"] for obj in ns.list(kind)} == {uid}


def test_missing_database_secret_is_reported_and_never_regenerated(
    server: Server, logged_data: LoggedData
) -> None:
    """A new password would make the data inaccessible. The server keeps serving, and the Secret can be restored."""
    ns, name = server.kube, server.names.database_secret
    backup = ns.require("Secret", name)
    ns.delete("Secret", name)
    try:
        condition = server.wait_for(
            "CredentialsReady", "False", "SecretNotFound", within=timeouts.RESYNC_SECONDS
        )
        assert name in condition["message"]
        assert server.names.postgres_data in condition["message"]
        Workload(server.url).check_data(logged_data)
    finally:
        meta = {key: backup["metadata"][key] for key in ("name", "labels")}
        ns.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": backup["data"]})
    server.wait_ready()
    Workload(server.url).check_data(logged_data)


def test_embedded_credentials_rotate_without_failed_requests(
    server: Server, logged_data: LoggedData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's login to the database and its key of the store are replaced; the root key stays."""
    old = server.generated_values()
    assert can_list_bucket(server, server, old["artifact key"], old["artifact secret"])
    with SteadyLoad(server.url, monkeypatch) as steady_load:
        server.rotate_credentials()
    assert steady_load.errors == []
    Workload(server.url).check_data(logged_data)
    new = server.generated_values()
    assert new["database URI"] != old["database URI"]
    assert "//mlflow_a:" in new["database URI"]
    assert not can_list_bucket(server, server, old["artifact key"], old["artifact secret"])
    assert can_list_bucket(server, server, new["artifact key"], new["artifact secret"])
    assert new["root key"] == old["root key"]


def test_postgres_major_version_change_is_rejected(server: Server) -> None:
    """The database's pod is not replaced, and the server keeps serving."""
    ns, pod = server.kube, server.pod("database")["metadata"]["uid"]
    server.patch_spec(database={"embedded": {"image": "docker.io/library/postgres:16-trixie"}})
    try:
        condition = server.wait_for(
            "DatabaseReady", "False", "DatabaseVersionUnsupported", within=timeouts.STATUS_SECONDS
        )
        assert "Postgres 16" in condition["message"]
        server.wait_reachable()
    finally:
        server.patch_spec(database={"embedded": {"image": ns.settings.pins["IMAGE_POSTGRES"]}})
    server.wait_for("Ready", within=timeouts.STATUS_SECONDS)
    assert server.pod("database")["metadata"]["uid"] == pod


def test_retained_data_is_adopted_by_the_next_release(server: Server, logged_data: LoggedData) -> None:
    """Only volume claims and generated credentials are retained, an Event names them, and a new release adopts them."""
    ns, names, before = server.kube, server.names, server.generated_values()
    claims, uid = claim_uids(ns), server.resource()["metadata"]["uid"]
    assert claims.keys() == {names.postgres_data, names.artifact_store_data}
    helm(ns, "uninstall", SERVER_NAME, "--wait")
    assert not ns.list("MLflowServer")
    for kind in OBJECTS:
        eventually(f"no {kind} is left", partial(_has_no_objects, ns, kind), timeouts.DELETION_SECONDS)
    retained_secrets = {names.database_secret, names.artifacts_secret, names.encryption_secret}
    eventually(
        "only the generated credentials are left",
        lambda: {secret["metadata"]["name"] for secret in ns.list("Secret")} == retained_secrets,
        timeouts.DELETION_SECONDS,
    )
    assert claim_uids(ns) == claims
    (event,) = eventually(
        "an Event names the retained data",
        lambda: [
            event
            for event in ns.list("Event")
            if event["reason"] == "DataKept" and event["involvedObject"]["uid"] == uid
        ],
        timeouts.RESYNC_SECONDS,
    )
    assert [f'"{name}"' in event["message"] for name in (*retained_secrets, *claims)] == 5 * [True]

    helm(ns, "install", SERVER_NAME, SERVER_CHART, values=chart_values(ns))
    server.wait_ready()
    after = server.generated_values()
    for name in ("database password", "artifact key", "artifact secret", "passphrase", "webhook key"):
        assert after[name] == before[name]
    assert claim_uids(ns) == claims
    Workload(server.url).check_data(logged_data)


def _has_no_objects(kube: Kube, kind: str) -> bool:
    """Whether the namespace has no objects of a kind, except Helm's test pod, which stays until the next test."""
    return not [obj for obj in kube.list(kind) if obj["metadata"]["name"] != f"{SERVER_NAME}-test"]


def test_lost_database_is_restored_from_backup(server: Server, logged_data: LoggedData) -> None:
    """By the steps in docs/guides/backup-and-restore.md. The artifact store with the backup still exists."""
    ns = server.kube
    workload = Workload(server.url)
    ns.kubectl("create", "job", "--from=cronjob/tracking-backup", "by-hand")
    backup_id = eventually(
        "the backup is recorded", lambda: server.status.get("backup", {}).get("lastID"), JOB_TIMEOUT_SECONDS
    )
    saved = workload.experiment_names()
    _check_clients_cannot_access_backups(server)
    workload.create_run()
    assert workload.experiment_names() > saved
    server.delete()
    lost = (f"pvc/{server.names.postgres_data}", f"secret/{server.names.database_secret}")
    ns.kubectl("delete", *lost, within=timeouts.DELETION_SECONDS)

    spec = {key: value for key, value in chart_values(ns).items() if key != "labels"}
    server.apply(spec | {"restoreFrom": {"serverName": SERVER_NAME}}).wait_ready()
    workload = Workload(server.url)
    workload.check_data(logged_data)
    assert workload.experiment_names() == saved, "the restore must only contain data from before the backup"
    jobs = [job["metadata"]["name"] for job in ns.list("Job")]
    assert [name for name in jobs if "-restore-" in name]
    assert not [name for name in jobs if "-migrate-" in name]
    assert server.status["restoredBackup"] == backup_id
    workload.check_data(workload.log_data("after"))


def _check_clients_cannot_access_backups(server: Server) -> None:
    """Backups in the artifact store are not accessible by the server's artifact API."""
    path = server.status["backup"]["lastURI"].removeprefix("s3://mlflow/")
    assert path.startswith("mlflow-operator-backups/")
    artifacts = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"
    assert requests.get(f"{artifacts}/{path}/manifest.json", timeout=30).status_code == 403
    assert requests.get(artifacts, params={"path": path}, timeout=30).status_code == 403
    assert requests.delete(f"{artifacts}/mlflow-operator-backups", timeout=30).status_code == 403
    assert requests.put(f"{artifacts}/{path}/manifest.json", data=b"{}", timeout=30).status_code == 403
    listed = requests.get(artifacts, timeout=30).json().get("files", [])
    assert "mlflow-operator-backups" not in {file["path"] for file in listed}
