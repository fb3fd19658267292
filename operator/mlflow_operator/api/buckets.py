"""What S3 takes as a bucket, a prefix and an address."""

import re
from typing import Annotated

from pydantic import Field

from mlflow_operator.api.rules import Rule, matches, text

FORBIDDEN_PREFIXES = ("xn--", "sthree-", "amzn-s3-demo-")
FORBIDDEN_SUFFIXES = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")
_IPV4 = r"[0-9]+\.[0-9]+\.[0-9]+\.[0-9]+"
_RESERVED = (
    f"^({'|'.join(FORBIDDEN_PREFIXES)})|({'|'.join(s.replace('.', '[.]') for s in FORBIDDEN_SUFFIXES)})$"
)

BucketName = Annotated[
    str,
    # S3 stops at 63: the schema takes more so that the sentence below is what the user reads.
    Field(max_length=255),
    text(
        "self.size() >= 3 && self.size() <= 63",
        "is no name S3 takes for a bucket: it must have 3 to 63 characters",
        lambda name: 3 <= len(name) <= 63,
    ),
    matches(
        r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*",
        "is no name S3 takes for a bucket: use lower-case letters, digits and '-', begin and end with a "
        "letter or digit (no s3://, no path: what follows the bucket goes to prefix)",
    ),
    text(
        f"!self.matches('^{_IPV4}$')".replace("\\", "\\\\"),
        "is no name S3 takes for a bucket: it looks like an IP address",
        lambda name: re.fullmatch(_IPV4, name) is None,
    ),
    text(
        f"!self.matches('{_RESERVED}')",
        "is no name S3 takes for a bucket: it begins or ends like the names AWS keeps for itself "
        f"({', '.join(FORBIDDEN_PREFIXES + FORBIDDEN_SUFFIXES)})",
        lambda name: re.search(_RESERVED, name) is None,
    ),
]

Prefix = Annotated[
    str,
    Field(max_length=512),
    matches(
        r"[A-Za-z0-9_][A-Za-z0-9_.=@-]*(/[A-Za-z0-9_][A-Za-z0-9_.=@-]*)*",
        "is no prefix: write folders such as team-a/mlflow, of letters, digits and _ . = @ -, "
        "without a '/' at the begin or end",
    ),
]

Endpoint = Annotated[
    str,
    Field(max_length=512),
    matches(
        r"https?://([A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(:[0-9]{1,5})?",
        "is no address of a store: write http:// or https://, the host and the port, and nothing after it, "
        "such as https://minio.example.com:9000",
        secret=True,
    ),
]

Region = Annotated[
    str,
    Field(max_length=64),
    matches(r"[A-Za-z0-9][A-Za-z0-9_-]*", "is no region: write it as us-east-1"),
]

UnmanagedURI = Annotated[
    str,
    Field(max_length=1024),
    Rule(
        "!self.startsWith('s3:')",
        "an S3 store goes to spec.artifacts.s3, where its key is checked and its bucket made: write bucket and "
        "prefix there instead of external.uri",
        holds=lambda uri: not uri.startswith("s3:"),
    ),
    Rule(
        "!self.matches('^(file:|/|https?:|runs:|models:|mlflow-artifacts:)')",
        "MLflow's pods can't keep artifacts there: a folder goes with its pod, and an MLflow server is no store. Use "
        "spec.artifacts.embedded, which has a volume, or a store that all pods reach",
        holds=lambda uri: re.match(r"(file:|/|https?:|runs:|models:|mlflow-artifacts:)", uri) is None,
    ),
    matches(
        r"[a-z][a-z0-9+.-]*:(//([A-Za-z0-9._-]+@)?[A-Za-z0-9._-]+(:[0-9]{1,5})?)?(/[A-Za-z0-9_.=@-]+)*",
        "is no address of a store: write it as gs://bucket/path or "
        "wasbs://container@account.blob.core.windows.net/path, without a key in it and without a '/' at the end",
        secret=True,
    ),
]
