"""A cluster in memory with everything around an MLflowServer: what runs pods, a database, an object store.

Only for faults and moments that a real cluster can't be brought to at will; the e2e tests hold the rest.
"""

import base64
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from mlflow_operator import api
from mlflow_operator.clients import dns
from mlflow_operator.clients.postgres.client import DatabaseState
from mlflow_operator.clients.s3 import minio_admin, seaweedfs_admin
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.components.database import reconcile as database
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import secrets as credentials
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS, Images
from mlflow_operator.reconciler import ReconcileResult, reconcile
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from mlflow_operator.status.metrics import Metrics
from tests.unit.conftest import FakeCluster

NAMESPACE, NAME = "team", "a"
URI = "postgresql://u:hunter2@{host}/mlflow"
EXTERNAL: Object = {
    "database": {"external": {"uriSecretRef": {"name": "db"}}},
    "artifacts": {
        "s3": {"bucket": "models", "endpoint": "http://s3:9000", "credentialsSecretRef": {"name": "keys"}}
    },
}


class CutOff(BaseException):
    """The process is killed: nothing catches it."""


class Api(FakeCluster):
    """The API server, with lists and status, and with a process that may die after any write."""

    dies_after: int | None = None

    def __init__(self) -> None:
        super().__init__()
        self.refuses: dict[str, Exception] = {}
        """What writing an object of a kind is answered with; of Events, what reading them is."""
        self.events: dict[str, list[Object]] = {}
        """What Kubernetes' controllers said of an object, by its uid."""

    async def list(
        self, kind: Kind, namespace: str | None = None, labels: str = "", fields: str = ""
    ) -> list[Object]:
        """All of a kind that carry the labels, or the Events about an object."""
        if kind == kinds.EVENT:
            if "Event" in self.refuses:
                raise self.refuses["Event"]
            return self.events.get(fields.removeprefix("involvedObject.uid="), [])
        wanted = dict(pair.split("=") for pair in labels.split(",") if pair)
        found = [
            await self.get(kind, namespace, name) for (called, name) in self.objects if called == kind.kind
        ]
        return [o for o in found if o and wanted.items() <= o["metadata"].get("labels", {}).items()]

    async def apply_status(self, obj: Object) -> Object:
        """Replaces the status."""
        self._note("apply_status", obj)
        return self.edit(obj["kind"], obj["metadata"]["name"], lambda live: live.update(status=obj["status"]))

    async def json_patch(
        self, kind: Kind, namespace: str | None, name: str, steps: Sequence[Object]
    ) -> Object:
        """As before; and what was to be deleted goes when its last finalizer does."""
        patched = await super().json_patch(kind, namespace, name, steps)
        meta = patched["metadata"]
        if kind == kinds.MLFLOWSERVER and meta.get("deletionTimestamp") and not meta.get("finalizers"):
            self.collect(name)
        return patched

    def collect(self, name: str) -> None:
        """A server is gone, and Kubernetes' collector takes what it owned."""
        uid = self.objects.pop((api.KIND, name))["metadata"]["uid"]
        for key, obj in list(self.objects.items()):
            if any(r["uid"] == uid for r in obj["metadata"].get("ownerReferences", ())):
                del self.objects[key]

    def _note(self, verb: str, obj: Object) -> None:
        if self.dies_after is not None and len(self.writes) >= self.dies_after:
            raise CutOff
        if obj["kind"] in self.refuses:
            raise self.refuses[obj["kind"]]
        super()._note(verb, obj)


@dataclass
class Events:
    """What was published."""

    published: list[tuple[bool, str, str]] = field(default_factory=list)

    async def publish(self, about: Object, normal: bool, reason: str, message: str) -> None:
        """Notes it."""
        self.published.append((normal, reason, message))


@dataclass
class Store:
    """An object store that is there, and lets everybody in."""

    fault: ReconcileError | None = None
    asked: list[Any] = field(default_factory=list)
    managed: list[Any] = field(default_factory=list)

    async def ensure_bucket(self, bucket: Any, create: bool) -> bool:
        """Fine, unless a fault is set."""
        self.asked.append(bucket)
        if self.fault:
            raise self.fault
        return False

    async def check_access(self, bucket: Any) -> None:
        """Fine."""

    async def apply_settings(self, bucket: Any, settings: Any, rule_id: str, rule: Object | None) -> None:
        """Notes what is asked for."""
        self.managed.append((bucket, settings, rule))

    def has_user(self, access_key_id: str) -> bool:
        """Whether there is such a key."""
        return True

    async def ensure_user(self, admin: Admin, user: AccessKey, name: str, policy: Object) -> None:
        """As a provider of users does: fine."""

    async def delete_user(self, admin: Admin, access_key_id: str, name: str) -> None:
        """As a provider of users does: fine."""


