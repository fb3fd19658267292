"""Fields that another client added are found, and their removal restores the desired state."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator.kube.apply import diff
from mlflow_operator.kube.apply.unmanaged_fields import PatchOp, removals
from mlflow_operator.kube.objects import Object


def stored(name: str) -> tuple[Object, Object]:
    pair = json.loads((Path(__file__).parent / "as_stored" / f"{name}.json").read_text())
    return pair["desired"], pair["live"]


def patched(obj: Object, patch_ops: list[PatchOp]) -> Object:
    """Return the object after a JSON patch, applied strictly by RFC 6902."""
    root = copy.deepcopy(obj)
    for operation in (patch_op.as_json() for patch_op in patch_ops):
        *parents, last = [
            part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]
        ]
        parent: Any = root
        for part in parents:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        key: Any = int(last) if isinstance(parent, list) else last
        if operation["op"] == "remove":
            del parent[key]
        else:
            assert parent[key] is not None
            parent[key] = operation["value"]
    return root


def pod_spec(obj: Object) -> Object:
    spec: Object = obj["spec"]["template"]["spec"]
    return spec


SERVER, PREPARE = "spec.template.spec.containers[server]", "spec.template.spec.initContainers[prepare]"


@pytest.mark.parametrize(
    ("name", "edit", "expected_fields"),
    [
        (
            "deployment",
            lambda d: pod_spec(d)["containers"][0]["env"].extend({"name": n, "value": "1"} for n in "XYZ"),
            {f"{SERVER}.env[{n}]" for n in "XYZ"},
        ),
        (
            "deployment",
            lambda d: pod_spec(d)["containers"].insert(0, {"name": "sidecar", "image": "x"}),
            {"spec.template.spec.containers[sidecar]"},
        ),
        (
            "statefulset",
            lambda d: pod_spec(d)["initContainers"].append({"name": "sidecar", "image": "x"}),
            {"spec.template.spec.initContainers[sidecar]"},
        ),
        (
            "deployment",
            lambda d: (
                pod_spec(d)["volumes"].insert(1, {"name": "host", "hostPath": {"path": "/"}}),
                pod_spec(d)["containers"][0]["volumeMounts"].append({"name": "host", "mountPath": "/host"}),
            ),
            {"spec.template.spec.volumes[host]", f"{SERVER}.volumeMounts[/host]"},
        ),
        (
            "deployment",
            lambda d: pod_spec(d)["initContainers"][0].update(
                args=["x"], envFrom=[{"secretRef": {"name": "x"}}]
            ),
            {f"{PREPARE}.args", f"{PREPARE}.envFrom"},
        ),
        ("service", lambda d: d["spec"]["selector"].update({"x/y~z": "1"}), {"spec.selector[x/y~z]"}),
        (
            "service",
            lambda d: d["spec"]["ports"].append({"port": 1, "protocol": "TCP"}),
            {"spec.ports[1/TCP]"},
        ),
        ("configmap", lambda d: d["data"].update({"x": "1"}), {"data.x"}),
        ("secret", lambda d: d["data"].update({"x": "MQ=="}), {"data.x"}),
    ],
)
def test_added_fields_are_removed(name: str, edit: Any, expected_fields: set[str]) -> None:
    desired, observed = stored(name)
    edit(observed)
    patch_ops = removals(desired, observed)
    assert {patch_op.field for patch_op in patch_ops} == expected_fields
    patched_object = patched(observed, patch_ops)
    assert removals(desired, patched_object) == []
    assert diff.drift(desired, patched_object) == []


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (
            lambda d: pod_spec(d)["containers"][0]["env"].__setitem__(
                0, {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            ),
            f"{SERVER}.env[A]",
        ),
        (
            lambda d: pod_spec(d)["volumes"].__setitem__(2, {"name": "data", "emptyDir": {}}),
            "spec.template.spec.volumes[data]",
        ),
        (
            lambda d: pod_spec(d)["containers"][0].update(livenessProbe={"tcpSocket": {"port": 1}}),
            f"{SERVER}.livenessProbe",
        ),
        (
            lambda d: pod_spec(d)["containers"][0]["ports"][0].update(containerPort=99),
            f"{SERVER}.ports[99/TCP]",
        ),
    ],
)
def test_other_union_member_is_replaced_as_a_whole(edit: Any, field: str) -> None:
    """Apply would add the desired member beside the other one, and the API server would always reject both."""
    desired, observed = stored("deployment")
    edit(observed)
    patch_ops = removals(desired, observed)
    assert [(patch_op.field, patch_op.as_json()["op"]) for patch_op in patch_ops] == [(field, "replace")]
    assert diff.drift(desired, patched(observed, patch_ops)) == []


def test_recreate_strategy_replaces_rolling_update_defaults() -> None:
    desired, observed = stored("deployment")
    desired["spec"]["strategy"] = {"type": "Recreate"}
    patch_ops = removals(desired, observed)
    assert [patch_op.as_json() for patch_op in patch_ops] == [
        {"op": "replace", "path": "/spec/strategy", "value": {"type": "Recreate"}}
    ]


def test_other_kinds_have_no_removals() -> None:
    """Fields added to a PersistentVolumeClaim, PodDisruptionBudget or Job do not change what runs."""
    for name in ("pvc", "pdb", "job"):
        desired, observed = stored(name)
        observed["metadata"]["annotations"] = {"x": "y"}
        observed["spec"]["more"] = ["x"]
        assert removals(desired, observed) == []
