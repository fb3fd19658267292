"""The two ways in which the world is not as asked. Everything else that is raised is our own bug."""

from mlflow_operator.status.conditions import Reason


class ReconcileError(Exception):
    """Something a condition can say: `reason` for scripts, `message` for people (never a secret in it)."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


class ConfigurationError(ReconcileError):
    """Stays until somebody changes something."""


class TransientError(ReconcileError):
    """May well pass by itself."""
