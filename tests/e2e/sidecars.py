"""A container that never exits, which an admission webhook adds to all pods of a namespace, as a service mesh does."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.e2e import timeouts
from tests.e2e.certificates import create_authority
from tests.e2e.external_stores import RESTRICTED_SECURITY_CONTEXT, start_pod
from tests.e2e.kube import CommandError, Kube, Object
from tests.e2e.server import SMALL_RESOURCES, eventually

NAME = "proxy"
"""Name of the added container."""

_WEBHOOK, _PORT = "sidecar-webhook", 8443
_PROGRAM = Path(__file__).with_name("sidecar_webhook.py")


@contextmanager
def inject(kube: Kube, webhook_kube: Kube) -> Iterator[None]:
    """Add the container to each pod that is created in the namespace of `kube`.

    The webhook runs in the namespace of `webhook_kube`.
    """
    authority = create_authority("Sidecar Root")
    certificate = authority.issue(f"{_WEBHOOK}.{webhook_kube.namespace}.svc")
    files = {_PROGRAM.name: _PROGRAM.read_text(), "container.json": json.dumps(_container(kube))}
    arguments = (str(_PORT), "/files/container.json", "/certificate/public.crt", "/certificate/private.key")
    start_pod(
        webhook_kube,
        _WEBHOOK,
        _PORT,
        certificate,
        {
            "image": kube.settings.pins["IMAGE_MLFLOW"],
            "command": ["python3", f"/files/{_PROGRAM.name}", *arguments],
            "readinessProbe": {
                "httpGet": {"path": "/", "port": _PORT, "scheme": "HTTPS"},
                "periodSeconds": 1,
            },
        },
        {"/tmp": 10001},
        files,
    )
    configuration = _configuration(kube, webhook_kube, authority.pem)
    kube.kubectl("create", "-f", "-", stdin=json.dumps(configuration))
    try:
        eventually("the webhook adds the container", lambda: _is_injected(kube), timeouts.ENDPOINT_SECONDS)
        yield
    finally:
        kube.kubectl("delete", "mutatingwebhookconfiguration", configuration["metadata"]["name"])


def _is_injected(kube: Kube) -> bool:
    """Whether a new pod would get the container. The API server learns of a new webhook a moment later."""
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe"},
        "spec": {"containers": [_container(kube) | {"name": "probe"}]},
    }
    output = ("--dry-run=server", "-o", "jsonpath={.spec.containers[*].name}")
    try:
        names = kube.kubectl("create", "-f", "-", *output, stdin=json.dumps(pod))
    except CommandError:
        return False
    return NAME in names.split()


def _container(kube: Kube) -> Object:
    return {
        "name": NAME,
        "image": kube.settings.pins["IMAGE_BUSYBOX"],
        # Like a proxy, it ends when it is asked to, but never by itself.
        "command": ["sh", "-c", "trap exit TERM; sleep infinity & wait"],
        "resources": SMALL_RESOURCES,
        "securityContext": {**RESTRICTED_SECURITY_CONTEXT, "runAsUser": 1000},
    }


def _configuration(kube: Kube, webhook_kube: Kube, authority_pem: str) -> Object:
    service = {"name": _WEBHOOK, "namespace": webhook_kube.namespace, "port": _PORT}
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": f"sidecar-{kube.namespace}"},
        "webhooks": [
            {
                "name": "sidecar.e2e.mlflow-operator.dev",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "clientConfig": {
                    "caBundle": base64.b64encode(authority_pem.encode()).decode(),
                    "service": service,
                },
                "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": kube.namespace}},
                "rules": [
                    {
                        "apiGroups": [""],
                        "apiVersions": ["v1"],
                        "operations": ["CREATE"],
                        "resources": ["pods"],
                    }
                ],
            }
        ],
    }
