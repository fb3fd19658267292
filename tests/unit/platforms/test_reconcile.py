"""The reconcile of an MLflowPlatform against an in-memory cluster and simulated stores."""

import asyncio
import base64
from collections.abc import Collection
from typing import Any, cast

import pytest

from mlflow_operator.api.mlflowplatform import DEFAULT_ANNOTATION, KIND
from mlflow_operator.api.resource import API_VERSION
from mlflow_operator.clients.postgres.errors import no_answer
from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.clients.s3.signed_request import Admin
from mlflow_operator.framework.dependencies import Dependencies
from mlflow_operator.framework.reconcile_result import ReconcileResult
from mlflow_operator.kube import labels
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.kinds import Kind
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.read_limit import ReadLimit
from mlflow_operator.platforms.checks import CHECK_INTERVAL_SECONDS, Checks
from mlflow_operator.platforms.reconcile import reconcile
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.unit.api.platform_refusals import platform, postgres, s3, without
from tests.unit.simulation import FakeAPIServer, FakeStoreAdmin, SimulatedCluster
from tests.unit.virtual_time import in_virtual_time

NAME = "shared"
WITHOUT_CA = postgres(tls={"mode": "Require"})
"""A platform whose checks use no thread: virtual time does not wait for threads."""
TRACKING = {"example.com/tracking": "true"}


class RecordingStoreAdmin(FakeStoreAdmin):
    """The admin API of MinIO. `checked` are the administrators who were checked."""

    def __init__(self) -> None:
        self.checked: list[Admin] = []
        self.error: ReconcileError | None = None

    async def check(self, admin: Admin) -> None:
        """Succeed unless `error` is set."""
        self.checked.append(admin)
        if self.error:
            raise self.error


class PlatformAPIServer(FakeAPIServer):
    """An API server whose Secrets are all in the namespace mlflow-platform.

    The namespace `deleted` cannot be requested, because the Role in it is deleted, too.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads_forbidden = False

    async def get(
        self, kind: Kind, namespace: str | None, name: str, limit: ReadLimit | None = None
    ) -> Object | None:
        """Return an object. Raises AssertionError for a Secret of another namespace."""
        if (kind.kind, name) == ("Namespace", "deleted"):
            raise Forbidden("get Namespace deleted: 403")
        if kind.kind == "Secret":
            assert namespace == "mlflow-platform"
            if self.reads_forbidden:
                raise Forbidden(f"get Secret {namespace}/{name}: 403")
        return await super().get(kind, namespace, name, limit)


class Simulation:
    """A platform with its Secrets and its stores. `checks` lives as long as the process of the operator."""

    def __init__(self, spec: Object | None = None, *, is_default: bool = False) -> None:
        environment = SimulatedCluster()
        self.environment, self.api = environment, PlatformAPIServer()
        environment.api = self.api
        self.postgres, self.store = environment.postgres_admin, environment.store
        environment.store_admin = self.store_admin = RecordingStoreAdmin()
        self.checks = Checks()
        self.put_secret("postgres-admin", username="admin", password=self.postgres.password)
        self.put_secret("minio-admin", accessKeyID="root", secretAccessKey="secret")
        self.put_secret("ca", **{"ca.crt": "-----BEGIN CERTIFICATE-----"})
        self.put_platform(spec or platform(), is_default=is_default)

    def put_platform(self, spec: Object, name: str = NAME, *, is_default: bool = False) -> None:
        """Create or replace a platform."""
        existing = self.api.objects.get((KIND, name), {"metadata": {"generation": 0}})
        annotations = {DEFAULT_ANNOTATION: "true"} if is_default else {}
        generation = existing["metadata"]["generation"] + 1
        metadata = {
            **existing["metadata"],
            "name": name,
            "generation": generation,
            "annotations": annotations,
        }
        self.api.put(
            {**existing, "apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}
        )

    def put_secret(self, name: str, **values: str) -> None:
        """Create or replace a Secret of the platform."""
        data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
        metadata = {"name": name, "namespace": "mlflow-platform"}
        self.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data})

    def put_namespace(self, name: str, labels: dict[str, str]) -> None:
        """Create a namespace."""
        self.api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})

    @property
    def deps(self) -> Dependencies:
        """The dependencies of a reconcile."""
        return self.environment.dependencies()

    async def reconcile(self, name: str = NAME, watched: Collection[str] = ()) -> ReconcileResult:
        """Run one reconcile."""
        return await reconcile(name, self.deps, self.checks, watched)

    def conditions(self, name: str = NAME) -> dict[str, tuple[str, str, str]]:
        """Status, reason and message of each condition."""
        conditions = self.api.objects[KIND, name].get("status", {}).get("conditions", ())
        return {c["type"]: (c["status"], c["reason"], c["message"]) for c in conditions}

    def is_default(self, name: str = NAME) -> bool:
        """`status.isDefault`."""
        found = self.api.objects[KIND, name]["status"]["isDefault"]
        assert isinstance(found, bool)
        return found

    @property
    def events(self) -> list[tuple[bool, str, str]]:
        """The published Events."""
        return self.environment.events.published

    @property
    def writes(self) -> list[tuple[str, str]]:
        """The operator's write requests."""
        return self.api.writes


