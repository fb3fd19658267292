"""Command line interface, one function per command.

Exit codes: 0 success, 1 a problem was found, 2 usage error or the cluster cannot be read.
"""

import asyncio
import os
import re
import secrets
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click
import yaml

from mlflow_operator import __version__, api, render_platforms
from mlflow_operator import render as manifests
from mlflow_operator.api import mlflowplatform
from mlflow_operator.api.crd import as_yaml, unknown_fields
from mlflow_operator.kube.no_proxy import exempt_cluster
from mlflow_operator.kube.objects import Object
from mlflow_operator.model import provisioning
from mlflow_operator.model.resolve import ClusterDefaults, resolve
from mlflow_operator.model.versions import Images
from mlflow_operator.status.errors import ConfigurationError

if TYPE_CHECKING:
    from mlflow_operator.doctor.operators import DeploymentRef

_DEFAULT_CLUSTER_DOMAIN = "cluster.local"


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "MLFLOW_OPERATOR"}
)
@click.version_option(__version__)
def main() -> None:
    """Run MLflow tracking servers on Kubernetes."""
    exempt_cluster(os.environ, _DEFAULT_CLUSTER_DOMAIN)


@main.command()
def crd() -> None:
    """Print the CRDs of MLflowServer and MLflowPlatform as YAML.

    Install the CustomResourceDefinitions with `mlflow-operator crd | kubectl apply --server-side -f -`.
    """
    click.echo(as_yaml(), nl=False)


@main.command()
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    show_default="all namespaces",
    help="Namespace to watch. Can be repeated.",
)
@click.option(
    "--image-mlflow",
    default=Images.mlflow,
    show_default=True,
    help="Repository of the MLflow image, without a tag.",
)
@click.option(
    "--image-mlflow-digest",
    "image_mlflow_digests",
    multiple=True,
    metavar="VERSION=DIGEST",
    callback=lambda _context, _option, pairs: tuple(map(_version_digest, pairs)),
    help="Digest of the MLflow image of a version, such as 3.17.2=sha256:... Can be repeated.",
)
@click.option(
    "--image-postgres",
    default=Images.postgres,
    show_default=True,
    help="Image of the embedded PostgreSQL database.",
)
@click.option(
    "--image-minio", default=Images.minio, show_default=True, help="Image of the embedded MinIO server."
)
@click.option(
    "--image-seaweedfs",
    default=Images.seaweedfs,
    show_default=True,
    help="Image of the embedded SeaweedFS server.",
)
@click.option(
    "--cluster-domain", default=_DEFAULT_CLUSTER_DOMAIN, show_default=True, help="The cluster's DNS domain."
)
@click.option(
    "--lease-namespace",
    show_default="namespace of the pod",
    help="Namespace of the Lease for leader election.",
)
@click.option(
    "--lease-name",
    default="mlflow-operator",
    show_default=True,
    help="Name of the Lease for leader election.",
)
@click.option("--port", default=8080, show_default=True, help="Port of /healthz, /readyz and /metrics.")
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    help="Minimum severity of log messages.",
)
@click.option(
    "--log-format",
    type=click.Choice(["json", "text"]),
    default="json",
    show_default=True,
    help="Format of log messages.",
)
def run(  # noqa: PLR0913, PLR0917 - one parameter per option
    namespaces: tuple[str, ...],
    image_mlflow: str,
    image_mlflow_digests: tuple[tuple[str, str], ...],
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
    """Watch and reconcile MLflowServers.

    Uses the pod's ServiceAccount in a cluster, and KUBECONFIG elsewhere.
    """
    # Imported here, so that the other commands start fast and without the Kubernetes libraries.
    from mlflow_operator.kube.leader_election import LeaseLost  # noqa: PLC0415
    from mlflow_operator.runtime import logging  # noqa: PLC0415
    from mlflow_operator.runtime.run import Settings  # noqa: PLC0415
    from mlflow_operator.runtime.run import run as run_operator  # noqa: PLC0415
    from mlflow_operator.runtime.watch import WatchLost  # noqa: PLC0415

    logging.setup(log_level.upper(), text=log_format == "text")
    exempt_cluster(os.environ, cluster_domain)
    settings = Settings(
        namespaces,
        Images(image_mlflow, image_postgres, image_minio, image_seaweedfs, image_mlflow_digests),
        cluster_domain,
        lease_namespace or _own_namespace(),
        lease_name,
        port,
    )
    try:
        asyncio.run(run_operator(settings))
    except LeaseLost:
        # Exit at once, without waiting for threads: another replica may already be the leader.
        os._exit(1)
    except WatchLost:
        sys.exit(1)


@main.command()
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    show_default="all namespaces",
    help="Namespace of the MLflowServers. Can be repeated.",
)
@click.option(
    "--operator",
    metavar="NAMESPACE/NAME",
    help="Deployment of the operator, which is scaled to 0 first. If not given, the operator must not be running.",
)
def remove_finalizers(namespaces: tuple[str, ...], operator: str | None) -> None:
    """Remove finalizers from all MLflowServers and MLflowPlatforms.

    Removes the finalizers of the operator, so that deletions do not wait for an operator that no longer runs. Run this
    command before you uninstall the operator without Helm. The Helm chart runs it automatically.
    Afterwards, `deletionPolicy: Delete` has no effect: the data of deleted MLflowServers is retained. MLflowPlatforms
    are deleted although MLflowServers use them. With --namespace, they keep their finalizer.
    """
    from mlflow_operator.components.deletion.uninstall import OperatorDeployment, remove_all_finalizers  # noqa: PLC0415
    from mlflow_operator.kube.client import ClusterError, KubernetesClient  # noqa: PLC0415
    from mlflow_operator.runtime import logging  # noqa: PLC0415
    from mlflow_operator.status.metrics import Metrics  # noqa: PLC0415

    logging.setup("WARNING", text=True)
    namespace, slash, name = (operator or "").partition("/")
    if operator and not (namespace and slash and name):
        raise click.BadParameter("must be NAMESPACE/NAME", param_hint="--operator")

    async def remove() -> None:
        cluster = await KubernetesClient.connect(Metrics())
        try:
            await remove_all_finalizers(
                cluster, namespaces, OperatorDeployment(namespace, name) if operator else None, click.echo
            )
        finally:
            await cluster.close()

    try:
        asyncio.run(remove())
    except ClusterError as error:
        raise click.ClickException(f"{error}. Run the command again to continue.") from None


