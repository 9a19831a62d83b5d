"""What all commands share: the app, the consoles, the common options, and how an error is said."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
from rich.text import Text
from typer.core import TyperGroup

from cli.terminal.edge import in_words
from cli.terminal.screen import Screen, end_output
from embedded import state
from labelloop.errors import SettingsError

THEMES: Mapping[str, Sequence[str]] = {  # headings of --help with their verbs, in its order
    "The loop": ("up", "status", "down", "init", "forget", "sync", "doctor", "rotate", "simulate"),
    "What to label next, and when to stop": ("curve", "replay"),
    "Labels and people": ("value", "schema", "duplicates", "auto-label", "export", "snapshots"),
    "Models": (
        "predict",
        "models",
        "card",
        "report",
        "verify",
        "export-model",
        "promote",
        "reject",
        "rollback",
        "retrain",
    ),
    "Training": ("tune", "compare", "lr-find", "runs", "run"),
    "Upkeep": ("queue", "pause", "resume", "keys", "gc", "backup", "restore"),
}


class Themed(TyperGroup):
    """Lists the verbs as `THEMES` has them: registration is in the order of module names."""

    def list_commands(self, ctx: typer.Context) -> list[str]:  # type: ignore[override]
        """Verbs in the order of --help."""
        order = [verb for verbs in THEMES.values() for verb in verbs]
        return sorted(super().list_commands(ctx), key=order.index)

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]
        """Also what goes wrong before a command begins, while its words are read, is said in words."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            message = in_words(error)
            if message is None:
                raise
            fail(message)
            raise typer.Exit(1) from error


app = typer.Typer(
    cls=Themed, help="Label-in-the-loop active learning for Label Studio.", no_args_is_help=True,
    rich_markup_mode="rich", pretty_exceptions_enable=False,
)  # fmt: skip
out, err = Screen(), Screen(stderr=True)
P = ParamSpec("P")
R = TypeVar("R")

StateDir = Annotated[Path, typer.Option(help="Where the embedded stack keeps its data, logs and secrets.")]
ProjectName = Annotated[str | None, typer.Option("--project", help="Title, key or id; needed if there are several.")]
Images = Annotated[
    Path | None,
    typer.Option(help="Class folders (DIR/cat/1.jpg), or any folders with a DIR/labels.csv or --classes."),
]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="CSV with the columns file,label. Default: DIR/labels.csv.")
]
Classes = Annotated[
    str, typer.Option(help="Class names, separated by commas, if neither folders nor labels give them.")
]
ConfigFile = Annotated[Path | None, typer.Option(help="A project's YAML, e.g. configs/intel_scenes.yaml.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
DEFAULT_STATE = state.DEFAULT_STATE
INTERRUPTED = 130  # what a shell expects after Ctrl-C


def group(name: str, what: str) -> typer.Typer:
    """A command with commands of its own, e.g. `labelloop run show`."""
    commands = typer.Typer(help=what, no_args_is_help=True, pretty_exceptions_enable=False)
    app.add_typer(commands, name=name, rich_help_panel=_theme_of(name))
    return commands


def _theme_of(verb: str) -> str:
    return next(theme for theme, verbs in THEMES.items() if verb in verbs)


def alone(context: typer.Context) -> bool:
    """Whether a group was called without one of its commands. Options in front of one would be lost in silence."""
    if context.invoked_subcommand is None:
        return True
    for option in context.command.params:
        source = context.get_parameter_source(option.name or "")
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(
                f"put {option.opts[0]} after `{context.invoked_subcommand}`: it has no effect here"
            )
    return False


def command(function: Callable[P, R], *, to: typer.Typer = app, name: str | None = None) -> Callable[P, R]:
    """Register; whatever goes wrong becomes one plain message and exit code 1. Nobody ever sees a stack."""

    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        from labelloop.logs import configure_logs

        configure_logs(json=False)  # to standard error: what a command prints may be JSON for a machine
        try:
            return _printed(function, *args, **kwargs)
        except KeyboardInterrupt as error:
            fail("stopped")
            raise typer.Exit(INTERRUPTED) from error
        except Exception as error:  # the edge of the process
            message = in_words(error)
            if message is None:
                raise
            fail(message)
            raise typer.Exit(1) from error

    theme = _theme_of(name or function.__name__.replace("_", "-")) if to is app else None
    to.command(name, rich_help_panel=theme)(guarded)
    return guarded


def _printed(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    """A full disk or a closed pipe shows here, and not when nobody listens any more."""
    try:
        answer = function(*args, **kwargs)
    except typer.Exit:  # it has printed all that it had to say
        end_output()
        raise
    end_output()
    return answer


def fail(message: str) -> None:
    """Say on standard error why the command ends."""
    err.print(Text.assemble(("labelloop: ", "red"), message), highlight=False, soft_wrap=not err.is_terminal)
    with suppress(OSError):  # what cannot be written was perhaps the reason
        end_output()


def agree(what: str, otherwise: str) -> None:
    """Ask a person; SettingsError, which says what to do ``otherwise``, where nobody can be asked."""
    if sys.stdin is None or not sys.stdin.isatty():
        raise SettingsError(f"{what}. No terminal to ask on: {otherwise}")
    err.print(what, highlight=False)
    typer.confirm("Do this?", abort=True, err=True)


@contextmanager
def goes_on(what: str, cancel: str) -> Iterator[None]:
    """While a command only watches what it has queued: Ctrl-C ends the command and says that the work goes on."""
    try:
        yield
    except KeyboardInterrupt as error:
        err.print(f"{what} continues in the background; {cancel}", highlight=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from error


def names(text: str) -> tuple[str, ...]:
    """The words of a list that is separated by commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
