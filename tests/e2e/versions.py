"""The second image set: images that only some tests use, which are built while the first tests run.

It contains earlier versions of MLflow, Toxiproxy, PgBouncer, SeaweedFS and the image of client programs.
"""

import sys

from tests.cluster.substitute_images import EARLIER_MLFLOW
from tests.e2e.kube import Kube

BUILD_COMMAND = (sys.executable, "-m", "tests.cluster", "test-images")
"""Command that builds or pulls the second image set and pushes it to the registry. Waits if another process is doing
that already. Exit code 0 means that every image of the set is in the registry."""

BUILD_TIMEOUT_SECONDS = 900.0
"""Limit for building the whole set on a machine that has none of it and runs tests meanwhile."""


def ensure(kube: Kube) -> None:
    """Wait until every image of the second set is in the registry. Raises CommandError with the output on failure."""
    kube.run(*BUILD_COMMAND, within=BUILD_TIMEOUT_SECONDS)


def images(kube: Kube) -> dict[str, str]:
    """Wait for the second set, and return the references of the images of earlier MLflow versions, by version."""
    ensure(kube)
    pins = kube.settings.pins
    references = [reference for name, reference in pins.items() if name.startswith(EARLIER_MLFLOW)]
    return {reference.rpartition(":v")[2].removesuffix("-full"): reference for reference in references}
