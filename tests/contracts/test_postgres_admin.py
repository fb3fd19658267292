"""Databases and roles for servers, created by an administrator who is not a superuser."""

import asyncio
import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from psycopg.sql import SQL, Composed

from mlflow_operator.clients.postgres import admin as postgres_admin
from mlflow_operator.clients.postgres.admin import PostgresAdmin
from mlflow_operator.clients.postgres.client import Postgres
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.contracts.postgres import Instance

SESSIONS = Sessions()
POSTGRES, POSTGRES_ADMIN = Postgres(SESSIONS), PostgresAdmin(SESSIONS)
FIELD = "spec.database.provision"
PASSWORD = "must-not-be-logged"
SHADOW_PG_ROLES = """
CREATE TABLE public.caught (name text);
CREATE FUNCTION public.trap() RETURNS boolean LANGUAGE plpgsql SECURITY INVOKER AS
    'BEGIN INSERT INTO public.caught VALUES (session_user); RETURN true; END';
CREATE VIEW public.pg_roles AS
    SELECT session_user::name AS rolname, public.trap() AS rolsuper, true AS rolcreaterole, true AS rolcreatedb;
GRANT ALL ON SCHEMA public TO PUBLIC;
GRANT ALL ON public.caught, public.pg_roles TO PUBLIC;
"""
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def admin(instance: Instance) -> Connection:
    """An administrator with only CREATEROLE and CREATEDB."""
    return instance.create_admin(f"admin-{len(instance.role_names())}", "secret")


@pytest.fixture
def plan(instance: Instance, admin: Connection) -> Iterator[DatabasePlan]:
    """The plan for a new server. Deletes the database and the roles afterwards."""
    plan = _plan(f"server-{next(_numbers)}-{len(instance.role_names())}")
    yield plan
    asyncio.run(POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD))
    assert plan.database not in instance.database_oids()
    assert not instance.role_names() & {plan.role, *plan.logins}


def _plan(name: str) -> DatabasePlan:
    owner = ServerRef(name, "team", "uid")
    name = provisioning.derived_name(owner)
    return DatabasePlan(name, name, 20, provisioning.marker(owner, "cluster-1"))


def login_of(plan: DatabasePlan, index: int = 0, password: str = PASSWORD) -> Login:
    """One of the two logins of a plan."""
    return Login(plan.logins[index], password)


def login_parameters(login: Login) -> dict[str, str]:
    """The login as arguments of `Instance.session`."""
    return {"user": login.name, "password": login.password}


