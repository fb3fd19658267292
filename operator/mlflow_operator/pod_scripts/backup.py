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
from urllib.parse import urlsplit

import boto3
import psycopg2
from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from psycopg2.extensions import parse_dsn

TERMINATION_LOG = "/dev/termination-log"
MAX_RESULT_BYTES = 3000
"""Kubernetes keeps 4096 bytes per container, and 12 KiB per pod."""

FORMAT_VERSION = 1
"""Version of the manifest format."""

PART_BYTES, PARTS_PER_SIZE = 8 * 1024 * 1024, 1000
"""S3 allows 10000 parts per upload. After every 1000 parts the part size grows by PART_BYTES: enough for 430 GiB. One
part of the dump is in memory at a time."""

CHUNK_BYTES = 256 * 1024
"""Maximum number of bytes per read; a pipe holds less."""

START_TIMEOUT_SECONDS, EXIT_TIMEOUT_SECONDS = 900, 60
"""Until pg_dump writes its first byte (its image may have to be pulled), and until it reports its exit code."""

ABANDONED_AFTER = timedelta(hours=24)
"""Deadline of the Job: an unfinished backup that is older belongs to no running pod."""

MAX_LINE_BYTES = 1000
"""libpq rejects longer lines in a service file."""

ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
TIME_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
TABLE_QUERY = "SELECT to_regclass('alembic_version')::text"
REVISION_QUERY = "SELECT version_num FROM alembic_version"


class JobError(Exception):
    """Why no backup can be made: an error code and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def now():
    """The current time in UTC."""
    return datetime.now(timezone.utc)  # noqa: UP017 - images of older MLflow versions have Python 3.10


class Database:
    """The database to back up."""

    def __init__(self, uri):
        # SQLAlchemy names a driver in the scheme, which libpq does not support
        self.uri = "postgresql://" + uri.partition("://")[2]

    def inspect(self):
        """Return the schema revision and the version of the database server."""
        with closing(psycopg2.connect(self.uri, connect_timeout=10)) as session:
            cursor = session.cursor()
            cursor.execute(TABLE_QUERY)
            if cursor.fetchone()[0] is None:
                raise JobError("no_tables", "the database holds no MLflow tables")
            cursor.execute(REVISION_QUERY)
            revision = cursor.fetchone()
            number = session.server_version
        version = f"{number // 10000}.{number % 10000}"
        return revision[0] if revision else "", version

    def write_connection_files(self, folder):
        """Write the connection settings to `folder`, so that neither arguments nor environment show the password."""
        options = parse_dsn(self.uri)
        password = options.pop("password", "")
        lines = ["[backup]", *(f"{name}={value}" for name, value in options.items() if value)]
        for line in lines:
            if line != line.strip() or "\n" in line or len(line.encode()) > MAX_LINE_BYTES:
                name = line.partition("=")[0]
                raise JobError("database", f"a libpq service file cannot hold the connection's {name}")
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        write_private(os.path.join(folder, "pgpass"), f"*:*:*:*:{escaped}\n")
        write_private(os.path.join(folder, "pg_service.conf"), "\n".join(lines) + "\n")


def write_private(path, text):
    """Write a file atomically, readable for this user only."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


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


