"""The command `mlflow-operator doctor` with a recorded API server."""

import json
from dataclasses import dataclass
from pathlib import Path

from click.testing import CliRunner, Result

from mlflow_operator.cli import main
from tests.unit.doctor.recorded_api_server import RecordedAPIServer


@dataclass
class Doctor:
    """Run the command against a recorded API server."""

    api: RecordedAPIServer
    kubeconfig: Path

    def __call__(self, *args: str) -> Result:
        result = CliRunner().invoke(main, ["doctor", "--kubeconfig", str(self.kubeconfig), *args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert "Traceback" not in result.output
        return result

    def findings(self, *args: str, code: int = 0) -> dict[tuple[str, str], dict[str, str]]:
        """Return the findings by subject and check. The exit code must be `code`."""
        result = self(*args, "-o", "json")
        output = json.loads(result.stdout)
        assert (result.exit_code, output["exitCode"]) == (code, code), result.output
        return {(finding["subject"], finding["check"]): finding for finding in output["findings"]}

    def assert_reports(self, key: tuple[str, str], message: str, next_step: str) -> None:
        """Check that the finding `key` has failed, with these texts, and that the exit code says so."""
        findings = self.findings(code=1)
        assert findings[key]["state"] == "failed", findings
        assert message in findings[key]["message"]
        assert next_step in findings[key]["nextStep"]


OPERATOR, SERVER, CLUSTER = "operator mlflow-operator/mlflow-operator", "server team-a/tracking", "cluster"
