"""What is tried from the server's own pod, where all that a pod can reach is reached."""

import json

from tests.e2e.server import Server

_TAKE = "import json, os, sys; os.environ.update(json.load(sys.stdin))\n"
_LOGIN = "import os, psycopg; psycopg.connect(os.environ['URI'], connect_timeout=10).execute('select 1'); print('in')"
_KNOCK = """
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
    """Runs Python in the server's own pod; what it prints."""
    pod = server.pod()["metadata"]["name"]
    # by standard input, for nobody may read a password among the node's processes
    return server.kube.kubectl(
        "exec", "-i", pod, "--", "python3", "-c", _TAKE + program, stdin=json.dumps(env)
    )


def logs_in(caller: Server, uri: str) -> None:
    """Opens a database; CommandError with what it said where it does not."""
    assert "in" in inside(caller, _LOGIN, URI=uri)


def opens(caller: Server, host: Server, key: str, secret: str) -> bool:
    """Whether a key opens the embedded store of `host`; False where it is refused."""
    endpoint = f"http://{host.names.artifact_store}.{host.kube.namespace}.svc:9000"
    said = inside(caller, _KNOCK, ENDPOINT=endpoint, KEY=key, SECRET=secret)
    assert "in" in said or "refused 403" in said, said
    return "refused" not in said


def environment(server: Server) -> set[str]:
    """The values of all variables that the server's container was started with."""
    program = "print(json.dumps([*open('/proc/1/environ').read().split('\\0')]))"
    return {pair.partition("=")[2] for pair in json.loads(inside(server, program))}
