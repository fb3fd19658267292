"""Certificates as files: whole, and there for everybody who asks at the same time."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mlflow_operator.clients import ca_files


def test_two_who_ask_at_once_both_get_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One authority for database and artifact store is the rule, and both are looked at at the same time."""
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    together = threading.Barrier(2)
    rename = Path.rename

    def renamed(path: Path, target: Path) -> Path:
        together.wait(5)  # both have written before either gives its file the name
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", renamed)
    with ThreadPoolExecutor(2) as threads:
        paths = [*threads.map(ca_files._store, ["pem", "pem"])]
    assert len({*paths}) == 1
    assert Path(paths[0]).read_text() == "pem"
    assert [*Path(paths[0]).parent.iterdir()] == [Path(paths[0])]
