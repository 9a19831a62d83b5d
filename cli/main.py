"""The `labelloop` command: every verb lives in `cli.commands`, one module per theme."""

from __future__ import annotations

from cli.commands import models, projects, simulate, stack
from cli.commands.terminal import app

COMMANDS = (stack, projects, models, simulate)  # importing them registers their verbs, in the order of --help

__all__ = ["COMMANDS", "app"]

if __name__ == "__main__":
    app()
