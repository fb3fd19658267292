"""Encryption keys: generated once, used by every pod, and never lost while secrets are encrypted with them."""

import base64
import contextlib
import os
from typing import Any

import pytest
from cryptography.fernet import Fernet

from mlflow_operator.kube import labels
from mlflow_operator.kube.client import QuotaExceeded
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import encryption, secrets
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.unit.simulation import DATABASE_UNREACHABLE, EXTERNAL, NAME, URI, ProcessKilled, SimulatedCluster

SECRET = f"{NAME}-encryption"
VARIABLES = (encryption.PASSPHRASE_ENV, encryption.VERSION_ENV)


def container(simulation: SimulatedCluster) -> Object:
    """The server's container."""
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    result: Object = deployment["spec"]["template"]["spec"]["containers"][0]
    return result


def references(simulation: SimulatedCluster) -> dict[str, Object]:
    """Variables of the server with values from Secrets."""
    variables = (e for e in container(simulation)["env"] if "secretKeyRef" in e.get("valueFrom", {}))
    return {e["name"]: e["valueFrom"]["secretKeyRef"] for e in variables}


def inputs(simulation: SimulatedCluster) -> str:
    """Fingerprint of the values that the pods read."""
    deployment = simulation.get("Deployment", NAME)
    assert deployment
    return str(deployment["spec"]["template"]["metadata"]["annotations"][labels.INPUTS_DIGEST])


def rewrap_jobs(simulation: SimulatedCluster) -> list[Object]:
    """The Jobs that encrypt stored secrets."""
    jobs = (obj for (kind, _), obj in simulation.api.objects.items() if kind == "Job")
    return [job for job in jobs if job["metadata"]["labels"][labels.COMPONENT] == labels.REWRAP_POD]


def store(simulation: SimulatedCluster, *versions: int, webhooks: tuple[tuple[str, str], ...] = ()) -> None:
    """Store gateway secrets under passphrases of these versions, and webhook secrets."""
    simulation.postgres.encrypted = EncryptedSecrets(frozenset(versions), webhooks)


async def server_of_an_earlier_operator(*versions: int) -> SimulatedCluster:
    """A server that has run without generated keys, with gateway secrets under these versions."""
    simulation = await SimulatedCluster.ready()
    del simulation.api.objects["Secret", SECRET]

    def without_keys(deployment: Object) -> None:
        spec = deployment["spec"]["template"]["spec"]
        env = spec["containers"][0]["env"]
        spec["containers"][0]["env"] = [e for e in env if SECRET not in str(e)]

    simulation.api.edit("Deployment", NAME, without_keys)
    simulation.api.edit("MLflowServer", NAME, lambda obj: obj["status"].pop("encryption"))
    store(simulation, *versions)
    return simulation


async def test_new_server_starts_with_generated_keys() -> None:
    """All variables are references, the pods are created once, and no Job is needed."""
    simulation = await SimulatedCluster.ready()
    values = simulation.secret(SECRET)
    assert (
        references(simulation).items()
        >= {
            variable: {"name": SECRET, "key": key}
            for variable, key in (
                (encryption.PASSPHRASE_ENV, "passphrase"),
                (encryption.VERSION_ENV, "passphrase-version"),
                (encryption.WEBHOOK_KEY_ENV, "webhook-key"),
                (encryption.FLASK_KEY_ENV, "flask-secret-key"),
            )
        }.items()
    )
    version = values["passphrase-version"]
    assert int(version) > encryption.PUBLIC_VERSION
    assert values["passphrase"] == values[f"passphrase-{version}"]
    Fernet(values["webhook-key"])
    assert encryption.NEXT_VERSION not in values
    assert not rewrap_jobs(simulation)
    assert simulation.condition("EncryptionReady")[0] == "True"
    server = simulation.get("MLflowServer", NAME)
    assert server
    assert server["status"]["encryption"] == {"secretName": SECRET, "passphraseVersion": int(version)}
    assert values["passphrase"] not in str(simulation.api.objects["Deployment", NAME])


