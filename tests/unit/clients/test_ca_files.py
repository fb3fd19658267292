"""CA certificate files are complete, also with concurrent writers."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_operator.clients import ca_files


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