class Store:
    """The folder of one server's backups in a bucket."""

    def __init__(self, destination, namespace, server):
        url = urlsplit(destination)
        self.bucket = url.netloc
        parts = (url.path.strip("/"), "mlflow-operator-backups", namespace, server)
        self.folder = "/".join(filter(None, parts)) + "/"
        # S3-compatible stores may not support the checksums that recent boto3 sends; TLS and SHA-256 protect the data
        os.environ.setdefault("AWS_REQUEST_CHECKSUM_CALCULATION", "when_required")
        os.environ.setdefault("AWS_RESPONSE_CHECKSUM_VALIDATION", "when_required")
        self.client = boto3.client(
            "s3",
            endpoint_url=os.environ.get("MLFLOW_S3_ENDPOINT_URL") or None,
            config=Config(
                signature_version="s3v4",
                connect_timeout=10,
                read_timeout=60,
                retries={"max_attempts": 5, "mode": "standard"},
                s3={"addressing_style": os.environ.get("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE") or "auto"},
            ),
        )
        self.extra_args = json.loads(os.environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")

    def uri(self, name):
        """URI of a backup."""
        return f"s3://{self.bucket}/{self.folder}{name}"

    def call(self, operation, **arguments):
        """Call an S3 operation, with those of the user's extra arguments that it supports."""
        supported = self.client.meta.service_model.operation_model(operation).input_shape.members
        extra_args = {name: value for name, value in self.extra_args.items() if name in supported}
        return getattr(self.client, xform_name(operation))(Bucket=self.bucket, **extra_args, **arguments)

    def keys(self):
        """Keys of all objects in the folder, relative to it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.folder)
        return [
            entry["Key"].removeprefix(self.folder) for page in pages for entry in page.get("Contents", ())
        ]

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
        names = [key.partition("/") for key in self.keys()]
        complete = sorted(
            (name for name, _, file in names if file == "manifest.json" and ID.fullmatch(name)), reverse=True
        )
        for index, name in enumerate(complete):
            if index and (index >= max_count or age(name) > max_age):
                print(f"deleting {self.uri(name)}", flush=True)
                # in this order: without a manifest it is not a backup, even if the deletion is interrupted
                for file in ("manifest.json", "database.dump"):
                    self.call("DeleteObject", Key=f"{self.folder}{name}/{file}")


def age(name):
    """Time since the backup with this ID was started."""
    started = datetime.strptime(name.partition("-")[0] + "+0000", "%Y%m%dT%H%M%SZ%z")
    return now() - started


def on_sigterm(number, frame):
    """Raise JobError on SIGTERM, so that an upload is aborted before the process exits."""
    raise JobError("interrupted", "it was terminated before it was complete")


def back_up(environ, store, folder):
    """Make one backup; return its manifest."""
    started = now()
    name = f"{started.strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}"
    database = Database(environ["MLFLOW_BACKEND_STORE_URI"])
    revision, version = database.inspect()
    dump = Dump(folder)
    database.write_connection_files(folder)
    print(f"uploading {store.uri(name)}", flush=True)
    size, digest = store.upload(f"{name}/database.dump", dump)
    revision_after, _ = database.inspect()
    if revision_after != revision:
        store.call("DeleteObject", Key=f"{store.folder}{name}/database.dump")
        raise JobError("schema_changed", f"from {revision} to {revision_after}")
    manifest = {
        "formatVersion": FORMAT_VERSION,
        "id": name,
        "namespace": environ["BACKUP_NAMESPACE"],
        "server": environ["BACKUP_SERVER"],
        "mlflowVersion": importlib.metadata.version("mlflow"),
        "schemaRevision": revision,
        "postgresVersion": version,
        "sizeBytes": size,
        "sha256": digest,
        "startTime": started.strftime(TIME_FORMAT),
        "completionTime": now().strftime(TIME_FORMAT),
    }
    content = json.dumps(manifest, indent=2).encode() + b"\n"
    store.call("PutObject", Key=f"{store.folder}{name}/manifest.json", Body=content)
    print(f"uploaded {size} bytes", flush=True)
    return manifest


def add_error(errors, code, error):
    """Log an error and add it to `errors`."""
    message = " ".join(str(error).split())[:600]
    print(f"{code}: {message}", file=sys.stderr, flush=True)
    errors.append({"code": code, "message": message})


def attempt(errors, task, *arguments):
    """Return the result of `task`; None if it failed, and the error is added to `errors`."""
    try:
        return task(*arguments)
    except JobError as error:
        add_error(errors, error.code, error)
    except psycopg2.Error as error:
        add_error(errors, "database", error)
    except (ClientError, BotoCoreError) as error:
        add_error(errors, "store", error)
    except Exception as error:
        add_error(errors, "other", f"{type(error).__name__}: {error}")
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
    text = json.dumps({"backup": backup, "errors": errors})
    while len(text) > MAX_RESULT_BYTES:
        errors.pop()
        text = json.dumps({"backup": backup, "errors": errors})
    with open(TERMINATION_LOG, "w") as file:
        file.write(text)
    print(text, flush=True)
    sys.exit(0 if manifest else 1)


main()
