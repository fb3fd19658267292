"""The images in use keep the promises of the published ones, as README.md beside this file lists them.

Each test runs the image that docker holds under the published reference: a stand-in where none can be
pulled, the published image itself where it can. So the list is held to both.
"""

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
READY = 60
RIGHT = "right"

Run = Callable[..., str]


def config(reference: str) -> dict[str, Any]:
    """How the image says it is to be run."""
    found: dict[str, Any] = json.loads(docker("image", "inspect", "-f", "{{json .Config}}", reference))
    return found


def shell(reference: str, script: str, *flags: str) -> str:
    """What a script prints inside the image, as an arbitrary user without rights."""
    closed = ("--rm", "--network", "none", "--user", ANY_USER, "--cap-drop", "ALL", *flags)
    return docker("run", *closed, "--entrypoint", "sh", reference, "-ec", script)


def until(question: Callable[[], bool], container: str) -> None:
    """Wait for a yes, for at most READY seconds; else fail with what the container had to say."""
    deadline = time.monotonic() + READY
    while not question():
        if time.monotonic() > deadline:
            pytest.fail(docker("logs", container))
        time.sleep(0.2)


@pytest.fixture
def start() -> Iterator[Run]:
    """Start a container as an arbitrary user on a read-only root; it is removed after the test."""
    started: list[str] = []

    def run(reference: str, *argv: str, flags: tuple[str, ...] = (), user: str = ANY_USER) -> str:
        closed = ("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--read-only")
        name = docker(
            "run", "-d", "--network", network.NAME, "--user", user, *closed, *flags, reference, *argv
        )
        started.append(name)
        return name

    yield run
    for name in started:
        docker("rm", "-f", "-v", name)


def address(container: str) -> str:
    """Where a container of ours is reached from this machine."""
    form = f'{{{{(index .NetworkSettings.Networks "{network.NAME}").IPAddress}}}}'
    return docker("inspect", "-f", form, container)


SCRATCH = (
    "--tmpfs",
    "/tmp:mode=1777",
    "--tmpfs",
    "/var/run/postgresql:mode=1777",
    "--tmpfs",
    "/data:mode=1777",
)


def psql(container: str, query: str, *, password: str = RIGHT) -> str:
    """The answer of Postgres over TCP, with a password."""
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


def test_postgres_serves_what_its_environment_asks_for_as_any_user(start: Run, tmp_path: Path) -> None:
    """POSTGRES_USER, _PASSWORD, _DB, _INITDB_ARGS and PGDATA; first-start scripts; `-c`; no root of any kind."""
    environment = {
        "POSTGRES_USER": "owner",
        "POSTGRES_PASSWORD": "right",
        "POSTGRES_DB": "tracking",
        "POSTGRES_INITDB_ARGS": "--encoding=UTF8 --locale=C.UTF-8 --auth-host=scram-sha-256",
        "PGDATA": "/data/pgdata",
    }
    (tmp_path / "first.sql").write_text("create table made_at_first_start (i int)")
    tmp_path.chmod(0o755)
    named = (part for pair in environment.items() for part in ("-e", "=".join(pair)))
    flags = (*SCRATCH, *named, "-v", f"{tmp_path}:/docker-entrypoint-initdb.d:ro")
    database = start(POSTGRES, "-c", "max_connections=37", flags=flags)
    until(lambda: psql(database, "select 1") == "1", database)
    assert psql(database, "select count(*) from made_at_first_start") == "0"
    assert psql(database, "show max_connections") == "37"
    assert psql(database, "show server_version").startswith("17.")
    assert psql(database, "show server_encoding") == "UTF8"
    assert psql(database, "show data_directory") == "/data/pgdata"
    assert "authentication failed" in psql(database, "select 1", password="wrong")
    assert psql(database, "select usesuper from pg_user where usename = 'owner'") == "t"


