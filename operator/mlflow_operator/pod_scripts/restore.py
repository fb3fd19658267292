"""Takes a backup from S3 and hands it to the container beside this one, which puts it into an empty database.

`psql` and `pg_restore` run there, from the image that has them. The two meet in a folder in memory: this one says
there how to reach the database, and writes the dump into a pipe as it comes from the store. No whole dump is ever on a
disk or in memory. All is put back in one transaction, and what commits it (`commit.sql`) is there only once the
checksum is known to be right: a file that was damaged, cut off or swapped leaves the database as it was.

The answer goes where Kubernetes keeps a container's last words, as JSON below 3 KiB.
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
from urllib.parse import urlsplit

import boto3
import psycopg2
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from psycopg2.extensions import parse_dsn
from urllib3.exceptions import HTTPError

LAST_WORDS = "/dev/termination-log"
LIMIT = 3000
"""Bytes; Kubernetes keeps 4096 of a container, and 12 KiB of a pod."""

FORMAT = 1
"""Of the manifest: the only one there is so far."""

LOCK = 0x6D6C666C6F77
"""The one under which tables are made and moved: a migration waits for it, too."""

CHUNK = 256 * 1024
"""Bytes that are read at a time; so many at the end are held back until the checksum is known."""

BEGUN = 900
"""Seconds until the other container reads, for its image may have to be pulled."""

TRIES = 5
"""How often a transfer goes on where it was cut off, without a byte in between."""

LONGEST_LINE = 1000
"""Bytes: libpq refuses longer ones in a service file."""

ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
REVISION = re.compile(r"[0-9A-Za-z_]{1,32}")
SHA256 = re.compile(r"[0-9a-f]{64}")

TABLES = """
    SELECT string_agg(relname, ', ' ORDER BY relname) FROM (
        SELECT relname FROM pg_class
        WHERE relkind IN ('r', 'p') AND relnamespace = current_schema()::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = pg_class.oid AND deptype = 'e')
        ORDER BY relname LIMIT 5
    ) AS found
"""
"""Those that no extension has brought along."""

TIMEOUTS = (
    "idle_in_transaction_session_timeout",
    "lock_timeout",
    "statement_timeout",
    "transaction_timeout",
)
"""What could end the one long transaction. The last is new in Postgres 17."""

# not quoted with two dollars: Kubernetes makes one of them, in a command
BEGIN = """
BEGIN ISOLATION LEVEL READ COMMITTED;
SELECT set_config(name, '0', true) FROM pg_settings WHERE name IN ({timeouts});
SELECT pg_advisory_xact_lock({lock});
DO $check$ BEGIN
    IF ({tables}) IS NOT NULL THEN
        RAISE EXCEPTION 'the database holds tables already';
    END IF;
END $check$;
"""

# the dump leaves settings behind, an empty search_path among them, which a pooler would lend to others
COMMIT = """
RESET ALL;
DO $check$ BEGIN
    IF (SELECT string_agg(version_num, ' ') FROM alembic_version) IS DISTINCT FROM '{revision}' THEN
        RAISE EXCEPTION 'the backup holds another revision of the tables than its manifest says';
    END IF;
