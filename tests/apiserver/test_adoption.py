"""Objects from a backup of the cluster are adopted. They have no ownerReferences, but defaults of the API server."""

import pytest

from mlflow_operator import api, render
from mlflow_operator.components.backup import manifests as backup
from mlflow_operator.components.restore import manifests as restore
from mlflow_operator.kube import kinds, labels
from mlflow_operator.kube.apply import Applier, NameConflictError
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import client_config, jobs, volumes
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.server import Server, Volume
from mlflow_operator.model.versions import Images
from tests.apiserver.client import Client
from tests.apiserver.control_plane import ControlPlane
from tests.apiserver.kubectl import Kubectl

SPEC: Object = {
    "replicas": 2,
    "backup": {"schedule": "0 3 * * *"},
    "garbageCollection": {"schedule": "0 4 * * 0", "olderThan": "720h"},
    "restoreFrom": {"serverName": "earlier"},
    "podTemplate": {"metadata": {"annotations": {"example.com/a": "b"}}},
}
GENERATED = render.GeneratedValues("user", "p", "a" * 20, "s" * 40, "r", "e")
REMOVED = ("uid", "resourceVersion", "ownerReferences", "creationTimestamp", "generation", "managedFields")


@pytest.fixture(scope="module")
def owner(admin: Client, namespace: str) -> Object:
    """A stored MLflowServer."""
    meta = {"name": "restored", "namespace": namespace}
    body = {"apiVersion": api.API_VERSION, "kind": api.KIND, "metadata": meta, "spec": SPEC}
    return admin.create(kinds.MLFLOWSERVER, body)


@pytest.fixture(scope="module")
def server(owner: Object) -> Server:
    """The resolved server."""
    return resolve(api.parse(owner), ClusterDefaults(Images()))


def restored(admin: Client, obj: Object) -> Object:
    """Replace the stored object by one as a restore creates it. A restore removes what identifies a Job's pods."""
    kind, meta = kinds.of(obj), obj["metadata"]
    stored = admin.need(kind, meta["namespace"], meta["name"])
    admin.delete(kind, meta["namespace"], meta["name"])
    stored["metadata"] = {key: value for key, value in stored["metadata"].items() if key not in REMOVED}
    stored.pop("status", None)
    if kind == kinds.JOB:
        stored["spec"].pop("selector")
        for key in ("batch.kubernetes.io/controller-uid", "controller-uid"):
            stored["spec"]["template"]["metadata"]["labels"].pop(key)
    if kind == kinds.SERVICE:
        for key in ("clusterIP", "clusterIPs"):
            stored["spec"].pop(key)
    return admin.create(kind, stored)


async def test_disposable_objects_are_adopted_and_not_changed(
    cluster: KubernetesClient, admin: Client, owner: Object, server: Server
) -> None:
    """One object after the other, and once only."""
    manifests = [*render.objects(server), *render.secrets(server, GENERATED)]
    disposable = [
        obj for obj in manifests if labels.INSTANCE in obj["metadata"]["labels"] and obj["kind"] != "Job"
    ]
    assert len(disposable) >= 8
    for obj in disposable:
        await Applier(cluster).ensure(obj, None, owner)
        before = restored(admin, obj)
        adopted = await Applier(cluster).ensure(obj, before, owner)
        assert adopted["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"], obj["kind"]
        assert adopted["metadata"]["uid"] == before["metadata"]["uid"]
        for field in ("spec", "data"):
            assert adopted.get(field) == before.get(field), obj["kind"]
        assert await Applier(cluster).ensure(obj, adopted, owner) is adopted


async def test_field_that_is_no_longer_desired_is_removed_after_the_adoption(
    cluster: KubernetesClient, admin: Client, owner: Object, server: Server
) -> None:
    """The client that restored the object owned all fields, and server-side apply keeps fields of other owners."""
    config = client_config.config_map(server)
    config["metadata"]["name"] = "with-annotation"
    with_annotation = {**config, "metadata": {**config["metadata"], "annotations": {"example.com/old": "1"}}}
    await Applier(cluster).ensure(with_annotation, None, owner)
    adopted = await Applier(cluster).ensure(with_annotation, restored(admin, with_annotation), owner)
    assert adopted["metadata"]["annotations"]["example.com/old"] == "1"
    now = await Applier(cluster).ensure(config, adopted, owner)
    assert "example.com/old" not in now["metadata"]["annotations"]


def all_jobs(server: Server) -> list[Object]:
    """One Job of each kind."""
    assert server.backup
    assert server.restore
    return [
        jobs.migration(server, "state", None),
        jobs.preflight(server, "identity"),
        backup.pre_migration_job(server, server.backup, server.image, "state"),
        restore.job(server, server.restore, "identity"),
    ]


async def test_jobs_are_adopted_with_the_defaults_of_the_api_server(
    cluster: KubernetesClient, admin: Client, owner: Object, server: Server
) -> None:
    """A default that the operator does not know would look like another pod template."""
    for job in all_jobs(server):
        await Applier(cluster).ensure_job(job, None, owner)
        adopted = await Applier(cluster).adopt_job(job, restored(admin, job), owner)
        assert adopted["metadata"]["ownerReferences"][0]["uid"] == owner["metadata"]["uid"]


async def test_job_with_another_command_is_not_adopted(
    cluster: KubernetesClient, admin: Client, owner: Object, server: Server
) -> None:
    job = jobs.preflight(server, "another identity")
    await Applier(cluster).ensure_job(job, None, owner)
    before = restored(admin, job)
    desired = jobs.preflight(server, "another identity")
    desired["spec"]["template"]["spec"]["containers"][0]["command"] = ["other"]
    with pytest.raises(NameConflictError, match="Delete the Job"):
        await Applier(cluster).adopt_job(desired, before, owner)


async def test_command_in_the_message_makes_data_usable_again(
    cluster: KubernetesClient, owner: Object, server: Server, control_plane: ControlPlane
) -> None:
    """It is a command for kubectl with several objects."""
    claim = volumes.persistent_volume_claim(server.owner, "restored-data", "database", Volume("1Gi", None))
    await cluster.create(
        {**claim, "metadata": {"name": "restored-data", "namespace": server.owner.namespace}}
    )
    with pytest.raises(NameConflictError) as caught:
        await Applier(cluster).ensure(claim, None, owner, data=True)
    command = caught.value.message.partition("run: kubectl ")[2].partition(". Otherwise")[0]
    Kubectl(control_plane.kubeconfig, "default")(*command.split())
    stored = await Applier(cluster).ensure(claim, None, owner, data=True)
    assert stored["metadata"]["labels"][labels.SERVER] == "restored"


async def test_instance_label_is_removed_and_the_object_is_not_changed(
    cluster: KubernetesClient, admin: Client, owner: Object, server: Server
) -> None:
    """The name of the label contains a slash, which a JSON pointer escapes."""
    claim = volumes.persistent_volume_claim(server.owner, "earlier-data", "database", Volume("1Gi", None))
    created = await Applier(cluster).ensure(claim, None, owner, data=True)
    labelled = admin.merge(
        kinds.PVC,
        server.owner.namespace,
        "earlier-data",
        {"metadata": {"labels": {labels.INSTANCE: "restored"}}},
    )
    changed = await Applier(cluster).remove_instance_label(labelled, owner)
    assert changed["metadata"]["labels"] == created["metadata"]["labels"]
    assert changed["spec"] == created["spec"]
