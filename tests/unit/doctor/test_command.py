"""The command `mlflow-operator doctor`, against recorded responses of an API server."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.doctor.doctor_command import CLUSTER, OPERATOR, SERVER, Doctor
from tests.unit.doctor.recorded_api_server import (
    ACCOUNT,
    URL,
    RecordedAPIServer,
    condition,
    crd,
    deployment,
    pod,
    server,
)
from tests.unit.kubeconfig import write_kubeconfig


def test_healthy_installation_has_exit_code_0(doctor: Doctor) -> None:
    """Every check is listed, so that a passed check is not confused with a missing one."""
    result = doctor()
    assert result.exit_code == 0, result.output
    assert result.stdout.rstrip().endswith("All checks passed.")
    assert "Embedded: tracking-postgres.team-a.svc:5432/mlflow" in result.stdout
    states = {key: finding["state"] for key, finding in doctor.findings().items()}
    assert {*states.values()} == {"ok"}
    assert {*states} == {
        *((CLUSTER, check) for check in ("CRD", "platform CRD")),
        *((OPERATOR, check) for check in ("deployment", "lease", "permissions", "version")),
        *((SERVER, condition["type"]) for condition in server()["status"]["conditions"]),
        (SERVER, "URL in cluster"),
        (SERVER, "URL through proxy"),
    }


def test_doctor_is_read_only_and_reads_no_secret(doctor: Doctor) -> None:
    """It only sends GET requests, access reviews, and the command that probes URLs."""
    doctor()
    sent = {line for line in doctor.api.requests if not line.startswith("run ")}
    assert {line.split()[0] for line in sent} == {"GET", "POST"}
    assert all("selfsubject" in line for line in sent if line.startswith("POST"))
    assert not [line for line in sent if "/secrets" in line]
    assert [line for line in doctor.api.requests if line.startswith("run ")] == [
        f"run mlflow-operator probe-urls {URL}"
    ]


def test_permissions_of_the_operators_account_are_checked(doctor: Doctor) -> None:
    """Not those of the user."""
    doctor.api.denied = {("statefulsets", "delete"), ("mlflowservers/status", "patch")}
    finding = doctor.findings(code=1)[OPERATOR, "permissions"]
    assert doctor.api.impersonated == {ACCOUNT}
    assert finding["state"] == "failed"
    assert "statefulsets.apps (delete)" in finding["message"]
    assert "mlflowservers/status.mlflow-operator.dev (patch)" in finding["message"]


def test_missing_permission_to_delete_data_is_a_note(doctor: Doctor) -> None:
    """It is intended with `deletion.allowed: false` in the chart."""
    doctor.api.denied = {("secrets", "delete"), ("persistentvolumeclaims", "delete")}
    assert doctor.findings()[OPERATOR, "permissions"]["state"] == "note"


def test_checks_without_permission_are_unknown(doctor: Doctor) -> None:
    """With `view` in one namespace, a user's server is checked. The other checks are listed with a next step."""
    doctor.api.forbidden = {
        "impersonate",
        "customresourcedefinitions",
        "mlflowplatforms",
        "deployments",
        "leases",
        "services/proxy",
        "pods/exec",
    }
    findings = doctor.findings("-n", "team-a")
    unknown = (
        *((CLUSTER, check) for check in ("CRD", "platform CRD", "platforms", "operator")),
        (SERVER, "URL through proxy"),
    )
    for key in unknown:
        assert findings[key]["state"] == "unknown"
        assert findings[key]["nextStep"]
    assert findings[SERVER, "Ready"]["state"] == "ok"
    assert "No check failed, 6 unknown." in doctor("-n", "team-a").stdout


@pytest.mark.parametrize(
    ("forbidden", "check", "expected"),
    [
        ("impersonate", "permissions", f"not allowed to impersonate {ACCOUNT}"),
        ("leases", "lease", "not allowed to get Leases"),
    ],
)
def test_one_unknown_check_does_not_affect_the_others(
    doctor: Doctor, forbidden: str, check: str, expected: str
) -> None:
    doctor.api.forbidden = {forbidden}
    findings = doctor.findings()
    assert findings[OPERATOR, check]["state"] == "unknown"
    assert expected in findings[OPERATOR, check]["message"]
    assert sum(finding["state"] == "unknown" for finding in findings.values()) == 1


Change = Callable[[RecordedAPIServer], object]


def set_attribute(name: str, value: object) -> Change:
    return lambda api: setattr(api, name, value)


def apply_all(*changes: Change) -> Change:
    return lambda api: [change(api) for change in changes]


