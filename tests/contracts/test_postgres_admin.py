"""Databases and roles made for servers, by an administrator who is no superuser."""

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
from mlflow_operator.clients.postgres.admin import delete_login, drop, ensure_login, provision
from mlflow_operator.clients.postgres.client import inspect
from mlflow_operator.model import provisioning
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.provisioning import DatabasePlan, Login
from mlflow_operator.model.server import ServerRef
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.contracts.postgres import Instance

FIELD = "spec.database.provision"
HIDDEN = "in-no-log-ever"
TRAP = """
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
    """May make roles and databases, and nothing else."""
    return instance.make_admin(f"admin-{len(instance.roles())}", "secret")


@pytest.fixture
def plan(instance: Instance, admin: Connection) -> Iterator[DatabasePlan]:
    """For a server of its own."""
    made = _plan(f"server-{next(_numbers)}-{len(instance.roles())}")
    yield made
    asyncio.run(drop(admin, None, made, FIELD))
    assert made.database not in instance.databases()
    assert not instance.roles() & {made.role, *made.logins}


def _plan(name: str) -> DatabasePlan:
    owner = ServerRef(name, "team", "uid")
    derived = provisioning.derived_name(owner)
    return DatabasePlan(derived, derived, 20, provisioning.marker(owner, "cluster-1"))


def login_of(plan: DatabasePlan, which: int = 0, password: str = HIDDEN) -> Login:
    """One of the two."""
    return Login(plan.logins[which], password)


def who(login: Login) -> dict[str, str]:
    """As a session takes it."""
    return {"user": login.name, "password": login.password}


async def test_the_login_has_a_database_that_its_role_owns(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """UTF8, sorted the same on every machine, letters told beyond ASCII; MLflow's tables can be made."""
    login = login_of(plan)
    await provision(admin, None, plan, login, FIELD)
    state = await inspect(instance.connection(login.name, login.password, plan.database), None, FIELD)
    assert (state.encoding, state.obstacle) == ("UTF8", None)

    instance.query("CREATE TABLE experiments (name text)", database=plan.database, **who(login))
    asked = "SELECT tableowner FROM pg_tables WHERE tablename = 'experiments'"
    assert instance.query(asked, database=plan.database) == [(plan.role,)]
    letters = "SELECT 'É' ILIKE 'é', 'Z' < 'a'"
    assert instance.query(letters, database=plan.database, **who(login)) == [(True, True)]
    asked = "SELECT datconnlimit, pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s"
    assert instance.query(asked, (plan.database,)) == [(20, plan.role)]


async def test_nobody_else_gets_in(instance: Instance, admin: Connection, plan: DatabasePlan) -> None:
    """Neither strangers nor another server's login, nor the owner itself, who has no password."""
    await provision(admin, None, plan, login_of(plan), FIELD)
    other = _plan(f"other-of-{plan.role}"[:40])
    await provision(admin, None, other, login_of(other), FIELD)
    try:
        with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
            instance.session(plan.database, **who(login_of(other)))
    finally:
        await drop(admin, None, other, FIELD)
    asked = "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = ANY(%s)"
    rights = instance.query(asked, ([plan.role, plan.logins[0]],))
    assert sorted(rights) == [(False, False, False, False), (True, False, False, False)]
    asked = "SELECT nspacl::text FROM pg_namespace WHERE nspname = 'public'"
    [(rights_of_schema,)] = instance.query(asked, database=plan.database)
    assert not [entry for entry in rights_of_schema.strip("{}").split(",") if entry.startswith("=")]


