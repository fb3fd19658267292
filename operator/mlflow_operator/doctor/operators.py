"""Finds the operators and looks at each: its Deployment, its pods, its Lease."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise

from mlflow_operator.doctor import access, needs
from mlflow_operator.doctor.access import Asking
from mlflow_operator.doctor.connect import CouldNotAsk
from mlflow_operator.doctor.finding import Unobserved
from mlflow_operator.doctor.seen import Lease, Operator
from mlflow_operator.kube import kinds
from mlflow_operator.kube.client import Forbidden
from mlflow_operator.kube.objects import Object
from mlflow_operator.kube.readonly_client import ReadOnlyClient

LABEL = "app.kubernetes.io/component=operator"
"""Of the chart's Deployment; whether it is the operator its arguments tell."""
_LOOK_SECONDS = 1.0
_SLACK_SECONDS = 3.0
"""Beyond a lease's duration, before one that was not renewed meanwhile is held for stale."""


@dataclass(frozen=True)
class Deployed:
    """A Deployment by its name."""

    namespace: str
    name: str


@dataclass(frozen=True)
class Found:
    """An operator's Deployment, or why it could not be looked at."""

    place: Deployed
    deployment: Object | Unobserved


async def find(onlooker: ReadOnlyClient, named: Deployed | None) -> tuple[Found, ...] | Unobserved:
    """The operator of that name, or all that carry the chart's labels. CouldNotAsk: there is none of that name."""
    if named:
        try:
            live = await onlooker.get(kinds.DEPLOYMENT, named.namespace, named.name)
        except Forbidden:
            return (Found(named, Unobserved(f"this account may not get Deployments in {named.namespace}.")),)
        if live is None:
            raise CouldNotAsk(
                f"There is no Deployment {named.namespace}/{named.name}. See: kubectl get deployments -A -l {LABEL}"
            )
        return (Found(named, live),)
    try:
        found = await onlooker.list(kinds.DEPLOYMENT, labels=LABEL)
    except Forbidden:
        return Unobserved("this account may not list Deployments in all namespaces.")
    return tuple(
        Found(Deployed(one["metadata"]["namespace"], one["metadata"]["name"]), one)
        for one in found
        if lease_name(one)
    )


async def seen(asking: Asking, found: Found) -> Operator:
    """Everything about one."""
    place, live = found.place, found.deployment
    # an unseen one: the chart names the Lease as it names the Deployment
    lease, watched = (
        (place.name, None) if isinstance(live, Unobserved) else (lease_name(live), watched_namespaces(live))
    )
    needed = needs.needed(asking.namespaces if watched is None else watched, place.namespace, lease)
    account = "" if isinstance(live, Unobserved) else _account(place, live)
    pods, held, allowed = await asyncio.gather(
        _pods(asking.onlooker, place, live),
        _lease(asking.onlooker, place.namespace, lease),
        access.of(asking, account, needed),
    )
    return Operator(place.namespace, place.name, live, pods, held, allowed, watched)


def arguments(deployment: Object) -> tuple[str, ...]:
    """What the operator is started with; empty for a Deployment of something else."""
    containers = deployment["spec"]["template"]["spec"].get("containers") or [{}]
    given = tuple(str(argument) for argument in containers[0].get("args") or ())
    return given[1:] if given[:1] == ("run",) else ()


def _values(given: Iterable[str], option: str) -> tuple[str, ...]:
    """Of `--option=value` and `--option value`."""
    words = [part for argument in given for part in argument.split("=", 1)]
    return tuple(value for name, value in pairwise(words) if name == option)


def lease_name(deployment: Object) -> str:
    """Empty for a Deployment that is no operator of ours."""
    given = arguments(deployment)
    return next(iter(_values(given, "--lease-name")), "")


def watched_namespaces(deployment: Object) -> tuple[str, ...]:
    """Empty: all."""
    return _values(arguments(deployment), "--namespace")


def _account(place: Deployed, deployment: Object) -> str:
    name = deployment["spec"]["template"]["spec"].get("serviceAccountName") or "default"
    return f"system:serviceaccount:{place.namespace}:{name}"


async def _pods(onlooker: ReadOnlyClient, place: Deployed, live: Object | Unobserved) -> tuple[Object, ...]:
    if isinstance(live, Unobserved):
        return ()
    chosen = live["spec"]["selector"].get("matchLabels") or {}
    try:
        found = await onlooker.list(
            kinds.POD, place.namespace, ",".join(f"{key}={value}" for key, value in chosen.items())
        )
    except Forbidden:
        return ()
    return tuple(pod for pod in found if not pod["metadata"].get("deletionTimestamp"))


async def _lease(onlooker: ReadOnlyClient, namespace: str, name: str) -> Lease | Unobserved | None:
    try:
        live = await onlooker.get(kinds.LEASE, namespace, name)
        if live is None:
            return None
        first = live.get("spec") or {}
        holder = str(first.get("holderIdentity") or "")
        if not holder or renewed_lately(first, datetime.now(UTC)):
            return Lease(holder, True)
        # the clocks may differ: what counts is whether it is renewed
        for _ in range(int((_seconds(first) + _SLACK_SECONDS) / _LOOK_SECONDS)):
            await asyncio.sleep(_LOOK_SECONDS)
            live = await onlooker.get(kinds.LEASE, namespace, name)
            spec = (live or {}).get("spec") or {}
            if spec.get("renewTime") != first.get("renewTime"):
                return Lease(str(spec.get("holderIdentity") or ""), True)
    except Forbidden:
        return Unobserved(f"this account may not get Leases in {namespace}.")
    return Lease(holder, False)


def _seconds(spec: Object) -> float:
    return min(float(spec.get("leaseDurationSeconds") or 15), 60.0)


def renewed_lately(spec: Object, now: datetime) -> bool:
    """Whether a Lease's last renewal is no older than it lasts, by our clock, nor ahead of it by more."""
    try:
        renewed = datetime.fromisoformat(str(spec.get("renewTime")))
        return abs((now - renewed).total_seconds()) <= _seconds(spec)
    except (ValueError, TypeError):
        return False
