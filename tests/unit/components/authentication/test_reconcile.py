"""Authentication: pods require it once the accounts are ready, and the Secret is the source of truth."""

import contextlib
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication, encryption
from mlflow_operator.model.authentication import Accounts
from mlflow_operator.model.versions import AUTH_SCHEMA_HEADS, DEFAULT_VERSION
from tests.unit.simulation import (
    AUTH_REVISION,
    DATABASE_UNREACHABLE,
    NAME,
    ProcessKilled,
    SimulatedCluster,
    password_hash,
)

SECRET = f"{NAME}-admin"
BASIC: Object = {"auth": {"basic": {}}}
OWN: Object = {"auth": {"admin": {"passwordSecretRef": {"name": "own", "key": "p"}}}}
CUSTOM_IMAGE = "registry.example.com/mlflow:custom"


def server_env(simulation: SimulatedCluster) -> dict[str, str]:
    """The variables for authentication of the server's pods; empty if there is no Deployment."""
    deployment = simulation.get("Deployment", NAME)
    if deployment is None:
        return {}
    env = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {e["name"]: e.get("value", "") for e in env if e["name"].startswith("MLFLOW_OPERATOR_AUTH")}


def jobs(simulation: SimulatedCluster, component: str = labels.AUTHENTICATION_POD) -> list[Object]:
    """The Jobs of a component, by default those that prepare accounts."""
    found = (obj for (kind, _), obj in simulation.api.objects.items() if kind == "Job")
    return [job for job in found if job["metadata"]["labels"][labels.COMPONENT] == component]


def events(simulation: SimulatedCluster) -> list[str]:
    """Reasons of the Events about accounts and authentication."""
    reasons = (reason for _, reason, _ in simulation.events.published)
    return [
        reason
        for reason in reasons
        if reason.startswith(("Administrator", "AuthenticationE", "AuthenticationD"))
    ]


def matches(simulation: SimulatedCluster, password: str) -> bool:
    """Whether the database contains the hash of the password."""
    return simulation.postgres.accounts.password_hash == password_hash(password)


async def reconcile_without_jobs(simulation: SimulatedCluster, times: int = 4) -> None:
    """Reconcile while no Job finishes."""
    for _ in range(times):
        simulation.run_controllers(complete_jobs=False)
        await simulation.reconcile()


async def test_new_server_needs_one_job() -> None:
    """The migration Job also prepares the accounts, and the pods never run without authentication."""
    simulation = SimulatedCluster(BASIC)
    await reconcile_without_jobs(simulation)
    assert simulation.get("Deployment", NAME) is None
    await simulation.reconcile_until_ready()
    assert len(jobs(simulation, labels.MIGRATION_POD)) == 1
    assert jobs(simulation) == []
    assert server_env(simulation) == {
        authentication.TYPE_ENV: "basic",
        authentication.ADMIN_ENV: "admin",
        authentication.DEFAULT_PERMISSION_ENV: "NO_PERMISSIONS",
    }
    secret = simulation.get("Secret", SECRET)
    assert secret
    assert secret["type"] == "kubernetes.io/basic-auth"
    assert simulation.secret(SECRET)["username"] == "admin"
    assert matches(simulation, simulation.secret(SECRET)["password"])
    assert simulation.status["auth"] == {
        "type": "Basic",
        "schemaRevision": AUTH_REVISION,
        "users": 1,
        "passwordCheck": "Direct",
    }
    assert simulation.status["adminSecretRef"] == {"name": SECRET}
    status, _, message = simulation.condition("AuthenticationReady")
    assert status == "True"
    assert f'administrator "admin" is in Secret "{SECRET}"' in message
    assert "docs/guides/authentication.md" in message
    assert events(simulation) == []


