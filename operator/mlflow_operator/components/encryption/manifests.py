"""Manifest of the Job that encrypts the stored secrets with the current keys."""

from mlflow_operator import pod_scripts
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, encryption, jobs, mlflow_env
from mlflow_operator.model.metadata import object_metadata
from mlflow_operator.model.server import SecretKey, Server

_DEADLINE_SECONDS = 1800
"""Includes the image pull. The program needs seconds."""


def job(server: Server, passphrase: SecretKey | None, version: int, database_state: str) -> Object:
    """Job for the first attempt to encrypt all secrets with `passphrase` and the current webhook key.

    `passphrase` None: only webhook secrets. The name contains a hash of the pod template and `database_state`, so that
    secrets that appear later get a new Job.
    """
    template = _pod(server, passphrase, version)
    name = server.names.rewrap(jobs.name_digest(template, database_state))
    meta = object_metadata(server.owner, name, labels.REWRAP_POD, {labels.ATTEMPT: "1"})
    return jobs.job(meta, _DEADLINE_SECONDS, template)


def _pod(server: Server, passphrase: SecretKey | None, version: int) -> Object:
    env = [*mlflow_env.database_env(server), encryption.keyring_env(server)]
    if passphrase:
        env.append(container_parts.env_from_secret(encryption.PASSPHRASE_ENV, passphrase))
        env.append(container_parts.env_value(encryption.VERSION_ENV, str(version)))
    else:
        # Otherwise the program would encrypt gateway secrets with the passphrase from `spec.env` or `spec.envFrom`, and
        # fail if it cannot decrypt one of them.
        env.append(container_parts.env_value(encryption.PASSPHRASE_ENV, ""))
    if server.restore and server.restore.ignores_missing_keys:
        env.append(container_parts.env_value("UNKNOWN_VERSIONS", "Skip"))
    if server.encryption.webhook_key:
        env.append(container_parts.env_from_secret(encryption.WEBHOOK_KEY_ENV, server.encryption.webhook_key))
    container = jobs.database_container(server, labels.REWRAP_POD, pod_scripts.REWRAP, env)
    container["volumeMounts"] = [*container["volumeMounts"], *encryption.keyring_mounts(server)]
    volumes = [*mlflow_env.database_volumes(server), *encryption.keyring_volumes(server)]
    return jobs.pod(server, labels.REWRAP_POD, [container], volumes)
