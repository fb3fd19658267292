"""The layer that checks passwords before MLflow sees a request. tests/contracts/test_authentication.py has the rest."""

import asyncio
import base64
import configparser
import json
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator.model import plugins
from mlflow_operator.pod_scripts import authentication, request_login
from mlflow_operator.pod_scripts.password_check import TooManyPasswordsError

Message = dict[str, Any]
Headers = dict[str, str]


def basic(username: str, password: str, name: str = "authorization") -> Headers:
    """Header of a client."""
    return {name: "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


def scope(path: str, headers: Headers | None = None, method: str = "GET", root_path: str = "") -> Message:
    """An HTTP request."""
    pairs = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    return {"type": "http", "method": method, "path": path, "root_path": root_path, "headers": pairs}


async def never() -> Message:
    raise AssertionError("reads the body")


class Application:
    """Records the login of each request, and responds with status 200."""

    def __init__(self) -> None:
        self.logins: list[Any] = []

    async def __call__(
        self, scope: Message, receive: object, send: Callable[[Message], Awaitable[None]]
    ) -> None:
        self.logins.append(request_login.login.get())
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b""})


async def request(application: Any, request_scope: Message) -> tuple[int, Headers, bytes]:
    """Status, headers and body of the response."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    await application(request_scope, never, send)
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], headers, b"".join(message.get("body", b"") for message in sent[1:])


async def accepts_secret(username: str, password: str) -> str | None:
    return f"account of {username}" if password == "secret" else None


def with_login(check: Any = accepts_secret) -> tuple[Any, Application]:
    """The layer around an application."""
    application = Application()
    return request_login.with_login(application, check, lambda path: path == "/health"), application


@pytest.mark.parametrize(
    ("headers", "login"),
    [
        ({}, None),
        (basic("bob@example.com", "secret"), ("bob@example.com", "secret", "account of bob@example.com")),
        (basic("bob", "wrong"), None),
        (basic("", "secret"), ("", "secret", "account of ")),
        ({"authorization": "bearer secret"}, None),
        (
            {"authorization": "basic " + base64.b64encode(b"bob:secret").decode()},
            ("bob", "secret", "account of bob"),
        ),
        ({"authorization": "Basic %%%"}, None),
        ({"authorization": "Basic " + base64.b64encode(b"\xff:secret").decode()}, None),
        (basic("b\0b", "secret"), None),
        (basic("bob", "secret", "x-mlflow-authorization"), None),
    ],
)
async def test_login_of_a_request(headers: Headers, login: object) -> None:
    """A request without one also reaches MLflow, which refuses it as it always does."""
    layer, application = with_login()
    assert (await request(layer, scope("/api/2.0/mlflow/runs/search", headers)))[0] == 200
    assert application.logins == [login]


async def test_login_does_not_remain_for_the_next_request() -> None:
    layer, application = with_login()
    for headers in (basic("bob", "secret"), {}, basic("bob", "secret"), basic("bob", "wrong")):
        await request(layer, scope("/version", headers))
    assert [login is not None for login in application.logins] == [True, False, True, False]


async def test_gateway_has_a_header_of_its_own() -> None:
    """The other one may contain a key for the provider of the model."""
    layer, application = with_login()
    headers = {"authorization": "Bearer key", **basic("bob", "secret", "x-mlflow-authorization")}
    await request(layer, scope("/gateway/openai/v1/responses", headers))
    assert application.logins[0].username == "bob"


async def test_token_of_background_jobs_is_left_to_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not hashed as a password, and only the gateway accepts it."""
    checked: list[str] = []

    async def check(username: str, password: str) -> None:
        checked.append(password)

    monkeypatch.setenv(request_login.GATEWAY_TOKEN_ENV, "token")
    layer, application = with_login(check)
    await request(layer, scope("/gateway/mlflow/v1/chat/completions", basic("bob", "token")))
    assert checked == []
    await request(layer, scope("/api/2.0/mlflow/runs/search", basic("bob", "token")))
    assert checked == ["token"]
    assert application.logins == [None, None]


async def test_public_paths_need_no_check() -> None:
    """A probe works while the database is away."""

    async def check(username: str, password: str) -> None:
        raise AssertionError("checks a password")

    layer, _ = with_login(check)
    assert (await request(layer, scope("/health", basic("bob", "secret"))))[0] == 200


