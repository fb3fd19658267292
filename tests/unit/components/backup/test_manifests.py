"""The pod that backs up, and what is made of its answer."""

import json

import pytest

from mlflow_operator.components.backup import manifests as backup
from mlflow_operator.components.backup import result as backup_answer
from mlflow_operator.components.backup import status as backup_record
from mlflow_operator.components.backup.result import BackupResult
from mlflow_operator.components.garbage_collection import manifests as garbage
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Backup, Server
from tests.unit.kubernetes_schemas import valid
from tests.unit.servers import env, server
from tests.unit.test_render import EXTERNAL, VERSIONS

OWN = {
    "endpoint": "https://vault:9000",
    "bucket": "vault",
    "prefix": "all",
    "credentialsSecretRef": {"name": "v"},
}


def wanted(spec: Object | None = None, **more: object) -> tuple[Server, Backup]:
    """A server and its backup."""
    found = server({**(spec or {}), "backup": more})
    assert found.backup
    return found, found.backup


def containers(found: tuple[Server, Backup]) -> dict[str, Object]:
    """Of the pod, by name."""
    pod = backup.cronjob(*found)["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    return {each["name"]: each for each in pod["containers"]}


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spec", [{}, EXTERNAL], ids=["embedded", "external"])
def test_what_backs_up_is_valid(spec: Object, version: str) -> None:
    """For every supported Kubernetes."""
    found = wanted(spec, s3={**OWN, "tls": {"caSecretRef": {"name": "ca"}}})
    valid(backup.cronjob(*found), version)
    valid(backup.before_migration(*found, "image", "state"), version)


def test_both_containers_meet_in_memory_as_one_user() -> None:
    """What is there to open the database is for nobody else, and goes with the pod."""
    pod = backup.template(*wanted())["spec"]
    (exchange,) = (volume for volume in pod["volumes"] if volume["name"] == "exchange")
    assert exchange["emptyDir"]["medium"] == "Memory"
    for each in pod["containers"]:
        assert any(mount["name"] == "exchange" for mount in each["volumeMounts"])
        assert each["securityContext"]["readOnlyRootFilesystem"]
        assert "runAsUser" not in each["securityContext"]


def test_the_password_is_given_to_the_one_container_that_passes_it_on() -> None:
    """By a Secret, and in no argument."""
    found = containers(wanted())
    assert "MLFLOW_BACKEND_STORE_URI" in {variable["name"] for variable in found["backup"]["env"]}
    assert {variable["name"] for variable in found["pg-dump"]["env"]} == {"HOME", "TMPDIR", "BACKUP_FOLDER"}


def test_a_backup_goes_into_the_artifact_store_unless_another_is_named() -> None:
    """With what opens that one, and nothing of what is about the other."""
    assert env(containers(wanted(EXTERNAL))["backup"])["BACKUP_DESTINATION"] == "s3://models/team/a"
    given = containers(wanted({**EXTERNAL, "env": [{"name": "X", "value": "1"}]}, s3=OWN))["backup"]
    assert env(given)["BACKUP_DESTINATION"] == "s3://vault/all"
    assert env(given)["MLFLOW_S3_ENDPOINT_URL"] == "https://vault:9000"
    secrets = {v["valueFrom"]["secretKeyRef"]["name"] for v in given["env"] if "valueFrom" in v}
    assert secrets == {"a-server", "v"}
    assert "AWS_CA_BUNDLE" not in env(given)


@pytest.mark.parametrize(
    ("spec", "more", "image"),
    [
        ({}, {}, "docker.io/library/postgres:17-trixie"),
        (EXTERNAL, {}, "docker.io/library/postgres:17-trixie"),
        ({"database": {"embedded": {"image": "postgres:18"}}}, {}, "postgres:18"),
        ({"database": {"embedded": {"image": "postgres:18"}}}, {"image": "mine:1"}, "mine:1"),
    ],
)
def test_pg_dump_comes_from_the_databases_own_image_unless_another_is_named(
    spec: Object, more: Object, image: str
) -> None:
    """An older pg_dump refuses a newer database."""
    assert containers(wanted(spec, **more))["pg-dump"]["image"] == image


def test_what_is_kept_is_said_in_numbers() -> None:
    """Fourteen, and thirty days, unless the spec says otherwise."""
    found = env(containers(wanted())["backup"])
    assert (found["BACKUP_MAX_COUNT"], found["BACKUP_MAX_AGE_SECONDS"]) == ("14", "2592000")
    found = env(containers(wanted(retention={"maxCount": 3, "maxAge": "36h"}))["backup"])
    assert (found["BACKUP_MAX_COUNT"], found["BACKUP_MAX_AGE_SECONDS"]) == ("3", "129600")


def test_a_backup_before_a_migration_is_another_one_for_another_target_or_state() -> None:
    """And the same one for the same."""
    found = wanted()
    names = {
        backup.before_migration(*found, target, state)["metadata"]["name"]
        for target, state in (("a", "1"), ("a", "1"), ("b", "1"), ("a", "2"))
    }
    assert len(names) == 3
    assert all(name.startswith("a-backup-") for name in names)


def test_who_is_drained_from_a_node_begins_anew() -> None:
    """It is no verdict on the work, and that of tonight shall not wait for tomorrow."""
    found, cleaned = wanted(), server({"garbageCollection": {}})
    assert cleaned.garbage_collection
    for job in (
        backup.cronjob(*found)["spec"]["jobTemplate"],
        backup.before_migration(*found, "a", "1"),
        garbage.cronjob(cleaned, cleaned.garbage_collection, paused=False)["spec"]["jobTemplate"],
    ):
        (rule,) = job["spec"]["podFailurePolicy"]["rules"]
        assert (rule["action"], rule["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


MADE = {
    "id": "20260101T020000Z-0123abcd",
    "uri": "s3://vault/x",
    "sizeBytes": 1,
    "schemaRevision": "r",
    "startTime": "2026-01-01T02:00:00Z",
    "completionTime": "2026-01-01T02:01:00Z",
}


@pytest.mark.parametrize(
    "said",
    [
        None,
        "",
        "Killed",
        "{}",
        json.dumps({"backup": None, "faults": []}),
        json.dumps({"backup": MADE}),
        json.dumps({"backup": {**MADE, "sizeBytes": 0}, "faults": []}),
        json.dumps({"backup": {**MADE, "sizeBytes": "1"}, "faults": []}),
        json.dumps({"backup": {**MADE, "id": "../x"}, "faults": []}),
        json.dumps({"backup": {**MADE, "more": 1}, "faults": []}),
        json.dumps({"backup": MADE, "faults": []}) + " " * 4000,
    ],
)
def test_what_is_not_just_an_answer_is_none(said: str | None) -> None:
    """What can't be read is no backup."""
    assert backup_answer.parse(said) is None


def test_an_answer_is_read() -> None:
    """With what was left undone after a backup that is good."""
    said = {"backup": MADE, "faults": [{"kind": "store", "said": "DeleteObject denied"}]}
    found = backup_answer.parse(json.dumps(said))
    assert found
    assert found.backup
    assert found.backup.size_bytes == 1
    assert found.faults[0].said == "DeleteObject denied"


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("version", "spec.backup.image"),
        ("empty", "no tables of MLflow"),
        ("database", "DatabaseReady"),
        ("store", "its key and its policy"),
        ("moved", "The tables moved meanwhile"),
        ("begin", "postgres:17-trixie"),
        ("interrupted", "was stopped"),
        ("pg_dump", "pg_dump says: it is so."),
        ("what nobody has thought of", "it is so."),
    ],
)
def test_each_fault_is_told_with_the_way_out(kind: str, words: str) -> None:
    """And where more is to be read."""
    found, asked = wanted()
    answer = BackupResult.model_validate({"backup": None, "faults": ({"kind": kind, "said": "it is so."},)})
    message = backup_record.failure(found, asked, "a-backup-1", answer, None)
    assert words in message
    assert "kubectl logs -n team job/a-backup-1 --all-containers" in message
    assert ".." not in message


def test_no_time_of_an_error_makes_news_of_the_same_one() -> None:
    """A message that changes is an Event each time."""
    found, asked = wanted()
    said = [f"2026-01-01T02:00:0{second}Z [12{second}] refused" for second in (1, 2)]
    answers = [
        BackupResult.model_validate({"backup": None, "faults": ({"kind": "store", "said": each},)})
        for each in said
    ]
    assert len({backup_record.failure(found, asked, "j", answer, None) for answer in answers}) == 1
