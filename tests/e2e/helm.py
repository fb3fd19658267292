"""Helm and the chart of a server."""

import yaml

from tests.e2e.kube import Kube, Object

SERVER_CHART = "charts/mlflow-server"


def helm(kube: Kube, *args: str, values: Object | None = None, within: float = 300) -> str:
    """Run Helm in the namespace, with `values` as the values file; returns stdout."""
    values_option = ("-f", "-") if values is not None else ()
    return kube.run(
        "helm", "-n", kube.namespace, *args, *values_option, stdin=yaml.safe_dump(values), within=within
    )


def uids(kube: Kube, *kinds: str) -> dict[tuple[str, str], str]:
    """Return the uids of the namespace's objects by kind and name. A different uid means that it was recreated."""
    return {
        (kind, obj["metadata"]["name"]): obj["metadata"]["uid"] for kind in kinds for obj in kube.list(kind)
    }
