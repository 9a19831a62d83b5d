"""`predict`: a file, a folder, a list or a place in S3 in, one file with a class for each image out."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.terminal.app import DEFAULT_STATE, AsJson, ProjectName, StateDir, command, err, out
from cli.terminal.reporting import reporting
from cli.terminal.screen import show_json
from labelloop.errors import SettingsError
from operations.people import me

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.here.predict_here import Model
    from labelloop.store.projects import ProjectRecord
    from operations.batch.asked import Asked
    from operations.batch.write import Written
    from operations.deployment import Deployment

What = Annotated[
    str, typer.Argument(help="An image, a folder, a list (one path or address a line) or s3://bucket/prefix.")
]
To = Annotated[str, typer.Option("--out", help="FILE.csv, FILE.jsonl, FILE.parquet, or such an address in S3.")]
As = Annotated[
    str | None,
    typer.Option("--format", help="csv, jsonl, parquet, or list: plain lines `file label`. Default: by --out."),
]
Top = Annotated[int, typer.Option("--top", min=1, max=100, help="So many of the likeliest classes for each image.")]


@command
def predict(  # noqa: PLR0913 -- a command's options are its interface
    what: What,
    to: To,
    by: Annotated[
        str | None, typer.Option("--version", help="The version that answers. Default: the champion.")
    ] = None,
    form: As = None,
    exported: Annotated[
        Path | None, typer.Option("--model", help="A folder that export-model wrote answers instead; needs no stack.")
    ] = None,
    top: Top = 3,
    project: ProjectName = None,
    as_json: AsJson = False,
    state_dir: StateDir = DEFAULT_STATE,
) -> None:
    """Name the class of many images: files here, by this command; images in S3, by the workers.

    Stopped, it goes on where it was when it is run again, with the same version. Images that cannot be read are listed
    in a file beside --out.
    """
    from cli.connect import open_deployment
    from operations.batch.asked import asked_for
    from operations.batch.write import format_of

    kind = format_of(to, form)
    if exported:
        asked = asked_for(what, None)
        written = _by_export(exported, asked, _Wish(to, kind, by, top))
        _show(written, asked, as_json=as_json)
        return
    deployment = open_deployment(state_dir)
    record = deployment.project(project)
    asked = asked_for(what, deployment)
    finish = _by_workers if asked.images else _here
    written = finish(deployment, record, asked, _Wish(to, kind, by, top))
    _show(written, asked, as_json=as_json)


def _show(written: Written, asked: Asked, *, as_json: bool) -> None:
    if as_json:
        show_json(asdict(written))
        return
    out.print(f"{written.out}: {written.images - written.errors} images, by {written.version}", highlight=False)
    if written.errors:
        err.print(f"{written.errors} images could not be read: {written.errors_out}", highlight=False)
    if asked.left_out:
        err.print(f"{asked.left_out} files are no images and were left out", highlight=False)


@dataclass(frozen=True, slots=True)
class _Wish:
    out: str
    kind: str
    version: str | None
    top: int


def _by_workers(deployment: Deployment, record: ProjectRecord, asked: Asked, wish: _Wish) -> Written:
    from operations.batch.shards import begin, end, follow, gathered
    from operations.batch.write import write

    batch = begin(deployment, record, asked, wish.version, wish.top, by=me())
    with reporting(err) as report:
        follow(deployment, record, batch, report)
    written = write(wish.out, wish.kind, batch.version, gathered(deployment, record, batch), deployment)
    end(deployment, record, batch)
    return written


def _here(deployment: Deployment, record: ProjectRecord, asked: Asked, wish: _Wish) -> Written:
    from cli.here.predict_here import model_of

    version = deployment.version(record, wish.version)
    model = model_of(deployment, record, version, wish.top)
    return _files(asked, wish, model, {"version": version.name, "head": version.head_key}, deployment)


def _by_export(folder: Path, asked: Asked, wish: _Wish) -> Written:
    from cli.here.predict_here import exported_model

    if wish.version:
        raise SettingsError("--model has one version: leave --version out")
    model = exported_model(folder, wish.top)
    return _files(asked, wish, model, {"model": str(folder.resolve()), "version": model.name}, None)


def _files(
    asked: Asked, wish: _Wish, model: Model, of: Mapping[str, str], deployment: Deployment | None
) -> Written:  # fmt: skip
    """``of``: what tells this model from others."""
    from cli.here.predict_here import answered
    from operations.batch.part import Part
    from operations.batch.write import write

    name = Path(wish.out)
    folder = Path() if wish.out.startswith("s3://") else name.parent
    what = {"place": asked.place, "top": wish.top, **of}
    with Part(folder / f".{name.name}.part", what) as part, reporting(err) as report:
        guesses = answered(asked.files, model, part, report)
        written = write(wish.out, wish.kind, model.name, guesses, deployment)
        part.drop()
    return written
