"""What a preflight finds out, by MLflow's own image on a real Postgres and a real MinIO."""

import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.components.migration.preflight_result import PreflightResult, SchemaChange, parse
from mlflow_operator.model.versions import DEFAULT_VERSION, SCHEMA_HEADS
from tests.cluster import settings
from tests.contracts.minio import ROOT, Store
from tests.contracts.postgres import Instance

PINS = settings.read_pins(settings.ROOT / "versions.env")
MLFLOW, PYTHON = PINS["IMAGE_MLFLOW"], PINS["IMAGE_PYTHON"]
HEAD, PASSWORD = SCHEMA_HEADS[DEFAULT_VERSION], "worker"
EMPTY = "CREATE DATABASE {0} OWNER {0} ENCODING 'UTF8' TEMPLATE template0"


def run(image: str, script: str, environment: dict[str, str]) -> tuple[int, str, str]:
    """Exit code, last words and output of a payload, run as in a pod: any user, nothing to write to but /tmp."""
    with tempfile.TemporaryDirectory() as folder:
        words = Path(folder, "words")
        words.touch()
        words.chmod(0o666)
        given = [part for name, value in environment.items() for part in ("-e", f"{name}={value}")]
        done = subprocess.run(
            ["docker", "run", "--rm", "--network", "host", "--read-only", "--tmpfs", "/tmp",
             "--user", "10001:10001", "-e", "HOME=/tmp", "-v", f"{words}:/dev/termination-log", *given,
             image, "python3", "-u", "-c", script],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        return done.returncode, words.read_text(), done.stdout


@pytest.fixture
def environment(instance: Instance, store: Store, request: pytest.FixtureRequest) -> dict[str, str]:
    """What a server's pod is given, for a database, a user and a bucket of the test's own."""
    name = f"p{abs(hash(request.node.nodeid)) % 10**8}"
    instance.query(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
    instance.query(EMPTY.format(name))
    store.client().create_bucket(Bucket=name)
    return {
        "MLFLOW_BACKEND_STORE_URI": (
            f"postgresql+psycopg2://{name}:{PASSWORD}@{instance.host}:{instance.port}/{name}"
        ),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{name}/team",
        "MLFLOW_S3_ENDPOINT_URL": store.endpoint,
        "AWS_ACCESS_KEY_ID": ROOT.id,
        "AWS_SECRET_ACCESS_KEY": ROOT.secret,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def name_of(environment: dict[str, str]) -> str:
    """Of the database, the user and the bucket."""
    return environment["MLFLOW_BACKEND_STORE_URI"].rpartition("/")[2]


def asked(environment: dict[str, str], image: str = MLFLOW) -> PreflightResult:
    """The image's answer; its exit code says whether all is well."""
    code, words, said = run(image, pod_scripts.PREFLIGHT, environment)
    answer = parse(words)
    assert answer, f"{words}\n{said}"
    assert code == (1 if answer.faults else 0)
    return answer


def test_how_far_tables_have_to_move_is_found_out_and_nothing_is_changed(
    environment: dict[str, str], instance: Instance, store: Store
) -> None:
    """From nothing, from an older revision, not at all, and from one that nobody here has heard of."""
    name = name_of(environment)
    assert asked(environment).movement is SchemaChange.FORWARD
    assert not instance.query("SELECT 1 FROM pg_tables WHERE schemaname = 'public'", database=name)
    assert "Contents" not in store.client().list_objects_v2(Bucket=name)

    assert run(MLFLOW, pod_scripts.MIGRATE, environment)[0] == 0
    fits = asked(environment)
    assert (fits.version, fits.movement, fits.steps) == (DEFAULT_VERSION, SchemaChange.NONE, 0)
    assert fits.revision == fits.head == HEAD

    for revision, movement in (
        (SCHEMA_HEADS["3.14.0"], SchemaChange.FORWARD),
        (HEAD[:8], SchemaChange.UNKNOWN),
    ):
        instance.query("UPDATE alembic_version SET version_num = %s", [revision], database=name)
        answer = asked(environment)
        assert (answer.revision, answer.movement) == (revision, movement)


Change = Callable[[dict[str, str], Instance], object]


def _encoding(environment: dict[str, str], instance: Instance) -> None:
    name = name_of(environment)
    instance.query(f"DROP DATABASE {name}")
    options = "ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    instance.query(f"CREATE DATABASE {name} OWNER {name} {options}")


def _encoding_and_bucket(environment: dict[str, str], instance: Instance) -> None:
    _encoding(environment, instance)
    environment.update(MLFLOW_ARTIFACTS_DESTINATION="s3://nobodys")


def _of_another_user(environment: dict[str, str], instance: Instance) -> None:
    name = name_of(environment)
    instance.query("CREATE TABLE metrics (key text)", database=name)
    instance.query(f"ALTER DATABASE {name} OWNER TO postgres")


@pytest.mark.parametrize(
    ("faults", "change"),
    [
        ({"encoding": "LATIN1", "bucket": "NoSuchBucket"}, _encoding_and_bucket),
        (
            {"read-only": "transaction_read_only"},
            lambda e, i: i.query(f"ALTER ROLE {name_of(e)} SET default_transaction_read_only = on"),
        ),
        ({"privilege": "tables belong to another user: metrics"}, _of_another_user),
        (
            {"database": "password authentication failed"},
            lambda e, i: i.query(f"ALTER ROLE {name_of(e)} PASSWORD 'x'"),
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)  # fmt: skip
def test_what_is_at_fault_is_found_before_it_does_harm(
    environment: dict[str, str], instance: Instance, faults: dict[str, str], change: Change
) -> None:
    """Every fault and no other, in the words of the program that refuses."""
    change(environment, instance)
    answer = asked(environment)
    assert {fault.kind for fault in answer.faults} == faults.keys()
    for kind, said in faults.items():
        assert any(said in fault.said for fault in answer.faults if fault.kind == kind)


def test_an_image_without_mlflow_answers_what_it_lacks(environment: dict[str, str]) -> None:
    """Every Python can run the question."""
    answer = asked(environment, PYTHON)
    assert answer.version is None
    assert {"driver", "program"} <= {fault.kind for fault in answer.faults}