async def test_server_without_authentication_is_not_changed() -> None:
    """No Secret, no variable, no condition, no query, and no request."""
    simulation = await SimulatedCluster.ready()
    assert server_env(simulation) == {}
    assert simulation.get("Secret", SECRET) is None
    assert simulation.postgres.account_reads == 0
    assert not {"auth", "adminSecretRef"} & simulation.status.keys()
    assert "AuthenticationReady" not in str(simulation.status["conditions"])
    assert f"Secret/{SECRET}" not in simulation.api.reads
    job = jobs(simulation, labels.MIGRATION_POD)[0]
    assert "MLFLOW_OPERATOR_AUTH" not in str(job["spec"]["template"]["spec"]["containers"][0]["env"])


async def test_explicit_none_is_shown_in_the_status() -> None:
    """Nothing else differs."""
    simulation = await SimulatedCluster.ready({"auth": {"none": {}}})
    assert server_env(simulation) == {}
    assert simulation.status["auth"] == {"type": "None"}
    assert simulation.postgres.account_reads == 0


async def test_no_write_at_rest() -> None:
    """A reconcile at rest reads the accounts once, compares nothing, and reads one more Secret."""
    simulation = await SimulatedCluster.ready(BASIC)
    simulation.api.reads.clear()
    simulation.api.writes.clear()
    reads = simulation.postgres.account_reads
    await simulation.reconcile()
    assert simulation.api.writes == []
    assert simulation.postgres.account_reads == reads + 1
    assert Counter(simulation.api.reads)[f"Secret/{SECRET}"] == 1


async def test_running_server_continues_without_authentication_until_the_accounts_are_ready() -> None:
    """Then its pods are replaced once. One Event says what has changed."""
    simulation = await SimulatedCluster.ready()
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    assert server_env(simulation) == {}
    status, reason, message = simulation.condition("AuthenticationReady")
    assert (status, reason) == ("False", "Progressing")
    assert "keeps running without authentication" in message
    assert simulation.status["auth"]["type"] == "None"
    (job,) = jobs(simulation)
    simulation.update_spec(workers=3)
    await reconcile_without_jobs(simulation, 1)
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    assert {"name": "MLFLOW_WORKERS", "value": "3"} in deployment["spec"]["template"]["spec"]["containers"][
        0
    ]["env"]
    await simulation.reconcile_until_ready()
    assert server_env(simulation)[authentication.TYPE_ENV] == "basic"
    assert events(simulation) == ["AdministratorCreated", "AuthenticationEnabled"]
    assert jobs(simulation) == []
    assert simulation.get("Job", job["metadata"]["name"]) is None


