"""Send Content-MD5 with requests whose body S3 requires to be protected, instead of the newer checksums of boto3.

Since version 1.36, boto3 sends a CRC there. Stores other than AWS that do not know it reject these requests, such as
DeleteObjects, because they still require Content-MD5. Stores that know the CRC also accept Content-MD5.
"""

import base64
import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

_OPERATIONS = (
    "DeleteObjects",
    "PutBucketEncryption",
    "PutBucketLifecycleConfiguration",
    "PutBucketVersioning",
)


def register(client: "S3Client") -> None:
    """Make `client` send Content-MD5."""
    for operation in _OPERATIONS:
        client.meta.events.register(f"before-sign.s3.{operation}", _replace_checksum)


def _replace_checksum(request: Any, **_: Any) -> None:
    for name in [
        name for name in request.headers if name.lower().startswith(("x-amz-checksum-", "x-amz-sdk-"))
    ]:
        del request.headers[name]
    body = request.data if isinstance(request.data, bytes | bytearray) else str(request.data).encode()
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    del request.headers["Content-MD5"]
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()