async def test_platform_with_working_stores_is_ready() -> None:
    simulation = Simulation()
    result = await simulation.reconcile()
    assert (result.ready, result.requeue_after) == ("True", None)
    assert simulation.conditions() == {
        "Ready": ("True", "Ready", "All stores of the platform are ready."),
        "DatabaseReady": (
            "True",
            "Ready",
            "The administrator can log in and may create roles and databases.",
        ),
        "ArtifactStoreReady": (
            "True",
            "Ready",
            'The bucket "mlflow" is accessible, and the store has the admin API of MinIO.',
        ),
    }
    assert simulation.writes == [("patch", f"{KIND}/{NAME}"), ("apply_status", f"{KIND}/{NAME}")]
    assert simulation.events == [(True, "Ready", "All stores of the platform are ready.")]


@in_virtual_time
async def test_nothing_is_written_at_rest() -> None:
    """Ten minutes: no write, and the stores are checked once a minute at most."""
    simulation = Simulation(WITHOUT_CA)
    await simulation.reconcile()
    await _pass(600, simulation)
    assert len(simulation.writes) == 2  # the finalizer and the status
    assert len(simulation.events) == 1
    assert 2 <= len(simulation.postgres.checked) <= 11
    assert len(simulation.store_admin.checked) == len(simulation.postgres.checked)


async def _pass(seconds: float, simulation: Simulation, interval: float = 7.0) -> None:
    """Reconcile every few seconds, as watch events of other clients cause it."""
    for _ in range(int(seconds / interval)):
        await asyncio.sleep(interval)
        await simulation.reconcile()


@in_virtual_time
async def test_changed_secret_is_checked_at_once() -> None:
    """An administrator who corrects a Secret does not wait for a minute. Each failure is one Event."""
    simulation = Simulation(WITHOUT_CA)
    simulation.put_secret("postgres-admin", username="admin", password="wrong\n")
    result = await simulation.reconcile()
    await simulation.reconcile()
    assert (result.ready, result.requeue_after) == ("False", 15.0)
    status, reason, message = simulation.conditions()["DatabaseReady"]
    assert (status, reason) == ("False", "DatabaseAuthenticationFailed")
    assert "spec.database.postgres.adminSecretRef" in message
    assert "begins or ends with a space or a line break" in message
    assert "wrong" not in message
    assert [event[1] for event in simulation.events] == ["DatabaseAuthenticationFailed"]
    assert simulation.conditions()["Ready"][1] == "DatabaseAuthenticationFailed"
    assert len(simulation.postgres.checked) == 1
    simulation.put_secret("postgres-admin", username="admin", password=simulation.postgres.password)
    assert (await simulation.reconcile()).ready == "True"


