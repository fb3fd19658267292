"""Stores that know neither checksums in trailers nor CRCs: Ceph RGW, Google Cloud Storage, OSS and older releases."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlflow_operator.clients.s3.client import Bucket, ObjectStores
from mlflow_operator.model.server import BucketSettings
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.unit.clients.s3.conftest import StartServer

UPLOAD = "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"
VERSIONS = "<ListVersionsResult><Version><Key>a</Key><VersionId>1</VersionId></Version></ListVersionsResult>"
KMS = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "tracking"}
KMS_HEADERS = {
    "x-amz-server-side-encryption": "aws:kms",
    "x-amz-server-side-encryption-aws-kms-key-id": "tracking",
}


@dataclass
class OlderStore:
    """A store with one object. `uploads`: number of unfinished uploads. `requires_kms`: policy of the bucket.

    `drops_bodies`: it ends the connection of an upload without a response, like some proxies.
    """

    requires_kms: bool = False
    rejects_bodies: bool = False
    drops_bodies: bool = False
    uploads: int = 0
    bodies: list[bytes] = field(default_factory=list)
    deleted: bool = False

    async def respond(self, request: web.Request) -> web.Response:
        """Answer like such a store."""
        body = await request.read()
        rejection = self._rejection(request)
        if rejection:
            return rejection
        text = ""
        if "uploads" in request.query:
            self.uploads, text = self.uploads + 1, UPLOAD
        elif request.method == "DELETE":
            self.uploads -= 1
        elif request.method == "PUT":
            if self.drops_bodies and request.transport:
                request.transport.close()
            self.bodies.append(body)
        elif "delete" in request.query:
            self.deleted, text = True, "<DeleteResult/>"
        elif "versions" in request.query and not self.deleted:
            text = VERSIONS
        return web.Response(text=text, content_type="application/xml", headers={"ETag": '"e"'})

    def _rejection(self, request: web.Request) -> web.Response | None:
        names = {name.lower() for name in request.headers}
        if any(name.startswith(("x-amz-checksum", "x-amz-trailer", "x-amz-sdk-checksum")) for name in names):
            return _error(400, "InvalidArgument")
        needs_md5 = {"delete", "lifecycle", "encryption", "versioning"} & set(request.query)
        if request.method in {"POST", "PUT"} and needs_md5 and "content-md5" not in names:
            return _error(400, "InvalidRequest")
        creates = (request.method == "POST" and "uploads" in request.query) or (
            request.method == "PUT" and "partNumber" not in request.query and not needs_md5
        )
        if creates and self.requires_kms and not KMS_HEADERS.items() <= dict(request.headers).items():
            return _error(403, "AccessDenied")
        if request.method == "PUT" and self.rejects_bodies:
            return _error(400, "XAmzContentSHA256Mismatch")
        return None


def _error(status: int, code: str) -> web.Response:
    return web.Response(
        status=status, text=f"<Error><Code>{code}</Code></Error>", content_type="application/xml"
    )


@pytest.fixture(scope="module")
def stores() -> Iterator[ObjectStores]:
    """The operator's client."""
    stores = ObjectStores()
    yield stores
    stores.close()


async def bucket_in(store: OlderStore, start_server: StartServer) -> Bucket:
    """A bucket in the store."""
    endpoint = await start_server(store.respond)
    return Bucket(endpoint, "us-east-1", "models", "path", "key", "hunter2", None, "spec.artifacts.s3")


async def test_check_uploads_data_and_leaves_nothing(stores: ObjectStores, start_server: StartServer) -> None:
    """A check without a body succeeds on stores that then reject each artifact."""
    store = OlderStore()
    await stores.check_access(await bucket_in(store, start_server))
    assert store.bodies
    assert store.uploads == 0


async def test_rejected_data_is_reported_and_the_upload_is_aborted(
    stores: ObjectStores, start_server: StartServer
) -> None:
    store = OlderStore(rejects_bodies=True)
    with pytest.raises(ConfigurationError) as error:
        await stores.check_access(await bucket_in(store, start_server))
    assert error.value.reason is Reason.BUCKET_ACCESS_DENIED
    assert "checksum or the encoding of an upload (XAmzContentSHA256Mismatch)" in error.value.message
    assert store.uploads == 0


