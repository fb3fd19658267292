"""Results of checks, which are repeated once a minute at most.

Each write of a status causes another reconcile, and a platform that is changed often is reconciled often. Its stores
must not get a login each time.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mlflow_operator.status.conditions import Condition, ConditionType, false_condition, true_condition
from mlflow_operator.status.errors import ReconcileError

CHECK_INTERVAL_SECONDS = 60.0
"""Minimum number of seconds between two checks with the same inputs."""


@dataclass(frozen=True)
class _Result:
    inputs: object
    time: float
    condition: Condition


class Checks:
    """Runs checks of platforms and keeps their results. There is one instance per process."""

    def __init__(self) -> None:
        self._results: dict[str, dict[ConditionType, _Result]] = {}

    async def condition(
        self,
        platform: str,
        condition_type: ConditionType,
        inputs: object,
        check: Callable[[], Awaitable[str]],
    ) -> Condition:
        """Return the condition that `check` leads to.

        `check` returns the message of a True condition, or raises ReconcileError. It does not run if it ran within the
        last minute with equal `inputs`: host, user, password, everything that its result depends on besides the store.
        """
        results, now = self._results.setdefault(platform, {}), asyncio.get_running_loop().time()
        last = results.get(condition_type)
        if last and last.inputs == inputs and now - last.time < CHECK_INTERVAL_SECONDS:
            return last.condition
        try:
            condition = true_condition(condition_type, await check())
        except ReconcileError as error:
            condition = false_condition(condition_type, error.reason, error.message)
        results[condition_type] = _Result(inputs, now, condition)
        return condition

    def forget(self, platform: str) -> None:
        """Remove the results of a deleted platform."""
        self._results.pop(platform, None)
