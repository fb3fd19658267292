"""The migration Job also migrates tables that `mlflow db upgrade` does not."""

import pytest

from mlflow_operator import pod_scripts
from tests.contracts.postgres import Instance
from tests.contracts.test_preflight import CREATE_DATABASE, MLFLOW, PASSWORD, run

OLD_REVISION = "8606fa83a998"
"""First revision of the schema of MLflow's basic-auth users. MLflow 3.6 introduced the revision table for it."""

CREATE_OLD_TABLES = f"""
import os
from alembic.command import upgrade
from alembic.script import ScriptDirectory
from mlflow.server.auth.db.utils import _get_alembic_config, _get_alembic_dir
upgrade(_get_alembic_config(os.environ["MLFLOW_BACKEND_STORE_URI"]), "{OLD_REVISION}")
print(ScriptDirectory(str(_get_alembic_dir())).get_current_head())
"""
"""Creates the tables of the users at that revision, and prints the head revision."""

INSERT_USER = "INSERT INTO users (username, password_hash, is_admin) VALUES ('scientist', 'x', false)"


@pytest.mark.parametrize(
    "has_revision",
    [
        pytest.param(True, id="with-revision"),
        pytest.param(
            False,
            id="from-before-3.6",
            marks=pytest.mark.long_running(
                reason="15 s of CPU time; the case `with-revision` runs the same migration"
            ),
        ),
    ],
)
def test_tables_of_basic_auth_users_are_migrated(
    instance: Instance, request: pytest.FixtureRequest, has_revision: bool
) -> None:
    """A server that is migrated to the operator, or back, keeps its users with the schema of the current version."""
    name = f"m{abs(hash(request.node.nodeid)) % 10**8}"
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    instance.query(CREATE_DATABASE.format(name))
    uri = f"postgresql+psycopg2://{name}:{PASSWORD}@{instance.host}:{instance.port}/{name}"
    environment = {"MLFLOW_BACKEND_STORE_URI": uri}
    code, _, output = run(MLFLOW, CREATE_OLD_TABLES, environment)
    assert code == 0, output
    head = output.strip().rpartition("\n")[2]
    instance.query(INSERT_USER, database=name)
    if not has_revision:
        instance.query("DROP TABLE alembic_version_auth", database=name)

    for _ in range(2):
        code, _, output = run(MLFLOW, pod_scripts.MIGRATE, environment)
        assert code == 0, output
    assert instance.query("SELECT version_num FROM alembic_version_auth", database=name) == [(head,)]
    assert head != OLD_REVISION
    assert instance.query("SELECT username FROM users", database=name) == [("scientist",)]


def test_no_user_tables_without_basic_auth(instance: Instance) -> None:
    """Only a server with basic-auth has these tables."""
    instance.query(f"CREATE ROLE nousers LOGIN PASSWORD '{PASSWORD}'")
    instance.query(CREATE_DATABASE.format("nousers"))
    uri = f"postgresql+psycopg2://nousers:{PASSWORD}@{instance.host}:{instance.port}/nousers"
    code, _, output = run(MLFLOW, pod_scripts.MIGRATE, {"MLFLOW_BACKEND_STORE_URI": uri})
    assert code == 0, output
    user_tables = "SELECT count(*) FROM pg_tables WHERE tablename IN ('users', 'alembic_version_auth')"
    assert instance.query(user_tables, database="nousers") == [(0,)]
