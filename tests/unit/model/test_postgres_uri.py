"""Connection URIs survive every character, and never show in a message."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url

from mlflow_operator.model.postgres_uri import Connection, parse
from mlflow_operator.model.server import TLSMode
from mlflow_operator.status.errors import ConfigurationError

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@given(WORD, WORD, WORD)
def test_sqlalchemy_reads_what_we_write(user: str, password: str, database: str) -> None:
    """Passwords with @, /, % or spaces are the classic way to lose a server."""
    url = make_url(Connection("db.example.com", 6432, database, user, password).sqlalchemy())
    assert (url.username, url.password, url.database) == (user, password, database)
    assert (url.drivername, url.host, url.port) == ("postgresql+psycopg2", "db.example.com", 6432)


@given(WORD, WORD, WORD)
def test_reading_undoes_writing(user: str, password: str, database: str) -> None:
    """A URI of the owner's means to us what it means to MLflow."""
    connection = Connection("db", 5432, database, user, password, (("sslmode", "require"),))
    assert parse(connection.sqlalchemy(), "x") == connection


def test_pods_notice_a_database_that_vanished_and_the_owners_choice_holds() -> None:
    """Pools keep connections for days; whoever says otherwise in the URI means it."""
    connection = parse("postgresql://u:p@h/d?tcp_user_timeout=0&sslmode=require", "x").with_keepalives()
    said = conninfo_to_dict(connection.sqlalchemy().replace("+psycopg2", ""))
    assert (said["tcp_user_timeout"], said["sslmode"]) == ("0", "require")
    assert (said["keepalives_idle"], said["connect_timeout"]) == ("30", "10")
    assert connection.with_keepalives() == connection


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
        ("postgresql://u:hunter2@one:1,two:2/d", "Name one host"),
        ("postgresql://u@h/d?password=hunter2", "names password after the question mark"),
        ("postgresql://u:hunter2@/d?host=/var/run/postgresql", "names host after"),
    ],
)
def test_a_bad_uri_gets_a_sentence_without_the_uri(uri: str, says: str) -> None:
    """It names the Secret, the fault and the way out, never the password."""
    with pytest.raises(ConfigurationError) as refusal:
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


@pytest.mark.parametrize(
    ("uri", "spec", "holds"),
    [
        ("require", TLSMode.VERIFY_FULL, "verify-full"),
        ("verify-full", TLSMode.REQUIRE, "verify-full"),
        ("disable", TLSMode.PREFER, "disable"),
        ("require", TLSMode.DISABLE, "require"),
    ],
)
def test_the_stronger_tls_holds(uri: str, spec: TLSMode, holds: str) -> None:
    """Who asks for a verified host is not let down by a URI that a provider's Secret brings along."""
    connection = parse(f"postgresql://u:p@h/d?sslmode={uri}", "x").with_tls(spec, None)
    assert dict(connection.options)["sslmode"] == holds


def test_options_mean_the_same_to_mlflow_and_to_libpq() -> None:
    """MLflow reads the URI by SQLAlchemy, the migration by libpq, to which a plus is a plus."""
    connection = parse("postgresql://u:p@h/d?options=-c%20search_path%3Dmlflow", "x")
    uri = connection.sqlalchemy()
    assert make_url(uri).query == {"options": "-c search_path=mlflow"}
    assert conninfo_to_dict(uri.replace("+psycopg2", ""))["options"] == "-c search_path=mlflow"


def test_printing_a_connection_hides_the_password() -> None:
    """It may land in a log."""
    assert "hunter2" not in repr(Connection("h", 1, "d", "u", "hunter2"))
