"""Decides whether a preflight is needed, and what its result allows: the upgrade plan, or the error that refuses it."""

from dataclasses import dataclass

from mlflow_operator.components.upgrade.preflight_result import PreflightResult, SchemaChange
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.release import Release
from mlflow_operator.model.server import Server
from mlflow_operator.model.termination_message import JobError
from mlflow_operator.model.versions import SCHEMA_HEADS, release_that_stops_writers, version_for_revision
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


@dataclass(frozen=True)
class RunningVersion:
    """The version and image that the operator deployed last, and the schema revision at that time."""

    version: str | None
    image: str | None
    revision: str | None

    def rollback_hint(self, server: Server) -> str:
        """How the user reverts the change, as the end of a sentence; empty if the image did not change."""
        if self.image is None or self.image == server.image:
            return ""
        if server.is_default_image and self.version and self.version != server.version:
            return f", or set spec.version back to {self.version}"
        return f", or revert to the image {self.image}"


def running_version(
    status: Object, deployment_image: str | None, deployment_version: str | None
) -> RunningVersion:
    """Read the running version from the status. If the status was lost, the image of the Deployment is used.

    `deployment_version` is the version of that image; None if it is not known. A restore of a cluster backup loses the
    status.
    """
    if status.get("image"):
        return RunningVersion(status.get("version"), status["image"], status.get("schemaRevision"))
    version = status.get("version") or deployment_version
    revision = status.get("schemaRevision") or SCHEMA_HEADS.get(version or "")
    return RunningVersion(version, deployment_image, revision)


def needs_preflight(running: RunningVersion, server: Server, revision: str | None, head: str | None) -> bool:
    """Whether the desired image could harm existing data.

    `revision` is the one of the database, `head` the one that the image is known to need. No preflight is needed for
    the first start on an empty database, and for an image that already serves at this revision.
    """
    if running.image is not None and running.image != server.image:
        return True
    return revision is not None and revision != head


@dataclass(frozen=True)
class UpgradePlan:
    """What the operator may do.

    `preflight` is the result of the preflight, None if there was none; `started_at` (RFC 3339) is the start of the
    preflight. `image_changed`: another image replaces the running one. `stop_servers`: the server is scaled to 0 before
    the schema migration.
    """

    preflight: PreflightResult | None = None
    started_at: str | None = None
    image_changed: bool = False
    stop_servers: bool = False

    @property
    def head(self) -> str | None:
        """Head revision of the image's migrations; None if there was no preflight."""
        return self.preflight.head if self.preflight else None


def plan(
    running: RunningVersion,
    server: Server,
    preflight: PreflightResult,
    started_at: str | None,
    switching_database: bool,
) -> UpgradePlan:
    """The plan for a preflight result without errors. `switching_database`: no running server uses the database."""
    image_changed = running.image is not None and running.image != server.image
    migrates = preflight.change is SchemaChange.FORWARD and not switching_database
    must_stop = server.recreate_on_migration or _writers_must_stop(running, preflight) is not None
    return UpgradePlan(preflight, started_at, image_changed, image_changed and migrates and must_stop)


def strategy_refusal(
    running: RunningVersion, server: Server, upgrade: UpgradePlan
) -> ConfigurationError | None:
    """Why `spec.upgrade.strategy` must not be used for this upgrade; None if it may be.

    MLflow requires for some releases that no server writes to the database while its schema is migrated.
    """
    if server.recreate_on_migration or not upgrade.stop_servers or not upgrade.preflight:
        return None
    release = _writers_must_stop(running, upgrade.preflight)
    if release is None:
        return None
    return ConfigurationError(
        Reason.UPGRADE_STRATEGY_REFUSED,
        f"spec.upgrade.strategy is RollingUpdate, but the schema migration of MLflow {release.version} requires that "
        f"no server writes to the database. Nothing was changed; version {running.version} keeps running. To upgrade "
        f"with a downtime, set spec.upgrade.strategy to Recreate{running.rollback_hint(server)}.",
    )


