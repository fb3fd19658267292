"""The first connection of a Job's pod is retried until the proxy of a service mesh has started."""

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.pod_scripts import network_common

REFUSED = 'connection to server at "db" (10.0.0.1), port 5432 failed: Connection refused'
SCRIPTS = {
    "migrate": pod_scripts.MIGRATE,
    "authenticate": pod_scripts.AUTHENTICATE,
    "preflight": pod_scripts.PREFLIGHT,
    "backup": pod_scripts.BACKUP,
    "restore": pod_scripts.RESTORE,
    "garbage collection": pod_scripts.GARBAGE_COLLECTION,
}


class Connection:
    """Raises the errors in turn, then connects."""

    def __init__(self, *errors: str) -> None:
        self.errors = [*errors]

    def __call__(self) -> str:
        """Connect."""
        if self.errors:
            raise OSError(self.errors.pop(0))
        return "connected"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that only `sleep` advances."""
    now = [0.0]
    monkeypatch.setattr(network_common.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(network_common.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))


def test_refused_connection_is_retried() -> None:
    """The proxy starts within seconds."""
    assert network_common.when_network_ready(Connection(REFUSED, "Connection reset by peer")) == "connected"


def test_retries_end() -> None:
    """Then the error is reported as before."""
    connection = Connection(*[REFUSED] * 100)
    with pytest.raises(OSError, match="refused"):
        network_common.when_network_ready(connection)
    assert len(connection.errors) > 50


def test_answer_of_the_server_is_not_retried() -> None:
    """Some servers lock a user after several wrong passwords."""
    connection = Connection('FATAL:  password authentication failed for user "mlflow"', "not reached")
    with pytest.raises(OSError, match="password"):
        network_common.when_network_ready(connection)
    assert connection.errors == ["not reached"]


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_contains_what_it_imports(name: str) -> None:
    """A pod gets one program and no package."""
    script = SCRIPTS[name]
    compile(script, name, "exec")
    assert "_common import" not in script
    assert script.index("def when_network_ready") < script.rindex("when_network_ready(")
