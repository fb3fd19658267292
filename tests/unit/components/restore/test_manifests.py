"""Manifest of the restore Job, and the messages about its result."""

import json
import re

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.components.restore import manifests
from mlflow_operator.components.restore import result as restore_result
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Restore, Server
from mlflow_operator.status.conditions import Reason
from tests.unit.kubernetes_schemas import validate_object
from tests.unit.servers import env, server
from tests.unit.test_render import EXTERNAL, VERSIONS

SEPARATE_BUCKET = {"bucket": "vault", "prefix": "all", "credentialsSecretRef": {"name": "v"}}


def with_restore(spec: Object | None = None, **restore: object) -> tuple[Server, Restore]:
    """A server, and its resolved `spec.restoreFrom`."""
    resolved = server({**(spec or {}), "restoreFrom": {"serverName": "old", **restore}})
    assert resolved.restore
    return resolved, resolved.restore


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spec", [{}, EXTERNAL], ids=["embedded", "external"])
def test_manifest_is_valid(spec: Object, version: str) -> None:
    """In every supported Kubernetes version."""
    s3 = {**SEPARATE_BUCKET, "tls": {"caSecretRef": {"name": "ca"}}}
    validate_object(manifests.job(*with_restore(spec, s3=s3), "db"), version)


def test_source_defaults_to_own_store_and_namespace() -> None:
    """`spec.restoreFrom` can set others."""
    container = manifests.job(*with_restore(), "db")["spec"]["template"]["spec"]["containers"][0]
    assert env(container) | {
        "RESTORE_SOURCE": "s3://mlflow",
        "RESTORE_NAMESPACE": "team",
        "RESTORE_SERVER": "old",
        "RESTORE_BACKUP": "latest",
    } == env(container)
    other = with_restore(s3=SEPARATE_BUCKET, namespace="there", backup="20260101T000000Z-00000001")
    container = manifests.job(*other, "db")["spec"]["template"]["spec"]["containers"][0]
    expected = {"RESTORE_SOURCE": "s3://vault/all", "RESTORE_NAMESPACE": "there"}
    assert env(container) | expected == env(container)
    secrets = {
        e["name"]: e["valueFrom"]["secretKeyRef"]["name"] for e in container["env"] if "valueFrom" in e
    }
    assert secrets["AWS_SECRET_ACCESS_KEY"] == "v"


def test_image_defaults_to_database_image() -> None:
    """For an external database, whose version is unknown, to the operator's default image."""
    embedded = {"database": {"embedded": {"image": "postgres:18"}}}
    assert with_restore(embedded)[1].image == "postgres:18"
    assert with_restore(embedded, image="mine:16")[1].image == "mine:16"
    assert "postgres:17" in with_restore(EXTERNAL)[1].image


def test_containers_share_a_volume_in_memory_and_only_one_gets_the_password() -> None:
    """No other user can read the password in the volume, and it ends with the pod."""
    pod = manifests.job(*with_restore(), "db")["spec"]["template"]["spec"]
    (exchange,) = (volume for volume in pod["volumes"] if volume["name"] == "exchange")
    assert exchange["emptyDir"]["medium"] == "Memory"
    s3_container, postgres_container = pod["containers"]
    assert {e["name"] for e in postgres_container["env"]} == {"HOME", "TMPDIR", "RESTORE_FOLDER"}
    for container in (s3_container, postgres_container):
        assert any(mount["name"] == "exchange" for mount in container["volumeMounts"])
        assert "runAsUser" not in container["securityContext"]


@pytest.mark.parametrize(
    "script", [pod_scripts.RESTORE, pod_scripts.PG_RESTORE], ids=["restore", "pg_restore"]
)
def test_script_is_unchanged_in_the_command(script: str) -> None:
    """In a command, Kubernetes replaces `$$` with `$`, and `$(NAME)` with the value of a variable."""
    assert "$$" not in script
    assert not re.search(r"\$\([A-Za-z_][A-Za-z0-9_.-]*\)", script)


def test_marker_identifies_the_same_request() -> None:
    """Independent of which backup was the latest. Another request, or no marker, does not match."""
    restore = with_restore()[1]
    marker = manifests.marker(restore).format(id="20260101T000000Z-00000001")
    assert manifests.is_restored(restore, marker)
    assert manifests.is_restored(with_restore({"workers": 3})[1], marker)
    for other in (
        with_restore(namespace="there"),
        with_restore(s3=SEPARATE_BUCKET),
        with_restore(backup="20260101T000000Z-00000001"),
    ):
        assert not manifests.is_restored(other[1], marker)
    assert not manifests.is_restored(restore, None)
    assert not manifests.is_restored(restore, "a comment of the team")


def failed_result(code: str, message: str) -> str:
    """Termination message of a failed restore."""
    return json.dumps({"backup": None, "errors": [{"code": code, "message": message}]})


@pytest.mark.parametrize(
    ("code", "message", "reason", "text"),
    [
        ("not_empty", "the database already holds tables (x)", Reason.RESTORE_REFUSED, "remove spec.restoreFrom"),
        ("newer_schema", "3.18.0 ffff", Reason.RESTORE_REFUSED, "Set spec.version to the version of the backup"),
        ("format", "format 2", Reason.RESTORE_REFUSED, "Use another backup"),
        ("not_found", "there is no backup at s3://x", Reason.RESTORE_REFUSED, "there is no backup at s3://x. "),
        ("damaged", "its SHA-256 differs", Reason.RESTORE_REFUSED, "the ID of another backup"),
        ("store", "AccessDenied", Reason.RESTORE_FAILED, "key of the artifact store"),
        ("database", "no route", Reason.RESTORE_FAILED, "spec.database"),
        ("pg_restore", "psql ended with exit code 3", Reason.RESTORE_FAILED, "Its last lines: ERROR: full"),
        ("unknown code", "?", Reason.RESTORE_FAILED, "Fix the cause"),
    ],
)  # fmt: skip
def test_failure_message_has_cause_consequence_and_advice(
    code: str, message: str, reason: Reason, text: str
) -> None:
    """And the command for a retry, because a restore is never retried automatically."""
    error = restore_result.failure(
        *with_restore(), "a-restore-1", restore_result.parse(failed_result(code, message)), "ERROR: full"
    )
    assert error.reason is reason
    assert text in error.message
    assert message in error.message
    assert "kubectl delete job -n team a-restore-1" in error.message
    assert "Nothing was" in error.message
    assert "empty" not in error.message, "other applications may have tables in the database"


@pytest.mark.parametrize("code", ["missing_keys", "not_found", "damaged"])
def test_advice_to_recreate_the_server_keeps_its_backups(code: str) -> None:
    """With `deletionPolicy: Delete`, they may be deleted with the artifacts."""
    result = restore_result.parse(failed_result(code, "x"))
    error = restore_result.failure(*with_restore(), "a-restore-1", result, None)
    assert "delete this server with spec.deletionPolicy Retain" in error.message


@pytest.mark.parametrize(
    "text", [None, "", "{}", "x", '{"backup": null, "errors": []}', failed_result("a", "b" * 4000)]
)
def test_invalid_termination_message_is_no_result(text: str | None) -> None:
    """The message then quotes the last lines of the container."""
    assert restore_result.parse(text) is None
    error = restore_result.failure(*with_restore(), "a-restore-1", None, "Killed")
    assert error.reason is Reason.RESTORE_FAILED
    assert "Its last lines: Killed" in error.message
