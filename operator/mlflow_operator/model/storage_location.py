"""The storage location of a server in its status: for users, and to detect that the spec points to another one."""

from typing import NamedTuple

from mlflow_operator.kube.objects import Object
from mlflow_operator.model import mlflow_env
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.model.server import (
    Artifacts,
    ClusterDatabase,
    Database,
    EmbeddedDatabase,
    ExternalDatabase,
    ProvisionedDatabase,
    Server,
)

PROVISION, PLATFORM = "Provision", "Platform"
PROVISIONED_TYPES = frozenset({PROVISION, PLATFORM})
"""Types of databases that the operator creates on a shared Postgres."""

_TYPES = {
    EmbeddedDatabase: "Embedded",
    ExternalDatabase: "External",
    ProvisionedDatabase: PROVISION,
    ClusterDatabase: "CloudNativePG",
}


class ArtifactLocation(NamedTuple):
    """Artifact URI and S3 endpoint. The endpoint is empty for AWS, for other stores, or if it is unknown."""

    uri: str
    endpoint: str

    def as_object(self) -> Object:
        """The location in the status."""
        return {"uri": self.uri, **({"endpoint": self.endpoint} if self.endpoint else {})}


def status_fields(server: Server, connection: Connection) -> Object:
    """The fields `database` and `artifacts` of the status."""
    return {
        "database": {
            "type": _database_type(server.database),
            "host": connection.host,
            "port": connection.port,
            "name": connection.database,
        },
        "artifacts": {
            "type": _artifacts_type(server.artifacts),
            **desired_artifact_location(server.artifacts).as_object(),
        },
    }


def _database_type(database: Database) -> str:
    is_of_platform = isinstance(database, ProvisionedDatabase) and database.origin
    return PLATFORM if is_of_platform else _TYPES[type(database)]


def _artifacts_type(artifacts: Artifacts) -> str:
    if artifacts.embedded:
        return "Embedded"
    if artifacts.s3 is None:
        return "External"
    return PLATFORM if artifacts.s3.origin else "S3"


def is_recorded_database(recorded: Object, connection: Connection) -> bool:
    """Whether `connection` leads to the database in the status; False if the status contains none.

    A status from before ports were recorded matches any port.
    """
    location = (connection.host, connection.port, connection.database)
    return (recorded.get("host"), recorded.get("port", connection.port), recorded.get("name")) == location


def is_same_database(first: Object, second: Object) -> bool:
    """Whether two values of `status.database` are the same database. A missing port matches any port."""
    ports = {place["port"] for place in (first, second) if place.get("port")}
    return len(ports) < 2 and all(first.get(key) == second.get(key) for key in ("host", "name"))


def database_changed(status: Object, connection: Connection) -> bool:
    """Whether the status contains another database than the one of `connection`."""
    recorded = status.get("database") or {}
    return bool(recorded.get("host")) and not is_recorded_database(recorded, connection)


def desired_artifact_location(artifacts: Artifacts) -> ArtifactLocation:
    """The artifact location of the spec."""
    return ArtifactLocation(artifacts.store.uri, (artifacts.s3.endpoint if artifacts.s3 else None) or "")


def recorded_artifact_locations(status: Object) -> list[ArtifactLocation]:
    """The artifact locations in the status: the one of the last pods first, then the previous ones."""
    current = status.get("artifacts") or {}
    recorded = [current, *(current.get("previousLocations") or ())]
    locations = (
        ArtifactLocation(str(each.get("uri") or ""), str(each.get("endpoint") or "")) for each in recorded
    )
    return [location for location in dict.fromkeys(locations) if location.uri]


def same_artifact_location(deployment: Object | None, artifacts: Artifacts) -> bool:
    """Whether the existing pods use the desired artifact location; True if there is no Deployment."""
    return deployment is None or artifact_location(_pod_spec(deployment)) == desired_artifact_location(
        artifacts
    )


def artifact_location(pod: Object) -> ArtifactLocation:
    """The artifact location in the environment of a pod spec."""
    env = {
        variable["name"]: str(variable.get("value") or "")
        for container in pod.get("containers") or ()
        for variable in container.get("env") or ()
    }
    return ArtifactLocation(
        env.get(mlflow_env.ARTIFACTS_DESTINATION_ENV, ""), env.get(mlflow_env.S3_ENDPOINT_ENV, "")
    )


def _pod_spec(deployment: Object) -> Object:
    pod_spec: Object = deployment["spec"]["template"]["spec"]
    return pod_spec


def as_text(database: Object) -> str:
    """A database of the status as `host:port/name`, or without the port if it is unknown."""
    port = f":{database['port']}" if database.get("port") else ""
    return f"{database.get('host')}{port}/{database.get('name')}"
