"""The results of preflights in MLflow's image with a real Postgres and a real MinIO."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.components.upgrade.preflight_result import PreflightResult, SchemaChange, parse
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.cluster import settings
from tests.contracts.minio import ROOT_KEY, Store
from tests.contracts.postgres import Instance

PINS = settings.read_pins(settings.ROOT / "versions.env")
MLFLOW, PYTHON = PINS["IMAGE_MLFLOW"], PINS["IMAGE_PYTHON"]
HEAD, PASSWORD = SCHEMA_HEADS[DEFAULT_VERSION], "worker"
CREATE_DATABASE = "CREATE DATABASE {0} OWNER {0} ENCODING 'UTF8' TEMPLATE template0"


def run(image: str, script: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """Run a script as in a pod: as an arbitrary user who can write only to /tmp.

    Return the exit code, the termination message and the output.
    """
    with tempfile.TemporaryDirectory() as folder:
        termination_message = Path(folder, "termination-message")
        termination_message.touch()
        termination_message.chmod(0o666)
        env = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        process = subprocess.run(
            ["docker", "run", "--rm", "--network", "host", "--read-only", "--tmpfs", "/tmp",
             "--user", "10001:10001", "-e", "HOME=/tmp", "-v", f"{termination_message}:/dev/termination-log", *env,
             image, "python3", "-u", "-c", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return process.returncode, termination_message.read_text(), process.stdout


@pytest.fixture
def environment(instance: Instance, store: Store, request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment of a server's pod, with a new database, user and bucket."""
    name = f"p{abs(hash(request.node.nodeid)) % 10**8}"
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    instance.query(CREATE_DATABASE.format(name))
    store.client().create_bucket(Bucket=name)
    return {
        "MLFLOW_BACKEND_STORE_URI": (
            f"postgresql+psycopg2://{name}:{PASSWORD}@{instance.host}:{instance.port}/{name}"
        ),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{name}/team",
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": ROOT_KEY.id,
        "AWS_SECRET_ACCESS_KEY": ROOT_KEY.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def name_of(environment: dict[str, str]) -> str:
    """The name of the database, the user and the bucket."""
    return environment["MLFLOW_BACKEND_STORE_URI"].rpartition("/")[2]


def run_preflight(environment: dict[str, str], image: str = MLFLOW) -> PreflightResult:
    """Run a preflight and return its result. The exit code must match the result."""
    exit_code, termination_message, output = run(image, pod_scripts.PREFLIGHT, environment)
    result = parse(termination_message)
    assert result, f"{termination_message}\n{output}"
    assert exit_code == (1 if result.errors else 0)
    return result


def test_preflight_reports_schema_change_without_changing_anything(
    environment: dict[str, str], instance: Instance, store: Store
) -> None:
    """From an empty database, an older revision, the current revision and an unknown revision."""
    name = name_of(environment)
    assert run_preflight(environment).change is SchemaChange.FORWARD
    assert not instance.query("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", database=name)
    assert "Contents" not in store.client().list_objects_v2(Bucket=name)

    assert run(MLFLOW, pod_scripts.MIGRATE, environment)[0] == 0
    result = run_preflight(environment)
    assert (result.version, result.change, result.steps) == (DEFAULT_VERSION, SchemaChange.NONE, 0)
    assert result.revision == result.head == HEAD

    for revision, schema_change in (
        (SCHEMA_HEADS["3.14.0"], SchemaChange.FORWARD),
        (HEAD[:8], SchemaChange.UNKNOWN),
    ):
        instance.query("UPDATE alembic_version SET version_num = %s", [revision], database=name)
        result = run_preflight(environment)
        assert (result.revision, result.change) == (revision, schema_change)


BreakDatabase = Callable[[dict[str, str], Instance], object]


def _set_encoding(environment: dict[str, str], instance: Instance) -> None:
    name = name_of(environment)
    instance.query(f"DROP DATABASE {name}")
    options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    instance.query(f"CREATE DATABASE {name} OWNER {name} {options}")


def _set_encoding_and_bucket(environment: dict[str, str], instance: Instance) -> None:
    _set_encoding(environment, instance)
    environment.update(MLFLOW_ARTIFACTS_DESTINATION="s3://missing")


def _change_table_owner(environment: dict[str, str], instance: Instance) -> None:
    name = name_of(environment)
    instance.query("CREATE TABLE metrics (key text)", database=name)
    instance.query(f"ALTER DATABASE {name} OWNER TO postgres")


@pytest.mark.parametrize(
    ("errors", "break_database"),
    [
        ({"encoding": "LATIN1", "bucket": "NoSuchBucket"}, _set_encoding_and_bucket),
        (
            {"read-only": "transaction_read_only"},
            lambda e, i: i.query(f"ALTER ROLE {name_of(e)} SET default_transaction_read_only = on"),
        ),
        ({"privilege": "tables belong to another user: metrics"}, _change_table_owner),
        (
            {"database": "password authentication failed"},
            lambda e, i: i.query(f"ALTER ROLE {name_of(e)} PASSWORD 'x'"),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_preflight_reports_all_errors(
    environment: dict[str, str], instance: Instance, errors: dict[str, str], break_database: BreakDatabase
) -> None:
    """All errors and no others, with the text of the program that reports them."""
    break_database(environment, instance)
    result = run_preflight(environment)
    assert {error.code for error in result.errors} == errors.keys()
    for code, fragment in errors.items():
        assert any(fragment in error.message for error in result.errors if error.code == code)


def test_preflight_of_image_without_mlflow_reports_missing_parts(environment: dict[str, str]) -> None:
    """The script runs with any Python."""
    result = run_preflight(environment, PYTHON)
    assert result.version is None
    assert {"driver", "mlflow"} <= {error.code for error in result.errors}
