"""What works for a database and a bucket of one's own works for those of a platform."""

import pytest

from mlflow_operator.clients.s3.signed_request import AccessKey
from mlflow_operator.kube import pod_references
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.deployment import connection_demand
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.status.conditions import Reason
from tests import cloudnativepg
from tests.unit.api.platform_refusals import platform, postgres, s3
from tests.unit.platform_simulation import CA, PLATFORM, ROOT, PlatformSimulation
from tests.unit.simulation import NAME, NAMESPACE

OLD_VERSION = "3.14.0"
OWN_LOCATION = f"s3://mlflow/{NAMESPACE}/{NAME}"
OWN_SECRETS = {f"{NAME}-{part}" for part in ("server", "database", "artifacts", "encryption", "client")}
BOTH_CAS = s3(tls={"caSecretRef": {"name": "ca"}})
ALLOWED: Object = {"storageChangePolicy": "Allow"}


async def ready(spec: Object | None = None, platform_spec: Object | None = None) -> PlatformSimulation:
    """A Ready and stable server on the platform."""
    simulation = PlatformSimulation(spec, platform_spec)
    await simulation.reconcile_until_ready()
    return simulation


def pod_specs(simulation: PlatformSimulation, *kinds_of_workloads: str) -> dict[str, Object]:
    """The pod specs of all workloads of these kinds, by the names of the workloads."""
    found = {}
    for (kind, name), obj in simulation.api.objects.items():
        if kind in kinds_of_workloads:
            spec = obj["spec"]["jobTemplate"]["spec"] if kind == "CronJob" else obj["spec"]
            found[name] = spec["template"]["spec"]
    return found


def environment(pod_spec: Object) -> dict[str, str]:
    """The variables of the first container."""
    return {e["name"]: e["value"] for e in pod_spec["containers"][0]["env"] if "value" in e}


def check_pods(simulation: PlatformSimulation, expected: set[str]) -> None:
    """Pods with these parts in their names exist, and all pods read only the Secrets of the server."""
    check_references(pod_specs(simulation, "Deployment", "Job", "CronJob"), expected)
    for name in read_secrets(simulation):
        assert not {simulation.admin.password, simulation.minio.root.secret} & {
            *simulation.secret(name).values()
        }


def check_references(pods: dict[str, Object], expected: set[str]) -> None:
    """Pods with these parts in their names exist, and all pods read only the Secrets of the server."""
    for part in expected:
        assert [name for name in pods if part in name], (part, [*pods])
    for name, spec in pods.items():
        read = {reference.name for reference in pod_references.of_pod(spec) if reference.kind == "Secret"}
        assert read <= OWN_SECRETS, name
        assert "postgres-admin" not in str(spec)
        assert "minio-admin" not in str(spec)


async def jobs_until_ready(simulation: PlatformSimulation) -> dict[str, Object]:
    """The pod specs of the Jobs that run until the server is Ready."""
    pods: dict[str, Object] = {}
    for _ in range(12):
        await simulation.reconcile()
        pods |= pod_specs(simulation, "Job")
        simulation.run_controllers()
    await simulation.reconcile_until_ready()
    return pods


def read_secrets(simulation: PlatformSimulation) -> set[str]:
    """The Secrets in the namespace of the server."""
    return {
        name
        for (kind, name), obj in simulation.api.objects.items()
        if kind == "Secret" and obj["metadata"].get("namespace") == NAMESPACE
    }


# Administrators


async def test_rotated_password_of_the_database_administrator_is_used() -> None:
    """No server is disturbed, and the next change uses the new one."""
    simulation = await ready()
    deployment = simulation.get("Deployment", NAME)
    simulation.admin.password = "another-password"
    simulation.put_platform_secret("postgres-admin", username="admin", password="another-password")
    await simulation.reconcile_until_ready()
    assert simulation.get("Deployment", NAME) == deployment
    assert simulation.admin.database
    limit = simulation.admin.database.connection_limit
    simulation.update_spec(replicas=2)
    await simulation.reconcile_until_ready()
    assert simulation.admin.database.connection_limit > limit
    assert simulation.admin.admins[-1][0].password == "another-password"


