"""Upgrades to another version or image: `spec.upgrade`."""

from enum import StrEnum

from mlflow_operator.api.model import Model


class UpgradeStrategy(StrEnum):
    """Whether server pods keep running during a schema migration."""

    RECREATE = "Recreate"
    ROLLING_UPDATE = "RollingUpdate"


class BackupBeforeMigration(StrEnum):
    """Whether the operator creates a backup before a schema migration."""

    IF_CONFIGURED = "IfConfigured"
    REQUIRED = "Required"
    SKIP = "Skip"


class Upgrade(Model):
    """Upgrades to another version or image."""

    strategy: UpgradeStrategy = UpgradeStrategy.RECREATE
    """How pods are replaced when the upgrade requires a schema migration. Recreate: the operator scales the server to
    zero, migrates the schema and starts the new version; `status.upgrade.downtimeSeconds` reports the downtime.
    RollingUpdate: pods of the old version keep running during the migration, and may return errors until pods of the
    new version replace them; refused for upgrades that require that the server is stopped, such as from 3.16 to 3.17.
    Without a schema migration, the operator always uses a rolling update. Defaults to Recreate.
    """
    backup_before_migration: BackupBeforeMigration = BackupBeforeMigration.IF_CONFIGURED
    """Whether the operator creates a backup before a schema migration, while the old version is still running. If the
    backup fails, the schema is not migrated. IfConfigured: if `spec.backup` is set. Required: always; `spec.backup`
    must be set. Skip: never. Defaults to IfConfigured.
    """
