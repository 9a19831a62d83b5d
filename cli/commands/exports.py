"""`export-model`: a version as a model file that runs without labelloop."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, err, out
from cli.terminal.screen import show_json
from cli.terminal.values import Version
from retrain_worker.exports.formats import Format


@command
def export_model(  # noqa: PLR0913 -- a command's options are its interface
    version: Version = None,
    to: Annotated[Format, typer.Option("--to", help="The format.")] = Format.ONNX,
    quantise: Annotated[bool, typer.Option("--quantise", help="int8: smaller and faster, less exact.")] = False,
    folder: Annotated[
        Path | None, typer.Option("--out", help="The folder to write. Default: PROJECT-VERSION-FORMAT in this folder.")
    ] = None,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Export a version as a model file, with labels, card and an example that runs it.

    The export is run on images of the project before it is kept. One that does not answer as the served model does is
    refused.
    """
    from cli.connect import open_deployment
    from cli.here.exports import ExportRequest, export_here
    from cli.terminal.reporting import reporting

    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    with reporting(err) as report:
        exported = export_here(deployment, record, ExportRequest(version, to, quantise, folder), report)
    measured = exported.measured
    if as_json:
        show_json({"folder": str(exported.folder), "format": to, "bytes": exported.size, **measured.to_json(),
                   "weights_licence": exported.licence})  # fmt: skip
        return
    out.print(f"{exported.folder}: {exported.size / 1e6:.1f} MB", highlight=False)
    out.print(f"  {measured.words}", highlight=False)
    out.print(f"  weights of the network: {exported.licence}", highlight=False)
    out.print(f"  try it: python {exported.folder / 'classify.py'} IMAGE", highlight=False)
