"""Which backups a restore accepts, before it changes anything."""

import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator import pod_scripts
from tests.dump_scripts import load
from tests.unit.pod_scripts.minimal_s3 import Bucket

ID = "20260101T000000Z-00000001"
EARLIER: dict[str, Any] = {
    "formatVersion": 1,
    "id": ID,
    "schemaRevision": "dc11669786a5",
    "sizeBytes": 3,
    "sha256": "0" * 64,
}
CURRENT: dict[str, Any] = {
    **EARLIER,
    "formatVersion": 2,
    "databaseSchema": "public",
    "tables": ["runs"],
    "functions": ["CREATE FUNCTION f() RETURNS trigger"],
}


def read_manifest(bucket: Bucket, manifest: object, monkeypatch: pytest.MonkeyPatch) -> object:
    """Read a manifest as a restore does. Returns the error code and the message of a refusal instead."""
    content = json.dumps(manifest).encode()
    bucket.files[f"/bucket/mlflow-operator-backups/team/tracking/{ID}/manifest.json"] = content
    script = load(pod_scripts.RESTORE, monkeypatch)
    try:
        return script["Store"]("s3://bucket", "team", "tracking").manifest(ID)
    except script["JobError"] as error:
        return f"{error.code}: {error}"


@pytest.mark.parametrize("manifest", [EARLIER, CURRENT], ids=["earlier", "current"])
def test_backups_of_all_operator_versions_are_read(
    bucket: Bucket, manifest: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read_manifest(bucket, manifest, monkeypatch) == manifest


@pytest.mark.parametrize("version", [3, "2", True, None])
def test_other_formats_are_refused(bucket: Bucket, version: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later operator version may leave out parts that this one does not know."""
    message = str(read_manifest(bucket, {**CURRENT, "formatVersion": version}, monkeypatch))
    assert message.startswith("format: ")
    assert message.endswith(f"has format {version!r}; only the formats 1 to 2 are supported")


def test_new_backups_have_a_format_that_earlier_operators_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    """They accept only format 1, and would fail at the first trigger, whose function is not in the dump."""
    database = load(pod_scripts.BACKUP, monkeypatch)["Database"]("postgresql://h/d")
    assert database.contents()["formatVersion"] == 2


def test_backup_contains_the_tables_of_earlier_permissions(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have no model class since MLflow 3.14, but without them it cannot delete a user with basic-auth."""
    earlier = ["experiment_permissions", "gateway_secret_permissions", "workspace_permissions"]
    own = ["alembic_version", "alembic_version_auth", *earlier, "role_permissions", "runs", "users"]
    mlflow_tables = load(pod_scripts.BACKUP, monkeypatch)["mlflow_tables"]
    assert mlflow_tables([*own, "invoices"]) == own
    # Without basic-auth, tables with these names belong to other applications.
    assert mlflow_tables(["alembic_version", "runs", "users"]) == ["alembic_version", "runs"]


@pytest.mark.parametrize(
    "change",
    [
        {"databaseSchema": None},
        {"databaseSchema": "a$check$"},
        {"tables": []},
        {"tables": ["x'); DROP TABLE y"]},
        {"functions": None},
        {"functions": [1]},
        {"sizeBytes": "3"},
        {"id": "other"},
    ],
    ids=str,
)
def test_invalid_manifest_is_refused(
    bucket: Bucket, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names are inserted into SQL statements, and an incomplete backup would restore only a part."""
    message = str(read_manifest(bucket, {**CURRENT, **change}, monkeypatch))
    assert message.startswith("format: ")
    assert message.endswith("is invalid")


def test_restore_connects_to_the_database_before_it_reads_from_s3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the connection to the database waits for the network, and S3 fails without it."""
    script = load(pod_scripts.RESTORE, monkeypatch)
    environ = {"MLFLOW_BACKEND_STORE_URI": "postgresql://h/d", "RESTORE_BACKUP": "latest"}

    def refuse(uri: str, connect_timeout: int) -> None:
        raise OSError("password authentication failed")

    monkeypatch.setattr(script["psycopg2"], "connect", refuse)
    with pytest.raises(OSError, match="password"):
        script["restore"](environ, None, str(tmp_path))
