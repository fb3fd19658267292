"""Own objects are created and updated, foreign objects are not changed, and an up-to-date object is not written."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import (
    Applier,
    ApplyConflictError,
    BeingDeletedError,
    NameConflictError,
)
from mlflow_operator.kube.apply.admission import AdmittedWrites
from mlflow_operator.kube.apply.backoff import MAX_IMMEDIATE_UPDATES, ApplyBackoff
from mlflow_operator.kube.errors import Conflict
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.unit.fake_kubernetes import FakeKubernetesClient

OWNER: Object = {
    "apiVersion": kinds.MLFLOWSERVER.api_version,
    "kind": "MLflowServer",
    "metadata": {"name": "a", "namespace": "ns", "uid": "owner-1"},
}
LABELS = {labels.MANAGED_BY: labels.OPERATOR, labels.SERVER: "a"}


def meta(name: str, **more: Any) -> Object:
    return {"name": name, "namespace": "ns", "labels": dict(LABELS), **more}


def deployment(**members: Any) -> Object:
    server = {"name": "server", "image": "mlflow:1", "env": [{"name": "A", "value": "1"}], **members}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": meta("a"),
        "spec": {"replicas": 1, "template": {"spec": {"containers": [server]}}},
    }


def secret(**data: str) -> Object:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": meta("a-database"), "data": data}


def claim(size: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("a-data"), "spec": spec}


def job() -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta("a-migrate-1"),
        "spec": {
            "backoffLimit": 0,
            "template": {"spec": {"containers": [{"name": "migrate", "image": "mlflow:1"}]}},
        },
    }


def container(obj: Object) -> Object:
    found: Object = obj["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.fixture
def cluster() -> FakeKubernetesClient:
    return FakeKubernetesClient()


@pytest.fixture
def apply_backoff() -> ApplyBackoff:
    return ApplyBackoff(lambda: 0.0)


class TestDisposableObjects:
    async def test_creates_with_owner_reference_and_is_idempotent(self, cluster: Any) -> None:
        created = await Applier(cluster).ensure(deployment(), None, OWNER)
        assert created["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "mlflow-operator.dev/v1alpha1",
                "kind": "MLflowServer",
                "name": "a",
                "uid": "owner-1",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        assert await Applier(cluster).ensure(deployment(), created, OWNER) is created
        assert cluster.writes == [("apply", "Deployment/a")]

    async def test_removes_fields_no_longer_desired(self, cluster: Any) -> None:
        """No desired field differs in the observed object; only the digest shows the change."""
        observed = await Applier(cluster).ensure(deployment(args=["--old"]), None, OWNER)
        now = await Applier(cluster).ensure(deployment(), observed, OWNER)
        assert "args" not in container(now)
        assert await Applier(cluster).ensure(deployment(), now, OWNER) is now

    @pytest.mark.parametrize(
        "edit",
        [
            lambda d: d["spec"].update(replicas=0),
            lambda d: container(d).update(image="other:1"),
            lambda d: container(d)["env"].append({"name": "X", "value": "1"}),
            lambda d: container(d)["env"].__setitem__(0, {"name": "A", "valueFrom": {"secretKeyRef": {}}}),
            lambda d: d["spec"]["template"]["spec"]["containers"].insert(0, {"name": "sidecar"}),
            lambda d: d["metadata"]["annotations"].clear(),
            lambda d: d["metadata"]["labels"].pop(labels.MANAGED_BY),
        ],
    )
    async def test_reverts_manual_edits(self, cluster: Any, edit: Callable[[Object], object]) -> None:
        observed = await Applier(cluster).ensure(deployment(), None, OWNER)
        edited = cluster.edit("Deployment", "a", edit)
        now = await Applier(cluster).ensure(deployment(), edited, OWNER)
        assert (now["spec"], now["metadata"]["labels"]) == (observed["spec"], observed["metadata"]["labels"])
        assert await Applier(cluster).ensure(deployment(), now, OWNER) is now

    async def test_stale_read_is_retried_after_conflict(self, cluster: Any) -> None:
        """The list index of the stale read points to another variable. After a new read both added variables go."""
        await Applier(cluster).ensure(deployment(), None, OWNER)
        stale = cluster.edit("Deployment", "a", lambda d: container(d)["env"].append({"name": "X"}))
        cluster.edit("Deployment", "a", lambda d: container(d)["env"].insert(0, {"name": "Y"}))
        now = await Applier(cluster).ensure(deployment(), stale, OWNER)
        assert container(now)["env"] == [{"name": "A", "value": "1"}]

    async def test_repeated_conflict_is_raised(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        await Applier(cluster).ensure(deployment(), None, OWNER)
        stale = cluster.edit("Deployment", "a", lambda d: container(d)["env"].append({"name": "X"}))
        get = cluster.get

        async def get_and_change(*where: Any) -> Object | None:
            found: Object | None = await get(*where)
            cluster.edit("Deployment", "a", lambda d: d.update(status={"changes": len(cluster.writes)}))
            return found

        cluster.edit("Deployment", "a", lambda d: d.update(status={"changes": 0}))
        monkeypatch.setattr(cluster, "get", get_and_change)
        with pytest.raises(Conflict):
            await Applier(cluster).ensure(deployment(), stale, OWNER)

    async def test_object_with_another_uid_is_not_updated(self, cluster: Any) -> None:
        observed = await Applier(cluster).ensure(deployment(), None, OWNER)
        cluster.edit("Deployment", "a", lambda d: d["metadata"].update(uid="another"))
        with pytest.raises(Conflict):
            await Applier(cluster).ensure(deployment(image="new"), observed, OWNER)

    async def test_secret_has_no_digest_and_unmanaged_keys_are_removed(self, cluster: Any) -> None:
        observed = await Applier(cluster).ensure(secret(password="eA==", old="eA=="), None, OWNER)
        assert "annotations" not in observed["metadata"]
        now = await Applier(cluster).ensure(secret(password="eA=="), observed, OWNER)
        assert now["data"] == {"password": "eA=="}
        assert await Applier(cluster).ensure(secret(password="eA=="), now, OWNER) is now


class TestCreation:
    """Disposable objects are created without a request whether they exist."""

    @pytest.fixture
    def reads(self, cluster: FakeKubernetesClient, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Names that were requested."""
        get, reads = cluster.get, list[str]()

        async def record(kind: Kind, namespace: str | None, name: str) -> Object | None:
            reads.append(name)
            return await get(kind, namespace, name)

        monkeypatch.setattr(cluster, "get", record)
        return reads

    async def test_needs_one_request(self, cluster: Any, reads: list[str]) -> None:
        await Applier(cluster).ensure(deployment(), None, OWNER)
        assert (reads, cluster.writes) == ([], [("apply", "Deployment/a")])

    @pytest.mark.parametrize("is_absent", [True, False])
    async def test_secret_is_created_unread_only_if_it_is_known_to_be_absent(
        self, cluster: Any, reads: list[str], is_absent: bool
    ) -> None:
        await Applier(cluster).ensure(secret(password="eA=="), None, OWNER, is_absent=is_absent)
        assert reads == ([] if is_absent else ["a-database"])

    async def test_secret_that_was_created_meanwhile_is_not_taken_over(self, cluster: Any) -> None:
        stored = cluster.put({**secret(x="eA=="), "metadata": {"name": "a-database", "namespace": "ns"}})
        with pytest.raises(NameConflictError):
            await Applier(cluster).ensure(secret(password="eA=="), None, OWNER, is_absent=True)
        assert cluster.objects["Secret", "a-database"] == stored

    async def test_used_name_is_read_from_then_on(self, cluster: Any, reads: list[str]) -> None:
        """Otherwise, each reconcile would send a write that is rejected."""
        applier = Applier(cluster)
        foreign = cluster.put({**deployment(), "metadata": {"name": "a", "namespace": "ns"}})
        for _ in range(3):
            with pytest.raises(NameConflictError):
                await applier.ensure(deployment(), None, OWNER)
        assert cluster.rejected_creations == ["Deployment/a"]
        assert reads == ["a"] * 3
        assert cluster.objects["Deployment", "a"] == foreign

        del cluster.objects["Deployment", "a"]
        await applier.ensure(deployment(), None, OWNER)
        assert reads == ["a"] * 4
        del cluster.objects["Deployment", "a"]
        await applier.ensure(deployment(), None, OWNER)
        assert reads == ["a"] * 4, "the name was free"

    async def test_names_of_a_deleted_server_are_forgotten(self, cluster: Any, reads: list[str]) -> None:
        applier = Applier(cluster)
        cluster.put({**deployment(), "metadata": {"name": "a", "namespace": "ns"}})
        with pytest.raises(NameConflictError):
            await applier.ensure(deployment(), None, OWNER)
        applier.forget_server(("ns", "a"))
        del cluster.objects["Deployment", "a"]
        await applier.ensure(deployment(), None, OWNER)
        assert reads == ["a"]

    async def test_object_without_its_labels_is_repaired(self, cluster: Any) -> None:
        """The list by label did not contain it, although the server owns it."""
        await Applier(cluster).ensure(deployment(), None, OWNER)
        cluster.edit("Deployment", "a", lambda d: d["metadata"]["labels"].clear())
        repaired = await Applier(cluster).ensure(deployment(), None, OWNER)
        assert repaired["metadata"]["labels"] == deployment()["metadata"]["labels"]


