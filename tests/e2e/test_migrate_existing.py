"""Migration of an existing MLflow server to the operator, and back, as in docs/guides/migrate-existing.md."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import yaml

from tests.e2e import timeouts
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import SMALL_RESOURCES, Server, eventually, small_spec
from tests.e2e.shared_stores import Platform

PAGE = Path(__file__).parents[2] / "docs" / "guides" / "migrate-existing.md"
OLD_NAME, OLD_SECRET = "mlflow", "mlflow-env-secret"
SELECTOR = {"app": OLD_NAME}
NEW_SELECTOR = {"mlflow-operator.dev/server": "tracking", "app.kubernetes.io/component": "server"}
DATABASE = BUCKET = "moving-in"
PASSWORD = "s3cret-of/the old:one"


def old_server(kube: Kube, platform: Platform) -> list[Object]:
    """Return a Deployment like that of the community chart: all keys in one Secret, libpq variables, and a Service."""
    env = {
        "PGHOST": platform.postgres.host,
        "PGPORT": "5432",
        "PGDATABASE": DATABASE,
        "MLFLOW_S3_ENDPOINT_URL": platform.minio.endpoint,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "HOME": "/home/plain",
    }
    container = {
        "name": "mlflow",
        "image": kube.settings.pins["IMAGE_MLFLOW"],
        "command": ["mlflow"],
        "args": [
            "server",
            "--host=0.0.0.0",
            "--port=5000",
            "--workers=1",
            "--allowed-hosts=*",
            "--backend-store-uri=postgresql://",
            f"--artifacts-destination=s3://{BUCKET}/some/prefix",
        ],
        "env": [{"name": name, "value": value} for name, value in env.items()],
        "envFrom": [{"secretRef": {"name": OLD_SECRET}}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 5000}, "periodSeconds": 1},
        "resources": SMALL_RESOURCES,
        "securityContext": RESTRICTED_SECURITY_CONTEXT,
        "volumeMounts": [{"name": "home", "mountPath": path} for path in ("/home/plain", "/tmp")],
    }
    pod = {
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 5,
        "securityContext": {"runAsUser": 10001, "fsGroup": 10001},
        "containers": [container],
        "volumes": [{"name": "home", "emptyDir": {}}],
    }
    return [
        secret(
            OLD_SECRET,
            PGUSER=DATABASE,
            PGPASSWORD=PASSWORD,
            AWS_ACCESS_KEY_ID=platform.minio.access_key,
            AWS_SECRET_ACCESS_KEY=platform.minio.secret_key,
        ),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": OLD_NAME},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": SELECTOR},
                "template": {"metadata": {"labels": SELECTOR}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": OLD_NAME},
            "spec": {"type": "NodePort", "selector": SELECTOR, "ports": [{"port": 5000, "targetPort": 5000}]},
        },
    ]


def new_server(kube: Kube, platform: Platform, address: str) -> Object:
    """Return the spec of the documentation page with this cluster's values."""
    spec: Object = yaml.safe_load(PAGE.read_text().split("```yaml\n")[1].split("```")[0])["spec"]
    spec["database"]["external"] |= {"host": platform.postgres.host, "databaseName": DATABASE}
    spec["artifacts"]["s3"] |= {"endpoint": platform.minio.endpoint, "bucket": BUCKET}
    spec["allowedHosts"].append(address)
    spec["version"] = kube.settings.pins["MLFLOW"]
    return small_spec(**spec)


def copy_credentials(ns: Kube) -> None:
    """Copy the credentials, like the command on the documentation page."""
    old_secret = ns.require("Secret", OLD_SECRET)
    meta = {"name": "tracking-stores"}
    ns.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": old_secret["data"]})


