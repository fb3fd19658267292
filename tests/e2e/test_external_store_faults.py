"""Faults of external dependencies: each is reported, and fixed at its cause, while the resource stays unchanged."""

from dataclasses import dataclass
from functools import cached_property

import pytest

from tests.e2e import timeouts
from tests.e2e.external_stores import accepts_connections, secret
from tests.e2e.fault_cases import FaultCase, table
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import DATABASE_PASSWORD, Platform

SERVER = "team-postgres"
OTHER_SERVER = "team"
"""Its Service for Postgres would have the name of the server under test."""

DATABASE_SECRET, STORE_SECRET = "team-database", "team-keys"
TRIGGER_ERROR, RETRIED = "schema changes are blocked by the test", "is retried automatically"


@dataclass(frozen=True)
class Stores:
    """A database and a bucket of one case on the platform, in which the operator may create nothing.

    The database is migrated, so a server with 0 replicas creates no pod.
    """

    ns: Kube
    platform: Platform

    @cached_property
    def server(self) -> Server:
        """The server that must report the fault."""
        return Server(self.ns, SERVER)

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self.ns.namespace

    @property
    def database(self) -> str:
        """Name of the database and of the user that owns it."""
        return self.ns.namespace.replace("-", "_")

    @property
    def service(self) -> str:
        """Name of the Service through which only this case connects to Postgres."""
        return f"postgres-{self.ns.namespace}"

    @property
    def host(self) -> str:
        """Host of Postgres."""
        return f"{self.service}.{self.platform.kube.namespace}.svc"

    @property
    def endpoint(self) -> str:
        """Endpoint of MinIO."""
        return self.platform.minio.endpoint

    def spec(self, replicas: int) -> Object:
        """Return a spec with both stores."""
        return small_spec(
            replicas=replicas,
            database={
                "external": {
                    "host": self.host,
                    "databaseName": self.database,
                    "credentialsSecretRef": {"name": DATABASE_SECRET},
                }
            },
            artifacts={
                "s3": {
                    "endpoint": self.endpoint,
                    "bucket": self.bucket,
                    "bucketCreation": "Never",
                    "credentialsSecretRef": {"name": STORE_SECRET},
                }
            },
        )

    def create(self) -> None:
        """Create all that the spec refers to, without a fault."""
        self._apply_service(reachable=True)
        self.platform.create_migrated_database(self.database, DATABASE_PASSWORD)
        self.create_bucket()
        self.apply_secrets()
        self._wait_until_applied(reachable=True)

    def apply_secrets(self) -> None:
        """Create both Secrets, or correct their values."""
        minio = self.platform.minio
        self.ns.apply(
            secret(DATABASE_SECRET, username=self.database, password=DATABASE_PASSWORD),
            secret(STORE_SECRET, accessKeyID=minio.access_key, secretAccessKey=minio.secret_key),
        )

    def delete_secret(self) -> None:
        """Delete the Secret of the database."""
        self.ns.delete("Secret", DATABASE_SECRET)

    def delete_password(self) -> None:
        """Delete the key `password` of the database's Secret."""
        self.ns.patch("Secret", DATABASE_SECRET, {"data": {"password": None}})

    def set_password(self, value: str) -> None:
        """Change the password of the database's Secret."""
        self.ns.patch("Secret", DATABASE_SECRET, {"stringData": {"password": value}})

    def set_secret_access_key(self, value: str) -> None:
        """Change the secret access key of the bucket's Secret."""
        self.ns.patch("Secret", STORE_SECRET, {"stringData": {"secretAccessKey": value}})

    def create_bucket(self) -> None:
        """Create the bucket."""
        self.platform.minio.client().create_bucket(Bucket=self.bucket)

    def delete_bucket(self) -> None:
        """Delete the bucket, which is empty."""
        self.platform.minio.client().delete_bucket(Bucket=self.bucket)

    def set_database_reachable(self, *, reachable: bool) -> None:
        """Restore or remove the endpoint of the Service; without it, connections are refused."""
        self._apply_service(reachable=reachable)
        self._wait_until_applied(reachable=reachable)

    def _apply_service(self, *, reachable: bool) -> None:
        selector = {"app": "postgres" if reachable else "none"}
        spec = {"type": "NodePort", "selector": selector, "ports": [{"port": 5432}]}
        self.platform.kube.apply(
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": self.service}, "spec": spec}
        )

    def _wait_until_applied(self, *, reachable: bool) -> None:
        """Wait for kube-proxy. Until then, the server would report the previous state."""
        kube = self.platform.kube
        port = kube.require("Service", self.service)["spec"]["ports"][0]["nodePort"]
        eventually(
            f"connections to {self.service} are {'accepted' if reachable else 'refused'}",
            lambda: accepts_connections(kube.node_address, port) is reachable,
            timeouts.ENDPOINT_SECONDS,
        )

    def alter_database(self, change: str) -> None:
        """Run ALTER DATABASE as the superuser."""
        self.platform.postgres.query(f'ALTER DATABASE "{self.database}" {change}', "postgres")

    def query(self, sql: str) -> None:
        """Run a query in the database as the superuser."""
        self.platform.postgres.query(sql, self.database)

    def create_empty_database(self, options: str = "") -> None:
        """Replace the database with an empty one, by default of the superuser, in which its user may create nothing."""
        self.drop_database()
        self.platform.postgres.query(
            f'CREATE DATABASE "{self.database}" TEMPLATE template0 {options}', "postgres"
        )

    def drop_database(self) -> None:
        """Drop the database, in spite of connections to it."""
        self.platform.postgres.query(f'DROP DATABASE "{self.database}" WITH (FORCE)', "postgres")


