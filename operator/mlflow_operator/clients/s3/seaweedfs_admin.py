"""Users in SeaweedFS: each server has its own user, managed with the subset of AWS IAM that the S3 port offers.

The caller can choose both parts of a user's access key (SeaweedFS 4 and later), so that the operator can store a key
before it creates it. AWS' clients do not support that; this module therefore sends its own requests.
"""

import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode

from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, Request, SignedRequests
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_IAM_API_VERSION = "2010-05-08"
_USER_EXISTS_CODE = "EntityAlreadyExists"
_UNSUPPORTED_API_CODES = {"MissingParameter", "NotImplemented"}
"""Error codes of stores that take the request for one of another API, such as MinIO for its STS."""
_CONTENT_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class _Response:
    status: int
    text: str

    @property
    def code(self) -> str:
        match = re.search(r"<Code>(\w+)</Code>", self.text)
        return match[1] if match and self.status >= 300 else ""


class SeaweedFSAdmin:
    """Manages access keys of a SeaweedFS with its root key."""

    def __init__(self, requests: SignedRequests) -> None:
        self._requests = requests

    async def ensure_key(self, admin: Admin, key: AccessKey, user: str, policy: Object) -> None:
        """Create or update `user` with `key` as one of its access keys and `policy` as its only policy.

        `policy` is `bucket_policy.seaweedfs_policy`. A key with the same ID and another secret is replaced.
        Raises ConfigurationError (the root key is rejected, or the store has no such API) or TransientError.
        """
        await self._call_checked(admin, "CreateUser", {"UserName": user}, ignored_code=_USER_EXISTS_CODE)
        document = json.dumps(policy)
        await self._call_checked(
            admin, "PutUserPolicy", {"UserName": user, "PolicyName": user, "PolicyDocument": document}
        )
        key_parameters = {"UserName": user, "AccessKeyId": key.id}
        await self._call_checked(admin, "DeleteAccessKey", key_parameters)
        response_text = await self._call_checked(
            admin, "CreateAccessKey", {**key_parameters, "SecretAccessKey": key.secret}
        )
        if f"<AccessKeyId>{key.id}</AccessKeyId>" not in response_text:
            raise ConfigurationError(
                Reason.PROVISIONING_DENIED,
                f"The SeaweedFS at {admin.endpoint} does not accept a given access key, so it is older than version 4. "
                "Configure a newer version in spec.artifacts.embedded.image.",
            )

    async def has_key(self, admin: Admin, access_key_id: str, user: str) -> bool:
        """Return whether `user` has this access key, with any secret. Errors as in `ensure_key`."""
        response_text = await self._call_checked(admin, "ListAccessKeys", {"UserName": user})
        return f"<AccessKeyId>{access_key_id}</AccessKeyId>" in response_text

    async def delete_key(self, admin: Admin, access_key_id: str, user: str) -> None:
        """Delete an access key of `user`, if it exists. Errors as in `ensure_key`."""
        await self._call_checked(admin, "DeleteAccessKey", {"UserName": user, "AccessKeyId": access_key_id})

    async def _call_checked(
        self, admin: Admin, action: str, parameters: dict[str, str], ignored_code: str = ""
    ) -> str:
        """Send a request and return the text of the response.

        Raises if the request is rejected with another code than `ignored_code`.
        """
        body = urlencode({"Action": action, "Version": _IAM_API_VERSION, **parameters}).encode()
        status, content = await self._requests.send(admin, Request("POST", "/", "iam", body, _CONTENT_TYPE))
        response = _Response(status, content.decode(errors="replace"))
        if response.status >= 300 and (not ignored_code or response.code != ignored_code):
            raise _error_from_response(admin, response)
        return response.text


def _error_from_response(admin: Admin, response: _Response) -> ReconcileError:
    endpoint = admin.endpoint
    common_error = s3_errors.from_any_request(response.code, response.status, endpoint)
    if common_error:
        return common_error
    if response.code in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"}:
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {endpoint} rejects the root key in {admin.key_source}. The server's user cannot be "
            "reconciled.",
        )
    if response.status in {404, 405, 501} or response.code in _UNSUPPORTED_API_CODES:
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The service at {endpoint} cannot create users: it is not SeaweedFS version 4 or later. Configure one in "
            "spec.artifacts.embedded.image.",
        )
    return TransientError(
        Reason.PROVISIONING_DENIED,
        f"The store at {endpoint} cannot create a user for the server: it returns "
        f"{response.code or response.status}. Check the log of the store.",
    )