def test_postgres_takes_its_password_from_a_file_and_keeps_its_data(start: Run, tmp_path: Path) -> None:
    """POSTGRES_PASSWORD_FILE; a second start on the same data neither initialises nor asks for a password."""
    tmp_path.chmod(0o777)
    (tmp_path / "secret").write_text("right")
    kept = (*SCRATCH[:4], "-v", f"{tmp_path}:/kept", "-e", "PGDATA=/kept/data")
    named = (
        "-e",
        "POSTGRES_PASSWORD_FILE=/kept/secret",
        "-e",
        "POSTGRES_USER=owner",
        "-e",
        "POSTGRES_DB=tracking",
    )
    first = start(POSTGRES, flags=(*kept, *named))
    until(lambda: psql(first, "create table t (i int)") == "CREATE TABLE", first)
    docker("stop", first)
    second = start(POSTGRES, flags=kept)
    until(lambda: psql(second, "select count(*) from t") == "0", second)
    assert "initdb" not in docker("logs", second)


def test_postgres_without_a_password_says_so_and_ends(start: Run) -> None:
    """A missing password is an error with its name in it, not an open database."""
    database = start(POSTGRES, flags=SCRATCH)
    assert docker("wait", database) == "1"
    assert "POSTGRES_PASSWORD" in docker("logs", database)


def test_postgres_ends_at_once_when_asked_to() -> None:
    """SIGINT is Postgres' fast shutdown; SIGTERM would wait for every client to leave."""
    assert config(POSTGRES)["StopSignal"] == "SIGINT"
    assert "5432/tcp" in config(POSTGRES)["ExposedPorts"]
    programs = "pg_dump psql pg_isready initdb"
    assert shell(
        POSTGRES, f"id -u postgres; for p in {programs}; do command -v $p; done | wc -l"
    ).split() == ["999", "4"]


@pytest.mark.parametrize("files", [False, True], ids=["environment", "files"])
def test_minio_serves_s3_and_its_console_as_any_user(start: Run, tmp_path: Path, files: bool) -> None:
    """`server /data --console-address`; root user and password, either way; health; both ports."""
    login = {"access_key": "owner", "secret_key": "right-and-long"}
    for name, value in login.items():
        (tmp_path / name).write_text(value)
    tmp_path.chmod(0o755)
    user, password = login.values()
    by_name = ("-e", f"MINIO_ROOT_USER={user}", "-e", f"MINIO_ROOT_PASSWORD={password}")
    flags = ("-v", f"{tmp_path}:/run/secrets:ro") if files else by_name
    store = start(
        MINIO, "server", "/data", "--console-address", ":9001", flags=(*SCRATCH, *flags, "-e", "HOME=/tmp")
    )
    where = f"http://{address(store)}"

    def live() -> bool:
        try:
            pages = (":9000/minio/health/ready", ":9000/minio/health/live", ":9001/")
            return all(requests.get(where + page, timeout=2).ok for page in pages)
        except requests.ConnectionError:
            return False

    until(live, store)
    assert _buckets(f"{where}:9000", user, password) == []
    with pytest.raises(Exception, match=r"InvalidAccessKeyId|SignatureDoesNotMatch"):
        _buckets(f"{where}:9000", user, "wrong-and-long")


