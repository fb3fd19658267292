"""Condition messages for errors of S3 stores and of the network: the cause, and what the user must do.

`location` is the store's location as text for messages.
"""

from typing import Protocol

from botocore.exceptions import ClientError

from mlflow_operator.clients import metadata_addresses
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_ENDPOINT = "spec.artifacts.s3.endpoint"


_TIMEOUT_ERROR_NAMES = ("ReadTimeout", "ConnectTimeout", "TimeoutError")
"""Parts of the class names of timeout errors in botocore, aiohttp and Python."""

_CONFIGURATION_ERRORS = (
    (
        (metadata_addresses.REFUSED,),
        (
            "has an address at which clouds serve credentials of their nodes, so the operator does not connect to it. "
            f"Use another host in {_ENDPOINT}"
        ),
    ),
    (
        ("ostname mismatch", "IP address mismatch", "doesn't match"),
        f"presents a certificate for another host. Use the host name in the certificate in {_ENDPOINT}",
    ),
    (
        ("CERTIFICATE_VERIFY_FAILED",),
        (
            "presents a certificate that is not trusted. Store the certificate of its CA in the Secret referenced by "
            "spec.artifacts.s3.tls.caSecretRef"
        ),
    ),
    (
        ("[SSL", "SSLError"),
        f"does not support TLS. Use http:// instead of https:// in {_ENDPOINT}, or enable TLS in the store",
    ),
)
"""Fragments of the error text, and predicate of the message. The first match applies."""


def timed_out(location: str) -> TransientError:
    """Return the error for a timeout. All timeouts have the same message, so that the condition does not change."""
    return TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {location} does not answer in time. Check that it runs, that it is not overloaded, and "
        "that the network allows connections from the operator's and the server's pods.",
    )


def response_too_large(location: str) -> TransientError:
    """Return the error for a response with more data than any valid one has."""
    return TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The service at {location} sends a larger response than an artifact store does. Check that {_ENDPOINT} is the "
        "address of the store.",
    )


def unreachable(error: BaseException, location: str, *, embedded: bool = False) -> ReconcileError:
    """Return the error for a request without a response.

    boto3's and aiohttp's errors contain the same texts of OpenSSL and of the resolver. `embedded`: the store belongs to
    the server, so the spec has no endpoint that a user could correct.
    """
    if any(fragment in type(error).__name__ for fragment in _TIMEOUT_ERROR_NAMES):
        return timed_out(location)
    error_text = f"{type(error).__name__} {error} {getattr(error, 'kwargs', {}).get('error', '')}"
    for fragments, predicate in _CONFIGURATION_ERRORS:
        if any(fragment in error_text for fragment in fragments):
            return ConfigurationError(
                Reason.ARTIFACT_STORE_UNREACHABLE, f"The artifact store at {location} {predicate}."
            )
    if any(fragment in error_text for fragment in ("DNSError", "NameResolutionError", "Failed to resolve")):
        return TransientError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {location} has a host name that does not resolve in this cluster. Check "
            f"{'the DNS of the cluster' if embedded else _ENDPOINT}.",
        )
    advice = (
        "Check that its pod runs, and that the network allows connections from the operator's and the server's pods."
        if embedded
        else "Check that it runs, that the network allows connections from the operator's and the server's pods, and "
        f"that {_ENDPOINT} is correct."
    )
    return TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE, f"The artifact store at {location} cannot be reached. {advice}"
    )


def from_any_request(error_code: str, status_code: int, location: str) -> ReconcileError | None:
    """Return the error for a response that any request to the store can get. None for all other responses."""
    if error_code == "RequestTimeTooSkewed":
        return ConfigurationError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The clocks of the store at {location} and of the operator's node differ by more than 15 minutes, so the "
            "store rejects all signatures. Synchronize both with NTP.",
        )
    if status_code == 400 and error_code in {"", "400"}:
        return ConfigurationError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The service at {location} rejects plain HTTP. Use https:// instead of http:// in {_ENDPOINT}, or correct "
            "its port.",
        )
    if status_code >= 500:
        return TransientError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {location} returns HTTP {status_code}. The operator retries shortly.",
        )
    return None


class BucketLocation(Protocol):
    """Properties of a bucket that appear in messages."""

    @property
    def name(self) -> str: ...
    @property
    def location(self) -> str: ...
    @property
    def key_source(self) -> str: ...
    @property
    def key_prefix(self) -> str: ...
    @property
    def region(self) -> str: ...


