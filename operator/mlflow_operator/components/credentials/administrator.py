"""Generate the password of MLflow's administrator once, or check the one that the user manages.

It writes the Secret `<name>-admin`. The component `authentication` brings the password into the database: a lost Secret
does no harm.
"""

from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.framework.generated_secrets import replace_values
from mlflow_operator.kube import kinds
from mlflow_operator.model import authentication, secrets
from mlflow_operator.model.server import BasicAuth
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


async def ensure_password(context: ReconcileContext) -> str | None:
    """Return the administrator's password; None without authentication.

    Raises ConfigurationError if the Secret lacks a password that MLflow accepts.
    """
    auth = context.server.auth
    if auth is None:
        return None
    password = (
        await _ensure_generated(context, auth)
        if auth.is_generated
        else await context.reader.value(auth.password)
    )
    fault = authentication.password_fault(password)
    if fault:
        raise ConfigurationError(
            Reason.SECRET_VALUE_INVALID,
            f'Key "{auth.password.key}" of Secret "{auth.password.name}" ({auth.password.field}) {fault}. Store '
            "another password in it.",
        )
    return password


async def _ensure_generated(context: ReconcileContext, auth: BasicAuth) -> str:
    name = context.server.names.admin_secret
    observed = context.observed.get(kinds.SECRET, name)
    desired = observed or authentication.secret(
        context.server.owner, auth.administrator, context.deps.generate_password()
    )
    stored = await context.ensure(desired, data=True)
    # The Secret of an earlier server of this name may contain another user name.
    stored = await replace_values(context, stored, {authentication.USERNAME: auth.administrator})
    password = secrets.text_values(stored).get(authentication.PASSWORD)
    if not password:
        raise ConfigurationError(
            Reason.SECRET_KEY_MISSING,
            f'Secret "{name}" has lost its key "{authentication.PASSWORD}". Add the key with a new password, or delete '
            "the Secret: the operator then generates a new password.",
        )
    return password
