"""Hint at whitespace in a login that the database rejects.

A user name and a password may contain whitespace, so it is not an error by itself. Postgres only reports that the
login is wrong.
"""

from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ReconcileError

_HINT = "begins or ends with a space or a line break. Write it with printf, because echo adds a line break."


def with_login_hint(error: ReconcileError, connection: Connection) -> ReconcileError:
    """Add to an authentication failure what is probably wrong with the user name or the password of `connection`."""
    if error.reason is not Reason.DATABASE_AUTHENTICATION_FAILED:
        return error
    hints = [
        f"The {name} {_HINT}"
        for name, value in (("user name", connection.username), ("password", connection.password))
        if value != value.strip()
    ]
    if not connection.username:
        hints.append("The user name is empty.")
    return type(error)(error.reason, " ".join([error.message, *hints])) if hints else error
