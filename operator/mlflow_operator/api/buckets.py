"""Validation of S3 bucket names, prefixes and endpoints, and of artifact URIs."""

import re
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import Rule, matches, string_rule

FORBIDDEN_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
FORBIDDEN_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_IPV4_PATTERN = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+"
_FORBIDDEN_PATTERN = (
    f"^({'|'.join(FORBIDDEN_PREFIXES)})|({'|'.join(s.replace('.', '[.]') for s in FORBIDDEN_SUFFIXES)})$"
)

BucketName = Annotated[
    str,
    # The limit of S3 is 63. The schema allows more, so that the user gets the message of the rule below.
    Field(max_length=255),
    string_rule(
        "self.size() >= 3 && self.size() <= 63",
        "is not a valid bucket name: use 3 to 63 characters",
        lambda name: 3 <= len(name) <= 63,
    ),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "is not a valid bucket name: use lower-case letters, digits, '-' and '.', begin and end with a letter or "
        "digit, and do not include s3:// or a path, which belongs in prefix",
    ),
    string_rule(
        f"!self.matches('^{_IPV4_PATTERN}$')".replace("\\", "\\\\"),
        "is not a valid bucket name: it must not look like an IP address",
        lambda name: re.fullmatch(_IPV4_PATTERN, name) is None,
    ),
    string_rule(
        f"!self.matches('{_FORBIDDEN_PATTERN}')",
        "is not a valid bucket name: it must not begin or end with a prefix or suffix that AWS reserves "
        f"({', '.join(FORBIDDEN_PREFIXES + FORBIDDEN_SUFFIXES)})",
        lambda name: re.search(_FORBIDDEN_PATTERN, name) is None,
    ),
]

Prefix = Annotated[
    str,
    Field(max_length=512),
    matches(
        r"[A-Za-z0-9_][A-Za-z0-9_.=@-]*(/[A-Za-z0-9_][A-Za-z0-9_.=@-]*)*",
        "is not a valid prefix: use letters, digits and _ . = @ - in segments that are separated by '/', such as "
        "team-a/mlflow, without a '/' at the beginning or end",
    ),
]

Endpoint = Annotated[
    str,
    Field(max_length=512),
    matches(
        r"https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?",
        "is not a valid endpoint: use http:// or https:// with a host and an optional port, without a path or a '/' at "
        "the end, such as https://minio.example.com:9000, and set the bucket in bucket",
        sensitive=True,
    ),
]

Region = Annotated[
    str,
    Field(max_length=64),
    matches(r"[A-Za-z0-9][A-Za-z0-9_-]*", "is not a valid region: use a name such as us-east-1"),
]

UnmanagedURI = Annotated[
    str,
    Field(max_length=1024),
    Rule(
        "!self.startsWith('s3:')",
        "spec.artifacts.external.uri must not be an S3 URI: set bucket and prefix in spec.artifacts.s3, where the "
        "operator checks the access key and creates the bucket",
        holds=lambda uri: not uri.startswith("s3:"),
    ),
    Rule(
        "!self.matches('^(file:|/|https?:|runs:|models:|mlflow-artifacts:)')",
        "spec.artifacts.external.uri must not be a directory, which is lost with its pod, or the URI of an MLflow "
        "server: use spec.artifacts.embedded, which has a volume, or a store that all pods can reach",
        holds=lambda uri: re.match(r"(file:|/|https?:|runs:|models:|mlflow-artifacts:)", uri) is None,
    ),
    matches(
        r"[a-z][a-z0-9+.-]*:(//([A-Za-z0-9._-]+@)?[A-Za-z0-9._-]+(:[0-9]{1,5})?)?(/[A-Za-z0-9_.=@-]+)*",
        "is not a valid artifact URI: use a URI such as gs://bucket/path or "
        "wasbs://container@account.blob.core.windows.net/path, without credentials and without a '/' at the end",
        sensitive=True,
    ),
]
