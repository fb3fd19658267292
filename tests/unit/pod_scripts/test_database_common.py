"""What the programs that connect to the database share: each pod's program contains it once."""

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.pod_scripts import database_common

LOCKING = ["MIGRATE", "AUTHENTICATE", "REWRAP", "RESTORE"]
CONNECTING = [*LOCKING, "BACKUP", "PREFLIGHT"]


@pytest.mark.parametrize("name", LOCKING)
def test_changes_of_the_schema_take_the_same_lock(name: str) -> None:
    """With different locks, a restore and a migration would change the tables at the same time."""
    script = getattr(pod_scripts, name)
    assert script.count("MIGRATION_LOCK = ") == 1
    assert script.count("0x") == 1
    assert int.from_bytes(b"mlflow") == database_common.MIGRATION_LOCK


@pytest.mark.parametrize("name", CONNECTING)
def test_programs_convert_the_uri_with_the_same_function(name: str) -> None:
    """SQLAlchemy accepts a driver in the scheme, and libpq rejects it."""
    script = getattr(pod_scripts, name)
    compile(script, name, "exec")
    assert script.count("def libpq_uri(") == script.count('"postgresql://"') == 1
    assert database_common.libpq_uri("postgresql+psycopg2://a@b/c") == "postgresql://a@b/c"