async def test_job_has_the_password_as_a_reference_only() -> None:
    """No object, status or Event contains it."""
    simulation = await SimulatedCluster.ready()
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    (job,) = jobs(simulation)
    env = {e["name"]: e for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env[authentication.ADMIN_ENV]["value"] == "admin"
    assert env[authentication.ADMIN_PASSWORD_ENV]["valueFrom"] == {
        "secretKeyRef": {"name": SECRET, "key": "password"}
    }
    await simulation.reconcile_until_ready()
    password = simulation.secret(SECRET)["password"]
    others = {key: obj for key, obj in simulation.api.objects.items() if key != ("Secret", SECRET)}
    assert password not in str(others)
    assert password not in str(simulation.events.published)
    assert authentication.ADMIN_PASSWORD_ENV not in server_env(simulation)


@pytest.mark.parametrize("replicas", [0, 1])
async def test_stopped_server_does_not_start_without_authentication(replicas: int) -> None:
    """Its pods would accept requests without credentials."""
    simulation = await SimulatedCluster.ready()
    simulation.update_spec(suspend=True, replicas=replicas)
    await simulation.reconcile_until_stable()
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    assert server_env(simulation) == {}
    simulation.update_spec(suspend=False, replicas=1)
    await reconcile_without_jobs(simulation)
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    assert deployment["spec"]["replicas"] == 0
    assert jobs(simulation)
    await simulation.reconcile_until_ready()
    assert server_env(simulation)[authentication.TYPE_ENV] == "basic"


@pytest.mark.parametrize(
    "accounts",
    [
        Accounts(),
        Accounts(AUTH_REVISION, 3),
        Accounts(AUTH_REVISION, 4, password_hash("changed in MLflow"), True),
        Accounts(AUTH_REVISION, 4, password_hash("changed in MLflow")),
        Accounts("0123456789ab", 4, password_hash("changed in MLflow"), True),
    ],
    ids=["no tables", "deleted administrator", "other password", "no administrator", "other revision"],
)
async def test_running_pods_continue_while_damaged_accounts_are_repaired(accounts: Accounts) -> None:
    """The Job sets the password in the Secret. The pods are not replaced."""
    simulation = await SimulatedCluster.ready(BASIC)
    deployment = simulation.get("Deployment", NAME)
    password = simulation.secret(SECRET)["password"]
    simulation.postgres.accounts = accounts
    await reconcile_without_jobs(simulation)
    assert simulation.condition("AuthenticationReady")[1] == "Progressing"
    assert "without authentication" not in simulation.condition("AuthenticationReady")[2]
    after = simulation.get("Deployment", NAME)
    assert deployment
    assert after
    assert after["spec"] == deployment["spec"]
    await simulation.reconcile_until_ready()
    assert matches(simulation, password)
    assert simulation.secret(SECRET)["password"] == password
    created = accounts.password_hash is None
    assert events(simulation) == ["AdministratorCreated" if created else "AdministratorPasswordReset"]


async def test_changed_password_in_the_secret_is_set() -> None:
    """Of the generated Secret, and of the user's."""
    simulation = await SimulatedCluster.ready(BASIC)
    simulation.api.edit("Secret", SECRET, lambda obj: obj["data"].update(password="YW5vdGhlciBwYXNzd29yZA=="))
    await simulation.reconcile_until_ready()
    assert matches(simulation, "another password")
    simulation.put_secret("own", p="password of the user")
    simulation.update_spec(**OWN)
    await simulation.reconcile_until_ready()
    assert matches(simulation, "password of the user")
    assert simulation.status["adminSecretRef"] == {"name": "own"}
    simulation.put_secret("own", p="next password of the user")
    await simulation.reconcile_until_ready()
    assert matches(simulation, "next password of the user")
    assert events(simulation) == ["AdministratorPasswordReset"] * 3


@pytest.mark.parametrize(
    ("password", "fault"),
    [
        ("hunter2", "has fewer than 12 characters"),
        ("", "has fewer than 12 characters"),
        ("password1234", "is a former default password of MLflow"),
        ("long enough but\n", "contains a line break"),
    ],
)
async def test_invalid_password_is_refused(password: str, fault: str) -> None:
    """The message names the Secret, the key and the field, and not the value."""
    simulation = await SimulatedCluster.ready()
    simulation.put_secret("own", p=password)
    simulation.update_spec(**OWN)
    await reconcile_without_jobs(simulation)
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretValueInvalid")
    assert message.startswith('Key "p" of Secret "own" (spec.auth.admin.passwordSecretRef) ' + fault)
    assert not password or password not in message
    assert server_env(simulation) == {}
    assert jobs(simulation) == []


async def test_missing_secret_of_the_user_is_reported() -> None:
    """Nothing is generated in its place."""
    simulation = SimulatedCluster(OWN)
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[1] == "SecretNotFound"
    simulation.put_secret("own", other="x")
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[1] == "SecretKeyMissing"
    assert simulation.get("Secret", SECRET) is None


async def test_lost_generated_secret_gets_a_new_password() -> None:
    """A lost key is reported: the rest of the Secret may be someone's change."""
    simulation = await SimulatedCluster.ready(BASIC)
    before = simulation.secret(SECRET)["password"]
    simulation.api.edit("Secret", SECRET, lambda obj: obj["data"].pop("password"))
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[1] == "SecretKeyMissing"
    del simulation.api.objects["Secret", SECRET]
    await simulation.reconcile_until_ready()
    after = simulation.secret(SECRET)["password"]
    assert after != before
    assert matches(simulation, after)


async def test_failed_job_is_reported_and_retried() -> None:
    """With the last lines of its output. A running server stays as it is."""
    simulation = await SimulatedCluster.ready()
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    simulation.finish_job(jobs(simulation)[0], "Failed", 'relation "users" already exists')
    await reconcile_without_jobs(simulation, 1)
    status, reason, message = simulation.condition("AuthenticationReady")
    assert (status, reason) == ("False", "AccountsFailed")
    assert 'relation "users" already exists' in message
    assert "keeps running without authentication" in message
    assert simulation.condition("Ready")[1] == "AccountsFailed"
    assert server_env(simulation) == {}
    simulation.api.objects.pop(("Pod", f"{jobs(simulation)[0]['metadata']['name']}-pod"))
    await reconcile_without_jobs(simulation, 1)
    assert 'relation "users" already exists' in simulation.condition("AuthenticationReady")[2]
    simulation.now = "2026-01-01T00:10:00Z"
    await simulation.reconcile_until_ready()
    assert server_env(simulation)[authentication.TYPE_ENV] == "basic"


async def test_job_without_effect_is_repeated_with_a_backoff() -> None:
    """Someone may set another password again and again."""
    simulation = await SimulatedCluster.ready(BASIC)

    async def drift() -> list[str]:
        simulation.postgres.accounts = replace(
            simulation.postgres.accounts, password_hash=password_hash("drift")
        )
        await simulation.reconcile()
        attempts = [job["metadata"]["annotations"][labels.ATTEMPT] for job in jobs(simulation)]
        simulation.run_controllers()
        return attempts

    simulation.api.writes.clear()
    assert [await drift() for _ in range(6)] == [["1"]] * 6
    created = [name for verb, name in simulation.api.writes if verb == "create" and name.startswith("Job/")]
    assert len(created) == 1
    simulation.now = "2026-01-01T00:01:00Z"
    assert await drift() == ["2"]


async def test_password_in_the_output_of_a_job_is_not_published() -> None:
    """For example in a traceback of a custom image."""
    simulation = await SimulatedCluster.ready()
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    password = simulation.secret(SECRET)["password"]
    simulation.finish_job(jobs(simulation)[0], "Failed", f"KeyError: {password}")
    await simulation.reconcile()
    assert "KeyError: •••" in simulation.condition("AuthenticationReady")[2]
    assert password not in str(simulation.status)
    assert password not in str(simulation.events.published)


async def test_database_outage_does_not_stop_a_server_with_authentication() -> None:
    """Its pods are still reconciled, and the status keeps what was known."""
    simulation = await SimulatedCluster.ready(BASIC)
    before = simulation.status["auth"]
    simulation.postgres.error = DATABASE_UNREACHABLE
    simulation.update_spec(replicas=2)
    await reconcile_without_jobs(simulation)
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    assert deployment["spec"]["replicas"] == 2
    assert server_env(simulation)[authentication.TYPE_ENV] == "basic"
    assert simulation.condition("AuthenticationReady")[:2] == ("Unknown", "WaitingForDependency")
    assert simulation.status["auth"] == before


async def test_removed_authentication_is_announced() -> None:
    """The Secret is kept, and used again."""
    simulation = await SimulatedCluster.ready(BASIC)
    password = simulation.secret(SECRET)["password"]
    simulation.api.edit("MLflowServer", NAME, lambda obj: obj["spec"].pop("auth"))
    await simulation.reconcile_until_ready()
    assert server_env(simulation) == {}
    assert not {"auth", "adminSecretRef"} & simulation.status.keys()
    assert events(simulation) == ["AuthenticationDisabled"]
    simulation.update_spec(**BASIC)
    await simulation.reconcile_until_ready()
    assert simulation.secret(SECRET)["password"] == password
    assert events(simulation) == ["AuthenticationDisabled", "AuthenticationEnabled"]


@pytest.mark.parametrize("policy", ["Retain", "Delete"])
async def test_generated_secret_is_data(policy: str) -> None:
    """Like other generated credentials: kept or deleted with the data, also without authentication by then."""
    simulation = await SimulatedCluster.ready({**BASIC, "deletionPolicy": policy})
    secret = simulation.get("Secret", SECRET)
    assert secret
    assert not secret["metadata"].get("ownerReferences")
    simulation.api.edit("MLflowServer", NAME, lambda obj: obj["spec"].pop("auth"))
    await simulation.reconcile_until_ready()
    simulation.delete_server()
    for _ in range(10):
        simulation.run_controllers()
        if simulation.get("MLflowServer", NAME):
            await simulation.reconcile()
    assert (simulation.get("Secret", SECRET) is None) == (policy == "Delete")


async def test_rotation_replaces_the_generated_password() -> None:
    """Together with the other credentials. The pods do not read it."""
    simulation = await SimulatedCluster.ready(BASIC)
    simulation.postgres_roles.logins["mlflow"] = simulation.secret(f"{NAME}-database")["password"]
    before = simulation.secret(SECRET)
    simulation.now = "2026-02-02T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-02-01T00:00:00Z")
    await simulation.reconcile_until_stable(24)
    after = simulation.secret(SECRET)
    assert after["password"] != before["password"]
    assert after["username"] == "admin"
    assert after.keys() == {"username", "password", "rotatedAt"}
    assert matches(simulation, after["password"])
    assert simulation.status["credentialsRotatedAt"] == "2026-02-01T00:00:00Z"
    assert events(simulation) == ["AdministratorPasswordReset"]