async def test_rotated_key_of_the_store_administrator_is_used() -> None:
    simulation = await ready()
    deployment = simulation.get("Deployment", NAME)
    simulation.minio.root = AccessKey("new-root", "new-root-secret")
    await simulation.reconcile()
    assert simulation.condition("ArtifactStoreReady")[0] == "True"
    assert "The server's key works" in simulation.condition("ArtifactStoreReady")[2]
    simulation.put_platform_secret("minio-admin", accessKeyID="new-root", secretAccessKey="new-root-secret")
    await simulation.reconcile_until_ready()
    assert "The server's key works" not in simulation.condition("ArtifactStoreReady")[2]
    assert simulation.get("Deployment", NAME) == deployment


async def test_superuser_of_cloudnativepg_can_be_the_administrator() -> None:
    """Its Secret has more keys, and another host, which nothing uses."""
    spec = postgres(
        host="pg-rw.mlflow-platform.svc",
        adminSecretRef={"name": "pg-superuser"},
        tls={"caSecretRef": {"name": "pg-ca"}},
    )
    simulation = PlatformSimulation(platform_spec=spec)
    superuser = cloudnativepg.superuser_secret("pg", "mlflow-platform", simulation.admin.password)
    simulation.put_platform_secret(superuser["metadata"]["name"], **superuser["stringData"])
    simulation.put_platform_secret("pg-ca", **{"ca.crt": CA, "ca.key": "private"})
    await simulation.reconcile_until_ready()
    for admin, ca_path in simulation.admin.admins:
        assert (admin.host, admin.port, admin.username) == ("pg-rw.mlflow-platform.svc", 5432, "postgres")
        assert admin.database == "postgres"
        assert ca_path
    assert "private" not in str([simulation.secret(name) for name in read_secrets(simulation)])


# Credentials of the server


async def test_rotation_revokes_only_what_no_pod_uses() -> None:
    """At each moment, the credentials in the Secrets that the pods read have access."""
    simulation = await ready()
    simulation.now = "2026-02-01T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-01-15T00:00:00Z")
    logins = []
    for _ in range(8):
        await simulation.reconcile()
        database, store = (simulation.secret(f"{NAME}-{part}") for part in ("database", "artifacts"))
        assert simulation.admin.logins[database["username"]] == database["password"]
        assert simulation.minio.users[store["accessKeyID"]] == store["secretAccessKey"]
        logins.append((len(simulation.admin.logins), len(simulation.minio.users)))
        simulation.run_controllers()
    await simulation.reconcile_until_ready()
    assert (2, 2) in logins
    assert (len(simulation.admin.logins), len(simulation.minio.users)) == (1, 1)
    assert simulation.status["credentialsRotatedAt"] == "2026-01-15T00:00:00Z"


async def test_interrupted_rotation_is_resumed() -> None:
    simulation = await ready()
    before = simulation.secret(f"{NAME}-artifacts")["accessKeyID"]
    simulation.now = "2026-02-01T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-01-15T00:00:00Z")
    del simulation.api.objects["Secret", "minio-admin"]
    await simulation.reconcile()
    assert simulation.secret(f"{NAME}-artifacts")["accessKeyID"] == before
    simulation.put_platform_secret("minio-admin", accessKeyID=ROOT.id, secretAccessKey=ROOT.secret)
    await simulation.reconcile_until_ready()
    assert simulation.secret(f"{NAME}-artifacts")["accessKeyID"] != before
    assert before not in simulation.minio.users


async def test_lost_secrets_of_the_server_are_replaced() -> None:
    """The administrators give the new login and key access to the same data."""
    simulation = await ready()
    for part in ("database", "artifacts"):
        del simulation.api.objects["Secret", f"{NAME}-{part}"]
    simulation.api.edit("MLflowServer", NAME, lambda obj: obj["status"].pop("schemaRevision"))
    await simulation.reconcile_until_ready()
    store = simulation.secret(f"{NAME}-artifacts")
    assert simulation.minio.users[store["accessKeyID"]] == store["secretAccessKey"]


# Lifecycle of the server


