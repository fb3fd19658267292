"""Environment variables and volumes of pods that run MLflow: the server and the migration."""

from mlflow_operator.api.artifacts import ArtifactAccess
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import container_parts, plugins, provisioning
from mlflow_operator.model.server import ObjectStore, SecretKey, Server

RUN_AS_USER = 10001
"""The official image sets no USER and would run as root."""

PORT = 5000
BACKEND_STORE_KEY = "backend-store-uri"
"""Key of the Secret `<name>-server` with the connection URI of the current database."""
ARTIFACTS_DESTINATION_ENV, S3_ENDPOINT_ENV = "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_S3_ENDPOINT_URL"
"""Environment variables with the artifact location and the S3 endpoint."""
UPLOAD_ARGUMENTS_ENV = "MLFLOW_S3_UPLOAD_EXTRA_ARGS"
"""Environment variable with arguments of boto3 for uploads, as JSON."""
PRESIGNED_ENV = ("MLFLOW_ENABLE_PROXY_MULTIPART_UPLOAD", "MLFLOW_ENABLE_PROXY_MULTIPART_DOWNLOAD")
"""Environment variables with which a server offers presigned URLs for uploads and downloads."""
TELEMETRY_ENV = "MLFLOW_DISABLE_TELEMETRY"
"""Environment variable that turns off MLflow's usage data, also that of its web UI."""
WORKERS_ENV, JOB_EXECUTION_ENV = "MLFLOW_WORKERS", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"
"""Environment variables with the number of worker processes, and whether the server runs background jobs."""
NEXT_STORE_KEY = "next-store-uri"
"""Key of the same Secret with the URI of the next database, while the server is switched to it. Pods whose containers
start during the switch must still find the current database."""

DATABASE_CA_VOLUME, ARTIFACTS_CA_VOLUME = "database-ca", "artifacts-ca"
GRACE_SECONDS = 30
"""Time for requests in progress after SIGTERM. MLflow's default is to wait without a limit."""


def database_env(server: Server, key: str = BACKEND_STORE_KEY) -> list[Object]:
    """Environment of every process that connects to the database. `key` selects the current or the next database."""
    return [
        container_parts.env_from_secret(
            "MLFLOW_BACKEND_STORE_URI", SecretKey(server.names.server_secret, key, "")
        ),
        *container_parts.home_env(),
        *_telemetry_env(server),
    ]


def _telemetry_env(server: Server) -> list[Object]:
    """Many specs set this variable in `spec.env`, where it takes precedence."""
    if server.telemetry or any(variable["name"] == TELEMETRY_ENV for variable in server.env):
        return []
    return [container_parts.env_value(TELEMETRY_ENV, "true")]


def artifact_env(server: Server) -> list[Object]:
    """Environment of the process that serves artifacts."""
    env = [
        container_parts.env_value("MLFLOW_SERVE_ARTIFACTS", "true"),
        container_parts.env_value(ARTIFACTS_DESTINATION_ENV, server.artifacts.store.uri),
    ]
    if server.artifacts.s3:
        env += [*s3_env(server.artifacts.s3), *upload_env(server.artifacts.s3)]
    if server.artifacts.access is ArtifactAccess.DIRECT:
        # The server still serves artifacts, for older experiments and for the web UI.
        env.append(container_parts.env_value("MLFLOW_DEFAULT_ARTIFACT_ROOT", server.artifacts.store.uri))
    if server.artifacts.access is ArtifactAccess.PRESIGNED:
        # Since MLflow 3.18, a server offers presigned URLs only with these variables. Earlier servers ignore them.
        env += [container_parts.env_value(name, "true") for name in PRESIGNED_ENV]
    if plugins.is_needed(server):
        env.append(container_parts.env_value("PYTHONPATH", plugins.PLUGIN_DIR))
        # Keep malloc's threshold fixed: malloc raises it after some large buffers, and artifact chunks would then no
        # longer be returned to the system at once.
        env.append(container_parts.env_value("MALLOC_MMAP_THRESHOLD_", "131072"))
    public_endpoint = plugins.public_endpoint(server.artifacts)
    if public_endpoint:
        env.append(container_parts.env_value(plugins.PUBLIC_ENDPOINT_ENV, public_endpoint))
    return env


