"""Download a backup from S3 and pass it to the other container of this pod, which restores it into the database.

`psql` and `pg_restore` run in the other container, from an image that contains them. The containers share a folder in
memory: this container writes the connection settings there, and the dump to a named pipe while it downloads it. The
complete dump is never on disk or in memory. The restore is one transaction, and the file that commits it (`commit.sql`)
is written only after the checksum was verified: a damaged, truncated or replaced dump leaves the database unchanged.

The result is the termination message of the container, as JSON below 3 KiB.
"""

import errno
import hashlib
import json
import os
import re
import signal
import sys
import time
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from botocore.exceptions import BotoCoreError, ClientError
from database_common import MIGRATION_LOCK, libpq_uri
from dump_common import (
    CHUNK_BYTES,
    FORMAT_VERSION,
    ID,
    PUBLIC_PASSPHRASE,
    START_TIMEOUT_SECONDS,
    BackupFolder,
    JobError,
    add_error,
    identifier,
    on_sigterm,
    passphrase_fingerprint,
    webhook_key_id,
    write_connection_files,
    write_private,
    write_result,
)
from keyring_common import keyring_files
from network_common import when_network_ready
from urllib3.exceptions import HTTPError

DUMP_OF_DATABASE = 1
"""Format of backups of earlier operator versions: a dump of the whole database."""

MAX_RETRIES = 5
"""Number of times an interrupted download is resumed without receiving a byte."""

MAX_MISSING_KEYS = 5
"""Number of missing keys that the error message names."""

REVISION = re.compile(r"[0-9A-Za-z_]{1,32}")
SHA256 = re.compile(r"[0-9a-f]{64}")
SCHEMA_NAME = re.compile(r"[^\x00-\x1f$]{1,63}")
TABLE_NAME = re.compile(r"[a-z0-9_]{1,63}")

TABLES_QUERY = """
    SELECT string_agg(relname, ', ' ORDER BY relname) FROM (
        SELECT relname FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
        ORDER BY relname LIMIT 5
    ) AS found
"""
"""Names of existing tables, without those of extensions."""

CONFLICTS_QUERY = """
    SELECT string_agg(relname, ', ' ORDER BY relname) FROM (
        SELECT relname FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace = to_regnamespace({schema}) AND relname IN ({tables})
        ORDER BY relname LIMIT 5
    ) AS found
"""
"""Names of existing tables that are also in the backup. Other applications may have tables in the same schema."""

SEARCH_PATH_QUERY = """
    SELECT EXISTS (
        SELECT FROM unnest(string_to_array(current_setting('search_path'), ',')) AS entry
        WHERE replace(trim(entry, ' "'), '$user', current_user) = {name}
    )
"""

TIMEOUT_SETTINGS = (
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
)
"""Settings that could end the one long transaction. The last one is new in Postgres 17."""

# $check$, not two dollar signs alone: Kubernetes replaces those with one in the command of a container
BEGIN_SQL = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SET LOCAL standard_conforming_strings = on;
SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN ({timeouts});
SELECT pg_advisory_xact_lock({lock});
DO $check$ BEGIN
    IF ({tables}) IS NOT NULL THEN
        RAISE EXCEPTION 'the database already holds tables';
    END IF;
    {create_schema}
END $check$;
SET LOCAL check_function_bodies = off;
{functions}
"""

CREATE_SCHEMA_SQL = "IF to_regnamespace({literal}) IS NULL THEN CREATE SCHEMA {identifier}; END IF;"
"""CREATE SCHEMA IF NOT EXISTS would need a privilege even if the schema exists."""

# the dump changes settings, for example to an empty search_path; a connection pooler would pass them to other sessions
COMMIT_SQL = """
RESET ALL;
DO $check$ BEGIN
    IF (SELECT string_agg(version_num, ' ') FROM alembic_version) IS DISTINCT FROM '{revision}' THEN
        RAISE EXCEPTION 'the schema revision in the backup differs from the one in its manifest';
    END IF;
