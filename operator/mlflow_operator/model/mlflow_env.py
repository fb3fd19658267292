"""The environment in which MLflow runs, as server and as migration alike."""

from mlflow_operator.kube.objects import Object
from mlflow_operator.model import plugins, pod_template
from mlflow_operator.model.allowed_hosts import origins
from mlflow_operator.model.server import Access, ObjectStore, SecretKey, Server

USER = 10001
"""The official image names no user and would run as root."""

PORT = 5000
BACKEND_STORE_KEY = "backend-store-uri"
"""Key of the Secret `<name>-server` that holds the connection URI."""
DESTINATION, ENDPOINT = "MLFLOW_ARTIFACTS_DESTINATION", "MLFLOW_S3_ENDPOINT_URL"
"""Variables that say where artifacts are kept."""
NEXT_STORE_KEY = "next-store-uri"
"""Key there, while the server is to move to another database: that one's URI. Pods whose containers start meanwhile
must still find the one that the server is on."""

DATABASE_TRUST, ARTIFACTS_TRUST = "database-ca", "artifacts-ca"
GRACE_SECONDS = 30
"""How long requests under way may take after SIGTERM; MLflow itself would wait without end."""


def database_env(server: Server, key: str = BACKEND_STORE_KEY) -> list[Object]:
    """What any process that speaks to the database needs; `key` says which database."""
    return [
        pod_template.from_secret("MLFLOW_BACKEND_STORE_URI", SecretKey(server.names.server_secret, key, "")),
        *pod_template.home_env(),
    ]


def artifact_env(server: Server) -> list[Object]:
    """What the process that serves artifacts needs."""
    env = [
        pod_template.value("MLFLOW_SERVE_ARTIFACTS", "true"),
        pod_template.value(DESTINATION, server.artifacts.store.uri),
    ]
    if server.artifacts.s3:
        env += s3_env(server.artifacts.s3)
    if server.artifacts.access is Access.DIRECT:
        # artifacts are served all the same, for experiments from before and for the page
        env.append(pod_template.value("MLFLOW_DEFAULT_ARTIFACT_ROOT", server.artifacts.store.uri))
    if plugins.wanted(server.artifacts):
        env.append(pod_template.value("PYTHONPATH", plugins.PATH))
        # parts of artifacts in transit go back to the system at once, which malloc unlearns when it has seen some
        env.append(pod_template.value("MALLOC_MMAP_THRESHOLD_", "131072"))
    address = plugins.public_address(server.artifacts)
    if address:
        env.append(pod_template.value(plugins.PUBLIC_ADDRESS, address))
    return env


def s3_env(store: ObjectStore) -> list[Object]:
    """How a store is reached, and what opens it."""
    env = [
        pod_template.value("AWS_DEFAULT_REGION", store.region),
        pod_template.value("MLFLOW_BOTO_CLIENT_ADDRESSING_STYLE", store.addressing_style),
    ]
    if store.endpoint:
        env.append(pod_template.value(ENDPOINT, store.endpoint))
    if store.access_key and store.secret_key:
        env.append(pod_template.from_secret("AWS_ACCESS_KEY_ID", store.access_key))
        env.append(pod_template.from_secret("AWS_SECRET_ACCESS_KEY", store.secret_key))
    if store.ca:
        env.append(pod_template.value("AWS_CA_BUNDLE", pod_template.trust_path(ARTIFACTS_TRUST)))
    return env


def server_env(server: Server) -> list[Object]:
    """What the server itself needs on top."""
    return [
        pod_template.value("MLFLOW_HOST", "0.0.0.0"),  # noqa: S104 - a pod's own network
        # a Service called "mlflow" would have Kubernetes set this to tcp://... otherwise
        pod_template.value("MLFLOW_PORT", str(PORT)),
        pod_template.value("MLFLOW_WORKERS", str(server.workers)),
        pod_template.value("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "true" if server.job_execution else "false"),
        pod_template.value("MLFLOW_SERVER_ALLOWED_HOSTS", ",".join(server.allowed_hosts)),
        pod_template.value("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", ",".join(origins(server.allowed_hosts))),
        pod_template.value("MLFLOW_UVICORN_OPTS", f"--timeout-graceful-shutdown {GRACE_SECONDS}"),
    ]


def database_volumes(server: Server) -> list[Object]:
    """Every volume of a pod that runs MLflow on the database alone."""
    found = [pod_template.HOME_VOLUME]
    if server.database_ca:
        found.append(pod_template.trust_volume(DATABASE_TRUST, server.database_ca))
    return [*found, *server.pods.volumes]


def database_mounts(server: Server) -> list[Object]:
    """Where `database_volumes` are found."""
    found = [pod_template.HOME_MOUNT]
    if server.database_ca:
        found.append(pod_template.trust_mount(DATABASE_TRUST))
    return [*found, *server.volume_mounts]


def artifact_volumes(server: Server) -> list[Object]:
    """What a pod that serves artifacts has on top."""
    found = []
    store = server.artifacts.s3
    if store and store.ca:
        found.append(pod_template.trust_volume(ARTIFACTS_TRUST, store.ca))
    if plugins.wanted(server.artifacts):
        found.append(plugins.volume(server))
    return found


def artifact_mounts(server: Server) -> list[Object]:
    """Where `artifact_volumes` are found."""
    found = []
    store = server.artifacts.s3
    if store and store.ca:
        found.append(pod_template.trust_mount(ARTIFACTS_TRUST))
    if plugins.wanted(server.artifacts):
        found.append(plugins.MOUNT)
    return found
