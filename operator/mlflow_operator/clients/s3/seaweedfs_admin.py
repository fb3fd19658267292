"""Gives a server a user of its own in a SeaweedFS, by the part of AWS' IAM that its S3 port offers.

Of a user's keys the caller may choose both parts (since SeaweedFS 4), so that a key can be noted before it is made.
AWS' own clients don't know of that, hence requests of our own.
"""

import json
import re
from dataclasses import dataclass
from urllib.parse import urlencode

from mlflow_operator.clients.s3 import errors as s3_faults
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin, Request, send
from mlflow_operator.kube.objects import Object
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_VERSION = "2010-05-08"
_THERE_ALREADY = "EntityAlreadyExists"
_OTHERS = {"MissingParameter", "NotImplemented"}
"""What stores answer that take the question for another one: MinIO, for its STS."""
_FORM = "application/x-www-form-urlencoded"


async def ensure_user(admin: Admin, key: AccessKey, user: str, policy: Object) -> None:
    """Sees to it that `key` is one of `user`'s, who may do what `policy` says, and nothing else.

    `policy` is `core.store_policy.in_seaweedfs`. A key of that id with another secret is made anew.
    Raises UserMistake (the root key is refused, or the store offers no such API) or NotReady.
    """
    await _done(admin, "CreateUser", {"UserName": user}, but=_THERE_ALREADY)
    document = json.dumps(policy)
    await _done(admin, "PutUserPolicy", {"UserName": user, "PolicyName": user, "PolicyDocument": document})
    mine = {"UserName": user, "AccessKeyId": key.id}
    await _done(admin, "DeleteAccessKey", mine)
    made = await _done(admin, "CreateAccessKey", {**mine, "SecretAccessKey": key.secret})
    if f"<AccessKeyId>{key.id}</AccessKeyId>" not in made:
        raise ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The SeaweedFS at {admin.endpoint} makes no key that is given to it, so it is older than 4. Name a newer "
            "one in spec.artifacts.embedded.image.",
        )


async def has_user(admin: Admin, access_key_id: str, user: str) -> bool:
    """Whether it is one of `user`'s keys, with whatever secret. Raises as `admit`."""
    listed = await _done(admin, "ListAccessKeys", {"UserName": user})
    return f"<AccessKeyId>{access_key_id}</AccessKeyId>" in listed


async def delete_user(admin: Admin, access_key_id: str, user: str) -> None:
    """Takes one of `user`'s keys away; fine if it is gone. Raises as `admit`."""
    await _done(admin, "DeleteAccessKey", {"UserName": user, "AccessKeyId": access_key_id})


@dataclass(frozen=True)
class _Answer:
    status: int
    text: str

    @property
    def code(self) -> str:
        found = re.search(r"<Code>(\w+)</Code>", self.text)
        return found[1] if found and self.status >= 300 else ""


async def _done(admin: Admin, action: str, words: dict[str, str], but: str = "") -> str:
    """What the answer says; `but` is a refusal that is as good."""
    body = urlencode({"Action": action, "Version": _VERSION, **words}).encode()
    status, text = await send(admin, Request("POST", "/", "iam", body, _FORM))
    answer = _Answer(status, text.decode(errors="replace"))
    if answer.status >= 300 and (not but or answer.code != but):
        raise _refused(admin, answer)
    return answer.text


def _refused(admin: Admin, answer: _Answer) -> ReconcileError:
    place = admin.endpoint
    common = s3_faults.common(answer.code, answer.status, place)
    if common:
        return common
    if answer.code in {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AccessDenied"}:
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {place} refuses the root key in {admin.kept}, so that the server's own can't be seen to.",
        )
    if answer.status in {404, 405, 501} or answer.code in _OTHERS:
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"What answers at {place} makes no users: it is no SeaweedFS of version 4 or later. Name one in "
            "spec.artifacts.embedded.image.",
        )
    return TransientError(
        Reason.PROVISIONING_DENIED,
        f"The store at {place} makes no key for the server: it answers {answer.code or answer.status}. Look into its "
        "log.",
    )
