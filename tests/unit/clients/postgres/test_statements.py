"""Names in statements are quoted, whatever they contain. tests/contracts checks the same with a real Postgres."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.sql import Composed

from mlflow_operator.clients.postgres import statements
from mlflow_operator.clients.postgres.statements import Locale

NAME = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=70)
IDENTIFIER = r'"(?:[^"]|"")*"'
LITERAL = r"(?:'(?:[^']|'')*'| E'(?:[^'\\]|''|\\\\)*')"
LOCALE = "LC_COLLATE 'C' LC_CTYPE 'C' LOCALE_PROVIDER libc"

SHAPES: dict[str, tuple[Callable[[str, str], Composed], str]] = {
    "create_owner": (lambda a, _: statements.create_owner(a), f"CREATE ROLE {IDENTIFIER} NOLOGIN"),
    "create_login": (
        lambda a, b: statements.create_login(a, b, a),
        f"CREATE ROLE {IDENTIFIER} LOGIN PASSWORD {LITERAL} IN ROLE {IDENTIFIER}",
    ),
    "alter_login": (statements.alter_login, f"ALTER ROLE {IDENTIFIER} LOGIN PASSWORD {LITERAL}"),
    "set_login_limit": (
        lambda a, _: statements.set_login_limit(a, 20),
        f"ALTER ROLE {IDENTIFIER} CONNECTION LIMIT 20",
    ),
    "set_default_role": (statements.set_default_role, f"ALTER ROLE {IDENTIFIER} SET role TO {LITERAL}"),
    "grant_membership": (statements.grant_membership, f"GRANT {IDENTIFIER} TO {IDENTIFIER}"),
    "create_database": (
        lambda a, b: statements.create_database(a, b, Locale(None, "C")),
        f"CREATE DATABASE {IDENTIFIER} OWNER {IDENTIFIER} TEMPLATE template0 ENCODING 'UTF8' {LOCALE}",
    ),
    "comment_on_role": (statements.comment_on_role, f"COMMENT ON ROLE {IDENTIFIER} IS {LITERAL}"),
    "comment_on_database": (statements.comment_on_database, f"COMMENT ON DATABASE {IDENTIFIER} IS {LITERAL}"),
    "reassign_owned": (statements.reassign_owned, f"REASSIGN OWNED BY {IDENTIFIER} TO {IDENTIFIER}"),
    "drop_database": (
        lambda a, _: statements.drop_database(a, force=True),
        f"DROP DATABASE IF EXISTS {IDENTIFIER} WITH \\(FORCE\\)",
    ),
    "drop_database_without_force": (
        lambda a, _: statements.drop_database(a, force=False),
        f"DROP DATABASE IF EXISTS {IDENTIFIER}",
    ),
    "drop_role": (lambda a, _: statements.drop_role(a), f"DROP ROLE IF EXISTS {IDENTIFIER}"),
}


@pytest.mark.parametrize("shape", SHAPES)
@given(first=NAME, second=NAME)
def test_names_cannot_escape_their_quotes(shape: str, first: str, second: str) -> None:
    """The text is a single statement of the expected shape, and its first identifier is the original name."""
    create_statement, pattern = SHAPES[shape]
    text = create_statement(first, second).as_string(None)
    spaced = pattern.replace(f" {LITERAL}", rf" ?{LITERAL}")
    assert re.fullmatch(spaced, text, re.DOTALL), text
    identifier = re.search(IDENTIFIER, text, re.DOTALL)
    assert identifier is not None
    assert identifier[0][1:-1].replace('""', '"') == first


@pytest.mark.parametrize(
    ("version", "libc", "expected"),
    [
        (170005, None, Locale("C.UTF-8", "C")),
        (180000, "C.utf8", Locale("C.UTF-8", "C")),
        (160009, "C.utf8", Locale(None, "C.utf8")),
        (150000, None, Locale(None, "C")),
    ],
)
def test_databases_sort_by_code_point(version: int, libc: str | None, expected: Locale) -> None:
    """On every version. Letters beyond ASCII are known if Postgres or its operating system supports it."""
    assert statements.choose_locale(version, libc) == expected
