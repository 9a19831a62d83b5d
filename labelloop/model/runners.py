"""What computes a network's features: PyTorch, or OpenVINO on a CPU where it gives the same numbers in less time."""

from __future__ import annotations

import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from labelloop.config.telemetry import tell_nobody
from labelloop.decoding.square import Pixels

Floats = NDArray[np.float32]
Run = Callable[[Pixels], Floats]  # (n, 3, size, size) uint8 to (n, dimension)

SAME = 1e-4  # largest difference, relative to the largest value: what an order of sums may do
SAMPLE = 8  # images to compare and to measure by
ROUNDS = 5
CHEAP = 20e6  # operations an image: there is nothing to win
CONVOLUTIONS = 0.9  # their share of the operations from which on OpenVINO wins; transformers are PyTorch's
SLOWER = 1.5  # times as slow: this machine is unlike those that the rule was made on


@dataclass(frozen=True, slots=True)
class Chosen:
    """The faster of the two. ``why``: in words, for the log."""

    name: str  # torch | openvino
    run: Run
    why: str


class Pixelwise(nn.Module):
    """Pixels in, features out: a network with its normalisation."""

    def __init__(self, module: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.module = module
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)

    def forward(self, images: Tensor) -> Tensor:
        """(n, 3, size, size) uint8 to (n, dimension)."""
        features: Tensor = self.module((images.float() / 255 - self.get_buffer("mean")) / self.get_buffer("std"))
        return features


def choose(by_torch: Run, network: Callable[[], Pixelwise], size: int) -> Chosen:
    """By what the network is, not by a stopwatch alone: a run that is repeated must find the same numbers.

    ``network``: a copy on the CPU that nobody else uses. PyTorch where OpenVINO is missing, cannot hold the network or
    gives other numbers.
    """
    copy = network()
    operations, share = _work(copy, size)
    if operations < CHEAP:
        return Chosen("torch", by_torch, f"{operations / 1e6:.1f} million operations an image: there is nothing to win")
    if share < CONVOLUTIONS:
        return Chosen("torch", by_torch, f"{100 * share:.0f} % of its work are convolutions: PyTorch is as fast")
    sample = np.random.default_rng(0).integers(0, 256, (SAMPLE, 3, size, size), dtype=np.uint8)
    try:
        run = openvino_run(copy, size)
        found = run(sample)
    except Exception as error:  # a compiler's errors have no base of their own, and PyTorch can do without it
        return Chosen("torch", by_torch, f"OpenVINO cannot: {type(error).__name__}: {str(error)[:200]}")
    expected = by_torch(sample)
    off = float(np.abs(found - expected).max()) / max(float(np.abs(expected).max()), 1e-6)
    if not off <= SAME:  # also catches NaN
        return Chosen("torch", by_torch, f"OpenVINO is {off:.1g} off, {SAME:.0e} is allowed")
    other, spent = _seconds(sample, run, by_torch)
    figures = f"OpenVINO {other * 1e3:.1f} ms an image, PyTorch {spent * 1e3:.1f}, {off:.0e} apart"
    return Chosen("torch", by_torch, figures) if other > SLOWER * spent else Chosen("openvino", run, figures)


def _work(network: Pixelwise, size: int) -> tuple[float, float]:
    """Operations of one image, and the share of them that are convolutions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros((1, 3, size, size), dtype=torch.uint8))
    by_kind = {str(kind): count for kind, count in counter.get_flop_counts().get("Global", {}).items()}
    total = sum(by_kind.values())
    return float(total), sum(n for kind, n in by_kind.items() if "conv" in kind) / max(total, 1)


def openvino_run(network: Pixelwise, size: int) -> Run:
    """The network compiled for this CPU, in full precision; safe to call from several threads, one after the other."""
    tell_nobody()
    import openvino

    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")  # of the tracer, about shapes that are fixed here
        model = openvino.convert_model(
            network.eval(),
            example_input=torch.zeros((2, 3, size, size), dtype=torch.uint8),
            input=[openvino.PartialShape([-1, 3, size, size])],
        )
    wanted = {
        "INFERENCE_PRECISION_HINT": "f32",  # some CPUs would take bfloat16 by themselves
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    request = openvino.Core().compile_model(model, "CPU", wanted).create_infer_request()
    turn = threading.Lock()

    def run(images: Pixels) -> Floats:
        with turn:
            return np.array(request.infer([np.ascontiguousarray(images)])[0], dtype=np.float32)

    return run


def _seconds(images: Pixels, *runs: Run) -> list[float]:
    """Of one image, by each, in turn: the quickest round, for other work only slows."""
    spent: list[list[float]] = [[] for _ in runs]
    for _ in range(ROUNDS):
        for run, times in zip(runs, spent, strict=True):
            began = time.perf_counter()
            run(images)
            times.append(time.perf_counter() - began)
    return [min(times) / len(images) for times in spent]
