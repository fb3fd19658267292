"""What the programs that back up and restore a database have in common. It is put in front of their code.

The dump passes through two containers that share a folder in memory: one has the client programs of Postgres, this one
has the credentials of the store.
"""

import hashlib
import json
import os
import re
import sys
from urllib.parse import urlsplit

import boto3
import psycopg2
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from psycopg2.extensions import parse_dsn

TERMINATION_LOG = "/dev/termination-log"
MAX_RESULT_BYTES = 3000
"""Kubernetes keeps 4096 bytes per container, and 12 KiB per pod."""

FORMAT_VERSION = 2
"""Format of new backups: the tables of MLflow, without the functions of their triggers, which are in the manifest.

Operators that only know format 1, a dump of the whole database, refuse them. Otherwise such an operator would download
the dump and fail when it creates the first trigger.
"""

CHUNK_BYTES = 256 * 1024
"""Maximum number of bytes per read."""

START_TIMEOUT_SECONDS = 900
"""Until the other container reads or writes its first byte; its image may have to be pulled."""

MAX_LINE_BYTES = 1000
"""libpq rejects longer lines in a service file."""

ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")

PUBLIC_PASSPHRASE = "public"  # noqa: S105 - a marker
"""In place of the fingerprint of MLflow's default passphrase, which is published in its source."""

PUBLIC_VERSION = 1
"""Version of that passphrase."""

FINGERPRINT_ITERATIONS = 600_000
"""As many as MLflow uses: a passphrase is no easier to guess from its fingerprint than from MLflow's database."""


class JobError(Exception):
    """Why the Job fails: an error code and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def write_private(path, text):
    """Write a file atomically, readable for this user only."""
    descriptor = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


def identifier(name):
    """A quoted identifier in SQL, and in patterns of pg_dump."""
    return '"' + name.replace('"', '""') + '"'


def write_connection_files(uri, folder, service):
    """Write the connection settings to `folder`, so that neither arguments nor environment show the password."""
    options = parse_dsn(uri)
    password = options.pop("password", "")
    lines = [f"[{service}]", *(f"{name}={value}" for name, value in options.items() if value)]
    for line in lines:
        if line != line.strip() or "\n" in line or len(line.encode()) > MAX_LINE_BYTES:
            name = line.partition("=")[0]
            raise JobError("database", f"a libpq service file cannot hold the connection's {name}")
    escaped = password.replace("\\", "\\\\").replace(":", "\\:")
    write_private(os.path.join(folder, "pgpass"), f"*:*:*:*:{escaped}\n")
    write_private(os.path.join(folder, "pg_service.conf"), "\n".join(lines) + "\n")


def passphrase_fingerprint(passphrase):
    """Identify a passphrase without revealing it. The salt differs from that of MLflow's key."""
    salt = b"mlflow-operator passphrase fingerprint"
    return hashlib.pbkdf2_hmac("sha256", passphrase.encode(), salt, FINGERPRINT_ITERATIONS, 16).hex()


def webhook_key_id(key):
    """Identify a webhook key without revealing it: it has 256 random bits."""
    return hashlib.sha256(b"mlflow-operator webhook key " + key.strip().encode()).hexdigest()[:16]


class BackupFolder:
    """The folder of one server's backups in a bucket."""

    def __init__(self, location, namespace, server):
        url = urlsplit(location)
        self.bucket = url.netloc
        parts = (url.path.strip("/"), "mlflow-operator-backups", namespace, server)
        self.folder = "/".join(filter(None, parts)) + "/"
        # S3-compatible stores may not support the checksums that recent boto3 sends, and parts and ranges of an object
        # have none of their own; TLS and the SHA-256 in the manifest protect the data
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

    def uri(self, name=""):
        """URI of a backup, or of the folder with all backups."""
        return f"s3://{self.bucket}/{self.folder}{name}"

    def keys(self):
        """Keys of all objects in the folder, relative to it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.folder)
        return [
            entry["Key"].removeprefix(self.folder) for page in pages for entry in page.get("Contents", ())
        ]

    def complete(self):
        """IDs of all complete backups, the newest first."""
        names = [key.partition("/") for key in self.keys()]
        return sorted(
            (name for name, _, file in names if file == "manifest.json" and ID.fullmatch(name)), reverse=True
        )


def describe(error):
    """Error code and message of an exception."""
    codes = ((JobError, None), (psycopg2.Error, "database"), ((ClientError, BotoCoreError), "store"))
    for exception_type, code in codes:
        if isinstance(error, exception_type):
            return code or error.code, str(error)
    return "other", f"{type(error).__name__}: {error}"


def add_error(errors, error):
    """Log an error and add it to `errors`."""
    code, message = describe(error)
    message = " ".join(message.split())[:600]
    print(f"{code}: {message}", file=sys.stderr, flush=True)
    errors.append({"code": code, "message": message})


def write_result(backup, errors):
    """Write the result as termination message. Drop the last errors, or shorten the only one, if it is too long."""
    text = json.dumps({"backup": backup, "errors": errors})
    while len(text) > MAX_RESULT_BYTES:
        if len(errors) > 1:
            errors.pop()
        else:
            errors[0]["message"] = errors[0]["message"][: len(errors[0]["message"]) // 2]
        text = json.dumps({"backup": backup, "errors": errors})
    with open(TERMINATION_LOG, "w") as file:
        file.write(text)
    print(text, flush=True)


def on_sigterm(number, frame):
    """Raise JobError on SIGTERM, so that an upload is aborted, or a restore rolled back, before the process exits."""
    raise JobError("interrupted", "it was terminated before it was complete")
