"""What can be wrong with a database, on real ones that have it, and the sentence for each."""

from collections.abc import Awaitable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

import pytest

from mlflow_operator.clients.postgres.admin import provision
from mlflow_operator.clients.postgres.client import inspect
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ServerRef, TLSMode
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError
from tests.contracts import postgres
from tests.contracts.conftest import PINS
from tests.contracts.postgres import Instance
from tests.e2e.certificates import authority

IMAGE = PINS["IMAGE_POSTGRES"]
FIELD = "spec.database.provision"
OWNER = ServerRef("a", "team", "uid")
NAME = provisioning.derived_name(OWNER)
PLAN = DatabasePlan(NAME, NAME, 20, provisioning.marker(OWNER, None))
LOGIN = Login(PLAN.logins[0], "password")
OURS, THEIRS = authority("Ours"), authority("Theirs")


def secure() -> str:
    """Lets nobody in but by TLS, with a certificate made out for `localhost`."""
    certificate, key = OURS.issue("localhost")
    return f"""
echo '{certificate}' > $PGDATA/server.crt; echo '{key}' > $PGDATA/server.key; chmod 600 $PGDATA/server.key
echo 'hostssl all all all scram-sha-256' > $PGDATA/pg_hba.conf
echo 'local all all trust' >> $PGDATA/pg_hba.conf
echo 'ssl = on' >> $PGDATA/postgresql.conf
"""


@pytest.fixture(scope="module")
def secured() -> Iterator[Instance]:
    """One that speaks to nobody in the clear."""
    found = postgres.start(IMAGE, script=secure())
    yield found
    postgres.stop(found)


@pytest.fixture(scope="module")
def standby() -> Iterator[Instance]:
    """A replica, without anything to follow."""
    found = postgres.start(IMAGE, script="touch $PGDATA/standby.signal")
    yield found
    postgres.stop(found)


@pytest.fixture(scope="module")
def small() -> Iterator[Instance]:
    """One on a disk of 96 MB that takes six connections, three of them kept for superusers."""
    found = postgres.start(IMAGE, "-c", "max_connections=6", "-c", "max_wal_senders=0", megabytes=96)
    yield found
    postgres.stop(found)


def root(instance: Instance) -> Connection:
    """Its superuser, without a word on TLS."""
    return instance.connection(instance.user, instance.password)


async def told(attempt: Awaitable[object], kind: type[ReconcileError], reason: Reason, sentence: str) -> None:
    """The whole sentence, after where the database is."""
    with pytest.raises(kind) as refusal:
        await attempt
    assert refusal.value.reason is reason
    assert refusal.value.message.partition(" ")[2].endswith(sentence)
    assert "root" not in refusal.value.message


async def test_tls_that_is_required(secured: Instance) -> None:
    """And turned off."""
    plain = root(secured).with_tls(TLSMode.DISABLE, None)
    sentence = (
        "has no pg_hba.conf entry for this client, user, database and encryption. Add one there, or change "
        f"{FIELD}.tls.mode."
    )
    await told(
        inspect(plain, None, FIELD), ConfigurationError, Reason.DATABASE_AUTHENTICATION_FAILED, sentence
    )
    await told(
        provision(plain, None, PLAN, LOGIN, FIELD),
        ConfigurationError,
        Reason.DATABASE_AUTHENTICATION_FAILED,
        sentence,
    )


async def test_a_certificate_of_an_unknown_authority(secured: Instance, tmp_path: Path) -> None:
    """The right one lets in, to look and to provision."""
    trusted, other = tmp_path / "ours.crt", tmp_path / "theirs.crt"
    trusted.write_text(OURS.pem)
    other.write_text(THEIRS.pem)
    verified = replace(root(secured), host="localhost").with_tls(TLSMode.VERIFY_FULL, None)
    sentence = (
        "shows a certificate that is not trusted. "
        f"Put its authority into the Secret that {FIELD}.tls.caSecretRef names."
    )
    for attempt in (
        inspect(verified, str(other), FIELD),
        provision(verified, str(other), PLAN, LOGIN, FIELD),
    ):
        await told(attempt, ConfigurationError, Reason.DATABASE_UNREACHABLE, sentence)
    await told(
        inspect(replace(verified, host="127.0.0.1"), str(trusted), FIELD),
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        "shows a certificate that is made out for another host. Name the database by the host in its certificate, or "
        f"use mode VerifyCA in {FIELD}.tls.",
    )
    await provision(verified, str(trusted), PLAN, LOGIN, FIELD)
    login = replace(verified, database=PLAN.database, username=LOGIN.name, password=LOGIN.password)
    await inspect(login, str(trusted), FIELD)


async def test_tls_that_the_database_does_not_speak(instance: Instance) -> None:
    """And that is asked for."""
    await told(
        inspect(root(instance).with_tls(TLSMode.REQUIRE, None), None, FIELD),
        ConfigurationError,
        Reason.DATABASE_UNREACHABLE,
        f"speaks no TLS, which {FIELD}.tls.mode asks for. Turn TLS on there, or use mode Prefer.",
    )


async def test_a_replica(standby: Instance) -> None:
    """Named as host: nothing can be made there, and nothing logged."""
    sentence = (
        "lets nothing be written: it is a standby, or default_transaction_read_only is on. "
        f"Name the primary in {FIELD}."
    )
    await told(
        provision(root(standby), None, PLAN, LOGIN, FIELD),
        TransientError,
        Reason.DATABASE_READ_ONLY,
        sentence,
    )
    await told(
        inspect(root(standby), None, FIELD),
        TransientError,
        Reason.DATABASE_READ_ONLY,
        sentence,
    )


async def test_a_host_that_does_not_resolve() -> None:
    """By its field."""
    nowhere = Connection("postgres.nowhere.invalid", 5432, "postgres", "root", "root")
    await told(
        provision(nowhere, None, PLAN, LOGIN, FIELD),
        TransientError,
        Reason.DATABASE_UNREACHABLE,
        f"has a name that does not resolve in this cluster. Check {FIELD}.",
    )


async def test_too_many_connections(small: Instance) -> None:
    """Of all users together, and then of the one database; to look and to provision."""
    admin = small.make_admin("crowded", "secret")
    sentence = (
        "has no connection left. Raise its max_connections, or the limit of the database or of its user."
    )
    with ExitStack() as held:
        for _ in range(3):
            held.enter_context(closing(small.session(user="crowded", password="secret")))
        await told(
            provision(admin, None, PLAN, LOGIN, FIELD), TransientError, Reason.DATABASE_UNREACHABLE, sentence
        )
        await told(inspect(admin, None, FIELD), TransientError, Reason.DATABASE_UNREACHABLE, sentence)
    small.query("ALTER DATABASE postgres CONNECTION LIMIT 0")
    await told(inspect(admin, None, FIELD), TransientError, Reason.DATABASE_UNREACHABLE, sentence)
    small.query("ALTER DATABASE postgres CONNECTION LIMIT -1")


async def test_a_full_disk(small: Instance) -> None:
    """It goes on once there is room."""
    fill = "$PGDATA/fill"
    small.shell(f"cat /dev/zero > {fill} 2>/dev/null || true")
    await told(
        provision(root(small), None, PLAN, LOGIN, FIELD),
        TransientError,
        Reason.DATABASE_FULL,
        "has no room left on its disk. Make its volume larger, or free some of it; it is then tried again by itself.",
    )
    small.shell(f"rm {fill}")
    await provision(root(small), None, PLAN, LOGIN, FIELD)