async def test_server_that_is_created_again_takes_its_data_back() -> None:
    """With the same login and key: nothing of the first one remains without a use."""
    simulation = await ready()
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "mine"
    database, users, policy = simulation.admin.database, dict(simulation.minio.users), simulation.policy()
    logins = dict(simulation.admin.logins)
    simulation.delete_server()
    assert simulation.get("MLflowServer", NAME) is None
    simulation.create_server({})
    await simulation.reconcile_until_ready()
    assert (simulation.admin.database, simulation.admin.logins) == (database, logins)
    assert (simulation.minio.users, simulation.policy()) == (users, policy)
    assert simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] == "mine"


async def test_suspended_server_stops_its_pods_and_needs_no_administrator() -> None:
    simulation = await ready()
    deployment_before = simulation.get("Deployment", NAME)
    simulation.update_spec(suspend=True)
    attempts, minio_secret = simulation.admin.attempts, simulation.get("Secret", "minio-admin")
    del simulation.api.objects["Secret", "minio-admin"]
    await simulation.reconcile_until_stable()
    assert simulation.condition("Ready")[1] == "Suspended"
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    assert deployment["spec"]["replicas"] == 0
    assert simulation.admin.attempts == attempts
    assert minio_secret
    simulation.api.put(minio_secret)
    simulation.update_spec(suspend=False)
    await simulation.reconcile_until_ready()
    resumed = simulation.get("Deployment", NAME)
    assert resumed
    assert deployment_before
    assert resumed["spec"] == deployment_before["spec"]


async def test_server_moves_to_a_platform_and_back() -> None:
    """With permission only. The Events name the data that stays in the other stores."""
    embedded: Object = {"database": {"embedded": {}}, "artifacts": {"embedded": {}}, **ALLOWED}
    simulation = await ready(embedded)
    assert "platform" not in simulation.status
    volume = simulation.get("PersistentVolumeClaim", f"{NAME}-postgres-data")
    simulation.update_spec(database={"platform": {}}, artifacts={"platform": {}})
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"]["parts"] == ["Artifacts", "Database"]
    assert simulation.status["artifacts"]["uri"] == OWN_LOCATION
    assert simulation.get("PersistentVolumeClaim", f"{NAME}-postgres-data") == volume
    simulation.update_spec(database={"embedded": {}}, artifacts={"embedded": {}})
    await simulation.reconcile_until_ready()
    assert simulation.status["database"]["type"] == "Embedded"
    assert simulation.admin.database
    changes = [message for _, reason, message in simulation.events.published if reason == "StorageChanged"]
    assert len(changes) == 2
    assert f"mlflow_{NAMESPACE}_{NAME}" in changes[1]
    assert OWN_LOCATION in changes[1]


@pytest.mark.parametrize("adopts", [False, True])
async def test_provisioned_server_moves_to_the_platform_of_its_stores(adopts: bool) -> None:
    """It keeps its database and artifacts there, if the platform's administrator lists it in spec.adoptions."""
    admin = {"name": "own-admin"}
    simulation = PlatformSimulation(
        {
            "database": {"provision": {"host": "postgres.mlflow-platform.svc", "adminSecretRef": admin}},
            "artifacts": {"embedded": {}},
        },
        platform(adoptions=[f"{NAMESPACE}/{NAME}"] if adopts else []),
    )
    simulation.put_secret("own-admin", username="admin", password=simulation.admin.password)
    await simulation.reconcile_until_ready()
    login = simulation.secret(f"{NAME}-database")["username"]
    simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] = "mine"
    simulation.update_spec(database={"platform": {}}, artifacts={"platform": {}}, **ALLOWED)
    await simulation.reconcile_until_stable()
    if adopts:
        assert simulation.condition("Ready")[0] == "True"
        assert simulation.secret(f"{NAME}-database")["username"] == login
        assert simulation.admin.database
        assert f"in namespace {NAMESPACE}-1" in simulation.admin.database.marker
        assert simulation.minio.objects[f"{NAMESPACE}/{NAME}/model"] == "mine"
    else:
        assert simulation.condition("DatabaseReady")[1] == Reason.ADOPTION_REQUIRED
        assert simulation.condition("ArtifactStoreReady")[1] == Reason.ADOPTION_REQUIRED


