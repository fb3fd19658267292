"""Users in a MinIO store: each server has its own user, with a single policy for the server's bucket and prefix.

The observed state is read first, and nothing is written if it is as desired. The user name is in a Secret in the
server's namespace, and anyone who can write that Secret could enter any user. The operator therefore does not touch
users and policies unless it knows that they belong to this server.
"""

import json
from dataclasses import dataclass

from mlflow_operator.clients.s3 import bucket_policy, minio_errors
from mlflow_operator.clients.s3.http_transport import MAX_RESPONSE_BYTES
from mlflow_operator.clients.s3.minio_api import AdminRequest, AdminResponse, MinioAPI, encrypt_body
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning

_NO_USER, _NO_POLICY, _IN_USE = "XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy", "XMinioIAMPolicyInUse"
_UNUSED_POLICY = "mlflow-operator"
"""Name that no policy has: the operator's policies have names with dots."""
_POLICY_ID_PREFIX = "mlflow-operator.dev: made for "
_WRONG_KEY_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
_NOT_A_USER_CODES = {"XMinioIAMActionNotAllowed", "XMinioInvalidIAMCredentials"}
"""Error codes for the root key and for the keys of service accounts."""


@dataclass(frozen=True)
class Ownership:
    """What identifies a server on a platform: the ID of its policy, which only administrators can change.

    `platform` and `adopts` as in `DatabasePlan`.
    """

    marker: str
    platform: str
    adopts: bool = False


