"""Manifests of the backup pods, and the messages about their results."""

import json

import pytest

from mlflow_operator.components.backup import manifests
from mlflow_operator.components.backup import result as backup_result
from mlflow_operator.components.backup import status as backup_status
from mlflow_operator.components.backup.result import BackupResult
from mlflow_operator.components.garbage_collection import manifests as garbage_collection
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Backup, Server
from tests.unit.kubernetes_schemas import validate_object
from tests.unit.servers import env, server
from tests.unit.test_render import EXTERNAL, VERSIONS

SEPARATE_BUCKET = {
    "endpoint": "https://vault:9000",
    "bucket": "vault",
    "prefix": "all",
    "credentialsSecretRef": {"name": "v"},
}


def with_backup(spec: Object | None = None, **backup: object) -> tuple[Server, Backup]:
    """A server, and its resolved `spec.backup`."""
    resolved = server({**(spec or {}), "backup": backup})
    assert resolved.backup
    return resolved, resolved.backup


def containers(server_and_backup: tuple[Server, Backup]) -> dict[str, Object]:
    """Containers of the backup pod, by name."""
    pod = manifests.cronjob(*server_and_backup)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return {container["name"]: container for container in pod["containers"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spec", [{}, EXTERNAL], ids=["embedded", "external"])
def test_manifests_are_valid(spec: Object, version: str) -> None:
    """In every supported Kubernetes version."""
    arguments = with_backup(spec, s3={**SEPARATE_BUCKET, "tls": {"caSecretRef": {"name": "ca"}}})
    validate_object(manifests.cronjob(*arguments), version)
    validate_object(manifests.pre_migration_job(*arguments, "image", "state"), version)


def test_jobs_that_users_create_from_the_cronjob_are_deleted() -> None:
    """The history limits do not apply to them. A hundred of them would exceed what the operator reads."""
    job = manifests.cronjob(*with_backup())["spec"]["jobTemplate"]["spec"]
    assert 0 < job["ttlSecondsAfterFinished"] <= 7 * 24 * 3600


def test_containers_share_a_volume_in_memory_and_the_same_user() -> None:
    """No other user can read the database password in it, and it ends with the pod."""
    pod = manifests.template(*with_backup())["spec"]
    (exchange,) = (volume for volume in pod["volumes"] if volume["name"] == "exchange")
    assert exchange["emptyDir"]["medium"] == "Memory"
    for container in pod["containers"]:
        assert any(mount["name"] == "exchange" for mount in container["volumeMounts"])
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert "runAsUser" not in container["securityContext"]


def test_only_s3_container_gets_the_password() -> None:
    """From a Secret, and not as an argument."""
    found = containers(with_backup())
    assert "MLFLOW_BACKEND_STORE_URI" in {variable["name"] for variable in found["backup"]["env"]}
    assert {variable["name"] for variable in found["pg-dump"]["env"]} == {"HOME", "TMPDIR", "BACKUP_FOLDER"}


def test_backup_is_stored_in_artifact_store_by_default() -> None:
    """A separate bucket has its own credentials and settings, and none of the artifact store's."""
    assert env(containers(with_backup(EXTERNAL))["backup"])["BACKUP_DESTINATION"] == "s3://models/team/a"
    spec = {**EXTERNAL, "env": [{"name": "X", "value": "1"}]}
    container = containers(with_backup(spec, s3=SEPARATE_BUCKET))["backup"]
    assert env(container)["BACKUP_DESTINATION"] == "s3://vault/all"
    assert env(container)["MLFLOW_S3_ENDPOINT_URL"] == "https://vault:9000"
    secrets = {v["valueFrom"]["secretKeyRef"]["name"] for v in container["env"] if "valueFrom" in v}
    assert secrets == {"a-server", "a-encryption", "v"}
    assert "AWS_CA_BUNDLE" not in env(container)


@pytest.mark.parametrize(
    ("spec", "backup", "image"),
    [
        ({}, {}, "docker.io/library/postgres:17-trixie"),
        (EXTERNAL, {}, "docker.io/library/postgres:17-trixie"),
        ({"database": {"embedded": {"image": "postgres:18"}}}, {}, "postgres:18"),
        ({"database": {"embedded": {"image": "postgres:18"}}}, {"image": "mine:1"}, "mine:1"),
    ],
)
def test_pg_dump_uses_database_image_by_default(spec: Object, backup: Object, image: str) -> None:
    """pg_dump rejects a database server of a newer version."""
    assert containers(with_backup(spec, **backup))["pg-dump"]["image"] == image


def test_retention_is_set_in_the_environment() -> None:
    """By default 14 backups and 30 days."""
    variables = env(containers(with_backup())["backup"])
    assert (variables["BACKUP_MAX_COUNT"], variables["BACKUP_MAX_AGE_SECONDS"]) == ("14", "2592000")
    variables = env(containers(with_backup(retention={"maxCount": 3, "maxAge": "36h"}))["backup"])
    assert (variables["BACKUP_MAX_COUNT"], variables["BACKUP_MAX_AGE_SECONDS"]) == ("3", "129600")


def test_pre_migration_job_name_depends_on_target_and_database_state() -> None:
    """The same target and state have the same name."""
    arguments = with_backup()
    names = {
        manifests.pre_migration_job(*arguments, target, state)["metadata"]["name"]
        for target, state in (("a", "1"), ("a", "1"), ("b", "1"), ("a", "2"))
    }
    assert len(names) == 3
    assert all(name.startswith("a-backup-") for name in names)


def test_pod_of_a_drained_node_is_replaced() -> None:
    """A disruption is no failure of the Job, and the backup must not wait for the next schedule."""
    arguments, collecting = with_backup(), server({"garbageCollection": {}})
    assert collecting.garbage_collection
    cronjob = garbage_collection.cronjob(collecting, collecting.garbage_collection, paused=False)
    for job in (
        manifests.cronjob(*arguments)["spec"]["jobTemplate"],
        manifests.pre_migration_job(*arguments, "a", "1"),
        cronjob["spec"]["jobTemplate"],
    ):
        (rule,) = job["spec"]["podFailurePolicy"]["rules"]
        assert (rule["action"], rule["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


BACKUP = {
    "id": "20260101T020000Z-0123abcd",
    "uri": "s3://vault/x",
    "sizeBytes": 1,
    "schemaRevision": "r",
    "startTime": "2026-01-01T02:00:00Z",
    "completionTime": "2026-01-01T02:01:00Z",
}


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        "Killed",
        "{}",
        json.dumps({"backup": None, "errors": []}),
        json.dumps({"backup": BACKUP}),
        json.dumps({"backup": {**BACKUP, "sizeBytes": 0}, "errors": []}),
        json.dumps({"backup": {**BACKUP, "sizeBytes": "1"}, "errors": []}),
        json.dumps({"backup": {**BACKUP, "id": "../x"}, "errors": []}),
        json.dumps({"backup": {**BACKUP, "more": 1}, "errors": []}),
        json.dumps({"backup": BACKUP, "errors": []}) + " " * 4000,
    ],
)
def test_invalid_termination_message_is_no_result(text: str | None) -> None:
    """An unreadable message does not count as a backup."""
    assert backup_result.parse(text) is None


def test_result_is_parsed() -> None:
    """A complete backup may have errors about the deletion of older ones."""
    message = {"backup": BACKUP, "errors": [{"code": "store", "message": "DeleteObject denied"}]}
    result = backup_result.parse(json.dumps(message))
    assert result
    assert result.backup
    assert result.backup.size_bytes == 1
    assert result.errors[0].message == "DeleteObject denied"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("version", "spec.backup.image"),
        ("no_tables", "no MLflow tables"),
        ("database", "DatabaseReady"),
        ("store", "its access key and its policy"),
        ("schema_changed", "The schema was migrated during the backup"),
        ("unknown_revision", "the next backup uses the new version"),
        ("start_timeout", "postgres:17-trixie"),
        ("interrupted", "was terminated"),
        ("pg_dump", "pg_dump failed: it is so."),
        ("unknown code", "it is so."),
    ],
)
def test_failure_message_has_cause_and_advice(code: str, text: str) -> None:
    """And the command that shows the log."""
    backup_server, backup = with_backup()
    result = BackupResult.model_validate(
        {"backup": None, "errors": ({"code": code, "message": "it is so."},)}
    )
    message = backup_status.failure_message(backup_server, backup, "a-backup-1", result, None)
    assert text in message
    assert "kubectl logs -n team job/a-backup-1 --all-containers" in message
    assert ".." not in message


def test_failure_message_has_no_volatile_parts() -> None:
    """Each change of a message is an Event."""
    backup_server, backup = with_backup()
    messages = [f"2026-01-01T02:00:0{second}Z [12{second}] refused" for second in (1, 2)]
    results = [
        BackupResult.model_validate({"backup": None, "errors": ({"code": "store", "message": message},)})
        for message in messages
    ]
    assert len({backup_status.failure_message(backup_server, backup, "j", r, None) for r in results}) == 1
