"""An MLflowPlatform with a real Postgres: its conditions, its Events, and that nothing is written at rest."""

import json
import time
import uuid
from collections.abc import Iterator
from functools import partial

import pytest

from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION, KIND
from mlflow_operator.api.resource import API_VERSION
from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning
from mlflow_operator.model.server import ServerRef
from tests.apiserver import chart_rbac
from tests.apiserver.client import Client
from tests.integration.cluster import Cluster
from tests.integration.conftest import Operators
from tests.integration.operator import Operator
from tests.integration.postgres import PASSWORD, USER, Postgres
from tests.integration.server import Server, external_spec
from tests.polling import eventually

SECRET = "postgres-admin"
RECONCILE_COUNT = 4


class Platform:
    """An MLflowPlatform whose Postgres is the one of the tests, and whose Secrets are in `namespace`.

    `port` leads to this Postgres if it is not its own.
    """

    def __init__(
        self, client: Client, namespace: str, postgres: Postgres, *, port: int | None = None
    ) -> None:
        self.client, self.namespace = client, namespace
        self.name = f"platform-{uuid.uuid4().hex[:8]}"
        self._port = port or postgres.port

    def apply(self, labels: dict[str, str] | None = None, *, is_default: bool = False) -> "Platform":
        """Create or replace it. It selects namespaces with `labels`, by default the one of its Secrets."""
        postgres = {
            "host": "127.0.0.1",
            "port": self._port,
            "adminSecretRef": {"name": SECRET},
            "tls": {"mode": "Disable"},
        }
        selected = labels or {"kubernetes.io/metadata.name": self.namespace}
        annotations = {DEFAULT_ANNOTATION: "true"} if is_default else {}
        self.client.apply(
            kinds.MLFLOWPLATFORM,
            {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "metadata": {"name": self.name, "annotations": annotations},
                "spec": {
                    "namespaceSelector": {"matchLabels": selected},
                    "secretsNamespace": self.namespace,
                    "database": {"postgres": postgres},
                },
            },
        )
        return self

    def put_secret(self, username: str = "postgres", password: str = PASSWORD) -> None:
        """Create or replace the administrator's Secret. The Postgres of the tests accepts every password."""
        metadata = {"name": SECRET, "namespace": self.namespace}
        data = {"username": username, "password": password}
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
        self.client.apply(kinds.SECRET, secret)

    @property
    def status(self) -> Object:
        """The status of the platform."""
        status: Object = self.client.need(kinds.MLFLOWPLATFORM, None, self.name).get("status") or {}
        return status

    def condition(self, condition_type: str = "Ready") -> tuple[str, str]:
        """Status and reason of a condition; empty if there is none."""
        found = [c for c in self.status.get("conditions", ()) if c["type"] == condition_type]
        return (found[0]["status"], found[0]["reason"]) if found else ("", "")

    def wait_for(self, status: str, reason: str, condition_type: str = "Ready") -> None:
        """Wait for a condition."""
        eventually(
            f"{condition_type} is {status} ({reason})",
            lambda: self.condition(condition_type) == (status, reason),
        )

    def events(self) -> list[tuple[str, str]]:
        """Types and reasons of the Events about it, which are in the namespace `default`."""
        events = self.client.list(kinds.EVENT, "default")
        found = [event for event in events if event["involvedObject"]["name"] == self.name]
        return [(event["type"], event["reason"]) for event in sorted(found, key=_created)]

    def trigger_reconcile(self) -> None:
        """Trigger a reconcile by a change of an unused annotation."""
        annotations = {"test/reconcile-at": str(time.monotonic_ns())}
        self.client.merge(kinds.MLFLOWPLATFORM, None, self.name, {"metadata": {"annotations": annotations}})

    def delete(self) -> None:
        """Delete it."""
        self.client.delete(kinds.MLFLOWPLATFORM, None, self.name)


def _created(event: Object) -> int:
    return int(event["metadata"]["resourceVersion"])


@pytest.fixture
def platform(admin: Client, namespace: str, postgres: Postgres) -> Iterator[Platform]:
    """A platform that does not exist yet. It is deleted after the test."""
    platform = Platform(admin, namespace, postgres)
    yield platform
    if admin.get(kinds.MLFLOWPLATFORM, None, platform.name):
        platform.delete()


def reconcile_count(operator: Operator, kind: str = KIND) -> float:
    """Number of reconciles of a kind so far, by default of platforms."""
    return sum(
        value
        for name, value in operator.metrics().items()
        if name.startswith("mlflow_operator_reconciles_total") and f'kind="{kind}"' in name
    )


def ready_platforms(operator: Operator) -> float:
    """Number of platforms that are Ready, according to the metric."""
    return operator.metrics().get('mlflow_operator_platforms{ready="True"}', 0.0)


def operator_writes(cluster: Cluster, platform: Platform) -> list[tuple[str, str]]:
    """The operator's writes that concern a platform, from the API server's audit log, and its Events."""
    entries: list[Object] = [
        json.loads(line)
        for line in cluster.control_plane.audit_log.read_text().splitlines()
        if "/mlflowplatforms/" in line or "/namespaces/default/events" in line
    ]
    return [
        (entry["verb"], entry["requestURI"])
        for entry in entries
        if entry["user"]["username"].startswith("system:serviceaccount:operators:")
        and (platform.name in entry["requestURI"] or "events" in entry["requestURI"])
    ]


