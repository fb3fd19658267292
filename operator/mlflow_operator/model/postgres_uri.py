"""SQLAlchemy and libpq connection URIs, with every special character of a password in its place."""

from dataclasses import dataclass, replace
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from mlflow_operator.model.server import TLSMode
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError

DIALECT = "postgresql+psycopg2"
"""SQLAlchemy's name for what MLflow speaks; libpq knows `postgresql` alone.

Named, for without a driver it depends on the image which one is taken, and with psycopg 3 MLflow 2.22 and 3.14 fail:
they compare columns of numbers with text, which its parameters do not forgive (seen at a run, and at a model version).
"""

_DIALECTS = ("postgresql", "postgres")

_OWN_PLACE = ("host", "hostaddr", "port", "user", "password", "dbname", "service", "conninfo")
"""Options of libpq that a URI says before its `?`; said twice, MLflow and the operator might hear different ones."""

_WAKEFUL = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""For whoever keeps connections open for days. A host that vanishes, or a firewall that forgets, says no word: then the
kernel waits a quarter of an hour for what it has sent, and two hours for what it awaits. Seconds, but the last one."""

_STRENGTH = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True)
class Connection:
    """How to reach one Postgres database. `options` are libpq's, such as `sslmode`."""

    host: str
    port: int
    database: str
    username: str
    password: str
    options: tuple[tuple[str, str], ...] = ()

    def __repr__(self) -> str:
        """Without the password: this may land in a log."""
        return f"Connection({self.username}@{self.host}:{self.port}/{self.database})"

    def with_tls(self, mode: TLSMode, ca_path: str | None) -> "Connection":
        """Adds TLS settings; `ca_path` is a file of the reader.

        Of an `sslmode` among the options and `mode` the stronger one holds, for whoever asks for a verified host
        must not be let down by a URI that somebody else wrote. The default, `prefer`, verifies nothing and yields.
        """
        options = dict(self.options)
        asked = options.setdefault("sslmode", mode.value)
        weaker = asked not in _STRENGTH or _STRENGTH.index(asked) < _STRENGTH.index(mode.value)
        if mode is not TLSMode.PREFER and weaker:
            options["sslmode"] = mode.value
        if ca_path:
            options["sslrootcert"] = ca_path
        return Connection(
            self.host, self.port, self.database, self.username, self.password, tuple(sorted(options.items()))
        )

    def with_credentials(self, username: str, password: str) -> "Connection":
        """The same database, by another login."""
        return replace(self, username=username, password=password)

    def with_keepalives(self) -> "Connection":
        """Notices within a minute that the other end is gone without a word; what the options say of that holds."""
        return replace(self, options=tuple(sorted((_WAKEFUL | dict(self.options)).items())))

    def with_hostaddr(self, address: str) -> "Connection":
        """Goes to `address` without asking DNS; the host still says which certificate is the right one."""
        return replace(self, options=(*self.options, ("hostaddr", address)))

    def sqlalchemy(self) -> str:
        """For MLflow: names the driver, because a bare `postgresql://` means another one per version of SQLAlchemy.

        It is psycopg2, which MLflow is tested with. psycopg 3 tells Postgres the type of every value, and MLflow 3.17
        compares a model version's number with text: archiving versions as another takes their stage would fail.
        """
        return self._uri(DIALECT)

    def _uri(self, scheme: str) -> str:
        user = quote(self.username, safe="")
        password = f":{quote(self.password, safe='')}" if self.password else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        # libpq takes a "+" for a plus: a space must be %20, or options=-c search_path=... breaks the migration
        query = f"?{urlencode(self.options, quote_via=quote)}" if self.options else ""
        return f"{scheme}://{user}{password}@{host}:{self.port}/{quote(self.database, safe='')}{query}"


def parse(uri: str, where: str) -> Connection:
    """Reads a connection URI out of a user's Secret; `where` names it in messages.

    Takes `postgresql://`, `postgres://` and both with a driver (`postgresql+psycopg2://`).
    Raises UserMistake, whose message never holds any part of the URI but its scheme.
    """
    scheme, separator, _ = uri.strip().partition("://")
    dialect = scheme.partition("+")[0].lower()
    if not separator or dialect not in _DIALECTS:
        found = f'"{scheme}://"' if separator and scheme.replace("+", "").isalnum() else "something else"
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{where} must hold a Postgres URI such as postgresql://user:password@host:5432/mlflow, "
            f"but starts with {found}. Only Postgres is supported: put such a URI there.",
        )
    try:
        parts = urlsplit(uri.strip())
        host, port = parts.hostname, parts.port or 5432
    except ValueError:
        # not chained: what urllib says quotes the URI
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{where} holds a URI whose host or port can't be read. Name one host and one port, and percent-encode "
            "special characters of the user name and the password, as in p%40ss for p@ss.",
        ) from None
    options = tuple(parse_qsl(parts.query))
    misplaced = sorted({name for name, _ in options} & set(_OWN_PLACE))
    if misplaced:
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{where} holds a URI that names {' and '.join(misplaced)} after the question mark. Write it as "
            "postgresql://user:password@host:5432/database, with nothing but further options after it.",
        )
    database = unquote(parts.path.removeprefix("/"))
    missing = [
        n for n, v in (("a host", host), ("a user name", parts.username), ("a database", database)) if not v
    ]
    if missing or host is None:
        raise ConfigurationError(
            Reason.DATABASE_UNREACHABLE,
            f"{where} holds a URI without {' and '.join(missing)}. Write it as "
            "postgresql://user:password@host:5432/database, special characters percent-encoded.",
        )
    return Connection(
        host,
        port,
        database,
        unquote(parts.username or ""),
        unquote(parts.password or ""),
        options,
    )
