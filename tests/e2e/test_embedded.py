"""A server with embedded stores, installed by its Helm chart, from its first start to its restore from a backup.

The tests share one server: each takes it Ready, and leaves it Ready with the data that was logged at the beginning.
"""

from functools import partial

import pytest
import requests

from tests.e2e import timeouts
from tests.e2e.helm import SERVER_CHART, helm, uids
from tests.e2e.kube import Kube, Object
from tests.e2e.load import Steady
from tests.e2e.mlflow_workload import Scientist, Work
from tests.e2e.pod_exec import opens
from tests.e2e.server import LITTLE, Server, eventually, small

GROUP = "embedded"

pytestmark = pytest.mark.start_early

NAME = "tracking"
USER = 1000650000
"""A user id that no image knows, as OpenShift prescribes one for a namespace."""

OBJECTS = ("Deployment", "StatefulSet", "Service", "Job", "Pod")
NEVER = "0 0 29 2 *"
"""A schedule that hardly ever comes: backups are started by hand here."""

DONE = 120.0
"""Seconds until a Job of a small database has ended, its pod's start included."""


def values(kube: Kube) -> Object:
    """The chart's values: whatever a small server's spec may set without a restart of its pods later."""
    pins = kube.settings.pins
    ids = {"runAsUser": USER, "runAsGroup": USER, "fsGroup": USER}
    return small(
        labels={"example.com/team": "a"},
        podTemplate={"spec": {"securityContext": ids, "imagePullSecrets": [{"name": "mirror-login"}]}},
        database={"embedded": {"image": pins["IMAGE_POSTGRES"], "resources": LITTLE}},
        artifacts={"embedded": {"image": pins["IMAGE_MINIO"], "resources": LITTLE}},
        garbageCollection={"schedule": NEVER},
        backup={"schedule": NEVER},
    )


@pytest.fixture(scope="module")
def _installed(module_ns: Kube) -> Server:
    notes = helm(module_ns, "install", NAME, SERVER_CHART, values=values(module_ns))
    assert f"mlflowserver/{NAME}" in notes
    return Server(module_ns, NAME)


@pytest.fixture
def installed(_installed: Server, evidence_of_module: None) -> Server:
    """The module's server, maybe not ready yet."""
    return _installed


@pytest.fixture
def server(installed: Server) -> Server:
    """The module's server, Ready."""
    return installed.ready()


@pytest.fixture(scope="module")
def work(_installed: Server) -> Work:
    """What was logged at the beginning."""
    return Scientist(_installed.ready().url).work()


def test_helm_test_waits_for_a_new_server_and_passes(installed: Server) -> None:
    """It starts right after the installation, so its pod waits for the server."""
    ns = installed.kube
    printed = ns.run("sh", "-c", f"helm -n {ns.namespace} test {NAME} 2>&1")
    assert "ok  the artifact is read back, byte for byte" in printed
    assert "Phase:          Succeeded" in printed
    assert installed.ready().live()["metadata"]["labels"]["example.com/team"] == "a"


def test_every_pod_has_the_pull_secret_and_the_user_id_of_the_spec(server: Server) -> None:
    """Server, migration, Postgres and MinIO, with images that the spec names."""
    pods = server.pods()
    found = {pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in pods}
    assert found == {"server", "database", "artifact-store", "migration"}
    for pod in pods:
        assert pod["spec"]["imagePullSecrets"] == [{"name": "mirror-login"}], pod["metadata"]["name"]
        assert pod["spec"]["securityContext"]["runAsUser"] == USER, pod["metadata"]["name"]
    for component in ("server", "database", "artifact-store"):
        name = server.pod(component)["metadata"]["name"]
        assert server.kube.kubectl("exec", name, "--", "id", "-u").strip() == str(USER)


