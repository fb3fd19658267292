"""Access keys in users' Secrets."""

from mlflow_operator.framework.observe import Reader
from mlflow_operator.model.server import SecretKey
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


async def read_access_key(reader: Reader, key_ref: SecretKey) -> str:
    """Read a part of an access key from a user's Secret.

    The value is not stripped, because the server's pods use it exactly as it is in the Secret. Raises
    ConfigurationError if it is empty or has surrounding whitespace.
    """
    value = await reader.value(key_ref)
    if value != value.strip() or not value:
        problem = "begins or ends with a space or a line break" if value else "is empty"
        raise ConfigurationError(
            Reason.SECRET_VALUE_INVALID,
            f'Key "{key_ref.key}" of Secret "{key_ref.name}" ({key_ref.field}) {problem}, which no store '
            "accepts. Write the key again with printf, because echo adds a line break.",
        )
    return value
