"""Administrators' credentials of a platform and a tenant that tries to obtain them, with the tenant's permissions.

The tenant runs a Postgres that asks for passwords in cleartext, and an S3 that records requests. Exploits C1 and C2 of
the security review, M2: how connections of administrators are protected, and M3: the metadata service of a cloud.
"""

import pytest

from tests.e2e import timeouts
from tests.e2e.certificates import create_authority
from tests.e2e.external_stores import secret
from tests.e2e.kube import CommandError, Object
from tests.e2e.rogue_stores import RELAY_PORT
from tests.e2e.server import Server, eventually
from tests.e2e.tenants import FOREIGN_DATABASE, FOREIGN_STORE, Rogue, Tenancy, Tenant, start_rogue

GROUP = "tenant_credentials"

OWN_SECRET = "own-admin"
OWN = {"username": "own-user", "password": "own-password"}
OWN_KEY = {"accessKeyID": "own-key-id", "secretAccessKey": "own-secret-key"}


@pytest.fixture(scope="module")
def alice(_tenancy: Tenancy) -> Tenant:
    """A tenant of the default platform."""
    _tenancy.offer(is_default=True)
    return _tenancy.create_tenant("alice")


@pytest.fixture(scope="module")
def rogue(alice: Tenant, _tenancy: Tenancy) -> Rogue:
    """The tenant's pods."""
    return start_rogue(alice, _tenancy.stores)


@pytest.fixture(scope="module")
def weak(_tenancy: Tenancy) -> str:
    """A platform without any protection by TLS, at hosts that mean the tenant's pods in the tenant's namespace."""
    where = _tenancy.stores.kube.namespace
    postgres = {"host": f"postgres.{where}", "tls": {"mode": "Prefer", "caSecretRef": None}}
    s3 = {"endpoint": f"http://minio.{where}:9000"}
    return _tenancy.offer(
        "weak", database={"postgres": postgres}, artifacts={"s3": {**s3, "bucket": f"{_tenancy.bucket}-weak"}}
    )


def check_nothing_received(rogue: Rogue, tenancy: Tenancy) -> None:
    """Check that the tenant has received nothing of the administrators."""
    stores = tenancy.stores
    for credential in (stores.admin, stores.admin_password, stores.minio.access_key, stores.minio.secret_key):
        assert not rogue.received(credential), "an administrator's credential was sent to a tenant"


def check_refusal(server: Server, secret_name: str) -> None:
    """Wait until a condition says that the server cannot use the Secret whose name contains `secret_name`."""

    def found() -> bool:
        return any(
            condition["reason"] in {"ProvisioningDenied", "SecretNotFound"}
            and secret_name in condition["message"]
            for condition in server.conditions().values()
        )

    eventually(f"a condition of {server.name} explains the refusal", found, timeouts.STATUS_SECONDS)


def test_administrators_credentials_are_never_sent_to_a_host_of_a_tenant(
    tenancy: Tenancy, alice: Tenant, rogue: Rogue
) -> None:
    """Every way in which a spec can combine the platform's Secret with a host. With its own Secret each one works."""
    where, endpoint = tenancy.stores.kube.namespace, f"http://{rogue.host}:{RELAY_PORT}"
    names = {"postgres": f"{tenancy.name}-postgres", "minio": f"{tenancy.name}-minio"}

    def provision(name: str, **ref: str) -> Object:
        return {"provision": {"host": rogue.host, "adminSecretRef": {"name": name, **ref}}}

    def bucket(name: str, field: str = "adminSecretRef", **ref: str) -> Object:
        store = {"endpoint": endpoint, "bucket": "stolen", "prefix": "a", "addressingStyle": "Path"}
        return {"s3": {**store, field: {"name": name, **ref}}}

    minio_keys = {"usernameKey": "accessKeyID", "passwordKey": "secretAccessKey"}
    external = {"host": rogue.host, "credentialsSecretRef": {"name": names["postgres"], "namespace": where}}
    databases: dict[str, Object] = {
        "foreign": provision(names["postgres"], namespace=where),
        "foreign-store": provision(names["minio"], namespace=where, **minio_keys),
        "by-name": provision(names["postgres"]),
        "external": {"external": external},
        "both": {"platform": {}, **provision(names["postgres"], namespace=where)},
    }
    stores = {
        "foreign": bucket(names["minio"], namespace=where),
        "by-name": bucket(names["minio"]),
        "as-user": bucket(names["minio"], "credentialsSecretRef", namespace=where),
        "both": {"platform": {}, **bucket(names["minio"], namespace=where)},
    }
    servers = [
        alice.try_server(f"db-{name}", database=database, artifacts=FOREIGN_STORE)
        for name, database in databases.items()
    ]
    servers += [
        alice.try_server(f"s3-{name}", database=FOREIGN_DATABASE, artifacts=artifacts)
        for name, artifacts in stores.items()
    ]
    for server in filter(None, servers):
        check_refusal(server, tenancy.name)
    # Otherwise the test would prove nothing.
    alice.kube.apply(secret(OWN_SECRET, **OWN, **OWN_KEY))
    alice.server("own", database=provision(OWN_SECRET), artifacts=bucket(OWN_SECRET))
    eventually(
        "the tenant receives its own credentials",
        lambda: all(map(rogue.received, (OWN["password"], OWN_KEY["accessKeyID"]))),
        timeouts.STATUS_SECONDS,
    )
    check_nothing_received(rogue, tenancy)


