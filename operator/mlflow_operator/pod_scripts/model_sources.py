"""Keep users from reading artifacts of others through a version of a model.

The source of a version is a location that the client chooses, and who may read the model may read all files there
through the server. MLflow checks sources that the server proxies, but not those in the object store: with the URI of
the folder of someone else's run, every user could read it.
"""

import os
from urllib.parse import urlsplit

DESTINATION_ENV = "MLFLOW_ARTIFACTS_DESTINATION"


def folders(uri):
    """Return scheme, host or bucket, and the names of the folders of a URI, as MLflow's repositories read it."""
    parts = urlsplit(uri)
    return [parts.scheme, parts.netloc, *filter(None, parts.path.split("/"))]


def is_within(uri, root):
    """Whether a URI is that of a folder or is below it."""
    return folders(uri)[: len(folders(root))] == folders(root)


def in_artifacts(source):
    """Whether a source contains artifacts of the server. A folder above them does, too: clients add a path to it."""
    destination = os.environ.get(DESTINATION_ENV, "")
    return bool(destination) and (is_within(source, destination) or is_within(destination, source))


def with_check(validate, root_of):
    """Return MLflow's function `validate` with another check of the source.

    `root_of` returns the folder with artifacts of the run or model that the client names. MLflow checks whether the
    user may read it.
    """
    from mlflow.exceptions import MlflowException

    def check(source, owner_id):
        validate(source, owner_id)
        if in_artifacts(source) and not (owner_id and is_within(source, root_of(owner_id))):
            raise MlflowException.invalid_parameter_value(
                f"Invalid model version source: '{source}'. In the artifact storage of the server, it must be in the "
                "folder of the run or of the logged model that run_id or model_id identifies."
            )

    return check


def protect(handlers):
    """Change the module of MLflow's handlers."""

    def run_root(run_id):
        return handlers._get_tracking_store().get_run(run_id).info.artifact_uri

    def model_root(model_id):
        return handlers._get_tracking_store().get_logged_model(model_id).artifact_location

    handlers._validate_source_run = with_check(handlers._validate_source_run, run_root)
    handlers._validate_source_model = with_check(handlers._validate_source_model, model_root)
