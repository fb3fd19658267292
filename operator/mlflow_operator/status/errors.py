"""Expected errors of a reconcile. Any other exception is a bug of the operator."""

from mlflow_operator.status.conditions import Reason


class ReconcileError(Exception):
    """Error that becomes a condition with this reason and message. The message must not contain a secret."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ConfigurationError(ReconcileError):
    """Error that persists until a user changes something."""


class TransientError(ReconcileError):
    """Error that may resolve by itself."""
