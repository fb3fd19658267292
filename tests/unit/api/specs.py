"""Hypothesis strategy for random specs, generated from the schema of the CRD. New fields are included automatically.

Most specs are valid: strings match the pattern of their CEL rule, and one field of each union is set. Some scalars have
arbitrary values of their type. Rules across fields are not considered.
"""

import re
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from mlflow_operator.api.crd import openapi_schema
from mlflow_operator.api.rules import VALIDATIONS

Schema = dict[str, Any]
Draw = Callable[[st.SearchStrategy[Any]], Any]

SPEC: Schema = openapi_schema()["properties"]["spec"]

_PATTERN_RULE = re.compile(r"self\.matches\('\^\(\?:(.*)\)\$'\)")
_HAS_MEMBER = re.compile(r"has\(self\.(\w+)\)")
_NAME = st.from_regex(r"[a-z][a-z0-9]{0,5}(-[a-z0-9]{1,3})?", fullmatch=True)
_LABEL_KEY = st.builds(lambda prefix, name: f"{prefix}{name}", st.sampled_from(["", "example.com/"]), _NAME)
_TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=8)
_QUANTITY = st.sampled_from([1, 2, "100m", "0.5", "1500m", "64Mi", "512Mi", "1Gi", "2Gi", "1e9", "0"])
_LABELS = st.dictionaries(_LABEL_KEY, _NAME, max_size=3)
_SELECTOR = st.builds(lambda labels: {"matchLabels": labels}, _LABELS)
_AFFINITY_TERM = st.builds(lambda selector: {"topologyKey": "zone", "labelSelector": selector}, _SELECTOR)
_ZONE_EXPRESSION = {"key": "zone", "operator": "In", "values": ["a", "b"]}