@in_virtual_time
async def test_unavailable_database_is_one_condition_and_one_event() -> None:
    """Ten minutes without Postgres: the artifact store stays ready."""
    simulation = Simulation(WITHOUT_CA)
    await simulation.reconcile()
    simulation.postgres.error = no_answer("postgres.mlflow-platform.svc:5432")
    await _pass(600, simulation)
    assert simulation.conditions()["DatabaseReady"][1] == "DatabaseUnreachable"
    assert simulation.conditions()["ArtifactStoreReady"][0] == "True"
    assert [event[1] for event in simulation.events] == ["Ready", "DatabaseUnreachable"]
    assert len(simulation.writes) == 3
    simulation.postgres.error = None
    await _pass(2 * CHECK_INTERVAL_SECONDS, simulation)
    assert simulation.conditions()["Ready"][0] == "True"
    assert [event[1] for event in simulation.events][2:] == ["Ready"]


@pytest.mark.parametrize(
    ("name", "values", "condition", "reason", "message"),
    [
        ("postgres-admin", None, "DatabaseReady", "SecretNotFound", "namespace mlflow-platform"),
        ("postgres-admin", {"username": "a"}, "DatabaseReady", "SecretKeyMissing", 'no key "password"'),
        ("ca", None, "DatabaseReady", "SecretNotFound", "spec.database.postgres.tls.caSecretRef"),
        ("minio-admin", None, "ArtifactStoreReady", "SecretNotFound", "spec.artifacts.s3.adminSecretRef"),
        (
            "minio-admin",
            {"accessKeyID": "root", "secretAccessKey": "secret\n"},
            "ArtifactStoreReady",
            "SecretValueInvalid",
            "begins or ends with a space or a line break",
        ),
    ],
)
async def test_wrong_secret_is_reported(
    name: str, values: dict[str, str] | None, condition: str, reason: str, message: str
) -> None:
    """With the sentences of a server's conditions. No store gets a login."""
    simulation = Simulation()
    del simulation.api.objects["Secret", name]
    if values:
        simulation.put_secret(name, **values)
    await simulation.reconcile()
    await simulation.reconcile()
    status, actual, text = simulation.conditions()[condition]
    assert (status, actual) == ("False", reason)
    assert message in text
    assert "secret\n" not in text
    assert [event[1] for event in simulation.events] == [reason]
    checked = simulation.postgres if condition == "DatabaseReady" else simulation.store_admin
    assert checked.checked == []


async def test_operator_without_permission_names_the_value_of_the_chart() -> None:
    simulation = Simulation()
    simulation.api.reads_forbidden = True
    await simulation.reconcile()
    for condition in ("DatabaseReady", "ArtifactStoreReady"):
        _, reason, message = simulation.conditions()[condition]
        assert reason == "ProvisioningDenied"
        assert "platformSecrets" in message
        assert "namespace mlflow-platform" in message


async def test_platform_that_offers_one_store_has_no_condition_of_the_other() -> None:
    simulation = Simulation(without("artifacts"))
    await simulation.reconcile()
    assert [*simulation.conditions()] == ["Ready", "DatabaseReady"]
    assert simulation.store.checked_buckets == []
    simulation.put_platform(without("database"))
    await simulation.reconcile()
    assert [*simulation.conditions()] == ["Ready", "ArtifactStoreReady"]


