"""Upload a dump of the database to S3, with a manifest beside it, and delete old backups.

`pg_dump` runs in the other container of this pod, from an image that contains it. The containers share a folder in
memory: this container writes the connection settings there, the other one writes the dump to a named pipe. The complete
dump is never on disk or in memory. A backup exists if and only if its manifest does, which is written last.

The result is the termination message of the container, as JSON below 3 KiB.
"""

import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import select
import signal
import sys
import time
from contextlib import closing
from datetime import datetime, timedelta, timezone
from importlib.util import find_spec
from pathlib import Path

import psycopg2
from botocore import xform_name
from botocore.exceptions import BotoCoreError, ClientError
from database_common import libpq_uri
from dump_common import (
    CHUNK_BYTES,
    FORMAT_VERSION,
    ID,
    PUBLIC_PASSPHRASE,
    PUBLIC_VERSION,
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

PART_BYTES, PARTS_PER_SIZE = 8 * 1024 * 1024, 1000
"""S3 allows 10000 parts per upload. After every 1000 parts the part size grows by PART_BYTES: enough for 430 GiB. One
part of the dump is in memory at a time."""

EXIT_TIMEOUT_SECONDS = 60
"""Until pg_dump reports its exit code."""

ABANDONED_AFTER = timedelta(hours=24)
"""Deadline of the Job: an unfinished backup that is older belongs to no running pod."""

TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
REVISION_TABLES = {
    "alembic_version": ("store", "db_migrations", "versions"),
    "alembic_version_auth": ("server", "auth", "db", "migrations", "versions"),
}
"""Tables with a schema revision, and the folders with their migrations in the package. The second is of basic-auth."""
SCHEMA_QUERY = """
    SELECT nspname FROM pg_namespace WHERE oid = (
        SELECT relnamespace FROM pg_class WHERE oid = to_regclass('alembic_version')
    )
"""
TABLES_QUERY = """
    SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = (
        SELECT oid FROM pg_namespace WHERE nspname = %s
    ) ORDER BY relname
"""
FUNCTIONS_QUERY = """
    SELECT DISTINCT pg_get_functiondef(tgfoid) FROM pg_trigger
    JOIN pg_class ON pg_class.oid = tgrelid JOIN pg_namespace ON pg_namespace.oid = relnamespace
    JOIN pg_proc ON pg_proc.oid = tgfoid AND pronamespace = relnamespace
    WHERE NOT tgisinternal AND nspname = %s AND relname = ANY(%s)
    AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = tgfoid AND deptype = 'e')
    ORDER BY 1
"""
"""Definitions of the functions of the tables' triggers. pg_dump omits them when it dumps selected tables."""

MAX_FUNCTIONS_CHARS = 30000
"""In the manifest, which must have less than 64 KiB."""

TABLE_NAME = re.compile(r"^ +__tablename__ = [\"'](\w+)[\"']", re.MULTILINE)
"""The name of a table in a model class of MLflow."""
CREATED_TABLE = re.compile(r"\bcreate_table\(\s*[\"'](\w+)[\"']")
"""The name of a table that a migration of MLflow creates. Some tables have no model class any more, and MLflow still
needs them: with basic-auth, it deletes rows from the tables of earlier permissions when it deletes a user."""

REVISION = re.compile(r"^revision\b[^=\n]*=\s*[\"'](\w+)[\"']", re.MULTILINE)
"""The revision of a migration of MLflow."""

COLUMNS_QUERY = """
    SELECT bool_or(attrelid = to_regclass('secrets') AND attname = 'kek_version'),
        bool_or(attrelid = to_regclass('webhooks') AND attname = 'deleted_timestamp')
    FROM pg_attribute WHERE NOT attisdropped
"""
"""Other applications of the database may have tables of the same names."""


def now():
    """The current time in UTC."""
    return datetime.now(timezone.utc)  # noqa: UP017 - images of older MLflow versions have Python 3.10


def mlflow_tables(existing):
    """Those of the tables `existing` that belong to MLflow. Other applications may share the schema.

    Importing the model classes would take seconds, and more memory than the pod has.
    """
    (mlflow,) = find_spec("mlflow").submodule_search_locations
    names = {"alembic_version"}
    sources = [*Path(mlflow, "store").glob("**/dbmodels/*.py")]
    sources += Path(mlflow, "store", "db_migrations", "versions").glob("*.py")
    if "alembic_version_auth" in existing or {"users", "experiment_permissions"}.issubset(existing):
        # basic-auth has tables with names such as users, which other applications use, too; before MLflow 3.6 it has no
        # table with its revision
        names.add("alembic_version_auth")
        sources += Path(mlflow, "server", "auth", "db").glob("*.py")
        sources += Path(mlflow, "server", "auth", "db", "migrations", "versions").glob("*.py")
    for path in sources:
        text = path.read_text()
        names.update(TABLE_NAME.findall(text), CREATED_TABLE.findall(text))
    return [name for name in existing if name in names]


def check_known(revisions):
    """Raise JobError if MLflow in this image does not know a schema revision of the database.

    It would not know all tables either, and the backup would be incomplete. A pod of the previous version may start
    right after a migration.
    """
    (mlflow,) = find_spec("mlflow").submodule_search_locations
    for table, revision in revisions.items():
        sources = Path(mlflow, *REVISION_TABLES[table]).glob("*.py")
        if revision and not any(revision in REVISION.findall(path.read_text()) for path in sources):
            version = importlib.metadata.version("mlflow")
            raise JobError(
                "unknown_revision", f"MLflow {version} does not know the revision {revision} in {table}"
            )


class Database:
    """The database to back up.

    `schema` is the schema with MLflow's tables, `tables` their names, `functions` the definitions of their triggers'
    functions, `revisions` the schema revision in each table that has one.
    """

    def __init__(self, uri):
        self.uri = libpq_uri(uri)
        self.schema, self.tables, self.functions, self.revisions = "", [], [], {}

    def inspect(self):
        """Return the version of the database server, and determine revisions and tables."""
        with closing(when_network_ready(lambda: psycopg2.connect(self.uri, connect_timeout=10))) as session:
            cursor = session.cursor()
            cursor.execute(SCHEMA_QUERY)
            schema = cursor.fetchone()
            if schema is None:
                raise JobError("no_tables", "the database holds no MLflow tables")
            self.schema = schema[0]
            self.revisions = self.read_revisions(cursor)
            check_known(self.revisions)
            cursor.execute(TABLES_QUERY, [self.schema])
            existing = [row[0] for row in cursor.fetchall()]
            self.tables = mlflow_tables(existing)
            cursor.execute(FUNCTIONS_QUERY, [self.schema, self.tables])
            self.functions = [row[0] for row in cursor.fetchall()]
            if len(json.dumps(self.functions)) > MAX_FUNCTIONS_CHARS:
                raise JobError(
                    "database", "the trigger functions of MLflow's tables are too long for a backup"
                )
            number = session.server_version
        version = f"{number // 10000}.{number % 10000}"
        others = len(existing) - len(self.tables)
        if others:
            print(f"not included: {others} tables of other applications in the same schema", flush=True)
        return version

    def read_revisions(self, cursor):
        """The schema revision in each table that has one; empty text if the table is empty."""
        revisions = {}
        for table in REVISION_TABLES:
            qualified = f"{identifier(self.schema)}.{table}"
            cursor.execute("SELECT to_regclass(%s) IS NOT NULL", [qualified])
            if cursor.fetchone()[0]:
                cursor.execute(f"SELECT version_num FROM {qualified}")  # noqa: S608
                row = cursor.fetchone()
                revisions[table] = row[0] if row else ""
        return revisions

    def check_unchanged(self):
        """Raise JobError if a migration has changed a revision since `inspect`."""
        with closing(psycopg2.connect(self.uri, connect_timeout=10)) as session:
            revisions = self.read_revisions(session.cursor())
        for table in REVISION_TABLES:
            before, after = self.revisions.get(table), revisions.get(table)
            if before != after:
                raise JobError("schema_changed", f"{table}: from {before} to {after}")

    def contents(self):
        """What the manifest says about the contents of the dump."""
        return {
            "formatVersion": FORMAT_VERSION,
            "databaseSchema": self.schema,
            "tables": self.tables,
            "functions": self.functions,
        }

    def patterns(self):
        """The tables as patterns of pg_dump."""
        return "".join(f"{identifier(self.schema)}.{identifier(table)}\n" for table in self.tables)

    def encrypted(self):
        """Return the versions of the passphrases that encrypt gateway secrets, and whether webhooks have secrets."""
        with closing(psycopg2.connect(self.uri, connect_timeout=10)) as session:
            cursor = session.cursor()
            cursor.execute(COLUMNS_QUERY)
            has_secrets, has_webhooks = cursor.fetchone()
            versions, webhooks = set(), False
            if has_secrets:
                cursor.execute("SELECT DISTINCT kek_version FROM secrets")
                versions = {row[0] for row in cursor.fetchall()}
            if has_webhooks:
                cursor.execute(
                    "SELECT EXISTS (SELECT FROM webhooks WHERE secret IS NOT NULL AND deleted_timestamp IS NULL)"
                )
                webhooks = cursor.fetchone()[0]
        return versions, webhooks


def encryption_keys(environ, versions, webhooks):
    """Describe the keys that a restore needs. None of them is in the backup.

    `passphrases`: fingerprint for each version, null if the passphrase is not known here.
    """
    known = {PUBLIC_VERSION: PUBLIC_PASSPHRASE} if PUBLIC_VERSION in versions else {}
    for name, text in keyring_files(environ):
        version = name.removeprefix("passphrase-")
        if version != name and version.isdecimal() and int(version) in versions:
            known[int(version)] = passphrase_fingerprint(text)
    current = int(environ.get("MLFLOW_CRYPTO_KEK_VERSION") or PUBLIC_VERSION)
    passphrase = environ.get("MLFLOW_CRYPTO_KEK_PASSPHRASE")
    if passphrase and current in versions:
        known[current] = passphrase_fingerprint(passphrase)
    webhook_key = environ.get("MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY")
    return {
        "passphrases": {str(version): known.get(version) for version in sorted(versions)},
        "webhookKey": webhook_key_id(webhook_key) if webhooks and webhook_key else None,
    }


class Dump:
    """Output of pg_dump, read from a named pipe in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        path = os.path.join(folder, "dump")
        os.mkfifo(path, 0o600)
        # without O_NONBLOCK this would wait for the writer, which may never come
        self.pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.poll = select.poll()
        self.poll.register(self.pipe, select.POLLIN)
        self.started = False

    def read(self, size):
        """Read `size` bytes, or fewer at the end of the dump."""
        data = bytearray()
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while len(data) < size:
            events = self.poll.poll(1000)
            if not events and not self.started:
                if os.path.exists(os.path.join(self.folder, "code")):
                    break
                if time.monotonic() > deadline:
                    raise JobError("start_timeout", f"pg_dump wrote nothing within {START_TIMEOUT_SECONDS} s")
            if events and events[0][1] & select.POLLIN:
                self.started = True
                data += os.read(self.pipe, min(CHUNK_BYTES, size - len(data)))
            elif events:
                break
        return data

    def check(self):
        """Raise JobError unless pg_dump exited with 0, so the dump is complete."""
        path, deadline = os.path.join(self.folder, "code"), time.monotonic() + EXIT_TIMEOUT_SECONDS
        while not os.path.exists(path):
            if time.monotonic() > deadline:
                raise JobError("pg_dump", "it ended without an exit code")
            time.sleep(0.1)
        with open(path) as file:
            exit_code = file.read().strip()
        with open(os.path.join(self.folder, "errors"), errors="replace") as file:
            stderr = file.read()
        if exit_code != "0":
            code = "version" if "server version mismatch" in stderr else "pg_dump"
            raise JobError(code, stderr[-1000:] or f"exit code {exit_code}")


class Store(BackupFolder):
    """The folder of one server's backups in a bucket, with the settings for uploads."""

    def __init__(self, destination, namespace, server):
        super().__init__(destination, namespace, server)
        self.extra_args = json.loads(os.environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")

    def call(self, operation, **arguments):
        """Call an S3 operation, with those of the user's extra arguments that it supports."""
        supported = self.client.meta.service_model.operation_model(operation).input_shape.members
        extra_args = {name: value for name, value in self.extra_args.items() if name in supported}
        return getattr(self.client, xform_name(operation))(Bucket=self.bucket, **extra_args, **arguments)

    def upload(self, key, dump):
        """Upload a dump; return its size and SHA-256. The object exists only once the dump is complete."""
        upload = {"Key": self.folder + key}
        upload["UploadId"] = self.call("CreateMultipartUpload", **upload)["UploadId"]
        parts, size, digest = [], 0, hashlib.sha256()
        try:
            while part := dump.read(PART_BYTES * (1 + len(parts) // PARTS_PER_SIZE)):
                digest.update(part)
                size += len(part)
                number = len(parts) + 1
                response = self.call("UploadPart", PartNumber=number, Body=part, **upload)
                parts.append({"PartNumber": number, "ETag": response["ETag"]})
                del part  # otherwise two parts would be in memory
            dump.check()
            self.call("CompleteMultipartUpload", MultipartUpload={"Parts": parts}, **upload)
        except BaseException:
            self.abort(**upload)
            raise
        stored_size = self.call("HeadObject", Key=self.folder + key)["ContentLength"]
        if stored_size != size:
            raise JobError("store", f"it stored {stored_size} of {size} bytes")
        return size, digest.hexdigest()

    def abort(self, **upload):
        """Abort a multipart upload. If the store refuses, its parts stay."""
        try:
            self.call("AbortMultipartUpload", **upload)
        except (ClientError, BotoCoreError) as error:
            print(f"parts of an upload are left in the store: {error}", flush=True)

    def delete_abandoned(self):
        """Delete what interrupted backups left: parts of uploads, and dumps without a manifest."""
        before = now() - ABANDONED_AFTER
        try:
            uploads = self.call("ListMultipartUploads", Prefix=self.folder).get("Uploads", ())
        except ClientError as error:
            print(f"cannot list interrupted uploads: {error}", flush=True)
            uploads = ()
        for upload in uploads:
            if upload["Key"].startswith(self.folder) and upload["Initiated"] < before:
                self.abort(Key=upload["Key"], UploadId=upload["UploadId"])
        keys = set(self.keys())
        for key in sorted(keys):
            name, _, file = key.partition("/")
            without_manifest = f"{name}/manifest.json" not in keys
            is_dump = ID.fullmatch(name) and file == "database.dump"
            if is_dump and without_manifest and age(name) > ABANDONED_AFTER:
                self.call("DeleteObject", Key=self.folder + key)

    def prune(self, max_count, max_age):
        """Delete all backups except the newest `max_count` that are at most `max_age` old. The newest always stays."""
        for index, name in enumerate(self.complete()):
            if index and (index >= max_count or age(name) > max_age):
                print(f"deleting {self.uri(name)}", flush=True)
                # in this order: without a manifest it is not a backup, even if the deletion is interrupted
                for file in ("manifest.json", "database.dump"):
                    self.call("DeleteObject", Key=f"{self.folder}{name}/{file}")


def age(name):
    """Time since the backup with this ID was started."""
    started = datetime.strptime(name.partition("-")[0] + "+0000", "%Y%m%dT%H%M%SZ%z")
    return now() - started


def back_up(environ, store, folder):
    """Make one backup; return its manifest."""
    started = now()
    name = f"{started.strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}"
    database = Database(environ["MLFLOW_BACKEND_STORE_URI"])
    version = database.inspect()
    versions, webhooks = database.encrypted()
    dump = Dump(folder)
    contents = database.contents()
    write_private(os.path.join(folder, "tables"), database.patterns())
    write_connection_files(database.uri, folder, "backup")
    print(f"uploading {store.uri(name)}", flush=True)
    size, digest = store.upload(f"{name}/database.dump", dump)
    try:
        database.check_unchanged()
    except JobError:
        store.call("DeleteObject", Key=f"{store.folder}{name}/database.dump")
        raise
    # the dump may contain a secret that was stored after the first query
    versions_after, webhooks_after = database.encrypted()
    manifest = {
        **contents,
        "id": name,
        "namespace": environ["BACKUP_NAMESPACE"],
        "server": environ["BACKUP_SERVER"],
        "mlflowVersion": importlib.metadata.version("mlflow"),
        "schemaRevision": database.revisions["alembic_version"],
        "postgresVersion": version,
        "sizeBytes": size,
        "sha256": digest,
        "encryption": encryption_keys(environ, versions | versions_after, webhooks or webhooks_after),
        "startTime": started.strftime(TIME_FORMAT),
        "completionTime": now().strftime(TIME_FORMAT),
    }
    content = json.dumps(manifest, indent=2).encode() + b"\n"
    store.call("PutObject", Key=f"{store.folder}{name}/manifest.json", Body=content)
    print(f"uploaded {size} bytes", flush=True)
    return manifest


def attempt(errors, task, *arguments):
    """Return the result of `task`; None if it failed, and the error is added to `errors`."""
    try:
        return task(*arguments)
    except Exception as error:
        add_error(errors, error)
    return None


def main():
    """Make a backup, then delete old ones. A failed deletion does not fail the backup."""
    signal.signal(signal.SIGTERM, on_sigterm)
    environ, errors, manifest, folder = os.environ, [], None, os.environ["BACKUP_FOLDER"]
    server = environ["BACKUP_NAMESPACE"], environ["BACKUP_SERVER"]
    store = attempt(errors, Store, environ["BACKUP_DESTINATION"], *server)
    if store:
        manifest = attempt(errors, back_up, environ, store, folder)
    # the other container stops waiting once this file exists
    write_private(os.path.join(folder, "finished"), "")
    if manifest:
        attempt(errors, store.delete_abandoned)
        max_age = timedelta(seconds=int(environ["BACKUP_MAX_AGE_SECONDS"]))
        attempt(errors, store.prune, int(environ["BACKUP_MAX_COUNT"]), max_age)
    backup = None
    if manifest:
        fields = ("id", "sizeBytes", "schemaRevision", "startTime", "completionTime")
        backup = {name: manifest[name] for name in fields} | {"uri": store.uri(manifest["id"])}
    write_result(backup, errors)
    sys.exit(0 if manifest else 1)


main()
