"""Writes what is made from the sources: the CRD, what the charts take from it, their READMEs, and the operator's
chart rendered.

    python -m tests.generate           write them
    python -m tests.generate --check   write nothing; exit 1 and name what is stale

`manifests/operator.yaml` holds no CRD, so that deleting what it made does not delete every server with it.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Container, Mapping
from pathlib import Path

from mlflow_operator.api.crd import as_yaml
from tests import server_values
from tests.cluster.settings import ROOT, load

CHART = ROOT / "charts" / "mlflow-operator"
SERVER_CHART = ROOT / "charts" / "mlflow-server"
CHARTS = (CHART, SERVER_CHART)
NAMESPACE = "mlflow-operator"

_HEAD = f"""\
# Made by `make generate` from charts/mlflow-operator; change that. It needs the definition of MLflowServer:
#   kubectl apply -f crd.yaml -f operator.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    pod-security.kubernetes.io/enforce: restricted
"""


class Failed(Exception):  # noqa: N818 - a sentence for the user, not a fault of this program
    """It can't be done; the message says why and what to do."""


def helm(*args: str) -> str:
    """What helm prints. Failed: there is no helm, or it refuses; with its own words."""
    return tool("helm", *args)


def tool(name: str, *args: str, stdin: str = "", accept: Container[int] = (0,)) -> str:
    """What one of the charts' tools prints. Failed: it is not there, or its exit code is none of `accept`."""
    program = shutil.which(name, path=f"{load().bin}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise Failed(f"There is no {name}. `make generate` and `make chart` bring one.")
    done = subprocess.run([program, *args], input=stdin, capture_output=True, text=True, check=False)
    if done.returncode not in accept:
        raise Failed(f"{done.stderr}\n{done.stdout}".strip())
    return done.stdout


def generated() -> Mapping[Path, str]:
    """Every generated file, and what it should say."""
    crd = as_yaml()
    values = SERVER_CHART / "values.yaml"
    return {
        ROOT / "manifests" / "crd.yaml": crd,
        CHART / "files" / "crd.yaml": crd,
        ROOT / "manifests" / "operator.yaml": _operator(),
        SERVER_CHART / "values.schema.json": server_values.schema(),
        values: server_values.values(values.read_text()),
        **{chart / "README.md": _readme(chart) for chart in CHARTS},
    }


def stale(wanted: Mapping[Path, str]) -> list[Path]:
    """The files that do not say what they should, missing ones included."""
    return [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]


def main(argv: list[str]) -> int:
    """Write, or check. 0: all is fresh now; 1: something is stale, or could not be made."""
    parser = argparse.ArgumentParser(
        prog="tests.generate", description="Make the manifests from their sources."
    )
    parser.add_argument("--check", action="store_true", help="write nothing, fail if something is stale")
    check = parser.parse_args(argv).check
    try:
        old = stale(wanted := generated())
        if check:
            for path in old:
                print(
                    f"{path.relative_to(ROOT)} is stale. Run `make generate` and commit what it writes.",
                    file=sys.stderr,
                )
            return 1 if old else 0
        while old:
            _write(wanted, old)
            old = stale(wanted := generated())  # some of it is made from what was just written
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _write(wanted: Mapping[Path, str], paths: list[Path]) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[path])
        print(f"wrote {path.relative_to(ROOT)}")


def _readme(chart: Path) -> str:
    """What helm-docs makes of the chart's README.md.gotmpl and the comments in its values.yaml."""
    return tool(
        "helm-docs", f"--chart-search-root={chart}", "--dry-run", "--log-level=error", "--skip-version-footer"
    )


def _operator() -> str:
    rendered = helm(
        "template",
        NAMESPACE,
        str(CHART),
        f"--namespace={NAMESPACE}",
        # A helm that its makers did not build believes in a Kubernetes that is too old for the chart.
        f"--kube-version={load().pins['KUBERNETES']}",
        "--set=crds.install=false",
        # kubectl knows no hooks, and would carry them out at once
        "--no-hooks",
    )
    return _HEAD + rendered


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