END $check$;
COMMENT ON TABLE alembic_version IS '{marker}';
COMMIT;
"""


def is_text(value, pattern):
    """Whether a value is a string that matches a pattern."""
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def is_valid(manifest):
    """Whether a manifest has all fields of its format, and no SQL where names are expected."""
    valid = all(
        is_text(manifest.get(key), pattern)
        for key, pattern in (("id", ID), ("schemaRevision", REVISION), ("sha256", SHA256))
    )
    valid = valid and type(manifest.get("sizeBytes")) is int
    if manifest["formatVersion"] == DUMP_OF_DATABASE:
        return valid
    tables, functions = manifest.get("tables"), manifest.get("functions")
    return (
        valid
        and is_text(manifest.get("databaseSchema"), SCHEMA_NAME)
        and isinstance(tables, list)
        and bool(tables)
        and all(is_text(table, TABLE_NAME) for table in tables)
        and isinstance(functions, list)
        and all(isinstance(function, str) for function in functions)
    )


class Store(BackupFolder):
    """The folder of one server's backups in a bucket, for reading."""

    def latest(self):
        """ID of the newest backup."""
        complete = self.complete()
        if not complete:
            raise JobError("not_found", f"there is no backup at {self.uri()}")
        return complete[0]

    def manifest(self, name):
        """Download and validate the manifest of a backup."""
        try:
            response = self.client.get_object(Bucket=self.bucket, Key=f"{self.folder}{name}/manifest.json")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                raise JobError("not_found", f"there is no backup at {self.uri(name)}") from error
            raise
        try:
            manifest = json.loads(response["Body"].read(65536))
        except ValueError as error:
            raise JobError("format", f"the manifest at {self.uri(name)} is not valid JSON") from error
        version = manifest.get("formatVersion") if isinstance(manifest, dict) else None
        if type(version) is not int or version not in (DUMP_OF_DATABASE, FORMAT_VERSION):
            raise JobError(
                "format",
                f"the backup at {self.uri(name)} has format {version!r}; only the formats {DUMP_OF_DATABASE} to "
                f"{FORMAT_VERSION} are supported",
            )
        if not is_valid(manifest) or manifest["id"] != name:
            raise JobError("format", f"the manifest at {self.uri(name)} is invalid")
        return manifest

    def dump(self, name, size):
        """Download the dump in chunks. An interrupted download is resumed at the same position."""
        key = {"Bucket": self.bucket, "Key": f"{self.folder}{name}/database.dump"}
        head = self.client.head_object(**key)
        if head["ContentLength"] != size:
            raise JobError(
                "damaged",
                f"{self.uri(name)} has {head['ContentLength']} bytes, but its manifest says {size}",
            )
        position, retries = 0, 0
        while position < size:
            try:
                body = self.client.get_object(**key, Range=f"bytes={position}-", IfMatch=head["ETag"])["Body"]
                while chunk := body.read(CHUNK_BYTES):
                    position, retries = position + len(chunk), 0
                    yield chunk
            except (BotoCoreError, HTTPError, OSError) as error:
                retries += 1
                if retries > MAX_RETRIES:
                    raise JobError("store", f"the download of {self.uri(name)} failed: {error}") from error
                print(f"the download was interrupted after {position} bytes: {error}", flush=True)
                time.sleep(retries)


def literal(text):
    """A string in SQL."""
    return "'" + text.replace("'", "''") + "'"


def connect(uri):
    """Connect to a database, once the network of the pod is ready."""
    return when_network_ready(lambda: psycopg2.connect(uri, connect_timeout=10))


