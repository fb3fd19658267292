"""What is ours becomes what it should be, what is not is left alone, and at rest nothing is written."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import (
    ApplyConflictError,
    BeingDeletedError,
    NameConflictError,
    ensure,
    ensure_job,
    prune,
)
from mlflow_operator.kube.apply_backoff import ROUNDS, ApplyBackoff
from mlflow_operator.kube.errors import Conflict
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError

OWNER: Object = {
    "apiVersion": kinds.MLFLOWSERVER.api_version,
    "kind": "MLflowServer",
    "metadata": {"name": "a", "namespace": "ns", "uid": "owner-1"},
}
OURS = {labels.MANAGED_BY: labels.OPERATOR, labels.SERVER: "a"}


def meta(name: str, **more: Any) -> Object:
    return {"name": name, "namespace": "ns", "labels": dict(OURS), **more}


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


def volume(size: str) -> Object:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta("a-data"), "spec": spec}


def job() -> Object:
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": meta("a-migrate-1"),
        "spec": {"backoffLimit": 0},
    }


def container(obj: Object) -> Object:
    found: Object = obj["spec"]["template"]["spec"]["containers"][0]
    return found


@pytest.fixture
def repairs() -> ApplyBackoff:
    return ApplyBackoff(lambda: 0.0)


class TestDisposable:
    async def test_is_made_with_its_owner_and_then_left_alone(self, cluster: Any) -> None:
        made = await ensure(cluster, deployment(), None, OWNER)
        assert made is not None
        assert made["metadata"]["ownerReferences"] == [
            {
                "apiVersion": "mlflow-operator.dev/v1alpha1",
                "kind": "MLflowServer",
                "name": "a",
                "uid": "owner-1",
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
        assert await ensure(cluster, deployment(), made, OWNER) is None
        assert cluster.writes == [("apply", "Deployment/a")]

    async def test_what_we_no_longer_say_goes(self, cluster: Any) -> None:
        """Nothing in the live object differs from what is wanted; only the digest tells."""
        live = await ensure(cluster, deployment(args=["--old"]), None, OWNER)
        assert live is not None
        now = await ensure(cluster, deployment(), live, OWNER)
        assert now is not None
        assert "args" not in container(now)
        assert await ensure(cluster, deployment(), now, OWNER) is None

    @pytest.mark.parametrize(
        "edit",
        [
            lambda d: d["spec"].update(replicas=0),
            lambda d: container(d).update(image="evil"),
            lambda d: container(d)["env"].append({"name": "X", "value": "1"}),
            lambda d: container(d)["env"].__setitem__(0, {"name": "A", "valueFrom": {"secretKeyRef": {}}}),
            lambda d: d["spec"]["template"]["spec"]["containers"].insert(0, {"name": "spy"}),
            lambda d: d["metadata"]["annotations"].clear(),
            lambda d: d["metadata"]["labels"].pop(labels.MANAGED_BY),
        ],
    )
    async def test_a_hands_work_is_undone(self, cluster: Any, edit: Callable[[Object], object]) -> None:
        live = await ensure(cluster, deployment(), None, OWNER)
        edited = cluster.edit("Deployment", "a", edit)
        now = await ensure(cluster, deployment(), edited, OWNER)
        assert live is not None
        assert now is not None
        assert (now["spec"], now["metadata"]["labels"]) == (live["spec"], live["metadata"]["labels"])
        assert await ensure(cluster, deployment(), now, OWNER) is None

    async def test_a_change_between_reading_and_writing_is_not_overwritten_unseen(self, cluster: Any) -> None:
        """A position in a list is another variable's by then; looked at anew, both that were added go."""
        await ensure(cluster, deployment(), None, OWNER)
        seen = cluster.edit("Deployment", "a", lambda d: container(d)["env"].append({"name": "X"}))
        cluster.edit("Deployment", "a", lambda d: container(d)["env"].insert(0, {"name": "Y"}))
        now = await ensure(cluster, deployment(), seen, OWNER)
        assert now is not None
        assert container(now)["env"] == [{"name": "A", "value": "1"}]

    async def test_who_changes_it_at_each_look_is_left_to_the_queue(
        self, cluster: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await ensure(cluster, deployment(), None, OWNER)
        seen = cluster.edit("Deployment", "a", lambda d: container(d)["env"].append({"name": "X"}))
        get = cluster.get

        async def busy(*where: Any) -> Object | None:
            found: Object | None = await get(*where)
            cluster.edit("Deployment", "a", lambda d: d.update(status={"again": len(cluster.writes)}))
            return found

        cluster.edit("Deployment", "a", lambda d: d.update(status={"again": 0}))
        monkeypatch.setattr(cluster, "get", busy)
        with pytest.raises(Conflict):
            await ensure(cluster, deployment(), seen, OWNER)

    async def test_another_object_that_took_the_name_is_not_written_to(self, cluster: Any) -> None:
        live = await ensure(cluster, deployment(), None, OWNER)
        cluster.edit("Deployment", "a", lambda d: d["metadata"].update(uid="another"))
        with pytest.raises(Conflict):
            await ensure(cluster, deployment(image="new"), live, OWNER)

    async def test_a_secret_carries_no_digest_and_loses_what_is_not_ours(self, cluster: Any) -> None:
        live = await ensure(cluster, secret(password="eA==", old="eA=="), None, OWNER)
        assert live is not None
        assert "annotations" not in live["metadata"]
        now = await ensure(cluster, secret(password="eA=="), live, OWNER)
        assert now is not None
        assert now["data"] == {"password": "eA=="}
        assert await ensure(cluster, secret(password="eA=="), now, OWNER) is None


class TestOwnership:
    async def test_a_strangers_object_is_left_alone(self, cluster: Any) -> None:
        cluster.put({**deployment(image="theirs"), "metadata": {"name": "a", "namespace": "ns"}})
        with pytest.raises(NameConflictError) as caught:
            await ensure(cluster, deployment(), None, OWNER)
        assert caught.value.message == (
            'Deployment "a" exists and was not made for this MLflowServer. '
            "Rename the MLflowServer, or delete that Deployment."
        )
        assert (caught.value.kind, caught.value.name) == ("Deployment", "a")
        assert cluster.writes == []

    async def test_labels_alone_do_not_make_it_ours(self, cluster: Any) -> None:
        """Somebody copied our YAML, or another MLflowServer's object has the name."""
        for references in ([], [{"kind": "MLflowServer", "name": "b", "uid": "owner-2", "controller": True}]):
            cluster.put({**deployment(), "metadata": meta("a", ownerReferences=references)})
            with pytest.raises(NameConflictError):
                await ensure(cluster, deployment(), None, OWNER)

    async def test_what_our_former_self_owned_is_waited_for(self, cluster: Any) -> None:
        """Deleted and made again under one name: the old objects are still being collected."""
        await ensure(
            cluster, deployment(), None, {**OWNER, "metadata": {**OWNER["metadata"], "uid": "owner-0"}}
        )
        with pytest.raises(BeingDeletedError):
            await ensure(cluster, deployment(), None, OWNER)
        assert len(cluster.writes) == 1

    @pytest.mark.parametrize("data", [True, False])
    async def test_what_is_being_deleted_is_waited_for(self, cluster: Any, data: bool) -> None:
        desired = volume("1Gi") if data else deployment()
        await ensure(cluster, desired, None, OWNER, data=data)
        live = cluster.edit(
            desired["kind"],
            desired["metadata"]["name"],
            lambda d: d["metadata"].update(deletionTimestamp="x"),
        )
        with pytest.raises(BeingDeletedError):
            await ensure(cluster, desired, live, OWNER, data=data)

    def test_steps_can_tell_a_mistake_from_a_wait(self) -> None:
        assert issubclass(NameConflictError, ConfigurationError)
        assert issubclass(ApplyConflictError, ConfigurationError)
        assert issubclass(BeingDeletedError, TransientError)


class TestData:
    async def test_is_made_once_without_an_owner_and_never_overwritten(self, cluster: Any) -> None:
        made = await ensure(cluster, secret(password="b2xk"), None, OWNER, data=True)
        assert made is not None
        assert "ownerReferences" not in made["metadata"]
        assert await ensure(cluster, secret(password="bmV3"), made, OWNER, data=True) is None
        assert cluster.objects["Secret", "a-database"]["data"] == {"password": "b2xk"}

    async def test_a_key_that_vanished_is_not_made_up_again(self, cluster: Any) -> None:
        """A new password would lock the server out of its database."""
        await ensure(cluster, secret(password="b2xk"), None, OWNER, data=True)
        live = cluster.edit("Secret", "a-database", lambda s: s["data"].clear())
        assert await ensure(cluster, secret(password="bmV3"), live, OWNER, data=True) is None
        assert cluster.objects["Secret", "a-database"]["data"] == {}

    async def test_is_taken_back_by_the_next_of_the_same_name(self, cluster: Any) -> None:
        await ensure(cluster, volume("1Gi"), None, OWNER, data=True)
        heir = {**OWNER, "metadata": {**OWNER["metadata"], "uid": "owner-2"}}
        assert await ensure(cluster, volume("1Gi"), None, heir, data=True) is None

    async def test_of_another_server_is_not_taken(self, cluster: Any) -> None:
        await ensure(cluster, volume("1Gi"), None, OWNER, data=True)
        other = {**OWNER, "metadata": {**OWNER["metadata"], "name": "b"}}
        with pytest.raises(NameConflictError):
            await ensure(cluster, volume("1Gi"), None, other, data=True)

    async def test_a_volume_grows_and_nothing_else_about_it_changes(self, cluster: Any) -> None:
        made = await ensure(cluster, volume("1Gi"), None, OWNER, data=True)
        wanted = volume("2048Mi")
        wanted["spec"]["accessModes"] = ["ReadWriteMany"]
        assert await ensure(cluster, wanted, made, OWNER, data=True) is None  # it has no disk yet
        bound = cluster.edit("PersistentVolumeClaim", "a-data", lambda v: v.update(status={"phase": "Bound"}))
        grown = await ensure(cluster, wanted, bound, OWNER, data=True)
        assert grown is not None
        assert grown["spec"] == {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "2048Mi"}},
        }
        assert await ensure(cluster, volume("2Gi"), grown, OWNER, data=True) is None

    async def test_a_volume_that_should_shrink_stays(self, cluster: Any) -> None:
        await ensure(cluster, volume("2Gi"), None, OWNER, data=True)
        bound = cluster.edit("PersistentVolumeClaim", "a-data", lambda v: v.update(status={"phase": "Bound"}))
        assert await ensure(cluster, volume("1Gi"), bound, OWNER, data=True) is None