def switch_service(ns: Kube, selector: Object, workload: Workload, server: str) -> None:
    """Change the selector of the old Service, and wait until it routes only to the selected pods."""
    change = [{"op": "replace", "path": "/spec/selector", "value": selector}]
    ns.kubectl("patch", "service", OLD_NAME, "--type=json", "-p", json.dumps(change))

    def is_switched() -> bool:
        pods = {pod["metadata"]["name"] for pod in ns.list("Pod", selector)}
        slices = json.loads(
            ns.kubectl("get", "endpointslices", "-l", f"kubernetes.io/service-name={OLD_NAME}", "-o", "json")
        )
        endpoints = [endpoint for item in slices["items"] for endpoint in item.get("endpoints") or ()]
        names = {
            endpoint["targetRef"]["name"] for endpoint in endpoints if endpoint["conditions"].get("ready")
        }
        return bool(names) and names <= pods

    eventually(f"the Service {OLD_NAME} routes to {server}", is_switched, timeouts.ENDPOINT_SECONDS)
    workload.experiment_names()


@contextmanager
def s3_credentials(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Set the environment of a client for artifacts with s3:// URIs."""
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", platform.minio.access_key)
        patched.setenv("AWS_SECRET_ACCESS_KEY", platform.minio.secret_key)
        patched.setenv("MLFLOW_S3_ENDPOINT_URL", platform.minio.endpoint)
        yield


@pytest.mark.long_running(
    reason="two servers, migrated and back; test_rotation starts on a database that already has MLflow's schema"
)
def test_plain_deployment_migrates_to_operator_and_back(
    ns: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, models and files keep their URIs, clients keep the address, and the schema is not migrated."""
    platform.create_migrated_database(DATABASE, PASSWORD)
    platform.minio.client().create_bucket(Bucket=BUCKET)
    ns.apply(*old_server(ns, platform))
    ns.kubectl("rollout", "status", f"deployment/{OLD_NAME}", "--timeout=180s", within=200)
    address = f"{ns.node_address}:{ns.require('Service', OLD_NAME)['spec']['ports'][0]['nodePort']}"
    workload = Workload(f"http://{address}")
    before = workload.log_data("before")
    # the other kind of artifact URI, used by servers with --default-artifact-root
    direct = f"s3://{BUCKET}/some/prefix/direct"
    with s3_credentials(platform, monkeypatch):
        experiment = workload.client.create_experiment("direct", artifact_location=direct)
        run = str(workload.client.create_run(experiment).info.run_id)
        checksum = workload.upload(run, "direct.bin", 1024)
    revision = platform.postgres.query("select version_num from alembic_version", DATABASE)
    uris = {run_id: workload.client.get_run(run_id).info.artifact_uri for run_id in (before.run_id, run)}

    copy_credentials(ns)
    server = Server(ns).apply(new_server(ns, platform, address)).wait_ready()
    assert server.status["schemaRevision"] == revision.strip()
    assert not ns.list("Job"), "the schema is current, but there is a Job"
    new_workload = Workload(server.url)
    new_workload.check_data(before)
    assert {run_id: new_workload.client.get_run(run_id).info.artifact_uri for run_id in uris} == uris

    switch_service(ns, NEW_SELECTOR, workload, "the MLflowServer")
    ns.kubectl("scale", "deployment", OLD_NAME, "--replicas=0")
    # Until its pod is gone, the old server answers on open connections and tells clients to download files by
    # presigned URLs, which the new server does not offer.
    ns.kubectl("wait", "--for=delete", "pod", "-l", f"app={OLD_NAME}", "--timeout=60s", within=70)
    ns.delete("Secret", OLD_SECRET)
    workload.check_data(before)
    after = workload.log_data("after")
    with s3_credentials(platform, monkeypatch):
        assert workload.download(run, "direct.bin") == checksum
    listed = workload.client.list_artifacts(before.run_id)
    assert "notes.bin" in [file.path for file in listed]

    ns.apply(old_server(ns, platform)[0])
    ns.kubectl("scale", "deployment", OLD_NAME, "--replicas=1")
    ns.kubectl("rollout", "status", f"deployment/{OLD_NAME}", "--timeout=180s", within=200)
    switch_service(ns, SELECTOR, workload, "the old server")
    server.delete()
    mlflow.set_tracking_uri(workload.url)
    for data in (before, after):
        workload.check_data(data)
