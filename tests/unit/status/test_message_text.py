"""Quoted output is short and identical for each repetition."""

import pytest

from mlflow_operator.status.message_text import as_sentence, last_lines

REPEATED = {
    "MLflow": (
        "2026/11/21 14:15:12 INFO mlflow.store.db.utils: Updating database tables",
        "2026/11/21 14:16:48 INFO mlflow.store.db.utils: Updating database tables",
    ),
    "gunicorn": (
        "[2026-11-21 14:15:12 +0000] [17] [ERROR] Worker failed to boot",
        "[2026-11-21 14:16:12 +0000] [23] [ERROR] Worker failed to boot",
    ),
    "Postgres": (
        "2026-11-21 14:15:12.345 UTC [1] FATAL:  data directory is full",
        "2026-11-21 14:16:12.001 UTC [7] FATAL:  data directory is full",
    ),
    "JSON": (
        '{"level":"FATAL","time":"2026-11-21T14:15:12.345678Z","message":"full"}',
        '{"level":"FATAL","time":"2026-11-21T14:15:13.345678Z","message":"full"}',
    ),
    "uvicorn": ("INFO:     Finished server process [7713]", "INFO:     Finished server process [91]"),
    "Python traceback": ("<object at 0x7f3ad35bd0a0>", "<object at 0x7f3ad35bd0b8>"),
    "DNS lookup": (
        "dial tcp: lookup mirror on 10.96.0.10:53: read udp 10.244.0.5:43210->10.96.0.10:53: i/o timeout",
        "dial tcp: lookup mirror on 10.96.0.10:53: read udp 10.244.0.5:51002->10.96.0.10:53: i/o timeout",
    ),
}


@pytest.mark.parametrize("program", REPEATED)
def test_repeated_error_has_the_same_text(program: str) -> None:
    """Each difference would cause a write to the API server and an Event at every crash."""
    first, second = REPEATED[program]
    assert last_lines(first) == last_lines(second)
    assert as_sentence(first) == as_sentence(second)


def test_meaningful_text_is_kept() -> None:
    """Log levels, names, port numbers and revisions are kept."""
    assert last_lines(REPEATED["MLflow"][0]) == "INFO mlflow.store.db.utils: Updating database tables"
    assert (
        last_lines("port 5000 is taken, revision dc11669786a5") == "port 5000 is taken, revision dc11669786a5"
    )


def test_only_the_end_of_long_output_is_kept() -> None:
    """A condition message must not contain a complete log."""
    assert last_lines("\n".join(str(i) for i in range(100))) == "95\n96\n97\n98\n99"
    assert len(last_lines("x" * 10_000)) <= 600


ERROR = """sqlalchemy.exc.ProgrammingError: (psycopg.errors.InsufficientPrivilege) permission denied for schema public
LINE 2: CREATE TABLE experiments (
[SQL:
CREATE TABLE experiments (
\tPRIMARY KEY (experiment_id),
\tUNIQUE (name)
)
]
(Background on this error at: https://sqlalche.me/e/21/f405)
"""


def test_database_error_is_kept_and_statement_removed() -> None:
    """SQLAlchemy prints the statement last, and the statement exceeds the length limit."""
    assert last_lines(ERROR).splitlines() == ERROR.splitlines()[:2]
    assert last_lines(f"{ERROR}shutting down") == "\n".join([*ERROR.splitlines()[:2], "shutting down"])
    assert (
        last_lines(ERROR[-80:] + "permission denied for schema public")
        == "permission denied for schema public"
    )


def test_missing_text_becomes_a_sentence() -> None:
    """Callers insert the result where a sentence is expected."""
    assert as_sentence(None) == as_sentence(" \n") == "no reason given."
    assert as_sentence("one.\ntwo") == "one."
