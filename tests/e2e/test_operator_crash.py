"""The operator dies at random moments, and where an upgrade turns: the next one finishes what it began.

tests/integration/test_operator_crash.py has it die after every write of a first reconcile.
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
from tests.e2e.certificates import authority
from tests.e2e.earlier_data import finds, logged
from tests.e2e.external_stores import SECURITY, MinIO, Postgres, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import COMPONENT, LITTLE, SERVER_LABEL, Server, eventually, is_ready, small

PROGRAM = "mortal"
KILLS = 10
TURNS = ("create Job", "patch Deployment", "create Job", "apply Deployment")
"""Of an upgrade: the new image is asked, the servers stop, the tables move, servers of the new version start."""


CRASH_TABLE = pytest.mark.long_running(
    reason="minutes of operators that crash; tests/unit/controller crashes at each write of a simulated cluster"
)


@dataclass(frozen=True)
class Mortals:
    """A pod in which operators live as long as a test says, while the real one is away."""

    kube: Kube

    def live(self, how: str, when: float | str, *namespaces: Kube) -> list[str]:
        """One operator's life; returns what it wrote. See `mortal` for `how` and `when`."""
        places = [f"--namespace={each.namespace}" for each in namespaces]
        # a lease of its own: nobody else leads here, and the one before has given nothing back
        lease = f"--lease-name=mortal-{os.urandom(4).hex()}"
        done = subprocess.run(
            ["kubectl", "-n", self.kube.namespace, "exec", PROGRAM, "--",
             "python", f"/{PROGRAM}/{PROGRAM}.py", how, str(when), "run", "--port=0", lease, *places],
            env=self.kube.env, text=True, capture_output=True, check=False, timeout=timeouts.READY,
        )  # fmt: skip
        assert done.returncode == 137, f"it ended by itself:\n{done.stdout}{done.stderr}"
        assert not operator_release.complaints(done.stderr.splitlines()), done.stderr
        return done.stdout.splitlines()


@pytest.fixture
def mortals(kube: Kube, watched: str) -> Iterator[Mortals]:
    """In the place of the operator, under its account; afterwards it is back."""
    own = kube.within(operator_release.NAMESPACE)
    own.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=0")
    eventually("the operator is gone", lambda: not operator_release.pods(kube), timeouts.GONE)
    program = (settings.ROOT / "tests" / "mortal.py").read_text(encoding="utf-8")
    own.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": PROGRAM},
            "data": {f"{PROGRAM}.py": program},
        },
        *leases(),
        pod(operator_image.reference(kube.settings, kube.shell)),
    )
    eventually("the pod is ready", lambda: is_ready(own.need("Pod", PROGRAM)), timeouts.SETTLED)
    yield Mortals(own)
    back(own)
    own.kubectl(
        "delete",
        "--now",
        f"pod/{PROGRAM}",
        f"configmap/{PROGRAM}",
        f"role/{PROGRAM}",
        f"rolebinding/{PROGRAM}",
    )


def leases() -> list[Object]:
    """A right beside the chart's, which names the one lease of the one operator."""
    group = "rbac.authorization.k8s.io"
    rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["get", "update"]}
    meta = {"name": PROGRAM}
    return [
        {"apiVersion": f"{group}/v1", "kind": "Role", "metadata": meta, "rules": [rule]},
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": PROGRAM},
            "subjects": [{"kind": "ServiceAccount", "name": operator_release.RELEASE}],
        },
    ]


def pod(image: str) -> Object:
    """Sleeps, with the operator's image and account."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": PROGRAM},
        "spec": {
            "serviceAccountName": operator_release.RELEASE,
            "automountServiceAccountToken": True,
            "terminationGracePeriodSeconds": 0,
            "securityContext": {"runAsNonRoot": True},
            "containers": [
                {
                    "name": PROGRAM,
                    "image": image,
                    "command": ["sleep", "infinity"],
                    "resources": LITTLE,
                    "securityContext": SECURITY,
                    "volumeMounts": [{"name": PROGRAM, "mountPath": f"/{PROGRAM}"}],
                }
            ],
            "volumes": [{"name": PROGRAM, "configMap": {"name": PROGRAM}}],
        },
    }


def back(kube: Kube) -> None:
    """The real operator works again."""
    kube.kubectl("scale", f"deployment/{operator_release.RELEASE}", "--replicas=1")
    kube.kubectl("rollout", "status", f"deployment/{operator_release.RELEASE}", "--timeout=60s")


@dataclass(frozen=True)
class Stores:
    """Somebody else's Postgres and MinIO, with a database and a bucket for everybody who asks."""

    postgres: Postgres
    minio: MinIO

    def server(self, ns: Kube, name: str) -> Server:
        """Applies a server on an empty database and a bucket that is not there yet, both called `name`."""
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
        return Server(ns, name).apply(small(database={"external": database}, artifacts={"s3": bucket}))


