"""Keys with which MLflow encrypts secrets in the database: variables of the pods, and the Secret that holds the keys.

MLflow derives the key for gateway secrets from a passphrase and its version, and stores the version with each secret.
The operator derives the version of a generated passphrase from the passphrase, so that two servers never use the same
version for different passphrases. Version 1 is that of MLflow's public default passphrase.

The generated Secret is a keyring: it keeps earlier keys, which older backups need.
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from mlflow_operator.api.encryption import Encryption as EncryptionSpec
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, secrets
from mlflow_operator.model.metadata import data_metadata
from mlflow_operator.model.server import EncryptionKeys, SecretKey, Server, ServerRef

PASSPHRASE_ENV, VERSION_ENV = "MLFLOW_CRYPTO_KEK_PASSPHRASE", "MLFLOW_CRYPTO_KEK_VERSION"
WEBHOOK_KEY_ENV, FLASK_KEY_ENV = "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY", "MLFLOW_FLASK_SERVER_SECRET_KEY"

PASSPHRASE, VERSION = "passphrase", "passphrase-version"
WEBHOOK_KEY, FLASK_KEY = "webhook-key", "flask-secret-key"
"""Keys of the generated Secret with the values that the pods use."""
NEXT_VERSION = "next-passphrase-version"
"""Key of the version of the passphrase that the stored secrets are being encrypted with. No pod uses it yet."""
ROTATED_AT, NEXT_ROTATED_AT = "passphrase-rotated-at", "next-passphrase-rotated-at"
"""Keys of the values of `spec.encryption.rotatePassphraseAt` that requested the current and the next passphrase."""

PUBLIC_VERSION = 1
"""Version of MLflow's default passphrase, which is published in its source."""
MAX_VERSION = 2**31 - 1
"""Maximum of the column in MLflow's database."""

KEYRING_ENV, KEYRING_VOLUMES = "KEYRING", ("encryption-keys", "own-encryption-keys")
_KEYRING_DIR = "/etc/mlflow-operator/keys"
_PASSPHRASE_KEY = re.compile(rf"{PASSPHRASE}-([1-9]\d{{0,9}})")
_FERNET_KEY_BYTES, _FERNET_MAC_BYTES = 32, 32


@dataclass(frozen=True)
class EncryptedSecrets:
    """Secrets in the database: versions of the passphrases of gateway secrets; IDs and Fernet tokens of webhooks."""

    passphrase_versions: frozenset[int] = frozenset()
    webhooks: tuple[tuple[str, str], ...] = ()


def resolve(
    owner: ServerRef,
    spec: EncryptionSpec,
    user_variables: Collection[str],
    generated_keys: Collection[str] | None,
    rotation_requested_at: str | None,
) -> EncryptionKeys:
    """The keys that the pods get. `user_variables`: names that `spec.env` and `spec.envFrom` set; these are kept.

    `generated_keys`: keys of the generated Secret, None if unknown. Until a passphrase is current, the pods get none.
    """
    ref = spec.secret_ref
    if ref:
        field = "spec.encryption.secretRef"
        passphrase = SecretKey(ref.name, ref.passphrase_key, field)
        version = SecretKey(ref.name, ref.passphrase_version_key, field)
        webhook = SecretKey(ref.name, ref.webhook_key, field)
        flask = SecretKey(ref.name, ref.flask_key, field, optional=True)
        is_current = True
    else:
        passphrase, version, webhook, flask = (
            generated_key(owner.names.encryption_secret, key)
            for key in (PASSPHRASE, VERSION, WEBHOOK_KEY, FLASK_KEY)
        )
        is_current = generated_keys is None or PASSPHRASE in generated_keys
    sets_passphrase = not {PASSPHRASE_ENV, VERSION_ENV} & set(user_variables)
    return EncryptionKeys(
        secret=passphrase.name,
        is_generated=ref is None,
        manages_passphrase=sets_passphrase,
        passphrase=passphrase if sets_passphrase and is_current else None,
        passphrase_version=version if sets_passphrase and is_current else None,
        webhook_key=None if WEBHOOK_KEY_ENV in user_variables else webhook,
        flask_key=None if FLASK_KEY_ENV in user_variables else flask,
        rotation_requested_at=rotation_requested_at,
    )


