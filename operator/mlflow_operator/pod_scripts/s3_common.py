"""Adapt the requests of all S3 clients in this process. It is put in front of the code of an artifact repository."""

import base64
import hashlib
import json
import os

import boto3

UPLOAD_ARGUMENTS_VARIABLE = "MLFLOW_S3_UPLOAD_EXTRA_ARGS"


def send_content_md5(request, **_):
    """Send Content-MD5 instead of the newer checksums of boto3, which stores other than AWS may not know.

    DeleteObjects requires one of them.
    """
    if not os.environ.get("MLFLOW_S3_ENDPOINT_URL"):
        return
    for name in list(request.headers):
        if name.lower().startswith(("x-amz-checksum-", "x-amz-sdk-")):
            del request.headers[name]
    body = request.data if isinstance(request.data, (bytes, bytearray)) else str(request.data).encode()
    del request.headers["Content-MD5"]
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    request.headers["Content-MD5"] = base64.b64encode(digest).decode()


def add_upload_arguments(params, model, **_):
    """Add the arguments for uploads, such as encryption headers, to a multipart upload that MLflow presigns.

    MLflow itself sends them with all other uploads.
    """
    arguments = json.loads(os.environ.get(UPLOAD_ARGUMENTS_VARIABLE) or "{}")
    supported = model.input_shape.members
    return {name: value for name, value in arguments.items() if name in supported} | params


def configure_s3_clients():
    """Register the functions above for all clients of boto3's default session, which MLflow uses."""
    if boto3.DEFAULT_SESSION is None:
        boto3.setup_default_session()
    events = boto3.DEFAULT_SESSION.events
    events.register("before-sign.s3.DeleteObjects", send_content_md5, "mlflow-operator-md5")
    event = "provide-client-params.s3.CreateMultipartUpload"
    events.register(event, add_upload_arguments, "mlflow-operator-upload-arguments")
