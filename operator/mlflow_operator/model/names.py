"""Names of all objects that one MLflowServer owns. No other module composes them.

The servers `a` and `a-postgres` would own an object of the same name. The second one gets the reason `NameConflict`
when the operator creates its object; no name is made unique by a suffix.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class StoreNames:
    """Names of the objects of one embedded store: its StatefulSet, and its data."""

    stateful_set: str
    volume: str
    secret: str


@dataclass(frozen=True)
class Names:
    """Names of the objects of the MLflowServer `server`. It has at most 40 characters, so that no name exceeds 63."""

    server: str

    @property
    def deployment(self) -> str:
        """Deployment and PodDisruptionBudget of the server."""
        return self.server

    @property
    def service(self) -> str:
        """Service that clients connect to."""
        return self.server

    @property
    def postgres(self) -> str:
        """StatefulSet and Service of the embedded database."""
        return f"{self.server}-postgres"

    @property
    def postgres_data(self) -> str:
        """PersistentVolumeClaim of the embedded database."""
        return f"{self.server}-postgres-data"

    @property
    def artifact_store(self) -> str:
        """StatefulSet and Service of the embedded artifact store."""
        return f"{self.server}-artifacts"

    @property
    def artifact_store_data(self) -> str:
        """PersistentVolumeClaim of the embedded artifact store."""
        return f"{self.server}-artifacts-data"

    @property
    def database_secret(self) -> str:
        """Secret with the generated credentials of the database. It is data: it outlives the MLflowServer."""
        return f"{self.server}-database"

    @property
    def artifacts_secret(self) -> str:
        """Secret with the generated credentials of the artifact store. It is data, like `database_secret`."""
        return f"{self.server}-artifacts"

    @property
    def encryption_secret(self) -> str:
        """Secret with the generated encryption keys. It is data, like `database_secret`."""
        return f"{self.server}-encryption"

    @property
    def admin_secret(self) -> str:
        """Secret with the generated password of the administrator. It is data, like `database_secret`."""
        return f"{self.server}-admin"

    @property
    def embedded_database(self) -> StoreNames:
        """The objects of the embedded database."""
        return StoreNames(self.postgres, self.postgres_data, self.database_secret)

    @property
    def embedded_artifact_store(self) -> StoreNames:
        """The objects of the embedded artifact store."""
        return StoreNames(self.artifact_store, self.artifact_store_data, self.artifacts_secret)

    @property
    def server_secret(self) -> str:
        """Secret for the server's pods, which the operator derives from other Secrets and can recreate at any time."""
        return f"{self.server}-server"

    @property
    def plugin_config_map(self) -> str:
        """ConfigMap with the MLflow plugins, for example the one that proxies artifacts."""
        return f"{self.server}-server"

    @property
    def client(self) -> str:
        """ConfigMap for `envFrom` of clients, and the Secret of clients that receive store credentials."""
        return f"{self.server}-client"

    @property
    def backup(self) -> str:
        """CronJob that backs up the database."""
        return f"{self.server}-backup"

    def pre_migration_backup(self, digest: str) -> str:
        """Job that backs up the database before a schema migration. `digest` as for `migration`."""
        return f"{self.backup}-{digest}"

    @property
    def garbage_collection(self) -> str:
        """CronJob that permanently removes deleted runs, models and experiments, and old traces."""
        return f"{self.server}-gc"

    def preflight(self, digest: str) -> str:
        """Job that checks whether an image can run on the database. `digest` as for `migration`."""
        return f"{self.server}-preflight-{digest}"

    def restore(self, digest: str) -> str:
        """Job that restores a backup into the database. `digest` as for `migration`."""
        return f"{self.server}-restore-{digest}"

    def rewrap(self, digest: str) -> str:
        """Job that encrypts the stored secrets with the current keys. `digest` as for `migration`."""
        return f"{self.server}-rewrap-{digest}"

    def authentication(self, digest: str) -> str:
        """Job that prepares the accounts of MLflow. `digest` as for `migration`."""
        return f"{self.server}-auth-{digest}"

    def migration(self, digest: str) -> str:
        """Job that migrates the schema. `digest` is the eight-character hash of the Job's inputs."""
        return f"{self.server}-migrate-{digest}"
