"""The command line: a function a command. Exit code 0 is fine, 1 a finding, 2 a usage error."""

import click

from mlflow_operator.api.crd import as_yaml


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-operator")
def main() -> None:
    """Run MLflow tracking servers on Kubernetes."""


@main.command()
def crd() -> None:
    """Print the CustomResourceDefinition of MLflowServer as YAML.

    Install it with `mlflow-operator crd | kubectl apply --server-side -f -`.
    """
    click.echo(as_yaml(), nl=False)


if __name__ == "__main__":
    main()