def create_server_with_same_name(stores: Stores) -> None:
    """Create a server whose Service has the name of the server under test.

    Without the Secret, the server under test waits for it after the conflict is resolved.
    """
    Server(stores.ns, OTHER_SERVER).apply(small_spec(suspend=True))
    eventually(
        "the other server has its Service", lambda: stores.ns.get("Service", SERVER), timeouts.STATUS_SECONDS
    )
    stores.delete_secret()


def create_latin1_database(stores: Stores) -> None:
    """Move the database aside, and create one with an unsupported encoding."""
    stores.alter_database(f'RENAME TO "{stores.database}_utf8"')
    stores.platform.postgres.query(
        f'CREATE DATABASE "{stores.database}" OWNER "{stores.database}" '
        "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0",
        "postgres",
    )


def restore_utf8_database(stores: Stores) -> None:
    """Replace the database with the one that was moved aside."""
    stores.drop_database()
    stores.platform.postgres.query(
        f'ALTER DATABASE "{stores.database}_utf8" RENAME TO "{stores.database}"', "postgres"
    )


def check_no_job(stores: Stores) -> None:
    """Check that the operator has not started a migration."""
    assert not stores.ns.list("Job"), "a Job was created that cannot succeed"


def block_migration(stores: Stores) -> None:
    """Let CREATE TABLE fail in an empty database."""
    stores.create_empty_database(f'OWNER "{stores.database}"')
    stores.query(
        "CREATE FUNCTION frozen() RETURNS event_trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{TRIGGER_ERROR}'; END $$"
    )
    stores.query(
        "CREATE EVENT TRIGGER frozen ON ddl_command_start WHEN TAG IN ('CREATE TABLE') "
        "EXECUTE FUNCTION frozen()"
    )


def wait_for_failed_retry(stores: Stores) -> None:
    """Wait until the next migration Job has failed, too."""
    # A Job is deleted a moment before its successor is created.
    first = eventually("a Job exists", lambda: stores.ns.list("Job"), timeouts.STATUS_SECONDS)[0]

    def failed_again() -> bool:
        (job,) = stores.ns.list("Job") or [first]
        types = [condition["type"] for condition in job["status"].get("conditions") or ()]
        return job["metadata"]["uid"] != first["metadata"]["uid"] and "Failed" in types

    eventually("another Job has failed", failed_again, timeouts.READY_SECONDS)


def check_retry_emitted_no_event(stores: Stores) -> None:
    """Check that the failed retry has emitted no Event."""
    messages = [event["message"] for event in stores.ns.list("Event") if event["reason"] == "MigrationFailed"]
    # If the operator reads the Job when it has failed and its pod just before, the first message is another one.
    assert len([message for message in messages if RETRIED in message]) == 1, messages


def check_server_is_not_ready(stores: Stores) -> None:
    """Check that the condition Ready repeats the outage of the database."""
    stores.server.wait_for("Ready", "False", "DatabaseUnreachable", within=timeouts.STATUS_SECONDS)


