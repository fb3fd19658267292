"""CA certificate files are complete, also with concurrent writers, and a namespace cannot use up their space."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_operator.clients import ca_files
from mlflow_operator.clients.ca_files import CAFiles
from mlflow_operator.clients.limits import on_behalf_of
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / "mlflow-operator-trust"


async def path_of(files: CAFiles, pem: str, namespace: str = "team-a") -> Path:
    """The file for a server of the namespace."""
    with on_behalf_of(namespace):
        path = await files.path_of(pem)
    assert path
    return Path(path)


def bundle(name: str, size: int = MIB) -> str:
    """A text of `size` bytes that no other name has."""
    return f"{name} ".ljust(size, "x")


def test_concurrent_writers_get_the_same_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes may share the folder: a developer's, for example."""
    both_written = threading.Barrier(2)
    original_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        both_written.wait(5)  # Both threads have written their files before either renames its own.
        return original_rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with ThreadPoolExecutor(2) as threads:
        paths = [*threads.map(lambda files: files._write("pem", "team-a"), [CAFiles(), CAFiles()])]
    assert len({*paths}) == 1
    assert Path(paths[0]).read_text() == "pem"
    assert [*folder.iterdir()] == [Path(paths[0])]


async def test_files_are_limited_in_total_size(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that changes often must not fill the disk of the operator. The file in use is kept."""
    monkeypatch.setattr(ca_files, "MAX_TOTAL_BYTES", 5 * MIB)
    now = 0.0
    files = CAFiles(lambda: now)
    for number in range(20):
        now += 200
        used = await path_of(files, bundle("used"))
        assert (await path_of(files, bundle(f"{number}"))).exists()
        assert used.read_text() == bundle("used")
        assert sum(path.stat().st_size for path in folder.iterdir()) <= 5 * MIB


async def test_files_of_a_previous_process_are_deleted_first(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container that is restarted in its pod keeps /tmp."""
    monkeypatch.setattr(ca_files, "MAX_TOTAL_BYTES", 3 * MIB)
    for number in range(3):
        await path_of(CAFiles(), bundle(f"previous {number}"))
    files = CAFiles()
    paths = [await path_of(files, bundle(f"{number}")) for number in range(3)]
    assert sorted(folder.iterdir()) == sorted(paths)


async def test_namespace_with_many_large_bundles_does_not_displace_those_of_others() -> None:
    """Its users could let the connections of all other servers fail."""
    now = 0.0
    files = CAFiles(lambda: now)
    others = [await path_of(files, bundle(f"{number}", 2 * MIB), f"other-{number}") for number in range(4)]
    for number in range(100):
        now += ca_files.IN_USE_SECONDS / 4
        await path_of(files, bundle(f"changed {number}"))
        assert all(path.exists() for path in others)


async def test_namespace_gets_a_limited_share_and_a_message() -> None:
    """Files in use are kept, so that only the servers that exceed the limit are affected."""
    now = 0.0
    files = CAFiles(lambda: now)
    for number in range(4):
        await path_of(files, bundle(f"{number}"))
    for _ in range(2):
        now += 60
        for number in range(4):
            assert (await path_of(files, bundle(f"{number}"))).exists()
        with pytest.raises(ConfigurationError) as error:
            await path_of(files, bundle("one too many"))
    assert error.value.reason is Reason.SECRET_VALUE_INVALID
    assert "that tls.caSecretRef references, are larger than 4 MiB together" in error.value.message
    assert (await path_of(files, bundle("0"), "team-b")).exists()
    assert (await path_of(files, bundle("one too many"), "team-b")).exists()
    now += ca_files.IN_USE_SECONDS
    assert (await path_of(files, bundle("one too many"))).exists()


async def test_small_files_are_limited_in_number(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each needs a block of the disk and, when files are deleted, time."""
    monkeypatch.setattr(ca_files, "MAX_TOTAL_BYTES", 40 * 4096)
    files = CAFiles()
    for number in range(100):
        await path_of(files, f"{number}")
    assert len([*folder.iterdir()]) == 40


async def test_number_of_certificates_is_limited() -> None:
    """Loading a file blocks the event loop during each connection to a Postgres."""
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert await CAFiles().path_of(certificate * ca_files.MAX_CERTIFICATES)
    with pytest.raises(
        ConfigurationError, match=r"tls\.caSecretRef references contains more than 300 certificates"
    ):
        await CAFiles().path_of(certificate * (ca_files.MAX_CERTIFICATES + 1))
