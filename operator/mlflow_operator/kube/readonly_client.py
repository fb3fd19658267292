"""Kubernetes client of `doctor`: requests that the operator itself does not need and that change nothing."""

import asyncio
import json
from collections.abc import Sequence
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.config import ConfigException
from kubernetes.aio.stream.ws_client import ERROR_CHANNEL, STDOUT_CHANNEL, get_websocket_url

from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import KubernetesClient
from mlflow_operator.kube.errors import Invalid, Unavailable, from_response
from mlflow_operator.kube.objects import Object

__all__ = ["ConfigException", "ReadOnlyClient"]

_MAX_BODY_BYTES = 65536
"""Only the beginning of a response body is used."""


class ReadOnlyClient(KubernetesClient):
    """Client that can impersonate a user, and can reach Services and pods through the API server."""

    @property
    def address(self) -> str:
        """URL of the API server."""
        return str(self._client.configuration.host)

    def impersonate(self, user: str) -> None:
        """Send all further requests as `user`. They raise Forbidden if this account must not impersonate the user."""
        self._client.set_default_header("Impersonate-User", user)

    async def current_user(self) -> str:
        """Return the user name that the API server has authenticated."""
        review = await self._create_review(kinds.SELF_SUBJECT_REVIEW, "create SelfSubjectReview", {})
        return str(((review.get("status") or {}).get("userInfo") or {}).get("username") or "")

    async def is_allowed(self, attributes: Object) -> bool:
        """Whether the current user is allowed to do what the attributes of a SelfSubjectAccessReview describe."""
        review = await self._create_review(
            kinds.SELF_SUBJECT_ACCESS_REVIEW,
            "create SelfSubjectAccessReview",
            {"spec": {"resourceAttributes": attributes}},
        )
        return bool((review.get("status") or {}).get("allowed"))

    async def get_through_service(
        self, namespace: str, service: str, port: str, path: str
    ) -> tuple[int, bytes]:
        """GET `path` of a Service through the API server's proxy. Returns the status code and the start of the body.

        Raises a ClusterError if the API server itself responds with an error: the Service does not exist, has no ready
        pod, or the request is not allowed.
        """
        action = f"reach Service {namespace}/{service}"
        address, _, query = path.partition("?")
        proxy_path = f"{kinds.SERVICE.path(namespace, f'{service}:{port}', 'proxy')}{quote(address)}"
        try:
            async with asyncio.timeout(self._timeout_seconds):
                _, url, headers, _, _ = await self._client.param_serialize(
                    "GET", proxy_path, header_params={"Accept": "*/*"}, auth_settings=["BearerToken"]
                )
                timeout = aiohttp.ClientTimeout(total=self._timeout_seconds)
                response = await self._client.call_api(
                    "GET", f"{url}?{query}" if query else url, headers, None, _request_timeout=timeout
                )
                body = (await response.read())[:_MAX_BODY_BYTES]
        except TimeoutError as error:
            raise Unavailable(f"{action}: no response within {self._timeout_seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"{action}: cannot connect to the API server ({type(error).__name__})"
            ) from error
        if response.status >= 400 and _is_status_object(body):
            raise from_response(response.status, None, body, action, secret=False)
        return response.status, body

    async def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], timeout_seconds: float
    ) -> str:
        """Run a command in a container and return its output. Raises Invalid if the command fails or does not exist."""
        action = f"run {command[0]} in Pod {namespace}/{pod}"
        query = [("container", container), ("stdout", "1"), *(("command", argument) for argument in command)]
        stdout, exit_status = bytearray(), bytearray()
        try:
            async with asyncio.timeout(timeout_seconds):
                _, url, headers, _, _ = await self._client.param_serialize(
                    "GET",
                    kinds.POD.path(namespace, pod, "exec"),
                    header_params={"sec-websocket-protocol": "v4.channel.k8s.io"},
                    auth_settings=["BearerToken"],
                )
                session = await self._session()
                address = f"{get_websocket_url(url)}?{urlencode(query)}"
                async with session.ws_connect(address, headers=headers) as websocket:
                    async for message in websocket:
                        channel, data = message.data[0], message.data[1:]
                        if channel == STDOUT_CHANNEL:
                            stdout += data
                        elif channel == ERROR_CHANNEL:
                            exit_status += data
        except TimeoutError as error:
            raise Unavailable(f"{action}: no response within {timeout_seconds:g} s") from error
        except aiohttp.WSServerHandshakeError as error:
            raise from_response(error.status, None, b"", action, secret=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(
                f"{action}: cannot connect to the API server ({type(error).__name__})"
            ) from error
        if not _is_success(bytes(exit_status)):
            raise Invalid(f"{action}: the command failed")
        return stdout.decode(errors="replace")

    async def _session(self) -> aiohttp.ClientSession:
        # The client library creates the session with the first request.
        if self._client.rest_client.pool_manager is None:
            await self.current_user()
        session: aiohttp.ClientSession = self._client.rest_client.pool_manager
        return session

    async def _create_review(self, kind: kinds.Kind, action: str, spec: Object) -> Object:
        # Although it is a POST, the API server stores nothing.
        review = {"apiVersion": kind.api_version, "kind": kind.kind, **spec}
        return await self._request("POST", kind.path(), action, kind, body=review)


def _is_status_object(body: bytes) -> bool:
    try:
        decoded = json.loads(body)
    except ValueError:
        return False
    return isinstance(decoded, dict) and decoded.get("kind") == "Status" and "apiVersion" in decoded


def _is_success(exit_status: bytes) -> bool:
    try:
        return bool(json.loads(exit_status).get("status") == "Success")
    except (ValueError, AttributeError):
        return False
