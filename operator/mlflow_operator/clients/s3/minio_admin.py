"""Gives a server a MinIO user of its own, whose one policy is for its bucket and prefix.

What is there already is looked at first, and nothing is written where it is as it should be. A Secret in the server's
namespace names the user, and whoever may write it could name anybody: so no user and no policy is touched that is not
known to be this server's.
"""

import json

from mlflow_operator.clients.s3 import bucket_policy, minio_errors
from mlflow_operator.clients.s3.minio_api import AdminRequest, AdminResponse, call, encrypt_body
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.kube.objects import Object

_NO_USER, _NO_POLICY, _IN_USE = "XMinioAdminNoSuchUser", "XMinioAdminNoSuchPolicy", "XMinioIAMPolicyInUse"
_MARK = "mlflow-operator.dev: made for "
_WRONG_KEY = {"InvalidAccessKeyId", "SignatureDoesNotMatch"}
_NO_PLAIN_USER = {"XMinioIAMActionNotAllowed", "XMinioInvalidIAMCredentials"}
"""What is said of the root key and of the keys of service accounts."""


async def ensure_user(admin: Admin, user: AccessKey, policy_name: str, policy: Object) -> None:
    """Sees to it that `user` gets in by its secret and may do what `policy` says, and nothing else.

    `policy_name` is `core.store_policy.name`. Several users may have it: one that leaves, and the one that takes over.
    Raises UserMistake (the key is no administrator's, the user or the policy is somebody else's, the place is another
    server's) or NotReady.
    """
    known, right = await _look(admin, user)
    ours = policy_name in _policies(known)
    if known and not ours and (_policies(known) or known.get("memberOf")):
        raise minio_errors.not_ours(admin, f'user "{user.id}"')
    await _policy(admin, user, policy_name, policy, ours=ours)
    if known is None or not right:
        body = encrypt_body({"secretKey": user.secret, "status": "enabled"}, admin.key.secret)
        _content(
            admin, await call(admin, AdminRequest("PUT", "add-user", {"accessKey": user.id}, body)), user.id
        )
    if _policies(known) != {policy_name}:
        who = {"policyName": policy_name, "userOrGroup": user.id, "isGroup": "false"}
        await _done(admin, AdminRequest("PUT", "set-user-or-group-policy", who))


async def delete_user(admin: Admin, access_key_id: str, policy_name: str) -> None:
    """Takes a user away, and with it all access by its key; fine if it is gone.

    `policy_name` is the server's: a user that has another one is somebody else's, and stays.
    """
    found = await call(admin, _user(access_key_id))
    if found.code == _NO_USER:
        return
    known = _content(admin, found, access_key_id)
    if (_policies(known) or known.get("memberOf")) and policy_name not in _policies(known):
        raise minio_errors.not_ours(admin, f'user "{access_key_id}"')
    await _done(admin, AdminRequest("DELETE", "remove-user", {"accessKey": access_key_id}), but=_NO_USER)


async def remove_policy(admin: Admin, policy_name: str) -> None:
    """Takes the policy away; fine if it is gone. One that a user still has stays: that user is another cluster's."""
    gone = await call(admin, AdminRequest("DELETE", "remove-canned-policy", {"name": policy_name}))
    if gone.code not in {_NO_POLICY, _IN_USE}:
        _content(admin, gone)


async def _look(admin: Admin, user: AccessKey) -> tuple[Object | None, bool]:
    """What the store knows of the user, None for nothing; and whether its secret is right.

    Everybody may ask for themselves, and that is how a wrong secret shows.
    """
    found = await call(admin, _user(user.id), signed_by=user)
    if found.code == _NO_USER:  # and yet it may ask: the root key
        raise minio_errors.not_ours(admin, f'user "{user.id}"')
    if found.code not in _WRONG_KEY:
        return _content(admin, found, user.id), True
    found = await call(admin, _user(user.id))
    return (None if found.code == _NO_USER else _content(admin, found, user.id)), False


async def _policy(admin: Admin, user: AccessKey, name: str, policy: Object, *, ours: bool) -> None:
    found = await call(admin, AdminRequest("GET", "info-canned-policy", {"name": name}))
    live = None if found.code == _NO_POLICY else _content(admin, found)
    if bucket_policy.same(live, policy):
        return
    mark = f"{_MARK}{user.id}"
    if live is not None and not ours and live.get("ID") != mark:
        raise minio_errors.not_ours(admin, f'policy "{name}"')
    others = _content(admin, await call(admin, AdminRequest("GET", "list-canned-policies", {})))
    taken = bucket_policy.overlapping_policies(others, name, policy)
    if taken:
        raise minio_errors.taken(admin, taken)
    body = json.dumps({"ID": mark, **policy}).encode()
    await _done(admin, AdminRequest("PUT", "add-canned-policy", {"name": name}, body))


async def _done(admin: Admin, asked: AdminRequest, but: str = "") -> None:
    """Sees to it that it is done; `but` is an answer that is as good."""
    answer = await call(admin, asked)
    if not but or answer.code != but:
        _content(admin, answer)


def _user(access_key_id: str) -> AdminRequest:
    return AdminRequest("GET", "user-info", {"accessKey": access_key_id})


def _policies(known: Object | None) -> set[str]:
    """A user's own ones; the store joins several by commas."""
    return set(((known or {}).get("policyName") or "").split(",")) - {""}


def _content(admin: Admin, answer: AdminResponse, user_id: str = "") -> Object:
    """What a good answer holds; Fault where it is none. `user_id`: whom it is about."""
    if answer.good:
        return answer.content if isinstance(answer.content, dict) else {}
    if user_id and answer.code in _NO_PLAIN_USER:
        raise minio_errors.not_ours(admin, f'user "{user_id}"')
    raise minio_errors.from_response(admin, answer)