async def test_custom_image_proves_its_tables_with_a_job() -> None:
    """The operator does not know which revision it needs, or whether it contains basic-auth at all."""
    simulation = SimulatedCluster({**BASIC, "image": CUSTOM_IMAGE})
    await simulation.reconcile_until_ready()
    assert events(simulation) == []
    assert simulation.status["auth"]["passwordCheck"] == "Cached"
    assert jobs(simulation) == []
    simulation.update_spec(image=f"{CUSTOM_IMAGE}-2")
    await reconcile_without_jobs(simulation, 6)
    for job in jobs(simulation, labels.PREFLIGHT_POD):
        if not job.get("status"):
            simulation.finish_job(job, "Complete")
    await reconcile_without_jobs(simulation)
    (job,) = jobs(simulation)
    assert job["spec"]["template"]["spec"]["containers"][0]["image"] == f"{CUSTOM_IMAGE}-2"
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    assert deployment["spec"]["template"]["spec"]["containers"][0]["image"] == CUSTOM_IMAGE
    await simulation.reconcile_until_ready()
    assert jobs(simulation) == []


@pytest.mark.parametrize("version", ["3.13.0", "2.22.0"])
async def test_version_without_roles_keeps_running_without_authentication(version: str) -> None:
    """The version comes from the status: the spec sets none."""
    simulation = await SimulatedCluster.ready({"version": version})
    simulation.api.edit("MLflowServer", NAME, lambda obj: obj["spec"].pop("version"))
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    status, reason, message = simulation.condition("AuthenticationReady")
    assert (status, reason) == ("False", "AuthenticationUnsupported")
    assert f"{version} has no roles. The server keeps running without authentication." in message
    assert server_env(simulation) == {}
    assert jobs(simulation) == []


