"""Gateway and webhook secrets are readable after a change of the keys, a restart, and a restore with the keys."""

import json

import pytest
import requests

from mlflow_operator.model.encryption import PASSPHRASE_ENV, WEBHOOK_KEY_ENV
from mlflow_operator.model.secrets import text_values
from tests.e2e import timeouts
from tests.e2e.kube import Kube, Object
from tests.e2e.pod_exec import run_python
from tests.e2e.server import Server, eventually, small_spec

JOB_TIMEOUT_SECONDS = 120.0
API_KEY, WEBHOOK_SECRET = "key-of-the-provider", "secret-of-the-webhook"

_STORES = """
import json, os, sys
from mlflow.entities.webhook import WebhookAction, WebhookEntity, WebhookEvent
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as Registry
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as Tracking
uri = os.environ["MLFLOW_BACKEND_STORE_URI"]
tracking, registry = Tracking(uri, "mlflow-artifacts:/"), Registry(uri)
"""
_CREATE_SECRET = f"""{_STORES}
print(tracking.create_gateway_secret(os.environ["NAME"], {{"api_key": os.environ["VALUE"]}}).secret_id)
"""
# MLflow checks that the host of a webhook has a public address, which this cluster cannot resolve.
_CREATE_WEBHOOK = f"""
import os
os.environ["MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS"] = "true"
{_STORES}
event = WebhookEvent(WebhookEntity.REGISTERED_MODEL, WebhookAction.CREATED)
print(registry.create_webhook("w", "https://example.com", [event], secret=os.environ["VALUE"]).webhook_id)
"""
_READ = f"""{_STORES}
webhooks = [webhook.secret for webhook in registry.list_webhooks()]
infos = tracking.list_secret_infos()
values = {{info.secret_name: tracking._get_decrypted_secret(info.secret_id)["api_key"] for info in infos}}
print("RESULT", json.dumps([values, webhooks]))
"""


@pytest.mark.long_running(
    reason="three servers start; tests/integration/test_rewrap.py checks the rotation with MLflow and Postgres, "
    "tests/unit/components/encryption its steps"
)
def test_secrets_survive_new_keys_a_restart_and_a_restore(ns: Kube) -> None:
    """From MLflow's public passphrase to generated keys, and to another server only together with the keys."""
    # An empty variable is the public passphrase: such a server is like one of an operator without generated keys.
    public = [{"name": PASSPHRASE_ENV, "value": ""}]
    backups = {"schedule": "0 0 29 2 *"}
    server = Server(ns).apply(small_spec(env=public, backup=backups)).wait_ready()
    run_python(server, _CREATE_SECRET, NAME="first", VALUE=API_KEY)
    assert rewrap_jobs(ns) == []

    pod = server.pod()
    server.patch_spec(env=None)
    server.wait_for("EncryptionReady", "True", within=timeouts.READY_SECONDS)
    assert len(rewrap_jobs(ns)) == 1
    server.wait_replaced("server", pod)
    server.wait_ready()
    webhook = run_python(server, _CREATE_WEBHOOK, VALUE=WEBHOOK_SECRET).strip().splitlines()[-1]
    assert webhook
    assert read(server) == ({"first": API_KEY}, [WEBHOOK_SECRET])
    pod = server.pod()
    ns.kubectl("delete", "pod", pod["metadata"]["name"])
    server.wait_replaced("server", pod)
    assert read(server) == ({"first": API_KEY}, [WEBHOOK_SECRET])
    assert requests.get(f"{server.url}/api/2.0/mlflow/webhooks", timeout=30).status_code == 200

    ns.kubectl("create", "job", "--from=cronjob/tracking-backup", "by-hand")
    eventually("a backup", lambda: server.status.get("backup", {}).get("lastID"), JOB_TIMEOUT_SECONDS)
    restored = restore_without_keys(ns, server)
    copy_keys(ns, server, restored)
    ns.kubectl("delete", "job", *restore_jobs(ns))
    restored.wait_ready()
    restored.wait_for("EncryptionReady", "True")
    eventually(
        "the restored server reads its secrets with its own keys",
        lambda: readable(restored) == ({"first": API_KEY}, [WEBHOOK_SECRET]),
        timeouts.ROLLOUT_SECONDS,
    )
    keys = [text_values(ns.require("Secret", s.names.encryption_secret)) for s in (server, restored)]
    assert keys[0]["passphrase"] != keys[1]["passphrase"]
    assert keys[0]["webhook-key"] != keys[1]["webhook-key"]


def embedded_store(source: Server) -> Object:
    """Return the embedded store of a server as other servers use it, for example to restore its backups."""
    return {
        "endpoint": f"http://{source.names.artifact_store}.{source.kube.namespace}.svc:9000",
        "bucket": "mlflow",
        "addressingStyle": "Path",
        "credentialsSecretRef": {
            "name": source.names.artifacts_secret,
            "accessKeyIDKey": "serverAccessKeyID",
            "secretAccessKeyKey": "serverSecretAccessKey",
        },
    }


def restore_without_keys(ns: Kube, source: Server) -> Server:
    """Create a server that restores the backup of `source`, and check that nothing is restored without the keys."""
    restored = Server(ns, "again")
    restored.apply(small_spec(restoreFrom={"serverName": source.name, "s3": embedded_store(source)}))
    refusal = restored.wait_for("SchemaReady", "False", "RestoreRefused")
    assert f'Secret "{restored.names.encryption_secret}"' in refusal["message"]
    assert f'"{source.names.encryption_secret}" in namespace {ns.namespace}' in refusal["message"]
    assert not restored.status.get("schemaRevision")
    return restored


def copy_keys(ns: Kube, source: Server, target: Server) -> None:
    """Copy the earlier keys, as docs/guides/encryption-keys.md says."""
    data: Object = ns.require("Secret", source.names.encryption_secret)["data"]
    keyring = {
        key: value
        for key, value in data.items()
        if (key.startswith("passphrase-") and key.removeprefix("passphrase-").isdecimal())
        or key.startswith("webhook-key-")
    }
    assert len(keyring) == 2
    ns.patch("Secret", target.names.encryption_secret, {"data": keyring})


def rewrap_jobs(ns: Kube) -> list[str]:
    """Names of the Jobs that encrypt stored secrets."""
    return [name for job in ns.list("Job") if "-rewrap-" in (name := job["metadata"]["name"])]


def restore_jobs(ns: Kube) -> list[str]:
    """Names of the restore Jobs."""
    return [name for job in ns.list("Job") if "-restore-" in (name := job["metadata"]["name"])]


def read(server: Server) -> tuple[dict[str, str], list[str]]:
    """Gateway secrets by name, and webhook secrets, as MLflow decrypts them in the server's pod."""
    output = run_python(server, _READ).rpartition("RESULT ")[2]
    values, webhooks = json.loads(output)
    return values, webhooks


def readable(server: Server) -> tuple[dict[str, str], list[str]] | None:
    """Like `read`; None while the pod still has other keys."""
    container = server.pod()["spec"]["containers"][0]
    if not {PASSPHRASE_ENV, WEBHOOK_KEY_ENV} <= {variable["name"] for variable in container["env"]}:
        return None
    try:
        return read(server)
    except Exception as error:
        if "InvalidToken" in str(error) or "decrypt" in str(error):
            return None
        raise