class TestOwnership:
    async def test_foreign_object_is_not_changed(self, cluster: Any) -> None:
        cluster.put({**deployment(image="other:1"), "metadata": {"name": "a", "namespace": "ns"}})
        with pytest.raises(NameConflictError) as caught:
            await Applier(cluster).ensure(deployment(), None, OWNER)
        assert caught.value.message == (
            'Deployment "a" already exists and does not belong to this MLflowServer. '
            "Rename the MLflowServer, or delete the Deployment."
        )
        assert (caught.value.conflict.kind, caught.value.conflict.name) == ("Deployment", "a")
        assert cluster.writes == []
        assert cluster.rejected_creations == ["Deployment/a"]

    @pytest.mark.parametrize("kind", ["MLflowServer", "HelmRelease"])
    async def test_object_of_another_controller_is_not_adopted_by_its_labels(
        self, cluster: Any, kind: str
    ) -> None:
        controller = {"kind": kind, "name": "b", "uid": "owner-2", "controller": True}
        cluster.put({**deployment(), "metadata": meta("a", ownerReferences=[controller])})
        with pytest.raises(NameConflictError):
            await Applier(cluster).ensure(deployment(), None, OWNER)
        assert cluster.writes == []

    @pytest.mark.parametrize("references", [[], [{"kind": "Team", "name": "x", "uid": "team-1"}]])
    async def test_object_without_controller_is_adopted_and_repaired(
        self, cluster: Any, references: list[Object]
    ) -> None:
        """A restore of a cluster backup removes ownerReferences, and gives the objects new uids."""
        await Applier(cluster).ensure(deployment(), None, OWNER)
        del cluster.objects["Deployment", "a"]
        restored = cluster.put(
            {**deployment(image="old:1"), "metadata": meta("a", ownerReferences=references)}
        )
        adopted = await Applier(cluster).ensure(deployment(), restored, OWNER)
        assert container(adopted)["image"] == "mlflow:1"
        assert adopted["metadata"]["ownerReferences"][-1]["uid"] == "owner-1"
        assert adopted["metadata"]["ownerReferences"][:-1] == references
        assert await Applier(cluster).ensure(deployment(), adopted, OWNER) is adopted

    async def test_object_of_deleted_server_with_same_name_is_waited_for(self, cluster: Any) -> None:
        """The MLflowServer was recreated, and the garbage collection of its old objects is not complete."""
        await Applier(cluster).ensure(
            deployment(), None, {**OWNER, "metadata": {**OWNER["metadata"], "uid": "owner-0"}}
        )
        with pytest.raises(BeingDeletedError):
            await Applier(cluster).ensure(deployment(), None, OWNER)
        assert len(cluster.writes) == 1

    @pytest.mark.parametrize("data", [True, False])
    async def test_object_being_deleted_is_waited_for(self, cluster: Any, data: bool) -> None:
        desired = claim("1Gi") if data else deployment()
        await Applier(cluster).ensure(desired, None, OWNER, data=data)
        observed = cluster.edit(
            desired["kind"],
            desired["metadata"]["name"],
            lambda d: d["metadata"].update(deletionTimestamp="x"),
        )
        with pytest.raises(BeingDeletedError):
            await Applier(cluster).ensure(desired, observed, OWNER, data=data)

    def test_errors_are_configuration_or_transient_errors(self) -> None:
        assert issubclass(NameConflictError, ConfigurationError)
        assert issubclass(ApplyConflictError, ConfigurationError)
        assert issubclass(BeingDeletedError, TransientError)


