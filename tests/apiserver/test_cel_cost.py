"""The CEL rules of the CRD stay within the cost that the API server allows for all rules of a schema together.

A CRD whose rules cost more cannot be installed. Padding rules of a known cost, added in a dry run, show how much is
left.
"""

import copy
import re

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver import crds
from tests.apiserver.client import ApiError, Client

ENOUGH_PERCENT = 5
"""Room for the next rules. With less left, give lists and strings smaller limits before you add a rule."""


def padded(percent: int) -> Object:
    """The CRD with padding rules that cost so many percent of the limit, which is 100 million."""
    crd = copy.deepcopy(crds.manifest())
    for version in crd["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for number in range(percent):
            spec["properties"][f"padding{number}"] = {
                "type": "array",
                "maxItems": 1_000_000,
                "items": {"type": "boolean", "x-kubernetes-validations": [{"rule": "self"}]},
            }
    return crd


def test_rules_leave_room_for_more(admin: Client) -> None:
    """The API server accepts the CRD and some percent more. `pytest -s` prints how much the rules use."""
    with pytest.raises(ApiError, match="exceeds budget by factor of") as rejected:
        admin.apply(kinds.CRD, padded(100), dryRun="All")
    factor = re.search(r"entire OpenAPIv3 schema exceeds budget by factor of ([\d.]+)x", str(rejected.value))
    assert factor, rejected.value
    used = float(factor[1]) - 1
    print(f"\nThe CEL rules of the CRD cost {used:.0%} of the limit, to the nearest ten percent.")
    admin.apply(kinds.CRD, padded(ENOUGH_PERCENT), dryRun="All")