class Database:
    """The database to restore into.

    `schema` is the schema of the backup; None for a dump of a whole database, of which only the current schema is
    restored. `tables_query` returns the names of tables that must not exist.
    """

    def __init__(self, uri, manifest):
        self.uri = libpq_uri(uri)
        self.schema, self.functions, self.tables_query = None, [], TABLES_QUERY.strip()
        if manifest["formatVersion"] != DUMP_OF_DATABASE:
            self.schema, self.functions = manifest["databaseSchema"], manifest["functions"]
            tables = ", ".join(map(literal, manifest["tables"]))
            schema = literal(identifier(self.schema))
            self.tables_query = CONFLICTS_QUERY.strip().format(schema=schema, tables=tables)

    def begin_sql(self):
        """The statements before those of the backup."""
        create_schema = ""
        if self.schema:
            quoted = identifier(self.schema)
            create_schema = CREATE_SCHEMA_SQL.format(literal=literal(quoted), identifier=quoted)
        timeouts = ", ".join(f"'{name}'" for name in TIMEOUT_SETTINGS)
        return BEGIN_SQL.format(
            tables=self.tables_query,
            create_schema=create_schema,
            # not as statements, in which psql would execute commands that begin with a backslash
            functions="".join(f"SELECT {literal(text)} \\gexec\n" for text in self.functions),
            timeouts=timeouts,
            lock=MIGRATION_LOCK,
        )

    def check(self):
        """Raise JobError if the backup cannot be restored here. Return the schema to restore, None if it is unknown.

        The transaction of the restore checks again that no table exists, under the lock.
        """
        with closing(connect(self.uri)) as session:
            cursor = session.cursor()
            cursor.execute(self.tables_query)
            tables = cursor.fetchone()[0]
            if tables:
                raise JobError("not_empty", f"the database already holds tables ({tables})")
            if self.schema is None:
                cursor.execute("SELECT current_schema()")
                return cursor.fetchone()[0]
            cursor.execute(SEARCH_PATH_QUERY.format(name=literal(self.schema)))
            if not cursor.fetchone()[0]:
                raise JobError("search_path", f'"{self.schema}"')
        return self.schema


class PostgresContainer:
    """The other container. Of two named pipes in `folder`, it reads the dump from one and writes its result to one."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("dump", "outcome"):
            os.mkfifo(os.path.join(folder, name), 0o600)
        # opened before the file `ready` is written, so that the result of the other container, or its end, is noticed
        self.outcome_pipe = os.open(os.path.join(folder, "outcome"), os.O_RDONLY | os.O_NONBLOCK)
        self.dump_pipe, self.outcome = None, bytearray()

    def start(self, begin, schema):
        """Start the restore; return when the other container reads. Raise BrokenPipeError if it ended before that.

        `begin`: statements before those of the backup. `schema`: the only schema that is restored; None: all.
        """
        write_private(os.path.join(self.folder, "begin.sql"), begin)
        write_private(os.path.join(self.folder, "schema"), schema or "")
        write_private(os.path.join(self.folder, "ready"), "")
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while self.dump_pipe is None:
            try:
                self.dump_pipe = os.open(os.path.join(self.folder, "dump"), os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                if self.has_outcome():
                    raise BrokenPipeError from error
                if time.monotonic() > deadline:
                    message = f"pg_restore did not start within {START_TIMEOUT_SECONDS} s"
                    raise JobError("start_timeout", message) from error
                time.sleep(0.1)
        os.set_blocking(self.dump_pipe, True)

    def has_outcome(self):
        """Whether the other container has already written its result."""
        try:
            self.outcome += os.read(self.outcome_pipe, 4096)
        except BlockingIOError:
            return False
        return bool(self.outcome)

    def write(self, data):
        """Write a part of the dump."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.dump_pipe, view) :]

    def allow_commit(self, statement):
        """Write the statements that end the transaction. Must be called before the last part of the dump is written."""
        write_private(os.path.join(self.folder, "commit.sql"), statement)

    def close(self):
        """End the dump. Without commit.sql, the transaction is rolled back."""
        if self.dump_pipe is not None:
            os.close(self.dump_pipe)
            self.dump_pipe = None

    def wait(self):
        """Wait for the end of the other container; return its result, empty if it wrote none."""
        self.close()
        os.set_blocking(self.outcome_pipe, True)
        while data := os.read(self.outcome_pipe, 4096):
            self.outcome += data
        return self.outcome.decode(errors="replace").strip()


def supports_revision(revision):
    """Whether this image's MLflow can migrate a schema from this revision."""
    (mlflow,) = find_spec("mlflow").submodule_search_locations
    migrations = Path(mlflow, "store", "db_migrations")
    # importing all migrations takes seconds, enough to restore a small database
    pattern = re.compile(rf"^revision = [\"']{revision}[\"']$", re.MULTILINE)
    if any(pattern.search(script.read_text()) for script in migrations.glob("versions/*.py")):
        return True
    from alembic.script import ScriptDirectory

    return any(script.revision == revision for script in ScriptDirectory(str(migrations)).walk_revisions())