END $check$;
COMMENT ON TABLE alembic_version IS '{marker}';
COMMIT;
"""


class Trouble(Exception):  # noqa: N818 - no bug of ours
    """What keeps a backup from being put back: of which kind, and what was said of it."""

    def __init__(self, kind, said):
        super().__init__(said)
        self.kind = kind


def write_private(path, text):
    """For this user alone, and whole as soon as it is there."""
    handle = os.open(path + ".new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.rename(path + ".new", path)


class Store:
    """The folder of one server's backups in a bucket."""

    def __init__(self, source, namespace, server):
        place = urlsplit(source)
        self.bucket = place.netloc
        parts = (place.path.strip("/"), "mlflow-operator-backups", namespace, server)
        self.folder = "/".join(filter(None, parts)) + "/"
        # a part of an object, or one stored in parts, has no checksum of its own; ours is of the whole
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
        """Where a backup is, or all of them."""
        return f"s3://{self.bucket}/{self.folder}{name}"

    def latest(self):
        """The newest backup's id."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self.folder)
        keys = [
            found["Key"].removeprefix(self.folder) for page in pages for found in page.get("Contents", ())
        ]
        names = [key.partition("/") for key in keys]
        whole = [name for name, _, file in names if file == "manifest.json" and ID.fullmatch(name)]
        if not whole:
            raise Trouble("missing", f"there is no backup at {self.uri()}")
        return max(whole)

    def manifest(self, name):
        """What is known of a backup; read strictly, for all of it decides what happens."""
        try:
            content = self.client.get_object(Bucket=self.bucket, Key=f"{self.folder}{name}/manifest.json")
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                raise Trouble("missing", f"there is no backup at {self.uri(name)}") from error
            raise
        try:
            found = json.loads(content["Body"].read(65536))
        except ValueError as error:
            raise Trouble("format", f"the manifest at {self.uri(name)} can't be read") from error
        if not isinstance(found, dict) or found.get("formatVersion") != FORMAT:
            version = found.get("formatVersion") if isinstance(found, dict) else None
            raise Trouble(
                "format", f"the backup at {self.uri(name)} has format {version!r}, and {FORMAT} is known"
            )
        strings = {"id": ID, "schemaRevision": REVISION, "sha256": SHA256}
        fit = all(
            isinstance(found.get(key), str) and form.fullmatch(found[key]) for key, form in strings.items()
        )
        if not fit or found["id"] != name or type(found.get("sizeBytes")) is not int:
            raise Trouble("format", f"the manifest at {self.uri(name)} is not one that a backup writes")
        return found

    def dump(self, name, size):
        """The dump, bit by bit. A transfer that is cut off goes on where it was."""
        place = {"Bucket": self.bucket, "Key": f"{self.folder}{name}/database.dump"}
        known = self.client.head_object(**place)
        if known["ContentLength"] != size:
            raise Trouble(
                "damaged", f"{self.uri(name)} has {known['ContentLength']} bytes, and had {size} when made"
            )
        done, tries = 0, 0
        while done < size:
            try:
                part = self.client.get_object(**place, Range=f"bytes={done}-", IfMatch=known["ETag"])["Body"]
                while chunk := part.read(CHUNK):
                    done, tries = done + len(chunk), 0
                    yield chunk
            except (BotoCoreError, HTTPError, OSError) as error:
                tries += 1
                if tries > TRIES:
                    raise Trouble("store", f"the transfer of {self.uri(name)} is cut off: {error}") from error
                print(f"the transfer was cut off after {done} bytes: {error}", flush=True)
                time.sleep(tries)


class Database:
    """The one that the backup is put into."""

    def __init__(self, uri):
        # SQLAlchemy names a driver in the scheme, libpq knows none
        self.uri = "postgresql://" + uri.partition("://")[2]

    def check(self):
        """Raises Trouble if it holds tables. Asked again when it matters, where nobody can come between."""
        with closing(psycopg2.connect(self.uri, connect_timeout=10)) as session:
            asked = session.cursor()
            asked.execute(TABLES)
            tables = asked.fetchone()[0]
        if tables:
            raise Trouble("tables", f"the database holds tables already ({tables})")

    def introduce(self, folder):
        """Says in `folder` how the database is reached: where no argument and no environment shows the password."""
        options = parse_dsn(self.uri)
        password = options.pop("password", "")
        lines = ["[restore]", *(f"{name}={value}" for name, value in options.items() if value)]
        for line in lines:
            if line != line.strip() or "\n" in line or len(line.encode()) > LONGEST_LINE:
                name = line.partition("=")[0]
                raise Trouble("database", f"libpq's service file can't hold the {name} of the connection")
        escaped = password.replace("\\", "\\\\").replace(":", "\\:")
        write_private(os.path.join(folder, "pgpass"), f"*:*:*:*:{escaped}\n")
        write_private(os.path.join(folder, "pg_service.conf"), "\n".join(lines) + "\n")


class Hand:
    """The other container, at the other ends of two pipes in `folder`: one takes the dump, one says how it ended."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("dump", "outcome"):
            os.mkfifo(os.path.join(folder, name), 0o600)
        # opened now, so that what is said there later is heard, and its end, too
        self.outcome = os.open(os.path.join(folder, "outcome"), os.O_RDONLY | os.O_NONBLOCK)
        self.pipe, self.said = None, bytearray()

    def call(self):
        """Has it begin; returns when it does. BrokenPipeError if it has nothing to begin with."""
        tables, timeouts = TABLES.strip(), ", ".join(f"'{name}'" for name in TIMEOUTS)
        begin = BEGIN.format(tables=tables, timeouts=timeouts, lock=LOCK)
        write_private(os.path.join(self.folder, "begin.sql"), begin)
        write_private(os.path.join(self.folder, "ready"), "")
        limit = time.monotonic() + BEGUN
        while self.pipe is None:
            try:
                self.pipe = os.open(os.path.join(self.folder, "dump"), os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                if self.spoke():
                    raise BrokenPipeError from error
                if time.monotonic() > limit:
                    raise Trouble("begin", f"pg_restore did not begin within {BEGUN} s") from error
                time.sleep(0.1)
        os.set_blocking(self.pipe, True)

    def spoke(self):
        """Whether it has said already how it ended."""
        try:
            self.said += os.read(self.outcome, 4096)
        except BlockingIOError:
            return False
        return bool(self.said)

    def give(self, data):
        """A piece of the dump."""
        view = memoryview(data)
        while view:
            view = view[os.write(self.pipe, view) :]

    def release(self, statement):
        """What ends the transaction; to be said before the last piece of the dump."""
        write_private(os.path.join(self.folder, "commit.sql"), statement)

    def hang_up(self):
        """No more comes: without what commits, all that it has done is undone."""
        if self.pipe is not None:
            os.close(self.pipe)
            self.pipe = None

    def end(self):
        """Returns what it said at its end, nothing where it died without a word."""
        self.hang_up()
        os.set_blocking(self.outcome, True)
        while piece := os.read(self.outcome, 4096):
            self.said += piece
        return self.said.decode(errors="replace").strip()


def knows(revision):
    """Whether this image's MLflow can take tables of a revision further."""
    (mlflow,) = find_spec("mlflow").submodule_search_locations
    migrations = Path(mlflow, "store", "db_migrations")
    # to have them all imported takes seconds, in which a database of some size could be back
    says_so = re.compile(rf"^revision = [\"']{revision}[\"']$", re.MULTILINE)
    if any(says_so.search(script.read_text()) for script in migrations.glob("versions/*.py")):
        return True
    from alembic.script import ScriptDirectory

    return any(script.revision == revision for script in ScriptDirectory(str(migrations)).walk_revisions())


def transfer(store, hand, manifest, marker):
    """Gives the dump away, the end of it only if all of it is what was backed up."""
    digest, size, held = hashlib.sha256(), 0, b""
    for chunk in store.dump(manifest["id"], manifest["sizeBytes"]):
        digest.update(chunk)
        size += len(chunk)
        hand.give(held)
        held = chunk
    if size != manifest["sizeBytes"] or digest.hexdigest() != manifest["sha256"]:
        raise Trouble(
            "damaged", f"{store.uri(manifest['id'])} is not what was backed up: its SHA-256 is another one"
        )
    hand.release(COMMIT.format(revision=manifest["schemaRevision"], marker=marker))
    hand.give(held)


def put_back(given, store, folder):
    """Puts one backup back; returns its manifest."""
    # first of all, for the other container looks for them
    hand = Hand(folder)
    database = Database(given["MLFLOW_BACKEND_STORE_URI"])
    database.check()
    asked = given["RESTORE_BACKUP"]
    manifest = store.manifest(store.latest() if asked == "latest" else asked)
    revision = manifest["schemaRevision"]
    if not knows(revision):
        raise Trouble("newer", f"{manifest.get('mlflowVersion', 'unknown')} {revision}")
    database.introduce(folder)
    print(f"restoring {store.uri(manifest['id'])}", flush=True)
    marker = given["RESTORE_MARKER"].format(id=manifest["id"])
    try:
        hand.call()
        transfer(store, hand, manifest, marker)
    except BrokenPipeError:
        print("the other container has ended", flush=True)
    except BaseException:
        hand.hang_up()
        raise
    said = hand.end()
    if said != "0":
        raise Trouble("pg_restore", said or "it ended without a word")
    print(f"restored {manifest['sizeBytes']} bytes", flush=True)
    return manifest


def fault(error):
    """What is told of an error."""
    kinds = ((Trouble, None), (psycopg2.Error, "database"), ((ClientError, BotoCoreError), "store"))
    for wanted, kind in kinds:
        if isinstance(error, wanted):
            return kind or error.kind, str(error)
    return "other", f"{type(error).__name__}: {error}"


def interrupted(number, frame):
    """Asked to end: the other container hears of it by the end of the dump."""
    raise Trouble("interrupted", "it was asked to end before it was done")


def main():
    """Puts a backup back, and says how that ended."""
    signal.signal(signal.SIGTERM, interrupted)
    given, folder, faults, manifest = os.environ, os.environ["RESTORE_FOLDER"], [], None
    try:
        store = Store(given["RESTORE_SOURCE"], given["RESTORE_NAMESPACE"], given["RESTORE_SERVER"])
        manifest = put_back(given, store, folder)
    except Exception as error:
        kind, said = fault(error)
        said = " ".join(said.split())[:600]
        print(f"{kind}: {said}", file=sys.stderr, flush=True)
        faults.append({"kind": kind, "said": said})
    # whoever waits in the other container need not wait any more
    write_private(os.path.join(folder, "over"), "")
    kept = ("id", "schemaRevision")
    backup = manifest and {name: manifest[name] for name in kept}
    text = json.dumps({"backup": backup, "faults": faults})
    while len(text) > LIMIT:
        faults[0]["said"] = faults[0]["said"][: len(faults[0]["said"]) // 2]
        text = json.dumps({"backup": backup, "faults": faults})
    with open(LAST_WORDS, "w") as words:
        words.write(text)
    print(text, flush=True)
    sys.exit(1 if faults else 0)


main()