class World:
    """One MLflowServer `team/a` and all around it. Time stands still unless `now` is changed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, spec: Object | None = None) -> None:
        self.api, self.events, self.store = Api(), Events(), Store()
        self.revision: str | None = None
        self.backed_up = SCHEMA_HEADS[DEFAULT_VERSION]
        """Where the tables in a backup stand."""
        self.comment_of_tables: str | None = None
        self.major = 0
        self.database_fault: ReconcileError | None = None
        self.obstacle: ConfigurationError | None = None
        self.asked: list[Connection] = []
        self.now = "2026-01-01T00:00:00Z"
        self._words, self._uids = itertools.count(1), itertools.count(1)
        self.services: dict[str, str] = {}
        monkeypatch.setattr(database, "inspect", self.inspect)
        for provider in (minio_admin, seaweedfs_admin):
            monkeypatch.setattr(provider, "ensure_user", self._ensure_user)
            monkeypatch.setattr(provider, "delete_user", self._delete_user)
        monkeypatch.setattr(seaweedfs_admin, "has_user", self._has_user)
        monkeypatch.setattr(dns, "resolve_in_namespace", self._completed)
        self.api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.make(spec)

    @classmethod
    async def on_external_stores(cls, monkeypatch: pytest.MonkeyPatch) -> "World":
        """A server on a database and a bucket of somebody else's, Ready and at rest."""
        world = cls(monkeypatch, EXTERNAL)
        world.put_secret("db", uri=URI.format(host="one"))
        world.put_secret("keys", accessKeyID="k", secretAccessKey="s")
        await world.until_settled()
        assert world.condition("Ready")[0] == "True"
        return world

    def make(self, spec: Object | None = None) -> None:
        """The owner applies the resource."""
        self.api.put(
            {
                "apiVersion": api.API_VERSION,
                "kind": api.KIND,
                "metadata": {
                    "name": NAME,
                    "namespace": NAMESPACE,
                    "uid": f"server-{next(self._uids)}",
                    "generation": 1,
                },
                "spec": spec or {},
            }
        )

    def change(self, **spec: Any) -> None:
        """The owner edits the spec."""
        self.api.edit(api.KIND, NAME, lambda live: live["spec"].update(spec))

    def delete(self) -> None:
        """The owner deletes the resource; it stays while a finalizer holds it."""
        if self.api.objects[api.KIND, NAME]["metadata"].get("finalizers"):
            self.api.edit(api.KIND, NAME, lambda live: live["metadata"].update(deletionTimestamp=self.now))
        else:
            self.api.collect(NAME)

    async def reconcile(self) -> ReconcileResult:
        """One reconcile by a process that remembers nothing."""
        return await reconcile((NAMESPACE, NAME), self.out())

    def out(self) -> Dependencies:
        """What a reconcile may touch."""
        return Dependencies(
            cluster=self.api,  # type: ignore[arg-type]
            stores=self.store,  # type: ignore[arg-type]
            events=self.events,  # type: ignore[arg-type]
            metrics=Metrics(),
            images=Images(),
            cluster_domain="cluster.local",
            now=lambda: self.now,
            generate_password=lambda: f"password-number-{next(self._words)}-long-enough",
        )

    def settle(self, *, jobs: bool = True) -> None:
        """Kubernetes does its part: pods run, Jobs end."""
        for (kind, name), obj in list(self.api.objects.items()):
            if kind == "StatefulSet":
                up = obj["spec"]["replicas"]
                self.api.edit(kind, name, partial(dict.update, status={"readyReplicas": up}))
            if kind == "Deployment":
                self._run_pods(obj)
            if kind == "Job" and jobs and not obj.get("status"):
                self.end_job(obj, "Complete")

    def end_job(self, job: Object, how: str, said: str = "") -> None:
        """A Job's pod ends; a migration that completes leaves the schema at its head, a preflight its answer, a restore
        the tables of the backup."""
        name = job["metadata"]["name"]
        component = job["metadata"]["labels"][labels.COMPONENT]
        status = {"conditions": [{"type": how, "status": "True", "lastTransitionTime": self.now}]}
        self.api.edit("Job", name, lambda live: live.update(status=status))
        image = _first_container(job)["image"]
        if how == "Complete" and component == labels.MIGRATION_POD:
            self.revision = head_of(image)
        if how == "Complete" and component == labels.PREFLIGHT_POD:
            said = said or answer(image, self.revision)
        if how == "Complete" and component == labels.RESTORE_POD:
            env = {e["name"]: e.get("value", "") for e in _first_container(job)["env"]}
            self.revision = self.backed_up
            self.comment_of_tables = env["RESTORE_MARKER"].format(id="20260101T000000Z-00000001")
        done = how == "Complete"
        self.end_container(job, 0 if done else 1, said, "Succeeded" if done else "Failed")

    def end_container(self, job: Object, code: int, said: str, phase: str = "Running") -> None:
        """The container of a Job's pod ends; for a moment its pod still counts as running."""
        name = job["metadata"]["name"]
        ended = {"exitCode": code, "message": said}
        self.api.put(
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": f"{name}-pod",
                    "namespace": NAMESPACE,
                    "labels": labels.owned(NAME, job["metadata"]["labels"][labels.COMPONENT]),
                    "ownerReferences": [{"kind": "Job", "name": name, "uid": job["metadata"]["uid"]}],
                },
                "status": {
                    "phase": phase,
                    "containerStatuses": [{"name": "migrate", "state": {"terminated": ended}}],
                },
            }
        )

    async def until_settled(self, rounds: int = 12) -> None:
        """Reconciles and lets Kubernetes work, turn by turn, as long as anything changes."""
        for _ in range(rounds):
            self.settle()
            before = len(self.api.writes)
            await self.reconcile()
            if len(self.api.writes) == before:
                return
        raise AssertionError(f"never comes to rest: {self.api.writes[-10:]}")

    def get(self, kind: str, name: str) -> Object | None:
        """An object as it is stored."""
        return self.api.objects.get((kind, name))

    def secret(self, name: str) -> dict[str, str]:
        """A Secret's values."""
        found = self.get("Secret", name)
        assert found, f"no Secret {name}"
        return credentials.decoded(found)

    def put_secret(self, name: str, **values: str) -> None:
        """A Secret of the owner's."""
        data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
        meta = {"name": name, "namespace": NAMESPACE}
        self.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": data})

    def condition(self, kind: str) -> tuple[str, str, str]:
        """Status, reason and message of a condition."""
        found = self.get(api.KIND, NAME)
        assert found
        return next(
            (c["status"], c["reason"], c["message"])
            for c in found["status"]["conditions"]
            if c["type"] == kind
        )

    async def inspect(self, connection: Connection, *_: object) -> DatabaseState:
        """As the provider does."""
        self.asked.append(connection)
        if self.database_fault:
            raise self.database_fault
        noted = self.comment_of_tables if self.revision else None
        return DatabaseState(
            "UTF8",
            self.revision,
            f"{connection.host}#1",
            self.obstacle,
            comment_of_tables=noted,
            major=self.major,
        )

    async def _has_user(self, admin: Admin, access_key_id: str, name: str) -> bool:
        return self.store.has_user(access_key_id)

    async def _ensure_user(self, admin: Admin, user: AccessKey, name: str, policy: Object) -> None:
        await self.store.ensure_user(admin, user, name, policy)

    async def _delete_user(self, admin: Admin, access_key_id: str, name: str) -> None:
        await self.store.delete_user(admin, access_key_id, name)

    async def _completed(self, host: str, namespace: str, domain: str) -> tuple[str, str] | None:
        assert (namespace, domain) == (NAMESPACE, "cluster.local")
        return (f"{host}.in-full", self.services[host]) if host in self.services else None

    def _run_pods(self, deployment: Object) -> None:
        wanted = deployment["spec"]["replicas"]
        name = deployment["metadata"]["name"]
        status = dict.fromkeys(("replicas", "updatedReplicas", "availableReplicas", "readyReplicas"), wanted)
        self.api.edit("Deployment", name, lambda live: live.update(status=status))
        if wanted:
            meta = {
                "name": f"{name}-pod",
                "namespace": NAMESPACE,
                "labels": labels.owned(NAME, labels.SERVER_POD),
                "annotations": deployment["spec"]["template"]["metadata"]["annotations"],
            }
            self.api.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "status": {}})
        else:
            self.api.objects.pop((kinds.POD.kind, f"{name}-pod"), None)


def _first_container(job: Object) -> Object:
    found: Object = job["spec"]["template"]["spec"]["containers"][0]
    return found


def version_of(image: str) -> str:
    """The MLflow in an image: the tag's, or the one tested."""
    return image.rpartition(":v")[2].removesuffix("-full") if ":v" in image else DEFAULT_VERSION


def head_of(image: str) -> str:
    """Where the image's migrations end."""
    return SCHEMA_HEADS[version_of(image)]


def answer(image: str, revision: str | None) -> str:
    """What a preflight says of a database at `revision`: one that is not of a later version is known."""
    head, order = head_of(image), list(dict.fromkeys(SCHEMA_HEADS.values()))
    newer = revision in order and order.index(revision) > order.index(head)
    movement = "none" if revision == head else "unknown" if newer else "forward"
    steps = {"none": 0, "unknown": None, "forward": 3}[movement]
    version = version_of(image)
    found = {"version": version, "revision": revision, "head": head, "movement": movement, "steps": steps}
    return json.dumps({**found, "faults": []})


DOWN = TransientError(Reason.DATABASE_UNREACHABLE, "The database is away.")