def test_platform_is_ready_and_nothing_is_written_at_rest(
    operator: Operator, cluster: Cluster, platform: Platform
) -> None:
    """Finalizer, status and one Event are written once, however often it is reconciled. Postgres gets no object."""
    ready_before = ready_platforms(operator)
    platform.put_secret()
    platform.apply().wait_for("True", "Ready")
    eventually("the Event is published", lambda: platform.events() == [("Normal", "Ready")])
    eventually("the platform is counted", lambda: ready_platforms(operator) == ready_before + 1)
    before = operator_writes(cluster, platform)
    assert [(verb, "/status?" in uri) for verb, uri in before if platform.name in uri] == [
        ("patch", False),
        ("patch", True),
    ]
    for _ in range(RECONCILE_COUNT):
        expected = reconcile_count(operator) + 1
        platform.trigger_reconcile()
        eventually("the platform is reconciled", partial(_has_reconciled, operator, expected))
    assert operator_writes(cluster, platform) == before
    platform.delete()
    eventually("the platform is not counted", lambda: ready_platforms(operator) == ready_before)


def _has_reconciled(operator: Operator, times: float) -> bool:
    return reconcile_count(operator) >= times


def test_wrong_secret_is_one_condition_and_one_event(
    operator: Operator, admin: Client, platform: Platform
) -> None:
    """Each cause has its own reason. A corrected Secret is noticed within seconds."""
    platform.apply().wait_for("False", "SecretNotFound")
    platform.put_secret("missing-role")
    platform.wait_for("False", "DatabaseAuthenticationFailed", "DatabaseReady")
    platform.put_secret(USER)  # may neither create roles nor databases
    platform.wait_for("False", "ProvisioningDenied", "DatabaseReady")
    platform.put_secret()
    platform.wait_for("True", "Ready")
    expected = [
        ("Warning", "SecretNotFound"),
        ("Warning", "DatabaseAuthenticationFailed"),
        ("Warning", "ProvisioningDenied"),
        ("Normal", "Ready"),
    ]
    eventually("the Events are published", lambda: platform.events() == expected)


def test_two_defaults_of_one_namespace_are_reported(
    operator: Operator, admin: Client, platform: Platform, namespace: str, postgres: Postgres
) -> None:
    """Both platforms name the conflict until one of them is no longer a default."""
    platform.put_secret()
    platform.apply(is_default=True).wait_for("True", "Ready")
    other = Platform(admin, namespace, postgres).apply(is_default=True)
    try:
        other.wait_for("False", "DefaultPlatformConflict")
        platform.trigger_reconcile()
        platform.wait_for("False", "DefaultPlatformConflict")
        assert platform.condition("DatabaseReady") == ("True", "Ready")
    finally:
        other.delete()
    platform.trigger_reconcile()
    platform.wait_for("True", "Ready")


def test_platform_takes_over_the_database_of_a_server(
    operator: Operator, admin: Client, platform: Platform, namespace: str, postgres: Postgres
) -> None:
    """Which `provision` created with an administrator's Secret. The API server accepts the change of the spec."""
    platform.put_secret()
    admin_ref, tls = {"name": SECRET}, {"mode": "Disable"}
    provision = {"host": "127.0.0.1", "port": postgres.port, "adminSecretRef": admin_ref, "tls": tls}
    spec = external_spec(admin, namespace, postgres, deletionPolicy="Delete")
    server = Server(admin, namespace).apply({**spec, "database": {"provision": provision}})
    server.wait_for("DatabaseReady")
    role = provisioning.derived_name(ServerRef(server.name, namespace, ""))
    postgres.migrate(role, owner=role)
    before = server.wait_ready().status["database"]
    platform.apply().wait_for("True", "Ready")
    on_platform = {"platformRef": {"name": platform.name}, "database": {"platform": {}, "provision": None}}
    server.patch_spec(**on_platform)
    server.wait_for("DatabaseReady", "False", "AdoptionRequired")
    entry = {"spec": {"adoptions": [f"{namespace}/{server.name}"]}}
    admin.merge(kinds.MLFLOWPLATFORM, None, platform.name, entry)
    server.trigger_reconcile()
    server.wait_for("DatabaseReady")
    assert server.wait_ready().status["database"] == {**before, "type": "Platform"}
    admin.merge(kinds.MLFLOWPLATFORM, None, platform.name, {"spec": {"adoptions": []}})
    server.delete()
    eventually("the server is gone", lambda: server.get(kinds.MLFLOWSERVER, server.name) is None)
    assert before["name"] not in postgres.databases()


def test_operator_of_selected_namespaces_checks_platforms_of_its_namespaces(
    operators: Operators, admin: Client, postgres: Postgres, namespace: str, other_namespace: str
) -> None:
    """With the chart's roles: a ClusterRole for platforms only, and `get` for the Secrets in `platformSecrets`."""
    values = {
        "fullnameOverride": "platforms",
        "watchNamespaces": [namespace],
        "platformSecrets": {other_namespace: [SECRET]},
    }
    chart_rbac.install(admin, values, chart_rbac.ALL)
    selected = {"kubernetes.io/metadata.name": namespace}
    readable, unreadable, foreign = (
        Platform(admin, secrets_namespace, postgres)
        for secrets_namespace in (other_namespace, "default", other_namespace)
    )
    readable.put_secret()
    try:
        readable.apply(selected)
        unreadable.apply(selected)
        foreign.apply()
        operator = operators.start(values)
        eventually("the operator leads", operator.is_leader)
        readable.wait_for("True", "Ready")
        unreadable.wait_for("False", "ProvisioningDenied")
        eventually("the Event is published", lambda: readable.events() == [("Normal", "Ready")])
        assert foreign.condition() == ("", "")
        assert operator.error_messages() == []
    finally:
        for each in (readable, unreadable, foreign):
            each.delete()