class TestJobs:
    async def test_are_created_once_and_never_changed(self, cluster: Any) -> None:
        made = await ensure_job(cluster, job(), None, OWNER)
        assert made is not None
        assert made["metadata"]["ownerReferences"][0]["uid"] == "owner-1"
        changed = {**job(), "spec": {"backoffLimit": 9}}
        assert await ensure_job(cluster, changed, made, OWNER) is None
        assert await ensure_job(cluster, changed, None, OWNER) is None
        assert cluster.objects["Job", "a-migrate-1"]["spec"] == {"backoffLimit": 0}

    async def test_a_strangers_job_is_not_taken_for_ours(self, cluster: Any) -> None:
        """Its success would say that a migration ran which never did."""
        cluster.put({**job(), "metadata": {"name": "a-migrate-1", "namespace": "ns"}})
        with pytest.raises(NameConflictError):
            await ensure_job(cluster, job(), None, OWNER)


class TestFights:
    async def test_who_undoes_every_repair_is_named_and_no_more_is_written(
        self, cluster: Any, repairs: ApplyBackoff
    ) -> None:
        record = {"manager": "autoscaler", "operation": "Update", "fieldsV1": {"f:spec": {"f:replicas": {}}}}
        live = await ensure(cluster, deployment(), None, OWNER, repairs=repairs)

        def undo(obj: Object) -> None:
            obj["spec"]["replicas"] = 7
            obj["metadata"]["managedFields"] = [record]

        for _ in range(ROUNDS):
            live = cluster.edit("Deployment", "a", undo)
            await ensure(cluster, deployment(), live, OWNER, repairs=repairs)
        live = cluster.edit("Deployment", "a", undo)
        before = list(cluster.writes)
        with pytest.raises(ApplyConflictError) as caught:
            await ensure(cluster, deployment(), live, OWNER, repairs=repairs)
        assert cluster.writes == before
        assert caught.value.reason is Reason.APPLY_CONFLICT
        assert "spec.replicas" in caught.value.message
        assert "(autoscaler)" in caught.value.message
        assert caught.value.retry_after > 0

    async def test_the_users_own_changes_are_no_fight(self, cluster: Any, repairs: ApplyBackoff) -> None:
        live = None
        for number in range(20):
            live = await ensure(cluster, deployment(image=f"mlflow:{number}"), live, OWNER, repairs=repairs)
            assert live is not None

    async def test_a_credential_that_often_changes_is_no_fight(
        self, cluster: Any, repairs: ApplyBackoff
    ) -> None:
        """A Secret has no digest, so a new value looks like drift."""
        live = None
        for number in range(20):
            live = await ensure(cluster, secret(password=str(number)), live, OWNER, repairs=repairs)
            assert live is not None


