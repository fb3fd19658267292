"""Faults of external dependencies, one after the other at one server: each is reported, and fixed at its cause.

The resource is applied once and never changed.
"""

import pytest

from tests.e2e import external_stores, timeouts
from tests.e2e.certificates import create_authority
from tests.e2e.external_stores import MinIO, Postgres, secret
from tests.e2e.fault_cases import FaultExpectations
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, eventually, small_spec

BUCKET = "team-artifacts"
PASSWORD = "worker's own"
TRIGGER_ERROR = "schema changes are blocked by the test"


def spec(postgres: Postgres, minio: MinIO) -> Object:
    """Return a spec with both stores in which the operator may create nothing."""
    return small_spec(
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
    reason="waits for minutes; tests/contracts and tests/integration/test_status.py test the same faults"
)
def test_dependency_faults_are_reported_once_and_recovered_from(ns: Kube, other_ns: Kube) -> None:
    """Faults of names, Secrets, database, bucket and schema; then a database outage while the server serves."""
    postgres, minio = (
        external_stores.start_postgres(other_ns, create_authority("Company Root")),
        external_stores.start_minio(other_ns, None),
    )
    postgres.query(f"CREATE ROLE worker LOGIN PASSWORD '{PASSWORD.replace(chr(39), chr(39) * 2)}'")
    postgres.set_reachable(reachable=False)
    other_server = Server(ns, "a").apply(small_spec(suspend=True))
    eventually(
        "the first server has its Service", lambda: ns.get("Service", "a-postgres"), timeouts.STATUS_SECONDS
    )

    server = Server(ns, "a-postgres").apply(spec(postgres, minio))
    faults = FaultExpectations(server)
    _check_name_and_secret_faults(faults, other_server, minio)
    _check_store_faults(faults, postgres, minio)
    _check_schema_faults(faults, postgres)
    _check_database_outage(faults, postgres)
    assert server.resource()["metadata"]["generation"] == 1, "the resource was changed"


def _check_name_and_secret_faults(faults: FaultExpectations, other_server: Server, minio: MinIO) -> None:
    ns = faults.server.kube
    faults.expect(
        "ServerAvailable", "NameConflict", 'Service "a-postgres"', 'MLflowServer "a"', "another name"
    )
    faults.expect(
        "CredentialsReady", "SecretNotFound", '"team-database"', "spec.database.external.credentialsSecretRef"
    )
    other_server.delete()
    ns.apply(secret("team-database", username="worker"))
    faults.expect("CredentialsReady", "SecretKeyMissing", '"team-database"', 'no key "password"')

    ns.apply(
        secret("team-database", username="worker", password="wrong"),
        secret("team-keys", accessKeyID=minio.access_key, secretAccessKey=f"{minio.secret_key}\n"),
    )
    faults.expect("CredentialsReady", "SecretValueInvalid", '"secretAccessKey"', "printf")
    ns.apply(secret("team-keys", accessKeyID=minio.access_key, secretAccessKey="wrong-but-long-enough"))
    faults.expect_recovery("CredentialsReady")
    faults.server.wait_for(
        "ServerAvailable", "Unknown", "WaitingForDependency", within=timeouts.RESYNC_SECONDS
    )


def _check_store_faults(faults: FaultExpectations, postgres: Postgres, minio: MinIO) -> None:
    ns = faults.server.kube
    faults.expect("DatabaseReady", "DatabaseUnreachable", postgres.host, "Check that it runs")
    faults.expect("ArtifactStoreReady", "BucketAccessDenied", "rejects the secret access key", minio.endpoint)

    postgres.set_reachable(reachable=True)
    ns.apply(secret("team-keys", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key))
    faults.expect("DatabaseReady", "DatabaseAuthenticationFailed", "rejects the user name or the password")
    faults.expect("ArtifactStoreReady", "BucketNotFound", BUCKET, "bucketCreation")

    postgres.query("ALTER DATABASE mlflow RENAME TO spare", "postgres")
    postgres.query(
        "CREATE DATABASE mlflow ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", "postgres"
    )
    ns.apply(secret("team-database", username="worker", password=PASSWORD))
    minio.client().create_bucket(Bucket=BUCKET)
    faults.expect("DatabaseReady", "DatabaseEncodingUnsupported", "LATIN1", "ENCODING 'UTF8'")
    faults.expect_recovery("ArtifactStoreReady")

    # Make it read-only before it gets the right name: otherwise the operator may briefly find it writable.
    postgres.query("ALTER DATABASE spare SET default_transaction_read_only = on", "postgres")
    postgres.query("DROP DATABASE mlflow WITH (FORCE)", "postgres")
    postgres.query("ALTER DATABASE spare RENAME TO mlflow", "postgres")
    faults.expect("DatabaseReady", "DatabaseReadOnly", "is read-only")
    postgres.query("ALTER DATABASE mlflow RESET default_transaction_read_only", "postgres")
    faults.expect_recovery("DatabaseReady")


def _check_schema_faults(faults: FaultExpectations, postgres: Postgres) -> None:
    server, ns = faults.server, faults.server.kube
    faults.expect("SchemaReady", "DatabasePrivilegeMissing", 'GRANT CREATE ON SCHEMA "public"')
    assert not ns.list("Job"), "a Job was created that cannot succeed"

    postgres.query(
        "CREATE FUNCTION frozen() RETURNS event_trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{TRIGGER_ERROR}'; END $$"
    )
    postgres.query(
        "CREATE EVENT TRIGGER frozen ON ddl_command_start WHEN TAG IN ('CREATE TABLE') "
        "EXECUTE FUNCTION frozen()"
    )
    postgres.query("GRANT CREATE ON SCHEMA public TO worker")
    faults.expect(
        "SchemaReady", "MigrationFailed", "Its last lines:", TRIGGER_ERROR, "is retried automatically"
    )
    (first,) = ns.list("Job")

    def failed_again() -> bool:
        (job,) = ns.list("Job") or [first]
        types = [condition["type"] for condition in job["status"].get("conditions") or ()]
        return job["metadata"]["uid"] != first["metadata"]["uid"] and "Failed" in types

    eventually("a second Job has failed", failed_again, timeouts.RESYNC_SECONDS)
    postgres.query("DROP EVENT TRIGGER frozen")
    faults.expect_recovery("SchemaReady")
    server.wait_ready()
    reasons = [
        event["reason"] for event in ns.list("Event") if event["involvedObject"]["kind"] == "MLflowServer"
    ]
    assert reasons.count("MigrationFailed") == 1, "a failed retry emitted another Event"
    assert "ServerCrashing" not in reasons


def _check_database_outage(faults: FaultExpectations, postgres: Postgres) -> None:
    """The operator notices the outage at the next resync, and does not replace the pod."""
    server = faults.server
    eventually("the rollout is complete", lambda: len(server.pods("server")) == 1, timeouts.DELETION_SECONDS)
    pod = server.pod()["metadata"]["uid"]
    postgres.set_reachable(reachable=False)
    faults.expect("DatabaseReady", "DatabaseUnreachable", postgres.host)
    server.wait_for("Ready", "False", "DatabaseUnreachable", within=timeouts.STATUS_SECONDS)
    postgres.set_reachable(reachable=True)
    server.wait_ready(within=timeouts.RESYNC_SECONDS)
    assert server.pod()["metadata"]["uid"] == pod
