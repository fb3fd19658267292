"""Contracts of the images that tests and the operator rely on, as listed in tests/cluster/README.md.

Each test runs the image that Docker has under the published reference: the published image if it can be pulled, a
stand-in otherwise. The contracts therefore apply to both.
"""

import ast
import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import psycopg
import pytest
import requests

from tests.cluster import network, settings
from tests.containers import docker

PINS = settings.read_pins(settings.ROOT / "versions.env")
MLFLOW, POSTGRES, MINIO = PINS["IMAGE_MLFLOW"], PINS["IMAGE_POSTGRES"], PINS["IMAGE_MINIO"]
SEAWEEDFS = PINS["IMAGE_SEAWEEDFS"]
BUSYBOX, PYTHON, REGISTRY = PINS["IMAGE_BUSYBOX"], PINS["IMAGE_PYTHON"], PINS["IMAGE_REGISTRY"]
TOXIPROXY, PGBOUNCER = PINS["IMAGE_TOXIPROXY"], PINS["IMAGE_PGBOUNCER"]
OPERATOR = settings.load().operator_image
ANY_USER = "1000740000:0"
READY_TIMEOUT_SECONDS = 60
PASSWORD = "right"

StartContainer = Callable[..., str]


def image_config(reference: str) -> dict[str, Any]:
    """The configuration of an image: user, entrypoint, ports, volumes."""
    config: dict[str, Any] = json.loads(docker("image", "inspect", "-f", "{{json .Config}}", reference))
    return config


def run_script(reference: str, script: str, *flags: str) -> str:
    """Run a script in the image as an arbitrary user without capabilities; return its output."""
    options = ("--rm", "--network", "none", "--user", ANY_USER, "--cap-drop", "ALL", *flags)
    return docker("run", *options, "--entrypoint", "sh", reference, "-ec", script)


def wait_until(condition: Callable[[], bool], container: str) -> None:
    """Wait until the condition holds. After READY_TIMEOUT_SECONDS fail with the container's log."""
    deadline = time.monotonic() + READY_TIMEOUT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(docker("logs", container))
        time.sleep(0.2)


@pytest.fixture
def start() -> Iterator[StartContainer]:
    """Function that starts a container as an arbitrary user with a read-only root file system."""
    containers: list[str] = []

    def run(reference: str, *argv: str, flags: tuple[str, ...] = (), user: str = ANY_USER) -> str:
        options = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
        name = docker(
            "run", "-d", "--network", network.NAME, "--user", user, *options, *flags, reference, *argv
        )
        containers.append(name)
        return name

    yield run
    for name in containers:
        docker("rm", "-f", "-v", name)


def container_address(container: str) -> str:
    """The container's address on the network of the tests."""
    template = f'{{{{(index .NetworkSettings.Networks "{network.NAME}").IPAddress}}}}'
    return docker("inspect", "-f", template, container)


SCRATCH_MOUNTS = (
    "--tmpfs",
    "/tmp:mode=1777",
    "--tmpfs",
    "/var/run/postgresql:mode=1777",
    "--tmpfs",
    "/data:mode=1777",
)


def psql(container: str, query: str, *, password: str = PASSWORD) -> str:
    """Execute a query over TCP with a password; return the output of psql."""
    login = (
        "-e",
        f"PGPASSWORD={password}",
        container,
        "psql",
        "-h",
        "127.0.0.1",
        "-U",
        "owner",
        "-d",
        "tracking",
    )
    return docker("exec", *login, "-Atc", query, check=False)


def test_postgres_is_configured_by_its_environment(start: StartContainer, tmp_path: Path) -> None:
    """POSTGRES_USER, _PASSWORD, _DB, _INITDB_ARGS and PGDATA; init scripts; `-c`. It runs as any user."""
    environment = {
        "POSTGRES_USER": "owner",
        "POSTGRES_PASSWORD": "right",
        "POSTGRES_DB": "tracking",
        "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C.UTF-8 --auth-host=scram-sha-256",
        "PGDATA": "/data/pgdata",
    }
    (tmp_path / "first.sql").write_text("create table created_by_init_script (i int)")
    tmp_path.chmod(0o755)
    env = (part for pair in environment.items() for part in ("-e", "=".join(pair)))
    flags = (*SCRATCH_MOUNTS, *env, "-v", f"{tmp_path}:/docker-entrypoint-initdb.d:ro")
    database = start(POSTGRES, "-c", "max_connections=37", flags=flags)
    wait_until(lambda: psql(database, "select 1") == "1", database)
    assert psql(database, "select count(*) from created_by_init_script") == "0"
    assert psql(database, "show max_connections") == "37"
    assert psql(database, "show server_version").startswith("17.")
    assert psql(database, "show server_encoding") == "UTF8"
    assert psql(database, "show data_directory") == "/data/pgdata"
    assert "authentication failed" in psql(database, "select 1", password="wrong")
    assert psql(database, "select usesuper from pg_user where usename = 'owner'") == "t"