@pytest.mark.parametrize(
    ("mode", "requires_scram", "note"),
    [
        ("Disable", False, "Connections are not encrypted"),
        ("Prefer", False, "Connections may be unencrypted"),
        ("Require", True, "The certificate is not verified"),
        ("VerifyCA", True, "The host in the certificate is not verified"),
        ("VerifyFull", True, ""),
    ],
)
async def test_password_is_sent_as_a_scram_proof_unless_the_platform_opts_out(
    mode: str, requires_scram: bool, note: str
) -> None:
    """A server that asks for a cleartext password gets none. A weaker mode is only reported."""
    tls: Object = {"mode": mode}
    if mode.startswith("Verify"):
        tls["caSecretRef"] = {"name": "ca"}
    simulation = Simulation(postgres(tls=tls))
    await simulation.reconcile()
    (admin,) = simulation.postgres.checked
    options = dict(admin.options)
    assert options.get("require_auth") == ("scram-sha-256" if requires_scram else None)
    assert options["sslmode"].replace("-", "") == mode.lower()
    assert "hostaddr" not in options
    assert admin.host == "postgres.mlflow-platform.svc"
    message = simulation.conditions()["DatabaseReady"][2]
    assert (note in message) is True
    assert ("Set spec.database.postgres.tls.mode to VerifyFull" in message) is bool(note)
    assert simulation.conditions()["Ready"][0] == "True"


async def test_unencrypted_endpoint_is_reported() -> None:
    simulation = Simulation(s3(endpoint="http://minio.mlflow-platform.svc:9000"))
    await simulation.reconcile()
    assert "Connections are not encrypted" in simulation.conditions()["ArtifactStoreReady"][2]


@pytest.mark.parametrize("mode", ["Disable", "Prefer", "Require", "VerifyCA", "VerifyFull"])
async def test_namespace_that_can_shadow_an_unverified_database_is_named(mode: str) -> None:
    """With a verified certificate, its Service has none that is accepted."""
    verifies = mode.startswith("Verify")
    tls = {"mode": mode, "caSecretRef": {"name": "ca"}} if verifies else {"mode": mode}
    simulation = Simulation(postgres(host="pg.corp", tls=tls))
    await simulation.reconcile()
    status, _, message = simulation.conditions()["DatabaseReady"]
    assert status == "True"
    assert ('pg.corp is the Service "pg" in namespace corp if that exists.' in message) is not verifies


@pytest.mark.parametrize(
    ("endpoint", "shadowing"),
    [
        ("http://minio.corp:9000", 'minio.corp is the Service "minio" in namespace corp if'),
        ("https://minio.corp:9000", ""),
        ("http://10.0.0.1:9000", ""),
    ],
)
async def test_namespace_that_can_shadow_an_unencrypted_store_is_named(endpoint: str, shadowing: str) -> None:
    simulation = Simulation(s3(endpoint=endpoint))
    await simulation.reconcile()
    message = simulation.conditions()["ArtifactStoreReady"][2]
    assert shadowing in message
    assert ("DNS search list" in message) is bool(shadowing)


async def test_hosts_are_not_resolved_in_the_namespace_of_a_tenant() -> None:
    """A tenant could create a Service with the name of the host."""
    simulation = Simulation()
    simulation.environment.resolver = cast("Any", None)
    await simulation.reconcile()
    (bucket,) = simulation.store.checked_buckets
    assert bucket.endpoint == "https://minio.mlflow-platform.svc:9000"
    assert bucket.key_prefix == ""


async def test_bucket_is_not_created_in_a_store_without_the_admin_api() -> None:
    simulation = Simulation()
    simulation.store_admin.error = s3_errors.timed_out("https://minio.mlflow-platform.svc:9000")
    await simulation.reconcile()
    assert simulation.conditions()["ArtifactStoreReady"][1] == "ArtifactStoreUnreachable"
    assert simulation.store.checked_buckets == []


SETTINGS: Object = {
    "versioning": "Enabled",
    "lifecycle": {"noncurrentVersionExpirationDays": 30},
    "encryption": {"type": "SSES3"},
}