@pytest.mark.usefixtures("test_images")
def test_seaweedfs_serves_s3_to_the_users_of_its_config_and_keeps_its_data(
    start: Run, tmp_path: Path
) -> None:
    """`server -s3 -s3.config`, as any user; its later options count; what was put is there after a stop, and so are
    users that were made meanwhile."""
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
    )
    words = (
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

    def begun() -> str:
        store = start(SEAWEEDFS, *words, flags=mounts)
        where = f"http://{address(store)}:9000"

        def live() -> bool:
            try:
                return requests.get(f"{where}/healthz", timeout=2).ok
            except requests.ConnectionError:
                return False

        until(live, store)
        assert "Volume Size Limit is 64 MB" in docker("logs", store)
        return store

    first = begun()
    store = _s3(f"http://{address(first)}:9000", "owner", "right-and-long")
    store.create_bucket(Bucket="kept")
    store.put_object(Bucket="kept", Key="a/b", Body=b"text")
    with pytest.raises(Exception, match=r"InvalidAccessKeyId|SignatureDoesNotMatch"):
        _buckets(f"http://{address(first)}:9000", "owner", "wrong-and-long")
    users_of = _client("iam", f"http://{address(first)}:9000", "owner", "right-and-long")
    users_of.create_user(UserName="made")
    with pytest.raises(requests.ConnectionError):  # the filer would give everything to everybody
        requests.get(f"http://{address(first)}:8888/", timeout=2)
    docker("stop", "--time", "10", first)
    second = f"http://{address(begun())}:9000"
    again = _s3(second, "owner", "right-and-long")
    made = _client("iam", second, "owner", "right-and-long").list_users()["Users"]
    assert "made" in [user["UserName"] for user in made]
    assert again.get_object(Bucket="kept", Key="a/b")["Body"].read() == b"text"


@pytest.mark.usefixtures("test_images")
def test_seaweedfs_is_the_pinned_version_with_curl_inside() -> None:
    """Its user is its entrypoint's matter, and /data is its volume."""
    assert f" {PINS['SEAWEEDFS']} " in shell(SEAWEEDFS, "weed version; command -v curl")
    assert config(SEAWEEDFS)["Entrypoint"] == ["/entrypoint.sh"]
    assert "/data" in config(SEAWEEDFS)["Volumes"]
    assert not config(SEAWEEDFS).get("User")


def _buckets(endpoint: str, user: str, password: str) -> list[Any]:
    listed: list[Any] = _s3(endpoint, user, password).list_buckets()["Buckets"]
    return listed


def _s3(endpoint: str, user: str, password: str) -> Any:
    return _client("s3", endpoint, user, password)


def _client(service: Literal["s3", "iam"], endpoint: str, user: str, password: str) -> Any:
    import boto3  # noqa: PLC0415  half a second that the other tests need not wait for

    return boto3.client(
        service,
        endpoint_url=endpoint,
        aws_access_key_id=user,
        aws_secret_access_key=password,
        region_name="us-east-1",
    )


def test_mlflow_holds_its_server_and_the_drivers_of_postgres_and_s3() -> None:
    """The pinned version, `mlflow` and `python` on PATH, and what a tracking server loads."""
    modules = "psycopg, psycopg2, boto3, prometheus_flask_exporter, flask_wtf"
    home = "export HOME=/tmp MPLCONFIGDIR=/tmp;"
    assert shell(MLFLOW, f"{home} mlflow --version", "--tmpfs", "/tmp").endswith(PINS["MLFLOW"])
    assert shell(MLFLOW, f"{home} python -c 'import {modules}' && echo all", "--tmpfs", "/tmp").endswith(
        "all"
    )


def test_mlflow_leaves_user_and_command_to_who_runs_it() -> None:
    """Neither an entrypoint nor a user of its own: what a pod says counts."""
    assert not config(MLFLOW).get("Entrypoint")
    assert not config(MLFLOW).get("User")


def test_mlflow_reference_and_pin_are_the_same_version() -> None:
    """The image's tag, the stand-in's pin and the client of uv.lock can not drift apart."""
    assert f":v{PINS['MLFLOW']}-full" in MLFLOW
    lock = (settings.ROOT / "uv.lock").read_text()
    assert f'name = "mlflow"\nversion = "{PINS["MLFLOW"]}"' in lock


def test_busybox_has_what_tests_use() -> None:
    """A shell and the programs that look around in a cluster."""
    assert shell(BUSYBOX, "for p in wget nslookup nc sleep cat id; do command -v $p; done | wc -l") == "6"


def test_python_is_where_a_dockerfile_expects_it() -> None:
    """/usr/local/bin, with pip, at the minor version of the tag."""
    minor = PYTHON.split(":")[1].split("-")[0]
    said = shell(PYTHON, "/usr/local/bin/python3 --version; python --version; pip --version")
    assert said.count(f"Python {minor}.") == 2
    assert f"python {minor}" in said


def test_registry_serves_at_5000_from_its_volume() -> None:
    """What `make cluster` relies on when it starts the local registry."""
    assert "5000/tcp" in config(REGISTRY)["ExposedPorts"]
    assert "/var/lib/registry" in config(REGISTRY)["Volumes"]


@pytest.mark.usefixtures("test_images")
def test_toxiproxy_passes_on_what_it_is_told_to_as_any_user(start: Run) -> None:
    """Its program is the entrypoint, its API answers everybody at 8474; a proxy passes bytes, and can be cut off."""
    version = TOXIPROXY.rsplit(":", 1)[1]
    proxy = start(TOXIPROXY)
    where = f"http://{address(proxy)}"

    def answers() -> bool:
        try:
            said = requests.get(f"{where}:8474/version", timeout=2).json()
            return bool(said["version"] == version)
        except requests.ConnectionError:
            return False

    until(answers, proxy)
    to_itself = {"name": "itself", "listen": ":9000", "upstream": "127.0.0.1:8474"}
    assert requests.post(f"{where}:8474/proxies", json=to_itself, timeout=5).ok
    assert requests.get(f"{where}:9000/version", timeout=5).ok
    assert requests.post(f"{where}:8474/proxies/itself", json={"enabled": False}, timeout=5).ok
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{where}:9000/version", timeout=5)


@pytest.mark.usefixtures("test_images")
def test_pgbouncer_runs_by_its_file_as_any_user(start: Run, tmp_path: Path) -> None:
    """/etc/pgbouncer/pgbouncer.ini, wherever it listens; its console tells the settings it took from there."""
    settings_of_it = ["[pgbouncer]", "listen_addr = *", "listen_port = 6432", "pool_mode = transaction"]
    open_to_all = ["auth_type = any", "admin_users = somebody", "unix_socket_dir ="]
    (tmp_path / "pgbouncer.ini").write_text("\n".join([*settings_of_it, *open_to_all, ""]))
    tmp_path.chmod(0o755)
    pooler = start(PGBOUNCER, flags=("-v", f"{tmp_path}:/etc/pgbouncer:ro"))
    console = f"host={address(pooler)} port=6432 dbname=pgbouncer user=somebody"

    def listens() -> bool:
        try:
            psycopg.connect(console).close()
        except psycopg.OperationalError:
            return False
        return True

    until(listens, pooler)
    with psycopg.connect(console, autocommit=True) as session:
        taken = {row[0]: row[1] for row in session.execute("SHOW CONFIG")}
    assert taken["pool_mode"] == "transaction"


def test_nothing_in_a_container_reaches_past_this_machine(start: Run) -> None:
    """Refused, by the kernel, and at once: not a time-out."""
    script = "wget -T 20 -O- http://1.1.1.1/ 2>&1 || true"
    box = start(BUSYBOX, "sh", "-c", script)
    docker("wait", box)
    assert "Connection refused" in docker("logs", box)


def test_operator_runs_as_nobody_on_a_read_only_root(start: Run) -> None:
    """The image's user is a number that is not root, and its command answers for any user."""
    assert config(OPERATOR)["User"].split(":")[0].isdigit()
    assert config(OPERATOR)["User"].split(":")[0] != "0"
    operator = start(OPERATOR, "--help")
    assert docker("wait", operator) == "0", docker("logs", operator)


def test_operator_is_small_and_holds_no_mlflow() -> None:
    """Less than 150 MB on top of its base, and no MLflow to be patched with every release of it."""
    sizes = [int(docker("image", "inspect", "-f", "{{.Size}}", image)) for image in (OPERATOR, PYTHON)]
    assert sizes[0] - sizes[1] < 150e6
    found = "import importlib.util as u; print(u.find_spec('mlflow'))"
    assert shell(OPERATOR, f'python -c "{found}"') == "None"


def test_no_such_image_is_an_ordinary_answer() -> None:
    """The local registry says 404, which a pod shows as ErrImagePull."""
    where = docker("port", f"{settings.CLUSTER}-registry", "5000").splitlines()[0]
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"http://{where}/v2/mlflow/mlflow/manifests/v0.0.0", timeout=5)