class TestDataObjects:
    async def test_creates_once_without_owner_reference_and_never_overwrites(self, cluster: Any) -> None:
        created = await Applier(cluster).ensure(secret(password="b2xk"), None, OWNER, data=True)
        assert "ownerReferences" not in created["metadata"]
        assert await Applier(cluster).ensure(secret(password="bmV3"), created, OWNER, data=True) is created
        assert cluster.objects["Secret", "a-database"]["data"] == {"password": "b2xk"}

    async def test_returns_the_values_of_an_object_that_was_created_after_the_list(
        self, cluster: Any
    ) -> None:
        """A server that gets other values than the stored ones has no access to its store."""
        await Applier(cluster).ensure(secret(password="b2xk"), None, OWNER, data=True)
        stored = await Applier(cluster).ensure(secret(password="bmV3"), None, OWNER, data=True)
        assert stored["data"] == {"password": "b2xk"}

    async def test_removed_key_is_not_regenerated(self, cluster: Any) -> None:
        """With a new password the server could not log in to its database."""
        await Applier(cluster).ensure(secret(password="b2xk"), None, OWNER, data=True)
        observed = cluster.edit("Secret", "a-database", lambda s: s["data"].clear())
        assert await Applier(cluster).ensure(secret(password="bmV3"), observed, OWNER, data=True) is observed
        assert cluster.objects["Secret", "a-database"]["data"] == {}

    async def test_is_adopted_by_server_with_same_name(self, cluster: Any) -> None:
        created = await Applier(cluster).ensure(claim("1Gi"), None, OWNER, data=True)
        recreated_owner = {**OWNER, "metadata": {**OWNER["metadata"], "uid": "owner-2"}}
        assert await Applier(cluster).ensure(claim("1Gi"), None, recreated_owner, data=True) == created

    async def test_object_that_lost_its_labels_is_not_adopted(self, cluster: Any) -> None:
        """Anybody can create a Secret of this name. The user must confirm that it contains the data."""
        cluster.put({**secret(password="b2xk"), "metadata": {"name": "a-database", "namespace": "ns"}})
        with pytest.raises(NameConflictError) as caught:
            await Applier(cluster).ensure(secret(password="bmV3"), None, OWNER, data=True)
        assert caught.value.message == (
            'Secret "a-database" does not have the labels of this MLflowServer, so the operator does not use it. To '
            "use the data of this server, for example after a restore, run: kubectl label -n ns secret/a-database "
            "app.kubernetes.io/managed-by=mlflow-operator mlflow-operator.dev/server=a. Otherwise, rename the "
            "MLflowServer."
        )
        assert cluster.writes == []

    async def test_instance_label_of_earlier_versions_is_removed_once(self, cluster: Any) -> None:
        """Argo CD tracks objects by it: an Application with the name of the server would delete the volume."""
        cluster.put({**claim("1Gi"), "metadata": meta("a-data")})
        observed = cluster.edit(
            "PersistentVolumeClaim",
            "a-data",
            lambda v: v["metadata"]["labels"].update({labels.INSTANCE: "a"}),
        )
        now = await Applier(cluster).remove_instance_label(observed, OWNER)
        assert now["metadata"]["labels"] == LABELS
        assert await Applier(cluster).remove_instance_label(now, OWNER) is now
        assert cluster.writes == [("patch", "PersistentVolumeClaim/a-data")]

    async def test_instance_label_with_another_value_is_kept(self, cluster: Any) -> None:
        """A user manages the Secret with an Application of another name."""
        observed = {**secret(), "metadata": meta("a-database", uid="u")}
        observed["metadata"]["labels"][labels.INSTANCE] = "platform"
        assert await Applier(cluster).remove_instance_label(observed, OWNER) is observed
        assert cluster.writes == []

    async def test_instance_label_is_not_removed_from_an_object_that_changed(self, cluster: Any) -> None:
        cluster.put({**claim("1Gi"), "metadata": meta("a-data")})
        stale = cluster.edit(
            "PersistentVolumeClaim",
            "a-data",
            lambda v: v["metadata"]["labels"].update({labels.INSTANCE: "a"}),
        )
        cluster.edit("PersistentVolumeClaim", "a-data", lambda v: v.update(status={"phase": "Bound"}))
        with pytest.raises(Conflict):
            await Applier(cluster).remove_instance_label(stale, OWNER)

    async def test_client_that_sets_the_instance_label_again_stops_the_removal_without_an_error(
        self, cluster: Any, apply_backoff: ApplyBackoff
    ) -> None:
        """It manages the object itself. The server must not fail because of a label."""
        applier = Applier(cluster, apply_backoff)
        cluster.put({**secret(), "metadata": meta("a-database")})
        for _ in range(MAX_IMMEDIATE_UPDATES + 1):
            observed = cluster.edit(
                "Secret", "a-database", lambda v: v["metadata"]["labels"].update({labels.INSTANCE: "a"})
            )
            stored = await applier.remove_instance_label(observed, OWNER)
        assert stored is observed
        assert len(cluster.writes) == MAX_IMMEDIATE_UPDATES

    async def test_object_of_another_server_is_not_adopted(self, cluster: Any) -> None:
        await Applier(cluster).ensure(claim("1Gi"), None, OWNER, data=True)
        other = {**OWNER, "metadata": {**OWNER["metadata"], "name": "b"}}
        with pytest.raises(NameConflictError):
            await Applier(cluster).ensure(claim("1Gi"), None, other, data=True)

    async def test_bound_claim_is_expanded_and_otherwise_unchanged(self, cluster: Any) -> None:
        created = await Applier(cluster).ensure(claim("1Gi"), None, OWNER, data=True)
        desired = claim("2048Mi")
        desired["spec"]["accessModes"] = ["ReadWriteMany"]
        # The claim is not bound.
        assert await Applier(cluster).ensure(desired, created, OWNER, data=True) is created
        bound = cluster.edit("PersistentVolumeClaim", "a-data", lambda v: v.update(status={"phase": "Bound"}))
        resized = await Applier(cluster).ensure(desired, bound, OWNER, data=True)
        assert resized["spec"] == {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "2048Mi"}},
        }
        assert await Applier(cluster).ensure(claim("2Gi"), resized, OWNER, data=True) is resized

    async def test_claim_is_not_shrunk(self, cluster: Any) -> None:
        await Applier(cluster).ensure(claim("2Gi"), None, OWNER, data=True)
        bound = cluster.edit("PersistentVolumeClaim", "a-data", lambda v: v.update(status={"phase": "Bound"}))
        assert await Applier(cluster).ensure(claim("1Gi"), bound, OWNER, data=True) is bound