async def test_to_provision_again_changes_nothing_but_what_differs(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """The data stays; another limit and another password are taken."""
    await provision(admin, None, plan, login_of(plan), FIELD)
    instance.query("CREATE TABLE kept ()", database=plan.database, **who(login_of(plan)))
    before = instance.databases()
    later = replace(plan, connection_limit=33)
    await provision(admin, None, later, login_of(plan, password="another"), FIELD)
    assert instance.databases() == before
    instance.query("TABLE kept", database=plan.database, user=plan.logins[0], password="another")
    asked = "SELECT datconnlimit FROM pg_database WHERE datname = %s"
    assert instance.query(asked, (plan.database,)) == [(33,)]


async def test_it_goes_on_wherever_it_was_cut_off(
    instance: Instance, admin: Connection, plan: DatabasePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The operator dies before each of its statements in turn; the next attempt finds its own, and finishes."""
    carry_out = postgres_admin._Administration.do
    left = 0

    class DeadError(Exception):
        pass

    async def do(self: Any, statement: SQL | Composed) -> None:
        nonlocal left
        if left == 0:
            raise DeadError
        left -= 1
        await carry_out(self, statement)

    for allowed in itertools.count():
        left = allowed
        with monkeypatch.context() as patch:
            patch.setattr(postgres_admin._Administration, "do", do)
            try:
                await provision(admin, None, plan, login_of(plan), FIELD)
            except DeadError:
                pass
            else:
                break
        await provision(admin, None, plan, login_of(plan), FIELD)
        instance.query("SELECT 1", database=plan.database, **who(login_of(plan)))
        await drop(admin, None, plan, FIELD)
    assert allowed > 10


async def test_other_peoples_names_are_left_alone(instance: Instance, admin: Connection) -> None:
    """A database, an owner and a login of that name, each made by somebody else, and what another server has."""
    plan = _plan(f"taken-{len(instance.roles())}")
    login = login_of(plan)

    async def refused(word: str) -> None:
        for attempt in (provision(admin, None, plan, login, FIELD), drop(admin, None, plan, FIELD)):
            with pytest.raises(ConfigurationError) as refusal:
                await attempt
            assert refusal.value.reason is Reason.NAME_CONFLICT
            assert f"{word}Name" in refusal.value.message
            assert "left alone" in refusal.value.message

    instance.query(f'CREATE DATABASE "{plan.database}"')
    before = instance.databases()
    await refused("database")
    assert instance.databases() == before
    instance.query(f'DROP DATABASE "{plan.database}"')
    await drop(admin, None, plan, FIELD)

    for name in (plan.role, login.name):
        instance.query(f"CREATE ROLE \"{name}\" LOGIN PASSWORD 'theirs'")
        await refused("role")
        instance.query("SELECT 1", user=name, password="theirs")
        instance.query(f'DROP ROLE "{name}"')
        await drop(admin, None, plan, FIELD)

    elsewhere = replace(plan, marker=provisioning.marker(ServerRef("taken", "team", "uid"), "cluster-2"))
    await provision(admin, None, elsewhere, login, FIELD)
    await refused("role")
    await drop(admin, None, elsewhere, FIELD)


async def test_the_way_out_of_a_name_conflict_works(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """The statement in the message makes it ours: a cluster built anew takes its databases back."""
    before = replace(plan, marker=provisioning.marker(ServerRef("server", "team", "uid"), "cluster-before"))
    await provision(admin, None, before, login_of(before), FIELD)
    instance.query("CREATE TABLE kept ()", database=plan.database, **who(login_of(plan)))
    for _ in range(3):
        with pytest.raises(ConfigurationError) as refusal:
            await provision(admin, None, plan, login_of(plan), FIELD)
        statement = refusal.value.message.partition("say so there: ")[2].rstrip(".")
        instance.query(statement)
    await provision(admin, None, plan, login_of(plan), FIELD)
    instance.query("TABLE kept", database=plan.database, **who(login_of(plan)))


@pytest.mark.parametrize(
    ("rights", "words"),
    [
        ("CREATEROLE", "may not make databases"),
        ("CREATEDB", "may not make roles"),
        ("", "may not make roles"),
    ],
)
async def test_an_administrator_without_the_rights_is_told_which(
    instance: Instance, plan: DatabasePlan, rights: str, words: str
) -> None:
    """With the way to give them, and before anything is made that would be in the way of a better one."""
    poor = instance.make_admin(f"poor-{len(instance.roles())}", "secret", rights)
    with pytest.raises(ConfigurationError) as refusal:
        await provision(poor, None, plan, login_of(plan), FIELD)
    assert refusal.value.reason is Reason.PROVISIONING_DENIED
    assert words in refusal.value.message
    assert "ALTER ROLE … CREATE" in refusal.value.message
    assert plan.role not in instance.roles(), "half of it was made"


async def test_an_administrators_wrong_password_is_told(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """By the field that names its Secret."""
    with pytest.raises(ConfigurationError) as refusal:
        await provision(replace(admin, password="wrong"), None, plan, login_of(plan), FIELD)
    assert refusal.value.reason is Reason.DATABASE_AUTHENTICATION_FAILED
    assert f"the Secret that {FIELD}.adminSecretRef names" in refusal.value.message


async def test_another_administrator_is_told_how_to_take_over(instance: Instance, plan: DatabasePlan) -> None:
    """From Postgres 16 on only who made a role may act as it; before, anybody with CREATEROLE may."""
    first = instance.make_admin(f"first-{len(instance.roles())}", "secret")
    second = instance.make_admin(f"second-{len(instance.roles())}", "secret")
    await provision(first, None, plan, login_of(plan), FIELD)
    if instance.query("SHOW server_version_num")[0][0] < "160000":
        await provision(second, None, plan, login_of(plan), FIELD)
        return
    with pytest.raises(ConfigurationError) as refusal:
        await provision(second, None, plan, login_of(plan), FIELD)
    assert refusal.value.reason is Reason.PROVISIONING_DENIED
    assert "WITH ADMIN OPTION" in refusal.value.message
    for role in (plan.role, plan.logins[0]):
        instance.query(f'GRANT "{role}" TO "{second.username}" WITH ADMIN OPTION')
    await provision(second, None, plan, login_of(plan), FIELD)
    await drop(second, None, plan, FIELD)


async def test_one_login_takes_the_others_place(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """Both work for a while, on the same tables; then the first is out, its session too, and nothing of it is lost."""
    first, second = login_of(plan), login_of(plan, 1, "second")
    await provision(admin, None, plan, first, FIELD)
    instance.query("CREATE TABLE runs (id int)", database=plan.database, **who(first))
    instance.query("RESET ROLE; SET ROLE NONE; CREATE SCHEMA own", database=plan.database, **who(first))
    await ensure_login(admin, None, plan, second, FIELD)
    instance.query("ALTER TABLE runs ADD COLUMN name text", database=plan.database, **who(second))
    instance.query("INSERT INTO runs VALUES (1)", database=plan.database, **who(first))

    with closing(instance.session(plan.database, **who(first))) as held:
        await delete_login(admin, None, plan, first.name, FIELD)
        with pytest.raises(psycopg.OperationalError):
            held.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="authentication failed"):
        instance.session(plan.database, **who(first))
    assert instance.query("SELECT id FROM runs", database=plan.database, **who(second)) == [(1,)]
    instance.query("CREATE TABLE own.more ()", database=plan.database, **who(second))
    await delete_login(admin, None, plan, first.name, FIELD)
    assert first.name not in instance.roles()


async def test_dropped_is_dropped_and_nothing_else_is(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """With sessions open; once more is fine; what was there before is there."""
    roles, databases = instance.roles(), instance.databases()
    await provision(admin, None, plan, login_of(plan), FIELD)
    await ensure_login(admin, None, plan, login_of(plan, 1), FIELD)
    with closing(instance.session(plan.database, **who(login_of(plan)))):
        await drop(admin, None, plan, FIELD)
    assert (instance.roles(), instance.databases()) == (roles, databases)
    await drop(admin, None, plan, FIELD)


async def test_a_lost_database_is_not_replaced_by_an_empty_one(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """Unless that is asked for."""
    await provision(admin, None, plan, login_of(plan), FIELD)
    instance.query(f'DROP DATABASE "{plan.database}"')
    for attempt in (
        provision(admin, None, plan, login_of(plan), FIELD, anew=False),
        ensure_login(admin, None, plan, login_of(plan), FIELD),
    ):
        with pytest.raises(ConfigurationError) as refusal:
            await attempt
        assert refusal.value.reason is Reason.DATABASE_LOST
    await provision(admin, None, plan, login_of(plan), FIELD)


async def test_an_owner_can_set_the_administrator_no_trap(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """Whoever owns a database may put functions and tables of his own where Postgres' are looked for."""
    login = login_of(plan)
    await provision(admin, None, plan, login, FIELD)
    instance.query(
        TRAP + f'ALTER DATABASE "{plan.database}" SET search_path TO public, pg_catalog',
        (),
        plan.database,
        **who(login),
    )
    fooled = "SELECT rolsuper FROM pg_roles"
    assert instance.query(fooled, database=plan.database, user=admin.username, password=admin.password)
    assert instance.query("TABLE public.caught", database=plan.database) == [(admin.username,)]
    instance.query("DELETE FROM public.caught", database=plan.database)

    await provision(admin, None, plan, login, FIELD)
    await delete_login(admin, None, plan, login.name, FIELD)
    assert instance.query("TABLE public.caught", database=plan.database) == []


async def test_many_are_made_at_a_time(instance: Instance, admin: Connection) -> None:
    """Ten servers that come at once."""
    plans = [_plan(f"crowd-{number}") for number in range(10)]
    await asyncio.gather(*(provision(admin, None, each, login_of(each), FIELD) for each in plans))
    assert {each.database for each in plans} <= set(instance.databases())
    await asyncio.gather(*(drop(admin, None, each, FIELD) for each in plans))
    assert not {each.database for each in plans} & set(instance.databases())


def _cut(text: str, longest: int) -> str:
    return text.encode()[:longest].decode(errors="ignore")


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
        _cut(database, provisioning.LONGEST_DATABASE), _cut(role, provisioning.LONGEST_ROLE), 5, marked
    ),
    _NAMES,
    _NAMES,
    st.builds("mlflow-operator.dev: {}".format, _NAMES),
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=_PLANS, password=_NAMES)
def test_hostile_names_are_names_and_nothing_more(
    instance: Instance, admin: Connection, plan: DatabasePlan, password: str
) -> None:
    """Whatever they hold: the database and the roles are called so, and no other comes or goes."""
    roles, databases = instance.roles(), instance.databases()
    login = Login(plan.logins[0], password)
    # names that Postgres keeps for itself, or has already
    assume(not plan.role.startswith("pg_") and plan.role not in roles and plan.database not in databases)

    async def made() -> None:
        await provision(admin, None, plan, login, FIELD)
        await inspect(instance.connection(login.name, login.password, plan.database), None, FIELD)

    try:
        asyncio.run(made())
        assert set(instance.databases()) - set(databases) == {plan.database}
        assert instance.roles() - roles == {plan.role, login.name}
    finally:
        asyncio.run(drop(admin, None, plan, FIELD))
    assert (instance.roles(), instance.databases()) == (roles, databases)


