"""State machine of a rotation. The state is stored in the Secret that contains the credential.

    idle -> the next credential is stored in the Secret -> it is granted access -> it becomes the current credential,
    and the previous username is stored -> the pods are rolled -> the previous credential is revoked -> idle

Every transition is one write of the Secret or an idempotent operation, so a restarted operator resumes from the Secret.
In every state the current credential has access.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from mlflow_operator.kube import timestamps

Values = Mapping[str, str]

ROTATED_AT = "rotatedAt"
"""Key of the Secret: the value of `spec.rotateCredentialsAt` of the last completed switch."""

_NEXT_ROTATED_AT = "nextRotatedAt"


@dataclass(frozen=True)
class CredentialKeys:
    """The keys of a Secret that are replaced together: username and password, or access key id and secret key.

    `derived_values` returns the values that contain both, such as a URI.
    """

    username_key: str
    password_key: str
    derived_values: Callable[[dict[str, str]], Values] = dict

    @property
    def next_username_key(self) -> str:
        """Key with the username that is to be granted access."""
        return _prefixed("next", self.username_key)

    @property
    def next_password_key(self) -> str:
        """Key with the password of the next username."""
        return _prefixed("next", self.password_key)

    @property
    def previous_username_key(self) -> str:
        """Key with the username that is to be revoked."""
        return _prefixed("previous", self.username_key)


class Stage(Enum):
    """The next action of a rotation."""

    IDLE = auto()
    BEGIN = auto()
    GRANT = auto()
    REVOKE = auto()


def stage(values: Values, keys: CredentialKeys, is_due: bool) -> Stage:
    """Return the stage that the Secret is in. A rotation ends before the next one begins."""
    if values.get(keys.previous_username_key):
        return Stage.REVOKE
    if values.get(keys.next_username_key) and values.get(keys.next_password_key):
        return Stage.GRANT
    return Stage.BEGIN if is_due else Stage.IDLE


def is_due(values: Values, created_at: str | None, requested_at: str | None, now: str) -> bool:
    """Whether `requested_at` has passed and is later than the time of these credentials. All times are RFC 3339.

    `created_at` is the creation time of the Secret: credentials generated after `requested_at` are new enough.
    """
    issued_at = values.get(ROTATED_AT) or created_at
    if requested_at is None or timestamps.parse(requested_at) > timestamps.parse(now):
        return False
    return issued_at is None or timestamps.parse(requested_at) > timestamps.parse(issued_at)


def add_next(
    values: Values, keys: CredentialKeys, username: str, password: str, requested_at: str
) -> dict[str, str]:
    """Return the values with the next credential added; it has no access yet."""
    return {
        **values,
        keys.next_username_key: username,
        keys.next_password_key: password,
        _NEXT_ROTATED_AT: requested_at,
    }


def switch_to_next(values: Values, keys: CredentialKeys) -> dict[str, str]:
    """Return the values with the next credential as the current one; the previous one still has access."""
    remaining = {
        key: text
        for key, text in values.items()
        if key not in {keys.next_username_key, keys.next_password_key, _NEXT_ROTATED_AT}
    }
    current = {
        **remaining,
        keys.username_key: values[keys.next_username_key],
        keys.password_key: values[keys.next_password_key],
    }
    # If a user added a next credential manually with the current username, there is no previous one to revoke.
    previous = (
        {keys.previous_username_key: values[keys.username_key]}
        if values[keys.username_key] != current[keys.username_key]
        else {}
    )
    rotated_at = {ROTATED_AT: values[_NEXT_ROTATED_AT]} if values.get(_NEXT_ROTATED_AT) else {}
    return {**current, **keys.derived_values(current), **previous, **rotated_at}


def remove_previous(values: Values, keys: CredentialKeys) -> dict[str, str]:
    """Return the values without the previous username."""
    return {key: text for key, text in values.items() if key != keys.previous_username_key}


def next_name(current: str, names: Sequence[str]) -> str:
    """Return the first of the alternating names that is not in use."""
    return next(name for name in names if name != current)


def _prefixed(prefix: str, key: str) -> str:
    return f"{prefix}{key[0].upper()}{key[1:]}"