@pytest.mark.parametrize(
    ("error", "status", "error_code"),
    [
        (TooManyPasswordsError(), 429, "REQUEST_LIMIT_EXCEEDED"),
        (OSError("connection refused"), 503, "TEMPORARILY_UNAVAILABLE"),
    ],
)
async def test_request_is_to_be_repeated_if_the_password_cannot_be_checked(
    error: Exception, status: int, error_code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """MLflow's clients do this. The log has no password."""

    async def check(username: str, password: str) -> None:
        raise error

    layer, application = with_login(check)
    response = await request(layer, scope("/api/2.0/mlflow/runs/search", basic("bob", "secret-password")))
    assert response[0] == status
    assert int(response[1]["retry-after"]) >= 1
    assert json.loads(response[2])["error_code"] == error_code
    assert not application.logins
    assert "secret-password" not in "".join(capsys.readouterr())


async def test_body_is_streamed_in_both_directions() -> None:
    """The response to the first part of the body arrives before the second part is sent."""
    to_application: asyncio.Queue[Message] = asyncio.Queue()
    to_client: asyncio.Queue[Message] = asyncio.Queue()

    async def echo(scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        more_body = True
        while more_body:
            message = await receive()
            more_body = message["more_body"]
            await send({"type": "http.response.body", "body": message["body"], "more_body": more_body})

    layer = request_login.with_closed_paths(
        request_login.with_login(echo, accepts_secret, lambda path: False)
    )
    path = "/api/2.0/mlflow-artifacts/artifacts/1/a"
    task = asyncio.create_task(
        layer(scope(path, basic("bob", "secret"), "PUT"), to_application.get, to_client.put)
    )
    for part, more_body in ((b"1", True), (b"2", False)):
        await to_application.put({"type": "http.request", "body": part, "more_body": more_body})
        message = await asyncio.wait_for(to_client.get(), 60)
        if message["type"] == "http.response.start":
            message = await asyncio.wait_for(to_client.get(), 60)
        assert message["body"] == part
    await task


async def test_other_protocols_are_passed_on() -> None:
    layer, application = with_login()
    await request_login.with_closed_paths(layer)({"type": "lifespan"}, never, never)
    assert application.logins == [None]


@pytest.mark.parametrize(
    ("method", "path", "root_path", "status"),
    [
        ("GET", "/signup", "", 404),
        ("GET", "/signup/", "", 404),
        ("GET", "/root/signup", "/root", 404),
        ("GET", "/prefix/signup", "", 404),
        ("POST", "/api/2.0/mlflow/users/create-ui", "", 404),
        ("GET", "/ajax-api/3.0/mlflow/assistant", "", 404),
        ("POST", "/ajax-api/3.0/mlflow/assistant/message", "", 404),
        ("PUT", "/prefix/ajax-api/3.0/mlflow/assistant/config", "", 404),
        ("POST", "/ajax-api/3.0/jobs/", "", 404),
        ("POST", "/ajax-api/3.0/jobs", "", 404),
        ("POST", "/ajax-api/3.0/jobs/search", "", 200),
        ("GET", "/ajax-api/3.0/jobs/1", "", 200),
        ("POST", "/api/2.0/mlflow/users/create", "", 200),
        ("GET", "/signups", "", 200),
    ],
)
async def test_closed_paths(
    monkeypatch: pytest.MonkeyPatch, method: str, path: str, root_path: str, status: int
) -> None:
    """For everybody, so without a check of the password."""
    monkeypatch.setenv("_MLFLOW_STATIC_PREFIX", "/prefix/")
    application = Application()
    layer = request_login.with_closed_paths(application)
    assert (await request(layer, scope(path, method=method, root_path=root_path)))[0] == status
    assert len(application.logins) == (status == 200)


def test_config_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """MLflow reads what the operator set. Only the user of the server can read the file."""
    uri = "postgresql://mlflow:p%40%25ss@database/mlflow"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MLFLOW_BACKEND_STORE_URI", uri)
    monkeypatch.setenv(authentication.ADMIN_ENV, "root@example.com")
    monkeypatch.setenv(authentication.DEFAULT_PERMISSION_ENV, "NO_PERMISSIONS")
    path = Path(authentication.write_config())
    assert list(tmp_path.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    config = configparser.ConfigParser()
    config.read(path)
    assert dict(config["mlflow"]) == {
        "database_uri": uri,
        "default_permission": "NO_PERMISSIONS",
        "admin_username": "root@example.com",
        "admin_password": "",
        "auth_cache_ttl_seconds": str(authentication.CACHE_SECONDS),
    }


def test_entry_points_exist() -> None:
    """The command of a pod names them, and MLflow calls them."""
    lines = plugins._AUTH["auth_entry_points.txt"][1].splitlines()[1:]
    functions = dict(line.split(" = ") for line in lines)
    assert functions.keys() == {plugins.AUTH_FAST_PATH_APP, plugins.AUTH_APP, plugins.AUTH_CACHE_APP}
    for path in functions.values():
        assert callable(getattr(authentication, path.partition(":")[2]))
