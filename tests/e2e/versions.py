"""Images of earlier versions of MLflow, which a cluster that was made for today's does not have."""

import sys

from tests.e2e.kube import Kube

MADE_READY = (sys.executable, "-m", "tests.cluster", "earlier")
"""Has the registry hold them, whatever of them is missing."""

BUILT = 900.0
"""Seconds for three images and the way into the registry, where nothing of them is there and others are at work."""


def images(kube: Kube) -> dict[str, str]:
    """References by version."""
    kube.run(*MADE_READY, within=BUILT)
    pins = kube.settings.pins
    references = [pins[name] for name in ("IMAGE_MLFLOW_2_22", "IMAGE_MLFLOW_3_14", "IMAGE_MLFLOW_3_16")]
    return {each.rpartition(":v")[2].removesuffix("-full"): each for each in references}
