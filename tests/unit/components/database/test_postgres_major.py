"""An image of another major version of Postgres never meets a volume that it can't open."""

import pytest

from mlflow_operator.model.postgres_major import major
from tests.unit.simulation import World


@pytest.mark.parametrize(
    ("image", "found"),
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
def test_the_tag_tells_the_major_version_where_it_is_one(image: str, found: int | None) -> None:
    """And nothing is guessed of any other."""
    assert major(image) == found


async def test_another_major_version_is_refused_and_the_database_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is written; a server of its own goes on, and the old image put back heals it."""
    world = World(monkeypatch)
    await world.until_settled()
    before = world.get("StatefulSet", "a-postgres")
    world.change(database={"embedded": {"image": "docker.io/library/postgres:18-trixie"}})
    await world.until_settled()
    assert world.get("StatefulSet", "a-postgres") == before
    state, reason, message = world.condition("DatabaseReady")
    assert (state, reason) == ("False", "DatabaseVersionUnsupported")
    assert "spec.restoreFrom" in message
    assert world.condition("ServerAvailable")[0] == "True"
    world.change(database={"embedded": {"image": "docker.io/library/postgres:17-bookworm"}})
    await world.until_settled()
    assert world.condition("Ready")[0] == "True"
    assert world.get("StatefulSet", "a-postgres") != before
