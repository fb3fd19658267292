"""Stores a dump of the database in S3 as it is made, with a manifest beside it, and clears away old ones.

`pg_dump` runs in another container of this pod, from the image that has it. The two meet in a folder in memory: this
one says there how to reach the database, the other one writes the dump into a pipe. No whole dump is ever on a disk or
in memory. A backup exists if and only if its manifest does, which is written last.

The answer goes where Kubernetes keeps a container's last words, as JSON below 3 KiB.
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

LAST_WORDS = "/dev/termination-log"
LIMIT = 3000
"""Bytes; Kubernetes keeps 4096 of a container, and 12 KiB of a pod."""

FORMAT = 1
"""Of the manifest."""

PART, THOUSAND = 8 * 1024 * 1024, 1000
"""S3 takes ten thousand parts of an upload. They grow by one PART with each thousand: enough for 430 GiB. One part is
what the memory holds of a dump."""

CHUNK = 256 * 1024
"""Bytes that are read at a time, at the most; a pipe holds less."""

BEGUN, ENDED = 900, 60
"""Seconds: until pg_dump writes its first byte, for its image may have to be pulled; and until it says how it ended."""

ABANDONED = timedelta(hours=24)
"""A backup may take no longer, so what was begun before and never came to an end has nobody who works on it."""

LONGEST_LINE = 1000
"""Bytes: libpq refuses longer ones in a service file."""

ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
TIME = "%Y-%m-%dT%H:%M:%SZ"
TABLES, REVISION = "SELECT to_regclass('alembic_version')::text", "SELECT version_num FROM alembic_version"


class Trouble(Exception):  # noqa: N818 - as the answer calls it
    """What keeps a backup from being made: of which kind, and what was said of it."""

    def __init__(self, kind, said):
        super().__init__(said)
        self.kind = kind


def now():
    """In UTC."""
    return datetime.now(timezone.utc)  # noqa: UP017 - images of older MLflow have Python 3.10


class Database:
    """The one that is backed up."""

    def __init__(self, uri):
        # SQLAlchemy names a driver in the scheme, libpq knows none
        self.uri = "postgresql://" + uri.partition("://")[2]

    def look(self):
        """The schema's revision, and the version of the server."""
        with closing(psycopg2.connect(self.uri, connect_timeout=10)) as session:
            asked = session.cursor()
            asked.execute(TABLES)
            if asked.fetchone()[0] is None:
                raise Trouble("empty", "it holds none of MLflow's tables")
            asked.execute(REVISION)
            revision = asked.fetchone()
            number = session.server_version
        version = f"{number // 10000}.{number % 10000}"
        return revision[0] if revision else "", version

    def introduce(self, folder):
        """Says in `folder` how the database is reached: where no argument and no environment shows the password."""
        options = parse_dsn(self.uri)
        password = options.pop("password", "")
        lines = ["[backup]", *(f"{name}={value}" for name, value in options.items() if value)]
        for line in lines:
            if line != line.strip() or "\n" in line or len(line.encode()) > LONGEST_LINE:
                name = line.partition("=")[0]
                raise Trouble("database", f"libpq's service file can't hold the {name} of the connection")
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        write_private(os.path.join(folder, "pgpass"), f"*:*:*:*:{escaped}\n")
        write_private(os.path.join(folder, "pg_service.conf"), "\n".join(lines) + "\n")


def write_private(path, text):
    """For this user alone, and whole as soon as it is there."""
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


class Dump:
    """What pg_dump writes, from the other end of a pipe in `folder`."""

    def __init__(self, folder):
        self.folder = folder
        path = os.path.join(folder, "dump")
        os.mkfifo(path, 0o600)
        # not to wait here for the other end, which may never come
        self.pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        self.ready = select.poll()
        self.ready.register(self.pipe, select.POLLIN)
        self.begun = False

    def read(self, size):
        """`size` bytes, less only at the end."""
        found = bytearray()
        limit = time.monotonic() + BEGUN
        while len(found) < size:
            events = self.ready.poll(1000)
            if not events and not self.begun:
                if os.path.exists(os.path.join(self.folder, "code")):
                    break
                if time.monotonic() > limit:
                    raise Trouble("begin", f"pg_dump wrote nothing within {BEGUN} s")
            if events and events[0][1] & select.POLLIN:
                self.begun = True
                found += os.read(self.pipe, min(CHUNK, size - len(found)))
            elif events:
                break
        return found

    def check(self):
        """Raises Trouble unless pg_dump says that what it wrote is whole."""
        path, limit = os.path.join(self.folder, "code"), time.monotonic() + ENDED
        while not os.path.exists(path):
            if time.monotonic() > limit:
                raise Trouble("pg_dump", "it ended without a word")
            time.sleep(0.1)
        with open(path) as file:
            code = file.read().strip()
        with open(os.path.join(self.folder, "errors"), errors="replace") as file:
            said = file.read()
        if code != "0":
            kind = "version" if "server version mismatch" in said else "pg_dump"
            raise Trouble(kind, said[-1000:] or f"exit code {code}")


