"""Helm, and the chart of a server."""

import yaml

from tests.e2e.kube import Kube, Object

SERVER_CHART = "charts/mlflow-server"


def helm(kube: Kube, *args: str, values: Object | None = None, within: float = 300) -> str:
    """Runs Helm in the namespace; `values` are passed as a file of values."""
    given = ("-f", "-") if values is not None else ()
    return kube.run("helm", "-n", kube.namespace, *args, *given, stdin=yaml.safe_dump(values), within=within)


def uids(kube: Kube, *kinds: str) -> dict[tuple[str, str], str]:
    """The objects of these kinds in the namespace, by kind and name: another uid means that one was created again."""
    return {
        (kind, obj["metadata"]["name"]): obj["metadata"]["uid"] for kind in kinds for obj in kube.list(kind)
    }
