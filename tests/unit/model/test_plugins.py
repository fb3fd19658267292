"""Files and application of the server's pods, with and without authentication."""

from dataclasses import replace

import pytest

from mlflow_operator.kube.objects import Object
from mlflow_operator.model import authentication, deployment, plugins
from mlflow_operator.model.server import BasicAuth, SecretKey, Server
from tests.unit.servers import server

AUTH = BasicAuth("admin", SecretKey("a-admin", "password", ""), True, "NO_PERMISSIONS")
S3: Object = {"bucket": "bucket", "credentialsSecretRef": {"name": "s3"}}
AUTH_FILES = {
    "authentication.py",
    "model_sources.py",
    "password_check.py",
    "request_login.py",
    "AUTH_METADATA",
    "auth_entry_points.txt",
}


def command(resource: Server) -> list[str]:
    """The command of the server's container."""
    pod: Object = deployment.deployment(resource, "")["spec"]["template"]["spec"]
    return [*pod["containers"][0]["command"]]


def test_server_without_authentication_has_no_file_of_it() -> None:
    """Also while its accounts are not ready: its pods are not restarted before."""
    plain = server()
    withheld = replace(plain, auth=replace(AUTH, is_withheld=True))
    for resource in (plain, withheld):
        assert not AUTH_FILES & set(plugins.keys(resource))
        assert command(resource)[-1] == plugins.FAST_PATH_APP
    assert deployment.deployment(withheld, "") == deployment.deployment(plain, "")
    assert plugins.config_map(withheld) == plugins.config_map(plain)


@pytest.mark.parametrize(
    ("spec", "app", "checks_passwords"),
    [
        pytest.param({}, plugins.AUTH_FAST_PATH_APP, True, id="fast-path"),
        pytest.param({"jobExecution": "Enabled"}, plugins.AUTH_FAST_PATH_APP, True, id="background-jobs"),
        pytest.param(
            {"artifacts": {"s3": S3, "access": "Presigned"}}, plugins.AUTH_APP, True, id="presigned"
        ),
        pytest.param({"version": "3.16.1"}, plugins.AUTH_CACHE_APP, False, id="other-version"),
        pytest.param({"image": "example.com/mlflow:1"}, plugins.AUTH_CACHE_APP, False, id="custom-image"),
    ],
)
def test_application_of_a_server_with_authentication(spec: Object, app: str, checks_passwords: bool) -> None:
    """The pod has the module of the application on its Python path."""
    resource = replace(server(spec), auth=AUTH)
    assert command(resource)[-2:] == ["--app-name", app]
    assert authentication.checks_passwords(resource) == checks_passwords
    assert set(plugins.keys(resource)) == AUTH_FILES | set(plugins.keys(replace(resource, auth=None)))
    items = plugins.volume(resource)["configMap"]["items"]
    assert {item["key"] for item in items} == plugins.config_map(resource)["data"].keys()
    container = deployment.deployment(resource, "")["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "PYTHONPATH", "value": plugins.PLUGIN_DIR} in container["env"]
    assert plugins.MOUNT in container["volumeMounts"]


def test_server_without_password_check_is_one_without_authentication() -> None:
    assert not authentication.checks_passwords(server())