_STRATEGIES_BY_PATH: dict[str, st.SearchStrategy[Any]] = {
    "affinity": st.one_of(
        st.just({}),
        st.builds(
            lambda t: {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [t]}},
            _AFFINITY_TERM,
        ),
        st.just(
            {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [{"matchExpressions": [_ZONE_EXPRESSION]}]
                    }
                }
            }
        ),
    ),
    "labelSelector": _SELECTOR,
    "configMap": st.builds(lambda name: {"name": name, "items": [{"key": "a", "path": "b"}]}, _NAME),
    "projected.sources[].secret": st.builds(lambda name: {"name": name}, _NAME),
    "volumes[].secret": st.builds(lambda name: {"secretName": name}, _NAME),
    "emptyDir": st.sampled_from([{}, {"medium": "Memory", "sizeLimit": "1024Mi"}]),
    "persistentVolumeClaim": st.builds(lambda name: {"claimName": name}, _NAME),
    "downwardAPI": st.just({"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}),
    "csi": st.builds(lambda name: {"driver": name}, _NAME),
    "ephemeral": st.just(
        {
            "volumeClaimTemplate": {
                "spec": {
                    "accessModes": ["ReadWriteOnce"],
                    "resources": {"requests": {"storage": "1Gi"}},
                }
            }
        }
    ),
    "serviceAccountToken.audience": st.just("sts.example.com"),
    "serviceAccountToken.path": _NAME,
    "serviceAccountToken.expirationSeconds": st.integers(600, 4000),
    "projected.defaultMode": st.integers(0, 511),
    "runAsUser": st.integers(1, 2**31 - 1),
    "runAsNonRoot": st.just(True),
    "securityContext.seccompProfile": st.just({"type": "RuntimeDefault"}),
    "appArmorProfile": st.just({"type": "RuntimeDefault"}),
    "seLinuxOptions.level": st.just("s0:c26,c5"),
    "labels": _LABELS,
    "nodeSelector": _LABELS,
    "annotations": st.dictionaries(_LABEL_KEY, _TEXT, max_size=3),
    "requests": st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage"]), _QUANTITY),
    "limits": st.dictionaries(st.sampled_from(["cpu", "memory", "ephemeral-storage"]), _QUANTITY),
    "size": st.sampled_from(["1Mi", "10Gi", "1.5Ti", "1000000000", "2e9", "20G"]),
    "schedule": st.sampled_from(["0 2 * * *", "*/15 8-18 * * mon-fri", "@daily"]),
    "timeZone": st.sampled_from(["Etc/UTC", "Europe/Berlin"]),
    "topologyKey": _LABEL_KEY,
    "matchLabelKeys[]": _LABEL_KEY,
    "tolerations[].key": _LABEL_KEY,
    "tolerations[].value": _NAME,
    "fieldPath": st.sampled_from(["metadata.name", "status.podIP", "spec.nodeName"]),
    "fieldRef.apiVersion": st.just("v1"),
    "resourceFieldRef.resource": st.sampled_from(["limits.memory", "requests.cpu"]),
    "containerName": st.just("mlflow"),
    "divisor": st.sampled_from(["1", "1Mi"]),
    "subPath": _NAME,
    "volumeMounts[].name": _NAME,
    "prefix": _NAME,
    "bucket": st.from_regex(r"[a-z][a-z0-9]{2,8}", fullmatch=True),
    "rotateCredentialsAt": st.just("2026-12-24T18:00:00Z"),
    "mountPath": st.builds(lambda name: f"/data/{name}", _NAME),
}
"""Strategies by the end of the field path: for fields that only Kubernetes validates, and for strings for which random
values would almost always be invalid.
"""


@st.composite
def specs(draw: st.DrawFn, arbitrary_one_in: int = 40) -> Schema:
    """Generate a spec. One scalar in `arbitrary_one_in` has an arbitrary value of its type; 0 disables this."""
    spec: Schema = _draw(draw, SPEC, "spec", arbitrary_one_in)
    volumes = [volume["name"] for volume in spec.get("podTemplate", {}).get("spec", {}).get("volumes", ())]
    if volumes:
        for mount in spec.get("volumeMounts", ()):
            mount["name"] = draw(st.sampled_from(volumes))
    else:
        spec.pop("volumeMounts", None)
    return spec


def _draw(draw: Draw, schema: Schema, path: str, arbitrary_one_in: int) -> Any:
    strategy = next(
        (candidate for end, candidate in _STRATEGIES_BY_PATH.items() if _has_suffix(path, end)), None
    )
    match schema:
        case {"type": "array"} if strategy is None:
            return _list(draw, schema, path, arbitrary_one_in)
        case {"properties": _}:
            return _object(draw, schema, path, arbitrary_one_in) | (
                draw(strategy) if strategy is not None else {}
            )
    if (
        arbitrary_one_in
        and schema.get("type") not in {"object", "array"}
        and draw(st.integers(1, arbitrary_one_in)) == arbitrary_one_in
    ):
        return draw(_arbitrary(schema))
    return draw(_leaf(schema, path) if strategy is None else strategy)


def _leaf(schema: Schema, path: str) -> st.SearchStrategy[Any]:
    match schema:
        case {"enum": values}:
            return st.sampled_from(values)
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer"}:
            low = schema.get("minimum", 0)
            return st.integers(low, min(schema.get("maximum", low + 10), low + 10))
        case {"type": "string"}:
            return _string(schema)
    raise AssertionError(f"There is no strategy for {path}. Add one to _STRATEGIES_BY_PATH.")


def _object(draw: Draw, schema: Schema, path: str, arbitrary_one_in: int) -> Schema:
    members: Schema = schema["properties"]
    selected = {name for name in members if name in schema.get("required", ()) or draw(st.booleans())}
    rules = [entry["rule"] for entry in schema.get(VALIDATIONS, ())]
    for rule in rules:
        union = _HAS_MEMBER.findall(rule)
        if rule.endswith(("== 1", "<= 1")) and len(union) > 1 and "? 1 : 0" in rule:
            selected -= set(union)
            selected |= set(
                draw(st.lists(st.sampled_from(union), min_size=rule.endswith("== 1"), max_size=1))
            )
    for rule in rules:
        if re.fullmatch(r"has\(self\.\w+\)( \|\| has\(self\.\w+\))+", rule) and not selected & {
            *_HAS_MEMBER.findall(rule)
        }:
            selected.add(_HAS_MEMBER.findall(rule)[0])
    return {
        name: _draw(draw, members[name], f"{path}.{name}", arbitrary_one_in)
        for name in members
        if name in selected
    }


def _list(draw: Draw, schema: Schema, path: str, arbitrary_one_in: int) -> list[Any]:
    items: list[Any] = []
    seen_keys = set()
    for _ in range(draw(st.integers(0, min(3, schema.get("maxItems", 3))))):
        item = _draw(draw, schema["items"], f"{path}[]", arbitrary_one_in)
        match schema.get("x-kubernetes-list-type"):
            case "map":
                key = tuple(item.get(name) for name in schema["x-kubernetes-list-map-keys"])
            case "set":
                key = (item,)
            case _:
                key = (len(items),)
        if key not in seen_keys:
            seen_keys.add(key)
            items.append(item)
    return items


def _string(schema: Schema) -> st.SearchStrategy[str]:
    rules = [entry["rule"] for entry in schema.get(VALIDATIONS, ())]
    pattern = next((match.group(1) for rule in rules if (match := _PATTERN_RULE.fullmatch(rule))), None)
    if pattern is None:
        return _TEXT
    alphabet = st.characters(max_codepoint=126, min_codepoint=33)
    regex = re.compile(pattern.replace("\\\\", "\\"), re.ASCII)
    max_length = min(schema.get("maxLength", 40), 40)
    return st.from_regex(regex, fullmatch=True, alphabet=alphabet).filter(
        lambda text: len(text) <= max_length
    )


def _arbitrary(schema: Schema) -> st.SearchStrategy[Any]:
    match schema:
        case {"type": "boolean"}:
            return st.booleans()
        case {"type": "integer"}:
            return st.integers(-(2**31), 2**31 - 1)
        case {"x-kubernetes-int-or-string": True}:
            return st.one_of(st.integers(-10, 10), _TEXT)
    return st.text(max_size=20)


def _has_suffix(path: str, end: str) -> bool:
    return path == end or path.endswith(f".{end}")