async def test_secret_is_data() -> None:
    """It has no owner and no label of a GitOps tool, and outlives the server with its values."""
    simulation = await SimulatedCluster.ready()
    secret = simulation.get("Secret", SECRET)
    assert secret
    assert not secret["metadata"].get("ownerReferences")
    assert labels.INSTANCE not in secret["metadata"]["labels"]
    values = simulation.secret(SECRET)
    simulation.delete_server()
    simulation.create_server()
    await simulation.reconcile_until_ready()
    assert simulation.secret(SECRET) == values


async def test_deletion_policy_delete_deletes_the_secret() -> None:
    """Like all data of the server."""
    simulation = await SimulatedCluster.ready({"deletionPolicy": "Delete"})
    simulation.delete_server()
    for _ in range(10):
        simulation.run_controllers()
        if simulation.get("MLflowServer", NAME):
            await simulation.reconcile()
    assert simulation.get("Secret", SECRET) is None


async def test_existing_server_without_gateway_secrets_gets_the_keys_without_a_job() -> None:
    """The pods are rolled; the server is never scaled down."""
    simulation = await server_of_an_earlier_operator()
    await simulation.reconcile_until_ready()
    assert VARIABLES[0] in references(simulation)
    assert not rewrap_jobs(simulation)


async def test_pods_keep_the_public_passphrase_until_the_secrets_are_encrypted_with_the_new_one() -> None:
    """The Job runs first. Afterwards the pods restart with the generated passphrase."""
    simulation = await server_of_an_earlier_operator(1)
    for _ in range(6):
        simulation.run_controllers(complete_jobs=False)
        await simulation.reconcile()
        assert not set(VARIABLES) & references(simulation).keys()
        assert container(simulation) is not None
    assert simulation.condition("EncryptionReady")[1] == "Progressing"
    assert simulation.condition("Ready")[0] == "True"
    (job,) = rewrap_jobs(simulation)
    env = {e["name"]: e for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    version = simulation.secret(SECRET)[encryption.NEXT_VERSION]
    assert env[encryption.VERSION_ENV]["value"] == version
    reference = env[encryption.PASSPHRASE_ENV]["valueFrom"]["secretKeyRef"]
    assert reference == {"name": SECRET, "key": f"passphrase-{version}"}
    await simulation.reconcile_until_ready()
    assert set(VARIABLES) <= references(simulation).keys()
    assert simulation.postgres.encrypted.passphrase_versions == {int(version)}
    assert simulation.condition("EncryptionReady")[0] == "True"


@pytest.mark.parametrize("writes", range(1, 14))
async def test_migration_resumes_after_a_crash(writes: int) -> None:
    """Whatever the last write was: the keys are generated once, and the secrets end up readable."""
    simulation = await server_of_an_earlier_operator(1)
    simulation.api.crash_after_writes = len(simulation.api.writes) + writes
    with contextlib.suppress(ProcessKilled, BaseExceptionGroup):
        for _ in range(12):
            simulation.run_controllers()
            await simulation.reconcile()
    simulation.api.crash_after_writes = None
    before = simulation.secret(SECRET) if simulation.get("Secret", SECRET) else {}
    await simulation.reconcile_until_ready()
    values = simulation.secret(SECRET)
    kept = ("webhook-key", "flask-secret-key", "passphrase")
    assert {key: values[key] for key in kept if key in before} == {k: before[k] for k in kept if k in before}
    assert simulation.postgres.encrypted.passphrase_versions == {int(values["passphrase-version"])}
    assert set(VARIABLES) <= references(simulation).keys()


async def test_secret_of_a_late_pod_is_noticed_and_rotated() -> None:
    """A pod with the public passphrase stored it after the rotation, with that passphrase's version."""
    simulation = await server_of_an_earlier_operator(1)
    await simulation.reconcile_until_ready()
    version = int(simulation.secret(SECRET)["passphrase-version"])
    for stored in ({1, version}, {1}):
        store(simulation, *stored)
        await simulation.reconcile_until_ready()
        assert simulation.postgres.encrypted.passphrase_versions == {version}


async def test_failed_job_is_retried_while_the_server_runs_with_the_previous_keys() -> None:
    """The condition contains the cause; Ready is not affected."""
    simulation = await server_of_an_earlier_operator(1)
    for _ in range(4):
        simulation.run_controllers(complete_jobs=False)
        await simulation.reconcile()
    (job,) = rewrap_jobs(simulation)
    simulation.finish_job(
        job, "Failed", 'no known passphrase decrypts these gateway secrets: "x" (version 1)'
    )
    await simulation.reconcile()
    status, reason, message = simulation.condition("EncryptionReady")
    assert (status, reason) == ("False", "ReencryptionFailed")
    assert 'no known passphrase decrypts these gateway secrets: "x"' in message
    assert simulation.condition("Ready")[0] == "True"
    assert not set(VARIABLES) & references(simulation).keys()
    simulation.now = "2026-01-01T00:10:00Z"
    await simulation.reconcile_until_ready()
    assert set(VARIABLES) <= references(simulation).keys()


async def test_missing_secret_of_a_running_server_is_not_generated_again() -> None:
    """The pods keep running; the message names the Secret and does not advise to delete anything."""
    simulation = await SimulatedCluster.ready()
    values = simulation.secret(SECRET)
    del simulation.api.objects["Secret", SECRET]
    before = inputs(simulation)
    await simulation.reconcile()
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretNotFound")
    assert f'Secret "{SECRET}" is missing' in message
    assert "delete" not in message.lower()
    assert simulation.get("Secret", SECRET) is None
    assert inputs(simulation) == before
    # A status that is lost, too, does not change that: the Deployment refers to the Secret.
    simulation.api.edit("MLflowServer", NAME, lambda obj: obj["status"].pop("encryption"))
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[1] == "SecretNotFound"
    restored = await SimulatedCluster.ready()
    secret = restored.api.objects["Secret", SECRET]
    data = {key: base64.b64encode(text.encode()).decode() for key, text in values.items()}
    simulation.api.put(secret | {"data": data})
    await simulation.reconcile_until_ready()
    assert inputs(simulation) == before


@pytest.mark.parametrize("key", ["passphrase", "passphrase-version", "webhook-key", "flask-secret-key"])
async def test_lost_key_is_not_generated_again(key: str) -> None:
    """Secrets may be encrypted with it."""
    simulation = await SimulatedCluster.ready()
    simulation.api.edit("Secret", SECRET, lambda obj: obj["data"].pop(key))
    await simulation.reconcile()
    status, reason, message = simulation.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretKeyMissing")
    assert f'has lost its key "{key}"' in message


async def test_unknown_passphrase_is_reported_before_anything_changes() -> None:
    """A recreated server whose Secret was lost: the old one can still be restored."""
    simulation = await server_of_an_earlier_operator(4711)
    for _ in range(5):
        simulation.run_controllers()
        await simulation.reconcile()
    status, reason, message = simulation.condition("EncryptionReady")
    assert (status, reason) == ("False", "SecretsUnreadable")
    assert f'Add the key "passphrase-4711" to Secret "{SECRET}"' in message
    assert not rewrap_jobs(simulation)
    assert not set(VARIABLES) & references(simulation).keys()
    simulation.api.edit(
        "Secret",
        SECRET,
        lambda obj: obj["data"].update({"passphrase-4711": base64.b64encode(b"found").decode()}),
    )
    await simulation.reconcile_until_ready()
    assert simulation.condition("EncryptionReady")[0] == "True"


async def test_no_passphrase_becomes_current_while_a_migration_locks_the_secrets() -> None:
    """They may be encrypted with another one."""
    simulation = await server_of_an_earlier_operator()
    simulation.postgres.is_locked = True
    for _ in range(3):
        simulation.run_controllers()
        await simulation.reconcile()
    assert encryption.NEXT_VERSION in simulation.secret(SECRET)
    assert simulation.condition("EncryptionReady")[:2] == ("Unknown", "WaitingForDependency")
    assert simulation.condition("DatabaseReady")[0] == "True"
    simulation.postgres.is_locked = False
    store(simulation, 1)
    await simulation.reconcile_until_ready()
    assert encryption.NEXT_VERSION not in simulation.secret(SECRET)
    assert len(simulation.postgres.encrypted.passphrase_versions - {1}) == 1


async def test_rotation_replaces_the_passphrase_and_keeps_the_earlier_one() -> None:
    """Older backups need it. The webhook key stays. One rotation per requested time."""
    simulation = await SimulatedCluster.ready()
    first = simulation.secret(SECRET)
    store(simulation, int(first["passphrase-version"]))
    before = inputs(simulation)
    simulation.now = "2026-02-02T00:00:00Z"
    simulation.update_spec(encryption={"rotatePassphraseAt": "2026-02-01T00:00:00Z"})
    await simulation.reconcile_until_ready()
    second = simulation.secret(SECRET)
    assert second["passphrase"] != first["passphrase"]
    assert second[f"passphrase-{first['passphrase-version']}"] == first["passphrase"]
    assert second["webhook-key"] == first["webhook-key"]
    assert second["passphrase-rotated-at"] == "2026-02-01T00:00:00Z"
    assert simulation.postgres.encrypted.passphrase_versions == {int(second["passphrase-version"])}
    assert inputs(simulation) != before
    await simulation.reconcile_until_ready()
    assert simulation.secret(SECRET) == second


async def test_rotation_in_the_future_changes_nothing() -> None:
    """It starts at that time."""
    simulation = await SimulatedCluster.ready()
    values = simulation.secret(SECRET)
    simulation.update_spec(encryption={"rotatePassphraseAt": "2027-01-01T00:00:00Z"})
    await simulation.reconcile_until_ready()
    assert simulation.secret(SECRET) == values


@pytest.mark.parametrize("source", ["env", "envFrom"])
async def test_variables_of_the_user_are_kept_and_not_migrated(source: str) -> None:
    """Neither overridden nor rotated: the operator does not know what the user's passphrase encrypts."""
    passphrase = {encryption.PASSPHRASE_ENV: "of the user", encryption.WEBHOOK_KEY_ENV: "w"}
    specs: dict[str, dict[str, Any]] = {
        "env": {"env": [{"name": name, "value": text} for name, text in passphrase.items()]},
        "envFrom": {"envFrom": [{"secretRef": {"name": "own"}}]},
    }
    simulation = SimulatedCluster(specs[source])
    simulation.put_secret("own", **passphrase)
    await simulation.reconcile_until_ready()
    store(simulation, 1)
    await simulation.reconcile_until_ready()
    assert references(simulation).keys() & {*VARIABLES, encryption.WEBHOOK_KEY_ENV} == set()
    assert encryption.FLASK_KEY_ENV in references(simulation)
    assert not rewrap_jobs(simulation)
    assert simulation.postgres.encrypted.passphrase_versions == {1}
    assert simulation.condition("EncryptionReady")[0] == "True"


async def test_job_for_webhooks_does_not_use_the_passphrase_of_the_user() -> None:
    """It only encrypts webhook secrets with the generated key, even if gateway secrets cannot be decrypted."""
    simulation = await SimulatedCluster.ready(
        {"env": [{"name": encryption.PASSPHRASE_ENV, "value": "of the user"}]}
    )
    earlier = encryption.fernet_key("earlier")
    simulation.api.edit(
        "Secret", SECRET, lambda obj: obj["data"].update({"webhook-key-0": secrets.encode(earlier)})
    )
    store(simulation, 1, 9, webhooks=(("w", Fernet(earlier).encrypt(b"secret").decode()),))
    simulation.run_controllers(complete_jobs=False)
    await simulation.reconcile()
    (job,) = rewrap_jobs(simulation)
    env = {e["name"]: e for e in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    assert env[encryption.PASSPHRASE_ENV]["value"] == ""


def own_keys(**values: str) -> dict[str, str]:
    """Values of a user's Secret."""
    return {
        "passphrase": "a passphrase of the user",
        "passphrase-version": "2",
        "webhook-key": base64.urlsafe_b64encode(os.urandom(32)).decode(),
        **values,
    }


async def test_referenced_secret_is_used_and_secrets_are_encrypted_with_it() -> None:
    """From the public passphrase, and later from the user's previous one, which stays in the Secret."""
    simulation = await server_of_an_earlier_operator(1)
    simulation.put_secret("own", **own_keys())
    simulation.update_spec(encryption={"secretRef": {"name": "own"}})
    await simulation.reconcile_until_ready()
    assert references(simulation)[VARIABLES[0]] == {"name": "own", "key": "passphrase"}
    assert references(simulation)[encryption.FLASK_KEY_ENV]["optional"] is True
    assert simulation.postgres.encrypted.passphrase_versions == {2}
    assert simulation.get("Secret", SECRET) is None
    before = inputs(simulation)
    changed = own_keys(**{"passphrase": "next", "passphrase-version": "3"})
    simulation.put_secret("own", **changed)
    await simulation.reconcile()
    assert 'Add the key "passphrase-2" to Secret "own"' in simulation.condition("EncryptionReady")[2]
    simulation.put_secret("own", **changed, **{"passphrase-2": "a passphrase of the user"})
    await simulation.reconcile_until_ready()
    assert simulation.postgres.encrypted.passphrase_versions == {3}
    assert inputs(simulation) != before


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"passphrase": ""}, "is empty"),
        ({"passphrase-version": "0"}, "is not a valid version"),
        ({"passphrase-version": "two"}, "is not a valid version"),
        ({"passphrase-version": "1"}, "is 1, the version of MLflow's public default passphrase"),
        ({"webhook-key": "short"}, "is not a Fernet key"),
    ],
)
async def test_invalid_referenced_secret_is_refused(values: dict[str, str], message: str) -> None:
    """The running pods stay as they are."""
    simulation = await server_of_an_earlier_operator(1)
    simulation.put_secret("own", **own_keys(**values))
    simulation.update_spec(encryption={"secretRef": {"name": "own"}})
    await simulation.reconcile()
    status, reason, text = simulation.condition("CredentialsReady")
    assert (status, reason) == ("False", "SecretValueInvalid")
    assert message in text
    assert VARIABLES[0] not in references(simulation)