class TestPrune:
    async def test_takes_what_is_no_longer_wanted_and_only_that(self, cluster: Any) -> None:
        await ensure(cluster, deployment(), None, OWNER)
        await ensure(cluster, secret(x="eA=="), None, OWNER)
        await ensure(cluster, volume("1Gi"), None, OWNER, data=True)
        theirs = cluster.put({**job(), "metadata": meta("theirs")})
        gone = await prune(cluster, [deployment()], copy.deepcopy([*cluster.objects.values()]), OWNER)
        assert [obj["metadata"]["name"] for obj in gone] == ["a-database"]
        assert set(cluster.objects) == {
            ("Deployment", "a"),
            ("PersistentVolumeClaim", "a-data"),
            ("Job", theirs["metadata"]["name"]),
        }

    async def test_never_deletes_data(self, cluster: Any) -> None:
        await ensure(cluster, volume("1Gi"), None, OWNER, data=True)
        await ensure(cluster, secret(x="eA=="), None, OWNER, data=True)
        assert await prune(cluster, [], [*cluster.objects.values()], OWNER) == []

    async def test_does_not_delete_twice(self, cluster: Any) -> None:
        await ensure(cluster, deployment(), None, OWNER)
        live = cluster.edit("Deployment", "a", lambda d: d["metadata"].update(deletionTimestamp="x"))
        assert await prune(cluster, [], [live], OWNER) == []