@pytest.mark.parametrize(
    ("prefix", "covered"),
    [
        ("{namespace}/{name}", ""),
        ("mlflow/{namespace}/{name}", "mlflow/"),
        ("a/b/{name}/x/{namespace}", "a/b/"),
    ],
)
async def test_settings_of_the_bucket_are_applied_for_all_servers(prefix: str, covered: str) -> None:
    """With one lifecycle rule, because servers that each add one would overwrite those of others."""
    simulation = Simulation(s3(prefix=prefix, **SETTINGS))
    await simulation.reconcile()
    ((bucket, settings, rule),) = simulation.store.applied_settings
    assert (bucket.access_key, bucket.name) == ("root", "mlflow")
    assert (settings.versioned, settings.encryption) == (True, "AES256")
    assert rule == {
        "ID": f"mlflow-operator/platform/{NAME}",
        "Status": "Enabled",
        "Filter": {"Prefix": covered},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 30},
    }


@in_virtual_time
async def test_settings_are_compared_once_a_minute_and_changed_at_once() -> None:
    simulation = Simulation(WITHOUT_CA)
    await _pass(600, simulation)
    assert simulation.store.applied_settings == []
    simulation.put_platform(without_ca(lifecycle={"noncurrentVersionExpirationDays": 30}))
    await simulation.reconcile()
    assert len(simulation.store.applied_settings) == 1
    writes = len(simulation.writes)
    await _pass(600, simulation)
    assert 2 <= len(simulation.store.applied_settings) <= 11
    assert len(simulation.writes) == writes
    simulation.put_platform(without_ca(lifecycle={}))
    await simulation.reconcile()
    _, settings, rule = simulation.store.applied_settings[-1]
    assert (settings.lifecycle, rule) == (True, None)


def without_ca(**fields: Any) -> Object:
    """A platform like WITHOUT_CA with other fields of the store."""
    changes = {f"artifacts__s3__{name}": value for name, value in fields.items()}
    return platform(database__postgres__tls={"mode": "Require"}, **changes)


async def test_refused_settings_are_one_condition_of_the_platform() -> None:
    simulation = Simulation(s3(**SETTINGS))
    simulation.store.settings_error = ConfigurationError(Reason.BUCKET_SETTINGS_REFUSED, "No.")
    await simulation.reconcile()
    assert simulation.conditions()["ArtifactStoreReady"] == ("False", "BucketSettingsRefused", "No.")
    assert simulation.conditions()["DatabaseReady"][0] == "True"
    assert [event[1] for event in simulation.events] == ["BucketSettingsRefused"]


async def test_invalid_platform_is_reported() -> None:
    """An object that was stored before a rule existed."""
    simulation = Simulation(postgres(host="postgres"))
    result = await simulation.reconcile()
    assert result.ready == "False"
    _, reason, message = simulation.conditions()["Ready"]
    assert reason == "InvalidResource"
    assert "spec.database.postgres.host" in message
    assert simulation.postgres.checked == []


async def test_deleted_platform_is_forgotten() -> None:
    """A platform of the same name is checked at once."""
    simulation = Simulation()
    await simulation.reconcile()
    stored = simulation.api.objects.pop((KIND, NAME))
    assert await simulation.reconcile() == ReconcileResult(None)
    simulation.api.put(stored)
    await simulation.reconcile()
    assert len(simulation.postgres.checked) == 2


USED = [{"server": "team-a/tracking", "namespaceUID": "uid-1"}]
"""Entries of spec.adoptions that a server has used."""


@pytest.mark.parametrize("state", ["valid", "invalid", "deleted"])
async def test_used_adoption_stays_in_the_status_while_it_is_listed(state: str) -> None:
    """Without it, the entry would count for another namespace. An invalid spec says nothing about its entries."""
    simulation = Simulation(platform(adoptions=["team-a/tracking"]))
    simulation.api.edit(KIND, NAME, lambda obj: obj.update(status={"adoptions": USED}))
    if state == "invalid":
        simulation.put_platform(postgres(host="postgres"))
    if state == "deleted":
        simulation.api.put(server("tracking", NAME))
        await simulation.reconcile()
        simulation.api.edit(
            KIND, NAME, lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
        )
    await simulation.reconcile()
    assert simulation.api.objects[KIND, NAME]["status"]["adoptions"] == USED
    writes = len(simulation.writes)
    await simulation.reconcile()
    assert len(simulation.writes) == writes


