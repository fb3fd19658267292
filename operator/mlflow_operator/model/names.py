"""Names of everything one MLflowServer owns. Nothing else may spell them out.

A server called `a` and one called `a-postgres` would own an object of the same name; the second one meets
`NameConflict` when it tries to make it, so no name here is ever made unique by a suffix.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Names:
    """The owned names of the MLflowServer `server` (at most 40 characters, so that none passes 63)."""

    server: str

    @property
    def deployment(self) -> str:
        """The server's Deployment, its Service and its PodDisruptionBudget."""
        return self.server

    @property
    def service(self) -> str:
        """What clients connect to."""
        return self.server

    @property
    def postgres(self) -> str:
        """The embedded database's StatefulSet and Service."""
        return f"{self.server}-postgres"

    @property
    def postgres_data(self) -> str:
        """The embedded database's volume."""
        return f"{self.server}-postgres-data"

    @property
    def artifact_store(self) -> str:
        """The embedded artifact store's StatefulSet and Service."""
        return f"{self.server}-artifacts"

    @property
    def artifact_store_data(self) -> str:
        """The embedded artifact store's volume."""
        return f"{self.server}-artifacts-data"

    @property
    def database_secret(self) -> str:
        """The generated credentials of the embedded database: data, kept when the resource goes."""
        return f"{self.server}-database"

    @property
    def artifacts_secret(self) -> str:
        """The generated credentials of the embedded artifact store: data, kept when the resource goes."""
        return f"{self.server}-artifacts"

    @property
    def server_secret(self) -> str:
        """What the operator computes for the server's pods out of other Secrets; made anew at will."""
        return f"{self.server}-server"

    @property
    def plugin(self) -> str:
        """The ConfigMap with the files that keep artifacts behind the server."""
        return f"{self.server}-server"

    @property
    def client(self) -> str:
        """The ConfigMap that clients take as `envFrom`, and the Secret, where they are given keys."""
        return f"{self.server}-client"

    @property
    def backup(self) -> str:
        """The CronJob that backs the database up."""
        return f"{self.server}-backup"

    def backup_before(self, inputs: str) -> str:
        """The Job that backs the database up before its tables move; `inputs` as for `migration`."""
        return f"{self.backup}-{inputs}"

    @property
    def garbage_collection(self) -> str:
        """The CronJob that removes what was deleted long ago."""
        return f"{self.server}-gc"

    def preflight(self, inputs: str) -> str:
        """The Job that asks an image whether it can take over; `inputs` as for `migration`."""
        return f"{self.server}-preflight-{inputs}"

    def restore(self, inputs: str) -> str:
        """The Job that puts a backup into the empty database; `inputs` as for `migration`."""
        return f"{self.server}-restore-{inputs}"

    def migration(self, inputs: str) -> str:
        """The Job that brings the schema up; `inputs` is the eight-character hash of what it depends on."""
        return f"{self.server}-migrate-{inputs}"
