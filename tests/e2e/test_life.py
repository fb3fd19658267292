"""How servers end, with or without their data, and how their credentials are replaced while they serve."""

import time
from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from mlflow_operator.core import labels
from mlflow_operator.core.credentials import decoded
from tests.e2e import release, timeouts
from tests.e2e.inside import opens as opens_own_store
from tests.e2e.kube import Kube, Object
from tests.e2e.platform import Platform, make_admin
from tests.e2e.scientist import Scientist
from tests.e2e.server import API_VERSION, Server, eventually, is_ready, small
from tests.e2e.steady import Steady
from tests.e2e.stores import secret

ENDS = 90.0
"""Seconds within which whatever is deleted is gone."""

BUCKET = "life"
DEFINITION = "mlflowservers.mlflow-operator.dev"


def values(kube: Kube, name: str) -> dict[str, str]:
    """What a Secret says."""
    return decoded(kube.need("Secret", name))


def ends(what: str, gone: Callable[[], object], since: float) -> None:
    """Waits until it is gone, and fails if that takes longer than it may."""
    eventually(what, gone, ENDS - (time.monotonic() - since))


def data(kube: Kube) -> set[str]:
    """Volumes and Secrets that a server made in a namespace."""
    return {
        f"{kind}/{obj['metadata']['name']}"
        for kind in ("PersistentVolumeClaim", "Secret")
        for obj in kube.list(kind, {labels.MANAGED_BY: labels.OPERATOR})
    }


def leaves(kube: Kube, *wanted: str) -> None:
    """Waits until this is all the data that is left; what belongs to the resource the cluster clears away after it."""
    eventually(f"what is left is {wanted}", lambda: data(kube) == set(wanted), timeouts.GONE)


def opens(platform: Platform, key: dict[str, str], prefix: str) -> bool:
    """Whether a key opens its part of the bucket."""
    client = platform.minio.client(key["accessKeyID"], key["secretAccessKey"])
    try:
        client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    except ClientError:
        return False
    return True


def told(server: Server, reason: str) -> list[str]:
    """Waits for Events about a server, of one reason; their sentences."""

    def found() -> list[str]:
        return [
            event["message"]
            for event in server.kube.list("Event")
            if event["involvedObject"]["name"] == server.name and event["reason"] == reason
        ]

    sentences: list[str] = eventually(f"an Event {reason}", found, timeouts.NOTICED)
    return sentences


def finalizers(server: Server) -> list[str]:
    """What holds it."""
    return [*(server.live()["metadata"].get("finalizers") or ())]


def definition(kube: Kube) -> bool:
    """Whether the cluster knows of MLflowServers."""
    return bool(kube.kubectl("get", "crd", DEFINITION, "--ignore-not-found", "-o", "name"))


