"""A small client of the Kubernetes API: one method per verb, objects are dicts, responses are not cached."""

import json
from collections.abc import Sequence
from typing import Any, Self

import requests
import yaml

from mlflow_operator.kube.kinds import Kind

Object = dict[str, Any]

FIELD_MANAGER = "kubectl"
TIMEOUT_SECONDS = 30.0
_NOT_FOUND = 404


class ApiError(Exception):
    """The API server rejected a request. `status` is the HTTP status, the text is the message."""

    def __init__(self, status: int, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class Client:
    """Client of an API server for one user."""

    def __init__(self, url: str, token: str, ca: str) -> None:
        self._url = url
        self._session = requests.Session()
        # Proxies and certificates from environment variables do not apply to loopback addresses.
        self._session.trust_env = False
        self._session.verify = ca
        self._session.headers["Authorization"] = f"Bearer {token}"

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        """Return an object, or None if it does not exist."""
        try:
            return self.request("GET", kind.path(namespace, name))
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def need(self, kind: Kind, namespace: str | None, name: str) -> Object:
        """Return an object that must exist."""
        return self.request("GET", kind.path(namespace, name))

    def list(self, kind: Kind, namespace: str | None = None, labels: str = "") -> list[Object]:
        """List the objects of a kind that match a label selector, in one namespace or in all namespaces."""
        response = self.request("GET", kind.path(namespace), labelSelector=labels)
        return [{"apiVersion": kind.api_version, "kind": kind.kind, **item} for item in response["items"]]

    def create(self, kind: Kind, obj: Object, **query: str) -> Object:
        """Create an object in the namespace of its metadata."""
        return self.request("POST", kind.path(obj["metadata"].get("namespace")), obj, **query)

    def apply(self, kind: Kind, obj: Object, **query: str) -> Object:
        """Server-side apply with the field manager of kubectl. Conflicts are forced."""
        meta = obj["metadata"]
        options = {"fieldManager": FIELD_MANAGER, "force": "true", **query}
        path = kind.path(meta.get("namespace"), meta["name"])
        return self.request(
            "PATCH", path, yaml.safe_dump(obj), content_type="application/apply-patch+yaml", **options
        )

    def merge(
        self, kind: Kind, namespace: str | None, name: str, change: Object, subresource: str | None = None
    ) -> Object:
        """Send a JSON merge patch."""
        path = kind.path(namespace, name, subresource)
        return self.request("PATCH", path, change, content_type="application/merge-patch+json")

    def json_patch(
        self, kind: Kind, namespace: str | None, name: str, steps: Sequence[Object], **query: str
    ) -> Object:
        """Send a JSON patch."""
        path = kind.path(namespace, name)
        return self.request("PATCH", path, [*steps], content_type="application/json-patch+json", **query)

    def delete(self, kind: Kind, namespace: str | None, name: str, propagation: str = "Background") -> None:
        """Delete an object without waiting."""
        self.request("DELETE", kind.path(namespace, name), {"propagationPolicy": propagation})

    def request(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> Object:
        """Send a request; `body` is encoded as JSON unless it is a string. Raises ApiError for statuses from 400."""
        answer: Object = self.send(method, path, body, content_type, **query).json()
        return answer

    def send(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json", **query: str
    ) -> requests.Response:
        """Like `request`, but return the HTTP response."""
        data = body if isinstance(body, str) or body is None else json.dumps(body)
        response = self._session.request(
            method,
            f"{self._url}{path}",
            params={key: value for key, value in query.items() if value},
            data=None if data is None else data.encode(),
            headers={"Content-Type": content_type},
            timeout=TIMEOUT_SECONDS,
        )
        if response.status_code >= 400:
            raise _error(response)
        return response


def _error(response: requests.Response) -> ApiError:
    try:
        answer = response.json()
    except ValueError:
        return ApiError(response.status_code, response.text)
    return ApiError(response.status_code, str(answer.get("message")), str(answer.get("reason")))