class MinioAdmin:
    """Manages users and policies of a MinIO with the administrator's access key."""

    def __init__(self, requests: SignedRequests) -> None:
        self._api = MinioAPI(requests)

    async def check(self, admin: Admin) -> None:
        """Check that the store is MinIO and that the key may read policies. Writes nothing.

        Raises ConfigurationError or TransientError.
        """
        request = AdminRequest("GET", "info-canned-policy", {"name": _UNUSED_POLICY})
        await self._call_checked(admin, request, ignored_code=_NO_POLICY)

    async def ensure_user(
        self,
        admin: Admin,
        user: AccessKey,
        policy_name: str,
        policy: Object,
        ownership: Ownership | None = None,
    ) -> None:
        """Create or update `user` with its secret and `policy` as its only policy.

        `policy_name` is `bucket_policy.name`. During a rotation both the old and the new user have the policy. With
        `ownership`, an existing policy must have its marker as ID; without, the ID names the first user.
        Raises ConfigurationError (the key is not an administrator's, the user or the policy belongs to someone else, or
        the policy overlaps with another server's) or TransientError.
        """
        user_info, secret_valid = await self._inspect_user(admin, user)
        has_own_policy = policy_name in _policy_names(user_info)
        if user_info and not has_own_policy and (_policy_names(user_info) or user_info.get("memberOf")):
            raise minio_errors.not_owned(admin, f'user "{user.id}"')
        if ownership:
            await self._ensure_owned_policy(admin, policy_name, policy, ownership)
        else:
            await self._ensure_policy(admin, user, policy_name, policy, owned=has_own_policy)
        if user_info is None or not secret_valid:
            body = encrypt_body({"secretKey": user.secret, "status": "enabled"}, admin.key.secret)
            response = await self._api.call(
                admin, AdminRequest("PUT", "add-user", {"accessKey": user.id}, body)
            )
            _checked_content(admin, response, user.id)
        if _policy_names(user_info) != {policy_name}:
            assignment = {"policyName": policy_name, "userOrGroup": user.id, "isGroup": "false"}
            await self._call_checked(admin, AdminRequest("PUT", "set-user-or-group-policy", assignment))

    async def delete_user(self, admin: Admin, access_key_id: str, policy_name: str) -> None:
        """Delete a user and also revoke its key. Do nothing if the user does not exist.

        `policy_name` is the server's policy. A user with another policy belongs to someone else and is not deleted.
        """
        response = await self._api.call(admin, _user_info_request(access_key_id))
        if response.code == _NO_USER:
            return
        user_info = _checked_content(admin, response, access_key_id)
        policy_names = _policy_names(user_info)
        if (policy_names or user_info.get("memberOf")) and policy_name not in policy_names:
            raise minio_errors.not_owned(admin, f'user "{access_key_id}"')
        await self._call_checked(
            admin, AdminRequest("DELETE", "remove-user", {"accessKey": access_key_id}), ignored_code=_NO_USER
        )

    async def delete_policy(self, admin: Admin, policy_name: str) -> None:
        """Delete the policy. Do nothing if it does not exist.

        Do nothing either if a user still has it: that user is another cluster's.
        """
        response = await self._api.call(
            admin, AdminRequest("DELETE", "remove-canned-policy", {"name": policy_name})
        )
        if response.code not in {_NO_POLICY, _IN_USE}:
            _checked_content(admin, response)

    async def _inspect_user(self, admin: Admin, user: AccessKey) -> tuple[Object | None, bool]:
        """Return the store's information on the user, None if it does not exist, and whether the secret is valid.

        Every user may request its own information; signing that request with the user's key verifies the secret.
        """
        response = await self._api.call(admin, _user_info_request(user.id), signed_by=user)
        if response.code == _NO_USER:  # A valid key without a user is the root key.
            raise minio_errors.not_owned(admin, f'user "{user.id}"')
        if response.code not in _WRONG_KEY_CODES:
            return _checked_content(admin, response, user.id), True
        response = await self._api.call(admin, _user_info_request(user.id))
        return (None if response.code == _NO_USER else _checked_content(admin, response, user.id)), False

    async def _ensure_owned_policy(
        self, admin: Admin, name: str, policy: Object, ownership: Ownership
    ) -> None:
        """Create or update the policy of a server on a platform. Its ID is compared even if its contents are right.

        Otherwise a server in a namespace that is created again would get the policy of a deleted one, with its prefix.
        """
        response = await self._api.call(admin, AdminRequest("GET", "info-canned-policy", {"name": name}))
        observed = None if response.code == _NO_POLICY else _checked_content(admin, response)
        recorded = None if observed is None else str(observed.get("ID") or "")
        is_own = provisioning.is_marker_of(recorded, ownership.marker)
        if observed is not None and not is_own and not ownership.adopts:
            description = f'The policy "{name}" at {admin.endpoint}'
            raise provisioning.adoption_required(description, ownership.marker, ownership.platform)
        if not is_own or not bucket_policy.is_equivalent(observed, policy):
            await self._put_policy(admin, name, {"ID": ownership.marker, **policy})

    async def _ensure_policy(
        self, admin: Admin, user: AccessKey, name: str, policy: Object, *, owned: bool
    ) -> None:
        response = await self._api.call(admin, AdminRequest("GET", "info-canned-policy", {"name": name}))
        observed = None if response.code == _NO_POLICY else _checked_content(admin, response)
        if bucket_policy.is_equivalent(observed, policy):
            return
        policy_id = f"{_POLICY_ID_PREFIX}{user.id}"
        if observed is not None and not owned and observed.get("ID") != policy_id:
            raise minio_errors.not_owned(admin, f'policy "{name}"')
        await self._put_policy(admin, name, {"ID": policy_id, **policy})

    async def _put_policy(self, admin: Admin, name: str, policy: Object) -> None:
        overlapping = await self.overlapping_policy(admin, name, policy)
        if overlapping:
            raise minio_errors.policy_overlap(admin, overlapping)
        body = json.dumps(policy).encode()
        await self._call_checked(admin, AdminRequest("PUT", "add-canned-policy", {"name": name}, body))

    async def overlapping_policy(self, admin: Admin, name: str, policy: Object) -> str | None:
        """Return the name of another server's policy that covers objects that `policy` covers, if any.

        `name` is the name of `policy`. Errors as in `check`.
        """
        # A method of its own: the caller must not keep all policies while it waits for the next response.
        request = AdminRequest("GET", "list-canned-policies", {}, max_response_bytes=MAX_RESPONSE_BYTES)
        policies = _checked_content(admin, await self._api.call(admin, request))
        return bucket_policy.overlapping_policy(policies, name, policy)

    async def _call_checked(self, admin: Admin, request: AdminRequest, ignored_code: str = "") -> None:
        """Send a request and raise if the store rejects it with another code than `ignored_code`."""
        response = await self._api.call(admin, request)
        if not ignored_code or response.code != ignored_code:
            _checked_content(admin, response)


def _user_info_request(access_key_id: str) -> AdminRequest:
    return AdminRequest("GET", "user-info", {"accessKey": access_key_id})


def _policy_names(user_info: Object | None) -> set[str]:
    """Return the policies of the user itself. The store returns them separated by commas."""
    return set(((user_info or {}).get("policyName") or "").split(",")) - {""}


def _checked_content(admin: Admin, response: AdminResponse, user_id: str = "") -> Object:
    """Return the content of a successful response. Raise ReconcileError otherwise. `user_id`: user of the request."""
    if response.ok:
        return response.content if isinstance(response.content, dict) else {}
    if user_id and response.code in _NOT_A_USER_CODES:
        raise minio_errors.not_owned(admin, f'user "{user_id}"')
    raise minio_errors.from_response(admin, response)