def check_keys(environ, manifest):
    """Raise JobError if this server lacks keys that secrets in the backup are encrypted with.

    Backups of earlier operator versions do not say which keys they need.
    """
    needed = manifest.get("encryption")
    if not isinstance(needed, dict):
        print("the backup does not say which encryption keys it needs", flush=True)
        return
    passphrases, webhook_key = needed.get("passphrases"), needed.get("webhookKey")
    passphrases = passphrases if isinstance(passphrases, dict) else {}
    needed_passphrases = {
        version: fingerprint
        for version, fingerprint in passphrases.items()
        if isinstance(fingerprint, str) and fingerprint != PUBLIC_PASSPHRASE
    }
    variables = ("MLFLOW_CRYPTO_KEK_PASSPHRASE", "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
    texts = [text for _, text in keyring_files(environ)]
    texts += [environ[name] for name in variables if environ.get(name)]
    missing = []
    if needed_passphrases:
        known = {passphrase_fingerprint(text) for text in set(texts)}
        missing = [
            f"passphrase-{version}"
            for version, fingerprint in sorted(needed_passphrases.items())
            if fingerprint not in known
        ]
    if isinstance(webhook_key, str) and webhook_key not in {webhook_key_id(text) for text in texts}:
        missing.append(f"webhook-key-{webhook_key}")
    if not missing:
        return
    names = ", ".join(missing[:MAX_MISSING_KEYS])
    if environ.get("RESTORE_MISSING_KEYS") == "Ignore":
        print(f"secrets in the backup will be unreadable without the keys {names}", flush=True)
        return
    raise JobError("missing_keys", names)


def transfer(store, container, manifest, marker):
    """Pass the dump to the other container. The last chunk is written only if size and checksum are correct."""
    digest, size, held_back = hashlib.sha256(), 0, b""
    for chunk in store.dump(manifest["id"], manifest["sizeBytes"]):
        digest.update(chunk)
        size += len(chunk)
        container.write(held_back)
        held_back = chunk
    if size != manifest["sizeBytes"] or digest.hexdigest() != manifest["sha256"]:
        raise JobError("damaged", f"the SHA-256 of {store.uri(manifest['id'])} differs from its manifest")
    container.allow_commit(COMMIT_SQL.format(revision=manifest["schemaRevision"], marker=marker))
    container.write(held_back)


def restore(environ, store, folder):
    """Restore one backup; return its manifest."""
    # first of all, because the other container expects the pipes
    container = PostgresContainer(folder)
    # before the first request to S3, which does not wait for the network of the pod
    connect(libpq_uri(environ["MLFLOW_BACKEND_STORE_URI"])).close()
    requested = environ["RESTORE_BACKUP"]
    manifest = store.manifest(store.latest() if requested == "latest" else requested)
    revision = manifest["schemaRevision"]
    if not supports_revision(revision):
        raise JobError("newer_schema", f"{manifest.get('mlflowVersion', 'unknown')} {revision}")
    check_keys(environ, manifest)
    database = Database(environ["MLFLOW_BACKEND_STORE_URI"], manifest)
    schema = database.check()
    write_connection_files(database.uri, folder, "restore")
    print(f"restoring {store.uri(manifest['id'])}", flush=True)
    marker = environ["RESTORE_MARKER"].format(id=manifest["id"])
    try:
        container.start(database.begin_sql(), schema)
        transfer(store, container, manifest, marker)
    except BrokenPipeError:
        print("the other container has ended", flush=True)
    except BaseException:
        container.close()
        raise
    outcome = container.wait()
    if outcome != "0":
        raise JobError("pg_restore", outcome or "it ended without a result")
    print(f"restored {manifest['sizeBytes']} bytes", flush=True)
    return manifest


def main():
    """Restore a backup and report the result."""
    signal.signal(signal.SIGTERM, on_sigterm)
    environ, folder, errors, manifest = os.environ, os.environ["RESTORE_FOLDER"], [], None
    try:
        store = Store(environ["RESTORE_SOURCE"], environ["RESTORE_NAMESPACE"], environ["RESTORE_SERVER"])
        manifest = restore(environ, store, folder)
    except Exception as error:
        add_error(errors, error)
    # the other container stops waiting once this file exists
    write_private(os.path.join(folder, "finished"), "")
    fields = ("id", "schemaRevision")
    backup = manifest and {name: manifest[name] for name in fields}
    write_result(backup, errors)
    sys.exit(1 if errors else 0)


main()