async def test_login_can_use_database_owned_by_its_role(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """Encoding UTF8, sorted by code point, with known letters beyond ASCII. The login can create MLflow's tables."""
    login = login_of(plan)
    await POSTGRES_ADMIN.provision(admin, None, plan, login, FIELD)
    state = await POSTGRES.inspect(
        instance.connection(login.name, login.password, plan.database), None, FIELD
    )
    assert (state.encoding, state.obstacle) == ("UTF8", None)

    instance.query("CREATE TABLE experiments (name text)", database=plan.database, **login_parameters(login))
    query = "SELECT tableowner FROM pg_tables WHERE tablename = 'experiments'"
    assert instance.query(query, database=plan.database) == [(plan.role,)]
    letters = "SELECT 'É' ILIKE 'é', 'Z' < 'a'"
    assert instance.query(letters, database=plan.database, **login_parameters(login)) == [(True, True)]
    query = "SELECT datconnlimit, pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
    assert instance.query(query, (plan.database,)) == [(20, plan.role)]


async def test_other_logins_cannot_connect(instance: Instance, admin: Connection, plan: DatabasePlan) -> None:
    """Neither other users nor another server's login. The owner itself cannot log in."""
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
    other = _plan(f"other-of-{plan.role}"[:40])
    await POSTGRES_ADMIN.provision(admin, None, other, login_of(other), FIELD)
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            instance.session(plan.database, **login_parameters(login_of(other)))
    finally:
        await POSTGRES_ADMIN.deprovision(admin, None, other, FIELD)
    query = "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = ANY(%s)"
    attributes = instance.query(query, ([plan.role, plan.logins[0]],))
    assert sorted(attributes) == [(False, False, False, False), (True, False, False, False)]
    query = "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'"
    [(schema_privileges,)] = instance.query(query, database=plan.database)
    assert not [entry for entry in schema_privileges.strip("{}").split(",") if entry.startswith("=")]


async def test_provision_applies_only_changes(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """The data does not change. A new connection limit and a new password are applied."""
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
    instance.query("CREATE TABLE kept ()", database=plan.database, **login_parameters(login_of(plan)))
    before = instance.database_oids()
    changed = replace(plan, connection_limit=33)
    await POSTGRES_ADMIN.provision(admin, None, changed, login_of(plan, password="another"), FIELD)
    assert instance.database_oids() == before
    instance.query("TABLE kept", database=plan.database, user=plan.logins[0], password="another")
    query = "SELECT datconnlimit FROM pg_database WHERE datname = %s"
    assert instance.query(query, (plan.database,)) == [(33,)]


async def test_owner_cannot_lift_the_connection_limit(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """It can lift the limit of its database, but not the one of its login. The next reconcile restores both."""
    limited, login = replace(plan, connection_limit=2), login_of(plan)
    await POSTGRES_ADMIN.provision(admin, None, limited, login, FIELD)
    parameters = login_parameters(login)
    instance.query(
        f'ALTER DATABASE "{plan.database}" CONNECTION LIMIT -1', database=plan.database, **parameters
    )
    for name in (plan.role, *plan.logins[:1]):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            instance.query(f'ALTER ROLE "{name}" CONNECTION LIMIT -1', database=plan.database, **parameters)
    state = await POSTGRES.inspect(
        instance.connection(login.name, login.password, plan.database), None, FIELD
    )
    assert (state.connection_limit, state.login_connection_limit) == (-1, 2)
    with (
        closing(instance.session(plan.database, **parameters)),
        closing(instance.session(plan.database, **parameters)),
        pytest.raises(psycopg.OperationalError, match="too many connections for role"),
    ):
        instance.session(plan.database, **parameters)


async def test_provision_resumes_after_operator_crash(
    instance: Instance, admin: Connection, plan: DatabasePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator crashes before each of its statements in turn; the next attempt finds its objects and completes."""
    original_execute = postgres_admin._AdminSession.execute
    statements_left = 0

    class CrashError(Exception):
        pass

    async def execute(self: Any, statement: SQL | Composed) -> None:
        nonlocal statements_left
        if statements_left == 0:
            raise CrashError
        statements_left -= 1
        await original_execute(self, statement)

    for allowed in itertools.count():
        statements_left = allowed
        with monkeypatch.context() as patch:
            patch.setattr(postgres_admin._AdminSession, "execute", execute)
            try:
                await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
            except CrashError:
                pass
            else:
                break
        await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
        instance.query("SELECT 1", database=plan.database, **login_parameters(login_of(plan)))
        await POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD)
    assert allowed > 10


async def test_existing_objects_of_others_are_not_modified(instance: Instance, admin: Connection) -> None:
    """A database, an owner and a login with the same name, created by someone else, and objects of another server."""
    plan = _plan(f"taken-{len(instance.role_names())}")
    login = login_of(plan)

    async def assert_conflict(object_type: str) -> None:
        for attempt in (
            POSTGRES_ADMIN.provision(admin, None, plan, login, FIELD),
            POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD),
        ):
            with pytest.raises(ConfigurationError) as error:
                await attempt
            assert error.value.reason is Reason.NAME_CONFLICT
            assert f"{object_type}Name" in error.value.message
            assert "does not modify it" in error.value.message

    instance.query(f'CREATE DATABASE "{plan.database}"')
    before = instance.database_oids()
    await assert_conflict("database")
    assert instance.database_oids() == before
    instance.query(f'DROP DATABASE "{plan.database}"')
    await POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD)

    for name in (plan.role, login.name):
        instance.query(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'theirs'")
        await assert_conflict("role")
        instance.query("SELECT 1", user=name, password="theirs")
        instance.query(f'DROP ROLE "{name}"')
        await POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD)

    other_cluster = replace(plan, marker=provisioning.marker(ServerRef("taken", "team", "uid"), "cluster-2"))
    await POSTGRES_ADMIN.provision(admin, None, other_cluster, login, FIELD)
    await assert_conflict("role")
    await POSTGRES_ADMIN.deprovision(admin, None, other_cluster, FIELD)


async def test_statement_in_name_conflict_message_resolves_it(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """The statement assigns the object to this server, for example after the cluster was rebuilt."""
    before = replace(plan, marker=provisioning.marker(ServerRef("server", "team", "uid"), "cluster-before"))
    await POSTGRES_ADMIN.provision(admin, None, before, login_of(before), FIELD)
    instance.query("CREATE TABLE kept ()", database=plan.database, **login_parameters(login_of(plan)))
    for _ in range(3):
        with pytest.raises(ConfigurationError) as error:
            await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
        statement = error.value.message.partition("execute there: ")[2].rstrip(".")
        instance.query(statement)
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
    instance.query("TABLE kept", database=plan.database, **login_parameters(login_of(plan)))


@pytest.mark.parametrize(
    ("attributes", "fragment"),
    [
        ("CREATEROLE", "is not allowed to create databases"),
        ("CREATEDB", "is not allowed to create roles"),
        ("", "is not allowed to create roles"),
    ],
)
async def test_missing_attribute_of_administrator_is_reported(
    instance: Instance, plan: DatabasePlan, attributes: str, fragment: str
) -> None:
    """The message says how to grant it. Nothing is created that another administrator could not manage."""
    limited = instance.create_admin(f"limited-{len(instance.role_names())}", "secret", attributes)
    with pytest.raises(ConfigurationError) as error:
        await POSTGRES_ADMIN.provision(limited, None, plan, login_of(plan), FIELD)
    assert error.value.reason is Reason.PROVISIONING_DENIED
    assert fragment in error.value.message
    assert "ALTER ROLE … CREATE" in error.value.message
    assert plan.role not in instance.role_names(), "the owner was created"
    with pytest.raises(ConfigurationError, match=fragment):
        await POSTGRES_ADMIN.check(limited, None, FIELD)


async def test_check_of_an_administrator_writes_nothing(instance: Instance, admin: Connection) -> None:
    """The login proves the password with SCRAM, as the one of a platform's administrator."""
    before = instance.role_names(), instance.database_oids()
    scram = replace(admin, options=(("require_auth", "scram-sha-256"),))
    await POSTGRES_ADMIN.check(scram, None, FIELD)
    assert (instance.role_names(), instance.database_oids()) == before


async def test_check_reports_a_postgres_that_rejects_writes(instance: Instance) -> None:
    """The administrator may create databases, but not on a standby."""
    admin = instance.create_admin(f"read-only-{len(instance.role_names())}", "secret")
    instance.query(f'ALTER ROLE "{admin.username}" SET default_transaction_read_only = on')
    with pytest.raises(TransientError) as error:
        await POSTGRES_ADMIN.check(admin, None, FIELD)
    assert error.value.reason is Reason.DATABASE_READ_ONLY


async def test_wrong_password_of_administrator_is_reported(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """The message names the field that references the Secret."""
    with pytest.raises(ConfigurationError) as error:
        await POSTGRES_ADMIN.provision(replace(admin, password="wrong"), None, plan, login_of(plan), FIELD)
    assert error.value.reason is Reason.DATABASE_AUTHENTICATION_FAILED
    assert f"the Secret referenced by {FIELD}.adminSecretRef" in error.value.message


async def test_message_says_how_to_change_the_administrator(instance: Instance, plan: DatabasePlan) -> None:
    """In Postgres 16 and later only the creator of a role may act as it, before that every role with CREATEROLE."""
    first = instance.create_admin(f"first-{len(instance.role_names())}", "secret")
    second = instance.create_admin(f"second-{len(instance.role_names())}", "secret")
    await POSTGRES_ADMIN.provision(first, None, plan, login_of(plan), FIELD)
    if instance.query("SHOW server_version_num")[0][0] < "160000":
        await POSTGRES_ADMIN.provision(second, None, plan, login_of(plan), FIELD)
        return
    with pytest.raises(ConfigurationError) as error:
        await POSTGRES_ADMIN.provision(second, None, plan, login_of(plan), FIELD)
    assert error.value.reason is Reason.PROVISIONING_DENIED
    assert "WITH ADMIN OPTION" in error.value.message
    for role in (plan.role, plan.logins[0]):
        instance.query(f'GRANT "{role}" TO "{second.username}" WITH ADMIN OPTION')
    await POSTGRES_ADMIN.provision(second, None, plan, login_of(plan), FIELD)
    await POSTGRES_ADMIN.deprovision(second, None, plan, FIELD)


async def test_logins_can_be_exchanged(instance: Instance, admin: Connection, plan: DatabasePlan) -> None:
    """Both logins use the same tables. Then the first one is deleted, its session ends, and its objects stay."""
    first, second = login_of(plan), login_of(plan, 1, "second")
    await POSTGRES_ADMIN.provision(admin, None, plan, first, FIELD)
    instance.query("CREATE TABLE runs (id int)", database=plan.database, **login_parameters(first))
    instance.query(
        "RESET ROLE; SET ROLE NONE; CREATE SCHEMA own", database=plan.database, **login_parameters(first)
    )
    await POSTGRES_ADMIN.ensure_login(admin, None, plan, second, FIELD)
    instance.query(
        "ALTER TABLE runs ADD COLUMN name text", database=plan.database, **login_parameters(second)
    )
    instance.query("INSERT INTO runs VALUES (1)", database=plan.database, **login_parameters(first))

    with closing(instance.session(plan.database, **login_parameters(first))) as session:
        await POSTGRES_ADMIN.delete_login(admin, None, plan, first.name, FIELD)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        instance.session(plan.database, **login_parameters(first))
    assert instance.query("SELECT id FROM runs", database=plan.database, **login_parameters(second)) == [(1,)]
    instance.query("CREATE TABLE own.more ()", database=plan.database, **login_parameters(second))
    await POSTGRES_ADMIN.delete_login(admin, None, plan, first.name, FIELD)
    assert first.name not in instance.role_names()


async def test_deprovision_deletes_only_own_objects(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """Also with open sessions. Deprovisioning again does nothing."""
    roles, databases = instance.role_names(), instance.database_oids()
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
    await POSTGRES_ADMIN.ensure_login(admin, None, plan, login_of(plan, 1), FIELD)
    with closing(instance.session(plan.database, **login_parameters(login_of(plan)))):
        await POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD)
    assert (instance.role_names(), instance.database_oids()) == (roles, databases)
    await POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD)


async def test_lost_database_is_not_replaced_by_an_empty_one(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """Unless `create` is set."""
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
    instance.query(f'DROP DATABASE "{plan.database}"')
    for attempt in (
        POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD, create=False),
        POSTGRES_ADMIN.ensure_login(admin, None, plan, login_of(plan), FIELD),
    ):
        with pytest.raises(ConfigurationError) as error:
            await attempt
        assert error.value.reason is Reason.DATABASE_LOST
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)


async def test_search_path_of_owner_does_not_affect_administrator(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """The owner of a database can shadow Postgres' functions and tables, which the administrator would then execute."""
    login = login_of(plan)
    await POSTGRES_ADMIN.provision(admin, None, plan, login, FIELD)
    instance.query(
        SHADOW_PG_ROLES + f'ALTER DATABASE "{plan.database}" SET search_path TO public, pg_catalog',
        (),
        plan.database,
        **login_parameters(login),
    )
    shadowed = "SELECT rolsuper FROM pg_roles"
    assert instance.query(shadowed, database=plan.database, user=admin.username, password=admin.password)
    assert instance.query("TABLE public.caught", database=plan.database) == [(admin.username,)]
    instance.query("DELETE FROM public.caught", database=plan.database)

    await POSTGRES_ADMIN.provision(admin, None, plan, login, FIELD)
    await POSTGRES_ADMIN.delete_login(admin, None, plan, login.name, FIELD)
    assert instance.query("TABLE public.caught", database=plan.database) == []


async def test_concurrent_provisioning(instance: Instance, admin: Connection) -> None:
    """Ten servers are created at the same time."""
    plans = [_plan(f"crowd-{number}") for number in range(10)]
    await asyncio.gather(
        *(POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD) for plan in plans)
    )
    assert {plan.database for plan in plans} <= set(instance.database_oids())
    await asyncio.gather(*(POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD) for plan in plans))
    assert not {plan.database for plan in plans} & set(instance.database_oids())


def _truncate(text: str, max_bytes: int) -> str:
    return text.encode()[:max_bytes].decode(errors="ignore")


_NAMES = st.one_of(
    st.sampled_from(
        [
            '"; DROP DATABASE postgres; --',
            "a'b\"c\\d",
            "%s %(name)s {} {0}",
            "$$; $1",
            "Ünïcödé 名前",
            "\n\t\r ",
            "select",
            "A",
            "-- x",
            "/* x",
            "e" * 70,
            "é" * 40,
            'U&"\\0061"',
        ]
    ),
    st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=70),
)
_PLANS = st.builds(
    lambda database, role, marked: DatabasePlan(
        _truncate(database, provisioning.MAX_IDENTIFIER_BYTES),
        _truncate(role, provisioning.MAX_ROLE_BYTES),
        5,
        marked,
    ),
    _NAMES,
    _NAMES,
    st.builds("mlflow-operator.dev: {}".format, _NAMES),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=_PLANS, password=_NAMES)
def test_names_are_quoted(instance: Instance, admin: Connection, plan: DatabasePlan, password: str) -> None:
    """The database and the roles get exactly these names, and no other objects are created or dropped."""
    roles, databases = instance.role_names(), instance.database_oids()
    login = Login(plan.logins[0], password)
    # Names that Postgres reserves, or that exist already.
    assume(not plan.role.startswith("pg_") and plan.role not in roles and plan.database not in databases)

    async def provision_and_inspect() -> None:
        await POSTGRES_ADMIN.provision(admin, None, plan, login, FIELD)
        await POSTGRES.inspect(instance.connection(login.name, login.password, plan.database), None, FIELD)

    try:
        asyncio.run(provision_and_inspect())
        assert set(instance.database_oids()) - set(databases) == {plan.database}
        assert instance.role_names() - roles == {plan.role, login.name}
    finally:
        asyncio.run(POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD))
    assert (instance.role_names(), instance.database_oids()) == (roles, databases)