FIRST_VERSION = {"passphrase-version": "1"}
OWN_KEYS: Object = {"encryption": {"secretRef": {"name": "own"}}}


async def first_version_message(simulation: SimulatedCluster) -> str:
    """Switch the server to a Secret with version 1; return the message of the condition CredentialsReady."""
    simulation.put_secret("own", **own_keys(**FIRST_VERSION))
    simulation.update_spec(env=[], envFrom=[], **OWN_KEYS)
    await simulation.reconcile()
    return simulation.condition("CredentialsReady")[2]


async def test_version_of_the_public_passphrase_is_refused_without_a_deployment() -> None:
    """The stored secrets may be encrypted with the public passphrase. With version 2, they are encrypted again."""
    simulation = SimulatedCluster(OWN_KEYS)
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    store(simulation, 1)
    message = await first_version_message(simulation)
    assert "is 1, the version of MLflow's public default passphrase" in message
    assert "also add it as passphrase-1" in message
    for _ in range(3):
        await simulation.reconcile()
    assert simulation.get("Deployment", NAME) is None
    simulation.put_secret("own", **own_keys(**{"passphrase-1": "a passphrase of the user"}))
    await simulation.reconcile_until_ready()
    assert simulation.postgres.encrypted.passphrase_versions == {2}


@pytest.mark.parametrize("source", ["env", "envFrom"])
async def test_passphrase_of_the_environment_moves_to_a_secret_with_the_same_version(source: str) -> None:
    """Its version is 1 unless the environment sets another one. The server works after its Deployment is deleted."""
    entry: dict[str, Any] = {
        "env": {"env": [{"name": encryption.PASSPHRASE_ENV, "value": "a passphrase of the user"}]},
        "envFrom": {"envFrom": [{"secretRef": {"name": "variables"}}]},
    }
    simulation = SimulatedCluster(entry[source])
    simulation.put_secret("variables", **{encryption.PASSPHRASE_ENV: "a passphrase of the user"})
    await simulation.reconcile_until_ready()
    store(simulation, 1)
    await first_version_message(simulation)
    await simulation.reconcile_until_ready()
    assert references(simulation)[VARIABLES[0]] == {"name": "own", "key": "passphrase"}
    assert not rewrap_jobs(simulation)
    del simulation.api.objects["Deployment", NAME]
    await simulation.reconcile_until_ready()