async def test_accounts_that_a_migration_locks_are_waited_for() -> None:
    """Nothing is known about them."""
    simulation = await SimulatedCluster.ready(BASIC)
    simulation.postgres.is_locked = True
    result = await simulation.reconcile()
    assert simulation.condition("AuthenticationReady")[1] == "WaitingForDependency"
    assert result.requeue_after == 5.0
    assert jobs(simulation) == []


async def test_hash_of_an_unknown_kind_is_not_replaced() -> None:
    """A later MLflow stored it. This operator cannot compare it, and would reset it for ever."""
    simulation = await SimulatedCluster.ready(BASIC)
    simulation.postgres.accounts = replace(simulation.postgres.accounts, password_hash="argon2id$1$2")
    await simulation.reconcile_until_ready()
    assert simulation.postgres.accounts.password_hash == "argon2id$1$2"


async def test_suspended_server_needs_no_accounts() -> None:
    """Its condition says so."""
    simulation = SimulatedCluster({**BASIC, "suspend": True})
    await simulation.reconcile_until_stable()
    assert simulation.condition("AuthenticationReady")[1] == "Suspended"
    assert jobs(simulation) == []


async def test_garbage_collection_logs_in() -> None:
    """As the administrator, and only if the server requires it."""
    collection: dict[str, Any] = {"garbageCollection": {}}
    simulation = await SimulatedCluster.ready(collection)

    def variables() -> dict[str, Any]:
        cronjob = simulation.get("CronJob", f"{NAME}-gc")
        assert cronjob
        spec = cronjob["spec"]["jobTemplate"]["spec"]["template"]["spec"]
        return {e["name"]: e for e in spec["containers"][0]["env"]}

    assert not set(authentication.CLIENT_ENV) & variables().keys()
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    assert not set(authentication.CLIENT_ENV) & variables().keys()
    await simulation.reconcile_until_ready()
    username, password = (variables()[name] for name in authentication.CLIENT_ENV)
    assert username["value"] == "admin"
    assert password["valueFrom"] == {"secretKeyRef": {"name": SECRET, "key": "password"}}


