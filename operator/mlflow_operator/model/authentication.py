"""Basic authentication: variables of the pods, the Secret of the administrator, and what the operator observes.

MLflow stores users and roles in tables of the tracking database, which have a schema revision of their own. Jobs
migrate these tables and create the administrator; server pods never do, and never get the administrator's password.
"""

from dataclasses import dataclass, field, replace

from mlflow_operator.api.authentication import (
    MIN_PASSWORD_CHARS,
    Administrator,
    DefaultPermission,
    is_without_roles,
)
from mlflow_operator.api.authentication import Authentication as AuthenticationSpec
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, secrets
from mlflow_operator.model.metadata import data_metadata
from mlflow_operator.model.server import BasicAuth, SecretKey, Server, ServerRef
from mlflow_operator.model.versions import AUTH_SCHEMA_HEADS, FAST_PATH_VERSIONS

TYPE_ENV, ADMIN_ENV = "MLFLOW_OPERATOR_AUTH", "MLFLOW_OPERATOR_AUTH_ADMIN"
DEFAULT_PERMISSION_ENV = "MLFLOW_OPERATOR_AUTH_DEFAULT_PERMISSION"
ADMIN_PASSWORD_ENV = "MLFLOW_OPERATOR_AUTH_ADMIN_PASSWORD"  # noqa: S105 - the name of a variable
CLIENT_ENV = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"
"""Variables from which MLflow's clients read their credentials."""

USERNAME, PASSWORD = "username", "password"
"""Keys of the generated Secret."""

_PUBLIC_PASSWORD = "password1234"  # noqa: S105 - that of earlier MLflow versions, which servers refuse

_PERMISSIONS = {
    DefaultPermission.NONE: "NO_PERMISSIONS",
    DefaultPermission.READ: "READ",
    DefaultPermission.USE: "USE",
    DefaultPermission.EDIT: "EDIT",
    DefaultPermission.MANAGE: "MANAGE",
}
"""MLflow's names of the permissions."""


@dataclass(frozen=True)
class Accounts:
    """What the database contains about accounts.

    `revision`: schema revision of the tables, None if they do not exist. `users`: number of users.
    `password_hash` and `is_admin` are those of the administrator; `password_hash` is None if there is no such user.
    """

    revision: str | None = None
    users: int = 0
    password_hash: str | None = field(default=None, repr=False)
    is_admin: bool = False


def resolve(owner: ServerRef, spec: AuthenticationSpec | None) -> BasicAuth | None:
    """Return the basic authentication that the spec requires; None if it requires none."""
    if spec is None or not spec.is_basic:
        return None
    admin = spec.admin or Administrator()
    ref = admin.password_secret_ref
    return BasicAuth(
        administrator=admin.username,
        password=(
            SecretKey(ref.name, ref.key, "spec.auth.admin.passwordSecretRef")
            if ref
            else SecretKey(owner.names.admin_secret, PASSWORD, "spec.auth.admin")
        ),
        is_generated=ref is None,
        default_permission=_PERMISSIONS[spec.default_permission or DefaultPermission.NONE],
    )


def is_unsupported(server: Server) -> bool:
    """Whether the image is known to contain an MLflow version without roles."""
    return server.version_is_explicit and is_without_roles(server.version)


def known_head(server: Server) -> str | None:
    """Revision of the tables that the image needs; None if it is not known without running the image."""
    return AUTH_SCHEMA_HEADS.get(server.version) if server.is_default_image else None


def checks_passwords(server: Server) -> bool:
    """Whether the operator's own application checks passwords. MLflow does otherwise, and caches the results."""
    return server.auth is not None and server.is_default_image and server.version in FAST_PATH_VERSIONS


def server_env(server: Server) -> list[Object]:
    """Variables with which the server's pods require authentication. They contain no password."""
    auth = server.auth
    if auth is None or not server.requires_login:
        return []
    return [
        container_parts.env_value(TYPE_ENV, "basic"),
        container_parts.env_value(ADMIN_ENV, auth.administrator),
        container_parts.env_value(DEFAULT_PERMISSION_ENV, auth.default_permission),
    ]


def job_env(server: Server) -> list[Object]:
    """Variables with which a Job migrates the tables, and creates the administrator or resets the password."""
    auth = server.auth
    if auth is None or is_unsupported(server):
        return []
    return [
        container_parts.env_value(ADMIN_ENV, auth.administrator),
        container_parts.env_from_secret(ADMIN_PASSWORD_ENV, auth.password),
    ]


def client_env(server: Server) -> list[Object]:
    """Variables with which a client in a pod of the operator logs in as the administrator."""
    auth = server.auth
    if auth is None or not server.requires_login:
        return []
    username, password = CLIENT_ENV
    return [
        container_parts.env_value(username, auth.administrator),
        container_parts.env_from_secret(password, auth.password),
    ]


def is_enforced_by(deployment: Object | None) -> bool:
    """Whether the pods of an existing Deployment require authentication."""
    if deployment is None:
        return False
    containers = deployment["spec"]["template"]["spec"]["containers"]
    # An admission webhook may have added another container before that of the server.
    return any(
        variable["name"] == TYPE_ENV for container in containers for variable in container.get("env") or ()
    )


def must_wait(server: Server, deployment: Object | None) -> bool:
    """Whether the server has pods without authentication, which continue until the accounts are ready.

    A server without pods is not started before that. The template of a suspended one stays as it is.
    """
    if deployment is None or is_enforced_by(deployment):
        return False
    return bool(deployment["spec"].get("replicas")) or server.suspended


def withheld(server: Server, *, is_withheld: bool) -> Server:
    """The server with pods that do not require authentication yet, or that do."""
    return replace(server, auth=replace(server.auth, is_withheld=is_withheld)) if server.auth else server


def status(server: Server, deployment: Object | None, accounts: Accounts | None) -> Object:
    """The fields of the status. `deployment` is the one after this reconcile, `accounts` None if they are unknown."""
    if server.auth is None:
        declined: Object = {"type": "None"} if server.declines_auth else {}
        return {"auth": declined, "adminSecretRef": {}}
    known: Object = {}
    if accounts and accounts.revision:
        known = {"schemaRevision": accounts.revision, "users": accounts.users}
    type_known = {"type": "Basic" if is_enforced_by(deployment) else "None"} if deployment else {}
    return {
        "auth": {
            **type_known,
            **known,
            "passwordCheck": "Direct" if checks_passwords(server) else "Cached",
        },
        "adminSecretRef": {"name": server.auth.password.name},
    }


def password_fault(password: str) -> str | None:
    """Why MLflow does not accept a password, as the end of a sentence; None if it does."""
    if len(password) < MIN_PASSWORD_CHARS:
        return f"has fewer than {MIN_PASSWORD_CHARS} characters, and MLflow accepts no shorter password"
    if password == _PUBLIC_PASSWORD:
        return "is a former default password of MLflow, which is public"
    if any(character < " " or character == "\x7f" for character in password):
        return "contains a line break or another control character, which clients cannot send"
    return None


def secret(owner: ServerRef, username: str, password: str) -> Object:
    """The generated Secret of the administrator."""
    metadata = data_metadata(owner, owner.names.admin_secret, labels.SERVER_POD)
    values = {USERNAME: username, PASSWORD: password}
    return secrets.opaque_secret(metadata, values) | {"type": "kubernetes.io/basic-auth"}
