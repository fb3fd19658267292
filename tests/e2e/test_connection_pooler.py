"""A PgBouncer between a server and its Postgres, which lends sessions by the transaction."""

import pytest

from tests.e2e import external_stores, timeouts
from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, eventually, small
from tests.e2e.shared_stores import Platform

NAME = "pooled_by"


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs PgBouncer's image; tests/contracts/test_pooler.py tests migration and checks through one"
)
def test_a_server_works_behind_a_pgbouncer_in_transaction_mode(ns: Kube, platform: Platform) -> None:
    """Migrated, worked with, and nothing of the session is left behind in the pool; what goes wrong is told."""
    postgres, minio, password = platform.postgres, platform.minio, 'a "pooled" p@ss/w:rd'
    platform.make_database(NAME, password)
    pooler = external_stores.pgbouncer(ns, postgres, {NAME: password})
    ns.apply(
        secret("pooled", username=NAME, password=password),
        secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key),
    )
    external = {
        "host": pooler,
        "port": 6432,
        "databaseName": NAME,
        "credentialsSecretRef": {"name": "pooled"},
    }
    store = {
        "endpoint": minio.endpoint,
        "bucket": "pooled",
        "credentialsSecretRef": {"name": "minio"},
    }
    server = Server(ns).apply(small(database={"external": external}, artifacts={"s3": store})).ready()

    # the server's own sessions are many; those at Postgres come from the pooler, and none holds a lock for good
    scientist = Scientist(server.url)
    scientist.finds(scientist.work())
    who = "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE datname = current_database()"
    assert postgres.query(f"{who} AND client_addr IS NOT NULL", NAME).split() == [
        ns.need("Pod", "pgbouncer")["status"]["podIP"]
    ]
    locks = (
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()"
    )
    eventually(
        "no lock is left in the pool", lambda: postgres.query(locks, NAME).strip() == "0", timeouts.SETTLED
    )

    ns.apply(secret("pooled", username=NAME, password="wrong"))
    server.look()
    told = server.until("DatabaseReady", "False", "DatabaseAuthenticationFailed", within=timeouts.NOTICED)
    assert "auth_query" in told["message"]