def test_postgres_reads_password_file_and_keeps_data(start: StartContainer, tmp_path: Path) -> None:
    """POSTGRES_PASSWORD_FILE. A second start with the same data neither initializes it nor needs the password."""
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_text("right")
    mounts = (*SCRATCH_MOUNTS[:4], "-v", f"{tmp_path}:/kept", "-e", "PGDATA=/kept/data")
    env = (
        "-e",
        "POSTGRES_PASSWORD_FILE=/kept/secret",
        "-e",
        "POSTGRES_USER=owner",
        "-e",
        "POSTGRES_DB=tracking",
    )
    first = start(POSTGRES, flags=(*mounts, *env))
    wait_until(lambda: psql(first, "create table t (i int)") == "CREATE TABLE", first)
    docker("stop", first)
    second = start(POSTGRES, flags=mounts)
    wait_until(lambda: psql(second, "select count(*) from t") == "0", second)
    assert "initdb" not in docker("logs", second)


def test_postgres_without_password_fails(start: StartContainer) -> None:
    """The error names the missing variable. The database is not started without a password."""
    database = start(POSTGRES, flags=SCRATCH_MOUNTS)
    assert docker("wait", database) == "1"
    assert "POSTGRES_PASSWORD" in docker("logs", database)


def test_postgres_stops_with_fast_shutdown() -> None:
    """SIGINT is Postgres' fast shutdown; SIGTERM would wait until all clients disconnect."""
    assert image_config(POSTGRES)["StopSignal"] == "SIGINT"
    assert "5432/tcp" in image_config(POSTGRES)["ExposedPorts"]
    programs = "pg_dump psql pg_isready initdb"
    assert run_script(
        POSTGRES, f"id -u postgres; for p in {programs}; do command -v $p; done | wc -l"
    ).split() == ["999", "4"]


@pytest.mark.parametrize("files", [False, True], ids=["environment", "files"])
def test_minio_serves_s3_and_console(start: StartContainer, tmp_path: Path, files: bool) -> None:
    """`server /data --console-address` as any user; root user and password from both sources; health; ports."""
    login = {"access_key": "owner", "secret_key": "right-and-long"}
    for name, value in login.items():
        (tmp_path / name).write_text(value)
    tmp_path.chmod(0o755)
    user, password = login.values()
    env = ("-e", f"MINIO_ROOT_USER={user}", "-e", f"MINIO_ROOT_PASSWORD={password}")
    flags = ("-v", f"{tmp_path}:/run/secrets:ro") if files else env
    store = start(
        MINIO,
        "server",
        "/data",
        "--console-address",
        ":9001",
        flags=(*SCRATCH_MOUNTS, *flags, "-e", "HOME=/tmp"),
    )
    url = f"http://{container_address(store)}"

    def is_live() -> bool:
        try:
            pages = (":9000/minio/health/ready", ":9000/minio/health/live", ":9001/")
            return all(requests.get(url + page, timeout=2).ok for page in pages)
        except requests.ConnectionError:
            return False

    wait_until(is_live, store)
    assert _buckets(f"{url}:9000", user, password) == []
    with pytest.raises(Exception, match=r"InvalidAccessKeyId|SignatureDoesNotMatch"):
        _buckets(f"{url}:9000", user, "wrong-and-long")


