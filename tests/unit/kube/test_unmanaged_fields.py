"""What a stranger added is found, and taking it out leaves what we want."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from mlflow_operator.kube import diff
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.unmanaged_fields import PatchOp, removals


def stored(name: str) -> tuple[Object, Object]:
    pair = json.loads((Path(__file__).parent / "as_stored" / f"{name}.json").read_text())
    return pair["desired"], pair["live"]


def patched(obj: Object, steps: list[PatchOp]) -> Object:
    """The object after a JSON patch, carried out by the letter of RFC 6902."""
    root = copy.deepcopy(obj)
    for step in (correction.step() for correction in steps):
        *way, last = [part.replace("~1", "/").replace("~0", "~") for part in step["path"].split("/")[1:]]
        place: Any = root
        for part in way:
            place = place[int(part)] if isinstance(place, list) else place[part]
        where: Any = int(last) if isinstance(place, list) else last
        if step["op"] == "remove":
            del place[where]
        else:
            assert place[where] is not None
            place[where] = step["value"]
    return root


def pods(obj: Object) -> Object:
    found: Object = obj["spec"]["template"]["spec"]
    return found


SERVER, PREPARE = "spec.template.spec.containers[server]", "spec.template.spec.initContainers[prepare]"


@pytest.mark.parametrize(
    ("name", "edit", "found"),
    [
        (
            "deployment",
            lambda d: pods(d)["containers"][0]["env"].extend({"name": n, "value": "1"} for n in "XYZ"),
            {f"{SERVER}.env[{n}]" for n in "XYZ"},
        ),
        (
            "deployment",
            lambda d: pods(d)["containers"].insert(0, {"name": "spy", "image": "x"}),
            {"spec.template.spec.containers[spy]"},
        ),
        (
            "statefulset",
            lambda d: pods(d)["initContainers"].append({"name": "spy", "image": "x"}),
            {"spec.template.spec.initContainers[spy]"},
        ),
        (
            "deployment",
            lambda d: (
                pods(d)["volumes"].insert(1, {"name": "host", "hostPath": {"path": "/"}}),
                pods(d)["containers"][0]["volumeMounts"].append({"name": "host", "mountPath": "/host"}),
            ),
            {"spec.template.spec.volumes[host]", f"{SERVER}.volumeMounts[/host]"},
        ),
        (
            "deployment",
            lambda d: pods(d)["initContainers"][0].update(args=["x"], envFrom=[{"secretRef": {"name": "x"}}]),
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
def test_additions_are_found_and_go(name: str, edit: Any, found: set[str]) -> None:
    desired, live = stored(name)
    edit(live)
    steps = removals(desired, live)
    assert {step.field for step in steps} == found
    clean = patched(live, steps)
    assert removals(desired, clean) == []
    assert diff.drift(desired, clean) == []


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        (
            lambda d: pods(d)["containers"][0]["env"].__setitem__(
                0, {"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}
            ),
            f"{SERVER}.env[A]",
        ),
        (
            lambda d: pods(d)["volumes"].__setitem__(2, {"name": "data", "emptyDir": {}}),
            "spec.template.spec.volumes[data]",
        ),
        (
            lambda d: pods(d)["containers"][0].update(livenessProbe={"tcpSocket": {"port": 1}}),
            f"{SERVER}.livenessProbe",
        ),
        (
            lambda d: pods(d)["containers"][0]["ports"][0].update(containerPort=99),
            f"{SERVER}.ports[99/TCP]",
        ),
    ],
)
def test_another_choice_is_replaced_as_a_whole(edit: Any, field: str) -> None:
    """Apply would put ours beside theirs, and the API server would refuse the two for ever."""
    desired, live = stored("deployment")
    edit(live)
    steps = removals(desired, live)
    assert [(step.field, step.step()["op"]) for step in steps] == [(field, "replace")]
    assert diff.drift(desired, patched(live, steps)) == []


def test_defaults_of_a_rolling_update_do_not_stand_in_the_way_of_recreate() -> None:
    desired, live = stored("deployment")
    desired["spec"]["strategy"] = {"type": "Recreate"}
    steps = removals(desired, live)
    assert [step.step() for step in steps] == [
        {"op": "replace", "path": "/spec/strategy", "value": {"type": "Recreate"}}
    ]


def test_other_kinds_belong_to_everybody() -> None:
    """On a volume claim or a budget nothing that is added changes what runs."""
    for name in ("pvc", "pdb", "job"):
        desired, live = stored(name)
        live["metadata"]["annotations"] = {"x": "y"}
        live["spec"]["more"] = ["x"]
        assert removals(desired, live) == []
