"""Condition messages for errors of MinIO's admin API: the cause, and what the user must do."""

from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.clients.s3.minio_api import AdminResponse
from mlflow_operator.clients.s3.signed_request import Admin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError


def from_response(admin: Admin, response: AdminResponse) -> ReconcileError:
    """Return the error for a response that rejects an administrator's request."""
    endpoint = admin.endpoint
    common_error = s3_errors.from_any_request(response.code, response.status, endpoint)
    if common_error:
        return common_error
    if response.code == "InvalidAccessKeyId":
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {endpoint} does not know the administrator's access key, or the key is disabled, so the "
            f"operator cannot manage users there. Correct the key in {admin.key_source}.",
        )
    if response.code == "SignatureDoesNotMatch":
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {endpoint} rejects the administrator's secret key, so the operator cannot manage users "
            f"there. Correct the key in {admin.key_source}.",
        )
    if response.code in {"AccessDenied", "XMinioIAMActionNotAllowed"}:
        return ConfigurationError(
            Reason.PROVISIONING_DENIED,
            f"The store at {endpoint} does not allow the key in {admin.key_source} to manage users and policies. "
            "Grant it admin:CreateUser, GetUser, DeleteUser, CreatePolicy, GetPolicy, DeletePolicy, ListUserPolicies "
            "and AttachUserOrGroupPolicy, or configure another key.",
        )
    if response.code.startswith("XMinio"):
        return TransientError(
            Reason.PROVISIONING_DENIED,
            f"The store at {endpoint} cannot manage users: it returns {response.code}. Check the log of the store.",
        )
    return ConfigurationError(
        Reason.PROVISIONING_DENIED,
        f"The service at {endpoint} is not MinIO: it has no admin API, so the operator cannot create users for "
        "servers. Set spec.artifacts.s3.endpoint to a MinIO. An MLflowServer with a bucket of its own can use "
        "credentialsSecretRef instead of adminSecretRef.",
    )


def policy_overlap(admin: Admin, other_policy: str) -> ConfigurationError:
    """Return the error for a bucket and prefix that contain, or are contained in, those of another server's policy."""
    return ConfigurationError(
        Reason.NAME_CONFLICT,
        f'The bucket and prefix in spec.artifacts.s3 overlap with those of the policy "{other_policy}" at '
        f"{admin.endpoint}, which belongs to another server, so the operator does not create a user. Choose another "
        "prefix or bucket. If the other server no longer exists, delete its user and its policy in the store.",
    )


def not_owned(admin: Admin, object_name: str) -> ConfigurationError:
    """Return the error for an existing object that cannot be identified as this server's, such as `user "a"`."""
    return ConfigurationError(
        Reason.NAME_CONFLICT,
        f"The {object_name} at {admin.endpoint} was not created for this server, so the operator does not modify it. "
        "Delete it there, or delete the server's Secret whose name ends in -artifacts, so that the operator generates "
        "another key.",
    )
