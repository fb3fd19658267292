"""How a server goes over to another version: `spec.upgrade`."""

from enum import StrEnum

from mlflow_operator.api.model import Model


class UpgradeStrategy(StrEnum):
    """What becomes of the servers while the tables are moved to the revision of another version."""

    RECREATE = "Recreate"
    ROLLING_UPDATE = "RollingUpdate"


class BackupBeforeMigration(StrEnum):
    """Whether tables are moved only after a backup of them."""

    IF_CONFIGURED = "IfConfigured"
    REQUIRED = "Required"
    SKIP = "Skip"


class Upgrade(Model):
    """How the server goes over to another version or image."""

    strategy: UpgradeStrategy = UpgradeStrategy.RECREATE
    """What happens when the tables have to move; where they fit as they are, pods are always replaced one by one.
    Recreate: the servers stop, the tables move, servers of the new version start; `status.upgrade.downtimeSeconds`
    says how long nobody answered. RollingUpdate: servers of the old version go on while the tables move under
    them, and may answer with errors until the new ones take over.
    """
    backup_before_migration: BackupBeforeMigration = BackupBeforeMigration.IF_CONFIGURED
    """Whether a backup is made before tables move, while the servers of before go on; if it fails, nothing moves.
    IfConfigured: where `spec.backup` is there. Required: always, so that `spec.backup` must be there. Skip: never.
    """
