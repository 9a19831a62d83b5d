"""A model in, one ONNX file out, and its answers under ONNX Runtime. The only format that also holds ensembles."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.export import ExportedProgram

from labelloop.config.telemetry import tell_nobody
from labelloop.extras import extras_named
from labelloop.model.ensemble import EnsembleHead
from retrain_worker.exports.formats import Outputs, Run
from retrain_worker.exports.parts import Parts, Pixels, programs

if TYPE_CHECKING:
    import onnx

OPSET, IR_VERSION = 20, 10  # what runtimes of the last two years read
NAME = "model.onnx"
BATCH = 8  # images that calibrate at once
AXIS = "one"


def write(parts: Parts, folder: Path, calibration: Pixels | None) -> None:
    """Pixels in, probabilities out. ``calibration``: images to set the ranges of int8 by; None: float32."""
    tell_nobody()
    with extras_named():
        import onnx
        import onnxscript  # noqa: F401 -- torch writes ONNX with it, and would say less when it is missing
        from onnx import compose

    network, linear = programs(parts)
    body = _graph(network, parts.example(), ("images",), ("features",))
    if calibration is not None:
        body = _quantised(body, calibration)
    head = _graph(linear, _features(parts), ("features",), parts.outputs) if linear else _voting(parts)
    head.ir_version = body.ir_version = IR_VERSION
    head = compose.add_prefix(head, "head/", rename_inputs=False, rename_outputs=False)
    model = compose.merge_models(body, head, io_map=[("features", "features")], producer_name="labelloop")
    onnx.checker.check_model(model)
    onnx.save_model(model, str(folder / NAME))


def run(folder: Path) -> Run:
    """The file under ONNX Runtime, as its example runs it."""
    tell_nobody()
    import onnxruntime

    session = onnxruntime.InferenceSession(str(folder / NAME), providers=["CPUExecutionProvider"])
    return lambda pixels: Outputs(*session.run(None, {"images": pixels}))


def _features(parts: Parts) -> torch.Tensor:
    return torch.zeros(2, parts.classifier.dimension)


def _graph(
    program: ExportedProgram, example: torch.Tensor, inputs: tuple[str, ...], outputs: tuple[str, ...]
) -> onnx.ModelProto:
    made = torch.onnx.export(
        program, (example,), input_names=list(inputs), output_names=list(outputs), opset_version=OPSET, verbose=False
    )
    assert made is not None
    model: onnx.ModelProto = made.model_proto
    _forget_origin(model)
    return model


def _forget_origin(model: onnx.ModelProto) -> None:
    """Without the notes of which line of which file each node came from: paths of this machine."""
    del model.metadata_props[:]
    graph = model.graph
    del graph.metadata_props[:]
    for part in (*graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for end in (*graph.input, *graph.output):
        end.type.tensor_type.shape.dim[0].dim_param = "n"


def _quantised(model: onnx.ModelProto, images: Pixels) -> onnx.ModelProto:
    """int8 weights and activations, with ranges from real images."""
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.batches: Iterator[Pixels] = (images[i : i + BATCH] for i in range(0, len(images), BATCH))

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {"images": batch}

    with tempfile.TemporaryDirectory() as place:
        whole, ready, done = (str(Path(place) / name) for name in ("whole.onnx", "ready.onnx", "done.onnx"))
        onnx.save_model(model, whole)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        quantize_static(
            ready, done, Reader(), quant_format=QuantFormat.QDQ, per_channel=True, weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )  # fmt: skip
        return onnx.load_model(done)


def _voting(parts: Parts) -> onnx.ModelProto:
    """The members of an ensemble side by side, their mean, and the temperature."""
    from onnx import TensorProto, helper, numpy_helper

    head, names = parts.classifier, parts.names
    assert isinstance(head, EnsembleHead)
    nodes: list[Any] = []
    constants = [
        numpy_helper.from_array(np.array(1 / head.temperature), "sharpness"),
        numpy_helper.from_array(np.array([1]), AXIS),
        numpy_helper.from_array(names.sums.astype(np.float64), "sums"),
    ]
    votes = []
    for number, member in enumerate(head.members):
        own, vote = _member(member.model, f"member{number}/")
        nodes += own.node
        nodes.append(helper.make_node("Cast", [vote], [f"{vote}/double"], to=TensorProto.DOUBLE))
        constants += own.initializer
        votes.append(f"{vote}/double")
    nodes += [
        helper.make_node("Sum", votes, ["votes"]),  # the mean, but for a factor that the division takes out
        helper.make_node("Pow", ["votes", "sharpness"], ["raised"]),
        helper.make_node("ReduceSum", ["raised", AXIS], ["sum"], keepdims=1),
        helper.make_node("Div", ["raised", "sum"], ["shares"]),
        helper.make_node("MatMul", ["shares", "sums"], ["named"]),  # classes that were merged or dropped since
        helper.make_node("ReduceSum", ["named", AXIS], ["kept"], keepdims=1),
        helper.make_node("Div", ["named", "kept"], ["renamed"]),
        helper.make_node("Cast", ["renamed"], ["probabilities"], to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes, "head",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", head.dimension])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", len(names.labels)])],
        constants,
    )  # fmt: skip
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION)


def _member(data: bytes, prefix: str) -> tuple[onnx.GraphProto, str]:
    """A member's graph with names of its own, and the name of its answer."""
    import onnx
    from onnx import compose

    model = compose.add_prefix(onnx.ModelProto.FromString(data), prefix, rename_inputs=False)
    for node in model.graph.node:
        if node.op_type == "ReduceSumSquare":  # from operators 18 on it takes its axes as an input
            del node.attribute[:]
            node.input.append(AXIS)
    return model.graph, str(model.graph.output[0].name)
