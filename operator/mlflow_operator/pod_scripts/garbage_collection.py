"""Removes for good what was deleted long ago (runs, models, experiments), and old traces, each with its files.

It does what `mlflow gc` does, by the same calls of the store. The command itself is not fit to be left alone: whatever
runs it is told to take, it takes every deleted experiment, too; it ends at the first file that can't be removed; it
takes files of which a registered model is made; and where S3 refuses a removal (with a 200), it forgets where the files
are. Here files go first, the way that clients take, and rows only once the files are seen to be gone.

What came of it goes where Kubernetes keeps a container's last words, as JSON below 3 KiB.
"""

import json
import os
import signal
import sys

LAST_WORDS = "/dev/termination-log"
SETTINGS = "MLFLOW_OPERATOR_GARBAGE_COLLECTION"

PAGE = 100
PATIENCE = 10
"""Things that can't be removed until the others are left alone, for it will not do better. Less than a PAGE."""
TOLD = 3
"""Faults that the answer has room for; the log has all."""

# the 7 that clients take by default last four minutes, for each file of a store that is away
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")

asked = json.loads(os.environ[SETTINGS])
dry = asked["mode"] == "DryRun"
counts = dict.fromkeys(("runs", "models", "experiments", "traces", "kept", "failed"), 0)
found = {"mode": asked["mode"], "version": None, "missing": [], "faults": []}


class EnoughError(Exception):
    """Nothing more is tried, and what there is to say of that is said."""


def say(line):
    print(line, flush=True)


def fault(kind, said):
    said = " ".join(str(said).split())[:300]
    say(f"{kind}: {said}")
    if len(found["faults"]) < TOLD:
        found["faults"].append({"kind": kind, "said": said})


def stopped(*_):
    """The Job has no more time, or its node is drained. What is done is done."""
    fault("time", "it was stopped before it was done; what is left is taken up the next time")
    raise EnoughError


def fitting():
    """Raise EnoughError where the tables are not this image's: MLflow would move them unasked as it opens them."""
    import mlflow.store
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory
    from sqlalchemy import create_engine

    found["version"] = str(mlflow.__version__)
    engine = create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])
    with engine.connect() as session:
        stands = MigrationContext.configure(session).get_current_revision()
    engine.dispose()
    folder = os.path.join(os.path.dirname(mlflow.store.__file__), "db_migrations")
    wanted = ScriptDirectory(folder).get_current_head()
    if stands != wanted:
        fault("schema", f"the tables are at revision {stands}, MLflow {mlflow.__version__} needs {wanted}")
        raise EnoughError


def pages(search):
    """All that a search finds; `search` takes the token of a page."""
    token = None
    while True:
        page = search(token)
        yield from page
        token = page.token
        if not token:
            return


def registered():
    """What registered models are made of: ids of logged models, and places of files with all places above them."""
    from mlflow import MlflowClient

    client, names = MlflowClient(), set()
    for version in pages(lambda token: client.search_model_versions(max_results=1000, page_token=token)):
        source = str(version.source or "").rstrip("/")
        names.add(getattr(version, "model_id", None))
        names.add(source.removeprefix("models:/"))
        while "/" in source:
            names.add(source)
            source = source.rpartition("/")[0]
    return names


