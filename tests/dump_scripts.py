"""The scripts of backup and restore pods without their pods: both containers run as processes, and there is no store.

The environment has no psycopg2. psycopg has the same methods, as far as the scripts use them.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from mlflow_operator import pod_scripts


def load(script: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Execute a script except for its last line, which calls `main`; return its names."""
    driver, extensions = ModuleType("psycopg2"), ModuleType("psycopg2.extensions")
    vars(driver).update(connect=_connect, Error=psycopg.Error)
    vars(extensions).update(parse_dsn=conninfo_to_dict)
    monkeypatch.setitem(sys.modules, "psycopg2", driver)
    monkeypatch.setitem(sys.modules, "psycopg2.extensions", extensions)
    names: dict[str, Any] = {"__name__": "script"}
    body, _, end = script.rpartition("\nmain()\n")
    assert not end
    exec(compile(body, "script.py", "exec"), names)  # noqa: S102
    return names


def _connect(uri: str, connect_timeout: int) -> Any:
    connection: Any = psycopg.connect(uri, connect_timeout=connect_timeout)
    connection.server_version = connection.info.server_version
    return connection


def back_up(uri: str, programs: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], bytes]:
    """Dump the database as a backup pod does; return the parts of the manifest about the content, and the dump."""
    script, folder = load(pod_scripts.BACKUP, monkeypatch), _exchange_folder()
    database = script["Database"](uri)
    database.inspect()
    dump = script["Dump"](folder)
    script["write_private"](os.path.join(folder, "tables"), database.patterns())
    script["write_connection_files"](database.uri, folder, "backup")
    process = _run(pod_scripts.PG_DUMP, programs, "BACKUP_FOLDER", folder)
    data = b""
    while part := dump.read(2**20):
        data += bytes(part)
    dump.check()
    assert process.wait(60) == 0
    return database.contents(), data


def restore(
    uri: str, manifest: dict[str, Any], data: bytes, programs: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Restore a dump as a restore pod does. Return `0`, the error code of a refusal, or the text of a failure."""
    script, folder = load(pod_scripts.RESTORE, monkeypatch), _exchange_folder()
    container, database = script["PostgresContainer"](folder), script["Database"](uri, manifest)
    try:
        schema = database.check()
    except script["JobError"] as error:
        return str(error.code)
    script["write_connection_files"](database.uri, folder, "restore")
    process = _run(pod_scripts.PG_RESTORE, programs, "RESTORE_FOLDER", folder)
    container.start(database.begin_sql(), schema)
    revision = "(SELECT version_num FROM alembic_version)"
    commit = script["COMMIT_SQL"].replace("'{revision}'", revision).format(marker="restored")
    container.allow_commit(commit)
    container.write(data)
    outcome: str = container.wait()
    process.wait(60)
    return outcome


def _exchange_folder() -> str:
    return tempfile.mkdtemp(prefix="exchange-")


def _run(script: str, programs: Path, variable: str, folder: str) -> subprocess.Popen[bytes]:
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    return subprocess.Popen(["sh", "-c", script], env=os.environ | {"PATH": path, variable: folder})
