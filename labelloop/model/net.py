"""A backbone: build, load, save, check a network together with its preprocessing (torch, timm)."""

from __future__ import annotations

import copy
import difflib
import hashlib
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as read_tensors
from safetensors.torch import save as write_tensors
from torch import Tensor, nn

from labelloop.clock import now
from labelloop.config import networks
from labelloop.config.networks import AUTO, PIXELS
from labelloop.config.project import BackboneSpec
from labelloop.decoding.square import BY_VALUES, RESAMPLING, Pixels, Square, decode
from labelloop.errors import CorruptArtefactError, SettingsError
from labelloop.model.cnn import SMALL_CNN, SmallCnn
from labelloop.model.neck import Necked, split
from labelloop.model.packaged import read_packaged
from labelloop.model.pixels import PixelNet
from labelloop.model.runners import Pixelwise, Run, choose
from labelloop.model.weights import WeightsSource, find_weights, source_of
from labelloop.records.json import canonical, digest
from labelloop.records.versions import BackboneRecord

Floats = NDArray[np.float32]

BATCH = 8  # images at a time: of 32, each costs PyTorch twice as much
PAYS_AFTER = 256  # images: looking for the faster runner takes as long as it wins on so many
CHECK_IMAGES = 2
CHECK_VALUES = 64  # feature values kept per check image
CHECK_TOLERANCE = 5e-3  # relative to the largest value: machines and thread counts round differently
UNIT = {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}
OWN: Mapping[str, tuple[Any, str]] = {  # built in: (module, where its weights come from)
    PIXELS: (PixelNet, "built in, needs no weights"),
    SMALL_CNN: (SmallCnn, "random start, as it is built in without weights"),
}
RESERVED = {"pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "num_classes"}

log = structlog.get_logger()


@contextmanager
def _whole_floats() -> Iterator[None]:
    """No TF32 on a GPU: features and heads must fit each other on every machine, and it is off by a hundredth."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


class Backbone:
    """A network without its classifier. ``module`` maps (n, 3, size, size) normalised floats to (n, dimension)."""

    def __init__(self, record: BackboneRecord, module: nn.Module, device: str = "cpu") -> None:
        self.record = record
        self.device = torch.device(device)
        self.module = module.eval().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.square = Square.of(record.preprocessing)
        shape = (1, 3, 1, 1)
        self._mean = torch.tensor(record.preprocessing["mean"], device=self.device).view(shape)
        self._std = torch.tensor(record.preprocessing["std"], device=self.device).view(shape)
        self.runner = "torch"
        self._run: Run = self._by_torch
        self._computed = 0  # images, until a runner was chosen
        self._choosing = threading.Lock()
        self._chosen = self.device.type != "cpu"

    def decode(self, data: bytes) -> Pixels:
        """Image bytes to (3, size, size) uint8; ImageUnreadableError."""
        return decode(data, self.square)

    def normalise(self, images: Tensor) -> Tensor:
        """(n, 3, size, size) uint8 to what ``module`` takes; shared by serving, featurising and training."""
        pixels = images.to(self.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        return (pixels.float().div_(255) - self._mean) / self._std

    def features(self, images: Pixels) -> Floats:
        """(n, 3, size, size) uint8 to (n, dimension) float32, without gradients, in batches."""
        if not len(images):
            return np.empty((0, self.record.dimension), dtype=np.float32)
        if not self._chosen:
            self._computed += len(images)
            if self._computed > PAYS_AFTER:
                self.quicken()
        return np.concatenate([self._run(images[i : i + BATCH]) for i in range(0, len(images), BATCH)])

    def quicken(self) -> None:
        """Compute with what is fastest here for the same numbers: seconds, once; `features` does it by itself.

        The module must not be trained afterwards: `clone` it for that.
        """
        if self._chosen or not self._choosing.acquire(blocking=False):
            return  # another thread is at it: until then, this one goes on as before
        try:
            if not self._chosen:
                found = choose(self._by_torch, self._pixelwise, self.square.size)
                self._run, self.runner, self._chosen = found.run, found.name, True
                log.info("runner chosen", action="runner", backbone=self.record.id, runner=found.name, why=found.why)
        finally:
            self._choosing.release()

    def _pixelwise(self) -> Pixelwise:
        module = copy.deepcopy(self.module).to(memory_format=torch.contiguous_format)
        return Pixelwise(module, self._mean.clone(), self._std.clone())

    def _by_torch(self, images: Pixels) -> Floats:
        with torch.inference_mode(), _whole_floats():
            tensor = torch.from_numpy(np.ascontiguousarray(images))
            return np.array(self.module(self.normalise(tensor)).float().cpu().numpy())

    def clone(self) -> Backbone:
        """A copy whose module may be trained; the original keeps serving."""
        return Backbone(self.record, copy.deepcopy(self.module), str(self.device))

    def recorded(self, *, provenance: str, snapshot: str | None) -> Backbone:
        """The same module under a new record (id, hash, checks): call it after a fine-tune."""
        record = replace(self.record, provenance=provenance, snapshot=snapshot)
        return _recorded(record, self.module, str(self.device))


def build(spec: BackboneSpec, weights_dirs: Sequence[Path], *, offline: bool = False, device: str = "cpu") -> Backbone:
    """A new backbone from a project's config; SettingsError where it cannot be built as asked."""
    if RESERVED & set(spec.options):
        raise SettingsError(f"backbone.options must not hold {', '.join(sorted(RESERVED & set(spec.options)))}")
    if spec.name == AUTO:
        spec = spec.model_copy(update={"name": _chosen(weights_dirs, offline=offline, device=device)})
    if spec.name in OWN:
        return _build_own(spec, device)
    _require_known(spec.name)
    options = _options(spec)
    weights = find_weights(spec.name, spec.pretrained, weights_dirs, offline=offline)
    module = _network(spec.name, options, weights)
    preprocessing = {**_timm_preprocessing(module, spec), **_configured(spec)}
    return _recorded(_blank(spec.name, options, preprocessing, weights.provenance), module, device)


def _chosen(weights_dirs: Sequence[Path], *, offline: bool, device: str) -> str:
    """Where nobody chose when a project was made: as `labelloop init` does for photographs."""
    return networks.choose((), lambda name: source_of(name, weights_dirs, offline=offline), gpu=device != "cpu").name


def check(spec: BackboneSpec, weights_dirs: Sequence[Path], *, offline: bool = False) -> None:
    """SettingsError where `build` would fail for what the config says; reads no weights."""
    if RESERVED & set(spec.options):
        raise SettingsError(f"backbone.options must not hold {', '.join(sorted(RESERVED & set(spec.options)))}")
    if spec.name == AUTO:
        return
    if spec.name in OWN:
        _build_own(spec, "cpu")
        return
    _require_known(spec.name)
    if spec.pretrained not in {"auto", False, "false"}:
        find_weights(spec.name, spec.pretrained, weights_dirs, offline=offline)
    with torch.device("meta"):
        _network(spec.name, _options(spec), WeightsSource(None, False, "a random start"))


def load(record: BackboneRecord, weights: bytes, *, device: str = "cpu") -> Backbone:
    """A recorded backbone; CorruptArtefactError where the weights are not those that were recorded."""
    if digest(weights) != record.weights_sha256:
        raise CorruptArtefactError(f"the weights of backbone {record.id} do not have the recorded hash")
    module = _empty(record)
    try:
        module.load_state_dict(read_tensors(weights), strict=True)
    except (SafetensorError, RuntimeError, KeyError) as error:
        raise CorruptArtefactError(f"the weights of backbone {record.id} do not fit {record.name}: {error}") from error
    return Backbone(record, module, device)


def follows(record: BackboneRecord, spec: BackboneSpec) -> bool:
    """Whether a project's config still asks for the network that was recorded; not from which weights it began."""
    shape = record.preprocessing
    kept = {name: value for name, value in record.options.items() if name != "img_size" or name in spec.options}
    return (
        spec.name in {AUTO, record.name}
        and kept == dict(spec.options)
        and spec.image_size in {None, int(shape["size"])}
        and list(shape.get("steps", ())) == [step.model_dump(mode="json") for step in spec.steps]
        and (spec.scale != "unit" or {k: list(shape[k]) for k in UNIT} == UNIT)
    )


def dump(backbone: Backbone) -> bytes:
    """Safetensors bytes of the module: the same bytes for the same values, whatever the memory layout."""
    return _dump(backbone.module)


def best_device() -> str:
    """A GPU where torch sees one, else the CPU."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def verify(backbone: Backbone) -> None:
    """Run the recorded self-check; CorruptArtefactError where outputs are not those of its creation."""
    expected = np.asarray(backbone.record.checks.get("features", ()), dtype=np.float32)
    outputs = _check_features(backbone)[:, :CHECK_VALUES]
    if expected.shape != outputs.shape:
        raise CorruptArtefactError(
            f"backbone {backbone.record.id}: self-check of shape {outputs.shape}, {expected.shape} was recorded"
        )
    worst = float(np.abs(expected - outputs).max())
    allowed = CHECK_TOLERANCE * max(float(np.abs(expected).max()), 1e-3)
    if not worst <= allowed:  # also catches NaN
        raise CorruptArtefactError(
            f"backbone {backbone.record.id}: outputs are {worst:.3g} off those recorded ({allowed:.3g} allowed)"
        )


def _dump(module: nn.Module) -> bytes:
    state = {name: value.detach().cpu().contiguous().clone() for name, value in module.state_dict().items()}
    return bytes(write_tensors(state))


def _recorded(record: BackboneRecord, module: nn.Module, device: str) -> Backbone:
    """Fill in what follows from the weights: hash, id, dimension, checks."""
    sha = digest(_dump(module))
    seal = digest(sha.encode() + canonical(record.preprocessing) + canonical(record.options))[:10]
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", record.name)
    record = replace(record, id=f"{name}-{seal}", weights_sha256=sha, created_at=now())
    outputs = _check_features(Backbone(record, module, device))
    checks = {"features": [[round(float(v), 6) for v in row[:CHECK_VALUES]] for row in outputs]}
    return Backbone(replace(record, dimension=int(outputs.shape[1]), checks=checks), module, device)


def _check_features(backbone: Backbone) -> Floats:
    """Features of known noise; hashed, not drawn, so that no library version changes it."""
    size = backbone.square.size
    noise = hashlib.shake_256(b"labelloop backbone check").digest(CHECK_IMAGES * 3 * size * size)
    return backbone.features(np.frombuffer(noise, dtype=np.uint8).reshape(CHECK_IMAGES, 3, size, size).copy())


def _blank(name: str, options: Mapping[str, Any], preprocessing: Mapping[str, Any], provenance: str) -> BackboneRecord:
    return BackboneRecord("", name, options, preprocessing, 0, "", provenance)


def _empty(record: BackboneRecord) -> nn.Module:
    """The record's architecture, weights still to come."""
    if record.name in OWN:
        return _own(record.name, int(record.preprocessing["size"]), record.options)
    _require_known(record.name)
    return _network(record.name, record.options, WeightsSource(None, False, ""))


def _build_own(spec: BackboneSpec, device: str) -> Backbone:
    kind, provenance = OWN[spec.name]
    size = spec.image_size or kind.SIZE
    preprocessing = {
        "size": size, "crop": 1.0, "crop_mode": "squash", "interpolation": "bilinear",
        "depth": BY_VALUES, **UNIT, **_configured(spec),
    }  # fmt: skip
    try:
        module = _own(spec.name, size, spec.options)
    except (TypeError, ValueError, MemoryError, RuntimeError) as error:  # torch says the lack of memory in its own way
        raise SettingsError(f"backbone.options do not fit the built-in {spec.name} backbone: {error}") from error
    return _recorded(_blank(spec.name, spec.options, preprocessing, provenance), module, device)


def _own(name: str, size: int, options: Mapping[str, Any]) -> nn.Module:
    """A random start is the same in every process."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = OWN[name][0](size, **options)
        return module


def _configured(spec: BackboneSpec) -> dict[str, Any]:
    """What the config says of preprocessing; nothing where it says nothing, so that no backbone changes its id."""
    steps = {"steps": [step.model_dump(mode="json") for step in spec.steps]} if spec.steps else {}
    return {**steps, **(UNIT if spec.scale == "unit" else {})}


def _network(name: str, options: Mapping[str, Any], weights: WeightsSource) -> nn.Module:
    """A timm network that returns pooled features."""
    overlay = {"pretrained_cfg_overlay": {"file": str(weights.file)}} if weights.file else {}
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # a random start is the same in every process
        try:
            own, units, dropout = split(options)
            module = timm.create_model(name, pretrained=weights.pretrained, num_classes=0, **overlay, **own)
            if weights.packaged:
                module.load_state_dict(read_packaged(name, tuple(len(stage) for stage in module.blocks)), strict=True)
            if units is not None:
                module = Necked(module, int(getattr(module, "head_hidden_size", module.num_features)), units, dropout)
        except (
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            AssertionError,
            RuntimeError,
            OSError,
            SafetensorError,
        ) as error:  # fmt: skip -- what options do to a network is its own affair
            raise SettingsError(f"backbone {name} cannot be built from {weights.provenance}: {error}") from error
    assert isinstance(module, nn.Module)
    return module


def _options(spec: BackboneSpec) -> dict[str, Any]:
    import timm

    options = dict(spec.options)
    config = timm.get_pretrained_cfg(spec.name)
    if spec.image_size and config is not None and config.fixed_input_size:
        options["img_size"] = spec.image_size  # transformers interpolate their position embedding
    return options


def _timm_preprocessing(module: nn.Module, spec: BackboneSpec) -> dict[str, Any]:
    import timm

    config = timm.data.resolve_model_data_config(module.body if isinstance(module, Necked) else module)
    interpolation = config["interpolation"] if config["interpolation"] in RESAMPLING else "bicubic"
    return {
        "size": spec.image_size or int(config["input_size"][-1]),
        "crop": float(config["crop_pct"]),
        "crop_mode": "squash" if config["crop_mode"] == "squash" else "center",
        "interpolation": interpolation,
        "depth": BY_VALUES,  # a new record: those of before keep what their features were made with
        "mean": [float(v) for v in config["mean"]],
        "std": [float(v) for v in config["std"]],
    }


def _require_known(name: str) -> None:
    """Only networks of the installed timm: a hub address could bring its own code or config."""
    import timm  # seconds, most of them for torchvision: the built-in backbone does without

    if not timm.is_model(name):
        near = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        hint = f"; near: {', '.join(near)}" if near else ""
        own = ", ".join(map(repr, OWN))
        raise SettingsError(f"backbone.name {name!r} is neither built in ({own}) nor a network of timm{hint}")
    try:
        timm.get_pretrained_cfg(name)
    except RuntimeError as error:  # the part behind the dot names weights
        tags = ", ".join(timm.list_pretrained(f"{name.partition('.')[0]}.*")[:3])
        raise SettingsError(f"backbone.name {name!r} names weights that timm does not know; it knows {tags}") from error