@pytest.mark.long
def test_shared_stores_rotate_without_a_failed_request_and_are_left_clean(
    ns: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Login and key are replaced under two replicas; an administrator's new password is taken up; all goes at last."""
    before = platform.databases(), platform.roles()
    admin = f"admin-{ns.namespace}"
    make_admin(platform.postgres, admin, "first")
    ns.apply(secret("admin", username=admin, password="first"))
    artifacts = platform.bucket(BUCKET, prefix=ns.namespace, versioning="Enabled")
    database = platform.provision(adminSecretRef={"name": "admin"})
    spec = small(replicas=2, deletionPolicy="Delete", database=database, artifacts=artifacts)
    server = Server(ns).apply(spec).ready()
    eventually(
        "two replicas answer", lambda: len([*filter(is_ready, server.pods("server"))]) == 2, timeouts.ROLLED
    )
    scientist = Scientist(server.url)
    work = scientist.work()
    old = values(ns, server.names.database_secret), values(ns, server.names.artifacts_secret)

    assert opens(platform, old[1], ns.namespace)
    with Steady(server.url, monkeypatch) as clients:
        server.rotate()
    assert clients.errors == []
    assert clients.done > 50
    new = values(ns, server.names.database_secret), values(ns, server.names.artifacts_secret)
    assert old[0]["username"] not in platform.roles()
    assert new[0]["username"] in platform.roles()
    assert not opens(platform, old[1], ns.namespace)
    scientist.finds(work)

    # somebody else changes the administrator's password, and the Secret a little later
    platform.postgres.query(f"ALTER ROLE \"{admin}\" PASSWORD 'second'")
    server.kube.kubectl("delete", "mlflowserver", server.name, "--wait=false")
    blocked = server.until("Ready", "False", "DeletionBlocked", within=timeouts.ROLLED)
    assert "refuses the user name or the password" in blocked["message"]
    assert (
        f"kubectl annotate mlflowserver -n {ns.namespace} tracking mlflow-operator.dev/let-go=true"
        in (blocked["message"])
    )
    since = time.monotonic()
    ns.apply(secret("admin", username=admin, password="second"))
    ends("the server is gone", lambda: ns.get("MLflowServer", server.name) is None, since)
    leaves(ns)
    assert (platform.databases(), platform.roles() - {admin}) == before
    left = platform.minio.client().list_object_versions(Bucket=BUCKET, Prefix=f"{ns.namespace}/")
    assert not left.get("Versions")
    assert not left.get("DeleteMarkers")
    assert not opens(platform, new[1], ns.namespace)
    assert told(server, "DataDeleted") == ["Deleted, its data and passwords with it."]


def test_a_namespace_goes_with_the_servers_in_it(
    ns: Kube, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with stores of its own, whose password was replaced before; one whose database is elsewhere and goes, too."""
    before = platform.databases(), platform.roles()
    server = Server(ns).apply(small(deletionPolicy="Delete")).ready()
    scientist = Scientist(server.url)
    work = scientist.work()
    old = server.generated()
    assert opens_own_store(server, server, old["artifact key"], old["artifact secret"])
    with Steady(server.url, monkeypatch) as clients:
        server.rotate()
    assert clients.errors == []
    scientist.finds(work)
    assert values(ns, server.names.database_secret)["username"] == "mlflow_a"
    new = server.generated()
    assert not opens_own_store(server, server, old["artifact key"], old["artifact secret"])
    assert opens_own_store(server, server, new["artifact key"], new["artifact secret"])
    assert new["root key"] == old["root key"]

    other = Server(ns, "other").apply(
        small(deletionPolicy="Delete", database=platform.provision(), replicas=0)
    )
    other.until("DatabaseReady")
    since = time.monotonic()
    ns.kubectl("delete", "namespace", ns.namespace, "--wait=false")
    named = ("get", "namespace", ns.namespace, "--ignore-not-found", "-o", "name")
    ends("the namespace is gone", lambda: not ns.kubectl(*named), since)
    assert (platform.databases(), platform.roles()) == before


@pytest.mark.restarts_operator
def test_the_chart_goes_and_nothing_waits_for_an_operator(kube: Kube, ns: Kube) -> None:
    """Delete counts as Retain then, and says so; and what was kept is taken back once there is an operator again."""
    server = Server(ns).apply(small(deletionPolicy="Delete")).ready()
    work = Scientist(server.url).work()
    passwords, kept = server.generated(), data(ns)
    assert finalizers(server) == [labels.FINALIZER]

    since = time.monotonic()
    release.uninstall(kube, namespace=release.NAMESPACE, release=release.RELEASE)
    assert time.monotonic() - since < ENDS
    try:
        assert finalizers(server) == []
        (said,) = told(server, "DataKept")
        assert "being uninstalled" in said
        assert '"tracking-postgres-data"' in said
        Scientist(server.url).finds(work)
        since = time.monotonic()
        ns.kubectl("delete", "mlflowserver", server.name, f"--timeout={ENDS:.0f}s")
        ends("its pods are gone", lambda: not ns.list("Pod"), since)
    finally:
        release.install(kube)
    leaves(ns, *kept - {f"Secret/{server.names.server_secret}"})

    server.apply(small(deletionPolicy="Delete")).ready()
    assert server.generated()["database password"] == passwords["database password"]
    Scientist(server.url).finds(work)
    since = time.monotonic()
    ns.kubectl("delete", "mlflowserver", server.name, f"--timeout={ENDS:.0f}s")
    assert time.monotonic() - since < ENDS
    leaves(ns)
    assert told(server, "DataDeleted")


def test_a_server_moves_only_to_a_database_that_will_do(ns: Kube, platform: Platform) -> None:
    """Until then it serves from where it is; and then it says what stays behind."""
    one, other = (f"{ns.namespace}_{end}".replace("-", "_") for end in ("one", "two"))
    for name in (one, other):
        platform.make_database(name, "worker's own")
    unfit = f"{one}_unfit"
    platform.postgres.query(
        f'CREATE DATABASE "{unfit}" OWNER "{one}" TEMPLATE template0 ENCODING SQL_ASCII LOCALE "C"',
        "postgres",
    )
    ns.apply(
        secret("one", username=one, password="worker's own"),
        secret("two", username=other, password="worker's own"),
    )
    server = Server(ns).apply(small(database=_external(platform, one, "one"))).ready()
    scientist = Scientist(server.url)
    work, pod = scientist.work(), server.pod()

    server.change(storageChangePolicy="Allow", database=_external(platform, unfit, "one"))
    server.until("DatabaseReady", "False", "DatabaseEncodingUnsupported")
    scientist.finds(work)
    server.change(database=_external(platform, other, "two"))
    server.replaced("server", pod)
    server.ready()
    # a pod on its way out answers for a while who is connected to it
    eventually(
        "only the new one answers", lambda: work.experiment not in scientist.experiments(), timeouts.ROLLED
    )
    (said,) = told(server, "StorageChanged")
    assert f"{platform.postgres.host}:5432/{other}" in said
    assert said.endswith(f"neither moved nor deleted: the database {platform.postgres.host}:5432/{one}.")
    server.change(database=_external(platform, one, "one"))
    server.until("Ready")
    eventually("what was logged is back", lambda: work.experiment in scientist.experiments(), timeouts.ROLLED)


def _external(platform: Platform, database: str, keys: str) -> Object:
    return {
        "external": {
            "host": platform.postgres.host,
            "databaseName": database,
            "credentialsSecretRef": {"name": keys},
        }
    }


@pytest.mark.last
@pytest.mark.restarts_operator
def test_the_definition_goes_and_each_server_ends_as_it_says(kube: Kube, ns: Kube) -> None:
    """With its data or without; and the operator goes on with the next definition."""
    stays = Server(ns, "stays").apply(small(replicas=0))
    goes = Server(ns, "goes").apply(small(replicas=0, deletionPolicy="Delete"))
    for server in (stays, goes):
        server.until("SchemaReady")
    since = time.monotonic()
    try:
        kube.kubectl("delete", "crd", DEFINITION, "--wait=false")
        ends("the definition is gone", lambda: not definition(kube), since)
        ends("the pods are gone", lambda: not ns.list("Pod"), since)
        names = stays.names
        leaves(
            ns,
            f"Secret/{names.database_secret}",
            f"Secret/{names.artifacts_secret}",
            f"PersistentVolumeClaim/{names.postgres_data}",
            f"PersistentVolumeClaim/{names.artifact_store_data}",
        )
    finally:
        release.install(kube)
    eventually("servers are known again", lambda: definition(kube), timeouts.SETTLED)
    stays.apply(small(replicas=0))
    stays.until("SchemaReady")
    assert stays.live()["apiVersion"] == API_VERSION
