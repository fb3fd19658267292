"""The same as `provisioned` with an MLflowPlatform: the servers have no stores in their spec."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.e2e.kube import Kube, Object
from tests.e2e.server import API_VERSION
from tests.e2e.timeouts import READY_SECONDS

from benchmarks import BENCH_LABEL, provisioned
from benchmarks.lab import Lab
from benchmarks.rows import Row
from benchmarks.waits import is_ready

ADMIN_ROLE = "platform-admin"
DEFAULT_ANNOTATION = "mlflow-operator.dev/is-default-platform"
peak_requests = provisioned.peak_requests


def measure(lab: Lab) -> list[Row]:
    """Return four rows for servers with `spec: {}`."""
    shared = lab.stores()
    provisioned.create_role(shared, ADMIN_ROLE)
    shared.kube.apply(*provisioned.administrators(ADMIN_ROLE))

    @contextmanager
    def ready_platform(kube: Kube) -> Iterator[None]:
        name = kube.namespace
        kube.apply(manifest(name, shared.host, shared.endpoint, shared.kube.namespace))
        try:
            lab.wait_for(
                f"MLflowPlatform {name} is Ready",
                lambda: is_ready(kube.require("MLflowPlatform", name)),
                READY_SECONDS,
            )
            yield
        finally:
            # Its finalizer keeps it until the namespace with the servers is deleted.
            kube.kubectl("delete", "mlflowplatform", name, "--wait=false")

    return provisioned.measure_servers(lab, "with `spec: {}` on one platform", lambda _: {}, ready_platform)


def manifest(namespace: str, host: str, endpoint: str, secrets_namespace: str) -> Object:
    """Return the default platform of a namespace. It has the name of the namespace. The stores have no certificate."""
    return {
        "apiVersion": API_VERSION,
        "kind": "MLflowPlatform",
        "metadata": {
            "name": namespace,
            "labels": {BENCH_LABEL: "true"},
            "annotations": {DEFAULT_ANNOTATION: "true"},
        },
        "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
            "secretsNamespace": secrets_namespace,
            "database": {
                "postgres": {
                    "host": host,
                    "adminSecretRef": {"name": provisioned.DATABASE_ADMIN_SECRET},
                    "tls": {"mode": "Disable"},
                }
            },
            "artifacts": {
                "s3": {
                    "endpoint": endpoint,
                    "bucket": provisioned.BUCKET,
                    "adminSecretRef": {"name": provisioned.STORE_ADMIN_SECRET},
                }
            },
        },
    }
