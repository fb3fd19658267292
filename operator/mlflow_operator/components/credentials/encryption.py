"""Generate the encryption keys of a server once, or check those that the user manages.

It writes the Secret `<name>-encryption`. The component `encryption` calls `create_keys` for a new server, and makes a
passphrase the current one.
"""

from dataclasses import replace

from mlflow_operator.framework import env_from_variables, retained_store
from mlflow_operator.framework.component import ReconcileContext
from mlflow_operator.kube import kinds, pod_references
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import deployment as deployments
from mlflow_operator.model import encryption, secrets
from mlflow_operator.model.encryption import EncryptedSecrets
from mlflow_operator.model.server import EncryptionKeys, SecretKey
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


async def ensure_keys(context: ReconcileContext) -> EncryptionKeys:
    """Return the keys that the pods get now. Raises ConfigurationError if a key is missing or invalid.

    A new server gets its keys from `create_keys`, once the state of its database is known.
    """
    keys = context.server.encryption
    if not keys.is_generated:
        await _check_referenced(context, keys)
    elif not await _ensure_generated(context):
        return replace(keys, is_withheld=True)
    return current_keys(context)


async def create_keys(context: ReconcileContext, stored: EncryptedSecrets) -> None:
    """Generate the keys of a new server, unless they exist.

    `stored`: what its database contains. If no gateway secret is encrypted with another passphrase, the generated one
    is current at once.
    """
    keys = context.server.encryption
    if not keys.is_generated or context.reader.latest(kinds.SECRET, keys.secret):
        return
    values = _new_values(context)
    if keys.manages_passphrase and not stored.passphrase_versions:
        values = encryption.with_current_passphrase(values)
    await _ensure_complete(context, encryption.secret(context.server.owner, values))


def is_missing(context: ReconcileContext) -> bool:
    """Whether the pods would start without the keys that the operator generates."""
    keys = context.server.encryption
    return keys.is_generated and context.reader.latest(kinds.SECRET, keys.secret) is None


def current_keys(context: ReconcileContext) -> EncryptionKeys:
    """The keys that the pods get after what this reconcile has written."""
    keys, name = context.server.encryption, context.server.names.encryption_secret
    secret = context.reader.latest(kinds.SECRET, name)
    if not keys.is_generated or secret is None:
        return keys
    is_current = encryption.PASSPHRASE in (secret.get("data") or {})
    # The Secret is new: most servers have no gateway secrets, and the passphrase becomes current in this reconcile.
    is_withheld = not is_current and context.observed.get(kinds.SECRET, name) is None
    if not keys.manages_passphrase:
        return replace(keys, is_withheld=is_withheld)
    return replace(
        keys,
        is_withheld=is_withheld,
        passphrase=encryption.generated_key(name, encryption.PASSPHRASE) if is_current else None,
        passphrase_version=encryption.generated_key(name, encryption.VERSION) if is_current else None,
    )


async def secret_values(context: ReconcileContext) -> tuple[str, ...]:
    """The values of the keys, which no message may contain."""
    keys = context.server.encryption
    if is_missing(context):
        return ()
    values = await context.reader.values(kinds.SECRET, keys.secret) or {}
    if keys.is_generated:
        names = {key for key in values if not key.endswith(("-version", "-at"))}
    else:
        names = {key.key for key in encryption.secret_keys(keys) if key != keys.passphrase_version}
    return tuple(values[name] for name in sorted(names & values.keys()))


async def _ensure_generated(context: ReconcileContext) -> bool:
    """Whether the Secret exists, is complete, and belongs to the server. It is created, except for a new server.

    Raises ConfigurationError if the Secret or one of its keys is lost.
    """
    name = context.server.names.encryption_secret
    observed = context.observed.get(kinds.SECRET, name)
    # A Secret that exists and is not observed has lost its labels. The conflict that follows says how to add them.
    if observed is None and not await retained_store.exists(context, kinds.SECRET, name):
        _check_not_lost(context)
        if _is_new(context):
            return False
    await _ensure_complete(context, observed or encryption.secret(context.server.owner, _new_values(context)))
    return True


def _is_new(context: ReconcileContext) -> bool:
    """Whether no pod has run yet and no user must add earlier keys to the Secret, which a restore may need."""
    return (
        context.server.restore is None
        and context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment) is None
    )


def _new_values(context: ReconcileContext) -> dict[str, str]:
    generate = context.deps.generate_password
    return encryption.new_values(generate(), generate(), generate())


async def _ensure_complete(context: ReconcileContext, secret: Object) -> None:
    """Create the Secret, unless it exists. Raises ConfigurationError if it has lost a key."""
    lost = encryption.lost_key(secrets.text_values(await context.ensure(secret, data=True)))
    if lost:
        raise ConfigurationError(
            Reason.SECRET_KEY_MISSING,
            f'Secret "{context.server.names.encryption_secret}" has lost its key "{lost}". Secrets in the database may '
            "be encrypted with it, so the operator does not generate another one. Restore the key from a backup of the "
            "Secret.",
        )


