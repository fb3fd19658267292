"""Stores that know neither checksums in trailers nor CRCs: Ceph RGW, Google Cloud Storage, OSS and older releases."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from aiohttp import web

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
