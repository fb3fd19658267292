"""Why a MinIO gives a server no key of its own, in our own words and with the way out."""

from mlflow_operator.clients.s3 import errors as s3_faults
from mlflow_operator.clients.s3.minio_api import AdminResponse
from mlflow_operator.clients.s3.signed_request import Admin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError


def from_response(admin: Admin, answer: AdminResponse) -> ReconcileError:
    """Why the store does not do what its administrator asks."""
    place = admin.endpoint
    common = s3_faults.common(answer.code, answer.status, place)
    if common:
        return common
    if answer.code == "InvalidAccessKeyId":
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {place} does not know the administrator's access key, or has disabled it, so that the "
            f"server's own can't be seen to. Put the right one into {admin.kept}.",
        )
    if answer.code == "SignatureDoesNotMatch":
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {place} refuses the administrator's secret key, so that the server's own can't be seen to. "
            f"Put the right one into {admin.kept}.",
        )
    if answer.code in {"AccessDenied", "XMinioIAMActionNotAllowed"}:
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {place} lets the key in {admin.kept} make no users and policies. "
            "Allow it admin:CreateUser, GetUser, DeleteUser, CreatePolicy, GetPolicy, DeletePolicy, ListUserPolicies "
            "and AttachUserOrGroupPolicy, or name another key.",
        )
    if answer.code.startswith("XMinio"):
        return TransientError(
            Reason.PROVISIONING_DENIED,
            f"The store at {place} makes no key for the server: it answers {answer.code}. Look into its log.",
        )
    return ConfigurationError(
        Reason.PROVISIONING_DENIED,
        f"What answers at {place} is no MinIO: it has no admin API, and no key can be made for the server. Give it one "
        "in spec.artifacts.s3.credentialsSecretRef instead of adminSecretRef.",
    )


def taken(admin: Admin, other: str) -> ConfigurationError:
    """The server's place in the store is within reach of `other`, another one's policy, or the other way round."""
    return ConfigurationError(
        Reason.NAME_CONFLICT,
        f'The place in spec.artifacts.s3 overlaps with that of the policy "{other}" at {admin.endpoint}, which another '
        "server has or had, so no key is made for it. Choose another prefix or bucket; or, if that server is gone for "
        "good, remove its user and its policy from the store.",
    )


def not_ours(admin: Admin, what: str) -> ConfigurationError:
    """`what` is there under a name of ours, and nothing says that it is this server's."""
    return ConfigurationError(
        Reason.NAME_CONFLICT,
        f"The {what} at {admin.endpoint} was not made for this server, and is left as it is. Remove it there, or "
        "delete the server's Secret whose name ends in -artifacts, so that another key is made.",
    )
