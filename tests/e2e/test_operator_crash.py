"""The operator crashes at random times and between the steps of an upgrade; the next operator completes the work.

tests/integration/test_crash_during_creation.py tests a crash after every write of a first reconcile.
"""

import os
import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import pytest

from mlflow_operator.model.versions import DEFAULT_VERSION
from tests.cluster import operator_image, settings
from tests.e2e import external_stores, operator_release, timeouts
from tests.e2e.certificates import create_authority
from tests.e2e.earlier_data import check_data, log_data
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT, MinIO, Postgres, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import (
    COMPONENT,
    SERVER_LABEL,
    SMALL_RESOURCES,
    Server,
    eventually,
    is_ready,
    small_spec,
)

NAME = "operator-crash"
CRASHES = 10
UPGRADE_WRITES = ("create Job", "patch Deployment", "create Job", "apply Deployment")
"""Writes of an upgrade: create the preflight, scale the servers to 0, migrate the schema, start the new version."""

CRASH_TABLE = pytest.mark.long_running(
    reason="crashes operators for minutes; tests/unit/test_reconciler.py and tests/unit/components/upgrade crash at "
    "each write of a simulated cluster"
)


@dataclass(frozen=True)
class CrashPod:
    """A pod in which tests run operators until they crash, while the operator's Deployment is scaled to 0."""

    kube: Kube

    def run_until_crash(self, mode: str, value: float | str, *namespaces: Kube) -> list[str]:
        """Run one operator until it crashes; returns its writes. See tests/operator_crash.py for `mode` and `value`."""
        namespace_options = [f"--namespace={namespace.namespace}" for namespace in namespaces]
        # its own Lease, because the previous operator crashed without releasing its Lease
        lease = f"--lease-name={NAME}-{os.urandom(4).hex()}"
        done = subprocess.run(
            ["kubectl", "-n", self.kube.namespace, "exec", NAME, "--",
             "python", f"/{NAME}/{NAME}.py", mode, str(value), "run", "--port=0", lease, *namespace_options],
            env=self.kube.env, text=True, capture_output=True, check=False, timeout=timeouts.READY_SECONDS,
        )  # fmt: skip
        assert done.returncode == 137, f"the operator ended without a crash:\n{done.stdout}{done.stderr}"
        assert not operator_release.error_lines(done.stderr.splitlines()), done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def crash_pod(kube: Kube, started_at: str) -> Iterator[CrashPod]:
    """Replaces the operator by a pod with its service account; afterwards the operator is restored."""
    operator_kube = kube.in_namespace(operator_release.NAMESPACE)
    operator_kube.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=0")
    eventually("the operator is gone", lambda: not operator_release.pods(kube), timeouts.DELETION_SECONDS)
    program = (settings.ROOT / "tests" / "operator_crash.py").read_text(encoding="utf-8")
    operator_kube.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": NAME},
            "data": {f"{NAME}.py": program},
        },
        *lease_permissions(),
        idle_operator_pod(operator_image.reference(kube.settings, kube.shell)),
    )
    eventually(
        "the pod is ready", lambda: is_ready(operator_kube.require("Pod", NAME)), timeouts.STATUS_SECONDS
    )
    yield CrashPod(operator_kube)
    restore_operator(operator_kube)
    operator_kube.kubectl(
        "delete",
        "--now",
        f"pod/{NAME}",
        f"configmap/{NAME}",
        f"role/{NAME}",
        f"rolebinding/{NAME}",
    )


def lease_permissions() -> list[Object]:
    """Return a Role and RoleBinding for all Leases, because the chart's Role only allows the operator's Lease."""
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"]}
    meta = {"name": NAME}
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": operator_release.RELEASE}],
        },
    ]


def idle_operator_pod(image: str) -> Object:
    """Return a pod that sleeps, with the operator's image and service account."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": NAME},
        "spec": {
            "serviceAccountName": operator_release.RELEASE,
            "automountServiceAccountToken": True,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True},
            "containers": [
                {
                    "name": NAME,
                    "image": image,
                    "command": ["sleep", "infinity"],
                    "resources": SMALL_RESOURCES,
                    "securityContext": RESTRICTED_SECURITY_CONTEXT,
                    "volumeMounts": [{"name": NAME, "mountPath": f"/{NAME}"}],
                }
            ],
            "volumes": [{"name": NAME, "configMap": {"name": NAME}}],
        },
    }


def restore_operator(kube: Kube) -> None:
    """Scale the operator's Deployment to 1, and wait until it is rolled out."""
    kube.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=1")
    kube.kubectl("rollout", "status", f"deployment/{operator_release.RELEASE}", "--timeout=60s")


@dataclass(frozen=True)
class Stores:
    """An external Postgres and MinIO, with a database and a bucket per server."""

    postgres: Postgres
    minio: MinIO

    def server(self, ns: Kube, name: str) -> Server:
        """Apply a server on the empty database `name` and the bucket `bucket-<name>`, which does not exist yet."""
        self.postgres.query(f"create database {name}")
        ns.apply(
            secret("postgres", username=self.postgres.user, password=self.postgres.password),
            secret("minio", accessKeyID=self.minio.access_key, secretAccessKey=self.minio.secret_key),
        )
        database = {
            "host": self.postgres.host,
            "databaseName": name,
            "credentialsSecretRef": {"name": "postgres"},
            "tls": {"mode": "Require"},
        }
        bucket = {
            "endpoint": self.minio.endpoint,
            "bucket": f"bucket-{name}",
            "credentialsSecretRef": {"name": "minio"},
        }
        return Server(ns, name).apply(small_spec(database={"external": database}, artifacts={"s3": bucket}))


