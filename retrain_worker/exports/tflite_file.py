"""A model in, one TFLite file out, and its answers under LiteRT: both in LiteRT's own environment, as a child process.

What is handed over is a program of `torch.export`, which the older torch there reads, and arrays of pixels.
"""

from __future__ import annotations

import copy
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from labelloop.errors import SettingsError
from retrain_worker.exports import litert_side
from retrain_worker.exports.formats import Outputs, Run
from retrain_worker.exports.parts import Parts, Pixels, followed

NAME = "model.tflite"
LIMIT_S = 1800.0
SAID = 6  # lines of what the converter said at last


@dataclass(frozen=True, slots=True)
class LiteRt:
    """``python``: of the environment that `embedded/litert.lock` describes."""

    python: Path

    def write(self, parts: Parts, folder: Path, calibration: Pixels | None) -> None:
        """One image in, probabilities out. ``calibration``: images to set the ranges of int8 by; None: float32."""
        whole = copy.deepcopy(parts.whole()).to(memory_format=torch.contiguous_format)
        with tempfile.TemporaryDirectory() as place:
            program, images = Path(place) / "program.pt2", Path(place) / "images.npy"
            torch.export.save(followed(whole, parts.example(1), any_number=False), program)
            if calibration is not None:
                np.save(images, calibration)
            self._call("convert", program, folder / NAME, *([images] if calibration is not None else []))

    def run(self, folder: Path) -> Run:
        """The file under LiteRT, as its example runs it."""

        def answers(pixels: Pixels) -> Outputs:
            with tempfile.TemporaryDirectory() as place:
                images, said = Path(place) / "images.npy", Path(place) / "said.npz"
                np.save(images, pixels)
                self._call("run", folder / NAME, images, said)
                with np.load(said, allow_pickle=False) as outputs:
                    return Outputs(*(outputs[name] for name in sorted(outputs.files)))

        return answers

    def _call(self, *words: str | Path) -> None:
        command = [str(self.python), "-I", litert_side.__file__, *(str(word) for word in words)]
        try:
            ended = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                timeout=LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise SettingsError(f"LiteRT took longer than {LIMIT_S:.0f} s: use another format") from error
        if ended.returncode:
            end = " / ".join(ended.stderr.strip().splitlines()[-SAID:])
            raise SettingsError(f"LiteRT cannot {words[0]} this model: {end}. Use --to onnx or openvino")
