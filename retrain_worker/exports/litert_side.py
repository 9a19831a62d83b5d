"""The part of a TFLite export that runs in LiteRT's own environment, where there is no labelloop.

`convert PROGRAM TFLITE [IMAGES]` turns a program of `torch.export` into a TFLite file, int8 where images are given;
`run TFLITE IMAGES ANSWERS` keeps what that file says of images. Arrays are .npy and .npz files.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

IMAGES = "args_0"  # what the converter calls the first argument
FLOAT = (  # what the head is made of, and what goes in and comes out
    "INPUT", "OUTPUT", "FULLY_CONNECTED", "SOFTMAX", "LOGISTIC", "MUL", "SUB", "DIV", "SUM", "SQRT", "RESHAPE",
    "MAXIMUM", "BATCH_MATMUL", "TRANSPOSE",
)  # fmt: skip


def convert(program: str, target: str, images: str | None) -> None:
    """One image at a time: (1, 3, size, size) uint8 in."""
    import litert_torch
    import torch

    exported = torch.export.load(program)
    example = tuple(exported.example_inputs[0])
    litert_torch.convert(exported.module(), example).export(target)
    if images:
        _quantise(target, np.load(images, allow_pickle=False))


def _quantise(path: str, images: Any) -> None:
    """int8 weights and activations in the network, with ranges from these images; the head stays as exact as it is."""
    from ai_edge_quantizer import quantizer, recipe
    from ai_edge_quantizer.qtyping import TFLOperationName
    from ai_edge_quantizer.recipe import AlgorithmName

    plan = quantizer.Quantizer(path)
    plan.load_quantization_recipe(recipe.static_wi8_ai8())
    for name in FLOAT:
        plan.update_quantization_recipe(
            regex=".*", operation_name=TFLOperationName[name], algorithm_key=AlgorithmName.NO_QUANTIZE
        )
    ranges = plan.calibrate({"serving_default": [{IMAGES: image[None]} for image in images]})
    plan.quantize(ranges).export_model(path, overwrite=True)


def run(path: str, images: str, answers: str) -> None:
    """Row by row, outputs in their order."""
    from ai_edge_litert.interpreter import Interpreter

    model = Interpreter(path).get_signature_runner()
    rows = [[part for _, part in sorted(model(**{IMAGES: image[None]}).items())] for image in _each(images)]
    columns = [np.concatenate(column) for column in zip(*rows, strict=True)]
    with Path(answers).open("wb") as file:
        np.savez(file, **{f"output_{i}": column for i, column in enumerate(columns)})


def _each(images: str) -> Any:
    return np.load(images, allow_pickle=False, mmap_mode="r")


if __name__ == "__main__":
    what, *arguments = sys.argv[1:]
    if what == "convert":
        convert(arguments[0], arguments[1], arguments[2] if len(arguments) > 2 else None)
    else:
        run(*arguments)
