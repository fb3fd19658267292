"""Users in a MinIO store: each server has its own user, with a single policy for the server's bucket and prefix.

The observed state is read first, and nothing is written if it is as desired. The user name is in a Secret in the
server's namespace, and anyone who can write that Secret could enter any user. The operator therefore does not touch
users and policies unless it knows that they belong to this server.

MinIO lists users only in responses that are encrypted with a key derived by argon2id, which takes 64 MiB per response.
The operator therefore does not know the users of a deleted namespace when a server adopts its artifacts, and revokes
their policy instead. That also revokes the keys that those users have created for themselves.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow_operator.clients.s3 import bucket_policy, minio_errors
from mlflow_operator.clients.s3.http_transport import MAX_RESPONSE_BYTES
from mlflow_operator.clients.s3.minio_api import AdminRequest, AdminResponse, MinioAPI, encrypt_body
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, SignedRequests
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning

_NO_USER, _NO_POLICY, _IN_USE = "XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy", "XMinioIAMPolicyInUse"
_DISABLED = "disabled"
_UNUSED_POLICY = "mlflow-operator"
"""Name that no policy has: the operator's policies have names with dots."""
_POLICY_ID_PREFIX = "mlflow-operator.dev: made for "
_WRONG_KEY_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
_NOT_A_USER_CODES = {"XMinioIAMActionNotAllowed", "XMinioInvalidIAMCredentials"}
"""Error codes for the root key and for the keys of service accounts."""


@dataclass(frozen=True)
class Ownership:
    """What identifies a server on a platform: the ID of its policy, which only administrators can change, and its name.

    `platform` and `adopts` as in `DatabasePlan`.
    """

    marker: str
    platform: str
    adopts: bool = False


@dataclass(frozen=True)
class _ForeignUser:
    """A user in the server's Secret that has other policies than the server's own."""

    id: str
    policies: frozenset[str]
    has_groups: bool

    @property
    def precedes_platform(self) -> bool:
        """Whether all of its policies were created for servers that used no platform."""
        return all(map(bucket_policy.precedes_platform, self.policies))


