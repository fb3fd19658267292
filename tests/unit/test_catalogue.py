"""The version catalogue: how a package is read, and that the catalogue matches the versions in other files."""

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mlflow_operator.model.release import Release, version_key
from mlflow_operator.model.version_catalogue import RELEASES
from mlflow_operator.model.versions import DEFAULT_VERSION, FAST_PATH_VERSIONS, SCHEMA_HEADS
from tests import catalogue
from tests.cluster import settings
from tests.unit.servers import server

SERVER = """
from mlflow.environment_variables import _MLFLOW_SERVER_BOOT_ID, MLFLOW_NEW
from mlflow.server.constants import ROOT_ENV_VAR
from mlflow.utils.process import _exec_cmd

def _run_server(*, root):
    env_map = {}
    if root:
        env_map[ROOT_ENV_VAR] = root
    env_map[_MLFLOW_SERVER_BOOT_ID.name] = "1"
    server_proc = _exec_cmd(["uvicorn"], extra_env=env_map, capture_output=False, synchronous=False)
"""
LAUNCHER = """
SERVER_OPTIONS = {"capture_output": False, "synchronous": False}
RUNTIME_VARIABLES = {"_MLFLOW_SERVER_BOOT_ID"}

def main():
    from mlflow import server

    server._exec_cmd = None
"""
DIRECT = """
from mlflow.server import artifact_router
from mlflow.exceptions import MlflowException

artifact_router._get_artifact_repo()
"""

WritePackage = Callable[..., Path]


@pytest.fixture
def package(tmp_path: Path) -> WritePackage:
    """Function that writes an unpacked release with these files, in addition to those that the scripts need."""

    def write(files: dict[str, str] | None = None, **replaced: str) -> Path:
        texts = {
            "mlflow/__init__.py": "",
            "mlflow/exceptions.py": "class MlflowException(Exception): ...",
            "mlflow/server/__init__.py": replaced.get("server", SERVER),
            "mlflow/server/constants.py": 'ROOT_ENV_VAR = "_MLFLOW_SERVER_ARTIFACT_ROOT"',
            "mlflow/server/artifact_router.py": replaced.get("router", "def _get_artifact_repo(): ..."),
            "scripts/launcher.py": LAUNCHER,
            "scripts/direct.py": DIRECT,
            "scripts/proxied_s3.py": "",
            **(files or {}),
        }
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return write


def migrations(*revisions: tuple[str, str]) -> dict[str, str]:
    """Files of a migration history: pairs of a revision and the expression of its `down_revision`."""
    folder = "mlflow/store/db_migrations/versions"
    return {
        f"{folder}/{name}_x.py": f'revision = "{name}"\ndown_revision = {previous}\n'
        for name, previous in revisions
    }


def test_schema_head_is_the_revision_that_no_other_one_replaces(package: WritePackage) -> None:
    """Whatever the order of the files; a merge replaces several."""
    history = migrations(("c", "('a', 'b')"), ("a", "None"), ("b", '"a"'))
    assert catalogue.schema_head(package(history)) == "c"


@pytest.mark.parametrize("history", [(), (("a", "None"), ("b", "None"))], ids=["none", "two"])
def test_package_without_exactly_one_head_is_an_error(
    package: WritePackage, history: tuple[tuple[str, str], ...]
) -> None:
    """The operator compares one revision."""
    with pytest.raises(catalogue.PackageError, match="instead of one"):
        catalogue.schema_head(package(migrations(*history)))


def obstacles(path: Path) -> list[str]:
    """Why the fast path does not support the release in this folder."""
    return catalogue.fast_path_obstacles(path, path / "scripts")


@pytest.mark.parametrize(
    ("case", "replaced", "expected"),
    [
        ("supported", {}, []),
        (
            "unknown variable",
            {
                "server": SERVER.replace(
                    "    server_proc", '    env_map[MLFLOW_NEW.name] = "1"\n    server_proc'
                )
            },
            ["the launcher does not know MLFLOW_NEW"],
        ),
        (
            "other options",
            {"server": SERVER.replace("synchronous=False", "synchronous=True")},
            ["mlflow.server starts its process in another way"],
        ),
        (
            "no function",
            {"server": "from mlflow.utils.process import _exec_cmd"},
            ["mlflow.server has no _run_server"],
        ),
        (
            "missing function",
            {"router": "def get_artifact_repo(): ..."},
            ["direct.py needs mlflow.server.artifact_router._get_artifact_repo"],
        ),
    ],
)
def test_fast_path_support_is_read_from_the_package(
    package: WritePackage, case: str, replaced: dict[str, str], expected: list[str]
) -> None:
    """A variable that the launcher does not know makes it fall back, and the memory of the server doubles."""
    assert obstacles(package(**replaced)) == expected, case


def test_variable_that_mlflow_sets_only_sometimes_is_no_obstacle(package: WritePackage) -> None:
    """The launcher then falls back for the servers that use the option."""
    text = SERVER.replace("env_map[ROOT_ENV_VAR]", "env_map[MLFLOW_NEW.name]")
    assert obstacles(package(server=text)) == []


