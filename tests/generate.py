"""Writes what is made from the sources: the CRD, the chart's copy of it, and the chart rendered.

    python -m tests.generate           write them
    python -m tests.generate --check   write nothing; exit 1 and name what is stale

`manifests/operator.yaml` holds no CRD, so that deleting what it made does not delete every server with it.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from mlflow_operator.api.crd import as_yaml
from tests.cluster.settings import ROOT, load

CHART = ROOT / "charts" / "mlflow-operator"
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
    program = shutil.which("helm", path=f"{load().bin}{os.pathsep}{os.environ.get('PATH', '')}")
    if program is None:
        raise Failed("There is no helm. `make generate` and `make chart` bring one.")
    done = subprocess.run([program, *args], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(done.stderr.strip())
    return done.stdout


def generated() -> Mapping[Path, str]:
    """Every generated file, and what it should say."""
    crd = as_yaml()
    return {
        ROOT / "manifests" / "crd.yaml": crd,
        CHART / "files" / "crd.yaml": crd,
        ROOT / "manifests" / "operator.yaml": _operator(),
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
        wanted = generated()
    except Failed as error:
        print(error, file=sys.stderr)
        return 1
    old = stale(wanted)
    for path in old:
        name = path.relative_to(ROOT)
        if check:
            print(f"{name} is stale. Run `make generate` and commit what it writes.", file=sys.stderr)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(wanted[path])
            print(f"wrote {name}")
    return 1 if check and old else 0


def _operator() -> str:
    rendered = helm(
        "template",
        NAMESPACE,
        str(CHART),
        f"--namespace={NAMESPACE}",
        # A helm that its makers did not build believes in a Kubernetes that is too old for the chart.
        f"--kube-version={load().pins['KUBERNETES']}",
        "--set=crds.install=false",
    )
    return _HEAD + rendered


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
