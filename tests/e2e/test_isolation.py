"""Two servers in two namespaces: neither sees the other's work, and neither opens the other's doors."""

import json

import pytest

from mlflow_operator.core.database_uri import DIALECT
from tests.e2e.kube import CommandError, Kube
from tests.e2e.scientist import Scientist
from tests.e2e.server import Server, small

TAKE = "import json, os, sys; os.environ.update(json.load(sys.stdin))\n"
LOGIN = "import os, psycopg; psycopg.connect(os.environ['URI'], connect_timeout=10).execute('select 1'); print('in')"
KNOCK = """
import boto3, os, botocore
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"], aws_access_key_id=os.environ["KEY"],
    aws_secret_access_key=os.environ["SECRET"], region_name="us-east-1", config=Config(retries={"max_attempts": 1}))
try:
    print("in", len(s3.list_objects_v2(Bucket="mlflow").get("Contents", [])) >= 0)
except botocore.exceptions.ClientError as refusal:
    print("refused", refusal.response["ResponseMetadata"]["HTTPStatusCode"])
"""


def inside(server: Server, program: str, **env: str) -> str:
    """Runs Python in the server's own pod, where all that a pod can reach is reached."""
    pod = server.pod()["metadata"]["name"]
    # by standard input, for nobody may read a password among the node's processes
    return server.kube.kubectl(
        "exec", "-i", pod, "--", "python3", "-c", TAKE + program, stdin=json.dumps(env)
    )


def test_two_servers_share_nothing(ns: Kube, other_ns: Kube) -> None:
    """Same name, two namespaces. Each one's password and key are tried on the other's stores, for real."""
    first, second = Server(ns).apply(small()), Server(other_ns).apply(small())
    first.ready()
    second.ready()
    Scientist(first.url).work("mine")
    Scientist(second.url).work("yours")
    assert Scientist(first.url).experiments() == {"Default", "mine"}
    assert Scientist(second.url).experiments() == {"Default", "yours"}

    one, two = first.generated(), second.generated()
    assert not set(one.values()) & set(two.values()), "the same secret was generated twice"
    for caller, key, host in ((first, one, second), (second, two, first)):
        names, namespace = host.names, host.kube.namespace
        own = host.generated()
        # the door and its own key first: otherwise a refusal would prove nothing
        assert "in" in inside(caller, LOGIN, URI=libpq(own["database URI"]))
        uri = libpq(own["database URI"]).replace(own["database password"], key["database password"])
        with pytest.raises(CommandError, match="password authentication failed"):
            inside(caller, LOGIN, URI=uri)

        endpoint = f"http://{names.artifact_store}.{namespace}.svc:9000"
        right = {"KEY": own["artifact key"], "SECRET": own["artifact secret"]}
        assert "in" in inside(caller, KNOCK, ENDPOINT=endpoint, **right)
        wrong = {"KEY": key["artifact key"], "SECRET": key["artifact secret"]}
        assert "refused 403" in inside(caller, KNOCK, ENDPOINT=endpoint, **wrong)
        mixed = {"KEY": own["artifact key"], "SECRET": key["artifact secret"]}
        assert "refused 403" in inside(caller, KNOCK, ENDPOINT=endpoint, **mixed)


def libpq(uri: str) -> str:
    """SQLAlchemy names a driver in the scheme, libpq knows none."""
    return uri.replace(f"{DIALECT}://", "postgresql://", 1)
