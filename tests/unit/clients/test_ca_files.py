"""CA certificate files are complete, also with concurrent writers."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_operator.clients import ca_files
from mlflow_operator.status.errors import ConfigurationError


def test_concurrent_writers_get_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database and the artifact store usually have the same CA, and both are checked at the same time."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    both_written = threading.Barrier(2)
    original_rename = Path.rename

    def rename(path: Path, target: Path) -> Path:
        both_written.wait(5)  # Both threads have written their files before either renames its own.
        return original_rename(path, target)

    monkeypatch.setattr(Path, "rename", rename)
    with ThreadPoolExecutor(2) as threads:
        paths = [*threads.map(ca_files._write_file, ["pem", "pem"])]
    assert len({*paths}) == 1
    assert Path(paths[0]).read_text() == "pem"
    assert [*Path(paths[0]).parent.iterdir()] == [Path(paths[0])]


def test_files_are_limited_in_total_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate that changes often must not fill the disk of the operator. The files in use are kept."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(ca_files, "MAX_TOTAL_BYTES", 1000)
    used = ca_files._write_file("used" * 50)
    for number in range(20):
        assert Path(ca_files._write_file(f"{number:03}" * 50)).exists()
        assert ca_files._write_file("used" * 50) == used
        assert Path(used).read_text() == "used" * 50
        assert sum(path.stat().st_size for path in Path(used).parent.iterdir()) <= 1000


async def test_number_of_certificates_is_limited() -> None:
    """Loading a file blocks the event loop during each connection to a Postgres."""
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    assert await ca_files.path_of(certificate * ca_files.MAX_CERTIFICATES)
    with pytest.raises(
        ConfigurationError, match=r"tls\.caSecretRef references contains more than 300 certificates"
    ):
        await ca_files.path_of(certificate * (ca_files.MAX_CERTIFICATES + 1))