CASES: tuple[FaultCase[Stores], ...] = (
    FaultCase(
        name="service-of-another-server",
        inject=create_server_with_same_name,
        condition_type="ServerAvailable",
        reason="NameConflict",
        texts=(f'Service "{SERVER}"', f'MLflowServer "{OTHER_SERVER}"', "another name"),
        fix=lambda stores: Server(stores.ns, OTHER_SERVER).delete(),
        recovered=("Unknown", "WaitingForDependency"),
    ),
    FaultCase(
        name="missing-secret",
        inject=Stores.delete_secret,
        condition_type="CredentialsReady",
        reason="SecretNotFound",
        texts=(f'"{DATABASE_SECRET}"', "spec.database.external.credentialsSecretRef"),
        fix=Stores.apply_secrets,
    ),
    FaultCase(
        name="missing-key-in-secret",
        inject=Stores.delete_password,
        condition_type="CredentialsReady",
        reason="SecretKeyMissing",
        texts=(f'"{DATABASE_SECRET}"', 'no key "password"'),
        fix=Stores.apply_secrets,
    ),
    FaultCase(
        name="trailing-newline-in-secret",
        inject=lambda stores: stores.set_secret_access_key(f"{stores.platform.minio.secret_key}\n"),
        condition_type="CredentialsReady",
        reason="SecretValueInvalid",
        texts=('"secretAccessKey"', "printf"),
        fix=Stores.apply_secrets,
    ),
    FaultCase(
        name="unreachable-database",
        inject=lambda stores: stores.set_database_reachable(reachable=False),
        condition_type="DatabaseReady",
        reason="DatabaseUnreachable",
        texts=("{env.host}", "Check that it runs"),
        fix=lambda stores: stores.set_database_reachable(reachable=True),
    ),
    FaultCase(
        name="wrong-database-password",
        inject=lambda stores: stores.set_password("wrong"),
        condition_type="DatabaseReady",
        reason="DatabaseAuthenticationFailed",
        texts=("rejects the user name or the password",),
        fix=Stores.apply_secrets,
    ),
    FaultCase(
        name="unsupported-database-encoding",
        inject=create_latin1_database,
        condition_type="DatabaseReady",
        reason="DatabaseEncodingUnsupported",
        texts=("LATIN1", "ENCODING 'UTF8'"),
        fix=restore_utf8_database,
    ),
    FaultCase(
        name="read-only-database",
        inject=lambda stores: stores.alter_database("SET default_transaction_read_only = on"),
        condition_type="DatabaseReady",
        reason="DatabaseReadOnly",
        texts=("is read-only",),
        fix=lambda stores: stores.alter_database("RESET default_transaction_read_only"),
    ),
    FaultCase(
        name="wrong-secret-access-key",
        inject=lambda stores: stores.set_secret_access_key("wrong-but-long-enough"),
        condition_type="ArtifactStoreReady",
        reason="BucketAccessDenied",
        texts=("rejects the secret access key", "{env.endpoint}"),
        fix=Stores.apply_secrets,
    ),
    FaultCase(
        name="missing-bucket",
        inject=Stores.delete_bucket,
        condition_type="ArtifactStoreReady",
        reason="BucketNotFound",
        texts=("{env.bucket}", "bucketCreation"),
        fix=Stores.create_bucket,
    ),
    FaultCase(
        name="missing-privilege-on-schema",
        inject=Stores.create_empty_database,
        condition_type="SchemaReady",
        reason="DatabasePrivilegeMissing",
        texts=('GRANT CREATE ON SCHEMA "public"',),
        while_reported=check_no_job,
        fix=lambda stores: stores.query(f'GRANT CREATE ON SCHEMA public TO "{stores.database}"'),
        within=timeouts.READY_SECONDS,
    ),
    FaultCase(
        name="failing-migration",
        inject=block_migration,
        condition_type="SchemaReady",
        reason="MigrationFailed",
        texts=("Its last lines:", TRIGGER_ERROR, RETRIED),
        while_reported=wait_for_failed_retry,
        after_recovery=check_retry_emitted_no_event,
        fix=lambda stores: stores.query("DROP EVENT TRIGGER frozen"),
        within=timeouts.READY_SECONDS,
        marks=(pytest.mark.start_early,),
    ),
    FaultCase(
        # The operator notices the outage at the next resync.
        name="database-outage-while-serving",
        inject=lambda stores: stores.set_database_reachable(reachable=False),
        condition_type="DatabaseReady",
        reason="DatabaseUnreachable",
        texts=("{env.host}",),
        while_reported=check_server_is_not_ready,
        fix=lambda stores: stores.set_database_reachable(reachable=True),
        while_serving=True,
        marks=(pytest.mark.start_early,),
    ),
)


@pytest.fixture
def stores(ns: Kube, platform: Platform) -> Stores:
    """Stores of one case, without a fault."""
    created = Stores(ns, platform)
    created.create()
    return created


@pytest.mark.long_running(
    reason="repeats in many variants what tests/contracts and tests/integration/test_status.py test"
)
@table(*CASES)
def test_fault_is_reported_once_and_recovered_from(case: FaultCase[Stores], stores: Stores) -> None:
    """One condition and one Event report the fault; fixing its cause is enough."""
    case.run(stores, stores.spec(replicas=int(case.while_serving)))