async def test_upload_is_aborted_after_a_lost_connection(
    stores: ObjectStores, start_server: StartServer
) -> None:
    store = OlderStore(drops_bodies=True)
    with pytest.raises(TransientError) as error:
        await stores.check_access(await bucket_in(store, start_server))
    assert error.value.reason is Reason.ARTIFACT_STORE_UNREACHABLE
    assert store.bodies
    assert store.uploads == 0


async def test_objects_are_deleted_and_settings_written(
    stores: ObjectStores, start_server: StartServer
) -> None:
    """These requests need a digest of their body; such stores know only Content-MD5."""
    store = OlderStore()
    bucket = await bucket_in(store, start_server)
    settings = BucketSettings(versioned=True, encryption="AES256", lifecycle=True, noncurrent_days=1)
    rule = {
        "ID": "r",
        "Status": "Enabled",
        "Filter": {"Prefix": ""},
        "NoncurrentVersionExpiration": {"NoncurrentDays": 1},
    }
    await stores.apply_settings(bucket, settings, "r", rule)
    assert len(store.bodies) == 3
    await stores.delete_objects(bucket)
    assert store.deleted


async def test_check_and_marker_send_the_encryption_headers(
    stores: ObjectStores, start_server: StartServer
) -> None:
    """A policy of the bucket may reject uploads without them."""
    store = OlderStore(requires_kms=True)
    bucket = await bucket_in(store, start_server)
    with pytest.raises(ConfigurationError) as error:
        await stores.check_access(bucket)
    assert "spec.artifacts.s3.encryption" in error.value.message
    encrypted = replace(
        bucket, upload_arguments=json.dumps({**KMS, "StorageClass": "STANDARD", "Unknown": 1})
    )
    await stores.check_access(encrypted)
    await stores.write_marker(encrypted, "owner")
    assert b"owner" in store.bodies


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda values: st.lists(values, max_size=2) | st.dictionaries(st.text(), values, max_size=2),
    max_leaves=4,
)
NAMES = (
    "ServerSideEncryption",
    "SSECustomerKey",
    "Metadata",
    "BucketKeyEnabled",
    "Expires",
    "ContentLength",
    "Bucket",
    "Body",
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(arguments=st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, max_size=2))
async def test_arguments_of_any_type_are_sent_or_reported(
    stores: ObjectStores, start_server: StartServer, arguments: dict[str, object]
) -> None:
    """An exception of botocore, such as a TypeError for an encryption key that is a number, has no condition."""
    bucket = await bucket_in(OlderStore(), start_server)
    try:
        await stores.check_access(replace(bucket, upload_arguments=json.dumps(arguments)))
    except ConfigurationError as error:
        assert error.reason is Reason.INVALID_RESOURCE  # noqa: PT017 - valid arguments are accepted
        assert re.match(r"MLFLOW_S3_UPLOAD_EXTRA_ARGS in spec\.env sets \w+(,| to a value) ", error.message)  # noqa: PT017


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (
            {"ServerSideEncryption": ["aws:kms"]},
            "sets ServerSideEncryption to a value that is not a text of printable",
        ),
        (
            {"SSECustomerKey": 12345},
            "sets SSECustomerKey to a value that is not a text of printable characters",
        ),
        (
            {"Metadata": {"team": {"a": 1}}},
            "sets Metadata to a value that is not an object whose values are texts",
        ),
        ({"Expires": 10**30}, "sets Expires to a value that is not a time, so all uploads of MLflow fail"),
        ({"Key": "own"}, "sets Key, which MLflow itself sets for each upload, so all uploads"),
    ],
    ids=["list", "number", "nested", "time", "reserved"],
)
async def test_invalid_argument_is_reported_with_its_name_and_without_its_value(
    stores: ObjectStores, start_server: StartServer, arguments: dict[str, object], fault: str
) -> None:
    """The store gets no request."""
    store = OlderStore()
    bucket = replace(await bucket_in(store, start_server), upload_arguments=json.dumps(arguments))
    for call in (stores.check_access(bucket), stores.write_marker(bucket, "owner")):
        with pytest.raises(ConfigurationError, match=re.escape(fault)) as error:
            await call
        assert "12345" not in error.value.message
    assert not store.bodies
    assert store.uploads == 0
