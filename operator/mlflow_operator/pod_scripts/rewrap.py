"""Encrypt the stored secrets with the current keys of the server.

MLflow encrypts each gateway secret with a key of its own (DEK), and that key with one derived from the passphrase and
its version (KEK). MLflow's rotation decrypts the DEK with the old KEK and encrypts it with the new one; the value stays
as it is. Webhook secrets are decrypted with a previous key and encrypted with the current one.

All of it is one transaction: after an interruption nothing has changed, and the program can run again. Servers may keep
running. The lock on the table waits for every transaction that has read a secret. Otherwise a server with the old
passphrase could load a secret before this program changes it and store it afterwards, and SQLAlchemy would not write
the version, which it takes for unchanged: the secret would have the new version and the old passphrase.
"""

import os
import re
import sys
import traceback
from contextlib import closing

import psycopg2
from database_common import MIGRATION_LOCK, libpq_uri
from keyring_common import keyring_files
from network_common import when_network_ready

LOCK_TIMEOUT = "10s"
"""Time until all transactions that have read a secret must end. Meanwhile, others wait, too."""

DEFAULT_VERSION = 1
"""Version of the passphrase that MLflow uses if none is set. It is published in MLflow's source."""

PASSPHRASE_FILE = re.compile(r"passphrase-(\d{1,10})")
WEBHOOK_KEY_FILE = re.compile(r"webhook-key(-.*)?")
"""The operator tries the same keys: if it found one that this program ignores, it would run this program for ever."""

MAX_NAMES = 5
"""Number of secrets that an error message names."""

COLUMNS_QUERY = """
    SELECT count(*) FROM pg_attribute
    WHERE attrelid = to_regclass(%s) AND attname = ANY(%s) AND NOT attisdropped
"""
TIMEOUT_SETTINGS = ("idle_in_transaction_session_timeout", "statement_timeout", "transaction_timeout")
"""Settings that could end the transaction while it waits for the locks. The last one is new in Postgres 17."""


class UnreadableError(Exception):
    """Secrets that no known passphrase decrypts."""


class Keyring:
    """The current keys, from the environment, and earlier ones, from the files of mounted Secrets."""

    def __init__(self, environ):
        self.version = int(environ.get("MLFLOW_CRYPTO_KEK_VERSION") or DEFAULT_VERSION)
        self.passphrase = environ.get("MLFLOW_CRYPTO_KEK_PASSPHRASE") or None
        # the user has accepted that the keys of a restored backup are lost
        self.skips_unknown_versions = environ.get("UNKNOWN_VERSIONS") == "Skip"
        self.webhook_key = environ.get("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY") or None
        self.passphrases, self.webhook_keys = [], []
        for name, text in keyring_files(environ):
            if found := PASSPHRASE_FILE.fullmatch(name):
                self.passphrases.append((int(found[1]), text))
            elif WEBHOOK_KEY_FILE.fullmatch(name):
                self.webhook_keys.append(text)


