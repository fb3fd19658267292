"""A PgBouncer in transaction mode between a server and its Postgres."""

import pytest

from tests.e2e import external_stores, timeouts
from tests.e2e.external_stores import secret
from tests.e2e.kube import Kube
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, eventually, small_spec
from tests.e2e.shared_stores import Platform

DATABASE = "pooled_by"


@pytest.mark.second_images
@pytest.mark.long_running(
    reason="needs PgBouncer's image; tests/contracts/test_pooler.py tests migration and checks through one"
)
def test_server_works_with_pgbouncer_in_transaction_mode(ns: Kube, platform: Platform) -> None:
    """The schema is migrated, MLflow works, no advisory lock is left in the pool, and a wrong password is reported."""
    postgres, minio, password = platform.postgres, platform.minio, 'a "pooled" p@ss/w:rd'
    platform.create_database(DATABASE, password)
    pooler = external_stores.start_pgbouncer(ns, postgres, {DATABASE: password})
    ns.apply(
        secret("pooled", username=DATABASE, password=password),
        secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key),
    )
    external = {
        "host": pooler,
        "port": 6432,
        "databaseName": DATABASE,
        "credentialsSecretRef": {"name": "pooled"},
    }
    store = {
        "endpoint": minio.endpoint,
        "bucket": "pooled",
        "credentialsSecretRef": {"name": "minio"},
    }
    server = (
        Server(ns).apply(small_spec(database={"external": external}, artifacts={"s3": store})).wait_ready()
    )

    # all sessions at Postgres come from the pooler, and none keeps a lock
    workload = Workload(server.url)
    workload.check_data(workload.log_data())
    client_addresses = (
        "SELECT DISTINCT host(client_addr) FROM pg_stat_activity WHERE datname = current_database()"
    )
    assert postgres.query(f"{client_addresses} AND client_addr IS NOT NULL", DATABASE).split() == [
        ns.require("Pod", "pgbouncer")["status"]["podIP"]
    ]
    locks = (
        "SELECT count(*) FROM pg_locks JOIN pg_database d ON d.oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()"
    )
    eventually(
        "no lock is left in the pool",
        lambda: postgres.query(locks, DATABASE).strip() == "0",
        timeouts.STATUS_SECONDS,
    )

    ns.apply(secret("pooled", username=DATABASE, password="wrong"))
    server.trigger_reconcile()
    condition = server.wait_for(
        "DatabaseReady", "False", "DatabaseAuthenticationFailed", within=timeouts.RESYNC_SECONDS
    )
    assert "auth_query" in condition["message"]
