"""Connection URIs preserve special characters, and never appear in a message."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.engine import make_url

from mlflow_operator.api.database import DatabaseTLSMode
from mlflow_operator.model.postgres_uri import Connection, check_options, parse
from mlflow_operator.status.errors import ConfigurationError

WORD = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30)


@given(WORD, WORD, WORD)
def test_sqlalchemy_parses_the_generated_uri(user: str, password: str, database: str) -> None:
    """Passwords with @, /, % or spaces are a common cause of connection failures."""
    url = make_url(Connection("db.example.com", 6432, database, user, password).sqlalchemy_uri())
    assert (url.username, url.password, url.database) == (user, password, database)
    assert (url.drivername, url.host, url.port) == ("postgresql+psycopg2", "db.example.com", 6432)


@given(WORD, WORD, WORD)
def test_parsing_a_generated_uri_returns_the_connection(user: str, password: str, database: str) -> None:
    """The operator and MLflow must interpret a user's URI in the same way."""
    connection = Connection("db", 5432, database, user, password, (("sslmode", "require"),))
    assert parse(connection.sqlalchemy_uri(), "x") == connection


def test_keepalives_are_set_and_options_of_the_user_take_precedence() -> None:
    """Connection pools keep connections for days; a user may set other values in the URI."""
    connection = parse("postgresql://u:p@h/d?tcp_user_timeout=0&sslmode=require", "x").with_keepalives()
    options = conninfo_to_dict(connection.sqlalchemy_uri().replace("+psycopg2", ""))
    assert (options["tcp_user_timeout"], options["sslmode"]) == ("0", "require")
    assert (options["keepalives_idle"], options["connect_timeout"]) == ("30", "10")
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
def test_common_forms_of_a_uri_are_accepted(uri: str) -> None:
    """Without a driver, Heroku's scheme, with a driver, with the newline that `echo` adds."""
    assert parse(uri, "x") == Connection("h", 5432, "d", "u", "p")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("mysql://u:hunter2@h/d", '"mysql://"'),
        ("hunter2", "no valid URI scheme"),
        ("postgresql://u:hunter2@h", "without a database"),
        ("postgresql:///d", "without a host and a user name"),
        ("postgresql://u:hunter2@h:port/d", "invalid host or port"),
        ("postgresql://u:hunter2#x@h:1/d", "invalid host or port"),
        ("postgresql://u:hunter2@one:1,two:2/d", "Use one host"),
        ("postgresql://u@h/d?password=hunter2", "with password after the question mark"),
        ("postgresql://u:hunter2@/d?host=/var/run/postgresql", "with host after"),
    ],
)
def test_the_error_for_an_invalid_uri_does_not_contain_the_uri(uri: str, expected: str) -> None:
    """It contains the Secret, the error and a fix, but never the password."""
    with pytest.raises(ConfigurationError) as error:
        parse(uri, 'Key "uri" of Secret "db"')
    assert expected in error.value.message
    assert error.value.message.startswith('Key "uri" of Secret "db"')
    assert "hunter2" not in error.value.message


def test_sslmode_of_the_uri_takes_precedence_over_the_default() -> None:
    """The default of the spec, Prefer, must not weaken an explicit sslmode."""
    connection = parse("postgresql://u:p@h/d?sslmode=verify-full", "x")
    assert dict(connection.with_tls(DatabaseTLSMode.PREFER, "/ca").options) == {
        "sslmode": "verify-full",
        "sslrootcert": "/ca",
    }


@pytest.mark.parametrize(
    ("uri", "spec", "expected"),
    [
        ("require", DatabaseTLSMode.VERIFY_FULL, "verify-full"),
        ("verify-full", DatabaseTLSMode.REQUIRE, "verify-full"),
        ("disable", DatabaseTLSMode.PREFER, "disable"),
        ("require", DatabaseTLSMode.DISABLE, "require"),
    ],
)
def test_the_stronger_of_two_tls_modes_applies(uri: str, spec: DatabaseTLSMode, expected: str) -> None:
    """A URI from a provider's Secret must not weaken the verification that the spec requires."""
    connection = parse(f"postgresql://u:p@h/d?sslmode={uri}", "x").with_tls(spec, None)
    assert dict(connection.options)["sslmode"] == expected


