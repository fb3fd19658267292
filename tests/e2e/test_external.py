"""An external Postgres and S3 store with TLS certificates of a private CA."""

from tests.e2e import external_stores, timeouts
from tests.e2e.certificates import create_authority
from tests.e2e.external_stores import MinIO, Postgres, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Workload
from tests.e2e.server import Server, small_spec


def spec(postgres: Postgres, minio: MinIO) -> Object:
    """Return a spec with both stores that only trusts the CA in Secret `authority`."""
    trust = {"name": "authority"}
    return small_spec(
        database={
            "external": {
                "host": postgres.host,
                "credentialsSecretRef": {"name": "postgres"},
                "tls": {"mode": "VerifyFull", "caSecretRef": trust},
            }
        },
        artifacts={
            "s3": {
                "endpoint": minio.endpoint,
                "bucket": "team-artifacts",
                "prefix": "mlflow/tracking",
                "credentialsSecretRef": {"name": "minio"},
                "tls": {"caSecretRef": trust},
            }
        },
    )


def test_external_stores_with_private_ca_work(ns: Kube, other_ns: Kube) -> None:
    """TLS is verified, a password with special characters works, the bucket is created, a wrong CA is reported."""
    ca = create_authority("Company Root")
    postgres, minio = (
        external_stores.start_postgres(other_ns, ca),
        external_stores.start_minio(other_ns, ca),
    )
    ns.apply(
        secret("authority", **{"ca.crt": ca.pem}),
        secret("postgres", username=postgres.user, password=postgres.password),
        secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key),
    )
    server = Server(ns).apply(spec(postgres, minio)).wait_ready()

    workload = Workload(server.url)
    workload.check_data(workload.log_data())
    assert postgres.query("select count(*) from model_versions").strip() == "1"
    encrypted = (
        "select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) where a.datname='mlflow'"
    )
    plain = f"{encrypted} and not s.ssl and a.client_addr is not null and a.client_addr <> '127.0.0.1'"
    assert postgres.query(plain).strip() == "0", "a connection to Postgres is not encrypted"
    assert server.status["artifacts"] == {
        "type": "S3",
        "uri": "s3://team-artifacts/mlflow/tracking",
        "endpoint": server.resource()["spec"]["artifacts"]["s3"]["endpoint"],
    }
    assert server.status["database"]["host"] == postgres.host
    assert not ns.list("StatefulSet"), "embedded stores were created beside the external ones"

    ns.apply(secret("authority", **{"ca.crt": create_authority("Another Root").pem}))
    server.trigger_reconcile()
    condition = server.wait_for(
        "DatabaseReady", "False", "DatabaseUnreachable", within=timeouts.RESYNC_SECONDS
    )
    assert "certificate" in condition["message"]
    assert "caSecretRef" in condition["message"]
