"""Errors of a platform's stores. The users of a server can correct neither the stores nor the platform."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from mlflow_operator.model.platform import ARTIFACTS_FIELD, Part, field_prefix
from mlflow_operator.model.platform_choice import NOUNS
from mlflow_operator.model.server import PlatformOrigin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ReconcileError

E = TypeVar("E", bound=ReconcileError)

_OF_THE_SERVER = {Reason.INVALID_RESOURCE, Reason.PROGRESSING}
"""Reasons of errors that have their cause in the server's spec, or none."""

_UNPREFIXED_FIELD = re.compile(rf"(?<!, ){re.escape(ARTIFACTS_FIELD)}")


@contextmanager
def of_platform(origin: PlatformOrigin | None, part: Part) -> Iterator[None]:
    """Make the errors name the platform `origin`. None: the store belongs to no platform, and nothing changes."""
    try:
        yield
    except ReconcileError as error:
        if origin is None:
            raise
        raise with_platform(error, origin, part) from None


def with_platform(error: E, origin: PlatformOrigin, part: Part) -> E:
    """Return the error with the platform in its message, and whom to ask.

    The clients of stores name the fields of an MLflowServer. Each such field is one of the platform here.
    """
    message = _UNPREFIXED_FIELD.sub(f"{field_prefix(origin.name)}{ARTIFACTS_FIELD}", error.message)
    if error.reason not in _OF_THE_SERVER and f'MLflowPlatform "{origin.name}"' not in message:
        message += f' This {NOUNS[part]} belongs to MLflowPlatform "{origin.name}": ask its administrator.'
    return type(error)(error.reason, message)
