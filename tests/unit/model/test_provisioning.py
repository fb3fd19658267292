"""Names, markers and limits of what the operator creates on a shared Postgres."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mlflow_operator.api import mlflowplatform, mlflowserver
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.provisioning import (
    MAX_ROLE_BYTES,
    DatabasePlan,
    adoption_required,
    connection_limit,
    derived_name,
    is_marker_of,
    limited_pool,
    marker,
)
from mlflow_operator.model.server import ServerRef

NAMESPACES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
NAMES = st.from_regex(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True)
OWNERS = st.builds(ServerRef, NAMES, NAMESPACES, st.just("uid"))
LONG = "n" * 62


@given(first=OWNERS, second=OWNERS)
@example(ServerRef("b-c", "a", ""), ServerRef("c", "a-b", ""))
@example(ServerRef("s", LONG + "a", ""), ServerRef("s", LONG + "b", ""))
@example(ServerRef("s" * 39 + "a", LONG, ""), ServerRef("s" * 39 + "b", LONG, ""))
def test_derived_names_are_unique(first: ServerRef, second: ServerRef) -> None:
    """For any length and any hyphens. No login role has the name of another server's owner role either."""
    a, b = (DatabasePlan(derived_name(owner), derived_name(owner), 1, "") for owner in (first, second))
    same = (first.namespace, first.name) == (second.namespace, second.name)
    assert (a.role == b.role) == same
    assert same or not {a.role, *a.logins} & {b.role, *b.logins}
    assert all(len(name.encode()) <= 63 for name in (a.database, *a.logins))
    assert len(a.role.encode()) <= MAX_ROLE_BYTES


@given(
    first=OWNERS,
    second=OWNERS,
    first_cluster=st.sampled_from([None, "x", "y"]),
    second_cluster=st.sampled_from([None, "x"]),
)
def test_a_marker_matches_only_its_own_server(
    first: ServerRef, second: ServerRef, first_cluster: str | None, second_cluster: str | None
) -> None:
    """The clusters must match, too, if both are known."""
    same_server = (first.namespace, first.name) == (second.namespace, second.name)
    same_cluster = first_cluster is None or second_cluster is None or first_cluster == second_cluster
    matches = is_marker_of(marker(second, second_cluster), marker(first, first_cluster))
    assert matches == (same_server and same_cluster)


@pytest.mark.parametrize(
    "comment", [None, "", "mlflow-operator.dev: ", "made by hand", "mlflow-operator.dev: team/a2"]
)
def test_other_comments_are_not_markers(comment: str | None) -> None:
    """A missing comment is not a marker either."""
    assert not is_marker_of(comment, marker(ServerRef("a", "team", ""), "x"))


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
def test_the_connection_limit_covers_all_pools(limit: int, expected: int) -> None:
    """It includes one more pod, the migration and a user's shell. A suspended server keeps the limit of one replica."""
    assert limit == expected


def pool_env(size: int, max_overflow: int) -> list[Object]:
    """The variables in `spec.env` that set a pool."""
    return [
        {"name": "MLFLOW_SQLALCHEMYSTORE_POOL_SIZE", "value": str(size)},
        {"name": "MLFLOW_SQLALCHEMYSTORE_MAX_OVERFLOW", "value": str(max_overflow)},
    ]


def test_default_server_fits_into_the_default_limit_of_a_platform() -> None:
    """Another default would restart the pods of all servers on platforms."""
    limit = mlflowplatform.PlatformPostgres.model_fields["max_connections_per_server"].default
    defaults = mlflowserver.Spec.model_fields
    assert limited_pool(limit, defaults["replicas"].default, defaults["workers"].default) is None


@given(
    limit=st.integers(20, 3000),
    replicas=st.integers(0, 100),
    workers=st.integers(1, 64),
    job_execution=st.booleans(),
    own=st.tuples(st.integers(1, 1000), st.integers(1, 1000)),
)
@example(limit=20, replicas=100, workers=64, job_execution=False, own=(1000, 10))
@example(limit=130, replicas=3, workers=4, job_execution=False, own=(5, 10))
def test_limited_pool_is_the_largest_that_fits(
    limit: int, replicas: int, workers: int, job_execution: bool, own: tuple[int, int]
) -> None:
    """MLflow treats 0 as unset, so that both values are at least 1. No pool keeps more connections than the own one."""

    def demand(size: int, max_overflow: int) -> int:
        env = pool_env(size, max_overflow)
        return connection_limit(replicas, workers, job_execution=job_execution, env=env)

    pool = limited_pool(limit, replicas, workers, job_execution=job_execution, env=pool_env(*own))
    if pool is None:
        assert demand(*own) <= limit
        return
    assert demand(*own) > limit
    assert min(pool.size, pool.max_overflow) >= 1
    assert pool.size <= own[0]
    if demand(1, 1) > limit:
        assert (pool.size, pool.max_overflow) == (1, 1)
    else:
        assert demand(pool.size, pool.max_overflow) <= limit < demand(pool.size, pool.max_overflow + 1)


@pytest.mark.parametrize(("cluster", "warns"), [("cluster-1", False), ("cluster-2", True), (None, False)])
def test_adoption_from_another_cluster_is_warned_of(cluster: str | None, warns: bool) -> None:
    """Its server may be running, and would lose its login."""
    owner = ServerRef("tracking", "team-a", "")
    own, found = marker(owner, "cluster-1", "uid-1"), marker(owner, cluster, "uid-2")
    message = adoption_required("The role", own, "shared", found).message
    assert ("Another cluster created it" in message) == warns
    assert 'add "team-a/tracking"' in message
