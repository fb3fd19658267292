"""The API server as `doctor` asks it: what the operator itself never needs, and nothing that changes anything."""

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

_LONGEST = 65536
"""Bytes of a page that are read; its beginning tells what it is."""


class ReadOnlyClient(KubernetesClient):
    """A client that may speak as somebody else, and reach Services and pods through the API server."""

    @property
    def address(self) -> str:
        """Where the API server is."""
        return str(self._client.configuration.host)

    def impersonate(self, user: str) -> None:
        """From now on ask as `user`. Forbidden, at the next request: the account may not impersonate it."""
        self._client.set_default_header("Impersonate-User", user)

    async def current_user(self) -> str:
        """The user name by which the API server knows us."""
        answer = await self._asked(kinds.SELF_SUBJECT_REVIEW, "ask who we are", {})
        return str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "")

    async def is_allowed(self, attributes: Object) -> bool:
        """Whether we may do what the attributes of a SelfSubjectAccessReview say."""
        answer = await self._asked(
            kinds.SELF_SUBJECT_ACCESS_REVIEW, "ask what we may", {"spec": {"resourceAttributes": attributes}}
        )
        return bool((answer.get("status") or {}).get("allowed"))

    async def get_through_service(
        self, namespace: str, service: str, port: str, path: str
    ) -> tuple[int, bytes]:
        """GET `path` of a Service through the API server's proxy: status and the answer's beginning.

        Raises a ClusterError where the API server itself answers: no such Service, no pod behind it, not allowed.
        """
        doing = f"reach Service {namespace}/{service}"
        address, _, query = path.partition("?")
        below = f"{kinds.SERVICE.path(namespace, f'{service}:{port}', 'proxy')}{quote(address)}"
        try:
            async with asyncio.timeout(self._seconds):
                _, url, headers, _, _ = await self._client.param_serialize(
                    "GET", below, header_params={"Accept": "*/*"}, auth_settings=["BearerToken"]
                )
                limit = aiohttp.ClientTimeout(total=self._seconds)
                answer = await self._client.call_api(
                    "GET", f"{url}?{query}" if query else url, headers, None, _request_timeout=limit
                )
                text = (await answer.read())[:_LONGEST]
        except TimeoutError as error:
            raise Unavailable(f"{doing}: no answer within {self._seconds:g} s") from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{doing}: no connection to the API server ({type(error).__name__})") from error
        if answer.status >= 400 and _of_api_server(text):
            raise from_response(answer.status, None, text, doing, secret=False)
        return answer.status, text

    async def exec(
        self, namespace: str, pod: str, container: str, command: Sequence[str], seconds: float
    ) -> str:
        """What a command in a running container prints. Invalid: it ended with an error, or is not there."""
        doing = f"run {command[0]} in Pod {namespace}/{pod}"
        query = [("container", container), ("stdout", "1"), *(("command", word) for word in command)]
        printed, ended = bytearray(), bytearray()
        try:
            async with asyncio.timeout(seconds):
                _, url, headers, _, _ = await self._client.param_serialize(
                    "GET",
                    kinds.POD.path(namespace, pod, "exec"),
                    header_params={"sec-websocket-protocol": "v4.channel.k8s.io"},
                    auth_settings=["BearerToken"],
                )
                session = await self._session()
                address = f"{get_websocket_url(url)}?{urlencode(query)}"
                async with session.ws_connect(address, headers=headers) as channels:
                    async for message in channels:
                        channel, data = message.data[0], message.data[1:]
                        if channel == STDOUT_CHANNEL:
                            printed += data
                        elif channel == ERROR_CHANNEL:
                            ended += data
        except TimeoutError as error:
            raise Unavailable(f"{doing}: no answer within {seconds:g} s") from error
        except aiohttp.WSServerHandshakeError as error:
            raise from_response(error.status, None, b"", doing, secret=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unavailable(f"{doing}: no connection to the API server ({type(error).__name__})") from error
        if not _succeeded(bytes(ended)):
            raise Invalid(f"{doing}: it ended with an error")
        return printed.decode(errors="replace")

    async def _session(self) -> aiohttp.ClientSession:
        # made with the first request
        if self._client.rest_client.pool_manager is None:
            await self.current_user()
        session: aiohttp.ClientSession = self._client.rest_client.pool_manager
        return session

    async def _asked(self, kind: kinds.Kind, doing: str, spec: Object) -> Object:
        # a POST by name alone: nothing is stored
        question = {"apiVersion": kind.api_version, "kind": kind.kind, **spec}
        return await self._request("POST", kind.path(), doing, kind, body=question)


def _of_api_server(text: bytes) -> bool:
    try:
        answer = json.loads(text)
    except ValueError:
        return False
    return isinstance(answer, dict) and answer.get("kind") == "Status" and "apiVersion" in answer


def _succeeded(ended: bytes) -> bool:
    try:
        return bool(json.loads(ended).get("status") == "Success")
    except (ValueError, AttributeError):
        return False