async def test_own_encryption_keys_must_contain_the_key_for_sessions() -> None:
    """MLflow does not start without it if it requires authentication. Without, the key is optional."""
    keys = {"passphrase": "p" * 32, "passphrase-version": "2", "webhook-key": encryption.fernet_key("w")}
    simulation = SimulatedCluster({"encryption": {"secretRef": {"name": "keys"}}})
    simulation.put_secret("keys", **keys)
    await simulation.reconcile_until_ready()
    simulation.update_spec(**BASIC)
    await reconcile_without_jobs(simulation)
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretKeyMissing")
    assert message.startswith('Secret "keys" has no key "flask-secret-key" (spec.encryption.secretRef)')
    assert server_env(simulation) == {}
    simulation.put_secret("keys", **keys, **{"flask-secret-key": "f" * 32})
    await simulation.reconcile_until_ready()
    assert server_env(simulation)[authentication.TYPE_ENV] == "basic"


@pytest.mark.parametrize("writes", range(1, 12))
async def test_enabling_resumes_after_a_crash(writes: int) -> None:
    """Whatever the last write was: the password is generated once, and the pods require it in the end."""
    simulation = await SimulatedCluster.ready()
    simulation.update_spec(**BASIC)
    simulation.api.crash_after_writes = len(simulation.api.writes) + writes
    with contextlib.suppress(ProcessKilled, BaseExceptionGroup):
        for _ in range(12):
            simulation.run_controllers()
            await simulation.reconcile()
    simulation.api.crash_after_writes = None
    before = simulation.secret(SECRET) if simulation.get("Secret", SECRET) else None
    await simulation.reconcile_until_ready()
    assert before in (None, simulation.secret(SECRET))
    assert server_env(simulation)[authentication.TYPE_ENV] == "basic"
    assert matches(simulation, simulation.secret(SECRET)["password"])
    assert "AuthenticationEnabled" in events(simulation)


def test_known_versions_have_a_revision() -> None:
    """Otherwise each server of such a version would need one more Job."""
    assert DEFAULT_VERSION in AUTH_SCHEMA_HEADS
    assert "3.13.0" not in AUTH_SCHEMA_HEADS