async def test_other_variables_of_the_user_are_no_passphrase() -> None:
    """The pods use the public passphrase, with version 1."""
    simulation = await server_of_an_earlier_operator(1)
    simulation.put_secret("variables", OTHER="x")
    sources = [{"secretRef": {"name": "variables"}}]

    def add_sources(deployment: Object) -> None:
        deployment["spec"]["template"]["spec"]["containers"][0]["envFrom"] = sources

    simulation.api.edit("Deployment", NAME, add_sources)
    assert "is 1, the version" in await first_version_message(simulation)


async def test_unreadable_webhook_secrets_are_reported_with_the_remedy() -> None:
    """They were encrypted with the key of a process that has ended. The server stays Ready."""
    simulation = await SimulatedCluster.ready()
    token = Fernet(Fernet.generate_key()).encrypt(b"x").decode()
    own = Fernet(simulation.secret(SECRET)["webhook-key"]).encrypt(b"x").decode()
    store(simulation, webhooks=(("w1", token), ("w2", own)))
    await simulation.reconcile_until_ready()
    status, reason, message = simulation.condition("EncryptionReady")
    assert (status, reason) == ("False", "SecretsUnreadable")
    assert "WHERE webhook_id IN ('w1')" in message
    assert not rewrap_jobs(simulation)
    store(simulation, webhooks=(("w2", own),))
    await simulation.reconcile_until_ready()
    assert simulation.condition("EncryptionReady")[0] == "True"