def rewrap_gateway_secrets(cursor, keyring):
    """Rotate all gateway secrets that are not encrypted with the current passphrase; return their number."""
    if keyring.passphrase is None or not has_columns(cursor, "secrets", ["wrapped_dek", "kek_version"]):
        return 0
    cursor.execute("SELECT EXISTS (SELECT FROM secrets)")
    if not cursor.fetchone()[0]:
        return 0
    from mlflow.utils.crypto import DEFAULT_KEK_PASSPHRASE, KEKManager

    current = KEKManager(keyring.passphrase, keyring.version)
    # derived before the lock, because each takes a second on a slow CPU
    known = [(DEFAULT_VERSION, DEFAULT_KEK_PASSPHRASE), *keyring.passphrases]
    earlier = [
        KEKManager(passphrase, version)
        for version, passphrase in known
        if (version, passphrase) != (keyring.version, keyring.passphrase)
    ]
    versions = {current.kek_version, *(manager.kek_version for manager in earlier)}
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", [LOCK_TIMEOUT])
    cursor.execute("LOCK TABLE secrets IN ACCESS EXCLUSIVE MODE")
    cursor.execute(
        "SELECT secret_id, secret_name, encrypted_value, wrapped_dek, kek_version FROM secrets ORDER BY secret_id"
    )
    rotated, unreadable = [], []
    for secret_id, name, value, wrapped_dek, version in cursor.fetchall():
        secret = bytes(value), bytes(wrapped_dek)
        if version == current.kek_version and rotate(secret, current, current):
            continue
        # a key is tried even if the version differs: AES-GCM detects a wrong one
        result = next(
            filter(None, (rotate(secret, manager, current) for manager in [*earlier, current])), None
        )
        if result is None and keyring.skips_unknown_versions and version not in versions:
            continue
        if result is None:
            unreadable.append(f'"{name}" (version {version})')
        else:
            rotated.append((result.wrapped_dek, current.kek_version, secret_id))
    if unreadable:
        names = ", ".join(unreadable[:MAX_NAMES])
        more = f" and {len(unreadable) - MAX_NAMES} more" if len(unreadable) > MAX_NAMES else ""
        raise UnreadableError(
            f"no known passphrase decrypts these gateway secrets: {names}{more}; nothing was changed"
        )
    for row in rotated:
        cursor.execute("UPDATE secrets SET wrapped_dek = %s, kek_version = %s WHERE secret_id = %s", row)
    return len(rotated)


def rotate(secret, old, new):
    """Encrypt the DEK of a secret with `new`; return None if `old` does not decrypt it."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.crypto import rotate_secret_encryption

    try:
        return rotate_secret_encryption(*secret, old, new)
    except MlflowException:
        return None


def reencrypt_webhook_secrets(cursor, keyring):
    """Encrypt webhook secrets with the current key if an earlier key decrypts them; return their number.

    The others are not changed: the operator reports them.
    """
    if keyring.webhook_key is None or not has_columns(cursor, "webhooks", ["webhook_id", "secret"]):
        return 0
    from cryptography.fernet import Fernet

    current, earlier = Fernet(keyring.webhook_key), []
    for key in keyring.webhook_keys:
        try:
            earlier.append(Fernet(key))
        except ValueError:
            print("ignored a key of the Secret that is not a valid webhook key", flush=True)
    cursor.execute("SELECT webhook_id, secret FROM webhooks WHERE secret IS NOT NULL FOR UPDATE")
    count = 0
    for webhook_id, token in cursor.fetchall():
        if decrypt(current, token) is not None:
            continue
        decrypted = (decrypt(key, token) for key in earlier)
        plaintext = next((text for text in decrypted if text is not None), None)
        if plaintext is not None:
            cursor.execute(
                "UPDATE webhooks SET secret = %s WHERE webhook_id = %s",
                [current.encrypt(plaintext).decode(), webhook_id],
            )
            count += 1
    return count


def decrypt(key, token):
    """Decrypt a Fernet token; return None if it was encrypted with another key."""
    from cryptography.fernet import InvalidToken

    try:
        return key.decrypt(token.encode())
    except InvalidToken:
        return None


def has_columns(cursor, table, columns):
    """Whether this is MLflow's table. Other applications of the database may have one of the same name."""
    cursor.execute(COLUMNS_QUERY, [table, columns])
    return cursor.fetchone()[0] == len(columns)


def main():
    """Encrypt the secrets in one transaction."""
    keyring = Keyring(os.environ)
    uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
    with closing(when_network_ready(lambda: psycopg2.connect(libpq_uri(uri)))) as session:
        cursor = session.cursor()
        # a stricter level would show the secrets in the state before the lock
        cursor.execute("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        cursor.execute(
            "SELECT set_config(name, '0', true) FROM pg_settings WHERE name = ANY(%s)",
            [list(TIMEOUT_SETTINGS)],
        )
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [MIGRATION_LOCK])
        try:
            secrets = rewrap_gateway_secrets(cursor, keyring)
            webhooks = reencrypt_webhook_secrets(cursor, keyring)
        except UnreadableError as error:
            sys.exit(str(error))
        except Exception:
            traceback.print_exc()
            sys.exit(1)
        session.commit()
    print(f"encrypted gateway secrets: {secrets}, webhook secrets: {webhooks}", flush=True)


if __name__ == "__main__":
    main()
