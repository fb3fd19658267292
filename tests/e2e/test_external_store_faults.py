"""Faults of what a server depends on, one after the other at one server: each is named, and mended where it arose.

The resource is applied once and never touched again.
"""

import pytest

from tests.e2e import external_stores, timeouts
from tests.e2e.certificates import authority
from tests.e2e.external_stores import MinIO, Postgres, secret
from tests.e2e.fault_cases import Faults
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, eventually, small

BUCKET = "team-artifacts"
PASSWORD = "worker's own"
REFUSAL = "the tables of this team are frozen"


def spec(postgres: Postgres, minio: MinIO) -> Object:
    """A server on both stores that may make nothing in them by itself."""
    return small(
        database={"external": {"host": postgres.host, "credentialsSecretRef": {"name": "team-database"}}},
        artifacts={
            "s3": {
                "endpoint": minio.endpoint,
                "bucket": BUCKET,
                "bucketCreation": "Never",
                "credentialsSecretRef": {"name": "team-keys"},
            }
        },
    )


@pytest.mark.start_early
@pytest.mark.timeout(900)
@pytest.mark.long_running(
    reason="minutes of waiting; tests/providers and tests/integration/test_status.py name the same faults"
)
def test_each_fault_of_a_dependency_is_reported_once_and_recovered_from(ns: Kube, other_ns: Kube) -> None:
    """Names, Secrets, database, bucket, tables; then the same server while it serves."""
    postgres, minio = (
        external_stores.postgres(other_ns, authority("Company Root")),
        external_stores.minio(other_ns, None),
    )
    postgres.query(f"CREATE ROLE worker LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
    postgres.answer(yes=False)
    namesake = Server(ns, "a").apply(small(suspend=True))
    eventually("the first server has its names", lambda: ns.get("Service", "a-postgres"), timeouts.SETTLED)

    server = Server(ns, "a-postgres").apply(spec(postgres, minio))
    faults = Faults(server)
    _names_and_secrets(faults, namesake, minio)
    _stores(faults, postgres, minio)
    _tables(faults, postgres)
    _database_goes_away(faults, postgres)
    assert server.live()["metadata"]["generation"] == 1, "somebody has touched the resource"


def _names_and_secrets(faults: Faults, namesake: Server, minio: MinIO) -> None:
    ns = faults.server.kube
    faults.told("ServerAvailable", "NameConflict", 'Service "a-postgres"', 'MLflowServer "a"', "another name")
    faults.told(
        "CredentialsReady", "SecretNotFound", '"team-database"', "spec.database.external.credentialsSecretRef"
    )
    namesake.delete()
    ns.apply(secret("team-database", username="worker"))
    faults.told("CredentialsReady", "SecretKeyMissing", '"team-database"', 'no key "password"')

    ns.apply(
        secret("team-database", username="worker", password="wrong"),
        secret("team-keys", accessKeyID=minio.access_key, secretAccessKey=f"{minio.secret_key}\n"),
    )
    faults.told("CredentialsReady", "SecretValueInvalid", '"secretAccessKey"', "printf")
    ns.apply(secret("team-keys", accessKeyID=minio.access_key, secretAccessKey="wrong-but-long-enough"))
    faults.mended("CredentialsReady")
    faults.server.until("ServerAvailable", "Unknown", "WaitingForDependency", within=timeouts.NOTICED)


def _stores(faults: Faults, postgres: Postgres, minio: MinIO) -> None:
    ns = faults.server.kube
    faults.told("DatabaseReady", "DatabaseUnreachable", postgres.host, "Check that it runs")
    faults.told("ArtifactStoreReady", "BucketAccessDenied", "refuses the secret access key", minio.endpoint)

    postgres.answer(yes=True)
    ns.apply(secret("team-keys", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    faults.told("DatabaseReady", "DatabaseAuthenticationFailed", "refuses the user name or the password")
    faults.told("ArtifactStoreReady", "BucketNotFound", BUCKET, "bucketCreation")

    postgres.query("ALTER DATABASE mlflow RENAME TO spare", "postgres")
    postgres.query(
        "CREATE DATABASE mlflow ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", "postgres"
    )
    ns.apply(secret("team-database", username="worker", password=PASSWORD))
    minio.client().create_bucket(Bucket=BUCKET)
    faults.told("DatabaseReady", "DatabaseEncodingUnsupported", "LATIN1", "ENCODING 'UTF8'")
    faults.mended("ArtifactStoreReady")

    # Read-only before it has the right name: otherwise the operator may see it as writable for a moment.
    postgres.query("ALTER DATABASE spare SET default_transaction_read_only = on", "postgres")
    postgres.query("DROP DATABASE mlflow WITH (FORCE)", "postgres")
    postgres.query("ALTER DATABASE spare RENAME TO mlflow", "postgres")
    faults.told("DatabaseReady", "DatabaseReadOnly", "lets nothing be written")
    postgres.query("ALTER DATABASE mlflow RESET default_transaction_read_only", "postgres")
    faults.mended("DatabaseReady")


def _tables(faults: Faults, postgres: Postgres) -> None:
    server, ns = faults.server, faults.server.kube
    faults.told("SchemaReady", "DatabasePrivilegeMissing", 'GRANT CREATE ON SCHEMA "public"')
    assert not ns.list("Job"), "a Job was begun that could not succeed"

    postgres.query(
        "CREATE FUNCTION frozen() RETURNS event_trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSAL}'; END $$"
    )
    postgres.query(
        "CREATE EVENT TRIGGER frozen ON ddl_command_start WHEN TAG IN ('CREATE TABLE') "
        "EXECUTE FUNCTION frozen()"
    )
    postgres.query("GRANT CREATE ON SCHEMA public TO worker")
    faults.told("SchemaReady", "MigrationFailed", "Its last lines:", REFUSAL, "tried again by itself")
    (first,) = ns.list("Job")

    def failed_again() -> bool:
        (job,) = ns.list("Job") or [first]
        ended = [condition["type"] for condition in job["status"].get("conditions") or ()]
        return job["metadata"]["uid"] != first["metadata"]["uid"] and "Failed" in ended

    eventually("it is tried a second time", failed_again, timeouts.NOTICED)
    postgres.query("DROP EVENT TRIGGER frozen")
    faults.mended("SchemaReady")
    server.ready()
    reasons = [
        event["reason"] for event in ns.list("Event") if event["involvedObject"]["kind"] == "MLflowServer"
    ]
    assert reasons.count("MigrationFailed") == 1, "a further try that failed was news"
    assert "ServerCrashing" not in reasons


def _database_goes_away(faults: Faults, postgres: Postgres) -> None:
    """Nobody tells the operator: it finds out at the next resync, and moves no pod for it."""
    server = faults.server
    eventually("the roll-out is over", lambda: len(server.pods("server")) == 1, timeouts.GONE)
    pod = server.pod()["metadata"]["uid"]
    postgres.answer(yes=False)
    faults.told("DatabaseReady", "DatabaseUnreachable", postgres.host)
    server.until("Ready", "False", "DatabaseUnreachable", within=timeouts.SETTLED)
    postgres.answer(yes=True)
    server.ready(within=timeouts.NOTICED)
    assert server.pod()["metadata"]["uid"] == pod