def test_names_in_the_namespace_of_a_tenant_do_not_redirect_the_operator(
    tenancy: Tenancy, alice: Tenant, rogue: Rogue, weak: str
) -> None:
    """The hosts of the platform mean the tenant's pods there. Neither does a Service of the same short name help."""
    where = tenancy.stores.kube.namespace
    # From the other pod: each knows its own name without DNS.
    program = f"import socket; print(socket.gethostbyname('postgres.{where}'))"
    resolved = alice.kube.kubectl("exec", "minio", "--", "python3", "-c", program).strip()
    assert resolved == alice.kube.require("Pod", "postgres")["status"]["podIP"]
    for name in ("postgres", "minio"):
        spec = {"type": "ExternalName", "externalName": rogue.host}
        alice.kube.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
    try:
        for platform, name in ((weak, "weak"), (tenancy.name, "strict")):
            tenancy.wait_for_stores(alice.server(name, platformRef={"name": platform}))
    finally:
        # Also if a store does not become ready: the tenant's Postgres rejects every login.
        check_nothing_received(rogue, tenancy)


def test_tenants_can_neither_read_the_secrets_nor_write_platforms(tenancy: Tenancy, alice: Tenant) -> None:
    """A platform of their own would send the Secrets to any host."""
    namespace = alice.kube.in_namespace(tenancy.stores.kube.namespace)
    redirected = '{"spec": {"database": {"postgres": {"host": "rogue.example.com"}}}}'
    attempts = (
        ("get", "secret", f"{tenancy.name}-postgres"),
        ("get", "secrets"),
        ("patch", "mlflowplatform", tenancy.name, "--type=merge", "-p", redirected),
        ("annotate", "mlflowplatform", tenancy.name, "a=b"),
        ("delete", "mlflowplatform", tenancy.name),
    )
    for arguments in attempts:
        with pytest.raises(CommandError, match="forbidden"):
            namespace.kubectl(*arguments)
    with pytest.raises(CommandError, match="forbidden"):
        alice.kube.apply(
            {
                "apiVersion": "mlflow-operator.dev/v1alpha1",
                "kind": "MLflowPlatform",
                "metadata": {"name": f"{tenancy.name}-of-a-tenant"},
                "spec": tenancy.kube.require("MLflowPlatform", tenancy.name)["spec"],
            }
        )


def test_metadata_service_of_the_cloud_is_not_contacted(alice: Tenant) -> None:
    """The operator's node may have permissions in the cloud that the tenant's pods do not have."""
    metadata = "169.254.169.254"
    alice.kube.apply(
        secret("key", accessKeyID="any", secretAccessKey="any-secret", username="a", password="b")
    )
    database = {"host": metadata, "port": 80, "credentialsSecretRef": {"name": "key"}}
    s3 = {"endpoint": f"http://{metadata}", "bucket": "latest", "credentialsSecretRef": {"name": "key"}}
    server = alice.server("metadata", database={"external": database}, artifacts={"s3": s3})
    for condition in ("DatabaseReady", "ArtifactStoreReady"):
        message = server.wait_for(condition, "False", within=timeouts.STATUS_SECONDS)["message"]
        assert "the operator does not connect to it" in message


def test_unprotected_connections_of_administrators_are_reported(tenancy: Tenancy, weak: str) -> None:
    """The platform is Ready. By default, the certificate is verified, and a wrong one is refused."""
    database = tenancy.wait_for_offer(weak, "DatabaseReady", "True", "Ready")
    assert "Connections may be unencrypted, and others in the network may read the password" in database
    assert "Set spec.database.postgres.tls.mode to VerifyFull" in database
    store = tenancy.wait_for_offer(weak, "ArtifactStoreReady", "True", "Ready")
    assert "Connections are not encrypted" in store
    assert "https://" in store

    strict = tenancy.offer(is_default=True)
    assert "encrypted" not in tenancy.wait_for_offer(strict, "DatabaseReady", "True", "Ready")
    other_ca = secret(f"{tenancy.name}-other-ca", **{"ca.crt": create_authority("Another Root").pem})
    tenancy.stores.kube.apply(other_ca)
    tls = {"caSecretRef": {"name": f"{tenancy.name}-other-ca"}}
    wrong = tenancy.offer("wrong", database={"postgres": {"tls": tls}})
    refused = tenancy.wait_for_offer(wrong, "DatabaseReady", "False", "DatabaseUnreachable")
    assert "certificate that is not trusted" in refused
