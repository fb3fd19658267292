"""How a credential is replaced while it is in use, one step at a time, with the state in the Secret that holds it.

    at rest -> begun: the next one is noted -> it is let in -> switched: the next is the one in use, the one before is
    noted -> pods are rolled -> the one before is shut out -> at rest

Each arrow is one write of the Secret, or something that can be done twice; so whoever is cut off anywhere is followed
by one who goes on. And at each point the one in use gets in.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum, auto

Values = Mapping[str, str]

ROTATED_AT = "rotatedAt"
"""Key of the Secret: the `spec.rotateCredentialsAt` that was last carried out."""

_NEXT_AT = "nextRotatedAt"


@dataclass(frozen=True)
class CredentialKeys:
    """The keys of a Secret that are replaced together: who gets in, and by which word.

    `spelled` gives all keys that say the same in other words, such as a URI.
    """

    username_key: str
    password_key: str
    as_text: Callable[[dict[str, str]], Values] = dict

    @property
    def next_username_key(self) -> str:
        """Key for who is to be let in."""
        return _prefixed("next", self.username_key)

    @property
    def next_password_key(self) -> str:
        """Key for the word of who is to be let in."""
        return _prefixed("next", self.password_key)

    @property
    def previous(self) -> str:
        """Key for who is to be shut out."""
        return _prefixed("previous", self.username_key)


class Stage(Enum):
    """What is to be done next."""

    IDLE = auto()
    BEGIN = auto()
    GRANT = auto()
    REVOKE = auto()


def stage(values: Values, pair: CredentialKeys, due: bool) -> Stage:
    """Where the Secret says that we are. One rotation ends before the next begins."""
    if values.get(pair.previous):
        return Stage.REVOKE
    if values.get(pair.next_username_key) and values.get(pair.next_password_key):
        return Stage.GRANT
    return Stage.BEGIN if due else Stage.IDLE


def due(values: Values, made: str | None, wanted: str | None, now: str) -> bool:
    """Whether `wanted` has come, and asks for newer credentials than these. All are RFC 3339.

    `made`: when the Secret was made, for what was generated after that time is new enough.
    """
    since = values.get(ROTATED_AT) or made
    if wanted is None or _time(wanted) > _time(now):
        return False
    return since is None or _time(wanted) > _time(since)


def begun(values: Values, pair: CredentialKeys, who: str, word: str, at: str) -> dict[str, str]:
    """With the next one noted; nobody knows of it yet."""
    return {**values, pair.next_username_key: who, pair.next_password_key: word, _NEXT_AT: at}


def switched(values: Values, pair: CredentialKeys) -> dict[str, str]:
    """With the next one in use, and the one before still let in."""
    kept = {
        key: text
        for key, text in values.items()
        if key not in {pair.next_username_key, pair.next_password_key, _NEXT_AT}
    }
    new = {
        **kept,
        pair.username_key: values[pair.next_username_key],
        pair.password_key: values[pair.next_password_key],
    }
    # who was let in by hand under the name in use has nobody before him
    before = (
        {pair.previous: values[pair.username_key]}
        if values[pair.username_key] != new[pair.username_key]
        else {}
    )
    at = {ROTATED_AT: values[_NEXT_AT]} if values.get(_NEXT_AT) else {}
    return {**new, **pair.as_text(new), **before, **at}


def ended(values: Values, pair: CredentialKeys) -> dict[str, str]:
    """With nobody but the one in use."""
    return {key: text for key, text in values.items() if key != pair.previous}


def other(current: str, names: Sequence[str]) -> str:
    """Of the names that take turns, one that is not in use."""
    return next(name for name in names if name != current)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _prefixed(prefix: str, key: str) -> str:
    return f"{prefix}{key[0].upper()}{key[1:]}"
