"""`mlflow-operator doctor` tells what is well from what is not: on a laptop, in the operator's pod, with few rights."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.e2e import operator_release
from tests.e2e.kube import Kube, Object
from tests.e2e.server import Server, small

GROUP = "shared"

OPERATOR = f"operator {operator_release.NAMESPACE}/{operator_release.RELEASE}"
POD = ("exec", f"deploy/{operator_release.RELEASE}", "--", "mlflow-operator", "doctor")

Findings = dict[tuple[str, str], Object]


def doctor(kube: Kube, *args: str, kubeconfig: Path | None = None) -> subprocess.CompletedProcess[str]:
    """As a person runs it on a laptop."""
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


def findings(printed: str) -> Findings:
    """By subject and check."""
    return {(one["subject"], one["check"]): one for one in json.loads(printed)["findings"]}


def not_well(found: Findings) -> list[Object]:
    """What is left to look at."""
    return [one for one in found.values() if one["state"] != "well"]


def test_what_works_is_well_from_outside_and_inside(shared: Server) -> None:
    """Every check, the operator's permissions and both ways to the server among them; and no secret is printed."""
    subject = f"server {shared.kube.namespace}/{shared.name}"
    done = doctor(shared.kube, "-n", shared.kube.namespace, "-o", "json")
    outside = findings(done.stdout)
    assert not not_well(outside)
    assert done.returncode == 0, done.stderr
    assert {check for of, check in outside if of == OPERATOR} == {
        "deployment",
        "lease",
        "permissions",
        "version",
    }
    assert {(subject, "URL from inside"), (subject, "URL from outside"), ("cluster", "definition")} <= {
        *outside
    }

    operator = shared.kube.within(operator_release.NAMESPACE)
    inside = findings(operator.kubectl(*POD, "-n", shared.kube.namespace, "-o", "json"))
    assert not not_well(inside)
    assert "asked from this pod" in inside[subject, "URL from inside"]["found"]
    table = doctor(shared.kube, "-n", shared.kube.namespace, shared.name)
    assert table.stdout.endswith("All well.\n")
    for what, value in shared.generated().items():
        assert value not in table.stdout + done.stdout, what


def test_what_is_at_fault_is_named_with_its_next_step(ns: Kube) -> None:
    """Two servers that will never be ready by themselves: exit code 1, and their own sentences."""
    for name in ("anna", "bert"):
        lacks = {"uriSecretRef": {"name": f"absent-{name}"}}
        store = {"endpoint": "http://nowhere.invalid", "bucket": "anything"}
        Server(ns, name).apply(small(database={"external": lacks}, artifacts={"s3": store}))
    for name in ("anna", "bert"):
        Server(ns, name).until("CredentialsReady", "False", "SecretNotFound")
    done = doctor(ns, "-n", ns.namespace, "-o", "json")
    assert done.returncode == 1
    found = findings(done.stdout)
    for name in ("anna", "bert"):
        fault = found[f"server {ns.namespace}/{name}", "CredentialsReady"]
        assert (fault["state"], fault["found"]) == ("fault", "SecretNotFound")
        assert f'"absent-{name}"' in fault["next"]
    assert not [one for one in not_well(found) if one["subject"] in {OPERATOR, "cluster"}]
    one = doctor(ns, "-n", ns.namespace, "anna")
    assert one.returncode == 1
    assert "bert" not in one.stdout

    missing = doctor(ns, "-n", ns.namespace, "typo")
    assert (missing.returncode, missing.stdout) == (2, "")
    assert missing.stderr == (
        f'Error: There is no MLflowServer "typo" in the namespace {ns.namespace}. '
        f"There are: {ns.namespace}/anna, {ns.namespace}/bert.\n"
    )


@pytest.fixture
def viewer(shared: Server, tmp_path: Path) -> Path:
    """The kubeconfig of an account that may view the shared server's namespace, and nothing else."""
    ns = shared.kube
    ns.kubectl("create", "serviceaccount", "viewer")
    ns.kubectl(
        "create", "rolebinding", "viewer", "--clusterrole=view", f"--serviceaccount={ns.namespace}:viewer"
    )
    theirs = yaml.safe_load(ns.settings.kubeconfig.read_text())
    theirs["users"][0]["user"] = {"token": ns.kubectl("create", "token", "viewer").strip()}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(theirs))
    return path


def test_who_may_only_view_a_namespace_hears_of_the_server_in_it(shared: Server, viewer: Path) -> None:
    """What that account can't see is said to be unseen, each with a way; and its server is judged all the same."""
    ns = shared.kube.namespace
    done = doctor(shared.kube, "-n", ns, "-o", "json", kubeconfig=viewer)
    found = findings(done.stdout)
    assert {(one["check"], one["state"]) for one in not_well(found)} == {
        (check, "unknown") for check in ("definition", "operator", "URL from inside", "URL from outside")
    }
    assert found[f"server {ns}/{shared.name}", "Ready"]["state"] == "well"
    assert done.returncode == 0
    refused = doctor(shared.kube, kubeconfig=viewer)
    assert refused.returncode == 2
    assert "may not list MLflowServers in all namespaces. Name a namespace" in refused.stderr
