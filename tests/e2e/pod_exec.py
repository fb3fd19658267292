"""Programs run in a server's pod by `kubectl exec`, which have the pod's network access."""

import json

from tests.e2e.server import Server

_READ_ENVIRONMENT = "import json, os, sys; os.environ.update(json.load(sys.stdin))\n"
_CONNECT = "import os, psycopg; psycopg.connect(os.environ['URI'], connect_timeout=10).execute('select 1'); print('ok')"
_LIST_BUCKET = """
import boto3, os, botocore
from botocore.config import Config
s3 = boto3.client("s3", endpoint_url=os.environ["ENDPOINT"], aws_access_key_id=os.environ["KEY"],
    aws_secret_access_key=os.environ["SECRET"], region_name="us-east-1", config=Config(retries={"max_attempts": 1}))
try:
    print("ok", len(s3.list_objects_v2(Bucket="mlflow").get("Contents", [])) >= 0)
except botocore.exceptions.ClientError as refusal:
    print("refused", refusal.response["ResponseMetadata"]["HTTPStatusCode"])
"""


def run_python(server: Server, program: str, **env: str) -> str:
    """Run Python code in the server's pod with `env` as additional environment; returns stdout."""
    pod = server.pod()["metadata"]["name"]
    # by standard input, because a password must not be visible in the node's process list
    return server.kube.kubectl(
        "exec", "-i", pod, "--", "python3", "-c", _READ_ENVIRONMENT + program, stdin=json.dumps(env)
    )


def connect_to_database(caller: Server, uri: str) -> None:
    """Connect to a database from the server's pod. Raises CommandError with the client's error."""
    assert "ok" in run_python(caller, _CONNECT, URI=uri)


def can_list_bucket(caller: Server, host: Server, key: str, secret: str) -> bool:
    """Whether `caller` can list the bucket of the embedded store of `host` with this key; False for HTTP status 403."""
    endpoint = f"http://{host.names.artifact_store}.{host.kube.namespace}.svc:9000"
    output = run_python(caller, _LIST_BUCKET, ENDPOINT=endpoint, KEY=key, SECRET=secret)
    assert "ok" in output or "refused 403" in output, output
    return "refused" not in output


def environment_values(server: Server) -> set[str]:
    """Return the values of all environment variables that the server's container was started with."""
    program = "print(json.dumps([*open('/proc/1/environ').read().split('\\0')]))"
    return {pair.partition("=")[2] for pair in json.loads(run_python(server, program))}