def generated_key(secret: str, key: str) -> SecretKey:
    """A key of the generated Secret."""
    return SecretKey(secret, key, "spec.encryption")


def env(keys: EncryptionKeys) -> list[Object]:
    """Environment of every process that reads or writes encrypted secrets."""
    return [container_parts.env_from_secret(name, key) for name, key in _variables(keys)]


def without_variables(keys: EncryptionKeys) -> EncryptionKeys:
    """The same keys for a process that needs none of them."""
    return replace(keys, passphrase=None, passphrase_version=None, webhook_key=None, flask_key=None)


def secret_keys(keys: EncryptionKeys) -> list[SecretKey]:
    """The keys of Secrets that `env` refers to."""
    return [key for _, key in _variables(keys)]


def _variables(keys: EncryptionKeys) -> list[tuple[str, SecretKey]]:
    variables = (
        (PASSPHRASE_ENV, keys.passphrase),
        (VERSION_ENV, keys.passphrase_version),
        (WEBHOOK_KEY_ENV, keys.webhook_key),
        (FLASK_KEY_ENV, keys.flask_key),
    )
    return [(name, key) for name, key in variables if key and not keys.is_withheld]


def keyring_volumes(server: Server) -> list[Object]:
    """Volumes with all keys: the generated ones, also if the spec references a Secret now, and the referenced ones."""
    return [
        {"name": volume, "secret": {"secretName": secret, "optional": True}}
        for volume, secret in _keyring_secrets(server)
    ]


def keyring_mounts(server: Server) -> list[Object]:
    """Volume mounts for `keyring_volumes`."""
    return [
        {"name": volume, "mountPath": f"{_KEYRING_DIR}/{volume}", "readOnly": True}
        for volume, _ in _keyring_secrets(server)
    ]


def keyring_env(server: Server) -> Object:
    """The variable with the folders of the keys."""
    folders = (f"{_KEYRING_DIR}/{volume}" for volume, _ in _keyring_secrets(server))
    return container_parts.env_value(KEYRING_ENV, ":".join(folders))


def _keyring_secrets(server: Server) -> list[tuple[str, str]]:
    generated, referenced = KEYRING_VOLUMES
    pairs = [(generated, server.names.encryption_secret)]
    if not server.encryption.is_generated:
        pairs.append((referenced, server.encryption.secret))
    return pairs


def new_values(first_token: str, second_token: str, third_token: str) -> dict[str, str]:
    """Values of a new generated Secret from three random tokens. Its passphrase is not current yet.

    It becomes current once no stored secret is encrypted with another passphrase.
    """
    webhook_key = fernet_key(second_token)
    return {
        **next_passphrase(first_token),
        WEBHOOK_KEY: webhook_key,
        f"{WEBHOOK_KEY}-{webhook_key_id(webhook_key)}": webhook_key,
        FLASK_KEY: third_token,
    }


def next_passphrase(passphrase: str, requested_at: str | None = None) -> dict[str, str]:
    """Values that add a passphrase to the keyring. No pod uses it yet. `requested_at`: the time in the spec."""
    version = str(version_of(passphrase))
    rotated_at = {NEXT_ROTATED_AT: requested_at} if requested_at else {}
    return {f"{PASSPHRASE}-{version}": passphrase, NEXT_VERSION: version, **rotated_at}


def with_current_passphrase(values: Mapping[str, str]) -> dict[str, str]:
    """Values of the generated Secret after the next passphrase became the current one."""
    version = values[NEXT_VERSION]
    current = {PASSPHRASE: values[f"{PASSPHRASE}-{version}"], VERSION: version}
    rotated = {ROTATED_AT: values[NEXT_ROTATED_AT]} if NEXT_ROTATED_AT in values else {}
    remaining = {key: text for key, text in values.items() if key not in {NEXT_VERSION, NEXT_ROTATED_AT}}
    return remaining | current | rotated