def from_client_error(
    error: ClientError, bucket: BucketLocation, action: str, setting: str
) -> ReconcileError:
    """Return the error for a response that rejects a request.

    `action` is the permission that the key needs for the request. `setting` is the member of spec.artifacts.s3 that
    requires the request, empty if none does.
    """
    code, status, location = error_code(error), http_status(error), bucket.location
    if status == 501 or code in _KMS_ERROR_CODES or code.startswith(("kms:", "KMS.")):
        return _unsupported_setting(code, bucket, setting)
    known_error = (
        from_any_request(code, status, location)
        or _credentials_error(code, bucket)
        or _bucket_error(code, status, bucket)
    )
    if known_error:
        return known_error
    if code in _UPLOAD_ERROR_CODES:
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f"The store at {location} rejects the checksum or the encoding of an upload ({code}). Check that no proxy "
            "in front of it changes requests, and that its version supports uploads of boto3.",
        )
    if status in {401, 403}:
        return _access_denied(bucket, action, setting)
    if status in {301, 307, 400}:
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The store at {location} rejects the request for the bucket "{bucket.name}" (HTTP {status}). '
            "Check spec.artifacts.s3.region, addressingStyle and the scheme of endpoint.",
        )
    return TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {location} returns HTTP {status}. The operator retries shortly.",
    )


def error_code(error: ClientError) -> str:
    """Return the S3 error code, such as NoSuchBucket."""
    return str(error.response.get("Error", {}).get("Code", ""))


def http_status(error: ClientError) -> int:
    """Return the HTTP status code."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


_UPLOAD_ERROR_CODES = {
    "BadDigest",
    "IncompleteBody",
    "InvalidDigest",
    "MissingContentLength",
    "MissingContentMD5",
    "XAmzContentSHA256Mismatch",
}
_KMS_ERROR_CODES = {"KMSNotConfigured", "InvalidEncryptionAlgorithmError"}


def _credentials_error(code: str, bucket: BucketLocation) -> ReconcileError | None:
    if code == "InvalidAccessKeyId":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f"The store at {bucket.location} does not know the access key in {bucket.key_source}, or the "
            "key is disabled. Correct it there.",
        )
    if code == "SignatureDoesNotMatch":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f"The store at {bucket.location} rejects the secret access key in {bucket.key_source}. "
            "Correct it there.",
        )
    return None


def _bucket_error(code: str, status: int, bucket: BucketLocation) -> ReconcileError | None:
    if code in {"BucketAlreadyOwnedByYou", "OperationAborted"}:
        return TransientError(Reason.PROGRESSING, f'The bucket "{bucket.name}" is being created.')
    if code == "BucketAlreadyExists" or status == 409:
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The bucket "{bucket.name}" at {bucket.location} belongs to another account. '
            "Choose another name in spec.artifacts.s3.bucket.",
        )
    return None


_ENCRYPTION_HINT = (
    " If a policy of the bucket requires encryption headers, specify them in spec.artifacts.s3.encryption."
)


def _access_denied(bucket: BucketLocation, action: str, setting: str) -> ReconcileError:
    scope = (
        f'under "{bucket.key_prefix}" in the bucket "{bucket.name}"'
        if bucket.key_prefix
        else f'in the bucket "{bucket.name}"'
    )
    key = f"the key in {bucket.key_source}"
    if setting:
        return ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The store at {bucket.location} does not allow {key} to set the {setting} of the bucket "{bucket.name}". '
            f"Grant it {action}, or set it yourself and remove spec.artifacts.s3.{setting}.",
        )
    if action == "s3:ListBucket":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f"The store at {bucket.location} does not allow {key} to list objects {scope}: it lacks {action}, or the "
            "bucket belongs to another account. Grant it, or choose another bucket in spec.artifacts.s3.bucket.",
        )
    if action == "s3:CreateBucket":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The bucket "{bucket.name}" does not exist at {bucket.location}, and {key} is not allowed to create it. '
            f"Create the bucket, or grant {action}.",
        )
    return ConfigurationError(
        Reason.BUCKET_ACCESS_DENIED,
        f"The store at {bucket.location} does not grant {key} all permissions that MLflow needs {scope}. "
        f"Grant it {action}.{_ENCRYPTION_HINT if action == 's3:PutObject' else ''}",
    )


def _unsupported_setting(code: str, bucket: BucketLocation, setting: str) -> ReconcileError:
    if setting == "encryption":
        return ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The store at {bucket.location} cannot encrypt the bucket "{bucket.name}" as configured in '
            "spec.artifacts.s3.encryption: it has no key management service (KMS), or no such key in it. Configure a "
            "KMS in the store, or correct kmsKeyID.",
        )
    if setting:
        return ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f"The store at {bucket.location} does not support the {setting} of buckets. Remove "
            f"spec.artifacts.s3.{setting}.",
        )
    return ConfigurationError(
        Reason.BUCKET_ACCESS_DENIED,
        f"The store at {bucket.location} does not support a feature that MLflow needs ({code}). Use another store.",
    )
