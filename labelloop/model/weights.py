"""Where a network's first weights come from: a local file, the hub, or a random start that says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from labelloop.errors import SettingsError
from labelloop.model.packaged import packaged

PROBE_S = 3.0
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WeightsSource:
    """What to give to timm. ``provenance`` says in words where the weights came from."""

    file: Path | None
    pretrained: bool
    provenance: str
    packaged: bool = False  # a package of ours has them, under other names than timm's


def find_weights(name: str, pretrained: str | bool, folders: Sequence[Path], *, offline: bool) -> WeightsSource:
    """Weights for a timm network; SettingsError where those asked for cannot be had."""
    if pretrained is False or pretrained == "false":
        return WeightsSource(None, False, "random start, as asked")
    if pretrained is True or pretrained == "true":
        return _demanded(name, folders, offline=offline)
    if pretrained == "auto":
        return _automatic(name, folders, offline=offline)
    return _file(str(pretrained), folders)


def source_of(name: str, folders: Sequence[Path], *, offline: bool) -> str | None:
    """Where weights of a network would come from, in words; None where there are none to be had."""
    weights, _ = _available(name, folders, offline=offline)
    return weights.provenance if weights else None


def _file(text: str, folders: Sequence[Path]) -> WeightsSource:
    """A path, or a file name in one of the weights folders."""
    places = [Path(text).expanduser(), *(folder / text for folder in folders)]
    path = next((p for p in places if p.is_file()), None)
    if path is None:
        where = ", ".join(str(f) for f in folders) or "no folder (LABELLOOP_WEIGHTS is empty)"
        raise SettingsError(f"backbone.pretrained names {text}, which is neither a file nor in {where}")
    if path.suffix != ".safetensors":
        raise SettingsError(f"{path.name} is no .safetensors file; other formats are pickles and are not loaded")
    return WeightsSource(path, True, f"file {path.name}")


def _demanded(name: str, folders: Sequence[Path], *, offline: bool) -> WeightsSource:
    weights, why = _available(name, folders, offline=offline)
    if weights is None:
        raise SettingsError(
            f"backbone.pretrained is true, but there are no weights for {name}: {why}. Put a .safetensors file in a "
            "folder that LABELLOOP_WEIGHTS names and set backbone.pretrained to its name, or allow the download"
        )
    return weights


def _automatic(name: str, folders: Sequence[Path], *, offline: bool) -> WeightsSource:
    weights, why = _available(name, folders, offline=offline)
    if weights is not None:
        return weights
    log.warning("no weights, random start", action="weights_fallback", backbone=name, why=why)
    return WeightsSource(None, False, f"random start, because no weights could be had: {why}")


def _available(name: str, folders: Sequence[Path], *, offline: bool) -> tuple[WeightsSource | None, str]:
    """Local file first, then an installed package, the hub's local cache, the hub; or why there is none."""
    if (here := at_hand(name, folders)) is not None:
        return here, ""
    import timm  # seconds, and what is at hand needs it not

    config = timm.get_pretrained_cfg(name)
    hub = config.hf_hub_id if config is not None else None
    if not hub:
        return None, "timm knows no pretrained weights for it"
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(hub, "model.safetensors")
    if isinstance(cached, str):
        return WeightsSource(Path(cached), True, f"hub {hub} (local cache)"), ""
    if offline:
        return None, "offline (LABELLOOP_OFFLINE is set)"
    return _download(hub)


def at_hand(name: str, folders: Sequence[Path]) -> WeightsSource | None:
    """What lies on this machine for certain: a file of the weights folders, or a package of ours."""
    for folder in folders:
        for path in sorted({*folder.glob(f"{name}.safetensors"), *folder.glob(f"{name}.*.safetensors")}):
            return WeightsSource(path, True, f"file {path.name}")
    ours = packaged(name)
    return WeightsSource(None, False, f"{ours.name} of an installed package", packaged=True) if ours else None


def _download(hub: str) -> tuple[WeightsSource | None, str]:
    """One probe with a short time-out, so that a machine without a way out does not wait for minutes."""
    import huggingface_hub

    try:
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=PROBE_S)
        path = huggingface_hub.hf_hub_download(hub, "model.safetensors")
    except Exception as error:  # the hub's client raises its own, httpx's and the system's errors
        return None, f"the hub cannot be reached or lacks {hub}: {type(error).__name__}: {str(error)[:200]}"
    return WeightsSource(Path(path), True, f"hub {hub}"), ""
