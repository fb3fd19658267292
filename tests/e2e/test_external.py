"""A Postgres and an S3 store of somebody else's, behind TLS of a private authority."""

from tests.e2e import external_stores, timeouts
from tests.e2e.certificates import authority
from tests.e2e.external_stores import MinIO, Postgres, secret
from tests.e2e.kube import Kube, Object
from tests.e2e.mlflow_workload import Scientist
from tests.e2e.server import Server, small


def spec(postgres: Postgres, minio: MinIO) -> Object:
    """A server on both, trusting the authority in Secret `authority` and nothing else."""
    trust = {"name": "authority"}
    return small(
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


def test_external_stores_behind_a_private_authority_work(ns: Kube, other_ns: Kube) -> None:
    """TLS is verified, a password of special characters arrives whole, the bucket is made, a wrong CA is told."""
    ours = authority("Company Root")
    postgres, minio = external_stores.postgres(other_ns, ours), external_stores.minio(other_ns, ours)
    ns.apply(
        secret("authority", **{"ca.crt": ours.pem}),
        secret("postgres", username=postgres.user, password=postgres.password),
        secret("minio", accessKeyID=minio.access_key, secretAccessKey=minio.secret_key),
    )
    server = Server(ns).apply(spec(postgres, minio)).ready()

    scientist = Scientist(server.url)
    scientist.finds(scientist.work())
    assert postgres.query("select count(*) from model_versions").strip() == "1"
    encrypted = (
        "select count(*) from pg_stat_ssl s join pg_stat_activity a using (pid) where a.datname='mlflow'"
    )
    plain = f"{encrypted} and not s.ssl and a.client_addr is not null and a.client_addr <> '127.0.0.1'"
    assert postgres.query(plain).strip() == "0", "somebody speaks to Postgres in the clear"
    assert server.status["artifacts"] == {"type": "S3", "uri": "s3://team-artifacts/mlflow/tracking"}
    assert server.status["database"]["host"] == postgres.host
    assert not ns.list("StatefulSet"), "stores of its own were made beside the external ones"

    ns.apply(secret("authority", **{"ca.crt": authority("Somebody Else").pem}))
    server.look()
    told = server.until("DatabaseReady", "False", "DatabaseUnreachable", within=timeouts.NOTICED)
    assert "certificate" in told["message"]
    assert "caSecretRef" in told["message"]
