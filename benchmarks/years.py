"""A database as teams have it after years: rows are inserted into MLflow's tables, a thousand times as fast as through
its API.

Only columns that exist in every version since 2.22 are used, so that the schema of any version can be filled.
"""

FULL_RUNS, QUICK_RUNS = 100_000, 10_000
EXPERIMENTS, PARAMS, TAGS, METRICS, STEPS = 20, 5, 3, 3, 4
"""Parameters, tags and metrics of each run, and values of each metric."""

_RUN = "md5('run ' || run)"
_TIME = "1700000000000 + run * 1000::bigint"
_VALUES = f"'metric-' || metric, abs(sin(run * 12.9898 + metric * 78.233 + step)), {_TIME} + step, {_RUN}, step, false"
_LAST = f"(VALUES ({STEPS})) AS last (step)"


def _each(what: str, count: int | str) -> str:
    return f"generate_series(1, {count}) AS {what}"


def filled(runs: int) -> list[str]:
    """The statements by which a superuser fills empty tables with `runs` runs.

    Foreign keys are valid by construction; checking each of them would take most of the time.
    """
    run = _each("run", runs)
    metric = _each("metric", METRICS)
    return [
        "SET session_replication_role = replica",
        f"""INSERT INTO experiments (name, artifact_location, lifecycle_stage, creation_time, last_update_time)
            SELECT 'team ' || team, 'mlflow-artifacts:/team-' || team, 'active', 1700000000000, 1700000000000
            FROM {_each("team", EXPERIMENTS)}""",
        f"""INSERT INTO runs (run_uuid, name, source_type, source_name, entry_point_name, user_id, status, start_time,
                              end_time, source_version, lifecycle_stage, artifact_uri, experiment_id)
            SELECT {_RUN}, 'run-' || run, 'LOCAL', 'train.py', '', 'team', 'FINISHED', {_TIME},
                   {_TIME} + 500, '', 'active', artifact_location || '/' || {_RUN} || '/artifacts', experiment_id
            FROM {run} JOIN experiments ON name = 'team ' || (1 + run % {EXPERIMENTS})""",
        f"""INSERT INTO params (key, value, run_uuid)
            SELECT 'param-' || param, md5(run || ' ' || param), {_RUN} FROM {run}, {_each("param", PARAMS)}""",
        f"""INSERT INTO tags (key, value, run_uuid)
            SELECT 'tag-' || tag, md5(tag || ' ' || run), {_RUN} FROM {run}, {_each("tag", TAGS)}""",
        f"""INSERT INTO metrics (key, value, timestamp, run_uuid, step, is_nan)
            SELECT {_VALUES} FROM {run}, {metric}, {_each("step", STEPS)}""",
        f"""INSERT INTO latest_metrics (key, value, timestamp, run_uuid, step, is_nan)
            SELECT {_VALUES} FROM {run}, {metric}, {_LAST}""",
        "ANALYZE",
    ]


def runs(quick: bool) -> int:
    """Number of runs in a quick run and in a full one."""
    return QUICK_RUNS if quick else FULL_RUNS