async def test_server_moves_to_another_platform() -> None:
    simulation = await ready(ALLOWED)
    simulation.put_platform(s3(bucket="other"), "other", is_default=False)
    simulation.update_spec(platformRef={"name": "other"})
    await simulation.reconcile_until_ready()
    assert simulation.status["platform"]["name"] == "other"
    assert simulation.status["artifacts"]["uri"] == f"s3://other/{NAMESPACE}/{NAME}"
    assert simulation.covered() == {"arn:aws:s3:::other", f"arn:aws:s3:::other/{NAMESPACE}/{NAME}/*"}


# Jobs


async def test_backup_and_garbage_collection_use_the_credentials_of_the_server() -> None:
    simulation = await ready({"backup": {"schedule": "0 * * * *"}, "garbageCollection": {}}, BOTH_CAS)
    check_pods(simulation, {f"{NAME}-backup", f"{NAME}-gc"})
    backup = pod_specs(simulation, "CronJob")[f"{NAME}-backup"]
    assert OWN_LOCATION in {value for c in backup["containers"] for value in values_of(c)}


def values_of(container: Object) -> set[str]:
    """The values of the variables of a container."""
    return {e.get("value", "") for e in container["env"]}


async def test_upgrade_migrates_with_the_login_of_the_server() -> None:
    simulation = await ready({"version": OLD_VERSION, "backup": {"schedule": "0 * * * *"}}, BOTH_CAS)
    simulation.update_spec(version="3.16.0", upgrade={"backupBeforeMigration": "Skip"})
    attempts = simulation.admin.attempts
    check_references(await jobs_until_ready(simulation), {"-preflight-", "-migrate-"})
    assert simulation.admin.attempts == attempts
    assert simulation.status["version"] == "3.16.0"


async def test_backup_of_the_own_prefix_is_restored() -> None:
    """Of the server of the same name whose database was lost."""
    simulation = await ready({"restoreFrom": {"serverName": NAME}}, BOTH_CAS)
    check_pods(simulation, {"-restore-"})
    (job,) = [spec for name, spec in pod_specs(simulation, "Job").items() if "-restore-" in name]
    assert environment(job)["RESTORE_SOURCE"] == OWN_LOCATION


async def test_backup_of_another_server_is_restored_with_its_key() -> None:
    """Of another namespace or platform: the key of this server has no access to it."""
    source = {
        "endpoint": "https://other.example.com",
        "bucket": "other",
        "prefix": "team-b/old",
        "credentialsSecretRef": {"name": "old-artifacts"},
        "tls": {"caSecretRef": {"name": "old-ca"}},
    }
    spec = {"restoreFrom": {"serverName": "old", "namespace": "team-b", "s3": source}}
    simulation = PlatformSimulation(spec, BOTH_CAS)
    simulation.put_secret("old-artifacts", accessKeyID="old", secretAccessKey="old-secret")
    simulation.put_secret("old-ca", **{"ca.crt": CA})
    await simulation.reconcile_until_ready()
    (job,) = [spec for name, spec in pod_specs(simulation, "Job").items() if "-restore-" in name]
    env = environment(job)
    assert env["RESTORE_SOURCE"] == "s3://other/team-b/old"
    assert env["MLFLOW_S3_ENDPOINT_URL"] == "https://other.example.com"
    references = {(r.name, r.key) for r in pod_references.of_pod(job) if r.kind == "Secret"}
    assert {("old-artifacts", "accessKeyID"), ("old-ca", "ca.crt")} <= references
    assert (f"{NAME}-artifacts", "accessKeyID") not in references
    assert simulation.status["artifacts"]["uri"] == OWN_LOCATION


async def test_missing_backup_of_another_server_says_how_to_reference_it() -> None:
    simulation = PlatformSimulation({"restoreFrom": {"serverName": "old"}})
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers(complete_jobs=False)
    (job,) = [obj for (kind, name), obj in simulation.api.objects.items() if kind == "Job"]
    message = '{"backup": null, "errors": [{"code": "not_found", "message": "there is no backup"}]}'
    simulation.finish_job(job, "Failed", message)
    await simulation.reconcile()
    text = simulation.condition("Ready")[2]
    assert f'its own prefix of MLflowPlatform "{PLATFORM}" only' in text
    assert "spec.restoreFrom.s3" in text


