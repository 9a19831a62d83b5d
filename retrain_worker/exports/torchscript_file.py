"""A model in, one TorchScript file out, and its answers under libtorch."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from retrain_worker.exports.formats import Outputs, Run
from retrain_worker.exports.parts import Parts, Pixels

NAME = "model.pt"


def write(parts: Parts, folder: Path, calibration: Pixels | None) -> None:
    """Pixels in, probabilities out, for any number of images."""
    assert calibration is None  # `check_holds` has refused it
    with torch.no_grad(), _deprecated():
        traced = torch.jit.trace(parts.whole(), (parts.example(),))  # type: ignore[no-untyped-call]
        torch.jit.save(traced, str(folder / NAME))


def run(folder: Path) -> Run:
    """The file as its example runs it."""
    with _deprecated():
        model = torch.jit.load(str(folder / NAME))  # type: ignore[no-untyped-call]

    def answers(pixels: Pixels) -> Outputs:
        with torch.inference_mode():
            said = model(torch.from_numpy(pixels))
        return Outputs(*(part.numpy() for part in (said if isinstance(said, tuple) else (said,))))

    return answers


@contextmanager
def _deprecated() -> Iterator[None]:
    """Nobody is told here that torch gives this format up: docs/exports.md says so, and C++ programs still run it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*torch\.jit\.")
        yield
