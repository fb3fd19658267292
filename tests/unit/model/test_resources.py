"""Resources of Jobs: where a server fits into the quota and the limit ranges of a namespace, its Jobs fit, too."""

from decimal import Decimal
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlflow_operator.api.pods import PodComponent
from mlflow_operator.kube import labels, pod_diagnosis, quantity
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import resources as sizing
from tests.unit.job_templates import job_templates


def job_containers(spec: Object) -> dict[str, Object]:
    """The resources of the containers of all Jobs, by the name of the container."""
    containers = chain.from_iterable(template["spec"]["containers"] for template in job_templates(spec))
    found = {container["name"]: container["resources"] for container in containers}
    assert len(found) == 9
    return found


def test_default_resources_do_not_change() -> None:
    """Without spec.resources, Jobs have no CPU limit: throttling at startup costs more than it saves."""
    assert job_containers({})["migrate"] == sizing.migration()
    assert job_containers({})["pg-dump"] == sizing.backup()


def test_jobs_have_a_cpu_limit_if_the_server_has_one() -> None:
    """A ResourceQuota on limits.cpu rejects pods without the limit."""
    limits = {"cpu": "4", "memory": "2Gi", "ephemeral-storage": "1Gi"}
    for name, resources in job_containers({"resources": {"limits": limits}}).items():
        assert resources["limits"].keys() == limits.keys(), name
        assert quantity.parse(resources["limits"]["cpu"]) <= 1, name


def test_limits_of_jobs_do_not_exceed_those_of_the_server() -> None:
    """A LimitRange has a maximum for each container."""
    for name, resources in job_containers(
        {"resources": {"limits": {"cpu": "300m", "memory": "500Mi"}}}
    ).items():
        assert quantity.compare(resources["limits"]["cpu"], "300m") <= 0, name
        assert quantity.compare(resources["limits"]["memory"], "500Mi") <= 0, name


_CPU = st.integers(1, 64_000).map("{}m".format)
_MEMORY = st.integers(1, 2**20).map("{}Mi".format)


def _list(values: st.SearchStrategy[str], name: str) -> st.SearchStrategy[dict[str, str]]:
    return st.one_of(st.just({}), values.map(lambda value: {name: value}))


def _ratio(resources: Object, name: str) -> Decimal | None:
    """Limit divided by request, as the LimitRanger computes it: a missing request is the limit."""
    limit = (resources.get("limits") or {}).get(name)
    request = (resources.get("requests") or {}).get(name, limit)
    return quantity.parse(limit) / quantity.parse(str(request)) if limit is not None else None


@pytest.mark.parametrize(("name", "values"), [("cpu", _CPU), ("memory", _MEMORY)])
@pytest.mark.parametrize("default", [sizing.migration(), sizing.backup()])
def test_ratio_of_limit_and_request_does_not_exceed_that_of_the_server(
    name: str, values: st.SearchStrategy[str], default: Object
) -> None:
    """A LimitRange has a maximum for this ratio. The API server rejects a request above the limit."""

    @given(_list(values, name), _list(values, name))
    def check(requests: Object, limits: Object) -> None:
        if requests and limits and quantity.compare(requests[name], limits[name]) > 0:
            requests, limits = limits, requests
        own = {"requests": requests, "limits": limits}
        derived = sizing.derived(default, own)
        if limits:
            ratio, own_ratio = _ratio(derived, name), _ratio(own, name)
            assert ratio is not None
            assert own_ratio is not None
            assert 1 <= ratio <= own_ratio
            assert quantity.compare(derived["limits"][name], limits[name]) <= 0
        else:
            assert name not in (derived.get("limits") or {})

    check()


def test_extended_resources_are_not_copied() -> None:
    """A backup must not reserve a GPU."""
    derived = sizing.derived(sizing.backup(), {"limits": {"nvidia.com/gpu": "1", "cpu": "1"}})
    assert "nvidia.com/gpu" not in derived["limits"]


@pytest.mark.parametrize(
    ("component", "names"),
    [
        ("Migration", {"migrate"}),
        ("Preflight", {"preflight"}),
        ("Backup", {"backup", "pg-dump"}),
        ("Restore", {"restore", "pg-restore"}),
        ("GarbageCollection", {"garbage-collection"}),
        ("Encryption", {"rewrap"}),
        ("Authentication", {"authenticate"}),
    ],
)
def test_resources_of_each_job_can_be_set(component: str, names: set[str]) -> None:
    """For each container of its pods. Other Jobs are not affected."""
    wanted = {"requests": {"cpu": "1"}, "limits": {"cpu": "1", "memory": "3Gi"}}
    components = [{"name": component, "resources": wanted}]
    containers = job_containers({"podTemplate": {"components": components}})
    assert {name for name, resources in containers.items() if resources == wanted} == names


def test_messages_name_the_field_of_each_job() -> None:
    """The name in the message is the name of the component in the spec."""
    names = {component.value for component in PodComponent}
    fields = [pod_diagnosis.RESOURCE_FIELDS[component] for component in labels.JOB_PODS]
    assert {f"spec.podTemplate.components[{name}].resources" for name in names} > {*fields}
    assert len({*fields}) == len(labels.JOB_PODS)
