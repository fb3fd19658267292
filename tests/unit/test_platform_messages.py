"""Messages about a platform's stores: users of a server learn which platform it is, and whom to ask."""

import re
from typing import Any

import psycopg
import pytest
from botocore.exceptions import ClientError

from mlflow_operator.clients.postgres import errors as postgres_errors
from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.clients.s3 import minio_errors
from mlflow_operator.clients.s3.client import Bucket
from mlflow_operator.clients.s3.minio_api import AdminResponse
from mlflow_operator.clients.s3.signed_request import AccessKey, Admin
from mlflow_operator.framework.platform_errors import with_platform
from mlflow_operator.model.platform import Part
from mlflow_operator.model.server import PlatformOrigin
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, ReconcileError
from tests.unit.platform_simulation import PLATFORM, PlatformSimulation
from tests.unit.simulation import NAME

ENDPOINT = "https://minio.mlflow-platform.svc:9000"
FIELD = f"MLflowPlatform {PLATFORM}, spec.artifacts.s3.adminSecretRef"
BUCKET = Bucket(
    ENDPOINT, "us-east-1", "mlflow", "auto", "key", "secret", None, FIELD, "team/a", "", "a-artifacts"
)
ADMIN = Admin(ENDPOINT, AccessKey("root", "secret"), None, f"the Secret referenced by {FIELD}")
ORIGIN = PlatformOrigin(PLATFORM, "uid")
FIELD_OF_A_SERVER = re.compile(rf"(?<!MLflowPlatform {PLATFORM}, )spec\.(?!env\b|adoptions\b)")


def response(status: int, code: str, action: str = "", setting: str = "") -> ReconcileError:
    """The error for a response of S3."""
    body: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return s3_errors.from_client_error(ClientError(body, "Operation"), BUCKET, action, setting)


STORE_ERRORS: list[ReconcileError] = [
    s3_errors.timed_out(ENDPOINT),
    s3_errors.response_too_large(ENDPOINT),
    *(
        s3_errors.unreachable(Exception(text), ENDPOINT)
        for text in ("IP address mismatch", "CERTIFICATE_VERIFY_FAILED", "[SSL", "DNSError", "refused")
    ),
    *(
        response(*arguments)
        for arguments in (
            (403, "RequestTimeTooSkewed"),
            (400, ""),
            (503, "SlowDown"),
            (403, "InvalidAccessKeyId"),
            (403, "SignatureDoesNotMatch"),
            (409, "BucketAlreadyExists"),
            (400, "BadDigest"),
            (403, "AccessDenied", "s3:ListBucket"),
            (403, "AccessDenied", "s3:CreateBucket"),
            (403, "AccessDenied", "s3:PutObject"),
            (403, "AccessDenied", "s3:PutBucketVersioning", "versioning"),
            (501, "NotImplemented", "", "lifecycle"),
            (501, "KMSNotConfigured", "", "encryption"),
            (501, "NotImplemented"),
            (301, "PermanentRedirect"),
            (404, "Strange"),
        )
    ),
    *(
        minio_errors.from_response(ADMIN, AdminResponse(status, code))
        for status, code in (
            (403, "InvalidAccessKeyId"),
            (403, "SignatureDoesNotMatch"),
            (403, "AccessDenied"),
            (404, "XMinioStrange"),
            (404, ""),
        )
    ),
    minio_errors.policy_overlap(ADMIN, "mlflow-operator.team.b"),
    minio_errors.not_owned(ADMIN, 'user "x"'),
]
"""The errors of the clients of an artifact store."""


@pytest.mark.parametrize("error", STORE_ERRORS, ids=lambda error: error.message[:60])
async def test_error_of_the_artifact_store_names_the_platform(error: ReconcileError) -> None:
    simulation = PlatformSimulation()
    simulation.minio.error = error
    await simulation.reconcile()
    _, reason, message = simulation.condition("ArtifactStoreReady")
    assert reason == error.reason
    check(message)


DATABASE_ERRORS = [
    *(
        postgres_errors.from_psycopg(
            psycopg.OperationalError(fragment),
            "postgres.mlflow-platform.svc:5432",
            f"MLflowPlatform {PLATFORM}, spec.database.postgres{reference}",
        )
        for fragment in (*(entry[0] for entry in postgres_errors._LIBPQ_ERRORS), "something else")
        for reference in ("", ".adminSecretRef")
        if "password authentication" not in fragment
    ),
    postgres_errors.no_answer("postgres.mlflow-platform.svc:5432"),
    postgres_errors.too_many_iterations("postgres.mlflow-platform.svc:5432"),
]
"""The errors of the clients of a database."""