async def test_webhook_secrets_under_a_key_of_the_keyring_are_encrypted_again() -> None:
    """For example after a restore from another server, whose key was copied."""
    simulation = await SimulatedCluster.ready()
    key = Fernet.generate_key()
    store(simulation, webhooks=(("w1", Fernet(key).encrypt(b"x").decode()),))
    simulation.api.edit(
        "Secret", SECRET, lambda obj: obj["data"].update({"webhook-key-0": base64.b64encode(key).decode()})
    )
    await simulation.reconcile()
    assert len(rewrap_jobs(simulation)) == 1


async def test_existing_schema_of_a_new_server_gets_pods_with_the_keys_at_once() -> None:
    """The Deployment is not created with the public passphrase and rolled afterwards."""
    simulation = new_server_on_a_migrated_database()
    for _ in range(10):
        simulation.run_controllers()
        await simulation.reconcile()
        if simulation.get("Deployment", NAME):
            assert set(VARIABLES) <= references(simulation).keys()
    assert simulation.get("Deployment", NAME)


def new_server_on_a_migrated_database(*versions: int) -> SimulatedCluster:
    """A server that has not been reconciled, whose database contains gateway secrets under these versions."""
    simulation = SimulatedCluster(EXTERNAL)
    simulation.put_secret("db", uri=URI.format(host="one"))
    simulation.put_secret("keys", accessKeyID="k", secretAccessKey="s")
    simulation.postgres.revision = SCHEMA_HEADS[DEFAULT_VERSION]
    store(simulation, *versions)
    return simulation


