"""Connection to the API server, with an error message for each way in which it can fail."""

import logging
import os
from pathlib import Path

import yaml

from mlflow_operator.kube.readonly_client import ConfigException, ReadOnlyClient
from mlflow_operator.status.metrics import Metrics


class DoctorError(Exception):
    """The installation cannot be checked: there is no connection, or the requested object does not exist."""


def runs_in_cluster(kubeconfig: str | None, context: str | None) -> bool:
    """Whether this process runs in a pod of the cluster that it checks."""
    return kubeconfig is None and context is None and bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


async def connect(kubeconfig: str | None, context: str | None) -> ReadOnlyClient:
    """Connect like kubectl. Raises DoctorError if there is no kubeconfig or it is invalid."""
    # The client library logs its own warning about a missing file.
    logging.getLogger("kubernetes").addHandler(logging.NullHandler())
    logging.getLogger("kubernetes").propagate = False
    in_cluster = runs_in_cluster(kubeconfig, context)
    path = kubeconfig or os.environ.get("KUBECONFIG") or "~/.kube/config"
    if not in_cluster and not any(_is_file(file) for file in path.split(os.pathsep)):
        raise DoctorError(
            f"There is no kubeconfig at {path}. Specify one with --kubeconfig or KUBECONFIG, or run doctor in the "
            "operator's pod: kubectl exec -n mlflow-operator deploy/mlflow-operator -- mlflow-operator doctor"
        )
    try:
        return await ReadOnlyClient.connect(Metrics(), None if in_cluster else path, context)
    except ConfigException as error:
        source = _credentials_source(kubeconfig, context, path)
        raise DoctorError(f"{source} cannot be used: {_first_line(error)}") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError) as error:
        # The library raises these for a file that is not a kubeconfig. Their messages may quote the file.
        source = _credentials_source(kubeconfig, context, path)
        reason = "it is not a kubeconfig, or it references a file that does not exist"
        raise DoctorError(f"{source} cannot be used: {reason}.") from error


def _is_file(path: str) -> bool:
    return bool(path) and Path(path).expanduser().is_file()


def _credentials_source(kubeconfig: str | None, context: str | None, path: str) -> str:
    if runs_in_cluster(kubeconfig, context):
        return "The pod's service account"
    return f"The kubeconfig {path}" + (f", context {context}," if context else "")


def _first_line(error: ConfigException) -> str:
    message = str(error)
    return f"{message.splitlines()[0][:200].rstrip('.') if message else 'it is not a kubeconfig'}."