CASES: dict[str, tuple[Change, tuple[str, str], str, str]] = {
    "CRD of an older version": (
        lambda api: api.crds[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][
            "properties"
        ].pop("workers"),
        (CLUSTER, "CRD"),
        "it lacks spec.workers",
        "kubectl apply --server-side",
    ),
    "no CRD": (
        apply_all(set_attribute("crds", []), set_attribute("servers", None)),
        (CLUSTER, "CRD"),
        "CRD of MLflowServer is not installed",
        "mlflow-operator crd",
    ),
    "CRD that is not served": (
        lambda api: api.crds[0]["status"]["conditions"][0].update(status="False", message="taken"),
        (CLUSTER, "CRD"),
        "does not serve the CRD: taken",
        "Upgrade the chart",
    ),
    "no CRD of platforms": (
        apply_all(lambda api: api.crds.pop(), set_attribute("platforms", None)),
        (CLUSTER, "platform CRD"),
        "CRD of MLflowPlatform is not installed",
        "mlflow-operator crd",
    ),
    "CRD of platforms of an older version": (
        lambda api: api.crds[1]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"][
            "properties"
        ].pop("adoptions"),
        (CLUSTER, "platform CRD"),
        "it lacks spec.adoptions",
        "kubectl apply --server-side",
    ),
    "no operator": (
        lambda api: api.deployments.clear(),
        (CLUSTER, "operator"),
        "No operator was found",
        "Install the chart",
    ),
    "operator scaled to 0": (
        set_attribute("deployments", [deployment(0, 0)]),
        (OPERATOR, "deployment"),
        "Scaled to 0",
        "--replicas=1",
    ),
    "operator that does not start": (
        apply_all(
            set_attribute("deployments", [deployment(1, 0)]),
            set_attribute("pods", [pod(waiting={"reason": "ImagePullBackOff"})]),
        ),
        (OPERATOR, "deployment"),
        "0 of 1 pods ready: pod mlflow-operator-6f7c is in ImagePullBackOff",
        "kubectl describe -n mlflow-operator pods",
    ),
    "lease without renewal": (
        set_attribute("renews_lease", False),
        (OPERATOR, "lease"),
        "does not renew it: no operator is active",
        "kubectl logs",
    ),
    "lease without a holder": (
        lambda api: api.lease and api.lease.pop("holderIdentity"),
        (OPERATOR, "lease"),
        "has no holder",
        "kubectl logs",
    ),
    "no lease": (
        set_attribute("lease", None),
        (OPERATOR, "lease"),
        "no operator has been the leader",
        "logs",
    ),
    "namespace that no operator watches": (
        set_attribute("deployments", [deployment(1, 1, "0.1.0", "--namespace=team-b")]),
        (SERVER, "operator"),
        "No operator watches the namespace team-a",
        "watchNamespaces",
    ),
    "server that no operator has reconciled": (
        lambda api: api.servers and api.servers[0].pop("status"),
        (SERVER, "status"),
        "No operator has reconciled this server",
        "the operator above",
    ),
    "server with a failed condition": (
        set_attribute(
            "servers",
            [server(condition("DatabaseReady", "False", "SecretNotFound", "Create the Secret x."))],
        ),
        (SERVER, "DatabaseReady"),
        "SecretNotFound",
        "Create the Secret x.",
    ),
    "server that does not respond in the cluster": (
        set_attribute(
            "exec_output",
            json.dumps({URL: {"status": None, "error": "connection refused", "host_rejected": False}}),
        ),
        (SERVER, "URL in cluster"),
        "No response",
        "NetworkPolicy",
    ),
    "server that rejects its own host name": (
        set_attribute("exec_output", json.dumps({URL: {"status": 403, "error": "", "host_rejected": True}})),
        (SERVER, "URL in cluster"),
        "rejects the host name",
        "spec.allowedHosts",
    ),
    "server that responds with an error": (
        set_attribute("proxy_response", (500, {"error_code": "INTERNAL_ERROR"})),
        (SERVER, "URL through proxy"),
        "Responds with status 500",
        "kubectl logs -n team-a",
    ),
    "Service without pods": (
        set_attribute(
            "proxy_response",
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
        (SERVER, "URL through proxy"),
        "no endpoints available",
        "See ServerAvailable",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_problems_are_reported_with_a_next_step(doctor: Doctor, case: str) -> None:
    """The exit code is 1. Checks that do not depend on the problem pass."""
    change, key, expected, next_step = CASES[case]
    change(doctor.api)
    doctor.assert_reports(key, expected, next_step)


def test_another_version_of_the_operator_is_a_note(doctor: Doctor) -> None:
    """So is a CRD of that version. The next step is the operator's own doctor."""
    doctor.api.deployments = [deployment(version="0.2.0")]
    newer = crd()
    schema = newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["newField"] = {"type": "string"}
    doctor.api.crds[0] = newer
    findings = doctor.findings()
    assert findings[OPERATOR, "version"]["state"] == findings[CLUSTER, "CRD"]["state"] == "note"
    assert (
        "kubectl exec -n mlflow-operator deploy/mlflow-operator" in findings[OPERATOR, "version"]["nextStep"]
    )


def test_an_operator_without_the_probe_command_is_unknown(doctor: Doctor) -> None:
    """An older operator image reports a usage error, which is not an error of the server."""
    doctor.api.exec_output = ""
    finding = doctor.findings()[SERVER, "URL in cluster"]
    assert finding["state"] == "unknown"
    assert "kubectl exec" in finding["message"]


def test_only_the_named_server_is_checked(doctor: Doctor) -> None:
    """Problems of other servers are not reported."""
    other = server(condition("Ready", "False", "Progressing", "Starting."))
    other["metadata"] = {**other["metadata"], "name": "other"}
    assert doctor.api.servers is not None
    doctor.api.servers.append(other)
    assert ("server team-a/other", "Ready") not in doctor.findings("tracking")
    assert ("server team-a/tracking", "Ready") not in doctor.findings("other", code=1)


def test_a_suspended_server_is_a_note_and_is_not_probed(doctor: Doctor) -> None:
    """It is suspended on purpose."""
    suspended = ("False", "Suspended", "The server is suspended.")
    doctor.api.servers = [server(condition("ServerAvailable", *suspended), condition("Ready", *suspended))]
    findings = doctor.findings()
    assert findings[SERVER, "Ready"]["state"] == "note"
    assert (SERVER, "URL in cluster") not in findings


def test_a_cluster_without_servers_passes(doctor: Doctor) -> None:
    """The output says that there are none, in case the user expects some."""
    doctor.api.servers = []
    result = doctor()
    assert result.exit_code == 0
    assert "There is no MLflowServer" in result.stdout


USER_ERRORS: dict[str, tuple[Change, tuple[str, ...], str]] = {
    "no such server": (
        lambda api: None,
        ("typo",),
        'no MLflowServer "typo" in any namespace. Existing servers: team-a/tracking.',
    ),
    "no such namespace": (set_attribute( "servers", []), ("-n", "typo"), "There is no namespace typo."),
    "no such operator": (lambda api: None, ("--operator", "a/b"), "There is no Deployment a/b."),
    "no permission to list servers": (
        set_attribute( "forbidden", {"mlflowservers"}),
        (),
        "is not allowed to list MLflowServers in all namespaces. Specify a namespace",
    ),
    "no such context": (lambda api: None, ("--context", "typo"), "context typo, cannot be used"),
}  # fmt: skip


@pytest.mark.parametrize("case", USER_ERRORS)
def test_a_user_error_has_exit_code_2(doctor: Doctor, case: str) -> None:
    """The message is one line on stderr, and part of the JSON output."""
    change, args, expected = USER_ERRORS[case]
    change(doctor.api)
    result = doctor(*args)
    assert (result.exit_code, result.stdout) == (2, "")
    assert expected in result.stderr
    assert len(result.stderr.splitlines()) == 1
    output: Any = json.loads(doctor(*args, "-o", "json").stdout)
    assert output["exitCode"] == 2
    assert expected in output["error"]


def test_an_unreachable_cluster_has_exit_code_2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No API server, an invalid kubeconfig, and no kubeconfig."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    unreachable = Doctor(RecordedAPIServer(), write_kubeconfig(tmp_path, 9))()
    assert unreachable.exit_code == 2
    assert "cannot be reached" in unreachable.stderr
    assert "kubectl get --raw /readyz" in unreachable.stderr
    (tmp_path / "invalid").write_text("token: hunter2\n  - [")
    invalid = Doctor(RecordedAPIServer(), tmp_path / "invalid")()
    assert invalid.exit_code == 2
    assert "cannot be used" in invalid.stderr
    assert "hunter2" not in invalid.output
    missing = Doctor(RecordedAPIServer(), tmp_path / "missing")()
    assert missing.exit_code == 2
    assert re.search(r"There is no kubeconfig at .*missing\. Specify one with --kubeconfig", missing.stderr)


def test_output_of_a_credential_plugin_is_not_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may contain credentials."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    path = write_kubeconfig(tmp_path, 9)
    plugin = (
        '{apiVersion: client.authentication.k8s.io/v1, command: sh, args: ["-c", "echo hunter2 >&2; exit 1"]}'
    )
    path.write_text(path.read_text().replace("{token: the-token}", f"{{exec: {plugin}}}"))
    result = Doctor(RecordedAPIServer(), path)()
    assert result.exit_code == 2
    assert "your credentials are valid" in result.stderr
    assert "hunter2" not in result.output


def test_operator_option_must_contain_namespace_and_name(doctor: Doctor) -> None:
    assert "must be NAMESPACE/NAME" in doctor("--operator", "mlflow-operator").stderr