async def test_passphrase_of_a_new_server_is_current_at_once() -> None:
    """Its database contains nothing that is encrypted with another one."""
    simulation = new_server_on_a_migrated_database()
    await simulation.reconcile()
    assert encryption.NEXT_VERSION not in simulation.secret(SECRET)
    assert simulation.condition("EncryptionReady")[0] == "True"
    assert set(VARIABLES) <= references(simulation).keys()


@pytest.mark.parametrize("versions", [(1,), (4711,), (1, 4711)], ids=["public", "unknown", "both"])
async def test_passphrase_of_a_new_server_is_not_current_on_a_database_with_gateway_secrets(
    versions: tuple[int, ...],
) -> None:
    """They must be encrypted with it first."""
    simulation = new_server_on_a_migrated_database(*versions)
    for _ in range(3):
        simulation.run_controllers(complete_jobs=False)
        await simulation.reconcile()
        values = simulation.secret(SECRET)
        assert encryption.NEXT_VERSION in values
        assert "passphrase" not in values
        assert not set(VARIABLES) & references(simulation).keys()


async def test_keys_of_a_new_server_wait_for_the_state_of_its_database() -> None:
    """Not even the pods of a server that was suspended meanwhile can start without them."""
    simulation = new_server_on_a_migrated_database(1)
    simulation.postgres.error = DATABASE_UNREACHABLE
    await simulation.reconcile()
    simulation.postgres.error = None
    simulation.update_spec(suspend=True)
    await simulation.reconcile()
    assert simulation.get("Secret", SECRET) is None
    assert simulation.get("Deployment", NAME) is None
    simulation.update_spec(suspend=False)
    await simulation.reconcile()
    assert encryption.NEXT_VERSION in simulation.secret(SECRET)