def test_sqlalchemy_and_libpq_read_the_same_options() -> None:
    """MLflow parses the URI with SQLAlchemy, the migration with libpq, which does not decode a plus."""
    connection = parse("postgresql://u:p@h/d?options=-c%20search_path%3Dmlflow", "x")
    uri = connection.sqlalchemy_uri()
    assert make_url(uri).query == {"options": "-c search_path=mlflow"}
    assert conninfo_to_dict(uri.replace("+psycopg2", ""))["options"] == "-c search_path=mlflow"


def test_repr_of_a_connection_hides_the_password() -> None:
    """It may be logged."""
    assert "hunter2" not in repr(Connection("h", 1, "d", "u", "hunter2"))


def test_ipv6_address_is_in_brackets() -> None:
    """In URIs and in messages; otherwise the port would look like a part of the address."""
    connection = Connection("fd00::1", 5432, "mlflow", "user", "pw")
    assert connection.address == "[fd00::1]:5432"
    assert connection.sqlalchemy_uri() == "postgresql+psycopg2://user:pw@[fd00::1]:5432/mlflow"
    assert parse(connection.sqlalchemy_uri(), "Secret").host == "fd00::1"
    assert replace(connection, host="10.0.0.1").address == "10.0.0.1:5432"


@pytest.mark.parametrize(
    "option",
    [
        "passfile=/var/run/secrets/kubernetes.io/serviceaccount/token",
        "sslkey=/tls/tls.key",
        "sslcert=/tls/tls.crt",
        "sslcrl=/tls/crl.pem",
        "sslkeylogfile=/tmp/keys",
        "servicefile=/tmp/pg_service.conf",
        "krbsrvname=postgres",
        "gssdelegation=1",
        "requirepeer=postgres",
        "oauth_issuer=https://evil.example",
        "replication=database",
        "PASSFILE=/etc/passwd",
        "sslrootcert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
    ],
)
def test_options_that_use_files_or_the_identity_of_the_operator_are_refused(option: str) -> None:
    """The operator connects with the URI of a tenant, from its own pod."""
    connection = parse(f"postgresql://u:hunter2@h/d?sslmode=require&{option}", "x")
    with pytest.raises(ConfigurationError) as error:
        check_options(connection, 'Key "uri" of Secret "db"')
    name, value = option.split("=")
    assert name in error.value.message or "an unknown option" in error.value.message
    assert value not in error.value.message.partition("Supported")[0]
    assert "hunter2" not in error.value.message


def test_option_with_an_unusual_name_is_not_quoted() -> None:
    """A password with an unencoded `?` and `&` would be in the message."""
    connection = parse("postgresql://u:p@h/d?Hunter2=", "x")
    assert not connection.options
    connection = parse("postgresql://u:p@h/d?Hunter2!=1", "x")
    with pytest.raises(ConfigurationError) as error:
        check_options(connection, "x")
    assert "Hunter2" not in error.value.message


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=verify-full&sslrootcert=system",
        "sslmode=require&channel_binding=require&options=endpoint%3Dep-cool",
        "options=-c%20search_path%3Dmlflow&application_name=mlflow",
        "target_session_attrs=read-write&keepalives_idle=30&connect_timeout=10&tcp_user_timeout=0",
    ],
)
def test_usual_options_of_database_services_are_allowed(query: str) -> None:
    """Such as Neon, Supabase, Aiven and managed databases of cloud providers."""
    check_options(parse(f"postgresql://u:p@h/d?{query}", "x"), "x")