def test_a_helm_upgrade_and_rollback_keep_all_objects_and_the_scale(server: Server, work: Work) -> None:
    """Only the pod of the server is another one, because `kubectl scale` stopped it in between."""
    ns = server.kube
    kinds = ("MLflowServer", *OBJECTS, "ConfigMap", "Secret", "PersistentVolumeClaim")
    before = uids(ns, *kinds)
    mark = {"example.com/mark": "upgraded"}

    def marked() -> Object:
        annotations = server.service["metadata"].get("annotations") or {}
        return {key: value for key, value in annotations.items() if key in mark}

    ns.kubectl("scale", f"mlflowserver/{NAME}", "--replicas=0")
    first = values(ns)
    helm(
        ns,
        "upgrade",
        NAME,
        SERVER_CHART,
        values=first | {"service": first["service"] | {"annotations": mark}},
    )
    eventually("the upgrade arrives", lambda: marked() == mark, timeouts.SETTLED)
    assert server.live()["spec"]["replicas"] == 0, "an upgrade undid what kubectl scale had set"
    assert server.status["image"] in helm(ns, "get", "hooks", NAME)
    helm(ns, "rollback", NAME, "1")
    eventually("the rollback arrives", lambda: not marked(), timeouts.SETTLED)
    ns.kubectl("scale", f"mlflowserver/{NAME}", "--replicas=1")
    server.ready()
    after = uids(ns, *kinds)
    assert {key: uid for key, uid in before.items() if key[0] != "Pod" and after.get(key) != uid} == {}
    Scientist(server.url).finds(work)


def test_a_suspended_server_runs_no_pod_and_resumes_with_its_data(server: Server, work: Work) -> None:
    """Under its old URL; and its CronJobs are suspended meanwhile."""
    ns, url = server.kube, (server.status["url"], server.url)
    server.change(suspend=True)
    try:
        server.until("Ready", "False", "Suspended", within=timeouts.SETTLED)
        eventually("no pod runs", lambda: not server.running(), timeouts.GONE)
        assert len(ns.list("CronJob")) == 2
        assert all(cronjob["spec"]["suspend"] for cronjob in ns.list("CronJob"))
        assert volumes(ns).keys() == {server.names.postgres_data, server.names.artifact_store_data}
    finally:
        server.change(suspend=None)
        server.ready()
    assert (server.status["url"], server.url) == url
    assert not any(cronjob["spec"]["suspend"] for cronjob in ns.list("CronJob"))
    Scientist(server.url).finds(work)


def volumes(kube: Kube) -> dict[str, str]:
    """The uids of the namespace's volume claims, by name."""
    return {c["metadata"]["name"]: c["metadata"]["uid"] for c in kube.list("PersistentVolumeClaim")}


@pytest.mark.parametrize("component", ["server", "database", "artifact-store"])
def test_nothing_is_lost_when_a_pod_is_killed(server: Server, work: Work, component: str) -> None:
    """Deleted without a grace period; the server works with its successor."""
    old = server.pod(component)
    server.kube.delete("Pod", old["metadata"]["name"], grace=0)
    server.replaced(component, old)
    server.ready(timeouts.ROLLED)
    scientist = Scientist(server.url)
    scientist.finds(work)
    scientist.finds(scientist.work(f"after-{component}"))


def test_a_lost_password_is_reported_and_never_replaced(server: Server, work: Work) -> None:
    """Another one would lock everybody out of the data. The server keeps serving, and the Secret can be put back."""
    ns, name = server.kube, server.names.database_secret
    backup = ns.need("Secret", name)
    ns.delete("Secret", name)
    try:
        condition = server.until("CredentialsReady", "False", "SecretNotFound", within=timeouts.SETTLED)
        assert name in condition["message"]
        assert server.names.postgres_data in condition["message"]
        Scientist(server.url).finds(work)
    finally:
        meta = {key: backup["metadata"][key] for key in ("name", "labels")}
        ns.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": backup["data"]})
    server.ready()
    Scientist(server.url).finds(work)


