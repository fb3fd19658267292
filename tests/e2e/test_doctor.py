"""`mlflow-operator doctor`: run outside the cluster, in the operator's pod, and with few permissions."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e import operator_release
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, small_spec

GROUP = "shared"

OPERATOR = f"operator {operator_release.NAMESPACE}/{operator_release.RELEASE}"
POD = ("exec", f"deploy/{operator_release.RELEASE}", "--", "mlflow-operator", "doctor")

Findings = dict[tuple[str, str], Object]


def doctor(kube: Kube, *args: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run doctor outside the cluster."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mlflow_operator.cli", "doctor"),
            *("--kubeconfig", str(kubeconfig or kube.settings.kubeconfig), *args),
        ],
        text=True,
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done


def findings(output: str) -> Findings:
    """Parse doctor's JSON output into findings by subject and check."""
    return {(finding["subject"], finding["check"]): finding for finding in json.loads(output)["findings"]}


def problems(found: Findings) -> list[Object]:
    """Return the findings that are not OK."""
    return [finding for finding in found.values() if finding["state"] != "ok"]


def test_healthy_server_has_no_findings_outside_and_inside_the_cluster(shared_server: Server) -> None:
    """All checks pass, those of the operator's permissions and of both URLs included. No secret is printed."""
    subject = f"server {shared_server.kube.namespace}/{shared_server.name}"
    done = doctor(shared_server.kube, "-n", shared_server.kube.namespace, "-o", "json")
    outside = findings(done.stdout)
    assert not problems(outside)
    assert done.returncode == 0, done.stderr
    assert {check for of, check in outside if of == OPERATOR} == {
        "deployment",
        "lease",
        "permissions",
        "version",
    }
    assert {(subject, "URL in cluster"), (subject, "URL through proxy"), ("cluster", "CRD")} <= {*outside}

    operator = shared_server.kube.in_namespace(operator_release.NAMESPACE)
    inside = findings(operator.kubectl(*POD, "-n", shared_server.kube.namespace, "-o", "json"))
    assert not problems(inside)
    assert "from this pod" in inside[subject, "URL in cluster"]["message"]
    table = doctor(shared_server.kube, "-n", shared_server.kube.namespace, shared_server.name)
    assert table.stdout.endswith("All checks passed.\n")
    for description, value in shared_server.generated_values().items():
        assert value not in table.stdout + done.stdout, description


def test_faults_are_reported_with_next_steps(ns: Kube) -> None:
    """Two servers whose Secrets do not exist: exit code 1, and the messages of their conditions."""
    for name in ("anna", "bert"):
        database = {"uriSecretRef": {"name": f"absent-{name}"}}
        store = {"endpoint": "http://nowhere.invalid", "bucket": "anything"}
        Server(ns, name).apply(small_spec(database={"external": database}, artifacts={"s3": store}))
    for name in ("anna", "bert"):
        Server(ns, name).wait_for("CredentialsReady", "False", "SecretNotFound")
    done = doctor(ns, "-n", ns.namespace, "-o", "json")
    assert done.returncode == 1
    found = findings(done.stdout)
    for name in ("anna", "bert"):
        fault = found[f"server {ns.namespace}/{name}", "CredentialsReady"]
        assert (fault["state"], fault["message"]) == ("failed", "SecretNotFound")
        assert f'"absent-{name}"' in fault["nextStep"]
    assert not [finding for finding in problems(found) if finding["subject"] in {OPERATOR, "cluster"}]
    single = doctor(ns, "-n", ns.namespace, "anna")
    assert single.returncode == 1
    assert "bert" not in single.stdout

    missing = doctor(ns, "-n", ns.namespace, "typo")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == (
        f'Error: There is no MLflowServer "typo" in the namespace {ns.namespace}. '
        f"Existing servers: {ns.namespace}/anna, {ns.namespace}/bert.\n"
    )


@pytest.fixture
def viewer_kubeconfig(shared_server: Server, tmp_path: Path) -> Path:
    """A kubeconfig whose account only has the ClusterRole `view` in the shared server's namespace."""
    ns = shared_server.kube
    ns.kubectl("create", "serviceaccount", "viewer")
    ns.kubectl(
        "create", "rolebinding", "viewer", "--clusterrole=view", f"--serviceaccount={ns.namespace}:viewer"
    )
    kubeconfig = yaml.safe_load(ns.settings.kubeconfig.read_text())
    kubeconfig["users"][0]["user"] = {"token": ns.kubectl("create", "token", "viewer").strip()}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(kubeconfig))
    return path


def test_view_role_is_enough_for_one_namespace(shared_server: Server, viewer_kubeconfig: Path) -> None:
    """Checks that the account cannot run are reported as unknown with a next step. The server itself is checked."""
    ns = shared_server.kube.namespace
    done = doctor(shared_server.kube, "-n", ns, "-o", "json", kubeconfig=viewer_kubeconfig)
    found = findings(done.stdout)
    assert {(finding["check"], finding["state"]) for finding in problems(found)} == {
        (check, "unknown")
        for check in (
            *("CRD", "platform CRD", "platforms", "operator"),
            *("URL in cluster", "URL through proxy"),
        )
    }
    assert found[f"server {ns}/{shared_server.name}", "Ready"]["state"] == "ok"
    assert done.returncode == 0
    refused = doctor(shared_server.kube, kubeconfig=viewer_kubeconfig)
    assert refused.returncode == 2
    assert "is not allowed to list MLflowServers in all namespaces. Specify a namespace" in refused.stderr
