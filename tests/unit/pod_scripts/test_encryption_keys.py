"""Backups name the encryption keys that they need, and a restore checks them before it changes anything."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from cryptography.fernet import Fernet

from mlflow_operator import pod_scripts
from mlflow_operator.model import encryption

PASSPHRASE = "a generated passphrase"
VERSION = str(encryption.version_of(PASSPHRASE))
WEBHOOK_KEY = Fernet.generate_key().decode()


class Program:
    """The functions of a pod script."""

    def __init__(self, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("psycopg2", "psycopg2.extensions"):
            module: Any = ModuleType(name)
            module.parse_dsn, module.Error = dict, OSError
            monkeypatch.setitem(sys.modules, name, module)
        self.names: dict[str, Any] = {"__name__": "script"}
        exec(compile(source.removesuffix("\nmain()\n"), "script", "exec"), self.names)  # noqa: S102


@pytest.fixture
def backup(monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program that makes backups."""
    return Program(pod_scripts.BACKUP, monkeypatch)


@pytest.fixture
def restore(monkeypatch: pytest.MonkeyPatch) -> Program:
    """The program that restores them."""
    return Program(pod_scripts.RESTORE, monkeypatch)


@pytest.fixture
def needed(backup: Program, tmp_path: Path) -> dict[str, Any]:
    """The keys of a backup with a gateway secret and a webhook secret."""
    (tmp_path / f"passphrase-{VERSION}").write_text(PASSPHRASE)
    environ = {"KEYRING": str(tmp_path), "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": WEBHOOK_KEY}
    keys: dict[str, Any] = backup.names["encryption_keys"](environ, {int(VERSION)}, True)
    return keys


def keyring(folder: Path, **values: str) -> dict[str, str]:
    """Environment of the restore with a mounted Secret."""
    folder.mkdir()
    for name, text in values.items():
        (folder / name).write_text(text)
    return {"KEYRING": f"/missing:{folder}"}


def test_manifest_identifies_the_keys_without_revealing_them(needed: dict[str, Any]) -> None:
    """A fingerprint is not a hash that can be tested quickly, and not MLflow's key."""
    assert needed.keys() == {"passphrases", "webhookKey"}
    assert needed["webhookKey"] == encryption.webhook_key_id(WEBHOOK_KEY)
    (fingerprint,) = needed["passphrases"].values()
    assert len(fingerprint) == 32
    assert PASSPHRASE not in str(needed)
    assert WEBHOOK_KEY not in str(needed)


def test_manifest_lists_only_needed_keys(backup: Program, tmp_path: Path) -> None:
    """A server without encrypted secrets can be restored without its keys."""
    environ = keyring(tmp_path / "k", **{f"passphrase-{VERSION}": PASSPHRASE, "webhook-key": WEBHOOK_KEY})
    none: dict[str, Any] = {"passphrases": {}, "webhookKey": None}
    assert backup.names["encryption_keys"](environ, set(), False) == none


@pytest.mark.parametrize(
    ("environ", "versions", "known"),
    [
        ({}, {1}, {"1": "public"}),
        ({"MLFLOW_CRYPTO_KEK_PASSPHRASE": "own"}, {1, 3}, {"1": "own", "3": None}),
        (
            {"MLFLOW_CRYPTO_KEK_PASSPHRASE": "own", "MLFLOW_CRYPTO_KEK_VERSION": "3"},
            {1, 3},
            {"1": "public", "3": "own"},
        ),
    ],
)
def test_manifest_knows_the_public_passphrase_and_those_of_users(
    backup: Program, environ: dict[str, str], versions: set[int], known: dict[str, str | None]
) -> None:
    """Users may set the passphrase in spec.env, also with version 1."""
    own = backup.names["passphrase_fingerprint"]("own")
    expected = {version: own if name == "own" else name for version, name in known.items()}
    assert backup.names["encryption_keys"](environ, versions, False)["passphrases"] == expected


def test_restore_accepts_a_server_with_the_keys(
    restore: Program, needed: dict[str, Any], tmp_path: Path
) -> None:
    """From any key of the mounted Secrets, whatever its name, or from the variables of the user."""
    environ = keyring(tmp_path / "k", own=PASSPHRASE, **{"webhook-key-0": WEBHOOK_KEY})
    restore.names["check_keys"](environ, {"encryption": needed})
    variables = {
        "MLFLOW_CRYPTO_KEK_PASSPHRASE": PASSPHRASE,
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": WEBHOOK_KEY,
    }
    restore.names["check_keys"](variables, {"encryption": needed})


def test_restore_refuses_a_server_without_the_keys(
    restore: Program, needed: dict[str, Any], tmp_path: Path
) -> None:
    """It names the keys to copy; the policy Ignore restores nevertheless."""
    other = keyring(tmp_path / "k", passphrase="another passphrase", **{"webhook-key": WEBHOOK_KEY})
    with pytest.raises(Exception, match=rf"^passphrase-{VERSION}$") as refusal:
        restore.names["check_keys"](other, {"encryption": needed})
    assert refusal.value.code == "missing_keys"  # type: ignore[attr-defined]
    with pytest.raises(Exception, match=f"^passphrase-{VERSION}, webhook-key-[0-9a-f]{{16}}$"):
        restore.names["check_keys"]({}, {"encryption": needed})
    restore.names["check_keys"]({"RESTORE_MISSING_KEYS": "Ignore"}, {"encryption": needed})


@pytest.mark.parametrize(
    "manifest", [{}, {"encryption": {"passphrases": {"1": "public", "7": None}, "webhookKey": None}}]
)
def test_restore_accepts_backups_that_need_no_key_of_this_server(
    restore: Program, manifest: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Earlier backups, which do not say what they need, and those under the public passphrase."""
    restore.names["check_keys"]({}, manifest)
    assert bool(manifest) != ("does not say which encryption keys" in capsys.readouterr().out)


def test_keys_are_checked_before_the_database_is_changed() -> None:
    """The other container connects once the file `ready` exists, which `start` writes."""
    body = pod_scripts.RESTORE.partition("def restore(")[2]
    assert body.index("check_keys(environ, manifest)") < body.index("container.start(")