def _writers_must_stop(running: RunningVersion, preflight: PreflightResult) -> Release | None:
    """The release on the way to the version in the image whose migration requires that all writers are stopped."""
    return release_that_stops_writers(running.version, preflight.revision, preflight.version or "")


def refusal(running: RunningVersion, server: Server, preflight: PreflightResult) -> ConfigurationError | None:
    """Why the image must not be deployed; None if it may be."""
    serving = f"; version {running.version} keeps running" if running.image and running.version else ""
    unchanged = f"Nothing was changed{serving}."
    rollback = running.rollback_hint(server)
    if preflight.errors:
        fact, advice = _error_message(server, preflight.errors[0])
        return ConfigurationError(
            Reason.PREFLIGHT_FAILED,
            f"{fact} {unchanged} {advice}{rollback}. The preflight is retried automatically, at first within a minute.",
        )
    if server.version_is_explicit and _public_version(preflight.version) != _public_version(server.version):
        return ConfigurationError(
            Reason.PREFLIGHT_FAILED,
            f"The image {server.image} contains MLflow {preflight.version} instead of {server.version}. {unchanged} "
            f"Set spec.version to {preflight.version}, or set another image in spec.image{rollback}.",
        )
    if preflight.change is SchemaChange.UNKNOWN:
        return ConfigurationError(
            Reason.SCHEMA_NEWER_THAN_IMAGE,
            f"The database is at schema revision {preflight.revision}, which MLflow {preflight.version} does not know: "
            f"a newer MLflow version or another program migrated it. {unchanged} Downgrade is not supported: restore a "
            f"backup from before the migration, or revert to {_version_that_migrated(running, preflight)}.",
        )
    return None


def missing_result(
    running: RunningVersion, server: Server, job: str, memory_advice: str, termination_message: str | None
) -> ConfigurationError:
    """The error for a preflight that ended without a readable result. The operator changes nothing then.

    `memory_advice` is a sentence with a leading space if the container was OOMKilled, else empty.
    """
    lines = message_text.last_lines(termination_message)
    quote = f" Its last lines: {lines}" if lines else ""
    return ConfigurationError(
        Reason.PREFLIGHT_FAILED,
        f'The preflight Job "{job}" ended without a readable result. Nothing was changed. Check that the image '
        f"{server.image} starts{running.rollback_hint(server)}. The preflight is retried automatically, at first "
        f"within a minute.{memory_advice}{quote}",
    )


_ERROR_MESSAGES = {
    "driver": (
        "The image {image} lacks a Python package: {message}.",
        "Use the -full image of the version, or add the package to your own image",
    ),
    "mlflow": (
        "The image {image} cannot run the MLflow server: {message}.",
        "Set another image in spec.image",
    ),
    "encoding": (
        "The database has the encoding {message}, which MLflow does not support.",
        "Set a UTF8 database in {database}",
    ),
    "privilege": (
        "The database user lacks privileges: {message}.",
        "GRANT the missing privileges, or make the user the owner",
    ),
    "bucket": (
        "With the server's environment, the image cannot write to the artifact store: {message}.",
        "Check the permissions of the access key, and the settings for the store in spec.env",
    ),
    "timeout": (
        "The preflight timed out: {message}.",
        "Check that the database and the artifact store respond in time",
    ),
}
_DEFAULT_ERROR_MESSAGE = (
    "With the server's environment, the image cannot use the database: {message}.",
    "Check {database}, and the settings for the database in spec.env",
)


def _error_message(server: Server, error: JobError) -> tuple[str, str]:
    fact, advice = _ERROR_MESSAGES.get(error.code, _DEFAULT_ERROR_MESSAGE)
    message = message_text.strip_volatile(error.message).rstrip(".")
    return fact.format(image=server.image, message=message), advice.format(database=server.database_field)


def _public_version(version: str | None) -> str:
    """The version without the local part of a custom build: `3.17.2+corp`."""
    return (version or "").partition("+")[0]


def _version_that_migrated(running: RunningVersion, preflight: PreflightResult) -> str:
    known = running.version if running.revision == preflight.revision else None
    version = known or version_for_revision(preflight.revision or "")
    return f"version {version}" if version else "the version that migrated it"
