"""Parts of containers and their volumes: environment variables, probes, CA certificates, the home directory."""

from collections.abc import Sequence

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import SecretKey

HOME = "/home/mlflow-operator"
"""HOME and TMPDIR of every container. The root file system is read-only, and the import of MLflow fails without a
writable HOME."""

CA_DIR = "/etc/mlflow-operator/trust"
"""Directory for the mounted CA certificates."""

CONTAINER_SECURITY: Object = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "readOnlyRootFilesystem": True,
}

OVERRIDABLE_ENV = ("AWS_REQUEST_CHECKSUM_CALCULATION", "AWS_RESPONSE_CHECKSUM_VALIDATION")
"""Variables that the operator sets only if the user does not."""

_PROXY_ENV = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"})
_NO_PROXY = ".svc,localhost,127.0.0.1,::1"


def home_env() -> list[Object]:
    """HOME and TMPDIR."""
    return [{"name": "HOME", "value": HOME}, {"name": "TMPDIR", "value": HOME}]


HOME_VOLUME: Object = {"name": "home", "emptyDir": {}}
HOME_MOUNT: Object = {"name": "home", "mountPath": HOME}


def ca_volume(name: str, ca: SecretKey) -> Object:
    """A volume with the CA certificate from a Secret."""
    return {
        "name": name,
        "secret": {"secretName": ca.name, "items": [{"key": ca.key, "path": "ca.crt"}]},
    }


def ca_mount(name: str) -> Object:
    """Mount of `ca_volume(name)`: the certificate is `<CA_DIR>/<name>/ca.crt`."""
    return {"name": name, "mountPath": f"{CA_DIR}/{name}", "readOnly": True}


def ca_path(name: str) -> str:
    """Path of the certificate of `ca_volume(name)`."""
    return f"{CA_DIR}/{name}/ca.crt"


def env_from_secret(variable: str, key: SecretKey) -> Object:
    """An environment variable with a value from a Secret."""
    reference: Object = {"name": key.name, "key": key.key}
    if key.optional:
        reference["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": reference}}


def env_value(variable: str, text: str) -> Object:
    """An environment variable with a literal value."""
    return {"name": variable, "value": text}


def http_probe(path: str, port: str, period_seconds: int, failures: int, timeout_seconds: int = 5) -> Object:
    """A probe with an HTTP GET request."""
    return probe({"httpGet": {"path": path, "port": port}}, period_seconds, failures, timeout_seconds)


def probe(handler: Object, period_seconds: int, failures: int, timeout_seconds: int = 5) -> Object:
    """A probe. `handler` is its action, for example `httpGet`."""
    return {
        **handler,
        "periodSeconds": period_seconds,
        "failureThreshold": failures,
        "timeoutSeconds": timeout_seconds,
    }


def merged_env(operator_env: Sequence[Object], user_env: Sequence[Object]) -> list[Object]:
    """The user's variables, then the operator's. A user variable named like an operator variable is dropped.

    The operator's variables refer to no variable of the user and take precedence over one of the same name, except
    those that the user may override.
    """
    operator_env = [*without_overridden(operator_env, user_env), *_proxy_exceptions(user_env)]
    reserved = {e["name"] for e in operator_env}
    return [*(e for e in user_env if e["name"] not in reserved), *operator_env]


def _proxy_exceptions(user_env: Sequence[Object]) -> list[Object]:
    """NO_PROXY, if the user sets a proxy and no exceptions: no proxy can reach the Services of the server."""
    names = {e["name"].upper() for e in user_env}
    if not names & _PROXY_ENV or "NO_PROXY" in names:
        return []
    return [env_value(name, _NO_PROXY) for name in ("NO_PROXY", "no_proxy")]


def without_overridden(operator_env: Sequence[Object], user_env: Sequence[Object]) -> list[Object]:
    """The operator's variables without those that the user overrides."""
    overridden = {e["name"] for e in user_env} & set(OVERRIDABLE_ENV)
    return [e for e in operator_env if e["name"] not in overridden]
