"""What the migration Job does to tables that `mlflow db upgrade` leaves alone."""

import pytest

from mlflow_operator import pod_scripts
from tests.contracts.postgres import Instance
from tests.contracts.test_preflight import EMPTY, MLFLOW, PASSWORD, run

FIRST = "8606fa83a998"
"""The revision with which MLflow 3.6 began to count those of its users."""

OLD = f"""
import os
from alembic.command import upgrade
from alembic.script import ScriptDirectory
from mlflow.server.auth.db.utils import _get_alembic_config, _get_alembic_dir
upgrade(_get_alembic_config(os.environ["MLFLOW_BACKEND_STORE_URI"]), "{FIRST}")
print(ScriptDirectory(str(_get_alembic_dir())).get_current_head())
"""
"""Makes the tables of users at that revision, and prints the newest one."""

USER = "INSERT INTO users (username, password_hash, is_admin) VALUES ('scientist', 'x', false)"


@pytest.mark.parametrize(
    "counted",
    [
        pytest.param(True, id="counted"),
        pytest.param(
            False,
            id="from-before-3.6",
            marks=pytest.mark.long_running(
                reason="15 s of CPU time; the case `counted` runs the same migration"
            ),
        ),
    ],
)
def test_users_of_basic_auth_move_with_the_schema(
    instance: Instance, request: pytest.FixtureRequest, counted: bool
) -> None:
    """One who moves in with them, and goes back, finds them as the version of now wants them."""
    name = f"m{abs(hash(request.node.nodeid)) % 10**8}"
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    instance.query(EMPTY.format(name))
    uri = f"postgresql+psycopg2://{name}:{PASSWORD}@{instance.host}:{instance.port}/{name}"
    given = {"MLFLOW_BACKEND_STORE_URI": uri}
    code, _, said = run(MLFLOW, OLD, given)
    assert code == 0, said
    head = said.strip().rpartition("\n")[2]
    instance.query(USER, database=name)
    if not counted:
        instance.query("DROP TABLE alembic_version_auth", database=name)

    for _ in range(2):
        code, _, said = run(MLFLOW, pod_scripts.MIGRATE, given)
        assert code == 0, said
    assert instance.query("SELECT version_num FROM alembic_version_auth", database=name) == [(head,)]
    assert head != FIRST
    assert instance.query("SELECT username FROM users", database=name) == [("scientist",)]


def test_without_users_no_tables_for_them_are_made(instance: Instance) -> None:
    """They are a server's that asks for passwords."""
    instance.query(f"CREATE ROLE nousers LOGIN PASSWORD '{PASSWORD}'")
    instance.query(EMPTY.format("nousers"))
    uri = f"postgresql+psycopg2://nousers:{PASSWORD}@{instance.host}:{instance.port}/nousers"
    code, _, said = run(MLFLOW, pod_scripts.MIGRATE, {"MLFLOW_BACKEND_STORE_URI": uri})
    assert code == 0, said
    found = "SELECT count(*) FROM pg_tables WHERE tablename IN ('users', 'alembic_version_auth')"
    assert instance.query(found, database="nousers") == [(0,)]
