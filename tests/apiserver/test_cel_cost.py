"""The estimated cost of all CEL rules of each CRD is below the limit of the API server.

The API server rejects a CRD whose rules cost more. The test adds padding rules of a known cost in a dry run to measure
the remaining cost.
"""

import copy
import re

import pytest

from mlflow_operator.kube import kinds
from mlflow_operator.kube.objects import Object
from tests.apiserver import crds
from tests.apiserver.client import ApiError, Client

MIN_FREE_PERCENT = 5
"""Part of the limit that must remain for new rules. Otherwise reduce the limits of lists and strings before you add
rules.
"""


def padded(crd: Object, percent: int) -> Object:
    """A CRD with padding rules that cost `percent` of the limit, which is 100 million."""
    crd = copy.deepcopy(crd)
    for version in crd["spec"]["versions"]:
        spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
        for number in range(percent):
            spec["properties"][f"padding{number}"] = {
                "type": "array",
                "maxItems": 1_000_000,
                "items": {"type": "boolean", "x-kubernetes-validations": [{"rule": "self"}]},
            }
    return crd


@pytest.mark.parametrize("crd", crds.manifests(), ids=lambda crd: crd["spec"]["names"]["kind"])
def test_rules_leave_room_for_more(admin: Client, crd: Object) -> None:
    """The API server accepts the CRD with additional rules. `pytest -s` prints the cost of the rules."""
    with pytest.raises(ApiError, match="exceeds budget by factor of") as rejected:
        admin.apply(kinds.CRD, padded(crd, 100), dryRun="All")
    factor = re.search(r"entire OpenAPIv3 schema exceeds budget by factor of ([\d.]+)x", str(rejected.value))
    assert factor, rejected.value
    used = float(factor[1]) - 1
    print(f"\nThe CEL rules of the CRD cost {used:.0%} of the limit, to the nearest ten percent.")
    admin.apply(kinds.CRD, padded(crd, MIN_FREE_PERCENT), dryRun="All")