@pytest.fixture
def elsewhere(other_ns: Kube) -> Stores:
    """Stores that are up before any operator lives."""
    return Stores(
        external_stores.postgres(other_ns, authority("Root")), external_stores.minio(other_ns, None)
    )


@pytest.mark.restarts_operator
@CRASH_TABLE
def test_ten_operator_crashes_at_random_moments_lose_nothing(
    mortals: Mortals, elsewhere: Stores, ns: Kube
) -> None:
    """While a server is made and another one changed. SEED=<number> in the environment repeats what was printed."""
    seed = int(os.environ.get("SEED") or random.SystemRandom().randrange(10**6))
    print(f"SEED={seed}")
    moments = random.Random(seed)  # noqa: S311
    old = elsewhere.server(ns, "old")
    mortals.live("writes", 0, ns)
    scientist = Scientist(old.ready().url)
    work = scientist.work()
    new = Server(ns, "new")
    named = {"name": "STAGE", "value": "two"}
    roomier = {**LITTLE, "limits": {"memory": "3Gi"}}
    story: list[Callable[[], object]] = [
        lambda: new.apply(small()),
        lambda: None,
        lambda: old.change(env=[named]),
        lambda: ns.delete("Service", old.names.service),
        lambda: old.change(replicas=2),
        lambda: new.change(env=[named]),
        lambda: ns.patch(
            "ConfigMap", old.names.client, {"data": {"MLFLOW_TRACKING_URI": "http://elsewhere"}}
        ),
        lambda: new.change(resources=roomier),
        lambda: old.change(replicas=1, env=None),
        lambda: ns.delete("Deployment", old.names.deployment),
    ]
    assert len(story) == KILLS
    generated: dict[str, Object] = {}
    writes = []
    for chapter in story:
        chapter()
        writes.append(len(mortals.live("seconds", moments.uniform(1, 8), ns)))
        for name in (new.names.database_secret, new.names.artifacts_secret):
            if found := ns.get("Secret", name):
                generated.setdefault(name, found["data"])
    print("each wrote, before it died:", *writes)
    assert any(writes), "not one of them did anything"

    back(mortals.kube)
    old.ready()
    new.ready()
    assert {name: ns.need("Secret", name)["data"] for name in generated} == generated
    Scientist(old.url).finds(work)
    recent = Scientist(new.url)
    recent.finds(recent.work())
    for server, components in ((old, ["server"]), (new, ["artifact-store", "database", "server"])):
        jobs = ns.list("Job", {"mlflow-operator.dev/server": server.name})
        assert len(jobs) == 1, f"{server.name} was migrated {len(jobs)} times"
        eventually(
            f"{server.name} has a pod of each component and none twice",
            partial(running_once, server, components),
            timeouts.GONE,
        )


def running_once(server: Server, components: list[str]) -> bool:
    """Whether of each component there is one pod."""
    found = sorted(pod["metadata"]["labels"]["app.kubernetes.io/component"] for pod in server.running())
    return found == components


@pytest.mark.restarts_operator
@pytest.mark.second_images
@CRASH_TABLE
def test_upgrade_resumes_after_operator_crash(mortals: Mortals, ns: Kube, earlier: dict[str, str]) -> None:
    """One upgrade, begun by one operator, taken up by four more: each dies with what it has just begun."""
    old = "3.16.1"
    server = Server(ns).apply(small(version=old, image=earlier[old]))
    mortals.live("writes", 0, ns)
    work = logged(server.ready())
    server.change(version=DEFAULT_VERSION, image=None)
    begun = []
    for turn in TURNS:
        *_, last = mortals.live("upon", turn, ns)
        assert turn in last
        begun.append(last)
    assert "-preflight-" in begun[0]
    assert "-migrate-" in begun[2]
    back(mortals.kube)
    server.ready()
    finds(server, work)
    assert server.status["version"] == DEFAULT_VERSION
    told = server.status["upgrade"]
    assert (told["fromVersion"], told["toVersion"]) == (old, DEFAULT_VERSION)
    assert told["downtimeSeconds"] > 0
    moved = ns.list("Job", {SERVER_LABEL: server.name, COMPONENT: "migration"})
    assert len(moved) == 2, "one at the first start, one for the upgrade"
    asked = partial(ns.list, "Job", {SERVER_LABEL: server.name, COMPONENT: "preflight"})
    eventually("no preflight is left", lambda: not asked(), timeouts.SETTLED)
    parts = ["artifact-store", "database", "server"]
    eventually("there is one pod of each part", partial(running_once, server, parts), timeouts.GONE)