def test_releases_before_the_first_tested_one_have_no_fast_path(package: WritePackage) -> None:
    """Even if their internals look the same."""
    found, reasons = catalogue.release("3.16.9", package(migrations(("a", "None"))))
    assert (found, len(reasons)) == (Release("3.16.9", "a"), 1)


def test_catalogue_is_what_the_generator_writes() -> None:
    """It was not edited, and it has the upgrade notes of tests/catalogue.py."""
    assert catalogue.CATALOGUE.read_text() == catalogue.source(RELEASES)
    assert len(SCHEMA_HEADS) == len(RELEASES)
    noted = {*catalogue.STOPS_WRITERS, *catalogue.NOTES}
    assert noted <= SCHEMA_HEADS.keys()


def minor(version: str) -> tuple[int, ...]:
    """Major and minor version."""
    return version_key(version)[:2]


def test_catalogue_contains_2_22_and_every_3_x_release() -> None:
    """Up to the default version."""
    expected = {(2, 22)} | {(3, number) for number in range(minor(DEFAULT_VERSION)[1] + 1)}
    assert {minor(release.version) for release in RELEASES} == expected
    assert max(RELEASES, key=lambda release: version_key(release.version)).version == DEFAULT_VERSION


def test_default_version_has_a_known_schema_and_the_fast_path() -> None:
    """Otherwise every new server would need an additional Job, or twice the memory."""
    assert DEFAULT_VERSION in SCHEMA_HEADS
    assert DEFAULT_VERSION in FAST_PATH_VERSIONS


def version_pins() -> Iterator[str]:
    """The MLflow versions of the test images."""
    for name, reference in settings.read_pins(settings.ROOT / "versions.env").items():
        if name.startswith("IMAGE_MLFLOW"):
            yield reference.rpartition(":v")[2].removesuffix("-full")


def test_versions_of_test_images_are_in_the_catalogue() -> None:
    """The tests upgrade from and to them."""
    assert {*version_pins()} <= SCHEMA_HEADS.keys()


def test_every_version_with_fast_path_has_a_test_image() -> None:
    """The contract test runs the launcher in these images."""
    assert {*version_pins()} >= FAST_PATH_VERSIONS


@pytest.mark.parametrize(("name", "texts"), catalogue.DEFAULT_PLACES.items())
def test_default_version_is_the_same_everywhere(name: str, texts: tuple[str, ...]) -> None:
    """`make catalogue` replaces it in these files."""
    content = (settings.ROOT / name).read_text()
    for text in texts:
        assert text.format(DEFAULT_VERSION) in content


def test_default_version_is_replaced_in_all_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """And nothing else."""
    for name in catalogue.DEFAULT_PLACES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text((settings.ROOT / name).read_text())
    monkeypatch.setattr(catalogue, "ROOT", tmp_path)
    catalogue.set_default(DEFAULT_VERSION, "9.9.9")
    for name, texts in catalogue.DEFAULT_PLACES.items():
        content = (tmp_path / name).read_text()
        assert all(text.format("9.9.9") in content for text in texts)
        assert content.replace("9.9.9", DEFAULT_VERSION) == (settings.ROOT / name).read_text()


def test_command_updates_generated_files_and_recorded_manifests() -> None:
    """A new release needs no other command than this one and the tests."""
    command = ("make", "--dry-run", "--no-print-directory", "catalogue", "VERSION=9.9.9")
    done = subprocess.run(command, cwd=settings.ROOT, capture_output=True, text=True, check=True, timeout=60)
    commands = done.stdout.splitlines()
    modules = [line.rpartition(" -m ")[2] for line in commands if " -m tests." in line]
    assert [module for module in modules if not module.startswith("tests.cluster")] == [
        "tests.catalogue 9.9.9",
        "tests.generate",
        "tests.unit.snapshots",
    ]


def test_image_of_the_previous_default_version_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The tests upgrade from it, and run the launcher in it."""
    monkeypatch.setattr(catalogue, "ROOT", tmp_path)
    pins = "IMAGE_MLFLOW_3_16_1=example.com/mlflow:v3.16.1-full\n\nGO=1\n"
    (tmp_path / "versions.env").write_text(f"\n{pins}")
    catalogue.keep_image("3.16.1")
    assert (tmp_path / "versions.env").read_text() == f"\n{pins}"
    catalogue.keep_image("3.20.1")
    assert [*settings.read_pins(tmp_path / "versions.env")] == [
        "IMAGE_MLFLOW_3_16_1",
        "IMAGE_MLFLOW_3_20_1",
        "GO",
    ]


def test_version_that_is_missing_from_the_catalogue_works() -> None:
    """It has the image of its version, and runs MLflow's own command."""
    resolved = server({"version": "3.99.0"})
    assert resolved.image.endswith(":v3.99.0-full")
    assert not resolved.fast_path


def test_wrong_usage_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a version, or with something else."""
    assert (catalogue.main([]), catalogue.main(["v3.19.0"])) == (2, 2)
    assert "make catalogue VERSION=" in capsys.readouterr().err