async def test_used_adoption_that_is_removed_from_the_spec_is_forgotten() -> None:
    simulation = Simulation(platform(adoptions=["team-a/other"]))
    simulation.api.edit(KIND, NAME, lambda obj: obj.update(status={"adoptions": USED}))
    await simulation.reconcile()
    assert "adoptions" not in simulation.api.objects[KIND, NAME]["status"]


def selecting(**labels: str) -> Object:
    """A spec that selects namespaces with these labels."""
    return platform(namespaceSelector={"matchLabels": labels})


async def test_two_defaults_of_one_namespace_are_both_reported() -> None:
    """The messages name the first namespace and do not depend on further ones: each change would be an Event."""
    simulation = Simulation(selecting(a="1"), is_default=True)
    simulation.put_platform(selecting(b="1"), "other", is_default=True)
    simulation.put_namespace("only-a", {"a": "1"})
    simulation.put_namespace("only-b", {"b": "1"})
    await simulation.reconcile()
    await simulation.reconcile("other")
    assert simulation.conditions()["Ready"][0] == simulation.conditions("other")["Ready"][0] == "True"
    assert simulation.is_default()
    assert simulation.is_default("other")
    simulation.put_namespace("both", {"a": "1", "b": "1"})
    for _ in range(2):
        await simulation.reconcile()
        await simulation.reconcile("other")
        simulation.put_namespace("both-too", {"a": "1", "b": "1"})
    for name, rival in ((NAME, "other"), ("other", NAME)):
        status, reason, message = simulation.conditions(name)["Ready"]
        assert (status, reason) == ("False", "DefaultPlatformConflict")
        assert f'"{name}" and "{rival}" share namespace both,' in message
        assert simulation.conditions(name)["DatabaseReady"][0] == "True"
        assert not simulation.is_default(name)
    assert [event[1] for event in simulation.events] == [*["Ready"] * 2, *["DefaultPlatformConflict"] * 2]
    simulation.put_platform(selecting(b="1"), "other")
    await simulation.reconcile()
    await simulation.reconcile("other")
    assert simulation.conditions()["Ready"][0] == simulation.conditions("other")["Ready"][0] == "True"
    assert (simulation.is_default(), simulation.is_default("other")) == (True, False)


@pytest.mark.parametrize("state", ["invalid", "deleted", "not ready"])
async def test_default_platform_that_new_servers_do_not_use_is_not_the_default(state: str) -> None:
    """They wait for one that is not ready, and use it."""
    simulation = Simulation(is_default=True)
    await simulation.reconcile()
    assert simulation.is_default()
    if state == "invalid":
        simulation.put_platform(postgres(host="postgres"), is_default=True)
    if state == "not ready":
        simulation.put_secret("postgres-admin", username="admin", password="wrong")
    if state == "deleted":
        simulation.api.put(server("tracking", NAME))
        simulation.api.edit(
            KIND, NAME, lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
        )
    await simulation.reconcile()
    assert simulation.conditions()["Ready"][0] == "False"
    assert simulation.is_default() == (state == "not ready")