class TestJobs:
    async def test_job_is_created_once_and_never_updated(self, cluster: Any) -> None:
        created = await Applier(cluster).ensure_job(job(), None, OWNER)
        assert created is not None
        assert created["metadata"]["ownerReferences"][0]["uid"] == "owner-1"
        changed = {**job(), "spec": {"backoffLimit": 9}}
        assert await Applier(cluster).ensure_job(changed, created, OWNER) is None
        assert await Applier(cluster).ensure_job(changed, None, OWNER) is None
        assert cluster.objects["Job", "a-migrate-1"]["spec"] == job()["spec"]

    async def test_foreign_job_is_not_adopted(self, cluster: Any) -> None:
        """Its success would be taken for a migration that never ran."""
        cluster.put({**job(), "metadata": {"name": "a-migrate-1", "namespace": "ns"}})
        with pytest.raises(NameConflictError):
            await Applier(cluster).ensure_job(job(), None, OWNER)

    async def test_restored_job_with_the_same_pods_is_adopted(self, cluster: Any) -> None:
        """The pod template contains the labels and the defaults that the API server added."""
        restored = copy.deepcopy(job())
        template = restored["spec"]["template"]
        template["metadata"] = {"labels": {"batch.kubernetes.io/job-name": "a-migrate-1"}}
        template["spec"] |= {"dnsPolicy": "ClusterFirst", "securityContext": {}}
        observed = cluster.put(restored)
        await Applier(cluster).adopt_job(job(), observed, OWNER)
        assert cluster.objects["Job", "a-migrate-1"]["metadata"]["ownerReferences"][0]["uid"] == "owner-1"
        adopted = cluster.objects["Job", "a-migrate-1"]
        await Applier(cluster).adopt_job(job(), adopted, OWNER)
        assert cluster.writes == [("patch", "Job/a-migrate-1")]

    @pytest.mark.parametrize(
        "change",
        [
            lambda pod: pod["containers"][0].update(command=["true"]),
            lambda pod: pod["containers"][0].update(args=["--help"]),
            lambda pod: pod["containers"][0].update(lifecycle={"preStop": {"exec": {"command": ["sh"]}}}),
            lambda pod: pod["containers"].append({"name": "other", "image": "other:1"}),
            lambda pod: pod.update(initContainers=[{"name": "other", "image": "other:1"}]),
            lambda pod: pod.update(hostNetwork=True),
            lambda pod: pod.update(serviceAccountName="admin"),
        ],
    )
    async def test_job_with_other_pods_is_not_adopted_although_it_has_the_labels(
        self, cluster: Any, change: Callable[[Object], object]
    ) -> None:
        forged = copy.deepcopy(job())
        change(forged["spec"]["template"]["spec"])
        observed = cluster.put(forged)
        with pytest.raises(NameConflictError) as caught:
            await Applier(cluster).adopt_job(job(), observed, OWNER)
        assert "Delete the Job" in caught.value.message
        assert cluster.writes == []


