"""`mlflow-operator doctor` as it is called, against recorded answers of an API server."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mlflow_operator.cli import main
from mlflow_operator.doctor import operators
from tests.unit.doctor.recorded_api_server import (
    ACCOUNT,
    URL,
    Recorded,
    condition,
    definition,
    deployment,
    pod,
    server,
)
from tests.unit.kubeconfig import kubeconfig


@dataclass
class Doctor:
    """The command, and what it asks."""

    api: Recorded
    kubeconfig: Path

    def __call__(self, *args: str) -> Result:
        done = CliRunner().invoke(main, ["doctor", "--kubeconfig", str(self.kubeconfig), *args])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        assert "Traceback" not in done.output
        return done

    def found(self, *args: str, code: int = 0) -> dict[tuple[str, str], dict[str, str]]:
        """Findings by subject and check; the exit code must be `code`."""
        done = self(*args, "-o", "json")
        answer = json.loads(done.stdout)
        assert (done.exit_code, answer["exitCode"]) == (code, code), done.output
        return {(one["subject"], one["check"]): one for one in answer["findings"]}


OPERATOR, SERVER, CLUSTER = "operator mlflow-operator/mlflow-operator", "server team-a/tracking", "cluster"


@pytest.fixture
def api() -> Recorded:
    return Recorded()


@pytest.fixture
def doctor(api: Recorded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Doctor]:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(operators, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(operators, "_SLACK_SECONDS", 0.0)
    with api.serving(tmp_path) as path:
        yield Doctor(api, path)


def test_all_well_is_0_and_says_so(doctor: Doctor) -> None:
    """Every check speaks, so that what is well is not mistaken for what was not looked at."""
    done = doctor()
    assert done.exit_code == 0, done.output
    assert done.stdout.rstrip().endswith("All well.")
    assert "Embedded: tracking-postgres.team-a.svc:5432/mlflow" in done.stdout
    states = {key: one["state"] for key, one in doctor.found().items()}
    assert {*states.values()} == {"well"}
    assert {*states} == {
        (CLUSTER, "definition"),
        *((OPERATOR, check) for check in ("deployment", "lease", "permissions", "version")),
        *((SERVER, one["type"]) for one in server()["status"]["conditions"]),
        (SERVER, "URL from inside"),
        (SERVER, "URL from outside"),
    }


def test_nothing_is_changed_and_no_secret_is_read(doctor: Doctor) -> None:
    """All it sends are reads, questions about itself, and one command that asks URLs."""
    doctor()
    sent = {line for line in doctor.api.asked if not line.startswith("run ")}
    assert {line.split()[0] for line in sent} == {"GET", "POST"}
    assert all("selfsubject" in line for line in sent if line.startswith("POST"))
    assert not [line for line in sent if "/secrets" in line]
    assert [line for line in doctor.api.asked if line.startswith("run ")] == [
        f"run mlflow-operator answers {URL}"
    ]


def test_it_asks_as_the_operator_s_account(doctor: Doctor) -> None:
    """What the administrator may does not count."""
    doctor.api.denied = {("statefulsets", "delete"), ("mlflowservers/status", "patch")}
    found = doctor.found(code=1)[OPERATOR, "permissions"]
    assert doctor.api.spoke_as == {ACCOUNT}
    assert found["state"] == "fault"
    assert "statefulsets.apps (delete)" in found["found"]
    assert "mlflowservers/status.mlflow-operator.dev (patch)" in found["found"]


def test_data_that_may_not_be_deleted_is_a_choice(doctor: Doctor) -> None:
    """The chart's `deletion.allowed: false`."""
    doctor.api.denied = {("secrets", "delete"), ("persistentvolumeclaims", "delete")}
    assert doctor.found()[OPERATOR, "permissions"]["state"] == "note"


def test_who_may_little_hears_what_was_not_looked_at(doctor: Doctor) -> None:
    """A data scientist with `view` in one namespace: their server is judged, the rest is named with a way out."""
    doctor.api.forbidden = {
        "impersonate",
        "customresourcedefinitions",
        "deployments",
        "leases",
        "services/proxy",
        "pods/exec",
    }
    found = doctor.found("-n", "team-a")
    for key in ((CLUSTER, "definition"), (CLUSTER, "operator"), (SERVER, "URL from outside")):
        assert found[key]["state"] == "unknown"
        assert found[key]["next"]
    assert found[SERVER, "Ready"]["state"] == "well"
    assert "All well that was looked at, 4 not looked at." in doctor("-n", "team-a").stdout


