"""A Postgres that requests many SCRAM iterations occupies neither the event loop nor the logins of other namespaces."""

import asyncio

import pytest

from mlflow_operator.clients.limits import on_behalf_of
from mlflow_operator.clients.postgres.session import Sessions
from mlflow_operator.model.postgres_uri import Connection
from mlflow_operator.status.errors import ConfigurationError, TransientError
from tests.unit.clients.silent_servers import postgres_with_iterations, serve, silent

pytestmark = pytest.mark.timeout(60)

SECONDS_OF_ITERATIONS = 10_000_000
"""More iterations than a login can compute within its timeout of a second. The computation continues after it."""
USUAL_ITERATIONS = 4096


async def _log_in(sessions: Sessions, namespace: str, port: int) -> None:
    postgres = Connection("127.0.0.1", port, "mlflow", "user", "hunter2", (("gssencmode", "disable"),))
    with on_behalf_of(namespace):
        async with sessions.open(postgres, None, "spec.database.external"):
            pass


async def test_event_loop_runs_while_a_login_computes() -> None:
    """On the event loop, the computation would stop all reconciles and the health endpoint."""
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0.01)
            turns += 1

    counter = asyncio.create_task(count_turns())
    try:
        async with serve(postgres_with_iterations(SECONDS_OF_ITERATIONS)) as port:
            with pytest.raises(TransientError, match="requests too many SCRAM iterations"):
                await _log_in(Sessions(connect_timeout_seconds=1), "team-a", port)
    finally:
        counter.cancel()
    assert turns > 10


async def test_logins_of_other_namespaces_do_not_wait_for_one_that_computes() -> None:
    """They fail because of their own password. Logins of the same namespace name the reason why they wait."""
    sessions = Sessions(connect_timeout_seconds=1)
    async with (
        serve(postgres_with_iterations(SECONDS_OF_ITERATIONS)) as slow,
        serve(postgres_with_iterations(USUAL_ITERATIONS)) as usual,
    ):
        with pytest.raises(TransientError, match="requests too many SCRAM iterations"):
            await _log_in(sessions, "team-a", slow)
        with pytest.raises(ConfigurationError, match="rejects the user name or the password"):
            await _log_in(sessions, "team-b", usual)
        with pytest.raises(TransientError, match="another MLflowServer in this namespace requests too many"):
            await _log_in(sessions, "team-a", usual)


async def test_login_that_waits_for_the_previous_one_to_the_same_postgres_names_the_same_reason() -> None:
    """The computation may take half an hour: the message must not look for the reason in another server."""
    sessions = Sessions(connect_timeout_seconds=1)
    async with serve(postgres_with_iterations(SECONDS_OF_ITERATIONS)) as port:
        for _ in range(2):
            with pytest.raises(
                TransientError, match="requests too many SCRAM iterations: the operator did not"
            ):
                await _log_in(sessions, "team-a", port)


async def test_postgres_that_does_not_answer_is_not_mistaken_for_one_with_many_iterations() -> None:
    """The advice would be to set the password again. Several attempts, because it depends on a race."""
    sessions = Sessions(connect_timeout_seconds=1)
    async with serve(silent) as port:
        attempts = (_log_in(sessions, f"team-{number}", port) for number in range(8))
        errors = await asyncio.gather(*attempts, return_exceptions=True)
    assert all("does not answer in time" in str(error) for error in errors), errors
