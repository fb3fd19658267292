"""Names, markers and limits of what is made on a Postgres that many share."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_operator.model.provisioning import (
    LONGEST_ROLE,
    DatabasePlan,
    connection_limit,
    derived_name,
    is_ours,
    marker,
)
from mlflow_operator.model.server import ServerRef

NAMESPACES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
OWNERS = st.builds(ServerRef, NAMES, NAMESPACES, st.just("uid"))
LONG = "n" * 62


@given(one=OWNERS, other=OWNERS)
@example(ServerRef("b-c", "a", ""), ServerRef("c", "a-b", ""))
@example(ServerRef("s", LONG + "a", ""), ServerRef("s", LONG + "b", ""))
@example(ServerRef("s" * 39 + "a", LONG, ""), ServerRef("s" * 39 + "b", LONG, ""))
def test_no_two_servers_get_one_name(one: ServerRef, other: ServerRef) -> None:
    """However long they are, wherever their hyphens stand; a login of one is no owner of the other either."""
    a, b = (DatabasePlan(derived_name(owner), derived_name(owner), 1, "") for owner in (one, other))
    same = (one.namespace, one.name) == (other.namespace, other.name)
    assert (a.role == b.role) == same
    assert same or not {a.role, *a.logins} & {b.role, *b.logins}
    assert all(len(name.encode()) <= 63 for name in (a.database, *a.logins))
    assert len(a.role.encode()) <= LONGEST_ROLE


@given(
    one=OWNERS, other=OWNERS, cluster=st.sampled_from([None, "x", "y"]), there=st.sampled_from([None, "x"])
)
def test_a_marker_is_known_again_by_its_server_alone(
    one: ServerRef, other: ServerRef, cluster: str | None, there: str | None
) -> None:
    """In the same cluster, as far as both know theirs."""
    same = (one.namespace, one.name) == (other.namespace, other.name)
    alike = cluster is None or there is None or cluster == there
    assert is_ours(marker(other, there), marker(one, cluster)) == (same and alike)


@pytest.mark.parametrize(
    "comment", [None, "", "mlflow-operator.dev: ", "made by hand", "mlflow-operator.dev: team/a2"]
)
def test_any_other_comment_is_somebody_elses(comment: str | None) -> None:
    """Having none is, too."""
    assert not is_ours(comment, marker(ServerRef("a", "team", ""), "x"))


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (connection_limit(1, 2), 2 * (2 * 2 * 15 + 2) + 5),
        (connection_limit(3, 4), 4 * (4 * 2 * 15 + 2) + 5),
        (connection_limit(0, 2), connection_limit(1, 2)),
        (
            connection_limit(
                1,
                2,
                env=[
                    {"name": "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "value": "3"},
                    {"name": "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "value": "1"},
                ],
            ),
            2 * (2 * 2 * 4 + 2) + 5,
        ),
        (
            connection_limit(1, 1, env=[{"name": "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "value": "0"}]),
            connection_limit(1, 1),
        ),
        (
            connection_limit(1, 1, env=[{"name": "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "valueFrom": {}}]),
            connection_limit(1, 1),
        ),
        (connection_limit(1, 1, job_execution=True), 2 * (3 * 15 + 3 + 24) + 5),
    ],
)
def test_the_limit_fits_every_pool_of_every_worker(limit: int, expected: int) -> None:
    """And one pod more, the migration, a person; a suspended server keeps room to come back."""
    assert limit == expected