@pytest.mark.parametrize(
    ("forbidden", "check", "says"),
    [
        ("impersonate", "permissions", f"may not impersonate {ACCOUNT}"),
        ("leases", "lease", "may not get Leases"),
    ],
)
def test_a_part_that_may_not_be_asked_leaves_the_others(
    doctor: Doctor, forbidden: str, check: str, says: str
) -> None:
    doctor.api.forbidden = {forbidden}
    found = doctor.found()
    assert found[OPERATOR, check]["state"] == "unknown"
    assert says in found[OPERATOR, check]["found"]
    assert sum(one["state"] == "unknown" for one in found.values()) == 1


Change = Callable[[Recorded], object]


def put(what: str, value: object) -> Change:
    return lambda api: setattr(api, what, value)


def both(*changes: Change) -> Change:
    return lambda api: [change(api) for change in changes]


CASES: dict[str, tuple[Change, tuple[str, str], str, str]] = {
    "a definition of an older version": (
        lambda api: api.definitions[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][
            "spec"
        ]["properties"].pop("workers"),
        (CLUSTER, "definition"),
        "it lacks spec.workers",
        "kubectl apply --server-side",
    ),
    "no definition": (
        both(put("definitions", []), put("servers", None)),
        (CLUSTER, "definition"),
        "no definition of MLflowServer",
        "mlflow-operator crd",
    ),
    "a definition that is not served": (
        lambda api: api.definitions[0]["status"]["conditions"][0].update(status="False", message="taken"),
        (CLUSTER, "definition"),
        "does not serve it: taken",
        "Upgrade the chart",
    ),
    "no operator": (
        lambda api: api.deployments.clear(),
        (CLUSTER, "operator"),
        "No operator was found",
        "Install the chart",
    ),
    "an operator scaled to nothing": (
        put("deployments", [deployment(0, 0)]),
        (OPERATOR, "deployment"),
        "scaled to 0",
        "--replicas=1",
    ),
    "an operator that does not start": (
        both(
            put("deployments", [deployment(1, 0)]), put("pods", [pod(waiting={"reason": "ImagePullBackOff"})])
        ),
        (OPERATOR, "deployment"),
        "0 of 1 pods ready: pod mlflow-operator-6f7c is in ImagePullBackOff",
        "kubectl describe -n mlflow-operator pods",
    ),
    "a lease that nobody renews": (
        put("renewed", False),
        (OPERATOR, "lease"),
        "does not renew it: no operator works",
        "kubectl logs",
    ),
    "a lease given back": (
        lambda api: api.lease and api.lease.pop("holderIdentity"),
        (OPERATOR, "lease"),
        "Nobody holds it",
        "kubectl logs",
    ),
    "no lease": (put("lease", None), (OPERATOR, "lease"), "no operator has led", "logs"),
    "a namespace that no operator serves": (
        put("deployments", [deployment(1, 1, "0.1.0", "--namespace=team-b")]),
        (SERVER, "operator"),
        "No operator serves the namespace team-a",
        "watchNamespaces",
    ),
    "a server that no operator has looked at": (
        lambda api: api.servers and api.servers[0].pop("status"),
        (SERVER, "status"),
        "No operator has looked at it",
        "the operator above",
    ),
    "a server at fault": (
        put(
            "servers",
            [server(condition("DatabaseReady", "False", "SecretNotFound", "Create the Secret x."))],
        ),
        (SERVER, "DatabaseReady"),
        "SecretNotFound",
        "Create the Secret x.",
    ),
    "a server that does not answer in the cluster": (
        put(
            "inside",
            json.dumps({URL: {"status": None, "error": "the connection is refused", "foreign": False}}),
        ),
        (SERVER, "URL from inside"),
        "No answer",
        "NetworkPolicy",
    ),
    "a server that does not know its own name": (
        put("inside", json.dumps({URL: {"status": 403, "error": "", "foreign": True}})),
        (SERVER, "URL from inside"),
        "refuses the name",
        "spec.allowedHosts",
    ),
    "a server that answers with an error": (
        put("proxied", (500, {"error_code": "INTERNAL_ERROR"})),
        (SERVER, "URL from outside"),
        "Answers with 500",
        "kubectl logs -n team-a",
    ),
    "a Service without pods": (
        put(
            "proxied",
            (
                503,
                {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "reason": "ServiceUnavailable",
                    "message": "no endpoints available",
                },
            ),
        ),
        (SERVER, "URL from outside"),
        "no endpoints available",
        "See ServerAvailable",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_is_at_fault_is_said_with_a_next_step(doctor: Doctor, case: str) -> None:
    """And it is 1, for scripts; all that does not hang together with it stays well."""
    change, key, says, to_do = CASES[case]
    change(doctor.api)
    found = doctor.found(code=1)
    assert found[key]["state"] == "fault", found
    assert says in found[key]["found"]
    assert to_do in found[key]["next"]


def test_an_operator_of_another_version_is_no_fault_and_its_own_doctor_is_named(doctor: Doctor) -> None:
    """Neither is a definition that fits it rather than us."""
    doctor.api.deployments = [deployment(version="0.2.0")]
    newer = definition()
    schema = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["novel"] = {"type": "string"}
    doctor.api.definitions = [newer]
    found = doctor.found()
    assert found[OPERATOR, "version"]["state"] == found[CLUSTER, "definition"]["state"] == "note"
    assert "kubectl exec -n mlflow-operator deploy/mlflow-operator" in found[OPERATOR, "version"]["next"]


def test_an_operator_without_the_command_is_not_asked_twice(doctor: Doctor) -> None:
    """An older image ends with a usage error: that is not the server's fault."""
    doctor.api.inside = ""
    found = doctor.found()[SERVER, "URL from inside"]
    assert found["state"] == "unknown"
    assert "kubectl exec" in found["found"]


def test_one_server_by_name(doctor: Doctor) -> None:
    """The others are left out, whatever ails them."""
    other = server(condition("Ready", "False", "Progressing", "On its way."))
    other["metadata"] = {**other["metadata"], "name": "other"}
    assert doctor.api.servers is not None
    doctor.api.servers.append(other)
    assert ("server team-a/other", "Ready") not in doctor.found("tracking")
    assert ("server team-a/tracking", "Ready") not in doctor.found("other", code=1)


def test_a_suspended_server_is_well_and_not_asked(doctor: Doctor) -> None:
    """By intent, so no fault."""
    said = ("False", "Suspended", "No server pod runs, by intent.")
    doctor.api.servers = [server(condition("ServerAvailable", *said), condition("Ready", *said))]
    found = doctor.found()
    assert found[SERVER, "Ready"]["state"] == "note"
    assert (SERVER, "URL from inside") not in found


def test_a_cluster_without_servers_is_well(doctor: Doctor) -> None:
    """Said, for somebody may have expected some."""
    doctor.api.servers = []
    done = doctor()
    assert done.exit_code == 0
    assert "There is no MLflowServer" in done.stdout


MISTAKES: dict[str, tuple[Change, tuple[str, ...], str]] = {
    "no such server": (
        lambda api: None, ("typo",), 'no MLflowServer "typo" in any namespace. There are: team-a/tracking.'
    ),
    "no such namespace": (put( "servers", []), ("-n", "typo"), "There is no namespace typo."),
    "no such operator": (lambda api: None, ("--operator", "a/b"), "There is no Deployment a/b."),
    "no right to see servers": (
        put( "forbidden", {"mlflowservers"}),
        (),
        "may not list MLflowServers in all namespaces. Name a namespace",
    ),
    "no such context": (lambda api: None, ("--context", "typo"), "context typo, can't be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_a_sentence_and_2(doctor: Doctor, case: str) -> None:
    """On stderr, and with `-o json` for programs as well."""
    change, args, says = MISTAKES[case]
    change(doctor.api)
    done = doctor(*args)
    assert (done.exit_code, done.stdout) == (2, "")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
    answer: Any = json.loads(doctor(*args, "-o", "json").stdout)
    assert answer["exitCode"] == 2
    assert says in answer["error"]


def test_no_cluster_is_a_sentence_and_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing listens, there is no kubeconfig, or it is something else."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    away = Doctor(Recorded(), kubeconfig(tmp_path, 9))()
    assert away.exit_code == 2
    assert "can't be asked" in away.stderr
    assert "kubectl get --raw /readyz" in away.stderr
    (tmp_path / "other").write_text("token: hunter2\n  - [")
    other = Doctor(Recorded(), tmp_path / "other")()
    assert other.exit_code == 2
    assert "can't be used" in other.stderr
    assert "hunter2" not in other.output
    none = Doctor(Recorded(), tmp_path / "none")()
    assert none.exit_code == 2
    assert re.search(r"There is no kubeconfig at .*none\. Name one with --kubeconfig", none.stderr)


def test_a_credential_plugin_s_words_are_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may hold what it was given."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = kubeconfig(tmp_path, 9)
    plugin = (
        '{apiVersion: client.authentication.k8s.io/v1, command: sh, args: ["-c", "echo hunter2 >&2; exit 1"]}'
    )
    path.write_text(path.read_text().replace("{token: the-token}", f"{{exec: {plugin}}}"))
    done = Doctor(Recorded(), path)()
    assert done.exit_code == 2
    assert "are your credentials still good?" in done.stderr
    assert "hunter2" not in done.output


def test_an_operator_s_name_that_is_none_is_refused(doctor: Doctor) -> None:
    assert "write NAMESPACE/NAME" in doctor("--operator", "mlflow-operator").stderr