async def test_passphrase_is_rotated_with_the_login_of_the_server() -> None:
    simulation = await ready(platform_spec=BOTH_CAS)
    assert simulation.condition("EncryptionReady")[0] == "True"
    simulation.postgres.encrypted = EncryptedSecrets(passphrase_versions=frozenset({1}))
    simulation.now = "2026-02-01T00:00:00Z"
    simulation.update_spec(encryption={"rotatePassphraseAt": "2026-01-15T00:00:00Z"})
    check_references(await jobs_until_ready(simulation), {"-rewrap-"})


# Limit of connections

POOL_SIZE, MAX_OVERFLOW = "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW"
LARGE_POOL: Object = {"name": POOL_SIZE, "value": "1000"}


def server_environment(simulation: PlatformSimulation) -> dict[str, str]:
    """The variables of the server's pods."""
    return environment(pod_specs(simulation, "Deployment")[NAME])


def demand(simulation: PlatformSimulation) -> int:
    """The connections that the pods of the server can open."""
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    return connection_demand(deployment)


def plugin_files(simulation: PlatformSimulation) -> dict[str, str]:
    """The files of the ConfigMap with the fast path."""
    found = simulation.get("ConfigMap", f"{NAME}-server")
    assert found
    files: dict[str, str] = found["data"]
    return files


async def test_default_server_is_not_limited() -> None:
    """Neither its pods nor its messages change."""
    simulation = await ready()
    assert simulation.admin.database
    assert simulation.admin.database.connection_limit == 129
    assert not {POOL_SIZE, MAX_OVERFLOW} & {*server_environment(simulation)}
    assert "small_pool.py" not in plugin_files(simulation)
    assert "limits" not in simulation.condition("DatabaseReady")[2]


@pytest.mark.parametrize(
    "spec",
    [
        {"replicas": 3, "workers": 4},
        {"env": [LARGE_POOL]},
        {"jobExecution": "Enabled"},
        {
            "replicas": 2,
            "env": [LARGE_POOL, {"name": MAX_OVERFLOW, "valueFrom": {"fieldRef": {"fieldPath": "a"}}}],
        },
    ],
    ids=["replicas and workers", "pool size", "background jobs", "unknown overflow"],
)
async def test_pools_of_a_large_server_fit_into_the_limit_of_the_platform(spec: Object) -> None:
    """The limit of the role is the one of the platform, and the rolling update fits."""
    simulation = await ready(spec)
    assert simulation.admin.database
    assert simulation.admin.database.connection_limit == 130
    assert demand(simulation) <= 130
    names = [
        variable["name"] for variable in pod_specs(simulation, "Deployment")[NAME]["containers"][0]["env"]
    ]
    assert names.count(POOL_SIZE) == names.count(MAX_OVERFLOW) == 1
    assert "small_pool.py" in plugin_files(simulation)
    assert "small_pool:app" in plugin_files(simulation)["direct_entry_points.txt"]
    status, _, message = simulation.condition("DatabaseReady")
    assert status == "True"
    assert message.count(f'MLflowPlatform "{PLATFORM}" limits each server to 130 connections') == 1
    assert "lower spec.replicas or spec.workers" in message
    assert f"MLflowPlatform {PLATFORM}, spec.database.postgres.maxConnectionsPerServer" in message


async def test_server_gets_its_own_pools_with_a_higher_limit() -> None:
    """The pods restart once."""
    simulation = await ready({"workers": 4})
    assert POOL_SIZE in server_environment(simulation)
    simulation.put_platform(postgres(maxConnectionsPerServer=1000))
    await simulation.reconcile_until_ready()
    assert POOL_SIZE not in server_environment(simulation)
    assert simulation.admin.database
    assert simulation.admin.database.connection_limit == 249
    assert "limits" not in simulation.condition("DatabaseReady")[2]


async def test_lower_limit_of_the_platform_waits_for_pods_with_smaller_pools() -> None:
    """Otherwise the new pods would get no connections."""
    simulation = await ready()
    simulation.put_platform(postgres(maxConnectionsPerServer=60))
    await simulation.reconcile()
    assert simulation.admin.database
    assert simulation.admin.database.connection_limit == 129
    await simulation.reconcile_until_ready()
    assert simulation.admin.database.connection_limit == 60
    assert demand(simulation) <= 60


