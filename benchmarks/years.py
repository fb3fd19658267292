"""Fills a database with the data of several years: rows are inserted directly into MLflow's tables, which is a thousand
times faster than MLflow's API.

Only uses columns that exist in all versions since 2.22, so that the schema of any version can be filled.
"""

FULL_RUNS, QUICK_RUNS = 100_000, 10_000
EXPERIMENTS, PARAMS, TAGS, METRICS, STEPS = 20, 5, 3, 3, 4
"""Number of experiments; parameters, tags and metrics per run; values per metric."""

_RUN = "md5('run ' || run)"
_TIME = "1700000000000 + run * 1000::bigint"
_VALUES = f"'metric-' || metric, abs(sin(run * 12.9898 + metric * 78.233 + step)), {_TIME} + step, {_RUN}, step, false"
_LAST_STEP = f"(VALUES ({STEPS})) AS last (step)"


def _series(what: str, count: int | str) -> str:
    return f"generate_series(1, {count}) AS {what}"


def fill_statements(runs: int) -> list[str]:
    """Return the statements by which a superuser fills empty tables with `runs` runs.

    Foreign keys are valid by construction. They are not checked, because that would take most of the time.
    """
    run = _series("run", runs)
    metric = _series("metric", METRICS)
    return [
        "SET session_replication_role = replica",
        f"""INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)
            SELECT 'team ' || team, 'mlflow-artifacts:/team-' || team, 'active', 1700000000000, 1700000000000
            FROM {_series("team", EXPERIMENTS)}""",
        f"""INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
                              end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)
            SELECT {_RUN}, 'run-' || run, 'LOCAL', 'train.py', '', 'team', 'FINISHED', {_TIME},
                   {_TIME} + 500, '', 'active', artifact_location || '/' || {_RUN} || '/artifacts', experiment_id
            FROM {run} JOIN experiments ON name = 'team ' || (1 + run % {EXPERIMENTS})""",
        f"""INSERT INTO params (key, value, run_uuid)
            SELECT 'param-' || param, md5(run || ' ' || param), {_RUN} FROM {run}, {_series("param", PARAMS)}""",
        f"""INSERT INTO tags (key, value, run_uuid)
            SELECT 'tag-' || tag, md5(tag || ' ' || run), {_RUN} FROM {run}, {_series("tag", TAGS)}""",
        f"""INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
            SELECT {_VALUES} FROM {run}, {metric}, {_series("step", STEPS)}""",
        f"""INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan)
            SELECT {_VALUES} FROM {run}, {metric}, {_LAST_STEP}""",
        "ANALYZE",
    ]


def run_count(quick: bool) -> int:
    """Return the number of MLflow runs for a quick or a full benchmark."""
    return QUICK_RUNS if quick else FULL_RUNS
