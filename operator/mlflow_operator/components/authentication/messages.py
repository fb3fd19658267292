"""Messages of the condition AuthenticationReady and of the Events about authentication."""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import BasicAuth, Server
from mlflow_operator.status import message_text

GUIDE = "docs/guides/authentication.md"

ENABLED = (
    "The server now requires a user name and a password: it refuses clients without credentials. Existing experiments "
    "and models belong to no user, so users see only what their roles grant. To create users and grant permissions, "
    f"see {GUIDE}."
)
DISABLED = "The server no longer requires credentials: every client that can connect to it has full access."


def ready(auth: BasicAuth) -> str:
    """The accounts are ready, and all pods require authentication from their next start on."""
    return (
        "Clients need a user name and a password; users see only what their roles grant. The password of the "
        f'administrator "{auth.administrator}" is in Secret "{auth.password.name}". To create users and grant '
        f"permissions, see {GUIDE}."
    )


def in_progress(auth: BasicAuth) -> str:
    """A Job prepares the accounts."""
    return f"Preparing MLflow's tables of users and the administrator's account.{consequence(auth)}"


def consequence(auth: BasicAuth) -> str:
    """A sentence, with a leading space, if the server runs without authentication until the accounts are ready."""
    if not auth.is_withheld:
        return ""
    return " Until that is done, the server keeps running without authentication."


def unsupported(server: Server) -> str:
    """The version has no roles."""
    after = (
        "The server keeps running without authentication"
        if server.auth and server.auth.is_withheld
        else "The server is not started"
    )
    return (
        f"spec.auth requires MLflow 3.14.0 or later, and {server.version} has no roles. {after}. "
        "Set spec.version to a later version, or remove spec.auth."
    )


def job_failed(server: Server, job: Object, termination_message: str) -> str:
    """A Job failed; it is retried."""
    lines = message_text.last_lines(termination_message)
    details = f" Its last lines: {lines}" if lines else ""
    after = consequence(server.auth) if server.auth else ""
    return (
        f"The Job \"{job['metadata']['name']}\" could not prepare MLflow's tables of users and the administrator's "
        f"account. Running pods are not changed.{after} The Job is retried automatically.{details}"
    )


def administrator_created(auth: BasicAuth) -> str:
    """The account did not exist."""
    return (
        f'Created the administrator "{auth.administrator}" of MLflow, with the password in Secret '
        f'"{auth.password.name}".'
    )


def password_reset(auth: BasicAuth) -> str:
    """The account had another password, or was no administrator."""
    return (
        f'The account "{auth.administrator}" of MLflow had another password than the one in Secret '
        f'"{auth.password.name}", or was no administrator. Both are reset.'
    )
