"""The Deployment of the server: what its pods read."""

from pathlib import Path

import pytest
import yaml

from mlflow_operator import api
from mlflow_operator.kube import pod_references
from mlflow_operator.model import deployment, mlflow_env, plugins
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from tests.unit.servers import server as resolved
from tests.unit.snapshots import EXAMPLES


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_references_are_those_of_the_pods(example: Path) -> None:
    """A missing reference would not restart the pods when its value changes."""
    for document in yaml.safe_load_all(example.read_text()):
        if document and document["kind"] == api.KIND:
            server = resolve(api.parse(document), ClusterDefaults(Images()))
            pod_spec = deployment.deployment(server, "digest")["spec"]["template"]["spec"]
            assert deployment.references(server) == pod_references.of_pod(pod_spec)
            names = {variable["name"] for variable in pod_spec["containers"][0]["env"]}
            assert deployment.variable_names(server) == names


def test_server_with_job_execution_runs_mlflows_command() -> None:
    """MLflow starts further processes then, so the launcher could only fall back. The application stays the same."""
    command = deployment.deployment(resolved({"jobExecution": "Enabled"}), "")["spec"]["template"]["spec"]
    launched = deployment.deployment(resolved(), "")["spec"]["template"]["spec"]
    assert command["containers"][0]["command"][:3] == ["python3", "-m", plugins.DUAL_STACK_MODULE]
    assert command["containers"][0]["command"][3:] == launched["containers"][0]["command"][3:]


def test_server_with_presigned_access_offers_presigned_urls() -> None:
    """Since MLflow 3.18, it does so only if these variables are set. Clients then still choose for themselves."""
    store = {"bucket": "models", "credentialsSecretRef": {"name": "keys"}}
    variables: dict[str, set[str]] = {}
    for access in ("Proxied", "Presigned", "Direct"):
        server = resolved({"artifacts": {"access": access, "s3": store}})
        (container,) = deployment.deployment(server, "")["spec"]["template"]["spec"]["containers"]
        variables[access] = {variable["name"] for variable in container["env"]} & set(
            mlflow_env.PRESIGNED_ENV
        )
    assert variables == {"Proxied": set(), "Presigned": set(mlflow_env.PRESIGNED_ENV), "Direct": set()}