CREATE_TABLE_FOR_AUTOVACUUM = """
CREATE TABLE public.dirty (n int) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
INSERT INTO public.dirty SELECT generate_series(1, 300000);
DELETE FROM public.dirty;
"""
"""Gives autovacuum work for minutes."""


async def test_autovacuum_does_not_block_deprovision(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """The operator may terminate only sessions of the server's logins, and autovacuum does not run as one of them."""
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
    instance.query(CREATE_TABLE_FOR_AUTOVACUUM, database=plan.database)
    instance.query("ALTER SYSTEM SET autovacuum_naptime = 1")
    instance.query("SELECT pg_reload_conf()")
    try:
        deadline = time.monotonic() + 90
        autovacuum_workers = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = %s"
        )
        while instance.query(autovacuum_workers, [plan.database]) == [(0,)]:
            assert time.monotonic() < deadline, "autovacuum did not start"
            await asyncio.sleep(0.1)
        await POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD)
    finally:
        instance.query("ALTER SYSTEM RESET autovacuum_naptime")
        instance.query("SELECT pg_reload_conf()")
    assert plan.database not in instance.database_oids()


async def test_session_of_another_user_blocks_deprovision(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """For example of a platform administrator: the operator must not end that session."""
    await POSTGRES_ADMIN.provision(admin, None, plan, login_of(plan), FIELD)
    with closing(instance.session(plan.database)), pytest.raises(TransientError) as error:
        await POSTGRES_ADMIN.deprovision(admin, None, plan, FIELD)
    assert f'The database "{plan.database}"' in error.value.message
    assert "cannot be dropped while other users are connected" in error.value.message
    assert plan.database in instance.database_oids()


def test_passwords_are_not_in_postgres_log(instance: Instance) -> None:
    """This Postgres logs every statement. The operator sends passwords as the hashes that Postgres stores."""
    if instance.container:
        log = instance.log()
        assert "CREATE ROLE" in log
        assert PASSWORD not in log
