"""Fixtures for the tests of doctor."""

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from mlflow_operator.doctor import operators
from tests.unit.doctor.doctor_command import Doctor
from tests.unit.doctor.recorded_api_server import RecordedAPIServer


@pytest.fixture(autouse=True)
def kubernetes_logger() -> Iterator[None]:
    """Restore the logger of the Kubernetes client, which doctor silences for its process."""
    logger = logging.getLogger("kubernetes")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate


@pytest.fixture
def api() -> RecordedAPIServer:
    return RecordedAPIServer()


@pytest.fixture
def doctor(api: RecordedAPIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doctor]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(operators, "_LEASE_POLL_SECONDS", 0.05)
    monkeypatch.setattr(operators, "_LEASE_GRACE_SECONDS", 0.0)
    with api.serve(tmp_path) as path:
        yield Doctor(api, path)