async def test_namespaces_are_listed_for_several_defaults_only(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = Simulation(is_default=True)
    simulation.put_platform(platform(), "not-default")
    monkeypatch.delattr(FakeAPIServer, "list_labels")
    assert (await simulation.reconcile()).ready == "True"


async def test_invalid_other_platform_does_not_stop_the_check() -> None:
    simulation = Simulation(is_default=True)
    simulation.put_platform({}, "other", is_default=True)
    assert (await simulation.reconcile()).ready == "True"


async def test_operator_of_selected_namespaces_leaves_other_platforms_alone() -> None:
    """Two operators would overwrite the status of each other if only one may read the Secrets."""
    simulation = Simulation()
    simulation.put_namespace("mine", {})
    result = await simulation.reconcile(watched=["deleted", "mine", "missing"])
    # It is reconciled again at the resync: the label of a namespace may change.
    assert result == ReconcileResult("Unknown")
    assert (simulation.writes, simulation.postgres.checked) == ([], [])
    simulation.put_namespace("mine", TRACKING)
    assert (await simulation.reconcile(watched=["deleted", "mine", "missing"])).ready == "True"


async def test_operator_of_selected_namespaces_compares_defaults_in_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may not list namespaces."""
    simulation = Simulation(is_default=True)
    simulation.put_platform(platform(), "other", is_default=True)
    simulation.put_namespace("mine", TRACKING)
    monkeypatch.delattr(FakeAPIServer, "list_labels")
    await simulation.reconcile(watched=["mine"])
    assert simulation.conditions()["Ready"][1] == Reason.DEFAULT_PLATFORM_CONFLICT


def server(name: str, platform_name: str) -> Object:
    """A server that uses a platform."""
    metadata = {"name": name, "namespace": "team-a"}
    status = {"platform": {"name": platform_name, "uid": "", "parts": ["Database"]}}
    return {"apiVersion": API_VERSION, "kind": "MLflowServer", "metadata": metadata, "status": status}


async def test_platform_is_deleted_once_no_server_uses_it() -> None:
    """The condition names the servers, and the stores are not checked any more."""
    simulation = Simulation(WITHOUT_CA)
    await simulation.reconcile()
    assert simulation.api.objects[KIND, NAME]["metadata"]["finalizers"] == [labels.PLATFORM_FINALIZER]
    for name in ("other", "b", "a"):
        simulation.api.put(server(name, NAME if name != "other" else "another"))
    simulation.api.edit(
        KIND, NAME, lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
    )
    checked = len(simulation.postgres.checked)
    result = await simulation.reconcile()
    status, reason, message = simulation.conditions()["Ready"]
    assert (status, reason, result.requeue_after) == ("False", "DeletionBlocked", 15)
    assert "servers use it: team-a/a, team-a/b." in message
    assert len(simulation.postgres.checked) == checked
    writes = len(simulation.writes)
    await simulation.reconcile()
    assert len(simulation.writes) == writes
    for name in ("a", "b"):
        del simulation.api.objects["MLflowServer", name]
    await simulation.reconcile()
    assert simulation.api.objects[KIND, NAME]["metadata"]["finalizers"] == []


async def test_platform_stays_if_the_operator_may_not_list_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    """An operator of selected namespaces does not know whether servers elsewhere use the platform."""
    simulation = Simulation(WITHOUT_CA)
    await simulation.reconcile()
    simulation.api.edit(
        KIND, NAME, lambda obj: obj["metadata"].update(deletionTimestamp="2026-01-01T00:00:00Z")
    )

    async def forbid(*_: Any, **__: Any) -> list[Object]:
        raise Forbidden("list mlflowservers: 403")

    monkeypatch.setattr(simulation.api, "list", forbid)
    writes = len(simulation.writes)
    assert (await simulation.reconcile(watched=("team-a",))).ready == "Unknown"
    assert len(simulation.writes) == writes
    assert simulation.api.objects[KIND, NAME]["metadata"]["finalizers"] == [labels.PLATFORM_FINALIZER]


async def test_operator_of_selected_namespaces_adds_no_finalizer() -> None:
    """It does not know the servers of other operators, and has no permission to change platforms."""
    simulation = Simulation(WITHOUT_CA)
    simulation.put_namespace("team-a", TRACKING)
    await simulation.reconcile(watched=("team-a",))
    assert "finalizers" not in simulation.api.objects[KIND, NAME]["metadata"]
