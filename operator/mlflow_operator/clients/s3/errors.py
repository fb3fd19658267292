"""What stores and the network to them say, in our own words and with the way out. `place` is for people."""

from typing import Protocol

from botocore.exceptions import ClientError

from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError, TransientError

_ENDPOINT = "spec.artifacts.s3.endpoint"


_TIME_IS_UP = ("ReadTimeout", "ConnectTimeout", "TimeoutError")
"""In the names of errors: botocore's, aiohttp's and Python's own."""


def silent(place: str) -> TransientError:
    """No answer in time, whosever time it was: another sentence each time would be news each time."""
    return TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {place} does not answer in time. Check that it runs, that it is not overloaded, and "
        "that the network lets the operator's and the server's pods through.",
    )


def unreachable(error: BaseException, place: str) -> ReconcileError:
    """No answer at all. The words of OpenSSL and of the resolver are the same in boto3's errors and in aiohttp's."""
    if any(words in type(error).__name__ for words in _TIME_IS_UP):
        return silent(place)
    said = f"{type(error).__name__} {error} {getattr(error, 'kwargs', {}).get('error', '')}"
    if any(words in said for words in ("ostname mismatch", "IP address mismatch", "doesn't match")):
        return ConfigurationError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} shows a certificate that is made out for another host. Name the store in "
            f"{_ENDPOINT} by the host in its certificate.",
        )
    if "CERTIFICATE_VERIFY_FAILED" in said:
        return ConfigurationError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} shows a certificate that is not trusted. Put its authority into the Secret "
            "that spec.artifacts.s3.tls.caSecretRef names.",
        )
    if "[SSL" in said or "SSLError" in said:
        return ConfigurationError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} speaks no TLS. Write http:// instead of https:// in {_ENDPOINT}, or turn "
            "TLS on there.",
        )
    if any(words in said for words in ("DNSError", "NameResolutionError", "Failed to resolve")):
        return TransientError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} has a name that does not resolve in this cluster. Check {_ENDPOINT}.",
        )
    return TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {place} can't be reached. Check that it runs, that the network lets the operator's and "
        f"the server's pods through, and that {_ENDPOINT} is right.",
    )


def common(code: str, status: int, place: str) -> ReconcileError | None:
    """What a store says to whoever asks, whatever it is asked; None where it depends."""
    if code == "RequestTimeTooSkewed":
        return ConfigurationError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The clocks of the store at {place} and of the operator's node differ by more than 15 minutes, so that it "
            "takes no signature. Set both by NTP.",
        )
    if status == 400 and code in {"", "400"}:
        return ConfigurationError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"What answers at {place} refuses plain HTTP. Write https:// instead of http:// in {_ENDPOINT}, or correct "
            "its port.",
        )
    if status >= 500:
        return TransientError(
            Reason.ARTIFACT_STORE_UNREACHABLE,
            f"The artifact store at {place} answers HTTP {status}. It is asked again shortly.",
        )
    return None


class Place(Protocol):
    """A bucket, as far as sentences about it need it."""

    @property
    def name(self) -> str: ...
    @property
    def place(self) -> str: ...
    @property
    def field(self) -> str: ...
    @property
    def folder(self) -> str: ...
    @property
    def region(self) -> str: ...


def from_client_error(error: ClientError, bucket: Place, action: str, setting: str) -> ReconcileError:
    """Why a store does not do what it is asked. `action` is what the key must be allowed for that, `setting` the member
    of spec.artifacts.s3 that asks for it, if one does."""
    said, number, place = code(error), status(error), bucket.place
    if number == 501 or said in _KMS or said.startswith(("kms:", "KMS.")):
        return _unknown_setting(said, bucket, setting)
    found = common(said, number, place) or _of_key(said, bucket) or _of_bucket(said, number, bucket)
    if found:
        return found
    if number in {401, 403}:
        return _denied(bucket, action, setting)
    if number in {301, 307, 400}:
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The store at {place} refuses the request for the bucket "{bucket.name}" (HTTP {number}). '
            "Check spec.artifacts.s3.region, addressingStyle, and that endpoint has the right scheme.",
        )
    return TransientError(
        Reason.ARTIFACT_STORE_UNREACHABLE,
        f"The artifact store at {place} answers HTTP {number}. It is asked again shortly.",
    )


def code(error: ClientError) -> str:
    """The store's own word."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status(error: ClientError) -> int:
    """Of HTTP."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


_KMS = {"KMSNotConfigured", "InvalidEncryptionAlgorithmError"}


def _of_key(said: str, bucket: Place) -> ReconcileError | None:
    if said == "InvalidAccessKeyId":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f"The store at {bucket.place} does not know the access key in the Secret that {bucket.field} names, or has "
            "disabled it. Put the right one there.",
        )
    if said == "SignatureDoesNotMatch":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f"The store at {bucket.place} refuses the secret access key in the Secret that {bucket.field} names. Put "
            "the right one there.",
        )
    return None


def _of_bucket(said: str, number: int, bucket: Place) -> ReconcileError | None:
    if said in {"BucketAlreadyOwnedByYou", "OperationAborted"}:
        return TransientError(Reason.PROGRESSING, f'The bucket "{bucket.name}" is being made.')
    if said == "BucketAlreadyExists" or number == 409:
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The bucket "{bucket.name}" at {bucket.place} belongs to another account. '
            "Choose another name in spec.artifacts.s3.bucket.",
        )
    return None


def _denied(bucket: Place, action: str, setting: str) -> ReconcileError:
    where = (
        f'under "{bucket.folder}" in the bucket "{bucket.name}"'
        if bucket.folder
        else f'in the bucket "{bucket.name}"'
    )
    key = f"the key in the Secret that {bucket.field} names"
    if setting:
        return ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The store at {bucket.place} lets {key} not set the {setting} of the bucket "{bucket.name}". Allow it '
            f"{action}; or set it yourself, and take spec.artifacts.s3.{setting} away.",
        )
    if action == "s3:ListBucket":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f"The store at {bucket.place} lets {key} not list what is {where}: it is not allowed {action}, or the "
            "bucket belongs to another account. Allow it, or choose another bucket in spec.artifacts.s3.bucket.",
        )
    if action == "s3:CreateBucket":
        return ConfigurationError(
            Reason.BUCKET_ACCESS_DENIED,
            f'The bucket "{bucket.name}" does not exist at {bucket.place}, and {key} may not make it. Create it, or '
            f"allow {action}.",
        )
    return ConfigurationError(
        Reason.BUCKET_ACCESS_DENIED,
        f"The store at {bucket.place} lets {key} not do all that MLflow does {where}. Allow it {action}.",
    )


def _unknown_setting(said: str, bucket: Place, setting: str) -> ReconcileError:
    if setting == "encryption":
        return ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f'The store at {bucket.place} can\'t encrypt the bucket "{bucket.name}" as spec.artifacts.s3.encryption '
            "asks: it has no key management, or no such key there. Give it one, or correct kmsKeyID.",
        )
    if setting:
        return ConfigurationError(
            Reason.BUCKET_SETTINGS_REFUSED,
            f"The store at {bucket.place} knows no {setting} of buckets. Take spec.artifacts.s3.{setting} away.",
        )
    return ConfigurationError(
        Reason.BUCKET_ACCESS_DENIED,
        f"The store at {bucket.place} can't do what MLflow needs of it ({said}). Use another store.",
    )
