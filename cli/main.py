"""The `labelloop` command: every verb lives in `cli.commands`, one module per theme."""

from __future__ import annotations

from cli.commands import (
    acquisition,
    curve,
    data,
    doctor,
    exports,
    keys,
    learning,
    models,
    predict,
    projects,
    queue,
    runs,
    schema,
    simulate,
    snapshots,
    stack,
    tune,
    upkeep,
    value,
)
from cli.terminal.app import app

# importing them registers their verbs
COMMANDS = (
    stack, value, doctor, projects, models, predict, exports, curve, tune, runs, snapshots, queue, learning,
    acquisition, data, schema, simulate, keys, upkeep,
)  # fmt: skip

__all__ = ["COMMANDS", "app"]

if __name__ == "__main__":
    app()