class TestConflicts:
    async def test_client_that_reverts_updates_is_named_and_writes_stop(
        self, cluster: Any, apply_backoff: ApplyBackoff
    ) -> None:
        record = {"manager": "autoscaler", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        observed = await Applier(cluster, apply_backoff).ensure(deployment(), None, OWNER)

        def revert(obj: Object) -> None:
            obj["spec"]["replicas"] = 7
            obj["metadata"]["managedFields"] = [record]

        for _ in range(MAX_IMMEDIATE_UPDATES):
            observed = cluster.edit("Deployment", "a", revert)
            await Applier(cluster, apply_backoff).ensure(deployment(), observed, OWNER)
        observed = cluster.edit("Deployment", "a", revert)
        before = list(cluster.writes)
        with pytest.raises(ApplyConflictError) as caught:
            await Applier(cluster, apply_backoff).ensure(deployment(), observed, OWNER)
        assert cluster.writes == before
        assert caught.value.reason is Reason.APPLY_CONFLICT
        assert "spec.replicas" in caught.value.message
        assert "(autoscaler)" in caught.value.message

    async def test_spec_changes_are_not_conflicts(self, cluster: Any, apply_backoff: ApplyBackoff) -> None:
        observed = None
        for number in range(20):
            observed = await Applier(cluster, apply_backoff).ensure(
                deployment(image=f"mlflow:{number}"), observed, OWNER
            )

    async def test_secret_value_changes_are_not_conflicts(
        self, cluster: Any, apply_backoff: ApplyBackoff
    ) -> None:
        """A Secret has no digest, so a new desired value looks like drift."""
        observed = None
        for number in range(20):
            observed = await Applier(cluster, apply_backoff).ensure(
                secret(password=str(number)), observed, OWNER
            )


class TestAdmission:
    """An admission controller replaces images, and adds a toleration, in every write."""

    @pytest.fixture
    def mirrored(self, cluster: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
        """A cluster with such a controller."""
        store = cluster._store

        def admit(obj: Object) -> Object:
            if obj["kind"] == "Deployment":
                container(obj)["image"] = f"mirror/{container(obj)['image'].removeprefix('mirror/')}"
                env = container(obj)["env"]
                if all(variable["name"] != "INJECTED" for variable in env):
                    env.append({"name": "INJECTED", "value": "1"})
            stored: Object = store(obj)
            return stored

        monkeypatch.setattr(cluster, "_store", admit)
        return cluster

    async def test_changes_of_admission_are_accepted(self, mirrored: Any) -> None:
        """The second reconcile writes nothing."""
        applier = Applier(mirrored)
        observed = await applier.ensure(deployment(), None, OWNER)
        assert container(observed)["image"] == "mirror/mlflow:1"
        writes = len(mirrored.writes)
        for _ in range(20):
            assert await applier.ensure(deployment(), observed, OWNER) is observed
        assert len(mirrored.writes) == writes

    async def test_changed_spec_is_written_and_accepted_again(self, mirrored: Any) -> None:
        applier = Applier(mirrored)
        observed = await applier.ensure(deployment(), None, OWNER)
        observed = await applier.ensure(deployment(image="mlflow:2"), observed, OWNER)
        assert container(observed)["image"] == "mirror/mlflow:2"
        assert await applier.ensure(deployment(image="mlflow:2"), observed, OWNER) is observed

    async def test_changes_of_other_clients_are_reverted(self, mirrored: Any) -> None:
        """Also fields that admission does not change."""
        applier = Applier(mirrored)
        await applier.ensure(deployment(), None, OWNER)
        observed = mirrored.edit("Deployment", "a", lambda d: d["spec"].update(replicas=7))
        fixed = await applier.ensure(deployment(), observed, OWNER)
        assert fixed["spec"]["replicas"] == 1
        assert await applier.ensure(deployment(), fixed, OWNER) is fixed

    async def test_changes_are_accepted_for_any_number_of_servers(self) -> None:
        """Beyond a limit, the operator would write the objects of all servers again and again."""
        accepted, stored = AdmittedWrites(), {**deployment(image="mirror/mlflow:1"), "metadata": meta("a")}
        servers = [("ns", f"server-{number}") for number in range(5000)]
        for server in servers:
            assert accepted.record(server, deployment(), stored)
        assert all(accepted.is_unchanged(server, deployment(), stored) for server in servers)
        replaced = {**stored, "metadata": meta("a", uid="another")}
        assert not accepted.is_unchanged(servers[0], deployment(), replaced)

    async def test_accepted_changes_are_forgotten_with_the_server(self, mirrored: Any) -> None:
        applier = Applier(mirrored)
        observed = await applier.ensure(deployment(), None, OWNER)
        writes = len(mirrored.writes)
        applier.forget_server(("ns", "other"))
        await applier.ensure(deployment(), observed, OWNER)
        assert len(mirrored.writes) == writes
        applier.forget_server(("ns", "a"))
        await applier.ensure(deployment(), observed, OWNER)
        assert len(mirrored.writes) > writes

    @pytest.mark.parametrize("image", ["mlflow:1", "mlflow:2"], ids=["same spec", "changed spec"])
    async def test_changes_of_other_clients_during_a_conflict_are_reverted(
        self, mirrored: Any, monkeypatch: pytest.MonkeyPatch, image: str
    ) -> None:
        """The object that is read again after the conflict is not the response to the operator's own write."""
        applier, patch = Applier(mirrored), mirrored.json_patch
        observed = await applier.ensure(deployment(), None, OWNER)
        observed = mirrored.edit("Deployment", "a", lambda d: container(d)["env"].append({"name": "X"}))

        async def change_and_patch(*request: Any) -> Object:
            monkeypatch.setattr(mirrored, "json_patch", patch)
            mirrored.edit("Deployment", "a", lambda d: d["spec"].update(replicas=7))
            patched: Object = await patch(*request)
            return patched

        monkeypatch.setattr(mirrored, "json_patch", change_and_patch)
        changed = await applier.ensure(deployment(image=image), observed, OWNER)
        assert changed["spec"]["replicas"] == 7
        fixed = await applier.ensure(deployment(image=image), changed, OWNER)
        assert fixed["spec"]["replicas"] == 1
        assert await applier.ensure(deployment(image=image), fixed, OWNER) is fixed

    async def test_restarted_operator_accepts_after_one_write(self, mirrored: Any) -> None:
        """What was accepted is only in memory."""
        observed = await Applier(mirrored).ensure(deployment(), None, OWNER)
        applier = Applier(mirrored)
        observed = await applier.ensure(deployment(), observed, OWNER)
        writes = len(mirrored.writes)
        assert await applier.ensure(deployment(), observed, OWNER) is observed
        assert len(mirrored.writes) == writes


class TestPrune:
    async def test_deletes_only_objects_no_longer_desired(self, cluster: Any) -> None:
        await Applier(cluster).ensure(deployment(), None, OWNER)
        await Applier(cluster).ensure(secret(x="eA=="), None, OWNER)
        await Applier(cluster).ensure(claim("1Gi"), None, OWNER, data=True)
        foreign_job = cluster.put({**job(), "metadata": meta("foreign")})
        deleted = await Applier(cluster).prune(
            [deployment()], copy.deepcopy([*cluster.objects.values()]), OWNER
        )
        assert [obj["metadata"]["name"] for obj in deleted] == ["a-database"]
        assert set(cluster.objects) == {
            ("Deployment", "a"),
            ("PersistentVolumeClaim", "a-data"),
            ("Job", foreign_job["metadata"]["name"]),
        }

    async def test_never_deletes_data_objects(self, cluster: Any) -> None:
        await Applier(cluster).ensure(claim("1Gi"), None, OWNER, data=True)
        await Applier(cluster).ensure(secret(x="eA=="), None, OWNER, data=True)
        assert await Applier(cluster).prune([], [*cluster.objects.values()], OWNER) == []

    async def test_object_being_deleted_is_not_deleted_again(self, cluster: Any) -> None:
        await Applier(cluster).ensure(deployment(), None, OWNER)
        observed = cluster.edit("Deployment", "a", lambda d: d["metadata"].update(deletionTimestamp="x"))
        assert await Applier(cluster).prune([], [observed], OWNER) == []
