"""Images that only some tests use: earlier versions of MLflow, Toxiproxy, PgBouncer, SeaweedFS and the client.

They are the second image set: built beside the first tests, not before them.
"""

import sys

from tests.e2e.kube import Kube

MADE_READY = (sys.executable, "-m", "tests.cluster", "test-images")
"""Builds or pulls the second image set and pushes it to the registry. Waits if another process already does that.
Exit code 0: every image of the set is in the registry."""

BUILT = 900.0
"""Seconds within which the set is in the registry, on a machine without any of it that runs tests meanwhile."""


def ensure(kube: Kube) -> None:
    """Waits until every image of the second set is in the registry. Raises CommandError with what went wrong."""
    kube.run(*MADE_READY, within=BUILT)


def images(kube: Kube) -> dict[str, str]:
    """References of the images of earlier versions of MLflow, by version, once they are in the registry."""
    ensure(kube)
    pins = kube.settings.pins
    references = [pins[name] for name in ("IMAGE_MLFLOW_2_22", "IMAGE_MLFLOW_3_14", "IMAGE_MLFLOW_3_16")]
    return {each.rpartition(":v")[2].removesuffix("-full"): each for each in references}
