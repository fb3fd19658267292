"""An image with another major version of Postgres is never started on the existing volume, which it cannot read."""

import pytest

from mlflow_operator.model.postgres_major import major_version
from tests.unit.simulation import SimulatedCluster


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        ("docker.io/library/postgres:17-trixie", 17),
        ("postgres:16.4", 16),
        ("registry.corp:5000/mirror/postgresql:v15@sha256:0a", 15),
        ("postgres", None),
        ("postgres:latest", None),
        ("postgres:20240101", None),
        ("corp/database:17", None),
    ],
)
def test_major_version_is_read_from_the_tag(image: str, expected: int | None) -> None:
    """Other tags give no version."""
    assert major_version(image) == expected


async def test_major_version_change_is_refused_and_the_database_keeps_running() -> None:
    """Nothing is written, the server keeps running, and restoring the old image resolves the error."""
    simulation = SimulatedCluster()
    await simulation.reconcile_until_stable()
    before = simulation.get("StatefulSet", "a-postgres")
    simulation.update_spec(database={"embedded": {"image": "docker.io/library/postgres:18-trixie"}})
    await simulation.reconcile_until_stable()
    assert simulation.get("StatefulSet", "a-postgres") == before
    state, reason, message = simulation.condition("DatabaseReady")
    assert (state, reason) == ("False", "DatabaseVersionUnsupported")
    assert "spec.restoreFrom" in message
    assert simulation.condition("ServerAvailable")[0] == "True"
    simulation.update_spec(database={"embedded": {"image": "docker.io/library/postgres:17-bookworm"}})
    await simulation.reconcile_until_ready()
    assert simulation.get("StatefulSet", "a-postgres") != before