def lost_key(values: Mapping[str, str]) -> str | None:
    """The first key that the generated Secret must have and has lost; None if it is complete."""
    required = [WEBHOOK_KEY, FLASK_KEY]
    next_version = values.get(NEXT_VERSION)
    if next_version:
        required.append(f"{PASSPHRASE}-{next_version}")
    if not next_version or values.get(PASSPHRASE) or values.get(VERSION):
        required += [PASSPHRASE, VERSION]
    return next((key for key in required if not values.get(key)), None)


def version_of(passphrase: str) -> int:
    """The version of a generated passphrase: 31 bits of a hash, never that of the public passphrase.

    A passphrase has 192 random bits, so the version does not help to guess it.
    """
    digest = hashlib.sha256(b"mlflow-operator passphrase version " + passphrase.encode()).digest()
    return PUBLIC_VERSION + 1 + int.from_bytes(digest[:8]) % (MAX_VERSION - PUBLIC_VERSION)


def versions(values: Mapping[str, str]) -> set[int]:
    """Versions of all passphrases in a keyring, except those that are valid only as current values."""
    return {int(found[1]) for found in map(_PASSPHRASE_KEY.fullmatch, values) if found}


def parse_version(text: str) -> int | None:
    """A version of a passphrase that a user set; None if it is invalid."""
    text = text.strip()
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        return None
    return int(text) if PUBLIC_VERSION <= int(text) <= MAX_VERSION else None


def fernet_key(token: str) -> str:
    """Derive a Fernet key from a random token of 192 bits."""
    return base64.urlsafe_b64encode(hashlib.sha256(token.encode()).digest()).decode()


def is_fernet_key(key: str) -> bool:
    """Whether MLflow accepts the key; otherwise it would not start."""
    return _key_bytes(key) is not None


def webhook_key_id(key: str) -> str:
    """Identifier of a key in its name. A Fernet key has 256 random bits, so the hash does not help to guess it."""
    return hashlib.sha256(b"mlflow-operator webhook key " + key.strip().encode()).hexdigest()[:16]


def webhook_keys(values: Mapping[str, str]) -> list[str]:
    """All webhook keys in a keyring."""
    return [
        text
        for key, text in sorted(values.items())
        if key == WEBHOOK_KEY or key.startswith(f"{WEBHOOK_KEY}-")
    ]


def encrypts(key: str, token: str) -> bool:
    """Whether a Fernet token was encrypted with `key`: its last 32 bytes authenticate the others."""
    key_bytes = _key_bytes(key)
    try:
        message = base64.urlsafe_b64decode(token.encode())
    except (binascii.Error, ValueError):
        return False
    if key_bytes is None or len(message) <= _FERNET_MAC_BYTES:
        return False
    expected = hmac.digest(key_bytes[: _FERNET_KEY_BYTES // 2], message[:-_FERNET_MAC_BYTES], "sha256")
    return hmac.compare_digest(expected, message[-_FERNET_MAC_BYTES:])


def unreadable_webhooks(webhooks: Iterable[tuple[str, str]], keys: Iterable[str]) -> list[str]:
    """IDs of the webhooks whose secrets none of the keys decrypts. `webhooks`: IDs and Fernet tokens."""
    known = list(keys)
    return sorted(webhook for webhook, token in webhooks if not any(encrypts(key, token) for key in known))


def secret(owner: ServerRef, values: Mapping[str, str]) -> Object:
    """The generated Secret."""
    metadata = data_metadata(owner, owner.names.encryption_secret, labels.SERVER_POD)
    return secrets.opaque_secret(metadata, values)


def rendered_secret(owner: ServerRef, token: str) -> Object:
    """The generated Secret of a server without stored secrets, with keys from one random token."""
    values = new_values(token, f"webhook {token}", f"flask {token}")
    return secret(owner, with_current_passphrase(values))


def _key_bytes(key: str) -> bytes | None:
    try:
        decoded = base64.urlsafe_b64decode(key.encode())
    except (binascii.Error, ValueError):
        return None
    return decoded if len(decoded) == _FERNET_KEY_BYTES else None
