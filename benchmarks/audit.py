"""The operator's writes, from the API server's audit log, and the number of all its requests."""

import json
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from tests.e2e import operator_release
from tests.e2e.kube import Kube, Object

OPERATOR_ACCOUNT = f"system:serviceaccount:{operator_release.NAMESPACE}:{operator_release.RELEASE}"
LOG_FOLDER = "/var/log/kubernetes"
WRITES = {"create", "update", "patch", "delete", "deletecollection"}
FLOW_SCHEMA = "bench-mlflow-operator"


def current_time() -> str:
    """Return the current time in the format of the audit log."""
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def operator_writes(lines: Iterable[str], since: str, to: str) -> list[str]:
    """Return the writes of the operator's account between two times, dry runs included, writes of Leases excluded."""
    found = []
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            continue  # an incomplete line because of log rotation
        object_ref = entry.get("objectRef") or {}
        if (
            entry.get("user", {}).get("username") == OPERATOR_ACCOUNT
            and entry.get("verb") in WRITES
            and object_ref.get("resource") != "leases"
            and since <= str(entry.get("requestReceivedTimestamp")) < to
        ):
            found.append(f"{entry['verb']} {entry['requestURI']}")
    return found


def read_log(kube: Kube) -> list[str]:
    """Return the lines with the operator's account from the current and the rotated logs."""
    return kube.node_command(
        "sh", "-c", f"grep -h {OPERATOR_ACCOUNT} {LOG_FOLDER}/audit*.log || true"
    ).splitlines()


@contextmanager
def count_requests(kube: Kube) -> Iterator[None]:
    """Let the API server count the operator's requests separately by a FlowSchema; their priority does not change."""
    kube.apply(_flow_schema())
    try:
        yield
    finally:
        kube.kubectl("delete", "flowschema", FLOW_SCHEMA)


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
        "metadata": {"name": FLOW_SCHEMA},
        "spec": {
            "priorityLevelConfiguration": {"name": "workload-low"},
            "matchingPrecedence": 500,
            "distinguisherMethod": {"type": "ByUser"},
            "rules": [rule],
        },
    }


def request_count(kube: Kube) -> float:
    """Return the number of the operator's requests since its FlowSchema exists, reads and watches included."""
    return parse_request_count(kube.kubectl("get", "--raw", "/metrics").splitlines())


def parse_request_count(lines: Iterable[str]) -> float:
    """Parse the number of requests of that FlowSchema from the API server's metrics."""
    pattern = re.compile(
        rf'apiserver_flowcontrol_dispatched_requests_total\{{.*flow_schema="{FLOW_SCHEMA}".*\}} ([\d.e+]+)'
    )
    return sum(float(match[1]) for line in lines if (match := pattern.match(line)))
