"""The command line: a function a command. Exit code 0 is fine, 1 a finding, 2 a usage error or nothing to ask."""

import asyncio
import os
import secrets
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
import yaml

from mlflow_operator import __version__, api
from mlflow_operator import render as desired
from mlflow_operator.api.crd import as_yaml
from mlflow_operator.kube.objects import Object
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images

if TYPE_CHECKING:
    from mlflow_operator.doctor.operators import Deployed


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MLFLOW_OPERATOR"}
)
@click.version_option(__version__)
def main() -> None:
    """Run MLflow tracking servers on Kubernetes."""


@main.command()
def crd() -> None:
    """Print the CustomResourceDefinition of MLflowServer as YAML.

    Install it with `mlflow-operator crd | kubectl apply --server-side -f -`.
    """
    click.echo(as_yaml(), nl=False)


@main.command()
@click.option(
    "--namespace", "namespaces", multiple=True, help="Watch this namespace only; may be repeated. [all]"
)
@click.option(
    "--image-mlflow", default=Images.mlflow, show_default=True, help="Repository of MLflow's image."
)
@click.option(
    "--image-postgres", default=Images.postgres, show_default=True, help="Image of the embedded database."
)
@click.option("--image-minio", default=Images.minio, show_default=True, help="Image of the embedded MinIO.")
@click.option(
    "--image-seaweedfs", default=Images.seaweedfs, show_default=True, help="Image of the embedded SeaweedFS."
)
@click.option(
    "--cluster-domain", default="cluster.local", show_default=True, help="The cluster's DNS domain."
)
@click.option(
    "--lease-namespace", help="Where the Lease is kept that elects a leader. [the pod's own namespace]"
)
@click.option("--lease-name", default="mlflow-operator", show_default=True, help="Name of that Lease.")
@click.option("--port", default=8080, show_default=True, help="Serves /healthz, /readyz and /metrics.")
@click.option(
    "--log-level", type=click.Choice(["debug", "info", "warning", "error"]), default="info", show_default=True
)
@click.option("--log-format", type=click.Choice(["json", "text"]), default="json", show_default=True)
def run(  # noqa: PLR0913, PLR0917 - one parameter an option
    namespaces: tuple[str, ...],
    image_mlflow: str,
    image_postgres: str,
    image_minio: str,
    image_seaweedfs: str,
    cluster_domain: str,
    lease_namespace: str | None,
    lease_name: str,
    port: int,
    log_level: str,
    log_format: str,
) -> None:
    """Watch MLflowServers and make them so.

    Runs in a cluster with the service account's rights, elsewhere with KUBECONFIG's.
    """
    # imported here, so that the other commands start fast and without the cluster's libraries
    from mlflow_operator.kube.leader_election import LeaseLost  # noqa: PLC0415
    from mlflow_operator.runtime import logging as logs  # noqa: PLC0415
    from mlflow_operator.runtime.run import Settings  # noqa: PLC0415
    from mlflow_operator.runtime.run import run as work  # noqa: PLC0415
    from mlflow_operator.runtime.watch import WatchLost  # noqa: PLC0415

    logs.setup(log_level.upper(), plain=log_format == "text")
    settings = Settings(
        namespaces,
        Images(image_mlflow, image_postgres, image_minio, image_seaweedfs),
        cluster_domain,
        lease_namespace or _own_namespace(),
        lease_name,
        port,
    )
    try:
        asyncio.run(work(settings))
    except LeaseLost:
        # threads of a call under way must not keep us alive: another may be leading already
        os._exit(1)
    except WatchLost:
        sys.exit(1)


@main.command()
@click.option(
    "--namespace", "namespaces", multiple=True, help="Only servers in this one; may be repeated. [all]"
)
@click.option(
    "--operator", help="The operator's Deployment, as NAMESPACE/NAME: it is stopped first. [stopped already]"
)
def remove_finalizers(namespaces: tuple[str, ...], operator: str | None) -> None:
    """Take the operator's finalizers off every server, before it is uninstalled.

    Servers with `deletionPolicy: Delete` are then as with Retain: none of their data is deleted with them. The chart
    does this by itself; without Helm, run it as the last thing before the operator is deleted.
    """
    from mlflow_operator.components.deletion.uninstall import Deployed, remove_all_finalizers  # noqa: PLC0415
    from mlflow_operator.kube.client import ClusterError, KubernetesClient  # noqa: PLC0415
    from mlflow_operator.runtime import logging as logs  # noqa: PLC0415
    from mlflow_operator.status.metrics import Metrics  # noqa: PLC0415

    logs.setup("WARNING", plain=True)
    place, slash, name = (operator or "").partition("/")
    if operator and not (place and slash and name):
        raise click.BadParameter("write NAMESPACE/NAME", param_hint="--operator")

    async def work() -> None:
        cluster = await KubernetesClient.connect(Metrics())
        try:
            await remove_all_finalizers(
                cluster, namespaces, Deployed(place, name) if operator else None, click.echo
            )
        finally:
            await cluster.close()

    try:
        asyncio.run(work())
    except ClusterError as error:
        raise click.ClickException(f"{error}. Run it again; what is let go already stays so.") from None


