"""Connection URIs survive every character, and never show in a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.engine import make_url

from mlflow_operator.core.database_uri import Connection, parse
from mlflow_operator.core.faults import UserMistake
from mlflow_operator.core.server import TLSMode

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@given(WORD, WORD, WORD)
def test_sqlalchemy_reads_what_we_write(user: str, password: str, database: str) -> None:
    """Passwords with @, /, % or spaces are the classic way to lose a server."""
    url = make_url(Connection("db.example.com", 6432, database, user, password).sqlalchemy())
    assert (url.username, url.password, url.database) == (user, password, database)
    assert (url.drivername, url.host, url.port) == ("postgresql+psycopg", "db.example.com", 6432)


@given(WORD, WORD, WORD)
def test_reading_undoes_writing(user: str, password: str, database: str) -> None:
    """A URI of the owner's means to us what it means to MLflow."""
    connection = Connection("db", 5432, database, user, password, (("sslmode", "require"),))
    assert parse(connection.sqlalchemy(), "x") == connection


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://u:p@h/d",
        "postgres://u:p@h/d",
        "postgresql+psycopg2://u:p@h:5432/d",
        " postgresql://u:p@h/d\n",
    ],
)
def test_every_common_spelling_is_taken(uri: str) -> None:
    """Bare, Heroku's, with a driver, with the newline that `echo` adds."""
    assert parse(uri, "x") == Connection("h", 5432, "d", "u", "p")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("mysql://u:hunter2@h/d", '"mysql://"'),
        ("hunter2", "something else"),
        ("postgresql://u:hunter2@h", "without a database"),
        ("postgresql:///d", "without a host and a user name"),
        ("postgresql://u:hunter2@h:port/d", "can't be read"),
        ("postgresql://u:hunter2#x@h:1/d", "can't be read"),
    ],
)
def test_a_bad_uri_gets_a_sentence_without_the_uri(uri: str, says: str) -> None:
    """It names the Secret, the fault and the way out, never the password."""
    with pytest.raises(UserMistake) as refusal:
        parse(uri, 'Key "uri" of Secret "db"')
    assert says in refusal.value.message
    assert refusal.value.message.startswith('Key "uri" of Secret "db"')
    assert "hunter2" not in refusal.value.message


def test_tls_of_the_uri_wins_over_the_default() -> None:
    """Whoever wrote sslmode into the URI meant it."""
    connection = parse("postgresql://u:p@h/d?sslmode=verify-full", "x")
    assert dict(connection.with_tls(TLSMode.PREFER, "/ca").options) == {
        "sslmode": "verify-full",
        "sslrootcert": "/ca",
    }


def test_printing_a_connection_hides_the_password() -> None:
    """It may land in a log."""
    assert "hunter2" not in repr(Connection("h", 1, "d", "u", "hunter2"))
