"""Permanently delete runs, models and experiments that were deleted long ago, and old traces, with their artifacts.

This script calls the same store methods as `mlflow gc`. The command itself is not safe to run unattended: even if it is
restricted to some runs, it deletes all deleted experiments; it stops at the first file that cannot be deleted; it
deletes files that a registered model uses; and if S3 rejects a deletion (with status 200), it forgets where the files
are. This script deletes the artifacts first, in the same way as clients access them, and the rows only after it has
verified that the artifacts are gone.

The result is the termination message of the container, as JSON below 3 KiB.
"""

import contextlib
import json
import os
import random
import signal
import sys

from network_common import when_network_ready

TERMINATION_LOG = "/dev/termination-log"
SETTINGS_VARIABLE = "MLFLOW_OPERATOR_GARBAGE_COLLECTION"

PAGE_SIZE = 100
MAX_CONSECUTIVE_FAILURES = 10
"""Number of objects in a row that cannot be deleted before the script checks whether the store still answers."""
MAX_ERRORS = 3
"""Number of errors in the result; the log has all of them."""

# the 7 retries that clients make by default take four minutes, for each file of a store that is down
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")

settings = json.loads(os.environ[SETTINGS_VARIABLE])
dry_run = settings["mode"] == "DryRun"
counts = dict.fromkeys(("runs", "models", "experiments", "traces", "kept", "failed"), 0)
result = {"mode": settings["mode"], "version": None, "unsupported": [], "errors": []}


class AbortedError(BaseException):
    """The script stops; the reason is already in the result. Not an Exception, which only sets one object aside."""


def log(line):
    print(line, flush=True)


def add_error(code, message):
    message = " ".join(str(message).split())[:300]
    log(f"{code}: {message}")
    if len(result["errors"]) < MAX_ERRORS:
        result["errors"].append({"code": code, "message": message})


def on_sigterm(*_):
    """Stop on SIGTERM: the deadline of the Job has passed, or the node is drained. Finished deletions are valid."""
    add_error("interrupted", "it was terminated before it was complete; the next run continues")
    raise AbortedError


def check_schema():
    """Raise AbortedError unless the schema has the revision of this image.

    MLflow migrates an older schema when it opens the store.
    """
    import mlflow.store
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine

    result["version"] = str(mlflow.__version__)
    engine = create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])
    with when_network_ready(engine.connect) as session:
        revision = MigrationContext.configure(session).get_current_revision()
    engine.dispose()
    folder = os.path.join(os.path.dirname(mlflow.store.__file__), "db_migrations")
    head = ScriptDirectory(folder).get_current_head()
    if revision != head:
        add_error(
            "schema", f"the schema is at revision {revision}, but MLflow {mlflow.__version__} needs {head}"
        )
        raise AbortedError


def paginate(search):
    """Yield all results of a search. `search` is called with a page token."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def workspace_names(store):
    """Names of all workspaces of the server; only None if it has none."""
    from mlflow import environment_variables

    enabled = getattr(environment_variables, "MLFLOW_ENABLE_WORKSPACES", None)
    if not (enabled and enabled.get() and getattr(store, "supports_workspaces", False)):
        return [None]
    from mlflow.tracking._workspace.registry import get_workspace_store
    from mlflow.utils.workspace_utils import resolve_workspace_store_uri

    uri = resolve_workspace_store_uri(tracking_uri=os.environ["MLFLOW_BACKEND_STORE_URI"])
    return sorted(workspace.name for workspace in get_workspace_store(uri).list_workspaces())


def in_workspace(name):
    """Context in which MLflow's stores and clients use a workspace."""
    if name is None:
        return contextlib.nullcontext()
    from mlflow.utils.workspace_context import WorkspaceContext

    return WorkspaceContext(name)


def check_store():
    """Raise an exception if the artifact store does not answer. The folder need not exist."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    uri = os.environ.get("MLFLOW_DEFAULT_ARTIFACT_ROOT") or "mlflow-artifacts:/"
    get_artifact_repository(uri).list_artifacts(".mlflow-operator")


def registered_sources():
    """What registered models use: IDs of logged models, and locations of artifacts with all their parent locations."""
    from mlflow import MlflowClient

    client, sources = MlflowClient(), set()
    for version in paginate(lambda token: client.search_model_versions(max_results=1000, page_token=token)):
        source = str(version.source or "").rstrip("/")
        sources.add(getattr(version, "model_id", None))
        sources.add(source.removeprefix("models:/"))
        while "/" in source:
            sources.add(source)
            source = source.rpartition("/")[0]
    return sources


def delete_artifacts(uri, owner_id):
    """Delete all artifacts below `uri`, which must be a location that only the object `owner_id` uses."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if owner_id not in uri.split("/"):
        raise RuntimeError(f"its artifacts are at {uri}, which other objects may use")
    repository = get_artifact_repository(uri)
    repository.delete_artifacts()
    # S3 answers with status 200 even if it rejects the deletion of an object
    remaining = repository.list_artifacts()
    if remaining:
        raise RuntimeError(f"{remaining[0].path} still exists: the store rejects its deletion")