def _check_not_lost(context: ReconcileContext) -> None:
    """Raise ConfigurationError if the server has used keys of the missing Secret.

    Existing servers of operator versions without keys have no trace of them, and get new ones.
    """
    name = context.server.names.encryption_secret
    recorded = context.observed.status.get("encryption") or {}
    deployment = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    references = pod_references.of_pod(deployment["spec"]["template"]["spec"]) if deployment else ()
    if recorded.get("secretName") != name and not any(
        reference.kind == kinds.SECRET.kind and reference.name == name for reference in references
    ):
        return
    raise ConfigurationError(
        Reason.SECRET_NOT_FOUND,
        f'Secret "{name}" is missing, and secrets in the database are encrypted with its keys. The operator does not '
        "generate other keys. Restore the Secret, with its labels, from a backup. If it is lost, create a Secret with "
        "new keys and set it in spec.encryption.secretRef: everything except gateway and webhook secrets stays "
        "readable.",
    )


async def _check_referenced(context: ReconcileContext, keys: EncryptionKeys) -> None:
    if keys.passphrase and keys.passphrase_version:
        passphrase = await context.reader.value(keys.passphrase)
        text = await context.reader.value(keys.passphrase_version)
        if not passphrase:
            raise _invalid(keys.secret, keys.passphrase.key, "is empty. Use at least 32 random characters")
        if encryption.parse_version(text) is None:
            raise _invalid(
                keys.secret,
                keys.passphrase_version.key,
                f"is not a valid version. Use an integer from 2 to {encryption.MAX_VERSION}",
            )
        if encryption.parse_version(text) == encryption.PUBLIC_VERSION:
            await _check_first_version(context, keys.secret, keys.passphrase_version.key)
    if context.server.auth and keys.flask_key:
        await _check_flask_key(context, keys.flask_key)
    if keys.webhook_key and not encryption.is_fernet_key(await context.reader.value(keys.webhook_key)):
        raise _invalid(
            keys.secret, keys.webhook_key.key, "is not a Fernet key. Use 32 random bytes in URL-safe base64"
        )


async def _check_first_version(context: ReconcileContext, name: str, key: str) -> None:
    """Raise ConfigurationError if stored secrets may be encrypted with MLflow's public passphrase.

    Its version is the same, so nothing would show that the passphrase is another one. The database shows only versions.
    """
    deployment = context.observed.get(kinds.DEPLOYMENT, context.server.names.deployment)
    if deployment is None:
        # It may have been deleted, or not be restored yet from a backup of the cluster.
        recorded = context.observed.status.get("encryption") or {}
        has_passphrase = recorded.get("secretName") == name
    else:
        has_passphrase = await _sets_passphrase(context, deployment)
    if not has_passphrase:
        raise _invalid(
            name,
            key,
            "is 1, the version of MLflow's public default passphrase, with which the stored gateway secrets may be "
            "encrypted. With the same version for another passphrase, MLflow could not read them. Use version 2 or "
            "higher. If they are encrypted with the passphrase in this Secret and version 1, also add it as "
            f"{encryption.PASSPHRASE}-{encryption.PUBLIC_VERSION}",
        )


async def _sets_passphrase(context: ReconcileContext, deployment: Object) -> bool:
    """Whether the pods of an existing Deployment have a passphrase of their own."""
    containers = deployment["spec"]["template"]["spec"]["containers"]
    # An admission webhook may have added another container before it.
    container: Object = next(
        (found for found in containers if found["name"] == deployments.CONTAINER_NAME), {}
    )
    variables = {variable["name"] for variable in container.get("env") or ()}
    if encryption.PASSPHRASE_ENV in variables:
        return True
    # The spec may no longer have these references: the passphrase moves from there to spec.encryption in one change.
    sources = container.get("envFrom") or ()
    return encryption.PASSPHRASE_ENV in await env_from_variables.names(sources, context.reader)


async def _check_flask_key(context: ReconcileContext, key: SecretKey) -> None:
    """Raise ConfigurationError if the key is missing, without which MLflow does not start with authentication."""
    values = await context.reader.values(kinds.SECRET, key.name) or {}
    if not values.get(key.key):
        raise ConfigurationError(
            Reason.SECRET_KEY_MISSING,
            f'Secret "{key.name}" has no key "{key.key}" (spec.encryption.secretRef), or it is empty. MLflow requires '
            "it with spec.auth. Add the key with at least 32 random characters.",
        )


def _invalid(name: str, key: str, fault: str) -> ConfigurationError:
    return ConfigurationError(
        Reason.SECRET_VALUE_INVALID, f'Key "{key}" of Secret "{name}" (spec.encryption.secretRef) {fault}.'
    )
