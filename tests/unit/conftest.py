"""Fixtures of all unit tests: MLflowServers in a simulated cluster."""

import pytest

from tests.unit.simulation import SimulatedCluster


@pytest.fixture
def simulation() -> SimulatedCluster:
    """A new server with an empty spec and without any objects. Test modules override it with their own server."""
    return SimulatedCluster()


@pytest.fixture
async def ready_server(simulation: SimulatedCluster) -> SimulatedCluster:
    """The server of `simulation`, Ready and stable."""
    await simulation.reconcile_until_ready()
    return simulation


@pytest.fixture
async def external_stores() -> SimulatedCluster:
    """A Ready and stable server with an external database and an external bucket."""
    return await SimulatedCluster.with_external_stores()