@pytest.mark.usefixtures("test_images")
def test_seaweedfs_serves_configured_users_and_keeps_data(start: StartContainer, tmp_path: Path) -> None:
    """`server -s3 -s3.config` as an arbitrary user. Options after those of the entrypoint override them.

    Objects and users that were created at runtime exist after a restart.
    """
    login = {"accessKey": "owner", "secretKey": "right-and-long"}
    users = {"identities": [{"name": "owner", "credentials": [login], "actions": ["Admin"]}]}
    (tmp_path / "users").mkdir()
    (tmp_path / "users" / "s3.json").write_text(json.dumps(users))
    (tmp_path / "data").mkdir()
    (tmp_path / "data").chmod(0o777)
    tmp_path.chmod(0o755)
    mounts = (
        "-v",
        f"{tmp_path}/users:/users:ro",
        "-v",
        f"{tmp_path}/data:/data",
        "--tmpfs",
        "/tmp:mode=1777",
        "--sysctl",
        "net.ipv6.conf.all.disable_ipv6=0",
        "--sysctl",
        "net.ipv6.conf.lo.disable_ipv6=0",
    )
    arguments = (
        "server",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        "-master.peers=none",
        "-master.volumeSizeLimitMB=64",
        "-master.telemetry=false",
        "-s3",
        "-s3.config=/users/s3.json",
        "-s3.ip.bind=0.0.0.0",
        "-s3.port=9000",
        "-s3.iam=true",
        "-s3.iam.readOnly=false",
    )

    def start_store() -> str:
        store = start(SEAWEEDFS, *arguments, flags=mounts)
        url = f"http://{container_address(store)}:9000"

        def is_live() -> bool:
            try:
                return requests.get(f"{url}/healthz", timeout=2).ok
            except requests.ConnectionError:
                return False

        wait_until(is_live, store)
        # With 0.0.0.0, Go's listener accepts IPv6 connections, too.
        docker("exec", store, "curl", "-sf", "http://[::1]:9000/healthz")
        assert "Volume Size Limit is 64 MB" in docker("logs", store)
        return store

    first = start_store()
    s3 = _s3_client(f"http://{container_address(first)}:9000", "owner", "right-and-long")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="a/b", Body=b"text")
    with pytest.raises(Exception, match=r"InvalidAccessKeyId|SignatureDoesNotMatch"):
        _buckets(f"http://{container_address(first)}:9000", "owner", "wrong-and-long")
    iam = _client("iam", f"http://{container_address(first)}:9000", "owner", "right-and-long")
    iam.create_user(UserName="created")
    with pytest.raises(requests.ConnectionError):  # The filer has no access control.
        requests.get(f"http://{container_address(first)}:8888/", timeout=2)
    docker("stop", "--time", "10", first)
    second = f"http://{container_address(start_store())}:9000"
    s3 = _s3_client(second, "owner", "right-and-long")
    iam_users = _client("iam", second, "owner", "right-and-long").list_users()["Users"]
    assert "created" in [user["UserName"] for user in iam_users]
    assert s3.get_object(Bucket="kept", Key="a/b")["Body"].read() == b"text"


@pytest.mark.usefixtures("test_images")
def test_seaweedfs_has_pinned_version_and_curl() -> None:
    """The image sets no user (its entrypoint does), and declares the volume /data."""
    assert f" {PINS['SEAWEEDFS']} " in run_script(SEAWEEDFS, "weed version; command -v curl")
    assert image_config(SEAWEEDFS)["Entrypoint"] == ["/entrypoint.sh"]
    assert "/data" in image_config(SEAWEEDFS)["Volumes"]
    assert not image_config(SEAWEEDFS).get("User")


def _buckets(endpoint: str, user: str, password: str) -> list[Any]:
    buckets: list[Any] = _s3_client(endpoint, user, password).list_buckets()["Buckets"]
    return buckets


def _s3_client(endpoint: str, user: str, password: str) -> Any:
    return _client("s3", endpoint, user, password)


def _client(service: Literal["s3", "iam"], endpoint: str, user: str, password: str) -> Any:
    import boto3  # noqa: PLC0415  The import takes half a second, which most tests do not need.

    return boto3.client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=user,
        aws_secret_access_key=password,
        region_name="us-east-1",
    )


def test_mlflow_contains_server_and_drivers() -> None:
    """The pinned version, `mlflow` and `python` on PATH, and the modules of a tracking server with Postgres and S3."""
    modules = "psycopg, psycopg2, boto3, prometheus_flask_exporter, flask_wtf"
    home = "export HOME=/tmp MPLCONFIGDIR=/tmp;"
    assert run_script(MLFLOW, f"{home} mlflow --version", "--tmpfs", "/tmp").endswith(PINS["MLFLOW"])
    assert run_script(MLFLOW, f"{home} python -c 'import {modules}' && echo all", "--tmpfs", "/tmp").endswith(
        "all"
    )


def test_mlflow_sets_neither_user_nor_entrypoint() -> None:
    """The pod sets both."""
    assert not image_config(MLFLOW).get("Entrypoint")
    assert not image_config(MLFLOW).get("User")


def test_mlflow_reference_and_pin_have_the_same_version() -> None:
    """The image's tag and the stand-in's pin are equal, and uv.lock has the client whose packages the stand-in has."""
    assert f":v{PINS['MLFLOW']}-full" in MLFLOW
    lock = (settings.ROOT / "uv.lock").read_text()
    # The program of the image, which needs pip, has the replacement for packages that the package index lacks.
    program = (settings.ROOT / "tests" / "cluster" / "images" / "mlflow" / "install.py").read_text()
    replaced = next(line for line in program.splitlines() if line.startswith("PARTS = "))
    replacements = ast.literal_eval(replaced.removeprefix("PARTS = "))
    client = replacements.get(PINS["MLFLOW"], PINS["MLFLOW"])
    for package in ("mlflow", "mlflow-skinny", "mlflow-tracing"):
        assert f'name = "{package}"\nversion = "{client}"' in lock