def s3_env(store: ObjectStore) -> list[Object]:
    """Environment of an S3 client: endpoint, region and credentials."""
    env = [
        container_parts.env_value("AWS_DEFAULT_REGION", store.region),
        container_parts.env_value("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", store.addressing_style),
    ]
    if store.endpoint:
        env.append(container_parts.env_value(S3_ENDPOINT_ENV, store.endpoint))
    env += [container_parts.env_value(name, value) for name, value in checksum_settings(store).items()]
    if store.access_key and store.secret_key:
        env.append(container_parts.env_from_secret("AWS_ACCESS_KEY_ID", store.access_key))
        env.append(container_parts.env_from_secret("AWS_SECRET_ACCESS_KEY", store.secret_key))
    if store.ca:
        env.append(container_parts.env_value("AWS_CA_BUNDLE", container_parts.ca_path(ARTIFACTS_CA_VOLUME)))
    return env


def checksum_settings(store: ObjectStore) -> dict[str, str]:
    """Environment that makes boto3 send and expect only checksums that S3 requires.

    By default boto3 sends CRCs in trailers, which many stores other than AWS do not support.
    """
    if store.endpoint is None:
        return {}
    return dict.fromkeys(container_parts.OVERRIDABLE_ENV, "when_required")


def upload_env(store: ObjectStore) -> list[Object]:
    """Environment of a process that writes objects: encryption headers, for example."""
    if not store.upload_arguments:
        return []
    return [container_parts.env_value(UPLOAD_ARGUMENTS_ENV, store.upload_arguments)]


def server_env(server: Server) -> list[Object]:
    """Environment of the server process in addition to `database_env` and `artifact_env`."""
    return [
        # pod_scripts/dual_stack.py adds IPv6.
        container_parts.env_value("MLFLOW_HOST", "0.0.0.0"),  # noqa: S104 - the network of the pod
        # For a Service named "mlflow", Kubernetes would set MLFLOW_PORT to tcp://...
        container_parts.env_value("MLFLOW_PORT", str(PORT)),
        container_parts.env_value(WORKERS_ENV, str(server.workers)),
        container_parts.env_value(JOB_EXECUTION_ENV, "true" if server.job_execution else "false"),
        container_parts.env_value("MLFLOW_SERVER_ALLOWED_HOSTS", ",".join(server.allowed_hosts)),
        container_parts.env_value("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", ",".join(server.allowed_origins)),
        container_parts.env_value("MLFLOW_UVICORN_OPTS", f"--timeout-graceful-shutdown {GRACE_SECONDS}"),
        *_pool_env(server),
        *(
            [container_parts.env_value(plugins.ASSISTANT_ENV, "false")]
            if plugins.hides_assistant(server)
            else []
        ),
    ]


def _pool_env(server: Server) -> list[Object]:
    """Settings of the connection pools. They replace those in `spec.env`; other kinds of pools have no such limit."""
    if server.pool is None:
        return []
    return [
        container_parts.env_value(provisioning.POOL_SIZE_ENV, str(server.pool.size)),
        container_parts.env_value(provisioning.MAX_OVERFLOW_ENV, str(server.pool.max_overflow)),
        container_parts.env_value("MLFLOW_SQLALCHEMYSTORE_POOLCLASS", "QueuePool"),
    ]


def database_volumes(server: Server) -> list[Object]:
    """All volumes of a pod that runs MLflow with the database only."""
    volumes = [container_parts.HOME_VOLUME]
    if server.database_ca:
        volumes.append(container_parts.ca_volume(DATABASE_CA_VOLUME, server.database_ca))
    return [*volumes, *server.pods.volumes]


def database_mounts(server: Server) -> list[Object]:
    """Volume mounts for `database_volumes`."""
    mounts = [container_parts.HOME_MOUNT]
    if server.database_ca:
        mounts.append(container_parts.ca_mount(DATABASE_CA_VOLUME))
    return [*mounts, *server.volume_mounts]


def artifact_volumes(server: Server) -> list[Object]:
    """Additional volumes of a pod that serves artifacts."""
    volumes = []
    store = server.artifacts.s3
    if store and store.ca:
        volumes.append(container_parts.ca_volume(ARTIFACTS_CA_VOLUME, store.ca))
    if plugins.is_needed(server):
        volumes.append(plugins.volume(server))
    return volumes


def artifact_mounts(server: Server) -> list[Object]:
    """Volume mounts for `artifact_volumes`."""
    mounts = []
    store = server.artifacts.s3
    if store and store.ca:
        mounts.append(container_parts.ca_mount(ARTIFACTS_CA_VOLUME))
    if plugins.is_needed(server):
        mounts.append(plugins.MOUNT)
    return mounts