DIRTY = """
CREATE TABLE public.dirty (n int) WITH (autovacuum_vacuum_threshold = 0, autovacuum_vacuum_scale_factor = 0,
    autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1);
INSERT INTO public.dirty SELECT generate_series(1, 300000);
DELETE FROM public.dirty;
"""
"""Work for Postgres' own autovacuum that takes minutes."""


async def test_postgres_own_work_keeps_no_database_from_going(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """No user's session may be ended to make room but those of its own; autovacuum belongs to nobody."""
    await provision(admin, None, plan, login_of(plan), FIELD)
    instance.query(DIRTY, database=plan.database)
    instance.query("ALTER SYSTEM SET autovacuum_naptime = 1")
    instance.query("SELECT pg_reload_conf()")
    try:
        deadline = time.monotonic() + 90
        working = (
            "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = %s"
        )
        while instance.query(working, [plan.database]) == [(0,)]:
            assert time.monotonic() < deadline, "autovacuum never came"
            await asyncio.sleep(0.1)
        await drop(admin, None, plan, FIELD)
    finally:
        instance.query("ALTER SYSTEM RESET autovacuum_naptime")
        instance.query("SELECT pg_reload_conf()")
    assert plan.database not in instance.databases()


async def test_a_stranger_in_the_database_is_waited_for_and_told(
    instance: Instance, admin: Connection, plan: DatabasePlan
) -> None:
    """An administrator of the platform who looks at it, say: that session is not ours to end."""
    await provision(admin, None, plan, login_of(plan), FIELD)
    with closing(instance.session(plan.database)), pytest.raises(TransientError) as told:
        await drop(admin, None, plan, FIELD)
    assert f'The database "{plan.database}"' in told.value.message
    assert "is not dropped while other users are connected" in told.value.message
    assert plan.database in instance.databases()


def test_no_password_stands_in_the_log_of_the_database(instance: Instance) -> None:
    """It logs every statement here, as some do; passwords are sent as Postgres keeps them."""
    if instance.container:
        log = instance.log()
        assert "CREATE ROLE" in log
        assert HIDDEN not in log
