"""Names in statements are names, whatever they hold. tests/providers tries the same on a real Postgres."""

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
    "make_owner": (lambda a, _: statements.make_owner(a), f"CREATE ROLE {IDENTIFIER} NOLOGIN"),
    "make_login": (
        lambda a, b: statements.make_login(a, b, a),
        f"CREATE ROLE {IDENTIFIER} LOGIN PASSWORD {LITERAL} IN ROLE {IDENTIFIER}",
    ),
    "change_login": (statements.change_login, f"ALTER ROLE {IDENTIFIER} LOGIN PASSWORD {LITERAL}"),
    "act_always_as": (statements.act_always_as, f"ALTER ROLE {IDENTIFIER} SET role TO {LITERAL}"),
    "grant": (statements.grant, f"GRANT {IDENTIFIER} TO {IDENTIFIER}"),
    "make_database": (
        lambda a, b: statements.make_database(a, b, Locale(None, "C")),
        f"CREATE DATABASE {IDENTIFIER} OWNER {IDENTIFIER} TEMPLATE template0 ENCODING 'UTF8' {LOCALE}",
    ),
    "mark_role": (statements.mark_role, f"COMMENT ON ROLE {IDENTIFIER} IS {LITERAL}"),
    "mark_database": (statements.mark_database, f"COMMENT ON DATABASE {IDENTIFIER} IS {LITERAL}"),
    "hand_over": (statements.hand_over, f"REASSIGN OWNED BY {IDENTIFIER} TO {IDENTIFIER}"),
    "drop_database": (
        lambda a, _: statements.drop_database(a, force=True),
        f"DROP DATABASE IF EXISTS {IDENTIFIER} WITH \\(FORCE\\)",
    ),
    "drop_idle_database": (
        lambda a, _: statements.drop_database(a, force=False),
        f"DROP DATABASE IF EXISTS {IDENTIFIER}",
    ),
    "drop_role": (lambda a, _: statements.drop_role(a), f"DROP ROLE IF EXISTS {IDENTIFIER}"),
}


@pytest.mark.parametrize("shape", SHAPES)
@given(one=NAME, other=NAME)
def test_no_name_ends_its_quotes(shape: str, one: str, other: str) -> None:
    """The whole is one statement of the shape that was meant, and the first name in it reads back as it was."""
    make, pattern = SHAPES[shape]
    text = make(one, other).as_string(None)
    spaced = pattern.replace(f" {LITERAL}", rf" ?{LITERAL}")
    assert re.fullmatch(spaced, text, re.DOTALL), text
    found = re.search(IDENTIFIER, text, re.DOTALL)
    assert found is not None
    assert found[0][1:-1].replace('""', '"') == one


@pytest.mark.parametrize(
    ("version", "libc", "expected"),
    [
        (170005, None, Locale("C.UTF-8", "C")),
        (180000, "C.utf8", Locale("C.UTF-8", "C")),
        (160009, "C.utf8", Locale(None, "C.utf8")),
        (150000, None, Locale(None, "C")),
    ],
)
def test_sorting_is_by_code_point_everywhere(version: int, libc: str | None, expected: Locale) -> None:
    """With letters beyond ASCII told wherever Postgres or its operating system can."""
    assert statements.locale(version, libc) == expected
