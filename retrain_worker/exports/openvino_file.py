"""A model in, OpenVINO's two files out, and their answers under OpenVINO."""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from labelloop.config.telemetry import tell_nobody
from labelloop.extras import extras_named
from retrain_worker.exports.formats import Outputs, Run
from retrain_worker.exports.parts import Parts, Pixels, programs

if TYPE_CHECKING:
    import openvino

NAME = "model.xml"
EXACT = {"INFERENCE_PRECISION_HINT": "f32"}  # some processors would round to bfloat16 of themselves
BATCH = 1


def write(parts: Parts, folder: Path, calibration: Pixels | None) -> None:
    """Pixels in, probabilities out. ``calibration``: images to set the ranges of int8 by; None: float32."""
    tell_nobody()
    import openvino

    network, head = programs(parts)
    assert head is not None  # `check_holds` has refused ensembles
    side = parts.size
    body = openvino.convert_model(network)
    body.reshape({0: openvino.PartialShape([-1, 3, side, side])})
    if calibration is not None:
        body = _quantised(body, calibration)
    model = _joined(body, openvino.convert_model(head), parts.outputs)
    openvino.save_model(model, folder / NAME, compress_to_fp16=False)


def run(folder: Path) -> Run:
    """The files under OpenVINO, as their example runs them."""
    tell_nobody()
    import openvino

    compiled = openvino.Core().compile_model(folder / NAME, "CPU", EXACT)
    return lambda pixels: Outputs(*(np.array(said) for said in compiled(pixels).values()))


def _joined(body: openvino.Model, head: openvino.Model, outputs: tuple[str, ...]) -> openvino.Model:
    """The network's answer becomes what the head takes."""
    import openvino

    features = body.output(0).get_node().input_value(0)
    head.input(0).get_node().output(0).replace(features)
    model = openvino.Model(head.get_results(), body.get_parameters(), "labelloop")
    for output, name in zip(model.outputs, outputs, strict=True):
        output.get_tensor().set_names({name})
    model.input(0).get_tensor().set_names({"images"})
    model.validate_nodes_and_infer_types()
    return model


def _quantised(model: openvino.Model, images: Pixels) -> Any:
    """int8 weights and activations, with ranges from real images."""
    batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
    with _silent(), extras_named():
        import nncf

        return nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Standard output may be JSON for a machine, and what is looked for in vain (CUDA) nobody needs here."""
    chatty = logging.getLogger("torch.utils.cpp_extension")
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        chatty.setLevel(level)
