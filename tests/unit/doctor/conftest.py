"""Fixtures for the tests of doctor."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def kubernetes_logger() -> Iterator[None]:
    """Restore the logger of the Kubernetes client, which doctor silences for its process."""
    logger = logging.getLogger("kubernetes")
    handlers, propagate = logger.handlers[:], logger.propagate
    yield
    logger.handlers[:], logger.propagate = handlers, propagate