def test_embedded_credentials_are_rotated_without_a_failed_request(
    server: Server, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database's login and the store's key of the server; the root key stays."""
    old = server.generated()
    assert opens(server, server, old["artifact key"], old["artifact secret"])
    with Steady(server.url, monkeypatch) as clients:
        server.rotate()
    assert clients.errors == []
    Scientist(server.url).finds(work)
    new = server.generated()
    assert new["database URI"] != old["database URI"]
    assert "//mlflow_a:" in new["database URI"]
    assert not opens(server, server, old["artifact key"], old["artifact secret"])
    assert opens(server, server, new["artifact key"], new["artifact secret"])
    assert new["root key"] == old["root key"]


def test_another_major_version_of_postgres_is_refused(server: Server) -> None:
    """The database's pod stays the same one, and the server answers."""
    ns, pod = server.kube, server.pod("database")["metadata"]["uid"]
    server.change(database={"embedded": {"image": "docker.io/library/postgres:16-trixie"}})
    try:
        condition = server.until(
            "DatabaseReady", "False", "DatabaseVersionUnsupported", within=timeouts.SETTLED
        )
        assert "Postgres 16" in condition["message"]
        server.answers()
    finally:
        server.change(database={"embedded": {"image": ns.settings.pins["IMAGE_POSTGRES"]}})
    server.until("Ready", within=timeouts.SETTLED)
    assert server.pod("database")["metadata"]["uid"] == pod


def test_data_outlives_its_release_and_the_next_release_takes_it_back(server: Server, work: Work) -> None:
    """Only volumes and generated credentials outlive the resource, an Event names them, and the new one finds both."""
    ns, names, before = server.kube, server.names, server.generated()
    claims = volumes(ns)
    assert claims.keys() == {names.postgres_data, names.artifact_store_data}
    helm(ns, "uninstall", NAME, "--wait")
    assert not ns.list("MLflowServer")
    for kind in OBJECTS:
        eventually(f"no {kind} is left", partial(_none, ns, kind), timeouts.GONE)
    left = {names.database_secret, names.artifacts_secret}
    eventually(
        "the generated credentials are the Secrets that are left",
        lambda: {secret["metadata"]["name"] for secret in ns.list("Secret")} == left,
        timeouts.GONE,
    )
    assert volumes(ns) == claims
    (kept,) = eventually(
        "an Event tells what was kept",
        lambda: [event for event in ns.list("Event") if event["reason"] == "DataKept"],
        timeouts.NOTICED,
    )
    assert [f'"{name}"' in kept["message"] for name in (*left, *claims)] == 4 * [True]

    helm(ns, "install", NAME, SERVER_CHART, values=values(ns))
    server.ready()
    after = server.generated()
    for name in ("database password", "artifact key", "artifact secret"):
        assert after[name] == before[name]
    assert volumes(ns) == claims
    Scientist(server.url).finds(work)


def _none(kube: Kube, kind: str) -> bool:
    """Whether the namespace holds none of a kind, Helm's test pod left out: that stays until the next test."""
    return not [obj for obj in kube.list(kind) if obj["metadata"]["name"] != f"{NAME}-test"]


def test_a_lost_database_is_restored_from_its_backup(server: Server, work: Work) -> None:
    """As docs/back-up-and-restore.md says: the artifact store with the backup in it is still there."""
    ns = server.kube
    scientist = Scientist(server.url)
    ns.kubectl("create", "job", "--from=cronjob/tracking-backup", "by-hand")
    made = eventually("the backup is recorded", lambda: server.status.get("backup", {}).get("lastID"), DONE)
    saved = scientist.experiments()
    _no_client_reaches_backups(server)
    scientist.run()
    assert scientist.experiments() > saved
    server.delete()
    lost = (f"pvc/{server.names.postgres_data}", f"secret/{server.names.database_secret}")
    ns.kubectl("delete", *lost, within=timeouts.GONE)

    spec = {key: value for key, value in values(ns).items() if key != "labels"}
    server.apply(spec | {"restoreFrom": {"serverName": NAME}}).ready()
    scientist = Scientist(server.url)
    scientist.finds(work)
    assert scientist.experiments() == saved, "what was logged after the backup is not in it"
    jobs = [job["metadata"]["name"] for job in ns.list("Job")]
    assert [name for name in jobs if "-restore-" in name]
    assert not [name for name in jobs if "-migrate-" in name]
    assert server.status["restoredBackup"] == made
    scientist.finds(scientist.work("after"))


def _no_client_reaches_backups(server: Server) -> None:
    """Backups in the artifact store, by the server's own API for artifacts."""
    path = server.status["backup"]["lastURI"].removeprefix("s3://mlflow/")
    assert path.startswith("mlflow-operator-backups/")
    artifacts = f"{server.url}/api/2.0/mlflow-artifacts/artifacts"
    assert requests.get(f"{artifacts}/{path}/manifest.json", timeout=30).status_code == 403
    assert requests.get(artifacts, params={"path": path}, timeout=30).status_code == 403
    assert requests.delete(f"{artifacts}/mlflow-operator-backups", timeout=30).status_code == 403
    assert requests.put(f"{artifacts}/{path}/manifest.json", data=b"{}", timeout=30).status_code == 403
    listed = requests.get(artifacts, timeout=30).json().get("files", [])
    assert "mlflow-operator-backups" not in {each["path"] for each in listed}
