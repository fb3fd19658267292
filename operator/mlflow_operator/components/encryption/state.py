"""What must be done so that the stored secrets are encrypted with the current keys of the server. Pure.

A generated passphrase has three states, which the Secret stores: next (the stored secrets are being encrypted with it),
current (the pods use it), and earlier (older backups need it). It becomes current once no stored secret is encrypted
with another passphrase. Each transition is one write, so a restarted operator resumes from the Secret and the database.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_operator.kube import timestamps
from mlflow_operator.model import encryption
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.server import EncryptionKeys, SecretKey


@dataclass(frozen=True)
class Keys:
    """The keys of a server and what is encrypted with others.

    `version`: version of the passphrase that all gateway secrets must have, None if the operator does not manage it.
    `passphrase`: its key in a Secret. `is_next`: it is not current yet.
    `stale`: versions of passphrases that must be replaced; `unknown`: those of them that the operator does not have.
    `recoverable`: webhooks whose secrets an earlier key decrypts; `unreadable`: those that no key decrypts.
    """

    version: int | None
    passphrase: SecretKey | None
    is_next: bool
    stale: tuple[int, ...]
    unknown: tuple[int, ...]
    recoverable: tuple[str, ...]
    unreadable: tuple[str, ...]

    @property
    def needs_job(self) -> bool:
        """Whether stored secrets can and must be encrypted with the current keys."""
        return bool(set(self.stale) - set(self.unknown) or self.recoverable)


def analyze(
    keys: EncryptionKeys,
    generated: Mapping[str, str],
    referenced: Mapping[str, str],
    stored: EncryptedSecrets,
) -> Keys:
    """Compare the stored secrets with the keys.

    `generated`: values of the generated Secret, empty if it does not exist. `referenced`: values of the Secret that the
    spec references, empty if there is none.
    """
    version, passphrase, is_next = _target(keys, generated, referenced)
    stale = sorted(stored.passphrase_versions - {version}) if version is not None else []
    known = {encryption.PUBLIC_VERSION} | encryption.versions(generated) | encryption.versions(referenced)
    webhook_key = (referenced or generated).get(keys.webhook_key.key, "") if keys.webhook_key else ""
    unread = encryption.unreadable_webhooks(stored.webhooks, [webhook_key]) if webhook_key else []
    all_keys = [*encryption.webhook_keys(generated), *encryption.webhook_keys(referenced)]
    unreadable = encryption.unreadable_webhooks(
        ((webhook, token) for webhook, token in stored.webhooks if webhook in unread), all_keys
    )
    return Keys(
        version,
        passphrase,
        is_next,
        tuple(stale),
        tuple(number for number in stale if number not in known),
        tuple(webhook for webhook in unread if webhook not in unreadable),
        tuple(unreadable),
    )


def _target(
    keys: EncryptionKeys, generated: Mapping[str, str], referenced: Mapping[str, str]
) -> tuple[int | None, SecretKey | None, bool]:
    if not keys.manages_passphrase:
        return None, None, False
    if keys.passphrase_version and not keys.is_generated:
        version = encryption.parse_version(referenced.get(keys.passphrase_version.key, ""))
        return version, keys.passphrase, False
    next_version = generated.get(encryption.NEXT_VERSION)
    text = next_version or generated.get(encryption.VERSION)
    if not text:
        return None, None, False
    name = f"{encryption.PASSPHRASE}-{text}" if next_version else encryption.PASSPHRASE
    return encryption.parse_version(text), encryption.generated_key(keys.secret, name), bool(next_version)


def rotation_is_due(
    values: Mapping[str, str], created_at: str | None, requested_at: str | None, now: str
) -> bool:
    """Whether the generated passphrase must be replaced: `requested_at` has passed and is later than its creation.

    All times are RFC 3339. A rotation ends before the next one begins.
    """
    if requested_at is None or encryption.NEXT_VERSION in values:
        return False
    if timestamps.parse(requested_at) > timestamps.parse(now):
        return False
    issued_at = values.get(encryption.ROTATED_AT) or created_at
    return issued_at is None or timestamps.parse(requested_at) > timestamps.parse(issued_at)