@main.command()
@click.option(
    "-f",
    "--filename",
    type=click.File("r"),
    required=True,
    help="File that contains the MLflowServers, or - for stdin.",
)
@click.option(
    "-n",
    "--namespace",
    default="default",
    show_default=True,
    help="Namespace of MLflowServers that do not specify one.",
)
@click.option(
    "--platform",
    "platform_files",
    type=click.File("r"),
    multiple=True,
    help="File that contains MLflowPlatforms that the MLflowServers can use, and Namespaces. Can be repeated.",
)
@click.option("--with-secrets", is_flag=True, help="Also print the Secrets, with newly generated values.")
@click.option(
    "--cluster-domain", default=_DEFAULT_CLUSTER_DOMAIN, show_default=True, help="The cluster's DNS domain."
)
def render(
    filename: TextIO,
    namespace: str,
    platform_files: tuple[TextIO, ...],
    with_secrets: bool,
    cluster_domain: str,
) -> None:
    """Print the objects the operator would create.

    Does not connect to a cluster. Placeholders replace values that exist only in the cluster, such as node ports,
    passwords in your Secrets and CA certificates of a platform.

    MLflowPlatforms are read from FILENAME and from --platform, for example from the output of `kubectl get
    mlflowplatforms,namespaces -o yaml`. A new MLflowServer uses the same one as in a cluster and takes its
    serverDefaults. If there is no manifest of its Namespace, the namespaceSelector of the platform is assumed to select
    it, and a note on stderr says so. A violation of a policy is an error; serversPerNamespace is not checked, and for
    default images there is a note.
    """
    documents = _read_documents(filename)
    servers = _servers(filename, documents)
    platforms = _platforms(documents, platform_files)
    defaults = ClusterDefaults(Images(), cluster_domain)
    objects: list[Object] = []
    for document in servers:
        document["metadata"].setdefault("namespace", namespace)
        unknown = unknown_fields(document)
        if unknown:
            name = document["metadata"].get("name", "an MLflowServer")
            raise _input_error(
                filename, f"{name}: unknown field {', '.join(unknown)}. Correct the name or remove it."
            )
        try:
            parsed = api.parse(document)
            recorded_defaults = (document.get("status") or {}).get("platformDefaults") or {}
            choice = platforms.choose(parsed, recorded_defaults)
            version = choice.version or defaults.default_version
            server = resolve(choice.server, replace(defaults, default_version=version), choice.use)
            provisioning.check_limit(server)
        except (api.InvalidResource, ConfigurationError) as error:
            raise _input_error(
                filename, f"{document['metadata'].get('name', 'an MLflowServer')}: {error}"
            ) from None
        for note in choice.notes:
            click.echo(f"{server.owner}: {note}", err=True)
        if with_secrets:
            objects += manifests.secrets(server, _generate_values())
        objects += manifests.objects(server)
    click.echo(manifests.as_yaml(objects), nl=False)
    if not with_secrets:
        click.echo(
            "Secrets are omitted. Use --with-secrets to print them with newly generated values.", err=True
        )


