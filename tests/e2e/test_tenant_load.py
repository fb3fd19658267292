"""A tenant that tries to stop the operator for all others, with the tenant's permissions.

Exploit H3 of the security review, all of its variants at the same time: S3 answers without an end and with a byte now
and then, many large objects with our labels, and changes of large CA certificates. tests/unit/clients tests each limit:
test_timeouts.py those of stores and databases, test_ca_files.py those of certificates;
tests/unit/framework/test_memory_limit.py that of memory.
"""

from concurrent.futures import ThreadPoolExecutor

import pytest

from mlflow_operator.kube import labels
from tests.e2e import timeouts
from tests.e2e.certificates import create_authority
from tests.e2e.external_stores import secret
from tests.e2e.kube import Object
from tests.e2e.rogue_stores import DRIP_PORTS, ENDLESS_PORT
from tests.e2e.server import Server, eventually
from tests.e2e.tenants import FOREIGN_DATABASE, Tenancy, Tenant, start_rogue

GROUP = "tenant_load"

CONFIG_MAP_COUNT = 160
"""Number of large ConfigMaps. Their texts need more than half of the operator's memory, and as objects more than it
has."""

CONFIG_MAP_BYTES = 1000 * 1024
CA_CHANGES, CA_BYTES = 12, 900 * 1024
UPLOADS = 4


@pytest.mark.alone  # the test loads the API server
def test_tenant_cannot_stop_the_operator_for_others(tenancy: Tenancy) -> None:
    """Another tenant's new server is served meanwhile. The operator must not restart, which a fixture checks."""
    tenancy.offer(is_default=True)
    mallory, bob = tenancy.create_tenant("mallory"), tenancy.create_tenant("bob")
    rogue = start_rogue(mallory, tenancy.stores)
    mallory.kube.apply(secret("key", accessKeyID="any", secretAccessKey="any-secret"))
    attackers = [
        mallory.server(f"port-{port}", database=FOREIGN_DATABASE, artifacts=store(rogue.host, port))
        for port in (ENDLESS_PORT, *DRIP_PORTS)
    ]
    create_large_objects(mallory, attackers[0])
    certificates = change_certificates(mallory, rogue.host)

    server = bob.server()
    tenancy.wait_for_stores(server)
    server.delete()
    message = attackers[0].wait_for("ArtifactStoreReady", "False", within=timeouts.RESYNC_SECONDS)["message"]
    assert "sends a larger response than an artifact store does" in message
    eventually(
        "the certificates of the namespace exceed its limit",
        lambda: "MiB together" in certificates.conditions().get("ArtifactStoreReady", {}).get("message", ""),
        timeouts.RESYNC_SECONDS,
    )


def store(host: str, port: int) -> Object:
    """Return a spec of artifacts at a port of the tenant's pods."""
    endpoint, key = f"http://{host}:{port}", {"name": "key"}
    return {
        "s3": {"endpoint": endpoint, "bucket": "any", "addressingStyle": "Path", "credentialsSecretRef": key}
    }


def create_large_objects(tenant: Tenant, server: Server) -> None:
    """Create ConfigMaps with the labels of a server."""
    text = "x" * CONFIG_MAP_BYTES
    metadata = {"labels": {labels.MANAGED_BY: labels.OPERATOR, labels.SERVER: server.name}}

    def create(number: int) -> None:
        tenant.kube.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": f"large-{number}", **metadata},
                "data": {"text": text},
            }
        )

    create(0)
    with ThreadPoolExecutor(UPLOADS) as pool:
        list(pool.map(create, range(1, CONFIG_MAP_COUNT)))


def change_certificates(tenant: Tenant, host: str) -> Server:
    """Change a large bundle of CA certificates, and let a server use each of them. Returns the server."""
    artifacts = store(host, ENDLESS_PORT)
    artifacts["s3"] |= {"endpoint": f"https://{host}:{ENDLESS_PORT}", "tls": {"caSecretRef": {"name": "ca"}}}
    server = tenant.server("certificates", database=FOREIGN_DATABASE, artifacts=artifacts)
    certificate = create_authority("Changing Root").pem
    comments = "".join(f"# {number:0100d}\n" for number in range(CA_BYTES // 100))
    for number in range(CA_CHANGES):
        if number:
            tenant.kube.delete("Secret", "ca")
        tenant.kube.create(secret("ca", **{"ca.crt": f"{certificate}# {number}\n{comments}"}))
        server.trigger_reconcile()
    return server