def remove_files(uri, owner):
    """All below `uri`, which must be a place of the owner's alone."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    if owner not in uri.split("/"):
        raise RuntimeError(f"its files are at {uri}, which others may use, too")
    repository = get_artifact_repository(uri)
    repository.delete_artifacts()
    # what S3 refuses to remove it answers with a 200
    left = repository.list_artifacts()
    if left:
        raise RuntimeError(f"{left[0].path} is still there: the store refuses to remove it")


class Collection:
    """One round over a store. `gone`: what was removed, or would have been."""

    def __init__(self, store):
        from mlflow.entities import ViewType
        from mlflow.utils.time import get_current_time_millis

        self.store, self.views, self.now = store, ViewType, get_current_time_millis()
        self.age = asked["olderThanSeconds"] * 1000
        self.experiments_asked = set(asked["experimentIDs"])
        self.registered, self.gone = registered(), set()
        self.knows_models = hasattr(store, "_hard_delete_logged_model")

    def concerned(self, things):
        """Those in the experiments that were asked for: none named is all."""
        wanted = self.experiments_asked
        return [each for each in things if not wanted or str(each.experiment_id) in wanted]

    def tried(self, kind, name, work):
        """Whether `work` was done. What can't be removed is no reason to leave all else."""
        try:
            if not dry:
                work()
        except Exception as error:
            counts["failed"] += 1
            fault(kind, f"{name}: {type(error).__name__}: {error}")
            if counts["failed"] >= PATIENCE:
                fault("patience", f"{PATIENCE} things could not be removed; the others are left alone")
                raise EnoughError from error
            return False
        return True

    def removed(self, kind, name, id_, work):
        if self.tried(kind, name, work):
            self.count(kind, name, id_)

    def count(self, kind, name, id_):
        say(f"{'would remove' if dry else 'removed'} {name}")
        counts[kind] += 1
        self.gone.add(id_)

    def keep(self, name, why):
        say(f"kept {name}: {why}")
        counts["kept"] += 1

    def with_files(self, kind, name, id_, uri, forget):
        """One thing that has files, unless somebody needs them."""
        if {id_, uri.rstrip("/"), f"runs:/{id_}"} & self.registered:
            self.keep(name, "a registered model is made of its files")
            return

        def work():
            remove_files(uri, id_)
            forget(id_)

        self.removed(kind, name, id_, work)

    def runs(self):
        found = (self.store.get_run(each).info for each in self.store._get_deleted_runs(older_than=self.age))
        for run in self.concerned(found):
            name = f"run {run.run_id} of experiment {run.experiment_id}"
            # somebody may have taken it back since
            if self.store.get_run(run.run_id).info.lifecycle_stage == "deleted":
                self.with_files("runs", name, run.run_id, run.artifact_uri, self.store._hard_delete_run)

    def deleted_models(self, age):
        ids = self.store._get_deleted_logged_models(older_than=age) if self.knows_models else ()
        return self.concerned(self.store.get_logged_model(each, allow_deleted=True) for each in ids)

    def models(self, models):
        for model in models:
            name = f"model {model.model_id} of experiment {model.experiment_id}"
            place, forget = model.artifact_location, self.store._hard_delete_logged_model
            self.with_files("models", name, model.model_id, place, forget)

    def experiments(self, view, **narrowed):
        return self.concerned(
            pages(lambda token: self.store.search_experiments(view, page_token=token, **narrowed))
        )

    def deleted_experiments(self):
        older = f"last_update_time < {self.now - self.age}"
        for experiment in self.experiments(self.views.DELETED_ONLY, filter_string=older):
            self.experiment(experiment.experiment_id)

    def experiment(self, id_):
        """One that was deleted long ago, with what is in it: unless some of that stays, as what is younger does."""
        name, every = f"experiment {id_}", self.views.ALL
        runs = pages(lambda token: self.store.search_runs([id_], "", every, page_token=token))
        if any(run.info.run_id not in self.gone for run in runs):
            self.keep(name, "there are runs in it that stay")
            return
        models = []
        if hasattr(self.store, "search_logged_models"):
            models += pages(lambda token: self.store.search_logged_models([id_], page_token=token))
        if self.knows_models:
            models += [each for each in self.deleted_models(0) if str(each.experiment_id) == id_]
            self.models(each for each in models if each.model_id not in self.gone)
        if any(each.model_id not in self.gone for each in models):
            self.keep(name, "there are models in it that stay")
            return
        if self.traces(id_, self.now):
            self.removed("experiments", name, id_, lambda: self.store._hard_delete_experiment(id_))

    def old_traces(self):
        if asked["tracesOlderThanSeconds"] is None:
            return
        before = self.now - asked["tracesOlderThanSeconds"] * 1000
        for experiment in self.experiments(self.views.ALL):
            if experiment.experiment_id not in self.gone:
                self.traces(experiment.experiment_id, before)

    def traces(self, experiment, before):
        """Whether none of its traces from `before` (milliseconds) is left, or would be; a page at a time."""
        older, failed, token = f"timestamp_ms <= {before}", set(), None
        while True:
            listed, token = self.store.search_traces([experiment], older, PAGE, page_token=token)
            traces = {getattr(each, "trace_id", None) or each.request_id: each for each in listed}
            ids = [id_ for id_ in traces if id_ not in failed]
            done = []
            for id_ in ids:
                name, uri = f"trace {id_}", traces[id_].tags.get("mlflow.artifactLocation")
                if self.tried("traces", name, lambda id_=id_, uri=uri: uri and remove_files(uri, id_)):
                    done.append(id_)
            failed |= set(ids) - set(done)
            if done and not dry:
                # by position: what the ids are called has changed
                self.store.delete_traces(experiment, None, None, done)
            for id_ in done:
                self.count("traces", f"trace {id_} of experiment {experiment}", id_)
            if not ids or (dry and not token):
                return not failed
            # the next ones have taken the places of those that are gone
            token = token if dry else None


def collect():
    fitting()
    from mlflow.tracking import _get_store

    destination = os.environ.get("MLFLOW_ARTIFACTS_DESTINATION")
    one = Collection(_get_store(os.environ["MLFLOW_BACKEND_STORE_URI"], destination))
    if hasattr(one.store, "search_logged_models") and not one.knows_models:
        found["missing"].append("logged models")
    one.runs()
    one.models(one.deleted_models(one.age))
    one.deleted_experiments()
    one.old_traces()


def main():
    signal.signal(signal.SIGTERM, stopped)
    try:
        collect()
    except EnoughError:
        pass
    except Exception as error:
        fault("collection", f"{type(error).__name__}: {error}")
    text = json.dumps(found | counts)
    with open(LAST_WORDS, "w") as words:
        words.write(text)
    say(text)
    sys.exit(1 if found["faults"] else 0)


main()
