"""A server that somebody runs already is taken over with all it holds, and could be given back: docs/move-in.md."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import pytest
import yaml

from tests.e2e import timeouts
from tests.e2e.external_stores import SECURITY, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import LITTLE, Server, eventually, small
from tests.e2e.shared_stores import Platform

PAGE = Path(__file__).parents[2] / "docs" / "move-in.md"
OLD, STORES = "mlflow", "mlflow-env-secret"
SELECTOR = {"app": OLD}
NEW_SELECTOR = {"mlflow-operator.dev/server": "tracking", "app.kubernetes.io/component": "server"}
DATABASE = BUCKET = "moving-in"
PASSWORD = "s3cret-of/the old:one"


def old_server(kube: Kube, platform: Platform) -> list[Object]:
    """A Deployment as the chart of community-charts makes it: keys in one Secret, libpq's variables, a Service."""
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
        "envFrom": [{"secretRef": {"name": STORES}}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": 5000}, "periodSeconds": 1},
        "resources": LITTLE,
        "securityContext": SECURITY,
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
            STORES,
            PGUSER=DATABASE,
            PGPASSWORD=PASSWORD,
            AWS_ACCESS_KEY_ID=platform.minio.access_key,
            AWS_SECRET_ACCESS_KEY=platform.minio.secret_key,
        ),
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": OLD},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": SELECTOR},
                "template": {"metadata": {"labels": SELECTOR}, "spec": pod},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": OLD},
            "spec": {"type": "NodePort", "selector": SELECTOR, "ports": [{"port": 5000, "targetPort": 5000}]},
        },
    ]


def new_server(kube: Kube, platform: Platform, address: str) -> Object:
    """The page's, with what is of this cluster put in."""
    written: Object = yaml.safe_load(PAGE.read_text().split("```yaml\n")[1].split("```")[0])["spec"]
    written["database"]["external"] |= {"host": platform.postgres.host, "databaseName": DATABASE}
    written["artifacts"]["s3"] |= {"endpoint": platform.minio.endpoint, "bucket": BUCKET}
    written["allowedHosts"].append(address)
    written["version"] = kube.settings.pins["MLFLOW"]
    return small(**written)


def copy_credentials(ns: Kube) -> None:
    """The page's command, in what it does."""
    live = ns.need("Secret", STORES)
    meta = {"name": "tracking-stores"}
    ns.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": live["data"]})


def lead_to(ns: Kube, selector: Object, scientist: Scientist, server: str) -> None:
    """The old Service leads to other pods; waits until those, and no others, are behind it."""
    change = [{"op": "replace", "path": "/spec/selector", "value": selector}]
    ns.kubectl("patch", "service", OLD, "--type=json", "-p", json.dumps(change))

    def behind() -> bool:
        pods = {pod["metadata"]["name"] for pod in ns.list("Pod", selector)}
        slices = json.loads(
            ns.kubectl("get", "endpointslices", "-l", f"kubernetes.io/service-name={OLD}", "-o", "json")
        )
        ends = [end for one in slices["items"] for end in one.get("endpoints") or ()]
        names = {end["targetRef"]["name"] for end in ends if end["conditions"].get("ready")}
        return bool(names) and names <= pods

    eventually(f"{server} is behind the Service {OLD}", behind, timeouts.ANSWERS)
    scientist.experiments()


@contextmanager
def with_keys(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As a client whose artifacts have s3:// URIs is set up."""
    with monkeypatch.context() as patched:
        patched.setenv("AWS_ACCESS_KEY_ID", platform.minio.access_key)
        patched.setenv("AWS_SECRET_ACCESS_KEY", platform.minio.secret_key)
        patched.setenv("MLFLOW_S3_ENDPOINT_URL", platform.minio.endpoint)
        yield


@pytest.mark.long_running(
    reason="two servers and a move back; test_rotation starts on a database that already has MLflow's tables"
)
def test_a_plain_deployment_moves_to_the_operator_and_back(
    ns: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, models, files keep their URIs and clients their address; the tables don't move; and all of it goes back."""
    platform.make_migrated_database(DATABASE, PASSWORD)
    platform.minio.client().create_bucket(Bucket=BUCKET)
    ns.apply(*old_server(ns, platform))
    ns.kubectl("rollout", "status", f"deployment/{OLD}", "--timeout=180s", within=200)
    address = f"{ns.node_address}:{ns.need('Service', OLD)['spec']['ports'][0]['nodePort']}"
    scientist = Scientist(f"http://{address}")
    before = scientist.work("before")
    # the other sort of artifact URI, of servers with --default-artifact-root
    direct = f"s3://{BUCKET}/some/prefix/direct"
    with with_keys(platform, monkeypatch):
        experiment = scientist.client.create_experiment("direct", artifact_location=direct)
        run = str(scientist.client.create_run(experiment).info.run_id)
        checksum = scientist.upload(run, "direct.bin", 1024)
    revision = platform.postgres.query("select version_num from alembic_version", DATABASE)
    uris = {one: scientist.client.get_run(one).info.artifact_uri for one in (before.run, run)}

    copy_credentials(ns)
    server = Server(ns).apply(new_server(ns, platform, address)).ready()
    assert server.status["schemaRevision"] == revision.strip()
    assert not ns.list("Job"), "there was nothing to migrate"
    beside = Scientist(server.url)
    beside.finds(before)
    assert {one: beside.client.get_run(one).info.artifact_uri for one in uris} == uris

    lead_to(ns, NEW_SELECTOR, scientist, "the MLflowServer")
    ns.kubectl("scale", "deployment", OLD, "--replicas=0")
    # until its pod is gone it answers on connections that were kept, and tells a client to fetch files by signed URLs,
    # which the new one then does not give
    ns.kubectl("wait", "--for=delete", "pod", "-l", f"app={OLD}", "--timeout=60s", within=70)
    ns.delete("Secret", STORES)
    scientist.finds(before)
    after = scientist.work("after")
    with with_keys(platform, monkeypatch):
        assert scientist.download(run, "direct.bin") == checksum
    listed = scientist.client.list_artifacts(before.run)
    assert "notes.bin" in [one.path for one in listed]

    ns.apply(old_server(ns, platform)[0])
    ns.kubectl("scale", "deployment", OLD, "--replicas=1")
    ns.kubectl("rollout", "status", f"deployment/{OLD}", "--timeout=180s", within=200)
    lead_to(ns, SELECTOR, scientist, "the old server")
    server.delete()
    mlflow.set_tracking_uri(scientist.url)
    for work in (before, after):
        scientist.finds(work)
