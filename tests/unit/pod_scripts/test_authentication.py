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
        ({"authorization": "Basic \u00ff" + basic("bob", "secret")["authorization"][6:]}, None),
        ({"authorization": "Basic " + base64.b64encode(b"\xff:secret").decode()}, None),
        (basic("b\0b", "secret"), None),
        (basic("b" * request_login.MAX_CREDENTIALS_BYTES, "secret"), None),
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


BODY: list[Message] = [
    {"type": "http.request", "body": b"1" * 1024, "more_body": True},
    {"type": "http.request", "body": b"", "more_body": False},
    {"type": "http.disconnect"},
]
SIZE = {"content-length": "1024", "transfer-encoding": "chunked"}


async def read(layer: Any, path: str, headers: Headers) -> tuple[bytes, set[str]]:
    """The body and the names of the headers with which a request reaches the application behind `layer`."""
    body: list[bytes] = []
    names: set[str] = set()
    messages = iter(BODY)

    async def receive() -> Message:
        return next(messages)

    async def application(scope: Message, receive: Callable[[], Awaitable[Message]], send: Any) -> None:
        names.update(name.decode() for name, _ in scope["headers"])
        more_body = True
        while more_body:
            message = await receive()
            more_body = message["more_body"]
            body.append(message["body"])
        # Starlette waits for the end of the connection
        assert (await receive())["type"] == "http.disconnect"

    await layer(application)(scope(path, {"x-other": "a", **SIZE, **headers}, "POST"), receive, never)
    return b"".join(body), names


def checked(application: Any) -> Any:
    """An application with password checks of its own."""
    return request_login.with_login(application, accepts_secret, lambda path: path == "/health")


def unchecked(application: Any) -> Any:
    """An application that checks passwords itself."""
    return request_login.with_credentials(application, lambda path: path == "/health")


@pytest.mark.parametrize("layer", [checked, unchecked])
@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/api/2.0/mlflow/runs/search", {}),
        ("/api/2.0/mlflow/runs/search", {"authorization": "Bearer token"}),
        ("/api/2.0/mlflow/runs/search", {"authorization": "Basic \u00ff"}),
        ("/api/2.0/mlflow/runs/search", {"authorization": 'Digest username="bob", password="secret"'}),
        ("/gateway/mlflow/v1/models", {"x-mlflow-authorization": "Bearer token"}),
        ("/health", basic("bob", "secret")),
    ],
)
async def test_request_without_login_has_neither_credentials_nor_a_body(
    layer: Any, path: str, headers: Headers
) -> None:
    """MLflow would read the body into memory, and some credentials would make it fail with status 500."""
    assert await read(layer, path, headers) == (b"", {"x-other"})


async def test_request_with_a_wrong_password_has_no_body() -> None:
    path = "/api/2.0/mlflow/runs/search"
    assert await read(checked, path, basic("bob", "wrong")) == (b"", {"x-other"})


@pytest.mark.parametrize("layer", [checked, unchecked])
async def test_request_with_a_login_is_not_changed(layer: Any) -> None:
    """In which the header of the gateway has the password, and the other one a key for the provider."""
    headers = {"authorization": "Bearer key", **basic("bob", "secret", "x-mlflow-authorization")}
    assert await read(layer, "/gateway/openai/v1/responses", headers) == (
        BODY[0]["body"],
        {"x-other", *SIZE, *headers},
    )


async def test_request_with_the_token_of_background_jobs_is_not_changed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(request_login.GATEWAY_TOKEN_ENV, "token")
    headers = basic("bob", "token")
    body, names = await read(checked, "/gateway/mlflow/v1/chat/completions", headers)
    assert (body, names) == (BODY[0]["body"], {"x-other", *SIZE, *headers})


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
        ("GET", "//signup", "", 404),
        ("GET", "///root//signup", "/root", 404),
        ("POST", "//api/2.0//mlflow/users/create-ui", "", 404),
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
    """For all users, so without a check of the password."""
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
