"""Deleted and made again: the data and its passwords are taken back."""

from functools import partial

from tests.e2e import timeouts
from tests.e2e.kube import Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, eventually, small


def gone(kube: Kube, kind: str) -> bool:
    """Whether the namespace holds none of a kind."""
    return not kube.list(kind)


def test_a_server_made_again_takes_its_data_back(ns: Kube) -> None:
    """Only volumes and generated credentials outlive the resource; the new one finds both."""
    server = Server(ns).apply(small()).ready()
    work = Scientist(server.url).work()
    before = server.generated()

    server.delete()
    for kind in ("Deployment", "StatefulSet", "Service", "Job", "Pod"):
        eventually(f"no {kind} is left", partial(gone, ns, kind), timeouts.GONE)
    names = server.names
    left = {names.database_secret, names.artifacts_secret}
    eventually(
        "the generated credentials are the Secrets that are left",
        lambda: {secret["metadata"]["name"] for secret in ns.list("Secret")} == left,
        timeouts.GONE,
    )
    volumes = {c["metadata"]["name"]: c["metadata"]["uid"] for c in ns.list("PersistentVolumeClaim")}
    assert set(volumes) == {names.postgres_data, names.artifact_store_data}

    (kept,) = eventually(
        "it is told what was kept",
        lambda: [event for event in ns.list("Event") if event["reason"] == "DataKept"],
        timeouts.NOTICED,
    )
    assert [f'"{name}"' in kept["message"] for name in (*left, *volumes)] == 4 * [True]

    server.apply(small()).ready()
    after = server.generated()
    for kept in ("database password", "artifact key", "artifact secret"):
        assert after[kept] == before[kept]
    now = {c["metadata"]["name"]: c["metadata"]["uid"] for c in ns.list("PersistentVolumeClaim")}
    assert now == volumes
    Scientist(server.url).finds(work)


def test_a_lost_password_is_told_and_never_made_up(ns: Kube) -> None:
    """A new one would lock everybody out of the data that the old one opens."""
    server = Server(ns).apply(small()).ready()
    work = Scientist(server.url).work()
    backup = ns.need("Secret", server.names.database_secret)
    ns.delete("Secret", server.names.database_secret)
    told = server.until("CredentialsReady", "False", "SecretNotFound", within=timeouts.SETTLED)
    assert server.names.database_secret in told["message"]
    assert server.names.postgres_data in told["message"]
    Scientist(server.url).finds(work)  # it keeps serving meanwhile

    meta = {key: backup["metadata"][key] for key in ("name", "labels")}
    ns.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": backup["data"]})
    server.ready()
    Scientist(server.url).finds(work)