@dataclass(frozen=True)
class _OtherPolicies:
    """Policies in the store that matter for a server's own.

    `valid`: policies for servers of the same name, in earlier namespaces or before they used a platform, that cover the
    same objects. `earlier`: their names, and those of policies that are revoked already, or whose server used another
    prefix before the platform: the users with these policies are not another server's. `foreign`: name of another
    server's policy that covers the same objects.
    """

    earlier: frozenset[str]
    valid: Mapping[str, Object]
    foreign: str | None


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
        `ownership`, its name contains the uid of the namespace, and its ID is the marker; without, the ID names the
        first user. If the server adopts, the keys of the server in the earlier namespace lose their access first.
        Raises ConfigurationError (the key is not an administrator's, the user or the policy belongs to someone else, or
        the policy overlaps with another server's) or TransientError.
        """
        user_info, secret_valid = await self._inspect_user(admin, user)
        foreign = _foreign_user(user.id, user_info, policy_name)
        if user_info and not (foreign or secret_valid) and _may_be_administrators(user_info):
            raise minio_errors.not_owned(admin, f'user "{user.id}"')
        if ownership:
            await self._ensure_owned_policy(admin, policy_name, policy, ownership, foreign)
            if foreign:
                user_info, secret_valid = await self._inspect_user(admin, user)
        elif foreign:
            raise minio_errors.not_owned(admin, f'user "{user.id}"')
        else:
            owned = policy_name in _policy_names(user_info)
            await self._ensure_policy(admin, user, policy_name, policy, owned=owned)
        if user_info and _policy_names(user_info) != {policy_name}:
            # First: the secret must never be valid together with another policy.
            if user_info.get("status") == _DISABLED:
                # The store does not change the policies of a disabled user.
                await self._remove_user(admin, user.id)
                user_info = None
            else:
                await self._assign_policy(admin, user.id, policy_name)
        if user_info is None or not secret_valid:
            body = encrypt_body({"secretKey": user.secret, "status": "enabled"}, admin.key.secret)
            response = await self._api.call(
                admin, AdminRequest("PUT", "add-user", {"accessKey": user.id}, body)
            )
            _checked_content(admin, response, user.id)
        if user_info is None:
            await self._assign_policy(admin, user.id, policy_name)

    async def delete_user(self, admin: Admin, access_key_id: str, policy_name: str) -> None:
        """Delete a user and also revoke its key. Do nothing if the user does not exist.

        `policy_name` is the server's policy. A user with another policy belongs to someone else and is not deleted.
        """
        response = await self._api.call(admin, _user_info_request(access_key_id))
        if response.code == _NO_USER:
            return
        user_info = _checked_content(admin, response, access_key_id)
        foreign = _foreign_user(access_key_id, user_info, policy_name)
        is_same_server = foreign and all(
            bucket_policy.precedes_platform(name) and bucket_policy.is_of_same_name(name, policy_name)
            for name in foreign.policies
        )
        # During a rotation, a server can begin to use a platform: its previous key then has its previous policy.
        if foreign and (foreign.has_groups or not is_same_server):
            raise minio_errors.not_owned(admin, f'user "{access_key_id}"')
        await self._remove_user(admin, access_key_id)

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
        self, admin: Admin, name: str, policy: Object, ownership: Ownership, foreign: _ForeignUser | None
    ) -> None:
        """Create or update the policy of a server on a platform, after those of earlier namespaces are revoked.

        The policy does not have its ID before, so an interrupted adoption begins again. A `foreign` user of an earlier
        namespace, as after a restore of its Secret, is deleted to be created again: otherwise keys that were made from
        it would get access together with it. Its temporary credentials do, until they expire. The user of a server that
        used no platform before stays, and has access throughout: the server may be running.
        """
        response = await self._api.call(admin, AdminRequest("GET", "info-canned-policy", {"name": name}))
        observed = None if response.code == _NO_POLICY else _checked_content(admin, response)
        is_own = observed is not None and provisioning.is_marker_of(observed.get("ID"), ownership.marker)
        is_desired = is_own and bucket_policy.is_equivalent(observed, policy)
        if is_desired and foreign is None:
            return
        others = await self._other_policies(admin, name, policy)
        _check_adoption(admin, others, ownership, foreign)
        if foreign and foreign.precedes_platform:
            if not is_own:
                await self._write_policy(admin, name, policy)
            await self._assign_policy(admin, foreign.id, name)
        for other, document in others.valid.items():
            await self._write_policy(admin, other, bucket_policy.revoked(document))
        if foreign and not foreign.precedes_platform:
            await self._remove_user(admin, foreign.id)
        if ownership.adopts:
            for other in sorted(others.earlier):
                await self.delete_policy(admin, other)
        if not is_desired:
            await self._write_policy(admin, name, {"ID": ownership.marker, **policy})

    async def _other_policies(self, admin: Admin, name: str, policy: Object) -> _OtherPolicies:
        policies = await self._policies(admin)
        overlapping = bucket_policy.overlapping_policies(policies, name, policy)
        same_name = {other for other in policies if bucket_policy.is_of_same_name(other, name)} - {name}
        valid = {other: policies[other] for other in overlapping if other in same_name}
        revoked = {other for other in same_name if bucket_policy.is_revoked(policies[other])}
        before_platform = set(filter(bucket_policy.precedes_platform, same_name))
        foreign = next((other for other in overlapping if other not in same_name), None)
        return _OtherPolicies(frozenset({*valid, *revoked, *before_platform}), valid, foreign)

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
        await self._write_policy(admin, name, policy)

    async def _write_policy(self, admin: Admin, name: str, policy: Object) -> None:
        body = json.dumps(policy).encode()
        await self._call_checked(admin, AdminRequest("PUT", "add-canned-policy", {"name": name}, body))

    async def _assign_policy(self, admin: Admin, access_key_id: str, name: str) -> None:
        """Make a policy the only one of a user."""
        assignment = {"policyName": name, "userOrGroup": access_key_id, "isGroup": "false"}
        await self._call_checked(admin, AdminRequest("PUT", "set-user-or-group-policy", assignment))

    async def _remove_user(self, admin: Admin, access_key_id: str) -> None:
        await self._call_checked(
            admin, AdminRequest("DELETE", "remove-user", {"accessKey": access_key_id}), ignored_code=_NO_USER
        )

    async def overlapping_policy(self, admin: Admin, name: str, policy: Object) -> str | None:
        """Return the name of another server's policy that covers objects that `policy` covers, if any.

        `name` is the name of `policy`. Errors as in `check`.
        """
        return bucket_policy.overlapping_policy(await self._policies(admin), name, policy)

    async def _policies(self, admin: Admin) -> Object:
        """Return all policies by name. A caller must not keep them while it waits for the next response."""
        request = AdminRequest("GET", "list-canned-policies", {}, max_response_bytes=MAX_RESPONSE_BYTES)
        return _checked_content(admin, await self._api.call(admin, request))

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


def _foreign_user(access_key_id: str, user_info: Object | None, policy_name: str) -> _ForeignUser | None:
    """Return the user if it has policies, but not this one. A user without any may have been created just now."""
    policies, has_groups = frozenset(_policy_names(user_info)), bool((user_info or {}).get("memberOf"))
    is_foreign = policy_name not in policies and (policies or has_groups)
    return _ForeignUser(access_key_id, policies, has_groups) if is_foreign else None


def _may_be_administrators(user_info: Object) -> bool:
    """Whether a user whose secret is unknown may not be the server's: it has no policy, or is in groups.

    An administrator may have created a user of their own with the name in the server's Secret. The secret and the
    policy of the server would then take it over, with the permissions of its groups.
    """
    return not _policy_names(user_info) or bool(user_info.get("memberOf"))


def _check_adoption(
    admin: Admin, others: _OtherPolicies, ownership: Ownership, foreign: _ForeignUser | None
) -> None:
    """Raise ConfigurationError unless the server may have its policy, and its Secret may contain the foreign user."""
    refused = {*others.valid}
    if foreign and foreign.precedes_platform:
        refused |= foreign.policies & others.earlier
    if refused and not ownership.adopts:
        description = f'The policy "{min(refused)}" at {admin.endpoint}'
        raise provisioning.adoption_required(description, ownership.marker, ownership.platform)
    is_adopted = ownership.adopts and foreign and foreign.policies <= others.earlier
    if foreign and (foreign.has_groups or not is_adopted):
        raise minio_errors.not_owned(admin, f'user "{foreign.id}"')
    if others.foreign:
        raise minio_errors.policy_overlap(admin, others.foreign)


def _checked_content(admin: Admin, response: AdminResponse, user_id: str = "") -> Object:
    """Return the content of a successful response. Raise ReconcileError otherwise. `user_id`: user of the request."""
    if response.ok:
        return response.content if isinstance(response.content, dict) else {}
    if user_id and response.code in _NOT_A_USER_CODES:
        raise minio_errors.not_owned(admin, f'user "{user_id}"')
    raise minio_errors.from_response(admin, response)