@main.command()
@click.argument("name", required=False, default="")
@click.option(
    "-n",
    "--namespace",
    "namespaces",
    multiple=True,
    show_default="all namespaces",
    help="Namespace of the MLflowServers. Can be repeated.",
)
@click.option(
    "--operator",
    metavar="NAMESPACE/NAME",
    show_default="found by its labels",
    help="Deployment of the operator.",
)
@click.option(
    "--kubeconfig",
    show_default="KUBECONFIG or ~/.kube/config; in a pod, its ServiceAccount",
    help="Path to the kubeconfig file.",
)
@click.option("--context", show_default="current context", help="Name of the kubeconfig context to use.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Output format.",
)
def doctor(  # noqa: PLR0913, PLR0917 - one parameter per option
    name: str,
    namespaces: tuple[str, ...],
    operator: str | None,
    kubeconfig: str | None,
    context: str | None,
    output: str,
) -> None:
    """Check the operator, its MLflowServers and MLflowPlatforms.

    Prints how to fix each problem. If NAME is given, only the MLflowServer of this name and the MLflowPlatform that it
    uses are checked, with --namespace those of the namespace.

    Does not change any object and does not read Secrets. Checks that your permissions do not allow are listed and
    do not affect the exit code. Exit codes: 0 no problems, 1 problems found or objects not ready yet, 2 the
    installation cannot be checked: no connection, no permission, or the requested object does not exist.
    """
    from mlflow_operator.doctor import report  # noqa: PLC0415
    from mlflow_operator.doctor.checks import findings  # noqa: PLC0415
    from mlflow_operator.doctor.collect import Options, observe  # noqa: PLC0415
    from mlflow_operator.doctor.connect import DoctorError  # noqa: PLC0415
    from mlflow_operator.doctor.finding import EXIT_ERROR, exit_code  # noqa: PLC0415

    options = Options(namespaces, name, _deployment(operator), kubeconfig, context)
    try:
        observed = asyncio.run(observe(options))
    except DoctorError as error:
        if output == "json":
            click.echo(report.error_as_json(__version__, str(error)), nl=False)
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_ERROR)
    results = findings(observed)
    if output == "json":
        click.echo(report.as_json(observed.version, observed.header, results), nl=False)
    else:
        click.echo(
            report.table(observed.header, results, shutil.get_terminal_size((110, 24)).columns), nl=False
        )
    sys.exit(exit_code(results))


@main.command(hidden=True)
@click.argument("urls", nargs=-1)
def probe_urls(urls: tuple[str, ...]) -> None:
    """Send a request to each server URL and print the results. `doctor` runs this command in the operator's pod."""
    from mlflow_operator.doctor import url_probe  # noqa: PLC0415

    click.echo(url_probe.as_json(asyncio.run(url_probe.probe_urls(urls))))


def _deployment(argument: str | None) -> "DeploymentRef | None":
    from mlflow_operator.doctor.operators import DeploymentRef  # noqa: PLC0415

    if not argument:
        return None
    namespace, slash, name = argument.partition("/")
    if not (namespace and slash and name):
        raise click.BadParameter("must be NAMESPACE/NAME", param_hint="--operator")
    return DeploymentRef(namespace, name)


def _version_digest(pair: str) -> tuple[str, str]:
    version, _, digest = pair.partition("=")
    if not version or not re.fullmatch("sha256:[0-9a-f]{64}", digest):
        raise click.BadParameter(
            f"{pair} is not a version and a digest such as 3.17.2=sha256:<64 hexadecimal digits>"
        )
    return version, digest


def _own_namespace() -> str:
    path = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
    return path.read_text().strip() if path.exists() else "default"


def _read_documents(file: TextIO) -> list[Object]:
    """Return the objects in a file, with those in lists, as `kubectl get -o yaml` prints them."""
    try:
        documents = [document for document in yaml.safe_load_all(file) if isinstance(document, dict)]
    except yaml.YAMLError as error:
        raise _input_error(file, f"is not valid YAML: {error}") from None
    lists = [
        document.get("items") if document.get("kind") == "List" else [document] for document in documents
    ]
    return [item for items in lists if isinstance(items, list) for item in items if isinstance(item, dict)]


def _servers(file: TextIO, documents: list[Object]) -> list[Object]:
    servers = [document for document in documents if document.get("kind") == api.KIND]
    if not servers:
        raise _input_error(file, f"contains no {api.KIND} (apiVersion: {api.API_VERSION}, kind: {api.KIND}).")
    for server in servers:
        if not isinstance(server.get("metadata"), dict):
            raise _input_error(file, f"contains an {api.KIND} without metadata. Add metadata.name.")
    return servers


def _platforms(documents: list[Object], platform_files: tuple[TextIO, ...]) -> render_platforms.Input:
    """Return the platforms in the file of the servers, whose objects are `documents`, and in those of --platform."""
    documents = [*documents]
    for file in platform_files:
        added = _read_documents(file)
        if not any(document.get("kind") in {mlflowplatform.KIND, "Namespace"} for document in added):
            kind = mlflowplatform.KIND
            raise _input_error(file, f"contains no {kind} (apiVersion: {api.API_VERSION}, kind: {kind}).")
        documents += added
    try:
        return render_platforms.read(documents)
    except api.InvalidResource as error:
        raise click.ClickException(str(error)) from None


def _input_error(file: TextIO, message: str) -> click.ClickException:
    return click.ClickException(f"{file.name} {message}")


def _generate_values() -> manifests.GeneratedValues:
    token = secrets.token_urlsafe
    return manifests.GeneratedValues(
        "DATABASE-USER", token(24), token(15), token(30), token(24), token(24), token(24)
    )


if __name__ == "__main__":
    main()