@pytest.mark.parametrize("error", DATABASE_ERRORS, ids=lambda error: error.message[:80])
async def test_error_of_the_database_names_the_platform(error: ReconcileError) -> None:
    simulation = PlatformSimulation()
    simulation.postgres.error = error
    await simulation.reconcile()
    check(simulation.condition("DatabaseReady")[2])


def check(message: str) -> None:
    """The message names no field of the server's own spec, and says whom to ask."""
    assert not FIELD_OF_A_SERVER.search(message), message
    assert f'MLflowPlatform "{PLATFORM}": ask its administrator.' in message
    assert "server's user" not in message


@pytest.mark.parametrize("secret", ["postgres-admin", "minio-admin", "ca"])
@pytest.mark.parametrize("values", [None, {"other": "x"}, {}], ids=["missing", "without its keys", "empty"])
async def test_wrong_secret_of_the_platform_says_whom_to_ask(
    secret: str, values: dict[str, str] | None
) -> None:
    simulation = PlatformSimulation()
    if values is None:
        del simulation.api.objects["Secret", secret]
    else:
        simulation.put_platform_secret(secret, **values)
    await simulation.reconcile()
    check(simulation.condition("Ready")[2])


async def test_rejected_key_of_the_server_is_not_that_of_the_administrator() -> None:
    simulation = PlatformSimulation()
    await simulation.reconcile()
    own, *_ = [bucket for bucket in simulation.minio.checked_buckets if bucket.access_key != "root"]
    admin, *_ = [bucket for bucket in simulation.minio.checked_buckets if bucket.access_key == "root"]
    assert own.key_source == f'Secret "{NAME}-artifacts"'
    assert admin.key_source == f"the Secret referenced by {FIELD}"


@pytest.mark.parametrize("break_store", ["postgres_admin", "minio"])
async def test_failed_deletion_says_whom_to_ask(break_store: str) -> None:
    simulation = PlatformSimulation({"deletionPolicy": "Delete"})
    await simulation.reconcile_until_ready()
    if break_store == "minio":
        del simulation.api.objects["Secret", "minio-admin"]
    else:
        simulation.admin.error = postgres_errors.no_answer("postgres.mlflow-platform.svc:5432")
    simulation.delete_server()
    for _ in range(4):
        await simulation.reconcile()
        simulation.run_controllers()
    status, reason, message = simulation.condition("Ready")
    assert (status, reason) == ("False", Reason.DELETION_BLOCKED)
    assert f'MLflowPlatform "{PLATFORM}": ask its administrator.' in message


@pytest.mark.parametrize("stores", ["postgres-admin", "minio-admin"])
async def test_rotation_that_waits_says_whom_to_ask(stores: str) -> None:
    simulation = PlatformSimulation()
    await simulation.reconcile_until_ready()
    del simulation.api.objects["Secret", stores]
    simulation.now = "2026-02-01T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-01-15T00:00:00Z")
    await simulation.reconcile()
    message = simulation.condition("CredentialsReady")[2]
    assert f'MLflowPlatform "{PLATFORM}": ask its administrator.' in message
    assert "the current credentials stay in use" in message


async def test_failed_change_of_a_running_server_says_whom_to_ask() -> None:
    simulation = PlatformSimulation()
    await simulation.reconcile_until_ready()
    del simulation.api.objects["Secret", "minio-admin"]
    await simulation.reconcile()
    status, _, message = simulation.condition("ArtifactStoreReady")
    assert status == "True"
    check(message)


@pytest.mark.parametrize(
    ("reason", "message"),
    [
        (Reason.INVALID_RESOURCE, "MLFLOW_S3_UPLOAD_EXTRA_ARGS in spec.env is wrong."),
        (Reason.PROGRESSING, 'The bucket "mlflow" is being created.'),
        (Reason.ADOPTION_REQUIRED, f'Ask for an entry in spec.adoptions of MLflowPlatform "{PLATFORM}".'),
    ],
)
def test_message_that_says_what_to_do_is_not_changed(reason: Reason, message: str) -> None:
    assert with_platform(ConfigurationError(reason, message), ORIGIN, Part.ARTIFACTS).message == message
