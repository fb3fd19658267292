"""Faults of a platform that last ten minutes: each server has one message about it, and one Event.

The tests of the platform itself are in tests/unit/platforms; those with many servers in
tests/integration/test_platform_faults.py.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from mlflow_operator.clients.postgres.errors import no_answer
from mlflow_operator.clients.s3 import errors as s3_errors
from mlflow_operator.status.conditions import Reason
from tests.unit.api.platform_refusals import platform
from tests.unit.platform_simulation import PLATFORM, PlatformSimulation
from tests.unit.simulation import NAME, NAMESPACE

RETRIES_PER_MINUTE = 4
"""A refusal is retried every 15 s."""


@dataclass(frozen=True)
class Fault:
    """A fault, its end, the reason that a new server reports, and that of a running one; None if it stays Ready."""

    begin: Callable[[PlatformSimulation], None]
    end: Callable[[PlatformSimulation], None]
    new: Reason
    running: Reason | None


def _delete_secret(name: str) -> Callable[[PlatformSimulation], None]:
    def delete(simulation: PlatformSimulation) -> None:
        del simulation.api.objects["Secret", name]

    return delete


def _rotate_database_admin(simulation: PlatformSimulation) -> None:
    """In Postgres only, not in the Secret."""
    simulation.admin.password = "rotated"


def _rotate_both(simulation: PlatformSimulation) -> None:
    simulation.admin.password = "rotated"
    simulation.put_platform_secret("postgres-admin", username="admin", password="rotated")


def _put_secrets(simulation: PlatformSimulation) -> None:
    simulation.put_platform_secret("postgres-admin", username="admin", password=simulation.admin.password)
    root = simulation.minio.root
    simulation.put_platform_secret("minio-admin", accessKeyID=root.id, secretAccessKey=root.secret)


def _put_wrong_root_key(simulation: PlatformSimulation) -> None:
    simulation.put_platform_secret("minio-admin", accessKeyID="root", secretAccessKey="wrong")


def _stop_database(simulation: PlatformSimulation) -> None:
    simulation.postgres.error = simulation.admin.error = no_answer("postgres.mlflow-platform.svc:5432")


def _start_database(simulation: PlatformSimulation) -> None:
    simulation.postgres.error = simulation.admin.error = None


def _stop_store(simulation: PlatformSimulation) -> None:
    simulation.minio.error = s3_errors.timed_out("https://minio.mlflow-platform.svc:9000")


def _start_store(simulation: PlatformSimulation) -> None:
    simulation.minio.error = None


def _add_default(simulation: PlatformSimulation) -> None:
    simulation.put_platform(platform(), "other")


def _remove_default(simulation: PlatformSimulation) -> None:
    simulation.delete_platform("other")


def _deselect(simulation: PlatformSimulation) -> None:
    simulation.recreate_namespace(f"{NAMESPACE}-1", {})


def _select(simulation: PlatformSimulation) -> None:
    simulation.recreate_namespace(f"{NAMESPACE}-1")


def _restore(simulation: PlatformSimulation) -> None:
    simulation.put_platform(platform())


UNREACHABLE = (Reason.DATABASE_UNREACHABLE, Reason.ARTIFACT_STORE_UNREACHABLE)
FAULTS = {
    "Secret of Postgres missing": Fault(
        _delete_secret("postgres-admin"), _put_secrets, Reason.SECRET_NOT_FOUND, None
    ),
    "Secret of MinIO missing": Fault(
        _delete_secret("minio-admin"), _put_secrets, Reason.SECRET_NOT_FOUND, None
    ),
    "Secret of Postgres wrong": Fault(
        _rotate_database_admin, _put_secrets, Reason.DATABASE_AUTHENTICATION_FAILED, None
    ),
    "Secret of MinIO wrong": Fault(_put_wrong_root_key, _put_secrets, Reason.BUCKET_ACCESS_DENIED, None),
    "Postgres unavailable": Fault(_stop_database, _start_database, UNREACHABLE[0], UNREACHABLE[0]),
    "MinIO unavailable": Fault(_stop_store, _start_store, UNREACHABLE[1], UNREACHABLE[1]),
    "two default platforms": Fault(_add_default, _remove_default, Reason.DEFAULT_PLATFORM_CONFLICT, None),
    "platform deleted": Fault(
        PlatformSimulation.delete_platform, _restore, Reason.PLATFORM_NOT_FOUND, Reason.PLATFORM_NOT_FOUND
    ),
    "namespace not selected": Fault(
        _deselect, _select, Reason.PLATFORM_NOT_ALLOWED, Reason.PLATFORM_NOT_ALLOWED
    ),
}


def warnings(simulation: PlatformSimulation) -> list[str]:
    """Reasons of the Warning Events."""
    return [reason for normal, reason, _ in simulation.events.published if not normal]


async def wait_ten_minutes(simulation: PlatformSimulation) -> int:
    """Reconcile as often as in ten minutes; return the number of writes after the first minute."""
    for _ in range(RETRIES_PER_MINUTE):
        await simulation.reconcile()
        simulation.run_controllers()
    writes = len(simulation.api.writes)
    for _ in range(9 * RETRIES_PER_MINUTE):
        await simulation.reconcile()
    return len(simulation.api.writes) - writes


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_new_server_reports_a_fault_of_its_platform_once(fault: Fault) -> None:
    explicit = fault.new in {Reason.PLATFORM_NOT_FOUND, Reason.PLATFORM_NOT_ALLOWED}
    simulation = PlatformSimulation({"platformRef": {"name": PLATFORM}} if explicit else {})
    fault.begin(simulation)
    assert await wait_ten_minutes(simulation) == 0
    assert warnings(simulation) == [fault.new]
    failed = [c for c in simulation.status["conditions"] if c["reason"] == fault.new]
    assert {c["type"] for c in failed} >= {"Ready"}
    assert (
        len({c["message"].removesuffix(" Reconciliation is paused until this is fixed.") for c in failed})
        == 1
    )
    assert PLATFORM in failed[0]["message"]
    fault.end(simulation)
    await simulation.reconcile_until_ready()
    assert warnings(simulation) == [fault.new]


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_running_server_keeps_its_pods_during_a_fault_of_its_platform(fault: Fault) -> None:
    """It needs the administrator's Secret, and the choice of a platform, only once."""
    simulation = PlatformSimulation()
    await simulation.reconcile_until_ready()
    deployment = simulation.get("Deployment", NAME)
    simulation.events.published.clear()
    fault.begin(simulation)
    assert await wait_ten_minutes(simulation) == 0
    assert warnings(simulation) == [reason for reason in [fault.running] if reason]
    assert (simulation.condition("Ready")[0] == "True") is (fault.running is None)
    assert simulation.get("Deployment", NAME) == deployment
    fault.end(simulation)
    await simulation.reconcile_until_ready()
    assert len(warnings(simulation)) <= 1
    assert simulation.get("Deployment", NAME) == deployment


async def test_rotated_credentials_of_the_administrators_need_no_change_of_servers() -> None:
    """The next write uses those in the Secret."""
    simulation = PlatformSimulation()
    await simulation.reconcile_until_ready()
    simulation.events.published.clear()
    _rotate_both(simulation)
    assert await wait_ten_minutes(simulation) == 0
    login = simulation.secret(f"{NAME}-database")["username"]
    simulation.now = "2026-02-01T00:00:00Z"
    simulation.update_spec(rotateCredentialsAt="2026-01-15T00:00:00Z")
    await simulation.reconcile_until_ready()
    assert simulation.secret(f"{NAME}-database")["username"] != login
    assert warnings(simulation) == []
