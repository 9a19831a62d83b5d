"""What all commands share: the app, the consoles, the common options, and how an error is said."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, ParamSpec, TypeVar

import typer
from rich.console import Console

from labelloop.errors import LabelloopError

app = typer.Typer(
    help="Label-in-the-loop active learning for Label Studio.", no_args_is_help=True, rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)  # fmt: skip
out, err = Console(), Console(stderr=True)
P = ParamSpec("P")
R = TypeVar("R")

StateDir = Annotated[Path, typer.Option(help="Where the embedded stack keeps its data, logs and secrets.")]
ProjectName = Annotated[str | None, typer.Option("--project", help="Title, key or id; needed where there are several.")]
Images = Annotated[
    Path | None,
    typer.Option(help="Class folders (DIR/cat/1.jpg), or images right in DIR with a labels.csv or --classes."),
]
Labels = Annotated[Path | None, typer.Option("--labels", help="CSV with the columns file,label; else DIR/labels.csv.")]
Classes = Annotated[str, typer.Option(help="Class names, separated by commas, where neither folders nor labels tell.")]
ConfigFile = Annotated[Path | None, typer.Option(help="A project's YAML, e.g. configs/intel_scenes.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON on standard output, for machines.")]
DEFAULT_STATE = Path(".labelloop")


def group(name: str, what: str, *, theme: str | None = None) -> typer.Typer:
    """A command with commands of its own, e.g. `labelloop run show`; ``theme``: its heading in --help."""
    made = typer.Typer(help=what, no_args_is_help=True, pretty_exceptions_enable=False)
    app.add_typer(made, name=name, rich_help_panel=theme or name)
    return made


def alone(context: typer.Context) -> bool:
    """Whether a group was called without one of its commands. Options in front of one would be lost in silence."""
    if context.invoked_subcommand is None:
        return True
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"put {option.opts[0]} behind `{context.invoked_subcommand}`, which would not see it here"
            )
    return False


def command(function: Callable[P, R], *, to: typer.Typer = app, name: str | None = None) -> Callable[P, R]:
    """Register; an expected error becomes one plain message and exit code 1."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        from labelloop.logs import configure_logs

        configure_logs(json=False)  # to standard error: what a command prints may be JSON for a machine
        try:
            return function(*args, **kwargs)
        except LabelloopError as error:
            err.print(f"[red]labelloop:[/red] {error}", highlight=False)
            raise typer.Exit(1) from error

    theme = function.__module__.rpartition(".")[2] if to is app else None  # its heading in --help
    to.command(name, rich_help_panel=theme)(guarded)
    return guarded


def names(text: str) -> tuple[str, ...]:
    """The words of a list that is separated by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
