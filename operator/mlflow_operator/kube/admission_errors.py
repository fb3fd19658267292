"""Objects that the API server does not let be made: a quota that is used up, a policy that forbids."""

import re

from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

_USED = re.compile(r", used: \S+(?=, |$)")


def exceeds_quota(said: str) -> bool:
    """Whether it is a quota that forbids."""
    return "exceeded quota" in said


def of_quota(what: str, namespace: str, said: str, lower: str = "") -> ConfigurationError:
    """The quota that has no room for `what`; `lower` names the fields that decide how much that takes.

    What is in use is left out: it changes with every other pod of the namespace.
    """
    instead = f", or lower {lower}" if lower else ""
    return ConfigurationError(
        Reason.QUOTA_EXCEEDED,
        f"The namespace's quota has no room for {what}: {_why(_USED.sub('', said))} Raise it{instead}; what is used "
        f"tells: kubectl describe quota -n {namespace}",
    )


def of_pods(part: str, namespace: str, said: str, lower: str) -> ConfigurationError:
    """Why a controller gets no pod for `part` ("the server", say); `said` is the API server's answer to it."""
    if exceeds_quota(said):
        return of_quota(f"the pod of {part}", namespace, said, lower)
    return ConfigurationError(
        Reason.OPERATION_REFUSED,
        f"The API server refuses the pod of {part}: {_why(said)} Mend what it names.",
    )


def _why(said: str) -> str:
    """Without the name of the pod that was refused: it is another one with each try."""
    return message_text.as_sentence(said.partition(" is forbidden: ")[2] or said)