class Collection:
    """One run over a store, or over one workspace of it. `registered`: what registered models of all workspaces use.

    `deleted`: IDs of deleted objects; in a dry run, of those that would be deleted. Objects that cannot be deleted are
    reported and set aside. The order is random, so that they do not delay the same other objects in each run.
    """

    def __init__(self, store, registered):
        from mlflow.entities import ViewType
        from mlflow.utils.time import get_current_time_millis

        self.store, self.view_type, self.now_ms = store, ViewType, get_current_time_millis()
        self.age_ms = settings["olderThanSeconds"] * 1000
        self.experiment_ids = set(settings["experimentIDs"])
        self.registered, self.deleted, self.consecutive_failures = registered, set(), 0
        self.deletes_models = hasattr(store, "_hard_delete_logged_model")

    def in_scope(self, objects):
        """The objects in the selected experiments; all of them if no experiment is selected."""
        return [
            item
            for item in objects
            if not self.experiment_ids or str(item.experiment_id) in self.experiment_ids
        ]

    def load(self, count_key, ids, read):
        """The objects with these IDs that can be read, in random order."""
        ids, objects = list(ids), []
        random.shuffle(ids)
        for id_ in ids:
            with self.set_aside(count_key, id_):
                objects.append(read(id_))
        return objects

    @contextlib.contextmanager
    def set_aside(self, error_code, name):
        """Report an error of one object, and continue with the others."""
        try:
            yield
        except Exception as error:
            self.record_failure(error_code, name, error)

    def record_failure(self, error_code, name, error):
        """Report an object that cannot be deleted. Raise AbortedError if the store does not answer."""
        counts["failed"] += 1
        add_error(error_code, f"{name}: {type(error).__name__}: {error}")
        self.consecutive_failures += 1
        if self.consecutive_failures < MAX_CONSECUTIVE_FAILURES:
            return
        self.consecutive_failures = 0
        try:
            check_store()
        except Exception as store_error:
            message = f"the artifact store does not answer; other objects were not tried: {store_error}"
            log(f"store: {message}")
            result["errors"][-1:] = [{"code": "store", "message": " ".join(message.split())[:300]}]
            raise AbortedError from store_error

    def try_delete(self, error_code, name, delete):
        """Call `delete`, except in a dry run; return whether it succeeded. After an error the script continues."""
        try:
            if not dry_run:
                delete()
        except Exception as error:
            self.record_failure(error_code, name, error)
            return False
        self.consecutive_failures = 0
        return True

    def delete(self, count_key, name, id_, delete):
        if self.try_delete(count_key, name, delete):
            self.count(count_key, name, id_)

    def count(self, count_key, name, id_):
        log(f"{'would delete' if dry_run else 'deleted'} {name}")
        counts[count_key] += 1
        self.deleted.add(id_)

    def keep(self, name, reason):
        log(f"kept {name}: {reason}")
        counts["kept"] += 1

    def delete_with_artifacts(self, count_key, name, id_, uri, delete_row):
        """Delete an object and its artifacts, unless a registered model uses them."""
        if {id_, uri.rstrip("/"), f"runs:/{id_}"} & self.registered:
            self.keep(name, "a registered model uses its artifacts")
            return

        def delete():
            delete_artifacts(uri, id_)
            delete_row(id_)

        self.delete(count_key, name, id_, delete)

    def delete_all(self):
        self.delete_runs()
        self.delete_models(self.deleted_models(self.age_ms))
        self.delete_experiments()
        self.delete_old_traces()

    def delete_runs(self):
        ids = self.store._get_deleted_runs(older_than=self.age_ms)
        for run in self.in_scope(self.load("runs", ids, lambda id_: self.store.get_run(id_).info)):
            name = f"run {run.run_id} of experiment {run.experiment_id}"
            # a user may have restored it since it was listed
            for current in self.load("runs", [run.run_id], lambda id_: self.store.get_run(id_).info):
                if current.lifecycle_stage == "deleted":
                    delete_row = self.store._hard_delete_run
                    self.delete_with_artifacts("runs", name, run.run_id, run.artifact_uri, delete_row)

    def deleted_models(self, age_ms):
        ids = self.store._get_deleted_logged_models(older_than=age_ms) if self.deletes_models else ()
        return self.in_scope(
            self.load("models", ids, lambda id_: self.store.get_logged_model(id_, allow_deleted=True))
        )

    def delete_models(self, models):
        for model in models:
            name = f"model {model.model_id} of experiment {model.experiment_id}"
            uri, delete_row = model.artifact_location, self.store._hard_delete_logged_model
            self.delete_with_artifacts("models", name, model.model_id, uri, delete_row)

    def experiments(self, view, **filters):
        return self.in_scope(
            paginate(lambda token: self.store.search_experiments(view, page_token=token, **filters))
        )

    def delete_experiments(self):
        older = f"last_update_time < {self.now_ms - self.age_ms}"
        for experiment in self.experiments(self.view_type.DELETED_ONLY, filter_string=older):
            name = f"experiment {experiment.experiment_id}"
            with self.set_aside("experiments", name):
                self.delete_experiment(experiment.experiment_id)

    def delete_experiment(self, id_):
        """Delete an experiment and its content, unless some of it must stay, for example because it is younger."""
        name, view = f"experiment {id_}", self.view_type.ALL
        runs = paginate(lambda token: self.store.search_runs([id_], "", view, page_token=token))
        if any(run.info.run_id not in self.deleted for run in runs):
            self.keep(name, "it contains runs that are kept")
            return
        models = []
        if hasattr(self.store, "search_logged_models"):
            models += paginate(lambda token: self.store.search_logged_models([id_], page_token=token))
        if self.deletes_models:
            models += [model for model in self.deleted_models(0) if str(model.experiment_id) == id_]
            self.delete_models(model for model in models if model.model_id not in self.deleted)
        if any(model.model_id not in self.deleted for model in models):
            self.keep(name, "it contains models that are kept")
            return
        if self.delete_traces(id_, self.now_ms):
            self.delete("experiments", name, id_, lambda: self.store._hard_delete_experiment(id_))

    def delete_old_traces(self):
        if settings["tracesOlderThanSeconds"] is None:
            return
        before_ms = self.now_ms - settings["tracesOlderThanSeconds"] * 1000
        for experiment in self.experiments(self.view_type.ALL):
            if experiment.experiment_id not in self.deleted:
                with self.set_aside("traces", f"traces of experiment {experiment.experiment_id}"):
                    self.delete_traces(experiment.experiment_id, before_ms)

    def delete_traces(self, experiment_id, before_ms):
        """Delete all traces up to `before_ms`, page by page. Return whether none is left; in a dry run, would be."""
        older, failed, token = f"timestamp_ms <= {before_ms}", set(), None
        while True:
            page, next_token = self.store.search_traces([experiment_id], older, PAGE_SIZE, page_token=token)
            traces = {getattr(trace, "trace_id", None) or trace.request_id: trace for trace in page}
            ids = [id_ for id_ in traces if id_ not in failed]
            done = []
            for id_ in ids:
                name, uri = f"trace {id_}", traces[id_].tags.get("mlflow.artifactLocation")
                if self.try_delete(
                    "traces", name, lambda id_=id_, uri=uri: uri and delete_artifacts(uri, id_)
                ):
                    done.append(id_)
            # positional, because the name of the parameter for the IDs differs between MLflow versions
            if done and not self.try_delete(
                "traces",
                f"{len(done)} traces of experiment {experiment_id}",
                lambda done=done: self.store.delete_traces(experiment_id, None, None, done),
            ):
                done = []
            failed |= set(ids) - set(done)
            for id_ in done:
                self.count("traces", f"trace {id_} of experiment {experiment_id}", id_)
            if done and not dry_run:
                continue  # the next traces have moved up to the same page
            if not next_token:
                return not failed
            token = next_token


def collect():
    check_schema()
    from mlflow.tracking import _get_store

    destination = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION")
    store = _get_store(os.environ["MLFLOW_BACKEND_STORE_URI"], destination)
    workspaces, registered = workspace_names(store), set()
    for workspace in workspaces:
        with in_workspace(workspace):
            registered |= registered_sources()
    if hasattr(store, "search_logged_models") and not hasattr(store, "_hard_delete_logged_model"):
        result["unsupported"].append("logged models")
    for workspace in workspaces:
        with in_workspace(workspace):
            try:
                Collection(store, registered).delete_all()
            except Exception as error:
                place = f"workspace {workspace}: " if workspace else ""
                add_error("collection", f"{place}{type(error).__name__}: {error}")


def main():
    signal.signal(signal.SIGTERM, on_sigterm)
    try:
        collect()
    except AbortedError:
        pass
    except Exception as error:
        add_error("collection", f"{type(error).__name__}: {error}")
    text = json.dumps(result | counts)
    with open(TERMINATION_LOG, "w") as file:
        file.write(text)
    log(text)
    sys.exit(1 if result["errors"] else 0)


main()