def test_busybox_has_programs_of_tests() -> None:
    """A shell and the programs for checks within the cluster."""
    assert (
        run_script(BUSYBOX, "for p in wget nslookup nc sleep cat id; do command -v $p; done | wc -l") == "6"
    )


def test_python_paths_and_version() -> None:
    """In /usr/local/bin, with pip, and with the minor version in the tag."""
    minor = PYTHON.split(":")[1].split("-")[0]
    output = run_script(PYTHON, "/usr/local/bin/python3 --version; python --version; pip --version")
    assert output.count(f"Python {minor}.") == 2
    assert f"python {minor}" in output


def test_registry_port_and_volume() -> None:
    """`make cluster` relies on both when it starts the local registry."""
    assert "5000/tcp" in image_config(REGISTRY)["ExposedPorts"]
    assert "/var/lib/registry" in image_config(REGISTRY)["Volumes"]


@pytest.mark.usefixtures("test_images")
def test_toxiproxy_can_be_controlled_by_its_api(start: StartContainer) -> None:
    """The entrypoint starts it as an arbitrary user, the API listens on port 8474, and proxies can be disabled."""
    version = TOXIPROXY.rsplit(":", 1)[1]
    proxy = start(TOXIPROXY)
    url = f"http://{container_address(proxy)}"

    def has_version() -> bool:
        try:
            response = requests.get(f"{url}:8474/version", timeout=2).json()
            return bool(response["version"] == version)
        except requests.ConnectionError:
            return False

    wait_until(has_version, proxy)
    proxy_to_api = {"name": "api", "listen": ":9000", "upstream": "127.0.0.1:8474"}
    assert requests.post(f"{url}:8474/proxies", json=proxy_to_api, timeout=5).ok
    assert requests.get(f"{url}:9000/version", timeout=5).ok
    assert requests.post(f"{url}:8474/proxies/api", json={"enabled": False}, timeout=5).ok
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{url}:9000/version", timeout=5)


@pytest.mark.usefixtures("test_images")
def test_pgbouncer_reads_its_configuration_file(start: StartContainer, tmp_path: Path) -> None:
    """It runs as an arbitrary user with /etc/pgbouncer/pgbouncer.ini. Its console shows the settings from that file."""
    general = ["[pgbouncer]", "listen_addr = *", "listen_port = 6432", "pool_mode = transaction"]
    access = ["auth_type = any", "admin_users = admin", "unix_socket_dir ="]
    (tmp_path / "pgbouncer.ini").write_text("\n".join([*general, *access, ""]))
    tmp_path.chmod(0o755)
    pooler = start(PGBOUNCER, flags=("-v", f"{tmp_path}:/etc/pgbouncer:ro"))
    console = f"host={container_address(pooler)} port=6432 dbname=pgbouncer user=admin"

    def is_listening() -> bool:
        try:
            psycopg.connect(console).close()
        except psycopg.OperationalError:
            return False
        return True

    wait_until(is_listening, pooler)
    with psycopg.connect(console, autocommit=True) as session:
        config = {row[0]: row[1] for row in session.execute("SHOW CONFIG")}
    assert config["pool_mode"] == "transaction"


def test_containers_have_no_internet_access(start: StartContainer) -> None:
    """The kernel refuses connections immediately, without a timeout."""
    script = "wget -T 20 -O- http://1.1.1.1/ 2>&1 || true"
    container = start(BUSYBOX, "sh", "-c", script)
    docker("wait", container)
    assert "Connection refused" in docker("logs", container)


def test_operator_runs_as_any_user_with_read_only_root(start: StartContainer) -> None:
    """The image's user is numeric and not root, and the command works with any user."""
    assert image_config(OPERATOR)["User"].split(":")[0].isdigit()
    assert image_config(OPERATOR)["User"].split(":")[0] != "0"
    operator = start(OPERATOR, "--help")
    assert docker("wait", operator) == "0", docker("logs", operator)


def test_operator_is_small_and_does_not_contain_mlflow() -> None:
    """Less than 150 MB on top of its base image, and no MLflow, which would have to be updated with each release."""
    sizes = [int(docker("image", "inspect", "-f", "{{.Size}}", image)) for image in (OPERATOR, PYTHON)]
    assert sizes[0] - sizes[1] < 150e6
    program = "import importlib.util as u; print(u.find_spec('mlflow'))"
    assert run_script(OPERATOR, f'python -c "{program}"') == "None"


def test_registry_returns_404_for_missing_image() -> None:
    """The kubelet then reports ErrImagePull."""
    address = docker("port", f"{settings.CLUSTER}-registry", "5000").splitlines()[0]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{address}/v2/mlflow/mlflow/manifests/v0.0.0", timeout=5)
