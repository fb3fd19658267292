"""The pod that restores, and what is made of its answer."""

import json
import re

import pytest

from mlflow_operator import pod_scripts
from mlflow_operator.components.restore import manifests as restore
from mlflow_operator.components.restore import result as restore_answer
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Restore, Server
from mlflow_operator.status.conditions import Reason
from tests.unit.kubernetes_schemas import valid
from tests.unit.servers import env, server
from tests.unit.test_render import EXTERNAL, VERSIONS

ELSEWHERE = {"bucket": "vault", "prefix": "all", "credentialsSecretRef": {"name": "v"}}


def wanted(spec: Object | None = None, **more: object) -> tuple[Server, Restore]:
    """A server and the restore that it asks for."""
    found = server({**(spec or {}), "restoreFrom": {"serverName": "old", **more}})
    assert found.restore
    return found, found.restore


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("spec", [{}, EXTERNAL], ids=["embedded", "external"])
def test_what_restores_is_valid(spec: Object, version: str) -> None:
    """For every supported Kubernetes."""
    valid(restore.job(*wanted(spec, s3={**ELSEWHERE, "tls": {"caSecretRef": {"name": "ca"}}}), "db"), version)


def test_the_backup_is_looked_for_where_the_server_it_was_made_of_kept_it() -> None:
    """In the server's own store and namespace, unless others are named."""
    first = restore.job(*wanted(), "db")["spec"]["template"]["spec"]["containers"][0]
    assert env(first) | {
        "RESTORE_SOURCE": "s3://mlflow",
        "RESTORE_NAMESPACE": "team",
        "RESTORE_SERVER": "old",
        "RESTORE_BACKUP": "latest",
    } == env(first)
    other = wanted(s3=ELSEWHERE, namespace="there", backup="20260101T000000Z-00000001")
    first = restore.job(*other, "db")["spec"]["template"]["spec"]["containers"][0]
    assert env(first) | {"RESTORE_SOURCE": "s3://vault/all", "RESTORE_NAMESPACE": "there"} == env(first)
    keys = {e["name"]: e["valueFrom"]["secretKeyRef"]["name"] for e in first["env"] if "valueFrom" in e}
    assert keys["AWS_SECRET_ACCESS_KEY"] == "v"


def test_the_database_is_written_with_its_own_release_of_postgres() -> None:
    """And with the operator's where it is not known, or with what is asked for."""
    embedded = {"database": {"embedded": {"image": "postgres:18"}}}
    assert wanted(embedded)[1].image == "postgres:18"
    assert wanted(embedded, image="mine:16")[1].image == "mine:16"
    assert "postgres:17" in wanted(EXTERNAL)[1].image


def test_both_containers_meet_in_memory_as_one_user_and_one_alone_knows_the_password() -> None:
    """What is there to open the database is for nobody else, and goes with the pod."""
    pod = restore.job(*wanted(), "db")["spec"]["template"]["spec"]
    (exchange,) = (volume for volume in pod["volumes"] if volume["name"] == "exchange")
    assert exchange["emptyDir"]["medium"] == "Memory"
    first, second = pod["containers"]
    assert {e["name"] for e in second["env"]} == {"HOME", "TMPDIR", "RESTORE_FOLDER"}
    for each in (first, second):
        assert any(mount["name"] == "exchange" for mount in each["volumeMounts"])
        assert "runAsUser" not in each["securityContext"]


@pytest.mark.parametrize(
    "script", [pod_scripts.RESTORE, pod_scripts.PG_RESTORE], ids=["restore", "pg_restore"]
)
def test_a_script_arrives_in_its_container_as_it_is_written(script: str) -> None:
    """In a command Kubernetes makes one dollar of two, and puts variables in where $(NAME) stands."""
    assert "$$" not in script
    assert not re.search(r"\$\([A-Za-z_][A-Za-z0-9_.-]*\)", script)


def test_a_mark_is_known_again_by_who_asks_for_the_same() -> None:
    """Whatever the newest backup was by then; not by who asks for another one, or finds no mark."""
    asked = wanted()[1]
    mark = restore.marker(asked).format(id="20260101T000000Z-00000001")
    assert restore.done(asked, mark)
    assert restore.done(wanted({"workers": 3})[1], mark)
    for other in (
        wanted(namespace="there"),
        wanted(s3=ELSEWHERE),
        wanted(backup="20260101T000000Z-00000001"),
    ):
        assert not restore.done(other[1], mark)
    assert not restore.done(asked, None)
    assert not restore.done(asked, "the team's own words")


def answer(kind: str, said: str) -> str:
    """Of a restore that failed."""
    return json.dumps({"backup": None, "faults": [{"kind": kind, "said": said}]})


@pytest.mark.parametrize(
    ("kind", "said", "reason", "words"),
    [
        ("tables", "the database holds tables already (x)", Reason.RESTORE_REFUSED, "take spec.restoreFrom away"),
        ("newer", "3.18.0 ffff", Reason.RESTORE_REFUSED, "Set spec.version to the backup's"),
        ("format", "format 2", Reason.RESTORE_REFUSED, "Take another backup"),
        ("missing", "there is no backup at s3://x", Reason.RESTORE_REFUSED, "there is no backup at s3://x. "),
        ("damaged", "its SHA-256 is another one", Reason.RESTORE_REFUSED, "another backup's id"),
        ("store", "AccessDenied", Reason.RESTORE_FAILED, "key of the artifact store"),
        ("database", "no route", Reason.RESTORE_FAILED, "spec.database"),
        ("pg_restore", "psql ended with exit code 3", Reason.RESTORE_FAILED, "Its last lines: ERROR: full"),
        ("never heard of", "?", Reason.RESTORE_FAILED, "Mend the cause"),
    ],
)  # fmt: skip
def test_each_failure_says_what_it_left_and_what_to_do(
    kind: str, said: str, reason: Reason, words: str
) -> None:
    """And how it is tried again: never by itself."""
    told = restore_answer.failure(
        *wanted(), "a-restore-1", restore_answer.parse(answer(kind, said)), "ERROR: full"
    )
    assert told.reason is reason
    assert words in told.message
    assert said in told.message
    assert "kubectl delete job -n team a-restore-1" in told.message
    assert "Nothing was" in told.message


@pytest.mark.parametrize(
    "text", [None, "", "{}", "x", '{"backup": null, "faults": []}', answer("a", "b" * 4000)]
)
def test_what_can_not_be_read_is_no_answer(text: str | None) -> None:
    """Then what the container said at last is quoted."""
    assert restore_answer.parse(text) is None
    told = restore_answer.failure(*wanted(), "a-restore-1", None, "Killed")
    assert told.reason is Reason.RESTORE_FAILED
    assert "Its last lines: Killed" in told.message