@pytest.fixture
def stores(other_ns: Kube) -> Stores:
    """Stores that are ready before an operator starts."""
    return Stores(
        external_stores.start_postgres(other_ns, create_authority("Root")),
        external_stores.start_minio(other_ns, None),
    )


@pytest.mark.restarts_operator
@CRASH_TABLE
def test_ten_random_operator_crashes_lose_nothing(crash_pod: CrashPod, stores: Stores, ns: Kube) -> None:
    """While one server is created and another one is changed. SEED=<printed number> in the environment repeats it."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={seed}")
    random_source = random.Random(seed)  # noqa: S311
    old = stores.server(ns, "old")
    crash_pod.run_until_crash("writes", 0, ns)
    workload = Workload(old.wait_ready().url)
    data = workload.log_data()
    new = Server(ns, "new")
    stage = {"name": "STAGE", "value": "two"}
    larger_resources = {**SMALL_RESOURCES, "limits": {"memory": "3Gi"}}
    changes: list[Callable[[], object]] = [
        lambda: new.apply(small_spec()),
        lambda: None,
        lambda: old.patch_spec(env=[stage]),
        lambda: ns.delete("Service", old.names.service),
        lambda: old.patch_spec(replicas=2),
        lambda: new.patch_spec(env=[stage]),
        lambda: ns.patch(
            "ConfigMap", old.names.client, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}}
        ),
        lambda: new.patch_spec(resources=larger_resources),
        lambda: old.patch_spec(replicas=1, env=None),
        lambda: ns.delete("Deployment", old.names.deployment),
    ]
    assert len(changes) == CRASHES
    generated: dict[str, Object] = {}
    writes = []
    for change in changes:
        change()
        writes.append(len(crash_pod.run_until_crash("seconds", random_source.uniform(1, 8), ns)))
        for name in (new.names.database_secret, new.names.artifacts_secret):
            if existing := ns.get("Secret", name):
                generated.setdefault(name, existing["data"])
    print("writes before each crash:", *writes)
    assert any(writes), "no operator wrote anything before its crash"

    restore_operator(crash_pod.kube)
    old.wait_ready()
    new.wait_ready()
    assert {name: ns.require("Secret", name)["data"] for name in generated} == generated
    Workload(old.url).check_data(data)
    new_workload = Workload(new.url)
    new_workload.check_data(new_workload.log_data())
    for server, components in ((old, ["server"]), (new, ["artifact-store", "database", "server"])):
        jobs = ns.list("Job", {"mlflow-operator.dev/server": server.name})
        assert len(jobs) == 1, f"{server.name} was migrated {len(jobs)} times"
        eventually(
            f"{server.name} has exactly one pod of each component",
            partial(has_one_pod_each, server, components),
            timeouts.DELETION_SECONDS,
        )


def has_one_pod_each(server: Server, components: list[str]) -> bool:
    """Whether there is exactly one pod of each component, and no other pod."""
    found = sorted(pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in server.running_pods())
    return found == components


@pytest.mark.restarts_operator
@pytest.mark.second_images
@CRASH_TABLE
def test_upgrade_resumes_after_operator_crash(
    crash_pod: CrashPod, ns: Kube, earlier_images: dict[str, str]
) -> None:
    """Four operators in turn crash after a step of one upgrade, and the fifth completes it."""
    old = "3.16.1"
    server = Server(ns).apply(small_spec(version=old, image=earlier_images[old]))
    crash_pod.run_until_crash("writes", 0, ns)
    data = log_data(server.wait_ready())
    server.patch_spec(version=DEFAULT_VERSION, image=None)
    last_writes = []
    for write in UPGRADE_WRITES:
        *_, last = crash_pod.run_until_crash("text", write, ns)
        assert write in last
        last_writes.append(last)
    assert "-preflight-" in last_writes[0]
    assert "-migrate-" in last_writes[2]
    restore_operator(crash_pod.kube)
    server.wait_ready()
    check_data(server, data)
    assert server.status["version"] == DEFAULT_VERSION
    upgrade_status = server.status["upgrade"]
    assert (upgrade_status["fromVersion"], upgrade_status["toVersion"]) == (old, DEFAULT_VERSION)
    assert upgrade_status["downtimeSeconds"] > 0
    migrations = ns.list("Job", {SERVER_LABEL: server.name, COMPONENT: "migration"})
    assert len(migrations) == 2, "one at the first start, one for the upgrade"
    preflights = partial(ns.list, "Job", {SERVER_LABEL: server.name, COMPONENT: "preflight"})
    eventually("no preflight is left", lambda: not preflights(), timeouts.STATUS_SECONDS)
    components = ["artifact-store", "database", "server"]
    eventually(
        "there is one pod of each component",
        partial(has_one_pod_each, server, components),
        timeouts.DELETION_SECONDS,
    )
