"""The operator's writes, from the audit log of the API server, and the number of all its requests."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.e2e import operator_release
from tests.e2e.kube import Kube, Object

ACCOUNT = f"system:serviceaccount:{operator_release.NAMESPACE}:{operator_release.RELEASE}"
LOGS = "/var/log/kubernetes"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
FLOW = "bench-mlflow-operator"


def now() -> str:
    """The current time, in the format of the audit log."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def writes(lines: Iterable[str], since: str, to: str) -> list[str]:
    """Each write of the operator's account between two times, including dry runs, except those of Leases."""
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # rotation cuts a line
        what = entry.get("objectRef") or {}
        if (
            entry.get("user", {}).get("username") == ACCOUNT
            and entry.get("verb") in WRITES
            and what.get("resource") != "leases"
            and since <= str(entry.get("requestReceivedTimestamp")) < to
        ):
            found.append(f"{entry['verb']} {entry['requestURI']}")
    return found


def read(kube: Kube) -> list[str]:
    """The lines that name the operator, of the current log and the rotated ones."""
    return kube.node_command("sh", "-c", f"grep -h {ACCOUNT} {LOGS}/audit*.log || true").splitlines()


@contextmanager
def counted(kube: Kube) -> Iterator[None]:
    """Has the API server count the operator's requests separately; their priority stays the default."""
    kube.apply(_flow_schema())
    try:
        yield
    finally:
        kube.kubectl("delete", "flowschema", FLOW)


def _flow_schema() -> Object:
    subject = {"namespace": operator_release.NAMESPACE, "name": operator_release.RELEASE}
    rule = {
        "subjects": [{"kind": "ServiceAccount", "serviceAccount": subject}],
        "resourceRules": [
            {
                "verbs": ["*"],
                "apiGroups": ["*"],
                "resources": ["*"],
                "namespaces": ["*"],
                "clusterScope": True,
            }
        ],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
    }
    return {
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": FLOW},
        "spec": {
            "priorityLevelConfiguration": {"name": "workload-low"},
            "matchingPrecedence": 500,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [rule],
        },
    }


def requests(kube: Kube) -> float:
    """Number of the operator's requests since its FlowSchema exists, including reads and watches."""
    return dispatched(kube.kubectl("get", "--raw", "/metrics").splitlines())


def dispatched(lines: Iterable[str]) -> float:
    """The API server's count for that FlowSchema."""
    pattern = re.compile(
        rf'apiserver_flowcontrol_dispatched_requests_total\{{.*flow_schema="{FLOW}".*\}} ([\d.e+]+)'
    )
    return sum(float(match[1]) for line in lines if (match := pattern.match(line)))
