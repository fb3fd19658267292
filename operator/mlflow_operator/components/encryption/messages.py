"""Messages of the condition EncryptionReady."""

from collections.abc import Iterable

from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Server
from mlflow_operator.status import message_text

UP_TO_DATE = "The stored gateway and webhook secrets are encrypted with the keys of the server."
USER_MANAGED = (
    "spec.env or spec.envFrom sets the passphrase, so the operator does not encrypt gateway secrets with it."
)
IN_PROGRESS = (
    "Encrypting the stored secrets with the current keys. The server keeps running; until its pods have restarted, "
    "gateway endpoints that use a stored API key may fail."
)
SWITCHING = "The pods get the current passphrase. Those of a running server are replaced one after the other."
_DISABLE = "UPDATE webhooks SET secret = NULL, status = 'DISABLED' WHERE webhook_id IN "
_MAX_NAMES = 5


def unknown_passphrases(server: Server, versions: Iterable[int]) -> str:
    """Gateway secrets are encrypted with passphrases that no Secret contains."""
    keys = _listed(f'"passphrase-{version}"' for version in versions)
    return (
        f"Gateway secrets in the database are encrypted with passphrases that the server does not have. Their values "
        f'are unreadable, and nothing was changed. Add {keys} to Secret "{server.encryption.secret}": copy them from '
        "the Secret of the server that stored them, <name>-encryption, or from a backup of it. If they are lost, enter "
        "the API keys again in MLflow's AI Gateway settings."
    )


def unreadable_webhooks(server: Server, webhooks: Iterable[str]) -> str:
    """Webhook secrets are encrypted with a key that is lost."""
    ids = list(webhooks)
    quoted = ", ".join(f"'{webhook}'" for webhook in ids[:_MAX_NAMES])
    more = " (further webhooks follow)" if len(ids) > _MAX_NAMES else ""
    return (
        "The secrets of these webhooks are encrypted with a key that the server does not have, so MLflow cannot list "
        f"webhooks and sends none of their events: {quoted}{more}. Without a configured key, each process of MLflow "
        "generated its own, which is lost when the process ends. If another server stored them, copy its key "
        f'"webhook-key" to the key "webhook-key-0" of Secret "{server.encryption.secret}". Otherwise, disable them in '
        f"the database: {_DISABLE}({quoted}); then set a new secret and the status ACTIVE with MLflow's API."
    )


def job_failed(server: Server, job: Object, termination_message: str) -> str:
    """A Job failed; it is retried."""
    lines = message_text.last_lines(termination_message)
    details = f" Its last lines: {lines}" if lines else ""
    return (
        f'The Job "{job["metadata"]["name"]}" could not encrypt the stored secrets with the current keys. Nothing was '
        "changed; the server runs with the previous keys, and the Job is retried automatically. If a passphrase is "
        f'missing, add it to Secret "{server.encryption.secret}" as "passphrase-<version>".{details}'
    )


def _listed(names: Iterable[str]) -> str:
    listed = list(names)
    shown = ", ".join(listed[:_MAX_NAMES])
    return f"the keys {shown}" if len(listed) > 1 else f"the key {shown}"
