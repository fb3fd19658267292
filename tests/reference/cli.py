"""docs/reference/cli.md: the commands and options of `mlflow-operator`, from click."""

import inspect

import click

from mlflow_operator.cli import main
from tests.reference.markdown import NOTICE, code, table

_INTRODUCTION = f"""\
# Command-line reference

{NOTICE}

The operator's image contains the command `mlflow-operator`. `kubectl exec -n mlflow-operator deploy/mlflow-operator --
mlflow-operator doctor` runs it in the operator's pod. Each option is also an environment variable, for example
`MLFLOW_OPERATOR_RUN_LOG_LEVEL` for `mlflow-operator run --log-level`.
"""


def page() -> str:
    """Return the page."""
    context = click.Context(main, info_name="mlflow-operator")
    commands = [command for _, command in sorted(main.commands.items()) if not command.hidden]
    return "\n".join([_INTRODUCTION, *(_command(command, context) for command in commands)])


def _command(command: click.Command, parent: click.Context) -> str:
    context = click.Context(command, info_name=command.name, parent=parent)
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    parts = [f"## {command.name}\n", f"```text\n{usage}\n```\n", f"{text}\n"]
    options = [option for option in command.params if isinstance(option, click.Option) and not option.hidden]
    if options:
        rows = [(_names(option), _default(option, context), option.help or "") for option in options]
        parts.append(table(("Option", "Default", "Description"), rows))
    return "\n".join(parts)


def _names(option: click.Option) -> str:
    value = "" if option.is_flag else f" {option.make_metavar(click.Context(main))}"
    return ", ".join(code(f"{name}{value}") for name in [*option.opts, *option.secondary_opts])


def _default(option: click.Option, context: click.Context) -> str:
    """What `--help` shows in brackets: a default value or its description, or that the option is required."""
    extra = option.get_help_extra(context)
    if "required" in extra:
        return "required"
    text = extra.get("default", "")
    return text.strip("()") if text.startswith("(") else code(text)
