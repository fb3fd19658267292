"""What every pod we make has in common: restricted Pod Security, and a home on an emptyDir."""

from collections.abc import Sequence

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import PodSettings, SecretKey

HOME = "/home/mlflow-operator"
"""HOME and TMPDIR of every container: the root file system is read-only, and MLflow dies at import without a
HOME it can write to."""

TRUST = "/etc/mlflow-operator/trust"
"""Where certificates of private authorities are mounted."""

CONTAINER_SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}


def security(user: int, settings: PodSettings) -> Object:
    """The pod's security context; what the spec says wins, field by field.

    `user` is a default only: images without a USER would run as root and be refused. On OpenShift, name a user
    of the namespace's range in `podTemplate.spec.securityContext`.
    """
    return {
        "runAsNonRoot": True,
        "runAsUser": user,
        "runAsGroup": user,
        "fsGroup": user,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    } | settings.security_context


def placement(settings: PodSettings) -> Object:
    """Where any pod of ours may run, and with which pull secrets."""
    placed: Object = {
        "nodeSelector": settings.node_selector,
        "tolerations": list(settings.tolerations),
        "imagePullSecrets": list(settings.pull_secrets),
    }
    if settings.priority_class:
        placed["priorityClassName"] = settings.priority_class
    return {key: value for key, value in placed.items() if value}


def common(user: int, settings: PodSettings) -> Object:
    """The part of a pod's spec that is the same whatever runs in it."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": security(user, settings),
        **placement(settings),
    }


def home_env() -> list[Object]:
    """HOME and TMPDIR."""
    return [{"name": "HOME", "value": HOME}, {"name": "TMPDIR", "value": HOME}]


HOME_VOLUME: Object = {"name": "home", "emptyDir": {}}
HOME_MOUNT: Object = {"name": "home", "mountPath": HOME}


def trust_volume(name: str, authority: SecretKey) -> Object:
    """A certificate of a private authority out of a Secret."""
    return {
        "name": name,
        "secret": {"secretName": authority.name, "items": [{"key": authority.key, "path": "ca.crt"}]},
    }


def trust_mount(name: str) -> Object:
    """Where `trust_volume(name)` is found: `<TRUST>/<name>/ca.crt`."""
    return {"name": name, "mountPath": f"{TRUST}/{name}", "readOnly": True}


def trust_path(name: str) -> str:
    """The file of `trust_volume(name)`."""
    return f"{TRUST}/{name}/ca.crt"


def from_secret(variable: str, key: SecretKey) -> Object:
    """An environment variable out of a Secret."""
    return {"name": variable, "valueFrom": {"secretKeyRef": {"name": key.name, "key": key.key}}}


def value(variable: str, text: str) -> Object:
    """A plain environment variable."""
    return {"name": variable, "value": text}


def http_probe(path: str, port: str, period: int, failures: int, timeout: int = 5) -> Object:
    """An HTTP probe; `period` and `timeout` in seconds."""
    return probe({"httpGet": {"path": path, "port": port}}, period, failures, timeout)


def probe(how: Object, period: int, failures: int, timeout: int = 5) -> Object:
    """A probe of any kind: `how` says what is asked; `period` and `timeout` in seconds."""
    return {
        **how,
        "periodSeconds": period,
        "failureThreshold": failures,
        "timeoutSeconds": timeout,
    }


def merged_env(ours: Sequence[Object], theirs: Sequence[Object]) -> list[Object]:
    """The owner's variables first, so that ours may refer to nothing of theirs and still win by name."""
    taken = {e["name"] for e in ours}
    return [*(e for e in theirs if e["name"] not in taken), *ours]