async def test_server_that_cannot_fit_is_refused_and_its_pods_continue() -> None:
    simulation = await ready()
    deployment, database = simulation.get("Deployment", NAME), simulation.admin.database
    simulation.update_spec(replicas=100, workers=64)
    await simulation.reconcile()
    status, reason, message = simulation.condition("Ready")
    assert (status, reason) == ("False", Reason.POLICY_VIOLATION)
    assert "limits each server to 130 database connections, and this server needs 26063 even" in message
    assert "Lower spec.replicas or spec.workers" in message
    assert f"MLflowPlatform {PLATFORM}, spec.database.postgres.maxConnectionsPerServer" in message
    assert (simulation.get("Deployment", NAME), simulation.admin.database) == (deployment, database)
    simulation.update_spec(replicas=1, workers=2)
    await simulation.reconcile_until_ready()


async def test_server_that_cannot_fit_can_be_deleted() -> None:
    simulation = await ready({"deletionPolicy": "Delete"})
    simulation.update_spec(replicas=100, workers=64)
    await simulation.reconcile()
    simulation.delete_server()
    for _ in range(6):
        await simulation.reconcile()
        simulation.run_controllers()
    assert simulation.admin.database is None


# Clients


@pytest.mark.parametrize("access", ["Presigned", "Direct"])
async def test_clients_use_the_public_endpoint(access: str) -> None:
    public = "https://artifacts.example.com"
    simulation = await ready({"artifacts": {"access": access, "platform": {}}}, s3(publicEndpoint=public))
    client = simulation.get("ConfigMap", f"{NAME}-client")
    assert client
    if access == "Direct":
        assert client["data"]["MLFLOW_S3_ENDPOINT_URL"] == public
        key = simulation.secret(f"{NAME}-client")
        own = simulation.secret(f"{NAME}-artifacts")
        assert (key["AWS_ACCESS_KEY_ID"], key["AWS_SECRET_ACCESS_KEY"]) == (
            own["accessKeyID"],
            own["secretAccessKey"],
        )
    else:
        assert public in str(simulation.get("Deployment", NAME))
    check_pods(simulation, set())
    assert simulation.minio.endpoints == {"https://minio.mlflow-platform.svc:9000"}


# CA certificates


async def test_other_keys_of_the_ca_secret_restart_no_pods() -> None:
    simulation = await ready(platform_spec=BOTH_CAS)
    deployment, writes = simulation.get("Deployment", NAME), len(simulation.api.writes)
    simulation.put_platform_secret("ca", **{"ca.crt": CA, "ca.key": "new"})
    await simulation.reconcile()
    assert simulation.get("Deployment", NAME) == deployment
    assert len(simulation.api.writes) == writes


async def test_changed_ca_restarts_the_pods_once() -> None:
    simulation = await ready(platform_spec=BOTH_CAS)
    writes = len(simulation.api.writes)
    simulation.put_platform_secret("ca", **{"ca.crt": f"{CA} new"})
    await simulation.reconcile_until_ready()
    changes = simulation.api.writes[writes:]
    assert changes.count(("apply", f"Deployment/{NAME}")) == 1
    assert changes.count(("apply", f"Secret/{NAME}-server")) == 1


async def test_deleted_ca_of_a_running_server_is_one_message() -> None:
    """The pods keep their copy and run."""
    simulation = await ready(platform_spec=BOTH_CAS)
    deployment, copy = simulation.get("Deployment", NAME), simulation.secret(f"{NAME}-server")
    del simulation.api.objects["Secret", "ca"]
    events = len(simulation.events.published)
    for _ in range(5):
        await simulation.reconcile()
    assert [reason for _, reason, _ in simulation.events.published[events:]] == [Reason.SECRET_NOT_FOUND]
    assert "spec.database.postgres.tls.caSecretRef" in simulation.condition("Ready")[2]
    assert simulation.get("Deployment", NAME) == deployment
    assert simulation.secret(f"{NAME}-server") == copy
    simulation.put_platform_secret("ca", **{"ca.crt": CA})
    await simulation.reconcile_until_ready()
    assert simulation.get("Deployment", NAME) == deployment
