"""The way to the API server, and a sentence for each way that leads nowhere."""

import logging
import os
from pathlib import Path

import yaml

from mlflow_operator.kube.readonly_client import ConfigException, ReadOnlyClient
from mlflow_operator.status.metrics import Metrics


class CouldNotAsk(Exception):  # noqa: N818 - a sentence for the user
    """Nothing can be said of the installation: there is no way to it, or it has not what was asked for."""


def inside(kubeconfig: str | None, context: str | None) -> bool:
    """Whether this process runs in the cluster that it asks."""
    return kubeconfig is None and context is None and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


async def connect(kubeconfig: str | None, context: str | None) -> ReadOnlyClient:
    """A client as kubectl would be one. CouldNotAsk: no kubeconfig, or one that can't be used."""
    # the library warns of a missing file in its own words
    logging.getLogger("kubernetes").addHandler(logging.NullHandler())
    logging.getLogger("kubernetes").propagate = False
    within = inside(kubeconfig, context)
    named = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    if not within and not any(_readable(path) for path in named.split(os.pathsep)):
        raise CouldNotAsk(
            f"There is no kubeconfig at {named}. Name one with --kubeconfig or KUBECONFIG, or run doctor in the "
            "operator's pod: kubectl exec -n mlflow-operator deploy/mlflow-operator -- mlflow-operator doctor"
        )
    try:
        return await ReadOnlyClient.connect(Metrics(), None if within else named, context)
    except ConfigException as error:
        raise CouldNotAsk(f"{_place(kubeconfig, context, named)} can't be used: {_said(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        # what the library makes of files that are no kubeconfig; its words may quote them
        why = "it is no kubeconfig, or names a file that is not there"
        raise CouldNotAsk(f"{_place(kubeconfig, context, named)} can't be used: {why}.") from error


def _readable(path: str) -> bool:
    return bool(path) and Path(path).expanduser().is_file()


def _place(kubeconfig: str | None, context: str | None, named: str) -> str:
    if inside(kubeconfig, context):
        return "The pod's service account"
    return f"The kubeconfig {named}" + (f", context {context}," if context else "")


def _said(error: ConfigException) -> str:
    said = str(error)
    return f"{said.splitlines()[0][:200].rstrip('.') if said else 'it is no kubeconfig'}."
