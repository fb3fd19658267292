"""Manifests of the benchmarks: the API server would reject an invalid one only after minutes."""

import asyncio
import configparser

from aiohttp import web
from benchmarks import plain, platform, provisioned
from benchmarks.client import Api

from mlflow_operator import api
from mlflow_operator.api import mlflowplatform
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import platform_choice
from mlflow_operator.model.platform import Part, resolve_platform
from tests.unit.web_server import serve_all

NAMESPACE = "bench-provisioned-1"
HOST, ENDPOINT = "postgres.bench-stores-1.svc", "http://172.18.0.2:31234"


def parsed_server(spec: Object) -> api.MLflowServer:
    """The server of a benchmark, as the operator reads it."""
    resource = provisioned.server("tracking-0", spec)
    return api.parse({**resource, "metadata": {**resource["metadata"], "namespace": NAMESPACE, "uid": "1"}})


def test_platform_is_the_default_of_the_servers_only() -> None:
    manifest = platform.manifest(NAMESPACE, HOST, ENDPOINT, "bench-stores-1")
    parsed = mlflowplatform.parse({**manifest, "metadata": {**manifest["metadata"], "uid": "1"}})
    assert parsed.is_default
    resolved = resolve_platform(parsed)
    assert resolved.parts == set(Part)
    assert resolved.selects({"kubernetes.io/metadata.name": NAMESPACE})
    assert not resolved.selects({"kubernetes.io/metadata.name": "bench-stores-1"})


def test_servers_without_stores_take_them_from_the_platform() -> None:
    requested = platform_choice.request(parsed_server({}))
    assert requested
    assert requested.open == set(Part)
    assert not requested.name


def test_servers_with_stores_use_no_platform() -> None:
    assert platform_choice.request(parsed_server(provisioned.spec(HOST, ENDPOINT, "tracking-0"))) is None


def test_password_of_the_database_survives_the_configuration_of_basic_auth() -> None:
    """MLflow reads the file like this, with interpolation."""
    uri = "postgresql://mlflow:p%40ss@postgres:5432/mlflow"
    files = plain.basic_auth_secret("stock", uri, "admin", "a%password")["stringData"]
    config = configparser.ConfigParser()
    config.read_string(files[plain.AUTH_CONFIG])
    assert config["mlflow"]["database_uri"] == files["uri"] == uri
    assert config["mlflow"]["admin_password"] == "a%password"


async def test_each_client_of_the_load_sends_the_password() -> None:
    """Also those with another connection."""
    received: list[str | None] = []

    async def handler(request: web.Request) -> web.Response:
        received.append(request.headers.get("Authorization"))
        return web.json_response({})

    async with serve_all(handler) as url:
        host, _, port = url.removeprefix("http://").partition(":")
        api = Api((host, int(port)), "mlflow")
        for client in (api, api.logged_in("user", "word"), api.logged_in("user", "word").new_connection()):
            await asyncio.to_thread(client.post, "runs/search", {})
            client.close()
    assert received == [None, *2 * ["Basic dXNlcjp3b3Jk"]]
