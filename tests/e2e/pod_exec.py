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

_STATUS_CODE = """
import base64, os, urllib.error, urllib.request
login = base64.b64encode(os.environ["LOGIN"].encode()).decode()
request = urllib.request.Request("http://127.0.0.1:5000" + os.environ["PATH_QUERY"])
request.add_header("Authorization", "Basic " + login)
try:
    print(urllib.request.urlopen(request, timeout=30).status)
except urllib.error.HTTPError as refusal:
    print(refusal.code)
"""
# The text is not an argument, because the arguments of all processes are searched. A process may end meanwhile.
_FIND_TEXT = """
text=$(cat)
for folder in /proc/[0-9]*/environ /proc/[0-9]*/cmdline "$HOME" /tmp; do
  printf '%s' "$text" | grep -ralsFf - "$folder"
done
true
"""


def run_python(server: Server, program: str, **env: str) -> str:
    """Run Python code in the server's only pod with `env` as additional environment; returns stdout."""
    return _run_python(server, server.pod()["metadata"]["name"], program, **env)


def _run_python(server: Server, pod: str, program: str, **env: str) -> str:
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


def status_codes(server: Server, path: str, username: str, password: str) -> dict[str, int]:
    """Send a request to each of the server's pods, from the pod itself; returns the statuses by pod."""
    pods = [pod["metadata"]["name"] for pod in server.pods("server")]
    env = {"PATH_QUERY": path, "LOGIN": f"{username}:{password}"}
    return {pod: int(_run_python(server, pod, _STATUS_CODE, **env)) for pod in pods}


def files_with(server: Server, text: str) -> set[str]:
    """Return the files of all server pods that contain a text: environments and arguments of processes, and volumes."""
    kube, found = server.kube, set()
    for pod in server.pods("server"):
        output = kube.kubectl("exec", "-i", pod["metadata"]["name"], "--", "sh", "-c", _FIND_TEXT, stdin=text)
        found |= set(output.split())
    return found
