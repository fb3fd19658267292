"""What a change of version means: whether a preflight is needed, what its answer allows, what the status tells."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from math import ceil

from mlflow_operator.components.migration.preflight_result import PreflightResult, SchemaChange
from mlflow_operator.kube import labels
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.server import Server
from mlflow_operator.model.termination_message import JobError
from mlflow_operator.model.versions import version_for_revision
from mlflow_operator.status import message_text
from mlflow_operator.status.conditions import Reason
from mlflow_operator.status.errors import ConfigurationError


@dataclass(frozen=True)
class RunningVersion:
    """What the server ran last by the operator's will: version, image, and the schema's revision then."""

    version: str | None
    image: str | None
    revision: str | None

    def rollback_hint(self, server: Server) -> str:
        """How the owner undoes a change, as the end of a sentence; empty where there was none."""
        if self.image is None or self.image == server.image:
            return ""
        if server.is_default_image and self.version and self.version != server.version:
            return f", or set spec.version back to {self.version}"
        return f", or go back to the image {self.image}"


def running_version(status: Object, running: str | None) -> RunningVersion:
    """As the status tells it; one that was lost still has the image of the pods (`running`)."""
    return RunningVersion(status.get("version"), status.get("image") or running, status.get("schemaRevision"))


def needs_preflight(before: RunningVersion, server: Server, revision: str | None, head: str | None) -> bool:
    """Whether there is anything that the image asked for could harm.

    `revision` is the database's, `head` the one that the image is known to want. A first start on an empty database,
    and an image that serves already at the revision at which it serves, cost no Job.
    """
    if before.image is not None and before.image != server.image:
        return True
    return revision is not None and revision != head


@dataclass(frozen=True)
class UpgradePlan:
    """What may be done. `answer` is what the image said, None where nobody asked; `since` (RFC 3339) when it was asked.

    `changes`: another image than before takes over. `stops`: the servers of before stop before the schema moves.
    """

    answer: PreflightResult | None = None
    since: str | None = None
    changes: bool = False
    stops: bool = False

    @property
    def head(self) -> str | None:
        """Where the image's migrations end, as far as it was asked."""
        return self.answer.head if self.answer else None


def plan(
    before: RunningVersion, server: Server, answer: PreflightResult, since: str | None, moving: bool
) -> UpgradePlan:
    """What an answer without any fault allows. `moving`: it is about a database that no server of before is on."""
    changes = before.image is not None and before.image != server.image
    forward = answer.movement is SchemaChange.FORWARD and not moving
    return UpgradePlan(answer, since, changes, changes and forward and server.recreate_on_migration)


def refusal(before: RunningVersion, server: Server, answer: PreflightResult) -> ConfigurationError | None:
    """Why the image must not take over, None if it may."""
    serves = f"; version {before.version} serves on" if before.image and before.version else ""
    untouched = f"Nothing was touched{serves}."
    back = before.rollback_hint(server)
    if answer.faults:
        fact, advice = _told(server, answer.faults[0])
        return ConfigurationError(
            Reason.PREFLIGHT_FAILED,
            f"{fact} {untouched} {advice}{back}. It is asked again by itself, within a minute at first.",
        )
    if server.version_is_explicit and _public(answer.version) != _public(server.version):
        return ConfigurationError(
            Reason.PREFLIGHT_FAILED,
            f"The image {server.image} holds MLflow {answer.version}, and {server.version} was asked for. {untouched} "
            f"Set spec.version to {answer.version}, name another image in spec.image{back}.",
        )
    if answer.movement is SchemaChange.UNKNOWN:
        return ConfigurationError(
            Reason.SCHEMA_NEWER_THAN_IMAGE,
            f"The database stands at revision {answer.revision}, which MLflow {answer.version} does not know: a newer "
            f"version has brought it there, or another program. {untouched} There is no way down but a backup: restore "
            f"one from before, or go back to {_writer(before, answer)}.",
        )
    return None


def no_answer(before: RunningVersion, server: Server, job: str, said: str | None) -> ConfigurationError:
    """What a preflight that ended without an answer comes to: nothing is known, so nothing is done."""
    lines = message_text.last_lines(said)
    quoted = f" Its last lines: {lines}" if lines else ""
    return ConfigurationError(
        Reason.PREFLIGHT_FAILED,
        f'The preflight Job "{job}" gave no answer, so nothing was touched. See whether the image {server.image} starts'
        f"{before.rollback_hint(server)}. It is asked again by itself, within a minute at first.{quoted}",
    )


_TOLD = {
    "driver": (
        "The image {image} lacks a Python package: {said}.",
        "Take the -full image of the version, add the package to an image of your own",
    ),
    "program": (
        "The image {image} can't run MLflow's server: {said}.",
        "Name one in spec.image that can",
    ),
    "encoding": (
        "The database has the encoding {said}, with which MLflow cannot work.",
        "Name one in UTF8 in spec.database",
    ),
    "privilege": (
        "In the database {said}.",
        "GRANT what is missing, or make the user the owner",
    ),
    "bucket": (
        "In its server's environment the image can't write to the artifact store: {said}.",
        "Check what its key may do, and what spec.env says of the store",
    ),
    "time": (
        "The preflight was {said}.",
        "See whether the database and the artifact store answer in time",
    ),
}
_OTHER = (
    "In its server's environment the image can't work with the database: {said}.",
    "Check what spec.database and spec.env say of it",
)


def _told(server: Server, trouble: JobError) -> tuple[str, str]:
    fact, advice = _TOLD.get(trouble.kind, _OTHER)
    return fact.format(image=server.image, said=message_text.strip_volatile(trouble.said).rstrip(".")), advice


def _public(version: str | None) -> str:
    """Without the local part that somebody's own build may carry: `3.17.2+corp`."""
    return (version or "").partition("+")[0]


def _writer(before: RunningVersion, answer: PreflightResult) -> str:
    known = before.version if before.revision == answer.revision else None
    version = known or version_for_revision(answer.revision or "")
    return f"version {version}" if version else "the version that did"


def begun(
    before: RunningVersion, server: Server, answer: PreflightResult, since: str, told: Object
) -> Object:
    """What `status.upgrade` says once the way is free; `told` is what it says already, `since` (RFC 3339) when the
    preflight began."""
    same = told.get("fromVersion") == before.version and told.get("toVersion") == server.version
    if same and in_progress(told):
        return told
    revisions = {"fromRevision": answer.revision, "toRevision": answer.head}
    whole = {"fromVersion": before.version, "toVersion": server.version, **revisions, "startTime": since}
    return {key: value for key, value in whole.items() if value is not None}


def in_progress(told: Object) -> bool:
    """Whether `status.upgrade` speaks of one that has not come to its end."""
    return bool(told.get("startTime")) and not told.get("completionTime")


def ended(told: Object, deployment: Object, pods: Iterable[Object], now: str) -> Object:
    """What `status.upgrade` says when every server of the new version answers."""
    return {**told, "completionTime": now, "downtimeSeconds": _downtime(told, deployment, pods, now)}


def _downtime(told: Object, deployment: Object, pods: Iterable[Object], now: str) -> int:
    stopped = (deployment["metadata"].get("annotations") or {}).get(labels.STOPPED)
    if not stopped or _time(stopped) < _time(told["startTime"]):
        return 0
    answering = [
        condition["lastTransitionTime"]
        for pod in pods
        for condition in (pod.get("status") or {}).get("conditions") or ()
        if condition["type"] == "Ready" and condition["status"] == "True"
    ]
    first = min(map(_time, answering), default=_time(now))
    return max(0, ceil((first - _time(stopped)).total_seconds()))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