class Store:
    """The folder of one server's backups in a bucket."""

    def __init__(self, destination, namespace, server):
        place = urlsplit(destination)
        self.bucket = place.netloc
        parts = (place.path.strip("/"), "mlflow-operator-backups", namespace, server)
        self.folder = "/".join(filter(None, parts)) + "/"
        # stores that are not AWS' may not know the checksums that boto3 sends of late; TLS and SHA-256 are there
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
        self.extra = json.loads(os.environ.get("MLFLOW_S3_UPLOAD_EXTRA_ARGS") or "{}")

    def uri(self, name):
        """Where a backup is."""
        return f"s3://{self.bucket}/{self.folder}{name}"

    def call(self, operation, **arguments):
        """Asks the store, with what of the owner's wishes this operation takes."""
        known = self.client.meta.service_model.operation_model(operation).input_shape.members
        extra = {name: value for name, value in self.extra.items() if name in known}
        return getattr(self.client, xform_name(operation))(Bucket=self.bucket, **extra, **arguments)

    def listed(self):
        """Keys of all that is there, below the folder."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.folder)
        return [
            found["Key"].removeprefix(self.folder) for page in pages for found in page.get("Contents", ())
        ]

    def store(self, key, dump):
        """Streams a dump; returns its size and SHA-256. There is no such file unless all of it is stored."""
        begun = {"Key": self.folder + key}
        begun["UploadId"] = self.call("CreateMultipartUpload", **begun)["UploadId"]
        parts, size, digest = [], 0, hashlib.sha256()
        try:
            while piece := dump.read(PART * (1 + len(parts) // THOUSAND)):
                digest.update(piece)
                size += len(piece)
                number = len(parts) + 1
                stored = self.call("UploadPart", PartNumber=number, Body=piece, **begun)
                parts.append({"PartNumber": number, "ETag": stored["ETag"]})
                del piece  # or it would be held beside the next one
            dump.check()
            self.call("CompleteMultipartUpload", MultipartUpload={"Parts": parts}, **begun)
        except BaseException:
            self.give_up(**begun)
            raise
        there = self.call("HeadObject", Key=self.folder + key)["ContentLength"]
        if there != size:
            raise Trouble("store", f"it keeps {there} bytes of {size}")
        return size, digest.hexdigest()

    def give_up(self, **begun):
        """Takes away the parts that are stored, as far as the store lets it."""
        try:
            self.call("AbortMultipartUpload", **begun)
        except (ClientError, BotoCoreError) as error:
            print(f"parts are left in the store: {error}", flush=True)

    def clear(self):
        """Takes away what backups that were cut off have left: parts, and dumps without a manifest."""
        before = now() - ABANDONED
        try:
            uploads = self.call("ListMultipartUploads", Prefix=self.folder).get("Uploads", ())
        except ClientError as error:
            print(f"uploads that were cut off can't be listed: {error}", flush=True)
            uploads = ()
        for each in uploads:
            if each["Key"].startswith(self.folder) and each["Initiated"] < before:
                self.give_up(Key=each["Key"], UploadId=each["UploadId"])
        keys = set(self.listed())
        for key in sorted(keys):
            name, _, file = key.partition("/")
            lonely = f"{name}/manifest.json" not in keys
            if ID.fullmatch(name) and file == "database.dump" and lonely and age(name) > ABANDONED:
                self.call("DeleteObject", Key=self.folder + key)

    def prune(self, count, longest):
        """Deletes all backups but the newest `count` no older than `longest`; the newest one never."""
        names = [key.partition("/") for key in self.listed()]
        whole = sorted(
            (name for name, _, file in names if file == "manifest.json" and ID.fullmatch(name)), reverse=True
        )
        for place, name in enumerate(whole):
            if place and (place >= count or age(name) > longest):
                print(f"deleting {self.uri(name)}", flush=True)
                # in this order: cut off between the two, it is no backup any more
                for file in ("manifest.json", "database.dump"):
                    self.call("DeleteObject", Key=f"{self.folder}{name}/{file}")


def age(name):
    """How long ago the backup of this id was begun."""
    begun = datetime.strptime(name.partition("-")[0] + "+0000", "%Y%m%dT%H%M%SZ%z")
    return now() - begun


def interrupted(number, frame):
    """Asked to end: by way of all that has to be taken back."""
    raise Trouble("interrupted", "it was asked to end before it was done")


def back_up(given, store, folder):
    """Makes one backup; returns its manifest."""
    begun = now()
    name = f"{begun.strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(4)}"
    database = Database(given["MLFLOW_BACKEND_STORE_URI"])
    revision, version = database.look()
    dump = Dump(folder)
    database.introduce(folder)
    print(f"storing {store.uri(name)}", flush=True)
    size, digest = store.store(f"{name}/database.dump", dump)
    after, _ = database.look()
    if after != revision:
        store.call("DeleteObject", Key=f"{store.folder}{name}/database.dump")
        raise Trouble("moved", f"from {revision} to {after}")
    manifest = {
        "formatVersion": FORMAT,
        "id": name,
        "namespace": given["BACKUP_NAMESPACE"],
        "server": given["BACKUP_SERVER"],
        "mlflowVersion": importlib.metadata.version("mlflow"),
        "schemaRevision": revision,
        "postgresVersion": version,
        "sizeBytes": size,
        "sha256": digest,
        "startTime": begun.strftime(TIME),
        "completionTime": now().strftime(TIME),
    }
    content = json.dumps(manifest, indent=2).encode() + b"\n"
    store.call("PutObject", Key=f"{store.folder}{name}/manifest.json", Body=content)
    print(f"stored {size} bytes", flush=True)
    return manifest


def told(faults, kind, error):
    """Notes what went wrong."""
    said = " ".join(str(error).split())[:600]
    print(f"{kind}: {said}", file=sys.stderr, flush=True)
    faults.append({"kind": kind, "said": said})


def attempt(faults, task, *arguments):
    """What `task` returns; None where it failed, which is noted."""
    try:
        return task(*arguments)
    except Trouble as trouble:
        told(faults, trouble.kind, trouble)
    except psycopg2.Error as error:
        told(faults, "database", error)
    except (ClientError, BotoCoreError) as error:
        told(faults, "store", error)
    except Exception as error:
        told(faults, "other", f"{type(error).__name__}: {error}")
    return None


def main():
    """Makes a backup, then clears away old ones; to fail at that makes the backup no worse."""
    signal.signal(signal.SIGTERM, interrupted)
    given, faults, made, folder = os.environ, [], None, os.environ["BACKUP_FOLDER"]
    names = given["BACKUP_NAMESPACE"], given["BACKUP_SERVER"]
    store = attempt(faults, Store, given["BACKUP_DESTINATION"], *names)
    if store:
        made = attempt(faults, back_up, given, store, folder)
    # whoever waits in the other container need not wait any more
    write_private(os.path.join(folder, "over"), "")
    if made:
        attempt(faults, store.clear)
        longest = timedelta(seconds=int(given["BACKUP_MAX_AGE_SECONDS"]))
        attempt(faults, store.prune, int(given["BACKUP_MAX_COUNT"]), longest)
    backup = None
    if made:
        kept = ("id", "sizeBytes", "schemaRevision", "startTime", "completionTime")
        backup = {name: made[name] for name in kept} | {"uri": store.uri(made["id"])}
    text = json.dumps({"backup": backup, "faults": faults})
    while len(text) > LIMIT:
        faults.pop()
        text = json.dumps({"backup": backup, "faults": faults})
    with open(LAST_WORDS, "w") as words:
        words.write(text)
    print(text, flush=True)
    sys.exit(0 if made else 1)


main()