async def test_no_pod_of_a_new_server_starts_without_the_keys() -> None:
    """For example because a quota does not allow another Secret."""
    simulation = new_server_on_a_migrated_database()
    api, create = simulation.api, simulation.api.create

    async def refuse(obj: Object) -> Object:
        if obj["metadata"]["name"] == SECRET:
            raise QuotaExceeded("create: 403 exceeded quota", f"Secret {SECRET}")
        return await create(obj)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(api, "create", refuse)
        for _ in range(2):
            await simulation.reconcile()
        assert simulation.get("Deployment", NAME) is None
        assert simulation.condition("EncryptionReady")[:2] == ("False", "QuotaExceeded")
        assert (
            simulation.condition("Ready")[2] == "Waiting for the encryption keys (condition EncryptionReady)."
        )
    await simulation.reconcile_until_ready()


async def test_secret_of_another_owner_stops_a_new_server_before_it_connects() -> None:
    simulation = new_server_on_a_migrated_database()
    simulation.put_secret(SECRET, passphrase="of someone else")
    await simulation.reconcile()
    assert simulation.condition("CredentialsReady")[:2] == ("False", "NameConflict")
    assert simulation.get("Deployment", NAME) is None
    assert not simulation.postgres.connections


async def test_secret_exists_before_a_restore_begins() -> None:
    """The keys of the backup are added to it."""
    simulation = new_server_on_a_migrated_database()
    simulation.update_spec(
        restoreFrom={
            "serverName": "old",
            "s3": {
                "bucket": "backups",
                "endpoint": "http://s3:9000",
                "credentialsSecretRef": {"name": "keys"},
            },
        }
    )
    simulation.postgres.error = DATABASE_UNREACHABLE
    await simulation.reconcile()
    assert encryption.NEXT_VERSION in simulation.secret(SECRET)


async def test_new_server_reports_no_encryption_of_stored_secrets() -> None:
    """It has none, and no gateway endpoint that may fail meanwhile."""
    simulation = SimulatedCluster()
    messages = set()
    for _ in range(10):
        simulation.run_controllers()
        await simulation.reconcile()
        messages.add(simulation.condition("EncryptionReady")[2])
    assert len(messages) > 1
    assert not any("Encrypting" in message for message in messages)


async def test_public_passphrase_is_kept_while_another_server_uses_the_database() -> None:
    """The guide for the migration of an existing server sets its version, until that server is deleted."""
    simulation = SimulatedCluster({"env": [{"name": encryption.VERSION_ENV, "value": "1"}]})
    store(simulation, 1)
    await simulation.reconcile_until_ready()
    assert not rewrap_jobs(simulation)
    assert not set(VARIABLES) & references(simulation).keys()
    simulation.update_spec(env=[])
    await simulation.reconcile_until_ready()
    version = int(simulation.secret(SECRET)["passphrase-version"])
    assert simulation.postgres.encrypted.passphrase_versions == {version}
    assert set(VARIABLES) <= references(simulation).keys()


async def test_messages_contain_no_key() -> None:
    """A crashing container may print its environment."""
    simulation = await SimulatedCluster.ready()
    values = simulation.secret(SECRET)
    store(simulation, 1)
    simulation.run_controllers(complete_jobs=False)
    await simulation.reconcile()
    (job,) = rewrap_jobs(simulation)
    simulation.finish_job(job, "Failed", f"leaked {values['passphrase']} {values['webhook-key']}")
    await simulation.reconcile()
    message = simulation.condition("EncryptionReady")[2]
    assert "leaked" in message
    assert not [text for key, text in values.items() if len(text) > 20 and text in message]


def test_every_generated_key_is_valid_for_mlflow() -> None:
    """Versions fit into MLflow's column, never equal the public one, and identify the passphrase."""
    passphrases = [f"passphrase-number-{number}" for number in range(500)]
    versions = {encryption.version_of(passphrase) for passphrase in passphrases}
    assert len(versions) == len(passphrases)
    assert all(encryption.PUBLIC_VERSION < version <= encryption.MAX_VERSION for version in versions)
    key = encryption.fernet_key("token")
    token = Fernet(key).encrypt(b"secret").decode()
    assert encryption.encrypts(key, token)
    assert not encryption.encrypts(encryption.fernet_key("other"), token)
    assert not encryption.encrypts(key, "no token")
