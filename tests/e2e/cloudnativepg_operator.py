"""CloudNativePG on the test cluster: its operator from the released manifest, and a Cluster with one instance."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import yaml

from tests import cloudnativepg
from tests.cluster import programs
from tests.e2e import timeouts
from tests.e2e.external_stores import Postgres, secret
from tests.e2e.kube import TEST_LABEL, Kube, Object
from tests.e2e.server import SMALL_RESOURCES, eventually
from tests.e2e.shared_stores import ADMIN_PASSWORD

BUILD_COMMAND = (sys.executable, "-m", "tests.cluster", "cloudnativepg-images")
"""Command that builds or pulls CloudNativePG's images, pushes them to the registry, and copies the released manifest
into the cache. Waits if another process is doing that already."""

BUILD_TIMEOUT_SECONDS = 1200.0
"""Limit for compiling CloudNativePG at the lowest priority, on a machine that runs tests meanwhile."""

NAMESPACE, DEPLOYMENT = "cnpg-system", "cnpg-controller-manager"
"""Names in the released manifest. Its ClusterRoleBinding and its webhooks have the namespace's name, too."""

ADMIN = "platform-admin"
"""Name of a role of each Cluster, and of the Secret with its login."""

CLUSTERS = "clusters.postgresql.cnpg.io"
CLUSTER_SECONDS = 300.0
"""Until a new Cluster is healthy: its first instance is created by a Job."""


@dataclass(frozen=True)
class Cluster:
    """The Cluster `name` in the namespace of `kube`, with its superuser's Secret `<name>-superuser`."""

    kube: Kube
    name: str = "pg"

    @property
    def superuser(self) -> str:
        """Name of the Secret with the superuser."""
        return f"{self.name}-superuser"

    def apply(self) -> None:
        """Create it. Its first database and the owner of this database are called `app`.

        The Secret ADMIN has a role that may create roles and databases, and is not a superuser.
        """
        admin = {
            "name": ADMIN,
            "login": True,
            "createrole": True,
            "createdb": True,
            "passwordSecret": {"name": ADMIN},
        }
        login = {
            **secret(ADMIN, username=ADMIN, password=ADMIN_PASSWORD),
            "type": "kubernetes.io/basic-auth",
        }
        self.kube.apply(
            login,
            cloudnativepg.cluster(
                self.name,
                imageName=self.kube.settings.pins["IMAGE_CLOUDNATIVEPG_POSTGRES"],
                enableSuperuserAccess=True,
                managed={"roles": [admin]},
                # By default a primary that stops waits three minutes for the idle connections of its clients.
                smartShutdownTimeout=1,
                resources=SMALL_RESOURCES,
            ),
        )

    def resource(self) -> Object:
        """Return the Cluster as stored."""
        found: Object = json.loads(self.kube.kubectl("get", CLUSTERS, self.name, "-o", "json"))
        return found

    def wait_healthy(self) -> None:
        """Wait until the Cluster has the condition Ready."""

        def is_ready() -> bool:
            conditions = (self.resource().get("status") or {}).get("conditions") or []
            return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

        eventually(f"Cluster {self.name} is healthy", is_ready, CLUSTER_SECONDS)

    @property
    def host(self) -> str:
        """Host of the primary, for clients in all namespaces."""
        return f"{self.name}-rw.{self.kube.namespace}.svc"

    @property
    def primary(self) -> str:
        """Name of the primary's pod."""
        return str(self.resource()["status"]["currentPrimary"])

    @property
    def postgres(self) -> "Instance":
        """The primary."""
        return Instance(self.kube, self.host, "postgres", "", pod=self.primary)

    def fail_over(self) -> None:
        """Add a second instance, delete the primary's pod, and wait until the second instance is the primary."""
        previous, change = self.primary, {"spec": {"instances": 2}}
        self.kube.kubectl("patch", CLUSTERS, self.name, "--type=merge", "-p", json.dumps(change))

        def has_joined() -> bool:
            # The copy starts after a checkpoint, for which Postgres takes minutes unless one is requested.
            self.postgres.query("CHECKPOINT")
            return bool(self.resource()["status"].get("readyInstances") == 2)

        eventually(f"Cluster {self.name} has two instances", has_joined, CLUSTER_SECONDS)
        self.kube.delete("Pod", previous)
        eventually("another instance is the primary", lambda: self.primary != previous, CLUSTER_SECONDS)


@dataclass(frozen=True)
class Instance(Postgres):
    """An instance of a Cluster. Its pod needs no password for the superuser."""

    pod: str = ""

    def query(self, sql: str, database: str = "postgres") -> str:
        """Run a query as the superuser; returns psql's output, unaligned and tuples only."""
        psql = ("psql", "-v", "ON_ERROR_STOP=1", "-U", self.user, "-d", database, "-Atc", sql)
        return self.kube.kubectl("exec", self.pod, "-c", "postgres", "--", *psql)


@contextmanager
def installed(kube: Kube) -> Iterator[None]:
    """Install CloudNativePG, and uninstall it afterwards together with all Clusters."""
    kube.run(*BUILD_COMMAND, within=BUILD_TIMEOUT_SECONDS)
    objects = _objects(kube)
    _delete(kube, objects)
    try:
        # A client-side apply would store each CRD in an annotation, for which they are too large.
        _kubectl(kube, objects, "apply", "--server-side", "--force-conflicts")
        available = ("wait", "--for=condition=Available", f"deployment/{DEPLOYMENT}", "--timeout=240s")
        kube.in_namespace(NAMESPACE).kubectl(*available, within=timeouts.READY_SECONDS + 10)
        yield
    finally:
        _delete(kube, objects)


def _objects(kube: Kube) -> list[Object]:
    """Return the objects of the released manifest.

    Without the limit of a tenth of a core: the operator would start slowly, and CloudNativePG restarts slow starters.
    """
    text = programs.cloudnativepg_manifest(kube.settings).read_text()
    objects: list[Object] = [obj for obj in yaml.load_all(text, yaml.CSafeLoader) if obj]
    for obj in objects:
        obj["metadata"].setdefault("labels", {})[TEST_LABEL] = "true"
        if obj["kind"] == "Deployment":
            (container,) = obj["spec"]["template"]["spec"]["containers"]
            del container["resources"]["limits"]["cpu"]
    return objects


def _delete(kube: Kube, objects: list[Object]) -> None:
    """Delete the objects, in an order in which no webhook is left without the operator that answers it."""
    last = {"Namespace", "Deployment"}
    ordered = sorted(objects, key=lambda obj: (obj["kind"] in last, "Webhook" not in obj["kind"]))
    _kubectl(kube, ordered, "delete", "--ignore-not-found", "--timeout=120s")


def _kubectl(kube: Kube, objects: list[Object], *args: str) -> None:
    """Run kubectl with the objects, which are in the namespace of the manifest or in none."""
    text = yaml.dump_all(objects, Dumper=yaml.CSafeDumper)
    kube.in_namespace(NAMESPACE).kubectl(*args, "-f", "-", stdin=text, within=180)
