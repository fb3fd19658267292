"""Which Service a pod can find instead of a host outside of the cluster."""

import pytest

from mlflow_operator.model.dns_search import shadowing_service


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("pg.corp", ('Service "pg"', "corp")),
        ("PG.Corp", ('Service "pg"', "corp")),
        ("pg.example.com", ('pod "pg" of Service "example"', "com")),
        ("postgres.mlflow-platform.svc", ('pod "postgres" of Service "mlflow-platform"', "svc")),
        ("postgres.mlflow-platform.svc.cluster.local", None),
        ("pg.db.example.com", None),
        ("10.0.0.1", None),
        ("10.1", ('Service "10"', "1")),
        ("fd00::1", None),
        ("pg..corp", None),
        ("pg", None),
        ("", None),
    ],
)
def test_service_that_can_shadow_a_host(host: str, expected: tuple[str, str] | None) -> None:
    """A namespace can be called like the last label of the host."""
    assert shadowing_service(host) == expected
