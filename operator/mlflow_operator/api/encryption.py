"""Keys with which MLflow encrypts secrets in the database: `spec.encryption`."""

from typing import Annotated

from pydantic import AwareDatetime, Field

from mlflow_operator.api.model import Model
from mlflow_operator.api.rules import Rule
from mlflow_operator.api.string_types import DataKey, ObjectName


class EncryptionSecretRef(Model):
    """Reference to a Secret with the encryption keys of the server."""

    name: Annotated[ObjectName, Field(examples=["tracking-keys"])]
    """Name of the Secret, in the namespace of the server."""
    passphrase_key: DataKey = "passphrase"  # noqa: S105 - the name of a key
    """Key of the passphrase from which MLflow derives the key for gateway secrets. Defaults to passphrase."""
    passphrase_version_key: DataKey = "passphrase-version"  # noqa: S105 - the name of a key
    """Key of the version of the passphrase, an integer. Each passphrase needs another version. Version 1 is that of
    MLflow's public default passphrase. Defaults to passphrase-version.
    """
    webhook_key: DataKey = "webhook-key"
    """Key of the Fernet key for webhook secrets. Defaults to webhook-key."""
    flask_key: DataKey = "flask-secret-key"
    """Key of the secret with which MLflow signs sessions. The key may be missing. Defaults to flask-secret-key."""


class Encryption(Model):
    """Keys with which MLflow encrypts gateway and webhook secrets. By default, the operator generates them once."""

    secret_ref: EncryptionSecretRef | None = None
    """Secret with keys that you manage. If not set, the operator generates the Secret `<name>-encryption`."""
    rotate_passphrase_at: Annotated[AwareDatetime | None, Field(examples=["2026-12-24T18:00:00Z"])] = None
    """Time at which the operator replaces the generated passphrase and encrypts the gateway secrets with the new one,
    such as `2026-12-24T18:00:00Z`. Set a later time to replace it again.
    """

    rules = (
        Rule(
            "!has(self.secretRef) || !has(self.rotatePassphraseAt)",
            "spec.encryption.rotatePassphraseAt replaces the generated passphrase only: remove it, and put the new "
            "passphrase and its version into the Secret of spec.encryption.secretRef",
            field=".rotatePassphraseAt",
            holds=lambda encryption: encryption.secret_ref is None or encryption.rotate_passphrase_at is None,
        ),
    )