@main.command()
@click.option(
    "-f", "--filename", type=click.File("r"), required=True, help="File with MLflowServers; - for stdin."
)
@click.option("-n", "--namespace", default="default", show_default=True, help="For resources that name none.")
@click.option("--with-secrets", is_flag=True, help="Also print the Secrets, with freshly generated values.")
@click.option(
    "--cluster-domain", default="cluster.local", show_default=True, help="The cluster's DNS domain."
)
def render(filename: TextIO, namespace: str, with_secrets: bool, cluster_domain: str) -> None:
    """Print the objects that the operator would make, without a cluster.

    Values that only the cluster knows (node ports, passwords in Secrets of yours) are placeholders.
    """
    documents = _servers(filename)
    around = ClusterDefaults(Images(), cluster_domain)
    printed: list[Object] = []
    for document in documents:
        document["metadata"].setdefault("namespace", namespace)
        try:
            server = resolve(api.parse(document), around)
        except api.InvalidResource as error:
            raise _refusal(
                filename, f"{document['metadata'].get('name', 'an MLflowServer')}: {error}"
            ) from None
        if with_secrets:
            printed += desired.secrets(server, _generated())
        printed += desired.objects(server)
    click.echo(yaml.dump_all(printed, Dumper=_Plain, sort_keys=False, width=110), nl=False)
    if not with_secrets:
        click.echo("Secrets are left out; --with-secrets prints them, too, with fresh values.", err=True)


@main.command()
@click.argument("name", required=False, default="")
@click.option(
    "-n", "--namespace", "namespaces", multiple=True, help="Servers in this one only; may be repeated. [all]"
)
@click.option("--operator", help="The operator's Deployment, as NAMESPACE/NAME. [found by its labels]")
@click.option("--kubeconfig", help="As for kubectl. [KUBECONFIG, else ~/.kube/config; in a pod its account]")
@click.option("--context", help="Of the kubeconfig. [its current one]")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(  # noqa: PLR0913, PLR0917 - one parameter an option
    name: str,
    namespaces: tuple[str, ...],
    operator: str | None,
    kubeconfig: str | None,
    context: str | None,
    output: str,
) -> None:
    """Look at the operator and its servers, or at the server NAME, and say what is wrong and what to do.

    Changes nothing and reads no Secret. Exit code 0: all is well. 1: something is at fault, or not there yet. 2: it
    could not be asked. What could not be looked at with your rights is listed, and does not count.
    """
    from mlflow_operator.doctor import report  # noqa: PLC0415
    from mlflow_operator.doctor.checks import findings  # noqa: PLC0415
    from mlflow_operator.doctor.connect import CouldNotAsk  # noqa: PLC0415
    from mlflow_operator.doctor.finding import COULD_NOT_ASK, exit_code  # noqa: PLC0415
    from mlflow_operator.doctor.look import Wanted, look  # noqa: PLC0415

    wanted = Wanted(namespaces, name, _deployment(operator), kubeconfig, context)
    try:
        seen = asyncio.run(look(wanted))
    except CouldNotAsk as error:
        if output == "json":
            click.echo(report.failure_as_json(__version__, str(error)), nl=False)
        click.echo(f"Error: {error}", err=True)
        sys.exit(COULD_NOT_ASK)
    found = findings(seen)
    if output == "json":
        click.echo(report.as_json(seen.version, seen.here, found), nl=False)
    else:
        click.echo(report.table(seen.here, found, shutil.get_terminal_size((110, 24)).columns), nl=False)
    sys.exit(exit_code(found))


@main.command(hidden=True)
@click.argument("urls", nargs=-1)
def answers(urls: tuple[str, ...]) -> None:
    """Ask servers' URLs from here and print how they answered: what doctor runs in the operator's pod."""
    from mlflow_operator.doctor import reach  # noqa: PLC0415

    click.echo(reach.as_json(asyncio.run(reach.ask(urls))))


def _deployment(written: str | None) -> "Deployed | None":
    from mlflow_operator.doctor.operators import Deployed  # noqa: PLC0415

    if not written:
        return None
    namespace, slash, name = written.partition("/")
    if not (namespace and slash and name):
        raise click.BadParameter("write NAMESPACE/NAME", param_hint="--operator")
    return Deployed(namespace, name)


def _own_namespace() -> str:
    mounted = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return mounted.read_text().strip() if mounted.exists() else "default"


class _Plain(yaml.SafeDumper):
    """YAML as people write it: nothing is said by reference."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _servers(file: TextIO) -> list[Object]:
    try:
        documents = [document for document in yaml.safe_load_all(file) if document]
    except yaml.YAMLError as error:
        raise _refusal(file, f"is no YAML: {error}") from None
    found = [d for d in documents if isinstance(d, dict) and d.get("kind") == api.KIND]
    if not found:
        raise _refusal(file, f"holds no {api.KIND} (apiVersion: {api.API_VERSION}, kind: {api.KIND}).")
    for document in found:
        if not isinstance(document.get("metadata"), dict):
            raise _refusal(file, f"holds an {api.KIND} without metadata. Add metadata.name.")
    return found


def _refusal(file: TextIO, why: str) -> click.ClickException:
    return click.ClickException(f"{file.name} {why}")


def _generated() -> desired.Generated:
    word = secrets.token_urlsafe
    return desired.Generated("DATABASE-USER", word(24), word(15), word(30), word(24))


if __name__ == "__main__":
    main()
